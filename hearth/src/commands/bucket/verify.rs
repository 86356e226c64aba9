//! `hearth bucket verify`: whether catalog, checksums, order and counts are what they should be.

use super::table::{Table, colour};
use super::{Bucket, print, to_json};
use crate::commands::one_shot::CommandError;
use crate::commands::quantities::{count, size};
use crate::say;
use compactor::inspect::check::{Report, Severity, check_attachments, check_block, check_catalog};
use ulid::Ulid;

impl Bucket {
    pub(super) fn verify(&self, blocks: &[Ulid], decode: bool) -> Result<bool, CommandError> {
        self.must_be_live(blocks)?;
        let mut report = Report::default();
        for tenant in &self.tenants {
            let catalog = self.catalog(tenant)?;
            let snapshot = self.runtime.block_on(check_catalog(&self.maintenance, &catalog, &mut report));
            let snapshot = snapshot.map_err(CommandError::failed)?;
            let checked = check_attachments(&self.maintenance, &catalog, &snapshot, blocks, &mut report);
            self.runtime.block_on(checked).map_err(CommandError::failed)?;
            for meta in snapshot.blocks.iter().filter(|b| blocks.is_empty() || blocks.contains(&b.ulid)) {
                let (runtime, before) = (self.runtime.handle(), report.findings.len());
                check_block(&self.maintenance, &self.store, runtime, tenant, meta, decode, &mut report)
                    .map_err(CommandError::failed)?;
                // A compactor may have replaced it while it was read, and a cleaner removed it.
                if report.findings.len() > before {
                    let now = self.runtime.block_on(catalog.refresh()).map_err(CommandError::failed)?;
                    if !now.blocks.iter().any(|b| b.ulid == meta.ulid) {
                        report.findings.truncate(before);
                    }
                }
            }
        }
        let fine = !report.damaged();
        if self.json {
            print(&to_json(&report));
            return Ok(fine);
        }
        let mut table = Table::new(&["", "TENANT", "BLOCK", "WHAT"]);
        for f in &report.findings {
            let severity = match f.severity {
                Severity::Damage => "DAMAGE",
                Severity::Note => "note",
            };
            table.line(vec![severity.into(), f.tenant.clone(), f.block.clone(), f.what.clone()]);
        }
        if !table.is_empty() {
            say(table.render(colour()));
        }
        say(format_args!(
            "{} snapshots, {} blocks and {} files beside them, {}, {} series, {} samples {}, {} exemplars, {} entries of metadata: {}\n",
            count(report.snapshots),
            count(report.blocks),
            count(report.sidecars),
            size(report.bytes),
            count(report.series),
            count(report.samples),
            if decode { "read" } else { "said (not decoded)" },
            count(report.exemplars),
            count(report.metadata),
            if fine { "all whole" } else { "DAMAGED" }
        ));
        Ok(fine)
    }
}
