//! Aggregations: rows fold into their groups as they come, step by step; only those that pick rows hold them all.

use std::sync::Arc;

use hashbrown::HashMap;
use model::histogram::{CounterResetHint, Histogram, IncompatibleSchemas, compensated_add};
use model::labels::{Labels, METRIC_NAME};
use model::matcher::quote;
use model::source::Reservation;

use crate::annotations::{Annotations, go_float};
use crate::eval::evaluator::{Evaluator, column_bytes};
use crate::eval::frame::{Column, Frame, Point, Row, Val};
use crate::eval::functions::order::quantile;
use crate::parse::{AggregateOp, Span};
use crate::plan::{Aggregate, PlanNode};
use crate::value::QueryError;

impl Evaluator<'_> {
    pub(crate) fn aggregate(&mut self, a: &Aggregate, span: Span) -> Result<Val, QueryError> {
        use AggregateOp::*;
        match a.op {
            Sum | Avg | Count | Min | Max | Group | Stddev | Stdvar => self.fold(a),
            Quantile => self.quantile_of_groups(a),
            Topk | Bottomk | Limitk | LimitRatio => self.pick(a, span),
            CountValues => self.count_values(a),
        }
    }

    /// The parameter, one number per step.
    fn parameter(&mut self, a: &Aggregate) -> Result<Param, QueryError> {
        let Some(expr) = &a.param else {
            return Ok(Param { values: vec![0.0; self.steps.count], min: 0.0, max: 0.0, any_nan: false });
        };
        let values = self.eval_scalar(expr)?;
        let any_nan = values.iter().any(|v| v.is_nan());
        let go = |a: f64, b: f64, f: fn(f64, f64) -> f64| {
            if a.is_nan() || b.is_nan() { f64::NAN } else { f(a, b) }
        };
        let min = values.iter().fold(f64::MAX, |a, b| go(a, *b, f64::min));
        let max = values.iter().fold(-f64::MAX, |a, b| go(a, *b, f64::max));
        let constant = matches!(expr.node, PlanNode::Number(_));
        let (min, max) = if constant { (values[0], values[0]) } else { (min, max) };
        Ok(Param { values, min, max, any_nan })
    }

    fn fold(&mut self, a: &Aggregate) -> Result<Val, QueryError> {
        let steps = self.steps.count;
        let mut groups = Groups::new(a);
        let mut states: Vec<State> = Vec::new();
        let mut notes = Annotations::new();
        let budget = self.budget.clone();
        let per_group = Reservation { bytes: 3 * column_bytes(steps), samples: steps as u64 };
        let mut held = Reservation::default();
        let span = a.expr.span;
        self.stream(&a.expr, &mut |row| {
            if row.column.is_empty() {
                return Ok(());
            }
            let at = groups.of(&row.labels);
            if at == states.len() {
                budget.reserve(per_group)?;
                held += per_group;
                states.push(State::new(a.op, steps));
            }
            states[at].add(&row, span, &mut notes);
            Ok(())
        })?;
        self.live += held;
        let mut rows = Vec::with_capacity(states.len());
        for (labels, state) in groups.labels.into_iter().zip(states) {
            let drop_name = state.drop_name;
            let column = state.finish(span, &mut notes);
            if !column.is_empty() {
                rows.push(Row { labels, drop_name, column });
            }
        }
        self.notes.merge(notes);
        Ok(Val::Vector(Frame { rows }))
    }

    fn quantile_of_groups(&mut self, a: &Aggregate) -> Result<Val, QueryError> {
        let param = self.parameter(a)?;
        let param_span = a.param.as_ref().map_or(a.expr.span, |p| p.span);
        let steps = self.steps.count;
        // The vector first: of two remarks in the same words the outer one's place is shown.
        let input = self.eval_vector(&a.expr)?;
        let mut warn = |q: f64| {
            let text = format!("quantile value should be between 0 and 1, got {}", go_float(q));
            self.notes.warn(param_span, text);
        };
        if param.any_nan {
            warn(f64::NAN);
        }
        if param.max > 1.0 {
            warn(param.max);
        }
        if param.min < 0.0 {
            warn(param.min);
        }
        let mut groups = Groups::new(a);
        let mut members: Vec<Vec<usize>> = Vec::new();
        for (i, row) in input.rows.iter().enumerate() {
            let at = groups.of(&row.labels);
            if at == members.len() {
                members.push(Vec::new());
            }
            members[at].push(i);
        }
        if input.rows.iter().any(|r| r.column.histogram_count() > 0) {
            self.notes.info(a.expr.span, "ignored histogram in quantile aggregation");
        }
        let mut rows = Vec::with_capacity(members.len());
        let mut values = Vec::new();
        for (labels, members) in groups.labels.into_iter().zip(members) {
            self.budget.check()?;
            let mut column = Column::new(steps);
            for step in 0..steps {
                values.clear();
                values.extend(members.iter().filter_map(|m| input.rows[*m].column.float(step)));
                if !values.is_empty() {
                    column.set_float(step, quantile(param.values[step], &mut values));
                }
            }
            let drop_name = members.iter().any(|m| input.rows[*m].drop_name);
            if !column.is_empty() {
                rows.push(Row { labels, drop_name, column });
            }
        }
        Ok(Val::Vector(Frame { rows }))
    }

    /// `topk`, `bottomk`, `limitk`, `limit_ratio`: some rows of each group, as they are.
    fn pick(&mut self, a: &Aggregate, span: Span) -> Result<Val, QueryError> {
        let param = self.parameter(a)?;
        let input = self.eval_vector(&a.expr)?;
        let param_span = a.param.as_ref().map_or(span, |p| p.span);
        let none = Ok(Val::Vector(Frame::default()));
        if a.op == AggregateOp::LimitRatio {
            if param.max == 0.0 && param.min == 0.0 {
                return none;
            }
            if param.any_nan {
                return Err(QueryError::execution("Ratio value is NaN"));
            }
            for (beyond, value, cap) in
                [(param.max > 1.0, param.max, 1.0), (param.min < -1.0, param.min, -1.0)]
            {
                if beyond {
                    let text = format!(
                        "ratio value should be between -1 and 1, got {}, capping to {}",
                        go_float(value),
                        go_float(cap)
                    );
                    self.notes.warn(param_span, text);
                }
            }
        } else {
            if param.max < 1.0 {
                return none;
            }
            if param.any_nan {
                return Err(QueryError::execution("Parameter value is NaN"));
            }
            if param.min <= -9_223_372_036_854_775_808.0 {
                return Err(QueryError::execution(format!(
                    "Scalar value {} underflows int64",
                    go_float(param.min)
                )));
            }
            if param.max >= 9_223_372_036_854_774_784.0 {
                return Err(QueryError::execution(format!(
                    "Scalar value {} overflows int64",
                    go_float(param.max)
                )));
            }
        }
        let steps = self.steps.count;
        let mut groups = Groups::new(a);
        let group_of: Vec<usize> = input.rows.iter().map(|r| groups.of(&r.labels)).collect();
        let count = groups.labels.len();
        let offsets: Vec<f64> = match a.op {
            AggregateOp::LimitRatio => {
                input.rows.iter().map(|r| r.labels.hash() as f64 / u64::MAX as f64).collect()
            }
            _ => Vec::new(),
        };
        let mut chosen: Vec<Vec<(f64, usize)>> = vec![Vec::new(); count];
        let mut columns: Vec<Option<Column>> = vec![None; input.rows.len()];
        let mut order = Vec::new();
        let mut ignored = false;
        for step in 0..steps {
            if step % 64 == 0 {
                self.budget.check()?;
            }
            let p = param.values[step];
            // Also where `p` is beyond 64 bits: the cast saturates.
            let k = (p as i64).min(input.rows.len() as i64);
            if (a.op == AggregateOp::LimitRatio && p == 0.0) || (a.op != AggregateOp::LimitRatio && k < 1) {
                continue;
            }
            let k = k.max(0) as usize;
            let ratio = p.clamp(-1.0, 1.0);
            chosen.iter_mut().for_each(Vec::clear);
            for (i, row) in input.rows.iter().enumerate() {
                let Some(point) = row.column.get(step) else { continue };
                let group = &mut chosen[group_of[i]];
                match (a.op, point) {
                    (AggregateOp::Limitk, _) => {
                        if group.len() < k {
                            group.push((0.0, i));
                        }
                    }
                    (AggregateOp::LimitRatio, _) => {
                        let o = offsets[i];
                        if (ratio >= 0.0 && o < ratio) || (ratio < 0.0 && o >= 1.0 + ratio) {
                            group.push((0.0, i));
                        }
                    }
                    (_, Point::Histogram(_)) => ignored = true,
                    (AggregateOp::Topk, Point::Float(v)) => offer(group, k, (v, i), |a, b| a < b),
                    (_, Point::Float(v)) => offer(group, k, (v, i), |a, b| a > b),
                }
            }
            for group in &mut chosen {
                // Best first, NaN last; equals in the order of the heap.
                match a.op {
                    AggregateOp::Topk => {
                        group.sort_by(|a, b| best_first(b.0, a.0, a.0.is_nan(), b.0.is_nan()))
                    }
                    AggregateOp::Bottomk => {
                        group.sort_by(|a, b| best_first(a.0, b.0, a.0.is_nan(), b.0.is_nan()))
                    }
                    _ => {}
                }
                for (_, i) in group.iter() {
                    let column = columns[*i].get_or_insert_with(|| {
                        order.push(*i);
                        Column::new(steps)
                    });
                    match input.rows[*i].column.get(step) {
                        Some(Point::Float(v)) => column.set_float(step, v),
                        Some(Point::Histogram(h)) => column.set_histogram(step, h.clone()),
                        None => {}
                    }
                }
            }
        }
        if ignored {
            self.notes.info(span, format!("ignored histogram in {} aggregation", a.op.as_str()));
        }
        let rows = order
            .into_iter()
            .filter_map(|i| {
                let row = &input.rows[i];
                columns[i].take().map(|column| Row {
                    labels: row.labels.clone(),
                    drop_name: row.drop_name,
                    column,
                })
            })
            .collect();
        Ok(Val::Vector(Frame { rows }))
    }

    fn count_values(&mut self, a: &Aggregate) -> Result<Val, QueryError> {
        let label = a.param.as_ref().and_then(|p| p.as_string()).unwrap_or_default();
        let label = match std::str::from_utf8(label) {
            Ok(l) if !l.is_empty() => l,
            _ => {
                return Err(QueryError::execution(format!(
                    "invalid label name {}",
                    model::matcher::quote(label)
                )));
            }
        };
        let input = self.eval_vector(&a.expr)?;
        let steps = self.steps.count;
        let mut by_labels: HashMap<Labels, usize> = HashMap::new();
        let mut rows: Vec<Row> = Vec::new();
        for row in &input.rows {
            self.budget.check()?;
            // A series rarely changes its value: the labels are made anew only when it does.
            let mut last: Option<(u64, usize)> = None;
            for (step, point) in row.column.iter() {
                let at = match (point, last) {
                    (Point::Float(v), Some((bits, at))) if bits == v.to_bits() => at,
                    _ => {
                        let text = match point {
                            Point::Float(v) if v.is_infinite() => {
                                if v > 0.0 { "+Inf" } else { "-Inf" }.to_string()
                            }
                            Point::Float(v) => v.to_string(),
                            Point::Histogram(h) => h.to_string(),
                        };
                        let mut b = row.labels.to_builder();
                        b.set(label, &text);
                        let whole = b.build();
                        let labels = match a.without {
                            true => group_labels(&whole, &a.grouping, true),
                            false => whole.filter(|n, _| n == label || a.grouping.iter().any(|g| &**g == n)),
                        };
                        let next = rows.len();
                        let at = *by_labels.entry(labels.clone()).or_insert(next);
                        if at == next {
                            self.expect_rows(next + 1, steps)?;
                            rows.push(Row { labels, drop_name: false, column: Column::new(steps) });
                        }
                        if let Point::Float(v) = point {
                            last = Some((v.to_bits(), at));
                        }
                        at
                    }
                };
                let before = rows[at].column.float(step).unwrap_or(0.0);
                rows[at].column.set_float(step, before + 1.0);
            }
        }
        Ok(Val::Vector(Frame { rows }))
    }
}

