//! Quantiles and fractions of native and classic histograms, as upstream's `promql/quantile.go` computes
//! them.

use model::histogram::{Bucket, Histogram, compensated_add};

/// What a native histogram's quantile or fraction has to say beside its value: it counts observed NaNs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NanNote {
    /// The quantile lies among the NaNs.
    ResultIsNan,
    /// NaNs count as the highest values, so the quantile is higher than without them.
    SkewedHigher,
    /// The fraction leaves them out.
    LeftOut,
}

/// A zero bucket lies on one side only where the other side has no buckets.
fn one_sided_zero(b: &mut Bucket, h: &Histogram) {
    match (h.negative_buckets.is_empty(), h.positive_buckets.is_empty()) {
        (true, false) => b.lower = 0.0,
        (false, true) => b.upper = 0.0,
        _ => {}
    }
}

/// The `q`-quantile of a native histogram: exponential interpolation inside a bucket, linear for custom
/// buckets and the zero bucket. NaN without observations, ±Inf for `q` outside 0 to 1.
pub fn histogram_quantile(q: f64, h: &Histogram) -> (f64, Option<NanNote>) {
    if q < 0.0 {
        return (f64::NEG_INFINITY, None);
    }
    if q > 1.0 {
        return (f64::INFINITY, None);
    }
    if h.count == 0.0 || q.is_nan() {
        return (f64::NAN, None);
    }
    let custom = h.uses_custom_buckets();
    // Observed NaNs are in the count but in no bucket, so only the way up meets the right rank; otherwise the
    // shorter way is taken.
    let from_below = h.sum.is_nan() || q < 0.5;
    let mut buckets = h.all_buckets();
    if !from_below {
        buckets.reverse();
    }
    let mut rank = if from_below { q * h.count } else { (1.0 - q) * h.count };
    let mut count = 0.0;
    let mut index = 0;
    let mut seen = 0;
    for (i, b) in buckets.iter().enumerate() {
        seen = i + 1;
        index = i;
        if b.count == 0.0 {
            continue;
        }
        count += b.count;
        if count >= rank {
            break;
        }
    }
    let Some(mut bucket) = buckets.get(index).copied() else {
        return quantile_without_buckets(rank, h.sum.is_nan());
    };
    if !custom && bucket.lower < 0.0 && bucket.upper > 0.0 {
        one_sided_zero(&mut bucket, h);
    } else if custom && bucket.lower == f64::NEG_INFINITY {
        if bucket.upper <= 0.0 {
            return (bucket.upper, None);
        }
        bucket.lower = 0.0;
    } else if custom && bucket.upper == f64::INFINITY {
        return (bucket.lower, None);
    }
    // Rounding can bring more together than there is.
    if count > h.count {
        count = h.count;
    }
    if count < rank {
        return if h.sum.is_nan() { (f64::NAN, Some(NanNote::ResultIsNan)) } else { (bucket.upper, None) };
    }
    if from_below {
        rank -= count - bucket.count;
    } else {
        rank = count - rank;
    }
    let mut note = None;
    if h.sum.is_nan() {
        let in_buckets = buckets[seen..].iter().fold(count, |sum, b| sum + b.count);
        if in_buckets < h.count {
            note = Some(NanNote::SkewedHigher);
        }
    }
    (within_bucket(&bucket, rank / bucket.count, custom), note)
}

/// Of observations in no bucket at all, which only NaNs can be.
fn quantile_without_buckets(rank: f64, sum_is_nan: bool) -> (f64, Option<NanNote>) {
    match (rank > 0.0, sum_is_nan) {
        (true, false) => (0.0, None),
        (true, true) => (f64::NAN, Some(NanNote::ResultIsNan)),
        (false, false) => (f64::NAN, None),
        (false, true) => (f64::NAN, Some(NanNote::SkewedHigher)),
    }
}

