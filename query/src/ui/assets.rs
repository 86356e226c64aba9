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
    Asset { name: "Alerts-bxq1UzZ_.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Alerts-bxq1UzZ_.js.gz") },
    Asset { name: "Cardinality-Dxgpl7Tz.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Cardinality-Dxgpl7Tz.js.gz") },
    Asset { name: "Connect-ArwKWhmk.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Connect-ArwKWhmk.js.gz") },
    Asset { name: "Empty-DCwl10rZ.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Empty-DCwl10rZ.js.gz") },
    Asset { name: "Explain-CYiHcV48.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Explain-CYiHcV48.js.gz") },
    Asset { name: "Explore-2cktCpdw.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Explore-2cktCpdw.js.gz") },
    Asset { name: "Members-CcnPv7T7.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Members-CcnPv7T7.js.gz") },
    Asset { name: "Picker-BE1JpH96.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Picker-BE1JpH96.js.gz") },
    Asset { name: "Queries-D5O0aOWG.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Queries-D5O0aOWG.js.gz") },
    Asset { name: "Rules-BkQ036WT.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Rules-BkQ036WT.js.gz") },
    Asset { name: "Shell-gUmhTxuv.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Shell-gUmhTxuv.js.gz") },
    Asset { name: "Status-To_VnYaQ.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Status-To_VnYaQ.js.gz") },
    Asset { name: "Storage-C0KwcsKT.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Storage-C0KwcsKT.js.gz") },
    Asset { name: "Targets-BrYR9kRj.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Targets-BrYR9kRj.js.gz") },
    Asset { name: "Tenants-BiRooTMe.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Tenants-BiRooTMe.js.gz") },
    Asset { name: "ask-CTH2kApn.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/ask-CTH2kApn.js.gz") },
    Asset { name: "axes-BphynoqN.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/axes-BphynoqN.js.gz") },
    Asset { name: "codemirror-DpDs2fem.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/codemirror-DpDs2fem.js.gz") },
    Asset { name: "heat-Deq3Qb5M.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/heat-Deq3Qb5M.js.gz") },
    Asset { name: "icon-1kRSZ-Ov.svg", kind: "image/svg+xml", gzip: include_bytes!("dist/icon-1kRSZ-Ov.svg.gz") },
    Asset { name: "index-6IL9DwJg.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/index-6IL9DwJg.js.gz") },
    Asset { name: "plot-gWjTMrY-.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/plot-gWjTMrY-.js.gz") },
    Asset { name: "style-CuEWkcta.css", kind: "text/css; charset=utf-8", gzip: include_bytes!("dist/style-CuEWkcta.css.gz") },
    Asset { name: "virtual-B7T-NpkZ.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/virtual-B7T-NpkZ.js.gz") },
    Asset { name: "licences.txt", kind: "text/plain; charset=utf-8", gzip: include_bytes!("dist/licences.txt.gz") },
];
