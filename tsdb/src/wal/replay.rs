//! Reads the log back into the head after a restart, up to the last whole record of every segment.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rayon::prelude::*;

use super::record::{self, Record};
use super::{HEADER_BYTES, MAGIC, segment_path, segments};
use crate::exemplar::buffer::Buffer;
use crate::head::{Head, Series};
use crate::sample::Value;
use crate::tenant::TenantId;

/// Samples gathered before they are applied on all cores.
const BATCH: usize = 1 << 18;

/// What a replay found.
#[derive(Clone, Debug, Default)]
pub struct Replayed {
    pub segments: usize,
    pub series: u64,
    pub samples: u64,
    /// Bytes behind the last whole record of a segment. They were never acknowledged, unless the disk has lost what it promised.
    pub cut_bytes: u64,
    /// Samples whose series' definition was lost with damaged bytes.
    pub orphans: u64,
    pub exemplars: u64,
    pub took_ms: u64,
}

/// Applies every segment of `dir` to the head and the exemplars. `is_flushed(tenant, segment)` says what is in blocks already and is
/// passed over. Metadata counts as heard at `now_ms`.
pub fn replay(
    dir: &Path,
    head: &Head,
    exemplars: &Buffer,
    now_ms: i64,
    is_flushed: impl Fn(&TenantId, u64) -> bool,
) -> std::io::Result<Replayed> {
    let begun = Instant::now();
    let mut report = Replayed::default();
    let mut applier = Applier { now_ms, ..Applier::default() };
    let mut session = None;
    for number in segments(dir)? {
        let path = segment_path(dir, number);
        let bytes = std::fs::read(&path)?;
        report.segments += 1;
        let Some((found, mut at)) = header(&bytes, number) else {
            // A crash between creating the file and writing its header leaves this; so may a disk.
            tracing::warn!(
                "log segment {} has no valid header: {} bytes passed over",
                path.display(),
                bytes.len()
            );
            report.cut_bytes += bytes.len() as u64;
            continue;
        };
        if session != Some(found) {
            applier.by_number.clear();
            session = Some(found);
        }
        while let Some(record) = record::take(&mut at) {
            applier.take(head, exemplars, record, number, &is_flushed, &mut report);
            if applier.gathered >= BATCH {
                report.samples += applier.apply(head);
            }
        }
        if !at.is_empty() {
            tracing::warn!(
                "log segment {} ends in {} bytes that are no whole record: cut off there. A crash in the middle of a write leaves such an end, and nothing of it was acknowledged",
                path.display(),
                at.len()
            );
            report.cut_bytes += at.len() as u64;
            // So that the next start does not warn again.
            let good = (bytes.len() - at.len()) as u64;
            if let Err(e) = std::fs::OpenOptions::new().write(true).open(&path).and_then(|f| f.set_len(good))
            {
                tracing::warn!("could not cut {}: {e}", path.display());
            }
        }
    }
    report.samples += applier.apply(head);
    report.series = head.series_count();
    if report.orphans > 0 {
        tracing::warn!(
            "{} samples of the log belong to series whose definition was lost to damage",
            report.orphans
        );
    }
    report.took_ms = begun.elapsed().as_millis() as u64;
    Ok(report)
}

/// The session of a segment and what follows its header.
fn header(bytes: &[u8], number: u64) -> Option<(u64, &[u8])> {
    let (header, rest) = bytes.split_at_checked(HEADER_BYTES)?;
    let word = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
    let crc = u32::from_le_bytes(header[24..28].try_into().expect("four bytes"));
    (header[..8] == *MAGIC && crc == crc32fast::hash(&header[..24]) && word(16) == number)
        .then(|| (word(8), rest))
}

#[derive(Default)]
struct Applier {
    /// Every series that was defined, and whether its tenant has this part of the log in blocks.
    defined: Vec<Arc<Series>>,
    by_number: HashMap<u32, usize>,
    tenants: HashMap<String, TenantId>,
    /// Per lane, so that one series' samples stay in one lane and in order.
    lanes: Vec<Vec<(usize, i64, Value, i64)>>,
    gathered: usize,
    now_ms: i64,
}

impl Applier {
    fn take(
        &mut self,
        head: &Head,
        exemplars: &Buffer,
        record: Record<'_>,
        segment: u64,
        is_flushed: &impl Fn(&TenantId, u64) -> bool,
        report: &mut Replayed,
    ) {
        match record {
            Record::Series(all) => {
                for d in all {
                    let Some(tenant) = self.tenant(d.tenant) else { continue };
                    let series = head.series(&head.tenant(&tenant), &d.labels);
                    self.by_number.insert(d.series, self.defined.len());
                    self.defined.push(series);
                }
            }
            Record::Floats(rows) => {
                for r in rows {
                    self.sample(
                        r.series,
                        r.ts_ms,
                        Value::Float(r.value),
                        r.start_ts_ms,
                        segment,
                        is_flushed,
                        report,
                    );
                }
            }
            Record::Histograms(rows) => {
                for r in rows {
                    let value = Value::Histogram(r.value);
                    self.sample(r.series, r.ts_ms, value, r.start_ts_ms, segment, is_flushed, report);
                }
            }
            Record::Metadata { tenant, metric, metadata } => {
                if let Some(tenant) = self.tenant(tenant) {
                    head.tenant(&tenant).learn(metric, &metadata, self.now_ms);
                }
            }
            Record::Exemplars(rows) => {
                for (number, exemplar) in rows {
                    let Some(&at) = self.by_number.get(&number) else {
                        report.orphans += 1;
                        continue;
                    };
                    let series = &self.defined[at];
                    if is_flushed(&series.tenant.id, segment) {
                        continue;
                    }
                    // What is late or twice here was so when it was written, and was not acknowledged as new.
                    if exemplars.put(&series.tenant.id, &head.labels_of(series), exemplar).is_ok() {
                        report.exemplars += 1;
                    }
                }
            }
        }
    }

    fn tenant(&mut self, name: &str) -> Option<TenantId> {
        if let Some(t) = self.tenants.get(name) {
            return Some(t.clone());
        }
        let tenant = TenantId::new(name).ok()?;
        self.tenants.insert(name.to_string(), tenant.clone());
        Some(tenant)
    }

    #[allow(clippy::too_many_arguments)]
    fn sample(
        &mut self,
        number: u32,
        t: i64,
        value: Value,
        start: i64,
        segment: u64,
        is_flushed: &impl Fn(&TenantId, u64) -> bool,
        report: &mut Replayed,
    ) {
        let Some(&at) = self.by_number.get(&number) else {
            report.orphans += 1;
            return;
        };
        let series = &self.defined[at];
        if is_flushed(&series.tenant.id, segment) {
            return;
        }
        if self.lanes.is_empty() {
            self.lanes = vec![Vec::new(); rayon::current_num_threads().max(1)];
        }
        let lane = series.id as usize % self.lanes.len();
        self.lanes[lane].push((at, t, value, start));
        self.gathered += 1;
    }

    fn apply(&mut self, head: &Head) -> u64 {
        self.gathered = 0;
        let defined = &self.defined;
        self.lanes
            .par_iter_mut()
            .map(|lane| {
                let n = lane.len() as u64;
                for (at, t, value, start) in lane.drain(..) {
                    // A replay runs alone: no series leaves the head meanwhile.
                    head.put(&defined[at], t, value, start);
                }
                n
            })
            .sum()
    }
}