struct Param {
    values: Vec<f64>,
    min: f64,
    max: f64,
    any_nan: bool,
}

/// Order of two values of which the better comes first: `a` before `b` where `a < b`, numbers before NaN.
fn best_first(a: f64, b: f64, left_nan: bool, right_nan: bool) -> std::cmp::Ordering {
    match (left_nan, right_nan) {
        (false, false) => a.partial_cmp(&b).expect("no NaN"),
        (l, r) => l.cmp(&r),
    }
}

/// Offers a value to the `k` best so far, which are a heap with the worst on top, as upstream's: the earliest of the worst gives way.
fn offer(heap: &mut Vec<(f64, usize)>, k: usize, new: (f64, usize), worse: fn(f64, f64) -> bool) {
    let less = |a: f64, b: f64| a.is_nan() || worse(a, b);
    if heap.len() < k {
        heap.push(new);
        let mut at = heap.len() - 1;
        while at > 0 {
            let parent = (at - 1) / 2;
            if !less(heap[at].0, heap[parent].0) {
                break;
            }
            heap.swap(at, parent);
            at = parent;
        }
        return;
    }
    if !(worse(heap[0].0, new.0) || (heap[0].0.is_nan() && !new.0.is_nan())) {
        return;
    }
    heap[0] = new;
    let mut at = 0;
    loop {
        let left = 2 * at + 1;
        if left >= heap.len() {
            break;
        }
        let right = left + 1;
        let child = if right < heap.len() && less(heap[right].0, heap[left].0) { right } else { left };
        if !less(heap[child].0, heap[at].0) {
            break;
        }
        heap.swap(at, child);
        at = child;
    }
}

