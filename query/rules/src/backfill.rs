//! Recording rules for the past: what they would have written at every slot, had they run then.
//!
//! Time is taken in pieces, oldest first, and in each piece the groups one after the other and their rules
//! in order, each as one range query at the group's own slots. What a rule gives is there for those after
//! it, and for all in later pieces. Alerting rules are left out: nobody wants to hear of them now.

use std::sync::Arc;

use model::labels::Labels;
use model::sample::{Value, is_stale};
use model::source::Source;
use model::source::memory::MemorySource;
use model::source::merge::MergedSource;
use query::engine::{Engine, QueryRequest};
use query::value::{QueryValue, RangeSeries};

use crate::group::error::EvaluationError;
use crate::group::evaluate::recorded_labels;
use crate::group::runner::slot_ms;
use crate::group::schedule::Slots;
use crate::group::{CompiledRule, Group};

/// Length of a piece.
const PIECE_MS: i64 = 2 * 3600 * 1000;

/// What was computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filled {
    pub samples: u64,
    /// Alerting rules that were left out.
    pub skipped: usize,
}

/// Why rules were not computed for the past.
#[derive(Debug, thiserror::Error)]
pub enum BackfillError {
    #[error("{file}: group {group}, rule {rule}: {cause}")]
    Rule {
        file: String,
        group: String,
        rule: String,
        #[source]
        cause: Box<EvaluationError>,
    },
    /// Whoever hears of the pieces said so.
    #[error("stopped")]
    Stopped,
}

/// Computes the rules of groups from `min_t_ms` to `max_t_ms`, both included, over a history; the samples
/// are put into `out`, which may have those of an earlier stretch of time. `told` hears of each piece that
/// is done and says whether to go on.
pub fn fill(
    groups: &[Group],
    engine: &Engine,
    history: &Arc<dyn Source>,
    (min_t_ms, max_t_ms): (i64, i64),
    out: &Arc<MemorySource>,
    mut told: impl FnMut(i64) -> bool,
) -> Result<Filled, BackfillError> {
    let recorded: Arc<dyn Source> = out.clone();
    let source = MergedSource::new(vec![history.clone(), recorded]);
    let mut filled = Filled {
        skipped: groups.iter().flat_map(|g| &g.rules).filter(|r| r.rule.is_alert()).count(),
        samples: 0,
    };
    let mut from_ms = min_t_ms;
    while from_ms <= max_t_ms {
        let to_ms = max_t_ms.min(from_ms.saturating_add(PIECE_MS - 1));
        for group in groups {
            for rule in group.rules.iter().filter(|r| !r.rule.is_alert()) {
                let written = fill_rule(group, rule, engine, &source, (from_ms, to_ms), out);
                filled.samples += written.map_err(|cause| BackfillError::Rule {
                    file: group.key.file.clone(),
                    group: group.key.name.clone(),
                    rule: rule.rule.name().to_owned(),
                    cause: Box::new(cause),
                })?;
            }
        }
        if !told(to_ms) {
            return Err(BackfillError::Stopped);
        }
        from_ms = to_ms.saturating_add(1);
    }
    Ok(filled)
}

fn fill_rule(
    group: &Group,
    rule: &CompiledRule,
    engine: &Engine,
    source: &dyn Source,
    (from_ms, to_ms): (i64, i64),
    out: &MemorySource,
) -> Result<u64, EvaluationError> {
    let slots = Slots::new(&group.key.file, &group.key.name, group.interval_ms);
    let offset_ms = group.query_offset_ms;
    // Samples stand at the slot less the offset.
    let start_ms = slot_ms(slots.after((from_ms + offset_ms).saturating_mul(1_000_000) - 1)) - offset_ms;
    if start_ms > to_ms {
        return Ok(0);
    }
    let request = QueryRequest::range(&rule.rule.expr, start_ms, to_ms, group.interval_ms);
    let answer = engine.run(source, &request)?;
    let QueryValue::RangeVector(matrix) = answer.value.with_times() else {
        return Err(EvaluationError::NotAVector);
    };
    let mut written = 0;
    let mut labels_seen = std::collections::HashSet::new();
    for series in matrix {
        let labels = recorded_labels(rule, &series.labels);
        if !labels_seen.insert(labels.clone()) {
            return Err(EvaluationError::SameLabels);
        }
        written += put(out, &labels, &series);
    }
    Ok(written)
}

fn put(out: &MemorySource, labels: &Labels, series: &RangeSeries) -> u64 {
    for (ts_ms, v) in series.ts_ms.iter().zip(&series.values) {
        if !is_stale(*v) {
            out.append_float(labels, *ts_ms, *v);
        }
    }
    for (ts_ms, h) in series.histogram_ts_ms.iter().zip(&series.histograms) {
        out.append(labels, *ts_ms, Value::Histogram(h.clone()), 0);
    }
    series.len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::{FileOptions, parse};
    use crate::group::Defaults;
    use crate::group::evaluate::vector;
    use model::tenant::TenantId;
    use query::parse::ParseOptions;

    #[test]
    fn rules_are_filled_at_their_slots_and_read_one_another() {
        let text = "groups:
- name: g
  rules:
  - {record: r, expr: sum(up), labels: {l: v}}
  - {record: s, expr: 'count_over_time(r[10m])'}
  - {alert: A, expr: up}
- name: h
  interval: 30s
  query_offset: 1m
  rules: [{record: t, expr: time()}]
";
        let specs = parse(text, &FileOptions::default()).unwrap();
        let make = |spec| {
            let defaults = Defaults::default();
            Group::new(TenantId::single(), "f", spec, &defaults, &ParseOptions::default()).unwrap()
        };
        let groups: Vec<Group> = specs.into_iter().map(make).collect();
        let history = MemorySource::new();
        let hour = 3_600_000;
        for minute in 0..300 {
            for i in ["a", "b"] {
                let labels = Labels::from_pairs([("__name__", "up"), ("i", i)]);
                history.append_float(&labels, minute * 60_000, 1.0);
            }
        }
        let history: Arc<dyn Source> = Arc::new(history);
        let out = Arc::new(MemorySource::new());
        let engine = Engine::default();
        let mut pieces = 0;
        let filled = fill(&groups, &engine, &history, (hour, 4 * hour), &out, |_| {
            pieces += 1;
            true
        })
        .unwrap();
        assert_eq!((pieces, filled.skipped), (2, 1));
        let ask = |text: &str, at_ms: i64| {
            let found = vector(&engine, &*out, text, at_ms).unwrap().result;
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            let Value::Float(v) = found[0].value else { panic!() };
            (found[0].labels.to_string(), v)
        };
        assert_eq!(ask("r", 2 * hour), (r#"{__name__="r", l="v"}"#.to_string(), 2.0));
        // Across the border of pieces too.
        assert_eq!(ask("s", 3 * hour + 120_000).1, 10.0);
        let slots = Slots::new("f", "h", 30_000);
        let (_, t) = ask("t", 2 * hour);
        let slot = slots.at_or_before((2 * hour + 60_000) * 1_000_000);
        assert_eq!(t, (slot_ms(slot) - 60_000) as f64 / 1000.0);
        let stopped = fill(&groups, &engine, &history, (hour, 4 * hour), &out, |_| false);
        assert!(matches!(stopped, Err(BackfillError::Stopped)));
    }
}
