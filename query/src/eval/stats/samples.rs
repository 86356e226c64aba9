//! Samples of a query as upstream counts them for `stats` (`util/stats/query_stats.go`, `promql/engine.go`):
//! per step, whole windows again and again, and beside that what had to be read anew.

use model::histogram::Histogram;

use crate::column::Column;
use crate::eval::timeline::StepWindows;
use crate::plan::Steps;

/// How much is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SampleDetail {
    /// Only the total, which costs nothing.
    #[default]
    Total,
    /// Also the samples read: each sample of overlapping windows once.
    Reads,
    /// Both, for each step.
    Steps,
}

/// The counters of one evaluation.
#[derive(Clone, Debug, Default)]
pub struct SampleStats {
    detail: SampleDetail,
    /// Samples that selectors and windows looked at, `totalQueryableSamples`.
    pub total: u64,
    /// `samplesRead`; 0 unless asked for.
    pub read: u64,
    /// `total` of each step; empty unless asked for.
    pub total_per_step: Vec<u64>,
    pub read_per_step: Vec<u64>,
}

/// What one series' windows add.
#[derive(Clone, Debug, Default)]
pub(crate) struct Windows {
    pub total: u64,
    read: u64,
    /// Per step: of the whole window, and of what the window before did not have.
    steps: Vec<(u32, u32)>,
}

/// What a histogram counts for, one of these being a float.
pub(crate) fn weight(h: &Histogram) -> u64 {
    (h.size_bytes() as u64 + 8) / 16
}

/// How many samples a column is.
pub(crate) fn samples(column: &Column) -> u64 {
    let histograms: u64 = column.histograms().iter().map(|(_, h)| weight(h)).sum();
    column.float_count() as u64 + histograms
}

impl SampleStats {
    pub fn new(detail: SampleDetail, steps: usize) -> Self {
        let per_step = || if detail == SampleDetail::Steps { vec![0; steps] } else { Vec::new() };
        SampleStats {
            detail,
            total_per_step: per_step(),
            read_per_step: per_step(),
            ..SampleStats::default()
        }
    }

    pub fn detail(&self) -> SampleDetail {
        self.detail
    }

    /// `n` samples at a step, looked at and read.
    pub(crate) fn at(&mut self, step: usize, n: u64) {
        self.total += n;
        if self.detail == SampleDetail::Total {
            return;
        }
        self.read += n;
        if let (Some(total), Some(read)) =
            (self.total_per_step.get_mut(step), self.read_per_step.get_mut(step))
        {
            *total += n;
            *read += n;
        }
    }

    /// What an instant selector took of one series.
    pub(crate) fn column(&mut self, column: &Column) {
        let n = samples(column);
        self.total += n;
        if self.detail == SampleDetail::Total {
            return;
        }
        self.read += n;
        if self.total_per_step.is_empty() {
            return;
        }
        for step in 0..column.steps() {
            if column.float(step).is_some() {
                self.total_per_step[step] += 1;
                self.read_per_step[step] += 1;
            }
        }
        for (step, h) in column.histograms() {
            self.total_per_step[*step as usize] += weight(h);
            self.read_per_step[*step as usize] += weight(h);
        }
    }

    /// What a range function took of one series.
    pub(crate) fn windows(&mut self, w: &Windows) {
        self.total += w.total;
        self.read += w.read;
        if self.total_per_step.is_empty() {
            return;
        }
        for (step, (all, new)) in w.steps.iter().enumerate() {
            self.total_per_step[step] += u64::from(*all);
            self.read_per_step[step] += u64::from(*new);
        }
    }

    /// Counters of nothing yet, for a part of the same steps.
    pub(crate) fn for_part(&self, steps: usize) -> SampleStats {
        SampleStats::new(self.detail, steps)
    }

    /// What a part of the same steps counted.
    pub(crate) fn and(&mut self, part: &SampleStats) {
        self.total += part.total;
        self.read += part.read;
        self.total_per_step.iter_mut().zip(&part.total_per_step).for_each(|(n, more)| *n += more);
        self.read_per_step.iter_mut().zip(&part.read_per_step).for_each(|(n, more)| *n += more);
    }

    /// What was evaluated once and holds for all `steps`: looked at again at each of them, read once.
    pub(crate) fn once_for_all(&mut self, child: &SampleStats, steps: usize) {
        self.total += child.total * steps as u64;
        self.total_per_step.iter_mut().for_each(|n| *n += child.total);
        self.read += child.read;
        if let Some(first) = self.read_per_step.first_mut() {
            *first += child.read;
        }
    }

    /// Counters for a subquery of `steps`.
    pub(crate) fn for_subquery(&self, steps: usize) -> SampleStats {
        let detail =
            if self.detail == SampleDetail::Total { SampleDetail::Total } else { SampleDetail::Steps };
        SampleStats::new(detail, steps)
    }

