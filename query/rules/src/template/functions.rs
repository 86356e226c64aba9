//! What templates can call: Go's builtins and Prometheus' own functions.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::compare::{equal, less, less_or_equal};
use super::data::{Data, Limits};
use super::float::format_float;
use super::format::sprintf;
use super::humanize;
use super::value::Value;
use crate::links::{graph_link, query_escape, table_link};
use crate::regex::{expand, search};

/// What functions have at hand, and what they have used up.
pub struct Context<'a> {
    pub data: &'a Data<'a>,
    pub limits: &'a Limits,
    pub made_bytes: usize,
    pub queries: usize,
}

type Call = fn(&mut Context<'_>, Vec<Value>) -> Result<Value, String>;

struct Function {
    name: &'static str,
    /// How many arguments it takes, at least and at most.
    takes: (usize, usize),
    call: Call,
}

const MANY: usize = usize::MAX;

static FUNCTIONS: &[Function] = &[
    Function { name: "and", takes: (1, MANY), call: |_, args| Ok(chosen(args, false)) },
    Function { name: "or", takes: (1, MANY), call: |_, args| Ok(chosen(args, true)) },
    Function { name: "not", takes: (1, 1), call: |_, args| Ok(Value::Bool(!args[0].is_true())) },
    Function { name: "len", takes: (1, 1), call: |_, args| len(&args[0]) },
    Function { name: "index", takes: (1, MANY), call: |_, args| index(args) },
    Function { name: "slice", takes: (1, 4), call: |_, args| slice(args) },
    Function { name: "print", takes: (0, MANY), call: |_, args| Ok(Value::text(sprint(&args))) },
    Function { name: "println", takes: (0, MANY), call: |_, args| Ok(Value::text(sprintln(&args))) },
    Function {
        name: "printf",
        takes: (1, MANY),
        call: |_, args| {
            let format = text(&args[0])?;
            Ok(Value::text(sprintf(&format, &args[1..])))
        },
    },
    Function { name: "html", takes: (0, MANY), call: |_, args| Ok(Value::text(html(&sprint(&args)))) },
    Function { name: "js", takes: (0, MANY), call: |_, args| Ok(Value::text(js(&sprint(&args)))) },
    Function {
        name: "urlquery",
        takes: (0, MANY),
        call: |_, args| Ok(Value::text(query_escape(&sprint(&args)))),
    },
    Function {
        name: "call",
        takes: (1, MANY),
        call: |_, args| Err(format!("non-function {} of type {}", args[0].printed(), args[0].type_name())),
    },
    Function { name: "eq", takes: (1, MANY), call: |_, args| eq(&args) },
    Function { name: "ne", takes: (2, 2), call: |_, args| Ok(Value::Bool(!equal(&args[0], &args[1])?)) },
    Function { name: "lt", takes: (2, 2), call: |_, args| Ok(Value::Bool(less(&args[0], &args[1])?)) },
    Function {
        name: "le",
        takes: (2, 2),
        call: |_, args| Ok(Value::Bool(less_or_equal(&args[0], &args[1])?)),
    },
    Function {
        name: "gt",
        takes: (2, 2),
        call: |_, args| Ok(Value::Bool(!less_or_equal(&args[0], &args[1])?)),
    },
    Function { name: "ge", takes: (2, 2), call: |_, args| Ok(Value::Bool(!less(&args[0], &args[1])?)) },
    Function { name: "query", takes: (1, 1), call: query },
    Function {
        name: "first",
        takes: (1, 1),
        call: |_, args| match samples(&args[0])?.first() {
            Some(first) => Ok(Value::Sample(first.clone())),
            None => Err("first() called on vector with no elements".into()),
        },
    },
    Function {
        name: "label",
        takes: (2, 2),
        call: |_, args| {
            let name = text(&args[0])?;
            let sample = sample(&args[1])?;
            Ok(Value::text(sample.labels.get(&*name).map_or("", String::as_str)))
        },
    },
    Function { name: "value", takes: (1, 1), call: |_, args| Ok(sample(&args[0])?.value.clone()) },
    Function {
        name: "strvalue",
        takes: (1, 1),
        call: |_, args| Ok(Value::text(sample(&args[0])?.labels.get("__value__").map_or("", String::as_str))),
    },
    Function {
        name: "sortByLabel",
        takes: (2, 2),
        call: |_, args| {
            let name = text(&args[0])?;
            let mut all = samples(&args[1])?.to_vec();
            all.sort_by(|a, b| a.labels.get(&*name).cmp(&b.labels.get(&*name)));
            Ok(Value::Samples(all.into()))
        },
    },
    Function {
        name: "args",
        takes: (0, MANY),
        call: |_, args| {
            let named: BTreeMap<String, Value> =
                args.into_iter().enumerate().map(|(at, v)| (format!("arg{at}"), v)).collect();
            Ok(Value::Args(Arc::new(named)))
        },
    },
    Function { name: "reReplaceAll", takes: (3, 3), call: re_replace_all },
    Function {
        name: "match",
        takes: (2, 2),
        call: |_, args| {
            let (pattern, value) = (text(&args[0])?, text(&args[1])?);
            Ok(Value::Bool(search(&pattern)?.is_match(value.as_bytes())))
        },
    },
    Function { name: "title", takes: (1, 1), call: |_, args| Ok(Value::text(title(&text(&args[0])?))) },
    Function {
        name: "toUpper",
        takes: (1, 1),
        call: |_, args| Ok(Value::text(text(&args[0])?.to_uppercase())),
    },
    Function {
        name: "toLower",
        takes: (1, 1),
        call: |_, args| Ok(Value::text(text(&args[0])?.to_lowercase())),
    },
    Function { name: "safeHtml", takes: (1, 1), call: |_, args| Ok(Value::Text(text(&args[0])?)) },
    Function {
        name: "graphLink",
        takes: (1, 1),
        call: |_, args| Ok(Value::text(graph_link(&text(&args[0])?))),
    },
    Function {
        name: "tableLink",
        takes: (1, 1),
        call: |_, args| Ok(Value::text(table_link(&text(&args[0])?))),
    },
    Function {
        name: "stripPort",
        takes: (1, 1),
        call: |_, args| Ok(Value::text(strip_port(&text(&args[0])?))),
    },
    Function {
        name: "stripDomain",
        takes: (1, 1),
        call: |_, args| Ok(Value::text(strip_domain(&text(&args[0])?))),
    },
    Function {
        name: "humanize",
        takes: (1, 1),
        call: |_, args| Ok(Value::text(humanize::humanize(float(&args[0])?))),
    },
    Function {
        name: "humanize1024",
        takes: (1, 1),
        call: |_, args| Ok(Value::text(humanize::humanize1024(float(&args[0])?))),
    },
    Function {
        name: "humanizeDuration",
        takes: (1, 1),
        call: |_, args| Ok(Value::text(humanize::humanize_duration(float(&args[0])?))),
    },
    Function {
        name: "humanizePercentage",
        takes: (1, 1),
        call: |_, args| Ok(Value::text(humanize::humanize_percentage(float(&args[0])?))),
    },
    Function {
        name: "humanizeTimestamp",
        takes: (1, 1),
        call: |_, args| {
            let v = float(&args[0])?;
            Ok(Value::text(match v.is_finite() {
                true => humanize::timestamp_text(humanize::to_ms(v)?),
                false => format_float(v, 'g', Some(4)),
            }))
        },
    },
    Function {
        name: "toTime",
        takes: (1, 1),
        call: |_, args| Ok(Value::Time(humanize::to_ms(float(&args[0])?)?)),
    },
    Function {
        name: "toDuration",
        takes: (1, 1),
        call: |_, args| {
            let ns = float(&args[0])? * 1e9;
            match (i64::MIN as f64..=i64::MAX as f64).contains(&ns) {
                true => Ok(Value::Duration(ns as i64)),
                false => Err(format!("{} is not a valid duration in seconds", args[0].printed())),
            }
        },
    },
    Function {
        name: "now",
        takes: (0, 0),
        call: |context, _| Ok(Value::Float(context.data.now_ms as f64 / 1000.0)),
    },
    Function {
        name: "parseDuration",
        takes: (1, 1),
        call: |_, args| {
            let ns = query::parse::parse_duration_ns(&text(&args[0])?)?;
            Ok(Value::Float(ns as f64 / 1e9))
        },
    },
    Function {
        name: "urlQueryEscape",
        takes: (1, 1),
        call: |_, args| Ok(Value::text(query_escape(&text(&args[0])?))),
    },
    Function {
        name: "pathPrefix",
        takes: (0, 0),
        call: |context, _| Ok(Value::text(context.data.external.path_prefix())),
    },
    Function {
        name: "externalURL",
        takes: (0, 0),
        call: |context, _| Ok(Value::text(context.data.external.url.as_str())),
    },
];

/// Whether there is a function of that name.
pub fn is_known(name: &str) -> bool {
    FUNCTIONS.iter().any(|f| f.name == name)
}

/// Calls a function; the error says what is wrong, without where.
pub fn call(name: &str, args: Vec<Value>, context: &mut Context<'_>) -> Result<Value, String> {
    let Some(function) = FUNCTIONS.iter().find(|f| f.name == name) else {
        return Err(format!("{} is not a defined function", model::quote::quote(name)));
    };
    let (least, most) = function.takes;
    if args.len() < least || args.len() > most {
        let wanted = if most == MANY { format!("at least {least}") } else { least.to_string() };
        return Err(format!("wrong number of args for {name}: want {wanted} got {}", args.len()));
    }
    let value = (function.call)(context, args).map_err(|why| match why.strip_prefix(WRONG_TYPE) {
        Some(why) => why.to_owned(),
        None => format!("error calling {name}: {why}"),
    })?;
    context.made_bytes += value.size_bytes();
    if context.made_bytes > context.limits.made_bytes {
        return Err(format!("the template's functions make more than {} bytes", context.limits.made_bytes));
    }
    Ok(value)
}

/// Marks complaints about an argument's type, which Go makes before it calls.
const WRONG_TYPE: &str = "\0";

fn wrong_type(expected: &str, got: &Value) -> String {
    format!("{WRONG_TYPE}wrong type for value; expected {expected}; got {}", got.type_name())
}

fn text(v: &Value) -> Result<Arc<str>, String> {
    match v {
        Value::Text(t) => Ok(t.clone()),
        other => Err(wrong_type("string", other)),
    }
}

fn samples(v: &Value) -> Result<&Arc<[Arc<super::value::Sample>]>, String> {
    match v {
        Value::Samples(all) => Ok(all),
        other => Err(wrong_type("template.queryResult", other)),
    }
}

fn sample(v: &Value) -> Result<&Arc<super::value::Sample>, String> {
    match v {
        Value::Sample(sample) => Ok(sample),
        other => Err(wrong_type("*template.sample", other)),
    }
}

/// Numbers, and texts that hold one.
fn float(v: &Value) -> Result<f64, String> {
    match v {
        Value::Float(v) => Ok(*v),
        Value::Int(n) => Ok(*n as f64),
        Value::Duration(ns) => Ok(*ns as f64 / 1e9),
        Value::Text(t) => {
            let named = t.trim_start_matches(['+', '-']).to_ascii_lowercase();
            match named.as_str() {
                "inf" | "infinity" | "nan" => t.parse().map_err(|_| String::new()),
                _ if t.bytes().any(|b| b.is_ascii_digit()) => t.parse().map_err(|_| String::new()),
                _ => Err(String::new()),
            }
            .map_err(|_: String| {
                format!("strconv.ParseFloat: parsing {}: invalid syntax", model::quote::quote(t.as_bytes()))
            })
        }
        other => Err(format!("can't convert {} to float", other.type_name())),
    }
}

/// The first argument that is as true as asked for, else the last.
fn chosen(args: Vec<Value>, wanted: bool) -> Value {
    let last = args.len() - 1;
    let index = args.iter().position(|v| v.is_true() == wanted).unwrap_or(last);
    args.into_iter().nth(index).unwrap_or(Value::Nil)
}

fn len(v: &Value) -> Result<Value, String> {
    let n = match v {
        Value::Text(t) => t.len(),
        Value::Map(m) => m.len(),
        Value::Args(m) => m.len(),
        Value::Samples(all) => all.len(),
        Value::Nil => return Err("len of nil pointer".into()),
        other => return Err(format!("len of type {}", other.type_name())),
    };
    Ok(Value::Int(n as i64))
}

fn index(args: Vec<Value>) -> Result<Value, String> {
    let mut args = args.into_iter();
    let mut value = args.next().unwrap_or(Value::Nil);
    for key in args {
        value = match (&value, &key) {
            (Value::Map(map), Value::Text(key)) => Value::text(map.get(&**key).map_or("", String::as_str)),
            (Value::Args(map), Value::Text(key)) => map.get(&**key).cloned().unwrap_or(Value::Nil),
            (Value::Map(_) | Value::Args(_), key) => {
                return Err(format!("value has type {}; should be string", key.type_name()));
            }
            (Value::Samples(all), Value::Int(at)) => {
                let element = usize::try_from(*at).ok().and_then(|at| all.get(at));
                Value::Sample(element.ok_or_else(|| format!("index out of range: {at}"))?.clone())
            }
            (Value::Text(text), Value::Int(at)) => {
                let element = usize::try_from(*at).ok().and_then(|at| text.as_bytes().get(at));
                Value::Int((*element.ok_or_else(|| format!("index out of range: {at}"))?).into())
            }
            (Value::Samples(_) | Value::Text(_), key) => {
                return Err(format!("cannot index slice/array with type {}", key.type_name()));
            }
            (Value::Nil, _) => return Err("index of untyped nil".into()),
            (other, _) => return Err(format!("can't index item of type {}", other.type_name())),
        };
    }
    Ok(value)
}

fn slice(args: Vec<Value>) -> Result<Value, String> {
    let bound = |at: usize, default: usize, most: usize| match args.get(at) {
        None => Ok(default),
        Some(Value::Int(n)) => {
            usize::try_from(*n).ok().filter(|n| *n <= most).ok_or_else(|| format!("index out of range: {n}"))
        }
        Some(other) => Err(format!("cannot index slice/array with type {}", other.type_name())),
    };
    match &args[0] {
        Value::Text(t) => {
            let (from, to) = (bound(1, 0, t.len())?, bound(2, t.len(), t.len())?);
            if from > to {
                return Err(format!("invalid slice index: {from} > {to}"));
            }
            Ok(Value::text(String::from_utf8_lossy(&t.as_bytes()[from..to]).as_ref()))
        }
        Value::Samples(all) => {
            let (from, to) = (bound(1, 0, all.len())?, bound(2, all.len(), all.len())?);
            if from > to {
                return Err(format!("invalid slice index: {from} > {to}"));
            }
            Ok(Value::Samples(all[from..to].into()))
        }
        other => Err(format!("can't slice item of type {}", other.type_name())),
    }
}

fn eq(args: &[Value]) -> Result<Value, String> {
    if args.len() < 2 {
        return Err("missing argument for comparison".into());
    }
    for other in &args[1..] {
        if equal(&args[0], other)? {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

fn query(context: &mut Context<'_>, args: Vec<Value>) -> Result<Value, String> {
    let text = text(&args[0])?;
    context.queries += 1;
    if context.queries > context.limits.queries {
        return Err(format!("the template asks more than {} queries", context.limits.queries));
    }
    let answer = (context.data.query)(&text)?;
    Ok(Value::Samples(answer.into_iter().map(Arc::new).collect()))
}

fn re_replace_all(context: &mut Context<'_>, args: Vec<Value>) -> Result<Value, String> {
    let (pattern, replacement, value) = (text(&args[0])?, text(&args[1])?, text(&args[2])?);
    let regex = search(&pattern)?;
    let mut out = String::new();
    let mut copied = 0;
    for captures in regex.captures_iter(value.as_bytes()) {
        let Some(whole) = captures.get_match() else { continue };
        // Go does not replace nothing right behind a match.
        if whole.is_empty() && whole.start() == copied && copied > 0 {
            continue;
        }
        out.push_str(&value[copied..whole.start()]);
        expand(&mut out, &replacement, &value, &regex, &captures);
        copied = whole.end();
        if out.len() > context.limits.output_bytes {
            return Err(format!("the text grows beyond {} bytes", context.limits.output_bytes));
        }
    }
    out.push_str(&value[copied..]);
    Ok(Value::text(out))
}

/// Go's `Sprint`: a space between two operands neither of which is a text.
fn sprint(args: &[Value]) -> String {
    let mut out = String::new();
    for (at, arg) in args.iter().enumerate() {
        let texts = |v: &Value| matches!(v, Value::Text(_));
        if at > 0 && !texts(arg) && !texts(&args[at - 1]) {
            out.push(' ');
        }
        arg.print(&mut out);
    }
    out
}

fn sprintln(args: &[Value]) -> String {
    let mut out = args.iter().map(Value::printed).collect::<Vec<_>>().join(" ");
    out.push('\n');
    out
}

fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\0' => out.push('\u{fffd}'),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c => out.push(c),
        }
    }
    out
}

fn js(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '\'' | '"' => {
                out.push('\\');
                out.push(c);
            }
            '<' | '>' | '&' | '=' => out.push_str(&format!("\\u{:04X}", c as u32)),
            c if (c as u32) < 0x20 => out.push_str(&format!("\\u{:04X}", c as u32)),
            c => out.push(c),
        }
    }
    out
}

/// The first letter of each word in upper case, the rest as it was.
fn title(text: &str) -> String {
    let mut previous = ' ';
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let starts = !(previous.is_alphanumeric() || previous == '_' || previous == '\'');
        match starts {
            true => out.extend(c.to_uppercase()),
            false => out.push(c),
        }
        previous = c;
    }
    out
}

/// `host` of `host:port`; what is no such pair stays.
fn strip_port(text: &str) -> String {
    split_host_port(text).map_or_else(|| text.to_owned(), |(host, _)| host.to_owned())
}

fn split_host_port(text: &str) -> Option<(&str, &str)> {
    let (host, port) = text.rsplit_once(':')?;
    match host.strip_prefix('[') {
        Some(inner) => Some((inner.strip_suffix(']')?, port)),
        None if host.contains([':', '[', ']']) => None,
        None => Some((host, port)),
    }
}

/// The host's first name, with the port kept; addresses stay whole.
fn strip_domain(text: &str) -> String {
    let (host, port) = match split_host_port(text) {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    if host.parse::<std::net::IpAddr>().is_ok() {
        return text.to_owned();
    }
    let first = host.split('.').next().unwrap_or("");
    match port {
        Some(port) => format!("{first}:{port}"),
        None => first.to_owned(),
    }
}
