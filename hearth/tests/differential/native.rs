//! Series for the whole language of Prometheus 3: native histograms of every kind, samples that lie exactly
//! on whole steps, names in UTF-8, info metrics, `__type__` and `__unit__`.
//!
//! Samples come every 15 s on multiples of 15 s, so that ranges and lookbacks end on samples. Values are
//! multiples of 1/16 far below 2^53: sums of them are the same in any order.

use super::load::{SPAN_MS, START_MS};
use crate::test_services::remote_write::Native;
use crate::test_services::{Rng, Series, series};

const SCRAPE_MS: i64 = 15_000;
/// The marker of a series that ended.
const STALE: u64 = 0x7ff0_0000_0000_0002;

/// What each target's series carry: two jobs of two, one of which has no `env`.
const TARGETS: &[&[(&str, &str)]] = &[
    &[("instance", "a"), ("job", "x")],
    &[("instance", "b"), ("job", "x")],
    &[("env", "prod"), ("instance", "a"), ("job", "y")],
    &[("env", "dev"), ("instance", "c"), ("job", "y")],
];

/// Names of float metrics here, of exponential histograms and of custom buckets.
pub const FLOATS: &[&str] = &["ticks_total", "level", "lat_seconds_bucket", "\"réseau.octets/s\""];
pub const HISTOGRAMS: &[&str] = &["native", "native", "native_float", "native_gauge", "mixed"];
pub const CUSTOM: &[&str] = &["custom"];

/// All series with their samples; those of `mixed` come in three parts.
pub fn all(seed: u64) -> Vec<Series> {
    let mut rng = Rng(seed ^ 0xfeed);
    let mut out = Vec::new();
    for (t, target) in TARGETS.iter().enumerate() {
        let with = |name: &'static str, more: &[(&'static str, &'static str)]| {
            let mut labels = [target, more, &[("__name__", name)]].concat();
            labels.sort_unstable();
            labels
        };
        for shard in ["0", "1"] {
            out.push(series(&with("ticks_total", &[("shard", shard)]), &counter(&mut rng)));
        }
        out.push(series(&with("level", &[]), &gauge(&mut rng)));
        out.push(series(&with("réseau.octets/s", &[("hôte.nom", "é")]), &gauge(&mut rng)));
        let typed = [("__type__", "counter"), ("__unit__", "bytes")];
        out.push(series(&with("sent_bytes_total", &typed), &counter(&mut rng)));
        let mut below = vec![0.0; scrapes().count()];
        for le in ["0.5", "1", "2.5", "+Inf"] {
            let mut total = 0.0;
            let points = scrapes().zip(&mut below).map(|(at, less)| {
                total += rng.below(5) as f64;
                *less += total;
                (at, *less)
            });
            let points: Vec<_> = points.collect();
            out.push(series(&with("lat_seconds_bucket", &[("le", le)]), &points));
        }
        // Another version takes over, with a marker for the old one.
        let half = START_MS + SPAN_MS / 2;
        let old = scrapes().filter(|at| *at < half).map(|at| (at, 1.0));
        let old: Vec<_> = old.chain([(half, f64::from_bits(STALE))]).collect();
        let new: Vec<_> = scrapes().filter(|at| *at >= half).map(|at| (at, 1.0)).collect();
        out.push(series(&with("target_info", &[("version", "1"), ("region", "eu")]), &old));
        out.push(series(&with("target_info", &[("version", "2"), ("region", "us")]), &new));
        if t != 1 {
            out.push(series(&with("build_info", &[("goversion", "1.26")]), &new));
        }
        for (name, kind) in
            [("native", Kind::Integer), ("native_float", Kind::Float), ("native_gauge", Kind::Gauge)]
        {
            out.push(Series { histograms: exponential(kind, &mut rng), ..series(&with(name, &[]), &[]) });
        }
        let bounds: &[f64] = if t == 2 { &[1.0, 2.0, 8.0] } else { &[1.0, 4.0, 8.0] };
        out.push(Series { histograms: custom(bounds, &mut rng), ..series(&with("custom", &[]), &[]) });
        // Floats for a while, then histograms, then floats: one after the other, because a receiver takes the
        // floats of a message first. No markers among the floats: Prometheus loses one that comes in the same
        // commit as a histogram before it.
        let third = |at: i64| (at - START_MS) * 3 / SPAN_MS;
        let (floats, histograms) = (counter(&mut rng), exponential(Kind::Integer, &mut rng));
        for part in 0..3 {
            let mut one = series(&with("mixed", &[]), &[]);
            if part == 1 {
                one.histograms = histograms.iter().filter(|h| third(h.at_ms) == 1).cloned().collect();
            } else {
                let here = |(at, v): &&(i64, f64)| third(*at) == part && v.to_bits() != STALE;
                one.samples = floats.iter().filter(here).copied().collect();
            }
            out.push(one);
        }
    }
    out
}

