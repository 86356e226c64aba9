//! Native histograms, byte by byte: layout only where it changes, counts as differences to the histogram
//! before.
//!
//! A count that is a whole number below 2^53 is written as the zigzag varint of its difference to the one
//! before; any other as its eight bytes. The same bytes serve the log, where each histogram stands alone
//! ([`put`], [`take`]).

use std::sync::Arc;

use super::Columns;
use model::codec::varint::{put_i64, put_u64, take_8, take_i64, take_u64};
use model::histogram::{BucketSpan, CounterResetHint, Histogram};

/// Most buckets or spans that are read back: more cannot have been written, because requests are limited far
/// below.
pub const MAX_LIST: u64 = 1 << 20;

const SAME_LAYOUT: u8 = 1;
const WHOLE_COUNTS: u8 = 2;
const CUSTOM_VALUES: u8 = 4;
const SAME_START: u8 = 8;

/// Whether two histograms are equal bit for bit. What they say of the one before them does not count: it may
/// have been forgotten since.
pub fn same(a: &Histogram, b: &Histogram) -> bool {
    let bits =
        |x: &[f64], y: &[f64]| x.len() == y.len() && x.iter().zip(y).all(|(x, y)| x.to_bits() == y.to_bits());
    let is_gauge = |h: &Histogram| h.counter_reset_hint == CounterResetHint::Gauge;
    is_gauge(a) == is_gauge(b)
        && same_layout(a, b)
        && bits(&[a.zero_count, a.count, a.sum], &[b.zero_count, b.count, b.sum])
        && bits(&a.positive_buckets, &b.positive_buckets)
        && bits(&a.negative_buckets, &b.negative_buckets)
}

fn same_layout(a: &Histogram, b: &Histogram) -> bool {
    let custom = match (&a.custom_values, &b.custom_values) {
        (None, None) => true,
        (Some(x), Some(y)) => {
            x.len() == y.len() && x.iter().zip(y.iter()).all(|(x, y)| x.to_bits() == y.to_bits())
        }
        _ => false,
    };
    a.schema == b.schema
        && a.zero_threshold.to_bits() == b.zero_threshold.to_bits()
        && a.positive_spans == b.positive_spans
        && a.negative_spans == b.negative_spans
        && a.positive_buckets.len() == b.positive_buckets.len()
        && a.negative_buckets.len() == b.negative_buckets.len()
        && custom
}

/// A count as a whole number, where that loses nothing.
fn whole(v: f64) -> Option<i64> {
    (v.abs() < 9e15 && v.trunc() == v && !(v == 0.0 && v.is_sign_negative())).then_some(v as i64)
}

fn counts(h: &Histogram) -> impl Iterator<Item = f64> + '_ {
    [h.zero_count, h.count]
        .into_iter()
        .chain(h.positive_buckets.iter().copied())
        .chain(h.negative_buckets.iter().copied())
}

/// Writes a histogram as a difference to `before`, or alone.
pub fn put(out: &mut Vec<u8>, h: &Histogram, before: Option<&Histogram>) {
    put_flagged(out, h, before, 0);
}

fn put_flagged(out: &mut Vec<u8>, h: &Histogram, before: Option<&Histogram>, mut flags: u8) {
    let base = before.filter(|b| same_layout(b, h));
    let all_whole =
        counts(h).all(|c| whole(c).is_some()) && base.is_none_or(|b| counts(b).all(|c| whole(c).is_some()));
    if base.is_some() {
        flags |= SAME_LAYOUT;
    }
    if all_whole {
        flags |= WHOLE_COUNTS;
    }
    if h.custom_values.is_some() {
        flags |= CUSTOM_VALUES;
    }
    out.push(flags);
    out.push(match h.counter_reset_hint {
        CounterResetHint::Unknown => 0,
        CounterResetHint::CounterReset => 1,
        CounterResetHint::NotCounterReset => 2,
        CounterResetHint::Gauge => 3,
    });
    out.extend_from_slice(&h.sum.to_bits().to_le_bytes());
    if base.is_none() {
        put_i64(out, h.schema as i64);
        out.extend_from_slice(&h.zero_threshold.to_bits().to_le_bytes());
        for (spans, buckets) in
            [(&h.positive_spans, &h.positive_buckets), (&h.negative_spans, &h.negative_buckets)]
        {
            put_u64(out, spans.len() as u64);
            for s in spans {
                put_i64(out, s.offset as i64);
                put_u64(out, s.length as u64);
            }
            put_u64(out, buckets.len() as u64);
        }
        if let Some(custom) = &h.custom_values {
            put_u64(out, custom.len() as u64);
            for v in custom.iter() {
                out.extend_from_slice(&v.to_bits().to_le_bytes());
            }
        }
    }
    if all_whole {
        // The zip is complete: equal layouts have equal numbers of counts.
        let mut before = base.map(|b| counts(b).collect::<Vec<_>>()).unwrap_or_default().into_iter();
        for c in counts(h) {
            let b = before.next().and_then(whole).unwrap_or(0);
            put_i64(out, whole(c).unwrap_or(0) - b);
        }
    } else {
        for c in counts(h) {
            out.extend_from_slice(&c.to_bits().to_le_bytes());
        }
    }
}

