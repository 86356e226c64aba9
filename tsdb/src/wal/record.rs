//! The log's records: framed with length and CRC-32, columns of small integers inside.
//!
//! A frame is `length u32, crc32 u32, kind u8, payload`, integers little end first; the length counts kind and payload, the checksum
//! covers length, kind and payload. Series are referred to by the number that a definition earlier in the same session gave them.

use std::sync::Arc;

use super::values;
use crate::head::chunk::histogram;
use model::codec::varint::{put_bytes, put_i64, put_u64, take_8, take_bytes, take_i64, take_u64};
use model::exemplar::Exemplar;
use model::histogram::Histogram;
use model::labels::Labels;
use model::sample::Metadata;

/// Bytes of a frame before its kind.
pub const FRAME_BYTES: usize = 8;

/// Longest record that is believed when read back.
pub const MAX_RECORD_BYTES: u32 = 1 << 30;

const SERIES: u8 = 1;
const FLOATS: u8 = 2;
const FLOATS_WITH_START: u8 = 3;
const HISTOGRAMS: u8 = 4;
const METADATA: u8 = 5;
const PACKED: u8 = 6;
const EXEMPLARS: u8 = 16;

/// A float sample of a numbered series.
#[derive(Clone, Copy, Debug)]
pub struct FloatRow {
    pub series: u32,
    pub ts_ms: i64,
    pub value: f64,
    pub start_ts_ms: i64,
}

/// A histogram sample of a numbered series.
#[derive(Clone, Debug)]
pub struct HistogramRow {
    pub series: u32,
    pub ts_ms: i64,
    pub value: Arc<Histogram>,
    pub start_ts_ms: i64,
}

/// A record as it is read back; strings borrow from the segment.
#[derive(Debug)]
pub enum Record<'a> {
    Series(Vec<SeriesDefinition<'a>>),
    Floats(Vec<FloatRow>),
    Histograms(Vec<HistogramRow>),
    Metadata {
        tenant: &'a str,
        metric: &'a str,
        metadata: Metadata,
    },
    /// Numbers of series, and an exemplar of each.
    Exemplars(Vec<(u32, Exemplar)>),
}

/// "From here on, this number is this series."
#[derive(Debug, PartialEq, Eq)]
pub struct SeriesDefinition<'a> {
    pub series: u32,
    pub tenant: &'a str,
    pub labels: Vec<(&'a str, &'a str)>,
}

fn frame(out: &mut Vec<u8>, kind: u8, payload: impl FnOnce(&mut Vec<u8>)) {
    let begin = out.len();
    out.extend_from_slice(&[0; FRAME_BYTES]);
    out.push(kind);
    payload(out);
    let length = (out.len() - begin - FRAME_BYTES) as u32;
    out[begin..begin + 4].copy_from_slice(&length.to_le_bytes());
    let crc = checksum(length, &out[begin + FRAME_BYTES..]);
    out[begin + 4..begin + 8].copy_from_slice(&crc.to_le_bytes());
}

fn checksum(length: u32, body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&length.to_le_bytes());
    crc.update(body);
    crc.finalize()
}

/// Writes definitions of series.
pub fn put_series<'a>(
    out: &mut Vec<u8>,
    all: impl ExactSizeIterator<Item = (u32, &'a str, Vec<(&'a str, &'a str)>)>,
) {
    frame(out, SERIES, |out| {
        put_u64(out, all.len() as u64);
        for (series, tenant, labels) in all {
            put_u64(out, series as u64);
            put_bytes(out, tenant.as_bytes());
            put_u64(out, labels.len() as u64);
            for (name, value) in labels {
                put_bytes(out, name.as_bytes());
                put_bytes(out, value.as_bytes());
            }
        }
    });
}

/// Writes float samples, column by column: series and times as runs of equal differences, values as short as `values` makes them. Around
/// 4 bytes a sample of a scrape (an estimate), for less time than writing and checking the rest should take.
pub fn put_floats(out: &mut Vec<u8>, rows: impl ExactSizeIterator<Item = FloatRow> + Clone) {
    let with_start = rows.clone().any(|r| r.start_ts_ms != 0);
    frame(out, PACKED, |out| {
        out.reserve(rows.len() * 6 + 32);
        put_u64(out, rows.len() as u64);
        out.push(u8::from(with_start));
        put_runs(out, rows.clone().map(|r| i64::from(r.series)));
        put_runs(out, rows.clone().map(|r| r.ts_ms));
        if with_start {
            put_runs(out, rows.clone().map(|r| r.start_ts_ms));
        }
        values::put(out, rows.map(|r| r.value));
    });
}

