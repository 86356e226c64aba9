//! A source without replica labels: the HA replicas of a series, told apart by those labels only, are one.
//!
//! A selection first learns from the inner cursor which series will come, so that it knows which belong
//! together and when all of a group have passed: dropping a label can change the order (`{a,replica}` comes
//! after `{a,b,replica}`, `{a}` before `{a,b}`). A group is handed out as soon as no series still to come
//! belongs to it or to a group before it. Where the replica label sorts after the labels that tell series
//! apart that is at once; where it sorts before them, up to the first replica's share of a metric waits in
//! memory, which is charged to the query.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::labels::Labels;
use crate::source::merge::replicas::{ReplicaRule, cut, grid, merge_replicas};
use crate::source::{
    Budget, LabelQuery, Mark, Read, ResolutionPart, ResolutionReport, Selection, SeriesColumns, SeriesCursor,
    Source, SourceError,
};

/// How replicas become one in queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DedupMode {
    /// [`ReplicaRule::Grid`].
    #[default]
    Hearth,
    /// [`ReplicaRule::Penalty`].
    Thanos,
}

impl DedupMode {
    /// The rule for samples whose falls are (`counter`) or are not taken for resets.
    pub fn rule(self, counter: bool) -> ReplicaRule {
        match self {
            DedupMode::Hearth => ReplicaRule::Grid,
            DedupMode::Thanos => ReplicaRule::Penalty { counter },
        }
    }
}

/// The labels of a series without its replica labels.
pub fn without_replica(labels: &Labels, replica_labels: &[String]) -> Labels {
    labels.filter(|name, _| !replica_labels.iter().any(|r| r == name))
}

/// Shows the replicas of a series in another source as one.
pub struct DedupSource {
    inner: Arc<dyn Source>,
    replica_labels: Vec<String>,
    mode: DedupMode,
}

impl DedupSource {
    /// `replica_labels` must not hold `__name__`.
    pub fn new(inner: Arc<dyn Source>, replica_labels: Vec<String>, mode: DedupMode) -> DedupSource {
        DedupSource { inner, replica_labels, mode }
    }

    /// Passes on which resolution answered. Where replicas were downsampled apart, one window speaks in the
    /// place of samples that would have been chosen one by one, so such a part is not exact.
    ///
    /// `merges`: whether any two of the selection's series are replicas of one another.
    fn pass_on(
        &self,
        report: &ResolutionReport,
        to: &ResolutionReport,
        names: &LabelQuery,
        merges: bool,
    ) -> Result<(), SourceError> {
        let mut parts = report.parts();
        let exact_windows = |p: &ResolutionPart| p.resolution_ms > 0 && !p.coarse;
        let mut resolutions: Vec<i64> =
            parts.iter().filter(|p| exact_windows(p)).map(|p| p.resolution_ms).collect();
        resolutions.sort_unstable();
        resolutions.dedup();
        for resolution_ms in resolutions.into_iter().filter(|_| merges) {
            let of_resolution = |p: &ResolutionPart| exact_windows(p) && p.resolution_ms == resolution_ms;
            let concerned = || parts.iter().filter(|p| of_resolution(p));
            let (Some(min_t_ms), Some(max_t_ms)) =
                (concerned().map(|p| p.min_t_ms).min(), concerned().map(|p| p.max_t_ms).max())
            else {
                continue;
            };
            // Replicas of which only one was there at the time are one series' windows. Where all of the
            // time is the windows', that is known already.
            let is_all = min_t_ms <= names.min_t_ms && names.max_t_ms <= max_t_ms;
            let merge = is_all || {
                let series = self.inner.series(&LabelQuery { min_t_ms, max_t_ms, ..names.clone() })?;
                ReplicaGroups::new(series, &self.replica_labels).merges()
            };
            if merge {
                parts.iter_mut().filter(|p| of_resolution(p)).for_each(|p| p.coarse = true);
            }
        }
        parts.into_iter().for_each(|p| to.note(p));
        Ok(())
    }

    fn is_replica_label(&self, name: &str) -> bool {
        self.replica_labels.iter().any(|r| r == name)
    }
}