/// The labels a row's group goes by.
fn group_labels(labels: &Labels, grouping: &[Arc<str>], without: bool) -> Labels {
    match without {
        true => labels.filter(|n, _| n != METRIC_NAME && !grouping.iter().any(|g| &**g == n)),
        false if grouping.is_empty() => Labels::empty(),
        false => labels.filter(|n, _| grouping.iter().any(|g| &**g == n)),
    }
}

/// Groups in the order of their first row.
struct Groups<'a> {
    aggregate: &'a Aggregate,
    numbers: HashMap<Labels, usize>,
    labels: Vec<Labels>,
}

impl<'a> Groups<'a> {
    fn new(aggregate: &'a Aggregate) -> Self {
        Groups { aggregate, numbers: HashMap::new(), labels: Vec::new() }
    }

    fn of(&mut self, labels: &Labels) -> usize {
        let key = group_labels(labels, &self.aggregate.grouping, self.aggregate.without);
        let next = self.labels.len();
        let at = *self.numbers.entry(key.clone()).or_insert(next);
        if at == next {
            self.labels.push(key);
        }
        at
    }
}

/// A group while its rows come in: one slot per step.
struct State {
    op: AggregateOp,
    steps: usize,
    drop_name: bool,
    /// A bit per step that has a value.
    seen: Vec<u64>,
    /// A bit per step that has floats, for `sum` and `avg`.
    floats: Vec<u64>,
    value: Vec<f64>,
    /// Of `value`, or of `mean`.
    compensation: Vec<f64>,
    count: Vec<f64>,
    /// For `stddev` and `stdvar`, and for `avg` after an overflow.
    mean: Vec<f64>,
    /// A bit per step at which `avg` went over to the running mean, which may itself become NaN.
    running: Vec<u64>,
    histograms: HashMap<usize, HistogramState>,
}

