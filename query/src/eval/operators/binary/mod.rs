//! Binary operators: scalars, a vector with a scalar, and two vectors matched by their labels.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use model::histogram::{CounterResetHint, Histogram, IncompatibleSchemas};
use model::labels::{Labels, METRIC_NAME};
use model::matcher::quote;
use model::sample::Value;
use model::source::Budget;

use crate::annotations::{Annotations, Severity};
use crate::column::{Column, Point};
use crate::eval::evaluator::{Evaluator, SAME_LABELSET, column_bytes, label_bytes};
use crate::eval::frame::{Frame, Row, Val, is_metadata_label};
use crate::parse::{BinaryOp, Cardinality, Span, VectorMatching};
use crate::plan::{Binary, PlanExpr, PlanNode};
use crate::value::{ErrorKind, QueryError};

/// A remark on one pair of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Remark {
    /// The kinds of the operands, `"float"` or `"histogram"`: no result.
    Kinds(&'static str, &'static str),
    /// Exponential with custom buckets: no result.
    Layouts,
    /// One side was reset, the other not: `"addition"` or `"subtraction"`.
    Resets(&'static str),
    Bounds(&'static str),
}

impl Remark {
    fn text(self, op: BinaryOp) -> (Severity, String) {
        let name = op.as_str();
        match self {
            Remark::Kinds(l, r) => (
                Severity::Info,
                format!(
                    "incompatible sample types encountered for binary operator {}: {l} {name} {r}",
                    quote(name)
                ),
            ),
            Remark::Layouts => (
                Severity::Warning,
                format!("incompatible bucket layout encountered for binary operator {name}"),
            ),
            Remark::Resets(what) => {
                (Severity::Warning, format!("conflicting counter resets during histogram {what}"))
            }
            Remark::Bounds(what) => {
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
    remark: Option<Remark>,
    /// The remark forbids a result between two vectors.
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
    let none = |remark| Outcome { value: Value::Float(0.0), keep: false, remark: Some(remark), failed: true };
    let histogram = |h: Histogram| Outcome {
        value: Value::Histogram(Arc::new(h)),
        keep: true,
        remark: None,
        failed: false,
    };
    match (l, r) {
        (Point::Float(_), Point::Float(_)) if is_trim(op) => none(Remark::Kinds("float", "float")),
        (Point::Float(l), Point::Float(r)) => {
            let (v, keep) = float_op(op, l, r);
            Outcome { value: Value::Float(v), keep, remark: None, failed: false }
        }
        (Point::Float(l), Point::Histogram(r)) => match op {
            BinaryOp::Mul => {
                let mut h = (**r).clone();
                h.mul(l).compact(0);
                histogram(h)
            }
            _ => none(Remark::Kinds("float", "histogram")),
        },
        (Point::Histogram(l), Point::Float(r)) => {
            let mut h = (**l).clone();
            match op {
                BinaryOp::Mul => h.mul(r).compact(0),
                BinaryOp::Div => h.div(r).compact(0),
                BinaryOp::TrimUpper => h.trim_upper(r),
                BinaryOp::TrimLower => h.trim_lower(r),
                _ => return none(Remark::Kinds("histogram", "float")),
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
                    return Outcome { value: Value::Histogram(l.clone()), keep, remark: None, failed: false };
                }
                _ => return none(Remark::Kinds("histogram", "histogram")),
            };
            match done {
                Err(IncompatibleSchemas) => none(Remark::Layouts),
                Ok(done) => {
                    if op == BinaryOp::Sub {
                        h.counter_reset_hint = CounterResetHint::Gauge;
                    }
                    h.compact(0);
                    let remark = match (done.counter_reset_collision, done.bounds_reconciled) {
                        (true, _) => Some(Remark::Resets(what)),
                        (_, true) => Some(Remark::Bounds(what)),
                        _ => None,
                    };
                    // Upstream gives no result where the hints collide.
                    Outcome { failed: done.counter_reset_collision, remark, ..histogram(h) }
                }
            }
        }
    }
}

/// The last remark of each step: upstream keeps one per step.
#[derive(Default)]
struct StepNotes(HashMap<usize, Remark>);

impl StepNotes {
    fn put(&mut self, step: usize, remark: Option<Remark>) {
        if let Some(r) = remark {
            self.0.insert(step, r);
        }
    }

    fn tell(self, op: BinaryOp, span: Span, notes: &mut Annotations) {
        let mut once: Vec<Remark> = Vec::new();
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
    remarks: StepNotes,
}

impl<'p> WithScalar<'p> {
    /// `span` is that of the whole operation.
    pub fn new(b: &'p Binary, scalar: Vec<f64>, swapped: bool, span: Span, steps: usize) -> Self {
        WithScalar { b, scalar, swapped, span, steps, remarks: StepNotes::default() }
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
            let done = pair_op(op, l, r);
            self.remarks.put(step, done.remark);
            if done.failed {
                continue;
            }
            if bool {
                column.set_float(step, if done.keep { 1.0 } else { 0.0 });
            } else if done.keep {
                match point {
                    Point::Float(v) if self.swapped && op.is_comparison() => column.set_float(step, v),
                    Point::Histogram(h) if self.swapped && op.is_comparison() => {
                        column.set_histogram(step, h.clone())
                    }
                    _ => column.set(step, done.value),
                }
            }
        }
        column
    }

    /// What there is to say about the values that met.
    pub fn tell(self, notes: &mut Annotations) {
        self.remarks.tell(self.b.op, self.span, notes);
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

    fn remark(&mut self, op: BinaryOp, span: Span, remarks: StepNotes) {
        remarks.tell(op, span, &mut self.notes);
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

    fn vector_vector(
        &mut self,
        b: &Binary,
        l: Frame,
        r: Frame,
        m: &VectorMatching,
        span: Span,
    ) -> Result<Val, QueryError> {
        let swapped = m.card == Cardinality::OneToMany;
        // From here on `many` is matched against `one`.
        let (many, one) = if swapped { (r.rows, l.rows) } else { (l.rows, r.rows) };
        let mut error = match self.matched(b, &many, &one, m, span) {
            Err(e) if e.kind == ErrorKind::Execution && self.steps.count > 1 => e,
            done => return done,
        };
        // Upstream goes step by step and tells the error of the first step that has one, here it is told
        // whichever was come upon first. So the first step is looked for: none fails before `low`, one does
        // before `high`.
        let (mut low, mut high) = (0, self.steps.count);
        // Each attempt takes copies of both sides.
        self.expect_rows(many.len() + one.len(), self.steps.count)?;
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            let until = |rows: &[Row]| -> Vec<Row> {
                let mut rows = rows.to_vec();
                rows.iter_mut().for_each(|r| r.column.retain(|step| step < middle));
                rows
            };
            match self.matched(b, &until(&many), &until(&one), m, span) {
                Ok(_) => low = middle,
                Err(e) if e.kind == ErrorKind::Execution => (error, high) = (e, middle),
                Err(e) => return Err(e),
            }
        }
        Err(error)
    }

    /// `many` matched against `one`.
    fn matched(
        &mut self,
        b: &Binary,
        many: &[Row],
        one: &[Row],
        m: &VectorMatching,
        span: Span,
    ) -> Result<Val, QueryError> {
        let steps = self.steps.count;
        let swapped = m.card == Cardinality::OneToMany;
        // Upstream exchanges the operands for `group_right` but not the fill values.
        let (fill_one, fill_many) = (m.fill_right, m.fill_left);
        let mut signatures = Signatures::new(m);
        let keys: u64 = many.iter().chain(one).map(|row| label_bytes(&row.labels)).sum();
        self.charge(keys)?;
        let many_sigs: Vec<usize> = many.iter().map(|row| signatures.of(&row.labels)).collect();
        let one_sigs: Vec<usize> = one.iter().map(|row| signatures.of(&row.labels)).collect();
        let mut ones: Vec<Vec<usize>> = vec![Vec::new(); signatures.len()];
        for (i, sig) in one_sigs.iter().enumerate() {
            ones[*sig].push(i);
        }
        let filling = fill_one.is_some() || fill_many.is_some();
        let active = active_steps(many, one, steps, filling);
        self.refuse_duplicates(one, &one_sigs, &ones, &active, m, swapped)?;

        let mut remarks = StepNotes::default();
        let mut out = Output {
            op: b.op,
            matching: m,
            return_bool: b.return_bool,
            drop_name: !self.options.delayed_name_removal && b.return_bool,
            steps,
            instant: self.steps.is_instant(),
            delayed: self.options.delayed_name_removal,
            rows: Vec::new(),
            by_labels: HashMap::new(),
            names: m.labels.iter().map(|l| &**l).collect(),
            budget: self.budget.clone(),
            reserved: 0,
        };
        let mut many_per_sig = vec![0u32; signatures.len()];
        many_sigs.iter().for_each(|s| many_per_sig[*s] += 1);
        let mut matched = Matched::new(steps);
        let one_to_one = m.card == Cardinality::OneToOne;

        for (row, &sig) in many.iter().zip(&many_sigs) {
            self.budget.check()?;
            // Several rows may meet at one signature, or what is unmatched is filled later: then each match
            // is written down.
            let track = many_per_sig[sig] > 1 || fill_many.is_some();
            let candidates = &ones[sig];
            for &at in candidates {
                let target = out.target(&row.labels, &one[at].labels)?;
                let floats = row.column.histogram_count() == 0 && one[at].column.histogram_count() == 0;
                if floats && !track && !is_trim(b.op) {
                    let ((x, has_x), (y, has_y)) = (row.column.floats(), one[at].column.floats());
                    let both = has_x.iter().zip(has_y).zip(&active).map(|((a, b), c)| a & b & c).collect();
                    let (left, right) = if swapped { (y, x) } else { (x, y) };
                    out.put_all(target, dense(b.op, left, right, both, b.return_bool, false))?;
                    continue;
                }
                for (step, x) in row.column.iter() {
                    if !bit(&active, step) {
                        continue;
                    }
                    let Some(y) = one[at].column.get(step) else { continue };
                    let (left, right) = if swapped { (y, x) } else { (x, y) };
                    out.put(target, step, left, right, &mut remarks, |labels| {
                        if track { matched.note(sig, labels, step, one_to_one) } else { Ok(()) }
                    })?;
                }
            }
            if let Some(fill) = fill_one {
                let labels = match_labels(&row.labels, m);
                let mut target = None;
                for (step, x) in row.column.iter() {
                    if candidates.iter().any(|at| one[*at].column.get(step).is_some()) {
                        continue;
                    }
                    let target = match target {
                        Some(known) => known,
                        None => *target.insert(out.target(&row.labels, &labels)?),
                    };
                    let y = Point::Float(fill);
                    let (left, right) = if swapped { (y, x) } else { (x, y) };
                    out.put(target, step, left, right, &mut remarks, |labels| {
                        if track { matched.note(sig, labels, step, one_to_one) } else { Ok(()) }
                    })?;
                }
            }
        }
        if let Some(fill) = fill_many {
            for (row, &sig) in one.iter().zip(&one_sigs) {
                let labels = match_labels(&row.labels, m);
                let mut target = None;
                for (step, y) in row.column.iter() {
                    if matched.any(sig, step) {
                        continue;
                    }
                    let target = match target {
                        Some(known) => known,
                        None => *target.insert(out.target(&labels, &row.labels)?),
                    };
                    let x = Point::Float(fill);
                    let (left, right) = if swapped { (y, x) } else { (x, y) };
                    out.put(target, step, left, right, &mut remarks, |labels| {
                        matched.note(sig, labels, step, one_to_one)
                    })?;
                }
            }
        }
        self.live += out.reserved.into();
        let rows: Vec<Row> = out.rows.into_iter().filter(|r| !r.column.is_empty()).collect();
        self.remark(b.op, span, remarks);
        if self.steps.is_instant() { self.collect(rows) } else { Ok(Frame { rows }) }.map(Val::Vector)
    }

    /// The side of the "one" must be unique per signature at each step.
    fn refuse_duplicates(
        &self,
        one: &[Row],
        sigs: &[usize],
        ones: &[Vec<usize>],
        active: &[u64],
        m: &VectorMatching,
        swapped: bool,
    ) -> Result<(), QueryError> {
        // By signature: the steps that rows before had something at. Each row is held against all of them at
        // once.
        let words = self.steps.count.div_ceil(64);
        let mut taken: HashMap<usize, Vec<u64>> = HashMap::new();
        let mut first: Option<(usize, usize)> = None;
        for (i, sig) in sigs.iter().enumerate().filter(|(_, sig)| ones[**sig].len() > 1) {
            self.budget.check()?;
            let taken = taken.entry(*sig).or_insert_with(|| vec![0; words]);
            let mut clash = None;
            for (w, (bits, taken)) in presence(&one[i].column).zip(taken.iter_mut()).enumerate() {
                let both = bits & *taken & active[w];
                if both != 0 && clash.is_none() {
                    clash = Some(w * 64 + both.trailing_zeros() as usize);
                }
                *taken |= bits;
            }
            if let Some(step) = clash
                && first.is_none_or(|known| (step, i) < known)
            {
                first = Some((step, i));
            }
        }
        let Some((step, i)) = first else { return Ok(()) };
        let at_step = |row: &&usize| one[**row].column.get(step).is_some();
        let Some(&before) = ones[sigs[i]].iter().take_while(|b| **b < i).find(at_step) else {
            return Err(QueryError::internal("two series clash, and one of them cannot be found"));
        };
        let mut names = [one[i].labels.to_string(), one[before].labels.to_string()];
        names.sort_unstable();
        let [a, b] = names;
        Err(QueryError::execution(format!(
            "found duplicate series for the match group {} on the {} hand-side of the operation: [{a}, {b}];many-to-many matching not allowed: matching labels must be unique on one side",
            match_labels(&one[i].labels, m),
            if swapped { "left" } else { "right" },
        )))
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

/// Steps at which a match is tried at all: both sides have something, or what is missing may be filled.
fn active_steps(many: &[Row], one: &[Row], steps: usize, filling: bool) -> Vec<u64> {
    let words = steps.div_ceil(64);
    if filling {
        return vec![u64::MAX; words];
    }
    let any = |rows: &[Row]| {
        let mut bits = vec![0u64; words];
        for row in rows {
            bits.iter_mut().zip(presence(&row.column)).for_each(|(a, b)| *a |= b);
        }
        bits
    };
    any(many).into_iter().zip(any(one)).map(|(a, b)| a & b).collect()
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

/// The labels a match group is named by (upstream `Labels.MatchLabels`).
fn match_labels(labels: &Labels, m: &VectorMatching) -> Labels {
    let named = |n: &str| m.labels.iter().any(|l| &**l == n);
    match m.on {
        true => labels.filter(|n, _| named(n)),
        false => labels.filter(|n, _| n != METRIC_NAME && !named(n)),
    }
}

/// Which results exist already, per signature.
struct Matched {
    words: usize,
    by_signature: HashMap<usize, Vec<u64>>,
    by_result: HashMap<(usize, Labels), Vec<u64>>,
}

impl Matched {
    fn new(steps: usize) -> Self {
        Matched { words: steps.div_ceil(64), by_signature: HashMap::new(), by_result: HashMap::new() }
    }

    fn any(&self, sig: usize, step: usize) -> bool {
        self.by_signature.get(&sig).is_some_and(|b| bit(b, step))
    }

    fn note(&mut self, sig: usize, labels: &Labels, step: usize, one_to_one: bool) -> Result<(), QueryError> {
        let words = self.words;
        let (word, mask) = (step >> 6, 1u64 << (step & 63));
        let bits = self.by_signature.entry(sig).or_insert_with(|| vec![0; words]);
        let before = bits[word] & mask != 0;
        bits[word] |= mask;
        if one_to_one {
            if before {
                return Err(QueryError::execution(
                    "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)",
                ));
            }
            return Ok(());
        }
        let bits = self.by_result.entry((sig, labels.clone())).or_insert_with(|| vec![0; words]);
        if bits[word] & mask != 0 {
            return Err(QueryError::execution(
                "multiple matches for labels: grouping labels must ensure unique matches",
            ));
        }
        bits[word] |= mask;
        Ok(())
    }
}

/// Rows of the result, by their labels.
struct Output<'m> {
    op: BinaryOp,
    matching: &'m VectorMatching,
    return_bool: bool,
    drop_name: bool,
    steps: usize,
    instant: bool,
    delayed: bool,
    rows: Vec<Row>,
    by_labels: HashMap<Labels, usize>,
    /// Of `on` or `ignoring`.
    names: HashSet<&'m str>,
    budget: Arc<Budget>,
    /// Bytes that the rows took of the budget.
    reserved: u64,
}

impl Output<'_> {
    /// The row that a pair of series goes to.
    fn target(&mut self, many: &Labels, one: &Labels) -> Result<usize, QueryError> {
        let labels = self.result_labels(many, one);
        if let (Some(&at), false) = (self.by_labels.get(&labels), self.instant) {
            return Ok(at);
        }
        let bytes = column_bytes(self.steps) + label_bytes(&labels);
        self.budget.reserve(bytes)?;
        self.reserved += bytes;
        let at = self.rows.len();
        self.by_labels.insert(labels.clone(), at);
        self.rows.push(Row { labels, drop_name: self.return_bool, column: Column::new(self.steps) });
        Ok(at)
    }

    fn result_labels(&self, many: &Labels, one: &Labels) -> Labels {
        let m = self.matching;
        let mut labels = many.clone();
        if self.drop_name || changes_meaning(self.op) {
            labels = labels.filter(|n, _| !is_metadata_label(n));
        }
        if m.card == Cardinality::OneToOne {
            labels = labels.filter(|n, _| self.names.contains(n) == m.on);
        }
        if m.include.is_empty() {
            return labels;
        }
        let mut b = labels.to_builder();
        for name in &m.include {
            b.set(name, one.value(name));
        }
        b.build()
    }

    fn put_all(&mut self, target: usize, column: Column) -> Result<(), QueryError> {
        let row = &mut self.rows[target];
        if row.column.is_empty() {
            row.column = column;
        } else if !row.column.absorb(column) {
            return Err(QueryError::execution(SAME_LABELSET));
        }
        Ok(())
    }

    fn put(
        &mut self,
        target: usize,
        step: usize,
        l: Point<'_>,
        r: Point<'_>,
        remarks: &mut StepNotes,
        note: impl FnOnce(&Labels) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        let done = pair_op(self.op, l, r);
        remarks.put(step, done.remark);
        if done.failed {
            return Ok(());
        }
        let row = &mut self.rows[target];
        note(&row.labels)?;
        let value = match (self.return_bool, done.keep) {
            (true, keep) => Value::Float(if keep { 1.0 } else { 0.0 }),
            (false, true) => done.value,
            (false, false) => return Ok(()),
        };
        if row.column.get(step).is_some() && !(self.instant && self.delayed) {
            return Err(QueryError::execution(SAME_LABELSET));
        }
        row.column.set(step, value);
        Ok(())
    }
}
