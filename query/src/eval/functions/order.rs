//! Order statistics of a window that slides: its values are kept in order, so that those that leave and come
//! cost a search and a move each.

/// A change moves half the window, which is quick, eight values at a time; so many of them take longer than
/// to sort it anew.
const MOST_CHANGES: usize = 256;

/// So few are sorted anew as quickly as they are searched.
const FEW: usize = 32;

/// Upstream's order of values: NaN first.
pub fn nan_first(a: &f64, b: &f64) -> std::cmp::Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => std::cmp::Ordering::Equal,
        (true, false) => std::cmp::Ordering::Less,
        (false, true) => std::cmp::Ordering::Greater,
        (false, false) => a.partial_cmp(b).expect("no NaN"),
    }
}

/// The φ-quantile of unordered values, interpolated between the two around it (upstream `quantile`). Sorts
/// them.
pub fn quantile(q: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    // Stable, so that what slides gives the same bits: zeros of both signs are equal in this order.
    values.sort_by(nan_first);
    quantile_of_sorted(q, values.len(), |i| values[i])
}

/// As [`quantile`], without bringing all values in order: for very many of them. Of zeros the negative
/// comes first.
pub fn quantile_of_many(q: f64, values: &mut [f64]) -> f64 {
    if values.len() <= FEW || !(0.0..=1.0).contains(&q) {
        return quantile(q, values);
    }
    let order =
        |a: &f64, b: &f64| nan_first(a, b).then_with(|| b.is_sign_negative().cmp(&a.is_sign_negative()));
    let n = values.len();
    let lower = (q * (n as f64 - 1.0)).floor().max(0.0) as usize;
    let (_, at_lower, above) = values.select_nth_unstable_by(lower.min(n - 1), order);
    let at_lower = *at_lower;
    let next = above.iter().copied().min_by(order).unwrap_or(at_lower);
    quantile_of_sorted(q, n, |i| if i <= lower { at_lower } else { next })
}

/// The φ-quantile for φ from 0 to 1 of `n` values, at least one, that are in order.
pub fn quantile_of_sorted(q: f64, n: usize, value: impl Fn(usize) -> f64) -> f64 {
    let n = n as f64;
    let rank = q * (n - 1.0);
    let lower = rank.floor().max(0.0);
    let upper = (lower + 1.0).min(n - 1.0);
    let weight = rank - rank.floor();
    value(lower as usize) * (1.0 - weight) + value(upper as usize) * weight
}

/// The values of one window in the order of [`nan_first`], equals in the order of time: what a stable sort
/// would give.
#[derive(Debug, Default)]
pub struct SortedWindow {
    from: usize,
    to: usize,
    sorted: Vec<f64>,
}

impl SortedWindow {
    /// The window `from..to` of `values` in order. Neither end moves back from one call to the next.
    pub fn move_to(&mut self, values: &[f64], from: usize, to: usize) -> &[f64] {
        let changes = from.min(self.to) - self.from.min(from) + (to - self.to.max(from));
        if to - from <= FEW || from >= self.to || changes > MOST_CHANGES {
            self.sorted.clear();
            self.sorted.extend_from_slice(&values[from..to]);
            self.sorted.sort_by(nan_first);
        } else {
            for v in &values[self.from..from] {
                // The oldest stands first among its equals.
                let at = self.sorted.partition_point(|x| nan_first(x, v).is_lt());
                self.sorted.remove(at);
            }
            for v in &values[self.to..to] {
                let at = self.sorted.partition_point(|x| nan_first(x, v).is_le());
                self.sorted.insert(at, *v);
            }
        }
        (self.from, self.to) = (from, to);
        &self.sorted
    }
}

/// The `k`th smallest distance (from 0) from a finite `middle` of the values in `left`, which are below it,
/// and `right`, which are not; both ascending, without NaN. `k` is below their number.
pub fn nth_distance(left: &[f64], right: &[f64], middle: f64, k: usize) -> f64 {
    let near = |i: usize| (left[left.len() - 1 - i] - middle).abs();
    let far = |i: usize| (right[i] - middle).abs();
    // How many of the k + 1 smallest are on the left: the least number whose next is not smaller than the
    // last taken on the right.
    let (mut low, mut high) = ((k + 1).saturating_sub(right.len()), (k + 1).min(left.len()));
    while low < high {
        let i = (low + high) / 2;
        // With i of the left, k - i is the last of the right.
        if near(i) < far(k - i) { low = i + 1 } else { high = i }
    }
    let on_right = k + 1 - low;
    match (low, on_right) {
        (0, n) => far(n - 1),
        (i, 0) => near(i - 1),
        (i, n) => near(i - 1).max(far(n - 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![
            8 => (-8i32..8).prop_map(f64::from),
            2 => any::<f64>(),
            1 => Just(f64::NAN),
            1 => Just(-0.0),
            1 => Just(f64::INFINITY),
        ]
    }

    proptest! {
        #[test]
        fn sliding_order_is_sorting(values in prop::collection::vec(value(), 1..200), moves in prop::collection::vec((0usize..40, 0usize..40), 1..40), long in 0usize..2) {
            // Long ones change in more than a few places.
            let values = values.repeat(1 + 5 * long);
            let (mut from, mut to) = (0, 0);
            let mut window = SortedWindow::default();
            for (a, b) in moves {
                to = (to + b * (1 + 11 * long)).min(values.len());
                from = (from + a * (1 + 11 * long)).min(to);
                if from == to {
                    continue;
                }
                let mut want = values[from..to].to_vec();
                want.sort_by(nan_first);
                let bits = |v: &[f64]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                prop_assert_eq!(bits(window.move_to(&values, from, to)), bits(&want));
            }
        }

        #[test]
        fn quantile_of_many_is_the_quantile(values in prop::collection::vec(value(), 1..200), q in -0.1f64..1.1) {
            for q in [q, 0.0, 0.5, 1.0] {
                let (got, want) = (quantile_of_many(q, &mut values.clone()), quantile(q, &mut values.clone()));
                prop_assert!(got == want || got.is_nan() && want.is_nan(), "{got} for {want}");
            }
        }

        #[test]
        fn sliding_order_gives_distances_in_order(mut values in prop::collection::vec(-50i32..50, 1..60), middle in -60i32..60) {
            values.sort_unstable();
            let values: Vec<f64> = values.into_iter().map(|v| f64::from(v) / 3.0).collect();
            let middle = f64::from(middle) / 3.0;
            let below = values.partition_point(|v| *v < middle);
            let mut want: Vec<f64> = values.iter().map(|v| (v - middle).abs()).collect();
            want.sort_by(nan_first);
            for (k, want) in want.into_iter().enumerate() {
                prop_assert_eq!(nth_distance(&values[..below], &values[below..], middle, k).to_bits(), want.to_bits());
            }
        }
    }
}
