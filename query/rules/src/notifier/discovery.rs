//! From configuration to the URLs of Alertmanagers: addresses are found, relabelled, and made into URLs.

use std::collections::BTreeMap;
use std::time::Duration;

use model::labels::Labels;

use super::config::{AlertmanagerSet, Discovery, TargetGroup, target_group};
use crate::file::expand_pattern;
use crate::file::yaml;
use crate::relabel;

const ADDRESS: &str = "__address__";
const SCHEME: &str = "__scheme__";
const ALERTS_PATH: &str = "__alerts_path__";

/// The Alertmanagers of a set; URLs ascending, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub active: Vec<String>,
    pub dropped: Vec<String>,
}

/// How often a way of finding looks again; `None` for one that never changes.
pub fn refresh(discovery: &Discovery) -> Option<Duration> {
    match discovery {
        Discovery::Static(_) => None,
        Discovery::Dns { refresh, .. } | Discovery::DnsSrv { refresh, .. } => Some(*refresh),
        Discovery::File { refresh, .. } => Some(*refresh),
    }
}

/// Looks once. An error leaves what was found before in force.
pub async fn look(discovery: &Discovery) -> Result<Vec<TargetGroup>, String> {
    match discovery {
        Discovery::Static(groups) => Ok(groups.clone()),
        Discovery::Dns { names, port, .. } => {
            let mut targets = Vec::new();
            for name in names {
                let found = tokio::net::lookup_host((name.as_str(), *port)).await;
                targets.extend(found.map_err(|e| format!("{name}: {e}"))?.map(|a| a.to_string()));
            }
            targets.sort();
            targets.dedup();
            Ok(vec![TargetGroup { targets, labels: BTreeMap::new() }])
        }
        Discovery::DnsSrv { names, .. } => {
            let mut targets = Vec::new();
            for name in names {
                let found = super::srv::lookup(name).await.map_err(|e| format!("{name}: {e}"))?;
                targets.extend(found.into_iter().map(|(host, port)| format!("{host}:{port}")));
            }
            targets.sort();
            targets.dedup();
            Ok(vec![TargetGroup { targets, labels: BTreeMap::new() }])
        }
        Discovery::File { patterns, .. } => {
            let patterns = patterns.clone();
            let read = tokio::task::spawn_blocking(move || read_files(&patterns)).await;
            read.unwrap_or_else(|e| Err(format!("reading files of targets ended unexpectedly: {e}")))
        }
    }
}

/// The groups of all files that patterns name, JSON or YAML (of which JSON is a part).
fn read_files(patterns: &[String]) -> Result<Vec<TargetGroup>, String> {
    let mut groups = Vec::new();
    for pattern in patterns {
        for path in expand_pattern(pattern).map_err(|e| format!("{pattern}: {e}"))? {
            let shown = path.display();
            let text = std::fs::read_to_string(&path).map_err(|e| format!("{shown}: {e}"))?;
            let Some(root) = yaml::read(&text).map_err(|e| format!("{shown}: {e}"))? else { continue };
            for group in root.items("[]*targetgroup.Group").map_err(|e| format!("{shown}: {e}"))? {
                groups.push(target_group(group).map_err(|e| format!("{shown}: {e}"))?);
            }
        }
    }
    Ok(groups)
}

/// Addresses to URLs, by the set's relabelling.
pub fn urls(set: &AlertmanagerSet, groups: &[TargetGroup]) -> Found {
    let mut found = Found::default();
    for group in groups {
        for target in &group.targets {
            let mut labels = Labels::from_pairs(&group.labels).to_builder();
            labels.set(ADDRESS, target);
            for (name, default) in
                [(SCHEME, set.scheme.clone()), (ALERTS_PATH, format!("{}/api/v2/alerts", set.path_prefix))]
            {
                if labels.get(name).is_none() {
                    labels.set(name, &default);
                }
            }
            let labels = labels.build();
            match relabel::apply(&set.relabel, &labels) {
                Some(kept) if !kept.value(ADDRESS).is_empty() => found.active.push(url(&kept)),
                _ => found.dropped.push(url(&labels)),
            }
        }
    }
    for list in [&mut found.active, &mut found.dropped] {
        list.sort();
        list.dedup();
    }
    found
}

fn url(labels: &Labels) -> String {
    let (scheme, address) = (labels.value(SCHEME), labels.value(ADDRESS));
    let has_port = address.rsplit_once(':').is_some_and(|(host, port)| {
        !port.is_empty()
            && port.bytes().all(|b| b.is_ascii_digit())
            && (!host.contains(':') || host.ends_with(']'))
    });
    let port = match (has_port, scheme) {
        (true, _) => "",
        (false, "https") => ":443",
        (false, _) => ":80",
    };
    let path = labels.value(ALERTS_PATH);
    let slash = if path.starts_with('/') { "" } else { "/" };
    format!("{scheme}://{address}{port}{slash}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notifier::config::parse;
    use std::path::Path;

    #[test]
    fn addresses_become_urls_by_labels_and_relabelling() {
        let text = "alerting:
  alertmanagers:
  - path_prefix: /am
    static_configs:
    - targets: [b:9093, a, '[::1]:9093', drop:1, a]
    - {targets: [c:1], labels: {__alerts_path__: x/y, __scheme__: https}}
    relabel_configs:
    - {source_labels: [__address__], regex: 'drop.*', action: drop}
";
        let alerting = parse(text, Path::new(".")).unwrap();
        let set = &alerting.alertmanagers[0];
        let Discovery::Static(groups) = &set.discoveries[0] else { panic!() };
        let found = urls(set, groups);
        assert_eq!(
            found.active,
            [
                "http://[::1]:9093/am/api/v2/alerts",
                "http://a:80/am/api/v2/alerts",
                "http://b:9093/am/api/v2/alerts",
                "https://c:1/x/y"
            ]
        );
        assert_eq!(found.dropped, ["http://drop:1/am/api/v2/alerts"]);
    }

    #[test]
    fn files_of_targets_are_json_or_yaml() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        file("a.json", r#"[{"targets": ["x:1", "y:2"], "labels": {"dc": "eu"}}]"#);
        file("b.yml", "- targets: [z:3]\n");
        let groups = read_files(&[format!("{}/*", folder.path().display())]).unwrap();
        assert_eq!(groups.len(), 2);
        assert_eq!(groups[0].targets, ["x:1", "y:2"]);
        file("c.yml", "targets: [z:3]\n");
        assert!(
            read_files(&[format!("{}/c.yml", folder.path().display())]).unwrap_err().contains("c.yml: 1:1")
        );
    }

    #[tokio::test]
    async fn names_resolve_to_all_their_addresses() {
        let dns = Discovery::Dns { names: vec!["localhost".into()], port: 9093, refresh: Duration::ZERO };
        let groups = look(&dns).await.unwrap();
        assert!(groups[0].targets.contains(&"127.0.0.1:9093".to_string()), "{groups:?}");
    }
}
