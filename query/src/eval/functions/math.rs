//! Functions of one number, with Go's corner cases where they differ from Rust's.

/// The larger of two numbers as Go's `math.Max`: +Inf wins over NaN, NaN over all others, +0 over -0.
pub fn go_max(a: f64, b: f64) -> f64 {
    if a == f64::INFINITY || b == f64::INFINITY {
        f64::INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a == 0.0 && b == 0.0 {
        if a.is_sign_negative() { b } else { a }
    } else if a > b {
        a
    } else {
        b
    }
}

/// The smaller of two numbers as Go's `math.Min`.
pub fn go_min(a: f64, b: f64) -> f64 {
    -go_max(-a, -b)
}

/// `clamp`: within `[min, max]`, for `min <= max`.
pub fn clamp(v: f64, min: f64, max: f64) -> f64 {
    go_max(min, go_min(max, v))
}

/// `round`: the nearest multiple, ties upward. The division is by the inverse because that loses fewer
/// digits.
pub fn round_to(v: f64, nearest: f64) -> f64 {
    let inverse = 1.0 / nearest;
    (v * inverse + 0.5).floor() / inverse
}

/// `sgn`: -1, 1, or the value itself where it is zero or NaN.
pub fn sign(v: f64) -> f64 {
    if v < 0.0 {
        -1.0
    } else if v > 0.0 {
        1.0
    } else {
        v
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn math_extremes_are_gos() {
        assert_eq!(go_max(f64::INFINITY, f64::NAN), f64::INFINITY);
        assert!(go_max(1.0, f64::NAN).is_nan());
        assert!(go_max(-0.0, 0.0).is_sign_positive());
        assert!(go_min(-0.0, 0.0).is_sign_negative());
        assert_eq!(go_min(f64::NEG_INFINITY, f64::NAN), f64::NEG_INFINITY);
        assert!(clamp(f64::NAN, 0.0, 1.0).is_nan());
    }

    #[test]
    fn round_goes_up_on_ties() {
        assert_eq!(round_to(-2.5, 1.0), -2.0);
        assert_eq!(round_to(2.5, 1.0), 3.0);
        assert_eq!(round_to(123.456, 0.1), 123.5);
        assert_eq!(round_to(13.0, 5.0), 15.0);
    }
}
