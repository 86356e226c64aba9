//! Any bytes as a query over a handful of series: no panic, within its limits, and the same row by row as
//! whole.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use model::histogram::{BucketSpan, Histogram};
use model::labels::Labels;
use model::sample::stale_nan;
use model::source::memory::MemorySource;
use query::engine::{Engine, EngineOptions, QueryRequest};
use query::parse::ParseOptions;
use query::value::QueryValue;

static STORE: LazyLock<MemorySource> = LazyLock::new(|| {
    let store = MemorySource::new();
    for (name, n) in [("a", "1"), ("a", "2"), ("b", "1"), ("target_info", "1")] {
        let labels = Labels::from_pairs([("__name__", name), ("n", n), ("instance", "i"), ("job", "j")]);
        for i in 0..40i64 {
            let v = if i == 20 { stale_nan() } else { (i % 13) as f64 };
            store.append_float(&labels, i * 15_000, v);
        }
    }
    for le in ["0.1", "1", "+Inf"] {
        let labels = Labels::from_pairs([("__name__", "a_bucket"), ("le", le)]);
        (0..40i64).for_each(|i| store.append_float(&labels, i * 15_000, i as f64));
    }
    for i in 0..40i64 {
        let h = Histogram {
            count: 3.0 + i as f64,
            sum: i as f64,
            positive_spans: vec![BucketSpan { offset: 0, length: 2 }],
            positive_buckets: vec![1.0, 2.0 + i as f64],
            ..Histogram::default()
        };
        store.append_histogram(&Labels::from_pairs([("__name__", "h")]), i * 15_000, h);
    }
    store
});

fuzz_target!(|text: &str| {
    for delayed_name_removal in [false, true] {
        let engine = Engine::new(EngineOptions {
            parse: ParseOptions { max_text_bytes: 2_000, ..ParseOptions::all() },
            delayed_name_removal,
            max_samples: 100_000,
            max_memory_bytes: 64 << 20,
            timeout: std::time::Duration::from_secs(5),
            ..EngineOptions::default()
        });
        let _ = engine.run(&*STORE, &QueryRequest::instant(text, 300_000));
        let range = QueryRequest::range(text, 0, 600_000, 60_000);
        let whole = engine.run(&*STORE, &range);
        let mut series = Vec::new();
        let rows = engine.run_streamed(&*STORE, &range, 0, &mut |steps, s| {
            series.push(s.with_times(steps));
            Ok(())
        });
        match (whole, rows) {
            (Ok(whole), Ok(rows)) => {
                let value = match rows.value {
                    QueryValue::Streamed(_) => QueryValue::RangeVector(series),
                    value => value.with_times(),
                };
                assert_eq!(format!("{:?}", whole.value.with_times()), format!("{value:?}"), "{text}");
            }
            (Err(_), Err(_)) => {}
            (whole, rows) => panic!("{text}: {:?} whole, {:?} row by row", whole.err(), rows.err()),
        }
        let _ = engine.explain(&*STORE, &range, true);
    }
});
