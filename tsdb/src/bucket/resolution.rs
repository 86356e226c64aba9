//! Which blocks answer which part of time, at which resolution: decisions only, no doing.
//!
//! A downsampled block answers for a window where it knows of everything that a finer live block has there:
//! late data makes it stale until the next compaction, in the windows that the late data touches and in no
//! others. So every window is answered
//!
//! 1. by the coarsest resolution that the question can take and that is not stale there;
//! 2. else by finer ones, in the end by samples;
//! 3. where no such thing is left, by windows that another system made ([`BlockMeta::approximate`]), if they
//!    are all there is: the coarsest that the question can take, and the part is marked as approximate;
//! 4. else by the finest resolution left, together with whatever came later, and the part is marked as
//!    coarse.
//!
//! Every sample is in exactly one part, and every part has one resolution. Parts meet at multiples of the
//! coarser resolution's window, left-open.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use ulid::Ulid;

use crate::block::BlockMeta;
use model::rollup::window_index;

/// What is asked of blocks.
#[derive(Clone, Debug, Default)]
pub struct Asked<'a> {
    /// First and last timestamp, both included.
    pub min_t_ms: i64,
    pub max_t_ms: i64,
    /// Coarsest resolution that will do, 0 for samples.
    pub max_resolution_ms: i64,
    /// Times that no window may reach across.
    pub cuts_ms: &'a [i64],
    /// Ranges of time (ends included) of which windows do not tell all: samples there are in no block yet.
    pub unsettled_ms: &'a [(i64, i64)],
}

/// A part of time and what answers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// First and last timestamp, both included.
    pub min_t_ms: i64,
    pub max_t_ms: i64,
    /// 0: samples.
    pub resolution_ms: i64,
    /// The windows are coarser than asked, or samples that came later cannot be told from those they hold:
    /// nothing better is left.
    pub coarse: bool,
    /// Some windows were made by another system and tell less than Hearth's.
    pub approximate: bool,
    /// Positions of its blocks among those given, ascending. Blocks of samples beside windows hold what came
    /// later.
    pub blocks: Vec<usize>,
}

/// Chooses. `blocks` are the live ones of one tenant in any order; parts come in the order of time, leave no
/// gap and do not overlap.
pub fn choose(blocks: &[Arc<BlockMeta>], asked: &Asked<'_>) -> Vec<Part> {
    if asked.min_t_ms > asked.max_t_ms {
        return Vec::new();
    }
    let all: Vec<usize> =
        (0..blocks.len()).filter(|b| blocks[*b].overlaps(asked.min_t_ms, asked.max_t_ms)).collect();
    let resolutions: BTreeSet<i64> =
        all.iter().map(|b| blocks[*b].resolution_ms).filter(|r| *r > 0).collect();
    if resolutions.is_empty() {
        let (min_t_ms, max_t_ms) = (asked.min_t_ms, asked.max_t_ms);
        return vec![Part {
            min_t_ms,
            max_t_ms,
            resolution_ms: 0,
            coarse: false,
            approximate: false,
            blocks: all,
        }];
    }
    let sources: Vec<(usize, HashSet<Ulid>)> = all.iter().map(|b| (*b, sources(&blocks[*b]))).collect();
    let mut rest = vec![(asked.min_t_ms, asked.max_t_ms)];
    let mut parts: Vec<Part> = Vec::new();
    let allowed = || resolutions.iter().rev().filter(|r| **r <= asked.max_resolution_ms);
    for resolution_ms in allowed() {
        let answers = |at: &Here<'_>| at.is_authoritative() && !at.windows[0].approximate;
        let taken = take(blocks, &sources, asked, *resolution_ms, false, answers);
        place(taken, &mut rest, &mut parts);
    }
    // Approximate windows share sources with nothing: where they know of everything there are no samples, and
    // no exact windows.
    for resolution_ms in allowed() {
        let taken =
            take(blocks, &sources, asked, *resolution_ms, false, |at: &Here<'_>| at.is_authoritative());
        place(taken, &mut rest, &mut parts);
    }
    for resolution_ms in &resolutions {
        // Samples are gone where no live block of them shares a source with the windows.
        let alone = |at: &Here<'_>| {
            let sampled =
                |w: &BlockSources<'_>| at.finer.iter().any(|f| f.raw && !f.sources.is_disjoint(w.sources));
            at.windows.iter().any(|w| !sampled(w)) && !at.coarser.iter().any(|c| at.shares_nothing_with(c))
        };
        let taken = take(blocks, &sources, asked, *resolution_ms, true, alone);
        place(taken, &mut rest, &mut parts);
    }
    for (min_t_ms, max_t_ms) in rest {
        let raw = |b: &&usize| blocks[**b].resolution_ms == 0 && blocks[**b].overlaps(min_t_ms, max_t_ms);
        let blocks = all.iter().filter(raw).copied().collect();
        parts.push(Part { min_t_ms, max_t_ms, resolution_ms: 0, coarse: false, approximate: false, blocks });
    }
    parts.sort_by_key(|p| p.min_t_ms);
    parts
}

