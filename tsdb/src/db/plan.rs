//! When the head is sealed or flushed, and into which blocks: decisions only, no doing.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use model::head_stats::HeadBytes;
use model::span::{in_one_span, span_end};

/// Samples beyond which a block is not widened: bounds what one compaction input or one download is.
const MAX_BLOCK_SAMPLES: u64 = 256 << 20;

/// A block never crosses a multiple of this as it is flushed, back-fill included: it is the shortest span
/// that compaction writes by default, so what is flushed fits into it without being cut again.
const MAX_BLOCK_SPAN_MS: i64 = 12 * 3600 * 1000;

/// Blocks of one flush from which on small ones that follow one another become one, whatever time lies
/// between them: samples strewn over years would else be thousands of blocks, each of them four objects, an
/// upload and a line of every snapshot to come.
const MANY_BLOCKS: usize = 8;

/// A block of fewer samples is small. As many blocks of a flush as have more keep to their half days.
const SMALL_BLOCK_SAMPLES: u64 = 64 << 10;

/// What is known of samples when deciding whether to flush or to seal them.
#[derive(Clone, Copy, Debug)]
pub struct HeadState {
    /// First and newest in-order timestamp; `None` when nothing came in.
    pub span_ms: Option<(i64, i64)>,
    /// How many, late ones included.
    pub samples: u64,
    /// How long ago, by the wall clock, the first of them may have come.
    pub age_ms: i64,
}

/// Whether the generation is complete: its data time has left the window it began in, or it holds something
/// and has been open for two windows (late samples only, or a source that fell silent).
pub fn is_due(head: HeadState, window_ms: i64) -> bool {
    if head.samples == 0 {
        return false;
    }
    let crossed = head.span_ms.is_some_and(|(a, b)| !in_one_span(a, b, window_ms));
    crossed || head.age_ms >= 2 * window_ms
}

/// Sealed generations from which on a flush does not wait for the end of its window: one merge reads them
/// all.
pub const MAX_SEALED_GENERATIONS: usize = 24;

/// Bytes of samples that are not worth local blocks by themselves.
const MIN_SEAL_BYTES: u64 = 16 << 20;

/// Whether the samples in memory should go to the local disk: `seal_ms` of data time are there, or they have
/// been for twice as long, or they take more memory than the series they are of, whatever their times are
/// (short scrape intervals, a back-fill).
pub fn seal_is_due(head: HeadState, bytes: &HeadBytes, seal_ms: i64) -> bool {
    let long = head.span_ms.is_some_and(|(a, b)| b.saturating_sub(a) >= seal_ms);
    let current = (bytes.chunks + bytes.out_of_order).saturating_sub(bytes.frozen);
    let tables = bytes.symbols + bytes.series + bytes.postings;
    let large = current >= tables.max(MIN_SEAL_BYTES);
    head.samples > 0 && (long || large || head.age_ms >= 2 * seal_ms)
}

/// What the head's memory asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pressure {
    /// There is room.
    None,
    /// The current generation should become local blocks before its time.
    Seal,
    /// There is no room: writes have to wait until sealing has made some.
    Full,
}

/// Judges the head's memory by its limit. At three quarters the generation is sealed, because writes go on
/// meanwhile and what that frees is free only at its end; but not for less than a sixteenth, which would make
/// many small blocks for little room.
pub fn pressure(bytes: &HeadBytes, limit_bytes: u64) -> Pressure {
    let total = bytes.total();
    let current = (bytes.chunks + bytes.out_of_order).saturating_sub(bytes.frozen);
    if total >= limit_bytes {
        Pressure::Full
    } else if total >= limit_bytes / 4 * 3 && current >= limit_bytes / 16 {
        Pressure::Seal
    } else {
        Pressure::None
    }
}

/// The time ranges (ends included) of the blocks to make, given how many samples lie in each window of
/// `window_ms`, keyed by the window's end (see [`model::span`]: windows are left-open).
///
/// Windows of one half day go together: a normal flush (one window and the first seconds of the next) is one
/// block, a back-fill of a year is two blocks a day. Twice a day the first seconds of the next half day are a
/// small block of their own, which the next compaction takes. Where that would be many blocks with few
/// samples each, those are joined: a sample a day of ten years is one block.
pub fn plan(windows: &BTreeMap<i64, u64>, window_ms: i64) -> Vec<RangeInclusive<i64>> {
    let mut ranges: Vec<Range> = Vec::new();
    for (&end, &samples) in windows {
        match ranges.last_mut() {
            Some(r)
                if in_one_span(r.end, end, MAX_BLOCK_SPAN_MS) && r.samples + samples <= MAX_BLOCK_SAMPLES =>
            {
                r.end = end;
                r.samples += samples;
            }
            _ => ranges.push(Range { start: end.saturating_sub(window_ms), end, samples }),
        }
    }
    if ranges.len() > MANY_BLOCKS {
        join_small(&mut ranges);
    }
    ranges.into_iter().map(|r| r.start + 1..=r.end).collect()
}

/// The time of a block to be made, the start excluded, and how many samples it will have.
struct Range {
    start: i64,
    end: i64,
    samples: u64,
}

/// Joins neighbours that are small, and stay so together.
fn join_small(ranges: &mut Vec<Range>) {
    let mut joined: Vec<Range> = Vec::new();
    for range in ranges.drain(..) {
        match joined.last_mut() {
            Some(last) if last.samples + range.samples <= SMALL_BLOCK_SAMPLES => {
                last.end = range.end;
                last.samples += range.samples;
            }
            _ => joined.push(range),
        }
    }
    *ranges = joined;
}

