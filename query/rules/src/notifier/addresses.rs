//! From addresses to the URLs of Alertmanagers: they are relabelled, and made into URLs.

use discovery::Group;
use model::labels::Labels;

use super::config::AlertmanagerSet;
use crate::relabel;
use crate::sources::{self, ADDRESS, SCHEME};

const ALERTS_PATH: &str = "__alerts_path__";

/// The Alertmanagers of a set; URLs ascending, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub active: Vec<String>,
    pub dropped: Vec<String>,
}

/// Addresses to URLs, by the set's relabelling.
pub fn urls(set: &AlertmanagerSet, groups: &[Group]) -> Found {
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
    let path = labels.value(ALERTS_PATH);
    let slash = if path.starts_with('/') { "" } else { "/" };
    format!("{}{slash}{path}", sources::origin(labels))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notifier::config::parse;
    use discovery::Discovery;
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
}
