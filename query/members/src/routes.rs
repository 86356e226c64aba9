//! The route by which members ask one another, which is not open to strangers.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use model::source::{Budget, SourceError};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::answer::{Answerer, Refusal, Sink};
use crate::who::Who;
use crate::wire::CONTENT_TYPE;
use crate::wire::request::{MAX_BYTES, Question};

/// The path of questions.
pub const ASK: &str = "/internal/v1/ask";

/// Answers under way at once; each has a thread. Who finds none free waits as long as it likes.
const MOST: usize = 64;

/// Pieces that wait for the network.
const PIECES: usize = 4;

/// What members show one another, read anew where it may have changed: the newest, and the one before it for
/// a while, as the others may not have read theirs yet. None: nothing is asked for.
pub type Tokens = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

/// The header's value that shows a token.
pub fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

#[derive(Clone)]
struct Asked {
    answerer: Answerer,
    tokens: Tokens,
    permits: Arc<Semaphore>,
}

/// The routes of a process that takes samples.
pub fn router(answerer: Answerer, tokens: Tokens) -> Router {
    let permits = Arc::new(Semaphore::new(MOST));
    Router::new().route(ASK, post(ask).get(who)).with_state(Asked { answerer, tokens, permits })
}

/// Whether the right token is shown. Takes as long for a wrong one as for a right one of its length.
fn shows(headers: &HeaderMap, token: &str) -> bool {
    let shown = headers.get(header::AUTHORIZATION).map_or(&b""[..], |value| value.as_bytes());
    let wanted = bearer(token);
    shown.len() == wanted.len()
        && shown.iter().zip(wanted.as_bytes()).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

fn refuse(status: StatusCode, text: impl Into<String>) -> Response {
    let text: String = text.into();
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text + "\n").into_response()
}

/// The refusal of who does not show the token.
fn refusal(asked: &Asked, headers: &HeaderMap) -> Option<Response> {
    let tokens = (asked.tokens)();
    if tokens.is_empty() || tokens.iter().any(|token| shows(headers, token)) {
        return None;
    }
    let text = "this path is for members on the same bucket, which show the token of members.token_file";
    Some(refuse(StatusCode::UNAUTHORIZED, text))
}

/// What is asked beside who this is.
#[derive(serde::Deserialize)]
struct Asking {
    #[serde(default)]
    tenants: bool,
}

/// `GET`: who this is, and of which tenants it has anything.
async fn who(State(asked): State<Asked>, Query(asking): Query<Asking>, headers: HeaderMap) -> Response {
    if let Some(refused) = refusal(&asked, &headers) {
        return refused;
    }
    let db = &asked.answerer.db;
    let tenants = match asking.tenants {
        true => db.tenants().iter().map(ToString::to_string).collect(),
        false => Vec::new(),
    };
    let who = Who { version: crate::PROTOCOL, name: db.writer().to_owned(), tenants };
    let text = serde_json::to_string(&who).unwrap_or_default();
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

async fn ask(State(asked): State<Asked>, request: Request) -> Response {
    if let Some(refused) = refusal(&asked, request.headers()) {
        return refused;
    }
    let Ok(text) = to_bytes(request.into_body(), MAX_BYTES).await else {
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, "the question did not arrive, or is too long");
    };
    let question = match Question::read(&text) {
        Ok(question) => question,
        Err(why) => return refuse(StatusCode::BAD_REQUEST, why),
    };
    let Ok(permit) = asked.permits.acquire_owned().await else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "the process is stopping");
    };
    let (begun, wait) = oneshot::channel();
    let (pieces, ready) = mpsc::channel(PIECES);
    let budget = asked.answerer.budget(&question);
    let cancel = CancelOnDrop(budget.clone());
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let mut sink = ToBody { begun: Some(begun), pieces };
        let answered = asked.answerer.answer(&question, &budget, &mut sink);
        if let (Err(refusal), Some(begun)) = (answered, sink.begun.take()) {
            let _ = begun.send(Err(refusal));
        }
    });
    match wait.await {
        Ok(Ok(())) => {
            let body = futures::stream::unfold((ready, cancel), |(mut ready, cancel)| async move {
                let piece = ready.recv().await?;
                Some((Ok::<Bytes, std::convert::Infallible>(piece), (ready, cancel)))
            });
            ([(header::CONTENT_TYPE, CONTENT_TYPE)], Body::from_stream(body)).into_response()
        }
        Ok(Err(Refusal { status, text })) => {
            refuse(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), text)
        }
        Err(_) => refuse(StatusCode::INTERNAL_SERVER_ERROR, "the answer ended unexpectedly"),
    }
}

/// Ends the work on an answer whose asker is gone.
struct CancelOnDrop(Arc<Budget>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Hands an answer to the body of a response.
struct ToBody {
    begun: Option<oneshot::Sender<Result<(), Refusal>>>,
    pieces: mpsc::Sender<Bytes>,
}

impl Sink for ToBody {
    fn begin(&mut self) -> Result<(), SourceError> {
        let begun = self.begun.take().ok_or(SourceError::Canceled)?;
        begun.send(Ok(())).map_err(|_| SourceError::Canceled)
    }

    fn piece(&mut self, piece: Bytes) -> Result<(), SourceError> {
        self.pieces.blocking_send(piece).map_err(|_| SourceError::Canceled)
    }
}
