//! Numbers and values as Go's `fmt` writes them: `%g` and its like, and `printf` with flags, width and
//! precision.

use model::quote::quote;

use super::float::format_float;
use super::value::Value;

/// Wider than this, or more digits, Go refuses too.
const MAX_WIDTH: usize = 1_000_000;

/// The flags, width and precision of one verb.
#[derive(Default)]
struct Spec {
    minus: bool,
    plus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// Go's `fmt.Sprintf`, its complaints in the text included (`%!d(float64=1)`, `%!s(MISSING)`, `%!(EXTRA …)`).
pub fn sprintf(format: &str, args: &[Value]) -> String {
    let mut out = String::with_capacity(format.len() + 16 * args.len());
    let mut chars = format.chars().peekable();
    let mut next_arg = 0;
    let mut reordered = false;
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut spec = flags(&mut chars);
        argument_number(&mut chars, &mut next_arg, &mut reordered);
        if chars.peek() == Some(&'*') {
            chars.next();
            match star(args, &mut next_arg) {
                Some(width) => {
                    spec.minus |= width < 0;
                    spec.width = Some(width.unsigned_abs() as usize);
                }
                None => out.push_str("%!(BADWIDTH)"),
            }
        } else {
            spec.width = number(&mut chars);
        }
        if chars.peek() == Some(&'.') {
            chars.next();
            argument_number(&mut chars, &mut next_arg, &mut reordered);
            if chars.peek() == Some(&'*') {
                chars.next();
                match star(args, &mut next_arg).filter(|p| *p >= 0) {
                    Some(precision) => spec.precision = Some(precision as usize),
                    None => out.push_str("%!(BADPREC)"),
                }
            } else {
                spec.precision = Some(number(&mut chars).unwrap_or(0));
            }
        }
        argument_number(&mut chars, &mut next_arg, &mut reordered);
        let Some(verb) = chars.next() else {
            out.push_str("%!(NOVERB)");
            break;
        };
        if verb == '%' {
            out.push('%');
            continue;
        }
        let Some(arg) = args.get(next_arg) else {
            out.push_str(&format!("%!{verb}({})", if reordered { "BADINDEX" } else { "MISSING" }));
            continue;
        };
        next_arg += 1;
        verb_text(&mut out, &spec, verb, arg);
    }
    if !reordered && next_arg < args.len() {
        complain_of_extra(&mut out, &args[next_arg..]);
    }
    out
}

/// `%!(EXTRA string=a, int=1)`
fn complain_of_extra(out: &mut String, args: &[Value]) {
    out.push_str("%!(EXTRA ");
    for (i, arg) in args.iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        out.push_str(arg.type_name());
        if !matches!(arg, Value::Nil) {
            out.push('=');
            arg.print(out);
        }
    }
    out.push(')');
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// The flags that a verb begins with.
fn flags(chars: &mut Chars<'_>) -> Spec {
    let mut spec = Spec::default();
    while let Some(flag) = chars.peek() {
        match flag {
            '-' => (spec.minus, spec.zero) = (true, false),
            '+' => spec.plus = true,
            '#' => spec.sharp = true,
            ' ' => spec.space = true,
            '0' => spec.zero = !spec.minus,
            _ => break,
        }
        chars.next();
    }
    spec
}

fn number(chars: &mut Chars<'_>) -> Option<usize> {
    let mut value: Option<usize> = None;
    while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
        chars.next();
        value = Some((value.unwrap_or(0) * 10 + digit as usize).min(MAX_WIDTH));
    }
    value
}

/// `[2]` before a verb, a width or a precision.
fn argument_number(chars: &mut Chars<'_>, next_arg: &mut usize, reordered: &mut bool) {
    if chars.peek() != Some(&'[') {
        return;
    }
    chars.next();
    *reordered = true;
    let given = number(chars);
    if chars.peek() == Some(&']') {
        chars.next();
    }
    *next_arg = given.map_or(usize::MAX - 1, |n| n.wrapping_sub(1));
}

fn star(args: &[Value], next_arg: &mut usize) -> Option<i64> {
    let arg = args.get(*next_arg);
    *next_arg += 1;
    match arg {
        Some(Value::Int(n)) if n.unsigned_abs() <= MAX_WIDTH as u64 => Some(*n),
        _ => None,
    }
}

