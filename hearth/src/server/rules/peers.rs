//! What rules write here, told to the other members by remote write: each of them answers queries out of its
//! own head, and its rules read what others' rules wrote. A process without a head writes to ingesters in the
//! same way, and waits until one has taken it.
//!
//! This is for the two hours until the samples are in the bucket. A member that is away for a while misses
//! some in its answers until then; nothing is lost.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ingest::remote_write::encode::{HEADERS, RequestWriter};
use model::backoff::Backoff;
use model::tenant::TenantId;
use parking_lot::Mutex;
use rules::group::Row;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::live_client::{Live, beginning_of};
use crate::secrets::read_secret;

/// Samples that may wait for one member; beyond it the oldest go.
const MOST_WAITING: usize = 200_000;

/// How long samples wait for a member that does not take them.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// Samples in one request, and about how large one gets.
const BATCH: usize = 5_000;
const BATCH_BYTES: usize = 4 << 20;

/// How much of what a member says when it refuses is told.
const MAX_REASON_BYTES: usize = 1_000;

const TIMEOUT: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The other members. Cheap to clone.
#[derive(Clone)]
pub struct Peers(Arc<Inner>);

struct Inner {
    client: Arc<Live<reqwest::Client>>,
    credentials: Arc<Credentials>,
    senders: Mutex<BTreeMap<String, Peer>>,
}

/// What requests to the others carry.
#[derive(Default)]
pub struct Credentials {
    /// The header that names the tenant, where there is one.
    pub tenant_header: Option<String>,
    /// File with a bearer token; read for each request, so that another one counts at once.
    pub token_file: Option<PathBuf>,
}

/// One member's queue and the task that empties it.
struct Peer {
    queue: Arc<Queue>,
    task: JoinHandle<()>,
}

impl Peer {
    /// Tells it when its turn comes.
    fn tell(&self, write: Write) {
        self.queue.waiting.lock().push(write);
        self.queue.grew.notify_one();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    grew: Notify,
}

#[derive(Default)]
struct Waiting {
    writes: VecDeque<Write>,
    samples: usize,
}

/// The samples of one write of a rule.
#[derive(Clone)]
struct Write {
    tenant: TenantId,
    rows: Arc<[Row]>,
    since: Instant,
}

impl Peers {
    /// None yet.
    pub fn new(credentials: Credentials) -> Result<Peers, reqwest::Error> {
        let builder = || {
            reqwest::Client::builder()
                .timeout(TIMEOUT)
                .user_agent(concat!("Hearth/", env!("CARGO_PKG_VERSION")))
                .no_proxy()
        };
        let client = Arc::new(Live::new(move || builder().build())?);
        Ok(Peers(Arc::new(Inner { client, credentials: Arc::new(credentials), senders: Mutex::default() })))
    }

    /// These are the others from now on. Must be called within a runtime.
    pub fn set(&self, urls: BTreeSet<String>) {
        let mut senders = self.0.senders.lock();
        senders.retain(|url, _| urls.contains(url));
        for url in urls {
            senders.entry(url.clone()).or_insert_with(|| {
                let queue = Arc::new(Queue::default());
                let (client, credentials) = (self.0.client.clone(), self.0.credentials.clone());
                let task = tokio::spawn(empty(queue.clone(), client, credentials, url));
                Peer { queue, task }
            });
        }
    }

    /// Writes to all of them at once, and again for as long as `patience` while none takes it. Whoever could
    /// not when another did is told later. What is answered is why single samples were refused, if any were.
    pub async fn write(
        &self,
        tenant: &TenantId,
        rows: &[Row],
        patience: Duration,
    ) -> Result<Option<String>, NotTaken> {
        let write = Write { tenant: tenant.clone(), rows: rows.into(), since: Instant::now() };
        let urls: Vec<String> = self.0.senders.lock().keys().cloned().collect();
        if urls.is_empty() {
            return Err(NotTaken::Nobody);
        }
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE / 5);
        loop {
            let client = self.0.client.get();
            let one = |url: &String| {
                let (client, credentials, address) =
                    (client.clone(), self.0.credentials.clone(), address(url));
                let write = write.clone();
                async move { send(&client, &credentials, &address, std::slice::from_ref(&write)).await }
            };
            let sent = futures::future::join_all(urls.iter().map(one)).await;
            if sent.iter().any(|sent| !matches!(sent, Err(Refused::Later(_)))) {
                return Ok(self.taken(&write, urls.into_iter().zip(sent)));
            }
            if write.since.elapsed() >= patience {
                let why = sent.into_iter().find_map(Result::err).map(Refused::into_reason);
                return Err(NotTaken::Away(why.unwrap_or_default()));
            }
            tokio::time::sleep(backoff.next_pause()).await;
        }
    }

    /// Keeps a write for those that were away; why others did not take all of it, if any said so.
    fn taken(
        &self,
        write: &Write,
        sent: impl Iterator<Item = (String, Result<(), Refused>)>,
    ) -> Option<String> {
        let senders = self.0.senders.lock();
        let mut refused = None;
        for (url, outcome) in sent {
            match outcome {
                Ok(()) => {}
                Err(Refused::Never(why)) => refused = Some(why),
                Err(Refused::Later(why)) => {
                    tracing::debug!(peer = url, "what rules wrote is told again later: {why}");
                    if let Some(peer) = senders.get(&url) {
                        peer.tell(write.clone());
                    }
                }
            }
        }
        refused
    }

