//! The text that targets expose: Prometheus' format 0.0.4 and OpenMetrics 1.0, read into borrowed samples.
//!
//! Follows the [exposition formats](https://prometheus.io/docs/instrumenting/exposition_formats/) page, the
//! [OpenMetrics 1.0 specification](https://prometheus.io/docs/specs/om/open_metrics_spec/) and, for quoted names, Prometheus'
//! [UTF-8 names](https://prometheus.io/docs/instrumenting/escaping_schemes/). As in a scrape, one bad line refuses the whole text.

mod append;
mod line;

use std::borrow::Cow;
use std::ops::Range;

pub use append::append;

use line::{Line, Problem};

/// The dialects. They differ in the unit of timestamps (milliseconds and seconds), in `# UNIT`, exemplars and `# EOF`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `text/plain; version=0.0.4`.
    Prometheus,
    /// `application/openmetrics-text; version=1.0.0`: ends with `# EOF`, or is refused as cut short.
    OpenMetrics,
}

/// What a text said, every string borrowed from it unless it held an escape.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exposition<'a> {
    /// In the order of their first mention.
    pub families: Vec<Family<'a>>,
    pub samples: Vec<Sample<'a>>,
    /// Exemplars read; they are not kept.
    pub exemplars: u64,
    labels: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

/// What the comments say of a metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Family<'a> {
    pub name: Cow<'a, str>,
    /// `counter`, `gauge`, `histogram`, `gaugehistogram`, `summary`, `info`, `stateset` or `unknown`.
    pub kind: &'static str,
    pub help: Cow<'a, str>,
    pub unit: &'a str,
}

/// One line with a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample<'a> {
    pub name: Cow<'a, str>,
    pub value: f64,
    /// `None` where the line names no time: it is the moment of the scrape.
    pub ts_ms: Option<i64>,
    labels: Range<usize>,
}

impl<'a> Exposition<'a> {
    /// A sample's labels in the order of the line, the name not among them.
    pub fn labels(&self, sample: &Sample<'a>) -> &[(Cow<'a, str>, Cow<'a, str>)] {
        &self.labels[sample.labels.clone()]
    }
}

/// A line that could not be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("line {line}, column {column}: {what}")]
pub struct TextError {
    /// From 1.
    pub line: usize,
    /// In bytes, from 1.
    pub column: usize,
    pub what: String,
}

/// Reads a text of either format: it is OpenMetrics if it ends with `# EOF`.
pub fn parse(text: &str) -> Result<Exposition<'_>, TextError> {
    let format =
        if text.trim_end_matches('\n').ends_with("# EOF") { Format::OpenMetrics } else { Format::Prometheus };
    parse_as(text, format)
}

/// Reads a text of a known format.
pub fn parse_as(text: &str, format: Format) -> Result<Exposition<'_>, TextError> {
    let mut out = Exposition::default();
    let mut ended = false;
    let mut lines = 0;
    for (i, text) in text.split('\n').enumerate() {
        lines = i + 1;
        if ended && !text.is_empty() {
            return Err(TextError { line: lines, column: 1, what: "there is something after # EOF".into() });
        }
        ended |= parse_line(text, lines, format, &mut out)?;
    }
    if format == Format::OpenMetrics && !ended {
        return Err(TextError {
            line: lines,
            column: 1,
            what: "the text ends without # EOF: it was cut short".into(),
        });
    }
    Ok(out)
}

/// Reads one line (without its end) that has the given number, from 1. True for OpenMetrics' end mark, after which nothing may come.
pub fn parse_line<'a>(
    text: &'a str,
    number: usize,
    format: Format,
    out: &mut Exposition<'a>,
) -> Result<bool, TextError> {
    let mut line = Line::new(text);
    let located = |p: Problem| TextError { line: number, column: p.at + 1, what: p.what };
    line.blanks();
    if line.is_done() {
        return Ok(false);
    }
    if line.eat('#') {
        return comment(&mut line, format, out).map_err(located);
    }
    sample(&mut line, format, out).map_err(located)?;
    Ok(false)
}

