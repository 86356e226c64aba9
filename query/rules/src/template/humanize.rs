//! Numbers for people: `humanize` and its family, in upstream's digits and prefixes.

use jiff::Timestamp;

use super::float::format_float;

fn four_digits(v: f64) -> String {
    format_float(v, 'g', Some(4))
}

const LARGE: [&str; 8] = ["k", "M", "G", "T", "P", "E", "Z", "Y"];
const SMALL: [&str; 8] = ["m", "u", "n", "p", "f", "a", "z", "y"];
const BINARY: [&str; 8] = ["ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"];

/// The value scaled by the first prefix that brings it in range, and that prefix.
fn scaled(mut v: f64, prefixes: [&'static str; 8], step: impl Fn(f64) -> Option<f64>) -> (f64, &'static str) {
    let mut chosen = "";
    for prefix in prefixes {
        let Some(next) = step(v) else { break };
        (v, chosen) = (next, prefix);
    }
    (v, chosen)
}

fn grown(v: f64) -> Option<f64> {
    (v.abs() < 1.0).then_some(v * 1000.0)
}

/// `1.234M`, `12m`.
pub fn humanize(v: f64) -> String {
    if v == 0.0 || !v.is_finite() {
        return four_digits(v);
    }
    let (v, prefix) = match v.abs() >= 1.0 {
        true => scaled(v, LARGE, |v| (v.abs() >= 1000.0).then_some(v / 1000.0)),
        false => scaled(v, SMALL, grown),
    };
    format!("{}{prefix}", four_digits(v))
}

/// `1.5Mi`.
pub fn humanize1024(v: f64) -> String {
    if v.abs() <= 1.0 || !v.is_finite() {
        return four_digits(v);
    }
    let (v, prefix) = scaled(v, BINARY, |v| (v.abs() >= 1024.0).then_some(v / 1024.0));
    format!("{}{prefix}", four_digits(v))
}

/// `1d 2h 3m 4s`, `12.5s`, `120ms`, of seconds.
pub fn humanize_duration(v: f64) -> String {
    if !v.is_finite() {
        return four_digits(v);
    }
    if v == 0.0 {
        return format!("{}s", four_digits(v));
    }
    if v.abs() < 1.0 {
        let (v, prefix) = scaled(v, SMALL, grown);
        return format!("{}{prefix}s", four_digits(v));
    }
    let (sign, v) = if v < 0.0 { ("-", -v) } else { ("", v) };
    let whole = v as i64;
    let (days, hours, minutes, seconds) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60, whole % 60);
    match () {
        _ if days != 0 => format!("{sign}{days}d {hours}h {minutes}m {seconds}s"),
        _ if hours != 0 => format!("{sign}{hours}h {minutes}m {seconds}s"),
        _ if minutes != 0 => format!("{sign}{minutes}m {seconds}s"),
        _ => format!("{sign}{}s", four_digits(v)),
    }
}

/// `12.5%` of 0.125.
pub fn humanize_percentage(v: f64) -> String {
    format!("{}%", four_digits(v * 100.0))
}

/// Seconds since the epoch to milliseconds; the error is for a time that no calendar has.
pub fn to_ms(seconds: f64) -> Result<i64, String> {
    let ns = seconds * 1e9;
    if !(i64::MIN as f64..=i64::MAX as f64).contains(&ns) {
        return Err(format!("{} is not a valid timestamp in seconds", format_float(seconds, 'g', None)));
    }
    Ok((ns as i64).div_euclid(1_000_000))
}

/// `2009-11-10 23:00:00 +0000 UTC`, as Go prints a time.
pub fn timestamp_text(ms: i64) -> String {
    match Timestamp::from_millisecond(ms) {
        Ok(at) => {
            let fraction = ms.rem_euclid(1000);
            let fraction = match fraction {
                0 => String::new(),
                _ => format!(".{fraction:03}").trim_end_matches('0').to_owned(),
            };
            format!("{}{fraction} +0000 UTC", at.strftime("%Y-%m-%d %H:%M:%S"))
        }
        Err(_) => ms.to_string(),
    }
}

/// `1h2m3.5s`, as Go prints a duration.
pub fn go_duration(ns: i64) -> String {
    if ns == 0 {
        return "0s".into();
    }
    let sign = if ns < 0 { "-" } else { "" };
    let n = ns.unsigned_abs();
    let with_fraction = |whole: u64, rest: u64, digits: usize, unit: &str| {
        let fraction = format!("{rest:0digits$}");
        let fraction = fraction.trim_end_matches('0');
        match fraction.is_empty() {
            true => format!("{whole}{unit}"),
            false => format!("{whole}.{fraction}{unit}"),
        }
    };
    match n {
        ..1_000 => format!("{sign}{n}ns"),
        1_000..1_000_000 => format!("{sign}{}", with_fraction(n / 1_000, n % 1_000, 3, "µs")),
        1_000_000..1_000_000_000 => format!("{sign}{}", with_fraction(n / 1_000_000, n % 1_000_000, 6, "ms")),
        _ => {
            let seconds = n / 1_000_000_000;
            let last = with_fraction(seconds % 60, n % 1_000_000_000, 9, "s");
            match (seconds / 3600, seconds / 60 % 60) {
                (0, 0) => format!("{sign}{last}"),
                (0, minutes) => format!("{sign}{minutes}m{last}"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{last}"),
            }
        }
    }
}
