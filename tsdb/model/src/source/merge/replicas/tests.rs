//! The hard cases of replicas, by name, and what must hold for any data: no seams, no invented resets, no
//! holes that a sibling could fill.

use std::sync::Arc;

use proptest::prelude::*;

use super::grid::{CELL_MS, LAG_MS, WALL_MS, reach};
use super::{ReplicaRule, cut, grid, merge_replicas, merge_replicas_after};
use crate::histogram::{BucketSpan, CounterResetHint, Histogram};
use crate::labels::Labels;
use crate::sample::{is_stale, stale_nan};
use crate::source::SeriesColumns;
use crate::source::testing::rng::Rng;
use crate::span::Span;

/// Not on a boundary of anything, half an hour after a wall.
const T0: i64 = 40_900 * WALL_MS + 1_801_234;
const ALWAYS: (i64, i64) = (i64::MIN, i64::MAX);

fn floats(samples: impl IntoIterator<Item = (i64, f64)>) -> SeriesColumns {
    let (ts, values): (Vec<i64>, Vec<f64>) = samples.into_iter().unzip();
    assert!(ts.is_sorted_by(|a, b| a < b));
    SeriesColumns {
        labels: Labels::from_pairs([("__name__", "x"), ("replica", "?")]),
        ts_ms: ts.into(),
        values,
        histograms: None,
        start_ts_ms: None,
        windows: None,
    }
}

fn name() -> Labels {
    Labels::from_pairs([("__name__", "x")])
}

fn merged(copies: &[SeriesColumns]) -> SeriesColumns {
    merge_replicas(name(), copies.to_vec(), ALWAYS, ReplicaRule::Grid).expect("samples")
}

fn points(series: &SeriesColumns) -> Vec<(i64, u64)> {
    series.ts_ms.iter().copied().zip(series.values.iter().map(|v| v.to_bits())).collect()
}

fn falls(series: &SeriesColumns) -> usize {
    let living: Vec<f64> = series.values.iter().copied().filter(|v| !is_stale(*v)).collect();
    living.windows(2).filter(|w| w[1] < w[0]).count()
}

fn gaps(series: &SeriesColumns) -> Vec<i64> {
    series.ts_ms.windows(2).map(|w| w[1] - w[0]).collect()
}

/// A counter that truly counts one every 100 ms, as scraped every `step` from `phase` on; `shown` of the time
/// is what the scrape shows.
fn scrapes(n: i64, step: i64, phase: i64, shown: impl Fn(i64) -> i64) -> Vec<(i64, f64)> {
    (0..n).map(|i| T0 + phase + i * step).map(|t| (t, ((shown(t) - T0 + 3_600_000) / 100) as f64)).collect()
}

fn without(samples: &[(i64, f64)], missed: impl Fn(usize) -> bool) -> SeriesColumns {
    floats(samples.iter().enumerate().filter(|(i, _)| !missed(*i)).map(|(_, s)| *s))
}

const S: i64 = 1000;

#[test]
fn missed_scrape_comes_from_the_sibling() {
    for phase in [200, 4 * S, 7 * S, 8 * S, 11 * S, 14 * S + 900] {
        let a = scrapes(100, 15 * S, 0, |t| t);
        let b = scrapes(100, 15 * S, phase, |t| t);
        let got = merged(&[without(&a, |i| i == 50), floats(b.clone())]);
        let own: Vec<_> = a.iter().enumerate().filter(|(i, _)| *i != 50).map(|(_, s)| *s).collect();
        let filled: Vec<_> = got.ts_ms.iter().filter(|t| own.iter().all(|o| o.0 != **t)).collect();
        assert_eq!(got.ts_ms.len(), 100, "phase {phase}");
        assert_eq!(filled.len(), 1, "phase {phase}");
        assert!(b.iter().any(|s| s.0 == *filled[0]));
        assert!(gaps(&got).iter().all(|g| (7_500..=22_500).contains(g)), "{:?}", gaps(&got));
        assert_eq!(falls(&got), 0);
    }
}

#[test]
fn gaps_in_turn_leave_no_hole_and_double_nothing() {
    let a = scrapes(600, 15 * S, 0, |t| t);
    let b = scrapes(600, 15 * S, 6 * S, |t| t);
    for length in [1, 2, 5, 20, 100] {
        // While one misses, the other does not, and the other way round.
        let got = merged(&[without(&a, |i| i / length % 4 == 1), without(&b, |i| i / length % 4 == 3)]);
        assert!((599..=601).contains(&got.ts_ms.len()), "{length}: {}", got.ts_ms.len());
        assert!(gaps(&got).iter().all(|g| (7_500..=22_500).contains(g)), "{length}: {:?}", gaps(&got));
        assert_eq!(falls(&got), 0, "{length}");
    }
}

