//! Floats as Go's `strconv.FormatFloat` writes them.

/// A float by verb (`e`, `E`, `f`, `F`, `g`, `G`) and precision; `None` is the shortest that reads back the
/// same.
pub fn format_float(v: f64, verb: char, precision: Option<usize>) -> String {
    if v.is_nan() {
        return "NaN".into();
    }
    if v.is_infinite() {
        return if v > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    match verb {
        'e' | 'E' => {
            let text = match precision {
                Some(digits) => format!("{v:.digits$e}"),
                None => format!("{v:e}"),
            };
            with_go_exponent(&text, verb)
        }
        'f' | 'F' => match precision {
            Some(digits) => format!("{v:.digits$}"),
            None => format!("{v}"),
        },
        _ => {
            let exponent_verb = if verb == 'G' { 'E' } else { 'e' };
            let digits = precision.map(|p| p.max(1));
            let text = match digits {
                Some(digits) => format!("{v:.*e}", digits - 1),
                None => format!("{v:e}"),
            };
            let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            let exponent: i32 = exponent.parse().unwrap_or(0);
            let mantissa = match mantissa.contains('.') {
                true => mantissa.trim_end_matches('0').trim_end_matches('.'),
                false => mantissa,
            };
            // The shortest form decides as if it had six digits; of so many digits as there are, the
            // trailing zeros are not digits.
            let significant = mantissa.bytes().filter(u8::is_ascii_digit).count() as i32;
            let mut from = digits.map_or(6, |d| d as i32);
            if digits.is_some() && from > significant && significant > exponent {
                from = significant;
            }
            if exponent < -4 || exponent >= from {
                return with_go_exponent(&format!("{mantissa}e{exponent}"), exponent_verb);
            }
            match digits {
                None => format!("{v}"),
                Some(digits) => {
                    let decimals = (digits as i32 - 1 - exponent).max(0) as usize;
                    let text = format!("{v:.decimals$}");
                    match text.contains('.') {
                        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
                        false => text,
                    }
                }
            }
        }
    }
}

/// `1e6` as `1e+06`.
fn with_go_exponent(text: &str, verb: char) -> String {
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}{verb}{sign}{:02}", exponent.abs())
}
