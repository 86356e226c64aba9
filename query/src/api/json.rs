//! JSON, written straight into bytes in the forms upstream chose (`util/jsonutil`,
//! `web/api/v1/json_codec.go`).
//!
//! No serde here: the hot path is millions of `[1435781451.781,"0.25"]`, and two of its three forms
//! (timestamps, values as strings) are not serde's. Costs are measured in `benches/json.rs`.

use model::histogram::Histogram;
use model::labels::Labels;

/// A timestamp in milliseconds as seconds with as many decimals as it has, at most three.
pub fn timestamp(out: &mut Vec<u8>, t_ms: i64) {
    if t_ms < 0 {
        out.push(b'-');
    }
    let t = t_ms.unsigned_abs();
    integer(out, t / 1000);
    let fraction = (t % 1000) as u16;
    if fraction != 0 {
        let digits = [
            b'.',
            b'0' + (fraction / 100) as u8,
            b'0' + (fraction / 10 % 10) as u8,
            b'0' + (fraction % 10) as u8,
        ];
        out.extend_from_slice(&digits);
    }
}

pub fn integer(out: &mut Vec<u8>, n: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
}

/// When a number is written with an exponent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Exponent {
    /// Below 1e-6 and from 1e21: samples.
    Extremes,
    Never,
}

/// A sample's value, quotes included: shortest digits that read back to the same bits; `e` form below 1e-6
/// and from 1e21.
pub fn value(out: &mut Vec<u8>, v: f64) {
    out.push(b'"');
    number(out, v, Exponent::Extremes);
    out.push(b'"');
}

/// A scalar's value, quotes included: never an exponent (upstream's `Scalar.MarshalJSON`).
pub fn scalar_value(out: &mut Vec<u8>, v: f64) {
    out.push(b'"');
    plain_number(out, v);
    out.push(b'"');
}

/// A number without quotes, for other texts.
pub fn plain_number(out: &mut Vec<u8>, v: f64) {
    number(out, v, Exponent::Never);
}

fn number(out: &mut Vec<u8>, v: f64, exponent: Exponent) {
    let magnitude = v.abs();
    if magnitude < 1e15 {
        // Counters, enums and round readings: a decimal of at most 15 digits that reads back to `v` is the
        // shortest one, because no two such decimals share a double.
        let whole = v as i64;
        if whole as f64 == v && (whole != 0 || v.to_bits() == 0) {
            out.extend_from_slice(itoa::Buffer::new().format(whole).as_bytes());
            return;
        }
        if (1e-3..1e12).contains(&magnitude) {
            let thousandths = (magnitude * 1000.0).round();
            if thousandths / 1000.0 == magnitude {
                return decimal(out, v < 0.0, thousandths as u64);
            }
        }
    } else if !v.is_finite() {
        let name: &[u8] = match v {
            f64::INFINITY => b"+Inf",
            f64::NEG_INFINITY => b"-Inf",
            _ => b"NaN",
        };
        out.extend_from_slice(name);
        return;
    }
    shortest(out, v, exponent);
}

/// `thousandths / 1000`, not whole.
fn decimal(out: &mut Vec<u8>, negative: bool, thousandths: u64) {
    if negative {
        out.push(b'-');
    }
    integer(out, thousandths / 1000);
    let f = (thousandths % 1000) as u16;
    let digits = [b'.', b'0' + (f / 100) as u8, b'0' + (f / 10 % 10) as u8, b'0' + (f % 10) as u8];
    let len = if !f.is_multiple_of(10) {
        4
    } else if !f.is_multiple_of(100) {
        3
    } else {
        2
    };
    out.extend_from_slice(&digits[..len]);
}

