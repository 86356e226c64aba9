//! Templates of labels and annotations: the part of Go's `text/template` and of upstream's functions that
//! rule files use.
//!
//! The life of a template: its text is cut into tokens (`lex`), these become a tree (`parse`) with
//! every function and variable known to exist, and the tree is walked over the data of one alert (`run`).
//! What the engine does not know is an error at the first of these that can see it, in Go's words. Nothing
//! that a template says makes it run or grow without end: see [`Limits`].

mod compare;
mod data;
mod float;
mod format;
mod functions;
mod humanize;
mod lex;
mod parse;
mod run;
mod value;

pub use data::{Data, External, Limits, SharedExternal, TemplateError};
pub use float::format_float;
pub use value::{Sample, Value};

/// What every template begins with, so that `$labels` and its like are there. Columns in errors count it,
/// as upstream's do.
const PREFIX: &str = "{{$labels := .Labels}}{{$externalLabels := .ExternalLabels}}{{$externalURL := .ExternalURL}}{{$value := .Value}}";

/// Longest text of one template.
const MAX_TEXT_BYTES: usize = 256 << 10;

/// A template that was read and may be expanded any number of times.
#[derive(Debug)]
pub struct Template {
    name: String,
    text: String,
    parsed: parse::Parsed,
}

impl Template {
    /// Reads a template; `name` is what its errors call it.
    pub fn parse(text: &str, name: &str) -> Result<Template, TemplateError> {
        if text.len() > MAX_TEXT_BYTES {
            let why = format!("template: {name}:1: longer than {MAX_TEXT_BYTES} bytes");
            return Err(TemplateError(why));
        }
        let text = format!("{PREFIX}{text}");
        let parsed = parse::parse(&text, name)?;
        Ok(Template { name: name.to_owned(), text, parsed })
    }

    /// Whether it has no action: then it expands to itself.
    pub fn is_plain(&self) -> bool {
        !self.text[PREFIX.len()..].contains("{{")
    }

    /// Expands it over the data of one alert.
    pub fn expand(&self, data: &Data<'_>, limits: &Limits) -> Result<String, TemplateError> {
        if self.is_plain() {
            return Ok(self.text[PREFIX.len()..].to_owned());
        }
        run::run(&self.parsed, (&self.text, &self.name), data, limits)
    }
}

/// Expands a text as an alert's label or annotation: whatever is wrong with it becomes the value, and no
/// error.
pub fn expand_or_tell(text: &str, name: &str, data: &Data<'_>) -> String {
    let expanded = Template::parse(text, name)
        .map_err(|e| format!("error parsing template {name}: {e}"))
        .and_then(|template| {
            template
                .expand(data, &Limits::default())
                .map_err(|e| format!("error executing template {name}: {e}"))
        });
    expanded.unwrap_or_else(|why| format!("<error expanding template: {why}>"))
}

#[cfg(test)]
mod tests;