/// A block with the flushed or imported blocks that went into it.
struct BlockSources<'a> {
    at: usize,
    raw: bool,
    approximate: bool,
    whole: Ulid,
    sources: &'a HashSet<Ulid>,
}

impl<'a> BlockSources<'a> {
    fn of(at: usize, meta: &BlockMeta, sources: &'a HashSet<Ulid>) -> BlockSources<'a> {
        let (raw, approximate) = (meta.resolution_ms == 0, meta.approximate);
        BlockSources { at, raw, approximate, whole: meta.whole(), sources }
    }
}

fn sources(meta: &BlockMeta) -> HashSet<Ulid> {
    match meta.sources.is_empty() {
        true => HashSet::from([meta.ulid]),
        false => meta.sources.iter().copied().collect(),
    }
}

/// What is at a run of windows of one resolution.
struct Here<'a> {
    windows: Vec<&'a BlockSources<'a>>,
    /// Blocks of finer resolutions, samples among them.
    finer: Vec<&'a BlockSources<'a>>,
    /// Blocks of coarser resolutions.
    coarser: Vec<&'a BlockSources<'a>>,
    /// A cut lies strictly inside.
    straddled: bool,
    unsettled: bool,
}

impl Here<'_> {
    /// Whether there is one block of windows (or shares of one whole, which have different series) and it
    /// tells of everything here. Two hold samples that lie between each other's: their windows can be put
    /// together, but not exactly.
    fn is_authoritative(&self) -> bool {
        self.windows.first().is_some_and(|first| self.windows.iter().all(|w| w.whole == first.whole))
            && !self.straddled
            && !self.unsettled
            && self.finer.iter().all(|f| self.covers(f))
            && !self.coarser.iter().any(|c| self.shares_nothing_with(c))
    }

    /// The blocks that answer here, ascending: the windows, and for a coarse answer samples that they cannot
    /// know of.
    fn to_read(&self, coarse: bool) -> Vec<usize> {
        let unknown = self.finer.iter().filter(|f| coarse && f.raw && !self.covers(f));
        let mut blocks: Vec<usize> = self.windows.iter().chain(unknown).map(|b| b.at).collect();
        blocks.sort_unstable();
        blocks
    }

    /// Whether all that went into a finer block went into the windows too. Another system's windows of
    /// several lengths are imported side by side, each as a source of its own, and tell of the same samples.
    fn covers(&self, finer: &BlockSources<'_>) -> bool {
        let alike = finer.approximate && self.windows.iter().any(|w| w.approximate);
        alike || finer.sources.iter().all(|s| self.windows.iter().any(|w| w.sources.contains(s)))
    }

    /// Whether a coarser block holds other samples altogether than these windows and the samples beside them:
    /// those that expired were downsampled, and what is here came later, by import. A coarser block that
    /// shares a source with them reaches farther in time, and that is no sign of it.
    fn shares_nothing_with(&self, coarser: &BlockSources<'_>) -> bool {
        let alike = coarser.approximate && self.windows.iter().any(|w| w.approximate);
        let raw = self.finer.iter().filter(|f| f.raw);
        !alike && self.windows.iter().chain(raw).all(|h| h.sources.is_disjoint(coarser.sources))
    }
}