impl Source for DedupSource {
    fn select(&self, selection: &Selection) -> Result<Box<dyn SeriesCursor + '_>, SourceError> {
        let keep = (selection.min_t_ms, selection.max_t_ms);
        let rule = self.mode.rule(selection.hints.counter);
        let mut wider = selection.clone();
        if rule == ReplicaRule::Grid && keep.0 <= keep.1 {
            (wider.min_t_ms, wider.max_t_ms) = grid::reach(keep);
        }
        let names = LabelQuery {
            selectors: if selection.matchers.is_empty() {
                Vec::new()
            } else {
                vec![selection.matchers.clone()]
            },
            min_t_ms: wider.min_t_ms,
            max_t_ms: wider.max_t_ms,
            budget: selection.budget.clone(),
        };
        // Which replica's sample is taken depends on those before it.
        wider.hints.newest_only = false;
        let asked_report = std::mem::take(&mut wider.hints.rollups.report);
        let report = Arc::new(ResolutionReport::default());
        wider.hints.rollups.report = Some(report.clone());
        let read_before = selection.budget.samples_read();
        let inner = self.inner.select(&wider)?;
        // The selection has found its series: they are asked for only where it does not tell.
        let series = match inner.labels_to_come() {
            Some(series) => series,
            None => self.inner.series(&names)?,
        };
        if !series.iter().any(|labels| labels.iter().any(|(name, _)| self.is_replica_label(name))) {
            if report.parts().iter().any(|part| part.resolution_ms > 0) {
                // Windows at the ends of the wider range may be others than those of the range itself.
                drop(inner);
                let budget = &selection.budget;
                budget.forget_samples(budget.samples_read() - read_before);
                return self.inner.select(selection);
            }
            if let Some(asked_report) = asked_report {
                report.parts().iter().filter_map(|part| part.within(keep)).for_each(|p| asked_report.note(p));
            }
            return Ok(match (wider.min_t_ms, wider.max_t_ms) == keep {
                true => inner,
                false => Box::new(CutCursor { inner, keep, budget: selection.budget.clone() }),
            });
        }
        let plan = ReplicaGroups::new(series, &self.replica_labels);
        let held = plan.bytes();
        selection.budget.reserve(held)?;
        if let Some(asked_report) = asked_report {
            self.pass_on(&report, &asked_report, &names, plan.merges())?;
        }
        Ok(Box::new(DedupCursor {
            inner,
            plan,
            at: 0,
            next: 0,
            waiting: BTreeMap::new(),
            timelines: HashMap::new(),
            keep,
            rule,
            held,
            budget: selection.budget.clone(),
        }))
    }

    fn marks(&self, groups: &[Vec<Read>], budget: &Arc<Budget>) -> Result<Vec<Option<Mark>>, SourceError> {
        // Which of a selection and its wider range is read depends on the series: both count.
        let both = |group: &Vec<Read>| -> Vec<Read> {
            let wider = group.iter().filter(|r| r.min_t_ms <= r.max_t_ms).map(|r| {
                let (min_t_ms, max_t_ms) = grid::reach((r.min_t_ms, r.max_t_ms));
                Read { min_t_ms, max_t_ms, ..r.clone() }
            });
            group.iter().cloned().chain(wider).collect()
        };
        self.inner.marks(&groups.iter().map(both).collect::<Vec<_>>(), budget)
    }

    fn gives_up_at_once(&self) -> bool {
        self.inner.gives_up_at_once()
    }

    fn series(&self, query: &LabelQuery) -> Result<Vec<Labels>, SourceError> {
        let mut all: Vec<Labels> = self.inner.series(query)?;
        for labels in &mut all {
            *labels = without_replica(labels, &self.replica_labels);
        }
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }

    fn label_names(&self, query: &LabelQuery) -> Result<Vec<String>, SourceError> {
        let mut names = self.inner.label_names(query)?;
        names.retain(|name| !self.is_replica_label(name));
        Ok(names)
    }

    fn label_values(&self, name: &str, query: &LabelQuery) -> Result<Vec<String>, SourceError> {
        if self.is_replica_label(name) {
            return Ok(Vec::new());
        }
        self.inner.label_values(name, query)
    }
}

/// Which series make a group, and from where on in the cursor's order a group is complete.
struct ReplicaGroups {
    /// As the inner cursor will name them, in its order.
    series: Vec<Labels>,
    /// By series.
    group_of: Vec<u32>,
    /// What the groups are called, in the order of a cursor.
    groups: Vec<Labels>,
    /// By group: the last series that belongs to it or to a group before it.
    complete_at: Vec<u32>,
    /// By group: whether it is a series without any replica label and nothing else.
    plain: Vec<bool>,
}