#[test]
fn scrapes_at_nearly_the_same_time_are_taken_once() {
    let a = floats(scrapes(200, 15 * S, 0, |t| t));
    for phase in [1, 5, 100] {
        let b = floats(scrapes(200, 15 * S, phase, |t| t));
        for copies in [[a.clone(), b.clone()], [b.clone(), a.clone()]] {
            let got = merged(&copies);
            assert_eq!(points(&got), points(&copies[0]));
            assert!(Arc::ptr_eq(&got.ts_ms, &copies[0].ts_ms), "a shared timeline stays shared");
        }
    }
}

#[test]
fn exact_copies_are_one() {
    let all = scrapes(300, 15 * S, 0, |t| t);
    let whole = floats(all.clone());
    assert_eq!(points(&merged(&[whole.clone(), whole.clone(), whole.clone()])), points(&whole));
    let first = without(&all, |i| i % 50 < 7);
    let second = without(&all, |i| i % 70 > 60 && i % 50 >= 7);
    assert_eq!(points(&merged(&[first, second])), points(&whole));
}

#[test]
fn replica_that_lags_makes_no_reset() {
    for late in [15 * S, 30 * S, 59 * S] {
        for phase in [0, 3 * S, 9 * S, 14 * S] {
            // What the second shows is that old: its clock is ahead, or a cache is in between.
            let a = scrapes(400, 15 * S, 0, |t| t);
            let b = scrapes(400, 15 * S, phase, |t| t - late);
            for missed in [1usize, 3, 9] {
                let a = without(&a, |i| i % 40 < missed);
                for copies in [[a.clone(), floats(b.clone())], [floats(b.clone()), a.clone()]] {
                    let got = merged(&copies);
                    assert_eq!(falls(&got), 0, "{late} {phase} {missed}");
                    assert!(got.ts_ms.len() <= 401, "{late} {phase} {missed}: {}", got.ts_ms.len());
                    let hole = gaps(&got).into_iter().max().unwrap();
                    assert!(hole <= 30 * S + late, "{late} {phase} {missed}: {hole}");
                }
            }
        }
    }
}

#[test]
fn reset_that_one_replica_saw_is_there_once() {
    let reset = T0 + 1_500 * S;
    let counter = |t: i64| if t < reset { t } else { t - (reset - T0) - 3_599_000 };
    for phase in [1, 5 * S, 12 * S] {
        for late in [0, 15 * S, 40 * S] {
            let a = scrapes(200, 15 * S, 0, counter);
            let b = scrapes(200, 15 * S, phase, |t| counter(t - late));
            // The first is away around the reset, a little before it, a little after it, or through it.
            for away in [90..96usize, 96..100, 98..103, 100..104, 102..110, 60..140] {
                let a = without(&a, |i| away.contains(&i));
                for copies in [[a.clone(), floats(b.clone())], [floats(b.clone()), a.clone()]] {
                    assert_eq!(falls(&merged(&copies)), 1, "phase {phase}, late {late}, away {away:?}");
                }
            }
        }
    }
    // Up again above where it was before the first replica is back: only the second saw that it fell.
    let counter = |t: i64| if t < reset { t } else { t - (reset - T0) - 3_599_000 + 100 * (t - reset) };
    let a = without(&scrapes(200, 15 * S, 0, counter), |i| (95..=140).contains(&i));
    let b = floats(scrapes(200, 15 * S, 7 * S, counter));
    assert_eq!((falls(&a), falls(&merged(&[a.clone(), b]))), (0, 1));
}

#[test]
fn replica_down_for_hours_is_replaced_for_as_long() {
    let a = scrapes(2400, 15 * S, 0, |t| t);
    let b = scrapes(2400, 15 * S, 7 * S, |t| t);
    let got = merged(&[without(&a, |i| (400..2000).contains(&i)), floats(b.clone())]);
    assert!((2399..=2401).contains(&got.ts_ms.len()));
    assert!(gaps(&got).iter().all(|g| (7_500..=22_500).contains(g)));
    assert_eq!(falls(&got), 0);
    // Each down for a part, and for a part both.
    let got =
        merged(&[without(&a, |i| (400..1200).contains(&i)), without(&b, |i| (1000..2000).contains(&i))]);
    let holes: Vec<i64> = gaps(&got).into_iter().filter(|g| *g > 22_500).collect();
    assert_eq!(holes.len(), 1);
    assert!((200 * 15 * S..202 * 15 * S).contains(&holes[0]));
}

