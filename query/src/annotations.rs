//! Warnings and infos that travel beside a query's result: collected by raw text, given a place in the query
//! only when shown.

use std::collections::BTreeMap;

use model::quote::quote;

use crate::parse::Span;

/// How serious a remark is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    Warning,
    Info,
}

/// What several remarks of one text add up to.
#[derive(Clone, Debug, PartialEq)]
enum Detail {
    None,
    /// `histogram_quantile` had to force its buckets to be monotonic.
    Monotonicity {
        min_t_ms: i64,
        max_t_ms: i64,
        min_bucket: f64,
        max_bucket: f64,
        max_diff: f64,
        samples: u64,
    },
    /// Start timestamps overlap samples: how often.
    StartOverlap {
        count: u64,
    },
}

#[derive(Clone, Debug)]
struct Annotation {
    severity: Severity,
    span: Span,
    detail: Detail,
}

/// The remarks of one query, each raw text once (upstream `util/annotations`).
#[derive(Clone, Debug, Default)]
pub struct Annotations {
    /// By raw text, `PromQL warning: …` or `PromQL info: …` for those of the language.
    by_text: BTreeMap<String, Annotation>,
}

impl Annotations {
    pub fn new() -> Self {
        Annotations::default()
    }

    pub fn is_empty(&self) -> bool {
        self.by_text.is_empty()
    }

    /// Adds a warning of the language: `PromQL warning: {text}`.
    pub fn warn(&mut self, span: Span, text: impl AsRef<str>) {
        self.put(Severity::Warning, format!("PromQL warning: {}", text.as_ref()), span, Detail::None);
    }

    /// Adds an info of the language: `PromQL info: {text}`.
    pub fn info(&mut self, span: Span, text: impl AsRef<str>) {
        self.put(Severity::Info, format!("PromQL info: {}", text.as_ref()), span, Detail::None);
    }

    /// A warning that is not the language's (a source that did not answer); shown as it is, without a place.
    pub fn warn_plain(&mut self, text: impl Into<String>) {
        self.put(Severity::Warning, text.into(), Span { start: u32::MAX, end: u32::MAX }, Detail::None);
    }

    /// An info of the same kind.
    pub fn info_plain(&mut self, text: impl Into<String>) {
        self.put(Severity::Info, text.into(), Span { start: u32::MAX, end: u32::MAX }, Detail::None);
    }

    /// `histogram_quantile`'s input at `t_ms` had to be made monotonic between two bucket bounds, by at most
    /// `max_diff`.
    pub fn forced_monotonicity(
        &mut self,
        span: Span,
        metric: &str,
        t_ms: i64,
        min_bucket: f64,
        max_bucket: f64,
        max_diff: f64,
    ) {
        let mut text = String::from(
            "PromQL info: input to histogram_quantile needed to be fixed for monotonicity (see https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)",
        );
        if !metric.is_empty() {
            text.push_str(&format!(" for metric name {}", quote(metric)));
        }
        let detail = Detail::Monotonicity {
            min_t_ms: t_ms,
            max_t_ms: t_ms,
            min_bucket,
            max_bucket,
            max_diff,
            samples: 1,
        };
        self.put(Severity::Info, text, span, detail);
    }

    /// A sample's start timestamp lies before the sample before it.
    pub fn start_time_overlap(&mut self, span: Span, metric: &str) {
        let text = format!(
            "PromQL warning: sample has start time that overlaps with previous sample timestamp for metric {}",
            quote(metric)
        );
        self.put(Severity::Warning, text, span, Detail::StartOverlap { count: 1 });
    }

    fn put(&mut self, severity: Severity, text: String, span: Span, detail: Detail) {
        let new = Annotation { severity, span, detail };
        match self.by_text.get_mut(&text) {
            None => {
                self.by_text.insert(text, new);
            }
            Some(old) => old.merge(new),
        }
    }

    /// Takes over another collection.
    pub fn merge(&mut self, other: Annotations) {
        if self.by_text.is_empty() {
            self.by_text = other.by_text;
            return;
        }
        for (text, new) in other.by_text {
            match self.by_text.get_mut(&text) {
                None => {
                    self.by_text.insert(text, new);
                }
                Some(old) => old.merge(new),
            }
        }
    }

    /// Raw texts of one severity, ascending, without places: what the conformance corpus compares.
    pub fn raw(&self, severity: Severity) -> impl Iterator<Item = &str> {
        self.by_text.iter().filter(move |(_, a)| a.severity == severity).map(|(t, _)| t.as_str())
    }

    /// `(warnings, infos)` with their places in `query`, at most `max` of each (0: all) and then one line
    /// that says how many more. Within a severity they are in the order of their texts.
    pub fn render(&self, query: &str, max: usize) -> (Vec<String>, Vec<String>) {
        let of = |severity: Severity, name: &str| {
            let mut out = Vec::new();
            let mut skipped = 0usize;
            for (text, a) in self.by_text.iter().filter(|(_, a)| a.severity == severity) {
                if max == 0 || out.len() < max {
                    out.push(a.render(text, query));
                } else {
                    skipped += 1;
                }
            }
            if skipped > 0 {
                out.push(format!("{skipped} more {name} annotations omitted"));
            }
            out
        };
        (of(Severity::Warning, "warning"), of(Severity::Info, "info"))
    }
}