/// Differences to the one before, each with how often it comes in a row: the series of a scrape have neighbouring numbers and one time.
fn put_runs(out: &mut Vec<u8>, all: impl Iterator<Item = i64>) {
    let (mut last, mut step, mut count) = (0i64, 0i64, 0u64);
    for v in all {
        let difference = v.wrapping_sub(last);
        last = v;
        if difference != step && count > 0 {
            put_i64(out, step);
            put_u64(out, count);
            count = 0;
        }
        step = difference;
        count += 1;
    }
    if count > 0 {
        put_i64(out, step);
        put_u64(out, count);
    }
}

/// Takes what [`put_runs`] wrote, `n` integers.
fn take_runs(from: &mut &[u8], n: usize, mut each: impl FnMut(usize, i64) -> Option<()>) -> Option<()> {
    let (mut at, mut last) = (0, 0i64);
    while at < n {
        let step = take_i64(from)?;
        let count = usize::try_from(take_u64(from)?).ok().filter(|c| (1..=n - at).contains(c))?;
        for _ in 0..count {
            last = last.wrapping_add(step);
            each(at, last)?;
            at += 1;
        }
    }
    Some(())
}

/// Writes histogram samples.
pub fn put_histograms(out: &mut Vec<u8>, rows: &[HistogramRow]) {
    frame(out, HISTOGRAMS, |out| {
        put_u64(out, rows.len() as u64);
        for r in rows {
            put_u64(out, r.series as u64);
            put_i64(out, r.ts_ms);
            put_i64(out, r.start_ts_ms);
            histogram::put(out, &r.value, None);
        }
    });
}

/// Writes exemplars of numbered series.
pub fn put_exemplars<'a>(out: &mut Vec<u8>, rows: impl ExactSizeIterator<Item = (u32, &'a Exemplar)>) {
    frame(out, EXEMPLARS, |out| {
        put_u64(out, rows.len() as u64);
        for (series, e) in rows {
            put_u64(out, u64::from(series));
            put_i64(out, e.ts_ms);
            out.extend_from_slice(&e.value.to_bits().to_le_bytes());
            put_bytes(out, e.labels.as_bytes());
        }
    });
}

/// Writes what is known of a metric.
pub fn put_metadata(out: &mut Vec<u8>, tenant: &str, metric: &str, metadata: &Metadata) {
    frame(out, METADATA, |out| {
        for text in [tenant, metric, &metadata.kind, &metadata.help, &metadata.unit] {
            put_bytes(out, text.as_bytes());
        }
    });
}

/// Takes one record off the front; `None` where the bytes are cut off or damaged, with `from` left where it was.
pub fn take<'a>(from: &mut &'a [u8]) -> Option<Record<'a>> {
    let mut rest = *from;
    let record = parse(take_frame(&mut rest)?)?;
    *from = rest;
    Some(record)
}

/// Takes up to `most` records off the front, their checksums right and nothing else looked at: what [`parse`] reads. None are left, or the
/// next is cut off or damaged, where there are fewer; `from` then stands before it.
pub fn take_frames<'a>(from: &mut &'a [u8], most: usize) -> Vec<&'a [u8]> {
    std::iter::from_fn(|| take_frame(from)).take(most).collect()
}

fn take_frame<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (head, rest) = from.split_first_chunk::<FRAME_BYTES>()?;
    let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
    let crc = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
    if length == 0 || length > MAX_RECORD_BYTES {
        return None;
    }
    let (body, rest) = rest.split_at_checked(length as usize)?;
    if checksum(length, body) != crc {
        return None;
    }
    *from = rest;
    Some(body)
}

fn take_byte(from: &mut &[u8]) -> Option<u8> {
    let (&byte, rest) = from.split_first()?;
    *from = rest;
    Some(byte)
}

fn text<'a>(from: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(take_bytes(from)?).ok()
}

