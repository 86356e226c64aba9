//! What to compact next: block metadata and the hour in, jobs out; nothing is read and nothing is done here.
//!
//! Time is cut into aligned, left-open spans ([`model::span`]) of a few lengths, the *levels* (12 h, 2 d, 14 d). A span is *finished* a grace after its end.
//!
//! - In every finished span of the longest level that is finished, all raw blocks become one (*overlapping* ones, late data and copies
//!   included), and the same pass makes the downsampled blocks. A block that is alone is rewritten too where its downsampled blocks are missing.
//! - In a span that is not finished, blocks are merged only where many lie over one another.
//! - A block that crosses the boundaries it should keep (imports, changed settings) is first cut at them.
//! - A span whose blocks together are too large stays at the level below: merging late samples into it writes all of it again.
//! - What becomes larger than one block may be is written as several, the [shares](tsdb::block::Share) of one whole. For plans they are one block.
//!
//! Of two blocks that disagree about a sample the one with the higher [`BlockMeta::order`] wins, and a merged block has the order of its newest input.
//! So inputs are always neighbours in that order among all blocks of their span, or a block left out would change sides.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::span::{Span, in_one_span};
use tsdb::block::BlockMeta;
use ulid::Ulid;

use crate::unit::Unit;
use crate::windows;

/// What the planner goes by. Lengths in milliseconds.
#[derive(Clone, Debug)]
pub struct PlanSettings {
    /// Lengths of spans, ascending, each a multiple of the one before.
    pub levels_ms: Vec<i64>,
    /// How long after its end a span counts as finished: time for the last flush to arrive.
    pub grace_ms: i64,
    /// How long a late block may wait beside a compacted one, so that many late ones are merged at once.
    pub late_wait_ms: i64,
    /// So many blocks over one another in an unfinished span are merged without waiting.
    pub overlap_blocks: usize,
    /// Most inputs of one job, shares of one whole counted once: each costs memory.
    pub max_inputs: usize,
    /// Blocks that lie side by side are not merged into more than this, in however many shares.
    pub max_span_bytes: u64,
    /// Windows of the downsampled blocks to make, in milliseconds; empty for none.
    pub resolutions_ms: Vec<i64>,
    /// How long raw samples are kept; `None` for ever.
    pub raw_retention_ms: Option<i64>,
}

impl Default for PlanSettings {
    fn default() -> Self {
        const HOUR: i64 = 3_600_000;
        PlanSettings {
            levels_ms: vec![12 * HOUR, 48 * HOUR, 14 * 24 * HOUR],
            grace_ms: HOUR,
            late_wait_ms: HOUR / 2,
            overlap_blocks: 6,
            max_inputs: 16,
            max_span_bytes: 4 << 30,
            resolutions_ms: Vec::new(),
            raw_retention_ms: None,
        }
    }
}

impl PlanSettings {
    /// What is wrong with the levels, if anything.
    pub fn check(&self) -> Result<(), String> {
        let lengths = &self.levels_ms;
        if lengths.is_empty() || lengths[0] <= 0 {
            return Err("compaction needs at least one level, such as 12h,2d,14d".to_string());
        }
        if let Some(w) = lengths.windows(2).find(|w| w[1] <= w[0] || w[1] % w[0] != 0) {
            return Err(format!(
                "each level must be a multiple of the one before: {} ms is none of {} ms",
                w[1], w[0]
            ));
        }
        if let Some(r) = self.resolutions_ms.iter().find(|r| **r <= 0 || lengths[0] % **r != 0) {
            return Err(format!(
                "the first level ({} ms) must be a multiple of the window of {r} ms",
                lengths[0]
            ));
        }
        if self.max_inputs < 2 {
            return Err("a job needs at least two inputs to merge anything".to_string());
        }
        Ok(())
    }
}

/// Why a job is worth doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum JobKind {
    /// The block crosses boundaries and is cut at them.
    Cut,
    /// Blocks lie over one another.
    Overlap,
    /// The span is finished and its blocks become one.
    Merge,
    /// Downsampled blocks are missing.
    Downsample,
    /// Samples that deletion or a retention rule took out are still in it.
    Rewrite,
}

impl JobKind {
    /// The word in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            JobKind::Cut => "cut",
            JobKind::Overlap => "overlap",
            JobKind::Merge => "merge",
            JobKind::Downsample => "downsample",
            JobKind::Rewrite => "rewrite",
        }
    }
}

/// What is known of blocks beside their metadata.
#[derive(Clone, Debug, Default)]
pub struct BlockStates {
    /// Not to be touched: quarantined, or being worked on.
    pub blocked: BTreeSet<Ulid>,
    /// Blocks that hold samples (or windows, where the samples are gone) which deletion or a retention rule hides.
    pub dirty: BTreeSet<Ulid>,
}

