//! Functions between scalars and vectors, and those that have no vector at all.

use model::labels::Labels;

use super::kernel::{Entry, Kernel};
use super::math::{go_max, go_min};
use crate::column::Column;
use crate::eval::evaluator::Evaluator;
use crate::eval::frame::{Frame, Row, Val};
use crate::plan::{Call, Selector};
use crate::value::QueryError;

pub static TABLE: &[Entry] = &[
    Entry { name: "time", kernel: Kernel::Whole(time) },
    Entry {
        name: "pi",
        kernel: Kernel::Whole(|ev, _| Ok(Val::Scalar(vec![std::f64::consts::PI; ev.steps.count]))),
    },
    Entry { name: "scalar", kernel: Kernel::Whole(scalar) },
    Entry { name: "vector", kernel: Kernel::Whole(vector) },
    Entry { name: "max_of", kernel: Kernel::Whole(|ev, call| of_two(ev, call, go_max)) },
    Entry { name: "min_of", kernel: Kernel::Whole(|ev, call| of_two(ev, call, go_min)) },
    Entry { name: "absent", kernel: Kernel::Whole(absent) },
];

fn time(ev: &mut Evaluator<'_>, _: &Call) -> Result<Val, QueryError> {
    Ok(Val::Scalar((0..ev.steps.count).map(|s| ev.steps.at(s) as f64 / 1000.0).collect()))
}

/// The one float there is at a step, NaN where there is none or more than one.
fn scalar(ev: &mut Evaluator<'_>, call: &Call) -> Result<Val, QueryError> {
    let frame = ev.eval_vector(&call.args[0])?;
    let mut values = Vec::with_capacity(ev.steps.count);
    for step in 0..ev.steps.count {
        ev.budget.check_in_turn()?;
        let mut floats = frame.rows.iter().filter_map(|r| r.column.float(step));
        values.push(match (floats.next(), floats.next()) {
            (Some(v), None) => v,
            _ => f64::NAN,
        });
    }
    Ok(Val::Scalar(values))
}

fn vector(ev: &mut Evaluator<'_>, call: &Call) -> Result<Val, QueryError> {
    let column = Column::full(ev.eval_scalar(&call.args[0])?);
    Ok(Val::Vector(Frame { rows: vec![Row { labels: Labels::empty(), drop_name: false, column }] }))
}

fn of_two(ev: &mut Evaluator<'_>, call: &Call, f: fn(f64, f64) -> f64) -> Result<Val, QueryError> {
    let mut a = ev.eval_scalar(&call.args[0])?;
    let b = ev.eval_scalar(&call.args[1])?;
    for (a, b) in a.iter_mut().zip(b) {
        *a = f(*a, b);
    }
    Ok(Val::Scalar(a))
}

/// 1 at the steps where the vector is empty, with the labels that the selector asks for by `=`.
fn absent(ev: &mut Evaluator<'_>, call: &Call) -> Result<Val, QueryError> {
    let frame = ev.eval_vector(&call.args[0])?;
    let labels = call.args[0].as_selector().map_or_else(Labels::empty, Selector::absent_labels);
    let mut column = Column::new(ev.steps.count);
    for step in 0..ev.steps.count {
        ev.budget.check_in_turn()?;
        if frame.rows.iter().all(|r| r.column.get(step).is_none()) {
            column.set_float(step, 1.0);
        }
    }
    let rows = if column.is_empty() { Vec::new() } else { vec![Row { labels, drop_name: false, column }] };
    Ok(Val::Vector(Frame { rows }))
}
