//! Timestamps of packed chunks, decoded once for all series that share them.

use std::sync::Arc;

use hashbrown::HashMap;
use model::source::{Budget, Charge};
use parking_lot::RwLock;

use super::float;

/// Timestamps that are held at once: two hours at 15 s of some thousand targets.
const MOST_TIMESTAMPS: usize = 1 << 20;

/// What was decoded for a query, shared by the cores that work for it.
#[derive(Default)]
pub struct DecodedTimes(RwLock<Decoded>);

#[derive(Default)]
struct Decoded {
    /// By the address of the encoded ones, which are held so that it stays theirs, and how many there are.
    #[allow(clippy::type_complexity)]
    by_address: HashMap<(usize, u16), (Arc<[u8]>, Arc<[i64]>)>,
    timestamps: usize,
    held: Charge,
}

impl DecodedTimes {
    /// Charged to a query.
    pub fn of(budget: &Arc<Budget>) -> DecodedTimes {
        DecodedTimes(RwLock::new(Decoded { held: Charge::of(budget), ..Decoded::default() }))
    }

    /// The `count` timestamps that [`float::encode_times`] wrote.
    pub fn get(&self, encoded: &Arc<[u8]>, count: u16) -> Arc<[i64]> {
        let key = (encoded.as_ptr().addr(), count);
        if let Some((_, times)) = self.0.read().by_address.get(&key) {
            return times.clone();
        }
        let mut times = Vec::new();
        float::decode_times(encoded, count, &mut times);
        let times: Arc<[i64]> = times.into();
        let mut decoded = self.0.write();
        let bytes = 8 * times.len() as u64;
        if decoded.timestamps + times.len() > MOST_TIMESTAMPS || !decoded.held.add_spare(bytes) {
            (decoded.by_address, decoded.timestamps) = (HashMap::new(), 0);
            decoded.held.let_go(u64::MAX);
            if !decoded.held.add_spare(bytes) {
                return times;
            }
        }
        decoded.timestamps += times.len();
        decoded.by_address.insert(key, (encoded.clone(), times.clone()));
        times
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_decoded_once_and_are_those_of_their_bytes() {
        let times = DecodedTimes::default();
        let lines: Vec<Vec<i64>> = (0..3).map(|n| (0..100).map(|i| 1_000 * n + 15 * i).collect()).collect();
        let encoded: Vec<Arc<[u8]>> = lines.iter().map(|ts| float::encode_times(ts).into()).collect();
        for (bytes, line) in encoded.iter().zip(&lines) {
            let first = times.get(bytes, 100);
            assert_eq!(*first, line[..]);
            assert!(Arc::ptr_eq(&first, &times.get(bytes, 100)));
            assert_eq!(*times.get(bytes, 50), line[..50]);
        }
        assert_eq!(times.0.read().timestamps, 450);
    }
}
