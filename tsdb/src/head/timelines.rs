//! Timestamps of closed chunks, held once for all series of a scrape.

use std::sync::Arc;

use model::keyed_hash::keyed_hash;
use parking_lot::Mutex;

/// Timelines remembered: the series of one scrape close their chunks one after the other, so a few per target
/// are enough. 24 bytes each, and the timeline itself, about 100.
const SLOTS: usize = 1 << 13;

/// What was closed lately, each hash in a place of its own. Two timelines that fall on one place push each
/// other out, which costs a copy.
pub struct Timelines(Box<[Slot]>);

type Slot = Mutex<Option<Arc<[u8]>>>;

impl Default for Timelines {
    fn default() -> Self {
        Timelines((0..SLOTS).map(|_| Mutex::default()).collect())
    }
}

impl Timelines {
    /// These bytes, shared with whoever has the same ones; and whether they are new.
    pub fn share(&self, bytes: Vec<u8>) -> (Arc<[u8]>, bool) {
        let mut slot = self.0[keyed_hash(&bytes) as usize % SLOTS].lock();
        if let Some(known) = slot.as_ref().filter(|known| ***known == *bytes) {
            return (known.clone(), false);
        }
        let new: Arc<[u8]> = bytes.into();
        *slot = Some(new.clone());
        (new, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_timelines_are_one() {
        let timelines = Timelines::default();
        let (a, new) = timelines.share(vec![1, 2, 3]);
        assert!(new);
        let (b, new) = timelines.share(vec![1, 2, 3]);
        assert!(Arc::ptr_eq(&a, &b) && !new);
        assert!(timelines.share(vec![1, 2, 4]).1);
    }
}
