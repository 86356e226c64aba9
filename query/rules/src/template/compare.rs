//! `eq`, `ne`, `lt`, `le`, `gt`, `ge`: Go's comparisons, which refuse values of different kinds.

use std::cmp::Ordering;

use super::value::Value;

const INCOMPATIBLE: &str = "incompatible types for comparison";
const NOT_BASIC: &str = "invalid type for comparison";

/// Whether two values are equal.
pub fn equal(a: &Value, b: &Value) -> Result<bool, String> {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => Ok(a == b),
        (Value::Int(a), Value::Int(b)) => Ok(a == b),
        (Value::Float(a), Value::Float(b)) => Ok(a == b),
        (Value::Text(a), Value::Text(b)) => Ok(a == b),
        (Value::Nil, Value::Nil) => Ok(true),
        (Value::Nil, _) | (_, Value::Nil) => Ok(false),
        (a, b) if is_basic(a) && is_basic(b) => Err(INCOMPATIBLE.into()),
        (a, b) => {
            let odd = if is_basic(a) { b } else { a };
            Err(format!("non-comparable type {}: {}", odd.printed(), odd.type_name()))
        }
    }
}

/// Whether the first is less.
pub fn less(a: &Value, b: &Value) -> Result<bool, String> {
    Ok(order(a, b)? == Some(Ordering::Less))
}

/// Whether the first is less or equal.
pub fn less_or_equal(a: &Value, b: &Value) -> Result<bool, String> {
    Ok(less(a, b)? || equal(a, b)?)
}

fn is_basic(v: &Value) -> bool {
    matches!(v, Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_))
}

/// `None`: one of them is NaN.
fn order(a: &Value, b: &Value) -> Result<Option<Ordering>, String> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => Ok(Some(a.cmp(b))),
        (Value::Float(a), Value::Float(b)) => Ok(a.partial_cmp(b)),
        (Value::Text(a), Value::Text(b)) => Ok(Some(a.cmp(b))),
        (Value::Bool(_), Value::Bool(_)) => Err(NOT_BASIC.into()),
        (a, b) if is_basic(a) && is_basic(b) => Err(INCOMPATIBLE.into()),
        _ => Err(NOT_BASIC.into()),
    }
}
