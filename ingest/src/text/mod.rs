//! The text that targets expose: Prometheus' format 0.0.4 and OpenMetrics 1.0, read into borrowed samples.
//!
//! Follows the [exposition formats](https://prometheus.io/docs/instrumenting/exposition_formats/) page, the
//! [OpenMetrics 1.0 specification](https://prometheus.io/docs/specs/om/open_metrics_spec/) and, for quoted
//! names, Prometheus' [UTF-8 names](https://prometheus.io/docs/instrumenting/escaping_schemes/). As in a
//! scrape, one bad line refuses the whole text.

mod append;
mod format;
mod line;
mod number;

use std::borrow::Cow;
use std::ops::Range;

pub use append::append;
pub use format::Format;

use line::{Line, Problem};
use model::histogram::format_g;
use number::parse_label_float;

/// What a text said, every string borrowed from it unless it held an escape.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exposition<'a> {
    /// In the order of their first mention.
    pub families: Vec<Family<'a>>,
    pub samples: Vec<Sample<'a>>,
    /// In the order of their samples.
    pub exemplars: Vec<Exemplar>,
    labels: Labels<'a>,
}

/// Pairs of names and values, as they stand in the text.
type Labels<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

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

/// What stands behind a sample, most often the trace of one request that it counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    /// The place of its sample in [`Exposition::samples`].
    pub sample: usize,
    pub value: f64,
    /// `None` where it names no time: it is that of its sample.
    pub ts_ms: Option<i64>,
    labels: Range<usize>,
}

impl<'a> Exposition<'a> {
    /// A sample's labels in the order of the line, the name not among them.
    pub fn labels(&self, sample: &Sample<'a>) -> &[(Cow<'a, str>, Cow<'a, str>)] {
        &self.labels[sample.labels.clone()]
    }

    /// An exemplar's labels in the order of the line.
    pub fn exemplar_labels(&self, exemplar: &Exemplar) -> &[(Cow<'a, str>, Cow<'a, str>)] {
        &self.labels[exemplar.labels.clone()]
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
    let mut parser = Parser::new(format);
    for line in text.split_terminator('\n') {
        parser.line(line, &mut out)?;
    }
    parser.end()?;
    Ok(out)
}

/// Reads a text line by line, and keeps what a line says of those that follow.
#[derive(Clone, Debug)]
pub struct Parser {
    format: Format,
    lines: usize,
    /// Of the last TYPE line. As upstream has it, it goes for all samples up to the next one, whatever their
    /// names.
    kind: &'static str,
    ended: bool,
}

impl Parser {
    pub fn new(format: Format) -> Parser {
        Parser { format, lines: 0, kind: "unknown", ended: false }
    }

    /// Lines read, the one that was refused among them.
    pub fn lines(&self) -> usize {
        self.lines
    }

    /// Reads the next line (without its end) onto `out`.
    pub fn line<'a>(&mut self, text: &'a str, out: &mut Exposition<'a>) -> Result<(), TextError> {
        self.lines += 1;
        if self.ended {
            return Err(self.located(Problem { at: 0, what: "there is something after # EOF".into() }));
        }
        let mut line = Line::new(text, self.format);
        let read = match self.format {
            Format::Prometheus => self.prometheus(&mut line, out),
            Format::OpenMetrics => self.open_metrics(&mut line, out),
        };
        read.map_err(|problem| self.located(problem))
    }

    /// Ends the text: OpenMetrics without its end mark was cut short.
    pub fn end(&self) -> Result<(), TextError> {
        if self.format == Format::OpenMetrics && !self.ended {
            let what = "the text ends without # EOF: it was cut short".into();
            return Err(TextError { line: self.lines + 1, column: 1, what });
        }
        Ok(())
    }

    fn located(&self, problem: Problem) -> TextError {
        TextError { line: self.lines, column: problem.at + 1, what: problem.what }
    }

