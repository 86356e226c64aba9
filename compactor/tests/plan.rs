//! Plans over random catalogs: jobs never share an input, every sample stays in exactly one raw block, and
//! plans run to their end leave nothing to do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use compactor::plan::{BlockStates, Job, JobKind, PlanSettings, plan, sources_of};
use model::span::{Span, in_one_span};
use proptest::prelude::*;
use tsdb::block::{BlockMeta, BlockStats, Share};
use tsdb::block_meta::{BlockFileMetas, FORMAT_VERSION, FileMeta};
use ulid::Ulid;

const H: i64 = 3_600_000;
const MIB: u64 = 1 << 20;

fn block(n: u64, min_t_ms: i64, max_t_ms: i64, bytes: u64) -> BlockMeta {
    BlockMeta {
        version: FORMAT_VERSION,
        ulid: Ulid::from_parts(n, 0),
        tenant: "default".to_string(),
        min_t_ms,
        max_t_ms,
        resolution_ms: 0,
        level: 0,
        sources: Vec::new(),
        source_spans_ms: Vec::new(),
        downsampled_ms: Vec::new(),
        approximate: false,
        share: None,
        writer: "test".to_string(),
        writers: Vec::new(),
        external_labels: BTreeMap::new(),
        stats: BlockStats { samples: bytes, ..BlockStats::default() },
        files: BlockFileMetas {
            samples: FileMeta { bytes, ..FileMeta::default() },
            ..BlockFileMetas::default()
        },
        crc32: String::new(),
    }
}

/// A block with the instants at which the model says it has samples; shares of a whole have different ones.
type Stored = (Arc<BlockMeta>, BTreeSet<i64>);

/// Samples (an instant of an original block) by the live raw block that has them, and the same for each
/// resolution.
struct Model {
    live: Vec<Stored>,
    next: u64,
    settings: PlanSettings,
    /// What is larger is written as several shares.
    share_bytes: u64,
}

impl Model {
    fn new(settings: PlanSettings, share_bytes: u64) -> Model {
        Model { live: Vec::new(), next: 1_000_000, settings, share_bytes }
    }

    fn add(&mut self, n: u64, instants: BTreeSet<i64>, bytes: u64) {
        let (Some(first), Some(last)) = (instants.first(), instants.last()) else { return };
        self.live.push((Arc::new(block(n, *first, *last, bytes)), instants));
    }

    fn blocks(&self) -> Vec<Arc<BlockMeta>> {
        self.live.iter().map(|(b, _)| b.clone()).collect()
    }

    fn instants(&self) -> BTreeSet<i64> {
        self.live.iter().filter(|(b, _)| b.resolution_ms == 0).flat_map(|(_, i)| i.iter().copied()).collect()
    }

