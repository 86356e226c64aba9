//! Samples as text, version 0.0.4 of the format.

use model::histogram::{Histogram, format_g};

use super::names::{Escaping, is_plain};

/// `# TYPE name kind`.
pub fn type_line(out: &mut Vec<u8>, name: &str, kind: &str) {
    out.extend_from_slice(b"# TYPE ");
    metric_name(out, name);
    out.push(b' ');
    out.extend_from_slice(kind.as_bytes());
    out.push(b'\n');
}

/// A name as it stands alone: in quotes where it needs them.
fn metric_name(out: &mut Vec<u8>, name: &str) {
    if is_plain(name) {
        out.extend_from_slice(name.as_bytes());
    } else {
        quoted(out, name);
    }
}

/// `name{label="value",…} value ts`: labels as they come, `le` after them where there is one.
pub fn sample(
    out: &mut Vec<u8>,
    name: &str,
    labels: &[(String, String)],
    le: Option<&str>,
    value: f64,
    ts_ms: i64,
) {
    let plain = is_plain(name);
    if plain {
        out.extend_from_slice(name.as_bytes());
    }
    let mut first = true;
    let mut begin = |out: &mut Vec<u8>| {
        out.push(if std::mem::take(&mut first) { b'{' } else { b',' });
    };
    if !plain {
        begin(out);
        quoted(out, name);
    }
    for (name, value) in labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).chain(le.map(|le| ("le", le))) {
        begin(out);
        // A colon is a metric's alone.
        if is_plain(name) && !name.contains(':') {
            out.extend_from_slice(name.as_bytes());
        } else {
            quoted(out, name);
        }
        out.push(b'=');
        quoted(out, value);
    }
    if !first {
        out.push(b'}');
    }
    out.extend_from_slice(format!(" {} {ts_ms}\n", format_g(value)).as_bytes());
}

/// In quotes, with backslashes, quotes and ends of lines escaped.
fn quoted(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for b in text.bytes() {
        match b {
            b'\\' => out.extend_from_slice(br"\\"),
            b'"' => out.extend_from_slice(br#"\""#),
            b'\n' => out.extend_from_slice(br"\n"),
            b => out.push(b),
        }
    }
    out.push(b'"');
}

/// The samples of a histogram with custom buckets, as a classic one.
pub fn classic_histogram(
    out: &mut Vec<u8>,
    name: &str,
    labels: &[(String, String)],
    histogram: &Histogram,
    ts_ms: i64,
) {
    let bucket = format!("{name}_bucket");
    for (le, cumulative) in cumulative_buckets(histogram) {
        sample(out, &bucket, labels, Some(&format_g(le)), cumulative, ts_ms);
    }
    sample(out, &bucket, labels, Some("+Inf"), histogram.count, ts_ms);
    sample(out, &format!("{name}_sum"), labels, None, histogram.sum, ts_ms);
    sample(out, &format!("{name}_count"), labels, None, histogram.count, ts_ms);
}

/// Upper bounds of custom buckets, each with how many observations lie at or below it; `+Inf` left out.
pub fn cumulative_buckets(histogram: &Histogram) -> Vec<(f64, f64)> {
    let bounds = histogram.custom_bounds();
    let mut counts = vec![0.0; bounds.len()];
    for (index, count) in histogram.indexed_positive() {
        // The one beyond the last bound is `+Inf`'s.
        if let Some(slot) = usize::try_from(index).ok().and_then(|i| counts.get_mut(i)) {
            *slot += count;
        }
    }
    let mut sum = 0.0;
    let cumulative = counts.into_iter().map(|count| {
        sum += count;
        sum
    });
    bounds.iter().copied().zip(cumulative).collect()
}

/// The labels of a sample as they are written: the series' own without its name, then those that are added
/// where it lacks them.
pub fn labels(
    series: &model::labels::Labels,
    added: &[(String, String)],
    escaping: Escaping,
) -> Vec<(String, String)> {
    let own = series.iter().filter(|(n, _)| *n != model::labels::METRIC_NAME);
    let missing = added.iter().filter(|(n, _)| series.get(n).is_none());
    let missing = missing.map(|(n, v)| (n.as_str(), v.as_str()));
    own.chain(missing).map(|(n, v)| (escaping.escape(n).into_owned(), v.to_owned())).collect()
}
