//! Aggregations that pick rows: `topk`, `bottomk`, `limitk`, `limit_ratio`.

use std::cmp::Ordering;

use super::groups::Groups;
use super::parameter::Param;
use crate::annotations::go_float;
use crate::column::{Column, Point};
use crate::eval::evaluator::{Evaluator, column_bytes};
use crate::eval::frame::{Frame, Row, Val};
use crate::parse::{AggregateOp, Span};
use crate::plan::Aggregate;
use crate::value::QueryError;

impl Evaluator<'_> {
    /// Some rows of each group, as they are.
    pub(super) fn pick(&mut self, a: &Aggregate, span: Span) -> Result<Val, QueryError> {
        let param = self.parameter(a)?;
        let input = self.eval_vector(&a.expr)?;
        let param_span = a.param.as_ref().map_or(span, |p| p.span);
        if !self.picks_any(a.op, &param, param_span)? {
            return Ok(Val::Vector(Frame::default()));
        }
        let mut groups = Groups::new(a);
        let group_of: Vec<usize> = input.rows.iter().map(|r| groups.of(&r.labels)).collect();
        let mut picker = Picker::new(a.op, &input.rows, group_of, groups.labels.len());
        let steps = self.steps.count;
        let mut columns: Vec<Option<Column>> = vec![None; input.rows.len()];
        // Rows in the order in which they were picked first.
        let mut order = Vec::new();
        for step in 0..steps {
            self.budget.check()?;
            if !picker.pick(step, param.values[step]) {
                continue;
            }
            for (_, i) in picker.picked.iter().flatten() {
                if columns[*i].is_none() {
                    self.budget.reserve(column_bytes(steps))?;
                    self.live += column_bytes(steps).into();
                    order.push(*i);
                }
                let column = columns[*i].get_or_insert_with(|| Column::new(steps));
                match input.rows[*i].column.get(step) {
                    Some(Point::Float(v)) => column.set_float(step, v),
                    Some(Point::Histogram(h)) => column.set_histogram(step, h.clone()),
                    None => {}
                }
            }
        }
        if picker.ignored_histograms {
            self.notes.info(span, format!("ignored histogram in {} aggregation", a.op.as_str()));
        }
        let row_of = |i: usize| {
            let Row { labels, drop_name, .. } = &input.rows[i];
            columns[i].take().map(|column| Row { labels: labels.clone(), drop_name: *drop_name, column })
        };
        Ok(Val::Vector(Frame { rows: order.into_iter().filter_map(row_of).collect() }))
    }

    /// Checks the parameter; whether it picks anything at any step.
    fn picks_any(&mut self, op: AggregateOp, param: &Param, span: Span) -> Result<bool, QueryError> {
        if op == AggregateOp::LimitRatio {
            if param.max == 0.0 && param.min == 0.0 {
                return Ok(false);
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
                    self.notes.warn(span, text);
                }
            }
            return Ok(true);
        }
        if param.max < 1.0 {
            return Ok(false);
        }
        if param.any_nan {
            return Err(QueryError::execution("Parameter value is NaN"));
        }
        let beyond = |value: f64, what: &str| {
            Err(QueryError::execution(format!("Scalar value {} {what} int64", go_float(value))))
        };
        if param.min <= -9_223_372_036_854_775_808.0 {
            return beyond(param.min, "underflows");
        }
        if param.max >= 9_223_372_036_854_774_784.0 {
            return beyond(param.max, "overflows");
        }
        Ok(true)
    }
}

/// Picks rows at one step after the other.
struct Picker<'r> {
    op: AggregateOp,
    rows: &'r [Row],
    group_of: Vec<usize>,
    /// For `limit_ratio`: where each row stands between 0 and 1.
    offsets: Vec<f64>,
    /// By group: values and rows, the best first.
    picked: Vec<Vec<(f64, usize)>>,
    ignored_histograms: bool,
}

impl<'r> Picker<'r> {
    fn new(op: AggregateOp, rows: &'r [Row], group_of: Vec<usize>, groups: usize) -> Self {
        let offsets = match op {
            AggregateOp::LimitRatio => {
                rows.iter().map(|r| r.labels.hash() as f64 / u64::MAX as f64).collect()
            }
            _ => Vec::new(),
        };
        Picker { op, rows, group_of, offsets, picked: vec![Vec::new(); groups], ignored_histograms: false }
    }

    /// Picks at a step, whose parameter is `p`; false where that picks nothing.
    fn pick(&mut self, step: usize, p: f64) -> bool {
        // Also where `p` is beyond 64 bits: the cast saturates.
        let k = (p as i64).min(self.rows.len() as i64);
        if (self.op == AggregateOp::LimitRatio && p == 0.0) || (self.op != AggregateOp::LimitRatio && k < 1) {
            return false;
        }
        let k = k.max(0) as usize;
        let ratio = p.clamp(-1.0, 1.0);
        self.picked.iter_mut().for_each(Vec::clear);
        for (i, row) in self.rows.iter().enumerate() {
            let Some(point) = row.column.get(step) else { continue };
            let group = &mut self.picked[self.group_of[i]];
            match (self.op, point) {
                (AggregateOp::Limitk, _) => {
                    if group.len() < k {
                        group.push((0.0, i));
                    }
                }
                (AggregateOp::LimitRatio, _) => {
                    let offset = self.offsets[i];
                    if (ratio >= 0.0 && offset < ratio) || (ratio < 0.0 && offset >= 1.0 + ratio) {
                        group.push((0.0, i));
                    }
                }
                (_, Point::Histogram(_)) => self.ignored_histograms = true,
                (AggregateOp::Topk, Point::Float(v)) => offer(group, k, (v, i), |a, b| a < b),
                (_, Point::Float(v)) => offer(group, k, (v, i), |a, b| a > b),
            }
        }
        // Best first, NaN last; equals in the order of the heap.
        for group in &mut self.picked {
            match self.op {
                AggregateOp::Topk => group.sort_by(|a, b| best_first(b.0, a.0, a.0.is_nan(), b.0.is_nan())),
                AggregateOp::Bottomk => {
                    group.sort_by(|a, b| best_first(a.0, b.0, a.0.is_nan(), b.0.is_nan()))
                }
                _ => {}
            }
        }
        true
    }
}

/// Order of two values of which the better comes first: `a` before `b` where `a < b`, numbers before NaN.
fn best_first(a: f64, b: f64, left_nan: bool, right_nan: bool) -> Ordering {
    match (left_nan, right_nan) {
        (false, false) => a.partial_cmp(&b).expect("no NaN"),
        (l, r) => l.cmp(&r),
    }
}

/// Offers a value to the `k` best so far, which are a heap with the worst on top, as upstream's: the earliest
/// of the worst gives way.
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