    /// Does what an executor does with a job.
    fn run(&mut self, job: &Job) {
        let inputs: BTreeSet<Ulid> = job.inputs.iter().map(|b| b.ulid).collect();
        let mut merged: BTreeSet<i64> = BTreeSet::new();
        for (b, instants) in &self.live {
            if inputs.contains(&b.ulid) {
                merged.extend(instants);
            }
        }
        let sources: BTreeSet<Ulid> = job.inputs.iter().flat_map(|b| sources_of(b)).collect();
        let bytes: u64 = job.bytes();
        let level = 1 + job.inputs.iter().map(|b| b.level).max().unwrap();
        self.live.retain(|(b, _)| !inputs.contains(&b.ulid) && !job.replaces.contains(&b.ulid));
        let mut by_span: BTreeMap<Span, BTreeSet<i64>> = BTreeMap::new();
        for t in merged {
            by_span.entry(Span::containing(t, job.cut_ms)).or_default().insert(t);
        }
        let pieces = by_span.len() as u64;
        for (span, instants) in by_span {
            assert!(job.kind == JobKind::Cut || span == job.span, "{job:?}");
            let resolutions = if job.downsample { self.settings.resolutions_ms.clone() } else { Vec::new() };
            self.next += 1;
            let (whole, of_span) = (Ulid::from_parts(self.next, 7), bytes / pieces);
            let shares = of_span.div_ceil(self.share_bytes).clamp(1, 5);
            for number in 0..shares {
                let instants: BTreeSet<i64> =
                    instants.iter().copied().filter(|t| (t / H) as u64 % shares == number).collect();
                let (Some(min), Some(max)) = (instants.first(), instants.last()) else { continue };
                for resolution in [job.resolution_ms].into_iter().chain(resolutions.iter().copied()) {
                    self.next += 1;
                    let bytes = if resolution == 0 { of_span / shares } else { bytes / 10 };
                    let (first_name, last_name) = (String::new(), String::new());
                    let made = BlockMeta {
                        resolution_ms: resolution,
                        level,
                        sources: sources.iter().copied().collect(),
                        share: (shares > 1).then_some(Share {
                            whole,
                            number: number as u32,
                            first_name,
                            last_name,
                        }),
                        downsampled_ms: if resolution == job.resolution_ms {
                            resolutions.clone()
                        } else {
                            Vec::new()
                        },
                        ..block(self.next, *min, *max, bytes)
                    };
                    self.live.push((Arc::new(made), instants.clone()));
                }
            }
        }
    }

    /// Blocks that are damaged, and those that belong together with them.
    fn aside(&self, states: &BlockStates) -> BTreeSet<Ulid> {
        let wholes: BTreeSet<Ulid> = self
            .live
            .iter()
            .filter(|(b, _)| states.blocked.contains(&b.ulid))
            .map(|(b, _)| b.whole())
            .collect();
        self.live.iter().filter(|(b, _)| wholes.contains(&b.whole())).map(|(b, _)| b.ulid).collect()
    }

    fn check_jobs(&self, jobs: &[Job], states: &BlockStates) {
        let mut taken = BTreeSet::new();
        let aside = self.aside(states);
        for job in jobs {
            let wholes: BTreeSet<Ulid> = job.inputs.iter().map(|b| b.whole()).collect();
            assert!(!wholes.is_empty() && wholes.len() <= self.settings.max_inputs);
            let inputs: BTreeSet<Ulid> = job.inputs.iter().map(|b| b.ulid).collect();
            for (b, _) in self.live.iter().filter(|(b, _)| b.resolution_ms == job.resolution_ms) {
                let alike = wholes.contains(&b.whole()) == inputs.contains(&b.ulid);
                assert!(alike, "{} and its whole do not go together in {job:?}", b.ulid);
            }
            for (d, _) in self.live.iter().filter(|(d, _)| job.replaces.contains(&d.ulid)) {
                let siblings = self
                    .live
                    .iter()
                    .filter(|(o, _)| (o.resolution_ms, o.whole()) == (d.resolution_ms, d.whole()));
                for (o, _) in siblings {
                    assert!(job.replaces.contains(&o.ulid), "{} stays without {} in {job:?}", o.ulid, d.ulid);
                }
            }
            for b in &job.inputs {
                assert!(taken.insert(b.ulid), "two jobs share {}", b.ulid);
                assert!(b.resolution_ms == job.resolution_ms && !aside.contains(&b.ulid));
            }
            for r in &job.replaces {
                assert!(taken.insert(*r), "two jobs replace {r}");
            }
            // Nothing that overlaps an input lies between the inputs in order, or conflicts would change
            // sides.
            let orders: Vec<_> = job.inputs.iter().map(|b| (b.order(), b.ulid)).collect();
            let (low, high) = (*orders.iter().min().unwrap(), *orders.iter().max().unwrap());
            for (b, _) in &self.live {
                let between = (b.order(), b.ulid) > low && (b.order(), b.ulid) < high;
                let over = job.inputs.iter().any(|i| i.overlaps(b.min_t_ms, b.max_t_ms));
                let left_out = b.resolution_ms == job.resolution_ms
                    && !aside.contains(&b.ulid)
                    && !orders.contains(&(b.order(), b.ulid));
                assert!(!(between && over && left_out), "{} lies between the inputs of {job:?}", b.ulid);
            }
        }
    }
}