/// Reads what [`put`] wrote with the same `before`; `None` where the bytes are damaged.
pub fn take(from: &mut &[u8], before: Option<&Histogram>) -> Option<Histogram> {
    take_flagged(from, before).map(|(h, _)| h)
}

fn take_flagged(from: &mut &[u8], before: Option<&Histogram>) -> Option<(Histogram, u8)> {
    let (&[flags, hint], rest) = from.split_first_chunk::<2>()?;
    *from = rest;
    let counter_reset_hint = match hint {
        0 => CounterResetHint::Unknown,
        1 => CounterResetHint::CounterReset,
        2 => CounterResetHint::NotCounterReset,
        3 => CounterResetHint::Gauge,
        _ => return None,
    };
    let sum = f64::from_bits(take_8(from)?);
    let base = if flags & SAME_LAYOUT != 0 { Some(before?) } else { None };
    let mut h = match base {
        Some(b) => Histogram { counter_reset_hint, sum, ..b.clone() },
        None => {
            let schema = i32::try_from(take_i64(from)?).ok()?;
            let zero_threshold = f64::from_bits(take_8(from)?);
            let mut side = || -> Option<(Vec<BucketSpan>, Vec<f64>)> {
                let mut spans = Vec::new();
                for _ in 0..bounded(take_u64(from)?)? {
                    let offset = i32::try_from(take_i64(from)?).ok()?;
                    spans.push(BucketSpan { offset, length: u32::try_from(take_u64(from)?).ok()? });
                }
                Some((spans, vec![0.0; bounded(take_u64(from)?)?]))
            };
            let (positive_spans, positive_buckets) = side()?;
            let (negative_spans, negative_buckets) = side()?;
            let custom_values = if flags & CUSTOM_VALUES != 0 {
                let n = bounded(take_u64(from)?)?;
                let values: Option<Vec<f64>> = (0..n).map(|_| take_8(from).map(f64::from_bits)).collect();
                Some(Arc::from(values?))
            } else {
                None
            };
            Histogram {
                counter_reset_hint,
                schema,
                zero_threshold,
                sum,
                positive_spans,
                negative_spans,
                positive_buckets,
                negative_buckets,
                custom_values,
                ..Histogram::default()
            }
        }
    };
    let add = base.is_some();
    let all_whole = flags & WHOLE_COUNTS != 0;
    let mut next = |slot: &mut f64| -> Option<()> {
        *slot = if all_whole {
            let b = if add { whole(*slot)? } else { 0 };
            b.checked_add(take_i64(from)?)? as f64
        } else {
            f64::from_bits(take_8(from)?)
        };
        Some(())
    };
    next(&mut h.zero_count)?;
    next(&mut h.count)?;
    h.positive_buckets.iter_mut().try_for_each(&mut next)?;
    h.negative_buckets.iter_mut().try_for_each(&mut next)?;
    Some((h, flags))
}

/// Whether its lists are no longer than [`take`] believes.
pub fn is_readable(h: &Histogram) -> bool {
    let lists = [
        h.positive_spans.len(),
        h.positive_buckets.len(),
        h.negative_spans.len(),
        h.negative_buckets.len(),
        h.custom_bounds().len(),
    ];
    lists.iter().all(|n| *n as u64 <= MAX_LIST)
}

/// The most bytes that [`put`] writes of it alone.
pub fn max_bytes(h: &Histogram) -> usize {
    let spans = h.positive_spans.len() + h.negative_spans.len();
    let counts = h.positive_buckets.len() + h.negative_buckets.len();
    100 + spans * 10 + counts * 10 + h.custom_bounds().len() * 8
}

fn bounded(n: u64) -> Option<usize> {
    (n <= MAX_LIST).then_some(n as usize)
}

/// Appends histograms in ascending order of time.
#[derive(Clone, Debug, Default)]
pub struct Encoder {
    out: Vec<u8>,
    count: u16,
    first_t: i64,
    last_t: i64,
    last_start: i64,
    last: Option<Arc<Histogram>>,
}

impl Encoder {
    pub fn count(&self) -> u16 {
        self.count
    }

    pub fn first_t_ms(&self) -> i64 {
        self.first_t
    }

    pub fn last_t_ms(&self) -> i64 {
        self.last_t
    }

    /// The newest histogram; there is one as soon as anything was pushed.
    pub fn last(&self) -> &Histogram {
        self.last.as_deref().expect("an open chunk has a sample")
    }

