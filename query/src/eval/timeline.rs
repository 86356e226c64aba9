//! From timestamps to the samples that each step sees; computed once for all series that share a timeline.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::eval::extrapolation::Extrapolation;
use crate::plan::Steps;

/// Which part of time a selector looks at, relative to the steps.
#[derive(Clone, Copy, Debug)]
pub struct Reach {
    pub steps: Steps,
    pub offset_ms: i64,
    /// Instead of the step's time.
    pub at_ms: Option<i64>,
    /// The window is `(end - back_ms, end + ahead_ms]`.
    pub back_ms: i64,
    pub ahead_ms: i64,
}

impl Reach {
    /// The time a step refers to: `@` or its own, less the offset.
    #[inline]
    pub fn reference(&self, step: usize) -> i64 {
        self.at_ms.unwrap_or_else(|| self.steps.at(step)).saturating_sub(self.offset_ms)
    }

    /// First and last timestamp any step may see, both included.
    pub fn span(&self) -> (i64, i64) {
        let first = self.reference(0);
        let last = self.reference(self.steps.count.saturating_sub(1));
        (first.saturating_sub(self.back_ms).saturating_add(1), last.saturating_add(self.ahead_ms))
    }
}

/// What was worked out for the timelines of a selection, shared by all cores: series of one scrape have one
/// timeline, but seldom follow one another.
pub struct Memo<T> {
    /// Slots of one result: what it takes in memory, eight bytes each.
    slots: usize,
    state: Mutex<MemoState<T>>,
}

/// Address and length of a timeline.
type TimelineKey = (usize, usize);

struct MemoState<T> {
    /// The timeline is held, so that its place stays its own.
    by_timeline: HashMap<TimelineKey, (Arc<[i64]>, Arc<T>)>,
    slots: usize,
}

/// Slots and timestamps that a memo holds at most, eight bytes each: the timelines of some hundred targets
/// over a day.
const MEMO_SLOTS: usize = 4 << 20;

impl Memo<Newest> {
    pub fn of_newest(steps: Steps) -> Self {
        Memo::new(steps.count)
    }
}

impl Memo<StepWindows> {
    /// With room for what is extrapolated.
    pub fn of_windows(steps: Steps) -> Self {
        Memo::new(steps.count * 5)
    }
}

impl<T> Memo<T> {
    fn new(slots: usize) -> Self {
        Memo { slots, state: Mutex::new(MemoState { by_timeline: HashMap::new(), slots: 0 }) }
    }

    pub fn get(&self, timeline: &Arc<[i64]>, make: impl FnOnce(&[i64]) -> T) -> Arc<T> {
        let key = (timeline.as_ptr().addr(), timeline.len());
        if let Some((_, made)) = self.state.lock().by_timeline.get(&key) {
            return made.clone();
        }
        let made = Arc::new(make(timeline));
        let mut state = self.state.lock();
        let slots = state.slots + timeline.len() + self.slots;
        // Only what somebody else holds too can come again. What is there stays: the rest comes in the same
        // order, series after series.
        if Arc::strong_count(timeline) > 1 && slots <= MEMO_SLOTS {
            state.slots = slots;
            state.by_timeline.insert(key, (timeline.clone(), made.clone()));
        }
        made
    }
}

/// The sample that each step sees.
#[derive(Debug)]
pub struct Newest {
    /// Per step, its index; 0 where there is none.
    index: Vec<u32>,
    /// A bit per step that sees one.
    present: Vec<u64>,
    /// Whether every step sees the sample behind that of the step before.
    sliding: bool,
}

impl Newest {
    pub fn new(ts_ms: &[i64], reach: &Reach) -> Newest {
        let mut walk = Walk::new(ts_ms, reach.steps.count);
        let mut index = vec![0; reach.steps.count];
        let mut present = vec![0u64; reach.steps.count.div_ceil(64)];
        for (step, index) in index.iter_mut().enumerate() {
            let end = reach.reference(step);
            let n = walk.up_to(end);
            if n > 0 && ts_ms[n - 1] > end.saturating_sub(reach.back_ms) {
                *index = n as u32 - 1;
                present[step >> 6] |= 1 << (step & 63);
            }
        }
        let all = present.iter().map(|word| word.count_ones() as usize).sum::<usize>() == index.len();
        let sliding = all && !index.is_empty() && index.windows(2).all(|w| w[0] + 1 == w[1]);
        Newest { index, present, sliding }
    }

    /// The index of the sample that a step sees.
    pub fn at(&self, step: usize) -> Option<usize> {
        (self.present[step >> 6] >> (step & 63) & 1 == 1).then(|| self.index[step] as usize)
    }

    pub fn steps(&self) -> usize {
        self.index.len()
    }

    /// A bit per step that sees a sample.
    pub fn present(&self) -> &[u64] {
        &self.present
    }

    /// Of values that belong to the timeline, at least one, that which each step sees; any where it sees
    /// none.
    pub fn pick(&self, values: &[f64]) -> Vec<f64> {
        match (self.sliding, self.index.first()) {
            (true, Some(first)) => values[*first as usize..][..self.index.len()].to_vec(),
            _ => self.index.iter().map(|at| values[*at as usize]).collect(),
        }
    }
}

/// The samples `from..to` of each step's window, with what follows from them and their times alone.
#[derive(Debug, Default)]
pub struct StepWindows {
    ranges: Vec<(u32, u32)>,
    /// A bit per step whose window has a sample.
    present: Vec<u64>,
    samples: u64,
    /// Of sums over the range, and per second.
    extrapolation: [OnceLock<Extrapolation>; 2],
}

