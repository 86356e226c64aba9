//! `hearth bucket ls`: tenants and their blocks.

use super::table::{Table, colour, resolution, time};
use super::{Bucket, beside, print, to_json};
use crate::commands::one_shot::CommandError;
use crate::commands::quantities::{count, size};
use crate::say;
use compactor::inspect::listing::{TenantListing, listing, per};

impl Bucket {
    pub(super) fn ls(&self) -> Result<bool, CommandError> {
        let mut all: Vec<TenantListing> = Vec::new();
        for tenant in &self.tenants {
            all.push(listing(tenant, &self.catalog(tenant)?.snapshot()));
        }
        if self.json {
            print(&to_json(&all));
            return Ok(true);
        }
        for of in &all {
            let mut table = Table::new(&[
                "BLOCK",
                ">LEVEL",
                ">RES",
                "FROM (UTC)",
                "TO (UTC)",
                ">SERIES",
                ">SAMPLES",
                ">SIZE",
                ">B/SAMPLE",
                "BY",
            ]);
            for b in &of.blocks {
                table.line(vec![
                    b.block.clone(),
                    b.level.to_string(),
                    resolution(b.resolution_ms, b.approximate),
                    time(b.min_t_ms),
                    time(b.max_t_ms),
                    count(b.series),
                    count(b.samples),
                    size(b.bytes),
                    format!("{:.3}", b.bytes_per_sample),
                    b.writer.clone(),
                ]);
            }
            let (bytes, samples) = of.blocks.iter().fold((0, 0), |(b, s), l| (b + l.bytes, s + l.samples));
            say(format_args!(
                "tenant {}: {} blocks, {} samples, {}, {:.3} bytes a sample; snapshot {}, {} deletions under way\n",
                of.tenant,
                of.blocks.len(),
                count(samples),
                size(bytes),
                per(bytes, samples),
                of.snapshot,
                of.tombstones
            ));
            say(beside(&of.exemplars, &of.metadata));
            if !table.is_empty() {
                say(format_args!("{}\n", table.render(colour())));
            }
        }
        if all.is_empty() {
            say("the bucket holds no tenant\n");
        }
        Ok(true)
    }
}
