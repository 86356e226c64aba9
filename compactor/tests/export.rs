//! Exports that others read: DuckDB sums up Parquet rows, text reads back.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use compactor::export::openmetrics::OpenMetrics;
use compactor::export::parquet::{ParquetOptions, ParquetRows};
use compactor::export::{Exported, Sink};
use model::histogram::{BucketSpan, Histogram};
use model::labels::Labels;
use model::sample::stale_nan;
use model::source::SeriesColumns;

const START_MS: i64 = 1_767_225_600_123;
const SAMPLES: i64 = 500;

fn series() -> Vec<SeriesColumns> {
    let ts: Arc<[i64]> = (0..SAMPLES).map(|i| START_MS + i * 15_000).collect();
    let mut all: Vec<SeriesColumns> = Vec::new();
    for s in 0..120i64 {
        let metric = ["counter", "ended", "hist"][s as usize / 40];
        let (job, instance) = (format!("j{}", s % 3), format!("i{s:03}"));
        let labels = Labels::from_pairs([("__name__", metric), ("job", &job), ("instance", &instance)]);
        let mut values: Vec<f64> = (0..SAMPLES).map(|i| (i * (s + 1)) as f64 / 8.0).collect();
        let mut histograms = None;
        if metric == "ended" {
            values[SAMPLES as usize - 1] = stale_nan();
        }
        if metric == "hist" {
            let one = |v: &f64| {
                Some(Arc::new(Histogram {
                    count: 6.0,
                    sum: *v,
                    zero_count: 1.0,
                    zero_threshold: 0.001,
                    positive_spans: vec![BucketSpan { offset: 0, length: 2 }],
                    positive_buckets: vec![2.0, 0.0],
                    negative_spans: vec![BucketSpan { offset: 1, length: 1 }],
                    negative_buckets: vec![3.0],
                    ..Histogram::default()
                }))
            };
            histograms = Some(values.iter().map(one).collect());
        }
        all.push(SeriesColumns {
            labels,
            ts_ms: ts.clone(),
            values,
            histograms,
            start_ts_ms: None,
            windows: None,
        });
    }
    all.sort_by(|a, b| a.labels.series_cmp(&b.labels));
    all
}

fn python() -> PathBuf {
    if let Some(chosen) = std::env::var_os("HEARTH_TEST_PYTHON") {
        return chosen.into();
    }
    let venv = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/test-services/venv/bin/python3");
    if venv.exists() { venv } else { "python3".into() }
}

const SCRIPT: &str = r#"
import duckdb, json, sys
db = duckdb.connect()
db.execute(f"CREATE VIEW rows AS SELECT * FROM read_parquet('{sys.argv[1]}/*.parquet', filename = true)")
out = {}
out["sums"] = db.execute('''SELECT metric, count(*), count(DISTINCT labels['instance']), count(DISTINCT job), sum(value),
    sum(epoch_ms(timestamp))::BIGINT, sum(histogram.count), sum(list_sum(list_transform(histogram.buckets, lambda b: b.count)))
    FROM rows GROUP BY metric ORDER BY metric''').fetchall()
out["buckets"] = db.execute("SELECT histogram.buckets FROM rows WHERE metric = 'hist' LIMIT 1").fetchone()[0]
out["files"] = db.execute("SELECT count(DISTINCT filename) FROM rows").fetchone()[0]
out["sorted"] = db.execute('''SELECT count(*) FROM (SELECT (metric, labels['instance'], timestamp) AS k,
    lag(k) OVER (PARTITION BY filename ORDER BY file_row_number) AS before FROM
    read_parquet(?, filename = true, file_row_number = true)) WHERE before IS NOT NULL AND before > k''', [sys.argv[1] + "/*.parquet"]).fetchone()[0]
out["types"] = [[r[0], r[1]] for r in db.execute("DESCRIBE rows").fetchall()]
print(json.dumps(out))
"#;

