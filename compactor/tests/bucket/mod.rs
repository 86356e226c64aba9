//! A bucket for tests: an object store that fails at chosen operations, blocks put into it, and everything a
//! query sees of it.

// Each test that includes it uses a part.
#![allow(dead_code)]

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path as FilePath;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use compactor::metrics::Metrics;
use compactor::settings::Settings;
use compactor::worker::Compactor;
use futures::StreamExt;
use futures::stream::BoxStream;
use model::clock::{Clock, ManualClock};
use model::labels::Labels;
use model::source::testing::conformance::drain;
use model::source::{Budget, Hints, Selection, SeriesColumns};
use model::tenant::TenantId;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use prometheus_client::registry::Registry;
use tsdb::block::upload::upload;
use tsdb::block::{BlockMeta, BlockOrigin, WriteOptions, write_block};
use tsdb::bucket::maintenance::{BucketMaintenance, Patience};
use tsdb::bucket::{BlockStore, BucketSource};
use tsdb::catalog::{Catalog, CatalogOptions, Edit};
use ulid::Ulid;

/// What becomes of one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Fine,
    /// Fails without being done.
    Refused,
    /// Is done, and the answer is lost.
    AnswerLost,
    /// Takes a while.
    Slow,
}

type Choice = dyn Fn(u64) -> Fate + Send + Sync;

/// A store in which every operation has a number and a fate.
pub struct FatefulStore {
    pub inner: Arc<InMemory>,
    choose: Box<Choice>,
    pub operations: AtomicU64,
    /// From now on everything fails: the process that uses it is dead to the world.
    pub dead: AtomicBool,
    /// Whose time objects have, instead of the machine's, and when each was written by it.
    clock: Option<ManualClock>,
    written_ms: Mutex<HashMap<Path, i64>>,
}

impl FatefulStore {
    pub fn new(
        inner: Arc<InMemory>,
        choose: impl Fn(u64) -> Fate + Send + Sync + 'static,
    ) -> Arc<FatefulStore> {
        Arc::new(FatefulStore {
            inner,
            choose: Box::new(choose),
            operations: AtomicU64::new(0),
            dead: AtomicBool::new(false),
            clock: None,
            written_ms: Mutex::default(),
        })
    }

    /// The same with a simulated clock, by which objects have their age.
    pub fn at(
        clock: &ManualClock,
        choose: impl Fn(u64) -> Fate + Send + Sync + 'static,
    ) -> Arc<FatefulStore> {
        let mut store = FatefulStore::new(Arc::new(InMemory::new()), choose);
        Arc::get_mut(&mut store).expect("nobody else has it yet").clock = Some(clock.clone());
        store
    }

    fn note_time(&self, path: &Path) {
        if let Some(clock) = &self.clock {
            self.written_ms.lock().unwrap().insert(path.clone(), clock.now_ms());
        }
    }

    fn fate(&self) -> Fate {
        let n = self.operations.fetch_add(1, Ordering::SeqCst);
        if self.dead.load(Ordering::SeqCst) { Fate::Refused } else { (self.choose)(n) }
    }

    async fn around<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        match self.fate() {
            Fate::Fine => work.await,
            Fate::Refused => Err(broken()),
            Fate::AnswerLost => {
                let _ = work.await;
                Err(broken())
            }
            Fate::Slow => {
                tokio::time::sleep(Duration::from_millis(2)).await;
                work.await
            }
        }
    }
}

impl fmt::Debug for FatefulStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FatefulStore")
    }
}

impl fmt::Display for FatefulStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FatefulStore")
    }
}

/// The object with the simulated time of its writing, where there is one.
fn dated(mut meta: ObjectMeta, written_ms: &HashMap<Path, i64>) -> ObjectMeta {
    if let Some(ms) = written_ms.get(&meta.location) {
        let since_1970 = Duration::from_millis(u64::try_from(*ms).unwrap_or(0));
        meta.last_modified = (std::time::UNIX_EPOCH + since_1970).into();
    }
    meta
}

fn broken() -> object_store::Error {
    object_store::Error::Generic { store: "FatefulStore", source: "the cable is cut".into() }
}