#[test]
fn three_replicas_fill_for_one_another() {
    let all: Vec<_> = [0, 4 * S, 9 * S].map(|phase| scrapes(900, 15 * S, phase, |t| t)).into();
    let down = [100..300usize, 250..500, 480..700];
    let copies: Vec<_> = all.iter().zip(&down).map(|(s, d)| without(s, |i| d.contains(&i))).collect();
    let got = merged(&copies);
    assert!((899..=901).contains(&got.ts_ms.len()), "{}", got.ts_ms.len());
    assert!(gaps(&got).iter().all(|g| (7_500..=22_500).contains(g)));
    assert_eq!(falls(&got), 0);
}

#[test]
fn finer_replica_speaks_and_the_coarser_fills_in() {
    let coarse = floats(scrapes(120, 60 * S, 0, |t| t));
    let fine = scrapes(480, 15 * S, 2 * S, |t| t);
    for order in [true, false] {
        let of =
            |fine: SeriesColumns| if order { vec![fine, coarse.clone()] } else { vec![coarse.clone(), fine] };
        let got = merged(&of(floats(fine.clone())));
        assert!(got.ts_ms.len() <= 481 && got.ts_ms.len() >= 479, "{}", got.ts_ms.len());
        let got = merged(&of(without(&fine, |i| (100..300).contains(&i))));
        assert_eq!(falls(&got), 0);
        let mut by_size = gaps(&got);
        by_size.sort_unstable();
        assert!(by_size[0] >= 7_500, "{by_size:?}");
        assert!(by_size[by_size.len() - 1] <= 90_000, "{by_size:?}");
    }
}

#[test]
fn gauge_is_filled_whatever_its_values() {
    let wave = |n: i64, phase: i64| {
        (0..n)
            .map(move |i| (T0 + i * 15 * S + phase, ((i * i * 7919 + i * phase) % 101) as f64))
            .collect::<Vec<_>>()
    };
    let got = merged(&[without(&wave(400, 0), |i| i % 10 == 4), floats(wave(400, 5 * S))]);
    assert_eq!(got.ts_ms.len(), 400);
}

#[test]
fn marker_hides_no_living_sibling() {
    let a = scrapes(200, 15 * S, 0, |t| t);
    let b = scrapes(200, 15 * S, 6 * S, |t| t);
    // The first fails to scrape for a while, then is gone for good; the second goes on.
    let gone = |i: usize| (50..60).contains(&i) || i >= 150;
    let mut first: Vec<(i64, f64)> =
        a.iter().enumerate().filter(|(i, _)| !gone(*i)).map(|(_, s)| *s).collect();
    first.extend([(a[50].0, stale_nan()), (a[150].0, stale_nan())]);
    first.sort_by_key(|s| s.0);
    let got = merged(&[floats(first.clone()), floats(b.clone())]);
    assert!(got.values.iter().all(|v| !is_stale(*v)));
    assert!((199..=201).contains(&got.ts_ms.len()));
    // When the second ends as well, the end is said, once and not before.
    let mut second: Vec<_> = b[..170].to_vec();
    second.push((b[170].0, stale_nan()));
    let got = merged(&[floats(first.clone()), floats(second)]);
    let markers: Vec<i64> =
        got.ts_ms.iter().zip(&got.values).filter(|(_, v)| is_stale(**v)).map(|(t, _)| *t).collect();
    assert_eq!(markers, [b[170].0]);
    // The target fails for both at once: nobody has a value, so the marker stands, and once where it is at
    // the same time.
    let fails = |s: &[(i64, f64)]| {
        floats(s.iter().enumerate().map(|(i, s)| if i == 80 { (s.0, stale_nan()) } else { *s }))
    };
    let got = merged(&[fails(&a), fails(&b)]);
    assert_eq!(got.values.iter().filter(|v| is_stale(**v)).count(), 1);
    let got = merged(&[fails(&a), fails(&a)]);
    assert_eq!(points(&got), points(&fails(&a)));
}

