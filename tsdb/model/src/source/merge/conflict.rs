//! Which of two samples of one series and one timestamp stands.
//!
//! Of one writer the last written stands: its copies are given oldest first. What different writers wrote has
//! no order that all readers could know, since each is flushed when it is: there the *greater* stands, which
//! is the same whoever is asked, before and after a flush and in whatever order blocks are merged. A number
//! is greater than a staleness marker, a histogram greater than a number, and of two of a kind the one with
//! the greater value.
//!
//! Copies of several writers that were merged are one of nobody's but their own, so what a writer overwrote
//! before counts in them for good: where it is the greater, compaction with another writer's block brings it
//! back. No rule that forgets who wrote what can do better: `5` of one and `3` of another become `5`, and
//! when the first then writes `1`, nothing knows of the `3` any more.

use std::cmp::Ordering;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use crate::histogram::{BucketSpan, Histogram};
use crate::source::SeriesColumns;
use crate::stale::is_stale;

/// Whose samples a copy holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nobody says. It counts by its place alone: over all that is older, below all that is newer.
    Unknown,
    /// One writer's, or those of several that were merged: then it is one of its own.
    Of(u64),
}

impl Origin {
    /// The origin of what the writer of this name wrote, and nobody else.
    pub fn writer(name: &str) -> Origin {
        Origin::Of(xxh3_64(name.as_bytes()))
    }

    /// The origin of copies of these origins as one; `of_its_own` tells it from all others.
    pub fn joined(mut origins: impl Iterator<Item = Origin>, of_its_own: u64) -> Origin {
        let Some(first) = origins.next() else { return Origin::Unknown };
        let (mut unknown, mut same) = (first == Origin::Unknown, true);
        for origin in origins {
            unknown |= origin == Origin::Unknown;
            same &= origin == first;
        }
        if unknown {
            Origin::Unknown
        } else if same {
            first
        } else {
            Origin::Of(of_its_own)
        }
    }
}

/// Of samples of one timestamp, copies ascending, the one that stands: its copy and its place there.
pub(super) fn standing(
    samples: &[(i64, usize, usize)],
    copies: &[SeriesColumns],
    origins: &[Origin],
) -> (usize, usize) {
    let mut stands: Option<(usize, usize)> = None;
    for (n, (_, copy, at)) in samples.iter().enumerate() {
        let later = &samples[n + 1..];
        let origin = origins[*copy];
        // A later one of the same writer, or of whom nobody knows, stands over it; so does all that is later
        // over what nobody knows.
        let hides = |(_, c, _): &(i64, usize, usize)| {
            origin == Origin::Unknown || origins[*c] == origin || origins[*c] == Origin::Unknown
        };
        if later.iter().any(hides) {
            continue;
        }
        let is_greater = stands.is_none_or(|(c, i)| compare((&copies[c], i), (&copies[*copy], *at)).is_le());
        if is_greater {
            stands = Some((*copy, *at));
        }
    }
    // The last is hidden by none.
    stands.unwrap_or_else(|| samples.last().map_or((0, 0), |(_, c, i)| (*c, *i)))
}

/// Which of two samples is the greater: a histogram than a number, both than a staleness marker, then by
/// value and start timestamp.
fn compare(a: (&SeriesColumns, usize), b: (&SeriesColumns, usize)) -> Ordering {
    let histogram = |(s, i): (&SeriesColumns, usize)| s.histograms.as_ref().and_then(|h| h[i].clone());
    let start = |(s, i): (&SeriesColumns, usize)| s.start_ts_ms.as_ref().map_or(0, |t| t[i]);
    let (of_a, of_b) = (histogram(a), histogram(b));
    let value = |(s, i): (&SeriesColumns, usize), h: &Option<Arc<Histogram>>| {
        h.as_ref().map_or(s.values[i], |h| h.sum)
    };
    let (value_a, value_b) = (value(a, &of_a), value(b, &of_b));
    let by_kind = (!is_stale(value_a), of_a.is_some()).cmp(&(!is_stale(value_b), of_b.is_some()));
    let by_value = || match (&of_a, &of_b) {
        (Some(a), Some(b)) => compare_histograms(a, b),
        _ => number(value_a).cmp(&number(value_b)),
    };
    by_kind.then_with(by_value).then_with(|| start(a).cmp(&start(b)))
}

