//! One series out of several HA replicas of it: Prometheus servers that scrape the same targets, each with
//! its own jitter, gaps and restarts.
//!
//! The two rules share their way in, [`merge_replicas`], which is pure: columns in, columns out. Queries
//! ([`crate::source::dedup`]) and compaction both use it, with the replicas of one series in the order of
//! their labels, which is also their order of preference.
//!
//! - [`ReplicaRule::Grid`], Hearth's own, is described in [`grid`]. What it decides at a time depends on
//!   nothing farther away than [`grid::reach`] says, and beyond a multiple of 12 h only on the last of the
//!   result before it. So a query that is split anywhere gives the same samples, and so does compaction over
//!   a span whose ends are multiples of 12 h.
//! - [`ReplicaRule::Penalty`] is Thanos', for those who compare answers while they move: its state begins
//!   where the data begins.

pub mod grid;
mod penalty;
#[cfg(test)]
mod tests;
mod windowed;

use std::ops::Range;
use std::sync::Arc;

use crate::labels::Labels;
use crate::source::SeriesColumns;

/// Which rule chooses among replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaRule {
    Grid,
    /// `counter`: a value that would fall where replicas change is lifted, as Thanos does under `rate`,
    /// `irate`, `increase` and `resets`.
    Penalty {
        counter: bool,
    },
}

/// Merges the replicas of one series; `None` where nothing of them lies in the range.
///
/// `copies` are in order of preference, one for each replica, of any length; their labels are not looked at,
/// the result has `labels`. The samples of the result lie in `keep` (first and last timestamp, both
/// included). [`ReplicaRule::Grid`] needs to be given all there is in [`grid::reach`] of it for its answer to
/// be independent of `keep`; what is outside of that does not matter. Where copies have windows in the place
/// of samples, each window is that of the replica which has most of it.
pub fn merge_replicas(
    labels: Labels,
    copies: Vec<SeriesColumns>,
    keep: (i64, i64),
    rule: ReplicaRule,
) -> Option<SeriesColumns> {
    merge_replicas_after(labels, copies, None, keep, rule)
}

/// As [`merge_replicas`], where what lies before the range is one series already: `said`, of which
/// [`grid::before_wall`] of the range's first wall is enough.
pub fn merge_replicas_after(
    labels: Labels,
    mut copies: Vec<SeriesColumns>,
    said: Option<&SeriesColumns>,
    keep: (i64, i64),
    rule: ReplicaRule,
) -> Option<SeriesColumns> {
    copies.retain(|c| !c.ts_ms.is_empty());
    match copies.len() {
        0 => None,
        1 => merge_samples(labels, copies, said, keep, rule),
        _ if copies.iter().any(|c| c.coarsest_ms() > 0) => windowed::merge(labels, copies, keep, rule),
        _ => merge_samples(labels, copies, said, keep, rule),
    }
}

fn merge_samples(
    labels: Labels,
    mut copies: Vec<SeriesColumns>,
    said: Option<&SeriesColumns>,
    keep: (i64, i64),
    rule: ReplicaRule,
) -> Option<SeriesColumns> {
    copies.retain(|c| !c.ts_ms.is_empty());
    let plain = match &copies[..] {
        [] => return None,
        [only] if only.windows.is_some() => true,
        // Of histograms, what they say of the one before may have to go where a replica begins, be there
        // another or not.
        [only] => {
            let on = || rule != ReplicaRule::Grid || grid::climbs_over_walls(only, said, keep);
            only.histograms.is_none() && on()
        }
        _ => false,
    };
    if plain {
        let mut only = copies.pop()?;
        only.labels = labels;
        return cut(only, keep);
    }
    match rule {
        ReplicaRule::Grid => grid::merge(labels, copies, said, keep),
        ReplicaRule::Penalty { counter } => penalty::merge(labels, copies, keep, counter),
    }
}

/// The series within a range of time (both ends included), `None` where it has nothing there; costs nothing
/// where all of it is in the range.
pub fn cut(mut series: SeriesColumns, keep: (i64, i64)) -> Option<SeriesColumns> {
    let Range { start, end } = within(&series.ts_ms, keep);
    if start >= end {
        return None;
    }
    let n = series.ts_ms.len();
    if start > 0 || end < n {
        series.ts_ms = Arc::from(&series.ts_ms[start..end]);
        keep_range(&mut series.values, start..end);
        if let Some(all) = &mut series.histograms {
            keep_range(all, start..end);
        }
        if let Some(all) = &mut series.start_ts_ms {
            keep_range(all, start..end);
        }
        if let Some(windows) = &mut series.windows {
            *windows = windows.pick(&(start..end).collect::<Vec<_>>());
        }
        tidy(&mut series);
    }
    Some(series)
}

