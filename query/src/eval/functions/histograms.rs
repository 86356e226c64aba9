//! Quantiles and fractions over vectors that hold native histograms, classic buckets, or both.
//!
//! The buckets of classic histograms are put together once for all steps; then each histogram is computed by
//! itself, on as many cores as are worth it.

use hashbrown::HashMap;
use model::histogram::Histogram;
use model::labels::Labels;
use model::quote::quote;
use model::source::{Budget, SourceError};
use rayon::prelude::*;

use super::kernel::{Entry, Kernel};
use super::quantile::{
    ClassicBucket, NanNote, classic_fraction, classic_quantile, histogram_fraction, histogram_quantile,
};
use crate::annotations::{Annotations, go_float};
use crate::column::Column;
use crate::eval::evaluator::{Evaluator, SAME_LABELSET, column_bytes, label_bytes};
use crate::eval::frame::{Frame, Row, Val};
use crate::parse::Span;
use crate::plan::{Call, PlanExpr};
use crate::value::QueryError;

pub static TABLE: &[Entry] = &[
    Entry { name: "histogram_quantile", kernel: Kernel::Whole(quantile) },
    Entry { name: "histogram_quantiles", kernel: Kernel::Whole(quantiles) },
    Entry { name: "histogram_fraction", kernel: Kernel::Whole(fraction) },
];

const LE: &str = "le";

/// From how many slots on the work is worth more than one core.
const PARALLEL_FROM: usize = 1 << 12;

/// One histogram over all steps: a row that holds native ones, rows that are classic buckets, or both under
/// the same labels.
struct Source {
    /// Without `le` where there are classic buckets.
    labels: Labels,
    native: Option<usize>,
    /// `(le, row)`, ascending by `le`.
    classic: Vec<(f64, usize)>,
}

/// What stands at one step.
enum Input<'a> {
    Native(&'a Histogram),
    Classic(&'a mut Vec<ClassicBucket>),
}

/// The answers of one histogram: a column for each set of labels.
type Answers = Vec<(Labels, Column)>;

/// A number as label values are written: `1.0`, `0.99`, `+Inf`, `1e+06`.
fn open_metrics_float(v: f64) -> String {
    let text = go_float(v);
    if v.is_finite() && !text.contains(['e', '.']) { format!("{text}.0") } else { text }
}

fn for_metric(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!(" for metric name {}", quote(name)) }
}

/// What one histogram's computation writes to.
struct Sink<'a> {
    span: Span,
    /// For annotations; empty unless names are kept to the end.
    metric: &'a str,
    labels: &'a Labels,
    steps: usize,
    notes: Annotations,
    answers: Answers,
    /// Places in `answers` by the value of the further label.
    by_value: HashMap<String, usize>,
    /// Two answers fell on one step of one series.
    collided: bool,
    budget: &'a Budget,
    /// Bytes that the answers took of the budget.
    reserved: u64,
    error: Option<SourceError>,
}

impl Sink<'_> {
    /// Sets an answer. `label` is one more label of its series.
    fn set(&mut self, step: usize, v: f64, label: Option<(&str, &str)>) {
        let known = match label {
            None => (!self.answers.is_empty()).then_some(0),
            Some((_, value)) => self.by_value.get(value).copied(),
        };
        let at = match known {
            Some(at) => at,
            None => {
                let labels = match label {
                    None => self.labels.clone(),
                    Some((n, value)) => self.labels.to_builder().set(n, value).build(),
                };
                let bytes = column_bytes(self.steps) + 2 * label_bytes(&labels);
                if let Err(e) = self.budget.reserve(bytes) {
                    self.error = Some(e);
                    return;
                }
                self.reserved += bytes;
                if let Some((_, value)) = label {
                    self.by_value.insert(value.to_string(), self.answers.len());
                }
                self.answers.push((labels, Column::new(self.steps)));
                self.answers.len() - 1
            }
        };
        let column = &mut self.answers[at].1;
        self.collided |= column.float(step).is_some();
        column.set_float(step, v);
    }

    fn note_nans(&mut self, note: Option<NanNote>) {
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
        self.notes.info(self.span, format!("{text}{}", for_metric(self.metric)));
    }
}

