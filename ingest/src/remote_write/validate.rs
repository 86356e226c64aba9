//! One series after the other: what was read of it is checked, and what passes goes into the sink.

use std::ops::RangeInclusive;
use std::sync::Arc;

use model::exemplar::{MAX_LABEL_CHARS, Refused};
use model::labels::METRIC_NAME;
use model::sample::Metadata;
use model::tenant_limits::Limit;
use tsdb::db::SeriesRef;
use tsdb::head::{LabelPairs, TooManySeries};

use super::histogram::HistogramSample;
use super::sink::Sink;
use super::wire::Fault;
use crate::limits::Limits;
use crate::reject::{Reason, Rejections, cut, show};

/// What became of a decoded request, before the store has answered.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Series of which at least one sample or exemplar was handed on.
    pub series: u64,
    /// Float samples handed on.
    pub samples: u64,
    /// Native histogram samples handed on.
    pub histograms: u64,
    /// Exemplars handed on, duplicates of what is stored among them.
    pub exemplars: u64,
    /// Exemplars that cannot be kept: broken, too long, out of order, or without room.
    pub exemplars_dropped: u64,
    /// Metadata entries handed on.
    pub metadata: u64,
    pub rejected: Rejections,
}

/// A float sample as it came; `start_ts_ms` 0 = unknown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Float {
    pub(crate) ts_ms: i64,
    pub(crate) value: f64,
    pub(crate) start_ts_ms: i64,
}

/// An exemplar whose labels stand in [`Validator::exemplar_labels`].
struct ExemplarRead {
    labels: std::ops::Range<usize>,
    ts_ms: i64,
    value: f64,
}

/// Labels of an exemplar beyond which it is too long whatever they are: each has a character of name and one
/// of value.
const MAX_EXEMPLAR_LABELS: usize = MAX_LABEL_CHARS / 2 + 1;

/// What a request holds until it is committed, for each thing it brings: its row in a vector that doubles
/// when it is full, and its record for the log. Labels, histograms and texts come on top, twice for the same
/// reason.
const FLOAT_BYTES: usize = 112;
const KNOWN_SERIES_BYTES: usize = 16;
const NEW_SERIES_BYTES: usize = 512;
const EXEMPLAR_BYTES: usize = 320;
const METADATA_BYTES: usize = 160;

/// The validation of one request. The vectors are filled and emptied once per series and keep their room, so
/// that a series costs no allocation here.
pub(crate) struct Validator<'a, 'p, S> {
    pub(crate) limits: &'p Limits,
    sink: &'p mut S,
    accepted_ms: RangeInclusive<i64>,
    lateness: Lateness,
    now_ms: i64,
    labels: Vec<(&'a str, &'a str)>,
    /// Pairs beyond the limit: counted, not kept.
    more_labels: usize,
    /// First name or value that is not UTF-8.
    not_utf8: Option<&'a [u8]>,
    floats: Vec<Float>,
    histograms: Vec<HistogramSample>,
    /// The series at hand, where it was recognised; its labels are then not read.
    known: Option<SeriesRef>,
    /// Why the series at hand is not made, once that was found.
    too_many: Option<TooManySeries>,
    /// The key under which the series at hand is to be known.
    key: Option<u64>,
    found: Vec<Option<SeriesRef>>,
    /// Exemplars dropped before the series at hand.
    dropped_before: u64,
    exemplars: Vec<ExemplarRead>,
    exemplar_labels: Vec<(&'a str, &'a str)>,
    /// What is wrong with the exemplar at hand.
    exemplar_fault: Option<String>,
    /// Whether an exemplar that is left out is reported: 2.0 allows no success with less than all written,
    /// 1.0's senders would take the whole request for lost.
    pub(crate) tells_of_exemplars: bool,
    samples_left: usize,
    samples_limit: usize,
    /// Memory that the request comes to besides its message, and what of it the sink has agreed to.
    needed_bytes: usize,
    reserved_bytes: usize,
    pub(crate) outcome: Outcome,
}