fn settings() -> PlanSettings {
    PlanSettings { resolutions_ms: vec![300_000, H], max_inputs: 5, ..PlanSettings::default() }
}

/// How a block of the random catalogs looks: start and length in hours, offset in ms, size.
fn some_block() -> impl Strategy<Value = (i64, i64, i64, u64)> {
    (0i64..24 * 40, prop_oneof![8 => 1i64..3, 1 => 3i64..100, 1 => 100i64..900], -2i64..3, 1u64..200)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn plans_run_to_their_end_leave_one_block_a_span_and_every_sample_in_it(
        blocks in proptest::collection::vec(some_block(), 1..60),
        blocked in proptest::collection::btree_set(0usize..60, 0..3),
        large in proptest::bool::weighted(0.2),
        share_mib in prop_oneof![Just(u64::MAX / MIB), 1u64..600],
    ) {
        let limit = if large { 300 * MIB } else { u64::MAX };
        let mut model = Model::new(PlanSettings { max_span_bytes: limit, ..settings() }, share_mib * MIB);
        for (i, (start, hours, off, mib)) in blocks.iter().enumerate() {
            // Some instants of it, its ends and hours in between, shifted so that boundaries are met and
            // missed.
            let instants = (0..=*hours).map(|h| (start + h) * H + off).collect();
            model.add(i as u64 + 1, instants, mib * MIB);
        }
        let states = BlockStates {
            blocked: blocked.iter().filter_map(|i| model.live.get(*i)).map(|(b, _)| b.ulid).collect(),
            ..BlockStates::default()
        };
        let all = model.instants();
        let now = 24 * 90 * H;
        let mut rounds = 0;
        loop {
            let found = plan(&model.blocks(), &states, &model.settings, now);
            model.check_jobs(&found.jobs, &states);
            if found.jobs.is_empty() {
                break;
            }
            for job in &found.jobs {
                model.run(job);
            }
            prop_assert_eq!(&model.instants(), &all);
            rounds += 1;
            prop_assert!(rounds < 60, "does not come to an end: {:?}", found.jobs);
        }
        let longest = *model.settings.levels_ms.last().unwrap();
        let raw: Vec<&Stored> =
            model.live.iter().filter(|(b, _)| b.resolution_ms == 0 && !states.blocked.contains(&b.ulid)).collect();
        for (i, (a, _)) in raw.iter().enumerate() {
            prop_assert!(in_one_span(a.min_t_ms, a.max_t_ms, longest));
            prop_assert!(a.downsampled_ms == [300_000, H], "{:?} was not downsampled", a);
            for (b, _) in &raw[i + 1..] {
                if a.whole() == b.whole() {
                    continue;
                }
                prop_assert!(!a.overlaps(b.min_t_ms, b.max_t_ms), "{:?} and {:?} overlap", a, b);
                if !large {
                    prop_assert!(Span::containing(a.max_t_ms, longest) != Span::containing(b.max_t_ms, longest));
                }
            }
        }
        // Each raw block's downsampled ones are there, and no others lie over them.
        for (a, _) in &raw {
            for resolution in [300_000, H] {
                let of: Vec<_> = model.live.iter().filter(|(d, _)| {
                    d.resolution_ms == resolution && d.overlaps(a.min_t_ms, a.max_t_ms)
                        && sources_of(d).iter().all(|s| a.sources.contains(s))
                }).collect();
                let wholes: BTreeSet<_> = of.iter().map(|(d, _)| d.whole()).collect();
                prop_assert_eq!(wholes.len(), 1, "of {:?}", a);
                let same = of.iter().filter(|(d, _)| (&d.share, d.min_t_ms, d.max_t_ms) == (&a.share, a.min_t_ms, a.max_t_ms));
                prop_assert_eq!(same.count(), 1, "of {:?}", a);
            }
        }
    }
}

