//! Any bytes as a query, a selector and a series description: no panic, and what parses prints as it parses
//! again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use query::parse::{ParseOptions, parse_expr, parse_metric_selector, parse_series_description, prettify};

fuzz_target!(|text: &str| {
    let options = ParseOptions::all();
    if let Ok(expr) = parse_expr(text, &options) {
        let printed = expr.to_string();
        match parse_expr(&printed, &options) {
            Ok(again) => assert_eq!(again.to_string(), printed, "of {text:?}"),
            // Canonical print may be longer than what was written, and the text has a limit.
            Err(e) => assert!(printed.len() > options.max_text_bytes, "{printed:?}: {e}, of {text:?}"),
        }
        let pretty = prettify(&expr);
        if let Ok(again) = parse_expr(&pretty, &options) {
            assert_eq!(again.to_string(), printed, "pretty {pretty:?}");
        }
    }
    let _ = parse_expr(text, &ParseOptions::default());
    let _ = parse_metric_selector(text, &options);
    let _ = parse_series_description(text);
});
