//! Where decoded series go: an appender of the store, or whatever a test or a bench wants to look at.

use std::sync::Arc;

use tsdb::db::{Appender, SeriesRef};
use tsdb::histogram::Histogram;
use tsdb::sample::Metadata;

/// The calls of [`Appender`] that decoding needs.
pub trait Sink {
    /// `labels` are ascending by name, unique, valid UTF-8 and without empty values.
    fn series(&mut self, labels: &[(&str, &str)]) -> SeriesRef;
    fn float(&mut self, series: SeriesRef, ts_ms: i64, value: f64, start_ts_ms: i64);
    fn histogram(&mut self, series: SeriesRef, ts_ms: i64, value: Arc<Histogram>, start_ts_ms: i64);
    fn metadata(&mut self, metric: &str, metadata: Metadata);
}

impl Sink for Appender {
    fn series(&mut self, labels: &[(&str, &str)]) -> SeriesRef {
        Appender::series(self, labels)
    }

    fn float(&mut self, series: SeriesRef, ts_ms: i64, value: f64, start_ts_ms: i64) {
        Appender::float(self, series, ts_ms, value, start_ts_ms);
    }

    fn histogram(&mut self, series: SeriesRef, ts_ms: i64, value: Arc<Histogram>, start_ts_ms: i64) {
        Appender::histogram(self, series, ts_ms, value, start_ts_ms);
    }

    fn metadata(&mut self, metric: &str, metadata: Metadata) {
        Appender::metadata(self, metric, metadata);
    }
}
