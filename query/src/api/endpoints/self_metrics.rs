//! `status/self_metrics`: the process' own metrics as JSON, in the form that protobuf's JSON mapping gives
//! them.

use axum::extract::State;
use axum::response::Response;
use model::matcher::{MatchOp, Matcher};
use serde_json::{Map, Value, json};

use crate::api::admission::call::Call;
use crate::api::error::ApiError;
use crate::api::exposition::families::{Family, Histogram, Sample, families};
use crate::api::response;
use crate::api::run::QueryClass;
use crate::api::state::ApiState;

/// `GET /api/v1/status/self_metrics`: families whose name satisfies all of `metric_name_pattern`, all of them
/// where it is not given.
pub async fn self_metrics(State(state): State<ApiState>, call: Call) -> Result<Response, ApiError> {
    let inner = state.0.clone();
    state
        .run(call.work(QueryClass::Lookup), None, move |budget, _| {
            let pattern = call.form.get("metric_name_pattern");
            let pattern =
                (!pattern.is_empty()).then(|| Matcher::new(MatchOp::Regex, "name", pattern)).transpose();
            let pattern =
                pattern.map_err(|e| ApiError::bad_data(format!("invalid metric_name_pattern: {e}")))?;
            let text = inner.config.own_metrics.as_ref().map_or_else(String::new, |text| text());
            // As text, as a tree and as JSON.
            budget.reserve(16 * text.len() as u64)?;
            let families = families(&text);
            let named = |f: &&Family<'_>| pattern.as_ref().is_none_or(|p| p.matches(&f.name));
            let shown: Vec<Value> = families.iter().filter(named).map(family_json).collect();
            Ok(response::small(&shown))
        })
        .await
}

fn family_json(family: &Family<'_>) -> Value {
    let kind = match family.kind {
        "counter" => "COUNTER",
        "gauge" => "GAUGE",
        "histogram" => "HISTOGRAM",
        "summary" => "SUMMARY",
        "info" | "stateset" => "GAUGE",
        _ => "UNTYPED",
    };
    let metrics = match kind {
        "HISTOGRAM" => family.histograms().iter().map(histogram_json).collect(),
        _ => family.samples.iter().map(|s| single(s, kind)).collect(),
    };
    let mut json = Map::new();
    json.insert("name".into(), family.name.clone().into());
    if !family.help.is_empty() {
        json.insert("help".into(), family.help.clone().into());
    }
    json.insert("type".into(), kind.into());
    json.insert("metric".into(), metrics);
    Value::Object(json)
}

/// 64-bit integers are strings in protobuf's JSON.
fn histogram_json(histogram: &Histogram<'_, '_>) -> Value {
    let mut json = Map::new();
    if let Some(sum) = histogram.sum {
        json.insert("sampleSum".into(), number(sum));
    }
    if let Some(count) = histogram.count {
        json.insert("sampleCount".into(), count.into());
    }
    let bucket = |(le, sample): &(&str, &Sample<'_>)| json!({ "cumulativeCount": sample.value, "upperBound": number(le) });
    json.insert("bucket".into(), histogram.buckets.iter().map(bucket).collect());
    metric(&histogram.labels, "histogram", Value::Object(json))
}

fn single(sample: &Sample<'_>, kind: &str) -> Value {
    metric(&sample.labels, &kind.to_ascii_lowercase(), json!({ "value": number(sample.value) }))
}

fn metric(labels: &[(&str, String)], kind: &str, value: Value) -> Value {
    let mut metric = Map::new();
    if !labels.is_empty() {
        let labels: Vec<Value> = labels.iter().map(|(n, v)| json!({ "name": n, "value": v })).collect();
        metric.insert("label".into(), labels.into());
    }
    metric.insert(kind.into(), value);
    Value::Object(metric)
}

/// As protobuf's JSON has doubles: what JSON cannot express as a string.
fn number(text: &str) -> Value {
    match text.parse::<f64>() {
        Ok(v) if v.is_nan() => "NaN".into(),
        Ok(v) if v.is_infinite() => if v > 0.0 { "Infinity" } else { "-Infinity" }.into(),
        // Whole numbers are written as such.
        Ok(v) if v.fract() == 0.0 && v.abs() < 1e15 => (v as i64).into(),
        Ok(v) => v.into(),
        Err(_) => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn self_metrics_have_the_shape_of_protobufs_json() {
        let text = "# HELP hearth_up Is it \"up\"?\n# TYPE hearth_up gauge\nhearth_up 1\n\
                    # HELP hearth_x Requests.\n# TYPE hearth_x counter\n\
                    hearth_x_total{a=\"b\\\"c\",d=\"\"} 2.5 # {trace=\"1\"} 1\n\
                    # TYPE hearth_s histogram\n# UNIT hearth_s seconds\n\
                    hearth_s_sum{h=\"/\"} 0.5\nhearth_s_count{h=\"/\"} 3\nhearth_s_bucket{le=\"0.1\",h=\"/\"} 2\n\
                    hearth_s_bucket{le=\"+Inf\",h=\"/\"} 3\n# EOF\n";
        let all: Vec<Value> = families(text).iter().map(family_json).collect();
        let want = json!([
            {"name": "hearth_up", "help": "Is it \"up\"?", "type": "GAUGE", "metric": [{"gauge": {"value": 1}}]},
            {"name": "hearth_x_total", "help": "Requests.", "type": "COUNTER", "metric": [
                {"label": [{"name": "a", "value": "b\"c"}, {"name": "d", "value": ""}], "counter": {"value": 2.5}}
            ]},
            {"name": "hearth_s", "type": "HISTOGRAM", "metric": [
                {"label": [{"name": "h", "value": "/"}], "histogram": {
                    "sampleSum": 0.5, "sampleCount": "3", "bucket": [
                        {"cumulativeCount": "2", "upperBound": 0.1},
                        {"cumulativeCount": "3", "upperBound": "Infinity"}
                    ]}}
            ]}
        ]);
        assert_eq!(Value::from(all), want);
    }
}
