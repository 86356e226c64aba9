//! Intervals of time that are hidden, and the cutting of a series' columns by them.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use model::source::SeriesColumns;
use model::span::span_end;

/// Intervals of time in milliseconds, both ends included, ascending and with gaps between them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Intervals(Vec<(i64, i64)>);

impl Intervals {
    /// Adds a stretch; those that touch become one. An empty one (`min > max`) adds nothing.
    pub fn add(&mut self, min_t_ms: i64, max_t_ms: i64) {
        if min_t_ms > max_t_ms {
            return;
        }
        let from = self.0.partition_point(|s| s.1 < min_t_ms.saturating_sub(1));
        let to = self.0.partition_point(|s| s.0 <= max_t_ms.saturating_add(1));
        let joined = self.0[from..to].iter().fold((min_t_ms, max_t_ms), |a, b| (a.0.min(b.0), a.1.max(b.1)));
        self.0.splice(from..to, [joined]);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (i64, i64)> + '_ {
        self.0.iter().copied()
    }

    /// Whether all of a range (ends included) is hidden.
    pub fn covers(&self, min_t_ms: i64, max_t_ms: i64) -> bool {
        let at = self.0.partition_point(|s| s.1 < min_t_ms);
        self.0.get(at).is_some_and(|s| s.0 <= min_t_ms && max_t_ms <= s.1)
    }

    /// Whether any of a range (ends included) is hidden.
    pub fn meets(&self, min_t_ms: i64, max_t_ms: i64) -> bool {
        let at = self.0.partition_point(|s| s.1 < min_t_ms);
        self.0.get(at).is_some_and(|s| s.0 <= max_t_ms)
    }

    /// Runs of places in `ts_ms` (ascending) that stay.
    fn kept(&self, ts_ms: &[i64]) -> Vec<Range<usize>> {
        let mut kept = Vec::new();
        let mut at = 0;
        for &(min, max) in &self.0 {
            let from = at + ts_ms[at..].partition_point(|t| *t < min);
            if from > at {
                kept.push(at..from);
            }
            at = from + ts_ms[from..].partition_point(|t| *t <= max);
        }
        if at < ts_ms.len() {
            kept.push(at..ts_ms.len());
        }
        kept
    }
}

/// Cuts series, and lets those that shared a timeline and lose the same of it go on sharing one.
#[derive(Default)]
pub struct Cutter {
    /// By the timeline's address (it is held, so the address stays its own) and the number of the stretches.
    #[allow(clippy::type_complexity)]
    cut: HashMap<(usize, usize, u32), (Arc<[i64]>, Arc<[i64]>)>,
}

impl Cutter {
    /// Takes out the samples that are hidden; false when none is left. `number` stands for `hidden` among
    /// those this cutter is used with.
    pub fn cut(&mut self, columns: &mut SeriesColumns, hidden: &Intervals, number: u32) -> bool {
        if columns.windows.is_some() {
            return cut_windows(columns, hidden);
        }
        let (Some(&first), Some(&last)) = (columns.ts_ms.first(), columns.ts_ms.last()) else { return false };
        // What a histogram says of the sample before it was said of one that is hidden, or was not read
        // because all of its row is.
        if hidden.meets(i64::MIN, first)
            && let Some(Some(histogram)) = columns.histograms.as_mut().and_then(|all| all.first_mut())
        {
            *histogram = histogram.beside_another();
        }
        if !hidden.meets(first, last) {
            return true;
        }
        let kept = hidden.kept(&columns.ts_ms);
        if kept.len() == 1 && kept[0] == (0..columns.ts_ms.len()) {
            return true;
        }
        let key = (columns.ts_ms.as_ptr().addr(), columns.ts_ms.len(), number);
        let cut = self.cut.entry(key).or_insert_with(|| {
            let left: Arc<[i64]> =
                kept.iter().flat_map(|r| columns.ts_ms[r.clone()].iter().copied()).collect();
            (columns.ts_ms.clone(), left)
        });
        columns.ts_ms = cut.1.clone();
        keep(&mut columns.values, &kept);
        if let Some(histograms) = &mut columns.histograms {
            keep(histograms, &kept);
            let mut at = 0;
            for run in &kept {
                if run.start > 0
                    && let Some(histogram) = &mut histograms[at]
                {
                    *histogram = histogram.beside_another();
                }
                at += run.len();
            }
        }
        columns.histograms.take_if(|h| h.iter().all(Option::is_none));
        if let Some(starts) = &mut columns.start_ts_ms {
            keep(starts, &kept);
        }
        columns.start_ts_ms.take_if(|s| s.iter().all(|t| *t == 0));
        !columns.ts_ms.is_empty()
    }
}

