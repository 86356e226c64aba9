//! How fast counters and gauges move: `rate`, `increase`, `delta`, `irate`, `idelta`, `resets`, `changes`.

use std::sync::Arc;

use model::histogram::{CounterResetHint, Histogram, IncompatibleSchemas};
use model::sample::Value;

use super::kernel::{
    Entry, Extended, Floats, Histograms, Kernel, Samples, SeriesWindows, Window, WindowContext,
};
use crate::annotations::Annotations;
use crate::column::Column;
use crate::eval::extrapolation::{Extent, extent};
use crate::parse::Span;

pub const ENTRIES: &[Entry] = &[
    window(
        "rate",
        |c, s| extrapolated(c, s, true, true),
        Some(|w, out| extrapolated_floats(w, out, true, true)),
    ),
    window(
        "increase",
        |c, s| extrapolated(c, s, true, false),
        Some(|w, out| extrapolated_floats(w, out, true, false)),
    ),
    window(
        "delta",
        |c, s| extrapolated(c, s, false, false),
        Some(|w, out| extrapolated_floats(w, out, false, false)),
    ),
    window("irate", |c, s| instant_value(c, s, true), Some(|w, out| instant_floats(w, out, true))),
    window("idelta", |c, s| instant_value(c, s, false), Some(|w, out| instant_floats(w, out, false))),
    window("resets", resets, Some(|w, out| count_pairs(w, out, |a, b| b < a))),
    window("changes", changes, Some(|w, out| count_pairs(w, out, changed))),
];

const fn window(
    name: &'static str,
    run: super::kernel::WindowFn,
    series: Option<super::kernel::SeriesKernel>,
) -> Entry {
    Entry { name, kernel: Kernel::Window(Window { keeps_name: false, run, series }) }
}

pub(super) const MIXED_SCHEMAS: &str =
    "vector contains a mix of histograms with exponential and custom buckets schemas for metric name";
pub(super) const MIXED_KINDS: &str = "encountered a mix of histograms and floats for metric name";
const RECONCILED_ADD: &str = "mismatched custom buckets were reconciled during addition";
pub(super) const RECONCILED_SUB: &str = "mismatched custom buckets were reconciled during subtraction";

pub(super) fn mixed_kinds(c: &mut WindowContext<'_>) -> Option<Value> {
    let text = format!("{MIXED_KINDS} {}", c.quoted_name());
    c.notes.warn(c.span(), text);
    None
}

pub(super) fn mixed_schemas<T>(c: &mut WindowContext<'_>) -> Option<T> {
    let text = format!("{MIXED_SCHEMAS} {}", c.quoted_name());
    c.notes.warn(c.span(), text);
    None
}

pub(super) fn not_a_counter(c: &mut WindowContext<'_>) {
    let text = format!("this native histogram metric is not a counter: {}", c.quoted_name());
    c.notes.warn(c.span(), text);
}

pub(super) fn not_a_gauge(c: &mut WindowContext<'_>) {
    let text = format!("this native histogram metric is not a gauge: {}", c.quoted_name());
    c.notes.warn(c.span(), text);
}

/// Whether a start timestamp says that the counter began anew between two samples (upstream
/// `isStartTimestampReset`).
fn start_reset(prev_start: i64, prev_t: i64, start: i64, t: i64) -> bool {
    if start == 0 || start >= t || start < prev_t {
        return false;
    }
    if start > prev_t {
        return true;
    }
    // It points at the sample before: a delta, unless that one's own start is unknown or wrong.
    prev_start <= prev_t && prev_start != 0 && prev_start != prev_t
}

fn start_overlap(prev_start: i64, prev_t: i64, start: i64) -> bool {
    start != 0 && start < prev_t && start != prev_start
}

fn start_at<T: AsRef<[i64]>>(starts: &Option<T>, i: usize) -> i64 {
    starts.as_ref().map_or(0, |s| s.as_ref()[i])
}