impl ReplicaGroups {
    fn new(mut series: Vec<Labels>, replica_labels: &[String]) -> ReplicaGroups {
        series.sort_unstable_by(Labels::series_cmp);
        let mut stripped: Vec<(Labels, u32)> = series
            .iter()
            .enumerate()
            .map(|(i, labels)| (without_replica(labels, replica_labels), i as u32))
            .collect();
        stripped.sort_unstable_by(|a, b| a.0.series_cmp(&b.0).then(a.1.cmp(&b.1)));
        let mut plan = ReplicaGroups {
            group_of: vec![0; series.len()],
            groups: Vec::new(),
            complete_at: Vec::new(),
            plain: Vec::new(),
            series,
        };
        let mut complete_at = 0;
        for of_group in stripped.chunk_by(|a, b| a.0 == b.0) {
            for (_, i) in of_group {
                plan.group_of[*i as usize] = plan.groups.len() as u32;
                complete_at = complete_at.max(*i);
            }
            let (name, first) = &of_group[0];
            plan.plain.push(of_group.len() == 1 && *name == plan.series[*first as usize]);
            plan.groups.push(name.clone());
            plan.complete_at.push(complete_at);
        }
        plan
    }

    /// Whether any group is more than one series.
    fn merges(&self) -> bool {
        self.groups.len() < self.series.len()
    }

    fn bytes(&self) -> u64 {
        let labels = |all: &[Labels]| all.iter().map(|l| l.byte_len() as u64 + 40).sum::<u64>();
        labels(&self.series)
            + labels(&self.groups)
            + 4 * (self.group_of.len() + self.complete_at.len()) as u64
    }
}

struct DedupCursor<'a> {
    inner: Box<dyn SeriesCursor + 'a>,
    plan: ReplicaGroups,
    /// Series of the plan before this have passed.
    at: usize,
    /// The next group to hand out.
    next: usize,
    /// By group: what has come of it, in the cursor's order, which is that of the replicas' labels.
    waiting: BTreeMap<u32, Vec<SeriesColumns>>,
    /// By length, first and last: timelines that were handed out, so that series of one scrape go on sharing
    /// theirs.
    timelines: HashMap<(usize, i64, i64), Arc<[i64]>>,
    keep: (i64, i64),
    rule: ReplicaRule,
    held: u64,
    budget: Arc<Budget>,
}

impl DedupCursor<'_> {
    /// Puts a series to its group. One that was not there when the plan was made was born since: this query
    /// does not see it.
    fn take(&mut self, series: SeriesColumns) -> Result<(), SourceError> {
        let ahead = self.plan.series[self.at..].partition_point(|l| l.series_cmp(&series.labels).is_lt());
        self.at += ahead;
        if self.plan.series.get(self.at) != Some(&series.labels) {
            return Ok(());
        }
        let bytes = series.memory_bytes();
        self.held += bytes;
        self.budget.reserve(bytes)?;
        self.waiting.entry(self.plan.group_of[self.at]).or_default().push(series);
        self.at += 1;
        Ok(())
    }

    /// Hands out the groups that are complete now.
    fn merge_complete(&mut self, ended: bool, out: &mut Vec<SeriesColumns>) {
        while self.next < self.plan.groups.len()
            && (ended || (self.plan.complete_at[self.next] as usize) < self.at)
        {
            let group = self.next;
            self.next += 1;
            let Some(copies) = self.waiting.remove(&(group as u32)) else { continue };
            let released: u64 = copies.iter().map(SeriesColumns::memory_bytes).sum();
            self.held -= released;
            self.budget.release(released);
            let merged = if self.plan.plain[group] {
                copies.into_iter().next().and_then(|only| cut(only, self.keep))
            } else {
                merge_replicas(self.plan.groups[group].clone(), copies, self.keep, self.rule)
            };
            out.extend(merged.map(|m| self.sharing(m)));
        }
    }

    fn sharing(&mut self, mut series: SeriesColumns) -> SeriesColumns {
        let ts = &series.ts_ms;
        let (Some(first), Some(last)) = (ts.first(), ts.last()) else { return series };
        match self.timelines.entry((ts.len(), *first, *last)) {
            hashbrown::hash_map::Entry::Occupied(mut kept) => {
                if kept.get()[..] == ts[..] {
                    series.ts_ms = kept.get().clone();
                } else {
                    kept.insert(ts.clone());
                }
            }
            hashbrown::hash_map::Entry::Vacant(free) => {
                free.insert(ts.clone());
            }
        }
        if self.timelines.len() > MOST_TIMELINES {
            self.timelines.clear();
        }
        series
    }
}

