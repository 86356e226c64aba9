//! From an exposition to the store, with the labels that say where it came from.

use super::Exposition;
use crate::limits::Limits;
use crate::reject::Reason;
use crate::remote_write::sink::Sink;
use crate::remote_write::validate::{Float, Outcome, Validator};
use model::labels::METRIC_NAME;

/// Hands all samples and metadata of an exposition to `sink` (an appender, to be committed by the caller).
///
/// `target` are the labels of the target, `job` and `instance` above all. They win over labels of the same
/// name in the text, which are kept under `exported_` and their name, as a scrape without `honor_labels`
/// does. Samples without a time get `now_ms`. The rules are those of a remote write; what breaks them is left
/// out and told of in the outcome.
pub fn append(
    exposition: &Exposition<'_>,
    target: &[(&str, &str)],
    limits: &Limits,
    now_ms: i64,
    sink: &mut impl Sink,
) -> Outcome {
    let exported: Vec<String> = target.iter().map(|(name, _)| format!("exported_{name}")).collect();
    let mut validator = Validator::new(exposition.samples.len(), limits, now_ms, sink);
    // A sink of text has memory for it: the text is in memory as a whole.
    for family in &exposition.families {
        let _ = validator.metadata(&family.name, family.kind, &family.help, family.unit);
    }
    for sample in &exposition.samples {
        validator.label_str(METRIC_NAME, &sample.name);
        for (name, value) in target {
            validator.label_str(name, value);
        }
        for (name, value) in exposition.labels(sample) {
            let name = match target.iter().position(|(t, _)| t == name) {
                Some(at) => exported[at].as_str(),
                None => name,
            };
            validator.label_str(name, value);
        }
        let float = Float { ts_ms: sample.ts_ms.unwrap_or(now_ms), value: sample.value, start_ts_ms: 0 };
        match validator.float(float, &[]).and_then(|()| validator.end_series()) {
            Ok(_) => {}
            // There is room for one sample a line; this only keeps a miscount from passing silently.
            Err(_) => validator.refuse_series(Reason::OutOfBounds, "more samples than were announced"),
        }
    }
    validator.outcome.exemplars_dropped = exposition.exemplars;
    validator.outcome
}