/// `rate`, `increase` and `delta` (upstream `extrapolatedRate`).
fn extrapolated(c: &mut WindowContext<'_>, s: &Samples<'_>, counter: bool, rate: bool) -> Option<Value> {
    let histograms = s.histogram_count();
    if histograms > 0 && histograms < s.len() {
        return mixed_kinds(c);
    }
    if c.extended != Extended::No {
        return if histograms > 0 {
            extended_histograms(c, &s.only_histograms(), counter, rate)
        } else {
            extended_floats(c, &s.floats(), counter, rate)
        };
    }
    let last = s.len() - 1;
    let extent = Extent {
        range_start_ms: c.range_start_ms,
        range_end_ms: c.range_end_ms,
        first_t: s.ts_ms[0],
        last_t: s.ts_ms[last],
        gaps: last,
    };
    // A start timestamp inside the range, before the first sample: the counter was zero then.
    let zero_at = s
        .start_ts_ms
        .filter(|_| counter)
        .map(|starts| starts[0])
        .filter(|t| *t != 0 && *t > c.range_start_ms && *t < s.ts_ms[0]);
    if histograms == 0 {
        let mut result = s.values[last] - s.values[0];
        if counter {
            let mut overlap = false;
            for i in 1..=last {
                let starts = s.start_ts_ms.map(|t| (t[i - 1], t[i]));
                if let Some((a, b)) = starts
                    && !overlap
                    && start_overlap(a, s.ts_ms[i - 1], b)
                {
                    overlap = true;
                    c.notes.start_time_overlap(c.span(), c.labels.metric_name().unwrap_or(""));
                }
                let reset = starts.is_some_and(|(a, b)| start_reset(a, s.ts_ms[i - 1], b, s.ts_ms[i]));
                if s.values[i] < s.values[i - 1] || reset {
                    result += s.values[i - 1];
                }
            }
        }
        let factor = match zero_at {
            Some(t) => {
                result += s.values[0];
                extent.factor_from(t, rate)
            }
            None if last == 0 => return None,
            None => {
                let share = (counter && result > 0.0 && s.values[0] >= 0.0).then(|| s.values[0] / result);
                extent.factor(share, rate)
            }
        };
        return Some(Value::Float(result * factor));
    }
    let h = s.only_histograms();
    let mut result = if last > 0 { Some(histogram_difference(c, &h, counter)?) } else { None };
    let factor = match zero_at {
        Some(t) => {
            match &mut result {
                None => result = Some((**h.values[0]).clone()),
                Some(r) => add_noting(c, r, h.values[0])?,
            }
            extent.factor_from(t, rate)
        }
        None if last == 0 => return None,
        None => {
            let count = result.as_ref().map_or(0.0, |r| r.count);
            let share =
                (counter && count > 0.0 && h.values[0].count >= 0.0).then(|| h.values[0].count / count);
            extent.factor(share, rate)
        }
    };
    let mut result = result?;
    result.mul(factor);
    Some(Value::Histogram(Arc::new(result)))
}

pub(super) fn add_noting(c: &mut WindowContext<'_>, base: &mut Histogram, other: &Histogram) -> Option<()> {
    match base.add(other) {
        Err(IncompatibleSchemas) => mixed_schemas(c),
        Ok(done) => {
            if done.bounds_reconciled {
                c.notes.info(c.span(), RECONCILED_ADD);
            }
            Some(())
        }
    }
}

fn sub_noting(c: &mut WindowContext<'_>, base: &mut Histogram, other: &Histogram) -> Option<()> {
    match base.sub(other) {
        Err(IncompatibleSchemas) => mixed_schemas(c),
        Ok(done) => {
            if done.bounds_reconciled {
                c.notes.info(c.span(), RECONCILED_SUB);
            }
            Some(())
        }
    }
}

