//! What two readings of the same samples must agree on: counts, times, and a checksum per series.

use model::histogram::Histogram;
use model::rollup::Window;
use model::source::SeriesColumns;
use xxhash_rust::xxh3::Xxh3Default;

/// Sums over series that came in order. Eight bytes a series.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint {
    pub series: u64,
    pub samples: u64,
    pub histograms: u64,
    /// First and last timestamp; `None` without samples.
    pub span_ms: Option<(i64, i64)>,
    sums: Vec<u64>,
}

impl Fingerprint {
    /// Counts the next series in.
    pub fn add(&mut self, series: &SeriesColumns) {
        let (Some(first), Some(last)) = (series.ts_ms.first(), series.ts_ms.last()) else { return };
        self.series += 1;
        self.samples += series.ts_ms.len() as u64;
        let histograms = series.histograms.iter().flatten().flatten().count();
        self.histograms += histograms as u64;
        let (a, b) = self.span_ms.unwrap_or((*first, *last));
        self.span_ms = Some((a.min(*first), b.max(*last)));
        self.sums.push(sum(series));
    }

    /// The first difference to another reading, in words. `name` names series number n of the other, where it
    /// can.
    pub fn difference(&self, other: &Fingerprint, name: impl Fn(usize) -> Option<String>) -> Option<String> {
        if self == other {
            return None;
        }
        let shown = |f: &Fingerprint| {
            let (a, b) = f.span_ms.unwrap_or_default();
            format!(
                "{} series, {} samples ({} histograms) from {a} to {b} ms",
                f.series, f.samples, f.histograms
            )
        };
        let at = self.sums.iter().zip(&other.sums).position(|(a, b)| a != b);
        let which = match at {
            Some(at) => format!(
                "series number {at}{} has another checksum",
                name(at).map(|n| format!(" ({n})")).unwrap_or_default()
            ),
            None => "the numbers of series differ".to_string(),
        };
        Some(format!("the source has {}; what was written has {}; {which}", shown(self), shown(other)))
    }

    /// One number for all of it.
    pub fn total(&self) -> u64 {
        let mut hash = Xxh3Default::new();
        self.sums.iter().for_each(|s| hash.update(&s.to_le_bytes()));
        hash.digest()
    }
}

/// A checksum over labels, timestamps, bits of values, histograms and start timestamps, or all that windows
/// tell.
fn sum(series: &SeriesColumns) -> u64 {
    let mut hash = Xxh3Default::new();
    hash.update(&series.labels.encode());
    let mut eight = Vec::with_capacity(series.ts_ms.len() * 16);
    for (ts, value) in series.ts_ms.iter().zip(&series.values) {
        eight.extend_from_slice(&ts.to_le_bytes());
        eight.extend_from_slice(&value.to_bits().to_le_bytes());
    }
    hash.update(&eight);
    for (at, histogram) in series.histograms.iter().flatten().enumerate() {
        if let Some(histogram) = histogram {
            hash.update(&(at as u64).to_le_bytes());
            add_histogram(&mut hash, histogram);
        }
    }
    if let Some(starts) = series.start_ts_ms.as_ref().filter(|s| s.iter().any(|s| *s != 0)) {
        starts.iter().for_each(|s| hash.update(&s.to_le_bytes()));
    }
    if series.windows.is_some() {
        (0..series.ts_ms.len()).for_each(|i| add_window(&mut hash, &series.window(i)));
    }
    hash.digest()
}

fn add_window(hash: &mut Xxh3Default, w: &Window) {
    for v in [w.resolution_ms, w.first.ts_ms, w.last.ts_ms] {
        hash.update(&v.to_le_bytes());
    }
    for v in [w.count, w.resets, w.changes, w.histogram_count, w.schema as u32] {
        hash.update(&v.to_le_bytes());
    }
    // Where a histogram stands at the beginning, a block keeps no float beside it.
    let first = if w.first.histogram.is_some() { f64::NAN } else { w.first.value };
    let floats = [first, w.last.value, w.whole_sum(), w.min, w.max, w.reset_sum];
    floats.iter().for_each(|v| hash.update(&v.to_bits().to_le_bytes()));
    for h in [&w.first.histogram, &w.last.histogram, &w.histogram_sum, &w.histogram_reset_sum] {
        match h {
            Some(h) => add_histogram(hash, h),
            None => hash.update(b"-"),
        }
    }
}

fn add_histogram(hash: &mut Xxh3Default, h: &Histogram) {
    hash.update(&[h.counter_reset_hint as u8]);
    hash.update(&h.schema.to_le_bytes());
    for v in [h.zero_threshold, h.zero_count, h.count, h.sum] {
        hash.update(&v.to_bits().to_le_bytes());
    }
    for (spans, counts) in
        [(&h.positive_spans, &h.positive_buckets), (&h.negative_spans, &h.negative_buckets)]
    {
        // By the index of each bucket: how spans are cut does not matter.
        let mut at = 0i64;
        let mut counts = counts.iter();
        for span in spans {
            at += i64::from(span.offset);
            for count in counts.by_ref().take(span.length as usize) {
                hash.update(&at.to_le_bytes());
                hash.update(&count.to_bits().to_le_bytes());
                at += 1;
            }
        }
        hash.update(b";");
    }
    h.custom_bounds().iter().for_each(|b| hash.update(&b.to_bits().to_le_bytes()));
}
