//! YAML as a tree of nodes that remember their places: scalars keep their text as written, aliases share
//! what they point at.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use granit_parser::{Event, Parser, ScalarStyle};
use query::parse::parse_duration_ns;

use super::error::{FileError, Position};

/// Largest text that is read.
pub const MAX_TEXT_BYTES: usize = 16 << 20;

/// Deepest nesting; rule files need six.
const MAX_DEPTH: usize = 64;

/// A value with its place.
#[derive(Debug)]
pub struct Node {
    pub place: Position,
    pub kind: Kind,
}

#[derive(Debug)]
pub enum Kind {
    /// The text as written, quotes and escapes resolved. Only a plain scalar can mean a number, a truth
    /// value or nothing.
    Scalar {
        text: String,
        plain: bool,
    },
    Sequence(Vec<Arc<Node>>),
    Mapping(Vec<(Arc<Node>, Arc<Node>)>),
}

impl Node {
    /// Whether it is YAML's null.
    pub fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// As upstream's messages name a value: its tag, and the beginning of a scalar.
    fn described(&self) -> String {
        match &self.kind {
            Kind::Sequence(_) => "!!seq".into(),
            Kind::Mapping(_) => "!!map".into(),
            Kind::Scalar { text, plain } => {
                let tag = match () {
                    _ if !plain => "!!str",
                    _ if text.parse::<i64>().is_ok() => "!!int",
                    _ if text.parse::<f64>().is_ok() => "!!float",
                    _ if matches!(text.as_str(), "true" | "false") => "!!bool",
                    _ => "!!str",
                };
                match text.char_indices().nth(10) {
                    Some(_) => {
                        let cut = text.char_indices().nth(7).map_or(text.len(), |(at, _)| at);
                        format!("{tag} `{}...`", &text[..cut])
                    }
                    None => format!("{tag} `{text}`"),
                }
            }
        }
    }

    fn cannot_become(&self, what: &str) -> FileError {
        FileError::at(self.place, format!("cannot unmarshal {} into {what}", self.described()))
    }

    /// A scalar's text; null is the empty text.
    pub fn text(&self) -> Result<String, FileError> {
        match &self.kind {
            _ if self.is_null() => Ok(String::new()),
            Kind::Scalar { text, .. } => Ok(text.clone()),
            _ => Err(self.cannot_become("string")),
        }
    }

    /// A whole number; null is 0.
    pub fn integer(&self) -> Result<i64, FileError> {
        match &self.kind {
            _ if self.is_null() => Ok(0),
            Kind::Scalar { text, plain: true } => {
                text.replace('_', "").parse().map_err(|_| self.cannot_become("int"))
            }
            _ => Err(self.cannot_become("int")),
        }
    }

    /// A number, as YAML writes them; null is 0.
    pub fn number(&self) -> Result<f64, FileError> {
        match &self.kind {
            _ if self.is_null() => Ok(0.0),
            Kind::Scalar { text, .. } => match text.as_str() {
                ".nan" | ".NaN" | ".NAN" => Ok(f64::NAN),
                ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => Ok(f64::INFINITY),
                "-.inf" | "-.Inf" | "-.INF" => Ok(f64::NEG_INFINITY),
                text if text.bytes().any(|b| b.is_ascii_digit()) => {
                    text.replace('_', "").parse().map_err(|_| self.cannot_become("float64"))
                }
                _ => Err(self.cannot_become("float64")),
            },
            _ => Err(self.cannot_become("float64")),
        }
    }

    /// A truth value; null is false.
    pub fn truth(&self) -> Result<bool, FileError> {
        match &self.kind {
            _ if self.is_null() => Ok(false),
            Kind::Scalar { text, plain: true } => match text.as_str() {
                "true" | "True" | "TRUE" | "yes" | "on" => Ok(true),
                "false" | "False" | "FALSE" | "no" | "off" => Ok(false),
                _ => Err(self.cannot_become("bool")),
            },
            _ => Err(self.cannot_become("bool")),
        }
    }

    /// A Prometheus duration such as `5m`, in milliseconds.
    pub fn duration_ms(&self) -> Result<i64, FileError> {
        let text = match &self.kind {
            Kind::Scalar { text, .. } => text,
            _ => return Err(self.cannot_become("string")),
        };
        let text = if self.is_null() { "" } else { text };
        let ns = parse_duration_ns(text).map_err(|why| FileError::at(self.place, why))?;
        Ok((ns / 1_000_000) as i64)
    }

    /// The items of a list; null is the empty one.
    pub fn items(&self, what: &str) -> Result<&[Arc<Node>], FileError> {
        match &self.kind {
            _ if self.is_null() => Ok(&[]),
            Kind::Sequence(items) => Ok(items),
            _ => Err(self.cannot_become(what)),
        }
    }

