//! Blocks that Prometheus 3.14 wrote, read sample by sample, and damaged in every way that a seed can think
//! of.
//!
//! `data/blocks/*` were made once by a program on upstream's own `tsdb` package: floats in XOR chunks with
//! every width of difference, staleness markers, deletions; native histograms of all kinds; the same with
//! start timestamps (XOR2 and the `ST` chunks); XOR2 without. `expected.json.zst` beside each is what
//! upstream's querier answered for that block: `[timestamp, start timestamp, bits of the value]`, or a
//! histogram's fields.

use std::path::{Path, PathBuf};

use ingest::import::block::{Filter, SourceBlock};
use ingest::import::relabel::Relabel;
use ingest::import::{ImportError, Progress};
use model::histogram::CounterResetHint;
use model::matcher::{MatchOp, Matcher};
use model::source::SeriesColumns;
use model::source::testing::rng::Rng;
use serde_json::Value;

const CASES: [&str; 4] = ["floats", "histograms", "starts", "xor2"];

fn case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/blocks").join(name)
}

fn block_of(case: &Path) -> PathBuf {
    let folders = std::fs::read_dir(case).unwrap().map(|e| e.unwrap().path());
    folders.into_iter().find(|p| p.is_dir()).expect("a block's folder")
}

#[derive(Default)]
struct Counted {
    samples: u64,
}

impl Progress for Counted {
    fn read(&mut self, samples: u64, _: u64) {
        self.samples += samples;
    }

    fn should_stop(&self) -> bool {
        false
    }
}

fn read(folder: &Path, filter: Filter, range: (i64, i64)) -> Result<Vec<SeriesColumns>, ImportError> {
    let mut out = Vec::new();
    SourceBlock::open(folder, filter)?.read(range, &mut Counted::default(), &mut |series| {
        out.push(series);
        Ok(())
    })?;
    Ok(out)
}

const ALL: (i64, i64) = (i64::MIN, i64::MAX);

fn expected(case: &Path) -> Vec<Value> {
    let bytes = std::fs::read(case.join("expected.json.zst")).unwrap();
    let json = zstd::decode_all(&bytes[..]).unwrap();
    match serde_json::from_slice(&json).unwrap() {
        Value::Array(all) => all,
        other => panic!("a list was expected: {other}"),
    }
}

fn bits(v: f64) -> Value {
    format!("{:016x}", v.to_bits()).into()
}

/// Sample number `i` as the expectation writes it.
fn shown(series: &SeriesColumns, i: usize) -> Value {
    let start = series.start_ts_ms.as_ref().map_or(0, |s| s[i]);
    let all = |v: &[f64]| v.iter().map(|v| bits(*v)).collect::<Vec<_>>();
    let value = match series.histograms.as_ref().and_then(|h| h[i].as_ref()) {
        None => bits(series.values[i]),
        Some(h) => {
            assert_eq!(series.values[i].to_bits(), h.sum.to_bits());
            let spans = |spans: &[model::histogram::BucketSpan]| {
                spans.iter().map(|s| vec![i64::from(s.offset), i64::from(s.length)]).collect::<Vec<_>>()
            };
            let hint = match h.counter_reset_hint {
                CounterResetHint::Unknown => 0,
                CounterResetHint::CounterReset => 1,
                CounterResetHint::NotCounterReset => 2,
                CounterResetHint::Gauge => 3,
            };
            serde_json::json!({
                "hint": hint, "schema": h.schema, "zt": bits(h.zero_threshold), "zc": bits(h.zero_count),
                "count": bits(h.count), "sum": bits(h.sum),
                "ps": spans(&h.positive_spans), "ns": spans(&h.negative_spans),
                "pb": all(&h.positive_buckets), "nb": all(&h.negative_buckets), "cv": all(h.custom_bounds()),
            })
        }
    };
    serde_json::json!([series.ts_ms[i], start, value])
}

#[test]
fn import_reads_every_sample_as_prometheus_does() {
    for name in CASES {
        let case = case(name);
        let mut expected = expected(&case);
        let found = read(&block_of(&case), Filter::default(), ALL).unwrap();
        assert!(found.windows(2).all(|w| w[0].labels.series_cmp(&w[1].labels).is_lt()), "{name}: order");
        assert_eq!(found.len(), expected.len(), "{name}: series");
        for series in &found {
            let labels: Value = series
                .labels
                .iter()
                .map(|(n, v)| (n.to_string(), Value::from(v)))
                .collect::<serde_json::Map<_, _>>()
                .into();
            let at = expected.iter().position(|e| e["labels"] == labels);
            let at = at.unwrap_or_else(|| panic!("{name}: {labels} is not expected"));
            let samples = expected.swap_remove(at)["samples"].take();
            let samples = samples.as_array().expect("a list of samples");
            assert_eq!(series.ts_ms.len(), samples.len(), "{name}: samples of {labels}");
            for (i, sample) in samples.iter().enumerate() {
                assert_eq!(shown(series, i), *sample, "{name}: sample {i} of {labels}");
            }
        }
    }
}

