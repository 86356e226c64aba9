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
    Asset { name: "Alerts-BNRx7Q1r.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Alerts-BNRx7Q1r.js.gz") },
    Asset { name: "Cardinality-7fB7tOfB.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Cardinality-7fB7tOfB.js.gz") },
    Asset { name: "Connect-_-Nqig9U.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Connect-_-Nqig9U.js.gz") },
    Asset { name: "Empty-Bql1UEju.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Empty-Bql1UEju.js.gz") },
    Asset { name: "Explain-_R_6y6eB.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Explain-_R_6y6eB.js.gz") },
    Asset { name: "Explore-CXJrY68s.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Explore-CXJrY68s.js.gz") },
    Asset { name: "Members-BcIRPqbk.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Members-BcIRPqbk.js.gz") },
    Asset { name: "Queries-BSeXjTF3.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Queries-BSeXjTF3.js.gz") },
    Asset { name: "Rules-BHIU0oox.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Rules-BHIU0oox.js.gz") },
    Asset { name: "Shell-RBHzecZz.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Shell-RBHzecZz.js.gz") },
    Asset { name: "Status-Ce3drTe5.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Status-Ce3drTe5.js.gz") },
    Asset { name: "Storage-CXUqBnAU.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Storage-CXUqBnAU.js.gz") },
    Asset { name: "Targets-CSOwL2Ll.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Targets-CSOwL2Ll.js.gz") },
    Asset { name: "Tenants-Bg4sf9T4.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Tenants-Bg4sf9T4.js.gz") },
    Asset { name: "ask-9TX2ZuRZ.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/ask-9TX2ZuRZ.js.gz") },
    Asset { name: "axes-sQjRNRRD.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/axes-sQjRNRRD.js.gz") },
    Asset { name: "codemirror-U8asnZZc.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/codemirror-U8asnZZc.js.gz") },
    Asset { name: "heat-lSiMKc3n.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/heat-lSiMKc3n.js.gz") },
    Asset { name: "icon-1kRSZ-Ov.svg", kind: "image/svg+xml", gzip: include_bytes!("dist/icon-1kRSZ-Ov.svg.gz") },
    Asset { name: "index-f2w8L1Je.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/index-f2w8L1Je.js.gz") },
    Asset { name: "plot-DYVzVDjN.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/plot-DYVzVDjN.js.gz") },
    Asset { name: "style-CFXiBYXE.css", kind: "text/css; charset=utf-8", gzip: include_bytes!("dist/style-CFXiBYXE.css.gz") },
    Asset { name: "licences.txt", kind: "text/plain; charset=utf-8", gzip: include_bytes!("dist/licences.txt.gz") },
];
