//! Questions over HTTP.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::source::{Budget, SourceError};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::ask::{Reply, Transport, Waiting, receive};
use crate::error::AskError;
use crate::routes::{ASK, Tokens, bearer};
use crate::wire::decode::Pieces;

/// How long a connection may take, and the beginning of an answer. The rest has the query's time.
const CONNECT: Duration = Duration::from_secs(1);
const BEGIN: Duration = Duration::from_secs(5);

/// How often it is looked whether a query that waits is over.
const LOOK: Duration = Duration::from_millis(50);

/// Pieces that wait to be read.
const PIECES: usize = 8;

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct HttpTransport {
    client: Client,
    runtime: Handle,
    tokens: Tokens,
}

/// The client of the moment, with the authorities that are trusted now.
pub type Client = Arc<dyn Fn() -> reqwest::Client + Send + Sync>;

/// What such a client is made with.
pub fn builder() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .connect_timeout(CONNECT)
        .user_agent(concat!("Hearth/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
}

impl HttpTransport {
    /// Must be made within a runtime, which it uses. `tokens` are what members show one another.
    pub fn new(client: Client, tokens: Tokens) -> HttpTransport {
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
        let budget = budget.clone();
        self.runtime.spawn(async move {
            let sent = async {
                tokio::select! {
                    sent = post(&client, &url, question.into(), &tokens) => sent,
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
}

/// Asks with the newest token, and where that is refused with the one before: the other process may not have
/// read the new one yet.
async fn post(
    client: &reqwest::Client,
    url: &str,
    question: Bytes,
    tokens: &[String],
) -> Result<reqwest::Response, AskError> {
    let mut tokens = tokens.iter();
    loop {
        let mut request = client.post(url).body(question.clone());
        if let Some(token) = tokens.next() {
            request = request.header("authorization", bearer(token));
        }
        let sent = tokio::time::timeout(BEGIN, request.send()).await;
        let too_long = || AskError::Away(format!("it did not begin an answer within {BEGIN:?}"));
        let response = sent.map_err(|_| too_long())?.map_err(|e| told(&e))?;
        if response.status() != reqwest::StatusCode::UNAUTHORIZED || tokens.len() == 0 {
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
