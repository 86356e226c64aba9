//! The whole store against a map in memory: restarts, cut logs, flushes that fail or die at every step.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path as ObjectPath;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions,
};
use tsdb::catalog::Commits;
use tsdb::db::{Appended, Db, DbOptions};
use tsdb::labels::Labels;
use tsdb::sample::Metadata;
use tsdb::source::{Budget, Hints, LabelWish, Selection};
use tsdb::tenant::TenantId;

/// Series → time → value, as bits so that NaNs compare.
type Model = BTreeMap<Labels, BTreeMap<i64, u64>>;

fn options(dir: &Path, store: &Arc<dyn ObjectStore>) -> DbOptions {
    DbOptions { flush_when_due: false, ..DbOptions::new(dir, store.clone()) }
}

fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

fn labels(i: usize) -> Labels {
    Labels::from_pairs([
        ("__name__", format!("metric_{}", i % 7)),
        ("instance", format!("host-{i}")),
        ("job", "test".into()),
    ])
}

async fn write(db: &Arc<Db>, model: &mut Model, rows: &[(usize, i64, f64)]) -> Appended {
    let mut appender = db.appender(&TenantId::single()).await.unwrap();
    for &(series, t, v) in rows {
        let labels = labels(series);
        let pairs: Vec<_> = labels.iter().collect();
        let series = appender.series(&pairs);
        appender.float(series, t, v, 0);
        model.entry(labels).or_default().insert(t, v.to_bits());
    }
    appender.commit().await.unwrap()
}

/// All that a query sees; panics if a series or a timestamp comes twice or out of order.
async fn read(db: &Arc<Db>) -> Model {
    let source = db.source(&TenantId::single());
    tokio::task::spawn_blocking(move || {
        let wish = Selection {
            matchers: vec![],
            min_t_ms: i64::MIN,
            max_t_ms: i64::MAX,
            hints: Hints::default(),
            budget: Budget::unlimited(),
        };
        let mut model = Model::new();
        let mut cursor = source.select(&wish).unwrap();
        let mut last: Option<Labels> = None;
        while let Some(batch) = cursor.next_batch().unwrap() {
            for s in batch {
                assert!(
                    last.as_ref().is_none_or(|l| l.series_cmp(&s.labels).is_lt()),
                    "{last:?} before {:?}",
                    s.labels
                );
                assert!(s.ts_ms.windows(2).all(|w| w[0] < w[1]), "{:?} of {:?}", s.ts_ms, s.labels);
                let points = s.ts_ms.iter().copied().zip(s.values.iter().map(|v| v.to_bits())).collect();
                last = Some(s.labels.clone());
                model.insert(s.labels, points);
            }
        }
        model
    })
    .await
    .unwrap()
}

fn rows(series: Range<usize>, times: impl Iterator<Item = i64> + Clone) -> Vec<(usize, i64, f64)> {
    series.flat_map(|s| times.clone().map(move |t| (s, t, (t % 97) as f64 + s as f64))).collect()
}

