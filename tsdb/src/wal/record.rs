//! The log's records: framed with length and CRC-32, columns of small integers inside.
//!
//! A frame is `length u32, crc32 u32, kind u8, payload`, integers little end first; the length counts kind
//! and payload, the checksum covers length, kind and payload. Series are referred to by the number that a
//! definition earlier in the same session gave them.

use std::sync::Arc;

use super::{definitions, values};
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
const PACKED_SERIES: u8 = 7;
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

/// Bytes after which what a request writes of a kind goes on in a further record. A record is read whole, so
/// it should be small beside memory; what it costs more is a few bytes in so many.
const FULL_BYTES: usize = if cfg!(test) { 1 << 10 } else { 16 << 20 };

/// Rows of floats in one record: they take at most 33 bytes each.
const FULL_ROWS: usize = FULL_BYTES / 32;

/// One thing that is longer than any record that replay believes; nothing of it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} of about {bytes} bytes is more than the log keeps in one record ({MAX_RECORD_BYTES} bytes)")]
pub struct TooLong {
    pub what: &'static str,
    pub bytes: usize,
}

/// Writes a record. Whoever calls it has seen to it that the payload is no longer than `about`.
fn frame(
    out: &mut Vec<u8>,
    kind: u8,
    about: usize,
    payload: impl FnOnce(&mut Vec<u8>),
) -> Result<(), TooLong> {
    let begin = out.len();
    let too_long = |bytes| TooLong { what: name_of(kind), bytes };
    if about >= MAX_RECORD_BYTES as usize {
        return Err(too_long(about));
    }
    out.extend_from_slice(&[0; FRAME_BYTES]);
    out.push(kind);
    payload(out);
    let bytes = out.len() - begin - FRAME_BYTES;
    let Some(length) = u32::try_from(bytes).ok().filter(|length| *length <= MAX_RECORD_BYTES) else {
        out.truncate(begin);
        return Err(too_long(bytes));
    };
    out[begin..begin + 4].copy_from_slice(&length.to_le_bytes());
    let crc = checksum(length, &out[begin + FRAME_BYTES..]);
    out[begin + 4..begin + 8].copy_from_slice(&crc.to_le_bytes());
    Ok(())
}

fn name_of(kind: u8) -> &'static str {
    match kind {
        SERIES | PACKED_SERIES => "a series",
        HISTOGRAMS => "a histogram",
        METADATA => "metadata",
        EXEMPLARS => "an exemplar",
        _ => "samples",
    }
}

/// Rows in runs that fit into a record each, and about how many bytes a run takes; `bytes` is the most that a
/// row can take.
fn runs<T>(rows: &[T], bytes: impl Fn(&T) -> usize) -> impl Iterator<Item = (&[T], usize)> {
    let mut rest = rows;
    std::iter::from_fn(move || {
        let (mut count, mut all) = (0, 10);
        for row in rest {
            let row = bytes(row);
            if count > 0 && all + row > FULL_BYTES {
                break;
            }
            (count, all) = (count + 1, all + row);
        }
        let (run, left) = rest.split_at(count);
        rest = left;
        (!run.is_empty()).then_some((run, all))
    })
}

fn checksum(length: u32, body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&length.to_le_bytes());
    crc.update(body);
    crc.finalize()
}

/// Writes definitions of series: numbers, tenants and labels. Each text of a record stands in it once.
pub fn put_series<'a>(
    out: &mut Vec<u8>,
    all: impl IntoIterator<Item = (u32, &'a str, Vec<(&'a str, &'a str)>)>,
) -> Result<(), TooLong> {
    let all: Vec<_> = all.into_iter().collect();
    let texts = |labels: &[(&str, &str)]| labels.iter().map(|(n, v)| n.len() + v.len() + 10).sum::<usize>();
    for (run, about) in runs(&all, |(_, tenant, labels)| 15 + tenant.len() + texts(labels)) {
        frame(out, PACKED_SERIES, about, |out| definitions::put(out, run))?;
    }
    Ok(())
}

