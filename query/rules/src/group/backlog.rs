//! Slots that were missed, of all groups together: taken oldest first, so that a rule which reads another's
//! writes finds them.

use std::collections::BTreeSet;

use super::GroupKey;

/// Missed slots that wait to be back-filled.
#[derive(Debug, Default)]
pub struct Backlog {
    waiting: BTreeSet<(i64, GroupKey)>,
}

impl Backlog {
    /// Adds slots of a group, in nanoseconds.
    pub fn add(&mut self, key: &GroupKey, slots: &[i64]) {
        self.waiting.extend(slots.iter().map(|slot| (*slot, key.clone())));
    }

    /// The oldest.
    pub fn take(&mut self) -> Option<(i64, GroupKey)> {
        self.waiting.pop_first()
    }

    /// The oldest slot of a group that still waits.
    pub fn oldest_of(&self, key: &GroupKey) -> Option<i64> {
        self.waiting.iter().find(|(_, k)| k == key).map(|(slot, _)| *slot)
    }

    /// Forgets a group that is no more.
    pub fn forget(&mut self, key: &GroupKey) {
        self.waiting.retain(|(_, k)| k != key);
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::tenant::TenantId;

    fn key(name: &str) -> GroupKey {
        GroupKey { tenant: TenantId::single(), file: "f".into(), name: name.into() }
    }

    #[test]
    fn backlog_gives_the_oldest_slot_of_any_group_first() {
        let mut backlog = Backlog::default();
        backlog.add(&key("a"), &[10, 30]);
        backlog.add(&key("b"), &[20, 30]);
        backlog.add(&key("a"), &[10]);
        assert_eq!((backlog.len(), backlog.oldest_of(&key("b"))), (4, Some(20)));
        assert_eq!(backlog.take(), Some((10, key("a"))));
        backlog.forget(&key("b"));
        assert_eq!(backlog.take(), Some((30, key("a"))));
        assert_eq!(backlog.take(), None);
    }
}
