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
pub const ASSETS: [Asset; 21] = [
    Asset { name: "Alerts-DR1zmoW6.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Alerts-DR1zmoW6.js.gz") },
    Asset { name: "Cardinality-DsY5HSGf.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Cardinality-DsY5HSGf.js.gz") },
    Asset { name: "Connect-B-T_ZHVp.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Connect-B-T_ZHVp.js.gz") },
    Asset { name: "Explore-C8f36LtB.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Explore-C8f36LtB.js.gz") },
    Asset { name: "Members-DCZTfinJ.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Members-DCZTfinJ.js.gz") },
    Asset { name: "Queries-C52k_mG6.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Queries-C52k_mG6.js.gz") },
    Asset { name: "Rules-Wz-RuBRf.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Rules-Wz-RuBRf.js.gz") },
    Asset { name: "Shell-DTD_6srs.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Shell-DTD_6srs.js.gz") },
    Asset { name: "Status-CD3fjr-W.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Status-CD3fjr-W.js.gz") },
    Asset { name: "Storage-GPSZxihb.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Storage-GPSZxihb.js.gz") },
    Asset { name: "Targets-7bjxvhg0.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Targets-7bjxvhg0.js.gz") },
    Asset { name: "Tenants-ZXNqtxkM.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/Tenants-ZXNqtxkM.js.gz") },
    Asset { name: "ask-DwqudRuP.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/ask-DwqudRuP.js.gz") },
    Asset { name: "axes-B-0wEmo-.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/axes-B-0wEmo-.js.gz") },
    Asset { name: "codemirror-Wb6cHzDj.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/codemirror-Wb6cHzDj.js.gz") },
    Asset { name: "heat-C2FyZGlE.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/heat-C2FyZGlE.js.gz") },
    Asset { name: "icon-1kRSZ-Ov.svg", kind: "image/svg+xml", gzip: include_bytes!("dist/icon-1kRSZ-Ov.svg.gz") },
    Asset { name: "index-DLMyxxzD.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/index-DLMyxxzD.js.gz") },
    Asset { name: "plot-B7b23q2B.js", kind: "text/javascript; charset=utf-8", gzip: include_bytes!("dist/plot-B7b23q2B.js.gz") },
    Asset { name: "style-liRlPvoN.css", kind: "text/css; charset=utf-8", gzip: include_bytes!("dist/style-liRlPvoN.css.gz") },
    Asset { name: "licences.txt", kind: "text/plain; charset=utf-8", gzip: include_bytes!("dist/licences.txt.gz") },
];
