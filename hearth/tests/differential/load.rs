//! About 200 series from a seed: every shape of series that a real scrape brings, and some that it should
//! not.
//!
//! Samples come every 15 s with a jitter of at most 300 ms, the same for all series of a target as in a real
//! scrape. No sample lies within 100 ms of a whole second and no query asks at another phase than 0 or 50 ms,
//! so no sample ever lies exactly on the end of a range: what Prometheus 3.0 changed there (ranges are open
//! at the left) is held by another test.

use crate::test_services::{Rng, Series, series};

/// 2024-02-29T23:30:00Z, so that the samples cross a leap day's midnight.
pub const START_MS: i64 = 1_709_249_400_000;
pub const SPAN_MS: i64 = 40 * 60_000;
const SCRAPE_MS: i64 = 15_000;

/// The marker of a series that ended, as the specification of remote write has it.
const STALE: u64 = 0x7ff0_0000_0000_0002;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// Scraped without a gap, with resets, and large at its start (see `rate` in the generator).
    Counter,
    Gauge,
    /// A gauge of which no two series have the same value at a time.
    Distinct,
    /// With gaps, ends and beginnings.
    Sparse,
    /// With NaN, infinities and both zeros.
    Odd,
    Constant,
    Bucket,
    /// Buckets that are not monotonic.
    Broken,
}

/// A metric, as the generator of expressions sees it too.
pub struct Metric {
    pub name: &'static str,
    pub shape: Shape,
    /// Whether each of the four targets has it.
    pub of_targets: bool,
    /// Labels beside the target's, with the values they have.
    pub labels: &'static [(&'static str, &'static [&'static str])],
}

/// What each target's series carry. Only one job has `env`, so that matching meets labels that one side
/// lacks.
pub const TARGETS: &[&[(&str, &str)]] = &[
    &[("job", "node"), ("instance", "host-1:9100")],
    &[("job", "node"), ("instance", "host-2:9100")],
    &[("job", "api"), ("instance", "host-3:8080"), ("env", "prod")],
    &[("job", "api"), ("instance", "host-4:8080"), ("env", "dev")],
];

const ZONE: (&str, &[&str]) = ("zone", &["eu-1", "eu-2", "us-1"]);
const PATH: (&str, &[&str]) = ("path", &["/", "/login", "/logout"]);

pub const METRICS: &[Metric] = &[
    metric(
        "requests_total",
        Shape::Counter,
        true,
        &[("code", &["200", "404", "500"]), ("method", &["GET", "POST"])],
    ),
    metric("bytes_total", Shape::Counter, true, &[("device", &["eth0", "eth1", "lo"])]),
    metric("temperature", Shape::Distinct, true, &[("sensor", &["a", "b", "c", "d"])]),
    metric("queue_length", Shape::Gauge, true, &[("queue", &["in", "out", "dead"])]),
    metric("limit", Shape::Constant, true, &[]),
    metric("up", Shape::Gauge, true, &[]),
    metric("build_info", Shape::Sparse, true, &[("version", &["1.0", "1.1"])]),
    metric("batch_total", Shape::Sparse, true, &[("shard", &["0", "1", "2"])]),
    metric("spot_price", Shape::Sparse, false, &[ZONE, ("class", &["s", "m", "l"])]),
    metric("odd", Shape::Odd, false, &[ZONE, ("which", &["x", "y"])]),
    metric("weight", Shape::Constant, false, &[ZONE]),
    metric("latency_bucket", Shape::Bucket, true, &[PATH, ("le", &["0.1", "0.5", "1", "2.5", "10", "+Inf"])]),
    metric("latency_count", Shape::Counter, true, &[PATH]),
    metric(
        "broken_bucket",
        Shape::Broken,
        false,
        &[("zone", &["eu-1", "eu-2"]), ("le", &["1", "2", "4", "+Inf"])],
    ),
];

const fn metric(
    name: &'static str,
    shape: Shape,
    of_targets: bool,
    labels: &'static [(&'static str, &'static [&'static str])],
) -> Metric {
    Metric { name, shape, of_targets, labels }
}

type Pairs = Vec<(&'static str, &'static str)>;

/// The labels of every series of a metric: all that its labels combine to, for each target. The number is the
/// target's.
fn label_sets(metric: &Metric) -> Vec<(usize, Pairs)> {
    let mut sets: Vec<(usize, Pairs)> = if metric.of_targets {
        TARGETS.iter().enumerate().map(|(i, target)| (i, target.to_vec())).collect()
    } else {
        vec![(0, Vec::new())]
    };
    for (name, values) in metric.labels {
        let grow = |(target, set): &(usize, Pairs)| {
            let grown: Vec<_> =
                values.iter().map(|value| (*target, [&set[..], &[(*name, *value)]].concat())).collect();
            grown
        };
        sets = sets.iter().flat_map(grow).collect();
    }
    for (_, set) in &mut sets {
        set.push(("__name__", metric.name));
        set.sort_unstable();
    }
    sets
}