/// What follows a `#`. True for OpenMetrics' end mark.
fn comment<'a>(line: &mut Line<'a>, format: Format, out: &mut Exposition<'a>) -> Result<bool, Problem> {
    line.blanks();
    let keyword = line.word();
    let open_metrics = format == Format::OpenMetrics;
    match keyword {
        "EOF" if open_metrics => {
            line.end()?;
            return Ok(true);
        }
        "HELP" => {
            line.blanks();
            let name = line.metric_name()?;
            line.blanks();
            let help = line.help(open_metrics);
            family(out, name).help = help;
        }
        "TYPE" => {
            line.blanks();
            let name = line.metric_name()?;
            line.blanks();
            let at = line.problem("");
            let kind = match line.word() {
                "counter" => "counter",
                "gauge" => "gauge",
                "histogram" => "histogram",
                "summary" => "summary",
                "untyped" | "unknown" => "unknown",
                "gaugehistogram" if open_metrics => "gaugehistogram",
                "info" if open_metrics => "info",
                "stateset" if open_metrics => "stateset",
                other => return Err(Problem { what: format!("{other:?} is not a metric type"), ..at }),
            };
            line.end()?;
            family(out, name).kind = kind;
        }
        "UNIT" if open_metrics => {
            line.blanks();
            let name = line.metric_name()?;
            line.blanks();
            let unit = line.word();
            line.end()?;
            family(out, name).unit = unit;
        }
        // Any other comment means nothing.
        _ => {}
    }
    Ok(false)
}

/// The family of that name, made where it is new. Its comments stand together, so it is nearly always the last one; looking no further
/// than a few back keeps the time linear in a text of a million families, and one that repeats far apart is simply there twice.
fn family<'e, 'a>(out: &'e mut Exposition<'a>, name: Cow<'a, str>) -> &'e mut Family<'a> {
    let from = out.families.len().saturating_sub(8);
    let at = out.families[from..].iter().position(|f| f.name == name).map(|at| from + at);
    let at = at.unwrap_or_else(|| {
        out.families.push(Family { name, kind: "unknown", help: Cow::Borrowed(""), unit: "" });
        out.families.len() - 1
    });
    &mut out.families[at]
}

fn sample<'a>(line: &mut Line<'a>, format: Format, out: &mut Exposition<'a>) -> Result<(), Problem> {
    let from = out.labels.len();
    let mut name = None;
    if !line.at('{') {
        name = Some(line.metric_name()?);
        line.blanks();
    }
    let start = line.problem("");
    if line.at('{') {
        let quoted = line.labels(&mut out.labels)?;
        name = match (name, quoted) {
            (Some(_), Some(_)) => {
                return Err(Problem {
                    what: "a metric name before and inside of the braces".into(),
                    ..start
                });
            }
            (before, inside) => before.or(inside),
        };
    }
    let Some(name) = name else {
        return Err(Problem { what: "no metric name".into(), ..start });
    };
    let labels = from..out.labels.len();
    check_unique(&out.labels[labels.clone()]).map_err(|what| Problem { what, ..start })?;
    line.blanks();
    let value = line.value()?;
    line.blanks();
    let mut ts_ms = None;
    if !line.is_done() && !line.at('#') {
        ts_ms = Some(if format == Format::OpenMetrics { line.seconds()? } else { line.milliseconds()? });
        line.blanks();
    }
    if format == Format::OpenMetrics && line.eat('#') {
        exemplar(line)?;
        out.exemplars += 1;
    }
    line.end()?;
    out.samples.push(Sample { name, value, ts_ms, labels });
    Ok(())
}

fn exemplar(line: &mut Line<'_>) -> Result<(), Problem> {
    line.blanks();
    if !line.at('{') {
        return Err(line.problem("an exemplar starts with its labels in braces"));
    }
    if line.labels(&mut Vec::new())?.is_some() {
        return Err(line.problem("an exemplar has no metric name"));
    }
    line.blanks();
    line.value()?;
    line.blanks();
    if !line.is_done() {
        line.seconds()?;
    }
    Ok(())
}

fn check_unique(labels: &[(Cow<'_, str>, Cow<'_, str>)]) -> Result<(), String> {
    // A handful at most in practice: comparing each pair costs less than sorting. Beyond that, a sorted copy.
    let repeated = if labels.len() <= 16 {
        labels
            .iter()
            .enumerate()
            .find(|(i, (n, _))| labels[..*i].iter().any(|(m, _)| m == n))
            .map(|(_, (n, _))| n)
    } else {
        let mut names: Vec<_> = labels.iter().map(|(n, _)| n).collect();
        names.sort_unstable();
        names.windows(2).find(|w| w[0] == w[1]).map(|w| w[0])
    };
    match repeated {
        Some(name) => Err(format!("the label name {:?} appears twice", crate::reject::cut(name, 80))),
        None if labels.iter().any(|(n, _)| n == model::labels::METRIC_NAME) => {
            Err("the metric name stands before the braces, not as a label".into())
        }
        None => Ok(()),
    }
}