impl StepWindows {
    /// A bit per step whose window has a sample.
    pub fn present(&self) -> &[u64] {
        &self.present
    }

    /// Samples in all windows together.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// How differences within the windows are carried on to the edges of their ranges; per second where
    /// `rate`. The timeline and the reach are those the windows were made of.
    pub fn extrapolation(&self, ts_ms: &[i64], reach: &Reach, rate: bool) -> &Extrapolation {
        let end_ms = |step| reach.reference(step);
        self.extrapolation[usize::from(rate)]
            .get_or_init(|| Extrapolation::new(ts_ms, &self.ranges, end_ms, reach.back_ms, rate))
    }
}

impl From<Vec<(u32, u32)>> for StepWindows {
    fn from(ranges: Vec<(u32, u32)>) -> StepWindows {
        let samples = ranges.iter().map(|(from, to)| u64::from(to - from)).sum();
        let bit = |(bit, (from, to)): (usize, &(u32, u32))| u64::from(from < to) << bit;
        let present = ranges.chunks(64).map(|word| word.iter().enumerate().map(bit).sum()).collect();
        StepWindows { ranges, present, samples, extrapolation: Default::default() }
    }
}

impl Deref for StepWindows {
    type Target = [(u32, u32)];

    fn deref(&self) -> &[(u32, u32)] {
        &self.ranges
    }
}

/// Finds, for ascending `t`, how many timestamps are at or below it.
struct Walk<'t> {
    ts_ms: &'t [i64],
    at: usize,
    /// How far the step before went: the next mostly goes as far.
    stride: usize,
    /// Few steps over many samples: search instead of walking.
    search: bool,
}

impl<'t> Walk<'t> {
    fn new(ts_ms: &'t [i64], steps: usize) -> Self {
        Walk { ts_ms, at: 0, stride: 0, search: ts_ms.len() / 16 > steps }
    }

    #[inline]
    fn up_to(&mut self, t: i64) -> usize {
        if self.search {
            self.at += self.ts_ms[self.at..].partition_point(|x| *x <= t);
        } else {
            let before = self.at;
            let there = before + self.stride;
            if there > before && self.ts_ms.get(there - 1).is_some_and(|x| *x <= t) {
                self.at = there;
            }
            while self.at < self.ts_ms.len() && self.ts_ms[self.at] <= t {
                self.at += 1;
            }
            self.stride = self.at - before;
        }
        self.at
    }
}

/// Per step, the samples within the window.
pub fn windows(ts_ms: &[i64], reach: &Reach) -> StepWindows {
    let mut from = Walk::new(ts_ms, reach.steps.count);
    let mut to = Walk::new(ts_ms, reach.steps.count);
    let ranges: Vec<(u32, u32)> = (0..reach.steps.count)
        .map(|step| {
            let end = reach.reference(step);
            let a = from.up_to(end.saturating_sub(reach.back_ms));
            let b = to.up_to(end.saturating_add(reach.ahead_ms));
            (a as u32, b.max(a) as u32)
        })
        .collect();
    ranges.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(start_ms: i64, step_ms: i64, count: usize, back_ms: i64) -> Reach {
        Reach { steps: Steps { start_ms, step_ms, count }, offset_ms: 0, at_ms: None, back_ms, ahead_ms: 0 }
    }

    #[test]
    fn windows_are_open_on_the_left() {
        let ts = [0, 10, 20, 30];
        assert_eq!(windows(&ts, &reach(10, 10, 4, 10))[..], [(1, 2), (2, 3), (3, 4), (4, 4)]);
        assert_eq!(windows(&ts, &reach(10, 10, 2, 11))[..], [(0, 2), (1, 3)]);
        let newest = |reach: Reach| {
            let newest = Newest::new(&ts, &reach);
            (0..newest.steps()).map(|step| newest.at(step)).collect::<Vec<_>>()
        };
        assert_eq!(newest(reach(5, 20, 3, 15)), [Some(0), Some(2), None]);
        assert_eq!(newest(reach(10, 10, 3, 15)), [Some(1), Some(2), Some(3)]);
        assert_eq!(newest(reach(40, 1, 1, 10)), [None], "a sample exactly as old as the lookback is too old");
    }

    #[test]
    fn timeline_is_worked_out_once_as_long_as_there_is_room() {
        let memo = Memo::new(MEMO_SLOTS / 3);
        let timelines: Vec<Arc<[i64]>> = (0..4).map(|i| vec![i].into()).collect();
        let others = timelines.clone();
        let mut made = 0;
        for timeline in [&timelines, &others].into_iter().flatten() {
            assert_eq!(*memo.get(timeline, |ts| (made += 1, ts[0])), ((), timeline[0]));
        }
        assert_eq!(made, 4 + 2, "two fit");
        drop(others);
        let alone: Arc<[i64]> = vec![7].into();
        assert_eq!(*memo.get(&alone, |ts| ((), ts[0])), ((), 7));
        assert_eq!(Arc::strong_count(&alone), 1);
    }

    #[test]
    fn timeline_search_and_walk_agree() {
        let ts: Vec<i64> = (0..1000).map(|i| i * 7).collect();
        let few = reach(100, 1013, 5, 500);
        let many = reach(100, 1013 / 8, 5 * 8, 500);
        let all = windows(&ts, &many);
        for (i, w) in windows(&ts, &few).iter().enumerate() {
            let by_hand =
                ts.iter().filter(|t| **t > few.reference(i) - 500 && **t <= few.reference(i)).count();
            assert_eq!((w.1 - w.0) as usize, by_hand);
        }
        assert_eq!(all.len(), 40);
    }
}