impl<'a, 'p, S: Sink> Validator<'a, 'p, S> {
    /// At most `samples_limit` samples will be taken.
    pub(crate) fn new(samples_limit: usize, limits: &'p Limits, now_ms: i64, sink: &'p mut S) -> Self {
        let lateness = Lateness::of(limits, sink);
        Validator {
            limits,
            sink,
            accepted_ms: limits.accepted_ms(now_ms),
            lateness,
            now_ms,
            labels: Vec::with_capacity(32),
            more_labels: 0,
            not_utf8: None,
            floats: Vec::new(),
            histograms: Vec::new(),
            known: None,
            too_many: None,
            key: None,
            found: Vec::new(),
            dropped_before: 0,
            exemplars: Vec::new(),
            exemplar_labels: Vec::new(),
            exemplar_fault: None,
            tells_of_exemplars: false,
            samples_left: samples_limit,
            samples_limit,
            needed_bytes: 0,
            reserved_bytes: 0,
            outcome: Outcome::default(),
        }
    }

    /// Asks for the series that came under some keys before, see [`Sink::lookup`].
    pub(crate) fn lookup(&mut self, keys: &[u64], same: impl FnMut(usize, LabelPairs<'_>) -> bool) {
        self.sink.lookup(keys, same, &mut self.found);
    }

    /// Begins the series of the key at this place. True if it is known: then its labels need not be read,
    /// unless [`Validator::wants_labels`] says so in the end.
    #[inline]
    pub(crate) fn begin(&mut self, at: usize, key: u64) -> bool {
        self.known = self.found.get(at).copied().flatten();
        self.key = Some(key);
        self.dropped_before = self.outcome.exemplars_dropped;
        self.known.is_some()
    }

    /// Forgets what was read of the series at hand, and that it was known.
    #[cold]
    pub(crate) fn restart(&mut self) {
        let broken = self.outcome.exemplars_dropped - self.dropped_before;
        self.samples_left +=
            self.floats.len() + self.histograms.len() + self.exemplars.len() + broken as usize;
        self.outcome.exemplars_dropped = self.dropped_before;
        self.clear();
    }

    /// The series at hand is not what its key said: its labels must all be read.
    pub(crate) fn unknown(&mut self) {
        self.known = None;
        self.key = None;
    }

    /// Whether something is or may be wrong with a known series' samples or exemplars, which cannot be told
    /// without its labels.
    #[inline]
    pub(crate) fn wants_labels(&self) -> bool {
        self.known.is_some()
            && !((self.exemplars.is_empty() || !self.tells_of_exemplars)
                && self.floats.iter().all(|f| self.is_fine(f.ts_ms))
                && self.histograms.iter().all(|h| h.value.is_ok() && self.is_fine(h.ts_ms)))
    }

    /// Whether a sample of this time is taken, whatever its series has.
    #[inline]
    fn is_fine(&self, ts_ms: i64) -> bool {
        self.accepted_ms.contains(&ts_ms) && ts_ms >= self.lateness.any_from_ms
    }

    /// Whether a sample that is further behind its tenant's newest than late ones may be is left out: all but
    /// those that come in order and are not much later.
    #[cold]
    fn is_too_late(&mut self, ts_ms: i64, series: &mut Option<SeriesRef>) -> bool {
        if ts_ms < self.lateness.in_order_from_ms {
            return true;
        }
        // One that may not be made is refused for that.
        let Some(series) = self.stored_series(series) else { return false };
        self.sink.newest_of(series).is_some_and(|newest| ts_ms <= newest)
    }

    /// Leaves a sample out where its time says so.
    fn left_out(&mut self, ts_ms: i64, series: &mut Option<SeriesRef>) -> bool {
        if self.is_fine(ts_ms) {
            return false;
        }
        if !self.accepted_ms.contains(&ts_ms) {
            out_of_bounds(&mut self.outcome, &self.labels, ts_ms, self.now_ms, self.limits);
            return true;
        }
        let too_late = self.is_too_late(ts_ms, series);
        if too_late {
            self.refuse_late(ts_ms);
        }
        too_late
    }

    #[cold]
    fn refuse_late(&mut self, ts_ms: i64) {
        let limit = Limit::OutOfOrderWindow;
        self.outcome.rejected.note_limit(limit, 1);
        let (labels, lateness) = (&self.labels, &self.lateness);
        self.outcome.rejected.add(Reason::TooLate, 1, || {
            let behind = limit.shown(lateness.newest_ms.saturating_sub(ts_ms).max(0) as u64);
            let what = format!("is {behind} behind the newest of its tenant");
            let why = limit.refusal(what, lateness.window_ms as u64);
            format!("series {}: the sample at {ts_ms} ms {why}", show(labels))
        });
    }

    #[inline]
    pub(crate) fn label(&mut self, name: &'a [u8], value: &'a [u8]) {
        match (std::str::from_utf8(name), std::str::from_utf8(value)) {
            (Ok(name), Ok(value)) => self.label_str(name, value),
            (Err(_), _) => _ = self.not_utf8.get_or_insert(name),
            (_, Err(_)) => _ = self.not_utf8.get_or_insert(value),
        }
    }

    #[inline]
    pub(crate) fn label_str(&mut self, name: &'a str, value: &'a str) {
        if self.labels.len() < self.limits.max_labels {
            self.labels.push((name, value));
        } else {
            self.more_labels += 1;
        }
    }

    pub(crate) fn label_not_utf8(&mut self, bytes: &'a [u8]) {
        self.not_utf8.get_or_insert(bytes);
    }

    #[inline]
    pub(crate) fn float(&mut self, float: Float, here: &[u8]) -> Result<(), Fault> {
        self.one_more(here)?;
        if self.floats.len() == self.floats.capacity() {
            self.request_needs(2 * size_of::<Float>() * self.floats.capacity())?;
        }
        self.floats.push(float);
        Ok(())
    }

    pub(crate) fn histogram(&mut self, histogram: HistogramSample, here: &[u8]) -> Result<(), Fault> {
        self.one_more(here)?;
        let buckets = histogram.value.as_ref().map_or(0, |h| h.size_bytes());
        self.request_needs(FLOAT_BYTES + size_of::<HistogramSample>() + 2 * buckets)?;
        self.histograms.push(histogram);
        Ok(())
    }

    /// One label of the exemplar at hand, as bytes.
    pub(crate) fn exemplar_label(&mut self, name: &'a [u8], value: &'a [u8]) {
        match (std::str::from_utf8(name), std::str::from_utf8(value)) {
            (Ok(name), Ok(value)) => self.exemplar_label_str(name, value),
            _ => self.exemplar_fault("a label that is not UTF-8"),
        }
    }

    pub(crate) fn exemplar_label_str(&mut self, name: &'a str, value: &'a str) {
        let from = self.exemplars.last().map_or(0, |e| e.labels.end);
        if name.is_empty() {
            self.exemplar_fault("a label without a name");
        } else if !value.is_empty() && self.exemplar_labels.len() - from < MAX_EXEMPLAR_LABELS {
            self.exemplar_labels.push((name, value));
        }
    }

    pub(crate) fn exemplar_fault(&mut self, what: impl Into<String>) {
        self.exemplar_fault.get_or_insert(what.into());
    }

    /// Ends the exemplar at hand; what is wrong with it, if anything is.
    pub(crate) fn end_exemplar(
        &mut self,
        ts_ms: i64,
        value: f64,
        here: &[u8],
    ) -> Result<Option<String>, Fault> {
        self.one_more(here)?;
        let from = self.exemplars.last().map_or(0, |e| e.labels.end);
        let labels = &mut self.exemplar_labels[from..];
        labels.sort_by_key(|(name, _)| *name);
        if labels.windows(2).any(|w| w[0].0 == w[1].0) {
            self.exemplar_fault("a label name twice");
        }
        let fault = self.exemplar_fault.take();
        if fault.is_some() {
            self.exemplar_labels.truncate(from);
            self.outcome.exemplars_dropped += 1;
        } else {
            self.exemplars.push(ExemplarRead { labels: from..self.exemplar_labels.len(), ts_ms, value });
        }
        Ok(fault)
    }

    #[inline]
    fn one_more(&mut self, here: &[u8]) -> Result<(), Fault> {
        match self.samples_left.checked_sub(1) {
            Some(left) => {
                self.samples_left = left;
                Ok(())
            }
            None => {
                Err(Fault::new(here, format!("more than {} samples in so few bytes", self.samples_limit)))
            }
        }
    }

    /// Counts what is about to be held until the request is committed. An error is the request's end.
    #[inline]
    pub(crate) fn request_needs(&mut self, bytes: usize) -> Result<(), Fault> {
        self.needed_bytes += bytes;
        if self.needed_bytes <= self.reserved_bytes {
            return Ok(());
        }
        self.reserve_more()
    }

    #[cold]
    fn reserve_more(&mut self) -> Result<(), Fault> {
        self.reserved_bytes = self.sink.reserve(self.needed_bytes)?;
        Ok(())
    }

    /// How many samples and exemplars the series at hand has.
    pub(crate) fn pending(&self) -> u64 {
        (self.floats.len() + self.histograms.len() + self.exemplars.len()) as u64
    }

    /// Fills in the start timestamp where a sample brought none.
    pub(crate) fn default_start(&mut self, start_ts_ms: i64) {
        if start_ts_ms == 0 {
            return;
        }
        for f in self.floats.iter_mut().filter(|f| f.start_ts_ms == 0) {
            f.start_ts_ms = start_ts_ms;
        }
        for h in self.histograms.iter_mut().filter(|h| h.start_ts_ms == 0) {
            h.start_ts_ms = start_ts_ms;
        }
    }

    /// Counts the samples of the series at hand as refused by a limit.
    #[cold]
    pub(crate) fn ran_into(&mut self, limit: Limit) {
        let samples = (self.floats.len() + self.histograms.len()) as u64;
        self.outcome.rejected.note_limit(limit, samples);
    }

    /// Ends a series that a reason outside of its labels condemns.
    #[cold]
    pub(crate) fn refuse_series(&mut self, reason: Reason, why: &str) {
        let labels = &self.labels;
        self.outcome.exemplars_dropped += self.exemplars.len() as u64;
        self.outcome.rejected.add(reason, (self.floats.len() + self.histograms.len()) as u64, || {
            format!("series {}: {why}", show(labels))
        });
        self.clear();
    }

    /// Notes an exemplar that cannot be read; its series is not touched.
    #[cold]
    pub(crate) fn refuse_exemplar(&mut self, why: &str) {
        let labels = &self.labels;
        self.outcome.rejected.add(Reason::BadReference, 0, || format!("series {}: {why}", show(labels)));
    }

    /// Notes metadata that cannot be read; the series it came with are not touched.
    #[cold]
    pub(crate) fn refuse_metadata(&mut self, metric: &str, why: &str) {
        self.outcome
            .rejected
            .add(Reason::InvalidUtf8, 0, || format!("metadata of {:?}: {why}", cut(metric, 80)));
    }

    /// Ends a series: checks it and hands on what is good. True if its labels were.
    pub(crate) fn end_series(&mut self) -> Result<bool, Fault> {
        if self.known.is_some() {
            self.request_needs(KNOWN_SERIES_BYTES)?;
            self.hand_on()?;
            self.clear();
            return Ok(true);
        }
        let valid = match self.check_labels() {
            Ok(label_bytes) => {
                self.request_needs(NEW_SERIES_BYTES + 2 * label_bytes)?;
                self.hand_on()?;
                true
            }
            Err(LabelFault { reason, limit, why }) => {
                if let Some(limit) = limit {
                    self.ran_into(limit);
                }
                self.refuse_series(reason, &why);
                false
            }
        };
        self.clear();
        Ok(valid)
    }

    /// The metric name of the series at hand, once its labels were read.
    pub(crate) fn metric_name(&self) -> Option<&'a str> {
        self.labels.iter().find(|(n, v)| *n == METRIC_NAME && !v.is_empty()).map(|(_, v)| *v)
    }

