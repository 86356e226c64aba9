//! One Alertmanager's queue and the task that empties it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use model::authorities;
use model::backoff::Backoff;
use model::clock::Clock;
use parking_lot::Mutex;
use reqwest::StatusCode;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::config::{AlertmanagerSet, Login};
use super::message::{Message, body};
use super::queue::{Limits, Queue};
use crate::metrics::{AlertmanagerLabels, Metrics};

/// Pauses after failures, doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How much of an answer is read for an error's text.
const MAX_ANSWER: usize = 512;

/// Why a set has no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{}: {cause}", path.display())]
    File {
        path: PathBuf,
        #[source]
        cause: std::io::Error,
    },
    #[error("{}: {cause}", path.display())]
    Certificate {
        path: PathBuf,
        #[source]
        cause: reqwest::Error,
    },
    #[error(transparent)]
    Build(#[from] reqwest::Error),
}

/// The client of a set.
pub fn client(set: &AlertmanagerSet) -> Result<reqwest::Client, ClientError> {
    let mut builder = reqwest::Client::builder()
        .timeout(set.timeout)
        .user_agent(concat!("Hearth/", env!("CARGO_PKG_VERSION")))
        .no_proxy();
    if let Some(path) = &set.ca_file {
        let pem = read(path)?;
        let certificate = reqwest::Certificate::from_pem(&pem)
            .map_err(|cause| ClientError::Certificate { path: path.clone(), cause })?;
        builder = builder.add_root_certificate(certificate);
    }
    if let Some((cert, key)) = &set.client_certificate {
        let pem = [read(cert)?, b"\n".to_vec(), read(key)?].concat();
        let identity = reqwest::Identity::from_pem(&pem)
            .map_err(|cause| ClientError::Certificate { path: cert.clone(), cause })?;
        builder = builder.identity(identity);
    }
    if set.insecure_skip_verify {
        builder = builder.danger_accept_invalid_certs(true);
    }
    Ok(builder.build()?)
}

fn read(path: &Path) -> Result<Vec<u8>, ClientError> {
    std::fs::read(path).map_err(|cause| ClientError::File { path: path.to_owned(), cause })
}

/// When the files were changed that a set's client is made of: its own, and the system's authorities.
fn changed(set: &AlertmanagerSet) -> Changed {
    let certificate = set.client_certificate.iter().flat_map(|(cert, key)| [cert, key]);
    let files = set.ca_file.iter().chain(certificate);
    let own = files.map(|file| std::fs::metadata(file).and_then(|m| m.modified()).ok()).collect();
    (authorities::generation(), own)
}

type Changed = (u64, Vec<Option<SystemTime>>);

/// How one Alertmanager is reached.
struct Reach {
    client: reqwest::Client,
    set: Arc<AlertmanagerSet>,
    /// As the files of the client were.
    changed: Changed,
}

impl Reach {
    fn new(client: reqwest::Client, set: Arc<AlertmanagerSet>) -> Reach {
        Reach { changed: changed(&set), client, set }
    }

    /// Makes the client anew where a certificate was rotated. In the middle of that, the old one may well
    /// still work.
    fn refresh(&mut self) {
        let now = changed(&self.set);
        if now == self.changed {
            return;
        }
        match client(&self.set) {
            Ok(client) => (self.client, self.changed) = (client, now),
            Err(e) => tracing::warn!(
                "an Alertmanager's certificates could not be read again, the old ones stay: {e}"
            ),
        }
    }
}

/// Sends what waits for one Alertmanager. Dropped, it ends at once and lets go of what waits.
pub struct Sender {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    task: Option<JoinHandle<()>>,
}

struct Shared {
    url: String,
    queue: Mutex<Queue>,
    grew: Notify,
    reach: Mutex<Reach>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    labels: AlertmanagerLabels,
    batch: usize,
}

/// Why a batch was not taken.
enum Failure {
    /// It may be taken later.
    Later(String),
    /// It never will.
    Never(String),
}

impl Sender {
    pub fn start(
        url: &str,
        client: reqwest::Client,
        set: Arc<AlertmanagerSet>,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
        limits: Limits,
    ) -> Sender {
        let labels = AlertmanagerLabels { alertmanager: url.to_owned() };
        for family in [&metrics.sent, &metrics.errors, &metrics.dropped] {
            let _ = family.get_or_create(&labels);
        }
        let shared = Arc::new(Shared {
            url: url.to_owned(),
            queue: Mutex::new(Queue::new(limits.queue_capacity)),
            grew: Notify::new(),
            reach: Mutex::new(Reach::new(client, set)),
            clock,
            metrics,
            labels,
            batch: limits.batch,
        });
        let (stop, stopped) = watch::channel(false);
        let task = Some(tokio::spawn(run(shared.clone(), stopped)));
        Sender { shared, stop, task }
    }