#[test]
fn restarts_one_after_the_other_leave_nothing_behind() {
    // An upgrade: each replica is away for two minutes and comes back with another phase.
    let phases = |n: i64, away: std::ops::Range<i64>, before: i64, after: i64| {
        let s = move |i: i64| {
            let t = T0 + i * 15 * S + if i < away.start { before } else { after };
            (t, ((t - T0) / 100) as f64)
        };
        floats((0..n).filter(|i| !away.contains(i)).map(s).collect::<Vec<_>>())
    };
    let got = merged(&[phases(300, 100..108, 0, 11 * S), phases(300, 112..120, 5 * S, 2 * S)]);
    assert!(gaps(&got).iter().all(|g| (7_500..=26_000).contains(g)), "{:?}", gaps(&got));
    assert!((298..=301).contains(&got.ts_ms.len()));
    assert_eq!(falls(&got), 0);
}

#[test]
fn freshest_samples_do_not_come_and_go() {
    let a = scrapes(100, 15 * S, 0, |t| t);
    let b = scrapes(100, 15 * S, 9 * S, |t| t);
    for now in (0..40).map(|i| T0 + 600 * S + i * S) {
        let seen = |s: &[(i64, f64)]| floats(s.iter().copied().filter(|s| s.0 <= now));
        let got = merged(&[seen(&a), seen(&b)]);
        assert_eq!(points(&got), points(&seen(&a)), "{}", now - T0);
    }
    // When the first has died, the second is heard as soon as that is clear, and then with all that was held
    // back.
    let dead = |now: i64| {
        let b = floats(b.iter().copied().filter(|s| s.0 <= now));
        merged(&[floats(a[..40].to_vec()), b]).ts_ms.len()
    };
    assert_eq!(dead(b[39].0), 40);
    assert_eq!(dead(b[40].0), 42);
}

#[test]
fn intervals_up_to_ten_minutes_are_kept_apart() {
    for step in [60, 120, 300, 420, 600] {
        let n = 6 * 3600 / step;
        for phase in [1, 20 * S, step * 400] {
            let a = scrapes(n, step * S, 0, |t| t);
            let b = scrapes(n, step * S, phase, |t| t);
            let got = merged(&[floats(a.clone()), floats(b.clone())]);
            assert!(got.ts_ms.len() as i64 <= n + 1, "every {step} s, phase {phase}: {}", got.ts_ms.len());
            let got = merged(&[without(&a, |i| i == 20), floats(b)]);
            let hole = gaps(&got).into_iter().max().unwrap();
            assert!(hole <= step * 1500, "every {step} s, phase {phase}: {hole}");
        }
    }
}

#[test]
fn replica_that_changes_right_at_a_wall_makes_no_reset() {
    let wall = 41_000 * WALL_MS;
    let at = |phase: i64, late: i64, beats: std::ops::Range<i64>| -> Vec<(i64, f64)> {
        let t = |i: i64| wall + i * 15 * S + phase;
        beats.map(|i| (t(i), ((t(i) - late - wall + 3_600_000) / 100) as f64)).collect()
    };
    for late in [0, 5 * S, 16 * S, 40 * S, 58 * S] {
        for phase in [1, 4 * S, 11 * S] {
            // The first speaks up to the wall and is gone after it; the second, whose samples are that old,
            // goes on.
            let (first, second) = (at(-2 * S, 0, -100..1), at(phase, late, -100..100));
            for alone in [false, true] {
                let second: Vec<_> = second.iter().filter(|s| !alone || s.0 > wall).copied().collect();
                let got = merged(&[floats(first.clone()), floats(second.clone())]);
                assert_eq!(falls(&got), 0, "late {late}, phase {phase}, alone {alone}");
                let hole = gaps(&got).into_iter().max().unwrap();
                assert!(hole <= 30 * S + late, "late {late}, phase {phase}: {hole}");
                // The same where what was said before the wall is all that is left of it.
                let half = |from: i64, said: Option<&SeriesColumns>| {
                    let span = (from + 1, from + WALL_MS);
                    let read = [&first, &second].map(|s| floats(s.iter().copied()));
                    let read: Vec<_> = read.into_iter().filter_map(|c| cut(c, span)).collect();
                    merge_replicas_after(name(), read, said, span, ReplicaRule::Grid)
                };
                let before = half(wall - WALL_MS, None);
                let after = half(wall, before.as_ref());
                assert!(same(&Some(got), &joined(before.into_iter().chain(after).collect())));
            }
        }
    }
    // A reset that there was stays, and so does a gauge's fall that keeps the beat.
    let reset = |s: Vec<(i64, f64)>| -> Vec<_> {
        s.into_iter().map(|(t, v)| (t, if t > wall { ((t - wall) / 100) as f64 } else { v })).collect()
    };
    let got = merged(&[floats(reset(at(-2 * S, 0, -100..1))), floats(reset(at(4 * S, 10 * S, -100..100)))]);
    assert_eq!(falls(&got), 1);
    let gauge: Vec<_> = (-100..100).map(|i| (wall + i * 15 * S, if i == 1 { 4.0 } else { 5.0 })).collect();
    let other = floats(gauge.iter().map(|s| (s.0 + 3 * S, s.1)));
    assert_eq!(points(&merged(&[floats(gauge.clone()), other])), points(&floats(gauge)));
}

