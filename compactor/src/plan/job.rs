//! What is planned, by what, and what has to be known of blocks for it.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::span::Span;
use tsdb::block::BlockMeta;
use ulid::Ulid;

use super::unit::Unit;

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

/// What is known of blocks besides their metadata.
#[derive(Clone, Debug, Default)]
pub struct BlockStates {
    /// Not to be touched: quarantined, or being worked on.
    pub blocked: BTreeSet<Ulid>,
    /// Blocks that hold samples (or windows, where the samples are gone) which deletion or a retention rule
    /// hides.
    pub rewrite_candidates: BTreeSet<Ulid>,
}

/// One piece of work: some blocks become one per span (or the shares of one), in one commit.
#[derive(Clone, Debug)]
pub struct Job {
    pub kind: JobKind,
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
    /// The lease under which compactors claim it: the same span is the same work, whoever plans it. Two jobs
    /// may have the same name; then one waits.
    pub fn name(&self) -> String {
        let text = match self.kind {
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
    pub(crate) fn same_again(unit: Unit) -> Job {
        Job {
            kind: JobKind::Rewrite,
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

/// Whose samples blocks hold together; none where of one of them nobody says.
pub fn writers_of(blocks: &[Arc<BlockMeta>]) -> Vec<String> {
    if blocks.iter().any(|b| b.writers.is_empty()) {
        return Vec::new();
    }
    let all: BTreeSet<&String> = blocks.iter().flat_map(|b| &b.writers).collect();
    all.into_iter().cloned().collect()
}

/// Downsampled blocks whose samples are gone: no live block of samples shares a source with them, so that
/// nothing will ever replace them.
pub fn windows_alone(blocks: &[Arc<BlockMeta>]) -> Vec<Arc<BlockMeta>> {
    let raw: BTreeSet<Ulid> =
        blocks.iter().filter(|b| b.resolution_ms == 0).flat_map(|b| sources_of(b)).collect();
    let alone = |b: &&Arc<BlockMeta>| b.resolution_ms > 0 && sources_of(b).iter().all(|s| !raw.contains(s));
    blocks.iter().filter(alone).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plan_settings_that_cannot_work_are_refused_with_the_reason() {
        let with = |change: fn(&mut PlanSettings)| {
            let mut settings = PlanSettings::default();
            change(&mut settings);
            settings.check()
        };
        assert_eq!(with(|_| ()), Ok(()));
        let refused = |change| with(change).unwrap_err();
        assert!(refused(|s| s.levels_ms = vec![]).contains("at least one level"));
        assert!(refused(|s| s.levels_ms = vec![-1]).contains("at least one level"));
        assert!(refused(|s| s.levels_ms = vec![10, 25]).contains("25 ms is none of 10 ms"));
        assert!(refused(|s| s.levels_ms = vec![10, 10]).contains("10 ms is none of 10 ms"));
        assert!(refused(|s| s.resolutions_ms = vec![300_000, 7]).contains("window of 7 ms"));
        assert!(refused(|s| s.max_inputs = 1).contains("two inputs"));
    }

    #[test]
    fn windows_are_alone_when_no_samples_of_theirs_live() {
        let block = |n: u64, resolution_ms, sources: &[u64]| {
            let sources = sources.iter().map(|s| Ulid::from_parts(*s, 0)).collect();
            Arc::new(BlockMeta {
                ulid: Ulid::from_parts(n, 0),
                resolution_ms,
                sources,
                ..BlockMeta::default()
            })
        };
        let flushed = block(1, 0, &[]);
        let beside = block(2, 300_000, &[1, 7]);
        let left = block(3, 300_000, &[8, 9]);
        let left_1h = block(4, 3_600_000, &[8, 9]);
        let live = [flushed, beside, left, left_1h];
        let alone: Vec<Ulid> = windows_alone(&live).iter().map(|b| b.ulid).collect();
        assert_eq!(alone, [3, 4].map(|n| Ulid::from_parts(n, 0)), "one shared source is enough");
        let (by_one, by_another) = (Job::same_again(unit(&live[2])), Job::same_again(unit(&live[2])));
        assert_eq!(by_one.name(), by_another.name(), "the same work has one lease, whoever plans it");
    }

    fn unit(block: &Arc<BlockMeta>) -> Unit {
        Unit::all_of([block]).pop().expect("one block is one unit")
    }
}
