//! Questions over HTTP.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use model::source::{Budget, SourceError};
use reqwest::StatusCode;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::ask::{Reply, Transport, Waiting, receive};
use crate::error::AskError;
use crate::routes::{ASK, Tokens, bearer};
use crate::who::Who;
use crate::wire::decode::Pieces;

/// How long a connection may take, and the beginning of an answer. The rest has the query's time.
const CONNECT: Duration = Duration::from_secs(1);
const BEGIN: Duration = Duration::from_secs(5);

/// How long an address has to say who is there, and how long that may be.
const WHO: Duration = Duration::from_secs(2);
const MAX_WHO_BYTES: usize = 16 << 20;

/// How often it is looked whether a query that waits is over.
const LOOK: Duration = Duration::from_millis(50);

/// Pieces that wait to be read.
const PIECES: usize = 8;

/// What asks over HTTP.
pub use reqwest::Client;

/// The client for the next question: another one where certificates have changed.
pub type MakeClient = Arc<dyn Fn() -> Client + Send + Sync>;

/// A client as members need it, to which certificates can be added.
pub fn builder() -> reqwest::ClientBuilder {
    Client::builder()
        .connect_timeout(CONNECT)
        .user_agent(concat!("Hearth/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct HttpTransport {
    client: MakeClient,
    runtime: Handle,
    tokens: Tokens,
}

impl HttpTransport {
    /// Must be made within a runtime, which it uses. `client` is what asks members, `tokens` what they show
    /// one another.
    pub fn new(client: MakeClient, tokens: Tokens) -> HttpTransport {
        HttpTransport { client, runtime: Handle::current(), tokens }
    }
}

/// Ends when the query is over, with the reason.
async fn over(budget: &Budget) -> SourceError {
    loop {
        if let Err(e) = budget.check() {
            return e;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// An error of the client with its causes: the outermost says little.
fn told(e: &reqwest::Error) -> AskError {
    let mut text = e.to_string();
    let mut cause = std::error::Error::source(e);
    while let Some(e) = cause {
        text += &format!(": {e}");
        cause = e.source();
    }
    AskError::Away(text)
}

impl Transport for HttpTransport {
    fn send(&self, address: &str, question: Vec<u8>, budget: &Arc<Budget>) -> Box<dyn Waiting> {
        let (begun, wait) = std::sync::mpsc::sync_channel(1);
        let (pieces, arrived) = mpsc::channel(PIECES);
        let (client, tokens, url) = ((self.client)(), (self.tokens)(), format!("{address}{ASK}"));
        let (budget, question) = (budget.clone(), Bytes::from(question));
        self.runtime.spawn(async move {
            let sent = async {
                tokio::select! {
                    sent = sent(&tokens, BEGIN, || client.post(&url).body(question.clone())) => sent,
                    e = over(&budget) => Err(AskError::Query(e)),
                    // Given up, for want of another's answer or because an equal one was faster.
                    () = pieces.closed() => Err(AskError::Query(SourceError::Canceled)),
                }
            };
            let mut response = match sent.await {
                Ok(response) => response,
                Err(e) => return drop(begun.send(Err(e))),
            };
            if begun.send(Ok(response.status().as_u16())).is_err() {
                return;
            }
            loop {
                let piece = tokio::select! {
                    piece = response.chunk() => piece.map_err(|e| told(&e)),
                    e = over(&budget) => Err(AskError::Query(e)),
                    // Who does not read on does not want the rest: the connection is closed.
                    () = pieces.closed() => return,
                };
                let piece = match piece {
                    Ok(Some(piece)) => Ok(piece),
                    Ok(None) => return,
                    Err(e) => Err(e),
                };
                let is_last = piece.is_err();
                if pieces.send(piece).await.is_err() || is_last {
                    return;
                }
            }
        });
        Box::new(UnderWay { wait, arrived: Some(arrived) })
    }

    fn who<'a>(&'a self, address: &'a str, tenants: bool) -> BoxFuture<'a, Result<Who, AskError>> {
        let what = if tenants { "?tenants=true" } else { "" };
        let url = format!("{}{ASK}{what}", address.trim_end_matches('/'));
        let (client, tokens) = ((self.client)(), (self.tokens)());
        Box::pin(async move {
            let mut response = sent(&tokens, WHO, || client.get(&url).timeout(WHO)).await?;
            let mut text = Vec::new();
            while let Some(piece) = response.chunk().await.map_err(|e| told(&e))? {
                text.extend_from_slice(&piece);
                if text.len() > MAX_WHO_BYTES {
                    return Err(AskError::Wrong(format!("it has more than {MAX_WHO_BYTES} bytes")));
                }
            }
            match response.status() {
                StatusCode::OK => Who::read(&text),
                status => {
                    let text = String::from_utf8_lossy(&text);
                    Err(AskError::Away(format!("status {}: {}", status.as_u16(), text.trim())))
                }
            }
        })
    }
}

/// Asks with the newest token, and where that is refused with the one before: the other process may not have
/// read the new one yet. An answer has to begin within `begin`.
async fn sent(
    tokens: &[String],
    begin: Duration,
    request: impl Fn() -> reqwest::RequestBuilder,
) -> Result<reqwest::Response, AskError> {
    let mut tokens = tokens.iter();
    loop {
        let mut request = request();
        if let Some(token) = tokens.next() {
            request = request.header("authorization", bearer(token));
        }
        let too_long = || AskError::Away(format!("it did not begin an answer within {begin:?}"));
        let answered = tokio::time::timeout(begin, request.send()).await;
        let response = answered.map_err(|_| too_long())?.map_err(|e| told(&e))?;
        if response.status() != StatusCode::UNAUTHORIZED || tokens.len() == 0 {
            return Ok(response);
        }
    }
}

/// A request that is under way.
struct UnderWay {
    wait: std::sync::mpsc::Receiver<Result<u16, AskError>>,
    arrived: Option<mpsc::Receiver<Result<Bytes, AskError>>>,
}

impl Waiting for UnderWay {
    fn wait_until(&mut self, until: Option<Instant>) -> Option<Result<Reply, AskError>> {
        let status = receive(&self.wait, until)?;
        let arrived = self.arrived.take().ok_or(AskError::Query(SourceError::Canceled));
        Some(status.and_then(|status| Ok(Reply { status, pieces: Box::new(Arrived(arrived?)) })))
    }
}

/// Pieces as they arrive.
struct Arrived(mpsc::Receiver<Result<Bytes, AskError>>);

impl Pieces for Arrived {
    fn next(&mut self) -> Option<Result<Bytes, AskError>> {
        self.0.blocking_recv()
    }
}
