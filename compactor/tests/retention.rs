//! What is not kept: retention by resolution, rules by selector, deletions, replicas; and what must not go
//! with it.

mod bucket;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bucket::{Seen, catalog, compactor, floats, late_clock, points, put_block, read, settings};
use compactor::retention::{changes, expired};
use compactor::settings::{RetentionSettings, TenantRetention, TenantRule};
use futures::StreamExt;
use model::clock::{Clock, ManualClock, SystemClock};
use model::matcher::Matcher;
use model::rollup::RESOLUTIONS_MS;
use model::tenant::TenantId;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use tsdb::block::{BlockMeta, BlockStats};
use tsdb::block_meta::{BlockFileMetas, FORMAT_VERSION};
use tsdb::catalog::{Edit, Snapshot};
use tsdb::deletion::{RetentionRule, Tombstone};
use tsdb::layout;
use ulid::Ulid;

const H: i64 = 3_600_000;
const DAY: i64 = 24 * H;
const T0: i64 = 1_767_225_600_000;

async fn blocks_of(store: &Arc<dyn ObjectStore>) -> Vec<Arc<BlockMeta>> {
    catalog(store, "reader").await.snapshot().blocks.clone()
}

fn block_at(n: u64, t_ms: i64) -> Arc<BlockMeta> {
    Arc::new(BlockMeta {
        version: FORMAT_VERSION,
        ulid: Ulid::from_parts(n, 0),
        tenant: "default".to_string(),
        min_t_ms: t_ms,
        max_t_ms: t_ms,
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
        stats: BlockStats::default(),
        files: BlockFileMetas::default(),
        crc32: String::new(),
    })
}

