//! A sender of remote write 1.0 made from the specification alone
//! (https://prometheus.io/docs/specs/prw/remote_write_spec/), so that the tests share no code with the
//! receiver.

/// One series with samples (milliseconds, value). Labels are bytes, because some tests send what is not
/// UTF-8, and stand as given.
#[derive(Clone, Debug)]
pub struct Series {
    pub labels: Vec<(Vec<u8>, Vec<u8>)>,
    pub samples: Vec<(i64, f64)>,
    pub histograms: Vec<Native>,
}

/// A native histogram; counts stand for each bucket, not as differences.
#[derive(Clone, Debug, Default)]
pub struct Native {
    pub at_ms: i64,
    /// -53 for custom buckets.
    pub schema: i32,
    pub zero_threshold: f64,
    pub zero_count: f64,
    pub count: f64,
    pub sum: f64,
    /// How many buckets are left out before, and how many follow.
    pub positive_spans: Vec<(i32, u32)>,
    pub positive: Vec<f64>,
    pub negative_spans: Vec<(i32, u32)>,
    pub negative: Vec<f64>,
    /// 0 unknown, 1 reset, 2 no reset, 3 gauge.
    pub reset_hint: u64,
    /// Sent as floats, not as integers.
    pub float: bool,
    pub custom_values: Vec<f64>,
}

/// A series; the labels must come sorted by name, as senders send them.
pub fn series(labels: &[(&str, &str)], samples: &[(i64, f64)]) -> Series {
    let labels = labels.iter().map(|(k, v)| (k.as_bytes().to_vec(), v.as_bytes().to_vec())).collect();
    Series { labels, samples: samples.to_vec(), histograms: Vec::new() }
}

/// `prometheus.WriteRequest` in protobuf: series are field 1; in them labels are field 1 (name 1, value 2)
/// and samples field 2 (value 1 as a double, timestamp 2 as a varint), histograms field 4.
pub fn write_request(all: &[Series]) -> Vec<u8> {
    let mut out = Vec::new();
    for one in all {
        let mut inner = Vec::new();
        for (name, value) in &one.labels {
            let mut label = Vec::new();
            bytes_field(&mut label, 1, name);
            bytes_field(&mut label, 2, value);
            bytes_field(&mut inner, 1, &label);
        }
        for (timestamp_ms, value) in &one.samples {
            let mut sample = vec![(1 << 3) | 1];
            sample.extend(value.to_bits().to_le_bytes());
            sample.push(2 << 3);
            varint(&mut sample, *timestamp_ms as u64);
            bytes_field(&mut inner, 2, &sample);
        }
        for histogram in &one.histograms {
            bytes_field(&mut inner, 4, &native(histogram));
        }
        bytes_field(&mut out, 1, &inner);
    }
    out
}

/// `prometheus.Histogram`.
fn native(h: &Native) -> Vec<u8> {
    let mut out = Vec::new();
    let double = |out: &mut Vec<u8>, field: u8, v: f64| {
        out.push((field << 3) | 1);
        out.extend(v.to_bits().to_le_bytes());
    };
    let number = |out: &mut Vec<u8>, field: u8, n: u64| {
        out.push(field << 3);
        varint(out, n);
    };
    if h.float {
        double(&mut out, 2, h.count);
        double(&mut out, 7, h.zero_count);
    } else {
        number(&mut out, 1, h.count as u64);
        number(&mut out, 6, h.zero_count as u64);
    }
    double(&mut out, 3, h.sum);
    number(&mut out, 4, zigzag(i64::from(h.schema)));
    double(&mut out, 5, h.zero_threshold);
    for (spans, counts, first) in [(&h.negative_spans, &h.negative, 8), (&h.positive_spans, &h.positive, 11)]
    {
        for (offset, length) in spans {
            let mut span = Vec::new();
            number(&mut span, 1, zigzag(i64::from(*offset)));
            number(&mut span, 2, u64::from(*length));
            bytes_field(&mut out, first, &span);
        }
        let mut packed = Vec::new();
        let mut last = 0;
        for count in counts {
            if h.float {
                packed.extend(count.to_bits().to_le_bytes());
            } else {
                varint(&mut packed, zigzag(*count as i64 - last));
                last = *count as i64;
            }
        }
        bytes_field(&mut out, if h.float { first + 2 } else { first + 1 }, &packed);
    }
    number(&mut out, 14, h.reset_hint);
    number(&mut out, 15, h.at_ms as u64);
    if !h.custom_values.is_empty() {
        let packed: Vec<u8> = h.custom_values.iter().flat_map(|v| v.to_bits().to_le_bytes()).collect();
        // A field's number past 15 takes a key of two bytes.
        varint(&mut out, (16 << 3) | 2);
        varint(&mut out, packed.len() as u64);
        out.extend(packed);
    }
    out
}

fn zigzag(n: i64) -> u64 {
    ((n << 1) ^ (n >> 63)) as u64
}

/// Snappy's block format, as remote write wants it.
pub fn snappy(body: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(body).expect("a test's body fits snappy")
}

pub fn bytes_field(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push((field << 3) | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub fn varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push((n as u8) | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}