/// The value that lies a fraction of the way up a bucket: linear in custom buckets and the zero bucket,
/// exponential in others.
fn within_bucket(bucket: &Bucket, fraction: f64, custom: bool) -> f64 {
    if custom || (bucket.lower <= 0.0 && bucket.upper >= 0.0) {
        return bucket.lower + (bucket.upper - bucket.lower) * fraction;
    }
    let log_lower = bucket.lower.abs().log2();
    let log_upper = bucket.upper.abs().log2();
    if bucket.lower > 0.0 {
        (log_lower + (log_upper - log_lower) * fraction).exp2()
    } else {
        -(log_upper + (log_lower - log_upper) * (1.0 - fraction)).exp2()
    }
}

/// Finds the ranks of two values while buckets pass by, ascending.
struct RankPair {
    bounds: [f64; 2],
    ranks: [Option<f64>; 2],
}

impl RankPair {
    fn new(lower: f64, upper: f64) -> Self {
        RankPair { bounds: [lower, upper], ranks: [None, None] }
    }

    /// True once both are known. `rank` is what lies below this bucket, `inside` the rank of a value within
    /// it.
    fn pass(&mut self, lower: f64, upper: f64, rank: f64, inside: impl Fn(f64) -> f64) -> bool {
        for (bound, found) in self.bounds.iter().zip(&mut self.ranks).filter(|(_, r)| r.is_none()) {
            if lower >= *bound {
                *found = Some(rank);
            } else if upper > *bound {
                *found = Some(inside(*bound));
            }
        }
        self.ranks.iter().all(Option::is_some)
    }

    /// What lies between the two, a rank never above `count`.
    fn between(&self, count: f64) -> f64 {
        let [lower, upper] = self.ranks.map(|r| match r {
            Some(r) if r > count => count,
            Some(r) => r,
            None => count,
        });
        upper - lower
    }
}

/// The share of observations between two values in a native histogram. NaN without observations or for NaN
/// bounds, 0 for an empty interval.
pub fn histogram_fraction(lower: f64, upper: f64, h: &Histogram) -> (f64, Option<NanNote>) {
    if h.count == 0.0 || lower.is_nan() || upper.is_nan() {
        return (f64::NAN, None);
    }
    if lower >= upper {
        return (0.0, None);
    }
    let custom = h.uses_custom_buckets();
    let buckets = h.all_buckets();
    let mut ranks = RankPair::new(lower, upper);
    let mut rank = 0.0;
    let mut done = false;
    let mut in_buckets = 0.0;
    for b in &buckets {
        in_buckets += b.count;
        if done {
            continue;
        }
        let mut b = *b;
        let zero = b.lower <= 0.0 && b.upper >= 0.0;
        if zero {
            one_sided_zero(&mut b, h);
        }
        done = ranks.pass(b.lower, b.upper, rank, |v| {
            // An infinitely wide first bucket cannot be divided: all of it counts as below.
            if (custom || zero) && b.lower == f64::NEG_INFINITY {
                b.count
            } else {
                rank + b.count * b.fraction_below(v, custom || zero)
            }
        });
        rank += b.count;
    }
    let (count, note) = if h.sum.is_nan() {
        (in_buckets, (in_buckets < h.count).then_some(NanNote::LeftOut))
    } else {
        (h.count, None)
    };
    (ranks.between(count) / h.count, note)
}

/// Variance of the observations, each bucket taken at its middle (geometric for exponential buckets, 0 for
/// the zero bucket).
pub fn histogram_variance(h: &Histogram) -> f64 {
    let mean = h.sum / h.count;
    let (mut variance, mut compensation) = (0.0, 0.0);
    for b in h.all_buckets().iter().filter(|b| b.count != 0.0) {
        let middle = if h.uses_custom_buckets() {
            (b.upper + b.lower) / 2.0
        } else if b.lower <= 0.0 && b.upper >= 0.0 {
            0.0
        } else {
            let geometric = (b.upper * b.lower).sqrt();
            if b.upper < 0.0 { -geometric } else { geometric }
        };
        let delta = middle - mean;
        (variance, compensation) = compensated_add(b.count * delta * delta, variance, compensation);
    }
    (variance + compensation) / h.count
}

/// A classic bucket: everything up to `le`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassicBucket {
    pub le: f64,
    /// Cumulative.
    pub count: f64,
}

/// Where counts had to be raised so that they never fall from bucket to bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ForcedMonotonic {
    pub min_bucket: f64,
    pub max_bucket: f64,
    pub max_diff: f64,
}