fn scrapes() -> impl Iterator<Item = i64> {
    let first = (START_MS + SCRAPE_MS - 1) / SCRAPE_MS * SCRAPE_MS;
    (0..SPAN_MS / SCRAPE_MS).map(move |i| first + i * SCRAPE_MS)
}

fn counter(rng: &mut Rng) -> Vec<(i64, f64)> {
    let mut total = rng.below(100) as f64;
    let mut gone = 0;
    let mut points = Vec::new();
    for at in scrapes() {
        if gone > 0 {
            gone -= 1;
            continue;
        }
        total = match rng.below(30) {
            0 => 0.0,
            1..=8 => total,
            _ => total + rng.below(800) as f64 / 16.0,
        };
        match rng.below(40) {
            0 => gone = rng.below(28),
            1 => points.push((at, f64::from_bits(STALE))),
            _ => points.push((at, total)),
        }
    }
    points
}

fn gauge(rng: &mut Rng) -> Vec<(i64, f64)> {
    let value = |at| match rng.below(40) {
        0 => None,
        1 => Some((at, f64::from_bits(STALE))),
        2 => Some((at, f64::NAN)),
        3 => Some((at, f64::INFINITY)),
        4 => Some((at, -0.0)),
        _ => Some((at, rng.below(2000) as f64 / 16.0 - 60.0)),
    };
    scrapes().filter_map(value).collect()
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Integer,
    Float,
    Gauge,
}

/// Counters of observations in exponential buckets, with resets, gaps and markers; the schema, the width of
/// the zero bucket and the buckets that are there change on the way.
fn exponential(kind: Kind, rng: &mut Rng) -> Vec<Native> {
    let mut schema = [-1, 0, 1, 3][rng.below(4) as usize];
    let mut zero_threshold = 0.001;
    let (mut positive, mut negative, mut zero) = ([0.0; 5], [0.0; 2], 0.0);
    let mut offset = rng.below(5) - 2;
    let mut out = Vec::new();
    for at_ms in scrapes() {
        let unit = if kind == Kind::Integer { 1.0 } else { 0.5 };
        match rng.below(60) {
            0 => schema = [-1, 0, 1, 3][rng.below(4) as usize],
            1 => zero_threshold = [0.001, 0.25, 1e-128][rng.below(3) as usize],
            2 => offset = rng.below(5) - 2,
            3 => (positive, negative, zero) = ([0.0; 5], [0.0; 2], 0.0),
            4 => continue,
            5 => {
                let float = kind != Kind::Integer;
                out.push(Native { at_ms, sum: f64::from_bits(STALE), float, ..Native::default() });
                continue;
            }
            _ => {}
        }
        for bucket in positive.iter_mut().chain(&mut negative).chain([&mut zero]) {
            let more = rng.below(4) as f64 * unit;
            *bucket = if kind == Kind::Gauge { more } else { *bucket + more };
        }
        let count: f64 = positive.iter().chain(&negative).sum::<f64>() + zero;
        out.push(Native {
            at_ms,
            schema,
            zero_threshold,
            zero_count: zero,
            count,
            sum: count * 3.0 - 7.0,
            positive_spans: vec![(offset, 2), (1, 3)],
            positive: positive.to_vec(),
            negative_spans: vec![(offset + 1, 2)],
            negative: negative.to_vec(),
            reset_hint: if kind == Kind::Gauge { 3 } else { 0 },
            float: kind != Kind::Integer,
            custom_values: Vec::new(),
        });
    }
    out
}

fn custom(bounds: &[f64], rng: &mut Rng) -> Vec<Native> {
    let mut counts = vec![0.0; bounds.len() + 1];
    let mut out = Vec::new();
    for at_ms in scrapes() {
        match rng.below(40) {
            0 => counts.fill(0.0),
            1 => continue,
            _ => {}
        }
        counts.iter_mut().for_each(|c| *c += rng.below(4) as f64);
        let count = counts.iter().sum();
        out.push(Native {
            at_ms,
            schema: -53,
            count,
            sum: count * 2.0,
            positive_spans: vec![(0, counts.len() as u32)],
            positive: counts.clone(),
            custom_values: bounds.to_vec(),
            ..Native::default()
        });
    }
    out
}