/// What to do now.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The most useful first. No two jobs have an input in common.
    pub jobs: Vec<Job>,
}

/// One piece of work: some blocks become one per span (or the shares of one), in one commit.
#[derive(Clone, Debug)]
pub struct Job {
    pub why: JobKind,
    /// Where its outputs lie. For a cut, all of the block.
    pub span: Span,
    /// Outputs do not cross multiples of this.
    pub cut_ms: i64,
    /// Of what its inputs and its output are: 0 for raw samples, else windows of that many milliseconds.
    pub resolution_ms: i64,
    /// Oldest in [`BlockMeta::order`] first; all shares of a whole or none, one after the other.
    pub inputs: Vec<Arc<BlockMeta>>,
    /// Downsampled blocks that the outputs take the place of.
    pub replaces: Vec<Ulid>,
    /// Whether to make downsampled blocks: only where all raw blocks of the span are inputs.
    pub downsample: bool,
    /// Blocks that queries no longer have to open, for each byte rewritten; higher is sooner.
    pub benefit: f64,
}

/// How many leases a tenant's jobs are spread over: as many compactors may work for it at once.
const SLOTS: u64 = 64;

impl Job {
    /// The lease under which compactors claim it: the same span is the same work, whoever plans it. Two jobs may have the same name; then one waits.
    pub fn name(&self) -> String {
        let text = match self.why {
            JobKind::Cut => format!("cut {}", self.inputs[0].ulid),
            _ => format!("{} to {} of {}", self.span.start_ms, self.span.end_ms, self.resolution_ms),
        };
        // FNV-1a: the same in every process, whatever it was built with.
        let hash = text
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        format!("slot-{:02}", (hash >> 32) % SLOTS)
    }

    /// One whole as it is, but for what is hidden of it: for windows whose samples are gone.
    fn same_again(unit: Unit) -> Job {
        Job {
            why: JobKind::Rewrite,
            span: Span { start_ms: unit.min_t_ms.saturating_sub(1), end_ms: unit.max_t_ms },
            // Never cut: its own bounds are those of the span it was made in.
            cut_ms: 1 << 61,
            benefit: 0.0,
            resolution_ms: unit.blocks[0].resolution_ms,
            inputs: unit.blocks,
            replaces: Vec::new(),
            downsample: false,
        }
    }

    /// Bytes of all inputs.
    pub fn bytes(&self) -> u64 {
        self.inputs.iter().map(|b| b.files.bytes()).sum()
    }

    /// Samples of all inputs.
    pub fn samples(&self) -> u64 {
        self.inputs.iter().map(|b| b.stats.samples).sum()
    }
}

/// The blocks as flushed or imported that a block was made of; itself where it was not made of others.
pub fn sources_of(block: &BlockMeta) -> Vec<Ulid> {
    if block.sources.is_empty() { vec![block.ulid] } else { block.sources.clone() }
}

/// Downsampled blocks whose samples are gone: no live block of samples shares a source with them, so that nothing will ever replace them.
pub fn windows_alone(blocks: &[Arc<BlockMeta>]) -> Vec<Arc<BlockMeta>> {
    let raw: BTreeSet<Ulid> =
        blocks.iter().filter(|b| b.resolution_ms == 0).flat_map(|b| sources_of(b)).collect();
    let alone = |b: &&Arc<BlockMeta>| b.resolution_ms > 0 && sources_of(b).iter().all(|s| !raw.contains(s));
    blocks.iter().filter(alone).cloned().collect()
}

/// Plans from the live blocks of one tenant.
pub fn plan(blocks: &[Arc<BlockMeta>], marks: &BlockStates, settings: &PlanSettings, now_ms: i64) -> Plan {
    let Some(longest) = settings.levels_ms.len().checked_sub(1) else { return Plan::default() };
    let mut p = Planner { blocks, marks, settings, now_ms, found: Plan::default() };
    let mut crossing: Vec<Unit> = Vec::new();
    let mut by_span: BTreeMap<Span, Vec<Unit>> = BTreeMap::new();
    for unit in p.free_units() {
        if let Some(cut_ms) = p.boundaries_crossed(&unit) {
            p.cut(&unit, cut_ms);
            crossing.push(unit);
        } else {
            let span = Span::containing(unit.max_t_ms, settings.levels_ms[longest]);
            by_span.entry(span).or_default().push(unit);
        }
    }
    for (span, inside) in by_span {
        p.span(span, longest, &inside, &crossing);
    }
    p.found.jobs.extend(windows::jobs(blocks, marks, settings, now_ms));
    if !marks.dirty.is_empty() {
        // What is merged is read through the mask anyway.
        let taken: BTreeSet<Ulid> =
            p.found.jobs.iter().flat_map(|j| j.inputs.iter().map(|b| b.ulid)).collect();
        for unit in Unit::all_of(&windows_alone(blocks)) {
            if unit.is_any_of(&marks.dirty) && !unit.is_any_of(&taken) && !unit.is_any_of(&marks.blocked) {
                p.found.jobs.push(Job::same_again(unit));
            }
        }
    }
    let mut found = p.found;
    found.jobs.sort_by(|a, b| {
        // Others wait for a cut, and it is cheap.
        let later = |j: &Job| j.why != JobKind::Cut;
        later(a)
            .cmp(&later(b))
            .then(b.benefit.total_cmp(&a.benefit))
            .then_with(|| a.inputs[0].ulid.cmp(&b.inputs[0].ulid))
    });
    found
}