    fn clear(&mut self) {
        self.labels.clear();
        self.more_labels = 0;
        self.not_utf8 = None;
        self.floats.clear();
        self.histograms.clear();
        self.known = None;
        self.too_many = None;
        self.key = None;
        self.exemplars.clear();
        self.exemplar_labels.clear();
    }

    /// Upstream's rules (UTF-8 names; a metric name; no name empty or twice) and our limits. Sorts where the
    /// sender did not and drops empty values, which mean "no such label". Answers the bytes of all names and
    /// values.
    fn check_labels(&mut self) -> Result<usize, LabelFault> {
        let limits = self.limits;
        if let Some(bytes) = self.not_utf8 {
            let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
            let why = format!("the label name or value {shown:?} is not UTF-8");
            return Err(LabelFault::new(Reason::InvalidUtf8, why));
        }
        if self.more_labels > 0 {
            let have = self.labels.len() + self.more_labels;
            let why = too_many_labels(have, limits);
            return Err(LabelFault::by_limit(Reason::TooManyLabels, Limit::MaxLabelNames, why));
        }
        let (mut sorted, mut any_empty, mut named, mut bytes) = (true, false, false, 0);
        let mut last = "";
        for &(name, value) in &self.labels {
            check_label(name, value, limits)?;
            bytes += name.len() + value.len();
            any_empty |= value.is_empty();
            named |= name == METRIC_NAME && !value.is_empty();
            sorted &= last < name;
            last = name;
        }
        if bytes > limits.max_series_bytes {
            let why = format!(
                "{bytes} bytes of labels, more than {} (ingest.max_series_bytes)",
                limits.max_series_bytes
            );
            return Err(LabelFault::new(Reason::LabelTooLong, why));
        }
        if !sorted || any_empty {
            // What comes in such a form never compares equal with what is stored.
            self.key = None;
        }
        if !sorted {
            self.labels.sort_by_key(|(name, _)| *name);
            // Before empty values go: upstream counts these as duplicates too.
            if let Some(pair) = self.labels.windows(2).find(|w| w[0].0 == w[1].0) {
                let why = format!("the label name {:?} appears twice", cut(pair[0].0, 80));
                return Err(LabelFault::new(Reason::DuplicateLabelName, why));
            }
        }
        if !named {
            let why = "no metric name (the label __name__)".to_owned();
            return Err(LabelFault::new(Reason::MissingMetricName, why));
        }
        if any_empty {
            self.labels.retain(|(_, value)| !value.is_empty());
        }
        Ok(bytes)
    }

