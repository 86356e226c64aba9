//! What a sample costs when replicas become one: aligned and jittered scrapes, missed ones, and a replica
//! that was down.
//!
//! `cargo bench -p tsdb --bench replicas`. Items are samples read, of both replicas together.

use std::sync::Arc;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use model::labels::Labels;
use model::source::SeriesColumns;
use model::source::merge::replicas::{ReplicaRule, merge_replicas};

fn main() {
    divan::main();
}

/// Right after a multiple of 12 h.
const T0: i64 = 40_900 * 43_200_000;
/// Half a day at 15 s.
const SAMPLES: i64 = 2_880;

/// How the two replicas scrape.
#[derive(Clone, Copy, Debug)]
enum Scrapes {
    /// The same timestamps.
    Aligned,
    /// 6 s apart, with a few milliseconds of jitter, which is what pairs look like.
    Jittered,
    /// So, and each misses a scrape in a hundred.
    Missing,
    /// So, and the first is away for a third of the time.
    Down,
}

const ALL: [Scrapes; 4] = [Scrapes::Aligned, Scrapes::Jittered, Scrapes::Missing, Scrapes::Down];

fn copies(scrapes: Scrapes) -> Vec<SeriesColumns> {
    let noise = |i: i64, r: i64| (i.wrapping_mul(6364136223846793005).wrapping_add(r * 7919) >> 40) & 0xff;
    let labels = Labels::from_pairs([("__name__", "x_total"), ("instance", "a"), ("replica", "r")]);
    (0..2)
        .map(|r| {
            let there = |i: &i64| match scrapes {
                Scrapes::Aligned | Scrapes::Jittered => true,
                Scrapes::Missing => (i + r * 50) % 100 != 0,
                Scrapes::Down => r == 1 || !(900..1860).contains(i),
            };
            let at = |i: i64| match scrapes {
                Scrapes::Aligned => T0 + 1 + i * 15_000,
                _ => T0 + 1 + i * 15_000 + r * 6_000 + noise(i, r) % 20,
            };
            let ts_ms: Arc<[i64]> = (0..SAMPLES).filter(there).map(at).collect();
            let values = ts_ms.iter().map(|t| ((t - T0) / 10) as f64).collect();
            SeriesColumns {
                labels: labels.clone(),
                ts_ms,
                values,
                histograms: None,
                start_ts_ms: None,
                windows: None,
            }
        })
        .collect()
}

fn bench(bencher: Bencher<'_, '_>, scrapes: Scrapes, rule: ReplicaRule) {
    let copies = copies(scrapes);
    let read: usize = copies.iter().map(|c| c.values.len()).sum();
    let name = Labels::from_pairs([("__name__", "x_total"), ("instance", "a")]);
    let keep = (T0 + 1, T0 + 43_200_000);
    bencher
        .counter(ItemsCount::new(read))
        .with_inputs(|| copies.clone())
        .bench_local_values(|copies| black_box(merge_replicas(name.clone(), copies, keep, rule)));
}

#[divan::bench(args = ALL)]
fn grid(bencher: Bencher<'_, '_>, scrapes: Scrapes) {
    bench(bencher, scrapes, ReplicaRule::Grid);
}

#[divan::bench(args = ALL)]
fn penalty(bencher: Bencher<'_, '_>, scrapes: Scrapes) {
    bench(bencher, scrapes, ReplicaRule::Penalty { counter: true });
}
