//! What to compact next: block metadata and the hour in, jobs out; nothing is read and nothing is done here.
//!
//! Time is cut into aligned, left-open spans ([`model::span`]) of a few lengths, the *levels* (12 h, 2 d, 14
//! d). A span is *finished* a grace after its end.
//!
//! - In every finished span of the longest level that is finished, all raw blocks become one (*overlapping*
//!   ones, late data and copies included), and the same pass makes the downsampled blocks. A block that is
//!   alone is rewritten too where its downsampled blocks are missing.
//! - In a span that is not finished, blocks are merged only where many lie over one another, or more side by
//!   side than one job may read.
//! - A block that crosses the boundaries it should keep (imports, changed settings) is first cut at them.
//! - A span whose blocks together are too large stays at the level below: merging late samples into it writes
//!   all of it again.
//! - Where years hold a few samples here and there, a year of them becomes one block: a block for each span
//!   would cost four objects and a line of every catalog snapshot to come.
//! - What becomes larger than one block may be is written as several, the [shares](tsdb::block::Share) of one
//!   whole. For plans they are one block.
//!
//! Of two blocks that disagree about a sample the one with the higher [`BlockMeta::order`] wins, and a merged
//! block has the order of its newest input. So inputs are always neighbours in that order among all blocks of
//! their span, or a block left out would change sides.

pub mod job;
pub mod rollups;
pub(crate) mod unit;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::span::{Span, in_one_span};
use tsdb::block::BlockMeta;
use ulid::Ulid;

use self::unit::Unit;

pub use job::{BlockStates, Job, JobKind, PlanSettings, sources_of, windows_alone, writers_of};

/// What to do now.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The most useful first. No two jobs have an input in common.
    pub jobs: Vec<Job>,
}

/// Plans from the live blocks of one tenant.
pub fn plan(blocks: &[Arc<BlockMeta>], states: &BlockStates, settings: &PlanSettings, now_ms: i64) -> Plan {
    let Some(longest) = settings.levels_ms.len().checked_sub(1) else { return Plan::default() };
    let mut p = Planner { blocks, states, settings, now_ms, found: Plan::default() };
    let mut crossing: Vec<(Unit, i64)> = Vec::new();
    let mut by_span: BTreeMap<Span, Vec<Unit>> = BTreeMap::new();
    for unit in p.free_units() {
        if let Some(cut_ms) = p.boundaries_crossed(&unit) {
            crossing.push((unit, cut_ms));
        } else {
            let span = Span::containing(unit.max_t_ms, settings.levels_ms[longest]);
            by_span.entry(span).or_default().push(unit);
        }
    }
    let crossing = p.strewn_apart(crossing, &mut by_span);
    for (unit, cut_ms) in &crossing {
        p.cut(unit, *cut_ms);
    }
    let crossing: Vec<Unit> = crossing.into_iter().map(|(unit, _)| unit).collect();
    p.sparse(&mut by_span, &crossing);
    for (span, inside) in by_span {
        p.span(span, longest, &inside, &crossing);
    }
    p.found.jobs.extend(rollups::jobs(blocks, states, settings, now_ms));
    if !states.rewrite_candidates.is_empty() {
        // What is merged is read without what is deleted anyway.
        let taken: BTreeSet<Ulid> =
            p.found.jobs.iter().flat_map(|j| j.inputs.iter().map(|b| b.ulid)).collect();
        for unit in Unit::all_of(&windows_alone(blocks)) {
            if unit.is_any_of(&states.rewrite_candidates)
                && !unit.is_any_of(&taken)
                && !unit.is_any_of(&states.blocked)
            {
                p.found.jobs.push(Job::same_again(unit));
            }
        }
    }
    let mut found = p.found;
    found.jobs.sort_by(|a, b| {
        // Others wait for a cut, and it is cheap.
        let later = |j: &Job| j.kind != JobKind::Cut;
        later(a)
            .cmp(&later(b))
            .then(b.benefit.total_cmp(&a.benefit))
            .then_with(|| a.inputs[0].ulid.cmp(&b.inputs[0].ulid))
    });
    found
}

