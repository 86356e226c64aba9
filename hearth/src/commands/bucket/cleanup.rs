//! `hearth bucket cleanup`: objects that nobody needs, and their removal.

use super::table::{Table, colour, time};
use super::{Bucket, print, to_json};
use crate::commands::one_shot::CommandError;
use crate::commands::quantities::{count, size};
use crate::{complain, say};
use compactor::inspect::orphans::{Orphan, orphans, strays};
use serde_json::{Value, json};
use std::time::Duration;

impl Bucket {
    pub(super) fn cleanup(&self, delete: bool, older_than: Duration) -> Result<bool, CommandError> {
        let now_ms = match delete {
            true => {
                self.runtime.block_on(self.maintenance.cautious_now_ms()).map_err(CommandError::failed)?
            }
            // Only to say what there is; it needs no right to write.
            false => self.maintenance.clock().now_ms(),
        };
        let mut found: Vec<Orphan> = Vec::new();
        let mut failed = Vec::new();
        for tenant in &self.tenants {
            let catalog = self.catalog(tenant)?;
            let of = self.runtime.block_on(orphans(&self.maintenance, &catalog, older_than, now_ms));
            for (orphan, piece) in of.map_err(CommandError::failed)? {
                if delete && let Err(e) = self.runtime.block_on(piece.remove(&self.maintenance, tenant)) {
                    failed.push(e.to_string());
                }
                found.push(orphan);
            }
            if delete {
                self.runtime.block_on(catalog.prune());
            }
        }
        let strays = self
            .runtime
            .block_on(strays(&self.maintenance, older_than, now_ms))
            .map_err(CommandError::failed)?;
        for stray in strays.iter().filter(|_| delete) {
            if let Err(e) = self.runtime.block_on(self.maintenance.remove_orphan(stray)) {
                failed.push(e.to_string());
            }
        }
        let objects = found.iter().map(|o| o.objects).sum::<u64>() + strays.len() as u64;
        let bytes = found.iter().map(|o| o.bytes).sum::<u64>() + strays.iter().map(|s| s.bytes).sum::<u64>();
        if self.json {
            let strays: Vec<Value> = strays
                .iter()
                .map(|s| json!({ "object": s.object, "bytes": s.bytes, "written_ms": s.written_ms }))
                .collect();
            print(
                &json!({ "deleted": delete, "objects": objects, "bytes": bytes, "orphans": to_json(&found), "strays": strays, "failures": failed }),
            );
            return Ok(failed.is_empty());
        }
        let mut table = Table::new(&["TENANT", "WHAT", ">OBJECTS", ">SIZE", "WRITTEN (UTC)"]);
        for o in &found {
            let line = [
                o.tenant.clone(),
                format!("{} {}", o.kind, o.name),
                count(o.objects),
                size(o.bytes),
                time(o.written_ms),
            ];
            table.line(line.to_vec());
        }
        for s in &strays {
            table.line(vec![String::new(), s.object.clone(), "1".into(), size(s.bytes), time(s.written_ms)]);
        }
        if !table.is_empty() {
            say(table.render(colour()));
        }
        failed.iter().for_each(|e| complain(format_args!("not removed: {e}")));
        let done = match (objects, delete) {
            (0, _) => "nothing that nobody needs".to_owned(),
            (_, true) => format!("{} objects, {}: removed", count(objects), size(bytes)),
            (_, false) => {
                format!("{} objects, {}: `--delete` removes them", count(objects), size(bytes))
            }
        };
        say(format_args!("{done}\n"));
        Ok(failed.is_empty())
    }
}