/// Calls `f` with step, value and whether the step was not yet seen, for every float; marks the steps as seen.
#[inline]
fn each_float(values: &[f64], present: &[u64], seen: &mut [u64], mut f: impl FnMut(usize, f64, bool)) {
    for (word, (bits, seen)) in present.iter().zip(seen).enumerate() {
        let (mut rest, before) = (*bits, *seen);
        *seen |= rest;
        while rest != 0 {
            let bit = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            f(word * 64 + bit, values[word * 64 + bit], before >> bit & 1 == 0);
        }
    }
}

/// A group's histograms at one step.
struct HistogramState {
    /// `None`: floats came first, so that there will be no result.
    sum: Option<Histogram>,
    mean: Option<Histogram>,
    compensation: Option<Histogram>,
    incompatible: bool,
    reset: bool,
    not_reset: bool,
}

impl State {
    fn new(op: AggregateOp, steps: usize) -> Self {
        use AggregateOp::*;
        let words = steps.div_ceil(64);
        let of = |wanted: bool| if wanted { vec![0.0; steps] } else { Vec::new() };
        let marks = |wanted: bool| if wanted { vec![0; words] } else { Vec::new() };
        State {
            op,
            steps,
            drop_name: false,
            seen: vec![0; words],
            floats: marks(matches!(op, Sum | Avg)),
            value: of(!matches!(op, Count | Group)),
            compensation: of(matches!(op, Sum | Avg)),
            count: of(matches!(op, Avg | Count | Stddev | Stdvar)),
            mean: match op {
                Stddev | Stdvar => vec![0.0; steps],
                _ => Vec::new(),
            },
            running: Vec::new(),
            histograms: HashMap::new(),
        }
    }