/// How much a series of two or more histograms grew, resets made good for counters (upstream
/// `histogramRate`).
fn histogram_difference(c: &mut WindowContext<'_>, h: &Histograms<'_>, counter: bool) -> Option<Histogram> {
    let n = h.values.len();
    let gauge = CounterResetHint::Gauge;
    let (first, last) = (h.values[0], h.values[n - 1]);
    let resets = |i: usize, prev: &Histogram| {
        let by_start =
            h.start_ts_ms.as_ref().is_some_and(|t| start_reset(t[i - 1], h.ts_ms[i - 1], t[i], h.ts_ms[i]));
        by_start || h.values[i].detect_reset(prev)
    };
    if counter && (first.counter_reset_hint == gauge || last.counter_reset_hint == gauge) {
        not_a_counter(c);
    }
    // What stands before a reset need not fit what comes after: an empty histogram takes its place.
    let empty;
    let mut prev: &Histogram = first;
    if counter && resets(1, prev) {
        let second = h.values[1];
        empty = Histogram {
            schema: second.schema,
            custom_values: second.custom_values.clone(),
            ..Histogram::default()
        };
        prev = &empty;
    }
    let custom = prev.uses_custom_buckets();
    if last.uses_custom_buckets() != custom {
        return mixed_schemas(c);
    }
    let mut schema = last.schema.min(prev.schema);
    if counter {
        for curr in &h.values[1..n - 1] {
            if curr.counter_reset_hint == gauge {
                not_a_counter(c);
            }
            schema = schema.min(curr.schema);
            if curr.uses_custom_buckets() != custom {
                return mixed_schemas(c);
            }
        }
    }
    let mut result = if last.schema == schema {
        (**last).clone()
    } else {
        match last.copy_to_schema(schema) {
            Ok(h) => h,
            Err(IncompatibleSchemas) => return mixed_schemas(c),
        }
    };
    sub_noting(c, &mut result, prev)?;
    if counter {
        let mut overlap = false;
        for i in 1..n {
            if let Some(t) = &h.start_ts_ms
                && !overlap
                && start_overlap(t[i - 1], h.ts_ms[i - 1], t[i])
            {
                overlap = true;
                c.notes.start_time_overlap(c.span(), c.labels.metric_name().unwrap_or(""));
            }
            if resets(i, prev) {
                add_noting(c, &mut result, prev)?;
            }
            prev = h.values[i];
        }
    } else if first.counter_reset_hint != gauge || last.counter_reset_hint != gauge {
        not_a_gauge(c);
    }
    result.counter_reset_hint = gauge;
    result.compact(0);
    Some(result)
}

/// [`extrapolated`] over all windows of a series of floats. What follows from the times is known for the
/// whole timeline; resets are found once, and each window adds up the few inside it, in order, so that the
/// result has the bits of a fresh sum.
fn extrapolated_floats(w: &SeriesWindows<'_>, out: &mut Column, counter: bool, rate: bool) -> bool {
    let (values, range_ms) = (w.values, w.reach.back_ms);
    if values.is_empty() {
        return true;
    }
    let carried = w.windows.extrapolation(w.ts_ms, w.reach, rate);
    let resets = if counter { resets_of(values) } else { Vec::new() };
    out.fill(carried.present(), |out| {
        carried.differences(values, out);
        let mut from_reset = 0;
        for (result, &(from, to)) in out.iter_mut().zip(&w.windows[..]) {
            while from_reset < resets.len() && resets[from_reset] <= from {
                from_reset += 1;
            }
            if from_reset == resets.len() {
                break;
            }
            for r in resets[from_reset..].iter().take_while(|r| **r < to) {
                *result += values[*r as usize - 1];
            }
        }
        carried.apply(values, counter, out, |step, ends, result| {
            let extent = extent(w.ts_ms, ends, w.reach.reference(step), range_ms);
            let share =
                (result > 0.0 && values[ends.0 as usize] >= 0.0).then(|| values[ends.0 as usize] / result);
            result * extent.factor(share, rate)
        });
    });
    true
}

/// Where a counter fell, ascending.
fn resets_of(values: &[f64]) -> Vec<u32> {
    let mut resets = Vec::new();
    // Runs without any, which are nearly all, are seen to be such without a branch for each sample.
    for from in (1..values.len()).step_by(64) {
        let to = (from + 64).min(values.len());
        let (before, after) = (&values[from - 1..to - 1], &values[from..to]);
        if before.iter().zip(after).fold(false, |any, (a, b)| any | (b < a)) {
            resets.extend((from..to).filter(|i| values[*i] < values[*i - 1]).map(|i| i as u32));
        }
    }
    resets
}

/// Linear interpolation; with `counter` a fall counts as a start from zero.
fn interpolate((t1, y1): (i64, f64), (t2, y2): (i64, f64), t: i64, counter: bool) -> f64 {
    let y1 = if counter && y2 < y1 { 0.0 } else { y1 };
    y1 + (y2 - y1) * (t - t1) as f64 / (t2 - t1) as f64
}

