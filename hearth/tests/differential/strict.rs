//! Two answers compared to the letter: data, order, error texts, warnings and infos; only numbers may differ
//! in their last digits.

use crate::test_services::api::{Answer, start_of};
use serde_json::Value;
use std::collections::BTreeSet;

const RELATIVE: f64 = 1e-9;
/// For what is left when nearly equal values are subtracted.
const ABSOLUTE: f64 = 1e-11;

/// Says where the answers differ, with Prometheus' first; none if they are the same. `ordered` where the
/// query promises an order of values.
pub fn difference(expected: &Answer, actual: &Answer, ordered: bool) -> Option<String> {
    let (a, b) = (expected.json(), actual.json());
    if expected.status != actual.status {
        return Some(told(&format!("{} {a}", expected.status), &format!("{} {b}", actual.status)));
    }
    for field in ["status", "errorType", "error"] {
        if told_without_chance(&a[field]) != told_without_chance(&b[field]) {
            return Some(told(&a[field].to_string(), &b[field].to_string()));
        }
    }
    for field in ["warnings", "infos"] {
        let set = |v: &Value| -> BTreeSet<String> {
            v[field].as_array().into_iter().flatten().map(told_without_chance).collect()
        };
        let (a, b) = (set(&a), set(&b));
        // Prometheus shows ten of each and chooses which by chance.
        if a != b && a.len().min(b.len()) < 10 {
            return Some(format!("{field}: {}", told(&format!("{a:?}"), &format!("{b:?}"))));
        }
    }
    let (a, b) = (&a["data"], &b["data"]);
    if a["resultType"] != b["resultType"] {
        return Some(told(&a.to_string(), &b.to_string()));
    }
    let (Some(x), Some(y)) = (a["result"].as_array(), b["result"].as_array()) else {
        return (a != b).then(|| told(&a.to_string(), &b.to_string()));
    };
    if !matches!(a["resultType"].as_str(), Some("vector" | "matrix")) {
        return (!alike(&a["result"], &b["result"])).then(|| told(&a.to_string(), &b.to_string()));
    }
    let (mut x, mut y) = (x.clone(), y.clone());
    // Which of two equal values comes first nobody promises.
    if let Some((a, b)) = x.iter().zip(&y).find(|(a, b)| ordered && !alike(&a["value"], &b["value"])) {
        return Some(format!("another order: {}", told(&a.to_string(), &b.to_string())));
    }
    for list in [&mut x, &mut y] {
        list.sort_by_key(|row| row["metric"].to_string());
    }
    if x.len() != y.len() {
        let names = |rows: &[Value]| rows.iter().map(|r| r["metric"].to_string()).collect::<BTreeSet<_>>();
        let (a, b) = (names(&x), names(&y));
        let only = |a: &BTreeSet<String>, b| a.difference(b).take(2).cloned().collect::<Vec<_>>().join(" ");
        return Some(format!(
            "{} series and {}; only Prometheus: {}; only Hearth: {}",
            x.len(),
            y.len(),
            only(&a, &b),
            only(&b, &a)
        ));
    }
    x.iter().zip(&y).find(|(a, b)| a["metric"] != b["metric"] || !alike(a, b)).map(|(a, b)| {
        let place = first_apart(&a.to_string(), &b.to_string());
        told(&place.0, &place.1)
    })
}

/// A text without what Prometheus leaves to chance or counts wrong: which two series of many have the same
/// labels, where they come from a calculation over steps (it walks a Go map), and over how many samples a
/// classic histogram was not monotonic (it doubles with every step).
fn told_without_chance(text: &Value) -> String {
    let mut text = text.to_string();
    for (from, to) in [("for the match group ", "];many-to-many"), ("with a max diff of", " from ")] {
        if let Some((head, tail)) = text.split_once(from)
            && let Some((_, tail)) = tail.split_once(to)
        {
            text = format!("{head}{tail}");
        }
    }
    text
}

/// Both texts from a little before where they part.
fn first_apart(a: &str, b: &str) -> (String, String) {
    let at = a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count();
    let from = |text: &str| {
        let head: String = text.chars().take(at.min(160)).collect();
        let tail: String = text.chars().skip(at.saturating_sub(30).max(160.min(at))).collect();
        format!("{head} … {tail}")
    };
    (from(a), from(b))
}

fn told(expected: &str, actual: &str) -> String {
    format!("Prometheus {}\n      Hearth     {}", start_of(expected), start_of(actual))
}

fn alike(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| alike(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(k, v)| b.get(k).is_some_and(|w| alike(v, w)))
        }
        (Value::String(a), Value::String(b)) => a == b || near(a, b),
        _ => a == b,
    }
}

fn near(a: &str, b: &str) -> bool {
    let (Ok(a), Ok(b)) = (a.parse::<f64>(), b.parse::<f64>()) else { return false };
    (a - b).abs() <= RELATIVE * a.abs().max(b.abs()) || (a - b).abs() <= ABSOLUTE
}
