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
    Asset { name: "Alerts-DjhEV8bJ.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Alerts-DjhEV8bJ.js.gz") },
    Asset { name: "Cardinality-IqFrs2TY.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Cardinality-IqFrs2TY.js.gz") },
    Asset { name: "Connect-CVmNeLu2.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Connect-CVmNeLu2.js.gz") },
    Asset { name: "Explore-MeH7vR6f.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Explore-MeH7vR6f.js.gz") },
    Asset { name: "Members-CI3q0cKa.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Members-CI3q0cKa.js.gz") },
    Asset { name: "Queries-DhNsXm2V.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Queries-DhNsXm2V.js.gz") },
    Asset { name: "Rules-COgcdxmB.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Rules-COgcdxmB.js.gz") },
    Asset { name: "Shell-CrYnl1RB.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Shell-CrYnl1RB.js.gz") },
    Asset { name: "Status-JxVp9yRn.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Status-JxVp9yRn.js.gz") },
    Asset { name: "Storage-B1I7BtM5.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Storage-B1I7BtM5.js.gz") },
    Asset { name: "Targets-BPqJU0ZI.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Targets-BPqJU0ZI.js.gz") },
    Asset { name: "Tenants-BmMhNwcD.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Tenants-BmMhNwcD.js.gz") },
    Asset { name: "ask-BFJNWdlb.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/ask-BFJNWdlb.js.gz") },
    Asset { name: "axes-Bkl946-f.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/axes-Bkl946-f.js.gz") },
    Asset { name: "codemirror-B0DCEJ2W.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/codemirror-B0DCEJ2W.js.gz") },
    Asset { name: "heat-BxnlP84c.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/heat-BxnlP84c.js.gz") },
    Asset { name: "icon-1kRSZ-Ov.svg", kind: "image/svg+xml", gzip: include_bytes!("dist/icon-1kRSZ-Ov.svg.gz") },
    Asset { name: "index-CrepfV4e.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/index-CrepfV4e.js.gz") },
    Asset { name: "plot-8VaoJskp.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/plot-8VaoJskp.js.gz") },
    Asset { name: "style-liRlPvoN.css", kind: "text/css; charset=utf-8", gzip: include_bytes!("dist/style-liRlPvoN.css.gz") },
    Asset { name: "licences.txt", kind: "text/plain; charset=utf-8", gzip: include_bytes!("dist/licences.txt.gz") },
];
