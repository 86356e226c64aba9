//! Asking sources for downsampled windows where those are exact, and telling the reader where they are not.

use std::borrow::Cow;
use std::sync::Arc;

use model::quote::quote;
use model::sample::is_stale;
use model::source::{ResolutionPart, ResolutionReport, RollupHints, SeriesColumns};

use crate::eval::evaluator::Evaluator;
use crate::eval::timeline::Reach;
use crate::options::EngineOptions;
use crate::plan::Selector;
use crate::plan::resolution::{Looks, MaxResolution, Needs, rollup_hints};

/// Parts of time that are listed at most; a query whose parts are more has them joined.
const MOST_PARTS: usize = 16;

/// What a source is asked for on behalf of a selector; `selection_needs` are the plan's.
pub(crate) fn rollup_hints_for(
    selection_needs: &[Needs],
    options: &EngineOptions,
    max_resolution: MaxResolution,
    s: &Selector,
    reach: &Reach,
    range_ms: i64,
) -> (RollupHints, Needs, Looks) {
    let unknown = Needs { samples: true, ..Needs::default() };
    let mut needs = selection_needs.get(s.selection).copied().unwrap_or(unknown);
    // Windows do not keep start timestamps.
    needs.samples |= options.use_start_timestamps && matches!(s.func, "rate" | "increase" | "resets");
    let fixed = reach.at_ms.is_some();
    let looks = Looks {
        first_ms: reach.reference(0),
        step_ms: if fixed { 0 } else { reach.steps.step_ms },
        count: if fixed { 1 } else { reach.steps.count },
        range_ms,
    };
    let report = Some(Arc::new(ResolutionReport::default()));
    (RollupHints { report, ..rollup_hints(needs, looks, max_resolution) }, needs, looks)
}

impl Evaluator<'_> {
    /// What to ask the source for on behalf of a selector.
    pub(in crate::eval) fn rollup_hints_of(
        &self,
        s: &Selector,
        reach: &Reach,
        range_ms: i64,
    ) -> (RollupHints, Needs, Looks) {
        let (needs, options) = (self.selection_needs, self.options);
        rollup_hints_for(needs, options, self.max_resolution, s, reach, range_ms)
    }

    /// Notes which resolutions answered, and warns where that is not what the samples would have said.
    pub(in crate::eval) fn note_resolutions(
        &mut self,
        what: (&str, Option<&str>),
        hints: &RollupHints,
        needs: Needs,
        looks: Looks,
        (min_t_ms, max_t_ms): (i64, i64),
    ) {
        let mut parts = hints.report.as_ref().map(|a| a.parts()).unwrap_or_default();
        if parts.is_empty() {
            let samples =
                ResolutionPart { min_t_ms, max_t_ms, resolution_ms: 0, coarse: false, approximate: false };
            parts.push(samples);
        }
        for part in parts {
            let coarse = part.resolution_ms > 0
                && (part.coarse
                    || needs.samples
                    || (hints.cuts_ms.is_empty() && !looks.align_with(part.resolution_ms)));
            let (func, name) = what;
            let about = || {
                let func = if func.is_empty() { "the selector" } else { func };
                let of = name.map(|n| format!(" for metric name {}", quote(n))).unwrap_or_default();
                format!("Hearth: {func} is approximate{of}: part of it was computed from ")
            };
            let resolution = resolution_name(part.resolution_ms);
            if coarse {
                let why = match self.max_resolution {
                    MaxResolution::AtMost(ms) if part.resolution_ms <= ms => {
                        "as max_source_resolution allows"
                    }
                    _ if part.resolution_ms <= hints.max_resolution_ms => {
                        "because nothing finer is kept for all of the time asked for, or replicas were downsampled before they became one"
                    }
                    _ => "because nothing finer is kept for all of the time asked for",
                };
                self.notes.warn_plain(format!("{}data downsampled to {resolution}, {why}", about()));
            }
            if part.approximate {
                self.notes.info_plain(format!(
                    "{}windows of {resolution} that were imported as Thanos had downsampled them; they hold a sample exactly on a boundary one \
                     window late, and estimates of what Thanos does not keep",
                    about()
                ));
            }
            self.resolution_report.note(ResolutionPart { coarse, ..part });
        }
    }
}