fn keep_range<T>(all: &mut Vec<T>, Range { start, end }: Range<usize>) {
    all.truncate(end);
    all.drain(..start);
}

/// The indexes of timestamps in a range of time, both ends included.
fn within(ts_ms: &[i64], (min, max): (i64, i64)) -> Range<usize> {
    ts_ms.partition_point(|t| *t < min)..ts_ms.partition_point(|t| *t <= max)
}

/// Leaves out columns that say nothing.
fn tidy(series: &mut SeriesColumns) {
    series.histograms = series.histograms.take().filter(|h| h.iter().any(Option::is_some));
    series.start_ts_ms = series.start_ts_ms.take().filter(|s| s.iter().any(|t| *t != 0));
}

/// Consecutive samples of one copy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct CopyRun {
    copy: usize,
    range: Range<usize>,
}

/// Which samples of which copies, in the order of time.
#[derive(Default)]
struct Picks {
    runs: Vec<CopyRun>,
    len: usize,
}

impl Picks {
    fn push(&mut self, copy: usize, range: Range<usize>) {
        self.len += range.len();
        match self.runs.last_mut() {
            Some(last) if last.copy == copy && last.range.end == range.start => last.range.end = range.end,
            _ if range.is_empty() => {}
            _ => self.runs.push(CopyRun { copy, range }),
        }
    }

    /// The latest picked samples, from a time on, `None` where there are none.
    fn since(&self, from_ms: i64, copies: &[SeriesColumns]) -> Option<SeriesColumns> {
        let mut recent = Picks::default();
        for run in self.runs.iter().rev() {
            let ts = &copies[run.copy].ts_ms[run.range.clone()];
            let start = run.range.start + ts.partition_point(|t| *t < from_ms);
            if start == run.range.end {
                break;
            }
            recent.len += run.range.end - start;
            recent.runs.insert(0, CopyRun { copy: run.copy, range: start..run.range.end });
        }
        recent.gather(Labels::empty(), copies)
    }

    /// The picked samples as a series, `None` where none were.
    fn gather(&self, labels: Labels, copies: &[SeriesColumns]) -> Option<SeriesColumns> {
        if self.len == 0 {
            return None;
        }
        let runs = || self.runs.iter().map(|r| (&copies[r.copy], r.range.clone()));
        let ts_ms = match &self.runs[..] {
            // All of one copy: its timeline may be shared with other series.
            [CopyRun { copy, range }] if range.len() == copies[*copy].ts_ms.len() => {
                copies[*copy].ts_ms.clone()
            }
            _ => {
                let mut all = Vec::with_capacity(self.len);
                runs().for_each(|(c, r)| all.extend_from_slice(&c.ts_ms[r]));
                all.into()
            }
        };
        let mut values = Vec::with_capacity(self.len);
        runs().for_each(|(c, r)| values.extend_from_slice(&c.values[r]));
        let histograms = copies.iter().any(|c| c.histograms.is_some()).then(|| {
            let mut all = Vec::with_capacity(self.len);
            runs().for_each(|(c, r)| match &c.histograms {
                Some(h) => all.extend_from_slice(&h[r]),
                None => all.resize(all.len() + r.len(), None),
            });
            all
        });
        let start_ts_ms = copies.iter().any(|c| c.start_ts_ms.is_some()).then(|| {
            let mut all = Vec::with_capacity(self.len);
            runs().for_each(|(c, r)| match &c.start_ts_ms {
                Some(s) => all.extend_from_slice(&s[r]),
                None => all.resize(all.len() + r.len(), 0),
            });
            all
        });
        let windows = match copies.iter().any(|c| c.windows.is_some()) {
            true => {
                let pieces = runs().map(|(c, r)| c.pick(&r.collect::<Vec<_>>()));
                crate::rollup::concatenate(&pieces.collect::<Vec<_>>())
            }
            false => None,
        };
        let mut series = SeriesColumns { labels, ts_ms, values, histograms, start_ts_ms, windows };
        tidy(&mut series);
        Some(series)
    }
}