/// Reads a record's kind and payload; `None` where they are none that this version writes or ever wrote.
pub fn parse<'a>(body: &'a [u8]) -> Option<Record<'a>> {
    let (&kind, mut at) = body.split_first()?;
    let from = &mut at;
    // A count cannot exceed the bytes that follow, so a damaged one allocates no more than the record's size.
    let count = |from: &mut &'a [u8]| take_u64(from).filter(|&n| n <= from.len() as u64).map(|n| n as usize);
    match kind {
        SERIES => {
            let n = count(from)?;
            let mut all = Vec::with_capacity(n);
            for _ in 0..n {
                let series = u32::try_from(take_u64(from)?).ok()?;
                let tenant = text(from)?;
                let labels =
                    (0..count(from)?).map(|_| Some((text(from)?, text(from)?))).collect::<Option<_>>()?;
                all.push(SeriesDefinition { series, tenant, labels });
            }
            Some(Record::Series(all))
        }
        FLOATS | FLOATS_WITH_START => {
            let n = count(from)?;
            let mut rows = vec![FloatRow { series: 0, ts_ms: 0, value: 0.0, start_ts_ms: 0 }; n];
            let mut last = 0i64;
            for r in &mut rows {
                last = last.wrapping_add(take_i64(from)?);
                r.series = u32::try_from(last).ok()?;
            }
            last = 0;
            for r in &mut rows {
                last = last.wrapping_add(take_i64(from)?);
                r.ts_ms = last;
            }
            for r in &mut rows {
                r.value = f64::from_bits(take_8(from)?);
            }
            if kind == FLOATS_WITH_START {
                last = 0;
                for r in &mut rows {
                    last = last.wrapping_add(take_i64(from)?);
                    r.start_ts_ms = last;
                }
            }
            Some(Record::Floats(rows))
        }
        PACKED => {
            // A sample takes at least the half byte that says of what kind its value is.
            let n = usize::try_from(take_u64(from)?).ok().filter(|n| n / 2 <= from.len())?;
            let with_start = match take_byte(from)? {
                0 => false,
                1 => true,
                _ => return None,
            };
            let mut rows = vec![FloatRow { series: 0, ts_ms: 0, value: 0.0, start_ts_ms: 0 }; n];
            take_runs(from, n, |i, v| {
                rows[i].series = u32::try_from(v).ok()?;
                Some(())
            })?;
            take_runs(from, n, |i, v| {
                rows[i].ts_ms = v;
                Some(())
            })?;
            if with_start {
                take_runs(from, n, |i, v| {
                    rows[i].start_ts_ms = v;
                    Some(())
                })?;
            }
            values::take(from, n, |i, v| rows[i].value = v)?;
            Some(Record::Floats(rows))
        }
        HISTOGRAMS => {
            let n = count(from)?;
            let mut rows = Vec::with_capacity(n.min(4096));
            for _ in 0..n {
                let series = u32::try_from(take_u64(from)?).ok()?;
                let (ts_ms, start_ts_ms) = (take_i64(from)?, take_i64(from)?);
                let value = Arc::new(histogram::take(from, None)?);
                rows.push(HistogramRow { series, ts_ms, value, start_ts_ms });
            }
            Some(Record::Histograms(rows))
        }
        METADATA => {
            let (tenant, metric) = (text(from)?, text(from)?);
            let metadata =
                Metadata { kind: text(from)?.into(), help: text(from)?.into(), unit: text(from)?.into() };
            Some(Record::Metadata { tenant, metric, metadata })
        }
        EXEMPLARS => {
            let n = count(from)?;
            let mut rows = Vec::with_capacity(n.min(4096));
            for _ in 0..n {
                let series = u32::try_from(take_u64(from)?).ok()?;
                let (ts_ms, value) = (take_i64(from)?, f64::from_bits(take_8(from)?));
                rows.push((
                    series,
                    Exemplar { ts_ms, value, labels: Labels::from_bytes(take_bytes(from)?)? },
                ));
            }
            Some(Record::Exemplars(rows))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rows_survive_and_a_cut_anywhere_is_noticed(
            rows in proptest::collection::vec((any::<u32>(), any::<i64>(), any::<u64>(), prop_oneof![Just(0i64), any::<i64>()]), 0..50),
            cut in any::<prop::sample::Index>(), flip in any::<prop::sample::Index>(),
        ) {
            let rows: Vec<_> = rows.into_iter().map(|(series, ts_ms, v, start_ts_ms)| FloatRow { series, ts_ms, value: f64::from_bits(v), start_ts_ms }).collect();
            let mut out = Vec::new();
            put_series(&mut out, [(7, "default", vec![("a", "1"), ("é", "x")])].into_iter());
            let definition = out.len();
            put_floats(&mut out, rows.iter().copied());
            let mut at = &out[..];
            let Some(Record::Series(defs)) = take(&mut at) else { panic!("no definition") };
            prop_assert_eq!(defs, vec![SeriesDefinition { series: 7, tenant: "default", labels: vec![("a", "1"), ("é", "x")] }]);
            let Some(Record::Floats(got)) = take(&mut at) else { panic!("no rows") };
            let key = |r: &FloatRow| (r.series, r.ts_ms, r.value.to_bits(), r.start_ts_ms);
            prop_assert_eq!(got.iter().map(key).collect::<Vec<_>>(), rows.iter().map(key).collect::<Vec<_>>());
            prop_assert!(at.is_empty());

            let mut short = &out[definition..definition + cut.index(out.len() - definition)];
            prop_assert!(take(&mut short).is_none());
            let mut damaged = out[definition..].to_vec();
            let bit = flip.index(damaged.len() * 8);
            damaged[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(take(&mut &damaged[..]).is_none(), "bit {} of {} flipped unnoticed", bit, damaged.len() * 8);
        }

        #[test]
        fn noise_never_panics(mut body in proptest::collection::vec(any::<u8>(), 1..200), kind in 0u8..20) {
            body[0] = kind;
            let _ = parse(&body);
            prop_assert!(take(&mut &body[..]).is_none() || body.len() > FRAME_BYTES);
        }
    }
}
