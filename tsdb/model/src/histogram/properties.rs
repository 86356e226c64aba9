//! Laws that histogram arithmetic must keep, on random histograms, and that nothing panics on nonsense.

use proptest::prelude::*;

use super::layout::Side;
use super::*;

/// A valid exponential histogram with whole counts, so that every sum is exact.
fn exponential() -> impl Strategy<Value = Histogram> {
    let side = || proptest::collection::btree_map(-12i32..12, 0u32..9, 0..8);
    let threshold = prop_oneof![Just(0.0), (-6i32..3).prop_map(|e| f64::from(e).exp2()), 0.0f64..3.0];
    (-4i32..=8, side(), side(), threshold, 0u32..9, -100i32..100).prop_map(
        |(schema, positive, negative, zero_threshold, zero_count, sum)| {
            let build = |m: &std::collections::BTreeMap<i32, u32>| {
                let mut side = Side::default();
                for (index, count) in m {
                    side.push(*index, f64::from(*count));
                }
                side
            };
            // Buckets inside the zero bucket would be counted by none and by both: a client never sends them.
            let outside = |m: std::collections::BTreeMap<i32, u32>| {
                m.into_iter().filter(|(i, _)| exponential_bound(*i - 1, schema) >= zero_threshold).collect()
            };
            let (positive, negative) = (build(&outside(positive)), build(&outside(negative)));
            let count = positive.counts.iter().chain(&negative.counts).sum::<f64>() + f64::from(zero_count);
            Histogram {
                schema,
                zero_threshold,
                zero_count: f64::from(zero_count),
                count,
                sum: f64::from(sum),
                positive_spans: positive.spans,
                positive_buckets: positive.counts,
                negative_spans: negative.spans,
                negative_buckets: negative.counts,
                ..Histogram::default()
            }
        },
    )
}

/// Several that differ in schema or in zero bucket, not in both: where a zero bucket ends inside a bucket of
/// the coarser schema, upstream counts what it has swallowed there once more, and its answers are the ones to
/// give.
fn compatible(n: usize) -> impl Strategy<Value = Vec<Histogram>> {
    (proptest::collection::vec(exponential(), n), any::<bool>()).prop_map(|(mut all, same_schema)| {
        let (schema, threshold) = (all[0].schema, all[0].zero_threshold);
        for h in &mut all {
            if same_schema {
                h.schema = schema;
            } else {
                h.zero_threshold = threshold;
            }
            // What the change has put inside the zero bucket goes.
            let (schema, threshold) = (h.schema, h.zero_threshold);
            for (spans, counts) in [
                (&mut h.positive_spans, &mut h.positive_buckets),
                (&mut h.negative_spans, &mut h.negative_buckets),
            ] {
                let mut side = Side::default();
                for (index, count) in buckets::Indexed::new(spans, counts) {
                    if exponential_bound(index - 1, schema) >= threshold {
                        side.push(index, count);
                    }
                }
                (*spans, *counts) = (side.spans, side.counts);
            }
            h.count = in_buckets(h);
        }
        all
    })
}

fn custom() -> impl Strategy<Value = Histogram> {
    let bounds = proptest::collection::btree_set(0i32..12, 0..8);
    (bounds, proptest::collection::vec(0u32..9, 9), -100i32..100).prop_map(|(bounds, counts, sum)| {
        let counts: Vec<f64> = counts.into_iter().take(bounds.len() + 1).map(f64::from).collect();
        Histogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            count: counts.iter().sum(),
            sum: f64::from(sum),
            positive_spans: vec![BucketSpan { offset: 0, length: counts.len() as u32 }],
            positive_buckets: counts,
            custom_values: (!bounds.is_empty()).then(|| bounds.into_iter().map(f64::from).collect()),
            ..Histogram::default()
        }
    })
}

