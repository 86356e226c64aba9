//! Which process evaluates which groups, where several share a bucket: one table that all of them write, as a
//! pure step from what it says to what it should say next.
//!
//! Groups are spread over a fixed number of *shares* by their names. Each process that takes part is a member
//! of the table and shows that it lives by counting its `beat` up. Whoever has not seen a member's beat
//! change for long enough, by its own clock that never jumps, takes it out; its shares are free then, and
//! every member takes free ones until it has its fair part. A member that has too many stops the groups of
//! some, and names another as their owner in a later step.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh64::xxh64;

use super::GroupKey;
use super::progress::id;

/// Parts into which the groups are cut. More would spread them more evenly, and make the table longer.
pub const SHARES: u16 = 64;

/// Beats after which a member is given what others hold: one that restarts again and again gets nothing.
const SETTLED_BEATS: u64 = 3;

/// The share that a group belongs to; the same in every process.
pub fn share_of(key: &GroupKey) -> u16 {
    (xxh64(id(key).as_bytes(), 0) % u64::from(SHARES)) as u16
}

/// Who takes part, and who evaluates what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    pub members: BTreeMap<String, Member>,
    /// The owner of each share; one that is missing is free.
    pub owners: BTreeMap<u16, String>,
}

/// A process that takes part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Goes up with every step of its own.
    pub beat: u64,
    /// Where other members reach it; empty where they cannot.
    #[serde(default)]
    pub url: String,
}

/// What a member does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub table: Table,
    /// Own shares whose groups are to be stopped, so that a later step can give them away.
    pub release: BTreeSet<u16>,
}

impl Table {
    /// The shares of a member.
    pub fn shares_of(&self, member: &str) -> BTreeSet<u16> {
        self.owners.iter().filter(|(_, owner)| *owner == member).map(|(share, _)| *share).collect()
    }

    fn fair_part(&self) -> usize {
        usize::from(SHARES).div_ceil(self.members.len().max(1))
    }

    /// Another that has settled and has less than its fair part: the one with the fewest shares.
    fn receiver(&self, me: &str) -> Option<String> {
        let settled = self.members.iter().filter(|(name, m)| *name != me && m.beat >= SETTLED_BEATS);
        let (shares, name) = settled.map(|(name, _)| (self.shares_of(name).len(), name)).min()?;
        (shares < self.fair_part()).then(|| name.clone())
    }
}

/// The next table of a member that goes on; `url` is where it is reached. `gone` are members that show no
/// life, `released` own shares whose groups were stopped.
pub fn step(table: &Table, me: &str, url: &str, gone: &BTreeSet<String>, released: &BTreeSet<u16>) -> Step {
    let mut next = table.clone();
    next.members.retain(|name, _| name == me || !gone.contains(name));
    let own = next.members.entry(me.to_owned()).or_default();
    own.beat += 1;
    own.url = url.to_owned();
    let members = &next.members;
    next.owners.retain(|_, owner| members.contains_key(owner));
    for share in released {
        if next.owners.get(share).is_some_and(|owner| owner == me)
            && let Some(receiver) = next.receiver(me)
        {
            next.owners.insert(*share, receiver);
        }
    }
    let fair = next.fair_part();
    let mut mine = next.shares_of(me).len();
    for share in 0..SHARES {
        if mine < fair && !next.owners.contains_key(&share) {
            next.owners.insert(share, me.to_owned());
            mine += 1;
        }
    }
    let release = excess(&next, me);
    Step { table: next, release }
}

/// The table of a member that ends: what it had is free.
pub fn leave(table: &Table, me: &str) -> Table {
    let mut next = table.clone();
    next.members.remove(me);
    next.owners.retain(|_, owner| owner != me);
    next
}

/// Own shares beyond the fair part, as many as others want, the highest first.
fn excess(table: &Table, me: &str) -> BTreeSet<u16> {
    let fair = table.fair_part();
    let settled = table.members.iter().filter(|(name, m)| *name != me && m.beat >= SETTLED_BEATS);
    let wanted: usize = settled.map(|(name, _)| fair.saturating_sub(table.shares_of(name).len())).sum();
    let mine = table.shares_of(me);
    let many = mine.len().saturating_sub(fair).min(wanted);
    mine.into_iter().rev().take(many).collect()
}

/// Since when each member's beat has stood still, by the clock of the one that watches.
#[derive(Debug, Default)]
pub struct Watch {
    seen: BTreeMap<String, (u64, Duration)>,
}

