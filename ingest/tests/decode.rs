//! The hand-written parsers against prost: every message it encodes, every odd way to write the same, and
//! what remains of both when bytes are cut or changed.

mod messages;
mod oracle;

use ingest::reject::Reason;
use ingest::remote_write::{v1 as ours_v1, v2 as ours_v2};
use ingest::{DecodeError, Limits, Malformed, Outcome};
use messages::messy;
use messages::{BucketSpan, Count, Histogram, ZeroCount, v1, v2};
use model::source::testing::rng::Rng;
use oracle::{Expected, Notes, expect_v1, expect_v2};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use prost::Message;

const NOW_MS: i64 = 1_795_000_000_000;

fn limits() -> Limits {
    // Small enough that generated messages run into them.
    Limits {
        max_labels: 6,
        max_label_name_bytes: 12,
        max_label_value_bytes: 20,
        max_series_bytes: 60,
        ..Limits::default()
    }
}

type Decode = fn(&[u8], &Limits, i64, &mut Notes) -> Result<Outcome, DecodeError>;

fn got(decode: Decode, body: &[u8]) -> Result<Expected, Malformed> {
    let mut notes = Notes::default();
    let outcome = decode(body, &limits(), NOW_MS, &mut notes).map_err(|e| match e {
        DecodeError::Malformed(e) => e,
        DecodeError::NoMemory(e) => panic!("{e}"),
    })?;
    assert_eq!(outcome.series, notes.series.len() as u64);
    assert_eq!(outcome.samples, notes.series.iter().map(|s| s.floats.len() as u64).sum::<u64>());
    assert_eq!(outcome.histograms, notes.series.iter().map(|s| s.histograms.len() as u64).sum::<u64>());
    assert_eq!(outcome.metadata, notes.metadata.len() as u64);
    assert!(outcome.rejected.told().iter().all(|t| t.len() < 600), "{:?}", outcome.rejected);
    let refused = Reason::ALL.iter().map(|r| outcome.rejected.items(*r)).sum();
    Ok(Expected { notes, refused, exemplars: outcome.exemplars, out_of_bounds: 0 })
}

fn got_v1(body: &[u8]) -> Result<Expected, Malformed> {
    got(ours_v1::decode, body)
}

fn got_v2(body: &[u8]) -> Result<Expected, Malformed> {
    got(ours_v2::decode, body)
}

fn timestamp() -> impl Strategy<Value = i64> {
    prop_oneof![
        8 => NOW_MS - 10_000_000..NOW_MS + 700_000,
        1 => Just(0i64),
        1 => any::<i64>(),
    ]
}

fn text(max: usize) -> impl Strategy<Value = String> {
    proptest::string::string_regex(&format!("[a-c_é]{{0,{max}}}")).unwrap()
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![3 => Just("__name__".to_string()), 6 => text(3), 1 => text(14)]
}

prop_compose! {
    fn label()(name in name(), value in text(24)) -> v1::Label {
        v1::Label { name, value }
    }
}