fn planned(
    blocks: &[BlockMeta],
    now_ms: i64,
    settings: &PlanSettings,
) -> Vec<(JobKind, i64, Vec<u64>, bool)> {
    let blocks: Vec<_> = blocks.iter().cloned().map(Arc::new).collect();
    let found = plan(&blocks, &BlockStates::default(), settings, now_ms);
    let one = |j: &Job| {
        (j.kind, j.span.end_ms / H, j.inputs.iter().map(|b| b.ulid.timestamp_ms()).collect(), j.downsample)
    };
    found.jobs.iter().map(one).collect()
}

#[test]
fn span_is_compacted_when_it_is_finished_and_a_lone_block_too() {
    let s = settings();
    let day = [block(1, 1, 2 * H, MIB), block(2, 2 * H + 1, 4 * H, MIB), block(3, 12 * H + 1, 14 * H, MIB)];
    assert_eq!(planned(&day, 12 * H + s.grace_ms, &s), []);
    assert_eq!(planned(&day, 12 * H + s.grace_ms + 1, &s), [(JobKind::Merge, 12, vec![1, 2], true)]);
    let later = planned(&day, 25 * H + 1, &s);
    assert_eq!(later, [(JobKind::Merge, 12, vec![1, 2], true), (JobKind::Downsample, 24, vec![3], true)]);
    // When the longest level is finished nothing goes through the shorter ones.
    assert_eq!(planned(&day, 15 * 24 * H, &s), [(JobKind::Merge, 14 * 24, vec![1, 2, 3], true)]);
    // A sample exactly on the boundary is of the span that ends there; one later is not, and the block is
    // cut.
    assert_eq!(planned(&[block(1, 1, 12 * H + 1, MIB)], 30 * H, &s), [(JobKind::Cut, 24, vec![1], false)]);
}

#[test]
fn blocks_over_one_another_do_not_wait_for_the_end_and_few_late_ones_do() {
    let s = PlanSettings { max_inputs: 16, ..settings() };
    let pile: Vec<_> = (1..=6).map(|n| block(n, n as i64, 2 * H, MIB)).collect();
    assert_eq!(planned(&pile[..5], 3 * H, &s), []);
    assert_eq!(planned(&pile, 3 * H, &s), [(JobKind::Overlap, 12, vec![1, 2, 3, 4, 5, 6], false)]);
    let now = 1000 * H;
    let merged = BlockMeta {
        level: 1,
        downsampled_ms: s.resolutions_ms.clone(),
        ..block(1, 1, 13 * 24 * H, 100 * MIB)
    };
    let late = |age_ms: i64| block((now - age_ms) as u64, 5 * H, 6 * H, MIB);
    assert_eq!(planned(&[merged.clone(), late(s.late_wait_ms - 1)], now, &s), []);
    let ready = planned(&[merged, late(s.late_wait_ms)], now, &s);
    assert_eq!(ready.len(), 1);
    assert_eq!((ready[0].0, ready[0].3), (JobKind::Overlap, true), "stale downsampled blocks are made again");
}

#[test]
fn downsampled_blocks_that_speak_alone_are_never_replaced() {
    let s = settings();
    let d = |n, min, max, sources: &[u64]| BlockMeta {
        resolution_ms: 300_000,
        level: 1,
        sources: sources.iter().map(|n| Ulid::from_parts(*n, 0)).collect(),
        ..block(n, min, max, MIB)
    };
    let raw = [block(5, 25 * H, 26 * H, MIB), block(6, 27 * H, 28 * H, MIB)];
    // The raw block of 1 has expired; 7 was cut off a block whose other piece is 5's source here.
    let alone = [d(10, H, 2 * H, &[1]), d(11, H, 2 * H, &[5]), d(12, 25 * H, 26 * H, &[5])];
    let all: Vec<_> = raw.iter().chain(&alone).cloned().map(Arc::new).collect();
    let found = plan(&all, &BlockStates::default(), &s, 1000 * H);
    assert_eq!(found.jobs.len(), 1);
    assert_eq!(found.jobs[0].replaces, [Ulid::from_parts(12, 0)]);
}

