//! `status/self_metrics`: the process' own metrics as JSON, in the form that protobuf's JSON mapping gives
//! them.

use axum::extract::State;
use axum::response::Response;
use model::matcher::{MatchOp, Matcher};
use serde_json::{Map, Value, json};

use crate::api::admission::call::Call;
use crate::api::error::ApiError;
use crate::api::response;
use crate::api::run::QueryClass;
use crate::api::state::ApiState;

/// `GET /api/v1/status/self_metrics`: families whose name satisfies all of `metric_name_pattern`, all of them
/// where it is not given.
pub async fn self_metrics(State(state): State<ApiState>, call: Call) -> Result<Response, ApiError> {
    let inner = state.0.clone();
    state
        .run(QueryClass::Lookup, None, move |budget, _| {
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
            let shown: Vec<Value> = families.iter().filter(named).map(Family::json).collect();
            Ok(response::small(&shown))
        })
        .await
}

/// A metric of OpenMetrics text, its samples as they stand there.
#[derive(Debug)]
struct Family<'a> {
    /// As Prometheus' text has it: counters with `_total`.
    name: String,
    kind: &'a str,
    help: &'a str,
    samples: Vec<Sample<'a>>,
}

#[derive(Debug)]
struct Sample<'a> {
    name: &'a str,
    labels: Vec<(&'a str, String)>,
    value: &'a str,
}

/// The families of text that this process wrote itself: nothing in it is surprising.
fn families(text: &str) -> Vec<Family<'_>> {
    let mut all: Vec<Family<'_>> = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            let mut words = rest.splitn(3, ' ');
            let (what, name, rest) = (words.next(), words.next().unwrap_or(""), words.next().unwrap_or(""));
            if matches!(what, Some("HELP" | "TYPE")) && all.last().is_none_or(|f| f.name != name) {
                all.push(Family { name: name.to_owned(), kind: "unknown", help: "", samples: Vec::new() });
            }
            match (what, all.last_mut()) {
                (Some("HELP"), Some(family)) => family.help = rest,
                (Some("TYPE"), Some(family)) => family.kind = rest,
                _ => {}
            }
        } else if let (Some(sample), Some(family)) = (sample(line), all.last_mut()) {
            family.samples.push(sample);
        }
    }
    for family in &mut all {
        if family.kind == "counter" {
            family.name.push_str("_total");
        }
    }
    all.retain(|f| !f.samples.is_empty());
    all
}

fn sample(line: &str) -> Option<Sample<'_>> {
    // An exemplar stands behind the value.
    let line = line.split_once(" # ").map_or(line, |(sample, _)| sample);
    let Some((name, rest)) = line.split_once('{') else {
        let (name, value) = line.split_once(' ')?;
        return Some(Sample { name, labels: Vec::new(), value: value.split(' ').next()? });
    };
    let mut rest = rest;
    let mut labels = Vec::new();
    while !rest.starts_with('}') {
        let (label, after) = rest.split_once("=\"")?;
        let (value, after) = unquoted(after)?;
        labels.push((label, value));
        rest = after.strip_prefix(',').unwrap_or(after);
    }
    Some(Sample { name, labels, value: rest[1..].trim_start().split(' ').next()? })
}

/// Up to the closing quote, and what is behind it.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((out, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => out.push('\n'),
                c => out.push(c),
            },
            c => out.push(c),
        }
    }
    None
}

impl Family<'_> {
    fn json(&self) -> Value {
        let kind = match self.kind {
            "counter" => "COUNTER",
            "gauge" => "GAUGE",
            "histogram" => "HISTOGRAM",
            "summary" => "SUMMARY",
            "info" | "stateset" => "GAUGE",
            _ => "UNTYPED",
        };
        let metrics = match kind {
            "HISTOGRAM" => self.histograms(),
            _ => self.samples.iter().map(|s| single(s, kind)).collect(),
        };
        let mut family = Map::new();
        family.insert("name".into(), self.name.clone().into());
        if !self.help.is_empty() {
            family.insert("help".into(), self.help.into());
        }
        family.insert("type".into(), kind.into());
        family.insert("metric".into(), metrics);
        Value::Object(family)
    }

    /// Buckets, sum and count of the same labels are one metric.
    fn histograms(&self) -> Value {
        let mut metrics: Vec<(Pairs<'_>, Map<String, Value>)> = Vec::new();
        for sample in &self.samples {
            let labels: Pairs<'_> = sample.labels.iter().filter(|(name, _)| *name != "le").cloned().collect();
            if metrics.last().is_none_or(|(last, _)| *last != labels) {
                metrics.push((labels, Map::new()));
            }
            let Some((_, histogram)) = metrics.last_mut() else { continue };
            // 64-bit integers are strings in protobuf's JSON.
            match sample.name.strip_prefix(self.name.as_str()) {
                Some("_sum") => drop(histogram.insert("sampleSum".into(), number(sample.value))),
                Some("_count") => drop(histogram.insert("sampleCount".into(), sample.value.into())),
                Some("_bucket") => {
                    let le = sample.labels.iter().find(|(name, _)| *name == "le");
                    let bound = le.map_or(Value::Null, |(_, le)| number(le));
                    let bucket = json!({ "cumulativeCount": sample.value, "upperBound": bound });
                    let buckets = histogram.entry("bucket").or_insert_with(|| json!([]));
                    if let Value::Array(buckets) = buckets {
                        buckets.push(bucket);
                    }
                }
                _ => {}
            }
        }
        metrics.into_iter().map(|(labels, h)| metric(&labels, "histogram", Value::Object(h))).collect()
    }
}

/// Labels with their values.
type Pairs<'a> = Vec<(&'a str, String)>;

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
        let all: Vec<Value> = families(text).iter().map(Family::json).collect();
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
