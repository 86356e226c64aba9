//! What decoding should come to, worked out plainly from messages that prost decoded.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::sync::Arc;

use ingest::Limits;
use ingest::remote_write::sink::Sink;
use model::exemplar::{Accepted, Refused};
use model::histogram::{BucketSpan, Histogram};
use model::sample::Metadata;
use tsdb::db::SeriesRef;

use crate::messages::{self, v1, v2};

/// A sink that keeps all it is given.
#[derive(Default, Debug, PartialEq, Clone)]
pub struct Notes {
    pub series: Vec<Series>,
    pub metadata: Vec<(String, Metadata)>,
}

#[derive(Default, Debug, PartialEq, Clone)]
pub struct Series {
    pub labels: Vec<(String, String)>,
    /// Timestamp, bits of the value, start timestamp.
    pub floats: Vec<(i64, u64, i64)>,
    pub histograms: Vec<(i64, Shape, i64)>,
    pub exemplars: Vec<Exemplar>,
}

/// Timestamp, bits of the value, labels.
pub type Exemplar = (i64, u64, Vec<(String, String)>);

/// A histogram in a form that compares bit for bit and does not depend on how buckets are cut into spans.
#[derive(Debug, PartialEq, Clone)]
pub struct Shape {
    pub hint: String,
    pub schema: i32,
    pub numbers: [u64; 4],
    pub positive: BTreeMap<i64, u64>,
    pub negative: BTreeMap<i64, u64>,
    pub bounds: Option<Vec<u64>>,
}

impl Sink for Notes {
    fn series(&mut self, labels: &[(&str, &str)]) -> SeriesRef {
        assert!(labels.windows(2).all(|w| w[0].0 < w[1].0), "ascending and unique: {labels:?}");
        assert!(labels.iter().all(|(n, v)| !n.is_empty() && !v.is_empty()), "{labels:?}");
        let labels = labels.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        self.series.push(Series { labels, ..Default::default() });
        SeriesRef(self.series.len() as u32 - 1)
    }
    fn float(&mut self, series: SeriesRef, ts_ms: i64, value: f64, start_ts_ms: i64) {
        self.series[series.0 as usize].floats.push((ts_ms, value.to_bits(), start_ts_ms));
    }
    fn histogram(&mut self, series: SeriesRef, ts_ms: i64, value: Arc<Histogram>, start_ts_ms: i64) {
        self.series[series.0 as usize].histograms.push((ts_ms, shape(&value), start_ts_ms));
    }
    fn exemplar(
        &mut self,
        series: SeriesRef,
        ts_ms: i64,
        value: f64,
        labels: &[(&str, &str)],
    ) -> Result<Accepted, Refused> {
        assert!(labels.windows(2).all(|w| w[0].0 < w[1].0), "ascending and unique: {labels:?}");
        let labels = labels.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        self.series[series.0 as usize].exemplars.push((ts_ms, value.to_bits(), labels));
        Ok(Accepted::New)
    }
    fn metadata(&mut self, metric: &str, metadata: Metadata) {
        self.metadata.push((metric.to_string(), metadata));
    }
}

fn shape(h: &Histogram) -> Shape {
    let side = |spans: &[BucketSpan], buckets: &[f64]| {
        let mut out = BTreeMap::new();
        let (mut index, mut counts) = (0i64, buckets.iter());
        for s in spans {
            index += i64::from(s.offset);
            for _ in 0..s.length {
                out.insert(index, counts.next().expect("as many buckets as the spans say").to_bits());
                index += 1;
            }
        }
        assert!(counts.next().is_none());
        out
    };
    Shape {
        hint: format!("{:?}", h.counter_reset_hint),
        schema: h.schema,
        numbers: [h.zero_threshold, h.zero_count, h.count, h.sum].map(f64::to_bits),
        positive: side(&h.positive_spans, &h.positive_buckets),
        negative: side(&h.negative_spans, &h.negative_buckets),
        bounds: h.custom_values.as_ref().map(|b| b.iter().map(|b| b.to_bits()).collect()),
    }
}