/// Relative difference between neighbours that is taken for rounding.
const SMALL_DELTA: f64 = 1e-12;

/// Whether two counts differ by no more than rounding (upstream `util/almost`).
fn almost_equal(a: f64, b: f64, epsilon: f64) -> bool {
    if a.is_nan() && b.is_nan() || a == b {
        return true;
    }
    let sum = a.abs() + b.abs();
    let diff = (a - b).abs();
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return diff < epsilon * f64::MIN_POSITIVE;
    }
    diff / sum.min(f64::MAX) < epsilon
}

/// Sorts by bound and sums equal bounds. False unless the last bucket is `+Inf`.
fn sort_and_coalesce(buckets: &mut Vec<ClassicBucket>) -> bool {
    buckets.sort_by(|a, b| a.le.partial_cmp(&b.le).unwrap_or(std::cmp::Ordering::Equal));
    if buckets.last().is_none_or(|b| b.le != f64::INFINITY) {
        return false;
    }
    buckets.dedup_by(|next, kept| {
        let same = next.le == kept.le;
        if same {
            kept.count += next.count;
        }
        same
    });
    true
}

/// Removes falls, those that are rounding silently.
fn force_monotonic(buckets: &mut [ClassicBucket]) -> Option<ForcedMonotonic> {
    let mut forced: Option<ForcedMonotonic> = None;
    let mut previous = buckets[0].count;
    for b in &mut buckets[1..] {
        if b.count == previous {
            continue;
        }
        if almost_equal(previous, b.count, SMALL_DELTA) {
            b.count = previous;
        } else if b.count < previous {
            let diff = previous - b.count;
            let f = forced.get_or_insert(ForcedMonotonic {
                min_bucket: f64::INFINITY,
                max_bucket: f64::NEG_INFINITY,
                max_diff: 0.0,
            });
            f.min_bucket = f.min_bucket.min(b.le);
            f.max_bucket = f.max_bucket.max(b.le);
            f.max_diff = f.max_diff.max(diff);
            b.count = previous;
        } else {
            previous = b.count;
        }
    }
    forced
}

/// The `q`-quantile of a classic histogram, linear inside a bucket; the first starts at zero where it ends
/// above it, and a quantile in the `+Inf` bucket is the bound below. NaN without observations, without a
/// `+Inf` bucket or with no other.
pub fn classic_quantile(q: f64, buckets: &mut Vec<ClassicBucket>) -> (f64, Option<ForcedMonotonic>) {
    if q.is_nan() {
        return (f64::NAN, None);
    }
    if q < 0.0 {
        return (f64::NEG_INFINITY, None);
    }
    if q > 1.0 {
        return (f64::INFINITY, None);
    }
    if !sort_and_coalesce(buckets) {
        return (f64::NAN, None);
    }
    let forced = force_monotonic(buckets);
    let last = buckets.len() - 1;
    let observations = buckets[last].count;
    if last == 0 || observations == 0.0 {
        return (f64::NAN, forced);
    }
    let mut rank = q * observations;
    let found = buckets[..last].partition_point(|b| b.count.partial_cmp(&rank).is_none_or(|o| o.is_lt()));
    if found == last {
        return (buckets[last - 1].le, forced);
    }
    if found == 0 && buckets[0].le <= 0.0 {
        return (buckets[0].le, forced);
    }
    let end = buckets[found].le;
    let (start, below) = found.checked_sub(1).map_or((0.0, 0.0), |i| (buckets[i].le, buckets[i].count));
    let count = buckets[found].count - below;
    rank -= below;
    (start + (end - start) * (rank / count), forced)
}

