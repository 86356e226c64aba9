//! Ingesters in this process, asked without a network: what answers and what reads are the same as with one.

// Each test that includes it uses a part.
#![allow(dead_code)]

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use members::addresses::Addresses;
use members::answer::{Answerer, Refusal, Sink};
use members::ask::{Reply, Transport, Waiting};
use members::error::AskError;
use members::ingesters::{Ingesters, Options};
use members::roster::{self, Member};
use members::who::Who;
use members::wire::decode::Pieces;
use members::wire::request::Question;
use model::clock::SystemClock;
use model::source::{Budget, MemoryPool, SourceError};
use object_store::ObjectStore;
use tsdb::bucket::reader::{BucketReader, ReaderOptions};
use tsdb::catalog::Commits;
use tsdb::db::{Db, DbOptions};

/// Changes an answer's bytes on their way, where a test wants that.
pub type Meddle = Arc<dyn Fn(Vec<u8>) -> Vec<u8> + Send + Sync>;

/// The way to ingesters by their addresses.
#[derive(Default)]
pub struct InProcess {
    pub open: Mutex<HashMap<String, Arc<Db>>>,
    pub meddle: Mutex<Option<Meddle>>,
    /// How long members at an address take to begin an answer.
    pub delay: Mutex<HashMap<String, Duration>>,
}

struct Channel {
    begun: Option<SyncSender<Result<u16, AskError>>>,
    pieces: SyncSender<Bytes>,
}

impl Sink for Channel {
    fn begin(&mut self) -> Result<(), SourceError> {
        let begun = self.begun.take().ok_or(SourceError::Canceled)?;
        begun.send(Ok(200)).map_err(|_| SourceError::Canceled)
    }

    fn piece(&mut self, piece: Bytes) -> Result<(), SourceError> {
        self.pieces.send(piece).map_err(|_| SourceError::Canceled)
    }
}

struct Arrived(Receiver<Bytes>);

impl Pieces for Arrived {
    fn next(&mut self) -> Option<Result<Bytes, AskError>> {
        self.0.recv().ok().map(Ok)
    }
}

/// Pieces that were gathered and changed, as a network may hand them out.
struct Changed(std::vec::IntoIter<Bytes>);

impl Pieces for Changed {
    fn next(&mut self) -> Option<Result<Bytes, AskError>> {
        self.0.next().map(Ok)
    }
}

impl Transport for InProcess {
    fn send(&self, address: &str, question: Vec<u8>, budget: &Arc<Budget>) -> Box<dyn Waiting> {
        let Some(db) = self.open.lock().unwrap().get(address).cloned() else {
            let refused = || Err(AskError::Away("connection refused".to_owned()));
            return Box::new(UnderWay { reply: Some(Box::new(refused)), ready_at: Instant::now() });
        };
        let delay = self.delay.lock().unwrap().get(address).copied().unwrap_or_default();
        let (begun, wait) = sync_channel(1);
        let (pieces, arrived) = sync_channel(4);
        let budget = budget.clone();
        std::thread::spawn(move || {
            let answerer =
                Answerer { db, memory: MemoryPool::new(1 << 30), longest: Duration::from_secs(60) };
            let mut sink = Channel { begun: Some(begun), pieces };
            let answered = Question::read(&question)
                .map_err(|text| Refusal { status: 400, text })
                .and_then(|question| answerer.answer(&question, &budget, &mut sink));
            if let (Err(Refusal { status, text }), Some(begun)) = (answered, sink.begun.take()) {
                let _ = begun.send(Ok(status));
                let _ = sink.pieces.send(Bytes::from(text));
            }
        });
        let meddle = self.meddle.lock().unwrap().clone();
        let reply = move || {
            let status = wait.recv().map_err(|_| AskError::Away("it broke off".to_owned()))??;
            let Some(meddle) = meddle else {
                return Ok(Reply { status, pieces: Box::new(Arrived(arrived)) });
            };
            let whole: Vec<u8> = arrived.into_iter().flat_map(|piece| piece.to_vec()).collect();
            let pieces: Vec<Bytes> = meddle(whole).chunks(1000).map(Bytes::copy_from_slice).collect();
            Ok(Reply { status, pieces: Box::new(Changed(pieces.into_iter())) })
        };
        Box::new(UnderWay { reply: Some(Box::new(reply)), ready_at: Instant::now() + delay })
    }

    fn who<'a>(&'a self, address: &'a str, tenants: bool) -> BoxFuture<'a, Result<Who, AskError>> {
        let db = self.open.lock().unwrap().get(address).cloned();
        let away = || AskError::Away("connection refused".to_owned());
        Box::pin(async move {
            let db = db.ok_or_else(away)?;
            let of = db.tenants().iter().filter(|_| tenants).map(ToString::to_string).collect();
            Ok(Who { version: members::PROTOCOL, name: db.writer().to_owned(), tenants: of })
        })
    }
}

