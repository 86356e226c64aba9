//! Replicas that were downsampled before they were merged: window by window one replica speaks, the one that
//! has most of it.
//!
//! Samples of a window cannot be told apart any more, so nothing is filled in. Where no replica has windows
//! the rule for samples holds.

use std::collections::BTreeSet;

use super::{CopyRun, Picks, ReplicaRule, SeriesColumns, cut, merge_samples, within};
use crate::labels::Labels;
use crate::source::merge::replicas::grid::reach;
use crate::span::Span;

/// The resolution of every entry, 0 for samples.
fn resolutions(series: &SeriesColumns) -> Vec<i64> {
    match &series.windows {
        None => vec![0; series.ts_ms.len()],
        Some(w) => w.runs.iter().flat_map(|r| std::iter::repeat_n(r.resolution_ms, r.len)).collect(),
    }
}

pub fn merge(
    labels: Labels,
    copies: Vec<SeriesColumns>,
    keep: (i64, i64),
    rule: ReplicaRule,
) -> Option<SeriesColumns> {
    let of_copy: Vec<Vec<i64>> = copies.iter().map(resolutions).collect();
    let coarsest_ms = of_copy.iter().flatten().copied().max().unwrap_or(0);
    let spans: BTreeSet<Span> = copies
        .iter()
        .zip(&of_copy)
        .flat_map(|(c, r)| c.ts_ms.iter().zip(r))
        .filter(|(t, r)| **r > 0 && (keep.0..=keep.1).contains(*t))
        .map(|(t, _)| Span::containing(*t, coarsest_ms))
        .collect();
    let mut pieces: Vec<SeriesColumns> = Vec::new();
    let samples_between = |from: i64, to: i64, pieces: &mut Vec<SeriesColumns>| {
        if from > to {
            return;
        }
        let read = reach((from, to));
        let raw = copies.iter().zip(&of_copy).map(|(c, r)| {
            let near = within(&c.ts_ms, read);
            let mut raw = c.pick(&near.filter(|i| r[*i] == 0).collect::<Vec<_>>());
            raw.windows = None;
            raw
        });
        pieces.extend(merge_samples(labels.clone(), raw.collect(), None, (from, to), rule));
    };
    let mut from = keep.0;
    for span in spans {
        let (min, max) = span.bounds();
        let (min, max) = (min.max(keep.0), max.min(keep.1));
        samples_between(from, min - 1, &mut pieces);
        from = max.saturating_add(1);
        // Whole windows decide, not only what is kept of them.
        let held = |c: &SeriesColumns| -> u64 {
            let counts = c.windows.as_ref().and_then(|w| w.count.as_ref());
            within(&c.ts_ms, span.bounds()).map(|i| counts.map_or(1, |n| u64::from(n[i]))).sum()
        };
        // Of equals the first.
        let best = (0..copies.len()).rev().max_by_key(|i| held(&copies[*i]));
        pieces.extend(best.and_then(|i| cut(copies[i].clone(), (min, max))));
    }
    samples_between(from, keep.1, &mut pieces);
    let mut picks = Picks::default();
    for (copy, piece) in pieces.iter().enumerate() {
        picks.len += piece.ts_ms.len();
        picks.runs.push(CopyRun { copy, range: 0..piece.ts_ms.len() });
    }
    picks.gather(labels, &pieces)
}