/// Anything the types can hold.
fn nonsense() -> impl Strategy<Value = Histogram> {
    let number = || prop_oneof![any::<f64>(), -3.0f64..3.0, Just(0.0)];
    let spans = || {
        let span = prop_oneof![(any::<i32>(), any::<u32>()), (-3i32..3, 0u32..4)];
        proptest::collection::vec(span.prop_map(|(offset, length)| BucketSpan { offset, length }), 0..4)
    };
    let numbers = move || proptest::collection::vec(number(), 0..6);
    let schema = prop_oneof![any::<i32>(), -5i32..10, Just(CUSTOM_BUCKETS_SCHEMA)];
    (schema, proptest::collection::vec(number(), 4), spans(), spans(), numbers(), numbers(), numbers())
        .prop_map(
            |(schema, n, positive_spans, negative_spans, positive_buckets, negative_buckets, bounds)| {
                Histogram {
                    schema,
                    zero_threshold: n[0],
                    zero_count: n[1],
                    count: n[2],
                    sum: n[3],
                    positive_spans,
                    negative_spans,
                    positive_buckets,
                    negative_buckets,
                    custom_values: Some(bounds.into()),
                    ..Histogram::default()
                }
            },
        )
}

fn in_buckets(h: &Histogram) -> f64 {
    h.zero_count + h.positive_buckets.iter().chain(&h.negative_buckets).sum::<f64>()
}

fn plus(a: &Histogram, b: &Histogram) -> Histogram {
    let mut sum = a.clone();
    sum.add(b).expect("schemas of one kind");
    sum.compact(0);
    sum
}

