//! Binary operators: scalars, a vector with a scalar, and two vectors matched by their labels.

mod matching;

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use model::histogram::{CounterResetHint, Histogram, IncompatibleSchemas};
use model::labels::{Labels, METRIC_NAME};
use model::quote::quote;
use model::sample::Value;

use crate::annotations::{Annotations, Severity};
use crate::column::{Column, Point};
use crate::eval::evaluator::Evaluator;
use crate::eval::frame::{Frame, Val};
use crate::parse::{BinaryOp, Cardinality, Span, VectorMatching};
use crate::plan::{Binary, PlanExpr, PlanNode};
use crate::value::QueryError;

/// What is to be said of one pair of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PairNote {
    /// The kinds of the operands, `"float"` or `"histogram"`: no result.
    Kinds(&'static str, &'static str),
    /// Exponential with custom buckets: no result.
    Layouts,
    /// One side was reset, the other not: `"addition"` or `"subtraction"`.
    Resets(&'static str),
    Bounds(&'static str),
}

impl PairNote {
    fn text(self, op: BinaryOp) -> (Severity, String) {
        let name = op.as_str();
        match self {
            PairNote::Kinds(l, r) => (
                Severity::Info,
                format!(
                    "incompatible sample types encountered for binary operator {}: {l} {name} {r}",
                    quote(name)
                ),
            ),
            PairNote::Layouts => (
                Severity::Warning,
                format!("incompatible bucket layout encountered for binary operator {name}"),
            ),
            PairNote::Resets(what) => {
                (Severity::Warning, format!("conflicting counter resets during histogram {what}"))
            }
            PairNote::Bounds(what) => {
                (Severity::Info, format!("mismatched custom buckets were reconciled during {what}"))
            }
        }
    }
}

/// The outcome for one pair of values.
struct Outcome {
    value: Value,
    /// False: a comparison did not hold, or there is no result.
    keep: bool,
    note: Option<PairNote>,
    /// The note forbids a result between two vectors.
    failed: bool,
}

/// Whether the operator makes another quantity of its operands, so that the name no longer fits.
fn changes_meaning(op: BinaryOp) -> bool {
    use BinaryOp::*;
    matches!(op, Add | Sub | Mul | Div | Mod | Pow | Atan2)
}

fn scalar_op(op: BinaryOp, l: f64, r: f64) -> f64 {
    let is = |b: bool| if b { 1.0 } else { 0.0 };
    match op {
        BinaryOp::Eql => is(l == r),
        BinaryOp::Neq => is(l != r),
        BinaryOp::Gtr => is(l > r),
        BinaryOp::Lss => is(l < r),
        BinaryOp::Gte => is(l >= r),
        BinaryOp::Lte => is(l <= r),
        _ => float_op(op, l, r).0,
    }
}

/// Value, and whether it is kept.
#[inline]
fn float_op(op: BinaryOp, l: f64, r: f64) -> (f64, bool) {
    match op {
        BinaryOp::Add => (l + r, true),
        BinaryOp::Sub => (l - r, true),
        BinaryOp::Mul => (l * r, true),
        BinaryOp::Div => (l / r, true),
        BinaryOp::Mod => (l % r, true),
        BinaryOp::Pow => (l.powf(r), true),
        BinaryOp::Atan2 => (l.atan2(r), true),
        BinaryOp::Eql => (l, l == r),
        BinaryOp::Neq => (l, l != r),
        BinaryOp::Gtr => (l, l > r),
        BinaryOp::Lss => (l, l < r),
        BinaryOp::Gte => (l, l >= r),
        BinaryOp::Lte => (l, l <= r),
        BinaryOp::And | BinaryOp::Or | BinaryOp::Unless | BinaryOp::TrimUpper | BinaryOp::TrimLower => {
            (0.0, false)
        }
    }
}

fn is_trim(op: BinaryOp) -> bool {
    matches!(op, BinaryOp::TrimUpper | BinaryOp::TrimLower)
}

/// Floats with floats where `present` has a bit. One loop per operator over whole columns, so that the
/// compiler can make vectors of it; what it computes in empty slots is not looked at. A comparison keeps the
/// left value, or with `keep_right` the right one.
fn dense(
    op: BinaryOp,
    l: &[f64],
    r: &[f64],
    mut present: Vec<u64>,
    return_bool: bool,
    keep_right: bool,
) -> Column {
    let map = |f: fn(f64, f64) -> f64| -> Vec<f64> { l.iter().zip(r).map(|(l, r)| f(*l, *r)).collect() };
    let values = match op {
        BinaryOp::Add => l.iter().zip(r).map(|(l, r)| l + r).collect(),
        BinaryOp::Sub => l.iter().zip(r).map(|(l, r)| l - r).collect(),
        BinaryOp::Mul => l.iter().zip(r).map(|(l, r)| l * r).collect(),
        BinaryOp::Div => l.iter().zip(r).map(|(l, r)| l / r).collect(),
        BinaryOp::Mod => map(|l, r| l % r),
        BinaryOp::Pow => map(f64::powf),
        BinaryOp::Atan2 => map(f64::atan2),
        _ if return_bool => {
            l.iter().zip(r).map(|(l, r)| if float_op(op, *l, *r).1 { 1.0 } else { 0.0 }).collect()
        }
        _ => {
            for (word, bits) in present.iter_mut().enumerate().filter(|(_, b)| **b != 0) {
                let from = word * 64;
                let to = (from + 64).min(l.len());
                let mut keep = 0u64;
                for (i, (l, r)) in l[from..to].iter().zip(&r[from..to]).enumerate() {
                    keep |= u64::from(float_op(op, *l, *r).1) << i;
                }
                *bits &= keep;
            }
            if keep_right { r.to_vec() } else { l.to_vec() }
        }
    };
    Column::from_parts(values, present)
}

fn pair_op(op: BinaryOp, l: Point<'_>, r: Point<'_>) -> Outcome {
    let none = |note| Outcome { value: Value::Float(0.0), keep: false, note: Some(note), failed: true };
    let histogram = |h: Histogram| Outcome {
        value: Value::Histogram(Arc::new(h)),
        keep: true,
        note: None,
        failed: false,
    };
    match (l, r) {
        (Point::Float(_), Point::Float(_)) if is_trim(op) => none(PairNote::Kinds("float", "float")),
        (Point::Float(l), Point::Float(r)) => {
            let (v, keep) = float_op(op, l, r);
            Outcome { value: Value::Float(v), keep, note: None, failed: false }
        }
        (Point::Float(l), Point::Histogram(r)) => match op {
            BinaryOp::Mul => {
                let mut h = (**r).clone();
                h.mul(l).compact(0);
                histogram(h)
            }
            _ => none(PairNote::Kinds("float", "histogram")),
        },
        (Point::Histogram(l), Point::Float(r)) => {
            let mut h = (**l).clone();
            match op {
                BinaryOp::Mul => h.mul(r).compact(0),
                BinaryOp::Div => h.div(r).compact(0),
                BinaryOp::TrimUpper => h.trim_upper(r),
                BinaryOp::TrimLower => h.trim_lower(r),
                _ => return none(PairNote::Kinds("histogram", "float")),
            };
            histogram(h)
        }
        (Point::Histogram(l), Point::Histogram(r)) => {
            let mut h = (**l).clone();
            let (what, done) = match op {
                BinaryOp::Add => ("addition", h.add(r)),
                BinaryOp::Sub => ("subtraction", h.sub(r)),
                BinaryOp::Eql | BinaryOp::Neq => {
                    let keep = l.equals(r) == (op == BinaryOp::Eql);
                    return Outcome { value: Value::Histogram(l.clone()), keep, note: None, failed: false };
                }
                _ => return none(PairNote::Kinds("histogram", "histogram")),
            };
            match done {
                Err(IncompatibleSchemas) => none(PairNote::Layouts),
                Ok(done) => {
                    if op == BinaryOp::Sub {
                        h.counter_reset_hint = CounterResetHint::Gauge;
                    }
                    h.compact(0);
                    let note = match (done.counter_reset_collision, done.bounds_reconciled) {
                        (true, _) => Some(PairNote::Resets(what)),
                        (_, true) => Some(PairNote::Bounds(what)),
                        _ => None,
                    };
                    // Upstream gives no result where the hints collide.
                    Outcome { failed: done.counter_reset_collision, note, ..histogram(h) }
                }
            }
        }
    }
}

/// The last note of each step: upstream keeps one per step.
#[derive(Default)]
struct StepNotes(HashMap<usize, PairNote>);

impl StepNotes {
    fn put(&mut self, step: usize, note: Option<PairNote>) {
        if let Some(r) = note {
            self.0.insert(step, r);
        }
    }

    fn tell(self, op: BinaryOp, span: Span, notes: &mut Annotations) {
        let mut once: Vec<PairNote> = Vec::new();
        for r in self.0.into_values() {
            if !once.contains(&r) {
                once.push(r);
            }
        }
        for r in once {
            match r.text(op) {
                (Severity::Warning, text) => notes.warn(span, text),
                (Severity::Info, text) => notes.info(span, text),
            }
        }
    }
}

/// An operator between a vector's rows and one number per step.
pub(crate) struct WithScalar<'p> {
    b: &'p Binary,
    scalar: Vec<f64>,
    /// The scalar stands on the left.
    swapped: bool,
    span: Span,
    steps: usize,
    notes_by_step: StepNotes,
}

