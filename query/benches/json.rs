//! The JSON writer: numbers, label sets and a whole matrix, against what the standard library's formatting
//! would cost.

use std::io::Write;

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use model::labels::Labels;
use query::api::json;
use query::api::response::{Pieces, ResultWriter, Warnings};
use query::column::Column;
use query::plan::Steps;
use query::value::{QueryValue, StepSeries};

fn main() {
    divan::main();
}

const SERIES: usize = 100;
const STEPS: usize = 1000;

/// Kinds of values as dashboards ask for them.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Counters: whole numbers of nine digits.
    Counter,
    /// Gauges with two decimals.
    Gauge,
    /// Rates: all seventeen digits.
    Rate,
}

fn values(kind: Kind, n: usize) -> Vec<f64> {
    (0..n)
        .map(|i| match kind {
            Kind::Counter => 123_456_789.0 + (i * 37) as f64,
            Kind::Gauge => (i * 7919 % 100_000) as f64 / 100.0,
            Kind::Rate => (i * 7919 % 100_003) as f64 / 300.0,
        })
        .collect()
}

#[divan::bench(args = [Kind::Counter, Kind::Gauge, Kind::Rate])]
fn value(bencher: Bencher<'_, '_>, kind: Kind) {
    let all = values(kind, 1000);
    let mut out = Vec::with_capacity(64 << 10);
    bencher.counter(ItemsCount::new(all.len())).bench_local(|| {
        out.clear();
        for v in &all {
            json::value(&mut out, *v);
        }
        out.len()
    });
}

#[divan::bench(args = [Kind::Counter, Kind::Gauge, Kind::Rate])]
fn value_by_display(bencher: Bencher<'_, '_>, kind: Kind) {
    let all = values(kind, 1000);
    let mut out = Vec::with_capacity(64 << 10);
    bencher.counter(ItemsCount::new(all.len())).bench_local(|| {
        out.clear();
        for v in &all {
            let _ = write!(out, "\"{v}\"");
        }
        out.len()
    });
}

#[divan::bench]
fn label_sets(bencher: Bencher<'_, '_>) {
    let all: Vec<Labels> = (0..1000).map(labels).collect();
    let mut out = Vec::with_capacity(1 << 20);
    bencher.counter(ItemsCount::new(all.len())).bench_local(|| {
        out.clear();
        for set in &all {
            json::labels(&mut out, set);
        }
        out.len()
    });
}

fn labels(i: usize) -> Labels {
    Labels::from_pairs([
        ("__name__", "http_request_duration_seconds_bucket".to_string()),
        ("instance", format!("10.0.{}.{}:9100", i / 256, i % 256)),
        ("job", "api-server".into()),
        ("le", "0.25".into()),
        ("path", "/api/v1/things".into()),
    ])
}

/// 100 series of 1,000 steps, piece by piece as to a client.
#[divan::bench(args = [Kind::Counter, Kind::Gauge, Kind::Rate])]
fn matrix(bencher: Bencher<'_, '_>, kind: Kind) {
    let steps = Steps { start_ms: 1_700_000_000_000, step_ms: 15_000, count: STEPS };
    let series: Vec<StepSeries> = (0..SERIES)
        .map(|i| StepSeries { labels: labels(i), column: Column::full(values(kind, STEPS)) })
        .collect();
    let write = |value: QueryValue| {
        let mut writer = ResultWriter::new(value, None, &Warnings::default());
        let mut total = 0;
        loop {
            let mut out = Vec::with_capacity(72 << 10);
            let more = writer.fill(&mut out);
            total += divan::black_box(out).len();
            if !more {
                return total;
            }
        }
    };
    let bytes = write(QueryValue::Matrix { steps, series: series.clone() });
    bencher
        .counter(ItemsCount::new(SERIES * STEPS))
        .counter(BytesCount::new(bytes))
        .with_inputs(|| QueryValue::Matrix { steps, series: series.clone() })
        .bench_values(write);
}