/// The general case: shortest digits from the library, laid out as Go's `strconv.FormatFloat` does.
fn shortest(out: &mut Vec<u8>, v: f64, exponent: Exponent) {
    if v == 0.0 {
        out.extend_from_slice(if v.is_sign_negative() { b"-0" } else { b"0" });
        return;
    }
    if v < 0.0 {
        out.push(b'-');
    }
    let magnitude = v.abs();
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format_finite(magnitude).as_bytes();
    // What lies in between comes as it is to be written, which is most of what is computed.
    if (1e-4..1e15).contains(&magnitude) && !text.contains(&b'e') && !text.ends_with(b".0") {
        out.extend_from_slice(text);
        return;
    }
    // Taken apart into digits without leading or trailing zeros and the place of the point: 0.digits ×
    // 10^point.
    let mut digits = [0u8; 32];
    let mut n = 0;
    let mut point = 0i32;
    let mut seen_point = false;
    let mut power = 0i32;
    for (i, &b) in text.iter().enumerate() {
        match b {
            b'0' if n == 0 => point -= seen_point as i32,
            b'0'..=b'9' => {
                digits[n] = b;
                n += 1;
                point += !seen_point as i32;
            }
            b'.' => seen_point = true,
            _ => {
                power = std::str::from_utf8(&text[i + 1..]).ok().and_then(|e| e.parse().ok()).unwrap_or(0);
                break;
            }
        }
    }
    point += power;
    while n > 1 && digits[n - 1] == b'0' {
        n -= 1;
    }
    let digits = &digits[..n];
    if exponent == Exponent::Extremes && !(1e-6..1e21).contains(&magnitude) {
        out.push(digits[0]);
        if n > 1 {
            out.push(b'.');
            out.extend_from_slice(&digits[1..]);
        }
        let e = point - 1;
        out.extend_from_slice(if e < 0 { b"e-" } else { b"e+" });
        if e.abs() < 10 {
            out.push(b'0');
        }
        integer(out, e.unsigned_abs() as u64);
    } else if point <= 0 {
        out.extend_from_slice(b"0.");
        out.resize(out.len() + point.unsigned_abs() as usize, b'0');
        out.extend_from_slice(digits);
    } else if point as usize >= n {
        out.extend_from_slice(digits);
        out.resize(out.len() + point as usize - n, b'0');
    } else {
        out.extend_from_slice(&digits[..point as usize]);
        out.push(b'.');
        out.extend_from_slice(&digits[point as usize..]);
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Per byte: 0 as it is, 1 escaped always, 2 escaped in HTML-safe strings too.
const ESCAPES: [u8; 256] = {
    let mut table = [0u8; 256];
    let mut i = 0;
    while i < 0x20 {
        table[i] = 1;
        i += 1;
    }
    table[b'"' as usize] = 1;
    table[b'\\' as usize] = 1;
    table[b'<' as usize] = 2;
    table[b'>' as usize] = 2;
    table[b'&' as usize] = 2;
    // First byte of U+2028 and U+2029, which JavaScript once took for line ends.
    table[0xe2] = 2;
    table
};

/// A label's name or value, quotes included.
pub fn string(out: &mut Vec<u8>, s: &str) {
    escaped(out, s, 1);
}

/// Any other text (errors, warnings, lists of names): upstream escapes `<`, `>`, `&`, U+2028 and U+2029 there
/// too.
pub fn html_string(out: &mut Vec<u8>, s: &str) {
    escaped(out, s, 2);
}

fn escaped(out: &mut Vec<u8>, s: &str, level: u8) {
    out.reserve(s.len() + 2);
    out.push(b'"');
    let bytes = s.as_bytes();
    let mut from = 0;
    for (i, &b) in bytes.iter().enumerate() {
        let class = ESCAPES[b as usize];
        if class == 0 || class > level {
            continue;
        }
        if b == 0xe2 {
            if bytes[i + 1] == 0x80 && (bytes[i + 2] == 0xa8 || bytes[i + 2] == 0xa9) {
                out.extend_from_slice(&bytes[from..i]);
                out.extend_from_slice(if bytes[i + 2] == 0xa8 { b"\\u2028" } else { b"\\u2029" });
                from = i + 3;
            }
            continue;
        }
        out.extend_from_slice(&bytes[from..i]);
        match b {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', b]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => out.extend_from_slice(&[
                b'\\',
                b'u',
                b'0',
                b'0',
                HEX[(b >> 4) as usize],
                HEX[(b & 15) as usize],
            ]),
        }
        from = i + 1;
    }
    out.extend_from_slice(&bytes[from..]);
    out.push(b'"');
}

/// `{"name":"value",…}`
pub fn labels(out: &mut Vec<u8>, labels: &Labels) {
    out.push(b'{');
    for (i, (name, value)) in labels.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        string(out, name);
        out.push(b':');
        string(out, value);
    }
    out.push(b'}');
}

/// `["a","b"]`
pub fn strings<S: AsRef<str>>(out: &mut Vec<u8>, all: impl IntoIterator<Item = S>) {
    out.push(b'[');
    for (i, s) in all.into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        html_string(out, s.as_ref());
    }
    out.push(b']');
}

/// Anything small, through serde, with upstream's escapes.
pub fn small<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    let mut serializer = serde_json::Serializer::with_formatter(&mut *out, GoStrings);
    // Only maps with keys that are not strings can fail, and a writer that is not a vector.
    value.serialize(&mut serializer).expect("the API's own types are JSON");
}

