//! The values that templates compute with, and how Go prints them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use model::histogram::Histogram;

use super::float::format_float;

/// One series of a query's result.
#[derive(Clone, Debug)]
pub struct Sample {
    pub labels: Arc<BTreeMap<String, String>>,
    /// A float or a histogram.
    pub value: Value,
}

#[derive(Clone, Debug)]
pub enum Value {
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Histogram(Arc<Histogram>),
    Text(Arc<str>),
    /// Of texts, such as labels.
    Map(Arc<BTreeMap<String, String>>),
    /// What `args` makes.
    Args(Arc<BTreeMap<String, Value>>),
    Sample(Arc<Sample>),
    Samples(Arc<[Arc<Sample>]>),
    /// Milliseconds since the epoch.
    Time(i64),
    /// Nanoseconds.
    Duration(i64),
    /// The dot a template starts with: labels, external labels, external URL, value.
    Data(Arc<DataValue>),
}

/// The fields of the dot.
#[derive(Clone, Debug)]
pub struct DataValue {
    pub labels: Arc<BTreeMap<String, String>>,
    pub external_labels: Arc<BTreeMap<String, String>>,
    pub external_url: Arc<str>,
    pub value: Value,
}

impl Value {
    pub fn text(text: impl Into<Arc<str>>) -> Value {
        Value::Text(text.into())
    }

    /// Go's name of the type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Nil => "<nil>",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float64",
            Value::Histogram(_) => "*histogram.FloatHistogram",
            Value::Text(_) => "string",
            Value::Map(_) => "map[string]string",
            Value::Args(_) => "map[string]interface {}",
            Value::Sample(_) => "*template.sample",
            Value::Samples(_) => "template.queryResult",
            Value::Time(_) => "*time.Time",
            Value::Duration(_) => "*time.Duration",
            Value::Data(_) => {
                "struct { Labels map[string]string; ExternalLabels map[string]string; ExternalURL string; Value interface {} }"
            }
        }
    }

    /// What `if`, `and` and their like take for true: neither zero nor empty.
    pub fn is_true(&self) -> bool {
        match self {
            Value::Nil => false,
            Value::Bool(b) => *b,
            Value::Int(n) => *n != 0,
            Value::Float(v) => *v != 0.0,
            Value::Text(t) => !t.is_empty(),
            Value::Map(m) => !m.is_empty(),
            Value::Args(m) => !m.is_empty(),
            Value::Samples(all) => !all.is_empty(),
            Value::Histogram(_) | Value::Sample(_) | Value::Data(_) | Value::Time(_) | Value::Duration(_) => {
                true
            }
        }
    }

    /// About how many bytes it prints as.
    pub fn size_bytes(&self) -> usize {
        match self {
            Value::Text(t) => t.len(),
            Value::Samples(all) => 64 * all.len(),
            _ => 64,
        }
    }

    /// As Go's `%v`, which is also how an action prints.
    pub fn print(&self, out: &mut String) {
        match self {
            Value::Nil => out.push_str("<nil>"),
            Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
            Value::Int(n) => {
                let _ = write!(out, "{n}");
            }
            Value::Float(v) => out.push_str(&format_float(*v, 'g', None)),
            Value::Histogram(h) => {
                let _ = write!(out, "{h}");
            }
            Value::Text(t) => out.push_str(t),
            Value::Map(m) => print_map(out, m.iter().map(|(k, v)| (k, |out: &mut String| out.push_str(v)))),
            Value::Args(m) => print_map(out, m.iter().map(|(k, v)| (k, |out: &mut String| v.print(out)))),
            Value::Sample(s) => {
                out.push('{');
                Value::Map(s.labels.clone()).print(out);
                out.push(' ');
                s.value.print(out);
                out.push('}');
            }
            Value::Samples(all) => {
                out.push('[');
                for (at, sample) in all.iter().enumerate() {
                    if at > 0 {
                        out.push(' ');
                    }
                    Value::Sample(sample.clone()).print(out);
                }
                out.push(']');
            }
            Value::Time(ms) => out.push_str(&super::humanize::timestamp_text(*ms)),
            Value::Duration(ns) => out.push_str(&super::humanize::go_duration(*ns)),
            Value::Data(d) => {
                out.push('{');
                Value::Map(d.labels.clone()).print(out);
                out.push(' ');
                Value::Map(d.external_labels.clone()).print(out);
                let _ = write!(out, " {} ", d.external_url);
                d.value.print(out);
                out.push('}');
            }
        }
    }

    pub fn printed(&self) -> String {
        let mut out = String::new();
        self.print(&mut out);
        out
    }
}

/// `map[a:1 b:2]`, the keys ascending.
fn print_map<'a, F: FnOnce(&mut String)>(out: &mut String, pairs: impl Iterator<Item = (&'a String, F)>) {
    out.push_str("map[");
    for (at, (key, value)) in pairs.enumerate() {
        if at > 0 {
            out.push(' ');
        }
        out.push_str(key);
        out.push(':');
        value(out);
    }
    out.push(']');
}