/// The next job that rewrites a block for which `dirty` holds: the planner's own where it has one, else that
/// block alone. `None` when there is no such block; an error where one cannot be rewritten.
pub fn forced(
    blocks: &[Arc<BlockMeta>],
    states: &BlockStates,
    settings: &PlanSettings,
    now_ms: i64,
    dirty: impl Fn(&BlockMeta) -> bool,
) -> Result<Option<Job>, String> {
    let planned = plan(blocks, states, settings, now_ms);
    if let Some(job) = planned.jobs.into_iter().find(|j| j.inputs.iter().any(|b| dirty(b))) {
        return Ok(Some(job));
    }
    let mut p = Planner { blocks, states, settings, now_ms, found: Plan::default() };
    let Some(unit) = p.free_units().into_iter().find(|u| u.any(&dirty)) else { return Ok(None) };
    // The shortest span that holds it; where none does it is cut.
    let fitting = settings.levels_ms.iter().find(|l| in_one_span(unit.min_t_ms, unit.max_t_ms, **l));
    match (fitting, settings.levels_ms.last()) {
        (Some(length), _) => {
            let span = Span::containing(unit.max_t_ms, *length);
            Ok(Some(p.job(JobKind::Rewrite, span, std::slice::from_ref(&unit), false)))
        }
        (None, Some(longest)) => {
            p.cut(&unit, *longest);
            Ok(p.found.jobs.pop())
        }
        (None, None) => Err("there are no levels of compaction".to_string()),
    }
}

struct Planner<'a> {
    blocks: &'a [Arc<BlockMeta>],
    states: &'a BlockStates,
    settings: &'a PlanSettings,
    now_ms: i64,
    found: Plan,
}