#[test]
fn parts_of_the_time_put_together_are_the_whole() {
    for name in CASES {
        let folder = block_of(&case(name));
        let mut block = SourceBlock::open(&folder, Filter::default()).unwrap();
        let (first, last) = block.span_ms().unwrap();
        let whole = read(&folder, Filter::default(), ALL).unwrap();
        let cuts = [first - 1, first + 777, first + 1_500_000, last - 1, last];
        let mut parts = Vec::new();
        for w in cuts.windows(2) {
            block
                .read((w[0] + 1, w[1]), &mut Counted::default(), &mut |s| {
                    parts.push(s);
                    Ok(())
                })
                .unwrap();
        }
        for series in &whole {
            let ts: Vec<i64> = parts
                .iter()
                .filter(|p| p.labels == series.labels)
                .flat_map(|p| p.ts_ms.iter().copied())
                .collect();
            assert_eq!(ts, series.ts_ms.to_vec(), "{name}: {}", series.labels);
        }
    }
}

#[test]
fn selectors_and_labels_of_the_outside() {
    let folder = block_of(&case("floats"));
    let matcher = |name: &str, value: &str| Matcher::new(MatchOp::Equal, name, value).unwrap();
    let relabel = Relabel {
        add: [("cluster", "eu"), ("replica", "a"), ("job", "from outside")]
            .map(|(n, v)| (n.to_string(), v.to_string()))
            .into(),
        drop: vec!["replica".to_string(), "Zone".to_string()],
        ..Relabel::default()
    };
    let filter = Filter { selectors: vec![vec![matcher("cluster", "eu")]], relabel: relabel.clone() };
    let found = read(&folder, filter, ALL).unwrap();
    assert_eq!(found.len(), 6);
    assert!(found.windows(2).all(|w| w[0].labels.series_cmp(&w[1].labels).is_lt()));
    for series in &found {
        assert_eq!(series.labels.value("cluster"), "eu");
        assert_eq!(series.labels.value("job"), "from outside", "the outside wins, as in Thanos");
        assert_eq!(series.labels.get("replica").or(series.labels.get("Zone")), None);
    }
    let none = Filter { selectors: vec![vec![matcher("job", "a")]], relabel };
    assert_eq!(read(&folder, none, ALL).unwrap().len(), 0, "selectors see the labels as they are stored");
    let two = vec![vec![matcher("__name__", "gauge")], vec![matcher("job", "c")]];
    assert_eq!(read(&folder, Filter { selectors: two, ..Filter::default() }, ALL).unwrap().len(), 2);
}

#[test]
fn relabelled_series_that_become_one_are_merged() {
    let folder = block_of(&case("floats"));
    let drop = vec!["__name__".to_string(), "job".to_string(), "Zone".to_string(), "é".to_string()];
    let filter = Filter { relabel: Relabel { drop, ..Relabel::default() }, ..Filter::default() };
    let found = read(&folder, filter, ALL).unwrap();
    assert_eq!(found.len(), 1);
    assert!(found[0].labels.is_empty());
    assert!(found[0].ts_ms.windows(2).all(|w| w[0] < w[1]));
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.join("chunks")).unwrap();
    for name in ["meta.json", "index", "tombstones", "chunks/000001"] {
        std::fs::copy(from.join(name), to.join(name)).unwrap();
    }
}

#[test]
fn damaged_or_missing_file_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut rng = Rng(42);
    let mut refused = 0;
    let mut tries = 0;
    for name in CASES {
        let from = block_of(&case(name));
        let good: Vec<_> = read(&from, Filter::default(), ALL).unwrap();
        for file in ["index", "chunks/000001", "tombstones"] {
            let bytes = std::fs::read(from.join(file)).unwrap();
            for _ in 0..60 {
                copy(&from, dir.path());
                let mut changed = bytes.clone();
                match rng.below(3) {
                    0 => changed.truncate(rng.below(bytes.len())),
                    1 => changed[rng.below(bytes.len())] ^= 1 << rng.below(8),
                    _ => {
                        let at = rng.below(bytes.len());
                        let end = (at + 1 + rng.below(40)).min(bytes.len());
                        changed[at..end].iter_mut().for_each(|b| *b = rng.below(256) as u8);
                    }
                }
                std::fs::write(dir.path().join(file), &changed).unwrap();
                tries += 1;
                match read(dir.path(), Filter::default(), ALL) {
                    Err(e) => {
                        refused += 1;
                        let text = e.to_string();
                        assert!(
                            text.contains(dir.path().to_str().unwrap()) || text.contains("segment"),
                            "{text}"
                        );
                    }
                    // What is not read (padding, label indices that 3.x has no use for) may change; samples
                    // may not.
                    Ok(found) => {
                        let same = |a: &SeriesColumns, b: &SeriesColumns| {
                            let all = |s: &SeriesColumns| {
                                (0..s.ts_ms.len()).map(|i| shown(s, i)).collect::<Vec<_>>()
                            };
                            a.labels == b.labels && all(a) == all(b)
                        };
                        assert!(
                            found.len() == good.len() && found.iter().zip(&good).all(|(a, b)| same(a, b)),
                            "{name}: {file} was changed and read as something else"
                        );
                    }
                }
            }
        }
        copy(&from, dir.path());
        std::fs::remove_file(dir.path().join("chunks/000001")).unwrap();
        let error = read(dir.path(), Filter::default(), ALL).unwrap_err().to_string();
        assert!(error.contains("not complete"), "{error}");
    }
    assert!(refused * 10 > tries * 6, "{refused} of {tries} changes were noticed");
}
