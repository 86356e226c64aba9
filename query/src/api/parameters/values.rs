//! Times, durations and limits as upstream reads them from parameters (`web/api/v1/api.go`: parseTime,
//! parseDuration, parseLimitParam).

use model::quote::quote;

use crate::api::error::ApiError;
use crate::api::parameters::form::Form;

/// Start of an open time range, milliseconds: upstream's `MinTime`.
pub const MIN_TIME_MS: i64 = (i64::MIN / 1000 + 62_135_596_801) * 1000;
/// End of an open time range, milliseconds: upstream's `MaxTime`.
pub const MAX_TIME_MS: i64 = (i64::MAX / 1000 - 62_135_596_801) * 1000 + 999;

const NS: i128 = 1_000_000_000;

/// An instant, in nanoseconds since the epoch; 128 bits because years are unbounded here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub i128);

impl Time {
    pub fn from_ms(ms: i64) -> Time {
        Time(ms as i128 * 1_000_000)
    }

    /// Milliseconds, rounded down; saturating.
    pub fn ms(self) -> i64 {
        self.0.div_euclid(1_000_000).clamp(MIN_TIME_MS as i128, MAX_TIME_MS as i128) as i64
    }
}

/// A time: float seconds or RFC 3339.
pub fn parse_time(s: &str) -> Result<Time, String> {
    if let Some(t) = parse_float(s) {
        let seconds = t.trunc();
        // Upstream's MinTime and MaxTime in seconds, as its own clients and Thanos' send an open range. What
        // lies beyond has no time in Go's 64-bit milliseconds.
        if seconds.abs() <= i64::MAX as f64 / 1000.0 {
            let fraction = ((t - seconds) * 1000.0).round() / 1000.0;
            return Ok(Time(seconds as i128 * NS + (fraction * 1e9) as i128));
        }
    } else if let Some(t) = parse_rfc3339(s) {
        return Ok(t);
    }
    // How upstream's clients write the ends of an open range; neither is a valid RFC 3339 year.
    match s {
        "-292273086-05-16T16:47:06Z" => Ok(Time::from_ms(MIN_TIME_MS)),
        "292277025-08-18T07:12:54.999999999Z" => Ok(Time::from_ms(MAX_TIME_MS)),
        _ => Err(format!("cannot parse {} to a valid timestamp", quote(s))),
    }
}

/// Milliseconds since the epoch as RFC 3339; Go's zero time where no date says it.
pub fn rfc3339(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| "0001-01-01T00:00:00Z".into(), |t| t.to_string())
}

/// A duration in nanoseconds: float seconds or Prometheus' `1h30m`.
pub fn parse_duration(s: &str) -> Result<i64, String> {
    if let Some(d) = parse_float(s) {
        let ns = d * 1e9;
        if ns > i64::MAX as f64 || ns < i64::MIN as f64 {
            return Err(format!("cannot parse {} to a valid duration. It overflows int64", quote(s)));
        }
        return Ok(if ns.is_nan() { i64::MIN } else { ns as i64 });
    }
    parse_written_duration(s).ok_or_else(|| format!("cannot parse {} to a valid duration", quote(s)))
}

/// `1y2w3d4h5m6s7ms`, each unit at most once and in this order (prometheus/common `model.ParseDuration`).
/// Nanoseconds.
fn parse_written_duration(s: &str) -> Option<i64> {
    const UNITS: [(&str, i64); 7] = [
        ("y", 365 * 24 * 3_600_000),
        ("w", 7 * 24 * 3_600_000),
        ("d", 24 * 3_600_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1000),
        ("ms", 1),
    ];
    if s.is_empty() {
        return None;
    }
    let mut rest = s;
    let mut total: i64 = 0;
    let mut next = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: i64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_lowercase).count();
        let at = UNITS.iter().position(|(unit, _)| *unit == &rest[..letters])?;
        rest = &rest[letters..];
        if at < next {
            return None;
        }
        next = at + 1;
        total = total.checked_add(number.checked_mul(UNITS[at].1)?.checked_mul(1_000_000)?)?;
    }
    Some(total)
}

/// A limit: 0 or absent means none.
pub fn parse_limit(s: &str) -> Result<usize, String> {
    if s.is_empty() {
        return Ok(0);
    }
    let n = parse_int(s)?;
    usize::try_from(n).map_err(|_| "limit must be non-negative".to_string())
}

