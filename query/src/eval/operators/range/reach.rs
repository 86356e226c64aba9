//! Which times a range vector looks at.

use crate::eval::functions::Extended;
use crate::eval::timeline::Reach;
use crate::plan::{Selector, Steps, Subquery};
use crate::value::QueryError;

/// What a matrix selector reads, extended where it is `anchored` or `smoothed`.
pub(crate) fn matrix_reach(s: &Selector, range_ms: i64, steps: Steps, lookback_ms: i64) -> (Reach, Extended) {
    let extended = match (s.anchored, s.smoothed) {
        (true, _) => Extended::Anchored,
        (_, true) => Extended::Smoothed,
        _ => Extended::No,
    };
    let before = if extended == Extended::No { 0 } else { lookback_ms };
    let reach = Reach {
        steps,
        offset_ms: s.offset_ms,
        at_ms: s.at_ms,
        back_ms: range_ms.saturating_add(before),
        ahead_ms: if extended == Extended::Smoothed { lookback_ms } else { 0 },
    };
    (reach, extended)
}

/// The steps of a subquery: multiples of its step, from behind the first window's start to the last window's
/// end.
pub(crate) fn subquery_steps(sub: &Subquery, outer: Steps, max_samples: u64) -> Result<Steps, QueryError> {
    let (first, last) = match sub.at_ms {
        Some(at) => (at, at),
        None => (outer.start_ms, outer.end_ms()),
    };
    let step_ms = sub.step_ms.max(1);
    let end = last.saturating_sub(sub.offset_ms);
    let after = first.saturating_sub(sub.offset_ms).saturating_sub(sub.range_ms);
    // Towards zero, then past the open left end: upstream's arithmetic.
    let mut start_ms = step_ms.saturating_mul(after / step_ms);
    if start_ms <= after {
        start_ms = start_ms.saturating_add(step_ms);
    }
    let count = if end < start_ms { 0 } else { (end.saturating_sub(start_ms) / step_ms) as u64 + 1 };
    check_step_count(count, max_samples, "a subquery")?;
    Ok(Steps { start_ms, step_ms, count: count as usize })
}

/// Refuses an evaluation of more steps than one query may hold samples: a single series could have as many.
/// What they take in memory is for the budget to say.
pub(crate) fn check_step_count(count: u64, max_samples: u64, what: &str) -> Result<(), QueryError> {
    // Steps are counted in 32 bits.
    let most = max_samples.min(u64::from(u32::MAX));
    if count > most {
        return Err(QueryError::execution(format!(
            "query processing would load too many samples into memory in query execution: {what} has {count} steps, the limit is {most} (query.max_samples); use a longer step or a shorter range"
        )));
    }
    Ok(())
}

/// Refuses `anchored` and `smoothed` where upstream does.
pub(super) fn check_extended(name: &str, extended: Extended) -> Result<(), QueryError> {
    const ANCHORED: &[&str] = &["changes", "delta", "increase", "rate", "resets"];
    const SMOOTHED: &[&str] = &["delta", "increase", "rate"];
    let (word, allowed) = match extended {
        Extended::No => return Ok(()),
        Extended::Anchored => ("anchored", ANCHORED),
        Extended::Smoothed => ("smoothed", SMOOTHED),
    };
    if allowed.contains(&name) {
        return Ok(());
    }
    Err(QueryError::execution(format!(
        "{word} modifier can only be used with: {} - not with {name}",
        allowed.join(", ")
    )))
}
