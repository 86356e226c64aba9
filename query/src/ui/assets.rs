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
    Asset { name: "Alerts-BkelG9Es.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Alerts-BkelG9Es.js.gz") },
    Asset { name: "Cardinality-CD0P4JVl.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Cardinality-CD0P4JVl.js.gz") },
    Asset { name: "Connect-BWQQWQM0.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Connect-BWQQWQM0.js.gz") },
    Asset { name: "Empty-B0joD87C.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Empty-B0joD87C.js.gz") },
    Asset { name: "Explain-Cq1kog1N.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Explain-Cq1kog1N.js.gz") },
    Asset { name: "Explore-BUQHSALb.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Explore-BUQHSALb.js.gz") },
    Asset { name: "Members-Dmn22ih4.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Members-Dmn22ih4.js.gz") },
    Asset { name: "Picker-DKJSfbMp.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Picker-DKJSfbMp.js.gz") },
    Asset { name: "Queries-C9Sb94zH.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Queries-C9Sb94zH.js.gz") },
    Asset { name: "Rules-ubdVv4kR.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Rules-ubdVv4kR.js.gz") },
    Asset { name: "Shell-CPS0_oVW.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Shell-CPS0_oVW.js.gz") },
    Asset { name: "Status-B1mlQvT8.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Status-B1mlQvT8.js.gz") },
    Asset { name: "Storage-CwltCtP2.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Storage-CwltCtP2.js.gz") },
    Asset { name: "Targets-BGdzcZES.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Targets-BGdzcZES.js.gz") },
    Asset { name: "Tenants-CJcD03TZ.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Tenants-CJcD03TZ.js.gz") },
    Asset { name: "ask-DbeE7mVR.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/ask-DbeE7mVR.js.gz") },
    Asset { name: "axes-_jcNZRIW.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/axes-_jcNZRIW.js.gz") },
    Asset { name: "codemirror-BrvkpcWi.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/codemirror-BrvkpcWi.js.gz") },
    Asset { name: "heat-C40nu7uE.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/heat-C40nu7uE.js.gz") },
    Asset { name: "icon-1kRSZ-Ov.svg", kind: "image/svg+xml", gzip: include_bytes!("dist/icon-1kRSZ-Ov.svg.gz") },
    Asset { name: "index-DVUrXhpy.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/index-DVUrXhpy.js.gz") },
    Asset { name: "plot-Cvf3c4oW.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/plot-Cvf3c4oW.js.gz") },
    Asset { name: "style-CuEWkcta.css", kind: "text/css; charset=utf-8", gzip: include_bytes!("dist/style-CuEWkcta.css.gz") },
    Asset { name: "virtual-CEjhV6BE.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/virtual-CEjhV6BE.js.gz") },
    Asset { name: "licences.txt", kind: "text/plain; charset=utf-8", gzip: include_bytes!("dist/licences.txt.gz") },
];