const T0: i64 = 1_700_000_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_is_there_after_a_crash_exactly_once() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut model) = (memory(), Model::new());
    {
        let db = Db::open(options(dir.path(), &store)).await.unwrap();
        let first = rows(0..50, (0..200).map(|i| T0 + i * 15_000));
        let n = first.len() as u64;
        assert_eq!(
            write(&db, &mut model, &first).await,
            Appended { samples: n, out_of_order: 0, duplicates: 0 }
        );
        assert_eq!(
            write(&db, &mut model, &first).await,
            Appended { samples: 0, out_of_order: 0, duplicates: n }
        );
        let late = rows(0..10, (0..50).map(|i| T0 - 3_600_000 + i * 1000));
        assert_eq!(write(&db, &mut model, &late).await.out_of_order, 500);
        // Written again with another value: the last written wins.
        write(
            &db,
            &mut model,
            &[(3, T0 + 15_000, 1e9), (3, T0 + 199 * 15_000, f64::NEG_INFINITY), (4, T0 - 3_600_000, -0.0)],
        )
        .await;
        let mut unfinished = db.appender(&TenantId::single()).await.unwrap();
        let s = unfinished.series(&[("__name__", "never")]);
        unfinished.float(s, T0, 1.0, 0);
        drop(unfinished);
        let mut about = db.appender(&TenantId::single()).await.unwrap();
        about.metadata("metric_1", Metadata { kind: "gauge".into(), help: "Help.".into(), unit: "".into() });
        about.commit().await.unwrap();
        assert_eq!(read(&db).await, model);
        // Dropped without close: as after kill -9.
    }
    for _ in 0..2 {
        let db = Db::open(options(dir.path(), &store)).await.unwrap();
        assert_eq!(db.replayed().cut_bytes, 0);
        assert_eq!(read(&db).await, model);
        assert_eq!(db.metadata(&TenantId::single(), None).unwrap()["metric_1"][0].kind, "gauge");
        write(&db, &mut model, &rows(40..60, (200..210).map(|i| T0 + i * 15_000))).await;
        assert_eq!(read(&db).await, model);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_has_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let store = memory();
    let _db = Db::open(options(dir.path(), &store)).await.unwrap();
    let refused =
        Db::open(options(dir.path(), &store)).await.err().expect("a second owner is refused").to_string();
    assert!(refused.contains("in use by another Hearth"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_cut_at_any_byte_opens_with_its_whole_records() {
    let dir = tempfile::tempdir().unwrap();
    let store = memory();
    let mut models = vec![Model::new()];
    {
        let db = Db::open(options(dir.path(), &store)).await.unwrap();
        for i in 0..4 {
            let mut model = models.last().unwrap().clone();
            write(&db, &mut model, &rows(0..3 + i, (0..2).map(|k| T0 + (i as i64 * 2 + k) * 1000))).await;
            models.push(model);
        }
    }
    let log = dir.path().join("log");
    let name = std::fs::read_dir(&log).unwrap().next().unwrap().unwrap().file_name();
    let whole = std::fs::read(log.join(&name)).unwrap();
    let mut seen = 0;
    // Every byte of the last record and a bit more, and a sieve over the rest: an open costs milliseconds of fsync.
    let cuts = (0..=whole.len()).rev().filter(|cut| whole.len() - cut < 200 || cut % 13 == 0);
    for cut in cuts {
        let copy = tempfile::tempdir().unwrap();
        std::fs::create_dir(copy.path().join("log")).unwrap();
        std::fs::write(copy.path().join("log").join(&name), &whole[..cut]).unwrap();
        let db =
            Db::open(DbOptions { commits: Commits::Unasked, ..options(copy.path(), &store) }).await.unwrap();
        let got = read(&db).await;
        // A request is several records (definitions, then samples): whole samples of a prefix of the requests are there.
        let fits = models.iter().rposition(|m| m.iter().filter(|(_, p)| !p.is_empty()).eq(got.iter()));
        let fits = fits.unwrap_or_else(|| panic!("cut at {cut} of {}: {got:?}", whole.len()));
        if cut == whole.len() {
            assert_eq!((fits, db.replayed().cut_bytes), (models.len() - 1, 0));
        }
        seen |= 1 << fits;
    }
    assert_eq!(seen, (1 << models.len()) - 1, "every prefix was seen at some cut");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_loses_what_follows_and_never_changes_a_value() {
    let dir = tempfile::tempdir().unwrap();
    let store = memory();
    let mut model = Model::new();
    {
        let db = Db::open(options(dir.path(), &store)).await.unwrap();
        for i in 0..5 {
            write(&db, &mut model, &rows(0..4, (0..3).map(|k| T0 + (i * 3 + k) * 1000))).await;
        }
    }
    let log = dir.path().join("log");
    let name = std::fs::read_dir(&log).unwrap().next().unwrap().unwrap().file_name();
    let whole = std::fs::read(log.join(&name)).unwrap();
    for bit in (0..whole.len() * 8).step_by(101) {
        let copy = tempfile::tempdir().unwrap();
        std::fs::create_dir(copy.path().join("log")).unwrap();
        let mut damaged = whole.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(copy.path().join("log").join(&name), damaged).unwrap();
        let db =
            Db::open(DbOptions { commits: Commits::Unasked, ..options(copy.path(), &store) }).await.unwrap();
        assert!(db.replayed().cut_bytes > 0, "bit {bit} went unnoticed");
        for (labels, points) in read(&db).await {
            for (t, v) in points {
                assert_eq!(model[&labels].get(&t), Some(&v), "bit {bit} changed {labels} at {t}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flushes_and_restarts_keep_every_sample_once() {
    let dir = tempfile::tempdir().unwrap();
    let bucket = tempfile::tempdir().unwrap();
    let store: Arc<dyn ObjectStore> =
        Arc::new(LocalFileSystem::new_with_prefix(bucket.path()).unwrap().with_fsync(true));
    let mut model = Model::new();
    let mut db = Db::open(options(dir.path(), &store)).await.unwrap();
    for round in 0..6i64 {
        let new = (0..100).map(|i| T0 + (round * 100 + i) * 15_000);
        write(&db, &mut model, &rows(round as usize * 3..round as usize * 3 + 30, new)).await;
        // Late, and some of it a conflict with what is in blocks already.
        let late: Vec<_> =
            (0..40).map(|i| (i as usize % 20, T0 + (round * 37 + i * 11) * 15_000, round as f64)).collect();
        write(&db, &mut model, &late).await;
        let before = db.source(&TenantId::single());
        let report = db.flush().await.unwrap();
        assert!(!report.blocks.is_empty() && report.samples > 0);
        drop(before);
        assert_eq!(read(&db).await, model, "after flush {round}");
        assert_eq!(db.flush().await.unwrap().blocks.len(), 0, "nothing is left to flush");
        write(&db, &mut model, &rows(0..5, (0..5).map(|i| T0 + ((round + 1) * 100 + i) * 15_000))).await;
        assert_eq!(read(&db).await, model, "head and blocks after flush {round}");
        if round % 2 == 1 {
            drop(db);
            db = Db::open(options(dir.path(), &store)).await.unwrap();
            assert_eq!(read(&db).await, model, "after restart {round}");
        }
    }
    let segments = std::fs::read_dir(dir.path().join("log")).unwrap().count();
    assert!(segments <= 2, "{segments} segments are left of a flushed log");
    // Another process with a folder of its own sees all that is in the bucket.
    let wish = || LabelWish {
        selectors: vec![],
        min_t_ms: i64::MIN,
        max_t_ms: i64::MAX,
        budget: Budget::unlimited(),
    };
    db.flush().await.unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let other = Db::open(options(elsewhere.path(), &store)).await.unwrap();
    assert_eq!(read(&other).await, model);
    let source = other.source(&TenantId::single());
    let names = tokio::task::spawn_blocking(move || source.label_names(&wish()).unwrap()).await.unwrap();
    assert_eq!(names, ["__name__", "instance", "job"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_keeps_its_view_while_flushes_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut model) = (memory(), Model::new());
    let db = Db::open(options(dir.path(), &store)).await.unwrap();
    write(&db, &mut model, &rows(0..20, (0..10).map(|i| T0 + i * 1000))).await;
    let writer = {
        let (db, mut model) = (db.clone(), model.clone());
        tokio::spawn(async move {
            for round in 1..20i64 {
                write(&db, &mut model, &rows(0..20, (0..10).map(|i| T0 + (round * 10 + i) * 1000))).await;
                db.flush().await.unwrap();
            }
            model
        })
    };
    // Whatever a reader sees is a whole number of requests, and never less than before.
    let mut least = 0;
    while !writer.is_finished() {
        let seen: usize = read(&db).await.values().map(BTreeMap::len).sum();
        assert!(seen >= least, "{seen} after {least}");
        least = seen;
    }
    let model = writer.await.unwrap();
    assert_eq!(read(&db).await, model);
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_do_not_see_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let store = memory();
    let (a, b) = (TenantId::new("a").unwrap(), TenantId::new("b").unwrap());
    {
        let db = Db::open(options(dir.path(), &store)).await.unwrap();
        for (tenant, value) in [(&a, 1.0), (&b, 2.0)] {
            let mut appender = db.appender(tenant).await.unwrap();
            let s = appender.series(&[("__name__", "up")]);
            appender.float(s, T0, value, 0);
            appender.commit().await.unwrap();
        }
        db.flush().await.unwrap();
    }
    let db = Db::open(options(dir.path(), &store)).await.unwrap();
    assert_eq!(db.tenants(), [a.clone(), b.clone()]);
    for (tenant, value) in [(a, 1.0), (b, 2.0)] {
        let source = db.source(&tenant);
        let seen = tokio::task::spawn_blocking(move || {
            let wish = Selection {
                matchers: vec![],
                min_t_ms: 0,
                max_t_ms: i64::MAX,
                hints: Hints::default(),
                budget: Budget::unlimited(),
            };
            let batch = source.select(&wish).unwrap().next_batch().unwrap().unwrap();
            (batch.len(), batch[0].values.clone())
        });
        assert_eq!(seen.await.unwrap(), (1, vec![value]));
    }
}

/// A store whose writes fail from a given one on; `i64::MAX` = never. Failing after doing is the worse half: the answer is lost.
#[derive(Debug)]
struct Failing {
    inner: Arc<dyn ObjectStore>,
    writes_left: AtomicI64,
    fail_after_doing: bool,
}

impl std::fmt::Display for Failing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "failing {}", self.inner)
    }
}

impl Failing {
    fn broken() -> object_store::Error {
        object_store::Error::Generic { store: "failing", source: "the cable is cut".into() }
    }

    fn write_allowed(&self) -> bool {
        self.writes_left.fetch_sub(1, Ordering::SeqCst) > 0
    }
}

#[async_trait::async_trait]
impl ObjectStore for Failing {
    async fn put_opts(
        &self,
        at: &ObjectPath,
        p: PutPayload,
        o: PutOptions,
    ) -> object_store::Result<PutResult> {
        if self.write_allowed() {
            return self.inner.put_opts(at, p, o).await;
        }
        if self.fail_after_doing {
            self.inner.put_opts(at, p, o).await?;
        }
        Err(Self::broken())
    }

    async fn put_multipart_opts(
        &self,
        at: &ObjectPath,
        o: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, o).await
    }

    async fn get_opts(&self, at: &ObjectPath, o: GetOptions) -> object_store::Result<GetResult> {
        self.inner.get_opts(at, o).await
    }

    fn delete_stream(
        &self,
        at: BoxStream<'static, object_store::Result<ObjectPath>>,
    ) -> BoxStream<'static, object_store::Result<ObjectPath>> {
        self.inner.delete_stream(at)
    }

    fn list(&self, prefix: Option<&ObjectPath>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&ObjectPath>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &ObjectPath,
        to: &ObjectPath,
        o: CopyOptions,
    ) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, o).await
    }

    async fn rename_opts(
        &self,
        from: &ObjectPath,
        to: &ObjectPath,
        o: RenameOptions,
    ) -> object_store::Result<()> {
        self.inner.rename_opts(from, to, o).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_that_fails_or_dies_at_any_write_loses_and_doubles_nothing() {
    let mut failures = 0;
    for fail_after_doing in [false, true] {
        for die in [false, true] {
            // Three data files, meta.json, the catalog's snapshot: five writes a flush.
            for step in 0..6 {
                let dir = tempfile::tempdir().unwrap();
                let failing = Arc::new(Failing {
                    inner: memory(),
                    writes_left: AtomicI64::new(i64::MAX),
                    fail_after_doing,
                });
                let store: Arc<dyn ObjectStore> = failing.clone();
                let mut model = Model::new();
                let mut db = Db::open(options(dir.path(), &store)).await.unwrap();
                write(&db, &mut model, &rows(0..10, (0..20).map(|i| T0 + i * 1000))).await;
                failing.writes_left.store(step, Ordering::SeqCst);
                let failed = db.flush().await.is_err();
                failures += failed as usize;
                let context =
                    format!("after doing {fail_after_doing}, die {die}, step {step}, failed {failed}");
                assert_eq!(read(&db).await, model, "{context}");
                write(&db, &mut model, &rows(5..15, (10..30).map(|i| T0 + i * 1000))).await;
                if die {
                    drop(db);
                    failing.writes_left.store(i64::MAX, Ordering::SeqCst);
                    db = Db::open(options(dir.path(), &store)).await.unwrap();
                }
                failing.writes_left.store(i64::MAX, Ordering::SeqCst);
                assert_eq!(read(&db).await, model, "{context}");
                db.flush().await.unwrap();
                assert_eq!(read(&db).await, model, "{context}");
                drop(db);
                let db = Db::open(options(dir.path(), &store)).await.unwrap();
                assert_eq!(read(&db).await, model, "{context}, at the end");
            }
        }
    }
    assert!(failures >= 16, "only {failures} flushes failed");
}
