//! The settings in Prometheus' words, for programs that look for these: Thanos' sidecar reads external labels
//! and a few flags before it does anything.

use std::collections::BTreeMap;

use query::api::Features;

use crate::config::{self, Loaded, Settings, TABLE};

/// The configuration in effect as YAML: a `global` section as in prometheus.yml, and Hearth's own settings.
pub fn config(loaded: &Loaded) -> String {
    let settings = &loaded.settings;
    let mut out = String::from("global:\n");
    out += &format!("  evaluation_interval: {}\n", settings.rules_interval);
    let labels = &settings.rules_external_labels.0;
    out += if labels.is_empty() { "  external_labels: {}\n" } else { "  external_labels:\n" };
    for (name, value) in labels {
        // JSON's strings are YAML's.
        out += &format!("    {}: {}\n", serde_json::Value::from(&**name), serde_json::Value::from(&**value));
    }
    out + &config::print(loaded)
}

/// Every setting by its flag, and those of Prometheus' flags that say the same by theirs.
pub fn flags(settings: &Settings) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> = TABLE.iter().map(|o| (o.flag(), (o.show)(settings))).collect();
    let window = settings.head_window.to_string();
    for (name, value) in [
        ("enable-feature", settings.enable_feature.to_string()),
        ("query.lookback-delta", settings.query_lookback.to_string()),
        ("query.max-concurrency", settings.query_max_concurrency.to_string()),
        ("query.max-samples", settings.query_max_samples.to_string()),
        ("query.timeout", settings.query_timeout.to_string()),
        ("rules.alert.for-grace-period", settings.rules_for_grace.to_string()),
        ("rules.alert.for-outage-tolerance", settings.rules_outage_tolerance.to_string()),
        ("rules.alert.resend-delay", settings.rules_resend_delay.to_string()),
        ("storage.tsdb.max-block-duration", window.clone()),
        ("storage.tsdb.min-block-duration", window),
        ("storage.tsdb.path", settings.data_dir.to_string()),
        ("storage.tsdb.retention.time", settings.retention.to_string()),
        ("web.cors.origin", settings.cors_origin.to_string()),
        ("web.enable-admin-api", settings.admin_api.to_string()),
        ("web.enable-lifecycle", settings.enable_lifecycle.to_string()),
        ("web.enable-remote-write-receiver", "true".to_owned()),
        ("web.external-url", settings.external_url.to_string()),
        ("web.listen-address", settings.listen.to_string()),
        ("web.max-connections", settings.max_connections.to_string()),
        ("web.route-prefix", settings.route_prefix.to_string()),
    ] {
        all.insert(name.to_owned(), value);
    }
    all
}

/// Functions of templates beside Go's own.
const TEMPLATE_FUNCTIONS: [&str; 27] = [
    "args",
    "externalURL",
    "first",
    "graphLink",
    "humanize",
    "humanize1024",
    "humanizeDuration",
    "humanizePercentage",
    "humanizeTimestamp",
    "label",
    "match",
    "now",
    "parseDuration",
    "pathPrefix",
    "query",
    "reReplaceAll",
    "safeHtml",
    "sortByLabel",
    "stripDomain",
    "stripPort",
    "strvalue",
    "tableLink",
    "title",
    "toDuration",
    "toLower",
    "toTime",
    "toUpper",
];

/// What this process can do, by upstream's names and categories; the query language is added elsewhere.
pub fn features(settings: &Settings) -> Features {
    let mut all = Features::new();
    let mut set = |category: &str, names: &[(&str, bool)]| {
        let names = names.iter().map(|(name, on)| ((*name).to_owned(), *on));
        all.entry(category.to_owned()).or_default().extend(names);
    };
    let yes = |names: &[&'static str]| names.iter().map(|n| (*n, true)).collect::<Vec<_>>();
    set("api", &[("lifecycle", settings.enable_lifecycle), ("otlp_write_receiver", false)]);
    set(
        "api",
        &yes(&[
            "exclude_alerts",
            "label_values_match",
            "openapi_3.1",
            "openapi_3.2",
            "query_stats",
            "query_warnings",
            "remote_write_receiver",
            "search_fuzz_alg_jarowinkler",
            "search_fuzz_alg_subsequence",
            "time_range_labels",
            "time_range_series",
        ]),
    );
    set("otlp_receiver", &[("delta_conversion", false), ("native_delta_ingestion", false)]);
    set("prometheus", &[("agent_mode", false), ("auto_reload_config", false), ("server_mode", true)]);
    set("rules", &[("concurrent_rule_eval", true), ("keep_firing_for", true), ("query_offset", true)]);
    set("scrape", &[("extra_scrape_metrics", false), ("start_timestamp_zero_ingestion", false)]);
    set("service_discovery_providers", &[("dns", true), ("file", true), ("static", true)]);
    set("templating_functions", &yes(&TEMPLATE_FUNCTIONS));
    set("templating_functions", &yes(&["urlQueryEscape", "value"]));
    set(
        "tsdb",
        &[("exemplar_storage", true), ("isolation", true), ("native_histograms", true), ("st_storage", true)],
    );
    set("ui", &[("ui_v2", false), ("ui_v3", false)]);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Origin;

    fn loaded(pairs: &[(&str, &str)]) -> Loaded {
        let mut settings = Settings::default();
        for (key, text) in pairs {
            let option = TABLE.iter().find(|o| o.key == *key).unwrap();
            (option.set)(&mut settings, text).unwrap();
        }
        Loaded { settings, origins: vec![Origin::Default; TABLE.len()], file: None, warnings: vec![] }
    }

    #[test]
    fn configuration_has_the_external_labels_that_a_sidecar_looks_for() {
        let loaded = loaded(&[("rules.external_labels", "cluster=e u,replica=a\"")]);
        let text = config(&loaded);
        let yaml: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(
            yaml["global"]["external_labels"],
            serde_json::json!({ "cluster": "e u", "replica": "a\"" }),
            "{text}"
        );
        assert_eq!(yaml["head"]["window"], "2h", "{text}");
        let flags = flags(&loaded.settings);
        assert_eq!(flags["storage.tsdb.min-block-duration"], "2h");
        assert_eq!(flags["storage.tsdb.max-block-duration"], flags["head-window"]);
    }
}
