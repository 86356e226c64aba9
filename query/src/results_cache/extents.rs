//! Where results are cut: at times that do not depend on the query, so that queries of one step and phase
//! share extents.

use crate::plan::Steps;

/// Steps of an extent. More than [`crate::plan::resolution`] takes for few, so that an extent is read as it
/// would be as a part of more.
pub const EXTENT_STEPS: usize = 32;

/// More gaps than this are computed in one run, with what is kept between them.
const MAX_RUNS: usize = 4;

/// The steps of a query, numbered from the epoch, and the extents they lie in.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    phase_ms: i64,
    step_ms: i64,
    first: i64,
    last: i64,
}

/// Steps by number, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StepRange {
    pub first: i64,
    pub last: i64,
}

impl StepRange {
    pub fn count(&self) -> usize {
        (self.last - self.first + 1) as usize
    }
}

const LEN: i64 = EXTENT_STEPS as i64;

impl Grid {
    /// `None` for times so far away that sums of them do not fit.
    pub fn of(steps: Steps) -> Option<Grid> {
        let far = i64::MAX / 4;
        if steps.start_ms.abs() > far || steps.end_ms().abs() > far || steps.step_ms > far / (4 * LEN) {
            return None;
        }
        let phase_ms = steps.start_ms.rem_euclid(steps.step_ms);
        let first = (steps.start_ms - phase_ms) / steps.step_ms;
        Some(Grid { phase_ms, step_ms: steps.step_ms, first, last: first + steps.count as i64 - 1 })
    }

    /// All steps of the query.
    pub fn whole(&self) -> StepRange {
        StepRange { first: self.first, last: self.last }
    }

    /// Numbers of the extents that the query touches, ascending.
    pub fn extents(&self) -> impl Iterator<Item = i64> + use<> {
        self.first.div_euclid(LEN)..=self.last.div_euclid(LEN)
    }

    /// All steps of an extent, those outside the query too.
    pub fn extent(&self, index: i64) -> StepRange {
        StepRange { first: index * LEN, last: index * LEN + LEN - 1 }
    }

    pub fn extent_steps(&self, index: i64) -> Steps {
        self.steps_of(self.extent(index))
    }

    /// The part of an extent that the query asks for.
    pub fn asked_of(&self, index: i64) -> StepRange {
        let StepRange { first, last } = self.extent(index);
        StepRange { first: first.max(self.first), last: last.min(self.last) }
    }

    pub fn steps_of(&self, range: StepRange) -> Steps {
        let start_ms = self.phase_ms + range.first * self.step_ms;
        Steps { start_ms, step_ms: self.step_ms, count: range.count() }
    }

    /// Whether a range has all steps of an extent.
    pub fn holds_whole(&self, range: StepRange, index: i64) -> bool {
        let extent = self.extent(index);
        range.first <= extent.first && extent.last <= range.last
    }

    /// What to compute so that all steps are there, ascending: runs of at least so many steps as an extent
    /// has (the query has more), which may overlap with what is kept.
    pub fn missing(&self, is_kept: impl Fn(i64) -> bool) -> Vec<StepRange> {
        let mut runs: Vec<StepRange> = Vec::new();
        for index in self.extents().filter(|index| !is_kept(*index)) {
            let asked = self.asked_of(index);
            match runs.last_mut() {
                Some(run) if run.last + 1 >= asked.first => run.last = asked.last,
                _ => runs.push(asked),
            }
        }
        for run in &mut runs {
            run.first = run.first.min(run.last - LEN + 1).max(self.first);
            run.last = run.last.max(run.first + LEN - 1).min(self.last);
        }
        match (runs.first(), runs.last()) {
            (Some(first), Some(last)) if runs.len() > MAX_RUNS => {
                vec![StepRange { first: first.first, last: last.last }]
            }
            _ => runs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(start_ms: i64, step_ms: i64, count: usize) -> Grid {
        Grid::of(Steps { start_ms, step_ms, count }).expect("near")
    }

    #[test]
    fn extents_of_queries_with_one_step_and_phase_are_the_same() {
        let (a, b) = (grid(-970, 30, 200), grid(-10, 30, 200));
        assert_eq!(a.extent_steps(3), b.extent_steps(3));
        assert_eq!(a.steps_of(a.whole()), Steps { start_ms: -970, step_ms: 30, count: 200 });
        let all: usize = a.extents().map(|index| a.asked_of(index).count()).sum();
        assert_eq!(all, 200);
        assert!(Grid::of(Steps { start_ms: i64::MAX / 2, step_ms: 1, count: 1 }).is_none());
    }

    #[test]
    fn missing_runs_cover_what_is_not_kept_and_are_long_enough() {
        for first in -40..40 {
            for kept in 0u32..64 {
                let grid = grid(first * 7, 7, 5 * EXTENT_STEPS + 3);
                let begin = first.div_euclid(LEN);
                let is_kept = |index: i64| kept >> (index - begin) & 1 == 1;
                let runs = grid.missing(is_kept);
                for index in grid.extents().filter(|index| !is_kept(*index)) {
                    let asked = grid.asked_of(index);
                    assert!(runs.iter().any(|r| r.first <= asked.first && asked.last <= r.last));
                }
                assert!(runs.iter().all(|r| r.count() >= EXTENT_STEPS));
                assert!(runs.iter().all(|r| grid.first <= r.first && r.last <= grid.last));
            }
        }
    }
}