    pub fn last_start_ms(&self) -> i64 {
        self.last_start
    }

    pub fn bytes(&self) -> &[u8] {
        &self.out
    }

    pub fn heap_bytes(&self) -> usize {
        // The newest histogram is kept whole, to encode the next as a difference to it.
        let last = self.last.as_ref().map_or(0, |last| last.size_bytes());
        self.out.capacity() + std::mem::size_of::<Self>() + last
    }

    pub fn push(&mut self, t: i64, h: &Arc<Histogram>, start: i64) {
        if self.count == 0 {
            self.first_t = t;
        }
        put_i64(&mut self.out, t.wrapping_sub(self.last_t));
        let flags = if start == self.last_start { SAME_START } else { 0 };
        put_flagged(&mut self.out, h, self.last.as_deref(), flags);
        if flags == 0 {
            put_i64(&mut self.out, start);
        }
        self.last_t = t;
        self.last_start = start;
        self.last = Some(h.clone());
        self.count += 1;
    }
}

/// Appends those of `count` histograms that lie within `min_t..=max_t`; stops at damage.
pub fn decode(mut bytes: &[u8], count: u16, min_t: i64, max_t: i64, out: &mut Columns) {
    let (mut t, mut start) = (0i64, 0i64);
    let mut before: Option<Arc<Histogram>> = None;
    for _ in 0..count {
        let Some(dt) = take_i64(&mut bytes) else { return };
        t = t.wrapping_add(dt);
        let Some((h, flags)) = take_flagged(&mut bytes, before.as_deref()) else { return };
        if flags & SAME_START == 0 {
            let Some(st) = take_i64(&mut bytes) else { return };
            start = st;
        }
        let h = Arc::new(h);
        if t > max_t {
            return;
        }
        if t >= min_t {
            out.push_histogram(t, h.clone(), start);
        }
        before = Some(h);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_count() -> impl Strategy<Value = f64> {
        prop_oneof![
            (0u64..1 << 54).prop_map(|n| n as f64),
            (-50i64..50).prop_map(|n| n as f64),
            any::<u64>().prop_map(f64::from_bits)
        ]
    }

    prop_compose! {
        fn any_histogram()(
            schema in prop_oneof![Just(-53), -4..=8i32],
            hint in 0..4u8,
            zero_threshold: f64, zero_count in any_count(), count in any_count(), sum in any::<u64>().prop_map(f64::from_bits),
            positive in proptest::collection::vec((any::<i32>(), any::<u32>()), 0..4),
            positive_buckets in proptest::collection::vec(any_count(), 0..6),
            negative_buckets in proptest::collection::vec((0i64..9).prop_map(|n| n as f64), 0..6),
            custom in proptest::option::of(proptest::collection::vec(any::<f64>(), 0..4)),
        ) -> Histogram {
            Histogram {
                counter_reset_hint: [CounterResetHint::Unknown, CounterResetHint::CounterReset, CounterResetHint::NotCounterReset, CounterResetHint::Gauge][hint as usize],
                schema, zero_threshold, zero_count, count, sum,
                positive_spans: positive.iter().map(|&(offset, length)| BucketSpan { offset, length }).collect(),
                negative_spans: Vec::new(),
                positive_buckets, negative_buckets,
                custom_values: custom.map(Arc::from),
            }
        }
    }

    proptest! {
        #[test]
        fn histogram_chunks_of_any_histograms_read_back(mut all in proptest::collection::vec((any::<i64>(), any_histogram(), any::<i64>(), any::<bool>()), 1..20)) {
            for i in 1..all.len() {
                if all[i].3 {
                    // The usual case: the layout of the one before with other counts.
                    let mut h = all[i - 1].1.clone();
                    h.count += 3.0;
                    all[i].1 = h;
                    all[i].2 = all[i - 1].2;
                }
            }
            let mut e = Encoder::default();
            for (t, h, st, _) in &all {
                e.push(*t, &Arc::new(h.clone()), *st);
            }
            let mut out = Columns::default();
            decode(e.bytes(), e.count(), i64::MIN, i64::MAX, &mut out);
            prop_assert_eq!(out.len(), all.len());
            for (i, (t, h, st, _)) in all.iter().enumerate() {
                prop_assert_eq!(out.ts_ms[i], *t);
                prop_assert_eq!(out.start(i), *st);
                prop_assert!(same(out.histograms[i].as_ref().unwrap(), h), "{:?} became {:?}", h, out.histograms[i]);
                let mut alone = Vec::new();
                put(&mut alone, h, None);
                let back = take(&mut &alone[..], None).unwrap();
                prop_assert!(same(&back, h));
            }
        }

        #[test]
        fn damage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), count in 0u16..20) {
            let mut out = Columns::default();
            decode(&bytes, count, i64::MIN, i64::MAX, &mut out);
            prop_assert!(out.len() <= count as usize);
        }
    }
}
