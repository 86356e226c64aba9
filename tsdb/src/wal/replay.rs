//! Reads the log back into the head after a restart: every whole record, in the order in which they were
//! written.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rayon::prelude::*;

use super::record::{self, FloatRow, HistogramRow, Record, SeriesDefinition};
use super::{HEADER_BYTES, MAGIC, segment_path, segments};
use crate::head::{Head, Series};
use crate::sidecar::exemplars::buffer::Buffer;
use model::sample::Value;
use model::tenant::TenantId;

/// Samples gathered for each series before they are applied, on the average: the memory of a series is
/// brought into the cache once for all of them, which is most of what a sample costs here.
const SAMPLES_PER_SERIES: usize = 16;

/// Numbers of series whose rows are gathered together, as a power of two: what is gathered of them fits into
/// a core's cache.
const BIN_POWER: u32 = 10;

/// Bounds of a batch, in samples of 32 bytes.
const BATCH: std::ops::RangeInclusive<usize> = 1 << 18..=1 << 22;

/// Records whose columns are read at once.
const FRAMES: usize = 128;

/// What a replay found.
#[derive(Clone, Debug, Default)]
pub struct Replayed {
    pub segments: usize,
    /// Those without a whole header, and so without anything.
    pub without_header: Vec<u64>,
    pub series: u64,
    pub samples: u64,
    /// Bytes behind the last whole record of a segment, cut off there and kept in a file of their own. A
    /// crash in the middle of a write leaves such an end, and then nothing of it was acknowledged.
    pub cut_bytes: u64,
    /// Bytes that are no whole record, with whole records behind them: damage, and what was in them may have
    /// been acknowledged. They are kept in a file of their own.
    pub damaged_bytes: u64,
    /// Places in which there were such bytes.
    pub damaged_places: u64,
    /// Samples and exemplars whose series' definition was lost with damaged bytes.
    pub orphans: u64,
    pub exemplars: u64,
    /// Bytes of whole records that could not be read.
    pub unread_bytes: u64,
    pub took_ms: u64,
}

/// Applies every segment of `dir` to the head and the exemplars. `is_flushed(tenant, segment)` says what is
/// in blocks already and is passed over. Metadata counts as heard at `now_ms`. `reading(first, last,
/// current)` is called before each segment is read.
pub fn replay(
    dir: &Path,
    head: &Head,
    exemplars: &Buffer,
    now_ms: i64,
    reading: &dyn Fn(u64, u64, u64),
    is_flushed: impl Fn(&TenantId, u64) -> bool + Sync,
) -> std::io::Result<Replayed> {
    let started = Instant::now();
    let mut report = Replayed::default();
    let mut applier = Applier { now_ms, ..Applier::default() };
    let mut session = None;
    let numbers = segments(dir)?;
    let (first, last) = (numbers.first().copied().unwrap_or(0), numbers.last().copied().unwrap_or(0));
    for number in numbers {
        reading(first, last, number);
        let path = segment_path(dir, number);
        let bytes = std::fs::read(&path)?;
        report.segments += 1;
        // What is gathered is of one segment, so that one look says of each series whether it is in blocks
        // already.
        applier.apply(head, &is_flushed, &mut report);
        let Some((found, at)) = begin_segment(&path, number, &bytes, &mut report) else { continue };
        // A damaged header does not say of which session it is: a new one defines its series before it speaks
        // of them.
        let is_new = session.zip(found).is_some_and(|(before, now)| before != now);
        session = found;
        applier.begin_segment(number, is_new);
        let mut reader = SegmentReader { path: &path, bytes: &bytes, at };
        while let Some(part) = reader.next_part() {
            match part {
                Part::Records(frames) => {
                    // Reading the columns is most of the work and needs nothing but the bytes.
                    let records: Vec<_> = frames.par_iter().map(|body| record::parse(body)).collect();
                    for (record, body) in records.into_iter().zip(frames) {
                        match record {
                            Some(record) => applier.take(head, exemplars, record, &is_flushed, &mut report),
                            // Its checksum is right: a later version wrote it, or a bug. What follows is
                            // whole all the same.
                            None => report.unread_bytes += body.len() as u64,
                        }
                    }
                }
                Part::Damaged { from, to } => {
                    applier.apply(head, &is_flushed, &mut report);
                    reader.put_aside(from, to, to == bytes.len(), &mut report);
                    applier.forget_doubtful();
                }
            }
        }
    }
    applier.apply(head, &is_flushed, &mut report);
    report.series = head.series_count();
    report.took_ms = started.elapsed().as_millis() as u64;
    report.warn();
    Ok(report)
}