#[test]
fn exact_windows_are_not_merged_with_approximate_ones_nor_those_of_different_replicas() {
    let windows = |n: u64, from: i64, approximate: bool, replica: &str| BlockMeta {
        resolution_ms: 300_000,
        approximate,
        external_labels: BTreeMap::from([("replica".to_string(), replica.to_string())]),
        ..block(n, from * H + 1, (from + 12) * H, MIB)
    };
    let (exact, imported) = (|n, from| windows(n, from, false, "a"), |n, from| windows(n, from, true, "a"));
    let other = [windows(7, 0, true, "b"), windows(8, 12, true, "b")];
    let all = [exact(1, 0), imported(2, 12), exact(3, 24), imported(4, 36), exact(5, 48), imported(6, 60)];
    let merged: Vec<_> = planned(&[&all[..], &other].concat(), 10_000 * H, &settings());
    let mut inputs: Vec<_> = merged.into_iter().map(|(_, _, inputs, _)| inputs).collect();
    inputs.sort();
    assert_eq!(inputs, [vec![1, 3, 5], vec![2, 4, 6], vec![7, 8]]);
}

#[test]
fn block_that_expires_soon_is_left_but_not_before_it_is_downsampled() {
    let keep = 100 * 24 * H;
    let s = PlanSettings { raw_retention_ms: Some(keep), ..settings() };
    let now = keep + 20 * 24 * H;
    let fresh = [block(1, H, 2 * H, MIB), block(2, 3 * H, 4 * H, MIB)];
    assert_eq!(planned(&fresh, now, &s).len(), 1);
    let made = fresh.map(|b| BlockMeta { level: 1, downsampled_ms: s.resolutions_ms.clone(), ..b });
    assert_eq!(planned(&made, now, &s), []);
    assert_eq!(planned(&made, now - 40 * 24 * H, &s).len(), 1);
}

#[test]
fn shares_of_a_whole_are_planned_as_one_block() {
    let s = settings();
    let share = |n: u64, number, from, to| BlockMeta {
        level: 1,
        sources: vec![Ulid::from_parts(1, 0), Ulid::from_parts(2, 0)],
        share: Some(Share {
            whole: Ulid::from_parts(9, 0),
            number,
            first_name: String::new(),
            last_name: String::new(),
        }),
        downsampled_ms: s.resolutions_ms.clone(),
        ..block(n, from, to, 100 * MIB)
    };
    let windows = |b: BlockMeta, n| BlockMeta { ulid: Ulid::from_parts(n, 0), resolution_ms: H, ..b };
    let done = [share(10, 0, 1, 11 * H), share(11, 1, 5, 14 * 24 * H)];
    let mut all = vec![done[1].clone(), done[0].clone()];
    all.extend([windows(done[0].clone(), 20), windows(done[1].clone(), 21)]);
    let now = 1000 * H;
    assert_eq!(planned(&all, now, &s), [], "they are not merged with one another");
    // What comes late is merged with all of them, and their windows are made again.
    all.push(block(30, 3 * H, 4 * H, MIB));
    assert_eq!(planned(&all, now, &s), [(JobKind::Overlap, 14 * 24, vec![10, 11, 30], true)]);
    let live: Vec<_> = all.iter().cloned().map(Arc::new).collect();
    let job = plan(&live, &BlockStates::default(), &s, now).jobs.remove(0);
    assert_eq!(job.replaces, [Ulid::from_parts(20, 0), Ulid::from_parts(21, 0)]);
    // One that is damaged keeps the others out; so does one with deleted samples draw them in.
    let states = BlockStates { blocked: BTreeSet::from([Ulid::from_parts(10, 0)]), ..BlockStates::default() };
    let jobs = plan(&live, &states, &s, now).jobs;
    assert_eq!(jobs.iter().map(|j| j.inputs[0].ulid.timestamp_ms()).collect::<Vec<_>>(), [30]);
    let states = BlockStates {
        rewrite_candidates: BTreeSet::from([Ulid::from_parts(11, 0)]),
        ..BlockStates::default()
    };
    let jobs = plan(&live[..4], &states, &s, now).jobs;
    assert_eq!((jobs[0].kind, jobs[0].inputs.len(), jobs[0].replaces.len()), (JobKind::Rewrite, 2, 2));
    // Levels that one of them crosses cut all of them.
    let shorter = PlanSettings { levels_ms: vec![12 * H, 24 * H], ..s };
    let jobs = plan(&live[..4], &BlockStates::default(), &shorter, now).jobs;
    assert_eq!((jobs[0].kind, jobs[0].inputs.len(), jobs[0].replaces.len()), (JobKind::Cut, 2, 2));
    assert!(PlanSettings { levels_ms: vec![5, 12], ..shorter }.check().is_err());
}

