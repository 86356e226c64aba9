//! Downsampled blocks that have outlived their samples: while raw blocks are there, windows are made again with them, afterwards they are merged by
//! themselves.

use std::collections::BTreeMap;
use std::sync::Arc;

use tsdb::block::BlockMeta;
use tsdb::span::{Span, in_one_span};

use crate::plan::{Job, Marks, PlanSettings, Why, scratch_bytes};

/// The jobs for blocks of windows. Pure, as all planning.
pub fn jobs(blocks: &[Arc<BlockMeta>], marks: &Marks, settings: &PlanSettings, now_ms: i64) -> Vec<Job> {
    // Windows that are exact stay so: they are not put into one block with approximate ones. Nor are those of one replica with another's, which
    // know nothing of each other.
    let mut alike: BTreeMap<_, Vec<Arc<BlockMeta>>> = BTreeMap::new();
    for block in blocks.iter().filter(|b| b.resolution_ms > 0 && !marks.blocked.contains(&b.ulid)) {
        let kind = (block.resolution_ms, block.approximate, &block.external_labels);
        alike.entry(kind).or_default().push(block.clone());
    }
    let raw: Vec<&Arc<BlockMeta>> = blocks.iter().filter(|b| b.resolution_ms == 0).collect();
    let p = Planner { raw, settings, now_ms };
    let mut out = Vec::new();
    for blocks in alike.into_values() {
        p.level(settings.levels_ms.len(), &blocks, &mut out);
    }
    out
}

struct Planner<'a> {
    raw: Vec<&'a Arc<BlockMeta>>,
    settings: &'a PlanSettings,
    now_ms: i64,
}

impl Planner<'_> {
    /// Whether all samples of a span have gone, and no more are to come.
    fn outlived(&self, span: Span) -> bool {
        self.now_ms > span.end_ms.saturating_add(self.settings.grace_ms)
            && !self.raw.iter().any(|b| span.meets(b.min_t_ms, b.max_t_ms))
    }

    /// Plans the spans of the levels below `level`, longest first.
    fn level(&self, level: usize, blocks: &[Arc<BlockMeta>], out: &mut Vec<Job>) {
        let Some(level) = level.checked_sub(1) else { return };
        let length = self.settings.levels_ms[level];
        let mut by_span: BTreeMap<Span, Vec<Arc<BlockMeta>>> = BTreeMap::new();
        for block in blocks.iter().filter(|b| in_one_span(b.min_t_ms, b.max_t_ms, length)) {
            by_span.entry(Span::containing(block.max_t_ms, length)).or_default().push(block.clone());
        }
        for (span, mut inside) in by_span {
            inside.sort_by_key(|b| (b.min_t_ms, b.ulid));
            if !self.outlived(span) {
                self.level(level, &inside, out);
                continue;
            }
            let mut bytes = 0;
            let fitting = inside.iter().take(self.settings.max_inputs).take_while(|b| {
                bytes += b.files.bytes();
                bytes <= self.settings.max_block_bytes
                    && scratch_bytes(bytes, false) <= self.settings.max_scratch_bytes
            });
            let inputs: Vec<_> = fitting.cloned().collect();
            // Windows that lie over one another cannot be put together exactly: they stay as they are.
            let apart = inside.windows(2).all(|w| w[0].max_t_ms < w[1].min_t_ms);
            if apart && inputs.len() >= 2 {
                out.push(self.job(Why::Merge, span, inputs));
            }
        }
    }

    fn job(&self, why: Why, span: Span, mut inputs: Vec<Arc<BlockMeta>>) -> Job {
        let bytes: u64 = inputs.iter().map(|b| b.files.bytes()).sum();
        let gained = inputs.len() - 1;
        inputs.sort_by_key(|b| (b.order(), b.ulid));
        Job {
            why,
            span,
            cut_ms: span.end_ms.saturating_sub(span.start_ms),
            resolution_ms: inputs[0].resolution_ms,
            inputs,
            replaces: Vec::new(),
            downsample: false,
            benefit: gained as f64 / ((1 << 20) + bytes) as f64,
        }
    }
}
