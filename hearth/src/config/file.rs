//! Reads `hearth.yaml` into a flat list of keys and values that remember their lines.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// A value of the file under its full key, `query.timeout`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    /// As text; the items of a list are joined with commas.
    pub value: String,
    pub line: u64,
    pub column: u64,
}

/// What was wrong with the file as YAML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    pub line: Option<u64>,
    pub column: Option<u64>,
    pub what: String,
}

pub(super) enum Node {
    Text(String),
    List(Vec<Spanned<Node>>),
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, a list or a mapping")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Node, E> {
        Ok(Node::Text(v.to_string()))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Node, E> {
        Ok(Node::Text(v.to_string()))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Node, E> {
        Ok(Node::Text(v.to_string()))
    }

    fn visit_f64<E>(self, v: f64) -> Result<Node, E> {
        Ok(Node::Text(v.to_string()))
    }

    fn visit_str<E>(self, v: &str) -> Result<Node, E> {
        Ok(Node::Text(v.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Text(String::new()))
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Text(String::new()))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Map(entries))
    }
}

/// Reads a file's text. An empty file (or one of comments only) has no entries.
pub fn read(text: &str) -> Result<Vec<Entry>, Malformed> {
    let only_comments = text.lines().map(str::trim).all(|l| l.is_empty() || l.starts_with('#') || l == "---");
    if only_comments {
        return Ok(Vec::new());
    }
    let mut out = Vec::new();
    flatten("", tree(text)?, &mut out)?;
    Ok(out)
}

/// A file's text as a tree.
pub(super) fn tree(text: &str) -> Result<Spanned<Node>, Malformed> {
    serde_saphyr::from_str(text).map_err(|e| Malformed {
        line: e.location().map(|at| at.line()),
        column: e.location().map(|at| at.column()),
        what: e.without_snippet().to_string(),
    })
}

fn flatten(key: &str, node: Spanned<Node>, out: &mut Vec<Entry>) -> Result<(), Malformed> {
    let (line, column) = (node.referenced.line(), node.referenced.column());
    let malformed = |what: String| Malformed { line: Some(line), column: Some(column), what };
    let value = match node.value {
        Node::Map(entries) => {
            for (name, node) in entries {
                let key = if key.is_empty() { name.value } else { format!("{key}.{}", name.value) };
                let from = out.len();
                flatten(&key, node, out)?;
                // An empty mapping, or a value of its own: the key's place is what a reader looks for.
                for entry in &mut out[from..] {
                    if entry.key == key {
                        entry.line = name.referenced.line();
                        entry.column = name.referenced.column();
                    }
                }
            }
            return Ok(());
        }
        _ if key.is_empty() => {
            return Err(malformed(
                "the file should be a mapping of keys to values, such as `listen: 127.0.0.1:9494`".into(),
            ));
        }
        Node::Text(text) => text,
        Node::List(items) => {
            let mut texts = Vec::new();
            for item in items {
                match item.value {
                    Node::Text(text) => texts.push(text),
                    _ => return Err(malformed(format!("{key}: a list here holds plain values only"))),
                }
            }
            texts.join(",")
        }
    };
    out.push(Entry { key: key.to_owned(), value, line, column });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_nest_and_remember_their_lines() {
        let text = "# mine\nlisten: :9494\nquery:\n  timeout: 2m\n  max_samples: 1000\nenable_feature:\n  - a\n  - b\ns3: {allow_http: true}\n";
        let entries: Vec<_> =
            read(text).unwrap().into_iter().map(|e| (e.line, e.column, e.key, e.value)).collect();
        let expected = [
            (2, 1, "listen", ":9494"),
            (4, 3, "query.timeout", "2m"),
            (5, 3, "query.max_samples", "1000"),
            (6, 1, "enable_feature", "a,b"),
            (9, 6, "s3.allow_http", "true"),
        ];
        let expected: Vec<_> =
            expected.into_iter().map(|(l, c, k, v)| (l, c, k.to_string(), v.to_string())).collect();
        assert_eq!(entries, expected);
    }

    #[test]
    fn file_that_is_no_mapping_is_refused_with_its_line() {
        assert_eq!(read(""), Ok(vec![]));
        assert_eq!(read("# nothing\n\n"), Ok(vec![]));
        assert_eq!(read("just text").unwrap_err().line, Some(1));
        assert!(read("listen: a\nlisten: b\n").unwrap_err().what.contains("listen"));
        assert!(read("listen: \"a\nb: [\n").unwrap_err().line.is_some());
    }
}