/// The session that a segment's header names (`None` where the header is damaged), and where its records
/// begin; `None` where nothing of it was acknowledged.
fn begin_segment(
    path: &Path,
    number: u64,
    bytes: &[u8],
    report: &mut Replayed,
) -> Option<(Option<u64>, usize)> {
    match header(bytes, number) {
        Header::Whole { session, records } => Some((Some(session), bytes.len() - records.len())),
        Header::Damaged { records } => {
            tracing::error!(
                "log segment {} has a damaged header: its records are read all the same, each of them has a checksum of its own",
                path.display()
            );
            report.damaged_bytes += HEADER_BYTES as u64;
            report.damaged_places += 1;
            Some((None, bytes.len() - records.len()))
        }
        Header::Unfinished => {
            tracing::warn!(
                "log segment {} has no header: {} bytes passed over. A crash in the moment it was created leaves this, and nothing of it was acknowledged",
                path.display(),
                bytes.len()
            );
            report.cut_bytes += bytes.len() as u64;
            report.without_header.push(number);
            None
        }
    }
}

impl Replayed {
    fn warn(&self) {
        if self.unread_bytes > 0 {
            tracing::warn!(
                "{} bytes of the log are records of a kind that this version does not know: passed over",
                self.unread_bytes
            );
        }
        if self.orphans > 0 {
            tracing::error!(
                "{} samples of the log belong to series whose definition was lost to damage: they were acknowledged and are not there any more",
                self.orphans
            );
        }
    }
}

/// Goes through a segment, past what is damaged.
struct SegmentReader<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

enum Part<'a> {
    /// Kinds and payloads of whole records.
    Records(Vec<&'a [u8]>),
    /// Bytes that are no record, up to the next one or the end.
    Damaged { from: usize, to: usize },
}

impl<'a> SegmentReader<'a> {
    fn next_part(&mut self) -> Option<Part<'a>> {
        let mut rest = &self.bytes[self.at..];
        let frames = record::take_frames(&mut rest, FRAMES);
        let from = self.bytes.len() - rest.len();
        if !frames.is_empty() {
            self.at = from;
            return Some(Part::Records(frames));
        }
        if rest.is_empty() {
            return None;
        }
        self.at = record::next_whole(rest).map_or(self.bytes.len(), |next| from + next);
        Some(Part::Damaged { from, to: self.at })
    }

    /// Keeps damaged bytes in a file beside the segment, and says what they may have held. Behind the last
    /// record they are cut off, so that the next start does not speak of them again.
    fn put_aside(&self, from: usize, to: usize, is_end: bool, report: &mut Replayed) {
        let damaged = &self.bytes[from..to];
        let aside = self.path.with_extension(format!("{from}.damaged"));
        let kept = std::fs::File::create(&aside).and_then(|mut file| {
            file.write_all(damaged)?;
            file.sync_all()
        });
        let kept = match kept {
            Ok(()) => format!("they are kept in {}", aside.display()),
            Err(e) => format!("they could not be kept in {}: {e}", aside.display()),
        };
        if !is_end {
            tracing::error!(
                "log segment {} has {} damaged bytes at {from}, behind which whole records follow: the samples in them were acknowledged and are lost, {kept}. Look at the disk",
                self.path.display(),
                damaged.len()
            );
            report.damaged_bytes += damaged.len() as u64;
            report.damaged_places += 1;
            return;
        }
        tracing::warn!(
            "log segment {} ends in {} bytes that are no whole record: cut off there, {kept}. A crash in the middle of a write leaves such an end, and then nothing of it was acknowledged; where the process was not killed or the power not lost, it is damage, and the last samples may have been acknowledged",
            self.path.display(),
            damaged.len()
        );
        report.cut_bytes += damaged.len() as u64;
        if !aside.exists() {
            // Better told of at each start than gone.
            return;
        }
        let cut = std::fs::OpenOptions::new().write(true).open(self.path);
        if let Err(e) = cut.and_then(|file| file.set_len(from as u64)) {
            tracing::warn!("could not cut {}: {e}", self.path.display());
        }
    }
}

