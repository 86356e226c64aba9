//! The recording of what a real Prometheus sent replays completely, and all of it is there, before and after
//! a flush and a restart.
//!
//! Where the recording lies, and what takes its place where it is absent: `test_services/recording.rs`.

mod test_services;

use std::collections::{BTreeMap, HashMap};
use test_services::recording::{self, STALE_BITS};
use test_services::remote_write::bytes_field;
use test_services::{Api, Hearth, Labels, Start};

/// What is in a recording, decoded here by the specification alone.
#[derive(Default)]
struct Contents {
    /// Samples by series and timestamp, as bits; staleness markers among them.
    samples: BTreeMap<Labels, BTreeMap<i64, u64>>,
    requests: usize,
}

impl Contents {
    fn read(frames: &[Vec<u8>]) -> Contents {
        let mut contents = Contents { requests: frames.len(), ..Contents::default() };
        // Labels are decoded once a series: the same bytes are the same labels.
        let mut known: HashMap<Vec<u8>, Labels> = HashMap::new();
        for body in frames {
            let message = snap::raw::Decoder::new().decompress_vec(body).expect("a frame is snappy");
            for (_, series) in Fields(&message).filter(|(field, _)| *field == 1) {
                let mut key = Vec::with_capacity(256);
                let mut samples = Vec::new();
                for (field, part) in Fields(series.bytes()) {
                    match field {
                        1 => bytes_field(&mut key, 1, part.bytes()),
                        2 => samples.push(sample(part.bytes())),
                        other => panic!("field {other} in a series"),
                    }
                }
                let labels = known.entry(key).or_insert_with_key(|key| labels(key));
                contents.samples.entry(labels.clone()).or_default().extend(samples);
            }
        }
        contents
    }

    fn count(&self) -> u64 {
        self.samples.values().map(|s| s.len() as u64).sum()
    }

    fn stale(&self) -> u64 {
        self.samples.values().flat_map(BTreeMap::values).filter(|b| **b == STALE_BITS).count() as u64
    }

    fn span(&self) -> (i64, i64) {
        let times = || self.samples.values().flat_map(BTreeMap::keys).copied();
        (times().min().expect("samples"), times().max().expect("samples"))
    }
}

fn labels(message: &[u8]) -> Labels {
    let text = |part: Option<Part<'_>>| {
        part.map_or_else(String::new, |p| String::from_utf8(p.bytes().to_vec()).expect("UTF-8"))
    };
    let label = |part: Part<'_>| {
        let mut parts: BTreeMap<u64, Part<'_>> = Fields(part.bytes()).collect();
        (text(parts.remove(&1)), text(parts.remove(&2)))
    };
    Fields(message).map(|(_, part)| label(part)).collect()
}

/// Timestamp and the bits of the value.
fn sample(message: &[u8]) -> (i64, u64) {
    let (mut timestamp_ms, mut bits) = (0, 0);
    for (field, part) in Fields(message) {
        match (field, part) {
            (1, Part::Number(n)) => bits = n,
            (2, Part::Number(n)) => timestamp_ms = n as i64,
            (other, _) => panic!("field {other} in a sample"),
        }
    }
    (timestamp_ms, bits)
}

/// The value of a field of a protobuf message.
enum Part<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Part<'a> {
    fn bytes(&self) -> &'a [u8] {
        match self {
            Part::Bytes(bytes) => bytes,
            Part::Number(n) => panic!("{n} where bytes should be"),
        }
    }
}

/// The fields of a protobuf message, by number, in their order.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, Part<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let tag = varint(&mut self.0);
        let part = match tag & 7 {
            0 => Part::Number(varint(&mut self.0)),
            1 => Part::Number(u64::from_le_bytes(take(&mut self.0, 8).try_into().expect("eight bytes"))),
            2 => {
                let length = varint(&mut self.0);
                Part::Bytes(take(&mut self.0, length as usize))
            }
            other => panic!("wire type {other}"),
        };
        Some((tag >> 3, part))
    }
}

