//! Range functions over downsampled windows: what they give over the samples, from each window's count, sum,
//! extremes, ends and falls.
//!
//! Only functions stand here for which that is possible; the table of which one needs what is
//! [`crate::plan::resolution::window_needs`]. A raw sample among the windows is a window of one.

use std::sync::Arc;

use model::histogram::{CounterResetHint, Histogram, IncompatibleSchemas, compensated_add};
use model::rollup::{HistogramFlags, Window, WindowColumns, changed};
use model::sample::Value;
use model::source::SeriesColumns;

use super::extremes::sliding_extreme;
use super::kernel::{SeriesWindows, WindowContext};
use super::rate::{
    MIXED_KINDS, MIXED_SCHEMAS, RECONCILED_SUB, add_noting, mixed_kinds, mixed_schemas, not_a_counter,
    not_a_gauge,
};
use crate::column::Column;
use crate::eval::extrapolation::Extent;

/// How a function runs over windows.
#[derive(Clone, Copy)]
pub struct Windowed {
    /// All steps of a series without histograms in one pass; `None` where a column it needs is missing.
    pub floats: fn(&FloatWindows<'_>, &mut Column) -> Option<()>,
    /// One step of any series. The windows are never empty and hold no markers.
    pub any: fn(&mut WindowContext<'_>, &[Window]) -> Option<Value>,
}

/// A series of floats as windows, markers removed: times and values of the last samples, and the other
/// columns.
pub struct FloatWindows<'a> {
    pub series: &'a SeriesColumns,
    pub columns: &'a WindowColumns,
    /// Windows `from..to` per step, both never descending; empty ones have no value.
    pub windows: &'a [(u32, u32)],
    pub view: SeriesWindows<'a>,
}

/// How a function runs over windows, for those that can.
pub fn find(name: &str) -> Option<Windowed> {
    Some(match name {
        "count_over_time" => Windowed {
            floats: count_floats,
            any: |_, w| Some(Value::Float(w.iter().map(|w| f64::from(w.count)).sum())),
        },
        "sum_over_time" => {
            Windowed { floats: |w, out| sum_floats(w, out, false), any: |c, w| sum(c, w, false) }
        }
        "avg_over_time" => {
            Windowed { floats: |w, out| sum_floats(w, out, true), any: |c, w| sum(c, w, true) }
        }
        "min_over_time" => Windowed {
            floats: |w, out| extreme_floats(w, w.columns.min.as_deref()?, out, |old, new| new < old),
            any: |c, w| extreme(c, w, |w| w.min, |v, best| v < best),
        },
        "max_over_time" => Windowed {
            floats: |w, out| extreme_floats(w, w.columns.max.as_deref()?, out, |old, new| new > old),
            any: |c, w| extreme(c, w, |w| w.max, |v, best| v > best),
        },
        "first_over_time" => Windowed {
            floats: |w, out| {
                let first = w.columns.first.as_deref()?;
                each(w, out, |from, _| first[from])
            },
            any: |_, w| edge(&w[0].first),
        },
        "last_over_time" => Windowed {
            floats: |w, out| each(w, out, |_, to| w.series.values[to - 1]),
            any: |_, w| edge(&w[w.len() - 1].last),
        },
        "ts_of_first_over_time" => Windowed {
            floats: |w, out| {
                let first = w.columns.first_ts_ms.as_deref()?;
                each(w, out, |from, _| first[from] as f64 / 1000.0)
            },
            any: |_, w| Some(Value::Float(w[0].first.ts_ms as f64 / 1000.0)),
        },
        "ts_of_last_over_time" => Windowed {
            floats: |w, out| each(w, out, |_, to| w.series.ts_ms[to - 1] as f64 / 1000.0),
            any: |_, w| Some(Value::Float(w[w.len() - 1].last.ts_ms as f64 / 1000.0)),
        },
        "present_over_time" | "absent_over_time" => {
            Windowed { floats: |w, out| each(w, out, |_, _| 1.0), any: |_, _| Some(Value::Float(1.0)) }
        }
        "rate" => Windowed {
            floats: |w, out| extrapolated_floats(w, out, true, true),
            any: |c, w| extrapolated(c, w, true, true),
        },
        "increase" => Windowed {
            floats: |w, out| extrapolated_floats(w, out, true, false),
            any: |c, w| extrapolated(c, w, true, false),
        },
        "delta" => Windowed {
            floats: |w, out| extrapolated_floats(w, out, false, false),
            any: |c, w| extrapolated(c, w, false, false),
        },
        "resets" => Windowed {
            floats: |w, out| pairs(w, out, w.columns.resets.as_deref()?, |a, b| b < a),
            any: |_, w| Some(Value::Float(whole(w).resets.into())),
        },
        "changes" => Windowed {
            floats: |w, out| pairs(w, out, w.columns.changes.as_deref()?, changed),
            any: |_, w| Some(Value::Float(whole(w).changes.into())),
        },
        _ => return None,
    })
}

/// One value per step, from the first window and the end of the last.
fn each(w: &FloatWindows<'_>, out: &mut Column, f: impl Fn(usize, usize) -> f64) -> Option<()> {
    for (step, &(from, to)) in w.windows.iter().enumerate() {
        if from < to {
            out.set_float(step, f(from as usize, to as usize));
        }
    }
    Some(())
}

/// Samples in the windows before each.
fn counted(count: &[u32]) -> Vec<u64> {
    let mut sum = 0;
    let mut sums = Vec::with_capacity(count.len() + 1);
    sums.push(0);
    for c in count {
        sum += u64::from(*c);
        sums.push(sum);
    }
    sums
}

fn count_floats(w: &FloatWindows<'_>, out: &mut Column) -> Option<()> {
    let counted = counted(w.columns.count.as_deref()?);
    each(w, out, |from, to| (counted[to] - counted[from]) as f64)
}

fn sum_floats(w: &FloatWindows<'_>, out: &mut Column, mean: bool) -> Option<()> {
    let sums = w.columns.sum.as_deref()?;
    let counted = match mean {
        true => counted(w.columns.count.as_deref()?),
        false => Vec::new(),
    };
    each(w, out, |from, to| {
        let (mut sum, mut c) = (0.0, 0.0);
        for v in &sums[from..to] {
            (sum, c) = compensated_add(*v, sum, c);
        }
        if mean {
            let n = (counted[to] - counted[from]) as f64;
            return if sum.is_infinite() { sum / n } else { sum / n + c / n };
        }
        if sum.is_infinite() { sum } else { sum + c }
    })
}

fn extreme_floats(
    w: &FloatWindows<'_>,
    column: &[f64],
    out: &mut Column,
    better: fn(f64, f64) -> bool,
) -> Option<()> {
    sliding_extreme(&SeriesWindows { values: column, ..w.view }, out, better).then_some(())
}

/// [`super::rate`]'s extrapolation: ends and falls are known, and how many samples there are.
fn extrapolated_floats(w: &FloatWindows<'_>, out: &mut Column, counter: bool, rate: bool) -> Option<()> {
    let (last, last_ts) = (&w.series.values, &w.series.ts_ms);
    let first = w.columns.first.as_deref()?;
    let first_ts = w.columns.first_ts_ms.as_deref()?;
    let counted = counted(w.columns.count.as_deref()?);
    // What falls took away, in the order of time: between a window and the one before, then within.
    let mut falls: Vec<(u32, bool, f64)> = Vec::new();
    if counter {
        let within = w.columns.reset_sum.as_deref()?;
        for i in 0..first.len() {
            if i > 0 && first[i] < last[i - 1] {
                falls.push((i as u32, true, last[i - 1]));
            }
            if within[i] != 0.0 {
                falls.push((i as u32, false, within[i]));
            }
        }
    }
    let range_ms = w.view.reach.back_ms;
    let mut from_fall = 0;
    for (step, &(from, to)) in w.windows.iter().enumerate() {
        let (a, b) = (from as usize, to as usize);
        let samples = counted[b] - counted[a];
        if samples < 2 {
            continue;
        }
        let mut result = last[b - 1] - first[a];
        while from_fall < falls.len() && falls[from_fall].0 < from {
            from_fall += 1;
        }
        for (at, before, lost) in &falls[from_fall..] {
            if *at >= to {
                break;
            }
            if !(*before && *at == from) {
                result += lost;
            }
        }
        let end = w.view.reach.reference(step);
        let extent = Extent {
            range_start_ms: end - range_ms,
            range_end_ms: end,
            first_t: first_ts[a],
            last_t: last_ts[b - 1],
            gaps: samples as usize - 1,
        };
        let share = (counter && result > 0.0 && first[a] >= 0.0).then(|| first[a] / result);
        out.set_float(step, result * extent.factor(share, rate));
    }
    Some(())
}

/// Neighbours of interest, those within windows counted already.
fn pairs(w: &FloatWindows<'_>, out: &mut Column, within: &[u32], pair: fn(f64, f64) -> bool) -> Option<()> {
    let (first, last) = (w.columns.first.as_deref()?, &w.series.values);
    // running[i]: pairs that end in window i or before it.
    let mut running = Vec::with_capacity(within.len());
    let mut n = 0u64;
    for i in 0..within.len() {
        n += u64::from(within[i]) + u64::from(i > 0 && pair(last[i - 1], first[i]));
        running.push(n);
    }
    each(w, out, |from, to| (running[to - 1] - running[from] + u64::from(within[from])) as f64)
}

fn edge(e: &model::rollup::Edge) -> Option<Value> {
    Some(match &e.histogram {
        Some(h) => Value::Histogram(h.clone()),
        None => Value::Float(e.value),
    })
}

/// All windows as one.
fn whole(windows: &[Window]) -> Window {
    let mut all = windows[0].clone();
    windows[1..].iter().for_each(|w| all.follow(w));
    all
}

/// Whether floats and histograms are among the samples.
fn kinds(windows: &[Window]) -> (bool, bool) {
    (windows.iter().any(Window::has_floats), windows.iter().any(|w| w.histogram_count > 0))
}

fn extreme(
    c: &mut WindowContext<'_>,
    windows: &[Window],
    of: fn(&Window) -> f64,
    wins: fn(f64, f64) -> bool,
) -> Option<Value> {
    let (floats, histograms) = kinds(windows);
    if !floats {
        return None;
    }
    if histograms {
        let text = format!(
            "ignored histograms in a range containing both floats and histograms for metric name {}",
            c.quoted_name()
        );
        c.notes.info(c.span(), text);
    }
    let mut best = f64::NAN;
    for v in windows.iter().filter(|w| w.has_floats()).map(of) {
        if wins(v, best) || best.is_nan() {
            best = v;
        }
    }
    Some(Value::Float(best))
}

fn sum(c: &mut WindowContext<'_>, windows: &[Window], mean: bool) -> Option<Value> {
    let count: f64 = windows.iter().map(|w| f64::from(w.count)).sum();
    match kinds(windows) {
        (true, true) => {
            let text = format!("{MIXED_KINDS} {}", c.quoted_name());
            c.notes.warn(c.span(), text);
            return None;
        }
        (_, false) => {
            let (mut sum, mut rest) = (0.0, 0.0);
            for w in windows {
                (sum, rest) = compensated_add(w.sum, sum, rest);
            }
            let sum = if sum.is_infinite() { sum } else { sum + rest };
            return Some(Value::Float(if mean { sum / count } else { sum }));
        }
        (false, true) => {}
    }
    let mut flags = HistogramFlags::default();
    windows.iter().for_each(|w| flags |= w.flags);
    let mut reconciled = flags.has(HistogramFlags::RECONCILED);
    let mut add = || -> Result<Histogram, IncompatibleSchemas> {
        let mut all = windows.iter().map(|w| w.histogram_sum.as_ref().ok_or(IncompatibleSchemas));
        let mut sum = (**all.next().ok_or(IncompatibleSchemas)??).clone();
        let mut rest = None;
        for h in all {
            reconciled |= sum.kahan_add(h?, &mut rest)?.bounds_reconciled;
        }
        if let Some(rest) = rest {
            reconciled |= sum.add(&rest)?.bounds_reconciled;
        }
        Ok(sum)
    };
    let result = if flags.is_mixed() { Err(IncompatibleSchemas) } else { add() };
    let Ok(mut sum) = result else {
        let text = format!("{MIXED_SCHEMAS} {}", c.quoted_name());
        c.notes.warn(c.span(), text);
        return None;
    };
    if flags.has(HistogramFlags::RESET) && flags.has(HistogramFlags::NOT_RESET) {
        c.notes.warn(c.span(), "conflicting counter resets during histogram aggregation");
    }
    if reconciled {
        c.notes.info(c.span(), "mismatched custom buckets were reconciled during aggregation");
    }
    if mean {
        sum.div(count);
    }
    Some(Value::Histogram(Arc::new(sum)))
}

fn extrapolated(c: &mut WindowContext<'_>, windows: &[Window], counter: bool, rate: bool) -> Option<Value> {
    if kinds(windows) == (true, true) {
        return mixed_kinds(c);
    }
    let samples: u64 = windows.iter().map(|w| u64::from(w.count)).sum();
    if samples < 2 {
        return None;
    }
    let (first, last) = (&windows[0].first, &windows[windows.len() - 1].last);
    let extent = Extent {
        range_start_ms: c.range_start_ms,
        range_end_ms: c.range_end_ms,
        first_t: first.ts_ms,
        last_t: last.ts_ms,
        gaps: samples as usize - 1,
    };
    let (Some(a), Some(b)) = (&first.histogram, &last.histogram) else {
        let mut result = last.value - first.value;
        if counter {
            for (i, w) in windows.iter().enumerate() {
                if i > 0 && w.first.value < windows[i - 1].last.value {
                    result += windows[i - 1].last.value;
                }
                result += w.reset_sum;
            }
        }
        let share = (counter && result > 0.0 && first.value >= 0.0).then(|| first.value / result);
        return Some(Value::Float(result * extent.factor(share, rate)));
    };
    let mut result = histogram_difference(c, windows, (a, b), counter)?;
    let share = (counter && result.count > 0.0 && a.count >= 0.0).then(|| a.count / result.count);
    result.mul(extent.factor(share, rate));
    Some(Value::Histogram(Arc::new(result)))
}

/// How much a series of histograms grew; remarks and schema as [`super::rate`] has them for the samples.
fn histogram_difference(
    c: &mut WindowContext<'_>,
    windows: &[Window],
    (first, last): (&Arc<Histogram>, &Arc<Histogram>),
    counter: bool,
) -> Option<Histogram> {
    let gauge = CounterResetHint::Gauge;
    let mut flags = HistogramFlags::default();
    windows.iter().for_each(|w| flags |= w.flags);
    if counter && flags.has(HistogramFlags::GAUGE) {
        not_a_counter(c);
    }
    let mixed = match counter {
        true => flags.is_mixed(),
        false => first.uses_custom_buckets() != last.uses_custom_buckets(),
    };
    if mixed {
        return mixed_schemas(c);
    }
    let mut schema = first.schema.min(last.schema);
    if counter {
        schema = windows.iter().map(|w| w.schema).fold(schema, i32::min);
    }
    let mut result = if last.schema == schema {
        (**last).clone()
    } else {
        match last.copy_to_schema(schema) {
            Ok(h) => h,
            Err(IncompatibleSchemas) => return mixed_schemas(c),
        }
    };
    match result.sub(first) {
        Err(IncompatibleSchemas) => return mixed_schemas(c),
        Ok(done) if done.bounds_reconciled => c.notes.info(c.span(), RECONCILED_SUB),
        Ok(_) => {}
    }
    if counter {
        for (i, w) in windows.iter().enumerate() {
            if i > 0
                && let (Some(before), Some(now)) = (&windows[i - 1].last.histogram, &w.first.histogram)
                && now.detect_reset(before)
            {
                add_noting(c, &mut result, before)?;
            }
            if let Some(lost) = &w.histogram_reset_sum {
                add_noting(c, &mut result, lost)?;
            }
        }
    } else if first.counter_reset_hint != gauge || last.counter_reset_hint != gauge {
        not_a_gauge(c);
    }
    result.counter_reset_hint = gauge;
    result.compact(0);
    Some(result)
}
