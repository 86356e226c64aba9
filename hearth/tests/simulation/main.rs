//! Months of data through the write path, flushes, compaction, downsampling, retention and deletion under a
//! simulated clock, every answer held against a plain sorted map; and the same, smaller, over a store that
//! fails, loses answers and takes its time, for hundreds of seeds.

#[path = "../../../compactor/tests/bucket/mod.rs"]
mod bucket;
mod check;
#[path = "../test_services/mod.rs"]
mod test_services;
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bucket::{Fate, FatefulStore};
use model::clock::ManualClock;
use model::matcher::{MatchOp, Matcher};
use object_store::ObjectStore;
use tsdb::catalog::{Catalog, Snapshot};

use world::{DAY, HOUR, START, Size, World};

async fn newest(store: &Arc<dyn ObjectStore>) -> Arc<Snapshot> {
    let catalog: Catalog = bucket::catalog(store, "reader").await;
    catalog.snapshot()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ninety_days_of_two_hundred_series() {
    let size = Size {
        series: 200,
        days: 90,
        steps_ms: [2 * HOUR, HOUR, HOUR / 4],
        raw_keep_ms: 20 * DAY,
        five_minutes_keep_ms: 45 * DAY,
        debug_keep_ms: 3 * DAY,
        late_ms: 4 * DAY,
        max_block_bytes: 200 << 10,
    };
    let clock = ManualClock::at(START);
    let store: Arc<dyn ObjectStore> = FatefulStore::at(&clock, |_| Fate::Fine);
    let mut world = World::new(size, 90, &clock, store.clone()).await;
    for half_day in 1..=2 * size.days {
        world.advance(6 * HOUR).await;
        world.db().flush().await.expect("a flush");
        world.advance(6 * HOUR).await;
        world.db().flush().await.expect("a flush");
        assert_eq!(world.compact().await, Vec::<String>::new());
        let now = world.now();
        let name = |n: &str| Matcher::equal("__name__", n);
        match half_day {
            // A part of some series, in time that is compacted; one series whole; everything of a few hours
            // that are still in the head.
            40 => {
                let some = Matcher::new(MatchOp::Regex, "instance", "i0[2-5]").expect("it compiles");
                world.delete(vec![name("requests_total"), some], now - 9 * DAY, now - 8 * DAY).await;
            }
            61 => {
                world.delete(vec![name("temperature"), Matcher::equal("n", "13")], i64::MIN, i64::MAX).await
            }
            100 => {
                world.advance(2 * HOUR).await;
                world.delete(vec![name("state")], now - HOUR, now + HOUR).await;
            }
            // Time that only windows are left of.
            150 => world.delete(vec![name("temperature")], START + 10 * DAY, START + 12 * DAY).await,
            _ => {}
        }
        if half_day % 30 == 7 {
            world.restart().await;
        }
        if half_day % 12 == 0 || half_day > 2 * size.days - 2 {
            check::all(&mut world, 10).expect("the store is well");
        }
    }
    // What must be gone is gone, what must be there is there, and nothing lies about.
    let now = world.now();
    let snapshot = newest(&store).await;
    let of = |resolution: i64| snapshot.blocks.iter().filter(move |b| b.resolution_ms == resolution);
    let longest = 14 * DAY + DAY;
    assert!(
        of(0).all(|b| b.max_t_ms > now - size.raw_keep_ms - longest),
        "raw blocks outlive their retention"
    );
    assert!(of(300_000).all(|b| b.max_t_ms > now - size.five_minutes_keep_ms - longest));
    let hours = of(3_600_000).map(|b| b.min_t_ms).min();
    assert!(hours.is_some_and(|t| t < START + DAY), "the first day is there, in windows of an hour");
    // Deletions were made physical wherever there are samples; where only windows are left, they stay hidden.
    let hidden = |t: &&Arc<tsdb::deletion::Tombstone>| of(0).any(|b| t.concerns(b));
    assert!(!snapshot.tombstones.iter().any(|t| hidden(&t)), "{:?}", snapshot.tombstones);
    let wholes: std::collections::BTreeSet<_> = of(0).map(|b| b.whole()).collect();
    assert!(of(0).count() > wholes.len(), "no block of samples was so large that it became several");
    let wholes: std::collections::BTreeSet<_> =
        snapshot.blocks.iter().map(|b| (b.resolution_ms, b.whole())).collect();
    assert!(wholes.len() < 80, "{} blocks, {} wholes", snapshot.blocks.len(), wholes.len());
    eprintln!("{} samples written; {} blocks live at the end", world.samples, snapshot.blocks.len());
}

/// One seed: five days, a store that fails at random, and processes that die.
async fn seeded(seed: u64) {
    let size = Size {
        series: 12,
        days: 5,
        steps_ms: [HOUR, HOUR / 2, HOUR / 3],
        raw_keep_ms: 3 * DAY,
        five_minutes_keep_ms: 4 * DAY,
        debug_keep_ms: DAY,
        late_ms: DAY,
        max_block_bytes: if seed.is_multiple_of(2) { 2000 } else { u64::MAX },
    };
    let clock = ManualClock::at(START);
    // Of a thousand operations.
    let faults = Arc::new(AtomicU64::new(0));
    let often = faults.clone();
    let store: Arc<dyn ObjectStore> = FatefulStore::at(&clock, move |n| {
        let x = test_services::Rng(seed.rotate_left(17) ^ n).roll() % 3_000;
        let often = often.load(Ordering::Relaxed);
        match x {
            x if x < often => Fate::Refused,
            x if x < 2 * often => Fate::AnswerLost,
            x if x < 2 * often + 20 => Fate::Slow,
            _ => Fate::Fine,
        }
    });
    let mut world = World::new(size, seed, &clock, store.clone()).await;
    for step in 1..=4 * size.days {
        faults.store([0, 30, 100, 400][world.rng.below(4) as usize], Ordering::Relaxed);
        world.advance(6 * HOUR).await;
        if world.rng.below(3) > 0 {
            let _ = world.db().flush().await;
        }
        if world.rng.below(2) == 0 {
            world.compact().await;
        }
        if world.rng.below(8) == 0 {
            world.die().await;
        }
        if world.rng.below(10) == 0 {
            // Nobody could say whether a deletion was made that failed for good, so the store is well for as
            // long as one takes.
            faults.store(0, Ordering::Relaxed);
            let now = world.now();
            let instance = format!("i{:02}", world.rng.below(12));
            let (from, long) = (world.rng.below(2 * DAY as u64) as i64, world.rng.below(DAY as u64) as i64);
            world.delete(vec![Matcher::equal("instance", &instance)], now - from, now - from + long).await;
        }
        if step % 4 == 0 {
            // A reader that is told an error is told the truth; any answer must be the right one.
            let _ = check::all(&mut world, 1);
        }
    }
    faults.store(0, Ordering::Relaxed);
    world.db().flush().await.expect("the store is well again");
    world.clock.advance(2 * HOUR);
    for _ in 0..3 {
        // Jobs that failed wait a while before they are tried again.
        world.compact().await;
        world.clock.advance(2 * HOUR);
    }
    assert_eq!(world.compact().await, Vec::<String>::new(), "seed {seed}");
    check::all(&mut world, 4).expect("the store is well again");
}

#[test]
fn hundreds_of_seeds_over_a_failing_store() {
    let only = std::env::var("HEARTH_YEARS_SEED").ok().and_then(|s| s.parse::<u64>().ok());
    let seeds = only.map_or(0..200, |s| s..s + 1);
    let next = AtomicU64::new(seeds.start);
    std::thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let runtime = tokio::runtime::Builder::new_multi_thread()
                        .worker_threads(1)
                        .enable_all()
                        .build()
                        .expect("a runtime");
                    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                        runtime.block_on(seeded(seed));
                    }));
                    if let Err(panic) = done {
                        eprintln!("seed {seed} failed; HEARTH_YEARS_SEED={seed} runs it alone");
                        std::panic::resume_unwind(panic);
                    }
                }
            });
        }
    });
}