/// The words of Go's `strconv.ParseBool`.
pub fn parse_bool(s: &str) -> Option<bool> {
    match s {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// An integer with the texts of Go's `strconv.Atoi`.
pub fn parse_int(s: &str) -> Result<i64, String> {
    s.parse().map_err(|e: std::num::ParseIntError| {
        use std::num::IntErrorKind::*;
        let why = match e.kind() {
            PosOverflow | NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        format!("strconv.Atoi: parsing {}: {why}", quote(s))
    })
}

/// What Go's `strconv.ParseFloat` takes. It differs from Rust's: signed NaN and overflow are errors there,
/// hexadecimal is not.
fn parse_float(s: &str) -> Option<f64> {
    let unsigned = s.strip_prefix(['+', '-']).unwrap_or(s);
    if let Some(hex) = unsigned.strip_prefix("0x").or_else(|| unsigned.strip_prefix("0X")) {
        return parse_hex_float(hex).map(|v| if s.starts_with('-') { -v } else { v });
    }
    let v: f64 = s.parse().ok()?;
    let named = unsigned.starts_with(|c: char| c.is_ascii_alphabetic());
    if (v.is_nan() && unsigned.len() != s.len()) || (v.is_infinite() && !named) {
        return None;
    }
    Some(v)
}

/// `1.8p-3` after the `0x`; the exponent is mandatory. Digits beyond 53 bits are refused rather than rounded:
/// nobody writes them.
fn parse_hex_float(s: &str) -> Option<f64> {
    let (mantissa, exponent) = s.split_once(['p', 'P'])?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits: String = [whole, fraction].concat();
    let exponent: i32 = exponent.parse().ok()?;
    if digits.is_empty() || digits.len() > 13 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let m = u64::from_str_radix(&digits, 16).ok()? as f64;
    let v = m * 2f64.powi(exponent.checked_sub(4 * fraction.len() as i32)?);
    v.is_finite().then_some(v)
}

/// `2006-01-02T15:04:05[.fraction](Z|±hh:mm)`, upper case, as Go's `time.RFC3339Nano` reads it.
fn parse_rfc3339(s: &str) -> Option<Time> {
    let b = s.as_bytes();
    let number = |from: usize, len: usize| -> Option<i64> {
        let digits = b.get(from..from + len)?;
        digits.iter().try_fold(0i64, |n, d| d.is_ascii_digit().then(|| n * 10 + (d - b'0') as i64))
    };
    let is = |at: usize, c: u8| b.get(at) == Some(&c);
    if !(is(4, b'-') && is(7, b'-') && is(10, b'T') && is(13, b':') && is(16, b':')) {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 2)?, number(8, 2)?);
    let (hour, minute, second) = (number(11, 2)?, number(14, 2)?, number(17, 2)?);
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let days_in_month = match month {
        2 => 28 + leap as i64,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=days_in_month).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut at = 19;
    let mut nanos = 0i128;
    if is(at, b'.') || is(at, b',') {
        let digits = b[at + 1..].iter().take_while(|d| d.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        // Digits beyond the ninth are dropped.
        for i in 0..9 {
            nanos = nanos * 10 + if i < digits { (b[at + 1 + i] - b'0') as i128 } else { 0 };
        }
        at += 1 + digits;
    }
    let offset_s = match b.get(at)? {
        b'Z' if b.len() == at + 1 => 0,
        sign @ (b'+' | b'-') if b.len() == at + 6 && is(at + 3, b':') => {
            let (h, m) = (number(at + 1, 2)?, number(at + 4, 2)?);
            if h > 24 || m > 60 {
                return None;
            }
            (h * 3600 + m * 60) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset_s;
    Some(Time(seconds as i128 * NS + nanos))
}

/// Days since 1970-01-01 of a date in the proleptic Gregorian calendar (Howard Hinnant, "chrono-compatible
/// low-level date algorithms").
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let year_of_era = y.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

impl Form {
    /// An optional time, with upstream's doubled words in the error.
    pub fn time_or(&self, name: &'static str, default: Time) -> Result<Time, ApiError> {
        match self.get(name) {
            "" => Ok(default),
            s => parse_time(s)
                .map_err(|e| ApiError::parameter(name, format!("invalid time value for '{name}': {e}"))),
        }
    }

    pub fn time(&self, name: &'static str) -> Result<Time, ApiError> {
        parse_time(self.get(name)).map_err(|e| ApiError::parameter(name, e))
    }

    /// An optional time range; open where not given. Milliseconds.
    pub fn range_ms(&self) -> Result<(i64, i64), ApiError> {
        let start = self.time_or("start", Time::from_ms(MIN_TIME_MS))?;
        let end = self.time_or("end", Time::from_ms(MAX_TIME_MS))?;
        Ok((start.ms(), end.ms()))
    }

    /// Nanoseconds, `None` where the parameter is absent or empty.
    pub fn duration(&self, name: &'static str) -> Result<Option<i64>, ApiError> {
        match self.get(name) {
            "" => Ok(None),
            s => parse_duration(s).map(Some).map_err(|e| ApiError::parameter(name, e)),
        }
    }

    /// 0 means none.
    pub fn limit(&self) -> Result<usize, ApiError> {
        parse_limit(self.get("limit")).map_err(|e| ApiError::parameter("limit", e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_upstream_reads_them() {
        // The cases of upstream's TestParseTime, and a few at the edges.
        for (text, ns) in [
            ("0", 0),
            ("1136239445.999999999", 1_136_239_446_000_000_000),
            ("123.123", 123_123_000_000),
            ("-1.5", -1_500_000_000),
            ("1543578564.705", 1_543_578_564_705_000_000),
            ("1e3", 1000 * NS),
            ("0x1p4", 16 * NS),
            ("1970-01-01T00:00:00Z", 0),
            ("2015-06-03T13:21:58.555Z", 1_433_337_718_555_000_000),
            ("2015-06-03T14:21:58.555+01:00", 1_433_337_718_555_000_000),
            ("2024-02-29T23:59:59-00:30", 1_709_252_999_000_000_000),
            ("0000-01-01T00:00:00Z", -62_167_219_200 * NS),
        ] {
            assert_eq!(parse_time(text), Ok(Time(ns)), "{text}");
        }
        assert_eq!(parse_time("-292273086-05-16T16:47:06Z").unwrap().ms(), -9_223_309_901_257_974_000);
        assert_eq!(
            parse_time("292277025-08-18T07:12:54.999999999Z").unwrap().ms(),
            9_223_309_901_257_974_999
        );
        // The open range as numbers: upstream's own MinTime and MaxTime in seconds, as Thanos' client and
        // proxies send them.
        assert_eq!(parse_time("-9223309901257974").unwrap().ms(), -9_223_309_901_257_974_000);
        assert_eq!(parse_time("9223309901257974").unwrap().ms(), 9_223_309_901_257_974_000);
        // Seconds are a double, as upstream's: so far out it has no room for a fraction.
        assert_eq!(parse_time("9223309901257974.999").unwrap().ms(), 9_223_309_901_257_974_000);
        assert_eq!(parse_time("9223372036854775.807").unwrap().ms(), MAX_TIME_MS);
        for bad in [
            "",
            "foo",
            "9.3e15",
            "30s",
            "NaN",
            "Inf",
            "+nan",
            "1e400",
            "1e30",
            "2015-06-03",
            "2015-02-29T00:00:00Z",
            "2015-06-03t13:21:58z",
            "2015-06-03T13:21:60Z",
            "2015-06-03T13:21:58",
            "2015-06-03T13:21:58.Z",
            "1_000",
        ] {
            assert_eq!(parse_time(bad), Err(format!("cannot parse \"{bad}\" to a valid timestamp")), "{bad}");
        }
    }

    #[test]
    fn durations_are_read_as_upstream_reads_them() {
        for (text, ns) in [
            ("0", 0),
            ("123.333", 123_333_000_000),
            ("-1", -1_000_000_000),
            ("15s", 15_000_000_000),
            ("5m", 300_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1y", 365 * 86_400_000_000_000),
            ("250ms", 250_000_000),
        ] {
            assert_eq!(parse_duration(text), Ok(ns), "{text}");
        }
        for bad in ["", "foo", "2015-06-03T13:21:58.555Z", "1m1h", "1h1h", "s", "5 m", "300y"] {
            assert_eq!(
                parse_duration(bad),
                Err(format!("cannot parse \"{bad}\" to a valid duration")),
                "{bad}"
            );
        }
        assert_eq!(
            parse_duration("148966367200.372"),
            Err("cannot parse \"148966367200.372\" to a valid duration. It overflows int64".into())
        );
    }

    #[test]
    fn limits_carry_gos_texts() {
        assert_eq!(parse_limit(""), Ok(0));
        assert_eq!(parse_limit("12"), Ok(12));
        assert_eq!(parse_limit("-1"), Err("limit must be non-negative".into()));
        assert_eq!(parse_limit("abc"), Err("strconv.Atoi: parsing \"abc\": invalid syntax".into()));
        assert_eq!(
            parse_limit("99999999999999999999"),
            Err("strconv.Atoi: parsing \"99999999999999999999\": value out of range".into())
        );
    }

    proptest::proptest! {
        #[test]
        fn params_of_any_text_never_panic(s in ".{0,40}") {
            let _ = (parse_time(&s), parse_duration(&s), parse_limit(&s));
        }

        #[test]
        fn civil_days_agree_with_jiff(year in 0i64..=9999, day_of_year in 0i64..365) {
            let date = jiff::civil::date(year as i16, 1, 1).saturating_add(jiff::Span::new().days(day_of_year));
            let text = format!("{:04}-{:02}-{:02}T12:34:56Z", date.year(), date.month(), date.day());
            let want: jiff::Timestamp = text.parse().unwrap();
            proptest::prop_assert_eq!(parse_time(&text), Ok(Time(want.as_nanosecond())));
        }
    }
}
