//! Queries that are written wrong in every way: evaluated they never panic, keep to their limits, and say the
//! same row by row as whole.
//!
//! The same on every run. `fuzz/` has the targets that look further; what they find becomes a case here.

use model::histogram::{BucketSpan, Histogram};
use model::labels::Labels;
use model::sample::stale_nan;
use model::source::memory::MemorySource;
use model::source::testing::rng::Rng;
use query::engine::{Engine, EngineOptions, QueryRequest};
use query::parse::ParseOptions;
use query::value::{ErrorKind, QueryError, QueryValue};

/// The names that the project's scripts use most, as floats, counters, classic and native histograms.
fn store(names: &[String]) -> MemorySource {
    let store = MemorySource::new();
    for (k, name) in names.iter().enumerate() {
        for n in ["1", "2"] {
            let pairs = [
                ("__name__", name.as_str()),
                ("n", n),
                ("le", if n == "1" { "1" } else { "+Inf" }),
                ("job", "j"),
            ];
            let labels = Labels::from_pairs(pairs);
            for i in 0..40i64 {
                let t = i * 15_000;
                if k % 3 == 2 {
                    let h = Histogram {
                        count: 3.0 + i as f64,
                        sum: i as f64,
                        positive_spans: vec![BucketSpan { offset: 0, length: 2 }],
                        positive_buckets: vec![1.0, 2.0 + i as f64],
                        ..Histogram::default()
                    };
                    store.append_histogram(&labels, t, h);
                } else {
                    store.append_float(
                        &labels,
                        t,
                        if i == 20 { stale_nan() } else { (i % (5 + k as i64)) as f64 },
                    );
                }
            }
        }
    }
    store
}

/// What the project's own scripts evaluate.
fn queries() -> Vec<String> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut out = Vec::new();
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    for file in files.iter().filter(|f| f.extension().is_some_and(|e| e == "test")) {
        for line in std::fs::read_to_string(file).unwrap().lines() {
            let Some(rest) = line.strip_prefix("eval ") else { continue };
            let rest = match rest.strip_prefix("range ") {
                Some(rest) => rest.split_once(" step ").and_then(|(_, r)| r.split_once(' ')),
                None => rest.strip_prefix("instant at ").and_then(|r| r.split_once(' ')),
            };
            out.extend(rest.map(|(_, query)| query.trim().to_string()));
        }
    }
    assert!(out.len() > 200, "{}", out.len());
    out
}

/// Words, numbers with their unit, strings and single signs.
fn tokens(text: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut quoted = None;
    for c in text.chars() {
        let word = |c: char| c.is_alphanumeric() || c == '_';
        let glue = quoted.is_some() || word(c) && out.last().is_some_and(|t| t.chars().all(word));
        match out.last_mut() {
            Some(last) if glue => last.push(c),
            _ => out.push(c.to_string()),
        }
        match quoted {
            None if matches!(c, '"' | '\'' | '`') => quoted = Some(c),
            Some(q) if q == c => quoted = None,
            _ => {}
        }
    }
    out
}

fn check(engine: &Engine, store: &MemorySource, text: &str) -> Option<ErrorKind> {
    let bounded = |e: &QueryError| assert_ne!(e.kind, ErrorKind::Internal, "{text}: {e}");
    let _ = engine.run(store, &QueryRequest::instant(text, 300_000)).inspect_err(bounded);
    let range = QueryRequest::range(text, 0, 600_000, 60_000);
    let whole = engine.run(store, &range);
    let mut series = Vec::new();
    let rows = engine.run_streamed(store, &range, 0, &mut |steps, s| {
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
            let explained = engine.explain(store, &range, true).unwrap();
            assert!(explained.tree.nodes.iter().all(|n| !n.text.is_empty() && !n.kind.is_empty()), "{text}");
            None
        }
        (Err(whole), Err(_)) => {
            bounded(&whole);
            Some(whole.kind)
        }
        (whole, rows) => panic!("{text}: {:?} whole, {:?} row by row", whole.err(), rows.err()),
    }
}

#[test]
fn mutated_queries_never_panic_and_stay_bounded() {
    let seeds: Vec<Vec<String>> = queries().iter().map(|q| tokens(q)).collect();
    let mut words: Vec<String> = seeds.iter().flatten().cloned().collect();
    words.sort();
    words.dedup();
    let names: Vec<String> = words
        .iter()
        .filter(|w| w.len() > 1 && w.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        .cloned()
        .collect();
    let store = store(&names);
    let engine = |delayed_name_removal| {
        Engine::new(EngineOptions {
            parse: ParseOptions { max_text_bytes: 2_000, ..ParseOptions::all() },
            delayed_name_removal,
            max_samples: 50_000,
            max_memory_bytes: 32 << 20,
            ..EngineOptions::default()
        })
    };
    let engines = [engine(false), engine(true)];
    let (mut random, mut answered, mut failed) = (Rng(0x5eed), 0, 0);
    for round in 0..6_000 {
        let mut tokens = seeds[random.below(seeds.len())].clone();
        for _ in 0..=random.below(3) {
            let at = random.below(tokens.len() + 1);
            match random.below(5) {
                0 => tokens.insert(at, words[random.below(words.len())].clone()),
                1 if at < tokens.len() => tokens[at] = words[random.below(words.len())].clone(),
                2 if at < tokens.len() => drop(tokens.remove(at)),
                3 => {
                    // A whole other query as an operand or argument.
                    let other = &seeds[random.below(seeds.len())];
                    tokens.splice(at..at, other.iter().cloned());
                }
                _ => {
                    let (function, other) = (
                        ["abs", "sum", "-", "label_join", "sort", "vector", "scalar", "rate"]
                            [random.below(8)],
                        &seeds[random.below(seeds.len())],
                    );
                    tokens = [function, "(", &tokens.concat(), ")", "+", "(", &other.concat(), ")"]
                        .map(str::to_string)
                        .to_vec();
                }
            }
        }
        match check(&engines[round % 2], &store, &tokens.concat()) {
            None => answered += 1,
            Some(ErrorKind::BadData) => {}
            Some(_) => failed += 1,
        }
    }
    assert!(answered > 500 && failed > 10, "{answered} answered, {failed} failed: too few to say anything");
}