/// What the first bytes of a segment are.
enum Header<'a> {
    Whole {
        session: u64,
        records: &'a [u8],
    },
    Damaged {
        records: &'a [u8],
    },
    /// Not written to its end: so there is no record either.
    Unfinished,
}

fn header(bytes: &[u8], number: u64) -> Header<'_> {
    let Some((header, records)) = bytes.split_at_checked(HEADER_BYTES) else { return Header::Unfinished };
    let word = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
    let crc = u32::from_le_bytes(header[24..28].try_into().expect("four bytes"));
    match header[..8] == *MAGIC && crc == crc32fast::hash(&header[..24]) && word(16) == number {
        true => Header::Whole { session: word(8), records },
        false if records.is_empty() => Header::Unfinished,
        false => Header::Damaged { records },
    }
}

/// Gathers samples and writes them into the head, each core the series of its own.
#[derive(Default)]
struct Applier {
    /// By the number the session gave them.
    by_number: Vec<Option<Arc<Series>>>,
    /// The segment that defined each last.
    defined_in: Vec<u64>,
    /// Definitions from this segment on are of the same generation as what is read now, as far as that is
    /// known; and the same of the segment before.
    valid_from: u64,
    valid_before: u64,
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
    /// Each with how many of the floats came before it: of a float and a histogram of one time the later one
    /// stands.
    histograms: Vec<(u32, HistogramRow)>,
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
                for definition in all {
                    self.define(head, definition, is_flushed, report);
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
                        Some(bin) => {
                            let floats_before = bin.floats.len() as u32;
                            bin.histograms.push((floats_before, row));
                        }
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

    /// Remembers which series a number means from here on.
    fn define(
        &mut self,
        head: &Head,
        definition: SeriesDefinition<'_>,
        is_flushed: &(impl Fn(&TenantId, u64) -> bool + Sync),
        report: &mut Replayed,
    ) {
        let Some(tenant) = self.tenant(definition.tenant) else { return };
        if definition.series > MAX_NUMBER {
            return;
        }
        let series = head.series(&head.tenant(&tenant), &definition.labels);
        let at = definition.series as usize;
        if at >= self.by_number.len() {
            self.by_number.resize(at + 1, None);
            self.defined_in.resize(at + 1, 0);
        }
        if self.by_number[at].as_ref().is_some_and(|known| !Arc::ptr_eq(known, &series)) {
            // Given out again: what was gathered means the series before.
            self.apply(head, is_flushed, report);
        }
        self.by_number[at] = Some(series);
        self.defined_in[at] = self.segment;
    }

    fn tenant(&mut self, name: &str) -> Option<TenantId> {
        if let Some(t) = self.tenants.get(name) {
            return Some(t.clone());
        }
        let tenant = TenantId::new(name).ok()?;
        self.tenants.insert(name.to_string(), tenant.clone());
        Some(tenant)
    }

    /// Goes on with the next segment, of a new session or perhaps of the one before.
    fn begin_segment(&mut self, number: u64, is_new_session: bool) {
        if is_new_session {
            // Numbers mean something else from here on.
            self.by_number.clear();
            self.defined_in.clear();
        }
        self.segment = number;
        (self.valid_before, self.valid_from) = (self.valid_from, number);
    }

    /// After bytes were lost that may have held definitions: forgets the series whose numbers may have been
    /// given to others in them. Numbers are given out again only from one cut of the log to the next, and a
    /// cut begins a segment whose series are all defined anew.
    fn forget_doubtful(&mut self) {
        for (series, defined_in) in self.by_number.iter_mut().zip(&self.defined_in) {
            if *defined_in < self.valid_from {
                *series = None;
            }
        }
    }

    /// Where rows of a number are gathered; `None` where no such series was defined yet: one that is defined
    /// later is another.
    #[inline]
    fn bin(&mut self, number: u32) -> Option<&mut Bin> {
        self.by_number.get(number as usize)?.as_ref()?;
        let defined_in = self.defined_in[number as usize];
        if defined_in < self.valid_from {
            // Spoken of without a definition in this segment: it goes on where the one before ended, with no
            // cut between them.
            self.valid_from = defined_in.min(self.valid_before);
        }
        let at = (number >> BIN_POWER) as usize;
        if at >= self.bins.len() {
            self.bins.resize_with(at + 1, Bin::default);
        }
        self.bins.get_mut(at)
    }

    /// Writes what was gathered into the head, each core a bin and one series after the other: a batch holds
    /// many scrapes, and going through it scrape by scrape would fetch every series from memory again for
    /// each sample.
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
            let base = at << BIN_POWER;
            bin.apply(head, base, |number| {
                let series = by_number.get(base + number)?.as_ref()?;
                Some((&**series, is_flushed(&series.tenant.id, segment)))
            })
        };
        let counted: Vec<(u64, u64)> = self.bins.par_iter_mut().enumerate().map(run).collect();
        for (samples, orphans) in counted {
            report.samples += samples;
            report.orphans += orphans;
        }
    }
}