impl Watch {
    /// Notes what a table that was read just now says, and gives the members whose beat has not changed for
    /// `patience`. `now` is the time since some start, by a clock that never goes back.
    pub fn gone(&mut self, table: &Table, me: &str, now: Duration, patience: Duration) -> BTreeSet<String> {
        self.seen.retain(|name, _| table.members.contains_key(name));
        let mut gone = BTreeSet::new();
        for (name, member) in table.members.iter().filter(|(name, _)| *name != me) {
            match self.seen.get(name) {
                Some((beat, since)) if *beat == member.beat => {
                    if now.saturating_sub(*since) >= patience {
                        gone.insert(name.clone());
                    }
                }
                _ => {
                    self.seen.insert(name.clone(), (member.beat, now));
                }
            }
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nobody() -> BTreeSet<String> {
        BTreeSet::new()
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|n| n.to_string()).collect()
    }

    /// Every member steps so often, releasing at once what it is asked to.
    fn settle(mut table: Table, members: &[&str], rounds: usize) -> Table {
        let mut releasing: BTreeMap<&str, BTreeSet<u16>> = BTreeMap::new();
        for _ in 0..rounds {
            for me in members {
                let released = releasing.remove(me).unwrap_or_default();
                let step = super::step(&table, me, "", &nobody(), &released);
                table = step.table;
                releasing.insert(me, step.release);
            }
        }
        table
    }

    #[test]
    fn sharing_spreads_shares_evenly_and_moves_no_more_than_it_must() {
        let alone = settle(Table::default(), &["a"], 1);
        assert_eq!(alone.shares_of("a").len(), 64, "one that is alone has everything at once");
        let early = settle(alone.clone(), &["a", "b"], 2);
        assert_eq!(early.shares_of("b").len(), 0, "one that has just come gets nothing yet");
        let two = settle(early, &["a", "b"], 3);
        assert_eq!((two.shares_of("a").len(), two.shares_of("b").len()), (32, 32));
        assert_eq!(settle(two.clone(), &["a", "b"], 5).owners, two.owners, "then nothing moves");
        let three = settle(two.clone(), &["a", "b", "c"], 8);
        let counts: Vec<usize> = ["a", "b", "c"].map(|m| three.shares_of(m).len()).to_vec();
        assert_eq!(counts, [22, 22, 20]);
        let kept = |m: &str| three.shares_of(m).is_subset(&two.shares_of(m));
        assert!(kept("a") && kept("b"), "only what the new one gets has moved");
    }

    #[test]
    fn sharing_gives_what_a_dead_member_had_to_the_others() {
        let three = settle(Table::default(), &["a", "b", "c"], 10);
        let first = step(&three, "a", "", &names(&["b"]), &BTreeSet::new()).table;
        assert!(!first.members.contains_key("b"));
        assert_eq!(first.shares_of("a").len(), 32);
        let second = step(&first, "c", "", &nobody(), &BTreeSet::new()).table;
        assert_eq!(second.owners.len(), 64, "all have an owner again");
        let left = leave(&second, "c");
        assert_eq!(left.owners.len(), 32);
        assert_eq!(step(&left, "a", "", &nobody(), &BTreeSet::new()).table.shares_of("a").len(), 64);
    }

    #[test]
    fn watch_trusts_its_own_clock_only() {
        let second = Duration::from_secs;
        let mut watch = Watch::default();
        let mut table = settle(Table::default(), &["a", "b"], 1);
        assert_eq!(watch.gone(&table, "a", second(0), second(10)), nobody());
        assert_eq!(watch.gone(&table, "a", second(9), second(10)), nobody());
        assert_eq!(watch.gone(&table, "a", second(10), second(10)), names(&["b"]));
        // It was paused itself: what it reads then shows that the other lives.
        table.members.get_mut("b").unwrap().beat += 1;
        assert_eq!(watch.gone(&table, "a", second(500), second(10)), nobody());
        // A member that was taken out and came back begins anew.
        table.members.remove("b");
        watch.gone(&table, "a", second(501), second(10));
        table.members.insert("b".into(), Member { beat: 1, ..Member::default() });
        assert_eq!(watch.gone(&table, "a", second(502), second(10)), nobody());
    }

    #[test]
    fn table_is_as_documented() {
        let page = include_str!("../../../../docs/formats/catalog.md");
        let (_, example) = page.split_once("```json rule-table\n").expect("an example on the page");
        let example = example.split("\n```").next().expect("its end");
        let table: Table = serde_json::from_str(example).unwrap();
        assert_eq!(serde_json::to_string(&table).unwrap(), example);
        let member = "01KDVA0000BBBBBBBBBBBBBBBB";
        assert_eq!((table.members[member].beat, table.shares_of(member)), (12, BTreeSet::from([0, 1])));
        let key =
            GroupKey { tenant: model::tenant::TenantId::single(), file: "f.yml".into(), name: "g".into() };
        assert_eq!(u64::from(share_of(&key)), xxh64(b"default;f.yml;g", 0) % 64);
    }

    proptest! {
        /// Whatever members do, in any order: no share is taken from one that is not gone, and in the end
        /// each has a fair part and every share an owner.
        #[test]
        fn sharing_never_takes_from_the_living(
            steps in proptest::collection::vec((0usize..4, 0usize..8), 1..60),
        ) {
            let all = ["a", "b", "c", "d"];
            let mut table = Table::default();
            let mut releasing: BTreeMap<&str, BTreeSet<u16>> = BTreeMap::new();
            for (who, what) in steps {
                let me = all[who];
                let before = table.clone();
                if what == 7 {
                    table = leave(&table, me);
                    releasing.remove(me);
                    continue;
                }
                let gone = if what == 6 { names(&[all[(who + 1) % 4]]) } else { nobody() };
                gone.iter().for_each(|g| { releasing.remove(g.as_str()); });
                let released = releasing.remove(me).unwrap_or_default();
                let step = step(&table, me, "", &gone, &released);
                for (share, owner) in &before.owners {
                    let kept = step.table.owners.get(share) == Some(owner);
                    prop_assert!(kept || gone.contains(owner) || (owner == me && released.contains(share)));
                }
                prop_assert!(step.release.is_subset(&step.table.shares_of(me)));
                releasing.insert(me, step.release);
                table = step.table;
            }
            let mut table = settle(table, &all, 12);
            table = settle(table, &all, 4);
            prop_assert_eq!(table.owners.len(), 64);
            for member in all {
                prop_assert!(table.shares_of(member).len() <= 16);
            }
        }
    }
}
