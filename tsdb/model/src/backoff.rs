//! Pauses between attempts: each twice as long as the one before, up to a longest, and jittered so that many
//! do not come back at once.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The pauses of one series of attempts.
pub struct Backoff {
    first: Duration,
    next: Duration,
    longest: Duration,
    random: RandomState,
}

impl Backoff {
    /// Pauses from `first` on, doubled up to `longest`.
    pub fn new(first: Duration, longest: Duration) -> Backoff {
        Backoff { first, next: first, longest, random: RandomState::new() }
    }

    /// The next pause: three quarters of it at least, the rest by chance.
    pub fn next_pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        let share = self.random.hash_one(pause) % 256;
        pause * 3 / 4 + pause / 4 * share as u32 / 256
    }

    /// Begins with the first pause again: an attempt worked.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_pauses_double_up_to_the_longest() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(350));
        for most_ms in [100, 200, 350, 350] {
            let pause = backoff.next_pause();
            assert!(pause <= Duration::from_millis(most_ms), "{pause:?}");
            assert!(pause >= Duration::from_millis(most_ms * 3 / 4), "{pause:?}");
        }
        backoff.reset();
        assert!(backoff.next_pause() <= Duration::from_millis(100), "what worked ends the series");
    }
}