/// Of windows, those go of which any part is hidden: a sum of what is deleted and what is not is better not
/// shown. Where samples are left, they stand for such windows, see [`crate::bucket`].
fn cut_windows(columns: &mut SeriesColumns, hidden: &Intervals) -> bool {
    let Some(windows) = &columns.windows else { return true };
    let resolutions = windows.runs.iter().flat_map(|r| std::iter::repeat_n(r.resolution_ms, r.len));
    let shown = |(t, r): (&i64, i64)| {
        let first = if r > 0 { span_end(*t, r).saturating_sub(r).saturating_add(1) } else { *t };
        !hidden.meets(first, *t)
    };
    let keep: Vec<usize> =
        columns.ts_ms.iter().zip(resolutions).map(shown).enumerate().filter(|k| k.1).map(|k| k.0).collect();
    if keep.len() < columns.ts_ms.len() {
        *columns = columns.pick(&keep);
    }
    !keep.is_empty()
}

/// Keeps some runs of a list, in place.
fn keep<T>(list: &mut Vec<T>, runs: &[Range<usize>]) {
    let mut runs = runs.iter().peekable();
    let mut at = 0;
    list.retain(|_| {
        let here = at;
        at += 1;
        while runs.next_if(|r| r.end <= here).is_some() {}
        runs.peek().is_some_and(|r| r.contains(&here))
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::labels::Labels;
    use proptest::prelude::*;

    #[test]
    fn histogram_says_nothing_of_a_sample_that_is_hidden() {
        use model::histogram::{CounterResetHint, Histogram};
        let histogram =
            Histogram { counter_reset_hint: CounterResetHint::CounterReset, ..Histogram::default() };
        let hints = |hidden: &[(i64, i64)]| -> Vec<bool> {
            let mut intervals = Intervals::default();
            hidden.iter().for_each(|(from, to)| intervals.add(*from, *to));
            let mut columns = SeriesColumns {
                labels: Labels::empty(),
                ts_ms: [10, 20, 30, 40].into(),
                values: vec![0.0; 4],
                histograms: Some(vec![Some(Arc::new(histogram.clone())); 4]),
                start_ts_ms: None,
                windows: None,
            };
            assert!(Cutter::default().cut(&mut columns, &intervals, 0));
            let hints = columns.histograms.unwrap().into_iter().flatten();
            hints.map(|h| h.counter_reset_hint == CounterResetHint::CounterReset).collect()
        };
        assert_eq!(hints(&[(50, 60)]), [true; 4]);
        assert_eq!(hints(&[(20, 20)]), [true, false, true]);
        assert_eq!(hints(&[(25, 26)]), [true, true, false, true], "a row that was not read lay there");
        assert_eq!(hints(&[(0, 5)]), [false, true, true, true]);
        assert_eq!(hints(&[(0, 15), (35, 35)]), [false, true, false]);
    }

    proptest! {
        #[test]
        fn cut_keeps_what_no_interval_holds(
            stretches in proptest::collection::vec((-50i64..50, -3i64..20), 0..8),
            ts in proptest::collection::btree_set(-60i64..80, 0..60),
        ) {
            let mut hidden = Intervals::default();
            for (from, length) in &stretches {
                hidden.add(*from, from + length);
            }
            let all: Vec<_> = hidden.iter().collect();
            prop_assert!(all.windows(2).all(|w| w[0].1 + 1 < w[1].0), "{all:?}");
            let holds = |t: i64| stretches.iter().any(|(from, length)| *from <= t && t <= from + length);
            for t in -60..80 {
                prop_assert_eq!(hidden.covers(t, t), holds(t));
                prop_assert_eq!(hidden.covers(t, t + 5), (t..=t + 5).all(holds));
                prop_assert_eq!(hidden.meets(t, t + 5), (t..=t + 5).any(holds));
            }
            let ts: Vec<i64> = ts.into_iter().collect();
            let columns = SeriesColumns {
                labels: Labels::empty(),
                ts_ms: ts.clone().into(),
                values: ts.iter().map(|t| *t as f64).collect(),
                histograms: None,
                start_ts_ms: Some(ts.iter().map(|t| t - 1).collect()),
                windows: None,
            };
            let want: Vec<i64> = ts.iter().copied().filter(|t| !holds(*t)).collect();
            let mut cutter = Cutter::default();
            let (mut a, mut b) = (columns.clone(), columns);
            prop_assert_eq!(cutter.cut(&mut a, &hidden, 0), !want.is_empty());
            prop_assert_eq!(cutter.cut(&mut b, &hidden, 0), !want.is_empty());
            if !want.is_empty() {
                prop_assert!(Arc::ptr_eq(&a.ts_ms, &b.ts_ms), "the timeline is not shared any more");
                prop_assert_eq!(&a.ts_ms[..], &want[..]);
                prop_assert_eq!(&a.values, &want.iter().map(|t| *t as f64).collect::<Vec<_>>());
                prop_assert_eq!(a.start_ts_ms.unwrap_or(vec![0]), want.iter().map(|t| t - 1).collect::<Vec<_>>());
            }
        }
    }
}
