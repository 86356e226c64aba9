//! What a query answers with: values, statistics and errors, free of how they were computed or will be
//! written.

use std::sync::Arc;
use std::time::Duration;

use model::histogram::Histogram;
use model::labels::Labels;
use model::sample::Value;
use model::source::{Fetched, ResolutionPart, SourceError};

use crate::annotations::{Annotations, line_and_column};
use crate::column::{Column, Point};
use crate::parse::{ParseError, Span};
use crate::steps::Steps;

/// One series at one instant.
#[derive(Clone, Debug)]
pub struct InstantSample {
    pub labels: Labels,
    pub value: Value,
}

/// One series over the steps of a range query, as it was computed.
#[derive(Clone, Debug)]
pub struct StepSeries {
    pub labels: Labels,
    /// A slot for each step.
    pub column: Column,
}

impl StepSeries {
    /// Its points with a timestamp each. `steps` are those of the query.
    pub fn with_times(self, steps: &Steps) -> RangeSeries {
        let mut out = RangeSeries::new(self.labels);
        let floats = self.column.float_count();
        out.ts_ms.reserve_exact(floats);
        out.values.reserve_exact(floats);
        for (step, point) in self.column.iter() {
            match point {
                Point::Float(v) => {
                    out.ts_ms.push(steps.at(step));
                    out.values.push(v);
                }
                Point::Histogram(h) => {
                    out.histogram_ts_ms.push(steps.at(step));
                    out.histograms.push(h.clone());
                }
            }
        }
        out
    }
}

/// One series at times of its own; floats and histograms in columns of their own, both ascending by time.
#[derive(Clone, Debug)]
pub struct RangeSeries {
    pub labels: Labels,
    /// Milliseconds, one per value.
    pub ts_ms: Vec<i64>,
    pub values: Vec<f64>,
    /// Milliseconds, one per histogram.
    pub histogram_ts_ms: Vec<i64>,
    pub histograms: Vec<Arc<Histogram>>,
}

impl RangeSeries {
    /// A series without points yet.
    pub fn new(labels: Labels) -> Self {
        RangeSeries { labels, ts_ms: vec![], values: vec![], histogram_ts_ms: vec![], histograms: vec![] }
    }

    /// How many points, histograms included.
    pub fn len(&self) -> usize {
        self.ts_ms.len() + self.histogram_ts_ms.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The result of an expression.
#[derive(Clone, Debug)]
pub enum QueryValue {
    Scalar {
        ts_ms: i64,
        value: f64,
    },
    /// PromQL strings are bytes.
    String {
        ts_ms: i64,
        value: Arc<[u8]>,
    },
    /// All samples stand at `ts_ms`, the time of the query; in the order of evaluation, which `sort` decides.
    Vector {
        ts_ms: i64,
        samples: Vec<InstantSample>,
    },
    /// A scalar or an instant vector at each step of a range query; ascending by labels, no series without
    /// points.
    Matrix {
        steps: Steps,
        series: Vec<StepSeries>,
    },
    /// Series at times of their own, as a range vector is at one instant; ascending by labels, no series
    /// without points.
    RangeVector(Vec<RangeSeries>),
    /// A matrix of so many series that they were handed out one by one
    /// ([`crate::engine::Engine::run_streamed`]).
    Streamed(u64),
}

impl QueryValue {
    /// `scalar`, `string`, `vector` or `matrix`, the API's `resultType`.
    pub fn type_name(&self) -> &'static str {
        match self {
            QueryValue::Scalar { .. } => "scalar",
            QueryValue::String { .. } => "string",
            QueryValue::Vector { .. } => "vector",
            QueryValue::Matrix { .. } | QueryValue::RangeVector(_) | QueryValue::Streamed(_) => "matrix",
        }
    }

    /// How many series it has; a scalar or a string counts for one.
    pub fn series(&self) -> u64 {
        match self {
            QueryValue::Vector { samples, .. } => samples.len() as u64,
            QueryValue::Matrix { series, .. } => series.len() as u64,
            QueryValue::RangeVector(series) => series.len() as u64,
            QueryValue::Streamed(series) => *series,
            QueryValue::Scalar { .. } | QueryValue::String { .. } => 1,
        }
    }

    /// Orders the series of a matrix, as its readers expect them; anything else keeps its order.
    pub fn sort_by_labels(&mut self) {
        match self {
            QueryValue::Matrix { series, .. } => series.sort_by(|a, b| a.labels.cmp(&b.labels)),
            QueryValue::RangeVector(series) => series.sort_by(|a, b| a.labels.cmp(&b.labels)),
            _ => {}
        }
    }

    /// Cuts series or samples to `limit`; whether any went.
    pub fn truncate(&mut self, limit: usize) -> bool {
        let before = self.series();
        match self {
            QueryValue::Vector { samples, .. } => samples.truncate(limit),
            QueryValue::Matrix { series, .. } => series.truncate(limit),
            QueryValue::RangeVector(series) => series.truncate(limit),
            _ => {}
        }
        self.series() < before
    }

    /// A matrix as a [`QueryValue::RangeVector`], with a timestamp beside each point; anything else as it is.
    pub fn with_times(self) -> QueryValue {
        match self {
            QueryValue::Matrix { steps, series } => {
                QueryValue::RangeVector(series.into_iter().map(|s| s.with_times(&steps)).collect())
            }
            other => other,
        }
    }
}

/// A result with everything said about it.
#[derive(Clone, Debug)]
pub struct QueryResult {
    pub value: QueryValue,
    pub annotations: Annotations,
    pub stats: QueryStats,
}

/// The figures behind `stats=all`.
#[derive(Clone, Debug, Default)]
pub struct QueryStats {
    pub parse: Duration,
    pub prepare: Duration,
    /// Evaluation, storage included.
    pub eval: Duration,
    pub sort: Duration,
    /// From the text to the value.
    pub total: Duration,
    /// Samples that came out of storage.
    pub samples_read: u64,
    /// Samples in the result and in the windows of range functions, as upstream counts
    /// `totalQueryableSamples`.
    pub samples_total: u64,
    /// Samples that windows had not seen a step before, as upstream's `samplesRead`; 0 unless asked for.
    pub samples_new: u64,
    pub samples_per_step: Option<SamplesPerStep>,
    /// Which resolution answered which part of time.
    pub resolutions: Vec<ResolutionPart>,
    /// What was fetched from the object store.
    pub fetched: Fetched,
    /// Most samples and points of results held at once.
    pub samples_peak: u64,
    /// Most bytes held at once for samples and results.
    pub bytes_peak: u64,
    /// Steps of the query, 1 for an instant query.
    pub steps: u64,
    /// Series in the result.
    pub series: u64,
}

/// Samples by step, at `start_ms + i * step_ms`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SamplesPerStep {
    pub start_ms: i64,
    pub step_ms: i64,
    /// As [`QueryStats::samples_total`].
    pub total: Vec<u64>,
    /// As [`QueryStats::samples_new`].
    pub read: Vec<u64>,
}

