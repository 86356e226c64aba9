//! Sends the spooled requests over several connections and notes what every acknowledgement took.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::encode::Protocol;
use crate::server::{Server, agent};
use crate::spool::{Requests, Spool};

/// What sending was like.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    pub samples: u64,
    pub wall_seconds: f64,
    pub cpu_seconds: f64,
    /// Milliseconds until the acknowledgement, ascending.
    pub ack_ms: Vec<f64>,
    /// Requests that were told to come again (429, 503) and did.
    pub retries: u64,
    /// Answers that were neither success nor a wish for another try.
    pub failed: u64,
    pub first_failure: Option<String>,
    /// The largest resident size seen, and the last.
    pub peak_bytes: u64,
    pub end_bytes: u64,
}

/// The value below which this share of an ascending list lies; 0 for none.
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    let at = ((sorted.len() as f64 * q).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(at).copied().unwrap_or(0.0)
}

/// How long a refused request is tried again.
const PATIENCE: Duration = Duration::from_secs(300);

/// Sends everything, one thread per file of the spool, each request after the acknowledgement of the one
/// before, and not before its time if all connections together shall send so many samples a second.
pub fn send(server: &Server, spool: &Spool, protocol: Protocol, samples_per_second: Option<f64>) -> Sent {
    let cpu = server.cpu_seconds();
    let begun = Instant::now();
    let done = AtomicU64::new(0);
    let (mut peak, mut whole) = (0, Sent::default());
    let of_one = samples_per_second.map(|all| all / spool.files.len().max(1) as f64);
    std::thread::scope(|scope| {
        let done = &done;
        let threads: Vec<_> = spool
            .files
            .iter()
            .map(|file| {
                let url = format!("{}/api/v1/write", server.url);
                scope.spawn(move || {
                    let sent = connection(&url, file, protocol, of_one);
                    done.fetch_add(1, Ordering::Relaxed);
                    sent
                })
            })
            .collect();
        while done.load(Ordering::Relaxed) < threads.len() as u64 {
            peak = peak.max(server.memory_bytes("VmRSS"));
            std::thread::sleep(Duration::from_millis(50));
        }
        for thread in threads {
            let part = thread.join().unwrap_or_else(|_| Sent { failed: 1, ..Sent::default() });
            whole.samples += part.samples;
            whole.ack_ms.extend(part.ack_ms);
            whole.retries += part.retries;
            whole.failed += part.failed;
            whole.first_failure = whole.first_failure.take().or(part.first_failure);
        }
    });
    whole.wall_seconds = begun.elapsed().as_secs_f64();
    whole.cpu_seconds = server.cpu_seconds() - cpu;
    whole.end_bytes = server.memory_bytes("VmRSS");
    whole.peak_bytes = peak.max(whole.end_bytes);
    whole.ack_ms.sort_unstable_by(f64::total_cmp);
    whole
}

fn connection(url: &str, file: &Path, protocol: Protocol, samples_per_second: Option<f64>) -> Sent {
    let mut sent = Sent::default();
    let first = Instant::now();
    let fail = |sent: &mut Sent, why: String| {
        sent.failed += 1;
        sent.first_failure.get_or_insert(why);
    };
    let agent = agent(Duration::from_secs(120));
    let mut requests = match Requests::open(file) {
        Ok(requests) => requests,
        Err(e) => {
            fail(&mut sent, format!("{}: {e}", file.display()));
            return sent;
        }
    };
    loop {
        let (body, samples) = match requests.next() {
            Ok(Some(next)) => next,
            Ok(None) => return sent,
            Err(e) => {
                fail(&mut sent, format!("{}: {e}", file.display()));
                return sent;
            }
        };
        if let Some(pace) = samples_per_second {
            let due = Duration::from_secs_f64(sent.samples as f64 / pace);
            std::thread::sleep(due.saturating_sub(first.elapsed()));
        }
        let begun = Instant::now();
        loop {
            let request = agent
                .post(url)
                .header("content-type", protocol.content_type())
                .header("content-encoding", "snappy")
                .header("x-prometheus-remote-write-version", protocol.version());
            match request.send(&body[..]) {
                Ok(answer) if answer.status().is_success() => {
                    sent.ack_ms.push(begun.elapsed().as_secs_f64() * 1000.0);
                    sent.samples += u64::from(samples);
                    break;
                }
                Ok(answer) if matches!(answer.status().as_u16(), 429 | 503) && begun.elapsed() < PATIENCE => {
                    sent.retries += 1;
                    let after = answer.headers().get("retry-after").and_then(|v| v.to_str().ok());
                    let after = after.and_then(|v| v.parse::<f64>().ok()).unwrap_or(1.0);
                    std::thread::sleep(Duration::from_secs_f64(after.clamp(0.05, 10.0)));
                }
                Ok(mut answer) => {
                    let text = answer.body_mut().read_to_string().unwrap_or_default();
                    fail(&mut sent, format!("{}: {}", answer.status(), &text[..text.len().min(300)]));
                    break;
                }
                Err(e) => {
                    fail(&mut sent, e.to_string());
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::quantile;

    #[test]
    fn quantiles_are_values_of_the_list() {
        let list: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(quantile(&list, 0.5), 50.0);
        assert_eq!(quantile(&list, 0.99), 99.0);
        assert_eq!(quantile(&list, 1.0), 100.0);
        assert_eq!(quantile(&[3.0], 0.5), 3.0);
        assert_eq!(quantile(&[], 0.5), 0.0);
    }
}
