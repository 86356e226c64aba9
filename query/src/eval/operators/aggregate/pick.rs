//! Aggregations that pick rows: `topk`, `bottomk`, `limitk`, `limit_ratio`.

use std::cmp::Ordering;
use std::ops::Range;

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
        for from in (0..steps).step_by(picker.steps_at_once) {
            self.budget.check_in_turn()?;
            let block = from..steps.min(from + picker.steps_at_once);
            picker.pick(block.clone(), &param.values);
            for (step, i) in block.flat_map(|step| picker.picked_at(step - from).map(move |i| (step, i))) {
                if columns[i].is_none() {
                    self.budget.reserve(column_bytes(steps))?;
                    self.live += column_bytes(steps).into();
                    order.push(i);
                }
                let column = columns[i].get_or_insert_with(|| Column::new(steps));
                match input.rows[i].column.get(step) {
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

/// Picks at so many steps of so many groups together at most: what that takes stays in the processor's
/// caches.
const PICKED_AT_ONCE: usize = 1 << 12;

/// Picks rows at some steps together: a row's values lie side by side, those of one step far apart.
struct Picker<'r> {
    op: AggregateOp,
    rows: &'r [Row],
    group_of: Vec<usize>,
    groups: usize,
    steps_at_once: usize,
    /// For `limit_ratio`: where each row stands between 0 and 1.
    offsets: Vec<f64>,
    /// By group and step: values and rows, the best first when all were looked at.
    picked: Vec<Vec<(f64, usize)>>,
    /// By group and step, for `topk` and `bottomk`: the worst of as many as are wanted; NaN where there are
    /// not as many, or where NaN is among them.
    worst: Vec<f64>,
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
        let steps_at_once = (PICKED_AT_ONCE / groups.max(1)).clamp(1, 64);
        let (picked, worst) =
            (vec![Vec::new(); groups * steps_at_once], vec![f64::NAN; groups * steps_at_once]);
        Picker {
            op,
            rows,
            group_of,
            groups,
            steps_at_once,
            offsets,
            picked,
            worst,
            ignored_histograms: false,
        }
    }

    /// The rows picked at a step, counted from the first of those that were picked together.
    fn picked_at(&self, within: usize) -> impl Iterator<Item = usize> {
        let of_group = move |group: usize| &self.picked[group * self.steps_at_once + within];
        (0..self.groups).flat_map(of_group).map(|(_, i)| *i)
    }

    /// Picks at some steps; `params` has the parameter of every step.
    fn pick(&mut self, block: Range<usize>, params: &[f64]) {
        self.picked.iter_mut().for_each(Vec::clear);
        self.worst.fill(f64::NAN);
        // Also where a parameter is beyond 64 bits: the cast saturates.
        let most = self.rows.len() as i64;
        let counts: Vec<usize> =
            params[block.clone()].iter().map(|p| (*p as i64).clamp(0, most) as usize).collect();
        match self.op {
            AggregateOp::Topk => {
                self.offer_all(block.start, &counts, |new, worst| new <= worst, |a, b| a < b)
            }
            AggregateOp::Bottomk => {
                self.offer_all(block.start, &counts, |new, worst| new >= worst, |a, b| a > b)
            }
            _ => self.take_all(block.start, &counts, &params[block]),
        }
        // Best first, NaN last; equals in the order of the heap.
        for picked in &mut self.picked {
            match self.op {
                AggregateOp::Topk => picked.sort_by(|a, b| best_first(b.0, a.0, a.0.is_nan(), b.0.is_nan())),
                AggregateOp::Bottomk => {
                    picked.sort_by(|a, b| best_first(a.0, b.0, a.0.is_nan(), b.0.is_nan()))
                }
                _ => {}
            }
        }
    }

    /// Offers the values of all rows, in order, for the best `counts` of each step from `start` on.
    fn offer_all(
        &mut self,
        start: usize,
        counts: &[usize],
        no_better: impl Fn(f64, f64) -> bool,
        worse: fn(f64, f64) -> bool,
    ) {
        for (i, row) in self.rows.iter().enumerate() {
            let at = self.group_of[i] * self.steps_at_once;
            let values = &row.column.floats().0[start..start + counts.len()];
            let worst = &self.worst[at..at + counts.len()];
            let passes = |any: bool, (new, worst): (&f64, &f64)| any | !no_better(*new, *worst);
            if values.iter().zip(worst).fold(false, passes) {
                for (within, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
                    let Some(v) = row.column.float(start + within) else { continue };
                    if no_better(v, self.worst[at + within]) {
                        continue;
                    }
                    let picked = &mut self.picked[at + within];
                    offer(picked, *count, (v, i), worse);
                    if picked.len() == *count {
                        self.worst[at + within] = picked[0].0;
                    }
                }
            }
            let steps = start..start + counts.len();
            let counts_at = |step: u32| steps.contains(&(step as usize)) && counts[step as usize - start] > 0;
            self.ignored_histograms |= row.column.histograms().iter().any(|(step, _)| counts_at(*step));
        }
    }

    /// Takes rows by their order (`limitk`) or by their labels (`limit_ratio`).
    fn take_all(&mut self, start: usize, counts: &[usize], ratios: &[f64]) {
        for (i, row) in self.rows.iter().enumerate() {
            let at = self.group_of[i] * self.steps_at_once;
            for (within, (count, ratio)) in counts.iter().zip(ratios).enumerate() {
                if row.column.get(start + within).is_none() {
                    continue;
                }
                let picked = &mut self.picked[at + within];
                let ratio = ratio.clamp(-1.0, 1.0);
                let taken = match self.op {
                    AggregateOp::Limitk => picked.len() < *count,
                    _ if ratio >= 0.0 => self.offsets[i] < ratio,
                    _ => self.offsets[i] >= 1.0 + ratio,
                };
                if taken {
                    picked.push((0.0, i));
                }
            }
        }
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