/// Writes float samples, column by column: series and times as runs of equal differences, values as short as
/// `values` makes them. Around 4 bytes a sample of a scrape (an estimate), for less time than writing and
/// checking the rest should take.
pub fn put_floats(
    out: &mut Vec<u8>,
    rows: impl ExactSizeIterator<Item = FloatRow> + Clone,
) -> Result<(), TooLong> {
    let mut from = 0;
    while from < rows.len() {
        let run = rows.clone().skip(from).take(FULL_ROWS);
        from += run.len();
        let with_start = run.clone().any(|r| r.start_ts_ms != 0);
        frame(out, PACKED, 33 * run.len(), |out| {
            out.reserve(run.len() * 6 + 32);
            put_u64(out, run.len() as u64);
            out.push(u8::from(with_start));
            put_runs(out, run.clone().map(|r| i64::from(r.series)));
            put_runs(out, run.clone().map(|r| r.ts_ms));
            if with_start {
                put_runs(out, run.clone().map(|r| r.start_ts_ms));
            }
            values::put(out, run.map(|r| r.value));
        })?;
    }
    Ok(())
}

/// Differences to the one before, each with how often it comes in a row: the series of a scrape have
/// neighbouring numbers and one time.
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
pub fn put_histograms(out: &mut Vec<u8>, rows: &[HistogramRow]) -> Result<(), TooLong> {
    if let Some(long) = rows.iter().find(|r| !histogram::is_readable(&r.value)) {
        return Err(TooLong { what: name_of(HISTOGRAMS), bytes: histogram::max_bytes(&long.value) });
    }
    for (run, about) in runs(rows, |r| 30 + histogram::max_bytes(&r.value)) {
        frame(out, HISTOGRAMS, about, |out| {
            put_u64(out, run.len() as u64);
            for r in run {
                put_u64(out, u64::from(r.series));
                put_i64(out, r.ts_ms);
                put_i64(out, r.start_ts_ms);
                histogram::put(out, &r.value, None);
            }
        })?;
    }
    Ok(())
}

/// Writes exemplars of numbered series.
pub fn put_exemplars<'a>(
    out: &mut Vec<u8>,
    rows: impl IntoIterator<Item = (u32, &'a Exemplar)>,
) -> Result<(), TooLong> {
    let rows: Vec<_> = rows.into_iter().collect();
    for (run, about) in runs(&rows, |(_, e)| 40 + e.labels.byte_len()) {
        frame(out, EXEMPLARS, about, |out| {
            put_u64(out, run.len() as u64);
            for (series, e) in run {
                put_u64(out, u64::from(*series));
                put_i64(out, e.ts_ms);
                out.extend_from_slice(&e.value.to_bits().to_le_bytes());
                put_bytes(out, &e.labels.encode());
            }
        })?;
    }
    Ok(())
}

/// Writes what is known of a metric.
pub fn put_metadata(
    out: &mut Vec<u8>,
    tenant: &str,
    metric: &str,
    metadata: &Metadata,
) -> Result<(), TooLong> {
    let texts = [tenant, metric, &metadata.kind, &metadata.help, &metadata.unit];
    frame(out, METADATA, texts.iter().map(|text| text.len() + 10).sum(), |out| {
        texts.iter().for_each(|text| put_bytes(out, text.as_bytes()));
    })
}

/// Takes one record off the front; `None` where the bytes are cut off or damaged, with `from` left where it
/// was.
pub fn take<'a>(from: &mut &'a [u8]) -> Option<Record<'a>> {
    let mut rest = *from;
    let record = parse(take_frame(&mut rest)?)?;
    *from = rest;
    Some(record)
}

/// Takes up to `most` records off the front, their checksums right and nothing else looked at: what [`parse`]
/// reads. None are left, or the next is cut off or damaged, where there are fewer; `from` then stands before
/// it.
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

