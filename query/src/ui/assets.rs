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
    Asset { name: "Alerts-BZ_qSRWs.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Alerts-BZ_qSRWs.js.gz") },
    Asset { name: "Cardinality-AAPMq1RS.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Cardinality-AAPMq1RS.js.gz") },
    Asset { name: "Connect-CJdUxdN-.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Connect-CJdUxdN-.js.gz") },
    Asset { name: "Empty-BSwgpIjJ.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Empty-BSwgpIjJ.js.gz") },
    Asset { name: "Explain-BiZr_77M.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Explain-BiZr_77M.js.gz") },
    Asset { name: "Explore-DebAGtdb.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Explore-DebAGtdb.js.gz") },
    Asset { name: "Members-BiTuObGr.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Members-BiTuObGr.js.gz") },
    Asset { name: "Picker-BGilIcSG.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Picker-BGilIcSG.js.gz") },
    Asset { name: "Queries-CDm__icB.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Queries-CDm__icB.js.gz") },
    Asset { name: "Rules-BebKCKaw.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Rules-BebKCKaw.js.gz") },
    Asset { name: "Shell-BWeXaKnw.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Shell-BWeXaKnw.js.gz") },
    Asset { name: "Status-D0IKX-F2.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Status-D0IKX-F2.js.gz") },
    Asset { name: "Storage-BsSUW3dN.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Storage-BsSUW3dN.js.gz") },
    Asset { name: "Targets-BSbZEDOF.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Targets-BSbZEDOF.js.gz") },
    Asset { name: "Tenants-hXnB2uMr.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Tenants-hXnB2uMr.js.gz") },
    Asset { name: "ask-TYSVHWxn.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/ask-TYSVHWxn.js.gz") },
    Asset { name: "axes-BA6Nn3Al.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/axes-BA6Nn3Al.js.gz") },
    Asset { name: "codemirror-B7Gazepu.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/codemirror-B7Gazepu.js.gz") },
    Asset { name: "heat-B9u3ffOY.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/heat-B9u3ffOY.js.gz") },
    Asset { name: "icon-1kRSZ-Ov.svg", kind: "image/svg+xml", gzip: include_bytes!("dist/icon-1kRSZ-Ov.svg.gz") },
    Asset { name: "index-Bs6pm19g.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/index-Bs6pm19g.js.gz") },
    Asset { name: "plot-x60GH9Wv.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/plot-x60GH9Wv.js.gz") },
    Asset { name: "style-CkV5KNhG.css", kind: "text/css; charset=utf-8", gzip: include_bytes!("dist/style-CkV5KNhG.css.gz") },
    Asset { name: "virtual-CQsrqk-d.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/virtual-CQsrqk-d.js.gz") },
    Asset { name: "licences.txt", kind: "text/plain; charset=utf-8", gzip: include_bytes!("dist/licences.txt.gz") },
];
