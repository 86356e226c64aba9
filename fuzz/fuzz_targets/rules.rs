//! Any text as a file of rules, as a group that a tenant stores, and as an alert's template: no panic, no
//! expansion beyond its bounds, and a group that is written reads back as it is.

#![no_main]

use std::collections::BTreeMap;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use rules::file::{FileOptions, parse, parse_group, write_group};
use rules::template::{Data, External, Limits, Sample, Template, Value};

fuzz_target!(|text: &str| {
    let options = FileOptions { mimir_keys: true, ..FileOptions::default() };
    let _ = parse(text, &options);
    if let Ok(group) = parse_group(text, &options) {
        let mut written = String::new();
        write_group(&mut written, &group, 0);
        let mut again = String::new();
        let read =
            parse_group(&written, &options).unwrap_or_else(|e| panic!("{e:?}: {written:?} of {text:?}"));
        write_group(&mut again, &read, 0);
        assert_eq!(again, written, "of {text:?}");
    }
    let Ok(template) = Template::parse(text, "fuzz") else { return };
    let labels = Arc::new(BTreeMap::from([("job".to_string(), "node".to_string())]));
    let external = External { labels: labels.clone(), url: "http://example.org/prefix".into() };
    let query = |text: &str| match text {
        "up" => Ok(Vec::<Sample>::new()),
        _ => Err("no such query".to_string()),
    };
    let data = Data {
        labels,
        value: Value::Float(1.5),
        external: &external,
        query: &query,
        now_ms: 1_700_000_000_000,
    };
    let limits =
        Limits { output_bytes: 64 << 10, made_bytes: 1 << 20, steps: 10_000, queries: 10, depth: 20 };
    if let Ok(expanded) = template.expand(&data, &limits) {
        assert!(expanded.len() <= limits.output_bytes);
    }
});