/// Sorts the rows of a frame into histograms, natives first. Rows whose `le` is no number are left out with a
/// warning.
fn sources(ev: &mut Evaluator<'_>, frame: &Frame, span: Span) -> Vec<Source> {
    let mut sources: Vec<Source> = Vec::new();
    let mut by_labels: HashMap<Labels, usize> = HashMap::new();
    for (at, row) in frame.rows.iter().enumerate().filter(|(_, r)| r.column.histogram_count() > 0) {
        by_labels.insert(row.labels.clone(), sources.len());
        sources.push(Source { labels: row.labels.clone(), native: Some(at), classic: Vec::new() });
    }
    for (at, row) in frame.rows.iter().enumerate().filter(|(_, r)| r.column.float_count() > 0) {
        let Ok(le) = row.labels.value(LE).parse::<f64>() else {
            let named = ev.options.delayed_name_removal;
            let name = for_metric(if named { row.labels.metric_name().unwrap_or("") } else { "" });
            let le = quote(row.labels.value(LE));
            ev.notes
                .warn(span, format!("bucket label \"le\" is missing or has a malformed value of {le}{name}"));
            continue;
        };
        let labels = row.labels.filter(|n, _| n != LE);
        let source = *by_labels.entry(labels.clone()).or_insert_with(|| {
            sources.push(Source { labels, native: None, classic: Vec::new() });
            sources.len() - 1
        });
        sources[source].classic.push((le, at));
    }
    for source in &mut sources {
        source.classic.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    sources
}

/// Runs `compute` for every histogram of a vector at every step where there is one.
fn each_histogram(
    ev: &mut Evaluator<'_>,
    arg: &PlanExpr,
    frame: Frame,
    answers_each: usize,
    compute: impl Fn(&mut Sink<'_>, usize, Input<'_>) + Sync,
) -> Result<Val, QueryError> {
    let sources = sources(ev, &frame, arg.span);
    let steps = ev.steps.count;
    ev.expect_rows(sources.len().saturating_mul(answers_each), steps)?;
    let budget = ev.budget.clone();
    let named = ev.options.delayed_name_removal;

    let one = |source: &Source| -> Result<(Answers, Annotations, u64), QueryError> {
        budget.check()?;
        let labels =
            if named { source.labels.clone() } else { crate::eval::frame::without_name(&source.labels) };
        let metric = if named { source.labels.metric_name().unwrap_or("") } else { "" };
        let mut sink = Sink {
            span: arg.span,
            metric,
            labels: &labels,
            steps,
            notes: Annotations::new(),
            answers: Vec::new(),
            by_value: HashMap::new(),
            collided: false,
            budget: &budget,
            reserved: 0,
            error: None,
        };
        let mut buckets = Vec::with_capacity(source.classic.len());
        for step in 0..steps {
            if step % 64 == 0 {
                budget.check()?;
            }
            if let Some(e) = sink.error {
                return Err(e.into());
            }
            let native = source.native.and_then(|row| frame.rows[row].column.histogram(step));
            buckets.clear();
            buckets.extend(source.classic.iter().filter_map(|(le, row)| {
                let count = frame.rows[*row].column.float(step)?;
                Some(ClassicBucket { le: *le, count })
            }));
            match native {
                // Which of the two is meant cannot be told.
                Some(_) if !buckets.is_empty() => {
                    let name = for_metric(metric);
                    sink.notes.warn(
                        arg.span,
                        format!("vector contains a mix of classic and native histograms{name}"),
                    );
                }
                Some(h) => compute(&mut sink, step, Input::Native(h)),
                None if buckets.is_empty() => {}
                None => compute(&mut sink, step, Input::Classic(&mut buckets)),
            }
        }
        if sink.collided {
            return Err(QueryError::execution(SAME_LABELSET));
        }
        if let Some(e) = sink.error {
            return Err(e.into());
        }
        Ok((sink.answers, sink.notes, sink.reserved))
    };
    let made: Vec<_> = if sources.len() > 1 && frame.rows.len().saturating_mul(steps) > PARALLEL_FROM {
        sources.par_iter().map(one).collect::<Result<_, _>>()?
    } else {
        sources.iter().map(one).collect::<Result<_, _>>()?
    };
    let mut rows = Vec::new();
    for (answers, notes, reserved) in made {
        ev.notes.merge(notes);
        ev.live += reserved.into();
        rows.extend(answers.into_iter().map(|(labels, column)| Row { labels, drop_name: true, column }));
    }
    ev.collect(rows).map(Val::Vector)
}

fn check_quantile(ev: &mut Evaluator<'_>, span: Span, q: f64) {
    if q.is_nan() || !(0.0..=1.0).contains(&q) {
        ev.notes.warn(span, format!("quantile value should be between 0 and 1, got {}", go_float(q)));
    }
}

/// The quantiles of every histogram at every step. `label` tells the quantiles' series apart where there are
/// several.
fn quantiles_of(
    ev: &mut Evaluator<'_>,
    arg: &PlanExpr,
    qs: &[(Span, Vec<f64>)],
    label: Option<&str>,
) -> Result<Val, QueryError> {
    // The vector first: of two remarks in the same words the outer one's place is shown.
    let frame = ev.eval_vector(arg)?;
    for (span, values) in qs {
        values.iter().for_each(|q| check_quantile(ev, *span, *q));
    }
    let names: Vec<Vec<String>> = match label {
        Some(_) => {
            qs.iter().map(|(_, values)| values.iter().map(|q| open_metrics_float(*q)).collect()).collect()
        }
        None => Vec::new(),
    };
    let ev_steps = ev.steps;
    each_histogram(ev, arg, frame, qs.len(), |sink, step, mut input| {
        for (i, (_, values)) in qs.iter().enumerate() {
            let v = match &mut input {
                Input::Native(h) => {
                    let (v, note) = histogram_quantile(values[step], h);
                    sink.note_nans(note);
                    v
                }
                Input::Classic(buckets) => {
                    let (v, forced) = classic_quantile(values[step], buckets);
                    if let Some(f) = forced {
                        let t_ms = ev_steps.at(step);
                        sink.notes.forced_monotonicity(
                            sink.span,
                            sink.metric,
                            t_ms,
                            f.min_bucket,
                            f.max_bucket,
                            f.max_diff,
                        );
                    }
                    v
                }
            };
            sink.set(step, v, label.map(|l| (l, names[i][step].as_str())));
        }
    })
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
    let frame = ev.eval_vector(&call.args[2])?;
    each_histogram(ev, &call.args[2], frame, 1, |sink, step, input| {
        let (lower, upper) = (lower[step], upper[step]);
        let v = match input {
            Input::Native(h) => {
                let (v, note) = histogram_fraction(lower, upper, h);
                sink.note_nans(note);
                v
            }
            Input::Classic(buckets) => classic_fraction(lower, upper, buckets),
        };
        sink.set(step, v, None);
    })
}
