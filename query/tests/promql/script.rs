//! The script language of upstream's PromQL vectors: text to commands.

use std::time::Duration;

use model::histogram::Histogram;
use model::labels::Labels;
use query::parse::{SequenceValue, parse_series_description, parse_start_timestamps};
use regex_automata::meta::Regex;

/// One step of a script.
pub enum Command {
    Clear,
    Load(Load),
    Eval(Box<Eval>),
}

/// Series to store, one point per `gap_ms` from the epoch on.
pub struct Load {
    pub gap_ms: i64,
    /// Also store the custom-bucket histograms that the classic ones make.
    pub with_nhcb: bool,
    pub series: Vec<LoadedSeries>,
}

pub struct LoadedSeries {
    pub labels: Labels,
    pub points: Vec<SequenceValue>,
    /// Start timestamps relative to each point's own time, in milliseconds.
    pub start_offsets_ms: Option<Vec<Option<i64>>>,
}

/// A query and what it must answer.
#[derive(Default)]
pub struct Eval {
    /// 1-based.
    pub line: usize,
    pub expr: String,
    /// `None`: an instant query at `end_ms`.
    pub range: bool,
    pub start_ms: i64,
    pub end_ms: i64,
    pub step_ms: i64,
    pub ordered: bool,
    pub fail: bool,
    pub warn: bool,
    pub info: bool,
    pub fail_message: Option<String>,
    pub fail_pattern: Option<Regex>,
    pub expect_fail: Option<Expected>,
    pub expect_warn: Vec<Expected>,
    pub expect_info: Vec<Expected>,
    pub expect_no_warn: bool,
    pub expect_no_info: bool,
    /// The result is a range vector or a string: not tried as a range query.
    pub no_range_mode: bool,
    pub expected_string: Option<Vec<u8>>,
    pub expected_scalar: Option<f64>,
    /// Position (1-based), labels and points.
    pub expected: Vec<(usize, Labels, Vec<SequenceValue>)>,
}

/// A text that must be matched.
pub enum Expected {
    Anything,
    Message(String),
    Pattern(Regex, String),
}

impl Expected {
    pub fn matches(&self, text: &str) -> bool {
        match self {
            // As upstream's `^.*$`: one line.
            Expected::Anything => !text.contains('\n'),
            Expected::Message(m) => m == text,
            Expected::Pattern(r, _) => r.is_match(text),
        }
    }
}

impl std::fmt::Display for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Expected::Anything => f.write_str("anything"),
            Expected::Message(m) => write!(f, "message {m:?}"),
            Expected::Pattern(_, p) => write!(f, "pattern {p:?}"),
        }
    }
}

/// All commands of a script, or the line that is not one and why.
pub fn parse(text: &str) -> Result<Vec<Command>, String> {
    let lines: Vec<&str> =
        text.lines().map(str::trim).map(|l| if l.starts_with('#') { "" } else { l }).collect();
    let mut commands = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at];
        let word = line.split([' ', '\t']).next().unwrap_or("").to_ascii_lowercase();
        let end = at + 1 + lines[at + 1..].iter().take_while(|l| !l.is_empty()).count();
        let (block, first_line) = (&lines[at + 1..end], at + 1);
        let command = match word.as_str() {
            "" => {
                at += 1;
                continue;
            }
            "clear" => {
                at += 1;
                commands.push(Command::Clear);
                continue;
            }
            w if w.starts_with("load") => load(line, block).map(Command::Load).map(|c| (c, block.len())),
            w if w.starts_with("eval") => {
                eval(line, block, first_line).map(|(c, used)| (Command::Eval(Box::new(c)), used))
            }
            _ => Err(format!("invalid command {line:?}")),
        };
        let (command, used) = command.map_err(|e| format!("line {first_line}: {e}"))?;
        commands.push(command);
        at += 1 + used;
    }
    Ok(commands)
}

fn load(line: &str, block: &[&str]) -> Result<Load, String> {
    let (word, gap) = line.split_once([' ', '\t']).ok_or("load needs a step")?;
    let with_nhcb = match word {
        "load" => false,
        "load_with_nhcb" => true,
        _ => return Err(format!("invalid load command {word:?}")),
    };
    let mut load = Load { gap_ms: duration_ms(gap.trim())?, with_nhcb, series: Vec::new() };
    let mut starts: Option<(Labels, Vec<Option<i64>>)> = None;
    for line in block {
        if let Some(start) = parse_start_timestamps(line, MAX_STEPS as usize) {
            let start = start?;
            starts = Some((start.labels, start.offsets_ms));
            continue;
        }
        let (labels, points) = series(line)?;
        let start_offsets_ms = match starts.take() {
            None => None,
            Some((l, offsets)) if l == labels && offsets.len() == points.len() => Some(offsets),
            Some(_) => {
                return Err(format!("the @st line before {line:?} has another metric or number of values"));
            }
        };
        load.series.retain(|s: &LoadedSeries| s.labels != labels);
        load.series.push(LoadedSeries { labels, points, start_offsets_ms });
    }
    if starts.is_some() {
        return Err("@st line has no following sample line".into());
    }
    Ok(load)
}

