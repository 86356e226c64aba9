//! Numbers as Go reads them: all that Prometheus takes for a float is decided by its library.

/// A value or a timestamp: Go's `ParseFloat` without hexadecimal digits and underscores. What is too large
/// for 64 bits is no number, and a NaN has no sign.
pub(super) fn parse_float(word: &str) -> Option<f64> {
    let value: f64 = word.parse().ok()?;
    let spelled = word.bytes().any(|b| matches!(b, b'n' | b'N'));
    let signed_nan = value.is_nan() && word.starts_with(['+', '-']);
    (!signed_nan && (value.is_finite() || spelled)).then_some(value)
}

/// The number that a label stands for (`le`, `quantile`): all that Go's `ParseFloat` takes, so hexadecimal
/// floats (`0x1p4`) and underscores between digits too.
pub(super) fn parse_label_float(text: &str) -> Option<f64> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => (-1.0, &text[1..]),
        b'+' => (1.0, &text[1..]),
        _ => (1.0, text),
    };
    let hex = matches!(digits.as_bytes(), [b'0', b'x' | b'X', ..]);
    if !text.contains('_') {
        return if hex { Some(sign * parse_hex(&digits[2..])?) } else { parse_float(text) };
    }
    if !underscores_separate_digits(digits, hex) {
        return None;
    }
    match hex {
        true => Some(sign * parse_hex(&digits[2..].replace('_', ""))?),
        false => parse_float(&text.replace('_', "")),
    }
}

/// Whether every underscore stands between two digits, or between the prefix and a digit.
fn underscores_separate_digits(text: &str, hex: bool) -> bool {
    let digit = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_digit() || (hex && b.is_ascii_hexdigit()));
    let bytes = text.as_bytes();
    let separates = |at: usize| {
        let after_prefix = hex && at == 2;
        digit(bytes.get(at + 1)) && (after_prefix || (at > 0 && digit(bytes.get(at - 1))))
    };
    (0..bytes.len()).filter(|at| bytes[*at] == b'_').all(separates)
}

/// What stands behind `0x`: digits, perhaps with a point, and an exponent of two, which has to be there.
/// Rounded to the nearest, half to even; `None` where it is no number or too large for 64 bits.
fn parse_hex(text: &str) -> Option<f64> {
    let (digits, exponent) = text.split_once(['p', 'P'])?;
    // As many bits as fit, whether there are others behind them, and the power of two they are multiplied by.
    let (mut bits, mut more, mut power) = (0u64, false, 0i64);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.len() + fraction.len() == 0 {
        return None;
    }
    for (at, c) in whole.chars().chain(fraction.chars()).enumerate() {
        let digit = u64::from(c.to_digit(16)?);
        let behind_the_point = at >= whole.len();
        if bits >> 60 == 0 {
            bits = bits << 4 | digit;
            power -= 4 * i64::from(behind_the_point);
        } else {
            more |= digit != 0;
            power += 4 * i64::from(!behind_the_point);
        }
    }
    power += parse_exponent(exponent)?;
    if bits == 0 {
        return Some(0.0);
    }
    let shift = bits.leading_zeros();
    bits <<= shift;
    // The power of two of the first bit.
    let first = power - i64::from(shift) + 63;
    if first > 1023 {
        return None;
    }
    // Below the smallest normal number there are fewer bits.
    let kept = 53 - (-1022 - first).max(0);
    if kept < 0 {
        return Some(0.0);
    }
    let dropped = 64 - kept as u32;
    let (mantissa, rest) = (u128::from(bits) >> dropped, u128::from(bits) & ((1 << dropped) - 1));
    let half = 1u128 << (dropped - 1);
    let up = rest > half || (rest == half && (more || mantissa & 1 == 1));
    let mantissa = mantissa as u64 + u64::from(up);
    // Adding carries into the exponent what rounding made too large for the mantissa.
    let exponent_bits = if first >= -1022 { (first + 1022) as u64 } else { 0 };
    let value = f64::from_bits((exponent_bits << 52) + mantissa);
    value.is_finite().then_some(value)
}

/// Decimal digits with or without a sign; beyond some ten thousand it makes no difference.
fn parse_exponent(text: &str) -> Option<i64> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    if digits.is_empty() {
        return None;
    }
    let mut value = 0i64;
    for c in digits.chars() {
        let digit = i64::from(c.to_digit(10)?);
        if value < 10_000 {
            value = value * 10 + digit;
        }
    }
    Some(sign * value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn label_floats_are_those_of_go() {
        for (text, want) in [
            ("1", 1.0),
            ("+1", 1.0),
            ("1_000.5_0", 1000.5),
            ("1_23.50_0_0e+1_2", 1.235e14),
            ("0x1p4", 16.0),
            ("-0X1.8P+1", -3.0),
            ("0x.8p0", 0.5),
            ("0x_1_0p-1_0", 0.015_625),
            ("0x1.fffffffffffffp1023", f64::MAX),
            ("0x1p-1074", f64::from_bits(1)),
            ("0x1p-1075", 0.0),
            ("0x1.8p-1075", f64::from_bits(1)),
            ("0x0.8p-1021", f64::MIN_POSITIVE),
            ("0x1.00000000000008p0", 1.0),
            ("0x1.00000000000008000000001p0", 1.000_000_000_000_000_2),
            ("0x1.00000000000018p0", 1.000_000_000_000_000_4),
            ("0x0p+99999999999999999999", 0.0),
            ("Infinity", f64::INFINITY),
            ("-iNf", f64::NEG_INFINITY),
        ] {
            assert_eq!(parse_label_float(text), Some(want), "{text}");
        }
        assert!(parse_label_float("nan").is_some_and(f64::is_nan));
        for text in [
            "",
            "+",
            "x",
            "-nan",
            "1e999",
            "0x1",
            "0xp1",
            "0x.p1",
            "0x1p",
            "0x1p+",
            "0x1p1024",
            "0x1.8.8p0",
            "0x1.fffffffffffff8p1023",
            "_1",
            "1_",
            "1__0",
            "1_.0",
            "1._0",
            "1e_1",
            "1e1_",
            "0_x1p0",
            "0x1_p0",
            "-_1",
            "in_f",
            "0b1",
            "0b1_0",
            "é",
        ] {
            assert_eq!(parse_label_float(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn hexadecimal_floats_come_back(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            let (exponent, fraction) = ((bits >> 52 & 0x7ff) as i64, bits & ((1 << 52) - 1));
            let (first, power) = if exponent == 0 { (0, -1022) } else { (1, exponent - 1023) };
            let sign = if value.is_sign_negative() { "-" } else { "" };
            let read = parse_label_float(&format!("{sign}0x{first}.{fraction:013x}p{power}"));
            prop_assert_eq!(read.map(f64::to_bits), Some(bits));
        }
    }
}