/// Timelines kept to be shared.
const MOST_TIMELINES: usize = 256;

impl SeriesCursor for DedupCursor<'_> {
    fn next_batch(&mut self) -> Result<Option<Vec<SeriesColumns>>, SourceError> {
        let mut out = Vec::new();
        loop {
            self.budget.check()?;
            let batch = self.inner.next_batch()?;
            let ended = batch.is_none();
            for series in batch.into_iter().flatten() {
                self.take(series)?;
            }
            self.merge_complete(ended, &mut out);
            if !out.is_empty() {
                return Ok(Some(out));
            }
            if ended {
                return Ok(None);
            }
        }
    }

    fn labels_to_come(&self) -> Option<Vec<Labels>> {
        Some(self.plan.groups[self.next..].to_vec())
    }
}

/// A cursor over more time than was asked for, cut to what was.
struct CutCursor<'a> {
    inner: Box<dyn SeriesCursor + 'a>,
    keep: (i64, i64),
    budget: Arc<Budget>,
}

impl SeriesCursor for CutCursor<'_> {
    fn next_batch(&mut self) -> Result<Option<Vec<SeriesColumns>>, SourceError> {
        while let Some(batch) = self.inner.next_batch()? {
            let mut left = Vec::with_capacity(batch.len());
            for series in batch {
                let samples = series.ts_ms.len();
                let series = cut(series, self.keep);
                let gone = samples - series.as_ref().map_or(0, |s| s.ts_ms.len());
                self.budget.forget_samples(gone as u64);
                left.extend(series);
            }
            if !left.is_empty() {
                return Ok(Some(left));
            }
        }
        Ok(None)
    }

    fn labels_to_come(&self) -> Option<Vec<Labels>> {
        self.inner.labels_to_come()
    }
}