#[test]
fn block_with_deleted_samples_is_rewritten_at_once() {
    let s = settings();
    let states = BlockStates {
        rewrite_candidates: BTreeSet::from([Ulid::from_parts(1, 0)]),
        ..BlockStates::default()
    };
    let open: Vec<_> = vec![Arc::new(block(1, 1, 2 * H, MIB))];
    let found = plan(&open, &states, &s, 3 * H);
    assert_eq!((found.jobs[0].kind, found.jobs[0].downsample), (JobKind::Rewrite, false));
    let done = BlockMeta { level: 1, downsampled_ms: s.resolutions_ms.clone(), ..block(1, 1, 2 * H, MIB) };
    let found = plan(&[Arc::new(done)], &states, &s, 1000 * H);
    assert_eq!((found.jobs[0].kind, found.jobs[0].downsample), (JobKind::Rewrite, true));
}

/// A sample a day of ten years, sent at once: cut at spans it would be hundreds of blocks and as many jobs.
#[test]
fn strewn_samples_stay_one_block_and_merge_with_their_like() {
    const DAY: i64 = 24 * H;
    let years = |n: u64, from: i64| Arc::new(block(n, from, from + 3650 * DAY, 3650));
    let s = PlanSettings { resolutions_ms: Vec::new(), ..settings() };
    let now_ms = 5000 * DAY;
    let alone = [years(1, DAY)];
    assert!(plan(&alone, &BlockStates::default(), &s, now_ms).jobs.is_empty());
    let downsampled = plan(&alone, &BlockStates::default(), &settings(), now_ms).jobs;
    assert_eq!(
        downsampled.iter().map(|j| (j.kind, j.downsample)).collect::<Vec<_>>(),
        [(JobKind::Downsample, true)]
    );
    let two = [years(1, DAY), years(2, 2 * DAY)];
    let jobs = plan(&two, &BlockStates::default(), &s, now_ms).jobs;
    assert_eq!(jobs.iter().map(|j| (j.kind, j.inputs.len())).collect::<Vec<_>>(), [(JobKind::Overlap, 2)]);
    // What lies among other blocks has to fit their spans, or they could not be told from it in order.
    let among = [years(1, DAY), Arc::new(block(2, 100 * DAY, 100 * DAY + H, MIB))];
    let jobs = plan(&among, &BlockStates::default(), &s, now_ms).jobs;
    assert!(jobs.iter().any(|j| j.kind == JobKind::Cut && j.inputs[0].ulid == among[0].ulid), "{jobs:?}");
}

