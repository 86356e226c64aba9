//! What one rule gives at one time: samples to write, or candidates for alerts.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use model::labels::{Labels, METRIC_NAME};
use model::sample::Value;
use model::source::Source;
use query::engine::{Engine, QueryRequest};
use query::value::{InstantSample, QueryValue};

use super::error::EvaluationError;
use super::{CompiledRule, Row};
use crate::alert::{ALERT_NAME, Candidate};
use crate::file::RuleKind;
use crate::template::{self, Data, External, Sample, expand_or_tell};

/// A result with its cost.
pub struct Evaluated<T> {
    pub result: T,
    /// Samples that came out of the store.
    pub samples_read: u64,
}

/// An instant query as rules ask it: a scalar counts as one series without labels.
pub fn vector(
    engine: &Engine,
    source: &dyn Source,
    expr: &str,
    time_ms: i64,
) -> Result<Evaluated<Vec<InstantSample>>, EvaluationError> {
    let answer = engine.run(source, &QueryRequest::instant(expr, time_ms))?;
    let result = match answer.value {
        QueryValue::Vector { samples, .. } => samples,
        QueryValue::Scalar { value, .. } => {
            vec![InstantSample { labels: Labels::empty(), value: Value::Float(value) }]
        }
        _ => return Err(EvaluationError::NotAVector),
    };
    Ok(Evaluated { result, samples_read: answer.stats.samples_read })
}

/// The samples of a recording rule, all at `time_ms`.
pub fn recording(
    engine: &Engine,
    source: &dyn Source,
    rule: &CompiledRule,
    time_ms: i64,
) -> Result<Evaluated<Vec<Row>>, EvaluationError> {
    let Evaluated { result, samples_read } = vector(engine, source, &rule.rule.expr, time_ms)?;
    let rows = recorded(rule, result, time_ms)?;
    Ok(Evaluated { result: rows, samples_read })
}

/// A result under the rule's name and labels.
pub fn recorded(
    rule: &CompiledRule,
    result: Vec<InstantSample>,
    time_ms: i64,
) -> Result<Vec<Row>, EvaluationError> {
    let mut labels_seen = HashSet::with_capacity(result.len());
    let mut rows = Vec::with_capacity(result.len());
    for sample in result {
        let labels = recorded_labels(rule, &sample.labels);
        if !labels_seen.insert(labels.clone()) {
            return Err(EvaluationError::SameLabels);
        }
        rows.push(Row { labels, ts_ms: time_ms, value: sample.value });
    }
    let limit = rule.timing.limit;
    if limit > 0 && rows.len() as i64 > limit {
        return Err(EvaluationError::Limit { limit, series: rows.len() });
    }
    Ok(rows)
}

/// The labels of a recorded series; a label of the rule whose value is empty takes the series' own away.
pub fn recorded_labels(rule: &CompiledRule, labels: &Labels) -> Labels {
    let mut b = labels.to_builder();
    b.set(METRIC_NAME, rule.rule.name());
    for (name, value) in &rule.labels {
        b.set(name, value);
    }
    b.build()
}

/// The candidates of an alerting rule, labels and annotations expanded.
pub fn alerting(
    engine: &Engine,
    source: &dyn Source,
    rule: &CompiledRule,
    query_ms: i64,
    slot_ms: i64,
    external: &External,
) -> Result<Evaluated<Vec<Candidate>>, EvaluationError> {
    let Evaluated { result, samples_read } = vector(engine, source, &rule.rule.expr, query_ms)?;
    let ask = |text: &str| -> Result<Vec<Sample>, String> {
        // Read by whoever reads the template's own error.
        let answer = vector(engine, source, text, slot_ms).map_err(|e| e.to_string())?;
        Ok(answer.result.iter().map(template_sample).collect())
    };
    let candidates = result.into_iter().map(|sample| candidate(rule, &sample, slot_ms, external, &ask));
    Ok(Evaluated { result: candidates.collect(), samples_read })
}

fn map_of(labels: &Labels) -> Arc<BTreeMap<String, String>> {
    Arc::new(labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect())
}

fn template_value(value: &Value) -> template::Value {
    match value {
        Value::Float(v) => template::Value::Float(*v),
        Value::Histogram(h) => template::Value::Histogram(h.clone()),
    }
}

fn template_sample(sample: &InstantSample) -> Sample {
    Sample { labels: map_of(&sample.labels), value: template_value(&sample.value) }
}

fn candidate(
    rule: &CompiledRule,
    sample: &InstantSample,
    slot_ms: i64,
    external: &External,
    ask: &dyn Fn(&str) -> Result<Vec<Sample>, String>,
) -> Candidate {
    let data = Data {
        labels: map_of(&sample.labels),
        value: template_value(&sample.value),
        external,
        query: ask,
        now_ms: slot_ms,
    };
    let name = format!("__alert_{}", rule.rule.name());
    let expand = |text: &str| match text.contains("{{") {
        true => expand_or_tell(text, &name, &data),
        false => text.to_owned(),
    };
    let mut labels = sample.labels.to_builder();
    labels.remove(METRIC_NAME);
    for (label, text) in &rule.labels {
        labels.set(label, &expand(text));
    }
    labels.set(ALERT_NAME, rule.rule.name());
    let annotations = match &rule.rule.kind {
        RuleKind::Alert { annotations, .. } => {
            annotations.iter().map(|(label, text)| (label.clone(), expand(text))).collect()
        }
        RuleKind::Record(_) => BTreeMap::new(),
    };
    Candidate { labels: labels.build(), annotations, value: sample.value.clone() }
}