impl Drop for DedupCursor<'_> {
    fn drop(&mut self) {
        self.budget.release(self.held);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::matcher::{MatchOp, Matcher};
    use crate::source::Hints;
    use crate::source::memory::MemorySource;
    use crate::source::testing::conformance::{check_conformance, drain};

    const T0: i64 = 1_767_225_601_234;

    fn selection(matchers: Vec<Matcher>, min_t_ms: i64, max_t_ms: i64, budget: Arc<Budget>) -> Selection {
        Selection { matchers, min_t_ms, max_t_ms, hints: Hints::default(), budget }
    }

    fn dedup(inner: MemorySource, labels: &[&str]) -> DedupSource {
        let labels = labels.iter().map(|l| l.to_string()).collect();
        DedupSource::new(Arc::new(inner), labels, DedupMode::Hearth)
    }

    #[test]
    fn dedup_without_replicas_is_the_source_itself() {
        check_conformance(|given| {
            let inner = MemorySource::new();
            for (labels, samples) in given {
                for (s, start) in samples {
                    inner.append(&labels, s.ts_ms, s.value, start);
                }
            }
            Box::new(dedup(inner, &["no_such_label"]))
        });
    }

    #[test]
    fn replicas_are_one_series_and_their_label_is_gone() {
        let inner = MemorySource::new();
        for (replica, phase) in [("a", 0), ("b", 4_000)] {
            for target in ["x", "y"] {
                let labels = Labels::from_pairs([
                    ("__name__", "up"),
                    ("instance", target),
                    ("replica", replica),
                    ("zone", "z"),
                ]);
                (0..100).for_each(|i| inner.append_float(&labels, T0 + phase + i * 15_000, 1.0));
            }
        }
        inner.append_float(&Labels::from_pairs([("__name__", "up"), ("replica", "only")]), T0, 1.0);
        let source = dedup(inner, &["replica"]);
        let all = drain(&source, &selection(Vec::new(), T0, T0 + 3_000_000, Budget::unlimited())).unwrap();
        let shown: Vec<String> = all.iter().map(|s| s.labels.to_string()).collect();
        assert_eq!(
            shown,
            [
                r#"{__name__="up"}"#,
                r#"{__name__="up", instance="x", zone="z"}"#,
                r#"{__name__="up", instance="y", zone="z"}"#
            ]
        );
        assert_eq!(all.iter().map(|s| s.values.len()).collect::<Vec<_>>(), [1, 100, 100]);
        assert!(Arc::ptr_eq(&all[1].ts_ms, &all[2].ts_ms), "one scrape, one timeline");
        // A matcher on the label chooses a replica; the label does not show all the same.
        let of = |matcher| {
            drain(&source, &selection(vec![matcher], T0, T0 + 20_000, Budget::unlimited())).unwrap()
        };
        let second = of(Matcher::equal("replica", "b"));
        assert_eq!(second.len(), 2);
        assert_eq!(second[0].ts_ms[..], [T0 + 4_000, T0 + 19_000]);
        assert!(of(Matcher::equal("replica", "c")).is_empty());
        let names = LabelQuery {
            selectors: vec![vec![Matcher::new(MatchOp::Regex, "replica", "a|b").unwrap()]],
            min_t_ms: T0,
            max_t_ms: T0 + 1_000_000,
            budget: Budget::unlimited(),
        };
        assert_eq!(source.series(&names).unwrap().len(), 2);
        assert_eq!(source.label_names(&names).unwrap(), ["__name__", "instance", "zone"]);
        assert_eq!(source.label_values("instance", &names).unwrap(), ["x", "y"]);
        assert!(source.label_values("replica", &names).unwrap().is_empty());
    }

    /// Counts how often it is asked for series beside a selection.
    struct Counting(MemorySource, std::sync::atomic::AtomicUsize);

    impl Source for Counting {
        fn select(&self, selection: &Selection) -> Result<Box<dyn SeriesCursor + '_>, SourceError> {
            self.0.select(selection)
        }

        fn series(&self, query: &LabelQuery) -> Result<Vec<Labels>, SourceError> {
            self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            self.0.series(query)
        }
    }

    #[test]
    fn dedup_takes_the_labels_of_a_selection_from_its_cursor() {
        let inner = MemorySource::new();
        for (name, replicas) in [("m", &["a", "b"][..]), ("alone", &[""])] {
            for replica in replicas {
                let labels = Labels::from_pairs([("__name__", name), ("replica", replica)]);
                (0..100).for_each(|i| inner.append_float(&labels, T0 + i * 15_000, 1.0));
            }
        }
        let inner = Arc::new(Counting(inner, Default::default()));
        let source = DedupSource::new(inner.clone(), vec!["replica".to_string()], DedupMode::Hearth);
        let (min_t_ms, max_t_ms) = (T0 + 300_000, T0 + 600_000);
        for name in ["m", "alone"] {
            let budget = Budget::unlimited();
            let matchers = vec![Matcher::equal("__name__", name)];
            let selection = selection(matchers, min_t_ms, max_t_ms, budget.clone());
            let to_come = source.select(&selection).unwrap().labels_to_come().unwrap();
            let before = budget.samples_read();
            let series = drain(&source, &selection).unwrap();
            assert_eq!(to_come, series.iter().map(|s| s.labels.clone()).collect::<Vec<_>>());
            assert_eq!(series[0].ts_ms.len(), 21, "{name}");
            if name == "alone" {
                assert_eq!(budget.samples_read() - before, 21, "what was cut off was not asked for");
            }
        }
        assert_eq!(inner.1.load(std::sync::atomic::Ordering::Relaxed), 0);
    }

    /// A source that says it answered from windows.
    struct FromWindows(MemorySource);

    impl Source for FromWindows {
        fn select(&self, selection: &Selection) -> Result<Box<dyn SeriesCursor + '_>, SourceError> {
            let (min_t_ms, max_t_ms) = (selection.min_t_ms, selection.max_t_ms);
            for resolution_ms in [0, 300_000] {
                let part =
                    ResolutionPart { min_t_ms, max_t_ms, resolution_ms, coarse: false, approximate: false };
                selection.hints.rollups.report.iter().for_each(|a| a.note(part));
            }
            self.0.select(selection)
        }

        fn series(&self, query: &LabelQuery) -> Result<Vec<Labels>, SourceError> {
            self.0.series(query)
        }
    }

    #[test]
    fn windows_of_replicas_are_not_said_to_be_exact() {
        for both in [false, true] {
            let inner = MemorySource::new();
            for replica in if both { &["a", "b"][..] } else { &["a"] } {
                inner.append_float(&Labels::from_pairs([("__name__", "m"), ("replica", replica)]), T0, 1.0);
            }
            let source = DedupSource::new(
                Arc::new(FromWindows(inner)),
                vec!["replica".to_string()],
                DedupMode::Hearth,
            );
            let mut selection = selection(Vec::new(), T0 - 1000, T0 + 1000, Budget::unlimited());
            let answered = Arc::new(ResolutionReport::default());
            selection.hints.rollups.report = Some(answered.clone());
            assert_eq!(drain(&source, &selection).unwrap().len(), 1);
            let exact: Vec<(i64, bool)> =
                answered.parts().iter().map(|p| (p.resolution_ms, p.exact())).collect();
            assert_eq!(exact, [(0, true), (300_000, !both)]);
        }
    }

    #[test]
    fn dedup_charges_what_waits_and_gives_it_back() {
        let fill = |inner: &MemorySource, label: &str| {
            for replica in ["a", "b"] {
                for target in 0..200 {
                    let target = format!("t{target:03}");
                    let labels =
                        Labels::from_pairs([("__name__", "m"), (label, replica), ("instance", &target)]);
                    (0..50).for_each(|i| inner.append_float(&labels, T0 + i * 15_000, 1.0));
                }
            }
        };
        let peak = |label: &str, most: u64| {
            let inner = MemorySource::new();
            fill(&inner, label);
            let source = dedup(inner, &[label]);
            let budget = Budget::new(u64::MAX, most, None);
            let selection = selection(Vec::new(), T0, T0 + 1_000_000, budget.clone());
            let got = drain(&source, &selection);
            budget.reserve(1).ok();
            (got.map(|s| s.len()), budget.bytes_peak())
        };
        // Before `instance` in the order: the first replica's share waits for the second's. After it: nothing
        // waits long.
        let (early, late) = (peak("a_replica", u64::MAX), peak("replica", u64::MAX));
        assert_eq!((early.0.unwrap(), late.0.unwrap()), (200, 200));
        assert!(early.1 > 200 * 50 * 16, "{}", early.1);
        let few = peak("a_replica", 100_000).0;
        assert!(matches!(few, Err(SourceError::Limit(_))));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        /// Whatever labels there are: grouped by hand, merged alike, in order.
        #[test]
        fn dedup_groups_any_labels_in_order(
            sets in prop::collection::btree_set((0u8..2, 0u8..3, 0u8..3, 0u8..3, 0u8..3, 0u8..3), 1..60),
            from in 0i64..600, length in 0i64..900,
        ) {
            let value = |v: u8| if v == 0 { String::new() } else { format!("v{v}") };
            let inner = MemorySource::new();
            for (i, (name, a, b, m, r, z)) in sets.into_iter().enumerate() {
                let labels = Labels::from_pairs([
                    ("__name__", ["up", "zz"][name as usize].to_string()),
                    ("a", value(a)), ("b_replica", value(b)), ("m", value(m)), ("replica", value(r)), ("z", value(z)),
                ]);
                (0..40).for_each(|n| inner.append_float(&labels, T0 + i as i64 * 777 + n * 15_000, n as f64));
            }
            let keep = (T0 + from * 1000, T0 + (from + length) * 1000);
            let replica = ["b_replica".to_string(), "replica".to_string()];
            let all = drain(&inner, &selection(Vec::new(), i64::MIN, i64::MAX, Budget::unlimited())).unwrap();
            let mut groups: Vec<(Labels, Vec<SeriesColumns>)> = Vec::new();
            for series in all {
                let name = without_replica(&series.labels, &replica);
                match groups.iter_mut().find(|g| g.0 == name) {
                    Some(g) => g.1.push(series),
                    None => groups.push((name, vec![series])),
                }
            }
            groups.sort_by(|a, b| a.0.series_cmp(&b.0));
            let want: Vec<SeriesColumns> = groups
                .into_iter()
                .filter_map(|(name, copies)| merge_replicas(name, copies, keep, ReplicaRule::Grid))
                .collect();
            let source = dedup(inner, &["b_replica", "replica"]);
            let kept = selection(Vec::new(), keep.0, keep.1, Budget::unlimited());
            let to_come = source.select(&kept).unwrap().labels_to_come().unwrap();
            let got = drain(&source, &kept).unwrap();
            let mut announced = to_come.iter();
            prop_assert!(got.iter().all(|s| announced.any(|labels| *labels == s.labels)));
            prop_assert_eq!(got.len(), want.len());
            for (got, want) in got.iter().zip(&want) {
                prop_assert_eq!(&got.labels, &want.labels);
                prop_assert_eq!(&got.ts_ms, &want.ts_ms);
                prop_assert_eq!(&got.values, &want.values);
            }
        }
    }
}