/// Longest sequence in a script.
const MAX_STEPS: u64 = 1_000_000;

fn series(line: &str) -> Result<(Labels, Vec<SequenceValue>), String> {
    let description = parse_series_description(line).map_err(|e| format!("series {line:?}: {e}"))?;
    let combine = |a: &Histogram, b: &Histogram, subtract: bool| {
        let mut sum = a.clone();
        if subtract { sum.sub(b) } else { sum.add(b) }.map_err(|e| e.to_string())?;
        Ok(sum)
    };
    let points = description.expand(MAX_STEPS, combine).map_err(|e| format!("series {line:?}: {e}"))?;
    Ok((description.labels, points))
}

/// Prometheus' durations, `1h30m`; `0` needs no unit.
pub fn duration_ms(text: &str) -> Result<i64, String> {
    if text == "0" {
        return Ok(0);
    }
    let bad = || format!("not a valid duration string: {text:?}");
    let mut rest = text;
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err("empty duration string".into());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let number: u64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let ms = match &rest[..unit] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 7 * 86_400_000,
            "y" => 365 * 86_400_000,
            _ => return Err(bad()),
        };
        rest = &rest[unit..];
        total += Duration::from_millis(number.checked_mul(ms).ok_or_else(bad)?);
    }
    i64::try_from(total.as_millis()).map_err(|_| bad())
}

/// The next word and what follows it.
fn word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    let end = text.find([' ', '\t']).unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

/// `from`, `to`, `step` and what follows.
fn from_to_step(text: &str) -> Result<(i64, i64, i64, &str), String> {
    let mut values = [0; 3];
    let mut rest = text;
    for (value, name) in values.iter_mut().zip(["from", "to", "step"]) {
        let (key, after) = word(rest);
        if key != name {
            return Err(format!("expected {name} in {text:?}"));
        }
        let (duration, after) = word(after);
        *value = duration_ms(duration)?;
        rest = after;
    }
    if values[1] < values[0] {
        return Err(format!("end before start in {text:?}"));
    }
    Ok((values[0], values[1], values[2], rest))
}

/// The command and how many lines of the block belong to it.
fn eval(line: &str, block: &[&str], line_number: usize) -> Result<(Eval, usize), String> {
    let (command, rest) = word(line);
    let (kind, rest) = word(rest);
    let mut eval = Eval { line: line_number, ..Eval::default() };
    match command {
        "eval" => {}
        "eval_ordered" => eval.ordered = true,
        "eval_fail" => eval.fail = true,
        "eval_warn" => eval.warn = true,
        "eval_info" => eval.info = true,
        _ => return Err(format!("invalid evaluation command {command:?}")),
    }
    match kind {
        "instant" => {
            let (at, rest) = word(rest);
            if at != "at" {
                return Err("an instant evaluation needs `at`".into());
            }
            let (time, expr) = word(rest);
            eval.end_ms = duration_ms(time)?;
            eval.start_ms = eval.end_ms;
            eval.expr = expr.to_string();
        }
        "range" => {
            eval.range = true;
            let (start, end, step, expr) = from_to_step(rest)?;
            (eval.start_ms, eval.end_ms, eval.step_ms) = (start, end, step);
            eval.expr = expr.to_string();
        }
        _ => return Err(format!("invalid evaluation {kind:?}: must be instant or range")),
    }

    let mut position = 0;
    let mut several_points = eval.range;
    for (used, line) in block.iter().enumerate() {
        if eval.fail {
            if let Some(message) = line.strip_prefix("expected_fail_message") {
                eval.fail_message = Some(message.trim().to_string());
                return Ok((eval, used + 1));
            }
            if let Some(pattern) = line.strip_prefix("expected_fail_regexp") {
                eval.fail_pattern = Some(regex(pattern.trim())?);
                return Ok((eval, used + 1));
            }
        }
        if let Some(range) = line.strip_prefix("expect range vector") {
            let (start, end, step, _) = from_to_step(range)?;
            (eval.start_ms, eval.end_ms, eval.step_ms) = (start, end, step);
            eval.no_range_mode = true;
            several_points = true;
            // The query still runs at the end of that range.
            continue;
        }
        if let Some(string) = line.strip_prefix("expect string") {
            eval.expected_string = Some(unquote(string.trim())?);
            eval.no_range_mode = true;
            continue;
        }
        let (first, rest) = word(line);
        if first == "expect" {
            expect(&mut eval, rest)?;
            continue;
        }
        if let Some(v) = number(line) {
            eval.expected_scalar = Some(v);
            return Ok((eval, used + 1));
        }
        position += 1;
        let (labels, points) = series(line)?;
        if points.len() > 1 && !several_points {
            return Err(format!("several values expected of an instant evaluation: {line:?}"));
        }
        eval.expected.retain(|(_, l, _)| *l != labels);
        eval.expected.push((position, labels, points));
    }
    Ok((eval, block.len()))
}