    /// Hands on what of the series at hand may be stored.
    fn hand_on(&mut self) -> Result<(), Fault> {
        let handed_on = |o: &Outcome| o.samples + o.histograms + o.exemplars;
        let before = handed_on(&self.outcome);
        self.request_needs(FLOAT_BYTES * self.floats.len())?;
        let mut series = self.known;
        let mut floats = std::mem::take(&mut self.floats);
        for f in floats.drain(..) {
            if self.left_out(f.ts_ms, &mut series) {
                continue;
            }
            let Some(series) = self.stored_series(&mut series) else {
                self.refuse_new_series(1);
                continue;
            };
            self.sink.float(series, f.ts_ms, f.value, f.start_ts_ms);
            self.outcome.samples += 1;
        }
        // Emptied, but with its room.
        self.floats = floats;
        if !self.histograms.is_empty() {
            self.hand_on_histograms(&mut series);
        }
        if !self.exemplars.is_empty() {
            self.hand_on_exemplars(&mut series)?;
        }
        self.outcome.series += u64::from(handed_on(&self.outcome) > before);
        if self.known.is_none()
            && let (Some(key), Some(series)) = (self.key, series)
        {
            self.sink.remember(key, series);
        }
        Ok(())
    }

    /// The series at hand in the store, made where it is new; `None` where the tenant has as many as it may.
    #[inline]
    fn stored_series(&mut self, series: &mut Option<SeriesRef>) -> Option<SeriesRef> {
        if series.is_none() && self.too_many.is_none() {
            match self.sink.series_within(&self.labels, &self.limits.series) {
                Ok(made) => *series = Some(made),
                Err(too_many) => self.too_many = Some(too_many),
            }
        }
        *series
    }

