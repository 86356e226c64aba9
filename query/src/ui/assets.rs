//! The files of the built page, written by `npm run build` in `query/ui`: names carry a hash of the contents,
//! contents are compressed.

/// A file under `ui/`.
pub struct Asset {
    pub name: &'static str,
    /// Its media type.
    pub kind: &'static str,
    pub gzip: &'static [u8],
}

#[rustfmt::skip]
pub const ASSETS: [Asset; 25] = [
    Asset { name: "Alerts-CpacE6WY.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Alerts-CpacE6WY.js.gz") },
    Asset { name: "Cardinality-NxoRcQPO.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Cardinality-NxoRcQPO.js.gz") },
    Asset { name: "Connect-VTIbVsaN.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Connect-VTIbVsaN.js.gz") },
    Asset { name: "Empty-BClcKuyg.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Empty-BClcKuyg.js.gz") },
    Asset { name: "Explain-Cj2UmTL6.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Explain-Cj2UmTL6.js.gz") },
    Asset { name: "Explore-Bx6zK7bW.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Explore-Bx6zK7bW.js.gz") },
    Asset { name: "Members-BMc0IpB7.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Members-BMc0IpB7.js.gz") },
    Asset { name: "Picker-p1Dz80xk.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Picker-p1Dz80xk.js.gz") },
    Asset { name: "Queries-CG3IXVrm.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Queries-CG3IXVrm.js.gz") },
    Asset { name: "Rules-CwMvdMKL.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Rules-CwMvdMKL.js.gz") },
    Asset { name: "Shell-XFW1UnWO.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Shell-XFW1UnWO.js.gz") },
    Asset { name: "Status-BfzgKKXJ.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Status-BfzgKKXJ.js.gz") },
    Asset { name: "Storage-DFBPDHDO.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Storage-DFBPDHDO.js.gz") },
    Asset { name: "Targets-xnJpHr7W.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Targets-xnJpHr7W.js.gz") },
    Asset { name: "Tenants-1-eGDtco.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Tenants-1-eGDtco.js.gz") },
    Asset { name: "ask-DgflMKSV.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/ask-DgflMKSV.js.gz") },
    Asset { name: "axes-BixRl0Wv.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/axes-BixRl0Wv.js.gz") },
    Asset { name: "codemirror-D0STRkid.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/codemirror-D0STRkid.js.gz") },
    Asset { name: "heat-DZz62aJB.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/heat-DZz62aJB.js.gz") },
    Asset { name: "icon-1kRSZ-Ov.svg", kind: "image/svg+xml", gzip: include_bytes!("dist/icon-1kRSZ-Ov.svg.gz") },
    Asset { name: "index-DgspvNAr.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/index-DgspvNAr.js.gz") },
    Asset { name: "plot-xffe5FuK.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/plot-xffe5FuK.js.gz") },
    Asset { name: "style-CuEWkcta.css", kind: "text/css; charset=utf-8", gzip: include_bytes!("dist/style-CuEWkcta.css.gz") },
    Asset { name: "virtual-DO7_pv5C.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/virtual-DO7_pv5C.js.gz") },
    Asset { name: "licences.txt", kind: "text/plain; charset=utf-8", gzip: include_bytes!("dist/licences.txt.gz") },
];
