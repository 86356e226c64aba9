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
pub const ASSETS: [Asset; 23] = [
    Asset { name: "Alerts-0nch4aeH.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Alerts-0nch4aeH.js.gz") },
    Asset { name: "Cardinality-D9RUWQ8F.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Cardinality-D9RUWQ8F.js.gz") },
    Asset { name: "Connect-CHgVNyR2.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Connect-CHgVNyR2.js.gz") },
    Asset { name: "Empty-SR3RoGXY.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Empty-SR3RoGXY.js.gz") },
    Asset { name: "Explain-BShS393l.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Explain-BShS393l.js.gz") },
    Asset { name: "Explore-DZmrXXoM.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Explore-DZmrXXoM.js.gz") },
    Asset { name: "Members-B9LEIBzH.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Members-B9LEIBzH.js.gz") },
    Asset { name: "Queries-D95GNUPr.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Queries-D95GNUPr.js.gz") },
    Asset { name: "Rules-Dv9ZuYnW.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Rules-Dv9ZuYnW.js.gz") },
    Asset { name: "Shell-CnR_lIOa.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Shell-CnR_lIOa.js.gz") },
    Asset { name: "Status-DeYn6xzg.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Status-DeYn6xzg.js.gz") },
    Asset { name: "Storage-BeEYzJ7n.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Storage-BeEYzJ7n.js.gz") },
    Asset { name: "Targets-p96u5Cbw.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Targets-p96u5Cbw.js.gz") },
    Asset { name: "Tenants-B_DpXMLo.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Tenants-B_DpXMLo.js.gz") },
    Asset { name: "ask-BPrxpFEK.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/ask-BPrxpFEK.js.gz") },
    Asset { name: "axes-CUqvIqXZ.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/axes-CUqvIqXZ.js.gz") },
    Asset { name: "codemirror-ibkZEkj4.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/codemirror-ibkZEkj4.js.gz") },
    Asset { name: "heat-BA0cjImK.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/heat-BA0cjImK.js.gz") },
    Asset { name: "icon-1kRSZ-Ov.svg", kind: "image/svg+xml", gzip: include_bytes!("dist/icon-1kRSZ-Ov.svg.gz") },
    Asset { name: "index--lo0TCqc.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/index--lo0TCqc.js.gz") },
    Asset { name: "plot-CYJJz3Zr.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/plot-CYJJz3Zr.js.gz") },
    Asset { name: "style-CfkQC8Pt.css", kind: "text/css; charset=utf-8", gzip: include_bytes!("dist/style-CfkQC8Pt.css.gz") },
    Asset { name: "licences.txt", kind: "text/plain; charset=utf-8", gzip: include_bytes!("dist/licences.txt.gz") },
];