    /// Leaves out samples of a series that the tenant may not have.
    #[cold]
    fn refuse_new_series(&mut self, samples: u64) {
        let Some(too_many) = self.too_many else { return };
        self.outcome.rejected.note_limit(too_many.limit, samples);
        let labels = &self.labels;
        self.outcome
            .rejected
            .add(Reason::TooManySeries, samples, || format!("series {}: {too_many}", show(labels)));
    }

    fn hand_on_histograms(&mut self, series: &mut Option<SeriesRef>) {
        let mut histograms = std::mem::take(&mut self.histograms);
        for h in histograms.drain(..) {
            let value = match h.value {
                Ok(value) => value,
                Err(why) => {
                    let labels = &self.labels;
                    self.outcome.rejected.add(Reason::InvalidHistogram, 1, || {
                        format!("series {}: histogram at {}: {why}", show(labels), h.ts_ms)
                    });
                    continue;
                }
            };
            if self.left_out(h.ts_ms, series) {
                continue;
            }
            let Some(series) = self.stored_series(series) else {
                self.refuse_new_series(1);
                continue;
            };
            self.sink.histogram(series, h.ts_ms, Arc::new(value), h.start_ts_ms);
            self.outcome.histograms += 1;
        }
        // Emptied, but with its room.
        self.histograms = histograms;
    }