    /// A mapping of texts to texts.
    pub fn text_map(&self) -> Result<BTreeMap<String, String>, FileError> {
        let mut out = BTreeMap::new();
        for (name, (_, value)) in self.fields("map[string]string")? {
            out.insert(name, value.text()?);
        }
        Ok(out)
    }

    /// The pairs of a mapping by key, what `<<` brings in included; a repeated key is an error.
    pub fn fields(&self, what: &str) -> Result<BTreeMap<String, (Position, Arc<Node>)>, FileError> {
        let Kind::Mapping(pairs) = &self.kind else {
            return if self.is_null() { Ok(BTreeMap::new()) } else { Err(self.cannot_become(what)) };
        };
        let mut out: BTreeMap<String, (Position, Arc<Node>)> = BTreeMap::new();
        let mut merged = Vec::new();
        for (key, value) in pairs {
            let name = key.text()?;
            if name == "<<" && matches!(&key.kind, Kind::Scalar { plain: true, .. }) {
                merged.push(value.clone());
                continue;
            }
            if let Some((first, _)) = out.get(&name) {
                let text = format!("mapping key \"{name}\" already defined at line {}", first.line);
                return Err(FileError::at(key.place, text));
            }
            out.insert(name, (key.place, value.clone()));
        }
        // Keys of the mapping itself win over what is merged, earlier merges over later ones.
        for source in merged {
            let sources = match &source.kind {
                Kind::Sequence(items) => items.clone(),
                _ => vec![source],
            };
            for source in sources {
                let Kind::Mapping(pairs) = &source.kind else {
                    return Err(FileError::at(
                        source.place,
                        "map merge requires map or sequence of maps as the value".into(),
                    ));
                };
                for (key, value) in pairs {
                    out.entry(key.text()?).or_insert_with(|| (key.place, value.clone()));
                }
            }
        }
        Ok(out)
    }
}

/// A collection that is being read.
struct Open {
    place: Option<Position>,
    anchor: usize,
    children: Vec<Arc<Node>>,
    mapping: bool,
}

/// Reads the first document of a text; `None` where there is none.
pub fn read(text: &str) -> Result<Option<Arc<Node>>, FileError> {
    if text.len() > MAX_TEXT_BYTES {
        let why = format!("the file has {} bytes, more than the {MAX_TEXT_BYTES} that are read", text.len());
        return Err(FileError::at(Position { line: 1, column: 1 }, why));
    }
    let mut anchors: HashMap<usize, Arc<Node>> = HashMap::new();
    let mut open: Vec<Open> = Vec::new();
    for next in Parser::new_from_str(text) {
        let (event, span) = next.map_err(|e| {
            let place = Position { line: e.marker().line(), column: e.marker().col() + 1 };
            FileError::at(place, format!("yaml: {}", e.info()))
        })?;
        let place = Position { line: span.start.line(), column: span.start.col() + 1 };
        let node = match event {
            Event::SequenceStart(_, anchor, ..) | Event::MappingStart(_, anchor, ..) => {
                if open.len() >= MAX_DEPTH {
                    return Err(FileError::at(place, format!("nested deeper than {MAX_DEPTH} levels")));
                }
                let mapping = matches!(event, Event::MappingStart(..));
                open.push(Open { place: Some(place), anchor, children: Vec::new(), mapping });
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(done) = open.pop() else { continue };
                let kind = if done.mapping {
                    let mut pairs = Vec::with_capacity(done.children.len() / 2);
                    let mut rest = done.children.into_iter();
                    while let (Some(key), Some(value)) = (rest.next(), rest.next()) {
                        pairs.push((key, value));
                    }
                    Kind::Mapping(pairs)
                } else {
                    Kind::Sequence(done.children)
                };
                let node = Arc::new(Node { place: done.place.unwrap_or(place), kind });
                if done.anchor > 0 {
                    anchors.insert(done.anchor, node.clone());
                }
                node
            }
            Event::Scalar(text, style, anchor, _) => {
                let plain = style == ScalarStyle::Plain;
                let node = Arc::new(Node { place, kind: Kind::Scalar { text: text.into_owned(), plain } });
                if anchor > 0 {
                    anchors.insert(anchor, node.clone());
                }
                node
            }
            Event::Alias(anchor) => match anchors.get(&anchor) {
                Some(node) => node.clone(),
                None => return Err(FileError::at(place, "an alias of what it is itself a part of".into())),
            },
            Event::DocumentEnd => return Ok(None),
            _ => continue,
        };
        match open.last_mut() {
            Some(parent) => parent.children.push(node),
            None => return Ok(Some(node)),
        }
    }
    Ok(None)
}