impl<'p> WithScalar<'p> {
    /// `span` is that of the whole operation.
    pub fn new(b: &'p Binary, scalar: Vec<f64>, swapped: bool, span: Span, steps: usize) -> Self {
        WithScalar { b, scalar, swapped, span, steps, notes_by_step: StepNotes::default() }
    }

    pub fn drops_name(&self) -> bool {
        changes_meaning(self.b.op) || self.b.return_bool
    }

    pub fn apply(&mut self, from: Column) -> Column {
        let (op, bool) = (self.b.op, self.b.return_bool);
        if from.histogram_count() == 0 && !is_trim(op) {
            let (values, present) = from.floats();
            // A comparison keeps the vector's value, on whichever side it stands.
            return match self.swapped {
                true => dense(op, &self.scalar, values, present.to_vec(), bool, true),
                false => dense(op, values, &self.scalar, present.to_vec(), bool, false),
            };
        }
        let mut column = Column::new(self.steps);
        for (step, point) in from.iter() {
            let s = self.scalar[step];
            let (l, r) = if self.swapped { (Point::Float(s), point) } else { (point, Point::Float(s)) };
            let outcome = pair_op(op, l, r);
            self.notes_by_step.put(step, outcome.note);
            if outcome.failed {
                continue;
            }
            if bool {
                column.set_float(step, if outcome.keep { 1.0 } else { 0.0 });
            } else if outcome.keep {
                match point {
                    Point::Float(v) if self.swapped && op.is_comparison() => column.set_float(step, v),
                    Point::Histogram(h) if self.swapped && op.is_comparison() => {
                        column.set_histogram(step, h.clone())
                    }
                    _ => column.set(step, outcome.value),
                }
            }
        }
        column
    }