/// The window, by its end, that a timestamp belongs to.
pub fn window_of(t_ms: i64, window_ms: i64) -> i64 {
    span_end(t_ms, window_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_of_memory_seals_before_it_asks_writers_to_wait() {
        let held = |series, chunks, frozen| HeadBytes { series, chunks, frozen, ..HeadBytes::default() };
        assert_eq!(pressure(&held(100, 600, 0), 1000), Pressure::None);
        assert_eq!(pressure(&held(100, 700, 0), 1000), Pressure::Seal);
        assert_eq!(pressure(&held(100, 700, 690), 1000), Pressure::None, "sealing is about to free it");
        assert_eq!(pressure(&held(790, 10, 0), 1000), Pressure::None, "nothing to gain");
        assert_eq!(pressure(&held(100, 900, 800), 1000), Pressure::Full);
        assert_eq!(pressure(&held(0, 0, 0), 0), Pressure::Full);
    }

    #[test]
    fn seal_is_due_by_time_by_age_or_by_memory() {
        let due = |span_ms, samples, age_ms, bytes: HeadBytes| {
            seal_is_due(HeadState { span_ms, samples, age_ms }, &bytes, 1000)
        };
        let none = HeadBytes::default();
        assert!(!due(Some((0, 999)), 5, 1999, none));
        assert!(due(Some((0, 1000)), 5, 0, none));
        assert!(due(None, 5, 2000, none));
        assert!(!due(None, 0, 5000, none));
        let held = |series, chunks, frozen| HeadBytes { series, chunks, frozen, ..none };
        assert!(due(None, 5, 0, held(10, MIN_SEAL_BYTES, 0)));
        assert!(!due(None, 5, 0, held(10, MIN_SEAL_BYTES, 10)), "sealing is about to free it");
        assert!(!due(None, 5, 0, held(MIN_SEAL_BYTES + 1, MIN_SEAL_BYTES, 0)));
    }

    use proptest::prelude::*;

    const H: i64 = 3600 * 1000;

    #[test]
    fn flush_is_one_block_mostly_and_none_crosses_half_a_day() {
        let in_the_morning = BTreeMap::from([(10 * H, 1_000_000), (12 * H, 900)]);
        assert_eq!(plan(&in_the_morning, 2 * H), [8 * H + 1..=12 * H]);
        let at_noon = BTreeMap::from([(12 * H, 1_000_000), (14 * H, 900)]);
        assert_eq!(plan(&at_noon, 2 * H), [10 * H + 1..=12 * H, 12 * H + 1..=14 * H]);
        let back_fill: BTreeMap<i64, u64> = (1..=36).map(|i| (i * 2 * H, 1000)).collect();
        assert_eq!(plan(&back_fill, 2 * H).len(), 6);
    }

    #[test]
    fn samples_strewn_over_decades_are_few_blocks() {
        let daily: BTreeMap<i64, u64> = (0..36_500).map(|day| (day * 24 * H, 1)).collect();
        assert_eq!(plan(&daily, 2 * H), [-2 * H + 1..=36_499 * 24 * H], "a sample a day of a century");
        // What is large keeps to its half days, between what is small.
        let mut mixed = daily;
        for day in 100..200 {
            mixed.insert(day * 24 * H, 1_000_000);
        }
        let ranges = plan(&mixed, 2 * H);
        assert_eq!(ranges.len(), 102);
        assert!(ranges[1..101].iter().all(|r| in_one_span(*r.start(), *r.end(), MAX_BLOCK_SPAN_MS)));
    }

    #[test]
    fn flush_is_due_when_data_time_leaves_its_window() {
        let head = |a, b, age_ms| HeadState { span_ms: Some((a, b)), samples: 5, age_ms };
        assert!(!is_due(head(2 * H + 1, 4 * H, 0), 2 * H));
        assert!(is_due(head(2 * H + 1, 4 * H + 1, 0), 2 * H));
        assert!(is_due(head(0, 1, 0), 2 * H));
        assert!(is_due(head(2 * H, 2 * H, 4 * H), 2 * H));
        assert!(is_due(HeadState { span_ms: None, samples: 3, age_ms: 4 * H }, 2 * H));
        assert!(!is_due(HeadState { span_ms: None, samples: 0, age_ms: 400 * H }, 2 * H));
    }

    proptest! {
        #[test]
        fn flush_puts_every_window_into_exactly_one_block(windows in proptest::collection::btree_map((-500i64..500).prop_map(|i| i * 2 * H), 1u64..1_000_000, 1..60)) {
            let ranges = plan(&windows, 2 * H);
            prop_assert!(ranges.windows(2).all(|w| w[0].end() < w[1].start()));
            let samples = |r: &RangeInclusive<i64>| windows.range(r.clone()).map(|(_, n)| n).sum::<u64>();
            let fits = |r: &RangeInclusive<i64>| in_one_span(*r.start(), *r.end(), MAX_BLOCK_SPAN_MS);
            prop_assert!(ranges.iter().all(|r| fits(r) || samples(r) <= SMALL_BLOCK_SAMPLES));
            let small = |r: &RangeInclusive<i64>| samples(r) <= SMALL_BLOCK_SAMPLES / 2;
            prop_assert!(ranges.len() <= MANY_BLOCKS || !ranges.windows(2).any(|w| small(&w[0]) && small(&w[1])));
            for end in windows.keys() {
                let holders = ranges.iter().filter(|r| r.contains(end) && r.contains(&(end - 2 * H + 1))).count();
                prop_assert_eq!(holders, 1);
            }
        }
    }
}