impl Planner<'_> {
    /// Raw blocks that nobody else works on and nothing is wrong with, in order.
    fn free_units(&self) -> Vec<Unit> {
        let mut units = Unit::all_of(self.blocks.iter().filter(|b| b.resolution_ms == 0));
        units.retain(|u| !u.is_any_of(&self.states.blocked));
        units
    }

    /// The length of the spans whose boundaries a block should keep and does not.
    fn boundaries_crossed(&self, unit: &Unit) -> Option<i64> {
        let lengths = &self.settings.levels_ms;
        let (min, max) = (unit.min_t_ms, unit.max_t_ms);
        let duration = max.saturating_sub(min);
        // As flushed or imported: the longest level that it fills, or else the first. Afterwards only the
        // longest counts, for spans of blocks that were merged may have holes.
        let of_level = match unit.level() {
            0 => lengths.iter().rev().find(|l| **l <= duration).or(lengths.first()),
            _ => lengths.last(),
        };
        of_level.copied().filter(|l| !in_one_span(min, max, *l))
    }

    /// Plans the blocks whose few samples are strewn over so much time that cutting them at spans would make
    /// thousands of blocks of nothing: where nothing else lies in their time they stay whole. Those that lie
    /// over one another are merged, with the few late samples that came into their time since, which are
    /// taken out of `by_span`. The rest is for cutting.
    fn strewn_apart(
        &mut self,
        crossing: Vec<(Unit, i64)>,
        by_span: &mut BTreeMap<Span, Vec<Unit>>,
    ) -> Vec<(Unit, i64)> {
        let (strewn, mut rest): (Vec<_>, Vec<_>) =
            crossing.into_iter().partition(|(unit, cut_ms)| is_strewn(unit, *cut_ms));
        for group in groups_in_time(strewn) {
            let (min, max) = group.iter().fold((i64::MAX, i64::MIN), |(min, max), (unit, _)| {
                (min.min(unit.min_t_ms), max.max(unit.max_t_ms))
            });
            let inside = |u: &Unit| min <= u.min_t_ms && u.max_t_ms <= max;
            let mut units: Vec<Unit> = group.iter().map(|(unit, _)| unit.clone()).collect();
            let late = by_span.values().flatten().chain(rest.iter().map(|(unit, _)| unit));
            units.extend(late.filter(|u| inside(u)).cloned());
            let pieces = max.abs_diff(min) / group[0].1.unsigned_abs().max(1);
            let samples: u64 = units.iter().flat_map(|u| &u.blocks).map(|b| b.stats.samples).sum();
            let stays_strewn = units.len() == group.len() || samples / pieces.max(1) < STREWN_SAMPLES;
            if !stays_strewn || self.others_in(min, max, &units) {
                rest.extend(group);
                continue;
            }
            by_span.values_mut().for_each(|of_span| of_span.retain(|u| !inside(u)));
            rest.retain(|(unit, _)| !inside(unit));
            units.sort_by_key(Unit::order);
            self.strewn(Span { start_ms: min.saturating_sub(1), end_ms: max }, &units);
        }
        by_span.retain(|_, units| !units.is_empty());
        rest
    }

    /// Whether any raw block but these lies in a stretch of time, both ends included.
    fn others_in(&self, min_t_ms: i64, max_t_ms: i64, units: &[Unit]) -> bool {
        let names: BTreeSet<Ulid> = units.iter().flat_map(|u| u.blocks.iter().map(|b| b.ulid)).collect();
        let raw = self.blocks.iter().filter(|b| b.resolution_ms == 0);
        raw.filter(|b| !names.contains(&b.ulid)).any(|b| b.overlaps(min_t_ms, max_t_ms))
    }

    /// Plans strewn blocks that have their time to themselves.
    fn strewn(&mut self, span: Span, units: &[Unit]) {
        let made = units.iter().all(|u| u.blocks.iter().all(|b| self.downsampled(b)));
        let dirty = units.iter().any(|u| u.is_any_of(&self.states.rewrite_candidates));
        let kind = match units.len() {
            1 if dirty => JobKind::Rewrite,
            1 if !made && self.finished(span) => JobKind::Downsample,
            1 => return,
            _ => JobKind::Overlap,
        };
        let inputs = self.window(units);
        let all = inputs.len() == units.len() && self.finished(span);
        let job = self.job(kind, span, inputs, all);
        self.found.jobs.push(Job { cut_ms: NEVER_CUT_MS, ..job });
    }

    /// Plans runs of spans with few samples each as one job for all, and takes them out of the spans. What
    /// comes of it is strewn, and stays whole.
    fn sparse(&mut self, by_span: &mut BTreeMap<Span, Vec<Unit>>, crossing: &[Unit]) {
        // Where samples expire, a block must not keep the oldest for a year longer.
        let Some(longest) =
            self.settings.levels_ms.last().filter(|_| self.settings.raw_retention_ms.is_none())
        else {
            return;
        };
        let samples =
            |units: &[Unit]| -> u64 { units.iter().flat_map(|u| &u.blocks).map(|b| b.stats.samples).sum() };
        let is_sparse = |(span, units): &(&Span, &Vec<Unit>)| {
            self.finished(**span)
                && samples(units) < STREWN_SAMPLES
                && !crossing.iter().any(|b| span.meets(b.min_t_ms, b.max_t_ms))
        };
        let mut runs: Vec<Vec<Span>> = Vec::new();
        let mut open = false;
        for entry in by_span.iter() {
            let (span, goes_on) = (*entry.0, open);
            open = is_sparse(&entry);
            match runs.last_mut() {
                _ if !open => {}
                Some(run)
                    if goes_on
                        && span.end_ms.saturating_sub(run[0].start_ms) <= SPARSE_RUN_MS.max(9 * longest) =>
                {
                    run.push(span);
                }
                _ => runs.push(vec![span]),
            }
        }
        for run in runs {
            let (first, last) = (run[0], run[run.len() - 1]);
            let mut units: Vec<Unit> = run.iter().flat_map(|span| by_span[span].iter().cloned()).collect();
            let from = units.iter().map(|u| u.min_t_ms).min().unwrap_or(i64::MAX);
            let to = units.iter().map(|u| u.max_t_ms).max().unwrap_or(i64::MIN);
            // As `is_strewn` has it of what comes of them: or it would be cut again.
            let pieces = to.abs_diff(from) / longest.unsigned_abs().max(1);
            let strewn = pieces >= STREWN_PIECES && samples(&units) / pieces.max(1) < STREWN_SAMPLES;
            let bytes: u64 = units.iter().map(|u| u.bytes).sum();
            let one_job = (2..=SPARSE_INPUTS).contains(&units.len()) && bytes <= SPARSE_BYTES;
            if !strewn || !one_job || self.others_in(from, to, &units) {
                continue;
            }
            units.sort_by_key(Unit::order);
            let span = Span { start_ms: first.start_ms, end_ms: last.end_ms };
            let job = self.job(JobKind::Merge, span, &units, true);
            self.found.jobs.push(Job { cut_ms: NEVER_CUT_MS, ..job });
            run.iter().for_each(|span| drop(by_span.remove(span)));
        }
    }

    fn cut(&mut self, unit: &Unit, cut_ms: i64) {
        let first = Span::containing(unit.min_t_ms, cut_ms);
        let last = Span::containing(unit.max_t_ms, cut_ms);
        let job = Job {
            kind: JobKind::Cut,
            span: Span { start_ms: first.start_ms, end_ms: last.end_ms },
            cut_ms,
            resolution_ms: 0,
            inputs: unit.blocks.clone(),
            // Downsampled again with the pieces; made in one pass with the block, they hold nothing that it
            // does not.
            replaces: self.superseded(&unit.blocks, None),
            downsample: false,
            benefit: 1.0 / (1 + unit.bytes) as f64,
        };
        self.found.jobs.push(job);
    }

    /// Downsampled blocks that hold nothing but what these inputs hold: made of the same sources, and not
    /// beyond them in time. (The raw blocks of an older one may have expired: it then speaks alone and
    /// stays.)
    fn superseded(&self, inputs: &[Arc<BlockMeta>], inside: Option<Span>) -> Vec<Ulid> {
        let sources: BTreeSet<Ulid> = inputs.iter().flat_map(|b| sources_of(b)).collect();
        let from = inputs.iter().map(|b| b.min_t_ms).min().unwrap_or(i64::MAX);
        let to = inputs.iter().map(|b| b.max_t_ms).max().unwrap_or(i64::MIN);
        let of = |d: &&Arc<BlockMeta>| {
            d.resolution_ms > 0
                && d.min_t_ms >= from
                && d.max_t_ms <= to
                && inside.is_none_or(|s| s.holds_all(d.min_t_ms, d.max_t_ms))
                && sources_of(d).iter().all(|s| sources.contains(s))
        };
        self.blocks.iter().filter(of).map(|d| d.ulid).collect()
    }

    fn finished(&self, span: Span) -> bool {
        self.now_ms > span.end_ms.saturating_add(self.settings.grace_ms)
    }

    fn downsampled(&self, block: &BlockMeta) -> bool {
        self.settings.resolutions_ms.iter().all(|r| block.downsampled_ms.contains(r))
    }

    /// Plans one span of a level; `inside` are its raw blocks in their order, each of them wholly inside.
    fn span(&mut self, span: Span, level: usize, inside: &[Unit], crossing: &[Unit]) {
        if inside.is_empty() {
            return;
        }
        let untidy = crossing.iter().any(|b| span.meets(b.min_t_ms, b.max_t_ms));
        if self.finished(span) && !untidy && !self.stays_below(level, inside) {
            self.finished_span(span, inside);
        } else if level > 0 {
            let length = self.settings.levels_ms[level - 1];
            let mut below: BTreeMap<Span, Vec<Unit>> = BTreeMap::new();
            // What fills more than one span below is done already, or waits for this span to be finished.
            for block in inside.iter().filter(|b| in_one_span(b.min_t_ms, b.max_t_ms, length)) {
                below.entry(Span::containing(block.max_t_ms, length)).or_default().push(block.clone());
            }
            for (span, of_span) in below {
                // A block that lies over this span and more takes part in its order.
                let covered = inside.iter().any(|b| {
                    !in_one_span(b.min_t_ms, b.max_t_ms, length) && span.meets(b.min_t_ms, b.max_t_ms)
                });
                if !covered {
                    self.span(span, level - 1, &of_span, crossing);
                }
            }
        } else if untidy {
            // Its turn comes when what crosses its boundaries is cut.
        } else if depth(inside) >= self.settings.overlap_blocks.max(2) {
            let job = self.job(JobKind::Overlap, span, self.window(inside), false);
            self.found.jobs.push(job);
        } else if inside.len() > self.settings.max_inputs.max(2) {
            // The cheapest of them, so what was merged is not merged again with every few that come.
            let job = self.job(JobKind::Merge, span, self.window(inside), false);
            self.found.jobs.push(job);
        } else {
            for unit in inside.iter().filter(|u| u.is_any_of(&self.states.rewrite_candidates)) {
                let job = self.job(JobKind::Rewrite, span, std::slice::from_ref(unit), false);
                self.found.jobs.push(job);
            }
        }
    }

    /// Whether blocks that could stay apart would be too large together, or too many for one job.
    fn stays_below(&self, level: usize, inside: &[Unit]) -> bool {
        let Some(below) = level.checked_sub(1).map(|l| self.settings.levels_ms[l]) else { return false };
        if !inside.iter().all(|b| in_one_span(b.min_t_ms, b.max_t_ms, below)) {
            return false;
        }
        if inside.iter().map(|b| b.bytes).sum::<u64>() > self.settings.max_span_bytes {
            return true;
        }
        // Too many blocks become fewer below; then it is this span's turn again.
        let mut spans = BTreeSet::new();
        inside.len() > self.settings.max_inputs
            && !inside.iter().all(|b| spans.insert(Span::containing(b.max_t_ms, below)))
    }

    fn finished_span(&mut self, span: Span, inside: &[Unit]) {
        let made = inside.iter().all(|u| u.blocks.iter().all(|b| self.downsampled(b)));
        let dirty = inside.iter().any(|b| b.is_any_of(&self.states.rewrite_candidates));
        if inside.len() == 1 {
            if !made || dirty {
                let kind = if dirty { JobKind::Rewrite } else { JobKind::Downsample };
                let job = self.job(kind, span, inside, true);
                self.found.jobs.push(job);
            }
            return;
        }
        let overlap = depth(inside) >= 2;
        if !dirty && ((made && !overlap && self.expires_soon(span)) || self.late_ones_wait(inside)) {
            return;
        }
        let inputs = self.window(inside);
        let all = inputs.len() == inside.len();
        let job = self.job(if overlap { JobKind::Overlap } else { JobKind::Merge }, span, inputs, all);
        self.found.jobs.push(job);
    }

    fn job(&self, kind: JobKind, span: Span, units: &[Unit], all: bool) -> Job {
        let downsample = all && !self.settings.resolutions_ms.is_empty();
        let bytes: u64 = units.iter().map(|u| u.bytes).sum();
        let inputs: Vec<Arc<BlockMeta>> = units.iter().flat_map(|u| u.blocks.iter().cloned()).collect();
        let missing = inputs.iter().any(|b| !self.downsampled(b));
        let gained = units.len() - 1 + if downsample && missing { 2 } else { 0 };
        Job {
            kind,
            span,
            cut_ms: span.end_ms.saturating_sub(span.start_ms),
            resolution_ms: 0,
            replaces: if downsample { self.superseded(&inputs, Some(span)) } else { Vec::new() },
            inputs,
            downsample,
            benefit: gained as f64 / ((1 << 20) + bytes) as f64,
        }
    }

    /// Raw blocks that will be removed before long are not worth rewriting.
    fn expires_soon(&self, span: Span) -> bool {
        self.settings
            .raw_retention_ms
            .is_some_and(|keep| span.end_ms < self.now_ms.saturating_sub(keep - keep / 10))
    }

    /// Whether all that is new beside one large compacted block is little and young.
    fn late_ones_wait(&self, inside: &[Unit]) -> bool {
        let Some(largest) = inside.iter().max_by_key(|b| b.bytes).filter(|b| b.level() > 0) else {
            return false;
        };
        let late: Vec<&Unit> = inside.iter().filter(|b| b.order() != largest.order()).collect();
        let bytes: u64 = late.iter().map(|b| b.bytes).sum();
        let old = |b: &BlockMeta| {
            let age_ms = self.now_ms.saturating_sub(i64::try_from(b.ulid.timestamp_ms()).unwrap_or(i64::MAX));
            !(0..self.settings.late_wait_ms).contains(&age_ms)
        };
        late.len() < self.settings.overlap_blocks.max(2)
            && bytes < largest.bytes / 10
            && !late.iter().any(|u| u.any(|b| b.level > 0 || old(b)))
    }

    /// As many neighbours in order as one job may have, the cheapest there are; all of them where that is
    /// possible.
    fn window<'u>(&self, inside: &'u [Unit]) -> &'u [Unit] {
        let count = inside.len().min(self.settings.max_inputs.max(2));
        let bytes = |w: &&[Unit]| w.iter().map(|b| b.bytes).sum::<u64>();
        inside.windows(count).min_by_key(bytes).unwrap_or(inside)
    }
}