/// All series with their samples.
pub fn all(seed: u64) -> Vec<Series> {
    let mut rng = Rng(seed);
    let scrapes: Vec<Vec<i64>> = TARGETS.iter().map(|_| scrape_times(&mut rng)).collect();
    let mut out = Vec::new();
    for metric in METRICS {
        // A histogram's buckets rise together: each bucket adds to the one before it in the same series of
        // `le`.
        let mut below: Vec<f64> = Vec::new();
        for (target, labels) in label_sets(metric) {
            let times = &scrapes[target];
            let mut values = values(metric, &labels, times.len(), &mut rng);
            if metric.shape == Shape::Bucket {
                if labels.contains(&("le", "0.1")) {
                    below = vec![0.0; values.len()];
                }
                for (value, less) in values.iter_mut().flatten().zip(&mut below) {
                    *value += *less;
                    *less = *value;
                }
            }
            let samples: Vec<_> = times.iter().zip(values).filter_map(|(t, v)| Some((*t, v?))).collect();
            out.push(series(&labels, &samples));
        }
    }
    out
}

fn scrape_times(rng: &mut Rng) -> Vec<i64> {
    let phase = rng.below((SCRAPE_MS / 1000) as u64 - 1) as i64 * 1000 + 500;
    (0..SPAN_MS / SCRAPE_MS).map(|i| START_MS + i * SCRAPE_MS + phase + rng.below(600) as i64 - 300).collect()
}

/// One value for each scrape, or none. All are multiples of 1/1024 and far below 2^53, so that sums of them
/// are exact in any order.
fn values(metric: &Metric, labels: &Pairs, count: usize, rng: &mut Rng) -> Vec<Option<f64>> {
    let stale = f64::from_bits(STALE);
    let mut total = 0.0;
    let fastest = 1 + rng.below(if metric.name == "bytes_total" { 1 << 20 } else { 40 });
    let resets = metric.shape == Shape::Counter && rng.below(3) == 0;
    let (mut gone, mut last_gone) = (0_u64, false);
    let base = (rng.below(60_000) as f64 - 20_000.0) / 1024.0;
    (0..count)
        .map(|i| match metric.shape {
            Shape::Counter | Shape::Bucket => {
                if i == 0 {
                    total = (fastest * 60 + rng.below(1000)) as f64;
                }
                total += if rng.below(3) == 0 { 0.0 } else { rng.below(fastest) as f64 };
                if resets && i > 12 && rng.below(25) == 0 {
                    total = rng.below(fastest) as f64;
                }
                Some(total)
            }
            Shape::Constant => Some(base),
            Shape::Distinct => Some(rng.below(1 << 26) as f64 / 1024.0 - 20_000.0),
            Shape::Gauge if metric.name == "up" => Some(if rng.below(12) == 0 { 0.0 } else { 1.0 }),
            Shape::Gauge => Some(rng.below(20) as f64),
            Shape::Broken => Some(rng.below(50) as f64),
            Shape::Odd => match (i / 8 + labels.len() + fastest as usize) % 8 {
                0 => Some(f64::NAN),
                1 => Some(f64::INFINITY),
                2 => Some(f64::NEG_INFINITY),
                3 => Some(-0.0),
                4 => Some(0.0),
                5 => Some(1.0),
                _ => Some(rng.below(2048) as f64 / 16.0 - 64.0),
            },
            Shape::Sparse if metric.name == "build_info" => {
                // A new version takes over at a third of the time; the old one ends with a marker.
                let old = labels.contains(&("version", "1.0"));
                match i.cmp(&(count / 3 + labels.len())) {
                    std::cmp::Ordering::Less => old.then_some(1.0),
                    std::cmp::Ordering::Equal if old => Some(stale),
                    _ => (!old).then_some(1.0),
                }
            }
            Shape::Sparse => {
                if gone > 0 {
                    gone -= 1;
                    last_gone = true;
                    return None;
                }
                // Gaps shorter and longer than the lookback of five minutes, half of them told by a marker.
                if !last_gone && rng.below(12) == 0 {
                    gone = 1 + rng.below(30);
                    return (rng.below(2) == 0).then_some(stale);
                }
                last_gone = false;
                total += rng.below(16) as f64;
                Some(if metric.name == "spot_price" { rng.below(4096) as f64 / 64.0 } else { 5000.0 + total })
            }
        })
        .collect()
}
