//! Answering a question out of this process' own store. Blocks: it runs on threads that may.

mod json;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_schema::ArrowError;
use bytes::Bytes;
use model::labels::Labels;
use model::source::{Budget, Hints, LabelQuery, MemoryPool, Selection, SourceError};
use tsdb::db::{Above, Db};

use crate::PROTOCOL;
use crate::wire::encode::Encoder;
use crate::wire::json::Committed;
use crate::wire::request::{Question, What};
use crate::wire::{COMMITTED, Failure, Header};

/// Ranges in a header at most; where there are more, one that holds all.
const MAX_UNSETTLED: usize = 1000;

/// Why a question is refused: a status as HTTP has it, and a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    pub text: String,
}

impl Refusal {
    fn bad(text: impl Into<String>) -> Refusal {
        Refusal { status: 400, text: text.into() }
    }
}

/// What answers questions here.
#[derive(Clone)]
pub struct Answerer {
    pub db: Arc<Db>,
    /// Memory for all answers under way.
    pub memory: Arc<MemoryPool>,
    /// The longest that one answer may take.
    pub longest: Duration,
}

/// Takes the pieces of an answer; an error where nobody wants more.
pub trait Sink {
    /// The answer begins: everything after it are its bytes.
    fn begin(&mut self) -> Result<(), SourceError>;
    fn piece(&mut self, piece: Bytes) -> Result<(), SourceError>;
}

impl Answerer {
    /// Limits of an answer, with the time that its question gives it.
    pub fn budget(&self, question: &Question) -> Arc<Budget> {
        let asked = question.timeout_ms.map_or(self.longest, Duration::from_millis);
        let deadline = Instant::now() + asked.min(self.longest);
        Budget::within(self.memory.clone(), u64::MAX, self.memory.max_bytes(), Some(deadline))
    }

    /// Answers into a sink. What goes wrong before its beginning is a refusal; later it is said at the end.
    pub fn answer(
        &self,
        question: &Question,
        budget: &Arc<Budget>,
        sink: &mut dyn Sink,
    ) -> Result<(), Refusal> {
        if question.writer != self.db.writer() {
            return Err(Refusal {
                status: 421,
                text: format!(
                    "this is the member {}, not {}: the roster has another address for that one by now",
                    self.db.writer(),
                    question.writer
                ),
            });
        }
        let tenant = question.tenant().map_err(Refusal::bad)?;
        let selectors = question.matchers().map_err(Refusal::bad)?;
        let about = json::About { question, tenant: &tenant, selectors: &selectors };
        match &question.what {
            What::Exemplars => return about.exemplars(&self.db, budget, sink),
            What::Metadata(metric) => return about.metadata(&self.db, metric.as_deref(), budget, sink),
            _ => {}
        }
        let above = self.db.above(&tenant, question.floor).map_err(|too_low| Refusal {
            status: COMMITTED,
            text: serde_json::to_string(&Committed { snapshot: too_low.snapshot }).unwrap_or_default(),
        })?;
        let query = LabelQuery {
            selectors,
            min_t_ms: question.min_t_ms,
            max_t_ms: question.max_t_ms,
            budget: budget.clone(),
        };
        match &question.what {
            What::Samples { unsettled_in_ms } => {
                self.samples(question, &above, query, *unsettled_in_ms, sink)
            }
            What::Series => {
                let found = above.source().series(&query).map_err(refused)?;
                self.names(question, &above, found.iter().map(|labels| labels.encode()), sink)
            }
            What::LabelNames => {
                let found = above.source().label_names(&query).map_err(refused)?;
                self.names(question, &above, found.iter().map(|name| name.as_bytes()), sink)
            }
            What::LabelValues(name) => {
                let found = above.source().label_values(name, &query).map_err(refused)?;
                self.names(question, &above, found.iter().map(|value| value.as_bytes()), sink)
            }
            What::Exemplars | What::Metadata(_) => Ok(()),
        }
    }

    fn header(&self, question: &Question, above: &Above, names: usize) -> Header {
        Header {
            version: PROTOCOL,
            writer: self.db.writer().to_owned(),
            tenant: question.tenant.clone(),
            floor: question.floor,
            snapshot: above.snapshot(),
            unsettled_ms: Vec::new(),
            names: names as u64,
        }
    }