#[test]
fn spans_with_few_samples_become_one_block_a_year() {
    const DAY: i64 = 24 * H;
    let s = PlanSettings { resolutions_ms: Vec::new(), ..settings() };
    let planned = |blocks: &[Arc<BlockMeta>], s: &PlanSettings| {
        plan(blocks, &BlockStates::default(), s, 5000 * DAY).jobs
    };
    let daily: Vec<_> =
        (0..3640).map(|n| Arc::new(block(n as u64 + 1, n * DAY + 1, n * DAY + 1, 1))).collect();
    let jobs = planned(&daily, &s);
    assert_eq!(jobs.len(), 10, "instead of one for each of 260 spans");
    assert_eq!(jobs.iter().map(|j| j.inputs.len()).sum::<usize>(), 3640);
    // What comes of them stays as it is, and takes in the few late samples that come into its time.
    let joined: Vec<_> = jobs
        .iter()
        .enumerate()
        .map(|(n, job)| {
            let times = || job.inputs.iter().map(|b| b.min_t_ms);
            let (min, max) = (times().min().unwrap(), times().max().unwrap());
            let made = block(10_000 + n as u64, min, max, job.inputs.len() as u64);
            Arc::new(BlockMeta { level: 1, ..made })
        })
        .collect();
    assert!(planned(&joined, &s).is_empty(), "{:?}", planned(&joined, &s));
    let late = |samples| {
        let mut all = joined.clone();
        all.push(Arc::new(block(20_000, 1000 * DAY, 1000 * DAY + H, samples)));
        planned(&all, &s).iter().map(|j| (j.kind, j.inputs.len())).collect::<Vec<_>>()
    };
    assert_eq!(late(3), [(JobKind::Overlap, 2)]);
    assert!(late(MIB).contains(&(JobKind::Cut, 1)), "many of them have to keep to their spans");
    // A block of a year would keep samples for a year longer than they are to be kept.
    let expiring = PlanSettings { raw_retention_ms: Some(4000 * DAY), ..s.clone() };
    assert!(planned(&daily, &expiring).len() >= 260);
    // Nor are spans with many samples joined, whatever lies beside them.
    let mut mixed = daily;
    mixed.push(Arc::new(block(9_000, 200 * DAY, 200 * DAY + H, 2 * MIB)));
    let jobs = planned(&mixed, &s);
    let with_many =
        jobs.iter().find(|j| j.inputs.iter().any(|b| b.stats.samples > 1)).expect("its span is one");
    assert!(with_many.inputs.len() <= 15 && jobs.len() <= 20, "{} jobs", jobs.len());
}

/// Blocks and merged bytes while writers flush every so often for half a day, and blocks when it is over.
fn half_day(writers: u64, every_minutes: i64) -> (usize, u64, usize) {
    const MINUTE: i64 = 60_000;
    let mut model = Model::new(PlanSettings { grace_ms: H, ..PlanSettings::default() }, 1 << 40);
    let (mut number, mut most, mut merged_bytes) = (0, 0, 0);
    let mut settle = |model: &mut Model, now_ms: i64| {
        loop {
            let jobs = plan(&model.blocks(), &BlockStates::default(), &model.settings, now_ms).jobs;
            model.check_jobs(&jobs, &BlockStates::default());
            let Some(job) = jobs.first() else { return };
            merged_bytes += job.bytes();
            model.run(job);
        }
    };
    for flush in 1..=12 * 60 / every_minutes {
        let end = flush * every_minutes * MINUTE;
        for writer in 0..writers {
            number += 1;
            let first = end - every_minutes * MINUTE + 1 + writer as i64;
            model.add(number, BTreeSet::from([first, end - writer as i64]), MIB);
        }
        settle(&mut model, end);
        most = most.max(model.blocks().len());
    }
    settle(&mut model, 15 * H);
    assert_eq!(model.instants().len() as u64, 2 * number, "no sample is lost");
    (most, merged_bytes / (number * MIB), model.blocks().len())
}

#[test]
fn writers_that_flush_often_leave_few_blocks_and_each_is_merged_a_few_times() {
    // 16 writers with flushes of two hours left 96 blocks.
    assert_eq!(half_day(16, 120), (6, 2, 1));
    // Flushes of ten minutes are twelve times as many.
    assert_eq!(half_day(1, 10), (16, 2, 1));
    let (most, rewritten, after) = half_day(16, 10);
    assert!(most <= 24 && rewritten <= 5 && after == 1, "{most} blocks, {rewritten} times, {after}");
}