/// Three days of two jobs, a block of two hours every six.
async fn three_days(store: &Arc<dyn ObjectStore>) -> Seen {
    let scratch = tempfile::tempdir().unwrap();
    let mut seen = Seen::new();
    for n in 0..12i64 {
        let block: Vec<_> = ["debug", "web"]
            .iter()
            .map(|job| {
                let times = (1..=240).map(|i| T0 + n * 6 * H + i * 30_000);
                floats(&[("__name__", "up"), ("job", job)], times.map(|t| (t, (t / 1000 % 997) as f64)))
            })
            .collect();
        for s in &block {
            seen.entry(s.labels.clone()).or_default().extend(points(s));
        }
        put_block(store, scratch.path(), n as u64 + 1, block).await.unwrap();
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_has_a_time_for_each_resolution_and_raw_waits_for_its_windows() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    three_days(&store).await;
    let scratch = tempfile::tempdir().unwrap();
    let keep = RetentionSettings {
        raw_ms: Some(10 * DAY),
        resolutions_ms: BTreeMap::from([(RESOLUTIONS_MS[0], Some(30 * DAY)), (RESOLUTIONS_MS[1], None)]),
        ..RetentionSettings::default()
    };
    let clock = ManualClock::at(T0 + 20 * DAY);
    let mut s = settings(scratch.path());
    s.keep = keep.clone();
    // All raw samples have expired, and nothing was downsampled yet: nothing may go before it is.
    let tenant = TenantId::single();
    let none = Default::default();
    assert!(
        expired(&blocks_of(&store).await, &none, &tenant, &keep, &RESOLUTIONS_MS, T0 + 20 * DAY).is_empty()
    );
    let worker = compactor(&store, s, "c", &clock);
    let first = worker.round().await;
    assert_eq!((first.errors.len(), first.expired_blocks), (0, 0), "{first:?}");
    let resolutions = |blocks: &[Arc<BlockMeta>]| {
        let mut all: Vec<i64> = blocks.iter().map(|b| b.resolution_ms).collect();
        all.sort_unstable();
        all.dedup();
        all
    };
    assert_eq!(resolutions(&blocks_of(&store).await), [0, RESOLUTIONS_MS[0], RESOLUTIONS_MS[1]]);
    assert!(worker.round().await.expired_blocks > 0);
    assert_eq!(resolutions(&blocks_of(&store).await), RESOLUTIONS_MS);
    clock.set(T0 + 40 * DAY);
    worker.round().await;
    assert_eq!(resolutions(&blocks_of(&store).await), [RESOLUTIONS_MS[1]]);
    clock.set(T0 + 4000 * DAY);
    assert_eq!(worker.round().await.expired_blocks, 0, "an hour is kept for ever");
}

#[test]
fn raw_block_stays_where_the_rollup_of_it_cannot_be_read() {
    let raw = Arc::new(BlockMeta { downsampled_ms: RESOLUTIONS_MS.to_vec(), ..(*block_at(1, T0)).clone() });
    let rollup = |n: u64, r| Arc::new(BlockMeta { resolution_ms: r, ..(*block_at(n, T0)).clone() });
    let live = [raw, rollup(2, RESOLUTIONS_MS[0]), rollup(3, RESOLUTIONS_MS[1])];
    let keep = RetentionSettings { raw_ms: Some(DAY), ..RetentionSettings::default() };
    let gone = |quarantined: &[u64]| {
        let quarantined = quarantined.iter().map(|n| Ulid::from_parts(*n, 0)).collect();
        expired(&live, &quarantined, &TenantId::single(), &keep, &RESOLUTIONS_MS, T0 + 2 * DAY)
    };
    assert_eq!(gone(&[]), [live[0].ulid]);
    assert_eq!(
        (gone(&[2]), gone(&[3])),
        (vec![], vec![]),
        "what was made of it is lost, so it is all there is"
    );
    assert_eq!(gone(&[1, 2]), [live[0].ulid], "it cannot be read itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn shares_of_a_whole_expire_together() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let scratch = tempfile::tempdir().unwrap();
    let until = |name, end| {
        let times = (1..=100).map(|i| T0 + i * H / 2).filter(move |t| *t <= T0 + end);
        floats(&[("__name__", name)], times.map(|t| (t, (t / 1000 % 97) as f64)))
    };
    // One metric ends a day before the other.
    put_block(&store, scratch.path(), 1, vec![until("a", DAY), until("b", 2 * DAY)]).await.unwrap();
    let mut s = settings(scratch.path());
    s.plan.levels_ms = vec![4 * DAY];
    s.max_block_bytes = 1;
    let clock = ManualClock::at(T0 + 10 * DAY);
    assert_eq!(compactor(&store, s, "c", &clock).round().await.errors, Vec::<String>::new());
    let live = blocks_of(&store).await;
    assert!(live.len() == 6 && live.iter().all(|b| b.share.is_some()), "{live:?}");
    let keep = RetentionSettings {
        raw_ms: Some(10 * DAY),
        resolutions_ms: RESOLUTIONS_MS.map(|r| (r, Some(10 * DAY))).into(),
        ..RetentionSettings::default()
    };
    let gone = |now_ms| {
        expired(&live, &Default::default(), &TenantId::single(), &keep, &RESOLUTIONS_MS, now_ms).len()
    };
    let last = live.iter().map(|b| b.max_t_ms).max().unwrap() + 10 * DAY;
    assert_eq!((gone(last - DAY / 2), gone(last), gone(last + 1)), (0, 0, 6));
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_takes_its_series_out_of_blocks_and_leaves_the_rest() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut seen = three_days(&store).await;
    let scratch = tempfile::tempdir().unwrap();
    let mut s = settings(scratch.path());
    s.keep.rules = vec![TenantRule {
        tenant: None,
        rule: RetentionRule { matchers: vec![Matcher::equal("job", "debug")], keep_ms: Some(3 * DAY) },
    }];
    let clock = ManualClock::at(T0 + 2 * DAY + 12 * H);
    let worker = compactor(&store, s, "c", &clock);
    assert_eq!(worker.round().await.errors, Vec::<String>::new());
    assert_eq!(read(&store).await.unwrap(), seen, "nothing is older than the rule");
    // The first two days are one block, all of it over for the debug series; the rest is written anew now,
    // through the visibility.
    clock.set(T0 + 5 * DAY + 6 * H);
    assert_eq!(worker.round().await.errors, Vec::<String>::new());
    let after = read(&store).await.unwrap();
    let of = |s: &Seen, job: &str| s.iter().find(|(l, _)| l.value("job") == job).unwrap().1.clone();
    assert_eq!(of(&after, "web"), of(&seen, "web"));
    let left: BTreeMap<i64, u64> =
        of(&seen, "debug").into_iter().filter(|(t, _)| *t >= T0 + 2 * DAY + 6 * H).collect();
    assert_eq!(of(&after, "debug"), left);
    clock.set(T0 + 30 * DAY);
    assert_eq!(worker.round().await.errors, Vec::<String>::new());
    seen.retain(|l, _| l.value("job") == "web");
    assert_eq!(read(&store).await.unwrap(), seen);
    let jobs = worker.round().await.jobs;
    assert_eq!(jobs, 0, "what was looked through is not looked through for ever");
}

#[tokio::test(flavor = "multi_thread")]
async fn deletions_become_physical_and_their_tombstones_go() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut seen = three_days(&store).await;
    let scratch = tempfile::tempdir().unwrap();
    let worker = compactor(&store, settings(scratch.path()), "c", &late_clock());
    assert_eq!(worker.round().await.errors, Vec::<String>::new());
    let before: u64 =
        blocks_of(&store).await.iter().filter(|b| b.resolution_ms == 0).map(|b| b.stats.samples).sum();
    let (from, to) = (T0 + DAY, T0 + 2 * DAY);
    let catalog = catalog(&store, "deleter").await;
    let deletion = |job: &str| Tombstone::new(vec![Matcher::equal("job", job)], from, to, 0);
    catalog.commit(&Edit::delete(vec![deletion("web"), deletion("nobody")])).await.unwrap();
    for (labels, points) in &mut seen {
        if labels.value("job") == "web" {
            points.retain(|t, _| *t < from || *t > to);
        }
    }
    assert_eq!(read(&store).await.unwrap(), seen, "hidden at once");
    let round = worker.round().await;
    assert_eq!((round.errors.len(), round.jobs), (0, 1), "{round:?}");
    let snapshot = catalog.refresh().await.unwrap();
    assert!(snapshot.tombstones.is_empty(), "{:?}", snapshot.tombstones);
    assert_eq!(read(&store).await.unwrap(), seen);
    let after: u64 = snapshot.blocks.iter().filter(|b| b.resolution_ms == 0).map(|b| b.stats.samples).sum();
    assert_eq!(after, seen.values().map(|p| p.len() as u64).sum::<u64>());
    assert!(after < before);
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_that_outlived_their_samples_are_merged_and_deleted_from_by_themselves() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    three_days(&store).await;
    let scratch = tempfile::tempdir().unwrap();
    let mut s = settings(scratch.path());
    s.keep.raw_ms = Some(DAY);
    let clock = ManualClock::at(T0 + 3 * DAY + 12 * H);
    let worker = compactor(&store, s, "c", &clock);
    let shape = |blocks: Vec<Arc<BlockMeta>>| {
        let mut all: Vec<(i64, u64)> = blocks.iter().map(|b| (b.resolution_ms, b.stats.samples)).collect();
        all.sort_unstable();
        all
    };
    for _ in 0..2 {
        assert_eq!(worker.round().await.errors, Vec::<String>::new());
    }
    clock.set(T0 + 10 * DAY);
    assert_eq!(worker.round().await.errors, Vec::<String>::new());
    let before = shape(blocks_of(&store).await);
    assert!(before.len() > 2 && before.iter().all(|(r, _)| *r > 0), "only windows are left: {before:?}");
    let windows =
        |all: &[(i64, u64)], r: i64| all.iter().filter(|(x, _)| *x == r).map(|(_, n)| n).sum::<u64>();
    clock.set(T0 + 15 * DAY);
    assert_eq!(worker.round().await.errors, Vec::<String>::new());
    let merged = shape(blocks_of(&store).await);
    assert_eq!(merged.iter().map(|(r, _)| *r).collect::<Vec<_>>(), RESOLUTIONS_MS, "one of each");
    for r in RESOLUTIONS_MS {
        assert_eq!(windows(&merged, r), windows(&before, r));
    }
    let catalog = catalog(&store, "deleter").await;
    let all_of_web = Tombstone::new(vec![Matcher::equal("job", "web")], i64::MIN, i64::MAX, 0);
    catalog.commit(&Edit::delete(vec![all_of_web])).await.unwrap();
    let round = worker.round().await;
    assert_eq!((round.errors.len(), round.jobs), (0, 2), "{round:?}");
    assert!(catalog.refresh().await.unwrap().tombstones.is_empty());
    let left = shape(blocks_of(&store).await);
    for r in RESOLUTIONS_MS {
        assert_eq!(windows(&left, r) * 2, windows(&before, r), "half of the series are gone");
    }
    assert_eq!(worker.round().await.jobs, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_become_one_series_whatever_their_labels_do_to_the_order() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let scratch = tempfile::tempdir().unwrap();
    // Without `replica`, `m{a}` comes before `m{a,pod}`; with it, after.
    let sets: [&[(&str, &str)]; 4] = [
        &[("__name__", "m"), ("a", "1")],
        &[("__name__", "m"), ("a", "1"), ("pod", "x")],
        &[("__name__", "m"), ("a", "1"), ("pod", "x"), ("zone", "z")],
        &[("__name__", "n")],
    ];
    for b in 0..3i64 {
        let mut block = Vec::new();
        for (r, replica) in ["one", "two"].iter().enumerate() {
            for (s, set) in sets.iter().enumerate() {
                let mut labels = set.to_vec();
                labels.push(("replica", replica));
                let times = (0..240).map(|i| T0 + b * 2 * H + 7 + i * 30_000 + r as i64 * 400);
                // Replica one misses a scrape that two has.
                let times = times.filter(|t| r == 1 || (t - T0) / 30_000 % 50 != 17);
                block.push(floats(&labels, times.map(|t| (t, (t / 30_000 + s as i64) as f64))));
            }
        }
        put_block(&store, scratch.path(), b as u64 + 1, block).await.unwrap();
    }
    let mut s = settings(scratch.path());
    s.replica_labels = vec!["replica".to_string()];
    let worker = compactor(&store, s, "c", &late_clock());
    assert_eq!(worker.round().await.errors, Vec::<String>::new());
    let seen = read(&store).await.unwrap();
    assert_eq!(seen.len(), sets.len());
    for (labels, points) in &seen {
        assert_eq!(labels.get("replica"), None);
        let gaps = points.keys().zip(points.keys().skip(1)).map(|(a, b)| b - a);
        let longest = gaps.max().unwrap();
        assert!(longest < 31_000, "{labels}: a scrape that one replica missed is filled, {longest}");
        assert!((700..=720).contains(&points.len()), "{labels}: {} samples of 720 scrapes", points.len());
    }
    let run = worker.runs().into_iter().find_map(|r| r.result.ok()).unwrap();
    assert!(run.samples_written * 2 < run.samples_read + 100);
    // Late samples of one replica join what has no replica any more.
    let late = [("__name__", "n"), ("replica", "two")];
    put_block(&store, scratch.path(), 9, vec![floats(&late, [(T0 + 8 * H, 1.0)])]).await.unwrap();
    assert_eq!(worker.round().await.errors, Vec::<String>::new());
    assert_eq!(read(&store).await.unwrap().len(), sets.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn replica_that_changes_at_the_edge_of_a_span_makes_no_reset() {
    let wall = T0 + 12 * H;
    for stepwise in [false, true] {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let scratch = tempfile::tempdir().unwrap();
        // One speaks up to the edge and is gone; two, whose samples are 40 s old, goes on.
        for (b, from) in [(1, wall - 2 * H), (2, wall)] {
            let block =
                ["one", "two"].iter().enumerate().filter(|(r, _)| *r == 1 || b == 1).map(|(r, replica)| {
                    let times = (1..=480).map(|i| from + i * 15_000 - 9_000 + r as i64 * 4_000);
                    let shown = |t: i64| ((t - r as i64 * 40_000 - T0) / 100) as f64;
                    floats(&[("__name__", "m"), ("replica", replica)], times.map(|t| (t, shown(t))))
                });
            put_block(&store, scratch.path(), b, block.collect()).await.unwrap();
        }
        let mut s = settings(scratch.path());
        s.replica_labels = vec!["replica".to_string()];
        s.plan.levels_ms = vec![12 * H];
        let clock = ManualClock::at(if stepwise { wall + 1 } else { wall + 20 * H });
        let worker = compactor(&store, s, "c", &clock);
        assert_eq!((worker.round().await.errors, stepwise), (Vec::<String>::new(), stepwise));
        clock.set(wall + 20 * H);
        assert_eq!(worker.round().await.errors, Vec::<String>::new());
        let seen = read(&store).await.unwrap();
        let values: Vec<f64> = seen.values().flat_map(|p| p.values().map(|v| f64::from_bits(*v))).collect();
        assert_eq!(seen.len(), 1);
        assert!(values.is_sorted(), "stepwise {stepwise}: {:?}", &values[470..490]);
        assert!((955..=960).contains(&values.len()), "{}", values.len());
    }
}

#[test]
fn tenants_may_have_times_of_their_own() {
    let other = TenantId::new("team-a").unwrap();
    let keep = RetentionSettings {
        raw_ms: Some(5),
        tenants: BTreeMap::from([(
            other.clone(),
            TenantRetention { raw_ms: Some(None), ..TenantRetention::default() },
        )]),
        resolutions_ms: BTreeMap::from([(300_000, Some(9))]),
        ..RetentionSettings::default()
    };
    assert_eq!((keep.of(&TenantId::single(), 0), keep.of(&other, 0)), (Some(5), None));
    assert_eq!((keep.of(&other, 300_000), keep.of(&other, 3_600_000)), (Some(9), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_store_never_makes_a_block_of_an_odd_tenant_look_damaged() {
    use bucket::{Fate, FatefulStore};
    use tsdb::block::upload::upload;
    use tsdb::block::{BlockError, BlockOrigin, WriteOptions, write_block};
    use tsdb::bucket::maintenance::{BucketMaintenance, Patience};

    let inner = Arc::new(InMemory::new());
    let tenant = TenantId::new("x(1)'*!_").unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let origin = BlockOrigin::flushed(ulid::Ulid::from_parts(1, 1), tenant.clone(), "test");
    let series = floats(&[("__name__", "m")], [(1, 1.0)]);
    let files = write_block(scratch.path(), origin, WriteOptions::fresh(), [Ok(series)]).unwrap().unwrap();
    upload(&*inner, &files).await.unwrap();
    // Each GET of an object fails, each look whether it is there succeeds: operations alternate.
    let store: Arc<dyn ObjectStore> =
        FatefulStore::new(inner.clone(), |n| if n.is_multiple_of(2) { Fate::Refused } else { Fate::Fine });
    let patience = Patience { attempts: 3, pause: std::time::Duration::from_micros(10) };
    let maintenance = BucketMaintenance::new(store, Arc::new(late_clock()), patience);
    let found = maintenance.verify(&tenant, &files.meta).await;
    assert!(matches!(found, Err(BlockError::Store { .. })), "{found:?}");
    let healthy: Arc<dyn ObjectStore> = inner;
    let maintenance = BucketMaintenance::new(healthy, Arc::new(late_clock()), patience);
    maintenance.verify(&tenant, &files.meta).await.unwrap();
    maintenance.remove(&tenant, files.meta.ulid).await.unwrap();
    let gone = maintenance.verify(&tenant, &files.meta).await;
    assert!(matches!(gone, Err(BlockError::Corrupt { .. })), "{gone:?}");
}

/// A machine's clock is 70 days ahead for a while, with a retention of 30 days: ahead of the store's clock,
/// or of all data.
#[tokio::test(flavor = "multi_thread")]
async fn retention_does_not_believe_a_clock_that_jumps_ahead() {
    let day = Duration::from_secs(24 * 3600);
    let now_ms = SystemClock.now_ms();
    // Where a sender's clock was ahead too, the store's own is left.
    for newest_ms in [now_ms - H, now_ms + 60 * DAY] {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let scratch = tempfile::tempdir().unwrap();
        for (n, t) in [now_ms - 40 * DAY, now_ms - 20 * DAY, newest_ms].into_iter().enumerate() {
            let series = floats(&[("__name__", "up")], [(t, 1.0)]);
            put_block(&store, scratch.path(), n as u64 + 1, vec![series]).await.unwrap();
        }
        let round = |keep_ms: Option<i64>, at_ms: i64| {
            let mut s = settings(scratch.path());
            (s.max_clock_lead, s.expired_delay) = (Some(day), day);
            s.plan.resolutions_ms = Vec::new();
            s.keep = RetentionSettings { raw_ms: keep_ms, ..RetentionSettings::default() };
            let worker = compactor(&store, s, "c", &ManualClock::at(at_ms));
            let store = store.clone();
            async move {
                assert_eq!(worker.round().await.errors, Vec::<String>::new());
                let snapshot = catalog(&store, "reader").await.snapshot();
                let days = |t: i64| (t - now_ms).div_euclid(DAY);
                let live: Vec<i64> = snapshot.blocks.iter().map(|b| days(b.max_t_ms)).collect();
                let expired: Vec<i64> = snapshot.expired.iter().map(|e| days(e.block.max_t_ms)).collect();
                (live, expired)
            }
        };
        let newest = (newest_ms - now_ms).div_euclid(DAY);
        // The oldest is past its time by any clock; it is kept for a day all the same.
        assert_eq!(round(Some(30 * DAY), now_ms + 70 * DAY).await, (vec![-20, newest], vec![-40]));
        assert_eq!(round(Some(30 * DAY), now_ms).await, (vec![-20, newest], vec![-40]));
        // Whoever raises the retention within that day has it again.
        assert_eq!(round(Some(50 * DAY), now_ms).await, (vec![-40, -20, newest], vec![]));
        assert_eq!(round(Some(30 * DAY), now_ms).await, (vec![-20, newest], vec![-40]));
        let names: Vec<_> =
            catalog(&store, "reader").await.snapshot().expired.iter().map(|e| e.block.ulid).collect();
        let lies_there = |name| {
            let store = store.clone();
            async move { store.list(Some(&layout::block(&TenantId::single(), name))).count().await > 0 }
        };
        assert!(lies_there(names[0]).await);
    }
}

/// A clock that went back brings back by itself what it took while it was ahead.
#[test]
fn expired_blocks_come_back_with_the_clock_and_are_given_up_after_a_delay() {
    let tenant = TenantId::single();
    let keep = RetentionSettings { raw_ms: Some(30 * DAY), ..RetentionSettings::default() };
    let meta = BlockMeta::clone(&block_at(1, T0));
    let name = meta.ulid;
    let live = Snapshot::empty().apply(&Edit { add: vec![meta], ..Edit::default() }, "w", name).unwrap();
    let at = |snapshot: &Snapshot, now_ms: i64| changes(snapshot, &tenant, &keep, &[], now_ms, now_ms, DAY);
    assert!(at(&live, T0 + 20 * DAY).is_empty());
    let ahead = T0 + 90 * DAY;
    assert_eq!(at(&live, ahead).expire, [name]);
    let expired = live.apply(&Edit { expire: vec![(name, ahead)], ..Edit::default() }, "w", name).unwrap();
    assert!(
        expired.blocks.is_empty() && expired.version > live.version,
        "an older program must not delete it"
    );
    assert_eq!(at(&expired, T0 + 20 * DAY).restore, [name]);
    let back = expired.apply(&Edit { restore: vec![name], ..Edit::default() }, "w", name).unwrap();
    assert_eq!((back.blocks, back.version), (live.blocks, live.version));
    assert!(at(&expired, ahead + DAY - 1).is_empty());
    assert_eq!(at(&expired, ahead + DAY).give_up, [name]);
    let gone = expired.apply(&Edit { give_up: vec![name], ..Edit::default() }, "w", name).unwrap();
    assert!(gone.expired.is_empty() && gone.blocks.is_empty());
}
