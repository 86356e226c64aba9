//! A sender of remote write 1.0 made from the specification alone (https://prometheus.io/docs/specs/prw/remote_write_spec/), so that the tests
//! share no code with the receiver.

/// One series with samples (milliseconds, value). Labels are bytes, because some tests send what is not UTF-8, and stand as given.
#[derive(Clone, Debug)]
pub struct Series {
    pub labels: Vec<(Vec<u8>, Vec<u8>)>,
    pub samples: Vec<(i64, f64)>,
}

/// A series; the labels must come sorted by name, as senders send them.
pub fn series(labels: &[(&str, &str)], samples: &[(i64, f64)]) -> Series {
    let labels = labels.iter().map(|(k, v)| (k.as_bytes().to_vec(), v.as_bytes().to_vec())).collect();
    Series { labels, samples: samples.to_vec() }
}

/// `prometheus.WriteRequest` in protobuf: series are field 1; in them labels are field 1 (name 1, value 2) and samples field 2 (value 1 as a
/// double, timestamp 2 as a varint).
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
        bytes_field(&mut out, 1, &inner);
    }
    out
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