fn expect(eval: &mut Eval, text: &str) -> Result<(), String> {
    let (kind, rest) = word(text);
    let expected = match rest.split_once(':') {
        _ if rest.is_empty() => Expected::Anything,
        Some(("msg", text)) => Expected::Message(text.trim().to_string()),
        Some(("regex", text)) => Expected::Pattern(regex(text.trim())?, text.trim().to_string()),
        _ => return Err(format!("invalid expect statement {text:?}")),
    };
    match kind {
        "ordered" => eval.ordered = true,
        "fail" if eval.expect_fail.is_some() => return Err("multiple expect fail lines".into()),
        "fail" => eval.expect_fail = Some(expected),
        "warn" => eval.expect_warn.push(expected),
        "info" => eval.expect_info.push(expected),
        "no_warn" => eval.expect_no_warn = true,
        "no_info" => eval.expect_no_info = true,
        _ => return Err(format!("invalid expected error/annotation type {kind:?}")),
    }
    if eval.expect_no_warn && !eval.expect_warn.is_empty()
        || eval.expect_no_info && !eval.expect_info.is_empty()
    {
        return Err("an annotation is both expected and excluded".into());
    }
    Ok(())
}

fn regex(pattern: &str) -> Result<Regex, String> {
    Regex::new(pattern).map_err(|e| format!("invalid regex {pattern:?}: {e}"))
}

/// A number alone on its line: what a scalar must be.
fn number(text: &str) -> Option<f64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        return i64::from_str_radix(hex, 16).ok().map(|v| sign * v as f64);
    }
    match digits.to_ascii_lowercase().as_str() {
        "nan" => Some(f64::NAN),
        "inf" | "infinity" => Some(sign * f64::INFINITY),
        d if d.starts_with(|c: char| c.is_ascii_digit() || c == '.') => {
            d.parse::<f64>().ok().map(|v| sign * v)
        }
        _ => None,
    }
}

/// A quoted Go string as bytes: raw in backquotes, otherwise with the usual escapes.
fn unquote(text: &str) -> Result<Vec<u8>, String> {
    let bad = || format!("expected string literal not valid: {text:?}");
    let mut chars = text.chars();
    let quote = chars.next().ok_or_else(bad)?;
    let inner = text.strip_prefix(quote).and_then(|t| t.strip_suffix(quote)).ok_or_else(bad)?;
    if quote == '`' {
        return Ok(inner.as_bytes().to_vec());
    }
    if quote != '"' && quote != '\'' {
        return Err(bad());
    }
    let mut out = Vec::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.extend(c.to_string().bytes());
            continue;
        }
        let simple = match chars.next().ok_or_else(bad)? {
            'n' => b'\n',
            't' => b'\t',
            'r' => b'\r',
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'v' => 11,
            c @ ('\\' | '"' | '\'') => c as u8,
            'x' => {
                let digits: String = chars.by_ref().take(2).collect();
                u8::from_str_radix(&digits, 16).map_err(|_| bad())?
            }
            c @ ('u' | 'U') => {
                let digits: String = chars.by_ref().take(if c == 'u' { 4 } else { 8 }).collect();
                let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32).ok_or_else(bad)?;
                out.extend(code.to_string().bytes());
                continue;
            }
            c @ '0'..='7' => {
                let digits: String = std::iter::once(c).chain(chars.by_ref().take(2)).collect();
                u8::from_str_radix(&digits, 8).map_err(|_| bad())?
            }
            _ => return Err(bad()),
        };
        out.push(simple);
    }
    Ok(out)
}