    /// Tells the others what was written here. Does not wait for them.
    pub fn tell(&self, tenant: &TenantId, rows: &[Row]) {
        let senders = self.0.senders.lock();
        if senders.is_empty() || rows.is_empty() {
            return;
        }
        let write = Write { tenant: tenant.clone(), rows: rows.into(), since: Instant::now() };
        senders.values().for_each(|peer| peer.tell(write.clone()));
    }
}

impl Waiting {
    fn push(&mut self, write: Write) {
        self.samples += write.rows.len();
        self.writes.push_back(write);
        while self.samples > MOST_WAITING && self.writes.len() > 1 {
            self.pop();
        }
    }

    fn pop(&mut self) -> Option<Write> {
        let write = self.writes.pop_front()?;
        self.samples -= write.rows.len();
        Some(write)
    }

    /// The oldest writes of one tenant that fit into a request; what has waited too long goes.
    fn batch(&mut self) -> Vec<Write> {
        while self.writes.front().is_some_and(|w| w.since.elapsed() > LONGEST_WAIT) {
            self.pop();
        }
        let mut batch: Vec<Write> = Vec::new();
        let mut samples = 0;
        while let Some(next) = self.writes.front() {
            let fits =
                batch.is_empty() || (samples + next.rows.len() <= BATCH && batch[0].tenant == next.tenant);
            if !fits {
                break;
            }
            samples += next.rows.len();
            batch.extend(self.pop());
        }
        batch
    }

    fn put_back(&mut self, batch: Vec<Write>) {
        for write in batch.into_iter().rev() {
            self.samples += write.rows.len();
            self.writes.push_front(write);
        }
    }
}

/// Sends what waits for one member, for as long as it is one.
async fn empty(
    queue: Arc<Queue>,
    client: Arc<Live<reqwest::Client>>,
    credentials: Arc<Credentials>,
    url: String,
) {
    let address = address(&url);
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    loop {
        let batch = queue.waiting.lock().batch();
        if batch.is_empty() {
            queue.grew.notified().await;
            continue;
        }
        match send(&client.get(), &credentials, &address, &batch).await {
            Ok(()) => backoff.reset(),
            Err(Refused::Later(why)) => {
                tracing::debug!(peer = url, "what rules wrote is told again later: {why}");
                queue.waiting.lock().put_back(batch);
                tokio::time::sleep(backoff.next_pause()).await;
            }
            Err(Refused::Never(why)) => {
                tracing::warn!(peer = url, "another member did not take all that rules wrote here: {why}");
            }
        }
    }
}

fn address(url: &str) -> String {
    format!("{}/api/v1/write", url.trim_end_matches('/'))
}

/// Why a member did not take something.
enum Refused {
    Later(String),
    Never(String),
}

impl Refused {
    fn into_reason(self) -> String {
        match self {
            Refused::Later(why) | Refused::Never(why) => why,
        }
    }
}

/// Nobody has what rules gave.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    #[error("there is no ingester to write to: none is a member, and rules.write_urls names none")]
    Nobody,
    #[error("no ingester took what was written: {0}")]
    Away(String),
}

/// The requests of a batch: a single write may be larger than one request should be.
fn bodies(batch: &[Write]) -> Result<Vec<Vec<u8>>, Refused> {
    let mut bodies = Vec::new();
    let mut request = RequestWriter::default();
    for row in batch.iter().flat_map(|write| write.rows.iter()) {
        request.sample(&row.labels, row.ts_ms, &row.value);
        if request.len() >= BATCH || request.size_bytes() >= BATCH_BYTES {
            bodies.push(std::mem::take(&mut request));
        }
    }
    bodies.push(request);
    let finish = |request: RequestWriter| request.finish().map_err(|e| Refused::Never(e.to_string()));
    bodies.into_iter().filter(|request| !request.is_empty()).map(finish).collect()
}

async fn send(
    client: &reqwest::Client,
    credentials: &Credentials,
    address: &str,
    batch: &[Write],
) -> Result<(), Refused> {
    for body in bodies(batch)? {
        let mut post = client.post(address).body(body);
        for (name, value) in HEADERS {
            post = post.header(name, value);
        }
        if let Some(header) = &credentials.tenant_header {
            post = post.header(header, batch[0].tenant.as_str());
        }
        if let Some(file) = &credentials.token_file {
            post = post.bearer_auth(read_secret("rules.share_token_file", file).map_err(Refused::Later)?);
        }
        let answer = post.send().await.map_err(|e| Refused::Later(e.to_string()))?;
        let status = answer.status();
        if status.is_success() {
            continue;
        }
        let why = format!("{status}: {}", beginning_of(answer, MAX_REASON_BYTES).await);
        // A token may be about to come.
        match status.is_client_error() && !matches!(status.as_u16(), 401 | 403 | 429) {
            true => return Err(Refused::Never(why)),
            false => return Err(Refused::Later(why)),
        }
    }
    Ok(())
}
