//! The plainest possible source, a sorted map of samples: what rule tests and back-fill evaluate over, and
//! the model that tests hold every other source against.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::histogram::Histogram;
use crate::labels::Labels;
use crate::matcher::{Matcher, matches_all};
use crate::sample::Value;
use crate::source::{LabelQuery, Selection, SeriesColumns, SeriesCursor, Source, SourceError};

/// One series' samples by timestamp: value and start timestamp (0 = unknown).
type Points = BTreeMap<i64, (Value, i64)>;

/// All samples in memory, uncompressed, no log. Later writes of a timestamp win.
#[derive(Default, Debug)]
pub struct MemorySource {
    series: RwLock<BTreeMap<Labels, Points>>,
}

impl MemorySource {
    pub fn new() -> Self {
        MemorySource::default()
    }

    pub fn append_float(&self, labels: &Labels, ts_ms: i64, value: f64) {
        self.append(labels, ts_ms, Value::Float(value), 0);
    }

    pub fn append_histogram(&self, labels: &Labels, ts_ms: i64, value: Histogram) {
        self.append(labels, ts_ms, Value::Histogram(Arc::new(value)), 0);
    }

    /// `start_ts_ms` 0 means unknown.
    pub fn append(&self, labels: &Labels, ts_ms: i64, value: Value, start_ts_ms: i64) {
        let mut all = self.series.write();
        if !all.contains_key(labels) {
            all.insert(labels.clone(), Points::new());
        }
        all.get_mut(labels).expect("just inserted").insert(ts_ms, (value, start_ts_ms));
    }

    /// Takes out the samples of matching series from `min_t_ms` to `max_t_ms`, both included.
    pub fn delete(&self, matchers: &[Matcher], min_t_ms: i64, max_t_ms: i64) {
        for (labels, points) in self.series.write().iter_mut() {
            if matches_all(labels, matchers) {
                points.retain(|t, _| *t < min_t_ms || max_t_ms < *t);
            }
        }
    }

    pub fn clear(&self) {
        self.series.write().clear();
    }
}

impl Source for MemorySource {
    fn select(&self, selection: &Selection) -> Result<Box<dyn SeriesCursor + '_>, SourceError> {
        selection.budget.check()?;
        let mut found = Vec::new();
        for (labels, points) in self.series.read().iter() {
            if selection.min_t_ms > selection.max_t_ms || !matches_all(labels, &selection.matchers) {
                continue;
            }
            let mut ts_ms = Vec::new();
            let mut values = Vec::new();
            let mut histograms = Vec::new();
            let mut start_ts_ms = Vec::new();
            for (&t, (v, st)) in points.range(selection.min_t_ms..=selection.max_t_ms) {
                ts_ms.push(t);
                start_ts_ms.push(*st);
                match v {
                    Value::Float(v) => {
                        values.push(*v);
                        histograms.push(None);
                    }
                    Value::Histogram(h) => {
                        values.push(h.sum);
                        histograms.push(Some(h.clone()));
                    }
                }
            }
            if ts_ms.is_empty() {
                continue;
            }
            selection.budget.read_samples(ts_ms.len() as u64);
            found.push(SeriesColumns {
                labels: labels.clone(),
                ts_ms: ts_ms.into(),
                values,
                histograms: histograms.iter().any(Option::is_some).then_some(histograms),
                start_ts_ms: start_ts_ms.iter().any(|t| *t != 0).then_some(start_ts_ms),
                windows: None,
            });
        }
        found.sort_by(|a, b| a.labels.series_cmp(&b.labels));
        Ok(Box::new(Batches { rest: found.into_iter() }))
    }

    fn series(&self, query: &LabelQuery) -> Result<Vec<Labels>, SourceError> {
        let all = self.series.read();
        let found = all.iter().filter(|(labels, points)| {
            points.range(query.min_t_ms..=query.max_t_ms.max(query.min_t_ms)).next().is_some()
                && (query.selectors.is_empty() || query.selectors.iter().any(|s| matches_all(labels, s)))
        });
        Ok(found.map(|(labels, _)| labels.clone()).collect())
    }
}

/// A cursor over series that are in memory already, a few hundred at a time.
pub struct Batches {
    rest: std::vec::IntoIter<SeriesColumns>,
}

impl Batches {
    /// `series` must be in the cursor's order.
    pub fn new(series: Vec<SeriesColumns>) -> Self {
        Batches { rest: series.into_iter() }
    }
}

impl SeriesCursor for Batches {
    fn next_batch(&mut self) -> Result<Option<Vec<SeriesColumns>>, SourceError> {
        let batch: Vec<_> = self.rest.by_ref().take(256).collect();
        Ok((!batch.is_empty()).then_some(batch))
    }

    fn labels_to_come(&self) -> Option<Vec<Labels>> {
        Some(self.rest.as_slice().iter().map(|series| series.labels.clone()).collect())
    }
}