/// Linear interpolation between two histograms; with `counter` a reset counts as a start from zero.
pub fn interpolate_histograms(
    (t1, h1): (i64, &Histogram),
    (t2, h2): (i64, &Histogram),
    t: i64,
    counter: bool,
    span: Span,
    notes: &mut Annotations,
) -> Result<Histogram, IncompatibleSchemas> {
    if t == t1 {
        return Ok(h1.clone());
    }
    let mut result = h2.clone();
    if t == t2 {
        return Ok(result);
    }
    let fraction = (t - t1) as f64 / (t2 - t1) as f64;
    if counter && h2.detect_reset(h1) {
        result.mul(fraction);
        return Ok(result);
    }
    if result.sub(h1)?.bounds_reconciled {
        notes.info(span, RECONCILED_SUB);
    }
    result.mul(fraction);
    if result.add(h1)?.bounds_reconciled {
        notes.info(span, RECONCILED_ADD);
    }
    Ok(result)
}

/// First and last index of an extended window that matter: the last sample at or before the range's start,
/// and the last of all, or for `smoothed` the first at or after its end.
fn edges(ts: &[i64], start: i64, end: i64, smoothed: bool) -> (usize, usize) {
    let all = ts.len() - 1;
    let first = ts[..all].partition_point(|t| *t <= start).saturating_sub(1);
    let last = if smoothed { ts[..all].partition_point(|t| *t < end) } else { all };
    (first, last)
}

fn left_edge(ts: &[i64], values: &[f64], first: usize, start: i64, smoothed: bool, counter: bool) -> f64 {
    if smoothed && ts[first] < start && first + 1 < ts.len() {
        return interpolate((ts[first], values[first]), (ts[first + 1], values[first + 1]), start, counter);
    }
    values[first]
}

fn right_edge(ts: &[i64], values: &[f64], last: usize, end: i64, smoothed: bool, counter: bool) -> f64 {
    if smoothed && last > 0 && ts[last] > end {
        return interpolate((ts[last - 1], values[last - 1]), (ts[last], values[last]), end, counter);
    }
    values[last]
}

/// The points of an `anchored` or `smoothed` range vector, with one at each edge; `None` where nothing lies
/// behind the range's start.
pub fn extend(
    ts: &[i64],
    values: &[f64],
    start: i64,
    end: i64,
    smoothed: bool,
) -> Option<(Vec<i64>, Vec<f64>)> {
    let (mut first, mut last) = edges(ts, start, end, smoothed);
    if ts[last] <= start {
        return None;
    }
    let left = left_edge(ts, values, first, start, smoothed, false);
    let right = right_edge(ts, values, last, end, smoothed, false);
    if ts[first] <= start {
        first += 1;
    }
    let behind = if ts[last] >= end { last } else { last + 1 };
    last = behind.max(first);
    let mut points = (vec![start], vec![left]);
    points.0.extend_from_slice(&ts[first..last]);
    points.1.extend_from_slice(&values[first..last]);
    points.0.push(end);
    points.1.push(right);
    Some(points)
}

/// `anchored` and `smoothed` (upstream `extendedRate`).
fn extended_floats(c: &mut WindowContext<'_>, f: &Floats<'_>, counter: bool, rate: bool) -> Option<Value> {
    let (ts, values) = (&*f.ts_ms, &*f.values);
    let (start, end) = (c.range_start_ms, c.range_end_ms);
    let smoothed = c.extended == Extended::Smoothed;
    let (mut first, last) = edges(ts, start, end, smoothed);
    if ts[last] <= start || (smoothed && ts[first] > end) {
        return None;
    }
    let left = left_edge(ts, values, first, start, smoothed, counter);
    let right = right_edge(ts, values, last, end, smoothed, counter);
    let mut result = right - left;
    if counter {
        if ts[first] <= start {
            first += 1;
        }
        let behind = if ts[last] >= end { last } else { last + 1 };
        let mut correction = 0.0;
        let mut prev = left;
        for v in &values[first..behind.max(first)] {
            if *v < prev {
                correction += prev;
            }
            prev = *v;
        }
        if right < prev {
            correction += prev;
        }
        result += correction;
    }
    if rate {
        result /= (end - start) as f64 / 1000.0;
    }
    Some(Value::Float(result))
}