#[async_trait::async_trait]
impl ObjectStore for FatefulStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.note_time(path);
        self.around(self.inner.put_opts(path, payload, options)).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.note_time(path);
        self.around(self.inner.put_multipart_opts(path, options)).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.around(self.inner.get_opts(path, options)).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        match self.fate() {
            Fate::Refused => futures::stream::once(async { Err(broken()) }).boxed(),
            Fate::AnswerLost => {
                let done = self.inner.delete_stream(paths);
                done.map(|_| Err(broken())).boxed()
            }
            _ => self.inner.delete_stream(paths),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.fate() {
            Fate::Refused | Fate::AnswerLost => futures::stream::once(async { Err(broken()) }).boxed(),
            _ => {
                let written = self.written_ms.lock().unwrap().clone();
                self.inner.list(prefix).map(move |meta| meta.map(|m| dated(m, &written))).boxed()
            }
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.around(self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

pub fn options() -> CatalogOptions {
    CatalogOptions { pause: Duration::from_micros(100), ..CatalogOptions::default() }
}

pub async fn catalog(store: &Arc<dyn ObjectStore>, writer: &str) -> Catalog {
    Catalog::open(store.clone(), TenantId::single(), writer, options()).await.unwrap()
}

/// Writes series as one block, uploads and commits it. Its ULID has the time `order`, which decides between
/// blocks.
pub async fn put_block(
    store: &Arc<dyn ObjectStore>,
    scratch: &FilePath,
    order: u64,
    mut series: Vec<SeriesColumns>,
) -> Option<BlockMeta> {
    series.sort_by(|a, b| a.labels.series_cmp(&b.labels));
    let origin = BlockOrigin::flushed(Ulid::from_parts(order, u128::from(order)), TenantId::single(), "test");
    let files = write_block(scratch, origin, WriteOptions::fresh(), series.into_iter().map(Ok)).unwrap()?;
    upload(&**store, &files).await.unwrap();
    let catalog = catalog(store, "test").await;
    catalog.commit(&Edit::flush(Some(files.meta.clone()), "test", order)).await.unwrap();
    Some(files.meta.clone())
}

/// Plain series of floats.
pub fn floats(labels: &[(&str, &str)], samples: impl IntoIterator<Item = (i64, f64)>) -> SeriesColumns {
    let (ts, values): (Vec<i64>, Vec<f64>) = samples.into_iter().unzip();
    SeriesColumns {
        labels: Labels::from_pairs(labels.iter().copied()),
        ts_ms: ts.into(),
        values,
        histograms: None,
        start_ts_ms: None,
        windows: None,
    }
}

/// Series → time → bits of the value.
pub type Seen = BTreeMap<Labels, BTreeMap<i64, u64>>;

/// All that queries see of the newest snapshot, masked as queries are.
pub async fn read(store: &Arc<dyn ObjectStore>) -> std::result::Result<Seen, String> {
    let catalog = catalog(store, "reader").await;
    let snapshot = catalog.snapshot();
    let blocks = BlockStore::new(store.clone(), tokio::runtime::Handle::current(), 64 << 20);
    tokio::task::spawn_blocking(move || {
        let source = BucketSource::new(blocks, TenantId::single(), snapshot.blocks.clone())
            .with_visibility(snapshot.visibility());
        let found = drain(&source, &everything()).map_err(|e| e.to_string())?;
        Ok(found.into_iter().map(|s| (s.labels.clone(), points(&s))).collect())
    })
    .await
    .unwrap()
}

pub fn points(s: &SeriesColumns) -> BTreeMap<i64, u64> {
    assert!(s.ts_ms.windows(2).all(|w| w[0] < w[1]), "{} has a timestamp twice", s.labels);
    s.ts_ms.iter().copied().zip(s.values.iter().map(|v| v.to_bits())).collect()
}

pub fn everything() -> Selection {
    Selection {
        matchers: Vec::new(),
        min_t_ms: i64::MIN,
        max_t_ms: i64::MAX,
        hints: Hints::default(),
        budget: Budget::unlimited(),
    }
}

/// Settings that do not wait.
pub fn settings(scratch: &FilePath) -> Settings {
    let mut s = Settings::new(scratch);
    // The tests' clocks are their own, and what retention takes goes at once.
    (s.max_clock_lead, s.expired_delay) = (None, Duration::ZERO);
    s.max_memory_bytes = 64 << 20;
    s.delete_delay = Duration::ZERO;
    s.orphan_grace = Duration::ZERO;
    s.garbage_interval = Duration::ZERO;
    s.attempts = 3;
    s.pause = Duration::from_micros(100);
    s.plan.grace_ms = 0;
    s.plan.resolutions_ms = model::rollup::RESOLUTIONS_MS.to_vec();
    s
}

pub fn compactor(
    store: &Arc<dyn ObjectStore>,
    settings: Settings,
    name: &str,
    clock: &ManualClock,
) -> Compactor {
    let patience = Patience { attempts: 3, pause: Duration::from_micros(100) };
    let maintenance = BucketMaintenance::new(store.clone(), Arc::new(clock.clone()), patience);
    Compactor::new(maintenance, settings, name, Metrics::register(&mut Registry::default())).unwrap()
}

/// A clock that shows some time after all that is stored now, by the store's own times too.
pub fn late_clock() -> ManualClock {
    use model::clock::SystemClock;
    ManualClock::at(SystemClock.now_ms() + 100 * 365 * 24 * 3_600_000)
}