/// Where the next whole record begins after one that is damaged at the front of `from`; `None` where none
/// follows.
///
/// Where the damage is in the payload its length still says where the next one begins. Else every place is
/// tried: its kind must be one that was ever written, and its checksum right. Checksums of long stretches are
/// only worked out where another record or the end follows, and of so many bytes in all: what looks like
/// records everywhere must not keep a start waiting for hours.
pub fn next_whole(from: &[u8]) -> Option<usize> {
    let is_whole = |at: usize| take_frame(&mut &from[at..]).is_some();
    if let Some(next) = frame_end(from, 0)
        && next < from.len()
        && is_whole(next)
    {
        return Some(next);
    }
    let mut checked = 0usize;
    for at in 1..from.len().saturating_sub(FRAME_BYTES) {
        let Some(end) = frame_end(from, at).filter(|_| is_kind(from[at + FRAME_BYTES])) else { continue };
        let bytes = end - at;
        let followed = end == from.len()
            || (end + FRAME_BYTES < from.len()
                && frame_end(from, end).is_some()
                && is_kind(from[end + FRAME_BYTES]));
        if bytes > SHORT_BYTES && !followed {
            continue;
        }
        checked += bytes;
        if checked > MAX_CHECKED_BYTES {
            return None;
        }
        if is_whole(at) {
            return Some(at);
        }
    }
    None
}

/// Records up to this long are looked for whatever seems to follow them.
const SHORT_BYTES: usize = 1 << 20;

/// Bytes whose checksums are worked out to find the next record: some seconds.
const MAX_CHECKED_BYTES: usize = 16 << 30;

/// Where a record that begins here would end, if there is one within the bytes.
fn frame_end(from: &[u8], at: usize) -> Option<usize> {
    let length = u32::from_le_bytes(*from.get(at..)?.first_chunk()?);
    let end = at + FRAME_BYTES + length as usize;
    (length > 0 && length <= MAX_RECORD_BYTES && end <= from.len()).then_some(end)
}

fn is_kind(kind: u8) -> bool {
    matches!(kind, SERIES..=PACKED_SERIES | EXEMPLARS)
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
    match kind {
        SERIES => parse_series(from).map(Record::Series),
        PACKED_SERIES => {
            let all = definitions::take(from)?.into_iter();
            let definition = |(series, tenant, labels)| SeriesDefinition { series, tenant, labels };
            Some(Record::Series(all.map(definition).collect()))
        }
        FLOATS | FLOATS_WITH_START => parse_plain_floats(from, kind == FLOATS_WITH_START).map(Record::Floats),
        PACKED => parse_floats(from).map(Record::Floats),
        HISTOGRAMS => parse_histograms(from).map(Record::Histograms),
        METADATA => {
            let (tenant, metric) = (text(from)?, text(from)?);
            let metadata =
                Metadata { kind: text(from)?.into(), help: text(from)?.into(), unit: text(from)?.into() };
            Some(Record::Metadata { tenant, metric, metadata })
        }
        EXEMPLARS => parse_exemplars(from).map(Record::Exemplars),
        _ => None,
    }
}

/// A count of things that follow. It cannot exceed the bytes that follow, so a damaged one allocates no more
/// than the record's size.
fn count(from: &mut &[u8]) -> Option<usize> {
    take_u64(from).filter(|&n| n <= from.len() as u64).map(|n| n as usize)
}

fn parse_series<'a>(from: &mut &'a [u8]) -> Option<Vec<SeriesDefinition<'a>>> {
    let n = count(from)?;
    let mut all = Vec::with_capacity(n.min(4096));
    for _ in 0..n {
        let series = u32::try_from(take_u64(from)?).ok()?;
        let tenant = text(from)?;
        let labels = (0..count(from)?).map(|_| Some((text(from)?, text(from)?))).collect::<Option<_>>()?;
        all.push(SeriesDefinition { series, tenant, labels });
    }
    Some(all)
}

const NO_ROW: FloatRow = FloatRow { series: 0, ts_ms: 0, value: 0.0, start_ts_ms: 0 };

/// Floats as the first version of the log wrote them.
fn parse_plain_floats(from: &mut &[u8], with_start: bool) -> Option<Vec<FloatRow>> {
    let mut rows = vec![NO_ROW; count(from)?];
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
    if with_start {
        last = 0;
        for r in &mut rows {
            last = last.wrapping_add(take_i64(from)?);
            r.start_ts_ms = last;
        }
    }
    Some(rows)
}

fn parse_floats(from: &mut &[u8]) -> Option<Vec<FloatRow>> {
    // A sample takes at least the half byte that says of what kind its value is.
    let n = usize::try_from(take_u64(from)?).ok().filter(|n| n / 2 <= from.len())?;
    let with_start = match take_byte(from)? {
        0 => false,
        1 => true,
        _ => return None,
    };
    let mut rows = vec![NO_ROW; n];
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
    Some(rows)
}

