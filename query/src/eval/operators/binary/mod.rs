//! Binary operators: scalars, a vector with a scalar, and two vectors matched by their labels.

mod matching;
mod set;

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use model::histogram::{CounterResetHint, Histogram, IncompatibleSchemas};
use model::labels::{Labels, METRIC_NAME};
use model::quote::quote;
use model::sample::Value;

use set::Union;

use crate::annotations::{Annotations, Severity};
use crate::column::{Column, Point};
use crate::eval::evaluator::Evaluator;
use crate::eval::frame::Val;
use crate::parse::{BinaryOp, Cardinality, Span, VectorMatching};
use crate::plan::{Binary, PlanExpr, PlanNode};
use crate::value::QueryError;

/// How vectors are matched where the query does not say: by all labels.
static NOTHING_SAID: VectorMatching = VectorMatching {
    card: Cardinality::ManyToMany,
    labels: Vec::new(),
    on: false,
    include: Vec::new(),
    fill_left: None,
    fill_right: None,
};

/// The left side of the next operator of a chain.
enum Left<'p> {
    Val(Val),
    /// Of several `or`, one after the other: what was found of the rows is kept for the next.
    Union(Union<'p>),
}

impl Left<'_> {
    fn series(&self) -> u64 {
        match self {
            Left::Val(val) => val.series(),
            Left::Union(union) => union.series(),
        }
    }

    fn into_val(self) -> Val {
        match self {
            Left::Val(val) => val,
            Left::Union(union) => Val::Vector(union.into_frame()),
        }
    }
}

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
        let mut left = Left::Val(self.eval(leftmost)?);
        for (b, whole) in chain.into_iter().rev() {
            let rhs = self.eval(&b.rhs)?;
            let outer = self.trace.as_ref().map(|t| t.switch(whole.id));
            left = self.binary_after(b, left, rhs, whole.span)?;
            if let (Some(trace), Some(outer)) = (&self.trace, outer) {
                trace.switch(outer);
                // The outermost is counted where all nodes are.
                if whole.id != expr.id {
                    trace.note(whole.id, |f| {
                        f.runs += 1;
                        f.series += left.series();
                    });
                }
            }
        }
        Ok(left.into_val())
    }

    /// One operator of a chain. A union goes on where the operators before it were of the same kind.
    fn binary_after<'p>(
        &mut self,
        b: &'p Binary,
        left: Left<'p>,
        rhs: Val,
        span: Span,
    ) -> Result<Left<'p>, QueryError> {
        let matching = b.matching.as_ref().unwrap_or(&NOTHING_SAID);
        match (left, rhs) {
            (Left::Union(mut union), Val::Vector(r)) if b.op == BinaryOp::Or && union.goes_on(matching) => {
                self.budget.check_in_turn()?;
                self.add_to_union(&mut union, r)?;
                Ok(Left::Union(union))
            }
            (Left::Val(Val::Vector(l)), Val::Vector(r)) if b.op == BinaryOp::Or => {
                self.budget.check_in_turn()?;
                let mut union = self.union_of(l, matching)?;
                self.add_to_union(&mut union, r)?;
                Ok(Left::Union(union))
            }
            (left, rhs) => self.binary(b, left.into_val(), rhs, span).map(Left::Val),
        }
    }

    fn binary(&mut self, b: &Binary, lhs: Val, rhs: Val, span: Span) -> Result<Val, QueryError> {
        self.budget.check_in_turn()?;
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
                let fallback = VectorMatching { card: Cardinality::OneToOne, ..NOTHING_SAID.clone() };
                let matching = b.matching.as_ref().unwrap_or(&fallback);
                if b.op.is_set() {
                    self.set_op(b.op, l, r, matching)
                } else {
                    self.vector_vector(b, l, r, matching, span)
                }
            }
            _ => Err(QueryError::internal("a binary operator over strings was planned")),
        }
    }
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