impl Bin {
    /// Writes the rows into the head and forgets them; `series` says of a number within the bin which series
    /// it is and whether blocks have it already. Returns how many samples were written, and how many are of
    /// no series.
    fn apply<'a>(
        &mut self,
        head: &Head,
        base: usize,
        series: impl Fn(usize) -> Option<(&'a Series, bool)>,
    ) -> (u64, u64) {
        let (mut writing, mut samples, mut orphans) = (head.writing(), 0u64, 0u64);
        let (floats, histograms) = (&self.floats, &self.histograms);
        let of_floats = Order::of(floats.iter().map(|r| r.series - base as u32));
        let of_histograms = Order::of(histograms.iter().map(|(_, r)| r.series - base as u32));
        let numbers = of_floats.ends.len().max(of_histograms.ends.len());
        for number in 0..numbers {
            let (mut float_rows, histogram_rows) = (of_floats.rows_of(number), of_histograms.rows_of(number));
            let rows = (float_rows.len() + histogram_rows.len()) as u64;
            let series = match series(number) {
                _ if rows == 0 => continue,
                None => {
                    orphans += rows;
                    continue;
                }
                Some((_, true)) => continue,
                Some((series, false)) => series,
            };
            samples += rows;
            let of_floats = float_rows.iter().map(|i| floats[*i as usize].ts_ms);
            let of_histograms = histogram_rows.iter().map(|i| histograms[*i as usize].1.ts_ms);
            if let Some(newest) = of_floats.chain(of_histograms).max() {
                series.tenant.wrote_until(newest);
            }
            // A replay runs alone: no series leaves the head meanwhile, so that every put is taken.
            let row = |i: &u32| &floats[*i as usize];
            let values = |r: &FloatRow| (r.ts_ms, Value::Float(r.value), r.start_ts_ms);
            for (floats_before, r) in histogram_rows.iter().map(|i| &histograms[*i as usize]) {
                let (before, after) = float_rows.split_at(float_rows.partition_point(|i| i < floats_before));
                float_rows = after;
                if !before.is_empty() {
                    writing.put_all(series, before.iter().map(row).map(values), |_| ());
                }
                writing.put(series, r.ts_ms, Value::Histogram(r.value.clone()), r.start_ts_ms);
            }
            writing.put_all(series, float_rows.iter().map(row).map(values), |_| ());
        }
        writing.finish();
        self.floats.clear();
        self.histograms.clear();
        (samples, orphans)
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

    /// The rows of a number.
    fn rows_of(&self, number: usize) -> &[u32] {
        let Some(end) = self.ends.get(number) else { return &[] };
        let from = number.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.rows[from as usize..*end as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn order_gives_every_row_to_one_series_as_they_came(numbers in proptest::collection::vec(0u32..1 << BIN_POWER, 0..400)) {
            let mut seen = vec![false; numbers.len()];
            let order = Order::of(numbers.iter().copied());
            for number in 0..1 << BIN_POWER {
                let rows = order.rows_of(number);
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
