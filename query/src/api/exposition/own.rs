//! The process' own metrics as protobuf: `io.prometheus.client.MetricFamily` messages, each behind its
//! length.

use super::families::{Exemplar, Family, Histogram, Pairs, families};
use crate::api::protobuf::{bytes, delimited, double, message, varint};

/// Numbers of kinds in the messages.
const COUNTER: u64 = 0;
const GAUGE: u64 = 1;
const UNTYPED: u64 = 3;
const HISTOGRAM: u64 = 4;

/// The messages of OpenMetrics text that this process wrote itself.
pub fn protobuf(open_metrics: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(open_metrics.len());
    for of in families(open_metrics) {
        delimited(&mut out, |out| family(out, &of));
    }
    out
}

fn family(out: &mut Vec<u8>, family: &Family<'_>) {
    bytes(out, 1, family.name.as_bytes());
    if !family.help.is_empty() {
        bytes(out, 2, family.help.as_bytes());
    }
    let kind = match family.kind {
        "counter" => COUNTER,
        "gauge" | "info" | "stateset" => GAUGE,
        "histogram" => HISTOGRAM,
        _ => UNTYPED,
    };
    varint(out, 3, kind);
    if kind == HISTOGRAM {
        for of in family.histograms() {
            message(out, 4, |out| histogram(out, &of));
        }
        return;
    }
    for sample in &family.samples {
        message(out, 4, |out| {
            labels(out, &sample.labels);
            // Each kind has a field of its own, with its value in the same place.
            let field = match kind {
                COUNTER => 3,
                GAUGE => 2,
                _ => 5,
            };
            message(out, field, |out| {
                double(out, 1, number(sample.value));
                if let (COUNTER, Some(of)) = (kind, &sample.exemplar) {
                    message(out, 2, |out| exemplar(out, of));
                }
            });
        });
    }
}

fn histogram(out: &mut Vec<u8>, histogram: &Histogram<'_, '_>) {
    labels(out, &histogram.labels);
    message(out, 7, |out| {
        varint(out, 1, count(histogram.count.unwrap_or("0")));
        double(out, 2, number(histogram.sum.unwrap_or("0")));
        for (le, sample) in &histogram.buckets {
            message(out, 3, |out| {
                varint(out, 1, count(sample.value));
                double(out, 2, number(le));
                if let Some(of) = &sample.exemplar {
                    message(out, 3, |out| exemplar(out, of));
                }
            });
        }
    });
}

fn exemplar(out: &mut Vec<u8>, exemplar: &Exemplar<'_>) {
    labels(out, &exemplar.labels);
    double(out, 2, number(exemplar.value));
    let Some(seconds) = exemplar.time.and_then(|time| time.parse::<f64>().ok()) else { return };
    message(out, 3, |out| {
        varint(out, 1, seconds.floor().max(0.0) as u64);
        varint(out, 2, ((seconds - seconds.floor()) * 1e9) as u64);
    });
}

fn labels(out: &mut Vec<u8>, labels: &Pairs<'_>) {
    for (name, value) in labels {
        message(out, 1, |out| {
            bytes(out, 1, name.as_bytes());
            bytes(out, 2, value.as_bytes());
        });
    }
}

/// `+Inf`, `-Inf` and `NaN` are numbers to Rust too.
fn number(text: &str) -> f64 {
    text.parse().unwrap_or(f64::NAN)
}

fn count(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| number(text) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::protobuf::{Fields, Value};

    fn parts(message: &[u8], number: u64) -> Vec<Vec<u8>> {
        let fields = Fields::of(message).map(|f| f.unwrap());
        fields
            .filter_map(|f| match f {
                (n, Value::Bytes(b)) if n == number => Some(b.to_vec()),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn own_metrics_become_messages_behind_their_lengths() {
        let text = "# HELP a Says \\\"x\\\".\n# TYPE a counter\na_total{l=\"v\"} 2.5 # {trace_id=\"7\"} 1 1.25\n\
                    # TYPE h histogram\nh_sum 0.5\nh_count 3\nh_bucket{le=\"0.1\"} 2\nh_bucket{le=\"+Inf\"} 3 # {t=\"8\"} 4\n\
                    # TYPE u unknown\nu 1\n# EOF\n";
        let mut rest = &protobuf(text)[..];
        let mut families = Vec::new();
        while let Some(length) = model::codec::varint::take_u64(&mut rest) {
            let (family, after) = rest.split_at(length as usize);
            families.push(family);
            rest = after;
        }
        let [counter, histogram, untyped] = families[..] else { panic!("{families:?}") };
        assert_eq!(
            [&parts(counter, 1)[0][..], &parts(counter, 2)[0]],
            ["a_total".as_bytes(), "Says \"x\".".as_bytes()]
        );
        let metric = &parts(counter, 4)[0];
        assert_eq!(parts(&parts(metric, 1)[0], 2)[0], b"v");
        let value = &parts(metric, 3)[0];
        assert_eq!(value[..9], [&[1 << 3 | 1][..], &2.5f64.to_le_bytes()].concat()[..]);
        let exemplar = &parts(value, 2)[0];
        let time = &parts(exemplar, 3)[0];
        let time: Vec<_> = Fields::of(time).map(|f| f.unwrap()).collect();
        assert_eq!(time, [(1, Value::Varint(1)), (2, Value::Varint(250_000_000))]);
        assert!(Fields::of(histogram).any(|f| f == Ok((3, Value::Varint(HISTOGRAM)))));
        let histogram = &parts(&parts(histogram, 4)[0], 7)[0];
        assert_eq!(Fields::of(histogram).next(), Some(Ok((1, Value::Varint(3)))));
        let buckets = parts(histogram, 3);
        let count = |bucket: &[u8]| Fields::of(bucket).next() == Some(Ok((1, Value::Varint(2))));
        assert_eq!([count(&buckets[0]), count(&buckets[1])], [true, false]);
        assert!(buckets[1].windows(8).any(|w| w == f64::INFINITY.to_le_bytes()));
        assert_eq!(parts(&parts(&parts(&buckets[1], 3)[0], 1)[0], 1)[0], b"t");
        assert_eq!(parts(&parts(untyped, 4)[0], 5).len(), 1);
    }
}