/// An extended rate of histograms (upstream `extendedHistogramRate`).
fn extended_histograms(
    c: &mut WindowContext<'_>,
    h: &Histograms<'_>,
    counter: bool,
    rate: bool,
) -> Option<Value> {
    let gauge = CounterResetHint::Gauge;
    let (start, end) = (c.range_start_ms, c.range_end_ms);
    let smoothed = c.extended == Extended::Smoothed;
    let (first, last) = edges(&h.ts_ms, start, end, smoothed);
    if h.ts_ms[last] <= start || (smoothed && h.ts_ms[first] > end) {
        return None;
    }
    let custom = h.values[first].uses_custom_buckets();
    for v in &h.values[first..=last] {
        if v.uses_custom_buckets() != custom {
            return mixed_schemas(c);
        }
        if counter && v.counter_reset_hint == gauge {
            not_a_counter(c);
        }
    }
    let at = |i: usize| (h.ts_ms[i], &**h.values[i]);
    let span = c.span();
    let left = if smoothed && h.ts_ms[first] < start && first + 1 < h.values.len() {
        interpolate_histograms(at(first), at(first + 1), start, counter, span, c.notes)
    } else {
        Ok((**h.values[first]).clone())
    };
    let right = if smoothed && last > 0 && h.ts_ms[last] > end {
        interpolate_histograms(at(last - 1), at(last), end, counter, span, c.notes)
    } else {
        Ok((**h.values[last]).clone())
    };
    let (Ok(left), Ok(right)) = (left, right) else { return mixed_schemas(c) };
    if !counter && (left.counter_reset_hint != gauge || right.counter_reset_hint != gauge) {
        not_a_gauge(c);
    }
    let mut result = right.clone();
    sub_noting(c, &mut result, &left)?;
    if counter && let Some(correction) = reset_correction(c, h, (first, last), &left, &right, smoothed)? {
        add_noting(c, &mut result, &correction)?;
    }
    if rate {
        result.div((end - start) as f64 / 1000.0);
    }
    result.counter_reset_hint = gauge;
    result.compact(0);
    Some(Value::Histogram(Arc::new(result)))
}

/// What resets between the edges took away (upstream `correctForCounterResetsHistogram`); the outer `None` is
/// a failure.
fn reset_correction(
    c: &mut WindowContext<'_>,
    h: &Histograms<'_>,
    (first_at, last_at): (usize, usize),
    left: &Histogram,
    right: &Histogram,
    smoothed: bool,
) -> Option<Option<Histogram>> {
    let mut first = first_at + 1;
    let mut prev = left;
    if smoothed
        && h.ts_ms[first_at] < c.range_start_ms
        && first < h.values.len()
        && h.values[first].detect_reset(h.values[first_at])
    {
        // The left edge was interpolated across this reset and accounts for it.
        prev = h.values[first];
        first += 1;
    }
    // The last sample is the right edge, or what the right edge was interpolated from.
    if first > last_at {
        return Some(None);
    }
    let mut correction: Option<Histogram> = None;
    for curr in h.values[first..last_at].iter().map(|h| &***h).chain([right]) {
        if curr.detect_reset(prev) {
            match &mut correction {
                None => correction = Some(prev.clone()),
                Some(sum) => add_noting(c, sum, prev)?,
            }
        }
        prev = curr;
    }
    Some(correction)
}

