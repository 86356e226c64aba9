//! `/federate`: the newest sample of each series that is asked for, as a scrape would find it.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use model::labels::Labels;
use model::matcher::Matcher;
use model::sample::{Value, is_stale};
use model::source::{Budget, Hints, Selection, SeriesColumns, Source};

use crate::api::admission::call::Call;
use crate::api::error::{ApiError, PlainError};
use crate::api::exposition::accept::{Format, Negotiated, Offered, negotiate};
use crate::api::exposition::protobuf::{self, Kind};
use crate::api::exposition::text;
use crate::api::response::{self, PIECE_BYTES};
use crate::api::run::QueryClass;
use crate::api::state::ApiState;
use crate::parse::parse_metric_selectors;

/// The label that tells targets apart. Exposed empty where a series has none, so that a scraper with
/// `honor_labels` does not put its own there.
const INSTANCE: &str = "instance";

/// The newest sample of a series.
struct Newest {
    labels: Labels,
    ts_ms: i64,
    value: Value,
}

/// `GET /federate`: series that match any of `match[]`, each with its newest sample not older than the
/// lookback; stale series are left out.
pub async fn federate(
    State(state): State<ApiState>,
    headers: HeaderMap,
    call: Result<Call, ApiError>,
) -> Result<Response, PlainError> {
    let call = call?;
    if let Some(e) = call.form.error() {
        return Err(PlainError::bad_request(format!("error parsing form values: {e}")));
    }
    let accept: Vec<&str> =
        headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let agreed = negotiate(&accept.join(","), Offered { open_metrics: false, protobuf: true });
    let replicas = state.config().replicas.asked(&call.form)?;
    let view = state.clone();
    let answer = state
        .run(call.work(QueryClass::Recent), None, move |budget, _| {
            let selectors = parse_metric_selectors(call.form.all("match[]"), &view.0.engine.options().parse)
                .map_err(|e| ApiError::bad_data(e.to_string()))?;
            let now_ms = view.config().clock.now_ms();
            let from_ms = now_ms.saturating_sub(view.0.engine.options().lookback_ms);
            let source = view.source(&call.tenants, replicas);
            let mut found = Vec::new();
            for matchers in selectors {
                gather(&*source, matchers, (from_ms, now_ms), budget, &mut found)?;
            }
            let reloaded = view.config().reload.in_force();
            let added = reloaded.as_ref().map_or(&view.config().external_labels, |r| &r.external_labels);
            let exposition = Exposition::new(found, added, agreed);
            Ok(answer(exposition, &agreed))
        })
        .await?;
    Ok(answer)
}

fn gather(
    source: &dyn Source,
    matchers: Vec<Matcher>,
    (min_t_ms, max_t_ms): (i64, i64),
    budget: &Arc<Budget>,
    found: &mut Vec<Newest>,
) -> Result<(), ApiError> {
    let selection =
        Selection { matchers, min_t_ms, max_t_ms, hints: Hints::default(), budget: budget.clone() };
    let mut cursor = source.select(&selection)?;
    while let Some(batch) = cursor.next_batch()? {
        budget.check()?;
        for series in batch {
            let Some(newest) = newest(series) else { continue };
            let histogram = match &newest.value {
                Value::Float(_) => 0,
                Value::Histogram(h) => h.size_bytes(),
            };
            budget.reserve((newest.labels.byte_len() + histogram + size_of::<Newest>()) as u64)?;
            found.push(newest);
        }
    }
    Ok(())
}

/// `None` where the series has ended.
fn newest(series: SeriesColumns) -> Option<Newest> {
    let (value, ts_ms) = (*series.values.last()?, *series.ts_ms.last()?);
    if is_stale(value) {
        return None;
    }
    let histogram = series.histograms.as_ref().and_then(|h| h.last().cloned().flatten());
    let value = histogram.map_or(Value::Float(value), Value::Histogram);
    Some(Newest { labels: series.labels, ts_ms, value })
}