fn parse_histograms(from: &mut &[u8]) -> Option<Vec<HistogramRow>> {
    let n = count(from)?;
    let mut rows = Vec::with_capacity(n.min(4096));
    for _ in 0..n {
        let series = u32::try_from(take_u64(from)?).ok()?;
        let (ts_ms, start_ts_ms) = (take_i64(from)?, take_i64(from)?);
        let value = Arc::new(histogram::take(from, None)?);
        rows.push(HistogramRow { series, ts_ms, value, start_ts_ms });
    }
    Some(rows)
}

fn parse_exemplars(from: &mut &[u8]) -> Option<Vec<(u32, Exemplar)>> {
    let n = count(from)?;
    let mut rows = Vec::with_capacity(n.min(4096));
    for _ in 0..n {
        let series = u32::try_from(take_u64(from)?).ok()?;
        let (ts_ms, value) = (take_i64(from)?, f64::from_bits(take_8(from)?));
        rows.push((series, Exemplar { ts_ms, value, labels: Labels::decode(take_bytes(from)?)? }));
    }
    Some(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn float_records_survive_and_a_cut_anywhere_is_noticed(
            rows in proptest::collection::vec((any::<u32>(), any::<i64>(), any::<u64>(), prop_oneof![Just(0i64), any::<i64>()]), 0..50),
            cut in any::<prop::sample::Index>(), flip in any::<prop::sample::Index>(),
        ) {
            let rows: Vec<_> = rows.into_iter().map(|(series, ts_ms, v, start_ts_ms)| FloatRow { series, ts_ms, value: f64::from_bits(v), start_ts_ms }).collect();
            let mut out = Vec::new();
            put_series(&mut out, [(7, "default", vec![("a", "1"), ("é", "x")])]).unwrap();
            let definition = out.len();
            put_floats(&mut out, rows.iter().copied()).unwrap();
            let mut at = &out[..];
            let Some(Record::Series(defs)) = take(&mut at) else { panic!("no definition") };
            prop_assert_eq!(defs, vec![SeriesDefinition { series: 7, tenant: "default", labels: vec![("a", "1"), ("é", "x")] }]);
            let got: Vec<FloatRow> = std::iter::from_fn(|| match take(&mut at) {
                Some(Record::Floats(rows)) => Some(rows),
                _ => None,
            }).flatten().collect();
            let key = |r: &FloatRow| (r.series, r.ts_ms, r.value.to_bits(), r.start_ts_ms);
            prop_assert_eq!(got.iter().map(key).collect::<Vec<_>>(), rows.iter().map(key).collect::<Vec<_>>());
            prop_assert!(at.is_empty());
            prop_assume!(!rows.is_empty());

            // The last record alone: there may be more than one.
            let mut last = definition;
            while let Some(end) = frame_end(&out, last).filter(|end| *end < out.len()) {
                last = end;
            }
            let mut short = &out[last..last + cut.index(out.len() - last)];
            prop_assert!(take(&mut short).is_none());
            let mut damaged = out[last..].to_vec();
            let bit = flip.index(damaged.len() * 8);
            damaged[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(take(&mut &damaged[..]).is_none(), "bit {} of {} flipped unnoticed", bit, damaged.len() * 8);
        }

        #[test]
        fn record_of_noise_never_panics(mut body in proptest::collection::vec(any::<u8>(), 1..200), kind in 0u8..20) {
            body[0] = kind;
            let _ = parse(&body);
            prop_assert!(take(&mut &body[..]).is_none() || body.len() > FRAME_BYTES);
        }
    }

    fn histogram_row(n: usize) -> HistogramRow {
        let value = Histogram {
            positive_spans: vec![model::histogram::BucketSpan { offset: 1, length: n as u32 }],
            positive_buckets: (0..n).map(|i| i as f64 + 0.5).collect(),
            count: 7.5,
            ..Histogram::default()
        };
        HistogramRow { series: n as u32, ts_ms: n as i64, value: Arc::new(value), start_ts_ms: 3 }
    }

    /// Every record of these bytes; each must be one that replay believes.
    fn read_all(bytes: &[u8]) -> Vec<Record<'_>> {
        let mut rest = bytes;
        let mut all = Vec::new();
        while !rest.is_empty() {
            let before = rest.len();
            all.push(take(&mut rest).expect("what was written is read"));
            assert!(
                before - rest.len() <= 2 * FULL_BYTES + FRAME_BYTES,
                "a record of {} bytes",
                before - rest.len()
            );
        }
        all
    }

    #[test]
    fn record_of_no_kind_is_longer_than_what_is_read_back() {
        let big = "x".repeat(FULL_BYTES / 3);
        let defined: Vec<_> = (0..50u32).map(|n| (n, "default", vec![("a", big.as_str())])).collect();
        let mut out = Vec::new();
        put_series(&mut out, defined.clone()).unwrap();
        let got: Vec<_> = read_all(&out)
            .into_iter()
            .flat_map(|r| match r {
                Record::Series(all) => all,
                other => panic!("{other:?}"),
            })
            .map(|d| (d.series, d.tenant, d.labels))
            .collect();
        assert_eq!(got, defined);

        let floats: Vec<_> = (0..10 * FULL_ROWS as i64)
            .map(|i| FloatRow {
                series: (i * 7919 % 1000) as u32,
                ts_ms: (i * i % 1_000_003) << 30,
                value: (i as f64).sqrt(),
                start_ts_ms: (i * 31) << 20,
            })
            .collect();
        out.clear();
        put_floats(&mut out, floats.iter().copied()).unwrap();
        let got = read_all(&out).into_iter().flat_map(|r| match r {
            Record::Floats(rows) => rows,
            other => panic!("{other:?}"),
        });
        let key = |r: FloatRow| (r.series, r.ts_ms, r.value.to_bits(), r.start_ts_ms);
        assert!(got.map(key).eq(floats.into_iter().map(key)));

        let rows: Vec<_> = (0..100).map(histogram_row).collect();
        out.clear();
        put_histograms(&mut out, &rows).unwrap();
        let got: Vec<_> = read_all(&out)
            .into_iter()
            .flat_map(|r| match r {
                Record::Histograms(rows) => rows,
                other => panic!("{other:?}"),
            })
            .collect();
        assert!(got.len() == rows.len() && got.iter().zip(&rows).all(|(a, b)| a.value.equals(&b.value)));

        let exemplar =
            Exemplar { ts_ms: 5, value: 1.5, labels: Labels::from_pairs([("trace_id", &big[..])]) };
        out.clear();
        put_exemplars(&mut out, (0..40).map(|n| (n, &exemplar))).unwrap();
        let got = read_all(&out).into_iter().map(|r| match r {
            Record::Exemplars(rows) => rows.len(),
            other => panic!("{other:?}"),
        });
        assert_eq!(got.sum::<usize>(), 40);
    }

    #[test]
    fn record_that_would_be_too_long_is_an_error_and_leaves_nothing() {
        let mut out = vec![1, 2, 3];
        let long = frame(&mut out, METADATA, MAX_RECORD_BYTES as usize, |_| panic!("it is not begun"));
        assert_eq!(long.unwrap_err().what, "metadata");
        let mut wide = histogram_row(2);
        Arc::make_mut(&mut wide.value).positive_buckets = vec![0.0; histogram::MAX_LIST as usize + 1];
        assert!(put_histograms(&mut out, &[histogram_row(1), wide]).is_err());
        assert_eq!(out, [1, 2, 3]);
    }

    #[test]
    fn record_after_a_damaged_one_is_found_wherever_the_damage_is() {
        let mut records = Vec::new();
        let mut borders = vec![0];
        for n in 0..4 {
            put_histograms(&mut records, &[histogram_row(5 + n)]).unwrap();
            borders.push(records.len());
        }
        for bit in 0..borders[1] * 8 {
            let mut damaged = records.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(next_whole(&damaged), Some(borders[1]), "bit {bit}");
            // And where the one after it is damaged as well.
            damaged[borders[1] + bit / 8 % (borders[2] - borders[1])] ^= 0x40;
            let found = next_whole(&damaged).unwrap();
            assert_eq!(found, borders[2], "bit {bit}, and the next record");
        }
        assert_eq!(next_whole(&records[borders[3]..]), None, "nothing follows the last");
        assert_eq!(next_whole(&vec![0; 5000]), None);
    }
}