impl Annotation {
    fn merge(&mut self, new: Annotation) {
        self.span = new.span;
        match (&mut self.detail, new.detail) {
            (
                Detail::Monotonicity { min_t_ms, max_t_ms, min_bucket, max_bucket, max_diff, samples },
                Detail::Monotonicity {
                    min_t_ms: t0,
                    max_t_ms: t1,
                    min_bucket: b0,
                    max_bucket: b1,
                    max_diff: d,
                    samples: n,
                },
            ) => {
                *min_t_ms = (*min_t_ms).min(t0);
                *max_t_ms = (*max_t_ms).max(t1);
                *min_bucket = min_bucket.min(b0);
                *max_bucket = max_bucket.max(b1);
                *max_diff = max_diff.max(d);
                *samples += n;
            }
            (Detail::StartOverlap { count }, Detail::StartOverlap { count: n }) => *count += n,
            _ => {}
        }
    }

    fn render(&self, text: &str, query: &str) -> String {
        if self.span.start == u32::MAX {
            return text.to_string();
        }
        let (line, column) = line_and_column(query, self.span.start);
        match &self.detail {
            Detail::None => format!("{text} ({line}:{column})"),
            Detail::StartOverlap { count } if *count > 1 => {
                format!("{text} ({count} occurrences) ({line}:{column})")
            }
            Detail::StartOverlap { .. } => format!("{text} ({line}:{column})"),
            Detail::Monotonicity { min_t_ms, max_t_ms, min_bucket, max_bucket, max_diff, samples } => {
                let at = |ms: i64| match jiff::Timestamp::from_second(ms.div_euclid(1000)) {
                    Ok(t) => t.to_string(),
                    Err(_) => ms.to_string(),
                };
                format!(
                    "{text}, from buckets {} to {}, with a max diff of {}, over {samples} samples from {} to {} ({line}:{column})",
                    go_float(*min_bucket),
                    go_float(*max_bucket),
                    two_digits(*max_diff),
                    at(*min_t_ms),
                    at(*max_t_ms),
                )
            }
        }
    }
}

/// A number as Go's `%g` writes it, which is what upstream's texts contain.
pub fn go_float(v: f64) -> String {
    model::histogram::format_g(v)
}

/// Go's `%.2g`: two significant digits.
fn two_digits(v: f64) -> String {
    if v == 0.0 || !v.is_finite() {
        return go_float(v);
    }
    let e = format!("{v:.1e}");
    let Some((mantissa, exponent)) = e.split_once('e') else { return e };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !(-4..2).contains(&exponent) {
        let mantissa = mantissa.strip_suffix(".0").unwrap_or(mantissa);
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    let fixed = format!("{v:.*}", (1 - exponent) as usize);
    if fixed.contains('.') { fixed.trim_end_matches('0').trim_end_matches('.').to_string() } else { fixed }
}

/// 1-based line and column of a byte, columns in bytes as upstream counts them.
pub fn line_and_column(query: &str, at: u32) -> (usize, usize) {
    let head = &query.as_bytes()[..(at as usize).min(query.len())];
    let line_start = head.iter().rposition(|b| *b == b'\n').map_or(0, |p| p + 1);
    (head.iter().filter(|b| **b == b'\n').count() + 1, head.len() - line_start + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_keep_each_text_once_and_count_the_rest() {
        let mut notes = Annotations::new();
        for i in 0..12 {
            notes.warn(Span { start: 4, end: 5 }, format!("number {i:02}"));
            notes.warn(Span { start: 4, end: 5 }, format!("number {i:02}"));
        }
        notes.info(Span { start: 0, end: 1 }, "small");
        let (warnings, infos) = notes.render("up\n+\n1", 10);
        assert_eq!(warnings.len(), 11);
        assert_eq!(warnings[0], "PromQL warning: number 00 (2:2)");
        assert_eq!(warnings[10], "2 more warning annotations omitted");
        assert_eq!(infos, ["PromQL info: small (1:1)"]);
    }

    #[test]
    fn annotations_of_monotonicity_add_up() {
        let mut notes = Annotations::new();
        notes.forced_monotonicity(Span::default(), "", 60_000, 1.0, 2.0, 0.125);
        notes.forced_monotonicity(Span::default(), "", 0, 0.5, 1.5, 3.0);
        let (_, infos) = notes.render("x", 10);
        assert_eq!(
            infos[0],
            "PromQL info: input to histogram_quantile needed to be fixed for monotonicity (see https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile), from buckets 0.5 to 2, with a max diff of 3, over 2 samples from 1970-01-01T00:00:00Z to 1970-01-01T00:01:00Z (1:1)"
        );
    }

    #[test]
    fn annotation_numbers_have_two_digits_as_go_writes_them() {
        for (v, want) in [(0.125, "0.12"), (3.0, "3"), (123.0, "1.2e+02"), (0.00001, "1e-05"), (12.3, "12")] {
            assert_eq!(two_digits(v), want);
        }
    }
}