    /// What there is to say about the values that met.
    pub fn tell(self, notes: &mut Annotations) {
        self.notes_by_step.tell(self.b.op, self.span, notes);
    }
}

impl Evaluator<'_> {
    /// A chain of binary operators, which leans to the left: from the innermost out, without recursion.
    pub(crate) fn binary_chain(&mut self, expr: &PlanExpr) -> Result<Val, QueryError> {
        let (mut leftmost, mut chain) = (expr, Vec::new());
        while let PlanNode::Binary(b) = &leftmost.node {
            chain.push((&**b, leftmost));
            leftmost = &b.lhs;
            if leftmost.shared.is_some() {
                break;
            }
        }
        let mut lhs = self.eval(leftmost)?;
        for (b, whole) in chain.into_iter().rev() {
            let rhs = self.eval(&b.rhs)?;
            let outer = self.trace.as_ref().map(|t| t.switch(whole.id));
            lhs = self.binary(b, lhs, rhs, whole.span)?;
            if let (Some(trace), Some(outer)) = (&self.trace, outer) {
                trace.switch(outer);
                // The outermost is counted where all nodes are.
                if whole.id != expr.id {
                    trace.note(whole.id, |f| {
                        f.runs += 1;
                        f.series += lhs.series();
                    });
                }
            }
        }
        Ok(lhs)
    }

    fn binary(&mut self, b: &Binary, lhs: Val, rhs: Val, span: Span) -> Result<Val, QueryError> {
        self.budget.check()?;
        match (lhs, rhs) {
            (Val::Scalar(_), Val::Scalar(_)) if is_trim(b.op) => Err(QueryError::execution(format!(
                "operator {} not allowed for Scalar operations",
                quote(b.op.as_str())
            ))),
            (Val::Scalar(mut l), Val::Scalar(r)) => {
                for (l, r) in l.iter_mut().zip(r) {
                    *l = scalar_op(b.op, *l, r);
                }
                Ok(Val::Scalar(l))
            }
            (Val::Vector(l), Val::Scalar(r)) => {
                self.with_scalar(WithScalar::new(b, r, false, span, self.steps.count), l.rows)
            }
            (Val::Scalar(l), Val::Vector(r)) => {
                self.with_scalar(WithScalar::new(b, l, true, span, self.steps.count), r.rows)
            }
            (Val::Vector(l), Val::Vector(r)) => {
                let fallback;
                let matching = match &b.matching {
                    Some(m) => m,
                    None => {
                        fallback = VectorMatching {
                            card: if b.op.is_set() { Cardinality::ManyToMany } else { Cardinality::OneToOne },
                            labels: vec![],
                            on: false,
                            include: vec![],
                            fill_left: None,
                            fill_right: None,
                        };
                        &fallback
                    }
                };
                if b.op.is_set() {
                    self.set_op(b.op, l, r, matching)
                } else {
                    self.vector_vector(b, l, r, matching, span)
                }
            }
            _ => Err(QueryError::internal("a binary operator over strings was planned")),
        }
    }

    fn set_op(&mut self, op: BinaryOp, l: Frame, r: Frame, m: &VectorMatching) -> Result<Val, QueryError> {
        let mut signatures = Signatures::new(m);
        let left: Vec<usize> = l.rows.iter().map(|row| signatures.of(&row.labels)).collect();
        self.budget.check()?;
        let right: Vec<usize> = r.rows.iter().map(|row| signatures.of(&row.labels)).collect();
        self.budget.check()?;
        let words = self.steps.count.div_ceil(64);
        // The steps at which a signature is present on the side that decides.
        let mut present: HashMap<usize, Vec<u64>> = HashMap::new();
        let deciding = if op == BinaryOp::Or { l.rows.iter().zip(&left) } else { r.rows.iter().zip(&right) };
        for (row, sig) in deciding {
            let bits = present.entry(*sig).or_insert_with(|| vec![0; words]);
            for (word, mask) in bits.iter_mut().zip(presence(&row.column)) {
                *word |= mask;
            }
        }
        let mut rows = Vec::with_capacity(l.rows.len());
        match op {
            BinaryOp::Or => {
                rows.extend(l.rows);
                for (mut row, sig) in r.rows.into_iter().zip(right) {
                    if let Some(bits) = present.get(&sig) {
                        remove(&mut row.column, bits, true);
                    }
                    rows.push(row);
                }
            }
            _ => {
                let unless = op == BinaryOp::Unless;
                for (mut row, sig) in l.rows.into_iter().zip(left) {
                    match present.get(&sig) {
                        Some(bits) => remove(&mut row.column, bits, unless),
                        None if unless => {}
                        None => continue,
                    }
                    rows.push(row);
                }
            }
        }
        rows.retain(|r| !r.column.is_empty());
        self.collect(rows).map(Val::Vector)
    }
}

