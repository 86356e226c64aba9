//! When the head is flushed and into which blocks: decisions only, no doing.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// Samples beyond which a block is not widened: bounds what one compaction input or one download is.
const MAX_BLOCK_SAMPLES: u64 = 256 << 20;

/// A block spans at most this much aligned time as it is flushed, back-fill included.
const MAX_BLOCK_SPAN_MS: i64 = 24 * 3600 * 1000;

/// What is known when deciding whether to flush.
#[derive(Clone, Copy, Debug)]
pub struct HeadState {
    /// First and newest in-order timestamp of the generation; `None` when nothing came in.
    pub span_ms: Option<(i64, i64)>,
    /// Samples in it, late ones included.
    pub samples: u64,
    /// How long ago, by the wall clock, the generation began.
    pub age_ms: i64,
}

/// Whether the generation is complete: its data time has left the window it began in, or it holds something and has been
/// open for two windows (late samples only, or a source that fell silent).
pub fn is_due(head: HeadState, window_ms: i64) -> bool {
    if head.samples == 0 {
        return false;
    }
    let crossed = head.span_ms.is_some_and(|(a, b)| a.div_euclid(window_ms) < b.div_euclid(window_ms));
    crossed || head.age_ms >= 2 * window_ms
}

/// The time ranges (ends included) of the blocks to make, given how many samples lie in each window of `window_ms`, keyed by the window's start.
///
/// Windows of one day go together: a normal flush (one window and the first seconds of the next) is one block, a back-fill of a
/// year is a block a day. A sliver before or after a much larger block joins it, so that midnight does not make two.
pub fn plan(windows: &BTreeMap<i64, u64>, window_ms: i64) -> Vec<RangeInclusive<i64>> {
    struct Range {
        first: i64,
        end: i64,
        samples: u64,
    }
    let mut ranges: Vec<Range> = Vec::new();
    for (&start, &samples) in windows {
        match ranges.last_mut() {
            Some(r)
                if r.first.div_euclid(MAX_BLOCK_SPAN_MS) == start.div_euclid(MAX_BLOCK_SPAN_MS)
                    && r.samples + samples <= MAX_BLOCK_SAMPLES =>
            {
                r.end = start + window_ms;
                r.samples += samples;
            }
            _ => ranges.push(Range { first: start, end: start + window_ms, samples }),
        }
    }
    let mut i = 1;
    while i < ranges.len() {
        let (a, b) = (&ranges[i - 1], &ranges[i]);
        let sliver = a.samples.min(b.samples) * 20 < a.samples.max(b.samples);
        if sliver && b.first - a.end <= window_ms && a.samples + b.samples <= MAX_BLOCK_SAMPLES {
            let b = ranges.remove(i);
            ranges[i - 1].end = b.end;
            ranges[i - 1].samples += b.samples;
        } else {
            i += 1;
        }
    }
    ranges.into_iter().map(|r| r.first..=r.end - 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const H: i64 = 3600 * 1000;

    #[test]
    fn a_normal_flush_is_one_block_even_at_midnight() {
        let at_noon = BTreeMap::from([(10 * H, 1_000_000), (12 * H, 900)]);
        assert_eq!(plan(&at_noon, 2 * H), [10 * H..=14 * H - 1]);
        let at_midnight = BTreeMap::from([(22 * H, 1_000_000), (24 * H, 900)]);
        assert_eq!(plan(&at_midnight, 2 * H), [22 * H..=26 * H - 1]);
        let back_fill: BTreeMap<i64, u64> = (0..36).map(|i| (i * 2 * H, 1000)).collect();
        assert_eq!(plan(&back_fill, 2 * H).len(), 3);
    }

    #[test]
    fn a_flush_is_due_when_data_time_leaves_its_window() {
        let head = |a, b, age_ms| HeadState { span_ms: Some((a, b)), samples: 5, age_ms };
        assert!(!is_due(head(2 * H, 4 * H - 1, 0), 2 * H));
        assert!(is_due(head(2 * H, 4 * H, 0), 2 * H));
        assert!(is_due(head(-1, 0, 0), 2 * H));
        assert!(is_due(head(2 * H, 2 * H, 4 * H), 2 * H));
        assert!(is_due(HeadState { span_ms: None, samples: 3, age_ms: 4 * H }, 2 * H));
        assert!(!is_due(HeadState { span_ms: None, samples: 0, age_ms: 400 * H }, 2 * H));
    }

    proptest! {
        #[test]
        fn every_window_is_in_exactly_one_block(windows in proptest::collection::btree_map((-500i64..500).prop_map(|i| i * 2 * H), 1u64..1_000_000, 1..60)) {
            let ranges = plan(&windows, 2 * H);
            prop_assert!(ranges.windows(2).all(|w| w[0].end() < w[1].start()));
            for start in windows.keys() {
                let holders = ranges.iter().filter(|r| r.contains(start) && r.contains(&(start + 2 * H - 1))).count();
                prop_assert_eq!(holders, 1);
            }
        }
    }
}
