//! The natural order of `sort_by_label`: runs of digits compare as numbers (as the Go package
//! facette/natsort, which upstream uses).

use std::cmp::Ordering;

/// The first run of digits or of anything else, and the rest.
fn chunk(s: &str) -> (&str, &str) {
    let digit = s.starts_with(|c: char| c.is_ascii_digit());
    s.split_at(s.find(|c: char| c.is_ascii_digit() != digit).unwrap_or(s.len()))
}

/// `a` before `a2` before `a10`. Where only zeros in front of a number differ, the bytes decide, so that this
/// is an order at all.
pub fn natural_cmp(a: &str, b: &str) -> Ordering {
    let (mut rest_a, mut rest_b) = (a, b);
    while !rest_a.is_empty() && !rest_b.is_empty() {
        let (x, y);
        (x, rest_a) = chunk(rest_a);
        (y, rest_b) = chunk(rest_b);
        let order = match (x.parse::<i64>(), y.parse::<i64>()) {
            (Ok(x), Ok(y)) => x.cmp(&y),
            _ => x.cmp(y),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    rest_a.len().cmp(&rest_b.len()).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn natural_order_takes_numbers_by_size() {
        let mut names = ["cpu10", "cpu2", "cpu", "cpu1", "4m600", "4m5", "4m1000", ""];
        names.sort_by(|a, b| natural_cmp(a, b));
        assert_eq!(names, ["", "4m5", "4m600", "4m1000", "cpu", "cpu1", "cpu2", "cpu10"]);
    }

    proptest! {
        #[test]
        fn natural_order_is_an_order(a in "[a0-2]{0,5}", b in "[a0-2]{0,5}", c in "[a0-2]{0,5}") {
            prop_assert_eq!(natural_cmp(&a, &b), natural_cmp(&b, &a).reverse());
            if natural_cmp(&a, &b).is_le() && natural_cmp(&b, &c).is_le() {
                prop_assert!(natural_cmp(&a, &c).is_le());
            }
            prop_assert_eq!(natural_cmp(&a, &b).is_eq(), a == b);
        }
    }
}