fn histogram(count: f64, hint: CounterResetHint) -> Arc<Histogram> {
    Arc::new(Histogram {
        counter_reset_hint: hint,
        schema: 0,
        count,
        sum: count * 2.0,
        positive_spans: vec![BucketSpan { offset: 0, length: 1 }],
        positive_buckets: vec![count],
        ..Histogram::default()
    })
}

fn histograms(samples: &[(i64, f64)], hint: CounterResetHint) -> SeriesColumns {
    let mut series = floats(samples.iter().copied());
    series.values = samples.iter().map(|s| s.1 * 2.0).collect();
    series.histograms = Some(samples.iter().map(|s| Some(histogram(s.1, hint))).collect());
    series.start_ts_ms = Some(vec![T0 - 5; samples.len()]);
    series
}

#[test]
fn native_histograms_go_the_same_way() {
    let not_reset = CounterResetHint::NotCounterReset;
    let a: Vec<_> = scrapes(200, 15 * S, 0, |t| t).into_iter().enumerate().collect();
    let kept: Vec<_> = a.iter().filter(|(i, _)| !(90..93).contains(i)).map(|(_, s)| *s).collect();
    let b = scrapes(200, 15 * S, 6 * S, |t| t);
    let got = merged(&[histograms(&kept, not_reset), histograms(&b, not_reset)]);
    assert_eq!(got.ts_ms.len(), 200);
    assert_eq!(got.start_ts_ms.as_deref(), Some(&vec![T0 - 5; 200][..]));
    let all = got.histograms.unwrap();
    let hints: Vec<usize> = (0..200)
        .filter(|i| all[*i].as_ref().unwrap().counter_reset_hint == CounterResetHint::Unknown)
        .collect();
    // What is from the sibling, and what comes right after it, was compared with something else. So was the
    // first of all.
    assert_eq!(hints, [0, 90, 91, 92, 93]);
    // A lagging sibling makes no reset of a histogram either.
    let b = scrapes(200, 15 * S, 6 * S, |t| t - 20 * S);
    let got = merged(&[histograms(&kept, not_reset), histograms(&b, not_reset)]);
    let counts: Vec<f64> = got.histograms.unwrap().iter().flatten().map(|h| h.count).collect();
    assert!(counts.is_sorted());
    // Gauge histograms keep their hint and are filled whatever they hold.
    let gauge = |s: &[(i64, f64)], flip: f64| {
        let s: Vec<_> = s.iter().enumerate().map(|(i, s)| (s.0, 50.0 + flip * (i % 7) as f64)).collect();
        histograms(&s, CounterResetHint::Gauge)
    };
    let got = merged(&[gauge(&kept, 1.0), gauge(&b, -1.0)]);
    assert_eq!(got.ts_ms.len(), 200);
    assert!(
        got.histograms.unwrap().iter().flatten().all(|h| h.counter_reset_hint == CounterResetHint::Gauge)
    );
}

/// A counter and how replicas see it.
struct World {
    copies: Vec<SeriesColumns>,
    /// Resets that there truly were.
    resets: usize,
}