#[test]
fn duckdb_reads_rows() {
    let dir = tempfile::tempdir().unwrap();
    let series = series();
    let mut sink = ParquetRows::create(ParquetOptions {
        out: dir.path().join("rows"),
        label_columns: vec!["job".into()],
        file_bytes: 60_000,
        windows: false,
    })
    .unwrap();
    let mut done = Exported::default();
    series.iter().for_each(|s| sink.series(s, &mut done).unwrap());
    let (files, bytes) = sink.end().unwrap();
    assert!(files.len() > 1, "several files: {files:?}");
    let on_disk: u64 = files.iter().map(|f| std::fs::metadata(f).unwrap().len()).sum();
    assert_eq!(bytes, on_disk);
    let expected = 120 * SAMPLES as u64 - 40;
    assert_eq!((done.samples, done.markers, done.histograms), (expected, 40, 40 * SAMPLES as u64));

    let python = python();
    let answer = Command::new(&python).args(["-c", SCRIPT]).arg(dir.path().join("rows")).output().unwrap();
    assert!(
        answer.status.success(),
        "{} cannot read it with duckdb (.ci/test-services installs it): {}",
        python.display(),
        String::from_utf8_lossy(&answer.stderr)
    );
    let answer: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
    assert_eq!(answer["sorted"], 0);
    assert_eq!(answer["files"], files.len());
    let types = answer["types"].to_string();
    for part in ["MAP(VARCHAR, VARCHAR)", "TIMESTAMP", "DOUBLE", "STRUCT"] {
        assert!(types.contains(part), "{types}");
    }
    let sums = answer["sums"].as_array().unwrap();
    assert_eq!(sums.len(), 3);
    for row in sums {
        let metric = row[0].as_str().unwrap();
        let of_metric = || series.iter().filter(|s| s.labels.metric_name() == Some(metric));
        let rows: Vec<(i64, f64)> = of_metric()
            .flat_map(|s| s.ts_ms.iter().copied().zip(s.values.iter().copied()))
            .filter(|(_, v)| !v.is_nan())
            .collect();
        assert_eq!(row[1], rows.len(), "{metric}");
        assert_eq!((row[2].as_u64(), row[3].as_u64()), (Some(40), Some(3)), "{metric}: labels");
        assert_eq!(row[5].as_i64(), Some(rows.iter().map(|(t, _)| t).sum::<i64>()), "{metric}: times");
        if metric == "hist" {
            assert!(row[4].is_null());
            assert_eq!(row[6].as_f64(), Some(6.0 * rows.len() as f64));
            assert_eq!(row[7].as_f64(), Some(6.0 * rows.len() as f64));
        } else {
            let sum: f64 = rows.iter().map(|(_, v)| v).sum();
            assert!((row[4].as_f64().unwrap() - sum).abs() <= sum * 1e-12, "{metric}: {row}");
            assert!(row[6].is_null());
        }
    }
    let buckets = serde_json::json!([
        {"lower": -2.0, "upper": -1.0, "count": 3.0},
        {"lower": -0.001, "upper": 0.001, "count": 1.0},
        {"lower": 0.5, "upper": 1.0, "count": 2.0},
    ]);
    assert_eq!(answer["buckets"], buckets);
}

#[test]
fn text_has_a_line_per_sample_and_says_what_it_leaves_out() {
    let mut sink = OpenMetrics::new(Vec::new(), "text");
    let mut done = Exported::default();
    let series = series();
    series.iter().for_each(|s| sink.series(s, &mut done).unwrap());
    let text = String::from_utf8(sink.end().unwrap()).unwrap();
    assert_eq!(text.lines().count() as u64, done.samples + 1);
    assert_eq!(done.left_out, 40 * SAMPLES as u64, "histograms");
    assert_eq!(done.markers, 40);
    assert!(text.starts_with("counter{instance=\"i000\",job=\"j0\"} 0 1767225600.123\n"), "{}", &text[..80]);
    assert!(text.ends_with("\n# EOF\n"));
}