/// What is expected: what the sink gets, how many series, samples or metadata entries are refused.
#[derive(Default, Debug, PartialEq)]
pub struct Expected {
    pub notes: Notes,
    pub refused: u64,
    pub exemplars: u64,
    /// Exemplars out of bounds, until it is known whether the protocol tells of them.
    pub out_of_bounds: u64,
}

impl Expected {
    #[allow(clippy::too_many_arguments)]
    fn series(
        &mut self,
        labels: &[(&str, &str)],
        floats: &[(i64, f64, i64)],
        histograms: &[messages::Histogram],
        exemplars: Vec<Exemplar>,
        created: i64,
        limits: &Limits,
        now_ms: i64,
    ) -> bool {
        let mut map = BTreeMap::new();
        let fine = labels.len() <= limits.max_labels
            && labels.iter().all(|(n, v)| {
                !n.is_empty()
                    && n.len() <= limits.max_label_name_bytes
                    && v.len() <= limits.max_label_value_bytes
            })
            && labels.iter().map(|(n, v)| n.len() + v.len()).sum::<usize>() <= limits.max_series_bytes
            && labels.iter().all(|(n, v)| map.insert(n.to_string(), v.to_string()).is_none())
            && map.get("__name__").is_some_and(|n| !n.is_empty());
        if !fine {
            self.refused += 1;
            return false;
        }
        let labels = map.into_iter().filter(|(_, v)| !v.is_empty()).collect();
        let mut series = Series { labels, ..Default::default() };
        let oldest = limits.retention_ms.map_or(0, |r| now_ms - r);
        let in_bounds = |t: i64| t >= oldest && t <= now_ms + limits.max_ahead_ms;
        let start = |s: i64| if s == 0 { created } else { s };
        for (t, v, s) in floats {
            if in_bounds(*t) {
                series.floats.push((*t, v.to_bits(), start(*s)));
            } else {
                self.refused += 1;
            }
        }
        for h in histograms {
            match histogram(h) {
                Some(shape) if in_bounds(h.timestamp) => {
                    series.histograms.push((h.timestamp, shape, start(h.start_timestamp)));
                }
                _ => self.refused += 1,
            }
        }
        self.out_of_bounds += exemplars.iter().filter(|e| !in_bounds(e.0)).count() as u64;
        series.exemplars = exemplars.into_iter().filter(|e| in_bounds(e.0)).collect();
        self.exemplars += series.exemplars.len() as u64;
        if !series.floats.is_empty() || !series.histograms.is_empty() || !series.exemplars.is_empty() {
            self.notes.series.push(series);
        }
        true
    }
}

/// An exemplar as it is handed on; `None` where its labels are broken.
fn exemplar(labels: &[(&str, &str)], value: f64, ts_ms: i64) -> Option<Exemplar> {
    let mut map = BTreeMap::new();
    for (name, value) in labels {
        if name.is_empty() || (!value.is_empty() && map.insert(name.to_string(), value.to_string()).is_some())
        {
            return None;
        }
    }
    Some((ts_ms, value.to_bits(), map.into_iter().collect()))
}

const KINDS: [&str; 8] =
    ["unknown", "counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset"];

fn metadata(kind: i32, help: &str, unit: &str) -> Metadata {
    let kind = usize::try_from(kind).ok().and_then(|k| KINDS.get(k)).unwrap_or(&"unknown");
    Metadata { kind: kind.to_string(), help: help.to_string(), unit: unit.to_string() }
}

