//! Functions that look at one value of one series at a time.

use super::Evaluator;
use super::frame::{Column, Frame, Row, Val};
use super::functions::{Element, ElementFn};
use crate::parse::ValueType;
use crate::plan::Call;
use crate::value::QueryError;

impl Evaluator<'_> {
    /// A number for a number; histograms vanish.
    pub(crate) fn math(&mut self, frame: Frame, f: fn(f64) -> f64) -> Result<Val, QueryError> {
        let mut rows = Vec::with_capacity(frame.rows.len());
        for mut row in frame.rows {
            (row.labels, row.drop_name) = self.drop_name(row.labels);
            row.column.map_floats(f);
            rows.push(row);
        }
        self.collect(rows).map(Val::Vector)
    }

    /// A value for a value, or none.
    pub(crate) fn element(&mut self, call: &Call, f: ElementFn) -> Result<Val, QueryError> {
        let mut vector = None;
        let mut scalars = Vec::new();
        for arg in &call.args {
            match arg.kind {
                ValueType::InstantVector if vector.is_none() => vector = Some(self.eval_vector(arg)?),
                ValueType::String => {}
                _ => scalars.push(self.eval_scalar(arg)?),
            }
        }
        let Some(frame) = vector else {
            return Err(QueryError::internal(format!("{} was planned without a vector", call.entry.name)));
        };
        let arg_spans: Vec<_> = call.args.iter().map(|a| a.span).collect();
        let mut at_step = vec![0.0; scalars.len()];
        let mut rows = Vec::with_capacity(frame.rows.len());
        for row in frame.rows {
            self.budget.check()?;
            let mut column = Column::new(self.steps.count);
            for (step, point) in row.column.iter() {
                for (to, from) in at_step.iter_mut().zip(&scalars) {
                    *to = from[step];
                }
                let mut element = Element {
                    scalars: &at_step,
                    t_ms: self.steps.at(step),
                    labels: &row.labels,
                    arg_spans: &arg_spans,
                    notes: &mut self.notes,
                };
                if let Some(v) = f(&mut element, point) {
                    column.set(step, v);
                }
            }
            let (labels, drop_name) = self.drop_name(row.labels);
            rows.push(Row { labels, drop_name, column });
        }
        self.collect(rows).map(Val::Vector)
    }
}
