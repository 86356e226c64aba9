//! Any bytes as a body of remote write 1.0 and 2.0, and as a snappy block: no panic, and a sink is given only
//! what it was promised.

#![no_main]

use std::sync::Arc;

use ingest::Limits;
use ingest::remote_write::{snappy, v1, v2};
use libfuzzer_sys::fuzz_target;
use model::exemplar::{Accepted, Refused};
use model::histogram::Histogram;
use model::sample::Metadata;
use tsdb::db::SeriesRef;

/// Counts series and checks what a sink may rely on.
#[derive(Default)]
struct Strict(u32);

fn sorted(labels: &[(&str, &str)]) {
    assert!(labels.windows(2).all(|w| w[0].0 < w[1].0), "not ascending: {labels:?}");
    assert!(labels.iter().all(|(n, v)| !n.is_empty() && !v.is_empty()), "empty: {labels:?}");
}

impl ingest::remote_write::sink::Sink for Strict {
    fn series(&mut self, labels: &[(&str, &str)]) -> SeriesRef {
        sorted(labels);
        self.0 += 1;
        SeriesRef(self.0 - 1)
    }
    fn float(&mut self, series: SeriesRef, _: i64, _: f64, _: i64) {
        assert!(series.0 < self.0);
    }
    fn histogram(&mut self, series: SeriesRef, _: i64, value: Arc<Histogram>, _: i64) {
        assert!(series.0 < self.0);
        // What is taken can be computed with.
        let _ = (value.to_string(), (*value).clone());
    }
    fn exemplar(
        &mut self,
        series: SeriesRef,
        _: i64,
        _: f64,
        labels: &[(&str, &str)],
    ) -> Result<Accepted, Refused> {
        assert!(series.0 < self.0);
        sorted(labels);
        Ok(Accepted::New)
    }
    fn metadata(&mut self, _: &str, _: Metadata) {}
}

const NOW_MS: i64 = 1_700_000_000_000;

fuzz_target!(|body: &[u8]| {
    let limits = Limits::default();
    let _ = v1::decode(body, &limits, NOW_MS, &mut Strict::default());
    let _ = v2::decode(body, &limits, NOW_MS, &mut Strict::default());
    // As the server does it: nothing is allocated for more than the limit.
    if let Ok(Some(length)) = snappy::declared_len(body)
        && length <= 1 << 20
        && let Ok(body) = snappy::decode(body)
    {
        let _ = v2::decode(&body, &limits, NOW_MS, &mut Strict::default());
    }
});
