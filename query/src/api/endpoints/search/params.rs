//! The parameters of a search, with upstream's texts where they are wrong.

use model::quote::quote;

use super::score::Algorithm;
use crate::api::error::ApiError;
use crate::api::parameters::form::Form;
use crate::api::parameters::values::{Time, parse_bool};

/// Results where a request says nothing, and the most it may ask for.
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 10_000;

/// Results a line where a request says nothing.
const DEFAULT_BATCH: usize = 100;

/// The time that is searched where a request says nothing.
const DEFAULT_RANGE_MS: i64 = 3_600_000;

const MAX_TERMS: usize = 32;

/// How results are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Ascending,
    Descending,
    /// The best first.
    Score,
}

/// What a search asks for.
#[derive(Clone, Debug)]
pub struct SearchParams {
    pub terms: Vec<String>,
    pub algorithm: Algorithm,
    /// 0 to 1.
    pub threshold: f64,
    pub case_sensitive: bool,
    pub include_score: bool,
    pub order: Order,
    pub start_ms: i64,
    pub end_ms: i64,
    pub limit: usize,
    pub batch_size: usize,
}

impl SearchParams {
    /// `endpoint` is its name below `search/`, for errors.
    pub fn read(form: &Form, endpoint: &str, now_ms: i64) -> Result<SearchParams, ApiError> {
        let start = form.time_or("start", Time::from_ms(now_ms.saturating_sub(DEFAULT_RANGE_MS)))?;
        let end = form.time_or("end", Time::from_ms(now_ms))?;
        if end < start {
            return Err(ApiError::bad_data("end timestamp must not be before start timestamp"));
        }
        let count = form.all("search[]").count();
        if count > MAX_TERMS {
            let text = format!("too many search[] terms: got {count}, maximum is {MAX_TERMS}");
            return Err(ApiError::bad_data(text));
        }
        let algorithm = match form.get("fuzz_alg") {
            "" | "subsequence" => Algorithm::Subsequence,
            "jarowinkler" => Algorithm::JaroWinkler,
            other => {
                let text = format!(
                    "unsupported fuzz_alg {}: must be one of [subsequence jarowinkler]",
                    quote(other)
                );
                return Err(ApiError::bad_data(text));
            }
        };
        Ok(SearchParams {
            terms: form.all("search[]").map(str::to_owned).collect(),
            threshold: threshold(form)?,
            algorithm,
            case_sensitive: boolean(form, "case_sensitive", true)?,
            include_score: boolean(form, "include_score", false)?,
            order: order(form, endpoint, count)?,
            start_ms: start.ms(),
            end_ms: end.ms(),
            limit: limit(form)?,
            batch_size: positive(form, "batch_size", DEFAULT_BATCH)?.min(MAX_LIMIT),
        })
    }
}

fn threshold(form: &Form) -> Result<f64, ApiError> {
    match form.get("fuzz_threshold") {
        "" => Ok(0.0),
        text => match text.parse::<u8>() {
            Ok(percent @ 0..=100) => Ok(f64::from(percent) / 100.0),
            _ => Err(ApiError::bad_data(format!("invalid fuzz_threshold {}: must be 0-100", quote(text)))),
        },
    }
}

fn order(form: &Form, endpoint: &str, terms: usize) -> Result<Order, ApiError> {
    let (by, direction) = (form.get("sort_by"), form.get("sort_dir"));
    let refused = |text: String| Err(ApiError::bad_data(text));
    if !direction.is_empty() && by.is_empty() {
        return refused("sort_dir is only valid when sort_by is set".into());
    }
    if !direction.is_empty() && by == "score" {
        return refused("sort_dir is not supported for sort_by=score".into());
    }
    if !matches!(direction, "" | "asc" | "dsc") {
        return refused(format!("invalid sort_dir {}: must be \"asc\" or \"dsc\"", quote(direction)));
    }
    match by {
        "score" if terms == 0 => refused("sort_by=score requires search[] to be set".into()),
        "score" => Ok(Order::Score),
        "" | "alpha" if direction == "dsc" => Ok(Order::Descending),
        "" | "alpha" => Ok(Order::Ascending),
        other => refused(format!(
            "invalid sort_by {} for {endpoint}: must be \"alpha\" or \"score\"",
            quote(other)
        )),
    }
}

fn limit(form: &Form) -> Result<usize, ApiError> {
    let limit = positive(form, "limit", DEFAULT_LIMIT)?;
    match limit > MAX_LIMIT {
        true => {
            Err(ApiError::bad_data(format!("limit {limit} exceeds the configured maximum ({MAX_LIMIT})")))
        }
        false => Ok(limit),
    }
}

fn positive(form: &Form, name: &str, default: usize) -> Result<usize, ApiError> {
    match form.get(name) {
        "" => Ok(default),
        text => text.parse().ok().filter(|n| *n > 0).ok_or_else(|| {
            ApiError::bad_data(format!("invalid {name} {}: must be a positive integer", quote(text)))
        }),
    }
}

/// A yes or no.
pub fn boolean(form: &Form, name: &str, default: bool) -> Result<bool, ApiError> {
    match form.get(name) {
        "" => Ok(default),
        text => parse_bool(text)
            .ok_or_else(|| ApiError::bad_data(format!("invalid {name} {}: must be boolean", quote(text)))),
    }
}
