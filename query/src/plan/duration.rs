//! Duration expressions become milliseconds once step and range of the query are known (upstream
//! `promql/durations.go`).

use crate::parse::{DurationExpr, DurationNode, DurationOp, Span};
use crate::value::QueryError;

/// What a duration expression may ask about the query.
#[derive(Clone, Copy, Debug)]
pub struct QueryShape {
    /// Seconds; 0 for an instant query.
    pub step: f64,
    /// Seconds from start to end.
    pub range: f64,
}

/// Milliseconds of a duration. Only offsets may be zero or negative where they are computed.
pub fn milliseconds(d: &DurationExpr, shape: QueryShape, may_be_negative: bool) -> Result<i64, QueryError> {
    let node = match d {
        DurationExpr::Literal(ms) => return Ok(*ms),
        DurationExpr::Computed(node) => node,
    };
    let refuse = |why: &str| Err(at(node.span, why));
    let seconds = evaluate(node, shape)?;
    if !seconds.is_finite() {
        return refuse("duration is NaN or infinite");
    }
    if seconds <= 0.0 && !may_be_negative {
        return refuse("duration must be greater than 0");
    }
    // The bound of upstream's nanoseconds in 64 bits.
    let limit = 9_223_372_036.854_776;
    if !(-limit..=limit).contains(&seconds) {
        return refuse("duration is out of range");
    }
    Ok((seconds * 1000.0) as i64)
}

fn at(span: Span, why: &str) -> QueryError {
    let mut e = QueryError::bad_data(format!("{}:{}: {why}", span.start, span.end));
    e.span = Some(span);
    e
}

fn evaluate(node: &DurationNode, shape: QueryShape) -> Result<f64, QueryError> {
    let of = |n: &DurationNode| evaluate(n, shape);
    Ok(match &node.op {
        DurationOp::Number(n) => n.value,
        DurationOp::Neg(a) => -of(a)?,
        DurationOp::Add(a, b) => of(a)? + of(b)?,
        DurationOp::Sub(a, b) => of(a)? - of(b)?,
        DurationOp::Mul(a, b) => of(a)? * of(b)?,
        DurationOp::Div(a, b) => {
            let (a, b) = (of(a)?, of(b)?);
            if b == 0.0 {
                return Err(at(node.span, "division by zero"));
            }
            a / b
        }
        DurationOp::Mod(a, b) => {
            let (a, b) = (of(a)?, of(b)?);
            if b == 0.0 {
                return Err(at(node.span, "modulo by zero"));
            }
            a % b
        }
        DurationOp::Pow(a, b) => of(a)?.powf(of(b)?),
        DurationOp::Step => shape.step,
        DurationOp::Range => shape.range,
        DurationOp::Min(a, b) => go_min(of(a)?, of(b)?),
        DurationOp::Max(a, b) => go_max(of(a)?, of(b)?),
    })
}

/// Go's `math.Min`: NaN wins.
fn go_min(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.min(b) }
}

fn go_max(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}
