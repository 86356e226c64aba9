//! `read`: Prometheus' remote read, whole samples or chunks as they are computed.

use std::sync::{Arc, OnceLock};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use model::labels::METRIC_NAME;
use model::matcher::MatchOp;
use model::source::{Budget, Hints, LabelQuery, Selection, SeriesColumns, SeriesCursor, Source, SourceError};

use crate::api::admission::call::read_body;
use crate::api::error::{ApiError, ErrorType, PlainError};
use crate::api::remote_read::frames;
use crate::api::remote_read::request::{self, ReadQuery, ReadRequest, ResponseType};
use crate::api::remote_read::samples;
use crate::api::response;
use crate::api::response::streamed::StreamStart;
use crate::api::response::streamed::frames::FrameSender;
use crate::api::run::{QueryClass, WorkOf};
use crate::api::state::ApiState;

/// Longest request, compressed and not, as upstream.
const MAX_REQUEST_BYTES: usize = 32 << 20;

/// Most samples of an answer of whole samples: upstream's `--storage.remote.read-sample-limit`.
const MAX_SAMPLES: u64 = 50_000_000;

/// About how large a frame of chunks becomes: upstream's `--storage.remote.read-max-bytes-in-frame`.
const FRAME_BYTES: usize = 1 << 20;

/// `POST /api/v1/read`. Series carry the labels they are stored with: those that a Prometheus has sent have
/// its external labels already, so none are added here.
pub async fn read(State(state): State<ApiState>, request: Request) -> Result<Response, PlainError> {
    let (parts, body) = request.into_parts();
    let tenants = (state.config().tenants)(&parts)?;
    let memory = state.0.engine.budget(None);
    let body = read_body(&state, body, MAX_REQUEST_BYTES, &memory).await.map_err(|e| match e.status {
        // Upstream knows but one code for a request it does not take.
        Some(StatusCode::PAYLOAD_TOO_LARGE) => PlainError::bad_request(e.text),
        _ => e.into(),
    })?;
    let view = state.clone();
    let kind = Arc::new(OnceLock::new());
    let decided = kind.clone();
    // It may ask for any time, and who asks for raw samples asks for much.
    let of = WorkOf { tenant: tenants.first(), class: QueryClass::Long };
    let mut answer = state
        .run_streamed(of, None, move |budget, _, start| {
            // The request's own memory, until it was read.
            let _request_memory = memory;
            let decoded = decoded(&body, budget)?;
            let request = request::decode(&decoded).map_err(|e| ApiError::bad_data(e.to_string()))?;
            let _ = decided.set(request.response_type);
            let source = view.source(&tenants, view.config().replicas.clone());
            match request.response_type {
                ResponseType::Samples => whole(&*source, &request, budget).map(Some),
                ResponseType::StreamedXorChunks => chunks(&*source, &request, budget, start),
            }
        })
        .await?;
    if kind.get() == Some(&ResponseType::StreamedXorChunks) {
        let kind = HeaderValue::from_static(frames::CONTENT_TYPE);
        answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    Ok(answer)
}

/// The request's bytes, unpacked within its limit and the query's memory.
fn decoded(body: &[u8], budget: &Budget) -> Result<Vec<u8>, ApiError> {
    let refused = |why: String| ApiError::bad_data(why);
    let length = snap::raw::decompress_len(body).map_err(|e| refused(format!("snappy: {e}")))?;
    if length > MAX_REQUEST_BYTES {
        return Err(refused(format!(
            "the request is {length} bytes long when it is unpacked, the limit is {MAX_REQUEST_BYTES}"
        )));
    }
    budget.reserve(length as u64)?;
    snap::raw::Decoder::new().decompress_vec(body).map_err(|e| refused(format!("snappy: {e}")))
}

fn selection(query: &ReadQuery, budget: &Arc<Budget>) -> Selection {
    // The reader's own hints of step and function are left alone: what it gets are samples.
    Selection {
        matchers: query.matchers.clone(),
        min_t_ms: query.start_ms,
        max_t_ms: query.end_ms,
        hints: Hints::default(),
        budget: budget.clone(),
    }
}

fn whole(source: &dyn Source, request: &ReadRequest, budget: &Arc<Budget>) -> Result<Response, ApiError> {
    let mut message = Vec::new();
    let mut count = 0u64;
    for query in &request.queries {
        let mut result = samples::QueryResult::default();
        let mut cursor = source.select(&selection(query, budget))?;
        while let Some(batch) = cursor.next_batch()? {
            budget.check()?;
            for series in batch {
                count += series.ts_ms.len() as u64;
                if count > MAX_SAMPLES {
                    return Err(ApiError::bad_data(format!("exceeded sample limit ({MAX_SAMPLES})")));
                }
                let before = result.bytes();
                result.push(&series);
                budget.reserve((result.bytes() - before) as u64)?;
            }
        }
        let before = message.len();
        result.append_to(&mut message);
        budget.reserve((message.len() - before) as u64)?;
    }
    budget.reserve(snap::raw::max_compress_len(message.len()) as u64)?;
    let packed = snap::raw::Encoder::new().compress_vec(&message).map_err(|e| {
        ApiError::new(ErrorType::Internal, format!("the answer of {} bytes: {e}", message.len()))
    })?;
    let mut response = response::respond(Body::from(packed));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("snappy"));
    Ok(response::reserving(response, budget.clone())?)
}

