//! Numbers, durations and strings as PromQL writes them, to values and back.

use std::fmt::{self, Write};

use model::quote::quote;

const NS_PER_MS: u64 = 1_000_000;

/// Units from the largest to the smallest, in nanoseconds; a duration names each at most once, in this order.
const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 24 * 3600 * 1000 * NS_PER_MS),
    ("w", 7 * 24 * 3600 * 1000 * NS_PER_MS),
    ("d", 24 * 3600 * 1000 * NS_PER_MS),
    ("h", 3600 * 1000 * NS_PER_MS),
    ("m", 60 * 1000 * NS_PER_MS),
    ("s", 1000 * NS_PER_MS),
    ("ms", NS_PER_MS),
];

/// A Prometheus duration such as `1h30m`, in nanoseconds; at most 2^63 - 1 of them (292 years).
pub fn parse_duration_ns(text: &str) -> Result<u64, String> {
    match text {
        "0" => return Ok(0),
        "" => return Err("empty duration string".into()),
        _ => {}
    }
    let invalid = || format!("not a valid duration string: {}", quote(text));
    let (mut rest, mut total, mut units) = (text, 0u64, &UNITS[..]);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let value: u64 = number.parse().map_err(|_| invalid())?;
        let unit_len = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        if unit.is_empty() {
            return Err(invalid());
        }
        if !UNITS.iter().any(|(name, _)| *name == unit) {
            return Err(format!("unknown unit {} in duration {}", quote(unit), quote(text)));
        }
        let at = units.iter().position(|(name, _)| *name == unit).ok_or_else(invalid)?;
        total = value
            .checked_mul(units[at].1)
            .and_then(|ns| total.checked_add(ns))
            .filter(|&ns| ns <= i64::MAX as u64)
            .ok_or("duration out of range")?;
        units = &units[at + 1..];
        rest = tail;
    }
    Ok(total)
}

/// Nanoseconds as seconds, rounded as Go's `time.Duration.Seconds`.
pub fn seconds(ns: u64) -> f64 {
    let whole = ns / 1_000_000_000;
    let rest = ns % 1_000_000_000;
    whole as f64 + rest as f64 / 1e9
}

/// Whether so many seconds overflow a count of nanoseconds. NaN does: upstream lets it pass, and then Go's
/// conversion makes of it what the processor likes (2^63 nanoseconds before the epoch on one, nothing on
/// another), which is no answer to give.
pub fn out_of_range(seconds: f64) -> bool {
    const MOST: f64 = 9_223_372_036_854_775_808.0 / 1e9;
    seconds.is_nan() || !(-MOST..=MOST).contains(&seconds)
}

/// Seconds to milliseconds as upstream gets there: rounded to nanoseconds, then cut.
pub fn to_ms(seconds: f64) -> i64 {
    (seconds * 1e9).round() as i64 / NS_PER_MS as i64
}

/// Milliseconds as upstream prints durations: years and weeks only where nothing else is left.
pub fn write_duration(out: &mut impl Write, ms: i64) -> fmt::Result {
    if ms == 0 {
        return out.write_str("0s");
    }
    if ms < 0 {
        out.write_char('-')?;
    }
    let mut left = ms.unsigned_abs();
    for (at, (unit, ns)) in UNITS.iter().enumerate() {
        let unit_ms = ns / NS_PER_MS;
        if at < 2 && !left.is_multiple_of(unit_ms) {
            continue;
        }
        if left >= unit_ms {
            write!(out, "{}{unit}", left / unit_ms)?;
            left %= unit_ms;
        }
    }
    Ok(())
}

/// A float as Go's `strconv.FormatFloat(v, 'f', -1, 64)`: the shortest digits that read back, never an
/// exponent.
pub fn write_float(out: &mut impl Write, v: f64) -> fmt::Result {
    if v.is_nan() {
        out.write_str("NaN")
    } else if v.is_infinite() {
        out.write_str(if v > 0.0 { "+Inf" } else { "-Inf" })
    } else {
        write!(out, "{v}")
    }
}

