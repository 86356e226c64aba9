//! Two ingesters, two queriers and two compactors on a real S3 service, written to through a plain TCP
//! balancer by an HA pair of Prometheus servers and a writer that counts.
//!
//! Each process is restarted and killed in turn while all goes on. Answers for closed ranges never change,
//! and every acknowledged sample is there once.

mod test_services;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use test_services::api::{data, seconds};
use test_services::balancer::Balancer;
use test_services::ceph::Ceph;
use test_services::prometheus::{NodeExporter, Prometheus};
use test_services::split::start;
use test_services::{Api, Data, Hearth, Model, now_ms, series, wait_for};

const PATIENCE: Duration = Duration::from_secs(90);

/// How late every other counted sample is.
const LATE_MS: i64 = 60 * 3600 * 1000;

/// What a dashboard keeps asking of a range that is over: expression and replica label, if any.
const QUESTIONS: [(&str, Option<&str>); 5] = [
    ("sum by (mode, replica) (rate(node_cpu_seconds_total[10s]))", None),
    ("count(node_cpu_seconds_total)", None),
    ("sum by (mode) (node_cpu_seconds_total)", Some("replica")),
    ("up{job='node'}", Some("replica")),
    ("count_over_time(up{job='node'}[20s])", None),
];

/// The answers of a querier about a range; `Err` with its status and text where there is one that is none.
fn ask(api: &Api, (start_ms, end_ms): (i64, i64)) -> Result<Vec<Data>, (u16, String)> {
    let (start, end) = (seconds(start_ms), seconds(end_ms));
    let mut answers = Vec::new();
    for (expression, replica) in QUESTIONS {
        let mut pairs = vec![("query", expression), ("start", &start), ("end", &end), ("step", "1")];
        pairs.extend(replica.map(|label| ("replicaLabels[]", label)));
        let answer = api.try_get("/api/v1/query_range", &pairs).map_err(|e| (0, e.to_string()))?;
        if answer.status != 200 {
            return Err((answer.status, answer.text()));
        }
        answers.push(data(&answer.data()));
    }
    Ok(answers)
}

