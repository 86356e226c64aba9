//! Histograms and numbers as text, the way upstream's messages and test scripts write them.

use std::fmt;

use super::{Bucket, CounterResetHint, Histogram, layout};

/// A number as Go's `%g` writes it: the shortest digits that read back the same, in exponent form below 1e-4
/// and from 1e6 on.
pub fn format_g(v: f64) -> String {
    if v.is_nan() {
        return "NaN".into();
    }
    if v.is_infinite() {
        return if v > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    let text = format!("{v:e}");
    let (digits, exponent) = text.split_once('e').expect("exponent form has an e");
    let exponent: i32 = exponent.parse().expect("exponent is an integer");
    if (-4..6).contains(&exponent) {
        return format!("{v}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// `[lower,upper]:count`, round brackets where a bound is not part of the bucket.
impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = if self.lower_inclusive { '[' } else { '(' };
        let close = if self.upper_inclusive { ']' } else { ')' };
        write!(f, "{open}{},{}{close}:{}", format_g(self.lower), format_g(self.upper), format_g(self.count))
    }
}

/// `{count:…, sum:…, bucket, …}` with the populated buckets ascending, as upstream's `FloatHistogram.String`.
impl fmt::Display for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{count:{}, sum:{}", format_g(self.count), format_g(self.sum))?;
        let mut negative: Vec<Bucket> = self.negative().filter(|b| b.count != 0.0).collect();
        negative.reverse();
        let zero = (self.zero_count != 0.0).then(|| self.zero_bucket());
        for bucket in negative.into_iter().chain(zero).chain(self.positive().filter(|b| b.count != 0.0)) {
            write!(f, ", {bucket}")?;
        }
        f.write_str("}")
    }
}

/// Gaps longer than this are not written out as zeros.
const LONGEST_GAP: usize = 10_000;

impl Histogram {
    /// The notation of test scripts, `{{schema:1 count:2 sum:3 buckets:[1 1]}}`; gaps between buckets become
    /// zeros.
    pub fn test_expression(&self) -> String {
        let mut parts = Vec::new();
        let mut number = |name: &str, v: f64| {
            if v != 0.0 {
                parts.push(format!("{name}:{}", format_g(v)));
            }
        };
        number("schema", f64::from(self.schema));
        number("count", self.count);
        number("sum", self.sum);
        number("z_bucket", self.zero_count);
        number("z_bucket_w", self.zero_threshold);
        let list = |values: &[f64]| values.iter().map(|v| format_g(*v)).collect::<Vec<_>>().join(" ");
        if self.uses_custom_buckets() {
            parts.push(format!("custom_values:[{}]", list(self.custom_bounds())));
        }
        match self.counter_reset_hint {
            CounterResetHint::Unknown => {}
            CounterResetHint::CounterReset => parts.push("counter_reset_hint:reset".into()),
            CounterResetHint::NotCounterReset => parts.push("counter_reset_hint:not_reset".into()),
            CounterResetHint::Gauge => parts.push("counter_reset_hint:gauge".into()),
        }
        for (buckets, offset, spans, counts) in [
            ("buckets", "offset", &self.positive_spans, &self.positive_buckets),
            ("n_buckets", "n_offset", &self.negative_spans, &self.negative_buckets),
        ] {
            let side = layout::compacted(spans, counts, LONGEST_GAP);
            if let Some(first) = side.spans.first().filter(|s| s.offset != 0) {
                parts.push(format!("{offset}:{}", first.offset));
            }
            if !side.counts.is_empty() {
                parts.push(format!("{buckets}:[{}]", list(&side.counts)));
            }
        }
        format!("{{{{{}}}}}", parts.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::BucketSpan;

    #[test]
    fn histogram_numbers_are_as_go_writes_them() {
        for (v, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.5, "1.5"),
            (100000.0, "100000"),
            (1000000.0, "1e+06"),
            (1234567.0, "1.234567e+06"),
            (0.0001, "0.0001"),
            (0.00001234, "1.234e-05"),
            (f64::NEG_INFINITY, "-Inf"),
            (1e100, "1e+100"),
        ] {
            assert_eq!(format_g(v), text);
        }
    }

    #[test]
    fn histogram_text_reads_both_notations() {
        let h = Histogram {
            count: 7.0,
            sum: 2.5,
            zero_count: 1.0,
            zero_threshold: 0.125,
            positive_spans: vec![BucketSpan { offset: 1, length: 1 }, BucketSpan { offset: 1, length: 1 }],
            positive_buckets: vec![2.0, 1.0],
            negative_spans: vec![BucketSpan { offset: 0, length: 2 }],
            negative_buckets: vec![1.0, 2.0],
            ..Histogram::default()
        };
        assert_eq!(
            h.to_string(),
            "{count:7, sum:2.5, [-2,-1):2, [-1,-0.5):1, [-0.125,0.125]:1, (1,2]:2, (4,8]:1}"
        );
        assert_eq!(
            h.test_expression(),
            "{{count:7 sum:2.5 z_bucket:1 z_bucket_w:0.125 offset:1 buckets:[2 0 1] n_buckets:[1 2]}}"
        );
    }
}