/// The share of observations between two values in a classic histogram.
pub fn classic_fraction(lower: f64, upper: f64, buckets: &mut Vec<ClassicBucket>) -> f64 {
    if !sort_and_coalesce(buckets) {
        return f64::NAN;
    }
    let count = buckets[buckets.len() - 1].count;
    if count == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    let mut ranks = RankPair::new(lower, upper);
    let mut start = if buckets[0].le <= 0.0 { f64::NEG_INFINITY } else { 0.0 };
    let mut rank = 0.0;
    for b in buckets.iter() {
        let done = ranks.pass(start, b.le, rank, |v| {
            if start == f64::NEG_INFINITY {
                b.count
            } else {
                rank + (b.count - rank) * (v - start) / (b.le - start)
            }
        });
        if done {
            break;
        }
        rank = b.count;
        start = b.le;
    }
    ranks.between(count) / count
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::histogram::BucketSpan;
    use proptest::prelude::*;

    fn classic(pairs: &[(f64, f64)]) -> Vec<ClassicBucket> {
        pairs.iter().map(|(le, count)| ClassicBucket { le: *le, count: *count }).collect()
    }

    #[test]
    fn quantile_of_classic_buckets_at_the_edges() {
        let full = [(f64::INFINITY, 10.0), (1.0, 4.0), (2.0, 8.0)];
        assert_eq!(classic_quantile(0.5, &mut classic(&full)), (1.25, None));
        assert_eq!(classic_quantile(0.95, &mut classic(&full)), (2.0, None));
        assert_eq!(classic_quantile(-0.1, &mut classic(&full)).0, f64::NEG_INFINITY);
        assert!(classic_quantile(0.5, &mut classic(&full[1..])).0.is_nan(), "no +Inf bucket");
        assert!(classic_quantile(0.5, &mut classic(&full[..1])).0.is_nan(), "only the +Inf bucket");
        let falling = [(1.0, 4.0), (2.0, 3.0), (f64::INFINITY, 10.0)];
        let forced = ForcedMonotonic { min_bucket: 2.0, max_bucket: 2.0, max_diff: 1.0 };
        assert_eq!(classic_quantile(0.2, &mut classic(&falling)), (0.5, Some(forced)));
        let rounding = [(1.0, 4.0), (2.0, 4.0 - 1e-13), (f64::INFINITY, 10.0)];
        assert_eq!(classic_quantile(0.2, &mut classic(&rounding)), (0.5, None));
    }

    #[test]
    fn quantile_tells_of_an_observed_nan() {
        let h = Histogram {
            count: 4.0,
            sum: f64::NAN,
            positive_spans: vec![BucketSpan { offset: 0, length: 1 }],
            positive_buckets: vec![3.0],
            ..Histogram::default()
        };
        assert_eq!(histogram_quantile(0.5, &h).1, Some(NanNote::SkewedHigher));
        let (v, note) = histogram_quantile(0.9, &h);
        assert!(v.is_nan());
        assert_eq!(note, Some(NanNote::ResultIsNan));
        assert_eq!(histogram_fraction(0.0, f64::INFINITY, &h), (0.75, Some(NanNote::LeftOut)));
    }

    proptest! {
        #[test]
        fn fraction_undoes_quantile(counts in proptest::collection::vec(1u32..100, 1..20), q in 0.01f64..0.99, schema in -4i32..=8) {
            let counts: Vec<f64> = counts.into_iter().map(f64::from).collect();
            let h = Histogram {
                schema,
                count: counts.iter().sum(),
                sum: 1.0,
                positive_spans: vec![BucketSpan { offset: -3, length: counts.len() as u32 }],
                positive_buckets: counts,
                ..Histogram::default()
            };
            let (v, _) = histogram_quantile(q, &h);
            let (back, _) = histogram_fraction(f64::NEG_INFINITY, v, &h);
            prop_assert!((back - q).abs() < 1e-9, "{back} {q}");
        }

        #[test]
        fn quantiles_rise(counts in proptest::collection::vec(0u32..100, 2..12), a in 0f64..1.0, b in 0f64..1.0) {
            let mut sum = 0.0;
            let mut buckets: Vec<ClassicBucket> = counts.iter().enumerate().map(|(i, c)| {
                sum += f64::from(*c);
                ClassicBucket { le: i as f64 - 3.0, count: sum }
            }).collect();
            buckets.last_mut().unwrap().le = f64::INFINITY;
            let (low, high) = (a.min(b), a.max(b));
            let (x, y) = (classic_quantile(low, &mut buckets.clone()).0, classic_quantile(high, &mut buckets).0);
            prop_assert!(sum == 0.0 || x <= y, "{x} {y}");
        }
    }
}
