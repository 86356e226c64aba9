//! What `hearth check rules` does: reads files as a server would, and looks for rules that stand twice.

use std::collections::BTreeMap;

use crate::file::{self, FileOptions, RuleGroup};

/// A file that was checked.
#[derive(Debug)]
pub struct Checked {
    /// How many rules it has, or everything that is wrong with it.
    pub result: Result<usize, Vec<String>>,
    /// What is allowed and most likely a mistake.
    pub lint: Vec<String>,
}

/// Rules of the same name and labels, in the order they were found: the second is written over the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duplicate {
    pub name: String,
    pub labels: BTreeMap<String, String>,
}

/// Checks a file's text; `name` stands in front of its errors.
pub fn check(name: &str, text: &str, options: &FileOptions, lint_duplicates: bool) -> Checked {
    match file::parse(text, options) {
        Err(errors) => {
            let errors = errors.iter().map(|e| format!("{name}: {e}")).collect();
            Checked { result: Err(errors), lint: Vec::new() }
        }
        Ok(groups) => {
            let count = groups.iter().map(|g| g.rules.len()).sum();
            let duplicates = if lint_duplicates { duplicates(&groups) } else { Vec::new() };
            let mut lint = Vec::new();
            if !duplicates.is_empty() {
                let mut text = format!("{} duplicate rule(s) found.", duplicates.len());
                for duplicate in duplicates {
                    text += &format!("\nMetric: {}\nLabel(s):", duplicate.name);
                    for (name, value) in &duplicate.labels {
                        text += &format!("\n\t{name}: {value}");
                    }
                }
                text += "\nMight cause inconsistency while recording expressions";
                lint.push(text);
            }
            Checked { result: Ok(count), lint }
        }
    }
}

/// Rules that another one of the file has the name and the labels of, each pair once.
pub fn duplicates(groups: &[RuleGroup]) -> Vec<Duplicate> {
    let mut all: Vec<Duplicate> = Vec::new();
    for group in groups {
        for rule in &group.rules {
            let mut labels = group.labels.clone();
            labels.extend(rule.labels.clone());
            all.push(Duplicate { name: rule.name().to_owned(), labels });
        }
    }
    all.sort_by(|a, b| (&a.name, &a.labels).cmp(&(&b.name, &b.labels)));
    let mut out: Vec<Duplicate> =
        all.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0].clone()).collect();
    out.dedup();
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_stand_twice_are_found_by_name_and_merged_labels() {
        let text = "groups:
- name: a
  labels: {team: x}
  rules:
  - {record: r, expr: up}
  - {record: s, expr: up}
- name: b
  rules:
  - {record: r, expr: down, labels: {team: x}}
  - {record: s, expr: up}
";
        let checked = check("f.yml", text, &FileOptions::default(), true);
        assert_eq!(checked.result, Ok(4));
        assert_eq!(
            checked.lint,
            [
                "1 duplicate rule(s) found.\nMetric: r\nLabel(s):\n\tteam: x\nMight cause inconsistency while recording expressions"
            ]
        );
        assert!(check("f.yml", text, &FileOptions::default(), false).lint.is_empty());
        let broken = check("f.yml", "groups: 1\n", &FileOptions::default(), true);
        assert_eq!(
            broken.result,
            Err(vec!["f.yml: 1:9: cannot unmarshal !!int `1` into []rulefmt.RuleGroup".into()])
        );
    }
}
