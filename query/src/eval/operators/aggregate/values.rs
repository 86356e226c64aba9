//! Aggregations over the values of a group: `quantile` and `count_values`.

use hashbrown::HashMap;
use model::labels::Labels;
use model::quote::quote;

use super::groups::{Groups, group_labels, is_in};
use crate::annotations::go_float;
use crate::column::{Column, Point};
use crate::eval::evaluator::{Evaluator, column_bytes, label_bytes};
use crate::eval::frame::{Frame, Row, Val};
use crate::eval::functions::order::quantile_of_many;
use crate::plan::Aggregate;
use crate::value::QueryError;

impl Evaluator<'_> {
    pub(super) fn quantile_of_groups(&mut self, a: &Aggregate) -> Result<Val, QueryError> {
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
                self.charge(column_bytes(steps) + label_bytes(&groups.labels[at]))?;
                members.push(Vec::new());
            }
            members[at].push(i);
        }
        if input.rows.iter().any(|r| r.column.histogram_count() > 0) {
            self.notes.info(a.expr.span, "ignored histogram in quantile aggregation");
        }
        let mut rows = Vec::with_capacity(members.len());
        // As many steps together as lie in one line of the processor's cache.
        let mut values: [Vec<f64>; 8] = Default::default();
        for (labels, members) in groups.labels.into_iter().zip(members) {
            let mut column = Column::new(steps);
            for from in (0..steps).step_by(values.len()) {
                if from % 64 == 0 || members.len() > 8 {
                    self.budget.check_in_turn()?;
                }
                let at_once = values.len().min(steps - from);
                for m in &members {
                    let of_row = &input.rows[*m].column;
                    for (within, values) in values[..at_once].iter_mut().enumerate() {
                        values.extend(of_row.float(from + within));
                    }
                }
                for (within, values) in values[..at_once].iter_mut().enumerate() {
                    if !values.is_empty() {
                        let value = quantile_of_many(param.values[from + within], values);
                        column.set_float(from + within, value);
                        values.clear();
                    }
                }
            }
            let drop_name = members.iter().any(|m| input.rows[*m].drop_name);
            if !column.is_empty() {
                rows.push(Row { labels, drop_name, column });
            }
        }
        Ok(Val::Vector(Frame { rows }))
    }

    pub(super) fn count_values(&mut self, a: &Aggregate) -> Result<Val, QueryError> {
        let label = a.param.as_ref().and_then(|p| p.as_string()).unwrap_or_default();
        let label = match std::str::from_utf8(label) {
            Ok(l) if !l.is_empty() => l,
            _ => {
                return Err(QueryError::execution(format!("invalid label name {}", quote(label))));
            }
        };
        let input = self.eval_vector(&a.expr)?;
        let steps = self.steps.count;
        let mut by_labels: HashMap<Labels, usize> = HashMap::new();
        let mut rows: Vec<Row> = Vec::new();
        for row in &input.rows {
            self.budget.check_in_turn()?;
            // A series rarely changes its value: the labels are made anew only when it does.
            let mut last: Option<(u64, usize)> = None;
            for (step, point) in row.column.iter() {
                if step % 1024 == 1023 {
                    self.budget.check_in_turn()?;
                }
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
                            false => whole.filter(|n, _| n == label || is_in(&a.grouping, n)),
                        };
                        let next = rows.len();
                        let at = *by_labels.entry(labels.clone()).or_insert(next);
                        if at == next {
                            self.charge(column_bytes(steps) + 2 * label_bytes(&labels))?;
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