    fn samples(
        &self,
        question: &Question,
        above: &Above,
        query: LabelQuery,
        unsettled_in_ms: Option<(i64, i64)>,
        sink: &mut dyn Sink,
    ) -> Result<(), Refusal> {
        let budget = query.budget.clone();
        let mut selectors = query.selectors.clone();
        let Some(matchers) = selectors.pop().filter(|_| selectors.is_empty()) else {
            return Err(Refusal::bad("samples are asked for by one selector"));
        };
        let selection = Selection {
            matchers,
            min_t_ms: query.min_t_ms,
            max_t_ms: query.max_t_ms,
            hints: Hints::default(),
            budget: query.budget.clone(),
        };
        let mut cursor = above.source().select(&selection).map_err(refused)?;
        let labels = match cursor.labels_to_come() {
            Some(labels) => labels,
            None => {
                let mut labels = above.source().series(&query).map_err(refused)?;
                labels.sort_by(Labels::series_cmp);
                labels
            }
        };
        let bytes: u64 = labels.iter().map(|l| l.byte_len() as u64 + 16).sum();
        budget.reserve(bytes).map_err(refused)?;
        let mut header = self.header(question, above, labels.len());
        if let Some((first, last)) = unsettled_in_ms {
            header.unsettled_ms = few(above
                .unsettled_ms(&selection.matchers, first, last, &selection.budget)
                .map_err(refused)?);
        }
        let mut out = Out::begin(&header, sink)?;
        out.finish_with(|out| {
            for set in &labels {
                out.encoder.name(&set.encode())?;
                out.send(false)?;
            }
            let mut number = 0;
            while let Some(batch) = cursor.next_batch()? {
                for series in &batch {
                    // Both are in one order: what is passed over has no samples.
                    while labels.get(number).is_some_and(|set| *set != series.labels) {
                        number += 1;
                    }
                    if number >= labels.len() {
                        return Err(Stopped::Failed(Failure::Storage(format!(
                            "{} came out of order",
                            series.labels
                        ))));
                    }
                    out.encoder.samples(number as u32, series)?;
                    out.send(false)?;
                }
            }
            Ok(())
        });
        Ok(())
    }

    fn names<N: AsRef<[u8]>>(
        &self,
        question: &Question,
        above: &Above,
        names: impl ExactSizeIterator<Item = N>,
        sink: &mut dyn Sink,
    ) -> Result<(), Refusal> {
        let mut out = Out::begin(&self.header(question, above, names.len()), sink)?;
        out.finish_with(|out| {
            for name in names {
                out.encoder.name(name.as_ref())?;
                out.send(false)?;
            }
            Ok(())
        });
        Ok(())
    }
}

/// At most so many ranges as fit into a header.
fn few(ranges: Vec<(i64, i64)>) -> Vec<(i64, i64)> {
    match ranges.len() {
        0..=MAX_UNSETTLED => ranges,
        _ => ranges.into_iter().reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).into_iter().collect(),
    }
}

fn refused(e: SourceError) -> Refusal {
    Refusal { status: 503, text: e.to_string() }
}

/// Why an answer ends early.
enum Stopped {
    /// Nobody wants the rest.
    Unwanted,
    Failed(Failure),
}

impl From<SourceError> for Stopped {
    fn from(e: SourceError) -> Stopped {
        Stopped::Failed(match e {
            SourceError::Canceled => Failure::Canceled,
            SourceError::TimedOut => Failure::TimedOut,
            SourceError::Limit(text) => Failure::Limit(text),
            SourceError::Storage(e) => Failure::Storage(e.to_string()),
        })
    }
}

impl From<ArrowError> for Stopped {
    fn from(e: ArrowError) -> Stopped {
        Stopped::Failed(Failure::Storage(e.to_string()))
    }
}

/// An answer that has begun.
struct Out<'a> {
    encoder: Encoder,
    sink: &'a mut dyn Sink,
}

impl<'a> Out<'a> {
    fn begin(header: &Header, sink: &'a mut dyn Sink) -> Result<Out<'a>, Refusal> {
        let failed = |e: &dyn std::fmt::Display| Refusal { status: 500, text: e.to_string() };
        let encoder = Encoder::new(header).map_err(|e| failed(&e))?;
        sink.begin().map_err(|e| failed(&e))?;
        let mut out = Out { encoder, sink };
        // The header is waited for.
        out.send(true).map_err(|_| failed(&"nobody waits for the answer"))?;
        Ok(out)
    }

    fn send(&mut self, all: bool) -> Result<(), Stopped> {
        match self.encoder.ready(all) {
            Some(piece) => self.sink.piece(piece).map_err(|_| Stopped::Unwanted),
            None => Ok(()),
        }
    }

    /// Does the rest, and says how it ended.
    fn finish_with(&mut self, rest: impl FnOnce(&mut Out<'a>) -> Result<(), Stopped>) {
        let failed = match rest(self) {
            Ok(()) => None,
            Err(Stopped::Unwanted) => return,
            Err(Stopped::Failed(failure)) => Some(failure),
        };
        if let Err(e) = self.encoder.end(failed) {
            // Without its end the answer is known to be cut off.
            tracing::warn!("the end of an answer could not be written: {e}");
            return;
        }
        let _ = self.send(true);
    }
}