/// Asks one querier without end, and holds each answer against the first.
struct Asker {
    answered: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl Asker {
    /// `may_fail` says whether a dead ingester may be named in place of an answer at the moment.
    fn start(port: u16, range: (i64, i64), expected: Vec<Data>, may_fail: Arc<AtomicBool>) -> Asker {
        let (answered, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (count, stopped) = (answered.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let api = Api::with_fresh_connections(port);
            while !stopped.load(Ordering::Relaxed) {
                // Before and after: the answer may have taken a while.
                let might = may_fail.load(Ordering::SeqCst);
                match ask(&api, range) {
                    Ok(answers) => {
                        assert_eq!(answers, expected, "of the querier at {port}");
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                    // It is itself restarting, or not ready yet.
                    Err((0 | 503, _)) => {}
                    Err((status, text)) => {
                        assert!(might || may_fail.load(Ordering::SeqCst), "{status}: {text}");
                        assert!(text.contains("ingester"), "{status}: {text}");
                    }
                }
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        Asker { answered, stop, thread }
    }

    /// Waits for an answer that was asked for after now.
    fn wait_for_answer(&self, when: &str) {
        let before = self.answered.load(Ordering::SeqCst);
        wait_for(&format!("an answer after {when}"), PATIENCE, || {
            assert!(!self.thread.is_finished(), "an answer was wrong: see above");
            // The next one may have been under way.
            (self.answered.load(Ordering::SeqCst) >= before + 2).then_some(())
        });
    }

    fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("all answers were alike");
    }
}

/// Writes a sample of its own many times a second, each until it is acknowledged, and remembers them.
struct Writer {
    written: Arc<Mutex<Model>>,
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl Writer {
    fn start(port: u16) -> Writer {
        let (written, stop) = (Arc::<Mutex<Model>>::default(), Arc::<AtomicBool>::default());
        let (model, stopped) = (written.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let api = Api::with_fresh_connections(port);
            let mut number = 0u32;
            while !stopped.load(Ordering::Relaxed) {
                let labels = [("__name__", "acknowledged"), ("n", &*(number % 7).to_string())];
                // Every other one is late, in a half day that is over: what is flushed of it is compacted.
                let t = now_ms() - if number.is_multiple_of(2) { LATE_MS } else { 0 };
                let sample = [series(&labels, &[(t, f64::from(number))])];
                loop {
                    // What was not acknowledged may be there: it is the same sample each time.
                    match api.try_write(&sample) {
                        Ok(answer) if answer.status / 100 == 2 => break,
                        _ => std::thread::sleep(Duration::from_millis(50)),
                    }
                }
                model.lock().unwrap().acknowledged(&sample);
                number += 1;
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Writer { written, stop, thread }
    }

    fn finish(self) -> Model {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the writer ends");
        self.written.lock().unwrap().clone()
    }
}

#[test]
fn members_are_restarted_and_killed_in_turn_and_no_answer_changes() {
    let folder = tempfile::tempdir().expect("a folder");
    let ceph = Ceph::start(folder.path());
    ceph.s3.create_bucket("split");
    let spawn = |name: &str, role| start(folder.path(), name, role, &ceph, "").spawn();
    let mut members: Vec<Hearth> = [
        ("ingest-0", "ingest"),
        ("ingest-1", "ingest"),
        ("query-0", "query"),
        ("query-1", "query"),
        ("compact-0", "compact"),
        ("compact-1", "compact"),
    ]
    .map(|(name, role)| spawn(name, role))
    .into();
    members.iter_mut().for_each(Hearth::wait_ready);
    let port = |n: usize| members[n].start.port;
    let (queriers, ingesters) = ([port(2), port(3)], vec![port(0), port(1)]);

    let balancer = Balancer::start(ingesters);
    let exporter = NodeExporter::start(folder.path());
    let pair = ["a", "b"].map(|replica| {
        let own = folder.path().join(format!("prometheus-{replica}"));
        std::fs::create_dir_all(&own).expect("a folder for a Prometheus");
        let url = format!("http://127.0.0.1:{}/api/v1/write", balancer.port);
        Prometheus::replica(&own, &exporter, &url, replica)
    });
    let writer = Writer::start(balancer.port);
    let begun = now_ms();
    let api = Api::with_fresh_connections(queriers[0]);
    wait_for("half a minute of samples of both", PATIENCE, || {
        let both = api.instant("count_over_time(up{job='node'}[40s])", now_ms()).vector();
        (both.len() == 2 && both.values().all(|(_, n)| *n >= 30.0)).then_some(())
    });
    let range = (begun + 5_000, begun + 25_000);
    let expected = ask(&api, range).expect("an answer");
    assert!(expected.iter().all(|answer| !answer.is_empty()), "{expected:?}");
    let may_fail = Arc::<AtomicBool>::default();
    let askers = queriers.map(|port| Asker::start(port, range, expected.clone(), may_fail.clone()));
    let answered = |when: &str| askers.iter().for_each(|asker| asker.wait_for_answer(when));
    answered("the beginning");
    // Rolling restarts: who stops hands over, and no query of the others fails.
    for n in 0..members.len() {
        let member = members.remove(n);
        members.insert(n, member.restart());
        answered("a restart");
    }
    for n in 0..members.len() {
        // Samples that only a dead ingester has are missed by name until it is back, and by nothing else.
        may_fail.store(n < 2, Ordering::SeqCst);
        members[n].kill();
        std::thread::sleep(Duration::from_secs(1));
        let member = members.remove(n);
        members.insert(n, member.again());
        answered("kill -9");
        may_fail.store(false, Ordering::SeqCst);
        members[..2].iter().for_each(|ingester| ingester.api.flush());
        answered("a flush of both");
    }
    askers.into_iter().for_each(Asker::finish);
    let written = writer.finish();
    drop(pair);
    assert!(written.samples() > 500, "{} samples under load", written.samples());
    assert!(balancer.connections() > written.samples(), "all came through the balancer");
    let end = now_ms();
    let counted = |when: &str| {
        for querier in queriers.map(Api::with_fresh_connections) {
            written.check(&querier, "acknowledged", end, end - begun + LATE_MS + 60_000, when);
            assert_eq!(ask(&querier, range).expect("an answer"), expected, "{when}");
        }
    };
    counted("after all");
    // Whoever did it, and also where that was before a kill, which takes what a compactor tells of itself.
    let merged = || {
        let storage = api.get("/api/v1/storage", &[]).data();
        let blocks = storage["blocks"].as_array().map_or(&[][..], Vec::as_slice);
        blocks.iter().any(|block| block["level"].as_u64() > Some(0)).then_some(())
    };
    wait_for("a compactor to have merged blocks", PATIENCE, merged);
    for ingester in &mut members[..2] {
        let status = ingester.stop();
        assert!(status.success(), "{}", ingester.process.log_tail());
    }
    counted("with all in the bucket");
}
