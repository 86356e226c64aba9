//! `hearth bucket restore`: blocks that retention took out, and their way back.

use super::table::{Table, colour, resolution, time};
use super::{Bucket, print, to_json};
use crate::commands::one_shot::CommandError;
use crate::commands::quantities::{count, size};
use crate::{complain, say};
use compactor::inspect::expired::{ExpiredLine, expired, restore};
use compactor::settings::RetentionSettings;
use serde_json::json;
use ulid::Ulid;

impl Bucket {
    pub(super) fn restore(
        &self,
        blocks: &[Ulid],
        commit: bool,
        keep: &RetentionSettings,
    ) -> Result<bool, CommandError> {
        let now_ms = self.maintenance.clock().now_ms();
        let mut found: Vec<ExpiredLine> = Vec::new();
        for tenant in &self.tenants {
            let catalog = self.catalog(tenant)?;
            let lines = expired(tenant, &catalog.snapshot(), blocks, keep, now_ms);
            if commit && !lines.is_empty() {
                self.runtime.block_on(catalog.commit(&restore(&lines))).map_err(CommandError::failed)?;
            }
            found.extend(lines);
        }
        let known = |b: &&Ulid| found.iter().any(|line| line.block == b.to_string());
        if let Some(unknown) = blocks.iter().find(|b| !known(b)) {
            return Err(CommandError::Mend(format!(
                "block {unknown} is none that retention took out of the catalog of these tenants and that is still kept (retention_delay); \
                 `hearth bucket restore` lists those that are"
            )));
        }
        if self.json {
            print(&json!({ "restored": commit, "blocks": to_json(&found) }));
            return Ok(true);
        }
        let mut table = Table::new(&[
            "TENANT",
            "BLOCK",
            ">RES",
            "FROM (UTC)",
            "TO (UTC)",
            ">SAMPLES",
            ">SIZE",
            "OUT SINCE (UTC)",
        ]);
        for line in &found {
            table.line(vec![
                line.tenant.clone(),
                line.block.clone(),
                resolution(line.resolution_ms, false),
                time(line.min_t_ms),
                time(line.max_t_ms),
                count(line.samples),
                size(line.bytes),
                time(line.since_ms),
            ]);
        }
        if !table.is_empty() {
            say(table.render(colour()));
        }
        let past = found.iter().filter(|line| line.past_retention).count();
        if past > 0 {
            complain(format_args!(
                "{past} of them are past the retention that is set here: compaction that goes by it takes them out again with its next round. Raise the retention first, here and where compaction runs"
            ));
        }
        let done = match (found.len(), commit) {
            (0, _) => "retention took nothing out that is still kept".to_owned(),
            (n, true) => format!("{n} blocks are back"),
            (n, false) => format!("{n} blocks can be brought back: `--commit` does it"),
        };
        say(format_args!("{done}\n"));
        Ok(true)
    }
}
