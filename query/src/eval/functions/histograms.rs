//! Quantiles and fractions over vectors that hold native histograms, classic buckets, or both.

use hashbrown::HashMap;
use tsdb::histogram::Histogram;
use tsdb::labels::Labels;

use super::quantile::{
    ClassicBucket, NanNote, classic_fraction, classic_quantile, histogram_fraction, histogram_quantile,
};
use super::rows::UniqueRows;
use super::{Entry, Run};
use crate::annotations::{go_float, quoted};
use crate::eval::Evaluator;
use crate::eval::frame::{Frame, Point, Val};
use crate::parse::Span;
use crate::plan::{Call, PlanExpr};
use crate::value::QueryError;

pub static TABLE: &[Entry] = &[
    Entry { name: "histogram_quantile", run: Run::Special(quantile) },
    Entry { name: "histogram_quantiles", run: Run::Special(quantiles) },
    Entry { name: "histogram_fraction", run: Run::Special(fraction) },
];

const LE: &str = "le";

/// The classic histograms of a frame, put together once for all steps: labels without `le`, and the rows that are their buckets.
struct Classic {
    labels: Labels,
    /// `(le, row)`
    buckets: Vec<(f64, usize)>,
}

/// A frame sorted into native and classic histograms.
struct Histograms {
    frame: Frame,
    classic: Vec<Classic>,
    /// Rows that hold histograms, with the classic histogram of the same labels where there is one.
    native: Vec<(usize, Option<usize>)>,
}

/// A number as label values are written: `1.0`, `0.99`, `+Inf`, `1e+06`.
fn open_metrics_float(v: f64) -> String {
    let text = go_float(v);
    if v.is_finite() && !text.contains(['e', '.']) { format!("{text}.0") } else { text }
}

fn for_metric(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!(" for metric name {}", quoted(name)) }
}

impl Histograms {
    fn new(ev: &mut Evaluator<'_>, arg: &PlanExpr) -> Result<Self, QueryError> {
        let frame = ev.eval_vector(arg)?;
        let mut classic: Vec<Classic> = Vec::new();
        let mut by_labels: HashMap<Labels, usize> = HashMap::new();
        let mut native = Vec::new();
        for (at, row) in frame.rows.iter().enumerate() {
            if row.column.histogram_count() > 0 {
                native.push((at, None));
            }
            if row.column.float_count() == 0 {
                continue;
            }
            let Ok(le) = row.labels.value(LE).parse::<f64>() else {
                let name = ev.annotated_name(&row.labels);
                let text = format!(
                    "bucket label \"le\" is missing or has a malformed value of {}{}",
                    quoted(row.labels.value(LE)),
                    for_metric(name)
                );
                ev.notes.warn(arg.span, text);
                continue;
            };
            let labels = row.labels.filter(|n, _| n != LE);
            let group = *by_labels.entry(labels.clone()).or_insert_with(|| {
                classic.push(Classic { labels, buckets: Vec::new() });
                classic.len() - 1
            });
            classic[group].buckets.push((le, at));
        }
        for (at, group) in &mut native {
            *group = by_labels.get(&frame.rows[*at].labels).copied();
        }
        Ok(Histograms { frame, classic, native })
    }

