//! Chunks as Prometheus' readers decode them: floats bit by bit ([`float`]), native histograms with float
//! counts ([`histogram`]). Start timestamps have no place in these encodings and are left out; those that
//! have one are not read by Prometheus before 3.14 nor by Thanos.

mod bits;
mod float;
mod histogram;

use model::source::SeriesColumns;

use super::samples::histogram_at;

/// Samples of one chunk, as Prometheus' own head has them.
const MAX_SAMPLES: usize = 120;

/// Numbers of the encodings (`prometheus.Chunk.Encoding`).
const XOR: u8 = 1;
const FLOAT_HISTOGRAM: u8 = 3;

/// A chunk on its way.
#[derive(Clone, Debug)]
pub struct Chunk {
    pub min_t_ms: i64,
    pub max_t_ms: i64,
    pub encoding: u8,
    pub data: Vec<u8>,
}

/// The chunks of a series, each encoded when it is asked for.
pub struct Chunks<'a> {
    series: &'a SeriesColumns,
    next: usize,
}

impl<'a> Chunks<'a> {
    pub fn of(series: &'a SeriesColumns) -> Chunks<'a> {
        Chunks { series, next: 0 }
    }
}

impl Iterator for Chunks<'_> {
    type Item = Chunk;

    fn next(&mut self) -> Option<Chunk> {
        let (series, first) = (self.series, self.next);
        let first_ts_ms = *series.ts_ms.get(first)?;
        let end = series.ts_ms.len().min(first + MAX_SAMPLES);
        let (encoding, count, data) = match histogram_at(series, first) {
            None => {
                let floats = (first..end).take_while(|i| histogram_at(series, *i).is_none());
                let samples = floats.map(|i| (series.ts_ms[i], series.values[i]));
                let (count, data) = float::encode(samples);
                (XOR, count, data)
            }
            Some(_) => {
                let samples = (first..end).map_while(|i| Some((series.ts_ms[i], histogram_at(series, i)?)));
                let (count, data) = histogram::encode(samples);
                (FLOAT_HISTOGRAM, count, data)
            }
        };
        // Never none: the first sample is always taken.
        self.next = first + count.max(1);
        let max_t_ms = series.ts_ms[self.next - 1];
        Some(Chunk { min_t_ms: first_ts_ms, max_t_ms, encoding, data })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::histogram::{BucketSpan, CounterResetHint, Histogram};
    use model::labels::Labels;
    use model::sample::stale_nan;

    use super::*;

    fn columns(samples: Vec<(i64, Result<f64, Histogram>)>) -> SeriesColumns {
        SeriesColumns {
            labels: Labels::empty(),
            ts_ms: samples.iter().map(|(t, _)| *t).collect(),
            values: samples.iter().map(|(_, v)| v.as_ref().map_or_else(|h| h.sum, |v| *v)).collect(),
            histograms: Some(samples.into_iter().map(|(_, v)| v.err().map(Arc::new)).collect()),
            start_ts_ms: None,
            windows: None,
        }
    }

    fn histogram(count: f64) -> Histogram {
        Histogram {
            count,
            sum: count,
            zero_threshold: 0.001,
            positive_spans: vec![BucketSpan { offset: 0, length: 1 }],
            positive_buckets: vec![count],
            ..Histogram::default()
        }
    }

    #[test]
    fn chunks_are_cut_by_length_kind_and_resets() {
        let mut samples: Vec<_> = (0..250).map(|t| (t, Ok(t as f64))).collect();
        samples.extend((250..253).map(|t| (t, Err(histogram(t as f64)))));
        // A reset, a gauge, and what follows a marker.
        samples.push((253, Err(histogram(1.0))));
        let gauge = Histogram { counter_reset_hint: CounterResetHint::Gauge, ..histogram(2.0) };
        samples.extend([(254, Err(gauge.clone())), (255, Err(gauge))]);
        samples.push((256, Err(Histogram { sum: stale_nan(), ..histogram(0.0) })));
        samples.push((257, Err(histogram(3.0))));
        samples.push((258, Ok(1.0)));
        let series = columns(samples);
        let cut: Vec<_> = Chunks::of(&series).map(|c| (c.min_t_ms, c.max_t_ms, c.encoding)).collect();
        assert_eq!(
            cut,
            [
                (0, 119, XOR),
                (120, 239, XOR),
                (240, 249, XOR),
                (250, 252, FLOAT_HISTOGRAM),
                (253, 253, FLOAT_HISTOGRAM),
                (254, 256, FLOAT_HISTOGRAM),
                (257, 257, FLOAT_HISTOGRAM),
                (258, 258, XOR),
            ]
        );
        assert_eq!(Chunks::of(&columns(Vec::new())).count(), 0);
    }
}
