//! Groups to YAML.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::rule::{RuleGroup, RuleKind};

/// A group as YAML, as the configuration API shows it.
pub fn write_group(out: &mut String, group: &RuleGroup, indent: usize) {
    let pad = " ".repeat(indent);
    let duration = |ms: i64| {
        let mut text = String::new();
        let _ = query::parse::write_duration(&mut text, ms);
        text
    };
    let map = |out: &mut String, key: &str, pad: &str, map: &BTreeMap<String, String>| {
        if map.is_empty() {
            return;
        }
        let _ = writeln!(out, "{pad}{key}:");
        for (name, value) in map {
            let _ = writeln!(out, "{pad}  {}: {}", quoted(name), quoted(value));
        }
    };
    let _ = writeln!(out, "{pad}name: {}", quoted(&group.name));
    if let Some(ms) = group.interval_ms {
        let _ = writeln!(out, "{pad}interval: {}", duration(ms));
    }
    if let Some(ms) = group.query_offset_ms {
        let _ = writeln!(out, "{pad}query_offset: {}", duration(ms));
    }
    if group.limit != 0 {
        let _ = writeln!(out, "{pad}limit: {}", group.limit);
    }
    map(out, "labels", &pad, &group.labels);
    if group.rules.is_empty() {
        let _ = writeln!(out, "{pad}rules: []");
        return;
    }
    let _ = writeln!(out, "{pad}rules:");
    let inner = format!("{pad}      ");
    for rule in &group.rules {
        let key = if rule.is_alert() { "alert" } else { "record" };
        let _ = writeln!(out, "{pad}    - {key}: {}", quoted(rule.name()));
        let _ = writeln!(out, "{inner}expr: {}", quoted(&rule.expr));
        if let RuleKind::Alert { for_ms, keep_firing_for_ms, .. } = &rule.kind {
            if *for_ms != 0 {
                let _ = writeln!(out, "{inner}for: {}", duration(*for_ms));
            }
            if *keep_firing_for_ms != 0 {
                let _ = writeln!(out, "{inner}keep_firing_for: {}", duration(*keep_firing_for_ms));
            }
        }
        map(out, "labels", &inner, &rule.labels);
        if let RuleKind::Alert { annotations, .. } = &rule.kind {
            map(out, "annotations", &inner, annotations);
        }
    }
}

/// A text as YAML reads it back: plain where nothing else can be meant, else in double quotes, which take
/// JSON's escapes.
pub fn quoted(text: &str) -> String {
    let first = text.bytes().next();
    let plain = first.is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-./".contains(&b))
        && !matches!(
            text.to_ascii_lowercase().as_str(),
            "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n"
        );
    if plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}
