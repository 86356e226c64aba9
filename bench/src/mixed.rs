//! Dashboards that ask while samples arrive: how many questions a server answers, how long they take at
//! worst, and whether it keeps up with its writers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::encode::Protocol;
use crate::fleet::FleetOptions;
use crate::load::{self, quantile};
use crate::queries::{self, Question};
use crate::report::{Better, Measured};
use crate::server::Server;
use crate::spool::Spool;

/// How a server is asked while it is written to.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Clients that ask one question after the other.
    pub clients: u32,
    /// Samples a second that arrive meanwhile.
    pub samples_per_second: f64,
    /// Whether servers may answer from results that they keep.
    pub cached: bool,
    pub protocol: Protocol,
}

/// What one client saw: milliseconds of each answer, and what was no answer.
#[derive(Debug, Default)]
struct Asked {
    took_ms: Vec<(&'static str, f64)>,
    failed: u64,
    first_failure: Option<String>,
}

/// Sends `history` as fast as it is taken, then `live` at its pace while clients ask for what is there by
/// then.
pub fn measure(
    server: &Server,
    fleet: &FleetOptions,
    history: &Spool,
    live: &Spool,
    wanted: &Load,
    into: &mut Measured,
) {
    let before = load::send(server, history, wanted.protocol, None);
    server.catch_up();
    server.come_to_rest();
    let questions = queries::mix(fleet);
    let seconds = live.samples as f64 / wanted.samples_per_second;
    let live_data_s = fleet.duration_ms as f64 / 1000.0 * live.samples as f64
        / (live.samples + history.samples).max(1) as f64;
    let (over, begun) = (AtomicBool::new(false), Instant::now());
    let (sent, asked) = std::thread::scope(|scope| {
        let (over, questions) = (&over, &questions);
        // How far behind the end of all data the newest sample is that has been sent by now.
        let behind_s = move || {
            let share = begun.elapsed().as_secs_f64() / seconds;
            (live_data_s * (1.0 - share.min(1.0))) as i64
        };
        let clients: Vec<_> = (0..wanted.clients)
            .map(|client| scope.spawn(move || ask(server, questions, client, wanted.cached, over, behind_s)))
            .collect();
        let sent = load::send(server, live, wanted.protocol, Some(wanted.samples_per_second));
        over.store(true, Ordering::Release);
        let mut asked = Asked::default();
        for client in clients {
            let part = client.join().unwrap_or_else(|_| Asked { failed: 1, ..Asked::default() });
            asked.took_ms.extend(part.took_ms);
            asked.failed += part.failed;
            asked.first_failure = asked.first_failure.take().or(part.first_failure);
        }
        (sent, asked)
    });
    let mut took_ms: Vec<f64> = asked.took_ms.iter().map(|&(_, ms)| ms).collect();
    took_ms.sort_unstable_by(f64::total_cmp);
    into.add("questions/s", Better::More, took_ms.len() as f64 / sent.wall_seconds);
    into.add("answered after, p50 ms", Better::Less, quantile(&took_ms, 0.5));
    into.add("answered after, p99 ms", Better::Less, quantile(&took_ms, 0.99));
    into.add("samples/s", Better::More, sent.samples as f64 / sent.wall_seconds);
    into.add("acknowledged after, p50 ms", Better::Less, quantile(&sent.ack_ms, 0.5));
    into.add("acknowledged after, p99 ms", Better::Less, quantile(&sent.ack_ms, 0.99));
    into.add("CPU ms per question, writes included", Better::Less, {
        sent.cpu_seconds * 1000.0 / took_ms.len().max(1) as f64
    });
    into.add("resident bytes, peak", Better::Less, sent.peak_bytes as f64);
    for question in &questions {
        let of_it = asked.took_ms.iter().filter(|&&(name, _)| name == question.name);
        let mut of_it: Vec<f64> = of_it.map(|&(_, ms)| ms).collect();
        of_it.sort_unstable_by(f64::total_cmp);
        into.add(&format!("{}, p50 ms", question.name), Better::Less, quantile(&of_it, 0.5));
        into.add(&format!("{}, p99 ms", question.name), Better::Less, quantile(&of_it, 0.99));
    }
    let failed = before.failed + sent.failed;
    if failed + asked.failed > 0 {
        let why = before.first_failure.or(sent.first_failure).or(asked.first_failure).unwrap_or_default();
        into.notes.push(format!("{failed} writes and {} questions failed: {why}", asked.failed));
    }
}

/// One client: the questions in turn, each client from another one on, until it is over.
fn ask(
    server: &Server,
    questions: &[Question],
    client: u32,
    cached: bool,
    over: &AtomicBool,
    behind_s: impl Fn() -> i64,
) -> Asked {
    let agent = queries::patient_agent();
    let mut asked = Asked::default();
    let mut next = client as usize * 3;
    while !over.load(Ordering::Acquire) {
        let question = earlier(&questions[next % questions.len()], behind_s());
        next += 1;
        match queries::once(&agent, server, &question, !cached) {
            Ok((ms, _)) => asked.took_ms.push((question.name, ms)),
            Err(why) => {
                asked.failed += 1;
                asked.first_failure.get_or_insert(why);
            }
        }
    }
    asked
}

/// The question as it was asked so many seconds before.
fn earlier(question: &Question, seconds: i64) -> Question {
    let mut question = question.clone();
    for (name, value) in &mut question.parameters {
        if let ("time" | "start" | "end", Ok(t)) = (*name, value.parse::<i64>()) {
            *value = (t - seconds).to_string();
        }
    }
    question
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_moved_in_time_and_stay_what_they_were() {
        let question = Question {
            name: "x",
            class: None,
            path: "/api/v1/query_range".into(),
            parameters: vec![
                ("query", "10".into()),
                ("start", "100".into()),
                ("end", "200".into()),
                ("step", "15".into()),
            ],
            own_way: false,
        };
        let values: Vec<String> = earlier(&question, 30).parameters.into_iter().map(|p| p.1).collect();
        assert_eq!(values, ["10", "70", "170", "15"]);
    }
}
