//! Relabelling as Prometheus' configuration has it: labels in, changed labels or nothing out.

use std::sync::Arc;

use model::labels::Labels;
use model::matcher::Re2;
use model::quote::quote;

use crate::file::yaml::Node;
use crate::file::{FileError, Position};

/// One step.
#[derive(Clone, Debug)]
pub struct Relabel {
    source_labels: Vec<String>,
    separator: String,
    regex: Arc<Re2>,
    target_label: String,
    replacement: String,
    action: Action,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Replace,
    Keep,
    Drop,
    KeepEqual,
    DropEqual,
    LabelMap,
    LabelDrop,
    LabelKeep,
    Lowercase,
    Uppercase,
}

/// Applies all steps; `None` where one drops the whole.
pub fn apply(steps: &[Relabel], labels: &Labels) -> Option<Labels> {
    steps.iter().try_fold(labels.clone(), |labels, step| step.apply(labels))
}

/// Reads a list of steps; null is none.
pub fn parse_list(node: &Node) -> Result<Vec<Relabel>, FileError> {
    node.items("[]*relabel.Config")?.iter().map(|step| Relabel::parse(step)).collect()
}

impl Relabel {
    fn parse(node: &Node) -> Result<Relabel, FileError> {
        let mut step = Relabel {
            source_labels: Vec::new(),
            separator: ";".into(),
            regex: Arc::new(anchored("(.*)", node.place)?),
            target_label: String::new(),
            replacement: "$1".into(),
            action: Action::Replace,
        };
        let mut has_source = false;
        for (name, (place, value)) in node.fields("relabel.Config")? {
            match name.as_str() {
                "source_labels" => {
                    has_source = true;
                    let items = value.items("model.LabelNames")?;
                    step.source_labels = items.iter().map(|n| n.text()).collect::<Result<_, _>>()?;
                }
                "separator" => step.separator = value.text()?,
                "regex" => step.regex = Arc::new(anchored(&value.text()?, value.place)?),
                "target_label" => step.target_label = value.text()?,
                "replacement" => step.replacement = value.text()?,
                "action" => {
                    step.action = action(&value.text()?.to_ascii_lowercase())
                        .map_err(|why| FileError::at(value.place, why))?;
                }
                other => {
                    let text = format!("field {other} not found in type relabel.plain");
                    return Err(FileError::at(place, text));
                }
            }
        }
        let needs_target = matches!(
            step.action,
            Action::Replace | Action::KeepEqual | Action::DropEqual | Action::Lowercase | Action::Uppercase
        );
        if needs_target && step.target_label.is_empty() {
            let text = "relabel configuration for this action requires 'target_label' value".to_owned();
            return Err(FileError::at(node.place, text));
        }
        if matches!(step.action, Action::KeepEqual | Action::DropEqual) && !has_source {
            let text = "relabel configuration for this action requires 'source_labels' value".to_owned();
            return Err(FileError::at(node.place, text));
        }
        Ok(step)
    }

    fn apply(&self, labels: Labels) -> Option<Labels> {
        let values: Vec<&str> = self.source_labels.iter().map(|name| labels.value(name)).collect();
        let value = values.join(&self.separator);
        match self.action {
            Action::Keep => self.regex.is_match(&value).then_some(labels),
            Action::Drop => (!self.regex.is_match(&value)).then_some(labels),
            Action::KeepEqual => (labels.value(&self.target_label) == value).then_some(labels),
            Action::DropEqual => (labels.value(&self.target_label) != value).then_some(labels),
            Action::LabelDrop => Some(labels.filter(|name, _| !self.regex.is_match(name))),
            Action::LabelKeep => Some(labels.filter(|name, _| self.regex.is_match(name))),
            Action::Lowercase => Some(set(&labels, &self.target_label, &value.to_lowercase())),
            Action::Uppercase => Some(set(&labels, &self.target_label, &value.to_uppercase())),
            Action::LabelMap => {
                let mut b = labels.to_builder();
                for (name, value) in &labels {
                    if let Some(new) = self.expanded(&self.replacement, name) {
                        b.set(&new, value);
                    }
                }
                Some(b.build())
            }
            Action::Replace => {
                let (Some(target), Some(new)) =
                    (self.expanded(&self.target_label, &value), self.expanded(&self.replacement, &value))
                else {
                    return Some(labels);
                };
                if target.is_empty() {
                    return Some(labels);
                }
                Some(set(&labels, &target, &new))
            }
        }
    }