prop_compose! {
    /// Whole histograms, true to themselves; with `broken` one number is changed so that most are not.
    fn histogram()(
        whole in any::<bool>(),
        schema in prop_oneof![-4..=8i32, 9..=52i32, Just(-53), any::<i32>()],
        spans in proptest::collection::vec((-3..9i32, 0..4u32), 0..4),
        counts in proptest::collection::vec(0..1000u32, 16),
        zero in 0..50u64,
        sum in any::<f64>(),
        hint in -1..6i32,
        ts in timestamp(),
        start in prop_oneof![Just(0), timestamp()],
        sides in any::<(bool, bool)>(),
        broken in 0..40u32,
    ) -> Histogram {
        let custom = schema == -53;
        let mut spans: Vec<_> = spans.iter().enumerate().map(|(i, (offset, length))| BucketSpan {
            offset: if i > 0 || custom { offset.abs() } else { *offset },
            length: *length,
        }).collect();
        let buckets = spans.iter().map(|s| s.length as usize).sum::<usize>();
        let counts = &counts[..buckets];
        let zero = if custom { 0 } else { zero };
        let (positive, negative) = (sides.0 || custom, sides.1 && !custom);
        let mut total = zero;
        let mut h = Histogram { sum, schema, timestamp: ts, start_timestamp: start, reset_hint: hint, ..Default::default() };
        if custom {
            let reach = spans.iter().map(|s| i64::from(s.offset) + i64::from(s.length)).sum::<i64>();
            h.custom_values = (0..reach).map(|i| i as f64 / 4.0).collect();
        } else {
            h.zero_threshold = 1e-9;
        }
        match broken {
            0 => spans.push(BucketSpan { offset: -1, length: 0 }),
            1 => spans.push(BucketSpan { offset: 0, length: 1 }),
            2 => h.custom_values.push(1.0),
            3 => h.custom_values.push(f64::INFINITY),
            4 => h.custom_values.push(f64::NAN),
            5 => spans.push(BucketSpan { offset: i32::MAX, length: 0 }),
            6 => total += 1,
            7 => h.zero_threshold = 0.5,
            _ => {}
        }
        let deltas: Vec<i64> = counts.iter().scan(0, |last, c| {
            let delta = i64::from(*c) - *last;
            *last = i64::from(*c);
            Some(delta)
        }).collect();
        let floats: Vec<f64> = counts.iter().map(|c| f64::from(*c) / if broken == 8 { -3.0 } else { 3.0 }).collect();
        for (wanted, to_spans, to_deltas, to_counts) in [
            (positive, &mut h.positive_spans, &mut h.positive_deltas, &mut h.positive_counts),
            (negative, &mut h.negative_spans, &mut h.negative_deltas, &mut h.negative_counts),
        ] {
            if wanted {
                total += counts.iter().map(|c| u64::from(*c)).sum::<u64>();
                to_spans.clone_from(&spans);
                if whole { to_deltas.clone_from(&deltas) } else { to_counts.clone_from(&floats) }
            }
        }
        if broken == 9 {
            h.positive_deltas.push(i64::MIN);
        }
        if whole {
            h.count = Some(Count::Int(total));
            h.zero_count = Some(ZeroCount::Int(zero));
        } else {
            h.count = Some(Count::Float(if broken == 10 { -1.0 } else { total as f64 / 3.0 }));
            h.zero_count = Some(ZeroCount::Float(zero as f64 / 3.0));
        }
        if broken == 11 {
            h.count = None;
        }
        h
    }
}

