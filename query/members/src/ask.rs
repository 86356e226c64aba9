//! Asking a member: the question, the way to it, and what may come back instead of an answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Instant;

use futures::future::BoxFuture;
use model::exemplar::SeriesExemplars;
use model::labels::Labels;
use model::sample::Metadata;
use model::source::{Budget, SeriesCursor, SourceError};

use crate::error::AskError;
use crate::who::Who;
use crate::wire::decode::{Answer, Expected, Pieces, RemoteCursor};
use crate::wire::json;
use crate::wire::request::Question;
use crate::wire::{COMMITTED, OK};

/// What a label set takes beside its bytes.
const SET_BYTES: u64 = 48;

/// What came back of a question: a status as HTTP has it, and the answer's pieces.
pub struct Reply {
    pub status: u16,
    pub pieces: Box<dyn Pieces>,
}

/// A reply that is on its way. Dropped, it is given up.
pub trait Waiting: Send {
    /// The reply once it has begun, or `None` where it has not until then; blocks. To be called again only
    /// after `None`.
    fn wait_until(&mut self, until: Option<Instant>) -> Option<Result<Reply, AskError>>;
}

/// Waits for the first of what is to be sent through a channel; an asker that is gone has cancelled.
pub fn receive<T>(
    wait: &Receiver<Result<T, AskError>>,
    until: Option<Instant>,
) -> Option<Result<T, AskError>> {
    let gone = || Err(AskError::Query(SourceError::Canceled));
    let Some(until) = until else { return Some(wait.recv().unwrap_or_else(|_| gone())) };
    match wait.recv_timeout(until.saturating_duration_since(Instant::now())) {
        Ok(received) => Some(received),
        Err(RecvTimeoutError::Timeout) => None,
        Err(RecvTimeoutError::Disconnected) => Some(gone()),
    }
}

/// The way to members.
pub trait Transport: Send + Sync {
    /// Sends a question, as [`Question::to_text`] has it, to the member at an address; several can be under
    /// way at once. What is dropped is given up: the member stops working on it.
    fn send(&self, address: &str, question: Vec<u8>, budget: &Arc<Budget>) -> Box<dyn Waiting>;

    /// Who is at an address; with the tenants of whom it has anything, if they are wanted.
    fn who<'a>(&'a self, address: &'a str, tenants: bool) -> BoxFuture<'a, Result<Who, AskError>>;
}

/// The beginning of an answer with samples.
pub struct SamplesAnswer {
    pub snapshot: u64,
    pub unsettled_ms: Vec<(i64, i64)>,
    pub cursor: Box<dyn SeriesCursor>,
}

/// Longest text of a refusal that is shown.
const MAX_REFUSAL_BYTES: usize = 4 << 10;

fn accepted(reply: Reply) -> Result<Box<dyn Pieces>, AskError> {
    let Reply { status, mut pieces } = reply;
    if status == OK {
        return Ok(pieces);
    }
    let mut text = Vec::new();
    while let Some(piece) = pieces.next() {
        text.extend_from_slice(&piece?);
        if text.len() > MAX_REFUSAL_BYTES {
            break;
        }
    }
    text.truncate(MAX_REFUSAL_BYTES);
    if status == COMMITTED {
        let committed: json::Committed =
            serde_json::from_slice(&text).map_err(|e| AskError::Wrong(e.to_string()))?;
        return Err(AskError::Committed { snapshot: committed.snapshot });
    }
    Err(AskError::Away(format!("status {status}: {}", String::from_utf8_lossy(&text).trim())))
}

fn expected(question: &Question) -> Expected<'_> {
    Expected { writer: &question.writer, tenant: &question.tenant, floor: question.floor }
}

fn label_set(bytes: &[u8]) -> Option<(Labels, u64)> {
    let labels = Labels::decode(bytes)?;
    let size = labels.byte_len() as u64 + SET_BYTES;
    Some((labels, size))
}