/// Outputs of a job with this length of spans are never cut: their bounds are those of its inputs.
pub(crate) const NEVER_CUT_MS: i64 = 1 << 61;

/// Pieces that a block would be cut into, and samples of a piece, from which on and below which it is strewn.
const STREWN_PIECES: u64 = 8;
const STREWN_SAMPLES: u64 = 1024;

/// The time over which spans with few samples become one block, and the most blocks and bytes that one job
/// then reads: such a block is some kilobytes.
const SPARSE_RUN_MS: i64 = 366 * 24 * 3_600_000;
const SPARSE_INPUTS: usize = 1024;
const SPARSE_BYTES: u64 = 64 << 20;

/// Whether a block's samples are few for the time it covers.
fn is_strewn(unit: &Unit, cut_ms: i64) -> bool {
    let pieces = unit.max_t_ms.abs_diff(unit.min_t_ms) / cut_ms.unsigned_abs().max(1);
    let samples: u64 = unit.blocks.iter().map(|b| b.stats.samples).sum();
    pieces >= STREWN_PIECES && samples / pieces < STREWN_SAMPLES
}

/// Blocks that lie over one another, directly or by others of them, together.
fn groups_in_time(mut units: Vec<(Unit, i64)>) -> Vec<Vec<(Unit, i64)>> {
    units.sort_by_key(|(unit, _)| unit.min_t_ms);
    let mut groups: Vec<(i64, Vec<(Unit, i64)>)> = Vec::new();
    for (unit, cut_ms) in units {
        match groups.last_mut().filter(|(until, _)| unit.min_t_ms <= *until) {
            Some((until, group)) => {
                *until = (*until).max(unit.max_t_ms);
                group.push((unit, cut_ms));
            }
            None => groups.push((unit.max_t_ms, vec![(unit, cut_ms)])),
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
}

/// The most blocks that lie over one instant.
fn depth(blocks: &[Unit]) -> usize {
    let mut edges: Vec<(i64, i32)> = Vec::with_capacity(2 * blocks.len());
    for b in blocks {
        edges.push((b.min_t_ms, 1));
        edges.push((b.max_t_ms.saturating_add(1), -1));
    }
    edges.sort_unstable();
    let (mut now, mut most) = (0, 0);
    for (_, step) in edges {
        now += step;
        most = most.max(now);
    }
    usize::try_from(most).unwrap_or(0)
}