prop_compose! {
    fn write_request()(
        timeseries in proptest::collection::vec((
            proptest::collection::vec(label(), 0..8),
            proptest::collection::vec((any::<f64>(), timestamp()), 0..4),
            proptest::collection::vec(histogram(), 0..3),
            proptest::collection::vec((proptest::collection::vec(label(), 0..2), any::<f64>(), timestamp()), 0..2),
        ), 0..6),
        metadata in proptest::collection::vec((-1..10i32, text(5), text(30), text(4)), 0..3),
    ) -> v1::WriteRequest {
        v1::WriteRequest {
            timeseries: timeseries.into_iter().map(|(labels, samples, histograms, exemplars)| v1::TimeSeries {
                labels,
                samples: samples.into_iter().map(|(value, timestamp)| v1::Sample { value, timestamp }).collect(),
                exemplars: exemplars.into_iter().map(|(labels, value, timestamp)| v1::Exemplar { labels, value, timestamp }).collect(),
                // 1.0 has no such field: prost would keep it, ours reads it, so none is sent.
                histograms: histograms.into_iter().map(|h| Histogram { start_timestamp: 0, ..h }).collect(),
            }).collect(),
            metadata: metadata.into_iter().map(|(r#type, metric_family_name, help, unit)| v1::MetricMetadata { r#type, metric_family_name, help, unit }).collect(),
        }
    }
}

prop_compose! {
    fn request_v2()(
        words in proptest::collection::vec(text(24), 3..12),
        timeseries in proptest::collection::vec((
            proptest::collection::vec((0..12u32, 0..14u32), 0..6),
            proptest::collection::vec((any::<f64>(), timestamp(), prop_oneof![Just(0), timestamp()]), 0..3),
            proptest::collection::vec(histogram(), 0..2),
            proptest::collection::vec((proptest::collection::vec(0..14u32, 0..3), any::<f64>(), timestamp()), 0..2),
            proptest::option::of((-1..10i32, 0..14u32, 0..14u32)),
            prop_oneof![3 => Just(0), 1 => timestamp()],
            0..20u32,
        ), 0..6),
    ) -> v2::Request {
        // The empty symbol first, as the specification wants, then the one name that every good series needs.
        let mut symbols = vec![String::new(), "__name__".into(), "req_bucket".into()];
        symbols.extend(words);
        v2::Request {
            symbols,
            timeseries: timeseries.into_iter().map(|(pairs, samples, histograms, exemplars, metadata, created_timestamp, odd)| {
                let mut labels_refs = vec![1, 2];
                if odd == 1 {
                    labels_refs.clear();
                }
                // Names from 3 on: the fixed ones would nearly always be there twice.
                labels_refs.extend(pairs.into_iter().flat_map(|(n, v)| [n.max(3), v]));
                if odd == 0 {
                    labels_refs.pop();
                }
                v2::TimeSeries {
                    labels_refs,
                    samples: samples.into_iter().map(|(value, timestamp, start_timestamp)| v2::Sample { value, timestamp, start_timestamp }).collect(),
                    histograms,
                    exemplars: exemplars.into_iter().map(|(labels_refs, value, timestamp)| v2::Exemplar { labels_refs, value, timestamp }).collect(),
                    metadata: metadata.map(|(r#type, help_ref, unit_ref)| v2::Metadata { r#type, help_ref, unit_ref }),
                    created_timestamp,
                }
            }).collect(),
        }
    }
}

/// After a change of bytes: where prost still reads a message, ours reads the same one, and where prost does
/// not, ours does not either; but for what is meant to differ.
fn same_verdict<M: Message + Default>(
    body: &[u8],
    ours: fn(&[u8]) -> Result<Expected, Malformed>,
    expect: fn(&M, &Limits, i64) -> Expected,
) {
    match (M::decode(body), ours(body)) {
        (Ok(m), Ok(got)) => {
            let want = expect(&m, &limits(), NOW_MS);
            assert_eq!(got.notes, want.notes);
            assert_eq!((got.refused, got.exemplars), (want.refused, want.exemplars));
        }
        (Ok(_), Err(e)) => {
            assert!(
                e.what.contains("is a group") || e.what.contains("in so few bytes"),
                "prost reads it: {e}"
            );
            assert!(e.at <= body.len());
        }
        // Text that is not UTF-8 is a matter of one series here, and none where nothing reads it.
        (Err(e), Ok(_)) => assert!(e.to_string().contains("not UTF-8"), "prost refuses it: {e}"),
        (Err(_), Err(e)) => assert!(e.at <= body.len()),
    }
}

fn change(rng: &mut Rng, body: &mut Vec<u8>) {
    for _ in 0..1 + rng.below(4) {
        if body.is_empty() {
            return;
        }
        let at = rng.below(body.len());
        match rng.below(6) {
            0 => body[at] ^= 1 << rng.below(8),
            1 => body[at] = rng.roll() as u8,
            2 => body.truncate(at),
            3 => drop(body.drain(at..(at + 1 + rng.below(8)).min(body.len()))),
            4 => body.insert(at, [0, 0x7f, 0x80, 0xff, 0x0a, 0x12][rng.below(6)]),
            _ => {
                let to = (at + 1 + rng.below(16)).min(body.len());
                let piece = body[at..to].to_vec();
                let at = rng.below(body.len());
                body.splice(at..at, piece);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn v1_as_prost_encodes_it_and_as_nobody_does(request in write_request(), seed in any::<u64>()) {
        let want = expect_v1(&request, &limits(), NOW_MS);
        // prost, as Go's encoder, leaves out what equals zero, and -0.0 does.
        let plain = request.encode_to_vec();
        let plainly = expect_v1(&v1::WriteRequest::decode(&plain[..]).unwrap(), &limits(), NOW_MS);
        prop_assert_eq!(&got_v1(&plain).unwrap(), &plainly);
        let mut rng = Rng(seed);
        let body = messy::write_request(&mut rng, &request);
        // Compared as text: NaN is not equal to itself.
        prop_assert_eq!(format!("{:?}", v1::WriteRequest::decode(&body[..]).unwrap()), format!("{request:?}"), "the oracle itself");
        prop_assert_eq!(&got_v1(&body).unwrap(), &want);
    }

    #[test]
    fn v2_as_prost_encodes_it_and_as_nobody_does(request in request_v2(), seed in any::<u64>()) {
        let want = expect_v2(&request, &limits(), NOW_MS);
        // prost, as Go's encoder, leaves out what equals zero, and -0.0 does.
        let plain = request.encode_to_vec();
        let plainly = expect_v2(&v2::Request::decode(&plain[..]).unwrap(), &limits(), NOW_MS);
        prop_assert_eq!(&got_v2(&plain).unwrap(), &plainly);
        let mut rng = Rng(seed);
        let body = messy::request_v2(&mut rng, &request);
        prop_assert_eq!(format!("{:?}", v2::Request::decode(&body[..]).unwrap()), format!("{request:?}"), "the oracle itself");
        prop_assert_eq!(&got_v2(&body).unwrap(), &want);
    }

    #[test]
    fn cut_at_every_byte_prost_and_ours_agree(one in write_request(), two in request_v2(), seed in any::<u64>()) {
        let one = one.encode_to_vec();
        for end in 0..=one.len().min(600) {
            same_verdict::<v1::WriteRequest>(&one[..end], got_v1, expect_v1);
        }
        let two = messy::request_v2(&mut Rng(seed), &two);
        for end in 0..=two.len().min(600) {
            same_verdict::<v2::Request>(&two[..end], got_v2, expect_v2);
        }
    }
}

#[test]
fn decoders_judge_changed_bytes_as_prost_does() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut rng = Rng(20_261_124);
    let tree = |runner: &mut proptest::test_runner::TestRunner| {
        (
            write_request().new_tree(runner).unwrap().current(),
            request_v2().new_tree(runner).unwrap().current(),
        )
    };
    for _ in 0..200 {
        let (one, two) = tree(&mut runner);
        let one = messy::write_request(&mut rng, &one);
        let two = messy::request_v2(&mut rng, &two);
        for _ in 0..40 {
            let mut body = one.clone();
            change(&mut rng, &mut body);
            same_verdict::<v1::WriteRequest>(&body, got_v1, expect_v1);
            let mut body = two.clone();
            change(&mut rng, &mut body);
            same_verdict::<v2::Request>(&body, got_v2, expect_v2);
            // The right bytes for the other protocol, as a sender that mixes up its content types has them.
            _ = (got_v2(&one), got_v1(&two));
        }
    }
    // Noise, and noise that starts like a message.
    for i in 0..4000 {
        let mut body: Vec<u8> = (0..rng.below(60)).map(|_| rng.roll() as u8).collect();
        if i % 2 == 0 {
            body.insert(0, body.len() as u8);
            body.insert(0, [0x0a, 0x1a, 0x22, 0x2a][i / 2 % 4]);
        }
        same_verdict::<v1::WriteRequest>(&body, got_v1, expect_v1);
        same_verdict::<v2::Request>(&body, got_v2, expect_v2);
    }
}

#[test]
fn groups_are_refused_wherever_they_stand() {
    let series = messages::series(&[("__name__", "up")], &[(NOW_MS, 1.0)]);
    let good = v1::WriteRequest { timeseries: vec![series.clone()], metadata: vec![] }.encode_to_vec();
    for key in [&[0xa3u8, 0x06][..], &[0xa4, 0x06], &[0x0b], &[0x0c]] {
        let outside = [&good[..], key].concat();
        assert!(got_v1(&outside).is_err(), "{key:x?} after the series");
        let inner = [&series.encode_to_vec()[..], key].concat();
        let inside = [&[0x0a, inner.len() as u8][..], &inner].concat();
        assert!(got_v1(&inside).is_err(), "{key:x?} in the series");
    }
}

#[test]
fn bytes_that_unfold_are_bounded() {
    let unfolded = |e: Result<Expected, Malformed>| match e {
        Ok(e) => e.notes.series.iter().map(|s| s.floats.len() + s.histograms.len()).sum::<usize>(),
        Err(e) => {
            assert!(e.what.contains("in so few bytes"), "{e}");
            0
        }
    };
    let repeat = |piece: &[u8], n: usize| piece.repeat(n);
    let message = |key: u8, inner: &[u8]| {
        let mut out = vec![key];
        let mut len = inner.len();
        while len >= 0x80 {
            out.push(len as u8 | 0x80);
            len >>= 7;
        }
        out.push(len as u8);
        [&out[..], inner].concat()
    };
    let n = 200_000;
    let bodies = [
        message(0x0a, &repeat(&[0x12, 0], n)),
        message(0x0a, &repeat(&[0x22, 0], n)),
        message(0x0a, &repeat(&[0x0a, 0], n)),
        repeat(&[0x0a, 0], n),
        repeat(&[0x1a, 0], n),
        message(0x0a, &message(0x22, &repeat(&[0x42, 0], n))),
        message(0x0a, &message(0x22, &message(0x62, &vec![0; n]))),
        repeat(&[0x22, 0], n),
        message(0x2a, &repeat(&[0x12, 0], n)),
        message(0x2a, &message(0x0a, &vec![0; n])),
        repeat(&[0x2a, 0], n),
    ];
    for body in bodies {
        assert!(unfolded(got_v1(&body)) <= body.len() / 8 + 64);
        assert!(unfolded(got_v2(&body)) <= body.len() / 8 + 64);
    }
}

/// A request as a sender has it: some hundred kilobytes, every series with its metric's metadata.
#[test]
fn metadata_of_2_0_is_handed_on_once_for_each_metric() {
    let mut request = v2::Request {
        symbols: ["", "__name__", "req_bucket", "le", "Requests.", "seconds", "req_count"]
            .map(String::from)
            .to_vec(),
        timeseries: vec![],
    };
    for i in 0..1000 {
        request.symbols.push(format!("{i}"));
        request.timeseries.push(v2::TimeSeries {
            labels_refs: vec![1, if i % 2 == 0 { 2 } else { 6 }, 3, 7 + i],
            samples: vec![v2::Sample { value: 1.0, timestamp: NOW_MS, start_timestamp: NOW_MS - 5 }],
            metadata: Some(v2::Metadata { r#type: 3, help_ref: 4, unit_ref: 5 }),
            ..Default::default()
        });
    }
    let got = got_v2(&request.encode_to_vec()).unwrap();
    assert_eq!(got.notes.series.len(), 1000);
    assert_eq!(got.notes.series[7].floats, [(NOW_MS, 1.0f64.to_bits(), NOW_MS - 5)]);
    let names: Vec<_> =
        got.notes.metadata.iter().map(|(n, m)| format!("{n} {} {} {}", m.kind, m.help, m.unit)).collect();
    assert_eq!(names, ["req histogram Requests. seconds"; 2], "once for each symbol that names it");
}