/// `irate` and `idelta` (upstream `instantValue`): the last two samples.
fn instant_value(c: &mut WindowContext<'_>, s: &Samples<'_>, rate: bool) -> Option<Value> {
    let n = s.len();
    if n < 2 {
        return None;
    }
    let (t0, t1) = (s.ts_ms[n - 2], s.ts_ms[n - 1]);
    let seconds = (t1 - t0) as f64 / 1000.0;
    let starts = s.start_ts_ms.map_or((0, 0), |t| (t[n - 2], t[n - 1]));
    let by_start = start_reset(starts.0, t0, starts.1, t1);
    match (s.histogram(n - 2), s.histogram(n - 1)) {
        (None, None) => {
            let (a, b) = (s.values[n - 2], s.values[n - 1]);
            let v = if rate && (b < a || by_start) { b } else { b - a };
            Some(Value::Float(if rate { v / seconds } else { v }))
        }
        (Some(a), Some(b)) => {
            let gauge = CounterResetHint::Gauge;
            let mut result = (**b).clone();
            let gauges = [a, b].iter().filter(|h| h.counter_reset_hint == gauge).count();
            if rate && gauges > 0 {
                not_a_counter(c);
            }
            if !rate && gauges < 2 {
                not_a_gauge(c);
            }
            if !rate || !(by_start || b.detect_reset(a)) {
                sub_noting(c, &mut result, a)?;
            }
            result.counter_reset_hint = gauge;
            result.compact(0);
            if rate {
                result.div(seconds);
            }
            Some(Value::Histogram(Arc::new(result)))
        }
        _ => mixed_kinds(c),
    }
}

fn instant_floats(w: &SeriesWindows<'_>, out: &mut Column, rate: bool) -> bool {
    for (step, &(from, to)) in w.windows.iter().enumerate() {
        if to - from < 2 {
            continue;
        }
        let n = to as usize;
        let (a, b) = (w.values[n - 2], w.values[n - 1]);
        let v = match rate {
            true => (if b < a { b } else { b - a }) / ((w.ts_ms[n - 1] - w.ts_ms[n - 2]) as f64 / 1000.0),
            false => b - a,
        };
        out.set_float(step, v);
    }
    true
}

/// Where counting starts: `anchored` begins with the newest sample at or before the range's start. `None`:
/// nothing lies behind it.
fn anchor(c: &WindowContext<'_>, s: &Samples<'_>) -> Option<usize> {
    if c.extended != Extended::Anchored {
        return Some(0);
    }
    let behind = s.ts_ms.partition_point(|t| *t <= c.range_start_ms);
    (behind < s.len()).then(|| behind.saturating_sub(1))
}

fn resets(c: &mut WindowContext<'_>, s: &Samples<'_>) -> Option<Value> {
    let first = anchor(c, s)?;
    let count = (first + 1..s.len()).filter(|&i| {
        let by_start = || {
            start_reset(
                start_at(&s.start_ts_ms, i - 1),
                s.ts_ms[i - 1],
                start_at(&s.start_ts_ms, i),
                s.ts_ms[i],
            )
        };
        match (s.histogram(i - 1), s.histogram(i)) {
            (None, None) => s.values[i] < s.values[i - 1] || by_start(),
            (Some(a), Some(b)) => by_start() || b.detect_reset(a),
            _ => true,
        }
    });
    Some(Value::Float(count.count() as f64))
}

fn changed(a: f64, b: f64) -> bool {
    a != b && !(a.is_nan() && b.is_nan())
}

fn changes(c: &mut WindowContext<'_>, s: &Samples<'_>) -> Option<Value> {
    let first = anchor(c, s)?;
    let count = (first + 1..s.len()).filter(|&i| match (s.histogram(i - 1), s.histogram(i)) {
        (None, None) => changed(s.values[i - 1], s.values[i]),
        (Some(a), Some(b)) => !b.equals(a),
        _ => true,
    });
    Some(Value::Float(count.count() as f64))
}

/// How many neighbours within each window are a pair of interest, from running counts.
fn count_pairs(w: &SeriesWindows<'_>, out: &mut Column, pair: impl Fn(f64, f64) -> bool + Copy) -> bool {
    // running[i]: pairs that end at or before sample i.
    let mut running = vec![0u32; w.values.len()];
    let mut n = 0;
    for (running, ends) in running.iter_mut().skip(1).zip(w.values.windows(2)) {
        n += u32::from(pair(ends[0], ends[1]));
        *running = n;
    }
    out.fill(w.windows.present(), |out| {
        // Most series of most functions have none.
        if n == 0 {
            return;
        }
        // An empty window has no value, whatever stands there.
        let at = |i: u32| running[(i as usize).min(running.len() - 1)];
        for (count, &(from, to)) in out.iter_mut().zip(&w.windows[..]) {
            *count = f64::from(at(to.max(1) - 1).wrapping_sub(at(from)));
        }
    });
    true
}