#[inline]
fn bit(bits: &[u64], step: usize) -> bool {
    bits[step >> 6] >> (step & 63) & 1 == 1
}

/// The filled slots of a column as words of bits, histograms included.
fn presence(c: &Column) -> impl Iterator<Item = u64> + '_ {
    let mut histograms = c.histograms().iter().peekable();
    c.floats().1.iter().enumerate().map(move |(w, bits)| {
        let mut bits = *bits;
        while let Some((step, _)) = histograms.next_if(|(s, _)| *s as usize >> 6 == w) {
            bits |= 1 << (step & 63);
        }
        bits
    })
}

/// Empties the slots whose bit is `when`.
fn remove(c: &mut Column, bits: &[u64], when: bool) {
    c.retain(|step| bit(bits, step) != when);
}

/// Label sets reduced to what a match looks at, numbered.
struct Signatures<'m> {
    names: HashSet<&'m str>,
    on: bool,
    numbers: HashMap<Labels, usize>,
}

impl<'m> Signatures<'m> {
    fn new(m: &'m VectorMatching) -> Self {
        Signatures { names: m.labels.iter().map(|l| &**l).collect(), on: m.on, numbers: HashMap::new() }
    }

    fn of(&mut self, labels: &Labels) -> usize {
        let key = match self.on {
            true => labels.filter(|n, _| self.names.contains(n)),
            false => labels.filter(|n, _| n != METRIC_NAME && !self.names.contains(n)),
        };
        let next = self.numbers.len();
        *self.numbers.entry(key).or_insert(next)
    }

    fn len(&self) -> usize {
        self.numbers.len()
    }
}