/// The API's `errorType`s that a query can end with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The query itself is wrong: `bad_data`.
    BadData,
    /// It could not be carried out on this data or within its limits: `execution`.
    Execution,
    /// `canceled`
    Canceled,
    /// `timeout`
    Timeout,
    /// `internal`
    Internal,
}

impl ErrorKind {
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorKind::BadData => "bad_data",
            ErrorKind::Execution => "execution",
            ErrorKind::Canceled => "canceled",
            ErrorKind::Timeout => "timeout",
            ErrorKind::Internal => "internal",
        }
    }
}

/// Why there is no result. The message is whole: it names the place in the query where there is one.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct QueryError {
    pub kind: ErrorKind,
    pub message: String,
    /// What of the query text it is about.
    pub span: Option<Span>,
    /// What the source of the samples said, where that ended the query.
    #[source]
    pub cause: Option<SourceError>,
}

impl QueryError {
    pub fn bad_data(message: impl Into<String>) -> Self {
        QueryError { kind: ErrorKind::BadData, message: message.into(), span: None, cause: None }
    }

    /// `message` is led by the place of `span` in `query`: `1:5: parse error: …`.
    pub fn bad_data_at(query: &str, span: Span, message: impl std::fmt::Display) -> Self {
        let (line, column) = line_and_column(query, span.start);
        QueryError {
            kind: ErrorKind::BadData,
            message: format!("{line}:{column}: parse error: {message}"),
            span: Some(span),
            cause: None,
        }
    }

    pub fn execution(message: impl Into<String>) -> Self {
        QueryError { kind: ErrorKind::Execution, message: message.into(), span: None, cause: None }
    }

    pub fn internal(message: impl Into<String>) -> Self {
        QueryError { kind: ErrorKind::Internal, message: message.into(), span: None, cause: None }
    }
}

impl From<SourceError> for QueryError {
    fn from(e: SourceError) -> Self {
        let (kind, message) = match &e {
            SourceError::Canceled => {
                (ErrorKind::Canceled, "query was canceled in query execution".to_string())
            }
            SourceError::TimedOut => (ErrorKind::Timeout, "query timed out in query execution".to_string()),
            SourceError::Limit(text) => (ErrorKind::Execution, text.clone()),
            SourceError::Storage(cause) => (ErrorKind::Internal, format!("expanding series: {cause}")),
        };
        QueryError { kind, message, span: None, cause: Some(e) }
    }
}

impl From<ParseError> for QueryError {
    fn from(e: ParseError) -> Self {
        QueryError { kind: ErrorKind::BadData, message: e.to_string(), span: Some(e.span), cause: None }
    }
}