/// `wild` replicas differ in interval, change their phase and end with markers; tame ones only miss scrapes
/// and lag.
fn world(seed: u64, wild: bool) -> World {
    let mut rng = Rng(seed);
    let step = [1, 5, 15, 15, 15, 30, 60, 120, 300][rng.below(9) as usize] * S;
    let n = 10 + rng.below(500);
    let from = if wild { T0 - rng.below(3_600_000) } else { T0 };
    let span = n * step;
    // Resets far enough apart that a lagging replica is past one before the next comes.
    let mut resets: Vec<i64> = (0..rng.below(4)).map(|_| from + rng.below(span)).collect();
    resets.sort_unstable();
    resets.dedup_by(|b, a| *b - *a < 8 * 60_000 + 4 * step);
    let counter = |t: i64| {
        let since = resets.iter().rev().find(|r| **r <= t).copied().unwrap_or(from - 900_000);
        ((t - since) / 50) as f64
    };
    let copies = (0..2 + rng.below(2)).map(|_| {
        let step = if wild && rng.below(4) == 0 { step * (1 + rng.below(4)) } else { step };
        let (mut phase, jitter) = (rng.below(step), rng.below(step / 8));
        let late = if rng.below(2) == 0 { 0 } else { rng.below(LAG_MS / 2) };
        let miss = [0, 0, 20, 100, 300][rng.below(5) as usize];
        let mut away = 0;
        let mut samples: Vec<(i64, f64)> = Vec::new();
        for i in 0..span / step {
            if rng.below(150) == 0 {
                away = 1 + rng.below(60);
                if wild {
                    phase = rng.below(step);
                }
            }
            away -= 1;
            let t = from + i * step + phase + rng.below(jitter);
            if samples.last().is_some_and(|l| l.0 >= t) {
                continue;
            }
            if away >= 0 || rng.below(1000) < miss {
                if wild && rng.below(2) == 0 {
                    samples.push((t, stale_nan()));
                }
                continue;
            }
            samples.push((t, counter(t - late)));
        }
        floats(samples)
    });
    let copies: Vec<_> = copies.collect();
    let seen = |t: i64| copies.iter().any(|c| c.ts_ms.first().is_some_and(|f| *f <= t + LAG_MS));
    let resets = resets.iter().filter(|r| seen(**r)).count();
    World { copies, resets }
}

/// Every fourth world has histograms instead of floats.
fn clad(world: World, seed: u64) -> Vec<SeriesColumns> {
    if seed % 4 != 3 {
        return world.copies;
    }
    let with = |mut c: SeriesColumns| {
        let hint = [CounterResetHint::NotCounterReset, CounterResetHint::Unknown][(seed % 8 / 4) as usize];
        c.histograms = Some(c.values.iter().map(|v| (!is_stale(*v)).then(|| histogram(*v, hint))).collect());
        c
    };
    world.copies.into_iter().map(with).collect()
}

fn same(a: &Option<SeriesColumns>, b: &Option<SeriesColumns>) -> bool {
    let of = |s: &Option<SeriesColumns>| {
        s.as_ref().map(|s| {
            let hints = s.histograms.as_ref().map(|h| {
                h.iter()
                    .map(|h| h.as_ref().map(|h| (h.counter_reset_hint, h.count.to_bits())))
                    .collect::<Vec<_>>()
            });
            (points(s), hints)
        })
    };
    of(a) == of(b)
}

/// Moves all of it in time such that a wall is in the middle.
fn wall_amid(copies: &mut [SeriesColumns]) {
    let all = || copies.iter().flat_map(|c| c.ts_ms.iter().copied());
    let middle = all().min().unwrap() / 2 + all().max().unwrap() / 2;
    for c in copies {
        c.ts_ms = c.ts_ms.iter().map(|t| t - middle + 41_000 * WALL_MS).collect();
    }
}

