//! The promise that others can read a block: DuckDB joins the three files as they lie in the store and gets
//! the sums that were written.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use model::histogram::{BucketSpan, Histogram};
use model::labels::Labels;
use model::rollup::downsample::downsample;
use model::sample::{Metadata, is_stale, stale_nan};
use model::source::SeriesColumns;
use model::tenant::TenantId;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use tsdb::block::upload::upload;
use tsdb::block::{BlockOrigin, WriteOptions, write_block};
use tsdb::db::{Db, DbOptions};
use tsdb::layout;
use ulid::Ulid;

/// Reads a block's folder and prints one JSON array per metric: name, samples, sum of timestamps, markers,
/// sum of other values, sum of histogram counts, sum of buckets, distinct values of the labels job and rare.
const SCRIPT: &str = r#"
import duckdb, json, sys
db = duckdb.connect()
folder = sys.argv[1]
for name in ["series", "timelines", "samples"]:
    db.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet('{folder}/{name}.parquet')")
rows = db.execute('''
WITH joined AS (
    SELECT s."__name__" AS name, s.job, s.other_labels['rare'] AS rare, t.ts, m.*
    FROM samples m JOIN series s USING (series_id) JOIN timelines t USING (tsref)
), points AS (
    SELECT name, job, rare, vx_pos, vx, unnest(range(n)) AS i, unnest(ts) AS t,
        unnest(CASE enc
            WHEN 'const' THEN list_transform(ts, lambda x: const)
            WHEN 'vi' THEN list_transform(vi, lambda x: x / pow(10, exp))
            WHEN 'vb' THEN list_transform(vb, lambda x: x / pow(10, exp))
            WHEN 'vf' THEN vf WHEN 'vp' THEN vp WHEN 'hist' THEN h_sum END) AS v,
        unnest(h_count) AS h_count, unnest(h_pos_buckets) AS buckets
    FROM joined
), valued AS (
    SELECT *, coalesce(vx[list_position(vx_pos, i)], v) AS value FROM points
)
SELECT name, count(*), sum(t)::BIGINT, count(*) FILTER (isnan(value)), sum(value) FILTER (NOT isnan(value)),
    coalesce(sum(h_count), 0), coalesce(sum(list_sum(buckets)), 0), count(DISTINCT job), count(DISTINCT rare)
FROM valued GROUP BY name ORDER BY name''').fetchall()
encodings = [r[0] for r in db.execute("SELECT DISTINCT enc FROM samples ORDER BY enc").fetchall()]
print(json.dumps({"rows": rows, "encodings": encodings}))
"#;

fn python() -> PathBuf {
    if let Some(chosen) = std::env::var_os("HEARTH_TEST_PYTHON") {
        return chosen.into();
    }
    let venv = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/test-services/venv/bin/python3");
    if venv.exists() { venv } else { "python3".into() }
}

