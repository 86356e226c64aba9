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
pub const ASSETS: [Asset; 27] = [
    Asset { name: "Alerts-sq91URyN.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Alerts-sq91URyN.js.gz") },
    Asset { name: "Cardinality-BUk6MDca.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Cardinality-BUk6MDca.js.gz") },
    Asset { name: "Connect-Csh6RbMK.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Connect-Csh6RbMK.js.gz") },
    Asset { name: "Empty-BbDUiQbQ.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Empty-BbDUiQbQ.js.gz") },
    Asset { name: "Explain-C1rGUsZg.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Explain-C1rGUsZg.js.gz") },
    Asset { name: "Explore-7enL1Ej6.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Explore-7enL1Ej6.js.gz") },
    Asset { name: "Members-CLHruZ4R.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Members-CLHruZ4R.js.gz") },
    Asset { name: "Picker-llT1SM0o.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Picker-llT1SM0o.js.gz") },
    Asset { name: "Queries-BxR1j-iU.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Queries-BxR1j-iU.js.gz") },
    Asset { name: "Rules-B3m5vNef.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Rules-B3m5vNef.js.gz") },
    Asset { name: "Shell-DmPwTpPa.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Shell-DmPwTpPa.js.gz") },
    Asset { name: "Status-CZBuhXsl.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Status-CZBuhXsl.js.gz") },
    Asset { name: "Storage-DBTlZYbx.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Storage-DBTlZYbx.js.gz") },
    Asset { name: "Targets-BtbKI9jq.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Targets-BtbKI9jq.js.gz") },
    Asset { name: "Tenants-Qa-t1k64.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Tenants-Qa-t1k64.js.gz") },
    Asset { name: "api-BF_0Y9by.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/api-BF_0Y9by.js.gz") },
    Asset { name: "ask-DPC6Vqxf.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/ask-DPC6Vqxf.js.gz") },
    Asset { name: "axes-NqnUUzjd.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/axes-NqnUUzjd.js.gz") },
    Asset { name: "codemirror-C0RSaTBL.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/codemirror-C0RSaTBL.js.gz") },
    Asset { name: "heat-PCQS8Fa4.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/heat-PCQS8Fa4.js.gz") },
    Asset { name: "icon-1kRSZ-Ov.svg", kind: "image/svg+xml", gzip: include_bytes!("dist/icon-1kRSZ-Ov.svg.gz") },
    Asset { name: "index-RJ38vt8b.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/index-RJ38vt8b.js.gz") },
    Asset { name: "jsxRuntime-BSh-ceD7.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/jsxRuntime-BSh-ceD7.js.gz") },
    Asset { name: "plot-8Y7wc59t.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/plot-8Y7wc59t.js.gz") },
    Asset { name: "style-CuEWkcta.css", kind: "text/css; charset=utf-8", gzip: include_bytes!("dist/style-CuEWkcta.css.gz") },
    Asset { name: "virtual-CvKUy15r.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/virtual-CvKUy15r.js.gz") },
    Asset { name: "licences.txt", kind: "text/plain; charset=utf-8", gzip: include_bytes!("dist/licences.txt.gz") },
];
