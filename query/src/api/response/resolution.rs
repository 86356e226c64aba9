//! `max_source_resolution`, and how an answer says which resolution answered which part of time.

use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use model::quote::quote;
use model::source::{ResolutionPart, ResolutionReport};

use crate::api::error::ApiError;
use crate::api::parameters::form::Form;
use crate::api::parameters::values::parse_duration;
use crate::api::parameters::values::rfc3339;
use crate::eval::resolution::{resolution_name, summary};
use crate::plan::resolution::MaxResolution;

/// Header with parts as `resolution=start/end`, by time, separated by `;`. An approximate part has `~` before
/// its resolution.
pub static HEADER: HeaderName = HeaderName::from_static("x-hearth-resolution");

/// `auto`, `raw`, or a duration as Thanos has it (`0s`, `5m`, `1h`; in between, the next finer one there is);
/// `None` where it is not given.
pub fn max_source_resolution(form: &Form) -> Result<Option<MaxResolution>, ApiError> {
    Ok(match form.get("max_source_resolution") {
        "" => None,
        "auto" => Some(MaxResolution::Auto),
        "raw" => Some(MaxResolution::AtMost(0)),
        text => {
            let ns = parse_duration(text).map_err(|e| ApiError::parameter("max_source_resolution", e))?;
            if ns < 0 {
                let why = format!(
                    "{} is negative: auto, raw and durations such as 5m and 1h are taken",
                    quote(text)
                );
                return Err(ApiError::parameter("max_source_resolution", why));
            }
            Some(MaxResolution::AtMost(ns / 1_000_000))
        }
    })
}

/// One part as `stats` shows it.
#[derive(serde::Serialize)]
pub struct Part {
    resolution: String,
    start: String,
    end: String,
    exact: bool,
}

/// Parts for `data.stats.resolutions`.
pub fn parts(parts: &[ResolutionPart]) -> Vec<Part> {
    let one = |p: &ResolutionPart| Part {
        resolution: resolution_name(p.resolution_ms),
        start: rfc3339(p.min_t_ms),
        end: rfc3339(p.max_t_ms),
        exact: p.exact(),
    };
    parts.iter().map(one).collect()
}

/// The header's text; `None` where nothing was read. At most sixteen parts of some fifty characters.
fn text(report: &ResolutionReport) -> Option<HeaderValue> {
    let parts = summary(report.parts());
    let one = |p: &ResolutionPart| {
        let about = if p.exact() { "" } else { "~" };
        format!("{about}{}={}/{}", resolution_name(p.resolution_ms), rfc3339(p.min_t_ms), rfc3339(p.max_t_ms))
    };
    let text = parts.iter().map(one).collect::<Vec<_>>().join(";");
    if text.is_empty() { None } else { HeaderValue::from_str(&text).ok() }
}

/// Puts the header on an answer.
pub fn with_header(mut response: Response, report: &ResolutionReport) -> Response {
    if let Some(text) = text(report) {
        response.headers_mut().insert(HEADER.clone(), text);
    }
    response
}