    fn prometheus<'a>(&mut self, line: &mut Line<'a>, out: &mut Exposition<'a>) -> Result<(), Problem> {
        line.blanks();
        if line.is_done() {
            return Ok(());
        }
        if !line.eat('#') {
            return self.sample(line, out);
        }
        line.blanks();
        match line.word() {
            keyword @ ("HELP" | "TYPE") => self.metadata(keyword, line, out),
            // Any other comment means nothing.
            _ => Ok(()),
        }
    }

    fn open_metrics<'a>(&mut self, line: &mut Line<'a>, out: &mut Exposition<'a>) -> Result<(), Problem> {
        if line.is_done() {
            return Err(line.problem("an empty line, which OpenMetrics does not have"));
        }
        if !line.eat('#') {
            return self.sample(line, out);
        }
        line.gap("HELP, TYPE, UNIT or EOF")?;
        let start = line.problem("");
        match line.word() {
            "EOF" => {
                self.ended = true;
                line.end()
            }
            keyword @ ("HELP" | "TYPE" | "UNIT") => self.metadata(keyword, line, out),
            other => {
                let what =
                    format!("expected HELP, TYPE, UNIT or EOF, found {:?}", crate::reject::cut(other, 40));
                Err(Problem { what, ..start })
            }
        }
    }

    /// What follows the keyword of a comment that says something of a metric.
    fn metadata<'a>(
        &mut self,
        keyword: &str,
        line: &mut Line<'a>,
        out: &mut Exposition<'a>,
    ) -> Result<(), Problem> {
        line.gap("a metric name")?;
        let name = line.metric_name()?;
        line.gap("a text")?;
        let start = line.problem("");
        match keyword {
            "HELP" => {
                let help = line.help();
                family(out, name).help = help;
            }
            "TYPE" => {
                let word = line.word();
                let Some(kind) = kind(word, self.format) else {
                    let what = format!("{:?} is not a metric type", crate::reject::cut(word, 40));
                    return Err(Problem { what, ..start });
                };
                line.end()?;
                self.kind = kind;
                family(out, name).kind = kind;
            }
            _ => {
                let unit = line.remainder();
                let ends = name.strip_suffix(unit).is_some_and(|rest| rest.ends_with('_'));
                if !unit.is_empty() && !ends {
                    let what = format!(
                        "the metric's name does not end with its unit, _{}",
                        crate::reject::cut(unit, 40)
                    );
                    return Err(Problem { what, ..start });
                }
                family(out, name).unit = unit;
            }
        }
        Ok(())
    }

    fn sample<'a>(&mut self, line: &mut Line<'a>, out: &mut Exposition<'a>) -> Result<(), Problem> {
        let from = out.labels.len();
        let name = series(line, &mut out.labels)?;
        let labels = from..out.labels.len();
        self.normalize(&mut out.labels[from..]);
        line.gap("a value")?;
        let value = line.value()?;
        line.blanks();
        let open_metrics = self.format == Format::OpenMetrics;
        let mut ts_ms = None;
        let exemplar_next = if open_metrics { line.starts(" # ") } else { line.at('#') };
        if !line.is_done() && !exemplar_next {
            line.gap("a timestamp")?;
            ts_ms = Some(line.timestamp()?);
        }
        if open_metrics && line.starts(" # ") {
            let sample = out.samples.len();
            let exemplar = exemplar(line, sample, &mut out.labels)?;
            out.exemplars.push(exemplar);
        }
        line.end()?;
        out.samples.push(Sample { name, value, ts_ms, labels });
        Ok(())
    }

    /// Bounds of classic histograms and quantiles of summaries are numbers, and of one number there is one
    /// spelling: `1.0`, whatever the text has. Otherwise a target that changes its client library, or an
    /// import, would make other series of the same.
    fn normalize(&self, labels: &mut [(Cow<'_, str>, Cow<'_, str>)]) {
        let name = match self.kind {
            "histogram" => "le",
            "summary" => "quantile",
            _ => return,
        };
        for (_, value) in labels.iter_mut().filter(|(n, _)| n == name) {
            if let Some(number) = parse_label_float(value) {
                let spelled = format_float(number);
                if *value != spelled {
                    *value = Cow::Owned(spelled);
                }
            }
        }
    }
}

/// A number as OpenMetrics spells it: always with a point or an exponent.
fn format_float(number: f64) -> String {
    if number == 0.0 {
        return "0.0".to_owned();
    }
    let mut out = format_g(number);
    if number.is_finite() && !out.contains(['.', 'e']) {
        out.push_str(".0");
    }
    out
}

/// A metric type by its word in a format.
fn kind(word: &str, format: Format) -> Option<&'static str> {
    Some(match (word, format) {
        ("counter", _) => "counter",
        ("gauge", _) => "gauge",
        ("histogram", _) => "histogram",
        ("summary", _) => "summary",
        ("unknown", _) | ("untyped", Format::Prometheus) => "unknown",
        ("gaugehistogram", Format::OpenMetrics) => "gaugehistogram",
        ("info", Format::OpenMetrics) => "info",
        ("stateset", Format::OpenMetrics) => "stateset",
        _ => return None,
    })
}

/// The family of that name, made where it is new. Its comments stand together, so it is nearly always the
/// last one; looking no further than a few back keeps the time linear in a text of a million families, and
/// one that repeats far apart is simply there twice.
fn family<'e, 'a>(out: &'e mut Exposition<'a>, name: Cow<'a, str>) -> &'e mut Family<'a> {
    let from = out.families.len().saturating_sub(8);
    let at = out.families[from..].iter().position(|f| f.name == name).map(|at| from + at);
    let at = at.unwrap_or_else(|| {
        out.families.push(Family { name, kind: "unknown", help: Cow::Borrowed(""), unit: "" });
        out.families.len() - 1
    });
    &mut out.families[at]
}

/// A metric's name, before the braces or among them, and the labels onto `labels`.
fn series<'a>(line: &mut Line<'a>, labels: &mut Labels<'a>) -> Result<Cow<'a, str>, Problem> {
    let from = labels.len();
    let mut name = None;
    if !line.at('{') {
        name = Some(line.metric_name()?);
        line.blanks();
    }
    let start = line.problem("");
    if line.at('{') {
        let quoted = line.labels(labels)?;
        name = match (name, quoted) {
            (Some(_), Some(_)) => {
                let what = "a metric name before and inside of the braces".into();
                return Err(Problem { what, ..start });
            }
            (before, inside) => before.or(inside),
        };
    }
    let Some(name) = name else {
        return Err(Problem { what: "no metric name".into(), ..start });
    };
    check_unique(&labels[from..]).map_err(|what| Problem { what, ..start })?;
    Ok(name)
}

/// What stands behind ` # `: labels, which go onto `labels`, a value and perhaps a time.
fn exemplar<'a>(line: &mut Line<'a>, sample: usize, labels: &mut Labels<'a>) -> Result<Exemplar, Problem> {
    line.gap("#")?;
    line.eat('#');
    line.gap("the exemplar's labels")?;
    if !line.at('{') {
        return Err(line.problem("an exemplar starts with its labels in braces"));
    }
    let from = labels.len();
    if line.labels(labels)?.is_some() {
        return Err(line.problem("an exemplar has no metric name"));
    }
    let labels = from..labels.len();
    line.gap("the exemplar's value")?;
    let value = line.value()?;
    let mut ts_ms = None;
    if !line.is_done() {
        line.gap("the exemplar's timestamp")?;
        ts_ms = Some(line.timestamp()?);
    }
    Ok(Exemplar { sample, value, ts_ms, labels })
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
