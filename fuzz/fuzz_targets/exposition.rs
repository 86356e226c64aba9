//! Any text as what a target exposes, in both formats: no panic, and a sample's labels can be looked up.

#![no_main]

use ingest::text::{Format, parse_as};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for format in [Format::Prometheus, Format::OpenMetrics] {
        if let Ok(all) = parse_as(text, format) {
            for sample in &all.samples {
                let _ = all.labels(sample).len();
            }
        }
    }
});
