//! `hearth bucket stats`: what metrics and labels cost, over all blocks.

use super::table::{Table, colour};
use super::{Bucket, beside, print, to_json};
use crate::commands::one_shot::CommandError;
use crate::commands::quantities::{count, size};
use crate::say;
use compactor::inspect::listing::SidecarTotals;
use compactor::inspect::stats::{LabelCounts, Order, Stats};
use serde_json::{Value, json};
use tsdb::sidecar::Kind;

impl Bucket {
    pub(super) fn stats(&self, order: Order, top: usize) -> Result<bool, CommandError> {
        let mut all: Vec<(String, Stats, [SidecarTotals; 2])> = Vec::new();
        for tenant in &self.tenants {
            let snapshot = self.catalog(tenant)?.snapshot();
            let mut counts = LabelCounts::default();
            for meta in &snapshot.blocks {
                counts.add(&self.store, tenant, meta).map_err(CommandError::failed)?;
            }
            let beside = Kind::ALL.map(|kind| SidecarTotals::of(&snapshot, kind));
            all.push((tenant.to_string(), counts.finish(order, top), beside));
        }
        if self.json {
            let list = all.iter().map(|(tenant, stats, beside)| {
                let mut value = to_json(stats);
                for (kind, of) in Kind::ALL.iter().zip(beside) {
                    value[kind.as_str()] = to_json(of);
                }
                value["tenant"] = json!(tenant);
                value
            });
            print(&Value::Array(list.collect()));
            return Ok(true);
        }
        for (tenant, stats, [exemplars, metadata]) in &all {
            say(format_args!(
                "tenant {tenant}: {} blocks, {}, {} distinct series, {} samples\n",
                stats.blocks,
                size(stats.bytes),
                count(stats.series),
                count(stats.samples)
            ));
            say(beside(exemplars, metadata));
            let share = |bytes: f64| format!("{:.1} %", 100.0 * bytes / (stats.bytes as f64).max(1.0));
            let mut metrics = Table::new(&["METRIC", ">SERIES", ">SAMPLES", ">SIZE", ">SHARE", ">B/SAMPLE"]);
            for m in &stats.metrics {
                metrics.line(vec![
                    m.metric.clone(),
                    count(m.series),
                    count(m.samples),
                    size(m.bytes as u64),
                    share(m.bytes),
                    format!("{:.3}", m.bytes / m.samples.max(1) as f64),
                ]);
            }
            let mut labels = Table::new(&["LABEL", ">VALUES", ">SERIES", ">SIZE", ">SHARE"]);
            for l in &stats.labels {
                labels.line(vec![
                    l.label.clone(),
                    count(l.values),
                    count(l.series),
                    size(l.bytes as u64),
                    share(l.bytes),
                ]);
            }
            say(format_args!("\n{}\n{}\n", metrics.render(colour()), labels.render(colour())));
        }
        Ok(true)
    }
}