    fn hand_on_exemplars(&mut self, series: &mut Option<SeriesRef>) -> Result<(), Fault> {
        for e in std::mem::take(&mut self.exemplars) {
            let labels = &self.exemplar_labels[e.labels.clone()];
            let label_bytes: usize = labels.iter().map(|(name, value)| name.len() + value.len()).sum();
            self.request_needs(EXEMPLAR_BYTES + 2 * label_bytes)?;
            let kept = if let Some(too_many) = self.too_many {
                Err((Reason::TooManySeries, too_many.to_string()))
            } else if self.accepted_ms.contains(&e.ts_ms) {
                let Some(series) = self.stored_series(series) else {
                    self.outcome.exemplars_dropped += 1;
                    self.refuse_new_series(0);
                    continue;
                };
                self.sink.exemplar(series, e.ts_ms, e.value, &self.exemplar_labels[e.labels]).map_err(|why| {
                    let reason = match why {
                        Refused::TooLong => Reason::LabelTooLong,
                        Refused::OutOfOrder => Reason::OutOfOrderExemplar,
                        Refused::Full(_) => Reason::NoRoom,
                    };
                    (reason, why.to_string())
                })
            } else {
                Err((Reason::OutOfBounds, "exemplar out of bounds".into()))
            };
            match kept {
                Ok(_) => self.outcome.exemplars += 1,
                Err((reason, why)) => {
                    self.outcome.exemplars_dropped += 1;
                    if self.tells_of_exemplars {
                        let labels = &self.labels;
                        self.outcome
                            .rejected
                            .add(reason, 0, || format!("series {}: {why} at {} ms", show(labels), e.ts_ms));
                    }
                }
            }
        }
        Ok(())
    }

    /// Hands on what is known of a metric. Long texts are cut; a name that no series could have is refused.
    pub(crate) fn metadata(
        &mut self,
        metric: &str,
        kind: &'static str,
        help: &str,
        unit: &str,
    ) -> Result<(), Fault> {
        let max = self.limits.max_metadata_bytes;
        if metric.is_empty() || metric.len() > self.limits.max_label_value_bytes {
            self.outcome.rejected.add(Reason::MissingMetricName, 0, || {
                format!("metadata with a metric name of {} bytes: {:?}", metric.len(), cut(metric, 80))
            });
            return Ok(());
        }
        self.request_needs(METADATA_BYTES + 2 * (metric.len() + help.len().min(max) + unit.len().min(max)))?;
        let metadata =
            Metadata { kind: kind.into(), help: cut(help, max).into(), unit: cut(unit, max).into() };
        self.sink.metadata(metric, metadata);
        self.outcome.metadata += 1;
        Ok(())
    }
}

/// How late samples of a tenant may be.
struct Lateness {
    window_ms: i64,
    /// The newest sample of the tenant, where there is a limit.
    newest_ms: i64,
    /// From when on any sample is taken, and from when on those that are the newest of their series.
    any_from_ms: i64,
    in_order_from_ms: i64,
}

/// How far behind its tenant's newest a sample may be that comes in order, as in Prometheus.
const IN_ORDER_MS: i64 = 3_600_000;