/// A number's place among all of them: any NaN below the rest.
fn number(v: f64) -> (bool, u64) {
    let bits = v.to_bits();
    // As `f64::total_cmp` does: negative ones descend by their bits.
    (!v.is_nan(), if bits >> 63 == 1 { !bits } else { bits | 1 << 63 })
}

/// By count and sum, and then by everything else but the hint, so that only the same are equal.
fn compare_histograms(a: &Histogram, b: &Histogram) -> Ordering {
    let numbers = |all: &[f64]| all.iter().map(|v| number(*v)).collect::<Vec<_>>();
    let spans = |all: &[BucketSpan]| all.iter().map(|s| (s.offset, s.length)).collect::<Vec<_>>();
    number(a.count)
        .cmp(&number(b.count))
        .then_with(|| number(a.sum).cmp(&number(b.sum)))
        .then_with(|| a.schema.cmp(&b.schema))
        .then_with(|| number(a.zero_threshold).cmp(&number(b.zero_threshold)))
        .then_with(|| number(a.zero_count).cmp(&number(b.zero_count)))
        .then_with(|| spans(&a.positive_spans).cmp(&spans(&b.positive_spans)))
        .then_with(|| spans(&a.negative_spans).cmp(&spans(&b.negative_spans)))
        .then_with(|| numbers(&a.positive_buckets).cmp(&numbers(&b.positive_buckets)))
        .then_with(|| numbers(&a.negative_buckets).cmp(&numbers(&b.negative_buckets)))
        .then_with(|| numbers(a.custom_bounds()).cmp(&numbers(b.custom_bounds())))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::labels::Labels;
    use crate::source::merge::{SharedTimelines, merge_copies_of};
    use crate::stale::stale_nan;

    fn copy(samples: &[(i64, f64)]) -> SeriesColumns {
        SeriesColumns {
            labels: Labels::empty(),
            ts_ms: samples.iter().map(|(t, _)| *t).collect(),
            values: samples.iter().map(|(_, v)| *v).collect(),
            histograms: None,
            start_ts_ms: None,
            windows: None,
        }
    }

    /// A copy of one sample, a histogram's.
    fn histogram(count: f64, sum: f64) -> SeriesColumns {
        let histogram = Histogram { count, sum, ..Histogram::default() };
        SeriesColumns { histograms: Some(vec![Some(Arc::new(histogram))]), ..copy(&[(1, sum)]) }
    }

    fn merged(copies: &[(Origin, SeriesColumns)]) -> SeriesColumns {
        let (origins, copies): (Vec<_>, Vec<_>) = copies.iter().cloned().unzip();
        merge_copies_of(copies, &origins, &mut SharedTimelines::default())
    }

    fn bits(series: &SeriesColumns) -> Vec<(i64, u64, bool)> {
        let is_histogram = |i: usize| series.histograms.as_ref().is_some_and(|h| h[i].is_some());
        let rows = series.ts_ms.iter().zip(&series.values).enumerate();
        rows.map(|(i, (t, v))| (*t, v.to_bits(), is_histogram(i))).collect()
    }

    #[test]
    fn conflict_between_writers_is_decided_by_kind_and_value_alone() {
        let ascending = [
            copy(&[(1, stale_nan())]),
            copy(&[(1, f64::NAN)]),
            copy(&[(1, f64::NEG_INFINITY)]),
            copy(&[(1, -3.5)]),
            copy(&[(1, -0.0)]),
            copy(&[(1, 0.0)]),
            copy(&[(1, 7.0)]),
            copy(&[(1, f64::INFINITY)]),
            histogram(1.0, 90.0),
            histogram(2.0, -1.0),
            histogram(2.0, 5.0),
        ];
        for (low, lesser) in ascending.iter().enumerate() {
            for greater in &ascending[low + 1..] {
                let (a, b) = (Origin::writer("a"), Origin::writer("b"));
                let orders = [
                    [(a, lesser), (b, greater)],
                    [(b, lesser), (a, greater)],
                    [(a, greater), (b, lesser)],
                    [(b, greater), (a, lesser)],
                ];
                for order in orders {
                    let found = merged(&order.map(|(origin, series)| (origin, series.clone())));
                    assert_eq!(bits(&found), bits(greater));
                }
            }
        }
    }

    #[test]
    fn conflict_within_a_writer_and_with_an_import_is_decided_by_the_later() {
        let (a, b, import) = (Origin::writer("a"), Origin::writer("b"), Origin::Unknown);
        let stands = |values: &[(Origin, f64)]| {
            let copies: Vec<_> = values.iter().map(|(o, v)| (*o, copy(&[(1, *v)]))).collect();
            merged(&copies).values[0]
        };
        assert_eq!(stands(&[(a, 5.0), (a, 3.0)]), 3.0);
        assert_eq!(stands(&[(a, 5.0), (b, 4.0), (a, 3.0)]), 4.0, "what `a` overwrote has no say");
        assert_eq!(stands(&[(a, 5.0), (b, 4.0), (import, 1.0)]), 1.0);
        assert_eq!(stands(&[(import, 9.0), (a, 5.0), (b, 4.0)]), 5.0);
        assert_eq!(stands(&[(a, 9.0), (import, 6.0), (b, 4.0)]), 4.0);
    }

    #[test]
    fn conflicts_of_writers_end_alike_in_whatever_order_and_groups_they_are_merged() {
        let mut state = 11u64;
        let mut roll = |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % n
        };
        let values = [stale_nan(), f64::NAN, -1.0, -0.0, 0.0, 2.0, 3.0];
        for round in 0..500 {
            let mut copies: Vec<(Origin, SeriesColumns)> = (0..2 + roll(5))
                .map(|writer| {
                    let mut samples = Vec::new();
                    for t in 0..8 {
                        if roll(3) > 0 {
                            samples.push((t, values[roll(7) as usize]));
                        }
                    }
                    (Origin::writer(&writer.to_string()), copy(&samples))
                })
                .collect();
            let want = bits(&merged(&copies));
            // Any two next to each other become one, in any order of flushes, until one is left.
            let mut own = 0;
            while copies.len() > 1 {
                let swap = roll(copies.len() as u64) as usize;
                copies.swap(0, swap);
                let at = roll(copies.len() as u64 - 1) as usize;
                let pair = [copies.remove(at), copies.remove(at)];
                own += 1;
                let origin = Origin::joined(pair.iter().map(|(origin, _)| *origin), own);
                copies.insert(at, (origin, merged(&pair)));
                assert_eq!(bits(&merged(&copies)), want, "round {round}");
            }
        }
    }

    /// Blocks, oldest first, and what three ingesters have not flushed.
    #[derive(Default)]
    struct Stage {
        blocks: Vec<(Origin, SeriesColumns)>,
        heads: [BTreeMap<i64, f64>; 3],
        compacted: u64,
    }

    impl Stage {
        fn answer(&self) -> BTreeMap<i64, u64> {
            let head = |(n, head): (usize, &BTreeMap<i64, f64>)| {
                let samples: Vec<_> = head.iter().map(|(t, v)| (*t, *v)).collect();
                (!samples.is_empty()).then(|| (Origin::writer(&n.to_string()), copy(&samples)))
            };
            let heads = self.heads.iter().enumerate().filter_map(head);
            let all: Vec<_> = self.blocks.iter().cloned().chain(heads).collect();
            match all.is_empty() {
                true => BTreeMap::new(),
                false => bits(&merged(&all)).into_iter().map(|(t, v, _)| (t, v)).collect(),
            }
        }

        fn flush(&mut self, writer: usize) {
            let samples: Vec<_> = std::mem::take(&mut self.heads[writer]).into_iter().collect();
            if !samples.is_empty() {
                self.blocks.push((Origin::writer(&writer.to_string()), copy(&samples)));
            }
        }

        /// Makes one block of `count` that follow one another, as compaction does.
        fn compact(&mut self, from: usize, count: usize) {
            let inputs: Vec<_> = self.blocks.splice(from..from + count, []).collect();
            self.compacted += 1;
            let origin = Origin::joined(inputs.iter().map(|(origin, _)| *origin), self.compacted);
            self.blocks.insert(from, (origin, merged(&inputs)));
        }
    }

    /// What is written in a run of [`stages`].
    #[derive(Clone, Copy, PartialEq)]
    enum Written {
        /// Each time by several writers, once by each.
        OnceByEach,
        /// All by one writer, again and again, and imports over it.
        AgainByOne,
        /// All of it.
        All,
    }

    /// Writes, flushes and compacts in a random order, and hears before and after each flush and compaction
    /// what is answered, with all that was written of each time.
    fn stages(
        written: Written,
        seed: u64,
        mut told: impl FnMut(&BTreeMap<i64, u64>, &BTreeMap<i64, u64>, &BTreeMap<i64, Vec<(usize, f64)>>),
    ) {
        let mut state = seed;
        let mut roll = move |n: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % n
        };
        let (mut stage, mut all) = (Stage::default(), BTreeMap::<i64, Vec<(usize, f64)>>::new());
        for _ in 0..60 {
            let (t, value) = (roll(6) as i64, roll(9) as f64);
            match roll(8) {
                0..=3 => {
                    let writer = if written == Written::AgainByOne { 0 } else { roll(3) };
                    let of_time = all.entry(t).or_default();
                    if written != Written::OnceByEach || of_time.iter().all(|(w, _)| *w != writer) {
                        of_time.push((writer, value));
                        stage.heads[writer].insert(t, value);
                    }
                }
                4 if written == Written::AgainByOne => {
                    all.entry(t).or_default().push((9, value));
                    stage.blocks.push((Origin::Unknown, copy(&[(t, value)])));
                }
                5 if stage.blocks.len() > 1 => {
                    let before = stage.answer();
                    let from = roll(stage.blocks.len() - 1);
                    let count = 2 + roll(stage.blocks.len() - from - 1);
                    stage.compact(from, count);
                    told(&before, &stage.answer(), &all);
                }
                _ => {
                    let before = stage.answer();
                    stage.flush(roll(3));
                    told(&before, &stage.answer(), &all);
                }
            }
        }
    }

    #[test]
    fn conflicts_are_answered_alike_before_and_after_each_flush_and_compaction() {
        for seed in 0..400 {
            for written in [Written::OnceByEach, Written::AgainByOne] {
                stages(written, seed, |before, after, _| assert_eq!(before, after, "seed {seed}"));
            }
        }
    }

    #[test]
    fn conflict_that_a_writer_overwrites_is_answered_between_the_last_of_each_and_the_greatest_of_all() {
        let mut changed = 0;
        for seed in 0..400 {
            stages(Written::All, seed, |before, after, all| {
                changed += usize::from(before != after);
                for (t, value) in after {
                    let of_time = &all[t];
                    let last = |writer| of_time.iter().rev().find(|(w, _)| *w == writer).map(|(_, v)| *v);
                    let least = (0..3).filter_map(last).fold(f64::NEG_INFINITY, f64::max);
                    let most = of_time.iter().map(|(_, v)| *v).fold(f64::NEG_INFINITY, f64::max);
                    let value = f64::from_bits(*value);
                    assert!((least..=most).contains(&value), "seed {seed}: {value} of {of_time:?}");
                    assert!(of_time.iter().any(|(_, v)| *v == value), "somebody wrote it");
                }
            });
        }
        // What ARCHITECTURE.md says is not promised: were it, this would have to say so.
        assert!(changed > 0);
    }
}