/// Samples out of a reply to [`crate::wire::request::What::Samples`].
pub fn samples(
    reply: Reply,
    question: &Question,
    from: &str,
    budget: &Arc<Budget>,
) -> Result<SamplesAnswer, AskError> {
    let mut answer = Answer::begin(accepted(reply)?, expected(question))?;
    let (labels, reserved) = answer.names(budget, label_set, |a, b| a.series_cmp(b).is_lt())?;
    let (snapshot, unsettled_ms) = (answer.header.snapshot, std::mem::take(&mut answer.header.unsettled_ms));
    let range_ms = (question.min_t_ms, question.max_t_ms);
    let cursor = RemoteCursor::new(from.to_owned(), answer, labels, range_ms, budget.clone(), reserved);
    Ok(SamplesAnswer { snapshot, unsettled_ms, cursor: Box::new(cursor) })
}

/// Label sets, ascending.
pub fn series(reply: Reply, question: &Question, budget: &Budget) -> Result<Vec<Labels>, AskError> {
    names(reply, question, budget, label_set)
}

/// Texts, ascending.
pub fn texts(reply: Reply, question: &Question, budget: &Budget) -> Result<Vec<String>, AskError> {
    let text = |bytes: &[u8]| {
        let text = std::str::from_utf8(bytes).ok()?.to_owned();
        let size = (text.len() + size_of::<String>()) as u64;
        Some((text, size))
    };
    names(reply, question, budget, text)
}

fn names<T: Ord>(
    reply: Reply,
    question: &Question,
    budget: &Budget,
    understand: impl Fn(&[u8]) -> Option<(T, u64)>,
) -> Result<Vec<T>, AskError> {
    let mut answer = Answer::begin(accepted(reply)?, expected(question))?;
    let (names, reserved) = answer.names(budget, understand, |a, b| a < b)?;
    // The caller reserves what it keeps.
    budget.release(reserved);
    answer.finish()?;
    Ok(names)
}

/// Longest answer with exemplars or metadata, in bytes.
const MAX_JSON_BYTES: usize = 256 << 20;

/// An answer that is one JSON text.
fn read_json<T: serde::de::DeserializeOwned>(
    reply: Reply,
    question: &Question,
    budget: &Budget,
) -> Result<T, AskError> {
    let mut pieces = accepted(reply)?;
    let (mut text, mut reserved) = (Vec::new(), 0);
    let mut read = || -> Result<json::JsonAnswer<T>, AskError> {
        while let Some(piece) = pieces.next() {
            let piece = piece?;
            budget.reserve(2 * piece.len() as u64).map_err(AskError::Query)?;
            reserved += 2 * piece.len() as u64;
            text.extend_from_slice(&piece);
            if text.len() > MAX_JSON_BYTES {
                return Err(AskError::Wrong(format!("it has more than {MAX_JSON_BYTES} bytes")));
            }
        }
        serde_json::from_slice(&text).map_err(|e| AskError::Wrong(e.to_string()))
    };
    let read = read();
    budget.release(reserved);
    let read = read?;
    let same =
        read.version == crate::PROTOCOL && read.writer == question.writer && read.tenant == question.tenant;
    match same {
        true => Ok(read.data),
        false => Err(AskError::Wrong("it is of another member, tenant or version".to_owned())),
    }
}

/// Exemplars, series ascending.
pub fn exemplars(
    reply: Reply,
    question: &Question,
    budget: &Budget,
) -> Result<Vec<SeriesExemplars>, AskError> {
    let series: Vec<json::Series> = read_json(reply, question, budget)?;
    let wrong = || AskError::Wrong("a label set is none".to_owned());
    series.into_iter().map(|s| s.read().ok_or_else(wrong)).collect()
}

/// Metadata by metric.
pub fn metadata(
    reply: Reply,
    question: &Question,
    budget: &Budget,
) -> Result<BTreeMap<String, Vec<Metadata>>, AskError> {
    let metrics: BTreeMap<String, Vec<[String; 3]>> = read_json(reply, question, budget)?;
    let one = |[kind, help, unit]: [String; 3]| Metadata { kind, help, unit };
    Ok(metrics.into_iter().map(|(metric, all)| (metric, all.into_iter().map(one).collect())).collect())
}