    fn add(&mut self, row: &Row, span: Span, notes: &mut Annotations) {
        use AggregateOp::*;
        self.drop_name |= row.drop_name;
        let (values, present) = row.column.floats();
        if matches!(self.op, Sum | Avg) {
            self.floats.iter_mut().zip(present).for_each(|(a, b)| *a |= b);
        }
        let mut seen = std::mem::take(&mut self.seen);
        // The commonest have loops of their own.
        match self.op {
            Sum => {
                let (sums, rest) = (&mut self.value, &mut self.compensation);
                each_float(values, present, &mut seen, |step, v, first| {
                    let (sum, c) = if first { (v, 0.0) } else { compensated_add(v, sums[step], rest[step]) };
                    sums[step] = sum;
                    rest[step] = c;
                });
            }
            Count => {
                let count = &mut self.count;
                each_float(values, present, &mut seen, |step, _, _| count[step] += 1.0);
            }
            Max => {
                let best = &mut self.value;
                each_float(values, present, &mut seen, |step, v, first| {
                    if first || best[step] < v || best[step].is_nan() {
                        best[step] = v;
                    }
                });
            }
            Min => {
                let best = &mut self.value;
                each_float(values, present, &mut seen, |step, v, first| {
                    if first || best[step] > v || best[step].is_nan() {
                        best[step] = v;
                    }
                });
            }
            _ => each_float(values, present, &mut seen, |step, v, first| self.add_float(step, v, first)),
        }
        self.seen = seen;
        if row.column.histogram_count() == 0 {
            return;
        }
        for (step, h) in row.column.histograms() {
            let step = *step as usize;
            match self.op {
                Sum | Avg => self.add_histogram(step, h, &row.labels, span, notes),
                Count => {
                    self.see(step);
                    self.count[step] += 1.0;
                }
                Group => {
                    self.see(step);
                }
                op => notes.info(span, format!("ignored histogram in {} aggregation", op.as_str())),
            }
        }
    }