/// Begins the answer with the first frame: what fails later breaks it off, which readers notice.
fn chunks(
    source: &dyn Source,
    request: &ReadRequest,
    budget: &Arc<Budget>,
    start: StreamStart,
) -> Result<Option<Response>, ApiError> {
    let mut sending = Sending { start: Some(start), frames: None };
    for (index, query) in request.queries.iter().enumerate() {
        let mut series = Ordered::of(source, query, budget)?;
        while let Some(series) = series.next()? {
            budget.check()?;
            for frame in frames::of_series(index as u64, &series, FRAME_BYTES) {
                sending.send(frame)?;
            }
        }
    }
    match sending.frames {
        Some(frames) => frames.finish().map(|()| None).map_err(Into::into),
        None => Ok(Some(response::respond(Body::empty()))),
    }
}

/// The answer, from its first frame on.
struct Sending {
    start: Option<StreamStart>,
    frames: Option<FrameSender>,
}

impl Sending {
    fn send(&mut self, frame: Vec<u8>) -> Result<(), SourceError> {
        if let Some(start) = self.start.take() {
            self.frames = Some(start.begin(FRAME_BYTES)?);
        }
        match &mut self.frames {
            Some(frames) => frames.send(frame),
            None => Err(SourceError::Canceled),
        }
    }
}

/// Series in the order of all their labels, which readers of chunks rely on. Sources have them by metric name
/// first: that is the same unless a label sorts before the name and there are several metrics.
enum Ordered<'a> {
    AsTheyCome {
        cursor: Box<dyn SeriesCursor + 'a>,
        batch: std::vec::IntoIter<SeriesColumns>,
    },
    /// All of them, within the query's memory.
    Sorted(std::vec::IntoIter<SeriesColumns>),
}

impl<'a> Ordered<'a> {
    fn of(source: &'a dyn Source, query: &ReadQuery, budget: &Arc<Budget>) -> Result<Self, SourceError> {
        let mut cursor = source.select(&selection(query, budget))?;
        if !needs_sorting(source, query, budget)? {
            return Ok(Ordered::AsTheyCome { cursor, batch: Vec::new().into_iter() });
        }
        let mut all = Vec::new();
        while let Some(batch) = cursor.next_batch()? {
            budget.reserve(batch.iter().map(SeriesColumns::memory_bytes).sum::<u64>())?;
            all.extend(batch);
        }
        all.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(Ordered::Sorted(all.into_iter()))
    }

    fn next(&mut self) -> Result<Option<SeriesColumns>, SourceError> {
        match self {
            Ordered::Sorted(all) => Ok(all.next()),
            Ordered::AsTheyCome { cursor, batch } => loop {
                if let Some(series) = batch.next() {
                    return Ok(Some(series));
                }
                match cursor.next_batch()? {
                    Some(more) => *batch = more.into_iter(),
                    None => return Ok(None),
                }
            },
        }
    }
}

fn needs_sorting(source: &dyn Source, query: &ReadQuery, budget: &Arc<Budget>) -> Result<bool, SourceError> {
    let one_metric = query
        .matchers
        .iter()
        .any(|m| m.op == MatchOp::Equal && &*m.name == METRIC_NAME && !m.value.is_empty());
    if one_metric {
        return Ok(false);
    }
    let names = source.label_names(&LabelQuery {
        selectors: vec![query.matchers.clone()],
        min_t_ms: query.start_ms,
        max_t_ms: query.end_ms,
        budget: budget.clone(),
    })?;
    Ok(names.first().is_some_and(|first| first.as_str() < METRIC_NAME))
}
