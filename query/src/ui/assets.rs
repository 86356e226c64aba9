//! The files of the built page, written by `npm run build` in `query/ui`: names carry a hash of the contents, contents are compressed.

/// A file under `ui/`.
pub struct Asset {
    pub name: &'static str,
    /// Its media type.
    pub kind: &'static str,
    pub gzip: &'static [u8],
}

#[rustfmt::skip]
pub const ASSETS: [Asset; 21] = [
    Asset { name: "Alerts-Df57n8xN.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Alerts-Df57n8xN.js.gz") },
    Asset { name: "Cardinality-D4WJEjmX.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Cardinality-D4WJEjmX.js.gz") },
    Asset { name: "Connect-3ZpqJ1LF.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Connect-3ZpqJ1LF.js.gz") },
    Asset { name: "Explore-Cmplq4Ii.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Explore-Cmplq4Ii.js.gz") },
    Asset { name: "Members-DVUth8ML.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Members-DVUth8ML.js.gz") },
    Asset { name: "Queries-D2CmSLUE.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Queries-D2CmSLUE.js.gz") },
    Asset { name: "Rules-4z73a1kN.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Rules-4z73a1kN.js.gz") },
    Asset { name: "Shell-D7-Q27BQ.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Shell-D7-Q27BQ.js.gz") },
    Asset { name: "Status-CWcblO7a.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Status-CWcblO7a.js.gz") },
    Asset { name: "Storage-CooY2BNa.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Storage-CooY2BNa.js.gz") },
    Asset { name: "Targets-DXgKGz3U.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Targets-DXgKGz3U.js.gz") },
    Asset { name: "Tenants-BukIbwlr.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Tenants-BukIbwlr.js.gz") },
    Asset { name: "ask-DZ2d6dsW.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/ask-DZ2d6dsW.js.gz") },
    Asset { name: "axes-Cshw-mIx.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/axes-Cshw-mIx.js.gz") },
    Asset { name: "codemirror-BG6p2Xqe.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/codemirror-BG6p2Xqe.js.gz") },
    Asset { name: "heat-DxAg2g21.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/heat-DxAg2g21.js.gz") },
    Asset { name: "icon-1kRSZ-Ov.svg", kind: "image/svg+xml", gzip: include_bytes!("dist/icon-1kRSZ-Ov.svg.gz") },
    Asset { name: "index-BXu2_bJj.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/index-BXu2_bJj.js.gz") },
    Asset { name: "plot-Bh9ISCdt.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/plot-Bh9ISCdt.js.gz") },
    Asset { name: "style-liRlPvoN.css", kind: "text/css; charset=utf-8", gzip: include_bytes!("dist/style-liRlPvoN.css.gz") },
    Asset { name: "licences.txt", kind: "text/plain; charset=utf-8", gzip: include_bytes!("dist/licences.txt.gz") },
];
