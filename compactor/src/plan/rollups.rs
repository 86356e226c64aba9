//! Downsampled blocks that have outlived their samples: while raw blocks are there, windows are made again
//! with them, afterwards they are merged by themselves.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::span::{Span, in_one_span};
use tsdb::block::BlockMeta;

use super::job::{BlockStates, Job, JobKind, PlanSettings};
use super::unit::Unit;

/// The jobs for blocks of windows. Pure, as all planning.
pub fn jobs(
    blocks: &[Arc<BlockMeta>],
    states: &BlockStates,
    settings: &PlanSettings,
    now_ms: i64,
) -> Vec<Job> {
    // Windows that are exact stay so: they are not put into one block with approximate ones. Nor are those of
    // one replica with another's, which know nothing of each other.
    let mut alike: BTreeMap<_, Vec<Unit>> = BTreeMap::new();
    let units = Unit::all_of(blocks.iter().filter(|b| b.resolution_ms > 0));
    for unit in &units {
        if !unit.is_any_of(&states.blocked) {
            let first = &unit.blocks[0];
            let kind = (first.resolution_ms, first.approximate, &first.external_labels);
            alike.entry(kind).or_default().push(unit.clone());
        }
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
    fn level(&self, level: usize, units: &[Unit], out: &mut Vec<Job>) {
        let Some(level) = level.checked_sub(1) else { return };
        let length = self.settings.levels_ms[level];
        let mut by_span: BTreeMap<Span, Vec<Unit>> = BTreeMap::new();
        for unit in units.iter().filter(|b| in_one_span(b.min_t_ms, b.max_t_ms, length)) {
            by_span.entry(Span::containing(unit.max_t_ms, length)).or_default().push(unit.clone());
        }
        for (span, mut inside) in by_span {
            inside.sort_by_key(|b| (b.min_t_ms, b.order()));
            if !self.outlived(span) {
                self.level(level, &inside, out);
                continue;
            }
            let mut bytes = 0;
            let fitting = inside.iter().take(self.settings.max_inputs).take_while(|b| {
                bytes += b.bytes;
                bytes <= self.settings.max_span_bytes
            });
            let inputs: Vec<_> = fitting.cloned().collect();
            // Windows that lie over one another cannot be put together exactly: they stay as they are.
            let apart = inside.windows(2).all(|w| w[0].max_t_ms < w[1].min_t_ms);
            if apart && inputs.len() >= 2 {
                out.push(self.job(JobKind::Merge, span, inputs));
            }
        }
    }

    fn job(&self, kind: JobKind, span: Span, mut units: Vec<Unit>) -> Job {
        let bytes: u64 = units.iter().map(|b| b.bytes).sum();
        let gained = units.len() - 1;
        units.sort_by_key(Unit::order);
        Job {
            kind,
            span,
            cut_ms: span.end_ms.saturating_sub(span.start_ms),
            resolution_ms: units[0].blocks[0].resolution_ms,
            inputs: units.into_iter().flat_map(|u| u.blocks).collect(),
            replaces: Vec::new(),
            downsample: false,
            benefit: gained as f64 / ((1 << 20) + bytes) as f64,
        }
    }
}
