//! When a group is evaluated: at slots of its interval, shifted by a hash of its name so that groups do not
//! all come at once.

use model::labels::Labels;

/// The slots of a group, in nanoseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slots {
    pub interval_ns: i64,
    offset_ns: i64,
}

impl Slots {
    /// Upstream's places: `k * interval + hash(file, name) mod interval`.
    pub fn new(file: &str, name: &str, interval_ms: i64) -> Slots {
        let interval_ns = interval_ms.max(1).saturating_mul(1_000_000);
        let hash = Labels::from_pairs([("file", file), ("name", name)]).hash();
        Slots { interval_ns, offset_ns: (hash % interval_ns as u64) as i64 }
    }

    /// The last slot that is not after a time.
    pub fn at_or_before(&self, ns: i64) -> i64 {
        let shifted = ns.saturating_sub(self.offset_ns);
        shifted - shifted.rem_euclid(self.interval_ns) + self.offset_ns
    }

    /// The first slot after a time.
    pub fn after(&self, ns: i64) -> i64 {
        self.at_or_before(ns).saturating_add(self.interval_ns)
    }

    /// The slots between two, neither included, ascending, the newest `most` of them.
    pub fn between(&self, from: i64, to: i64, most: usize) -> Vec<i64> {
        let count = (to.saturating_sub(from) / self.interval_ns - 1).max(0);
        let count = count.min(i64::try_from(most).unwrap_or(i64::MAX));
        (1..=count).rev().map(|n| to - n * self.interval_ns).collect()
    }
}

/// What is to be evaluated now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Slots that nobody looked at in time, ascending.
    pub missed: Vec<i64>,
    pub slot: i64,
}

/// Most slots that are remembered as missed.
const MOST_MISSED: usize = 10_000;

/// The slots since `last`, which was evaluated; `None` while the next is not there yet. Missed ones are as
/// old as `max_age_ns` at most.
pub fn due(slots: &Slots, last: i64, now_ns: i64, max_age_ns: i64) -> Option<Due> {
    let slot = slots.at_or_before(now_ns);
    if slot <= last {
        return None;
    }
    let from = last.max(slots.at_or_before(now_ns.saturating_sub(max_age_ns)));
    Some(Due { missed: slots.between(from, slot, MOST_MISSED), slot })
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000_000;

    #[test]
    fn slots_are_an_interval_apart_and_shifted_by_name() {
        let a = Slots::new("f.yml", "a", 60_000);
        let b = Slots::new("f.yml", "b", 60_000);
        assert_ne!(a.offset_ns, b.offset_ns);
        for now in [0, 59 * S, 1_700_000_000 * S + 123] {
            let slot = a.at_or_before(now);
            assert!(slot <= now && now < slot + 60 * S);
            assert_eq!(slot.rem_euclid(60 * S), a.offset_ns);
            assert_eq!(a.after(now), slot + 60 * S);
            assert_eq!(a.at_or_before(slot), slot);
        }
    }

    #[test]
    fn late_slots_are_missed_in_order_and_not_for_ever() {
        let slots = Slots::new("f.yml", "a", 60_000);
        let last = slots.at_or_before(10_000 * S);
        let minute = 60 * S;
        assert_eq!(due(&slots, last, last + minute - 1, i64::MAX), None);
        assert_eq!(
            due(&slots, last, last + minute + 5 * S, i64::MAX),
            Some(Due { missed: vec![], slot: last + minute })
        );
        let three = due(&slots, last, last + 4 * minute + 1, i64::MAX).unwrap();
        assert_eq!(three.missed, [last + minute, last + 2 * minute, last + 3 * minute]);
        assert_eq!(three.slot, last + 4 * minute);
        let bounded = due(&slots, last, last + 100 * minute, 3 * minute).unwrap();
        assert_eq!(bounded.missed, [last + 98 * minute, last + 99 * minute]);
        // A clock that goes back evaluates nothing twice.
        assert_eq!(due(&slots, last, last - 500 * minute, i64::MAX), None);
    }
}