    /// The histograms of one step: natives to `native`, then classic ones to `classic`. Where both have the same labels neither is
    /// answered, and a warning says so.
    fn at_step(
        &self,
        ev: &mut Evaluator<'_>,
        span: Span,
        step: usize,
        mut native: impl FnMut(&mut Evaluator<'_>, &Labels, &Histogram) -> Result<(), QueryError>,
        mut classic: impl FnMut(&mut Evaluator<'_>, &Labels, &mut Vec<ClassicBucket>) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        let buckets_at = |group: &Classic, buckets: &mut Vec<ClassicBucket>| {
            buckets.clear();
            buckets.extend(group.buckets.iter().filter_map(|(le, row)| {
                let count = self.frame.rows[*row].column.float(step)?;
                Some(ClassicBucket { le: *le, count })
            }));
        };
        let mut buckets = Vec::new();
        let mut conflicting = Vec::new();
        for (at, group) in &self.native {
            let row = &self.frame.rows[*at];
            let Some(Point::Histogram(h)) = row.column.get(step) else { continue };
            if let Some(group) = group {
                buckets_at(&self.classic[*group], &mut buckets);
                if !buckets.is_empty() {
                    let name = for_metric(ev.annotated_name(&row.labels));
                    ev.notes
                        .warn(span, format!("vector contains a mix of classic and native histograms{name}"));
                    conflicting.push(*group);
                    continue;
                }
            }
            native(ev, &row.labels, h)?;
        }
        for (i, group) in self.classic.iter().enumerate() {
            if conflicting.contains(&i) {
                continue;
            }
            buckets_at(group, &mut buckets);
            if !buckets.is_empty() {
                classic(ev, &group.labels, &mut buckets)?;
            }
        }
        Ok(())
    }
}

fn note_nans(ev: &mut Evaluator<'_>, span: Span, labels: &Labels, note: Option<NanNote>) {
    let text = match note {
        None => return,
        Some(NanNote::ResultIsNan) => "input to histogram_quantile has NaN observations, result is NaN",
        Some(NanNote::SkewedHigher) => {
            "input to histogram_quantile has NaN observations, result is skewed higher"
        }
        Some(NanNote::LeftOut) => {
            "input to histogram_fraction has NaN observations, which are excluded from all fractions"
        }
    };
    let name = for_metric(ev.annotated_name(labels));
    ev.notes.info(span, format!("{text}{name}"));
}

fn check_quantile(ev: &mut Evaluator<'_>, span: Span, q: f64) {
    if q.is_nan() || !(0.0..=1.0).contains(&q) {
        ev.notes.warn(span, format!("quantile value should be between 0 and 1, got {}", go_float(q)));
    }
}

/// The quantiles of every histogram at every step. `label` names each quantile's own series where there are several.
fn quantiles_of(
    ev: &mut Evaluator<'_>,
    arg: &PlanExpr,
    qs: &[(Span, Vec<f64>)],
    label: Option<&str>,
) -> Result<Val, QueryError> {
    let histograms = Histograms::new(ev, arg)?;
    let steps = ev.steps.count;
    let mut out = UniqueRows::default();
    for step in 0..steps {
        ev.budget.check()?;
        for (span, values) in qs {
            check_quantile(ev, *span, values[step]);
        }
        for (_, values) in qs {
            let q = values[step];
            let named = |labels: &Labels| match label {
                None => labels.clone(),
                Some(label) => labels.to_builder().set(label, &open_metrics_float(q)).build(),
            };
            let t_ms = ev.steps.at(step);
            let mut answers: Vec<(Labels, f64)> = Vec::new();
            // Two closures cannot both hold the output, so natives and classics are gathered one after the other.
            let mut classic_answers: Vec<(Labels, f64)> = Vec::new();
            histograms.at_step(
                ev,
                arg.span,
                step,
                |ev, labels, h| {
                    let (v, note) = histogram_quantile(q, h);
                    note_nans(ev, arg.span, labels, note);
                    answers.push((named(&ev.name_dropped(labels).0), v));
                    Ok(())
                },
                |ev, labels, buckets| {
                    let (v, forced) = classic_quantile(q, buckets);
                    if let Some(f) = forced {
                        let name = ev.annotated_name(labels);
                        ev.notes.forced_monotonicity(
                            arg.span,
                            name,
                            t_ms,
                            f.min_bucket,
                            f.max_bucket,
                            f.max_diff,
                        );
                    }
                    classic_answers.push((named(&ev.name_dropped(labels).0), v));
                    Ok(())
                },
            )?;
            for (labels, v) in answers.into_iter().chain(classic_answers) {
                out.set_float(&labels, true, (step, steps), v)?;
            }
        }
    }
    Ok(out.into_val())
}

fn quantile(ev: &mut Evaluator<'_>, call: &Call) -> Result<Val, QueryError> {
    let q = ev.eval_scalar(&call.args[0])?;
    quantiles_of(ev, &call.args[1], &[(call.args[0].span, q)], None)
}

fn quantiles(ev: &mut Evaluator<'_>, call: &Call) -> Result<Val, QueryError> {
    let label = match call.args[1].as_string() {
        Some(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        None => return Err(QueryError::internal("a string literal was planned, something else came")),
    };
    let mut qs = Vec::new();
    for arg in &call.args[2..] {
        qs.push((arg.span, ev.eval_scalar(arg)?));
    }
    quantiles_of(ev, &call.args[0], &qs, Some(&label))
}

fn fraction(ev: &mut Evaluator<'_>, call: &Call) -> Result<Val, QueryError> {
    let lower = ev.eval_scalar(&call.args[0])?;
    let upper = ev.eval_scalar(&call.args[1])?;
    let arg = &call.args[2];
    let histograms = Histograms::new(ev, arg)?;
    let steps = ev.steps.count;
    let mut out = UniqueRows::default();
    for step in 0..steps {
        ev.budget.check()?;
        let (lower, upper) = (lower[step], upper[step]);
        let mut answers: Vec<(Labels, f64)> = Vec::new();
        let mut classic_answers: Vec<(Labels, f64)> = Vec::new();
        histograms.at_step(
            ev,
            arg.span,
            step,
            |ev, labels, h| {
                let (v, note) = histogram_fraction(lower, upper, h);
                note_nans(ev, arg.span, labels, note);
                answers.push((ev.name_dropped(labels).0, v));
                Ok(())
            },
            |ev, labels, buckets| {
                classic_answers.push((ev.name_dropped(labels).0, classic_fraction(lower, upper, buckets)));
                Ok(())
            },
        )?;
        for (labels, v) in answers.into_iter().chain(classic_answers) {
            out.set_float(&labels, true, (step, steps), v)?;
        }
    }
    Ok(out.into_val())
}
