//! Blocks that Thanos downsampled, read as windows and held against what Thanos reads, and against the raw
//! samples they were made of.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ingest::import::Progress;
use ingest::import::block::{Filter, SourceBlock};
use ingest::import::meta::SourceMeta;
use ingest::import::relabel::Relabel;
use model::rollup::Window;
use model::rollup::downsample::downsample;
use model::source::SeriesColumns;
use serde_json::Value;

struct Quiet;

impl Progress for Quiet {
    fn read(&mut self, _: u64, _: u64) {}

    fn should_stop(&self) -> bool {
        false
    }
}

fn bucket() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/thanos")
}

/// The block of a resolution, with its external labels.
fn read(resolution_ms: i64) -> BTreeMap<String, SeriesColumns> {
    let folders = std::fs::read_dir(bucket()).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_dir());
    let of = |p: &PathBuf| SourceMeta::read(p).unwrap();
    let folder = folders.into_iter().find(|p| of(p).resolution_ms() == resolution_ms).unwrap();
    let labels = of(&folder).thanos.unwrap().labels;
    let relabel = Relabel { add: labels.clone(), drop: vec!["replica".into()], ..Relabel::default() };
    let mut out = BTreeMap::new();
    let mut block = SourceBlock::open(&folder, Filter { relabel, ..Filter::default() }).unwrap();
    block
        .read((i64::MIN, i64::MAX), &mut Quiet, &mut |series| {
            assert_eq!((series.labels.value("cluster"), series.labels.get("replica")), ("eu", None));
            out.insert(series.labels.metric_name().unwrap().to_string(), series);
            Ok(())
        })
        .unwrap();
    out
}

fn windows(series: &SeriesColumns) -> Vec<Window> {
    (0..series.ts_ms.len()).map(|i| series.window(i)).collect()
}

fn double(v: &Value) -> f64 {
    f64::from_bits(u64::from_str_radix(v.as_str().unwrap(), 16).unwrap())
}

#[test]
fn counts_sums_and_extremes_are_what_thanos_reads() {
    let bytes = std::fs::read(bucket().join("expected.json.zst")).unwrap();
    let expected: Value = serde_json::from_slice(&zstd::decode_all(&bytes[..]).unwrap()).unwrap();
    for resolution_ms in [300_000, 3_600_000] {
        let found = read(resolution_ms);
        let expected = expected[resolution_ms.to_string()].as_array().unwrap();
        assert_eq!(found.len(), expected.len());
        for series in expected {
            let name = series["labels"]["__name__"].as_str().unwrap();
            let found = windows(&found[name]);
            let of = |aggregate: &str| series["aggregates"][aggregate].as_array().unwrap();
            assert_eq!(found.len(), of("count").len(), "{name}");
            for (i, w) in found.iter().enumerate() {
                let at = format!("{name}, window {i} of {resolution_ms} ms");
                assert_eq!(w.ts_ms, of("count")[i][0].as_i64().unwrap(), "{at}");
                assert_eq!(f64::from(w.count), double(&of("count")[i][1]), "{at}");
                assert_eq!(w.resolution_ms, resolution_ms);
                if name.starts_with("hist") {
                    let sum = w.histogram_sum.as_ref().unwrap();
                    assert_eq!(sum.count, of("sum")[i][1][0].as_f64().unwrap(), "{at}");
                    assert_eq!(w.histogram_count, w.count);
                } else {
                    let floats = [("sum", w.sum), ("min", w.min), ("max", w.max)];
                    for (aggregate, v) in floats {
                        assert_eq!(v, double(&of(aggregate)[i][1]), "{at}: {aggregate}");
                    }
                }
            }
        }
    }
}

/// What `increase` sees from the first sample to the last.
fn growth(windows: &[Window]) -> f64 {
    let inside: f64 = windows.iter().map(|w| w.last.value - w.first.value + w.reset_sum).sum();
    let between = windows.windows(2).map(|p| (p[0].last.value, p[1].first.value));
    inside + between.map(|(a, b)| if b < a { b } else { b - a }).sum::<f64>()
}

#[test]
fn growth_is_that_of_the_raw_samples_and_counters_keep_their_values() {
    let raw = read(0);
    for resolution_ms in [300_000, 3_600_000] {
        let found = read(resolution_ms);
        for name in ["up_total", "resets_total", "gauge", "const", "sparse"] {
            // Of a gauge, Thanos' own counter goes wrong when it makes hours of five minutes: it takes each
            // chunk's last value, which is lower than the lifted one before it, for a fall.
            if name == "gauge" && resolution_ms == 3_600_000 {
                continue;
            }
            let exact = growth(&windows(&downsample(&raw[name], resolution_ms)));
            let told = growth(&windows(&found[name]));
            assert!(
                (exact - told).abs() <= 1e-9 * exact.abs(),
                "{name} at {resolution_ms}: {told}, not {exact}"
            );
        }
        let total: u64 = windows(&found["gauge"]).iter().map(|w| u64::from(w.count)).sum();
        assert_eq!(total, raw["gauge"].ts_ms.len() as u64);
        // Values at the ends of windows, by Thanos' own cut of the raw samples: the last before each label,
        // which it includes.
        for name in ["up_total", "resets_total", "const"] {
            let raw = &raw[name];
            for w in windows(&found[name]) {
                let at = raw.ts_ms.partition_point(|t| *t <= w.ts_ms);
                // Two hours after one another in which something fell leave the end of the first open.
                if name != "resets_total" || resolution_ms == 300_000 {
                    assert_eq!(w.last.value, raw.values[at - 1], "{name}: last up to {}", w.ts_ms);
                }
                let begin = w.ts_ms - w.ts_ms.rem_euclid(resolution_ms);
                let from = raw.ts_ms.partition_point(|t| *t < begin);
                let fell = raw.values[from..at].windows(2).any(|p| p[1] < p[0]);
                assert_eq!(w.resets > 0, fell, "{name}: falls up to {}", w.ts_ms);
                assert_eq!(w.count as usize, at - from, "{name}");
            }
        }
    }
}
