//! A bucket of requests that fills one by one.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Lets a burst through and then one request per interval, of all clients together.
pub struct RateLimit {
    interval: Duration,
    burst: u32,
    state: Mutex<State>,
}

struct State {
    /// Requests that may come now; a fraction of one as well.
    room: f64,
    counted: Instant,
}

impl RateLimit {
    /// `interval` is not zero.
    pub fn new(interval: Duration, burst: u32) -> RateLimit {
        let state = State { room: f64::from(burst), counted: Instant::now() };
        RateLimit { interval, burst, state: Mutex::new(state) }
    }

    pub fn is_like(&self, other: &RateLimit) -> bool {
        (self.interval, self.burst) == (other.interval, other.burst)
    }

    /// Whether a request at that time may pass.
    pub fn lets_pass(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        let gained = now.saturating_duration_since(state.counted).as_secs_f64() / self.interval.as_secs_f64();
        state.room = (state.room + gained).min(f64::from(self.burst));
        state.counted = state.counted.max(now);
        if state.room < 1.0 {
            return false;
        }
        state.room -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_limit_lets_a_burst_and_then_one_per_interval_pass() {
        let limit = RateLimit::new(Duration::from_millis(100), 3);
        let start = Instant::now();
        let passed = |after_ms: u64, asked: usize| {
            let now = start + Duration::from_millis(after_ms);
            (0..asked).filter(|_| limit.lets_pass(now)).count()
        };
        assert_eq!(passed(0, 10), 3);
        assert_eq!(passed(50, 10), 0);
        assert_eq!(passed(110, 10), 1);
        assert_eq!(passed(10_000, 10), 3, "no more than the burst gathers");
    }
}
