//! When two answers to one question are the same, and where they differ.

use crate::test_services::api::{Answer, data, start_of};
use crate::test_services::{Data, Labels};
use std::collections::BTreeMap;

/// What a server said: data, or the type and the text of an error.
#[derive(Debug)]
pub enum Said {
    Data(Data),
    Error(String, String),
}

pub fn said(answer: &Answer) -> Said {
    let json = answer.json();
    if answer.status == 200 {
        return Said::Data(data(&json["data"]));
    }
    let text = |key: &str| json[key].as_str().unwrap_or_default().to_owned();
    Said::Error(text("errorType"), text("error"))
}

/// How much of the computation two servers may do in another order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    pub relative: f64,
    /// For what is left when nearly equal values are subtracted.
    pub absolute: f64,
}

fn same(a: f64, b: f64, within: Tolerance) -> bool {
    a == b
        || (a.is_nan() && b.is_nan())
        || (a - b).abs() <= within.relative * a.abs().max(b.abs())
        || (a - b).abs() <= within.absolute
}

/// Says where the answers differ, with Prometheus' first; none if they are the same.
pub fn difference(expected: &Said, actual: &Said, within: Tolerance) -> Option<String> {
    match (expected, actual) {
        (Said::Error(a, _), Said::Error(b, _)) if a == b => None,
        (Said::Data(a), Said::Data(b)) => data_differs(a, b, within),
        _ => Some(told(&shown(expected), &shown(actual))),
    }
}

fn shown(said: &Said) -> String {
    match said {
        Said::Data(data) => format!("{data:?}"),
        Said::Error(kind, text) => format!("{kind}: {text}"),
    }
}

fn told(expected: &impl std::fmt::Debug, actual: &impl std::fmt::Debug) -> String {
    let (expected, actual) = (format!("{expected:?}"), format!("{actual:?}"));
    format!("Prometheus {}\n      Hearth     {}", start_of(&expected), start_of(&actual))
}

fn data_differs(expected: &Data, actual: &Data, within: Tolerance) -> Option<String> {
    let one = |m: &BTreeMap<Labels, (i64, f64)>| m.iter().map(|(k, v)| (k.clone(), vec![*v])).collect();
    match (expected, actual) {
        (Data::Scalar(t, v), Data::Scalar(u, w)) if t == u && same(*v, *w, within) => None,
        (Data::Text(t, v), Data::Text(u, w)) if t == u && v == w => None,
        (Data::Vector(a), Data::Vector(b)) => series_differ(&one(a), &one(b), within),
        (Data::Matrix(a), Data::Matrix(b)) => series_differ(a, b, within),
        _ => Some(told(expected, actual)),
    }
}

type Matrix = BTreeMap<Labels, Vec<(i64, f64)>>;

fn series_differ(expected: &Matrix, actual: &Matrix, within: Tolerance) -> Option<String> {
    let counts = format!("Prometheus has {} series, Hearth {}", expected.len(), actual.len());
    if let Some((labels, points)) = expected.iter().find(|(k, _)| !actual.contains_key(*k)) {
        return Some(format!("{counts}; only Prometheus: {labels:?} {}", start_of(&format!("{points:?}"))));
    }
    if let Some((labels, points)) = actual.iter().find(|(k, _)| !expected.contains_key(*k)) {
        return Some(format!("{counts}; only Hearth: {labels:?} {}", start_of(&format!("{points:?}"))));
    }
    expected.iter().find_map(|(labels, points)| {
        let others = &actual[labels];
        let first = points
            .iter()
            .zip(others)
            .find(|((t, v), (u, w))| t != u || !same(*v, *w, within))
            .map(|(a, b)| format!("first at {a:?} and {b:?}"));
        let lengths =
            (points.len() != others.len()).then(|| format!("{} points and {}", points.len(), others.len()));
        first.or(lengths).map(|what| format!("{labels:?}: {what}\n      {}", told(points, others)))
    })
}
