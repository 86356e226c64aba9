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
    Asset { name: "Alerts-DSZBIsLv.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Alerts-DSZBIsLv.js.gz") },
    Asset { name: "Cardinality-CKizLCAd.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Cardinality-CKizLCAd.js.gz") },
    Asset { name: "Connect-Bgi2Pdq3.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Connect-Bgi2Pdq3.js.gz") },
    Asset { name: "Empty-DeXNnyQT.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Empty-DeXNnyQT.js.gz") },
    Asset { name: "Explain-BUNdp7Oo.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Explain-BUNdp7Oo.js.gz") },
    Asset { name: "Explore-D_Nq8zi4.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Explore-D_Nq8zi4.js.gz") },
    Asset { name: "Members-BtALV8oc.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Members-BtALV8oc.js.gz") },
    Asset { name: "Queries-vmUBy0PU.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Queries-vmUBy0PU.js.gz") },
    Asset { name: "Rules-Ceswlh_P.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Rules-Ceswlh_P.js.gz") },
    Asset { name: "Shell-DuNnQOzF.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Shell-DuNnQOzF.js.gz") },
    Asset { name: "Status-DxoT3Vcs.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Status-DxoT3Vcs.js.gz") },
    Asset { name: "Storage-DP2x8k3H.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Storage-DP2x8k3H.js.gz") },
    Asset { name: "Targets-BMXXg9kV.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Targets-BMXXg9kV.js.gz") },
    Asset { name: "Tenants-Dbx9aD5Y.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Tenants-Dbx9aD5Y.js.gz") },
    Asset { name: "ask-BvP_EIvH.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/ask-BvP_EIvH.js.gz") },
    Asset { name: "axes-i8mzZ7xq.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/axes-i8mzZ7xq.js.gz") },
    Asset { name: "codemirror-DoxhcGAC.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/codemirror-DoxhcGAC.js.gz") },
    Asset { name: "heat-mTaea8hW.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/heat-mTaea8hW.js.gz") },
    Asset { name: "icon-1kRSZ-Ov.svg", kind: "image/svg+xml", gzip: include_bytes!("dist/icon-1kRSZ-Ov.svg.gz") },
    Asset { name: "index-B6OE6odX.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/index-B6OE6odX.js.gz") },
    Asset { name: "plot-DgnWwdNe.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/plot-DgnWwdNe.js.gz") },
    Asset { name: "style-CfkQC8Pt.css", kind: "text/css; charset=utf-8", gzip: include_bytes!("dist/style-CfkQC8Pt.css.gz") },
    Asset { name: "licences.txt", kind: "text/plain; charset=utf-8", gzip: include_bytes!("dist/licences.txt.gz") },
];
