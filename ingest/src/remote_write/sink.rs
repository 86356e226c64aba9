//! Where decoded series go: an appender of the store, or whatever a test or a bench wants to look at.

use std::sync::Arc;

use model::exemplar::{Accepted, Refused};
use model::histogram::Histogram;
use model::keyed_hash::keyed_hash;
use model::sample::Metadata;
use tsdb::db::{Appender, Db, SeriesRef};
use tsdb::head::{LabelPairs, SeriesLimits, TooManySeries};

use super::series_cache::SeriesCache;
use crate::memory::{NoMemory, Reservation};

/// The calls of [`Appender`] that decoding needs.
pub trait Sink {
    /// `labels` are ascending by name, unique, valid UTF-8 and without empty values.
    fn series(&mut self, labels: &[(&str, &str)]) -> SeriesRef;

    /// The same, where a new series is made only within the tenant's limits.
    fn series_within(
        &mut self,
        labels: &[(&str, &str)],
        _limits: &SeriesLimits,
    ) -> Result<SeriesRef, TooManySeries> {
        Ok(self.series(labels))
    }

    /// When the newest sample of the tenant is, and that of one of its series: where these are not known
    /// nothing is late.
    fn newest_ms(&self) -> Option<i64> {
        None
    }

    fn newest_of(&self, _series: SeriesRef) -> Option<i64> {
        None
    }

    fn float(&mut self, series: SeriesRef, ts_ms: i64, value: f64, start_ts_ms: i64);
    fn histogram(&mut self, series: SeriesRef, ts_ms: i64, value: Arc<Histogram>, start_ts_ms: i64);
    /// `labels` are ascending by name, unique and without empty values. What is a duplicate or late is for
    /// the store to know.
    fn exemplar(
        &mut self,
        series: SeriesRef,
        ts_ms: i64,
        value: f64,
        labels: &[(&str, &str)],
    ) -> Result<Accepted, Refused>;
    fn metadata(&mut self, metric: &str, metadata: Metadata);

    /// The series that came under these keys before and whose labels are still `same(at, labels)`, one entry
    /// for each key. What knows none answers nothing.
    fn lookup(
        &mut self,
        _keys: &[u64],
        _same: impl FnMut(usize, LabelPairs<'_>) -> bool,
        found: &mut Vec<Option<SeriesRef>>,
    ) {
        found.clear();
    }

    /// Asks for memory: `bytes` is what the request comes to so far, besides its message. Answers up to which
    /// number it need not ask again; what holds nothing always has memory.
    fn reserve(&mut self, _bytes: usize) -> Result<usize, NoMemory> {
        Ok(usize::MAX)
    }

    /// Notes under which key a series came.
    fn remember(&mut self, _key: u64, _series: SeriesRef) {}
}

/// An appender that recognises series by how they came before.
pub struct CachingSink {
    pub appender: Appender,
    cache: Arc<SeriesCache>,
    /// Mixed into every key, so that tenants do not take each other's places.
    seed: u64,
    numbers: Vec<Option<u32>>,
    new: Vec<(u64, u32)>,
    memory: Option<RequestMemory>,
}

/// What a request gets at once beyond what it needs.
const SPARE_BYTES: usize = 64 << 10;

/// Where a request's memory comes from.
pub(crate) struct RequestMemory {
    /// For as long as the request is decoded and committed.
    pub(crate) reservation: Reservation,
    /// Of what the request's body takes, compressed and decoded.
    pub(crate) body_bytes: usize,
    /// Asked whether its head has room for new series, which are made while a request is decoded.
    pub(crate) db: Arc<Db>,
}

impl CachingSink {
    pub fn new(appender: Appender, cache: Arc<SeriesCache>) -> Self {
        let seed = keyed_hash(appender.tenant().as_str().as_bytes());
        CachingSink { appender, cache, seed, numbers: Vec::new(), new: Vec::new(), memory: None }
    }

    /// Bounds what the request may hold.
    pub(crate) fn with_memory(self, memory: RequestMemory) -> Self {
        CachingSink { memory: Some(memory), ..self }
    }

    /// Makes what was new known to later requests and gives the appender back, with the memory that stays
    /// reserved until it has committed.
    pub(crate) fn into_parts(self) -> (Appender, Option<Reservation>) {
        self.cache.remember(&self.new, self.appender.series_in_head());
        (self.appender, self.memory.map(|m| m.reservation))
    }

    /// Makes what was new known to later requests and gives the appender back.
    pub fn finish(self) -> Appender {
        self.into_parts().0
    }
}

impl Sink for CachingSink {
    fn series(&mut self, labels: &[(&str, &str)]) -> SeriesRef {
        self.appender.series(labels)
    }

    fn series_within(
        &mut self,
        labels: &[(&str, &str)],
        limits: &SeriesLimits,
    ) -> Result<SeriesRef, TooManySeries> {
        self.appender.series_within(labels, limits)
    }

    fn newest_ms(&self) -> Option<i64> {
        self.appender.newest_ms()
    }

    fn newest_of(&self, series: SeriesRef) -> Option<i64> {
        self.appender.newest_of(series)
    }

    fn float(&mut self, series: SeriesRef, ts_ms: i64, value: f64, start_ts_ms: i64) {
        self.appender.float(series, ts_ms, value, start_ts_ms);
    }

    fn histogram(&mut self, series: SeriesRef, ts_ms: i64, value: Arc<Histogram>, start_ts_ms: i64) {
        self.appender.histogram(series, ts_ms, value, start_ts_ms);
    }

    fn exemplar(
        &mut self,
        series: SeriesRef,
        ts_ms: i64,
        value: f64,
        labels: &[(&str, &str)],
    ) -> Result<Accepted, Refused> {
        self.appender.exemplar(series, ts_ms, value, labels)
    }

    fn metadata(&mut self, metric: &str, metadata: Metadata) {
        self.appender.metadata(metric, metadata);
    }

    fn lookup(
        &mut self,
        keys: &[u64],
        same: impl FnMut(usize, LabelPairs<'_>) -> bool,
        found: &mut Vec<Option<SeriesRef>>,
    ) {
        self.cache.find(keys, self.seed, &mut self.numbers);
        self.appender.lookup(&self.numbers, same, found);
    }

    fn reserve(&mut self, bytes: usize) -> Result<usize, NoMemory> {
        let Some(memory) = &mut self.memory else { return Ok(usize::MAX) };
        let needed = memory.body_bytes + bytes;
        if needed > memory.reservation.bytes() {
            memory.db.room().map_err(|e| NoMemory::Head(e.to_string()))?;
            // More than is needed, so that it is asked seldom; where that much is not there, what is needed.
            let generous = needed + (bytes / 4).max(SPARE_BYTES);
            if memory.reservation.try_grow(generous).is_err() {
                memory.reservation.try_grow(needed)?;
            }
        }
        Ok(memory.reservation.bytes() - memory.body_bytes)
    }

    fn remember(&mut self, key: u64, series: SeriesRef) {
        self.new.push((key ^ self.seed, self.appender.number(series)));
    }
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

    fn exemplar(
        &mut self,
        series: SeriesRef,
        ts_ms: i64,
        value: f64,
        labels: &[(&str, &str)],
    ) -> Result<Accepted, Refused> {
        Appender::exemplar(self, series, ts_ms, value, labels)
    }

    fn metadata(&mut self, metric: &str, metadata: Metadata) {
        Appender::metadata(self, metric, metadata);
    }
}