/// The next job that rewrites a block for which `dirty` holds: the planner's own where it has one, else that block alone. `None` when there is
/// no such block; an error where one cannot be rewritten.
pub fn forced(
    blocks: &[Arc<BlockMeta>],
    marks: &BlockStates,
    settings: &PlanSettings,
    now_ms: i64,
    dirty: impl Fn(&BlockMeta) -> bool,
) -> Result<Option<Job>, String> {
    let planned = plan(blocks, marks, settings, now_ms);
    if let Some(job) = planned.jobs.into_iter().find(|j| j.inputs.iter().any(|b| dirty(b))) {
        return Ok(Some(job));
    }
    let mut p = Planner { blocks, marks, settings, now_ms, found: Plan::default() };
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
    marks: &'a BlockStates,
    settings: &'a PlanSettings,
    now_ms: i64,
    found: Plan,
}

impl Planner<'_> {
    /// Raw blocks that nobody else works on and nothing is wrong with, in order.
    fn free_units(&self) -> Vec<Unit> {
        let mut units = Unit::all_of(self.blocks.iter().filter(|b| b.resolution_ms == 0));
        units.retain(|u| !u.is_any_of(&self.marks.blocked));
        units
    }

    /// The length of the spans whose boundaries a block should keep and does not.
    fn boundaries_crossed(&self, unit: &Unit) -> Option<i64> {
        let lengths = &self.settings.levels_ms;
        let (min, max) = (unit.min_t_ms, unit.max_t_ms);
        let duration = max.saturating_sub(min);
        // As flushed or imported: the longest level that it fills, or else the first. Afterwards only the longest counts, for spans of blocks
        // that were merged may have holes.
        let of_level = match unit.level() {
            0 => lengths.iter().rev().find(|l| **l <= duration).or(lengths.first()),
            _ => lengths.last(),
        };
        of_level.copied().filter(|l| !in_one_span(min, max, *l))
    }

    fn cut(&mut self, unit: &Unit, cut_ms: i64) {
        let first = Span::containing(unit.min_t_ms, cut_ms);
        let last = Span::containing(unit.max_t_ms, cut_ms);
        let job = Job {
            why: JobKind::Cut,
            span: Span { start_ms: first.start_ms, end_ms: last.end_ms },
            cut_ms,
            resolution_ms: 0,
            inputs: unit.blocks.clone(),
            // Downsampled again with the pieces; made in one pass with the block, they hold nothing that it does not.
            replaces: self.superseded(&unit.blocks, None),
            downsample: false,
            benefit: 1.0 / (1 + unit.bytes) as f64,
        };
        self.found.jobs.push(job);
    }

    /// Downsampled blocks that hold nothing but what these inputs hold: made of the same sources, and not beyond them in time. (The raw blocks of
    /// an older one may have expired: it then speaks alone and stays.)
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
        } else {
            for unit in inside.iter().filter(|u| u.is_any_of(&self.marks.dirty)) {
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
        let dirty = inside.iter().any(|b| b.is_any_of(&self.marks.dirty));
        if inside.len() == 1 {
            if !made || dirty {
                let why = if dirty { JobKind::Rewrite } else { JobKind::Downsample };
                let job = self.job(why, span, inside, true);
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

    fn job(&self, why: JobKind, span: Span, units: &[Unit], all: bool) -> Job {
        let downsample = all && !self.settings.resolutions_ms.is_empty();
        let bytes: u64 = units.iter().map(|u| u.bytes).sum();
        let inputs: Vec<Arc<BlockMeta>> = units.iter().flat_map(|u| u.blocks.iter().cloned()).collect();
        let missing = inputs.iter().any(|b| !self.downsampled(b));
        let gained = units.len() - 1 + if downsample && missing { 2 } else { 0 };
        Job {
            why,
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

    /// As many neighbours in order as one job may have, the cheapest there are; all of them where that is possible.
    fn window<'u>(&self, inside: &'u [Unit]) -> &'u [Unit] {
        let count = inside.len().min(self.settings.max_inputs.max(2));
        let bytes = |w: &&[Unit]| w.iter().map(|b| b.bytes).sum::<u64>();
        inside.windows(count).min_by_key(bytes).unwrap_or(inside)
    }
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