/// A reply that is on its way, perhaps for a while.
struct UnderWay {
    reply: Option<Box<dyn FnOnce() -> Result<Reply, AskError> + Send>>,
    ready_at: Instant,
}

impl Waiting for UnderWay {
    fn wait_until(&mut self, until: Option<Instant>) -> Option<Result<Reply, AskError>> {
        let end = until.map_or(self.ready_at, |until| until.min(self.ready_at));
        std::thread::sleep(end.saturating_duration_since(Instant::now()));
        if until.is_some_and(|until| until < self.ready_at) {
            return None;
        }
        Some(self.reply.take().expect("a reply is taken once")())
    }
}

/// Who reads what members have not flushed, with nothing read again by itself.
pub async fn querier(
    store: &Arc<dyn ObjectStore>,
    transport: &Arc<InProcess>,
    hedge_delay: Duration,
) -> Arc<Ingesters> {
    let reader = BucketReader::open(ReaderOptions {
        store: store.clone(),
        clock: Arc::new(SystemClock),
        name: "query".to_owned(),
        cache_bytes: 8 << 20,
        disk_cache: None,
        rules: Arc::new(|_| Arc::default()),
        exemplar_keep_ms: None,
        metadata_keep_ms: None,
    });
    let options = Options {
        store: store.clone(),
        reader: reader.await.unwrap(),
        transport: transport.clone(),
        clock: Arc::new(SystemClock),
        interval: Duration::from_secs(3600),
        addresses: Addresses::default(),
        hedge_delay,
    };
    Ingesters::open(options).await.unwrap()
}

/// One ingester: a folder, and a store that is open or not.
pub struct Ingester {
    pub name: String,
    pub address: String,
    pub db: Option<Arc<Db>>,
    /// Whether its record in the roster says so.
    pub owes: bool,
    pub owes_from_ms: Option<i64>,
    group: String,
    folder: tempfile::TempDir,
}

async fn open(folder: &std::path::Path, store: &Arc<dyn ObjectStore>) -> Arc<Db> {
    let options = DbOptions {
        flush_when_due: false,
        commits: Commits::Unasked,
        // Short, so that queriers meet a floor that is too low.
        keep_committed: Duration::from_millis(20),
        ..DbOptions::new(folder, store.clone())
    };
    for _ in 0..200 {
        match Db::open(options.clone()).await {
            Ok(db) => return db,
            // An answer that nobody waits for any more may hold the former one for a moment.
            Err(e) if e.passes() => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(e) => panic!("{e}"),
        }
    }
    panic!("{} is not free", folder.display())
}

impl Ingester {
    pub async fn start(n: usize, store: &Arc<dyn ObjectStore>, transport: &Arc<InProcess>) -> Ingester {
        let mut ingester = Ingester {
            name: String::new(),
            address: format!("http://ingester-{n}"),
            db: None,
            owes: false,
            owes_from_ms: None,
            group: String::new(),
            folder: tempfile::tempdir().unwrap(),
        };
        ingester.come_back(store, transport).await;
        ingester
    }

    pub async fn tell(&self, store: &Arc<dyn ObjectStore>) {
        let member = Member {
            owes: self.owes,
            owes_from_ms: self.owes_from_ms,
            replica_group: self.group.clone(),
            ..Member::new(&self.name, "ingest", &self.address)
        };
        roster::write(&**store, &member).await.unwrap();
    }

    pub async fn join_group(&mut self, store: &Arc<dyn ObjectStore>, group: &str) {
        self.group = group.to_owned();
        self.tell(store).await;
    }

    /// Opens its store again, if it is not open.
    pub async fn come_back(&mut self, store: &Arc<dyn ObjectStore>, transport: &Arc<InProcess>) {
        if self.db.is_some() {
            return;
        }
        let db = open(self.folder.path(), store).await;
        self.name = db.writer().to_owned();
        (self.owes, self.owes_from_ms) = (true, None);
        self.tell(store).await;
        transport.open.lock().unwrap().insert(self.address.clone(), db.clone());
        self.db = Some(db);
    }

    /// Is gone, with what it has not flushed. (The log is closed, because two of one folder cannot be open.)
    pub async fn die(&mut self, transport: &Arc<InProcess>) {
        transport.open.lock().unwrap().remove(&self.address);
        if let Some(db) = self.db.take() {
            db.close(false).await.unwrap();
        }
    }

    /// Flushes, withdraws and is gone.
    pub async fn hand_over(&mut self, store: &Arc<dyn ObjectStore>, transport: &Arc<InProcess>) {
        let Some(db) = self.db.take() else { return };
        db.close(true).await.unwrap();
        self.owes = false;
        self.tell(store).await;
        transport.open.lock().unwrap().remove(&self.address);
    }
}