fn joined(parts: Vec<SeriesColumns>) -> Option<SeriesColumns> {
    let mut parts = parts.into_iter();
    let mut all = parts.next()?;
    for part in parts {
        let (n, m) = (all.values.len(), part.values.len());
        all.ts_ms = all.ts_ms.iter().chain(&*part.ts_ms).copied().collect();
        all.values.extend(part.values);
        if all.histograms.is_some() || part.histograms.is_some() {
            let mut h = all.histograms.unwrap_or(vec![None; n]);
            h.extend(part.histograms.unwrap_or(vec![None; m]));
            all.histograms = Some(h);
        }
    }
    Some(all)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn query_split_anywhere_gives_the_same(seed: u64, mut cuts in prop::collection::vec(0.0f64..1.0, 1..5)) {
        let mut copies = clad(world(seed, true), seed);
        if seed % 3 == 0 && copies.iter().any(|c| !c.ts_ms.is_empty()) {
            wall_amid(&mut copies);
            cuts = cuts.iter().map(|c| 0.5 + (c - 0.5) / 8.0).collect();
        }
        let ends: Vec<(i64, i64)> = copies.iter().filter_map(|c| Some((*c.ts_ms.first()?, *c.ts_ms.last()?))).collect();
        prop_assume!(!ends.is_empty());
        let (min, max) = (ends.iter().map(|e| e.0).min().unwrap(), ends.iter().map(|e| e.1).max().unwrap());
        let whole = merge_replicas(name(), copies.clone(), (min, max), ReplicaRule::Grid);
        cuts.sort_by(f64::total_cmp);
        let mut from = min;
        let mut parts = Vec::new();
        for end in cuts.iter().map(|c| min + ((max - min) as f64 * c) as i64).chain([max]) {
            if end < from {
                continue;
            }
            // What a source reads for such a part, and not a sample more.
            let read: Vec<_> = copies.iter().filter_map(|c| cut(c.clone(), reach((from, end)))).collect();
            parts.extend(merge_replicas(name(), read, (from, end), ReplicaRule::Grid));
            from = end + 1;
        }
        prop_assert!(same(&whole, &joined(parts)));
    }

    #[test]
    fn compacted_half_days_are_the_whole(seed: u64) {
        let mut copies = clad(world(seed, true), seed);
        prop_assume!(copies.iter().any(|c| !c.ts_ms.is_empty()));
        wall_amid(&mut copies);
        let whole = merge_replicas(name(), copies.clone(), ALWAYS, ReplicaRule::Grid);
        let (mut said, mut parts) = (None, Vec::new());
        for from in (40_996..41_004).map(|i| i * WALL_MS) {
            let span = (from + 1, from + WALL_MS);
            let read: Vec<_> = copies.iter().filter_map(|c| cut(c.clone(), span)).collect();
            // Of the half day before it there is only what it became.
            let half = merge_replicas_after(name(), read, said.as_ref(), span, ReplicaRule::Grid);
            said = half.clone();
            parts.extend(half);
        }
        prop_assert!(same(&whole, &joined(parts)));
    }

    #[test]
    fn true_counters_make_no_false_reset_at_a_wall_either(seed: u64) {
        let World { mut copies, resets } = world(seed, false);
        copies.retain(|c| !c.ts_ms.is_empty());
        prop_assume!(!copies.is_empty());
        wall_amid(&mut copies);
        // Of a replica that ends right after it nobody knows whether it is behind.
        prop_assume!(copies.iter().all(|c| c.ts_ms.last().is_some_and(|t| *t > 41_000 * WALL_MS + 2 * LAG_MS)));
        let got = merged(&copies);
        prop_assert!(falls(&got) <= resets, "{} falls, {} resets", falls(&got), resets);
    }

    #[test]
    fn replicas_of_true_counters_make_no_false_reset(seed: u64) {
        let world = world(seed, false);
        let copies: Vec<_> = world.copies.iter().filter(|c| !c.ts_ms.is_empty()).cloned().collect();
        prop_assume!(!copies.is_empty());
        let got = merged(&copies);
        prop_assert!(falls(&got) <= world.resets, "{} falls, {} resets", falls(&got), world.resets);
        // A sample of the result is one of some replica, unchanged.
        prop_assert!(points(&got).iter().all(|p| copies.iter().any(|c| points(c).contains(p))));
    }

    #[test]
    fn usual_case_is_seen_and_answered_alike(seed: u64) {
        let world = world(seed, seed % 2 == 0);
        let copies: Vec<_> = world.copies.into_iter().filter(|c| !c.ts_ms.is_empty()).collect();
        prop_assume!(copies.len() > 1);
        let mut rng = Rng(seed ^ 7);
        for _ in 0..6 {
            let from = T0 - 3_600_000 + rng.below(7_200_000);
            let keep = if rng.below(4) == 0 { ALWAYS } else { (from, from + rng.below(3_600_000)) };
            prop_assert!(same(
                &grid::merge(name(), copies.clone(), None, keep),
                &grid::by_cell(name(), &copies, None, keep),
            ));
        }
    }
}

