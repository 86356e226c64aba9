//! Twenty rounds of `kill -9` under load: afterwards every acknowledged sample is there, once, with its
//! value.
//!
//! Four writers send known samples, in order and out of order, to old series and new ones, some of them
//! twice. In some rounds a flush runs when the process dies, in some it dies again while it starts. Requests
//! that got no answer are sent again after the restart, as Prometheus would, or left: then their samples may
//! be there or not.

mod test_services;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use test_services::{Api, Model, Rng, Series, Start, now_ms, series};

const ROUNDS: u64 = 20;
const WRITERS: u64 = 4;
/// A writer's requests a round, at most; the process dies before they are all sent.
const REQUESTS: u64 = 100;
const TICK_MS: i64 = 1_000;
const WINDOW_MS: i64 = 2 * 3_600_000;

/// One sender. It remembers all it sent, and what became of it.
struct Writer {
    id: u64,
    rng: Rng,
    base_ms: i64,
    tick: i64,
    model: Model,
    unanswered: Option<Vec<Series>>,
    last: Vec<Series>,
}

impl Writer {
    fn new(id: u64, base_ms: i64) -> Writer {
        Writer {
            id,
            rng: Rng(id),
            base_ms,
            tick: 0,
            model: Model::default(),
            unanswered: None,
            last: Vec::new(),
        }
    }

    /// Sends until the server is gone or the round's requests are sent.
    fn load(&mut self, api: &Api, round: u64, acknowledged: &AtomicUsize, dead: &AtomicBool) {
        if let Some(again) = self.unanswered.take_if(|_| round.is_multiple_of(2)) {
            self.send(api, again, acknowledged);
        }
        for _ in 0..REQUESTS {
            if dead.load(Ordering::Relaxed) || self.unanswered.is_some() {
                return;
            }
            let request = if !self.last.is_empty() && self.rng.below(8) == 0 {
                self.last.clone()
            } else {
                self.request(round)
            };
            self.send(api, request, acknowledged);
        }
    }

    fn send(&mut self, api: &Api, request: Vec<Series>, acknowledged: &AtomicUsize) {
        match api.try_write(&request) {
            Ok(answer) => {
                assert_eq!(answer.status, 204, "{}", answer.text());
                self.model.acknowledged(&request);
                acknowledged.fetch_add(1, Ordering::Relaxed);
                self.last = request;
            }
            Err(_) => {
                self.model.unanswered(&request);
                self.unanswered = Some(request);
            }
        }
    }

    /// Six series of four samples: some known since the first round, some new, one in four requests reaching
    /// back in time.
    fn request(&mut self, round: u64) -> Vec<Series> {
        self.tick += 1;
        let late = self.tick > 8 && self.rng.below(4) == 0;
        let (tick, shift_ms) =
            if late { (self.rng.below(self.tick as u64) as i64, 37) } else { (self.tick, 0) };
        let start_ms = self.base_ms + tick * TICK_MS + shift_ms;
        let steady = (0..4)
            .map(|i| ("steady", i))
            .chain([("fresh", round * 1_000 + self.rng.below(5)), ("fresh", round * 1_000 + 7)]);
        let mut all = Vec::new();
        for (kind, n) in steady {
            let (writer, n) = (self.id.to_string(), n.to_string());
            let labels = [("__name__", "crash_samples"), ("kind", kind), ("n", &n), ("writer", &writer)];
            let samples: Vec<_> =
                (0..4).map(|i| start_ms + i * 200).map(|t| (t, value(self.id, kind, &n, t))).collect();
            all.push(series(&labels, &samples));
        }
        all
    }
}

/// The value of a sample follows from its series and time, so that sending one again never changes it. Half
/// are whole, half are not.
fn value(writer: u64, kind: &str, n: &str, t: i64) -> f64 {
    let seed =
        n.bytes().chain(kind.bytes()).fold(writer + 1, |h, b| h.wrapping_mul(31).wrapping_add(u64::from(b)));
    let roll = Rng(seed ^ t as u64).roll();
    if roll & 1 == 0 { (roll >> 40) as f64 } else { (roll >> 11) as f64 / (1u64 << 43) as f64 }
}

#[test]
fn acknowledged_samples_survive_twenty_kills() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // All data lies around a border of the flush windows, some on either side.
    let base_ms = (now_ms() - 3_600_000) / WINDOW_MS * WINDOW_MS - 600_000;
    let mut writers: Vec<_> = (0..WRITERS).map(|id| Writer::new(id, base_ms)).collect();
    let mut rng = Rng(20);
    let mut hearth = Start::at(folder.path()).ready();
    let (mut flushed, mut killed_in_replay) = (0, 0);

    for round in 0..ROUNDS {
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let dead = Arc::new(AtomicBool::new(false));
        let threads: Vec<_> = writers
            .drain(..)
            .map(|mut writer| {
                let (api, acknowledged, dead) =
                    (Api::new(hearth.start.port), acknowledged.clone(), dead.clone());
                std::thread::spawn(move || {
                    writer.load(&api, round, &acknowledged, &dead);
                    writer
                })
            })
            .collect();

        let enough = 10 + rng.below(WRITERS * REQUESTS / 2) as usize;
        test_services::wait_for("the writers to get on", Duration::from_secs(60), || {
            (acknowledged.load(Ordering::Relaxed) >= enough || threads.iter().all(|t| t.is_finished()))
                .then_some(())
        });
        let flush = (round % 3 == 1).then(|| {
            let api = Api::new(hearth.start.port);
            let flush =
                std::thread::spawn(move || api.try_post("/-/flush", &[], b"").is_ok_and(|a| a.status < 300));
            std::thread::sleep(Duration::from_millis(rng.below(500)));
            flush
        });
        hearth.kill();
        dead.store(true, Ordering::Relaxed);
        writers = threads.into_iter().map(|t| t.join().expect("a writer saw only good answers")).collect();
        flushed += flush.map_or(0, |f| usize::from(f.join().expect("the flush ran")));

        if round % 4 == 2 {
            for _ in 0..2 {
                let mut starting = hearth.start.clone().spawn();
                std::thread::sleep(Duration::from_millis(rng.below(80)));
                let answers = starting.api.try_get("/-/ready", &[]).is_ok_and(|a| a.status == 200);
                killed_in_replay += usize::from(!answers);
                starting.kill();
            }
        }
        hearth = hearth.again();
        check(&writers, &hearth.api, &format!("round {round}"));
    }

    hearth.api.flush();
    check(&writers, &hearth.api, "after the last flush");
    hearth = hearth.restart();
    let model = check(&writers, &hearth.api, "after the last restart");
    eprintln!(
        "{ROUNDS} kills, {} acknowledged samples in {} series, none lost and none twice; {flushed} flushes done before a kill, {killed_in_replay} kills before ready",
        model.samples(),
        model.series()
    );
}

fn check(writers: &[Writer], api: &Api, when: &str) -> Model {
    let mut model = Model::default();
    for writer in writers {
        model.merge(writer.model.clone());
    }
    let base_ms = writers[0].base_ms;
    let range_ms = (REQUESTS * ROUNDS + 20) as i64 * TICK_MS;
    model.check(api, "crash_samples", base_ms + range_ms - 5_000, range_ms, when);
    model
}
