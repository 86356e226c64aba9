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
    Asset { name: "Alerts-C6dYL22e.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Alerts-C6dYL22e.js.gz") },
    Asset { name: "Cardinality-DzHNw-o6.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Cardinality-DzHNw-o6.js.gz") },
    Asset { name: "Connect-B2qwd9MA.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Connect-B2qwd9MA.js.gz") },
    Asset { name: "Empty-BYOUCugF.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Empty-BYOUCugF.js.gz") },
    Asset { name: "Explain-tSWhQVs1.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Explain-tSWhQVs1.js.gz") },
    Asset { name: "Explore-DQxwynWf.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Explore-DQxwynWf.js.gz") },
    Asset { name: "Members-DswfcIvQ.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Members-DswfcIvQ.js.gz") },
    Asset { name: "Queries-rG--i44Y.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Queries-rG--i44Y.js.gz") },
    Asset { name: "Rules-DLQLHJH4.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Rules-DLQLHJH4.js.gz") },
    Asset { name: "Shell-mqfIHAzZ.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Shell-mqfIHAzZ.js.gz") },
    Asset { name: "Status-Avuwv0lD.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Status-Avuwv0lD.js.gz") },
    Asset { name: "Storage-CfXGdJvH.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Storage-CfXGdJvH.js.gz") },
    Asset { name: "Targets-mVv7sEX6.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Targets-mVv7sEX6.js.gz") },
    Asset { name: "Tenants-CM5go4dR.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Tenants-CM5go4dR.js.gz") },
    Asset { name: "ask-D7nfh2ra.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/ask-D7nfh2ra.js.gz") },
    Asset { name: "axes-CMLy-NhS.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/axes-CMLy-NhS.js.gz") },
    Asset { name: "codemirror-DbzlAK5D.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/codemirror-DbzlAK5D.js.gz") },
    Asset { name: "heat-DovKVv0W.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/heat-DovKVv0W.js.gz") },
    Asset { name: "icon-1kRSZ-Ov.svg", kind: "image/svg+xml", gzip: include_bytes!("dist/icon-1kRSZ-Ov.svg.gz") },
    Asset { name: "index-HhHIb5uM.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/index-HhHIb5uM.js.gz") },
    Asset { name: "plot-Dlr0j4CM.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/plot-Dlr0j4CM.js.gz") },
    Asset { name: "style-Cqdf52m-.css", kind: "text/css; charset=utf-8", gzip: include_bytes!("dist/style-Cqdf52m-.css.gz") },
    Asset { name: "licences.txt", kind: "text/plain; charset=utf-8", gzip: include_bytes!("dist/licences.txt.gz") },
];
