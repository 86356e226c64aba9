//! Which downsampled windows give a selector exactly what its samples would: decided from times and functions
//! alone.
//!
//! A window tells of its samples together, so it is exact where every range that is evaluated holds it whole
//! or not at all: where ends and beginnings of all ranges are multiples of its length. An instant selector
//! only has ends: the newest sample before each is the last one of some window. Where there are few ranges
//! (an instant query over 30 days, say), they need not lie on multiples: finer windows and samples fill the
//! edges.

use model::rollup::{Aggregates, RESOLUTIONS_MS};
use model::source::RollupHints;

/// Evaluations up to which the edges of ranges are told to the source one by one.
pub(crate) const FEW: usize = 16;

/// The coarsest resolution a query may be answered from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum MaxResolution {
    /// What is exact; coarser only where nothing finer is left.
    #[default]
    Auto,
    /// Up to so many milliseconds, exact or not; 0 for samples.
    AtMost(i64),
}

/// What a function takes of each window of its range; `None` if it needs the samples.
pub fn window_needs(func: &str) -> Option<Aggregates> {
    use Aggregates as A;
    Some(match func {
        "count_over_time" => A::COUNT,
        "sum_over_time" => A::SUM.and(A::COUNT),
        "avg_over_time" => A::SUM.and(A::COUNT),
        "min_over_time" => A::MIN.and(A::COUNT),
        "max_over_time" => A::MAX.and(A::COUNT),
        "first_over_time" | "ts_of_first_over_time" => A::FIRST,
        "last_over_time" | "ts_of_last_over_time" | "present_over_time" | "absent_over_time" => A::NONE,
        "rate" | "increase" => A::FIRST.and(A::COUNT).and(A::RESET_SUM),
        "delta" => A::FIRST.and(A::COUNT),
        "resets" => A::FIRST.and(A::RESETS).and(A::COUNT),
        "changes" => A::FIRST.and(A::CHANGES).and(A::COUNT),
        _ => return None,
    })
}

/// What the users of one selection need of it together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Some user needs samples.
    pub samples: bool,
    pub aggregates: Aggregates,
}

impl Needs {
    /// One more user: `func` is the function right around a range selector; `None` for an instant selector,
    /// which needs the last sample only.
    pub fn add(&mut self, func: Option<&str>) {
        match func.map(window_needs) {
            None => {}
            Some(Some(aggregates)) => self.aggregates = self.aggregates.and(aggregates),
            Some(None) => self.samples = true,
        }
    }
}

/// When a selection is looked at: ranges `(t - range_ms, t]` that end at `first_ms + i * step_ms` for `i`
/// below `count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looks {
    pub first_ms: i64,
    pub step_ms: i64,
    pub count: usize,
    /// 0 for instant selectors.
    pub range_ms: i64,
}

impl Looks {
    /// Whether windows of a resolution lie whole in or out of every range.
    pub fn align_with(&self, resolution_ms: i64) -> bool {
        let whole = |ms: i64| ms.rem_euclid(resolution_ms) == 0;
        whole(self.first_ms) && whole(self.range_ms) && (self.count <= 1 || whole(self.step_ms))
    }

    /// The edges of all ranges, ascending.
    fn edges(&self) -> Vec<i64> {
        let end = |i: usize| self.first_ms.saturating_add((i as i64).saturating_mul(self.step_ms));
        let mut edges: Vec<i64> = (0..self.count.max(1)).map(end).collect();
        if self.range_ms > 0 {
            edges.extend((0..self.count.max(1)).map(|i| end(i).saturating_sub(self.range_ms)));
        }
        edges.sort_unstable();
        edges.dedup();
        edges
    }
}

/// What to ask the source for.
pub fn rollup_hints(needs: Needs, looks: Looks, most: MaxResolution) -> RollupHints {
    let hints = RollupHints { aggregates: needs.aggregates, ..RollupHints::default() };
    let coarsest = RESOLUTIONS_MS[RESOLUTIONS_MS.len() - 1];
    match most {
        MaxResolution::AtMost(max_resolution_ms) => RollupHints { max_resolution_ms, ..hints },
        MaxResolution::Auto if needs.samples => hints,
        MaxResolution::Auto => {
            let aligned = RESOLUTIONS_MS.iter().rev().find(|r| looks.align_with(**r)).copied().unwrap_or(0);
            if aligned == coarsest || looks.count > FEW {
                return RollupHints { max_resolution_ms: aligned, ..hints };
            }
            RollupHints { max_resolution_ms: coarsest, cuts_ms: looks.edges(), ..hints }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const M: i64 = 60_000;
    const H: i64 = 60 * M;

    fn looks(first_ms: i64, step_ms: i64, count: usize, range_ms: i64) -> Looks {
        Looks { first_ms, step_ms, count, range_ms }
    }

    fn auto(func: Option<&str>, looks: Looks) -> RollupHints {
        let mut needs = Needs::default();
        needs.add(func);
        rollup_hints(needs, looks, MaxResolution::Auto)
    }

    #[test]
    fn resolution_is_the_coarsest_that_times_and_range_are_multiples_of() {
        for (func, looks, want) in [
            (Some("rate"), looks(0, H, 100, H), H),
            (Some("rate"), looks(0, H, 100, 24 * H), H),
            (Some("rate"), looks(5 * M, H, 100, H), 5 * M),
            (Some("rate"), looks(0, 5 * M, 100, H), 5 * M),
            (Some("rate"), looks(0, H, 100, 5 * M), 5 * M),
            (Some("rate"), looks(0, H, 100, 7 * M), 0),
            (Some("rate"), looks(M, H, 100, H), 0),
            (Some("rate"), looks(0, M, 100, H), 0),
            (Some("quantile_over_time"), looks(0, H, 100, H), 0),
            (Some("irate"), looks(0, H, 100, H), 0),
            (None, looks(-2 * H, 6 * H, 100, 0), H),
            (None, looks(5 * M, 5 * M, 100, 0), 5 * M),
            (None, looks(1, H, 100, 0), 0),
        ] {
            let hints = auto(func, looks);
            assert_eq!((hints.max_resolution_ms, hints.cuts_ms.len()), (want, 0), "{func:?} {looks:?}");
        }
    }

    #[test]
    fn resolution_cuts_few_ranges_at_their_edges() {
        let hints = auto(Some("increase"), looks(10 * H + 7, 0, 1, 24 * H));
        assert_eq!((hints.max_resolution_ms, hints.cuts_ms), (H, vec![-14 * H + 7, 10 * H + 7]));
        let hints = auto(None, looks(3, M, 3, 0));
        assert_eq!((hints.max_resolution_ms, hints.cuts_ms), (H, vec![3, M + 3, 2 * M + 3]));
        assert_eq!(auto(Some("stddev_over_time"), looks(3, 0, 1, H)).max_resolution_ms, 0);
    }

    #[test]
    fn shared_selection_takes_what_all_its_users_can() {
        let mut needs = Needs::default();
        needs.add(Some("rate"));
        needs.add(Some("max_over_time"));
        let hints = super::rollup_hints(needs, looks(0, H, 50, H), MaxResolution::Auto);
        assert_eq!(hints.max_resolution_ms, H);
        assert!(hints.aggregates.has(Aggregates::MAX.and(Aggregates::RESET_SUM)));
        needs.add(Some("deriv"));
        assert_eq!(super::rollup_hints(needs, looks(0, H, 50, H), MaxResolution::Auto).max_resolution_ms, 0);
        assert_eq!(
            super::rollup_hints(needs, looks(0, H, 50, H), MaxResolution::AtMost(300_000)).max_resolution_ms,
            300_000
        );
    }
}
