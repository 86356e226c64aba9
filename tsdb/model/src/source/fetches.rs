//! What a query fetched from the object store: requests, bytes, and how often it had to wait for an answer
//! before it could ask on.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters that all readers of one query share.
#[derive(Debug, Default)]
pub struct Fetches {
    requests: AtomicU64,
    bytes: AtomicU64,
    bytes_needed: AtomicU64,
    rounds: AtomicU64,
    disk_bytes: AtomicU64,
}

/// What [`Fetches`] has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// GETs.
    pub requests: u64,
    /// Bytes that they asked for.
    pub bytes: u64,
    /// How many of these, and of `disk_bytes`, were to be decoded. The others lay between, or came along to
    /// save a request.
    pub bytes_needed: u64,
    /// Longest chain of requests of which each was made after the one before had been answered.
    pub rounds: u64,
    /// Bytes that a cache on disk had in place of the object store.
    pub disk_bytes: u64,
}

impl Fetched {
    /// That of both, one after the other.
    pub fn and(self, next: Fetched) -> Fetched {
        Fetched {
            requests: self.requests + next.requests,
            bytes: self.bytes + next.bytes,
            bytes_needed: self.bytes_needed + next.bytes_needed,
            rounds: self.rounds + next.rounds,
            disk_bytes: self.disk_bytes + next.disk_bytes,
        }
    }
}

impl Fetches {
    /// Counts requests that go out together; the number of their round, for [`Fetches::answered`].
    pub fn ask(&self, requests: u64, bytes: u64) -> u64 {
        self.requests.fetch_add(requests, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.rounds.load(Ordering::Relaxed) + 1
    }

    /// Requests of a round were answered.
    pub fn answered(&self, round: u64) {
        self.rounds.fetch_max(round, Ordering::Relaxed);
    }

    /// Counts bytes that are going to be decoded.
    pub fn need(&self, bytes: u64) {
        self.bytes_needed.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes that were read from a disk in place of a request.
    pub fn read_from_disk(&self, bytes: u64) {
        self.disk_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether nothing had to be fetched so far.
    pub fn is_empty(&self) -> bool {
        self.requests.load(Ordering::Relaxed) == 0
    }

    pub fn fetched(&self) -> Fetched {
        let of = |n: &AtomicU64| n.load(Ordering::Relaxed);
        Fetched {
            requests: of(&self.requests),
            bytes: of(&self.bytes),
            bytes_needed: of(&self.bytes_needed),
            rounds: of(&self.rounds),
            disk_bytes: of(&self.disk_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fetches_count_a_round_for_what_was_asked_after_an_answer() {
        let fetches = Fetches::default();
        assert!(fetches.is_empty());
        let (a, b) = (fetches.ask(3, 100), fetches.ask(2, 50));
        fetches.answered(a);
        let after = fetches.ask(1, 7);
        fetches.answered(b);
        fetches.answered(after);
        fetches.need(120);
        fetches.read_from_disk(9);
        let want = Fetched { requests: 6, bytes: 157, bytes_needed: 120, rounds: 2, disk_bytes: 9 };
        assert_eq!(fetches.fetched(), want);
        assert_eq!(want.and(want).rounds, 4);
    }
}
