//! Counts and sizes as commands show them to people.

/// `1,234,567`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1.23 M`.
pub fn short_count(n: u64) -> String {
    scaled(n as f64, 1000.0, &["", " k", " M", " G", " T"])
}

/// `1.23 MiB`.
pub fn size(bytes: u64) -> String {
    scaled(bytes as f64, 1024.0, &[" B", " KiB", " MiB", " GiB", " TiB"])
}

fn scaled(mut n: f64, by: f64, units: &[&str]) -> String {
    let mut unit = 0;
    while n >= by && unit + 1 < units.len() {
        n /= by;
        unit += 1;
    }
    if unit == 0 { format!("{n:.0}{}", units[0]) } else { format!("{n:.2}{}", units[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_for_people() {
        assert_eq!((count(0), count(999), count(1_234_567)), ("0".into(), "999".into(), "1,234,567".into()));
        assert_eq!((short_count(999), short_count(1_234_567)), ("999".into(), "1.23 M".into()));
        assert_eq!((size(1023), size(1536)), ("1023 B".into(), "1.50 KiB".into()));
    }
}