fn answer(mut exposition: Exposition, agreed: &Negotiated) -> Response {
    let mut first = Vec::new();
    let more = exposition.fill(&mut first);
    let body = match more {
        false => Body::from(first),
        true => {
            let rest = std::iter::from_fn(move || {
                let mut piece = Vec::with_capacity(PIECE_BYTES + (8 << 10));
                exposition.fill(&mut piece);
                (!piece.is_empty()).then(|| Ok::<_, std::convert::Infallible>(Bytes::from(piece)))
            });
            let pieces = std::iter::once(Ok(Bytes::from(first))).chain(rest);
            Body::from_stream(futures::stream::iter(pieces.fuse()))
        }
    };
    let mut response = response::respond(body);
    if let Ok(kind) = HeaderValue::from_str(&agreed.content_type()) {
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    response
}

/// Samples of which one family after the other is written.
struct Exposition {
    samples: std::iter::Peekable<std::vec::IntoIter<Newest>>,
    added: Vec<(String, String)>,
    agreed: Negotiated,
    /// Name and kind of the family that the last line was of.
    last: Option<(String, Kind)>,
}

impl Exposition {
    fn new(mut samples: Vec<Newest>, external_labels: &[(String, String)], agreed: Negotiated) -> Exposition {
        // Series that several selectors ask for come once.
        samples.sort_by(|a, b| a.labels.series_cmp(&b.labels));
        samples.dedup_by(|a, b| a.labels == b.labels);
        // Nameless series have no place in the formats, and native histograms none in text.
        samples.retain(|s| {
            let native = matches!(&s.value, Value::Histogram(h) if !h.uses_custom_buckets());
            s.labels.metric_name().is_some() && (agreed.format == Format::Protobuf || !native)
        });
        let mut added: BTreeSet<(String, String)> = external_labels.iter().cloned().collect();
        if !added.iter().any(|(name, _)| name == INSTANCE) {
            added.insert((INSTANCE.to_owned(), String::new()));
        }
        let added = added.into_iter().collect();
        Exposition { samples: samples.into_iter().peekable(), added, agreed, last: None }
    }

    /// Appends families until there is enough for a piece; whether there is more.
    fn fill(&mut self, out: &mut Vec<u8>) -> bool {
        while out.len() < PIECE_BYTES {
            let Some(sample) = self.samples.next() else { return false };
            match self.agreed.format {
                Format::Protobuf => self.family(out, sample),
                _ => self.lines(out, &sample),
            }
        }
        self.samples.peek().is_some()
    }

    fn labels(&self, sample: &Newest) -> Vec<(String, String)> {
        text::labels(&sample.labels, &self.added, self.agreed.escaping)
    }

    fn lines(&mut self, out: &mut Vec<u8>, sample: &Newest) {
        let Some(name) = sample.labels.metric_name() else { return };
        let kind = Kind::of(&sample.value);
        let escaped = self.agreed.escaping.escape(name);
        if self.last.as_ref().is_none_or(|(last, k)| last != name || *k != kind) {
            text::type_line(out, &escaped, kind.as_str());
            self.last = Some((name.to_owned(), kind));
        }
        let labels = self.labels(sample);
        match &sample.value {
            Value::Float(v) => text::sample(out, &escaped, &labels, None, *v, sample.ts_ms),
            Value::Histogram(h) => text::classic_histogram(out, &escaped, &labels, h, sample.ts_ms),
        }
    }

    /// All samples of one name and kind that follow one another, the first already taken.
    fn family(&mut self, out: &mut Vec<u8>, first: Newest) {
        let Some(name) = first.labels.metric_name().map(str::to_owned) else { return };
        let kind = Kind::of(&first.value);
        crate::api::protobuf::delimited(out, |out| {
            protobuf::family_head(out, &self.agreed.escaping.escape(&name), kind);
            let mut next = Some(first);
            while let Some(sample) = next {
                protobuf::metric(out, &self.labels(&sample), &sample.value, sample.ts_ms);
                next = self
                    .samples
                    .next_if(|s| s.labels.metric_name() == Some(name.as_str()) && Kind::of(&s.value) == kind);
            }
        });
    }
}