struct GoStrings;

impl serde_json::ser::Formatter for GoStrings {
    fn write_string_fragment<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        s: &str,
    ) -> std::io::Result<()> {
        let mut escaped = Vec::with_capacity(s.len() + 2);
        html_string(&mut escaped, s);
        writer.write_all(&escaped[1..escaped.len() - 1])
    }
}

/// `{"count":"…","sum":"…","buckets":[[bounds,"lower","upper","count"],…]}`: from the lowest bucket up, empty
/// ones left out. Bounds: 0 upper included, 1 lower included, 2 neither, 3 both.
pub fn histogram(out: &mut Vec<u8>, h: &Histogram) {
    out.extend_from_slice(br#"{"count":"#);
    value(out, h.count);
    out.extend_from_slice(br#","sum":"#);
    value(out, h.sum);
    let mut any_bucket = false;
    for b in h.all_buckets() {
        if b.count == 0.0 {
            continue;
        }
        out.extend_from_slice(if any_bucket { b",".as_slice() } else { br#","buckets":["#.as_slice() });
        any_bucket = true;
        let bounds = match (b.lower_inclusive, b.upper_inclusive) {
            (false, true) => b'0',
            (true, false) => b'1',
            (false, false) => b'2',
            (true, true) => b'3',
        };
        out.extend_from_slice(&[b'[', bounds, b',']);
        value(out, b.lower);
        out.push(b',');
        value(out, b.upper);
        out.push(b',');
        value(out, b.count);
        out.push(b']');
    }
    if any_bucket {
        out.push(b']');
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::histogram::{BucketSpan, CUSTOM_BUCKETS_SCHEMA};
    use proptest::prelude::*;

    fn shown(f: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        f(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_numbers_are_written_as_go_writes_them() {
        for (v, text, scalar) in [
            (0.0, "0", "0"),
            (-0.0, "-0", "-0"),
            (1.0, "1", "1"),
            (-17.0, "-17", "-17"),
            (0.25, "0.25", "0.25"),
            (0.1 + 0.2, "0.30000000000000004", "0.30000000000000004"),
            (12.5, "12.5", "12.5"),
            (-0.001, "-0.001", "-0.001"),
            (0.0001, "0.0001", "0.0001"),
            (1e-6, "0.000001", "0.000001"),
            (9.5e-7, "9.5e-07", "0.00000095"),
            (1e-7, "1e-07", "0.0000001"),
            (1e15, "1000000000000000", "1000000000000000"),
            (1e20, "100000000000000000000", "100000000000000000000"),
            (1.2345678901234568e20, "123456789012345680000", "123456789012345680000"),
            (1e21, "1e+21", "1000000000000000000000"),
            (1.5e300, "1.5e+300", &format!("15{}", "0".repeat(299))),
            (-1e100, "-1e+100", &format!("-1{}", "0".repeat(100))),
            (9007199254740992.0, "9007199254740992", "9007199254740992"),
            (822_788_063_784_479.2, "822788063784479.2", "822788063784479.2"),
            (f64::NAN, "NaN", "NaN"),
            (f64::INFINITY, "+Inf", "+Inf"),
            (f64::NEG_INFINITY, "-Inf", "-Inf"),
        ] {
            assert_eq!(shown(|o| value(o, v)), format!("\"{text}\""));
            assert_eq!(shown(|o| scalar_value(o, v)), format!("\"{scalar}\""));
        }
        assert_eq!(shown(|o| value(o, 5e-324)), "\"5e-324\"");
        assert_eq!(shown(|o| value(o, f64::MAX)), "\"1.7976931348623157e+308\"");
    }

    #[test]
    fn json_timestamps_have_the_decimals_they_need() {
        // The cases of upstream's json_codec_test.go.
        for (t, text) in [
            (0, "0"),
            (1, "0.001"),
            (10, "0.010"),
            (100, "0.100"),
            (1001, "1.001"),
            (1010, "1.010"),
            (1100, "1.100"),
            (12345678123456555, "12345678123456.555"),
            (-1, "-0.001"),
            (-1000, "-1"),
            (i64::MIN, "-9223372036854775.808"),
        ] {
            assert_eq!(shown(|o| timestamp(o, t)), text);
        }
    }

    #[test]
    fn json_label_strings_and_others_differ_in_what_they_escape() {
        let s = "a\"\\\n\r\t\x01\x08\x1f\x7f<&>\u{2028}\u{2029}é\u{2026}";
        assert_eq!(
            shown(|o| string(o, s)),
            "\"a\\\"\\\\\\n\\r\\t\\u0001\\u0008\\u001f\x7f<&>\u{2028}\u{2029}é\u{2026}\""
        );
        assert_eq!(
            shown(|o| html_string(o, s)),
            "\"a\\\"\\\\\\n\\r\\t\\u0001\\u0008\\u001f\x7f\\u003c\\u0026\\u003e\\u2028\\u2029é\u{2026}\""
        );
    }

    /// Upstream's json_codec_test.go has this histogram.
    #[test]
    fn json_histogram_lists_its_buckets_from_the_lowest_up() {
        let span = |offset, length| BucketSpan { offset, length };
        let mut h = Histogram {
            schema: 2,
            zero_threshold: 0.001,
            zero_count: 12.0,
            count: 10.0,
            sum: 20.0,
            positive_spans: vec![span(3, 2), span(1, 3)],
            negative_spans: vec![span(2, 2)],
            positive_buckets: vec![1.0, 2.0, 2.0, 1.0, 1.0],
            negative_buckets: vec![2.0, 1.0],
            ..Histogram::default()
        };
        let want = r#"{"count":"10","sum":"20","buckets":[[1,"-1.6817928305074288","-1.414213562373095","1"],[1,"-1.414213562373095","-1.189207115002721","2"],[3,"-0.001","0.001","12"],[0,"1.414213562373095","1.6817928305074288","1"],[0,"1.6817928305074288","2","2"],[0,"2.378414230005442","2.82842712474619","2"],[0,"2.82842712474619","3.3635856610148576","1"],[0,"3.3635856610148576","4","1"]]}"#;
        assert_eq!(shown(|o| histogram(o, &h)), want);
        h = Histogram { count: 0.0, sum: f64::NAN, ..Histogram::default() };
        assert_eq!(shown(|o| histogram(o, &h)), r#"{"count":"0","sum":"NaN"}"#);
        h = Histogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            count: 5.0,
            sum: 7.5,
            positive_spans: vec![span(0, 3)],
            positive_buckets: vec![1.0, 0.0, 4.0],
            custom_values: Some([1.0, 2.0].into()),
            ..Histogram::default()
        };
        assert_eq!(
            shown(|o| histogram(o, &h)),
            r#"{"count":"5","sum":"7.5","buckets":[[3,"-Inf","1","1"],[0,"2","+Inf","4"]]}"#
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn json_numbers_of_every_bit_pattern_read_back_and_are_shortest(bits: u64) {
            let v = f64::from_bits(bits);
            let text = shown(|o| value(o, v));
            let back: f64 = text.trim_matches('"').parse().unwrap();
            prop_assert!(back.to_bits() == bits || (v.is_nan() && back.is_nan()));
            if v.is_finite() {
                // As many digits as Rust's own shortest form. On a tie between two shortest forms Rust rounds
                // up, Go and this code to even.
                let digits = |s: &str| s.split('e').next().unwrap().replace(['.', '-', '"'], "").trim_matches('0').len();
                prop_assert_eq!(digits(&text), digits(&format!("{v:e}")));
                prop_assert_eq!(shown(|o| plain_number(o, v)).parse::<f64>().unwrap().to_bits(), bits);
                let json: f64 = serde_json::from_str::<String>(&text).unwrap().parse().unwrap();
                prop_assert_eq!(json.to_bits(), bits);
            }
        }

        #[test]
        fn json_short_decimals_take_the_fast_path_to_the_same_digits(n in -10_000_000_000i64..10_000_000_000, scale in 0i32..7) {
            let v = n as f64 / 10f64.powi(scale);
            let want = if v == 0.0 { "0".to_string() } else if v.abs() < 1e-6 { format!("{n}e-0{scale}") } else { format!("{v}") };
            prop_assert_eq!(shown(|o| value(o, v)), format!("\"{want}\""));
        }

        #[test]
        fn json_timestamps_read_back(t in -(1i64 << 45)..(1 << 45)) {
            let back: f64 = serde_json::from_str(&shown(|o| timestamp(o, t))).unwrap();
            prop_assert_eq!((back * 1000.0).round() as i64, t);
        }

        #[test]
        fn json_strings_read_back(s: String) {
            prop_assert_eq!(&serde_json::from_str::<String>(&shown(|o| string(o, &s))).unwrap(), &s);
            prop_assert_eq!(&serde_json::from_str::<String>(&shown(|o| html_string(o, &s))).unwrap(), &s);
        }
    }
}
