//! Parameters of Thanos' query API that change an answer: which stores are asked, which shard of the series
//! is meant, whether a part of the answer will do, and by which engine.

use std::sync::Arc;

use axum::http::{HeaderValue, header};
use axum::response::Response;
use model::labels::Labels;
use model::matcher::Matcher;
use model::quote::quote;
use model::source::{LabelQuery, Selection, SeriesCursor, Source, SourceError};

use crate::api::admission::call::Call;
use crate::api::error::ApiError;
use crate::api::parameters::form::Form;
use crate::api::parameters::replicas::Replicas;
use crate::api::parameters::values::parse_bool;
use crate::api::state::{ApiState, Gaps};
use crate::parse::{ParseOptions, parse_metric_selectors};

/// The label by which `storeMatch[]` knows a store.
const ADDRESS: &str = "__address__";

/// Thanos' warning where `storeMatch[]` names no store.
const NO_STORE: &str = "No StoreAPIs matched for this query";

/// The longest list of store selectors that is read: each may be a regular expression.
const MOST_SELECTORS: usize = 32;

/// Refuses what would make an answer wrong if it were ignored. Cheap: to be called before a permit is waited
/// for.
pub fn check(form: &Form) -> Result<(), ApiError> {
    if !form.get("shard_info").is_empty() {
        let why = "series are not answered by shards here: an answer that ignored it would be added up several times. Switch sharding off in the query frontend (--query-frontend.vertical-shards)";
        return Err(ApiError::parameter("shard_info", why));
    }
    match form.get("partial_response") {
        "" => {}
        text if parse_bool(text).is_some() => {}
        text => {
            let why = format!("{} is neither true nor false", quote(text));
            return Err(ApiError::parameter("partial_response", why));
        }
    }
    match form.get("engine") {
        "" | "prometheus" | "thanos" => {}
        other => {
            let why = format!("{} is neither prometheus nor thanos", quote(other));
            return Err(ApiError::parameter("engine", why));
        }
    }
    if form.all("storeMatch[]").count() > MOST_SELECTORS {
        let why = format!("at most {MOST_SELECTORS} are read");
        return Err(ApiError::parameter("storeMatch[]", why));
    }
    Ok(())
}

/// What a request sees of this process.
pub(in crate::api) struct Store {
    pub source: Arc<dyn Source>,
    /// To be shown beside the answer.
    warning: Option<&'static str>,
    /// What the answer lacks, where the client takes a part of it rather than an error.
    gaps: Option<Gaps>,
}

/// Whether a part of the answer will do (`partial_response`). Unlike Thanos' querier, Hearth takes no for an
/// answer where nothing is said: what is not marked as partial is complete.
pub(in crate::api) fn takes_part(form: &Form) -> bool {
    parse_bool(form.get("partial_response")) == Some(true)
}

/// An answer to who takes a part of it: caches must not keep what is perhaps incomplete.
pub(in crate::api) fn not_stored(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl Store {
    /// All that a tenant has, or nothing where `storeMatch[]` means other stores. May block.
    pub(in crate::api) fn asked(
        state: &ApiState,
        call: &Call,
        replicas: Replicas,
    ) -> Result<Store, ApiError> {
        let options = &state.0.engine.options().parse;
        if means_this_store(&call.form, options, &state.config().addresses)? {
            if takes_part(&call.form) {
                let (source, gaps) = state.source_in_part(&call.tenants, replicas);
                return Ok(Store { source, warning: None, gaps: Some(gaps) });
            }
            return Ok(Store { source: state.source(&call.tenants, replicas), warning: None, gaps: None });
        }
        Ok(Store { source: Arc::new(NoSeries), warning: Some(NO_STORE), gaps: None })
    }

    /// What is to be shown beside the answer, once it is known.
    pub(in crate::api) fn warnings(&self) -> Vec<String> {
        let mut all: Vec<String> = self.warning.iter().map(|w| (*w).to_owned()).collect();
        all.extend(self.gaps.iter().flat_map(|gaps| gaps()));
        all
    }
}

/// Whether `storeMatch[]` means this process, which is known by any of `addresses`. As in Thanos, other
/// labels than the address do not decide. Compiles regular expressions: to be called where that may take a
/// while.
fn means_this_store(form: &Form, options: &ParseOptions, addresses: &[String]) -> Result<bool, ApiError> {
    if form.all("storeMatch[]").next().is_none() {
        return Ok(true);
    }
    let selectors = parse_metric_selectors(form.all("storeMatch[]"), options)
        .map_err(|e| ApiError::parameter("storeMatch[]", e))?;
    Ok(addresses.iter().any(|address| selectors.iter().any(|s| is_at(s, address))))
}

fn is_at(selector: &[Matcher], address: &str) -> bool {
    selector.iter().filter(|m| &*m.name == ADDRESS).all(|m| m.matches(address))
}

/// What is seen of a store that a request does not mean.
struct NoSeries;

struct NoMore;

impl SeriesCursor for NoMore {
    fn next_batch(&mut self) -> Result<Option<Vec<model::source::SeriesColumns>>, SourceError> {
        Ok(None)
    }
}

impl Source for NoSeries {
    fn select(&self, _: &Selection) -> Result<Box<dyn SeriesCursor + '_>, SourceError> {
        Ok(Box::new(NoMore))
    }

    fn series(&self, _: &LabelQuery) -> Result<Vec<Labels>, SourceError> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(query: &str) -> Form {
        Form::parse(query, b"")
    }

    #[test]
    fn thanos_parameters_that_would_be_wrong_answers_are_refused() {
        for good in
            ["", "shard_info=", "partial_response=true&engine=thanos", "partial_response=0&engine=prometheus"]
        {
            assert_eq!(check(&form(good)), Ok(()), "{good}");
        }
        for (bad, name) in [
            ("shard_info=%7B%22total_shards%22%3A2%7D", "shard_info"),
            ("partial_response=perhaps", "partial_response"),
            ("engine=mine", "engine"),
            (&*"&storeMatch[]=a".repeat(33), "storeMatch[]"),
        ] {
            let e = check(&form(bad)).unwrap_err();
            assert!(e.text.starts_with(&format!("invalid parameter \"{name}\": ")), "{e}");
        }
    }

    #[test]
    fn store_match_is_decided_by_the_address_alone() {
        let addresses = ["10.0.0.1:9494".to_owned(), "hearth.example".to_owned()];
        let means = |query: &str| means_this_store(&form(query), &ParseOptions::default(), &addresses);
        assert_eq!(means(""), Ok(true));
        for (selector, meant) in [
            (r#"{__address__="10.0.0.1:9494"}"#, true),
            (r#"{__address__=~"hearth.*"}"#, true),
            (r#"{__address__=~".*:10901"}"#, false),
            (r#"{__address__!~"10.*|hearth.*"}"#, false),
            (r#"{cluster="eu"}"#, true),
        ] {
            let encoded: String = selector.bytes().map(|b| format!("%{b:02x}")).collect();
            assert_eq!(means(&format!("storeMatch[]={encoded}")), Ok(meant), "{selector}");
        }
        assert!(means("storeMatch[]=%7B").unwrap_err().text.contains("storeMatch[]"));
    }
}