fn varint(rest: &mut &[u8]) -> u64 {
    let mut out = 0;
    for shift in (0..).step_by(7) {
        let byte = take(rest, 1)[0];
        out |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    out
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (head, tail) = rest.split_at(count);
    *rest = tail;
    head
}

#[test]
fn recording_replays_completely() {
    let recording = recording::path();
    let real = recording.is_file();
    let frames = recording::requests();
    let contents = Contents::read(&frames);
    eprintln!(
        "replaying {}: {} requests, {} series, {} samples, {} of them staleness markers",
        if real { recording.display().to_string() } else { "a recording made up by this test".to_owned() },
        contents.requests,
        contents.samples.len(),
        contents.count(),
        contents.stale()
    );
    if real {
        // Counted by somebody else, who wrote it down beside the recording.
        let told = std::fs::read_to_string(recording.with_file_name("remote-write.json"))
            .expect("the facts lie beside the recording");
        let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
        assert_eq!(told["requests"], contents.requests);
        assert_eq!(told["series"], contents.samples.len());
        assert_eq!(told["distinct_samples"], contents.count());
        assert_eq!(told["stale_markers"], contents.stale());
    }

    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut hearth = Start::at(folder.path()).ready();
    for (n, body) in frames.iter().enumerate() {
        let answer = hearth.api.try_write_raw(body).unwrap_or_else(|e| panic!("request {n}: {e}"));
        assert_eq!(answer.status, 204, "request {n}: {}", answer.text());
    }
    check(&hearth, &contents, "replayed");
    hearth.api.flush();
    check(&hearth, &contents, "flushed");
    hearth = hearth.restart();
    check(&hearth, &contents, "restarted");

    // Sent once more, all of it is known already.
    for body in frames.iter().step_by(9) {
        assert_eq!(hearth.api.try_write_raw(body).expect("an answer").status, 204);
    }
    hearth = hearth.again();
    check(&hearth, &contents, "a ninth of it sent twice");
}

/// Counts all series and all samples, and compares every sample of every seventh metric.
fn check(hearth: &Hearth, contents: &Contents, when: &str) {
    let (first, last) = contents.span();
    let (start, end) = (test_services::api::seconds(first), test_services::api::seconds(last));
    let window = [("match[]", "{cluster=\"lab\"}"), ("start", &start), ("end", &end)];
    let listed = hearth.api.post_form("/api/v1/series", &window).data();
    assert_eq!(listed.as_array().map(Vec::len), Some(contents.samples.len()), "{when}: series");

    let mut metrics: BTreeMap<&str, Vec<&Labels>> = BTreeMap::new();
    for labels in contents.samples.keys() {
        metrics.entry(labels["__name__"].as_str()).or_default().push(labels);
    }
    let names = hearth.api.get("/api/v1/label/__name__/values", &window).data();
    assert_eq!(names.as_array().expect("names").len(), metrics.len(), "{when}: metrics");

    let range_ms = last - first + 1_000;
    let mut counted = 0.0;
    for (n, (metric, series)) in metrics.iter().enumerate() {
        let selector = format!("{{__name__=\"{metric}\",cluster=\"lab\"}}[{range_ms}ms]");
        counted += counted_over_time(&hearth.api, &selector, last);
        if n % 7 == 0 {
            let found = hearth.api.instant(&selector, last).matrix();
            for labels in series {
                let expected: Vec<_> =
                    contents.samples[*labels].iter().filter(|(_, b)| **b != STALE_BITS).collect();
                let actual = found.get(*labels).map_or(&[][..], Vec::as_slice);
                let same = expected.len() == actual.len()
                    && expected
                        .iter()
                        .zip(actual)
                        .all(|((t, bits), (u, v))| **t == *u && equal(f64::from_bits(**bits), *v));
                assert!(
                    same,
                    "{when}: {labels:?}: {} samples instead of {}, or others",
                    actual.len(),
                    expected.len()
                );
            }
        }
    }
    assert_eq!(
        counted,
        (contents.count() - contents.stale()) as f64,
        "{when}: samples, without staleness markers"
    );
}

fn counted_over_time(api: &Api, selector: &str, at: i64) -> f64 {
    let answer = api.instant(&format!("sum(count_over_time({selector}))"), at);
    // A metric may be nothing but staleness markers.
    if answer.is_empty() { 0.0 } else { answer.single() }
}

/// Bit for bit, but for NaN, which JSON writes in one way only.
fn equal(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}
