//! `query_exemplars`: the exemplars of every series that a query's selectors name.

use axum::extract::State;
use axum::response::Response;
use model::exemplar::SeriesExemplars;
use model::matcher::Matcher;

use crate::api::admission::call::Call;
use crate::api::endpoints::query::{check_text, parsed};
use crate::api::error::ApiError;
use crate::api::json;
use crate::api::parameters::values::{MAX_TIME_MS, MIN_TIME_MS, Time};
use crate::api::response::{self, Warnings};
use crate::api::run::QueryClass;
use crate::api::state::ApiState;
use crate::parse::{Expr, Node};

/// `GET|POST /api/v1/query_exemplars`. Like upstream's, it takes the selectors as they stand: offsets, `@`
/// and ranges do not move the times.
pub async fn exemplars(State(state): State<ApiState>, call: Call) -> Result<Response, ApiError> {
    let start = call.form.time_or("start", Time::from_ms(MIN_TIME_MS))?;
    let end = call.form.time_or("end", Time::from_ms(MAX_TIME_MS))?;
    if end < start {
        return Err(ApiError::bad_data("end timestamp must not be before start timestamp"));
    }
    check_text(&state, call.form.get("query"))?;
    let view = state.clone();
    state
        .run(call.work(QueryClass::Lookup), None, move |budget, _| {
            let expr = parsed(&view, &call.form).map_err(|e| ApiError::bad_data(e.to_string()))?;
            let mut selectors = Vec::new();
            gather(&expr, &mut selectors);
            if selectors.is_empty() {
                return Ok(response::no_content());
            }
            let series = view.exemplars(&call.tenants, &selectors, start.ms(), end.ms(), budget)?;
            let bytes = |s: &SeriesExemplars| {
                let exemplars = s.exemplars.iter().map(|e| e.labels.byte_len() + size_of_val(e));
                (s.labels.byte_len() + size_of_val(s) + exemplars.sum::<usize>()) as u64
            };
            budget.reserve(series.iter().map(bytes).sum::<u64>())?;
            Ok(response::streamed(Found {
                series: series.into_iter(),
                begun: false,
                warnings: Warnings::default(),
            }))
        })
        .await
}

/// The matchers of all selectors in an expression.
fn gather(expr: &Expr, out: &mut Vec<Vec<Matcher>>) {
    match &expr.node {
        Node::Number(_) | Node::Str(_) => {}
        Node::Vector(v) => out.push(v.matchers.clone()),
        Node::Matrix { selector, .. } => out.push(selector.matchers.clone()),
        Node::Subquery(s) => gather(&s.expr, out),
        Node::Call(c) => c.args.iter().for_each(|a| gather(a, out)),
        Node::Aggregate(a) => {
            gather(&a.expr, out);
            if let Some(param) = &a.param {
                gather(param, out);
            }
        }
        Node::Unary { expr, .. } | Node::Paren(expr) => gather(expr, out),
        Node::Binary(_) => {
            let (first, chain) = expr.left_spine();
            gather(first, out);
            chain.iter().for_each(|(b, _)| gather(&b.rhs, out));
        }
    }
}

/// Series, written as the client takes them.
struct Found {
    series: std::vec::IntoIter<SeriesExemplars>,
    begun: bool,
    warnings: Warnings,
}

impl response::Pieces for Found {
    fn fill(&mut self, out: &mut Vec<u8>) -> bool {
        response::list(out, &mut self.begun, &mut self.series, &self.warnings, |out, s| {
            out.extend_from_slice(br#"{"seriesLabels":"#);
            json::labels(out, &s.labels);
            out.extend_from_slice(br#","exemplars":["#);
            for (i, e) in s.exemplars.iter().enumerate() {
                out.extend_from_slice(if i > 0 {
                    br#",{"labels":"#.as_slice()
                } else {
                    br#"{"labels":"#.as_slice()
                });
                json::labels(out, &e.labels);
                out.extend_from_slice(br#","value":"#);
                json::value(out, e.value);
                out.extend_from_slice(br#","timestamp":"#);
                json::timestamp(out, e.ts_ms);
                out.push(b'}');
            }
            out.extend_from_slice(b"]}");
        })
    }
}
