//! `hearth bucket inspect`: a block, its description and its columns.

use super::table::{Table, colour, resolution, time};
use super::{Bucket, print, to_json};
use crate::commands::one_shot::CommandError;
use crate::commands::quantities::{count, size};
use crate::say;
use compactor::inspect::InspectError;
use compactor::inspect::listing::{BlockDetail, detail, per};
use tsdb::block::BlockError;
use ulid::Ulid;

impl Bucket {
    pub(super) fn inspect(&self, blocks: &[Ulid]) -> Result<bool, CommandError> {
        let mut found: Vec<BlockDetail> = Vec::new();
        for ulid in blocks {
            let mut why = CommandError::Mend(format!("block {ulid} is of none of the tenants"));
            let before = found.len();
            for tenant in &self.tenants {
                let snapshot = self.catalog(tenant)?.snapshot();
                if let Some((kind, file)) = snapshot.sidecars().find(|(_, f)| f.ulid == *ulid) {
                    why = CommandError::Mend(format!(
                        "{ulid} is no block but a file of {} of tenant {tenant}: {} rows, {}; any reader of Parquet shows it: {}",
                        kind.as_str(),
                        count(file.rows),
                        size(file.bytes),
                        kind.path(tenant, *ulid)
                    ));
                    continue;
                }
                match self.runtime.block_on(detail(&self.maintenance, tenant, &snapshot, *ulid)) {
                    Ok(one) => found.push(one),
                    Err(e @ InspectError::Block(BlockError::Missing { .. })) => {
                        why = CommandError::Mend(e.to_string());
                    }
                    Err(e) => why = CommandError::failed(e),
                }
            }
            if found.len() == before {
                return Err(why);
            }
        }
        if self.json {
            print(&to_json(&found));
            return Ok(true);
        }
        found.iter().for_each(|b| say(show_block(b)));
        Ok(true)
    }
}

fn show_block(block: &BlockDetail) -> String {
    let m = &block.meta;
    let mut out = format!(
        "block {}{}\n  tenant {}, {}, level {}, format {}, by {}\n  {} to {} UTC\n  {} series, {} samples ({} histograms, {} staleness markers), {} rows\n  {} timelines of {} timestamps in all\n  {}: series {}, timelines {}, samples {}; {:.3} bytes a sample\n",
        m.ulid,
        if block.live { "" } else { " (not live: no part of the newest snapshot)" },
        m.tenant,
        resolution(m.resolution_ms, m.approximate),
        m.level,
        m.version,
        m.writer,
        time(m.min_t_ms),
        time(m.max_t_ms),
        count(m.stats.series),
        count(m.stats.samples),
        count(m.stats.histograms),
        count(m.stats.stale_markers),
        count(m.stats.rows),
        count(m.stats.timelines),
        count(m.stats.timeline_timestamps),
        size(m.files.bytes()),
        size(m.files.series.bytes),
        size(m.files.timelines.bytes),
        size(m.files.samples.bytes),
        per(m.files.bytes(), m.stats.samples)
    );
    if let Some(share) = &m.share {
        let names = format!("{:?} to {:?}", share.first_name, share.last_name);
        out += &format!("  share {} of {}: metrics {names}\n", share.number, share.whole);
    }
    for (name, value) in &m.external_labels {
        out += &format!("  external label {name}={value:?}\n");
    }
    if !m.sources.is_empty() {
        let sources: Vec<String> = m.sources.iter().map(Ulid::to_string).collect();
        out += &format!("  made of {}\n", sources.join(" "));
    }
    let mut table =
        Table::new(&["FILE", "COLUMN", ">GROUPS", ">PAGES", ">VALUES", ">SIZE", ">PLAIN", "ENCODINGS"]);
    for c in &block.columns {
        table.line(vec![
            c.file.into(),
            c.column.clone(),
            count(c.row_groups),
            count(c.pages),
            count(c.values),
            size(c.compressed_bytes),
            size(c.uncompressed_bytes),
            c.encodings.join(" "),
        ]);
    }
    out + &table.render(colour()) + "\n"
}