fn verb_text(out: &mut String, spec: &Spec, verb: char, arg: &Value) {
    let text = match (verb, arg) {
        ('v', Value::Float(v)) => signed(spec, format_float(*v, 'g', spec.precision)),
        ('e' | 'E' | 'f' | 'F', Value::Float(v)) => {
            signed(spec, format_float(*v, verb, Some(spec.precision.unwrap_or(6))))
        }
        ('g' | 'G', Value::Float(v)) => signed(spec, format_float(*v, verb, spec.precision)),
        ('v' | 'd', Value::Int(n)) => signed(spec, n.to_string()),
        ('x', Value::Int(n)) => signed(spec, based(*n, spec, "0x", |n| format!("{n:x}"))),
        ('X', Value::Int(n)) => signed(spec, based(*n, spec, "0X", |n| format!("{n:X}"))),
        ('o', Value::Int(n)) => signed(spec, based(*n, spec, "0", |n| format!("{n:o}"))),
        ('b', Value::Int(n)) => signed(spec, based(*n, spec, "0b", |n| format!("{n:b}"))),
        ('c', Value::Int(n)) => {
            u32::try_from(*n).ok().and_then(char::from_u32).unwrap_or('\u{fffd}').to_string()
        }
        ('q', Value::Int(n)) => {
            model::quote::quote_char(u32::try_from(*n).ok().and_then(char::from_u32).unwrap_or('\u{fffd}'))
        }
        ('v' | 't', Value::Bool(b)) => b.to_string(),
        ('v' | 's', Value::Text(t)) => cut(t, spec.precision),
        ('q', Value::Text(t)) => quote(cut(t, spec.precision)),
        ('x', Value::Text(t)) => t.bytes().map(|b| format!("{b:02x}")).collect(),
        ('X', Value::Text(t)) => t.bytes().map(|b| format!("{b:02X}")).collect(),
        ('T', arg) => arg.type_name().to_owned(),
        ('v', arg) => arg.printed(),
        ('s', arg @ (Value::Time(_) | Value::Duration(_) | Value::Histogram(_) | Value::Map(_))) => {
            arg.printed()
        }
        (_, Value::Nil) => format!("%!{verb}(<nil>)"),
        (_, arg) => format!("%!{verb}({}={})", arg.type_name(), arg.printed()),
    };
    pad(out, spec, &text, arg);
}

fn cut(text: &str, precision: Option<usize>) -> String {
    match precision {
        Some(most) => text.chars().take(most).collect(),
        None => text.to_owned(),
    }
}

fn based(n: i64, spec: &Spec, prefix: &str, digits: impl Fn(u64) -> String) -> String {
    let sign = if n < 0 { "-" } else { "" };
    let prefix = if spec.sharp { prefix } else { "" };
    format!("{sign}{prefix}{}", digits(n.unsigned_abs()))
}

/// With the sign that `+` or a space ask for.
fn signed(spec: &Spec, text: String) -> String {
    match text.strip_prefix('+') {
        // Infinity has its sign anyway, but for the verb that leaves it out.
        Some(rest) if !spec.plus => match spec.space {
            true => format!(" {rest}"),
            false => text,
        },
        _ if text.starts_with(['-', '+']) => text,
        _ if spec.plus => format!("+{text}"),
        _ if spec.space => format!(" {text}"),
        _ => text,
    }
}

fn pad(out: &mut String, spec: &Spec, text: &str, arg: &Value) {
    let missing = spec.width.unwrap_or(0).saturating_sub(text.chars().count());
    let fill = |out: &mut String, c: char| out.extend(std::iter::repeat_n(c, missing));
    if spec.minus {
        out.push_str(text);
        return fill(out, ' ');
    }
    let finite = !matches!(arg, Value::Float(v) if !v.is_finite());
    if spec.zero && finite && matches!(arg, Value::Float(_) | Value::Int(_)) {
        let sign = text.len() - text.trim_start_matches(['-', '+', ' ']).len();
        out.push_str(&text[..sign]);
        fill(out, '0');
        return out.push_str(&text[sign..]);
    }
    fill(out, ' ');
    out.push_str(text);
}
