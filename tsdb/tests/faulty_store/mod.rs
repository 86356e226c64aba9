//! An object store that fails, loses answers, repeats or delays requests, or ignores conditions, as told.

// Each test that includes it uses a part.
#![allow(dead_code)]

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// What happens to one PUT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// As it should be.
    None,
    /// Fails and does nothing.
    Refused,
    /// Is done, but the answer is lost.
    AnswerLost,
    /// Is done twice, as by a client library that retries on its own; the second answer is returned.
    Repeated,
    /// Takes a while, so that others overtake it.
    Slow,
    /// Fails as it seems, and is done a while later all the same.
    Late,
    /// Looks first whether the object is there and writes it a while later, whoever came between.
    Racy,
}

/// A store with faults that a test scripts.
#[derive(Debug)]
pub struct FaultyStore {
    /// What stores: memory, unless another was given.
    pub inner: Arc<dyn ObjectStore>,
    /// Decides the fault of each PUT by its number and path.
    pub on_put: Mutex<Option<Script>>,
    /// Hears of each GET and HEAD and holds it back.
    pub on_get: Mutex<Option<Gate>>,
    /// Every n-th GET fails, 0 for none.
    pub failing_gets: AtomicU64,
    /// Of so many GETs to come only half of the body arrives.
    pub short_gets: AtomicU64,
    /// Treat create-if-absent as overwrite.
    pub lies: bool,
    /// Which request of any kind (counted from 0) meets a fault, which, and whether all after it meet the
    /// same: what then fails for ever is a process that died.
    pub nth: Mutex<Option<(u64, Fault, bool)>>,
    pub requests: AtomicU64,
    pub puts: AtomicU64,
    pub gets: AtomicU64,
    pub lists: AtomicU64,
}

/// Chooses a fault.
type Choice = dyn FnMut(u64, &Path) -> Fault + Send;

/// A fault for each PUT.
pub struct Script(pub Box<Choice>);

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Script")
    }
}

/// Waits.
type Wait = dyn Fn(&Path, &GetOptions) -> BoxFuture<'static, ()> + Send + Sync;

/// What a GET waits for.
pub struct Gate(pub Box<Wait>);

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gate")
    }
}

/// Numbers without a pattern, from a request's number and a seed.
pub fn scattered(n: u64, seed: u64) -> u64 {
    (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ seed).rotate_left(23).wrapping_mul(0xbf58_476d_1ce4_e5b9)
        >> 33
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyStore")
    }
}

impl Default for FaultyStore {
    fn default() -> Self {
        FaultyStore::over(Arc::new(InMemory::new()))
    }
}

impl FaultyStore {
    /// Without any fault yet.
    pub fn over(inner: Arc<dyn ObjectStore>) -> FaultyStore {
        FaultyStore {
            inner,
            on_put: Mutex::default(),
            on_get: Mutex::default(),
            failing_gets: AtomicU64::default(),
            short_gets: AtomicU64::default(),
            lies: false,
            nth: Mutex::default(),
            requests: AtomicU64::default(),
            puts: AtomicU64::default(),
            gets: AtomicU64::default(),
            lists: AtomicU64::default(),
        }
    }

    pub fn script(&self, script: impl FnMut(u64, &Path) -> Fault + Send + 'static) {
        *self.on_put.lock().unwrap() = Some(Script(Box::new(script)));
    }

    /// A process of its own on the same objects.
    pub fn beside(&self) -> FaultyStore {
        FaultyStore { lies: self.lies, ..FaultyStore::over(self.inner.clone()) }
    }

    /// The fault of the next request.
    fn turn(&self) -> Fault {
        let n = self.requests.fetch_add(1, Ordering::Relaxed);
        match *self.nth.lock().unwrap() {
            Some((at, fault, after)) if n == at || (after && n > at) => fault,
            _ => Fault::None,
        }
    }

    pub fn gets_so_far(&self) -> u64 {
        self.gets.load(Ordering::Relaxed)
    }
}

fn failure(what: &str) -> object_store::Error {
    object_store::Error::Generic { store: "FaultyStore", source: what.to_string().into() }
}

#[async_trait::async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, mut options: PutOptions) -> Result<PutResult> {
        let n = self.puts.fetch_add(1, Ordering::Relaxed);
        let mut fault = self.on_put.lock().unwrap().as_mut().map_or(Fault::None, |s| (s.0)(n, path));
        let turn = self.turn();
        if turn != Fault::None {
            fault = turn;
        }
        if self.lies {
            options.mode = PutMode::Overwrite;
        }
        match fault {
            Fault::None => self.inner.put_opts(path, payload, options).await,
            Fault::Refused => Err(failure("503 slow down")),
            Fault::AnswerLost => {
                let _ = self.inner.put_opts(path, payload, options).await;
                Err(failure("connection reset"))
            }
            Fault::Repeated => {
                let _ = self.inner.put_opts(path, payload.clone(), options.clone()).await;
                self.inner.put_opts(path, payload, options).await
            }
            Fault::Late => {
                let (inner, path) = (self.inner.clone(), path.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(4)).await;
                    let _ = inner.put_opts(&path, payload, options).await;
                });
                Err(failure("timed out"))
            }
            Fault::Slow => {
                tokio::time::sleep(Duration::from_millis(3)).await;
                self.inner.put_opts(path, payload, options).await
            }
            Fault::Racy => {
                if self.inner.head(path).await.is_ok() {
                    return self.inner.put_opts(path, payload, options).await;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
                self.inner.put(path, payload).await
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let n = self.gets.fetch_add(1, Ordering::Relaxed) + 1;
        let wait = self.on_get.lock().unwrap().as_ref().map(|gate| (gate.0)(path, &options));
        if let Some(wait) = wait {
            wait.await;
        }
        let every = self.failing_gets.load(Ordering::Relaxed);
        if every > 0 && n.is_multiple_of(every) {
            return Err(failure("500 internal error"));
        }
        match self.turn() {
            Fault::None | Fault::Repeated | Fault::Racy => {}
            Fault::Slow => tokio::time::sleep(Duration::from_millis(3)).await,
            Fault::Refused | Fault::AnswerLost | Fault::Late => return Err(failure("500 internal error")),
        }
        let head = options.head;
        let found = self.inner.get_opts(path, options).await?;
        let short = |n: u64| n.checked_sub(1);
        if head || self.short_gets.fetch_update(Ordering::Relaxed, Ordering::Relaxed, short).is_err() {
            return Ok(found);
        }
        let (meta, range, attributes) = (found.meta.clone(), found.range.clone(), found.attributes.clone());
        let bytes = found.bytes().await?;
        let half = bytes.slice(..bytes.len() / 2);
        let payload = GetResultPayload::Stream(futures::stream::once(async { Ok(half) }).boxed());
        Ok(GetResult { payload, meta, range, attributes, extensions: Default::default() })
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        match self.turn() {
            Fault::Refused => paths.map(|path| path.and_then(|_| Err(failure("503 slow down")))).boxed(),
            Fault::AnswerLost | Fault::Late => {
                let done = self.inner.delete_stream(paths);
                done.map(|path| path.and_then(|_| Err(failure("connection reset")))).boxed()
            }
            _ => self.inner.delete_stream(paths),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.lists.fetch_add(1, Ordering::Relaxed);
        match self.turn() {
            Fault::Refused | Fault::AnswerLost | Fault::Late => {
                futures::stream::once(async { Err(failure("500 internal error")) }).boxed()
            }
            _ => self.inner.list(prefix),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.lists.fetch_add(1, Ordering::Relaxed);
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