    /// Marks a step; true where it was not marked before.
    fn see(&mut self, step: usize) -> bool {
        let (word, mask) = (step >> 6, 1u64 << (step & 63));
        let first = self.seen[word] & mask == 0;
        self.seen[word] |= mask;
        first
    }

    #[inline]
    fn add_float(&mut self, step: usize, v: f64, first: bool) {
        use AggregateOp::*;
        match self.op {
            Avg if first => {
                (self.value[step], self.compensation[step], self.count[step]) = (v, 0.0, 1.0);
            }
            Avg => self.add_to_mean(step, v),
            Group => {}
            _ if first => {
                self.count[step] = 1.0;
                self.mean[step] = v;
                self.value[step] = if v.is_finite() { 0.0 } else { f64::NAN };
            }
            _ => {
                self.count[step] += 1.0;
                let delta = v - self.mean[step];
                self.mean[step] += delta / self.count[step];
                self.value[step] += delta * (v - self.mean[step]);
            }
        }
    }

    fn runs(&self, step: usize) -> bool {
        self.running.get(step >> 6).is_some_and(|word| word >> (step & 63) & 1 == 1)
    }

    /// Sum over count, or the running mean from where the sum would overflow.
    fn add_to_mean(&mut self, step: usize, v: f64) {
        self.count[step] += 1.0;
        let count = self.count[step];
        if !self.runs(step) {
            let (sum, c) = compensated_add(v, self.value[step], self.compensation[step]);
            if !sum.is_infinite() {
                (self.value[step], self.compensation[step]) = (sum, c);
                return;
            }
            if self.mean.is_empty() {
                self.mean = vec![0.0; self.value.len()];
                self.running = vec![0; self.steps.div_ceil(64)];
            }
            self.running[step >> 6] |= 1 << (step & 63);
            self.mean[step] = self.value[step] / (count - 1.0);
            self.compensation[step] /= count - 1.0;
        }
        let q = (count - 1.0) / count;
        (self.mean[step], self.compensation[step]) =
            compensated_add(v / count, q * self.mean[step], q * self.compensation[step]);
    }

    fn add_histogram(
        &mut self,
        step: usize,
        h: &Histogram,
        labels: &Labels,
        span: Span,
        notes: &mut Annotations,
    ) {
        let first = self.see(step);
        if self.op == AggregateOp::Avg {
            self.count[step] = if first { 1.0 } else { self.count[step] + 1.0 };
        }
        let count = self.count.get(step).copied().unwrap_or(0.0);
        let state = self.histograms.entry(step).or_insert_with(|| HistogramState {
            sum: None,
            mean: None,
            compensation: None,
            incompatible: false,
            reset: false,
            not_reset: false,
        });
        if state.incompatible {
            return;
        }
        if first || state.sum.is_some() {
            state.reset |= h.counter_reset_hint == CounterResetHint::CounterReset;
            state.not_reset |= h.counter_reset_hint == CounterResetHint::NotCounterReset;
        }
        if first {
            state.sum = Some(h.clone());
            return;
        }
        let added = match self.op {
            AggregateOp::Sum => state.add(h),
            _ => state.add_to_mean(h, count),
        };
        match added {
            Ok(true) => notes.info(span, "mismatched custom buckets were reconciled during aggregation"),
            Ok(false) => {}
            Err(IncompatibleSchemas) => {
                state.incompatible = true;
                notes.warn(
                    span,
                    format!(
                        "vector contains a mix of histograms with exponential and custom buckets schemas for metric name {}",
                        quote(labels.metric_name().unwrap_or(""))
                    ),
                );
            }
        }
    }