proptest! {
    #[test]
    fn histograms_that_are_made_are_valid(h in exponential(), c in custom()) {
        prop_assert_eq!(h.validate(), Ok(()));
        prop_assert_eq!(c.validate(), Ok(()));
    }

    #[test]
    fn coarser_schema_keeps_every_observation(h in exponential(), down in 0i32..12) {
        let schema = (h.schema - down).max(-4);
        let coarse = h.copy_to_schema(schema).unwrap();
        prop_assert_eq!(coarse.validate(), Ok(()));
        prop_assert_eq!(in_buckets(&coarse), in_buckets(&h));
        prop_assert_eq!((coarse.count, coarse.sum), (h.count, h.sum));
        // Step by step or at once is the same.
        let mut step_by_step = h.clone();
        for s in (schema..h.schema).rev() {
            step_by_step.reduce_resolution(s).unwrap();
        }
        prop_assert!(step_by_step.equals(&coarse));
        prop_assert!(schema == h.schema || h.copy_to_schema(h.schema + 1).is_err());
    }

    #[test]
    fn addition_commutes_and_keeps_every_observation(all in compatible(2)) {
        let [a, b] = &all[..] else { unreachable!("two were asked for") };
        let (a, b) = (a.clone(), b.clone());
        let (ab, ba) = (plus(&a, &b), plus(&b, &a));
        prop_assert!(ab.equals(&ba), "{ab} {ba}");
        prop_assert_eq!(ab.validate(), Ok(()));
        prop_assert_eq!(in_buckets(&ab), in_buckets(&a) + in_buckets(&b));
        prop_assert_eq!(ab.count, a.count + b.count);
        prop_assert_eq!(ab.schema, a.schema.min(b.schema));
        prop_assert!(ab.zero_threshold >= a.zero_threshold.max(b.zero_threshold));
    }

    #[test]
    fn addition_is_associative(all in compatible(3)) {
        let [a, b, c] = &all[..] else { unreachable!("three were asked for") };
        let (a, b, c) = (a.clone(), b.clone(), c.clone());
        let (left, right) = (plus(&plus(&a, &b), &c), plus(&a, &plus(&b, &c)));
        // The zero bucket may end at different bounds, depending on what lay at its edge when it was widened;
        // all else agrees.
        prop_assert_eq!(in_buckets(&left), in_buckets(&right));
        if left.zero_threshold == right.zero_threshold {
            prop_assert!(left.equals(&right), "{left} {right}");
        }
    }

    #[test]
    fn subtraction_undoes_addition(all in compatible(2)) {
        let [a, b] = &all[..] else { unreachable!("two were asked for") };
        let (a, b) = (a.clone(), b.clone());
        let sum = plus(&a, &b);
        let mut back = sum.clone();
        back.sub(&b).unwrap();
        back.compact(0);
        // What is left of `a` has the sum's schema and zero bucket: so has `a` after an empty histogram of
        // that shape is added.
        let shape = Histogram { schema: sum.schema, zero_threshold: sum.zero_threshold, ..Histogram::default() };
        prop_assert!(back.equals(&plus(&a, &shape)), "{back} {a}");
    }

    #[test]
    fn compensated_sums_of_whole_numbers_are_plain_sums(a in exponential(), rest in proptest::collection::vec(exponential(), 1..4)) {
        let mut plain = a.clone();
        let mut compensated = a;
        let mut compensation = None;
        for h in &rest {
            plain.add(h).unwrap();
            compensated.kahan_add(h, &mut compensation).unwrap();
        }
        let compensation = compensation.unwrap();
        prop_assert_eq!(&compensation.positive_spans, &compensated.positive_spans);
        prop_assert_eq!(compensation.positive_buckets.len(), compensated.positive_buckets.len());
        prop_assert_eq!(compensation.negative_buckets.len(), compensated.negative_buckets.len());
        compensated.add(&compensation).unwrap();
        prop_assert!(compensated.compact(0).equals(plain.compact(0)), "{compensated} {plain}");
    }

    #[test]
    fn compensated_sum_loses_nothing_to_a_huge_term(h in exponential(), huge in 1e18f64..1e30) {
        let mut big = Histogram { count: huge, sum: huge, zero_count: huge, zero_threshold: h.zero_threshold, schema: h.schema, ..Histogram::default() };
        let mut minus = big.clone();
        minus.mul(-1.0);
        let mut compensation = None;
        big.kahan_add(&h, &mut compensation).unwrap();
        big.kahan_add(&minus, &mut compensation).unwrap();
        big.add(&compensation.unwrap()).unwrap();
        prop_assert_eq!((big.count, big.sum, big.zero_count), (h.count, h.sum, h.zero_count));
    }

    #[test]
    fn reset_is_fewer_observations_and_never_more(all in compatible(2)) {
        let [a, b] = &all[..] else { unreachable!("two were asked for") };
        let (a, b) = (a.clone(), b.clone());
        let sum = plus(&a, &b);
        prop_assert!(!a.detect_reset(&a));
        prop_assert!(!sum.detect_reset(&a), "{sum} {a}");
        prop_assert_eq!(a.detect_reset(&sum), b.count > 0.0 || sum.schema != a.schema || sum.zero_threshold != a.zero_threshold, "{} {}", a, sum);
        let said = Histogram { counter_reset_hint: CounterResetHint::CounterReset, ..sum.clone() };
        let denied = Histogram { counter_reset_hint: CounterResetHint::NotCounterReset, ..a.clone() };
        prop_assert!(said.detect_reset(&a));
        prop_assert_eq!(denied.detect_reset(&sum), a.detect_reset(&sum), "that it was not reset is not believed");
    }

    #[test]
    fn compaction_only_drops_the_empty(h in exponential(), max_empty in 0usize..4) {
        let populated = |h: &Histogram| h.all_buckets().into_iter().filter(|b| b.count != 0.0).collect::<Vec<_>>();
        let mut compact = h.clone();
        compact.compact(max_empty);
        prop_assert_eq!(populated(&compact), populated(&h));
        prop_assert_eq!(compact.validate(), Ok(()));
        let once = compact.clone();
        prop_assert!(compact.compact(max_empty).equals(&once));
        prop_assert!(max_empty > 0 || compact.positive_buckets.iter().all(|c| *c != 0.0));
    }

    #[test]
    fn scaling_there_and_back(h in exponential(), factor in 1i32..64) {
        let mut scaled = h.clone();
        scaled.mul(f64::from(factor)).div(f64::from(factor));
        prop_assert!(scaled.equals(&h));
        prop_assert_eq!(h.clone().mul(-1.0).counter_reset_hint, CounterResetHint::Gauge);
        prop_assert!(h.clone().div(0.0).positive_buckets.is_empty());
    }

    #[test]
    fn trim_and_its_complement_make_the_whole(h in exponential(), at in -40.0f64..40.0) {
        let (mut below, mut above) = (h.clone(), h.clone());
        below.trim_upper(at);
        above.trim_lower(at);
        prop_assert!((below.count + above.count - in_buckets(&h)).abs() < 1e-6 * h.count.max(1.0), "{h} {below} {above}");
        prop_assert!(h.clone().trim_upper(f64::INFINITY).equals(&h));
        prop_assert!(h.clone().trim_lower(f64::NEG_INFINITY).equals(&h));
    }

    #[test]
    fn custom_bounds_meet_in_what_both_have(a in custom(), b in custom()) {
        let mut ab = a.clone();
        let combined = ab.add(&b).unwrap();
        let mut ba = b.clone();
        ba.add(&a).unwrap();
        prop_assert!(ab.compact(0).equals(ba.compact(0)));
        prop_assert_eq!(combined.bounds_reconciled, a.custom_bounds() != b.custom_bounds());
        prop_assert_eq!(in_buckets(&ab), in_buckets(&a) + in_buckets(&b));
        prop_assert!(ab.custom_bounds().iter().all(|v| a.custom_bounds().contains(v) && b.custom_bounds().contains(v)));
        prop_assert_eq!(ab.validate(), Ok(()));
        prop_assert!(!ab.detect_reset(&a));
    }

    #[test]
    fn histogram_integers_and_floats_say_the_same(h in exponential()) {
        let deltas = |counts: &[f64]| {
            let mut before = 0;
            counts.iter().map(|c| *c as i64 - std::mem::replace(&mut before, *c as i64)).collect::<Vec<_>>()
        };
        let integer = IntegerHistogram {
            schema: h.schema,
            zero_threshold: h.zero_threshold,
            zero_count: h.zero_count as u64,
            count: h.count as u64,
            sum: h.sum,
            positive_spans: h.positive_spans.clone(),
            negative_spans: h.negative_spans.clone(),
            positive_deltas: deltas(&h.positive_buckets),
            negative_deltas: deltas(&h.negative_buckets),
            ..IntegerHistogram::default()
        };
        prop_assert_eq!(integer.validate(), Ok(()));
        prop_assert!(integer.to_float().equals(&h));
        let miscounted = IntegerHistogram { count: integer.count + 1, ..integer };
        prop_assert!(miscounted.validate().is_err());
    }

    #[test]
    fn histogram_kinds_do_not_mix(e in exponential(), mut c in custom()) {
        prop_assert_eq!(c.add(&e), Err(IncompatibleSchemas));
        prop_assert_eq!(e.clone().sub(&c), Err(IncompatibleSchemas));
        prop_assert_eq!(c.kahan_add(&e, &mut None), Err(IncompatibleSchemas));
        prop_assert!(c.detect_reset(&e) && e.detect_reset(&c));
    }

    #[test]
    fn histogram_nonsense_is_borne(a in nonsense(), b in nonsense(), at in any::<f64>(), max_empty in 0usize..5) {
        // Which answer comes does not matter here; that one comes does.
        let mut sum = a.clone();
        let added = sum.add(&b).is_ok();
        prop_assert_eq!(added, a.uses_custom_buckets() == b.uses_custom_buckets());
        let mut compensation = None;
        prop_assert_eq!(a.clone().kahan_add(&b, &mut compensation).is_ok(), added);
        prop_assert_eq!(a.clone().sub(&b).is_ok(), added);
        std::hint::black_box((a.detect_reset(&b), b.detect_reset(&a), a.validate().is_ok(), a.has_overflow()));
        prop_assert_eq!(a.equals(&b), b.equals(&a));
        let mut c = a.clone();
        c.compact(max_empty).trim_upper(at).trim_lower(at).mul(at).div(at);
        let (text, expression) = (a.to_string(), a.test_expression());
        prop_assert_eq!((&text[..7], &expression[..2]), ("{count:", "{{"));
        prop_assert!(a.all_buckets().len() <= a.positive_buckets.len() + a.negative_buckets.len() + 1);
        for schema in -4..=8 {
            prop_assert!(a.copy_to_schema(schema).is_ok() || schema > a.schema || a.uses_custom_buckets());
        }
    }
}
