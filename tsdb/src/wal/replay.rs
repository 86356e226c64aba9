//! Reads the log back into the head after a restart, up to the last whole record of every segment.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rayon::prelude::*;

use super::record::{self, FloatRow, HistogramRow, Record};
use super::{HEADER_BYTES, MAGIC, segment_path, segments};
use crate::head::{Head, Series, Writing};
use crate::sidecar::exemplars::buffer::Buffer;
use model::sample::Value;
use model::tenant::TenantId;

/// Samples gathered for each series before they are applied, on the average: the memory of a series is brought into the cache once for all of
/// them, which is most of what a sample costs here.
const SAMPLES_PER_SERIES: usize = 16;

/// Numbers of series whose rows are gathered together, as a power of two: what is gathered of them fits into a core's cache.
const BIN_POWER: u32 = 10;

/// Bounds of a batch, in samples of 32 bytes.
const BATCH: std::ops::RangeInclusive<usize> = 1 << 18..=1 << 22;

/// Records whose columns are read at once.
const FRAMES: usize = 128;

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
    /// Bytes of whole records that could not be read.
    pub unread_bytes: u64,
    pub took_ms: u64,
}

/// Applies every segment of `dir` to the head and the exemplars. `is_flushed(tenant, segment)` says what is in blocks already and is
/// passed over. Metadata counts as heard at `now_ms`.
pub fn replay(
    dir: &Path,
    head: &Head,
    exemplars: &Buffer,
    now_ms: i64,
    is_flushed: impl Fn(&TenantId, u64) -> bool + Sync,
) -> std::io::Result<Replayed> {
    let begun = Instant::now();
    let mut report = Replayed::default();
    let mut applier = Applier { now_ms, ..Applier::default() };
    let mut session = None;
    for number in segments(dir)? {
        let path = segment_path(dir, number);
        let bytes = std::fs::read(&path)?;
        report.segments += 1;
        // What is gathered is of one segment, so that one look says of each series whether it is in blocks already.
        applier.apply(head, &is_flushed, &mut report);
        applier.segment = number;
        let Some((found, mut at)) = header(&bytes, number) else {
            // A crash between creating the file and writing its header leaves this; so may a disk.
            tracing::warn!(
                "log segment {} has no valid header: {} bytes passed over",
                path.display(),
                bytes.len()
            );
            report.cut_bytes += bytes.len() as u64;
            applier.keep_only(&HashSet::new());
            continue;
        };
        if session != Some(found) {
            // Numbers mean something else from here on.
            applier.by_number.clear();
            session = Some(found);
        }
        loop {
            let frames = record::take_frames(&mut at, FRAMES);
            if frames.is_empty() {
                break;
            }
            // Reading the columns is most of the work and needs nothing but the bytes.
            let records: Vec<_> = frames.par_iter().map(|body| record::parse(body)).collect();
            for (record, body) in records.into_iter().zip(frames) {
                match record {
                    Some(record) => applier.take(head, exemplars, record, &is_flushed, &mut report),
                    // Its checksum is right: a later version wrote it, or a bug. What follows is whole all the same.
                    None => {
                        report.unread_bytes += body.len() as u64;
                    }
                }
            }
        }
        if !at.is_empty() {
            tracing::warn!(
                "log segment {} ends in {} bytes that are no whole record: cut off there. A crash in the middle of a write leaves such an end, and nothing of it was acknowledged",
                path.display(),
                at.len()
            );
            report.cut_bytes += at.len() as u64;
            applier.apply(head, &is_flushed, &mut report);
            applier.keep_only(&defined_in(&bytes[HEADER_BYTES..]));
            // So that the next start does not warn again.
            let good = (bytes.len() - at.len()) as u64;
            if let Err(e) = std::fs::OpenOptions::new().write(true).open(&path).and_then(|f| f.set_len(good))
            {
                tracing::warn!("could not cut {}: {e}", path.display());
            }
        }
    }
    applier.apply(head, &is_flushed, &mut report);
    if report.unread_bytes > 0 {
        tracing::warn!(
            "{} bytes of the log are records of a kind that this version does not know: passed over",
            report.unread_bytes
        );
    }
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

/// The numbers of all series that whole records of a segment define.
fn defined_in(mut records: &[u8]) -> HashSet<u32> {
    let mut numbers = HashSet::new();
    for body in record::take_frames(&mut records, usize::MAX) {
        if let Some(Record::Series(all)) = record::parse(body) {
            numbers.extend(all.iter().map(|d| d.series));
        }
    }
    numbers
}

/// The session of a segment and what follows its header.
fn header(bytes: &[u8], number: u64) -> Option<(u64, &[u8])> {
    let (header, rest) = bytes.split_at_checked(HEADER_BYTES)?;
    let word = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
    let crc = u32::from_le_bytes(header[24..28].try_into().expect("four bytes"));
    (header[..8] == *MAGIC && crc == crc32fast::hash(&header[..24]) && word(16) == number)
        .then(|| (word(8), rest))
}

/// Gathers samples and writes them into the head, each core the series of its own.
#[derive(Default)]
struct Applier {
    /// By the number the session gave them.
    by_number: Vec<Option<Arc<Series>>>,
    tenants: HashMap<String, TenantId>,
    /// Gathered rows, and the segment they are from.
    bins: Vec<Bin>,
    segment: u64,
    gathered: usize,
    now_ms: i64,
}

/// Rows of neighbouring series.
#[derive(Default)]
struct Bin {
    floats: Vec<FloatRow>,
    histograms: Vec<HistogramRow>,
}

/// Numbers beyond this are not believed: a table for them would take gigabytes.
const MAX_NUMBER: u32 = 1 << 28;

impl Applier {
    fn take(
        &mut self,
        head: &Head,
        exemplars: &Buffer,
        record: Record<'_>,
        is_flushed: &(impl Fn(&TenantId, u64) -> bool + Sync),
        report: &mut Replayed,
    ) {
        match record {
            Record::Series(all) => {
                for d in all {
                    let Some(tenant) = self.tenant(d.tenant) else { continue };
                    if d.series > MAX_NUMBER {
                        continue;
                    }
                    let series = head.series(&head.tenant(&tenant), &d.labels);
                    let at = d.series as usize;
                    if at >= self.by_number.len() {
                        self.by_number.resize(at + 1, None);
                    }
                    if self.by_number[at].as_ref().is_some_and(|known| !Arc::ptr_eq(known, &series)) {
                        // Given out again: what was gathered means the series before.
                        self.apply(head, is_flushed, report);
                    }
                    self.by_number[at] = Some(series);
                }
            }
            Record::Floats(rows) => {
                self.gathered += rows.len();
                for row in rows {
                    match self.bin(row.series) {
                        Some(bin) => bin.floats.push(row),
                        None => report.orphans += 1,
                    }
                }
            }
            Record::Histograms(rows) => {
                // One weighs as much as some floats.
                self.gathered += rows.len() * 16;
                for row in rows {
                    match self.bin(row.series) {
                        Some(bin) => bin.histograms.push(row),
                        None => report.orphans += 1,
                    }
                }
            }
            Record::Metadata { tenant, metric, metadata } => {
                if let Some(tenant) = self.tenant(tenant) {
                    head.tenant(&tenant).learn(metric, &metadata, self.now_ms);
                }
            }
            Record::Exemplars(rows) => {
                for (number, exemplar) in rows {
                    let Some(series) = self.by_number.get(number as usize).and_then(Option::as_ref) else {
                        report.orphans += 1;
                        continue;
                    };
                    if is_flushed(&series.tenant.id, self.segment) {
                        continue;
                    }
                    // What is late or twice here was so when it was written, and was not acknowledged as new.
                    if exemplars.put(&series.tenant.id, &head.labels_of(series), exemplar).is_ok() {
                        report.exemplars += 1;
                    }
                }
            }
        }
        if self.gathered >= (self.by_number.len() * SAMPLES_PER_SERIES).clamp(*BATCH.start(), *BATCH.end()) {
            self.apply(head, is_flushed, report);
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

    /// Forgets all series but those of these numbers: definitions were lost, and what follows may mean others by the numbers known so far.
    fn keep_only(&mut self, numbers: &HashSet<u32>) {
        for (number, series) in self.by_number.iter_mut().enumerate() {
            if !numbers.contains(&(number as u32)) {
                *series = None;
            }
        }
    }

    /// Where rows of a number are gathered; `None` where no such series was defined yet: one that is defined later is another.
    #[inline]
    fn bin(&mut self, number: u32) -> Option<&mut Bin> {
        self.by_number.get(number as usize)?.as_ref()?;
        let at = (number >> BIN_POWER) as usize;
        if at >= self.bins.len() {
            self.bins.resize_with(at + 1, Bin::default);
        }
        self.bins.get_mut(at)
    }

    /// Writes what was gathered into the head, each core a bin and one series after the other: a batch holds many scrapes, and going through
    /// it scrape by scrape would fetch every series from memory again for each sample. Floats and histograms of one series are told apart by
    /// chunk anyway; where both have one timestamp, the histogram is the later one here as it is in a request.
    fn apply(
        &mut self,
        head: &Head,
        is_flushed: &(impl Fn(&TenantId, u64) -> bool + Sync),
        report: &mut Replayed,
    ) {
        if std::mem::take(&mut self.gathered) == 0 {
            return;
        }
        let (by_number, segment) = (&self.by_number, self.segment);
        let run = |(at, bin): (usize, &mut Bin)| {
            let (mut writing, mut samples, mut orphans) = (head.writing(), 0u64, 0u64);
            let base = at << BIN_POWER;
            // A replay runs alone: no series leaves the head meanwhile, so that every put is taken.
            let mut each =
                |number: usize, rows: &[u32], put: &mut dyn FnMut(&mut Writing<'_>, &Series)| match by_number
                    .get(base + number)
                    .and_then(Option::as_ref)
                {
                    Some(series) if is_flushed(&series.tenant.id, segment) => {}
                    Some(series) => {
                        samples += rows.len() as u64;
                        put(&mut writing, series);
                    }
                    None => orphans += rows.len() as u64,
                };
            let floats = &bin.floats;
            let order = Order::of(floats.iter().map(|r| r.series - base as u32));
            for (number, rows) in order.runs() {
                each(number, rows, &mut |writing, series| {
                    let row = |i: &u32| &floats[*i as usize];
                    writing.put_run(series, rows.iter().map(row).map(|r| (r.ts_ms, r.value, r.start_ts_ms)));
                });
            }
            let histograms = &bin.histograms;
            let order = Order::of(histograms.iter().map(|r| r.series - base as u32));
            for (number, rows) in order.runs() {
                each(number, rows, &mut |writing, series| {
                    for r in rows.iter().map(|i| &histograms[*i as usize]) {
                        writing.put(series, r.ts_ms, Value::Histogram(r.value.clone()), r.start_ts_ms);
                    }
                });
            }
            writing.finish();
            bin.floats.clear();
            bin.histograms.clear();
            (samples, orphans)
        };
        let counted: Vec<(u64, u64)> = self.bins.par_iter_mut().enumerate().map(run).collect();
        for (samples, orphans) in counted {
            report.samples += samples;
            report.orphans += orphans;
        }
    }
}

/// Rows of a bin, those of one series together and in the order they came in.
struct Order {
    /// By number within the bin, where the series' rows end.
    ends: Vec<u32>,
    rows: Vec<u32>,
}

impl Order {
    /// Sorts by counting; numbers are those within a bin.
    fn of(numbers: impl ExactSizeIterator<Item = u32> + Clone) -> Order {
        if numbers.len() == 0 {
            return Order { ends: Vec::new(), rows: Vec::new() };
        }
        let mut ends = vec![0u32; 1 << BIN_POWER];
        numbers.clone().for_each(|n| ends[n as usize] += 1);
        let mut all = 0;
        for end in &mut ends {
            // Where its first row goes: it becomes the end as the rows are put.
            (*end, all) = (all, all + *end);
        }
        let mut rows = vec![0u32; all as usize];
        for (row, n) in numbers.enumerate() {
            let at = &mut ends[n as usize];
            rows[*at as usize] = row as u32;
            *at += 1;
        }
        Order { ends, rows }
    }

    /// Numbers, ascending, and their rows; none without any.
    fn runs(&self) -> impl Iterator<Item = (usize, &[u32])> {
        let mut from = 0;
        self.ends.iter().enumerate().filter_map(move |(number, end)| {
            let rows = &self.rows[from..*end as usize];
            from = *end as usize;
            (!rows.is_empty()).then_some((number, rows))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_row_falls_to_one_series_in_its_order(numbers in proptest::collection::vec(0u32..1 << BIN_POWER, 0..400)) {
            let mut seen = vec![false; numbers.len()];
            let order = Order::of(numbers.iter().copied());
            for (number, rows) in order.runs() {
                prop_assert!(rows.is_sorted());
                for row in rows {
                    prop_assert_eq!(numbers[*row as usize] as usize, number);
                    prop_assert!(!std::mem::replace(&mut seen[*row as usize], true));
                }
            }
            prop_assert!(seen.iter().all(|s| *s));
        }
    }
}
