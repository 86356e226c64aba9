//! Files of unit tests: YAML to values, as strict as upstream.

use std::collections::BTreeMap;

use model::labels::Labels;
use query::parse::{SequenceValue, SeriesDescription, parse_series_description};

use crate::file::yaml::{self, Node};
use crate::file::{FileError, Position};

/// A whole file.
#[derive(Debug, Default)]
pub struct TestFile {
    pub rule_files: Vec<String>,
    pub evaluation_interval_ms: i64,
    pub group_eval_order: Vec<String>,
    pub fuzzy_compare: bool,
    pub tests: Vec<TestGroup>,
}

/// A test group. Times are from the start of the test, in milliseconds.
#[derive(Debug, Default)]
pub struct TestGroup {
    pub name: String,
    pub interval_ms: i64,
    pub start_ms: i64,
    pub input_series: Vec<SeriesDescription>,
    pub alert_tests: Vec<AlertTest>,
    pub expr_tests: Vec<ExprTest>,
    pub external_labels: BTreeMap<String, String>,
    pub external_url: String,
}

/// Which alerts of a name fire at a time.
#[derive(Debug)]
pub struct AlertTest {
    pub eval_time_ms: i64,
    pub alertname: String,
    pub expected: Vec<ExpectedAlert>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExpectedAlert {
    pub labels: Labels,
    pub annotations: Labels,
}

/// What an expression gives at a time.
#[derive(Debug)]
pub struct ExprTest {
    pub expr: String,
    pub eval_time_ms: i64,
    /// The labels as written, and the value.
    pub expected: Vec<(String, Expected)>,
}

#[derive(Clone, Debug)]
pub enum Expected {
    Float(f64),
    /// In the notation of series.
    Histogram(String),
}

/// Reads a file of tests.
pub fn parse(text: &str) -> Result<TestFile, FileError> {
    let mut file = TestFile { evaluation_interval_ms: 60_000, ..TestFile::default() };
    let Some(root) = yaml::read(text)? else { return Ok(file) };
    for (name, (place, value)) in root.fields("main.unitTestFile")? {
        match name.as_str() {
            "rule_files" => file.rule_files = texts(&value)?,
            "evaluation_interval" => {
                let ms = value.duration_ms()?;
                if ms > 0 {
                    file.evaluation_interval_ms = ms;
                }
            }
            "group_eval_order" => file.group_eval_order = texts(&value)?,
            "fuzzy_compare" => file.fuzzy_compare = value.truth()?,
            "tests" => {
                file.tests =
                    value.items("[]main.testGroup")?.iter().map(|t| group(t)).collect::<Result<_, _>>()?;
            }
            other => return Err(unknown(place, other, "main.unitTestFile")),
        }
    }
    Ok(file)
}

fn unknown(place: Position, field: &str, type_name: &str) -> FileError {
    FileError::at(place, format!("field {field} not found in type {type_name}"))
}

fn texts(node: &Node) -> Result<Vec<String>, FileError> {
    node.items("[]string")?.iter().map(|n| n.text()).collect()
}

fn group(node: &Node) -> Result<TestGroup, FileError> {
    let mut group = TestGroup::default();
    for (name, (place, value)) in node.fields("main.testGroup")? {
        match name.as_str() {
            "name" => group.name = value.text()?,
            "interval" => group.interval_ms = value.duration_ms()?,
            "start_timestamp" => group.start_ms = start(&value)?,
            "input_series" => {
                for item in value.items("[]main.series")? {
                    group.input_series.push(series(item)?);
                }
            }
            "alert_rule_test" => {
                for item in value.items("[]main.alertTestCase")? {
                    group.alert_tests.push(alert_test(item)?);
                }
            }
            "promql_expr_test" => {
                for item in value.items("[]main.promqlTestCase")? {
                    group.expr_tests.push(expr_test(item)?);
                }
            }
            "external_labels" => group.external_labels = value.text_map()?,
            "external_url" => group.external_url = value.text()?.trim_end_matches('/').to_owned(),
            other => return Err(unknown(place, other, "main.testGroup")),
        }
    }
    if group.interval_ms == 0 {
        group.interval_ms = 60_000;
    }
    Ok(group)
}

/// Seconds since the epoch, or a date and time as RFC 3339 has it.
fn start(node: &Node) -> Result<i64, FileError> {
    let text = node.text()?;
    if text.is_empty() {
        return Ok(0);
    }
    if let Ok(seconds) = text.parse::<f64>()
        && seconds.abs() < 1e15
    {
        return Ok((seconds * 1000.0) as i64);
    }
    match text.parse::<jiff::Timestamp>() {
        Ok(at) => Ok(at.as_millisecond()),
        Err(_) => {
            let text = format!("start_timestamp: {text:?} is neither a Unix timestamp nor RFC 3339");
            Err(FileError::at(node.place, text))
        }
    }
}

fn series(node: &Node) -> Result<SeriesDescription, FileError> {
    let (mut name, mut values) = (String::new(), String::new());
    for (key, (place, value)) in node.fields("main.series")? {
        match key.as_str() {
            "series" => name = value.text()?,
            "values" => values = value.text()?,
            other => return Err(unknown(place, other, "main.series")),
        }
    }
    let line = format!("{} {}", name.trim(), values.split_whitespace().collect::<Vec<_>>().join(" "));
    parse_series_description(line.trim_end()).map_err(|e| FileError::at(node.place, e.to_string()))
}

fn alert_test(node: &Node) -> Result<AlertTest, FileError> {
    let mut test = AlertTest { eval_time_ms: 0, alertname: String::new(), expected: Vec::new() };
    let mut expected = Vec::new();
    for (name, (place, value)) in node.fields("main.alertTestCase")? {
        match name.as_str() {
            "eval_time" => test.eval_time_ms = value.duration_ms()?,
            "alertname" => test.alertname = value.text()?,
            "exp_alerts" => {
                for item in value.items("[]main.alert")? {
                    let (mut labels, mut annotations) = (BTreeMap::new(), BTreeMap::new());
                    for (name, (place, value)) in item.fields("main.alert")? {
                        match name.as_str() {
                            "exp_labels" => labels = value.text_map()?,
                            "exp_annotations" => annotations = value.text_map()?,
                            other => return Err(unknown(place, other, "main.alert")),
                        }
                    }
                    expected.push((labels, annotations));
                }
            }
            other => return Err(unknown(place, other, "main.alertTestCase")),
        }
    }
    for (mut labels, annotations) in expected {
        // Only the labels of the series and the rule are written.
        labels.insert(crate::alert::ALERT_NAME.into(), test.alertname.clone());
        test.expected.push(ExpectedAlert {
            labels: Labels::from_pairs(&labels),
            annotations: Labels::from_pairs(&annotations),
        });
    }
    Ok(test)
}

fn expr_test(node: &Node) -> Result<ExprTest, FileError> {
    let mut test = ExprTest { expr: String::new(), eval_time_ms: 0, expected: Vec::new() };
    for (name, (place, value)) in node.fields("main.promqlTestCase")? {
        match name.as_str() {
            "expr" => test.expr = value.text()?,
            "eval_time" => test.eval_time_ms = value.duration_ms()?,
            "exp_samples" => {
                for item in value.items("[]main.sample")? {
                    let (mut labels, mut expected) = (String::new(), Expected::Float(0.0));
                    for (name, (place, value)) in item.fields("main.sample")? {
                        match name.as_str() {
                            "labels" => labels = value.text()?,
                            "value" => {
                                if matches!(expected, Expected::Float(_)) {
                                    expected = Expected::Float(value.number()?);
                                }
                            }
                            "histogram" => {
                                let text = value.text()?;
                                if !text.is_empty() {
                                    expected = Expected::Histogram(text);
                                }
                            }
                            other => return Err(unknown(place, other, "main.sample")),
                        }
                    }
                    test.expected.push((labels, expected));
                }
            }
            other => return Err(unknown(place, other, "main.promqlTestCase")),
        }
    }
    Ok(test)
}

/// The histogram that a text in the notation of series stands for.
pub fn histogram(text: &str) -> Result<(model::histogram::Histogram, bool), String> {
    let described = parse_series_description(&format!("{{}} {text}")).map_err(|e| e.to_string())?;
    let mut values = described.expand(2, |_, _, _| Err("a single histogram is expected".into()))?;
    match (values.pop(), values.is_empty()) {
        (Some(SequenceValue::Histogram { value, hint_set }), true) => Ok((*value, hint_set)),
        _ => Err(format!("{text:?} is not one histogram")),
    }
}
