//! The state machine step by step, and restoration's arithmetic.

use super::restore::{Restore, active_at};
use super::*;

const M: i64 = 60_000;

fn candidates(names: &[&str]) -> Vec<Candidate> {
    names
        .iter()
        .map(|name| Candidate {
            labels: Labels::from_pairs([("alertname", "A"), ("i", name)]),
            annotations: BTreeMap::new(),
            value: Value::Float(1.0),
        })
        .collect()
}

fn timing(for_m: i64, keep_m: i64) -> Timing {
    Timing { for_ms: for_m * M, keep_firing_for_ms: keep_m * M, limit: 0 }
}

fn states(alerts: &Alerts) -> Vec<(String, State)> {
    alerts.current().iter().map(|a| (a.labels.value("i").to_owned(), a.state)).collect()
}

#[test]
fn alert_fires_after_its_for_and_at_once_without() {
    let mut alerts = Alerts::default();
    for (at, want) in [(0, State::Pending), (1, State::Pending), (2, State::Firing), (3, State::Firing)] {
        alerts.evaluate(&timing(2, 0), at * M, candidates(&["x"])).unwrap();
        assert_eq!(states(&alerts), [("x".to_string(), want)], "minute {at}");
    }
    let alert = alerts.current()[0];
    assert_eq!((alert.active_at_ms, alert.fired_at_ms), (0, Some(2 * M)));
    let mut alerts = Alerts::default();
    alerts.evaluate(&timing(0, 0), 7 * M, candidates(&["x"])).unwrap();
    assert_eq!(states(&alerts), [("x".to_string(), State::Firing)]);
}

#[test]
fn alert_that_goes_while_pending_is_never_sent() {
    let mut alerts = Alerts::default();
    alerts.evaluate(&timing(5, 0), 0, candidates(&["x"])).unwrap();
    assert!(alerts.to_send(0, M, M).is_empty());
    alerts.evaluate(&timing(5, 0), M, vec![]).unwrap();
    assert!(alerts.is_empty());
}

#[test]
fn resolved_alert_is_sent_for_a_quarter_of_an_hour_and_a_return_begins_anew() {
    let t = timing(0, 0);
    let mut alerts = Alerts::default();
    alerts.evaluate(&t, 0, candidates(&["x"])).unwrap();
    let sent = alerts.to_send(0, M, M);
    assert_eq!((sent[0].starts_at_ms, sent[0].ends_at_ms, sent[0].resolved), (0, 4 * M, false));
    alerts.evaluate(&t, M, candidates(&["x"])).unwrap();
    assert!(alerts.to_send(M, M, M).is_empty(), "not before the delay is over, strictly");
    alerts.evaluate(&t, 2 * M, vec![]).unwrap();
    let sent = alerts.to_send(2 * M, M, M);
    assert_eq!((sent[0].ends_at_ms, sent[0].resolved), (2 * M, true));
    assert_eq!(alerts.state(), State::Inactive);
    assert!(alerts.series(&BTreeMap::new()).is_empty());
    let mut told = 0;
    for at in 3..=17 {
        alerts.evaluate(&t, at * M, vec![]).unwrap();
        told += alerts.to_send(at * M, M, M).len();
    }
    assert_eq!(told, 7, "every second minute");
    alerts.evaluate(&t, 18 * M, vec![]).unwrap();
    assert!(alerts.is_empty());

    alerts.evaluate(&t, 20 * M, candidates(&["x"])).unwrap();
    alerts.evaluate(&t, 21 * M, vec![]).unwrap();
    alerts.evaluate(&timing(1, 0), 22 * M, candidates(&["x"])).unwrap();
    let alert = alerts.current()[0];
    assert_eq!((alert.state, alert.active_at_ms, alert.resolved_at_ms), (State::Pending, 22 * M, None));
}

#[test]
fn alert_keeps_firing_while_its_series_comes_and_goes() {
    let t = timing(0, 3);
    let mut alerts = Alerts::default();
    alerts.evaluate(&t, 0, candidates(&["x"])).unwrap();
    alerts.evaluate(&t, M, vec![]).unwrap();
    alerts.evaluate(&t, 3 * M, vec![]).unwrap();
    assert_eq!(alerts.current()[0].keep_firing_since_ms, Some(M));
    assert_eq!(alerts.series(&BTreeMap::new()).len(), 2, "its series go on");
    alerts.evaluate(&t, 4 * M - 1, candidates(&["x"])).unwrap();
    assert_eq!(alerts.current()[0].keep_firing_since_ms, None);
    alerts.evaluate(&t, 5 * M, vec![]).unwrap();
    alerts.evaluate(&t, 8 * M, vec![]).unwrap();
    assert_eq!(alerts.state(), State::Inactive);
}

#[test]
fn longer_for_makes_a_firing_alert_pending_again() {
    let mut alerts = Alerts::default();
    alerts.evaluate(&timing(1, 0), 0, candidates(&["x"])).unwrap();
    alerts.evaluate(&timing(1, 0), M, candidates(&["x"])).unwrap();
    assert_eq!(alerts.state(), State::Firing);
    alerts.evaluate(&timing(10, 0), 2 * M, candidates(&["x"])).unwrap();
    assert_eq!(alerts.state(), State::Pending);
}

#[test]
fn too_many_alerts_take_the_whole_state_and_duplicates_leave_it() {
    let t = Timing { limit: 2, ..timing(0, 0) };
    let mut alerts = Alerts::default();
    alerts.evaluate(&t, 0, candidates(&["a", "b"])).unwrap();
    let why = alerts.evaluate(&t, M, candidates(&["a", "a"])).unwrap_err().to_string();
    assert_eq!(why, "vector contains metrics with the same labelset after applying alert labels");
    assert_eq!(alerts.current().len(), 2);
    let why = alerts.evaluate(&t, 2 * M, candidates(&["a", "b", "c"])).unwrap_err().to_string();
    assert_eq!(why, "exceeded limit of 2 with 3 alerts");
    assert!(alerts.is_empty());
}

#[test]
fn alert_series_carry_state_since_and_raw_templates() {
    let mut alerts = Alerts::default();
    alerts.evaluate(&timing(0, 0), 90_500, candidates(&["x"])).unwrap();
    let raw = [("team".to_string(), "{{ $labels.none }}".to_string())].into();
    let series: Vec<_> = alerts.series(&raw).into_iter().map(|(l, v)| (l.to_string(), v)).collect();
    assert_eq!(
        series,
        [
            (
                r#"{__name__="ALERTS", alertname="A", alertstate="firing", i="x", team="{{ $labels.none }}"}"#
                    .to_string(),
                1.0
            ),
            (
                r#"{__name__="ALERTS_FOR_STATE", alertname="A", i="x", team="{{ $labels.none }}"}"#.to_string(),
                90.0
            ),
        ]
    );
}

#[test]
fn restored_alert_waits_for_what_was_left_but_never_less_than_the_grace() {
    let settings = Restore::default();
    let hour = 60 * M;
    // Was firing already.
    assert_eq!(active_at(hour, 100 * M, 0.0, 110 * M, &settings), 0);
    // Forty minutes were left: the outage does not count.
    assert_eq!(active_at(hour, 20 * M, 0.0, 30 * M, &settings), 10 * M);
    // Five minutes were left: it waits ten.
    assert_eq!(active_at(hour, 55 * M, 0.0, 70 * M, &settings), 20 * M);
}