/// `raw`, `5m`, `1h`, or milliseconds.
pub fn resolution_name(ms: i64) -> String {
    match ms {
        0 => "raw".to_string(),
        ms if ms % 3_600_000 == 0 => format!("{}h", ms / 3_600_000),
        ms if ms % 60_000 == 0 => format!("{}m", ms / 60_000),
        ms => format!("{ms}ms"),
    }
}

/// What all selectors of a query noted, as few parts in the order of time: those of one resolution that touch
/// become one. They may overlap where selectors were answered differently.
pub fn summary(mut parts: Vec<ResolutionPart>) -> Vec<ResolutionPart> {
    let kind = |p: &ResolutionPart| (p.resolution_ms, p.coarse, p.approximate);
    parts.sort_by_key(|p| (kind(p), p.min_t_ms));
    let mut out: Vec<ResolutionPart> = Vec::new();
    for part in parts {
        match out.last_mut() {
            Some(last) if kind(last) == kind(&part) && part.min_t_ms <= last.max_t_ms.saturating_add(1) => {
                last.max_t_ms = last.max_t_ms.max(part.max_t_ms);
            }
            _ => out.push(part),
        }
    }
    if out.len() > MOST_PARTS {
        // One of each kind, from its first to its last.
        out.dedup_by(|b, a| {
            let same = kind(a) == kind(b);
            if same {
                a.max_t_ms = a.max_t_ms.max(b.max_t_ms);
            }
            same
        });
    }
    out.sort_by_key(|p| (p.min_t_ms, p.max_t_ms));
    out
}

/// A series of windows without staleness markers: a window that ends in one shows its last sample, one of
/// nothing else goes.
pub(in crate::eval) fn live_windows(series: &SeriesColumns) -> Cow<'_, SeriesColumns> {
    if !series.values.iter().any(|v| is_stale(*v)) {
        return Cow::Borrowed(series);
    }
    let mut shown = series.clone();
    if let Some(windows) = &mut shown.windows {
        let mut ts_ms = series.ts_ms.to_vec();
        for ended in std::mem::take(&mut windows.ended) {
            ts_ms[ended.at] = ended.ts_ms;
            shown.values[ended.at] = ended.value;
            if ended.histogram.is_some() {
                let n = series.values.len();
                shown.histograms.get_or_insert_with(|| vec![None; n])[ended.at] = ended.histogram;
            }
        }
        shown.ts_ms = ts_ms.into();
    }
    let keep: Vec<usize> = (0..shown.values.len()).filter(|i| !is_stale(shown.values[*i])).collect();
    Cow::Owned(if keep.len() < shown.values.len() { shown.pick(&keep) } else { shown })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_that_touch_become_one_and_there_are_never_many() {
        let part = |min_t_ms, max_t_ms, resolution_ms| ResolutionPart {
            min_t_ms,
            max_t_ms,
            resolution_ms,
            coarse: false,
            approximate: false,
        };
        let parts = vec![part(11, 20, 0), part(1, 10, 300_000), part(5, 15, 0), part(21, 30, 300_000)];
        assert_eq!(summary(parts), [part(1, 10, 300_000), part(5, 20, 0), part(21, 30, 300_000)]);
        let many = (0..200).map(|i| part(i * 10, i * 10 + 4, 300_000 * (i % 2))).collect();
        assert_eq!(summary(many), [part(0, 1984, 0), part(10, 1994, 300_000)]);
        let names: Vec<String> = [0, 300_000, 3_600_000, 1500].into_iter().map(resolution_name).collect();
        assert_eq!(names, ["raw", "5m", "1h", "1500ms"]);
    }
}