pub fn expect_v1(request: &v1::WriteRequest, limits: &Limits, now_ms: i64) -> Expected {
    let mut e = Expected::default();
    for s in &request.timeseries {
        let labels: Vec<_> = s.labels.iter().map(|l| (l.name.as_str(), l.value.as_str())).collect();
        let floats: Vec<_> = s.samples.iter().map(|s| (s.timestamp, s.value, 0)).collect();
        let exemplars = s.exemplars.iter().filter_map(|x| {
            let labels: Vec<_> = x.labels.iter().map(|l| (l.name.as_str(), l.value.as_str())).collect();
            exemplar(&labels, x.value, x.timestamp)
        });
        e.series(&labels, &floats, &s.histograms, exemplars.collect(), 0, limits, now_ms);
    }
    for m in &request.metadata {
        if m.metric_family_name.is_empty() {
            e.refused += 1;
        } else {
            e.notes.metadata.push((m.metric_family_name.clone(), metadata(m.r#type, &m.help, &m.unit)));
        }
    }
    Expected { out_of_bounds: 0, ..e }
}

pub fn expect_v2(request: &v2::Request, limits: &Limits, now_ms: i64) -> Expected {
    let mut e = Expected::default();
    let mut seen = Vec::new();
    for s in &request.timeseries {
        let symbol = |r: &u32| request.symbols.get(*r as usize).map(String::as_str);
        let exemplars = s.exemplars.iter().filter_map(|x| {
            let texts: Vec<&str> = x.labels_refs.iter().map(symbol).collect::<Option<_>>()?;
            let labels: Vec<_> = texts.chunks(2).map(|p| Some((p[0], *p.get(1)?))).collect::<Option<_>>()?;
            exemplar(&labels, x.value, x.timestamp)
        });
        let exemplars: Vec<_> = exemplars.collect();
        e.refused += u64::from(exemplars.len() < s.exemplars.len());
        let texts: Option<Vec<&str>> = s.labels_refs.iter().map(symbol).collect();
        let meta = s.metadata.unwrap_or_default();
        let (help, unit) = (symbol(&meta.help_ref), symbol(&meta.unit_ref));
        let nothing = s.samples.is_empty() && s.histograms.is_empty() && s.exemplars.is_empty();
        let (Some(texts), Some(help), Some(unit), false, true) =
            (texts, help, unit, nothing, s.labels_refs.len() % 2 == 0)
        else {
            e.refused += 1;
            continue;
        };
        let labels: Vec<_> = texts.chunks(2).map(|p| (p[0], p[1])).collect();
        let floats: Vec<_> = s.samples.iter().map(|s| (s.timestamp, s.value, s.start_timestamp)).collect();
        if e.series(&labels, &floats, &s.histograms, exemplars, s.created_timestamp, limits, now_ms) {
            let at = labels.iter().position(|(n, _)| *n == "__name__").expect("it was accepted");
            let name_ref = s.labels_refs[2 * at + 1];
            let metric = labels[at].1;
            if (meta.r#type != 0 || !help.is_empty() || !unit.is_empty()) && !seen.contains(&(name_ref, meta))
            {
                seen.push((name_ref, meta));
                let suffixes: &[&str] = match meta.r#type {
                    3 => &["_bucket", "_count", "_sum"],
                    4 => &["_bucket", "_gcount", "_gsum"],
                    5 => &["_count", "_sum"],
                    _ => &[],
                };
                let family = suffixes.iter().find_map(|s| metric.strip_suffix(s)).filter(|f| !f.is_empty());
                e.notes
                    .metadata
                    .push((family.unwrap_or(metric).to_string(), metadata(meta.r#type, help, unit)));
            }
        }
    }
    e.refused += std::mem::take(&mut e.out_of_bounds);
    e
}

/// Upstream's checks and conversions, in wide integers.
fn histogram(h: &messages::Histogram) -> Option<Shape> {
    let custom = h.schema == -53;
    if !custom && !(-4..=52).contains(&h.schema) {
        return None;
    }
    let absolute = |deltas: &[i64]| -> Option<Vec<i128>> {
        let mut at = 0i128;
        deltas
            .iter()
            .map(|d| {
                at += i128::from(*d);
                (0..=i128::from(i64::MAX)).contains(&at).then_some(at)
            })
            .collect()
    };
    let (count, zero, positive, negative) = match h.count {
        Some(messages::Count::Float(count)) => {
            let zero = match h.zero_count {
                Some(messages::ZeroCount::Float(z)) => z,
                _ => 0.0,
            };
            let counts = h.positive_counts.iter().chain(&h.negative_counts);
            if count < 0.0 || zero < 0.0 || counts.into_iter().any(|c| *c < 0.0) {
                return None;
            }
            (count, zero, h.positive_counts.clone(), h.negative_counts.clone())
        }
        other => {
            let count = match other {
                Some(messages::Count::Int(c)) => c,
                _ => 0,
            };
            let zero = match h.zero_count {
                Some(messages::ZeroCount::Int(z)) => z,
                _ => 0,
            };
            let (p, n) = (absolute(&h.positive_deltas)?, absolute(&h.negative_deltas)?);
            let found = p.iter().sum::<i128>() + n.iter().sum::<i128>() + i128::from(zero);
            if found > i128::from(count) || (!h.sum.is_nan() && found != i128::from(count)) {
                return None;
            }
            let floats = |v: Vec<i128>| v.into_iter().map(|c| c as f64).collect::<Vec<_>>();
            (count as f64, zero as f64, floats(p), floats(n))
        }
    };
    let side = |spans: &[messages::BucketSpan], counts: &[f64]| -> Option<Vec<(i64, f64)>> {
        let total: u64 = spans.iter().map(|s| u64::from(s.length)).sum();
        let reaches = spans.iter().scan(0i64, |at, s| {
            *at += i64::from(s.offset) + i64::from(s.length);
            Some(*at)
        });
        if total != counts.len() as u64
            || spans.iter().enumerate().any(|(i, s)| s.offset < 0 && (i > 0 || custom))
            || reaches.into_iter().any(|at| i32::try_from(at).is_err())
        {
            return None;
        }
        let mut index = 0i64;
        let mut indices = Vec::new();
        for s in spans {
            index += i64::from(s.offset);
            indices.extend((0..i64::from(s.length)).map(|i| index + i));
            index += i64::from(s.length);
        }
        Some(indices.into_iter().zip(counts.iter().copied()).collect())
    };
    let (mut positive, mut negative) =
        (side(&h.positive_spans, &positive)?, side(&h.negative_spans, &negative)?);
    let mut schema = h.schema;
    if custom {
        let b = &h.custom_values;
        let reach: i64 = h.positive_spans.iter().map(|s| i64::from(s.offset) + i64::from(s.length)).sum();
        let ascending = b.windows(2).all(|w| w[0] < w[1]) && b.iter().all(|b| !b.is_nan());
        if !ascending
            || b.last() == Some(&f64::INFINITY)
            || reach > b.len() as i64 + 1
            || zero != 0.0
            || h.zero_threshold != 0.0
            || !h.negative_spans.is_empty()
            || !negative.is_empty()
        {
            return None;
        }
    } else if !h.custom_values.is_empty() {
        return None;
    }
    if !custom && schema > 8 {
        // One step halves the resolution: bucket i falls into bucket ceil(i / 2).
        for _ in 8..schema {
            for side in [&mut positive, &mut negative] {
                for (i, _) in side.iter_mut() {
                    *i = i64::div_euclid(*i + 1, 2);
                }
            }
        }
        schema = 8;
    }
    let sum_up = |side: Vec<(i64, f64)>| {
        let mut out: BTreeMap<i64, f64> = BTreeMap::new();
        for (i, c) in side {
            out.entry(i).and_modify(|have| *have += c).or_insert(c);
        }
        out.into_iter().map(|(i, c)| (i, c.to_bits())).collect()
    };
    Some(Shape {
        hint: ["Unknown", "CounterReset", "Unknown", "Gauge"]
            .get(usize::try_from(h.reset_hint).unwrap_or(0))
            .unwrap_or(&"Unknown")
            .to_string(),
        schema,
        numbers: [h.zero_threshold, zero, count, h.sum].map(f64::to_bits),
        positive: sum_up(positive),
        negative: sum_up(negative),
        bounds: custom.then(|| h.custom_values.iter().map(|b| b.to_bits()).collect()),
    })
}