#[test]
fn downsampled_replicas_give_the_fuller_window() {
    use crate::rollup::downsample::downsample;
    let down = |s: SeriesColumns| downsample(&s, 300 * S);
    let a = scrapes(400, 15 * S, 0, |t| t);
    let b = scrapes(400, 15 * S, 6 * S, |t| t);
    // The first is away through a window and parts of two others.
    let away = |i: usize| (95..130).contains(&i);
    let (first, second) = (down(without(&a, away)), down(floats(b.clone())));
    let got = merged(&[first.clone(), second.clone()]);
    let ends: Vec<i64> = got.ts_ms.iter().map(|t| Span::containing(*t, 300 * S).end_ms).collect();
    assert!(ends.is_sorted_by(|a, b| a < b), "one entry a window");
    assert_eq!(ends.len(), second.ts_ms.len());
    let counts = got.windows.as_ref().and_then(|w| w.count.clone()).expect("counts");
    assert!(counts[1..counts.len() - 1].iter().all(|n| (19..=21).contains(n)), "{counts:?}");
    assert!(
        got.ts_ms.iter().filter(|t| first.ts_ms.contains(t)).count() >= ends.len() - 4,
        "the first mostly"
    );
    // What is not downsampled yet goes by samples.
    let later = |s: &[(i64, f64)], from: usize| floats(s[from..].iter().copied());
    let cut_at = Span::containing(a[200].0, 300 * S).end_ms;
    let old = |s: &[(i64, f64)]| down(floats(s.iter().copied().filter(|s| s.0 <= cut_at)));
    let fresh = |s: &[(i64, f64)]| {
        let from = s.partition_point(|s| s.0 <= cut_at);
        later(s, from)
    };
    let both = |s: &[(i64, f64)]| crate::rollup::merge_overlapping(vec![old(s), fresh(s)]);
    let got = merged(&[both(&a), both(&b)]);
    assert_eq!(points(&got), points(&both(&a)));
    assert_eq!(got.coarsest_ms(), 300 * S);
}

#[test]
fn reach_of_a_range_is_bounded_and_stops_at_walls() {
    let (min, max) = reach((T0, T0 + 1));
    assert!(
        (2 * CELL_MS..3 * CELL_MS).contains(&(T0 - min)) && (2 * CELL_MS..=3 * CELL_MS).contains(&(max - T0))
    );
    let wall = 40_900 * WALL_MS;
    // Right after one what was said before it matters.
    assert_eq!(reach((wall + 1, wall + WALL_MS)), (wall - 3 * CELL_MS + 1, wall + WALL_MS));
    assert_eq!(reach((wall + LAG_MS, wall + WALL_MS)).0, wall - 3 * CELL_MS + 1);
    assert_eq!(reach((wall + LAG_MS + 1, wall + WALL_MS)).0, wall + 1);
    assert_eq!(reach((wall, wall)).1, wall);
    assert_eq!(reach(ALWAYS), ALWAYS);
}

#[test]
fn penalty_rule_is_thanos_with_its_faults() {
    let thanos = |copies: &[SeriesColumns], counter| {
        merge_replicas(name(), copies.to_vec(), ALWAYS, ReplicaRule::Penalty { counter }).unwrap()
    };
    let at = |s: &SeriesColumns| s.ts_ms.iter().map(|t| t / S).collect::<Vec<_>>();
    let every =
        |from: i64, to: i64, step: i64| floats((from..to).step_by(step as usize).map(|t| (t * S, t as f64)));
    // The first one is kept as long as it goes on.
    assert_eq!(at(&thanos(&[every(10, 60, 10), every(12, 60, 10)], false)), [10, 20, 30, 40, 50]);
    // Where it misses one, the other is not heard: it is held back by twice the step.
    let a = floats([10, 20, 40, 50].map(|t| (t * S, t as f64)));
    assert_eq!(at(&thanos(&[a, every(12, 60, 10)], false)), [10, 20, 40, 50]);
    // Where it ends, the other takes over after the penalty.
    assert_eq!(at(&thanos(&[every(10, 40, 10), every(12, 80, 10)], false)), [10, 20, 30, 52, 62, 72]);
    // Under a counter function what lags is lifted, and stays so.
    let a = floats([(10 * S, 10.0), (20 * S, 20.0), (30 * S, 30.0)]);
    let b = floats([12, 22, 32, 42, 52, 62].map(|t| (t * S, (t - 25) as f64)));
    assert_eq!(thanos(&[a.clone(), b.clone()], false).values, [10.0, 20.0, 30.0, 27.0, 37.0]);
    assert_eq!(thanos(&[a, b], true).values, [10.0, 20.0, 30.0, 30.0, 40.0]);
    // A third replica goes against the result of the first two.
    let ends = [every(10, 40, 10), every(12, 80, 10), every(14, 200, 10)];
    assert_eq!(at(&thanos(&ends, false))[..7], [10, 20, 30, 52, 62, 72, 104]);
}