/// A float as Go's `%v`: with an exponent below 1e-4 and from 1e6 on.
pub fn write_float_g(out: &mut impl Write, v: f64) -> fmt::Result {
    let magnitude = v.abs();
    if v.is_finite() && magnitude != 0.0 && !(1e-4..1e6).contains(&magnitude) {
        let text = format!("{v:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let exponent: i32 = exponent.parse().unwrap_or_default();
        let sign = if exponent < 0 { '-' } else { '+' };
        return write!(out, "{mantissa}e{sign}{:02}", exponent.abs());
    }
    write_float(out, v)
}

/// Whether underscores stand only between digits, or after a base prefix, as Go wants them.
fn underscores_ok(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (digits, hex, mut before) = match bytes {
        [b'0', b'x' | b'X', rest @ ..] => (rest, true, b'0'),
        [b'0', b'b' | b'B' | b'o' | b'O', rest @ ..] => (rest, false, b'0'),
        _ => (bytes, false, b'^'),
    };
    for &b in digits {
        if b.is_ascii_digit() || (hex && b.is_ascii_hexdigit()) {
            before = b'0';
        } else if b == b'_' {
            if before != b'0' {
                return false;
            }
            before = b'_';
        } else {
            if before == b'_' {
                return false;
            }
            before = b'!';
        }
    }
    before != b'_'
}

/// A number as upstream reads it: Go's integers of any base (`0x1f`, and `017` is octal), else Go's floats.
pub fn parse_number(text: &str) -> Result<f64, String> {
    let syntax = || format!("strconv.ParseFloat: parsing {}: invalid syntax", quote(text));
    match text.to_ascii_lowercase().as_str() {
        "inf" => return Ok(f64::INFINITY),
        "nan" => return Ok(f64::NAN),
        _ => {}
    }
    if text.contains('_') && !underscores_ok(text) {
        return Err(syntax());
    }
    let plain = text.replace('_', "");
    let (radix, digits) = match plain.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &plain[2..]),
        [b'0', _, ..] => (8, &plain[1..]),
        _ => (10, &plain[..]),
    };
    if !digits.is_empty()
        && digits.bytes().all(|b| (b as char).is_digit(radix))
        && let Ok(n) = i64::from_str_radix(digits, radix)
    {
        return Ok(n as f64);
    }
    if radix == 16 || plain.bytes().any(|b| !matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-')) {
        return Err(syntax());
    }
    match plain.parse::<f64>() {
        Ok(v) if v.is_infinite() => {
            Err(format!("strconv.ParseFloat: parsing {}: value out of range", quote(text)))
        }
        Ok(v) => Ok(v),
        Err(_) => Err(syntax()),
    }
}

/// The bytes that a quoted string stands for. The lexer has checked it, save for `\x` and octal escapes'
/// reach.
pub fn unquote(raw: &str) -> Option<Vec<u8>> {
    let bytes = raw.as_bytes();
    let (&open, &close) = (bytes.first()?, bytes.last()?);
    if bytes.len() < 2 || open != close {
        return None;
    }
    let inner = &raw[1..raw.len() - 1];
    if open == b'`' || !inner.contains('\\') {
        return Some(inner.as_bytes().to_vec());
    }
    let mut out = Vec::with_capacity(inner.len());
    let mut rest = inner.as_bytes();
    let number = |digits: &[u8], radix: u32| -> Option<u32> {
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok()
    };
    while let Some((&b, tail)) = rest.split_first() {
        rest = tail;
        if b != b'\\' {
            out.push(b);
            continue;
        }
        let (&c, tail) = rest.split_first()?;
        rest = tail;
        match c {
            b'a' => out.push(7),
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'v' => out.push(11),
            b'\\' | b'\'' | b'"' => out.push(c),
            b'x' => {
                out.push(number(rest.get(..2)?, 16)? as u8);
                rest = &rest[2..];
            }
            b'0'..=b'7' => {
                let digits = [c, *rest.first()?, *rest.get(1)?];
                out.push(u8::try_from(number(&digits, 8)?).ok()?);
                rest = &rest[2..];
            }
            b'u' | b'U' => {
                let len = if c == b'u' { 4 } else { 8 };
                let c = char::from_u32(number(rest.get(..len)?, 16)?)?;
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                rest = &rest[len..];
            }
            _ => return None,
        }
    }
    Some(out)
}
