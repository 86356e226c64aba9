//! Classic histograms, series by series, gathered into one histogram with custom buckets.

use super::{BucketSpan, CUSTOM_BUCKETS_SCHEMA, Histogram};

/// Why classic series make no histogram.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotAHistogram(String);

/// Cumulative buckets, count and sum of one classic histogram at one time, in any order (upstream
/// `util/convertnhcb`).
#[derive(Clone, Debug, Default)]
pub struct ClassicHistogram {
    /// `(le, cumulative count)`, ascending, each bound once.
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: f64,
}

impl ClassicHistogram {
    /// A `_bucket` series' value. The first value of a bound stays.
    pub fn set_bucket(&mut self, le: f64, cumulative: f64) -> Result<(), NotAHistogram> {
        if le.is_nan() {
            return Err(NotAHistogram("bucket boundary must not be NaN".into()));
        }
        if cumulative < 0.0 {
            return Err(NotAHistogram(format!(
                "bucket count must be non-negative: le={le}, count={cumulative}"
            )));
        }
        if let Err(at) = self.buckets.binary_search_by(|b| b.0.total_cmp(&(le + 0.0))) {
            let before = at.checked_sub(1).map_or(0.0, |i| self.buckets[i].1);
            let after = self.buckets.get(at).map_or(f64::INFINITY, |b| b.1);
            if cumulative < before || cumulative > after {
                return Err(NotAHistogram(format!("count is not cumulative: le={le}, count={cumulative}")));
            }
            self.buckets.insert(at, (le + 0.0, cumulative));
        }
        Ok(())
    }

    /// The `_count` series' value.
    pub fn set_count(&mut self, count: f64) -> Result<(), NotAHistogram> {
        if count < 0.0 {
            return Err(NotAHistogram(format!("count must be non-negative: count={count}")));
        }
        self.count = Some(count);
        Ok(())
    }

    /// The `_sum` series' value.
    pub fn set_sum(&mut self, sum: f64) {
        self.sum = sum;
    }

    /// The histogram with custom buckets. Without a `+Inf` bucket the count is its value; without a count the
    /// last bucket is.
    pub fn into_custom_buckets(mut self) -> Result<Histogram, NotAHistogram> {
        let last = self.buckets.last().copied();
        let count = self.count.unwrap_or(last.map_or(0.0, |b| b.1));
        if last.is_none_or(|b| b.0 != f64::INFINITY) {
            self.buckets.push((f64::INFINITY, count));
        }
        let top = self.buckets.last().expect("just made sure of one").1;
        if top != count {
            return Err(NotAHistogram(format!("count mismatch: count={count} != le=+Inf count={top}")));
        }
        let whole = |v: f64| v == v.round() && v.abs() < 9e18;
        let integer = whole(count) && self.buckets.iter().all(|b| whole(b.1));
        let mut before = 0.0;
        let counts: Vec<f64> =
            self.buckets.iter().map(|b| b.1 - std::mem::replace(&mut before, b.1)).collect();
        let bounds: Vec<f64> = self.buckets.iter().map(|b| b.0).filter(|le| *le != f64::INFINITY).collect();
        let mut h = Histogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            count,
            sum: self.sum,
            positive_spans: vec![BucketSpan { offset: 0, length: counts.len() as u32 }],
            positive_buckets: counts,
            custom_values: (!bounds.is_empty()).then(|| bounds.into()),
            ..Histogram::default()
        };
        h.compact(if integer { 2 } else { 0 });
        Ok(h)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classic_buckets_are_gathered_in_any_order() {
        let mut c = ClassicHistogram::default();
        c.set_bucket(f64::INFINITY, 7.0).unwrap();
        c.set_bucket(1.0, 3.0).unwrap();
        c.set_bucket(0.5, 3.0).unwrap();
        assert!(c.set_bucket(0.7, 9.0).is_err(), "more than the bucket above");
        c.set_sum(4.5);
        let h = c.into_custom_buckets().unwrap();
        assert_eq!(
            h.test_expression(),
            "{{schema:-53 count:7 sum:4.5 custom_values:[0.5 1] buckets:[3 0 4]}}"
        );
        assert_eq!(h.validate(), Ok(()));
    }

    #[test]
    fn classic_count_that_is_not_the_last_bucket() {
        let mut c = ClassicHistogram::default();
        c.set_bucket(f64::INFINITY, 7.0).unwrap();
        c.set_count(8.0).unwrap();
        assert!(c.into_custom_buckets().unwrap_err().to_string().starts_with("count mismatch"));
    }
}