fn series() -> Vec<SeriesColumns> {
    let ts: Arc<[i64]> = (0..300).map(|i| 1_767_225_600_123 + i * 15_000 + i % 5).collect();
    let mut all = Vec::new();
    for s in 0..240i32 {
        let metric = ["constant", "counter", "decimals", "ended", "noise", "roots", "unusual", "zz_native"]
            [s as usize % 8];
        let mut labels = vec![
            ("__name__", metric.to_string()),
            ("instance", format!("i{s}")),
            ("job", format!("j{}", s % 3)),
        ];
        if s == 17 {
            labels.push(("rare", "x".to_string()));
        }
        let mut histograms = None;
        let values: Vec<f64> = (0..300i32)
            .map(|i| match metric {
                "constant" => 0.25,
                "counter" => f64::from(s * 1000 + i * 17),
                "decimals" => f64::from(s * 100 + i * i % 37) / 100.0,
                "ended" if i > 296 => stale_nan(),
                "ended" => f64::from(i + s),
                "noise" => f64::from(i.wrapping_mul(7919).wrapping_mul(s + 3).rem_euclid(65_536)),
                "roots" => f64::from(i + s + 2).sqrt(),
                "unusual" => f64::from(i * i % 61 + s % 11 + 2).ln(),
                _ => 0.0,
            })
            .collect();
        if metric == "zz_native" {
            let one = |i: i32| Histogram {
                schema: 2,
                count: f64::from(3 * i),
                sum: f64::from(i) / 4.0,
                positive_spans: vec![BucketSpan { offset: 1, length: 2 }],
                positive_buckets: vec![f64::from(i), f64::from(2 * i)],
                ..Histogram::default()
            };
            histograms = Some((0..300).map(|i| Some(Arc::new(one(i)))).collect::<Vec<_>>());
        }
        let values = match &histograms {
            Some(h) => h.iter().map(|h| h.as_ref().map_or(0.0, |h| h.sum)).collect(),
            None => values,
        };
        all.push(SeriesColumns {
            labels: Labels::from_pairs(labels),
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

#[test]
fn duckdb_reads_a_block_and_finds_what_was_written() {
    let python = python();
    let has = Command::new(&python).args(["-c", "import duckdb"]).output();
    assert!(
        has.as_ref().is_ok_and(|o| o.status.success()),
        "{} has no package duckdb. Install it with\n  python3 -m venv target/test-services/venv && target/test-services/venv/bin/pip install duckdb\n\
         or name a python that has it in HEARTH_TEST_PYTHON",
        python.display()
    );
    let (scratch, bucket) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let series = series();
    let origin = BlockOrigin::flushed(Ulid::new(), TenantId::single(), "test");
    let files = write_block(scratch.path(), origin, WriteOptions::fresh(), series.iter().cloned().map(Ok))
        .unwrap()
        .unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(bucket.path()).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(upload(&*store, &files)).unwrap();
    let folder = bucket.path().join(layout::block(&TenantId::single(), files.meta.ulid).as_ref());
    let answer = Command::new(&python).args(["-c", SCRIPT]).arg(&folder).output().unwrap();
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    let answer: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
    let encodings: Vec<&str> =
        answer["encodings"].as_array().unwrap().iter().filter_map(|e| e.as_str()).collect();
    assert_eq!(
        encodings,
        ["const", "hist", "vb", "vf", "vi", "vp"],
        "the data no longer meets every encoding"
    );
    let rows = answer["rows"].as_array().unwrap();
    let metrics: Vec<&[SeriesColumns]> =
        series.chunk_by(|a, b| a.labels.metric_name() == b.labels.metric_name()).collect();
    assert_eq!(rows.len(), metrics.len());
    for (row, of_metric) in rows.iter().zip(metrics) {
        let name = of_metric[0].labels.metric_name().unwrap();
        let count: usize = of_metric.iter().map(|s| s.values.len()).sum();
        let times: i64 = of_metric.iter().flat_map(|s| s.ts_ms.iter()).sum();
        let values = || of_metric.iter().flat_map(|s| &s.values);
        let stale = values().filter(|v| is_stale(**v)).count();
        let sum: f64 = values().filter(|v| !v.is_nan()).sum();
        let histograms = || of_metric.iter().flat_map(|s| s.histograms.iter().flatten().flatten());
        let counts: f64 = histograms().map(|h| h.count).sum();
        let buckets: f64 = histograms().flat_map(|h| &h.positive_buckets).sum();
        let distinct = |label: &str| {
            let values: std::collections::BTreeSet<_> =
                of_metric.iter().filter_map(|s| s.labels.get(label)).collect();
            values.len()
        };
        assert_eq!(row[0].as_str(), Some(name));
        assert_eq!(row[1].as_u64(), Some(count as u64), "{name}: samples");
        assert_eq!(row[2].as_i64(), Some(times), "{name}: timestamps");
        assert_eq!(row[3].as_u64(), Some(stale as u64), "{name}: staleness markers");
        let got = row[4].as_f64().unwrap();
        assert!((got - sum).abs() <= sum.abs() * 1e-12, "{name}: values sum to {got}, written were {sum}");
        assert_eq!(row[5].as_f64(), Some(counts), "{name}: histogram counts");
        assert_eq!(row[6].as_f64(), Some(buckets), "{name}: buckets");
        assert_eq!(row[7].as_u64(), Some(distinct("job") as u64), "{name}: a common label");
        assert_eq!(row[8].as_u64(), Some(distinct("rare") as u64), "{name}: a rare label");
    }
}

/// Reads a downsampled block's folder: per metric, sums of what its windows tell, mantissas turned into
/// doubles and null lists filled in as `docs/formats/block.md` says.
const WINDOWS_SCRIPT: &str = r#"
import duckdb, json, sys
db = duckdb.connect()
folder = sys.argv[1]
for name in ["series", "timelines", "samples"]:
    db.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet('{folder}/{name}.parquet')")
rows = db.execute('''
WITH ends AS (
    SELECT *, range(1, n::BIGINT + 1) AS i, CASE WHEN first_m IS NULL THEN last_m WHEN relative & 2 = 0 THEN first_m
        ELSE list_transform(range(1, n::BIGINT + 1), lambda i: first_m[i] + last_m[greatest(i - 1, 1)]) END AS first_whole
    FROM samples WHERE role = 'windows' AND lists & (2 | 16384) <> 0
), whole AS (
    SELECT *,
        CASE WHEN relative & 4 = 0 THEN sum_m
            ELSE list_transform(i, lambda i: sum_m[i] + count[i] * floor((first_whole[i] + last_m[i]) / 2)::BIGINT) END AS sum_whole,
        CASE WHEN relative & 8 = 0 THEN min_m
            ELSE list_transform(i, lambda i: least(first_whole[i], last_m[i]) - min_m[i]) END AS min_whole,
        CASE WHEN relative & 16 = 0 THEN max_m
            ELSE list_transform(i, lambda i: greatest(first_whole[i], last_m[i]) + max_m[i]) END AS max_whole
    FROM ends
), doubles AS (
    SELECT series_id, tsref, first_tsref, i, count, changes,
        coalesce(last, list_transform(i, lambda i: coalesce(x[list_position(x_pos, i - 1)], last_m[i] / 10 ** exp))) AS last,
        coalesce(first, CASE WHEN first_m IS NOT NULL THEN list_transform(i, lambda i:
            coalesce(x[list_position(x_pos, n + i - 1)], first_whole[i] / 10 ** exp)) END) AS first,
        coalesce(sum, CASE WHEN sum_m IS NOT NULL THEN list_transform(i, lambda i:
            coalesce(x[list_position(x_pos, 2 * n + i - 1)], sum_whole[i] / 10 ** exp)) END) AS sum,
        coalesce(min, CASE WHEN min_m IS NOT NULL THEN list_transform(i, lambda i:
            coalesce(x[list_position(x_pos, 3 * n + i - 1)], min_whole[i] / 10 ** exp)) END) AS min,
        coalesce(max, CASE WHEN max_m IS NOT NULL THEN list_transform(i, lambda i:
            coalesce(x[list_position(x_pos, 4 * n + i - 1)], max_whole[i] / 10 ** exp)) END) AS max,
        coalesce(reset_sum, CASE WHEN reset_sum_m IS NOT NULL THEN list_transform(i, lambda i:
            coalesce(x[list_position(x_pos, 5 * n + i - 1)], reset_sum_m[i] / 10 ** exp)) END) AS reset_sum
    FROM whole
), rows AS (
    SELECT s."__name__" AS name, t.ts, f.ts AS first_ts, m.count, m.last,
        coalesce(m.first, m.last) AS first, coalesce(m.min, m.first, m.last) AS min, coalesce(m.max, m.last) AS max,
        coalesce(m.sum, list_transform(m.i, lambda i: m.count[i] * m.last[i])) AS sum,
        coalesce(m.reset_sum, list_transform(m.i, lambda i: 0.0)) AS reset_sum,
        coalesce(m.changes, list_transform(m.i, lambda i: 0)) AS changes
    FROM doubles m JOIN series s USING (series_id) JOIN timelines t USING (tsref) JOIN timelines f ON m.first_tsref = f.tsref
), windows AS (
    SELECT name, unnest(ts) AS ts, unnest(first_ts) AS first_ts, unnest(count) AS count, unnest(last) AS last, unnest(first) AS first,
        unnest(min) AS min, unnest(max) AS max, unnest(sum) AS sum, unnest(reset_sum) AS reset_sum, unnest(changes) AS changes
    FROM rows
)
SELECT name, count(*), sum(count)::BIGINT, sum(sum), min(min), max(max), sum(last - first + reset_sum), sum(changes)::BIGINT,
    sum(ts - first_ts)::BIGINT, max(((ts + 299999) // 300000) * 300000 - ts)::BIGINT
FROM windows WHERE count > 0 GROUP BY name ORDER BY name''').fetchall()
natives = db.execute("SELECT role, count(*), sum(list_sum(h_count)) FROM samples WHERE role <> 'windows' GROUP BY role ORDER BY role").fetchall()
print(json.dumps({"rows": rows, "natives": natives}))
"#;

#[test]
fn duckdb_reads_a_downsampled_block_by_plain_expressions() {
    let (scratch, bucket) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let series = series();
    let origin = BlockOrigin {
        resolution_ms: 300_000,
        ..BlockOrigin::flushed(Ulid::new(), TenantId::single(), "test")
    };
    let windows: Vec<SeriesColumns> = series.iter().map(|s| downsample(s, 300_000)).collect();
    let options = WriteOptions::downsampled(300_000);
    let files =
        write_block(scratch.path(), origin, options, windows.iter().cloned().map(Ok)).unwrap().unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(bucket.path()).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(upload(&*store, &files)).unwrap();
    let folder = bucket.path().join(layout::block(&TenantId::single(), files.meta.ulid).as_ref());
    let answer = Command::new(python()).args(["-c", WINDOWS_SCRIPT]).arg(&folder).output().unwrap();
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    let answer: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
    let rows = answer["rows"].as_array().unwrap();
    let floats: Vec<&[SeriesColumns]> = series
        .chunk_by(|a, b| a.labels.metric_name() == b.labels.metric_name())
        .filter(|of| of[0].histograms.is_none())
        .collect();
    assert_eq!(rows.len(), floats.len());
    for (row, of_metric) in rows.iter().zip(floats) {
        let name = of_metric[0].labels.metric_name().unwrap();
        assert_eq!(row[0].as_str(), Some(name));
        // From the samples themselves: what windows must add up to.
        let live = |s: &SeriesColumns| -> Vec<(i64, f64)> {
            s.ts_ms.iter().copied().zip(s.values.iter().copied()).filter(|(_, v)| !is_stale(*v)).collect()
        };
        let mut by_window: std::collections::BTreeMap<(usize, i64), Vec<(i64, f64)>> = Default::default();
        for (n, s) in of_metric.iter().enumerate() {
            for (t, v) in live(s) {
                by_window.entry((n, model::span::span_end(t, 300_000))).or_default().push((t, v));
            }
        }
        let near = |got: &serde_json::Value, want: f64, what: &str| {
            let got = got.as_f64().unwrap();
            assert!((got - want).abs() <= 1e-9 * want.abs().max(1.0), "{name}: {what} is {got}, not {want}");
        };
        let values = || by_window.values().flatten().map(|s| s.1);
        assert_eq!(row[1].as_u64(), Some(by_window.len() as u64), "{name}: windows");
        assert_eq!(row[2].as_u64(), Some(values().count() as u64), "{name}: samples");
        near(&row[3], values().sum(), "the sum");
        near(&row[4], values().fold(f64::INFINITY, f64::min), "the minimum");
        near(&row[5], values().fold(f64::NEG_INFINITY, f64::max), "the maximum");
        let grown: f64 = by_window
            .values()
            .map(|w| {
                let falls: f64 = w.windows(2).filter(|p| p[1].1 < p[0].1).map(|p| p[0].1).sum();
                w[w.len() - 1].1 - w[0].1 + falls
            })
            .sum();
        near(&row[6], grown, "the increase");
        let changes: usize =
            by_window.values().map(|w| w.windows(2).filter(|p| p[1].1 != p[0].1).count()).sum();
        assert_eq!(row[7].as_u64(), Some(changes as u64), "{name}: changes");
        assert!(row[9].as_i64().unwrap() < 300_000, "{name}: a window's end is the next multiple");
    }
    let natives = answer["natives"].as_array().unwrap();
    let roles: Vec<&str> = natives.iter().filter_map(|r| r[0].as_str()).collect();
    assert_eq!(roles, ["first", "last", "sum"], "native histograms: none was reset");
    let counts: f64 =
        series.iter().flat_map(|s| s.histograms.iter().flatten().flatten()).map(|h| h.count).sum();
    assert_eq!(natives[2][2].as_f64(), Some(counts), "sums of counts");
}

/// Reads files of exemplars and of metadata as they lie in the store.
const BESIDE: &str = r#"
import duckdb, json, sys
db = duckdb.connect()
exemplars = db.execute(f'''
SELECT metric, series['job'], count(*), sum(ts)::BIGINT, sum(value), min(labels['trace_id'])
FROM read_parquet('{sys.argv[1]}/exemplars/*.parquet') GROUP BY ALL ORDER BY ALL''').fetchall()
metadata = db.execute(f'''
SELECT metric, type, unit, help FROM read_parquet('{sys.argv[1]}/metadata/*.parquet') ORDER BY ALL''').fetchall()
print(json.dumps([exemplars, metadata]))
"#;

#[test]
fn duckdb_reads_exemplars_and_metadata() {
    let (dir, bucket) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(bucket.path()).unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let options = DbOptions { flush_when_due: false, ..DbOptions::new(dir.path(), store.clone()) };
        let db = Db::open(options).await.unwrap();
        let mut appender = db.appender(&TenantId::single()).await.unwrap();
        for job in ["a", "b"] {
            let s = appender.series(&[("__name__", "rpc_seconds_bucket"), ("job", job)]);
            for t in 1..=3i64 {
                let trace = format!("{job}-größe-{t}");
                appender.exemplar(s, t * 1000, t as f64 / 2.0, &[("trace_id", &trace)]).unwrap();
            }
        }
        let (kind, help, unit) = ("histogram".into(), "How \"long\".".into(), "seconds".into());
        appender.metadata("rpc_seconds", Metadata { kind, help, unit });
        appender.commit().await.unwrap();
        db.flush().await.unwrap();
    });
    let folder = bucket.path().join(layout::tenant(&TenantId::single()).as_ref());
    let answer = Command::new(python()).args(["-c", BESIDE]).arg(&folder).output().unwrap();
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    let answer: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
    let want = serde_json::json!([
        [
            ["rpc_seconds_bucket", "a", 3, 6000, 3.0, "a-größe-1"],
            ["rpc_seconds_bucket", "b", 3, 6000, 3.0, "b-größe-1"]
        ],
        [["rpc_seconds", "histogram", "seconds", "How \"long\"."]]
    ]);
    assert_eq!(answer, want);
}
