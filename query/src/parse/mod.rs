//! Text to syntax tree and back: lexer, parser, type check, printer.

//!
//! The language, its canonical print and its error texts are those of Prometheus 3.14 (`promql/parser`). What
//! is not upstream's are the limits: text, nesting and chains of operators are bounded, and parsing takes
//! time linear in the text.

pub mod ast;
mod check;
mod duration;
pub mod functions;
mod grammar;
mod lex;
mod number;
mod options;
mod print;
mod series;
#[cfg(test)]
mod tests;
mod token;

pub use ast::*;
pub use number::{parse_duration_ns, unquote, write_duration, write_float};
pub use options::{ParseError, ParseOptions};
pub use print::prettify;
pub use series::{
    HistogramStep, SequenceItem, SequenceValue, SeriesDescription, StartTimestamps, parse_series_description,
    parse_start_timestamps,
};

use grammar::{Parser, Stop};
use model::matcher::Matcher;

fn stopped(stop: Stop) -> ParseError {
    match stop {
        Stop::Error(e) => *e,
        Stop::Unexpected => {
            ParseError { span: Span::default(), line: 1, column: 1, message: "unexpected input".into() }
        }
    }
}

/// Parses and type-checks a query.
pub fn parse_expr(text: &str, options: &ParseOptions) -> Result<Expr, ParseError> {
    let mut parser = Parser::new(text, options, false).map_err(stopped)?;
    let mut expr = parser.query().map_err(|stop| parser.finish(stop))?;
    check::Checker { text }.check(&mut expr)?;
    Ok(expr)
}

/// Parses one `match[]` parameter: a selector and nothing else. It may match everything; whether that is
/// allowed is the caller's to say.
pub fn parse_metric_selector(text: &str, options: &ParseOptions) -> Result<Vec<Matcher>, ParseError> {
    let mut parser = Parser::new(text, options, false).map_err(stopped)?;
    let selector = parser.metric_selector().map_err(|stop| parser.finish(stop))?;
    Ok(selector.matchers)
}

/// Parses all `match[]` parameters of a request, whose regular expressions may take no more memory than those
/// of one query.
pub fn parse_metric_selectors<'t>(
    texts: impl IntoIterator<Item = &'t str>,
    options: &ParseOptions,
) -> Result<Vec<Vec<Matcher>>, ParseError> {
    let mut selectors = Vec::new();
    let mut regex_bytes = 0;
    for text in texts {
        let mut parser = Parser::new(text, options, false).map_err(stopped)?;
        parser.regex_bytes = regex_bytes;
        let selector = parser.metric_selector().map_err(|stop| parser.finish(stop))?;
        regex_bytes = parser.regex_bytes;
        selectors.push(selector.matchers);
    }
    Ok(selectors)
}