    /// A subquery that is the whole query: all of it stands at the one step.
    pub(crate) fn all_of(&mut self, child: &SampleStats) {
        self.total += child.total;
        self.read += child.read;
        if let (Some(total), Some(read)) = (self.total_per_step.last_mut(), self.read_per_step.last_mut()) {
            *total += child.total;
            *read += child.read;
        }
    }

    /// What a subquery read, given to the steps that use it: the first whose window reaches it. What lies
    /// between two windows counts for none. Its total is left out: the windows over it count their samples
    /// themselves.
    pub(crate) fn take_reads(
        &mut self,
        child: &SampleStats,
        of: Steps,
        own: Steps,
        offset_ms: i64,
        range_ms: i64,
    ) {
        if own.count <= 1 {
            self.read += child.read;
            if let Some(first) = self.read_per_step.first_mut() {
                *first += child.read;
            }
            return;
        }
        for (k, n) in child.read_per_step.iter().enumerate().filter(|(_, n)| **n > 0) {
            let t = of.at(k).saturating_add(offset_ms);
            let mut step = 0;
            if t > own.start_ms {
                let after = t.saturating_sub(own.start_ms).saturating_add(own.step_ms - 1);
                step = (after / own.step_ms) as usize;
            }
            let step = step.min(own.count - 1);
            if range_ms > 0 && t <= own.at(step).saturating_sub(range_ms) {
                continue;
            }
            self.read += n;
            if let Some(at) = self.read_per_step.get_mut(step) {
                *at += n;
            }
        }
    }
}

impl Windows {
    /// `ranges` are the samples `from..to` of each step; `sizes` what each sample counts for where not all
    /// are floats. Nothing is read where the samples are a subquery's, and only the first window where all
    /// steps see the same one (`fixed`).
    pub fn count(
        detail: SampleDetail,
        ranges: &StepWindows,
        sizes: Option<&[u64]>,
        subquery: bool,
        fixed: bool,
    ) -> Windows {
        let sums: Option<Vec<u64>> = sizes.map(|s| {
            let mut sum = 0;
            std::iter::once(0)
                .chain(s.iter().map(|n| {
                    sum += n;
                    sum
                }))
                .collect()
        });
        let between = |from: u32, to: u32| match &sums {
            Some(sums) => sums[to as usize] - sums[from as usize],
            None => u64::from(to - from),
        };
        let total = match &sums {
            Some(_) => ranges.iter().map(|(from, to)| between(*from, *to)).sum(),
            None => ranges.samples(),
        };
        let mut out = Windows { total, ..Windows::default() };
        if detail == SampleDetail::Total {
            return out;
        }
        let mut before = 0;
        for (step, &(from, to)) in ranges.iter().enumerate() {
            let new = match step {
                _ if subquery => 0,
                0 => between(from, to),
                _ if fixed => 0,
                _ => between(from.max(before).min(to), to),
            };
            before = to;
            out.read += new;
            if detail == SampleDetail::Steps {
                let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
                out.steps.push((small(between(from, to)), small(new)));
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_windows_are_read_once() {
        let w = Windows::count(
            SampleDetail::Steps,
            &vec![(0, 4), (2, 6), (6, 6), (8, 9)].into(),
            None,
            false,
            false,
        );
        assert_eq!((w.total, w.read), (9, 7));
        assert_eq!(w.steps, [(4, 4), (4, 2), (0, 0), (1, 1)]);
        let w = Windows::count(
            SampleDetail::Steps,
            &vec![(0, 2), (1, 3)].into(),
            Some(&[1, 10, 100]),
            false,
            false,
        );
        assert_eq!((w.total, w.read), (121, 111));
        assert_eq!(
            Windows::count(SampleDetail::Reads, &vec![(0, 2), (0, 2)].into(), None, false, true).read,
            2
        );
        assert_eq!(Windows::count(SampleDetail::Reads, &vec![(0, 2)].into(), None, true, false).read, 0);
    }

    #[test]
    fn subquery_reads_go_to_the_step_that_uses_them() {
        let own = Steps { start_ms: 0, step_ms: 100, count: 3 };
        let of = Steps { start_ms: -40, step_ms: 20, count: 12 };
        let mut parent = SampleStats::new(SampleDetail::Steps, 3);
        let mut child = parent.for_subquery(12);
        (0..12).for_each(|step| child.at(step, 1));
        // Of windows (-50, 0], (50, 100], (150, 200] the steps at -40 … 0, 60 … 100 and 160, 180 are seen.
        parent.take_reads(&child, of, own, 0, 50);
        assert_eq!((parent.total, parent.read), (0, 8));
        assert_eq!(parent.read_per_step, [3, 3, 2]);
    }
}