/// The windows of a resolution that `answers` says can answer, as parts of whole windows.
fn take(
    blocks: &[Arc<BlockMeta>],
    sources: &[(usize, HashSet<Ulid>)],
    asked: &Asked<'_>,
    resolution_ms: i64,
    coarse: bool,
    answers: impl Fn(&Here<'_>) -> bool,
) -> Vec<Part> {
    let index = |t: i64| window_index(t, resolution_ms);
    let (first, last) = (index(asked.min_t_ms), index(asked.max_t_ms));
    // What begins or ends at which window; between these places nothing changes.
    let known: Vec<BlockSources<'_>> =
        sources.iter().map(|(at, sources)| BlockSources::of(*at, &blocks[*at], sources)).collect();
    let span = |min: i64, max: i64| (index(min).max(first), index(max).min(last));
    let spans: Vec<(i64, i64)> =
        known.iter().map(|k| span(blocks[k.at].min_t_ms, blocks[k.at].max_t_ms)).collect();
    let straddled: Vec<i64> = asked
        .cuts_ms
        .iter()
        .filter(|t| {
            t.rem_euclid(resolution_ms) != 0
                && (asked.min_t_ms.saturating_sub(1)..=asked.max_t_ms).contains(t)
        })
        .map(|t| index(*t).max(first))
        .collect();
    let unsettled: Vec<(i64, i64)> = asked
        .unsettled_ms
        .iter()
        .filter(|(min, max)| *min <= asked.max_t_ms && *max >= asked.min_t_ms)
        .map(|(min, max)| span(*min, *max))
        .collect();
    let mut places: BTreeSet<i64> = BTreeSet::from([first, last + 1]);
    let ones = straddled.iter().map(|i| (*i, *i));
    for (a, b) in spans.iter().copied().chain(unsettled.iter().copied()).chain(ones) {
        places.extend([a, b + 1]);
    }
    let places: Vec<i64> = places.into_iter().collect();
    let mut found: Vec<Part> = Vec::new();
    // Blocks at the present place: entered and left as the places pass.
    let mut enter: Vec<usize> = (0..known.len()).filter(|k| spans[*k].0 <= spans[*k].1).collect();
    enter.sort_by_key(|k| std::cmp::Reverse(spans[*k].0));
    let mut present: Vec<usize> = Vec::new();
    for pair in places.windows(2) {
        let (from, until) = (pair[0], pair[1] - 1);
        present.retain(|k| spans[*k].1 >= from);
        while enter.last().is_some_and(|k| spans[*k].0 <= from) {
            present.extend(enter.pop());
        }
        let of_resolution = |k: &usize| blocks[known[*k].at].resolution_ms == resolution_ms;
        let (windows, others): (Vec<usize>, Vec<usize>) = present.iter().partition(|k| of_resolution(k));
        let (finer, coarser): (Vec<usize>, Vec<usize>) =
            others.iter().partition(|k| blocks[known[**k].at].resolution_ms < resolution_ms);
        let here = Here {
            windows: windows.iter().map(|k| &known[*k]).collect(),
            finer: finer.iter().map(|k| &known[*k]).collect(),
            coarser: coarser.iter().map(|k| &known[*k]).collect(),
            straddled: straddled.contains(&from),
            unsettled: unsettled.iter().any(|(a, b)| *a <= from && from <= *b),
        };
        if !answers(&here) {
            continue;
        }
        let approximate = here.windows.iter().any(|w| w.approximate);
        let min_t_ms = from.saturating_mul(resolution_ms).saturating_add(1);
        let max_t_ms = (until + 1).saturating_mul(resolution_ms);
        let blocks = here.to_read(coarse);
        found.push(Part { min_t_ms, max_t_ms, resolution_ms, coarse, approximate, blocks });
    }
    found
}

/// Gives parts what is left of their time; neighbours that are alike become one.
fn place(found: Vec<Part>, rest: &mut Vec<(i64, i64)>, parts: &mut Vec<Part>) {
    for part in found {
        for (min_t_ms, max_t_ms) in cut_out(rest, part.min_t_ms, part.max_t_ms) {
            match parts.last_mut() {
                Some(before)
                    if (before.resolution_ms, before.coarse) == (part.resolution_ms, part.coarse)
                        && before.blocks == part.blocks
                        && before.max_t_ms.checked_add(1) == Some(min_t_ms) =>
                {
                    before.max_t_ms = max_t_ms;
                }
                _ => parts.push(Part { min_t_ms, max_t_ms, ..part.clone() }),
            }
        }
    }
}

/// Takes a range out of ascending ranges; what of it was there.
fn cut_out(rest: &mut Vec<(i64, i64)>, min: i64, max: i64) -> Vec<(i64, i64)> {
    let mut taken = Vec::new();
    let mut left = Vec::with_capacity(rest.len() + 1);
    for (a, b) in rest.drain(..) {
        let (from, to) = (a.max(min), b.min(max));
        if from > to {
            left.push((a, b));
            continue;
        }
        taken.push((from, to));
        if a < from {
            left.push((a, from - 1));
        }
        if to < b {
            left.push((to + 1, b));
        }
    }
    *rest = left;
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{BlockStats, Share};
    use crate::block_meta::BlockFileMetas;
    use proptest::prelude::*;

    fn block(
        number: u128,
        min_t_ms: i64,
        max_t_ms: i64,
        resolution_ms: i64,
        sources: &[u128],
    ) -> Arc<BlockMeta> {
        Arc::new(BlockMeta {
            version: 1,
            ulid: Ulid(number),
            tenant: "default".to_string(),
            min_t_ms,
            max_t_ms,
            resolution_ms,
            level: 0,
            sources: sources.iter().map(|s| Ulid(*s)).collect(),
            source_spans_ms: Vec::new(),
            downsampled_ms: Vec::new(),
            approximate: false,
            share: None,
            writer: String::new(),
            writers: Vec::new(),
            external_labels: Default::default(),
            stats: BlockStats::default(),
            files: BlockFileMetas::default(),
            crc32: String::new(),
        })
    }

    fn told(parts: &[Part]) -> Vec<(i64, i64, i64, bool, Vec<usize>)> {
        parts.iter().map(|p| (p.min_t_ms, p.max_t_ms, p.resolution_ms, !p.coarse, p.blocks.clone())).collect()
    }

    #[test]
    fn resolution_is_the_coarsest_that_knows_everything() {
        // Samples of (0, 240] in one block, windows of 10 and of 60, late samples at 95 and 96, and fresh
        // samples from 241 on.
        let blocks = [
            block(100, 1, 240, 0, &[1, 2]),
            block(101, 1, 240, 10, &[1, 2]),
            block(102, 1, 240, 60, &[1, 2]),
            block(3, 95, 96, 0, &[]),
            block(4, 241, 300, 0, &[]),
        ];
        let ask = |max_resolution_ms, blocks: &[Arc<BlockMeta>]| {
            told(&choose(
                blocks,
                &Asked { min_t_ms: 31, max_t_ms: 300, max_resolution_ms, ..Asked::default() },
            ))
        };
        assert_eq!(
            ask(60, &blocks),
            [
                (31, 60, 60, true, vec![2]),
                (61, 90, 10, true, vec![1]),
                (91, 100, 0, true, vec![0, 3]),
                (101, 120, 10, true, vec![1]),
                (121, 240, 60, true, vec![2]),
                (241, 300, 0, true, vec![4]),
            ]
        );
        assert_eq!(ask(0, &blocks), [(31, 300, 0, true, vec![0, 3, 4])]);
        // The samples have expired: windows speak alone, with what came late where it came.
        assert_eq!(
            ask(0, &blocks[1..]),
            [
                (31, 90, 10, false, vec![0]),
                (91, 100, 10, false, vec![0, 2]),
                (101, 240, 10, false, vec![0]),
                (241, 300, 0, true, vec![3]),
            ]
        );
        // Only the hours are left.
        assert_eq!(ask(10, &blocks[2..3]), [(31, 240, 60, false, vec![0]), (241, 300, 0, true, vec![])]);
        assert_eq!(ask(60, &blocks[2..3]), [(31, 240, 60, true, vec![0]), (241, 300, 0, true, vec![])]);
    }

    fn approximate(block: Arc<BlockMeta>) -> Arc<BlockMeta> {
        Arc::new(BlockMeta { approximate: true, ..(*block).clone() })
    }

    #[test]
    fn windows_of_another_system_answer_where_nothing_else_does_and_are_never_called_exact() {
        // Imported windows of 10 and 60 over all time, each a source of its own; samples up to 120, and exact
        // windows of 10 up to 60.
        let blocks = [
            approximate(block(1, 121, 240, 10, &[])),
            approximate(block(2, 121, 240, 60, &[])),
            block(3, 1, 120, 0, &[]),
            block(4, 1, 60, 10, &[3]),
        ];
        let ask = |max_resolution_ms, cuts_ms: &[i64], blocks: &[Arc<BlockMeta>]| {
            let asked = Asked { min_t_ms: 1, max_t_ms: 240, max_resolution_ms, cuts_ms, ..Asked::default() };
            let part = |p: Part| (p.min_t_ms, p.max_t_ms, p.resolution_ms, p.coarse, p.approximate);
            choose(blocks, &asked).into_iter().map(part).collect::<Vec<_>>()
        };
        let (sure, about) = ((false, false), (false, true));
        let parts = |list: &[(i64, i64, i64, (bool, bool))]| {
            list.iter().map(|(a, b, r, (c, x))| (*a, *b, *r, *c, *x)).collect::<Vec<_>>()
        };
        assert_eq!(
            ask(60, &[], &blocks),
            parts(&[(1, 60, 10, sure), (61, 120, 0, sure), (121, 240, 60, about)])
        );
        assert_eq!(
            ask(60, &[130], &blocks),
            parts(&[(1, 60, 10, sure), (61, 120, 0, sure), (121, 180, 10, about), (181, 240, 60, about)])
        );
        assert_eq!(
            ask(10, &[], &blocks),
            parts(&[(1, 60, 10, sure), (61, 120, 0, sure), (121, 240, 10, about)])
        );
        // Samples are asked for: the finest that is left.
        assert_eq!(ask(0, &[], &blocks), parts(&[(1, 120, 0, sure), (121, 240, 10, (true, true))]));
        // Samples and exact windows of the same time go before, whatever is imported beside them.
        let all = [&blocks[..], &[block(5, 121, 240, 0, &[])], &[block(6, 121, 240, 60, &[5])]].concat();
        let beside = ask(60, &[], &all);
        assert_eq!(beside[beside.len() - 1], (121, 240, 10, true, true), "{beside:?}");
        assert_eq!(
            ask(60, &[], &all[2..]),
            parts(&[(1, 60, 10, sure), (61, 120, 0, sure), (121, 240, 60, sure)])
        );
    }

    fn share_of(whole: u128, number: u32, block: &BlockMeta) -> Arc<BlockMeta> {
        let (first_name, last_name) = (String::new(), String::new());
        let share = Some(Share { whole: Ulid(whole), number, first_name, last_name });
        Arc::new(BlockMeta { share, ..block.clone() })
    }

    #[test]
    fn shares_of_one_whole_speak_together_whatever_time_each_of_them_spans() {
        let shares = |number: u128, from: i64, to: i64| {
            let raw = block(100 + number, from, to, 0, &[1, 2]);
            let windows = block(200 + number, from, to, 10, &[1, 2]);
            [raw, windows].map(|b| share_of(50, number as u32, &b))
        };
        let [[a, wa], [b, wb]] = [shares(0, 1, 120), shares(1, 41, 240)];
        let mut blocks = vec![a, b, wa.clone(), wb.clone()];
        let asked = Asked { min_t_ms: 1, max_t_ms: 240, max_resolution_ms: 60, ..Asked::default() };
        let all =
            [(1, 40, 10, true, vec![2]), (41, 120, 10, true, vec![2, 3]), (121, 240, 10, true, vec![3])];
        assert_eq!(told(&choose(&blocks, &asked)), all);
        // As wholes by themselves they would be told apart, and samples are read where both are.
        for (at, w) in [(2, &wa), (3, &wb)] {
            blocks[at] = Arc::new(BlockMeta { share: None, ..(**w).clone() });
        }
        assert_eq!(told(&choose(&blocks, &asked))[1], (41, 120, 0, true, vec![0, 1]));
    }

    #[test]
    fn cuts_and_samples_outside_of_blocks_make_windows_finer() {
        let blocks =
            [block(100, 1, 240, 0, &[1]), block(101, 1, 240, 10, &[1]), block(102, 1, 240, 60, &[1])];
        let asked = Asked {
            min_t_ms: 1,
            max_t_ms: 240,
            max_resolution_ms: 60,
            cuts_ms: &[60, 70, 133],
            unsettled_ms: &[(199, 203)],
        };
        assert_eq!(
            told(&choose(&blocks, &asked)),
            [
                (1, 60, 60, true, vec![2]),
                (61, 130, 10, true, vec![1]),
                (131, 140, 0, true, vec![0]),
                (141, 190, 10, true, vec![1]),
                (191, 210, 0, true, vec![0]),
                (211, 240, 10, true, vec![1]),
            ]
        );
    }

    /// What one time is answered by, found from the rules one by one.
    fn by_hand(t: i64, blocks: &[Arc<BlockMeta>], asked: &Asked<'_>) -> (i64, (bool, bool), Vec<usize>) {
        let end = |r: i64| model::span::span_end(t, r);
        // Blocks outside of the question are not looked at, also where a window at its edge reaches beyond
        // it.
        let near = |b: &usize| blocks[*b].overlaps(asked.min_t_ms, asked.max_t_ms);
        let at = |r: i64| -> (Vec<usize>, Vec<usize>, bool) {
            let touches = |b: &usize| {
                let m = &blocks[*b];
                let index = |t: i64| window_index(t, r);
                near(b) && (index(m.min_t_ms)..=index(m.max_t_ms)).contains(&index(t))
            };
            let here: Vec<usize> = (0..blocks.len()).filter(touches).collect();
            let of = |wanted: fn(i64, i64) -> bool| {
                here.iter().copied().filter(|b| wanted(blocks[*b].resolution_ms, r)).collect::<Vec<_>>()
            };
            let (windows, finer, coarser) = (of(|a, r| a == r), of(|a, r| a < r), of(|a, r| a > r));
            // Coarser windows of samples that nothing here was made of.
            let raw = finer.iter().filter(|f| blocks[**f].resolution_ms == 0);
            let held: HashSet<Ulid> = windows.iter().chain(raw).flat_map(|b| sources(&blocks[*b])).collect();
            let alike = |c: &usize| blocks[*c].approximate && windows.iter().any(|w| blocks[*w].approximate);
            let hides = coarser.iter().any(|c| !alike(c) && sources(&blocks[*c]).is_disjoint(&held));
            (windows, finer, hides)
        };
        let covers = |windows: &[usize], f: usize| {
            (blocks[f].approximate && windows.iter().any(|w| blocks[*w].approximate))
                || sources(&blocks[f])
                    .iter()
                    .all(|s| windows.iter().any(|w| sources(&blocks[*w]).contains(s)))
        };
        let orders = [(60, false), (10, false), (60, true), (10, true)];
        for (r, about) in orders.into_iter().filter(|(r, _)| *r <= asked.max_resolution_ms) {
            let (windows, finer, hides) = at(r);
            let inside = |c: &&i64| **c > end(r) - r && **c < end(r);
            let cut = asked
                .cuts_ms
                .iter()
                .filter(|c| **c >= asked.min_t_ms - 1 && **c <= asked.max_t_ms)
                .any(|c| inside(&c));
            let meets = |(a, b): &(i64, i64)| {
                *a <= end(r) && *b > end(r) - r && *a <= asked.max_t_ms && *b >= asked.min_t_ms
            };
            let wholes: HashSet<Ulid> = windows.iter().map(|w| blocks[*w].whole()).collect();
            if wholes.len() == 1
                && !cut
                && !asked.unsettled_ms.iter().any(meets)
                && finer.iter().all(|f| covers(&windows, *f))
                && !hides
                && blocks[windows[0]].approximate == about
            {
                return (r, (false, about), windows);
            }
        }
        for r in [10, 60] {
            let (windows, finer, hides) = at(r);
            let sampled = |w: &usize| {
                finer.iter().any(|f| {
                    blocks[*f].resolution_ms == 0 && !sources(&blocks[*f]).is_disjoint(&sources(&blocks[*w]))
                })
            };
            if windows.iter().any(|w| !sampled(w)) && !hides {
                let late = finer.iter().filter(|f| blocks[**f].resolution_ms == 0 && !covers(&windows, **f));
                let mut all: Vec<usize> = windows.iter().chain(late).copied().collect();
                all.sort_unstable();
                return (r, (true, windows.iter().any(|w| blocks[*w].approximate)), all);
            }
        }
        let raw = |b: &usize| blocks[*b].resolution_ms == 0 && blocks[*b].overlaps(t, t);
        (0, (false, false), (0..blocks.len()).filter(raw).collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn resolution_answers_every_time_once_as_the_rules_say(
            given in proptest::collection::vec((0i64..400, 0i64..150, 0usize..5, proptest::collection::vec(1u128..6, 0..3), 0u128..4), 0..9),
            min_t_ms in -20i64..300,
            length in 0i64..300,
            max_resolution_ms in prop_oneof![Just(0i64), Just(10), Just(30), Just(60)],
            cuts in proptest::collection::vec(-20i64..500, 0..3),
            unsettled in proptest::collection::vec((0i64..400, 0i64..30), 0..3),
        ) {
            let blocks: Vec<_> = given
                .iter()
                .enumerate()
                .map(|(i, (from, length, r, sources, whole))| {
                    let one = block(100 + i as u128, *from, from + length, [0, 10, 60, 10, 60][*r], sources);
                    let one = if *r > 2 { approximate(one) } else { one };
                    // All of a whole are of one make.
                    let whole = whole + if *r > 2 { 10 } else { 0 };
                    if whole % 10 < 2 { one } else { share_of(1000 + whole, i as u32, &one) }
                })
                .collect();
            let unsettled: Vec<_> = unsettled.into_iter().map(|(a, n)| (a, a + n)).collect();
            let max_t_ms = min_t_ms + length;
            let asked = Asked { min_t_ms, max_t_ms, max_resolution_ms, cuts_ms: &cuts, unsettled_ms: &unsettled };
            let parts = choose(&blocks, &asked);
            prop_assert_eq!(parts[0].min_t_ms, min_t_ms);
            prop_assert_eq!(parts[parts.len() - 1].max_t_ms, max_t_ms);
            prop_assert!(parts.windows(2).all(|p| p[0].max_t_ms + 1 == p[1].min_t_ms), "{:?}", parts);
            for p in &parts {
                for t in p.min_t_ms..=p.max_t_ms {
                    let (resolution, how, of) = by_hand(t, &blocks, &asked);
                    let told = (p.coarse, p.approximate);
                    prop_assert_eq!((p.resolution_ms, told), (resolution, how), "at {}: {:?}", t, p);
                    // A part of samples lists all blocks of its length; one of windows exactly its own.
                    prop_assert!(of.iter().all(|b| p.blocks.contains(b)), "at {}: {:?} {:?}", t, p, of);
                    if resolution > 0 {
                        prop_assert_eq!(&p.blocks, &of, "at {}", t);
                    }
                }
            }
        }
    }
}
