//! From YAML to groups and rules.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::error::{FileError, Position};
use super::rule::{FileOptions, PlacedGroup, PlacedRule, RuleGroup};
use super::validate;
use super::yaml::{self, Node};

/// Reads a whole file. An empty one has no groups. The errors are all that were found, in the order of the
/// file.
pub fn parse(text: &str, options: &FileOptions) -> Result<Vec<RuleGroup>, Vec<FileError>> {
    let Some(root) = yaml::read(text).map_err(|e| vec![e])? else { return Ok(Vec::new()) };
    let mut reader = Reader { options, errors: Vec::new() };
    let parsed = reader.file(&root);
    reader.finish(parsed)
}

/// Reads one group, as the configuration API takes it.
pub fn parse_group(text: &str, options: &FileOptions) -> Result<RuleGroup, Vec<FileError>> {
    let nothing =
        || vec![FileError::at(Position { line: 1, column: 1 }, "there is no rule group in it".into())];
    let root = yaml::read(text).map_err(|e| vec![e])?.ok_or_else(nothing)?;
    let mut reader = Reader { options, errors: Vec::new() };
    let parsed = reader.group(&root).map(|g| vec![g]);
    let mut groups = reader.finish(parsed)?;
    groups.pop().ok_or_else(nothing)
}

struct Reader<'a> {
    options: &'a FileOptions,
    errors: Vec<FileError>,
}

/// A mapping's values by key.
type Fields = BTreeMap<String, (Position, Arc<Node>)>;

impl Reader<'_> {
    /// The groups, if reading and checking them found nothing.
    fn finish(
        mut self,
        parsed: Result<Vec<PlacedGroup>, FileError>,
    ) -> Result<Vec<RuleGroup>, Vec<FileError>> {
        match parsed {
            Ok(groups) if self.errors.is_empty() => validate::groups(groups, self.options),
            Ok(_) => {
                self.errors.sort_by_key(|e| e.place);
                Err(self.errors)
            }
            Err(e) => {
                self.errors.push(e);
                self.errors.sort_by_key(|e| e.place);
                Err(self.errors)
            }
        }
    }

    /// A mapping whose keys are all known.
    fn known(&mut self, node: &Node, type_name: &str, known: &[&str]) -> Result<Fields, FileError> {
        let mut fields = node.fields(type_name)?;
        fields.retain(|name, (place, _)| {
            let is_known = known.contains(&name.as_str());
            if !is_known && self.options.strict {
                let text = format!("field {name} not found in type {type_name}");
                self.errors.push(FileError::at(*place, text));
            }
            is_known
        });
        Ok(fields)
    }

    fn file(&mut self, root: &Node) -> Result<Vec<PlacedGroup>, FileError> {
        let mut fields = self.known(root, "rulefmt.RuleGroups", &["groups"])?;
        let Some((_, groups)) = fields.remove("groups") else { return Ok(Vec::new()) };
        let mut out = Vec::new();
        for group in groups.items("[]rulefmt.RuleGroup")? {
            match self.group(group) {
                Ok(group) => out.push(group),
                Err(e) => self.errors.push(e),
            }
        }
        Ok(out)
    }

    fn group(&mut self, node: &Node) -> Result<PlacedGroup, FileError> {
        const KEYS: [&str; 6] = ["name", "interval", "query_offset", "limit", "rules", "labels"];
        const MIMIR_KEYS: [&str; 3] =
            ["source_tenants", "evaluation_delay", "align_evaluation_time_on_interval"];
        let mut keys = KEYS.to_vec();
        if self.options.mimir_keys {
            keys.extend(MIMIR_KEYS);
        }
        let mut fields = self.known(node, "rulefmt.RuleGroup", &keys)?;
        let mut take = |key: &str| fields.remove(key).map(|(_, node)| node);
        if let Some(tenants) = take("source_tenants")
            && !tenants.items("[]string")?.is_empty()
        {
            let text = "source_tenants: rules that read other tenants' series are not supported".into();
            return Err(FileError::at(tenants.place, text));
        }
        let delay = take("evaluation_delay").map(|n| n.duration_ms()).transpose()?;
        let mut group = PlacedGroup {
            place: node.place,
            name: take("name").map_or(Ok(String::new()), |n| n.text())?,
            interval_ms: take("interval").map(|n| n.duration_ms()).transpose()?.filter(|ms| *ms > 0),
            query_offset_ms: take("query_offset").map(|n| n.duration_ms()).transpose()?.or(delay),
            limit: take("limit").map_or(Ok(0), |n| n.integer())?,
            labels: placed_texts(take("labels"))?,
            rules: Vec::new(),
        };
        if let Some(rules) = take("rules") {
            for rule in rules.items("[]rulefmt.Rule")? {
                match self.rule(rule) {
                    Ok(rule) => group.rules.push(rule),
                    Err(e) => self.errors.push(e),
                }
            }
        }
        Ok(group)
    }

    fn rule(&mut self, node: &Node) -> Result<PlacedRule, FileError> {
        const KEYS: [&str; 7] =
            ["record", "alert", "expr", "for", "keep_firing_for", "labels", "annotations"];
        let mut fields = self.known(node, "rulefmt.Rule", &KEYS)?;
        let mut take = |key: &str| fields.remove(key).map(|(_, node)| node);
        let text = |node: Option<Arc<Node>>| {
            node.map(|n| Ok((n.place, n.text()?))).transpose().map(|t| t.filter(|(_, text)| !text.is_empty()))
        };
        Ok(PlacedRule {
            place: node.place,
            record: text(take("record"))?,
            alert: text(take("alert"))?,
            expr: text(take("expr"))?,
            for_ms: take("for").map_or(Ok(0), |n| n.duration_ms())?,
            keep_firing_for_ms: take("keep_firing_for").map_or(Ok(0), |n| n.duration_ms())?,
            labels: placed_texts(take("labels"))?,
            annotations: placed_texts(take("annotations"))?,
        })
    }
}

fn placed_texts(node: Option<Arc<Node>>) -> Result<BTreeMap<String, (Position, String)>, FileError> {
    let Some(node) = node else { return Ok(BTreeMap::new()) };
    let fields = node.fields("map[string]string")?;
    fields.into_iter().map(|(name, (_, value))| Ok((name, (value.place, value.text()?)))).collect()
}