    /// A template with what the expression found in a text; `None` where it does not match.
    fn expanded(&self, template: &str, text: &str) -> Option<String> {
        let regex = self.regex.regex();
        let mut captures = regex.create_captures();
        regex.captures(text, &mut captures);
        if !captures.is_match() {
            return None;
        }
        let mut out = String::new();
        crate::regex::expand(&mut out, template, text, regex, &captures);
        Some(out)
    }
}

fn set(labels: &Labels, name: &str, value: &str) -> Labels {
    let mut b = labels.to_builder();
    b.set(name, value);
    b.build()
}

fn anchored(expr: &str, place: Position) -> Result<Re2, FileError> {
    Re2::anchored(expr).map_err(|e| FileError::at(place, format!("regex {}: {e}", quote(expr))))
}

fn action(name: &str) -> Result<Action, String> {
    Ok(match name {
        "" | "replace" => Action::Replace,
        "keep" => Action::Keep,
        "drop" => Action::Drop,
        "keepequal" => Action::KeepEqual,
        "dropequal" => Action::DropEqual,
        "labelmap" => Action::LabelMap,
        "labeldrop" => Action::LabelDrop,
        "labelkeep" => Action::LabelKeep,
        "lowercase" => Action::Lowercase,
        "uppercase" => Action::Uppercase,
        "hashmod" => {
            return Err("relabel action \"hashmod\" is not supported for alerts".into());
        }
        other => return Err(format!("unknown relabel action {}", quote(other))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::yaml;

    fn relabeled(config: &str, labels: &[(&str, &str)]) -> Option<String> {
        let steps = parse_list(&yaml::read(config).unwrap().unwrap()).unwrap();
        apply(&steps, &Labels::from_pairs(labels.iter().copied())).map(|l| l.to_string())
    }

    #[test]
    fn relabel_actions_are_upstreams() {
        let labels = [("a", "foo"), ("b", "bar"), ("env", "PROD")];
        for (config, want) in [
            (
                "[{source_labels: [a, b], regex: 'f(.*);(.*)r', target_label: c, replacement: '$1-${2}'}]",
                Some(r#"{a="foo", b="bar", c="oo-ba", env="PROD"}"#),
            ),
            (
                "[{source_labels: [a], regex: nope, target_label: c}]",
                Some(r#"{a="foo", b="bar", env="PROD"}"#),
            ),
            ("[{source_labels: [a], target_label: b, replacement: ''}]", Some(r#"{a="foo", env="PROD"}"#)),
            ("[{source_labels: [a], regex: foo, action: drop}]", None),
            ("[{source_labels: [a], regex: foo|x, action: keep}]", Some(r#"{a="foo", b="bar", env="PROD"}"#)),
            ("[{source_labels: [a], regex: oo, action: keep}]", None),
            ("[{regex: 'a|b', action: labeldrop}]", Some(r#"{env="PROD"}"#)),
            ("[{regex: 'a|b', action: labelkeep}]", Some(r#"{a="foo", b="bar"}"#)),
            (
                "[{regex: '(a)', action: labelmap, replacement: 'x_$1'}]",
                Some(r#"{a="foo", b="bar", env="PROD", x_a="foo"}"#),
            ),
            (
                "[{source_labels: [env], target_label: env, action: Lowercase}]",
                Some(r#"{a="foo", b="bar", env="prod"}"#),
            ),
            ("[{source_labels: [a], target_label: b, action: keepequal}]", None),
            (
                "[{source_labels: [a], target_label: '$1', replacement: v, regex: '(f)oo'}]",
                Some(r#"{a="foo", b="bar", env="PROD", f="v"}"#),
            ),
        ] {
            assert_eq!(relabeled(config, &labels).as_deref(), want, "{config}");
        }
    }

    #[test]
    fn relabel_steps_that_make_no_sense_are_refused_with_their_place() {
        for (config, want) in [
            ("[{action: shuffle}]", "1:11: unknown relabel action \"shuffle\""),
            (
                "[{action: replace}]",
                "1:2: relabel configuration for this action requires 'target_label' value",
            ),
            ("[{regex: '(', target_label: a}]", "1:10: regex \"(\": "),
            ("[{regexp: a}]", "1:3: field regexp not found in type relabel.plain"),
        ] {
            let told = parse_list(&yaml::read(config).unwrap().unwrap()).unwrap_err().to_string();
            assert!(told.starts_with(want), "{told}");
        }
    }
}
