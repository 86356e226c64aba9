//! From an exposition to the store, with the labels that say where it came from.

use super::Exposition;
use crate::limits::Limits;
use crate::reject::Reason;
use crate::remote_write::sink::Sink;
use crate::remote_write::validate::{Float, Outcome, Validator};
use model::labels::METRIC_NAME;

/// Hands all samples, exemplars and metadata of an exposition to `sink` (an appender, to be committed by the
/// caller).
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
    let most = exposition.samples.len() + exposition.exemplars.len();
    let mut validator = Validator::new(most, limits, now_ms, sink);
    // A sink of text has memory for it: the text is in memory as a whole.
    for family in &exposition.families {
        let _ = validator.metadata(&family.name, family.kind, &family.help, family.unit);
    }
    let mut exemplars = exposition.exemplars.iter().peekable();
    for (at, sample) in exposition.samples.iter().enumerate() {
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
        let mut handed = validator.float(float, &[]);
        while let Some(exemplar) = exemplars.next_if(|exemplar| exemplar.sample == at) {
            for (name, value) in exposition.exemplar_labels(exemplar) {
                validator.exemplar_label_str(name, value);
            }
            let ts_ms = exemplar.ts_ms.unwrap_or(float.ts_ms);
            handed = handed.and_then(|()| validator.end_exemplar(ts_ms, exemplar.value, &[]).map(|_| ()));
        }
        match handed.and_then(|()| validator.end_series()) {
            Ok(_) => {}
            // There is room for what each line has; this only keeps a miscount from passing silently.
            Err(_) => validator.refuse_series(Reason::OutOfBounds, "more samples than were announced"),
        }
    }
    validator.outcome
}