impl Lateness {
    fn of(limits: &Limits, sink: &impl Sink) -> Lateness {
        match limits.out_of_order_ms.zip(sink.newest_ms()) {
            Some((window_ms, newest_ms)) => Lateness {
                window_ms,
                newest_ms,
                any_from_ms: newest_ms.saturating_sub(window_ms),
                in_order_from_ms: newest_ms.saturating_sub(window_ms.max(IN_ORDER_MS)),
            },
            None => {
                Lateness { window_ms: 0, newest_ms: 0, any_from_ms: i64::MIN, in_order_from_ms: i64::MIN }
            }
        }
    }
}

/// What is wrong with the labels of a series.
struct LabelFault {
    reason: Reason,
    /// The limit of the tenant that it is about.
    limit: Option<Limit>,
    why: String,
}

impl LabelFault {
    fn new(reason: Reason, why: String) -> LabelFault {
        LabelFault { reason, limit: None, why }
    }

    fn by_limit(reason: Reason, limit: Limit, why: String) -> LabelFault {
        LabelFault { reason, limit: Some(limit), why }
    }
}

/// Says of a series that it has more labels than it may.
pub(crate) fn too_many_labels(have: usize, limits: &Limits) -> String {
    format!(
        "{have} labels, more than {} (ingest.max_labels, or max_label_names_per_series of the tenant)",
        limits.max_labels
    )
}

/// A name and a value alone.
fn check_label(name: &str, value: &str, limits: &Limits) -> Result<(), LabelFault> {
    if name.is_empty() {
        let why = format!("a label with the value {:?} has no name", cut(value, 80));
        return Err(LabelFault::new(Reason::EmptyLabelName, why));
    }
    if name.len() > limits.max_label_name_bytes {
        let why = format!(
            "the label name {:?}… has {} bytes, more than {} (ingest.max_label_name_bytes, or max_label_name_length of the tenant)",
            cut(name, 80),
            name.len(),
            limits.max_label_name_bytes
        );
        return Err(LabelFault::by_limit(Reason::LabelTooLong, Limit::MaxLabelNameLength, why));
    }
    if value.len() > limits.max_label_value_bytes {
        let why = format!(
            "the value of label {:?} has {} bytes, more than {} (ingest.max_label_value_bytes, or max_label_value_length of the tenant)",
            cut(name, 80),
            value.len(),
            limits.max_label_value_bytes
        );
        return Err(LabelFault::by_limit(Reason::LabelTooLong, Limit::MaxLabelValueLength, why));
    }
    Ok(())
}

/// How many samples a message of that many bytes may hold. One takes at least nine bytes (a timestamp alone
/// takes seven), so an honest request never comes near. What comes near are empty samples, two bytes each,
/// which would unfold to twenty times their size.
pub(crate) fn samples_limit(body: &[u8]) -> usize {
    body.len() / 8 + 64
}

#[cold]
fn out_of_bounds(outcome: &mut Outcome, labels: &[(&str, &str)], ts_ms: i64, now_ms: i64, limits: &Limits) {
    outcome.rejected.add(Reason::OutOfBounds, 1, || {
        let what = if ts_ms < 0 {
            "before 1970".to_string()
        } else if ts_ms > now_ms {
            let limit = Limit::CreationGracePeriod;
            let what = format!("{} in the future", limit.shown(ts_ms.saturating_sub(now_ms) as u64));
            limit.refusal(what, limits.max_ahead_ms as u64)
        } else if let Some(grace_ms) =
            limits.past_grace_ms.filter(|grace| *grace < limits.retention_ms.unwrap_or(i64::MAX))
        {
            let limit = Limit::PastGracePeriod;
            let what = format!("{} old", limit.shown(now_ms.saturating_sub(ts_ms).max(0) as u64));
            limit.refusal(what, grace_ms as u64)
        } else {
            format!("older than the retention of {} s", limits.retention_ms.unwrap_or(0) / 1000)
        };
        format!("series {}: timestamp {ts_ms} ms is out of bounds: {what}", show(labels))
    });
    let grace = limits.past_grace_ms.unwrap_or(i64::MAX);
    if ts_ms > now_ms {
        outcome.rejected.note_limit(Limit::CreationGracePeriod, 1);
    } else if ts_ms >= 0 && grace < limits.retention_ms.unwrap_or(i64::MAX) {
        outcome.rejected.note_limit(Limit::PastGracePeriod, 1);
    }
}