    pub fn reconfigure(&self, client: reqwest::Client, set: Arc<AlertmanagerSet>) {
        *self.shared.reach.lock() = Reach::new(client, set);
    }

    pub fn push(&self, messages: impl IntoIterator<Item = Arc<Message>>) {
        let dropped = self.shared.queue.lock().push(messages);
        if dropped > 0 {
            self.shared.metrics.dropped.get_or_create(&self.shared.labels).inc_by(dropped);
            tracing::warn!(
                alertmanager = self.shared.url,
                "{dropped} alerts did not fit into the queue, the oldest are gone"
            );
        }
        self.shared.show_length();
        self.shared.grew.notify_one();
    }

    pub fn waiting(&self) -> usize {
        self.shared.queue.lock().len()
    }

    /// Sends what waits, without trying again what fails, and ends.
    pub fn drain(mut self) -> JoinHandle<()> {
        let _ = self.stop.send(true);
        self.shared.grew.notify_one();
        match self.task.take() {
            Some(task) => task,
            None => tokio::spawn(async {}),
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            for family in
                [&self.shared.metrics.sent, &self.shared.metrics.errors, &self.shared.metrics.dropped]
            {
                family.remove(&self.shared.labels);
            }
            self.shared.metrics.queue_length.remove(&self.shared.labels);
        }
    }
}

impl Shared {
    fn show_length(&self) {
        let length = self.queue.lock().len() as i64;
        self.metrics.queue_length.get_or_create(&self.labels).set(length);
    }

    async fn post(&self, batch: &[Arc<Message>]) -> Result<(), Failure> {
        let (client, set) = {
            let mut reach = self.reach.lock();
            // Some `stat`s of local files, on the way to a request over the network.
            reach.refresh();
            (reach.client.clone(), reach.set.clone())
        };
        let mut request = client
            .post(&self.url)
            .header(reqwest::header::CONTENT_TYPE, "application/json")
            .body(body(batch));
        match &set.login {
            Login::None => {}
            Login::Basic { user, password } => {
                let password = password.read().map_err(|e| Failure::Later(e.to_string()))?;
                request = request.basic_auth(user, Some(password));
            }
            Login::Header { kind, credentials } => {
                let credentials = credentials.read().map_err(|e| Failure::Later(e.to_string()))?;
                request = request.header(reqwest::header::AUTHORIZATION, format!("{kind} {credentials}"));
            }
        }
        let mut answer = request.send().await.map_err(|e| Failure::Later(told(&e.without_url())))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let mut text = Vec::new();
        while text.len() < MAX_ANSWER
            && let Ok(Some(piece)) = answer.chunk().await
        {
            text.extend_from_slice(&piece);
        }
        text.truncate(MAX_ANSWER);
        let why = format!("bad response status {status}: {}", String::from_utf8_lossy(&text).trim());
        // What the Alertmanager finds wrong with a request it will find wrong with it again.
        let later = status.is_server_error()
            || matches!(
                status,
                StatusCode::TOO_MANY_REQUESTS
                    | StatusCode::REQUEST_TIMEOUT
                    | StatusCode::UNAUTHORIZED
                    | StatusCode::FORBIDDEN
                    | StatusCode::NOT_FOUND
            );
        Err(if later { Failure::Later(why) } else { Failure::Never(why) })
    }
}

/// An error with what caused it.
fn told(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut source = e.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

async fn run(shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) {
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    loop {
        let batch = shared.queue.lock().take(shared.batch);
        if batch.is_empty() {
            if *stopped.borrow() {
                return;
            }
            shared.grew.notified().await;
            continue;
        }
        let count = batch.len() as u64;
        let failure = match shared.post(&batch).await {
            Ok(()) => {
                backoff.reset();
                shared.metrics.sent.get_or_create(&shared.labels).inc_by(count);
                shared.show_length();
                continue;
            }
            Err(failure) => failure,
        };
        shared.metrics.errors.get_or_create(&shared.labels).inc_by(count);
        let (why, lost, again) = match failure {
            Failure::Never(why) => (why, count, false),
            // At the end there is no later.
            Failure::Later(why) if *stopped.borrow() => (why, count, false),
            Failure::Later(why) => {
                let lost = shared.queue.lock().give_back(batch, shared.clock.now_ms());
                (why, lost, true)
            }
        };
        tracing::warn!(
            alertmanager = shared.url,
            alerts = count,
            lost,
            "alerts were not taken{}: {why}",
            if again { ", they are sent again" } else { "" }
        );
        if lost > 0 {
            shared.metrics.dropped.get_or_create(&shared.labels).inc_by(lost);
        }
        shared.show_length();
        if again {
            shared.metrics.retried.get_or_create(&shared.labels).inc_by(count - lost);
            tokio::select! {
                () = tokio::time::sleep(backoff.next_pause()) => {}
                _ = stopped.wait_for(|stop| *stop) => {}
            }
        }
    }
}