    fn finish(mut self, span: Span, notes: &mut Annotations) -> Column {
        use AggregateOp::*;
        let mut histograms: Vec<(usize, HistogramState)> =
            std::mem::take(&mut self.histograms).into_iter().collect();
        histograms.sort_unstable_by_key(|(s, _)| *s);
        let mut values = vec![0.0; self.steps];
        for word in 0..self.seen.len() {
            let mut rest = self.seen[word];
            while rest != 0 {
                let step = word * 64 + rest.trailing_zeros() as usize;
                rest &= rest - 1;
                values[step] = match self.op {
                    Sum => self.value[step] + self.compensation[step],
                    Avg => {
                        let (c, n) = (self.compensation[step], self.count[step]);
                        if self.runs(step) { self.mean[step] + c } else { self.value[step] / n + c / n }
                    }
                    Count => self.count[step],
                    Group => 1.0,
                    Stdvar => self.value[step] / self.count[step],
                    Stddev => (self.value[step] / self.count[step]).sqrt(),
                    _ => self.value[step],
                };
            }
        }
        let mut column = Column::from_parts(values, self.seen);
        for (step, state) in histograms {
            let mixed = self.floats[step >> 6] >> (step & 63) & 1 == 1;
            column.clear(step);
            if mixed {
                notes.warn(span, "encountered a mix of histograms and floats for aggregation");
                continue;
            }
            if state.incompatible {
                continue;
            }
            if state.reset && state.not_reset {
                notes.warn(span, "conflicting counter resets during histogram aggregation");
            }
            let count = self.count.get(step).copied().unwrap_or(1.0);
            if let Some(h) = state.finish(self.op, count) {
                column.set_histogram(step, Arc::new(h));
            }
        }
        column
    }
}

impl HistogramState {
    /// True where custom bounds had to be reconciled.
    fn add(&mut self, h: &Histogram) -> Result<bool, IncompatibleSchemas> {
        match &mut self.sum {
            Some(sum) => Ok(sum.kahan_add(h, &mut self.compensation)?.bounds_reconciled),
            None => Ok(false),
        }
    }

    fn add_to_mean(&mut self, h: &Histogram, count: f64) -> Result<bool, IncompatibleSchemas> {
        let Some(sum) = &self.sum else { return Ok(false) };
        let mut reconciled = false;
        if self.mean.is_none() {
            let (mut next, mut c) = (sum.clone(), self.compensation.clone());
            reconciled |= next.kahan_add(h, &mut c)?.bounds_reconciled;
            if !next.has_overflow() {
                (self.sum, self.compensation) = (Some(next), c);
                return Ok(reconciled);
            }
            let mut mean = sum.clone();
            mean.div(count - 1.0);
            self.mean = Some(mean);
            if let Some(c) = &mut self.compensation {
                c.div(count - 1.0);
            }
        }
        let Some(mean) = &mut self.mean else { return Ok(reconciled) };
        let q = (count - 1.0) / count;
        if let Some(c) = &mut self.compensation {
            c.mul(q);
        }
        let mut part = h.clone();
        part.div(count);
        mean.mul(q);
        reconciled |= mean.kahan_add(&part, &mut self.compensation)?.bounds_reconciled;
        Ok(reconciled)
    }

    fn finish(self, op: AggregateOp, count: f64) -> Option<Histogram> {
        let mut compensation = self.compensation;
        let mut result = match self.mean {
            Some(mean) => mean,
            None => {
                let mut sum = self.sum?;
                if op == AggregateOp::Avg {
                    sum.div(count);
                    if let Some(c) = &mut compensation {
                        c.div(count);
                    }
                }
                sum
            }
        };
        if let Some(c) = compensation {
            // Both have one layout, so this cannot be refused.
            let _ = result.add(&c);
        }
        result.compact(0);
        Some(result)
    }
}
