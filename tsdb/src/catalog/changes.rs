//! A snapshot as what it changes of an earlier one: how it is stored where all of it would be many more
//! bytes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use ulid::Ulid;

use super::error::CatalogError;
use super::snapshot::{ExpiredBlock, Quarantine, Snapshot};
use super::snapshot::{
    check_blocks, check_seal, latest, not_a_snapshot, sealed, shared_list, text_map, ulid_map,
};
use crate::block::BlockMeta;
use crate::deletion::Tombstone;
use crate::sidecar::Sidecar;
use crate::ulid_text;

/// Longest list of snapshots that one may stand on: more is no text of ours, and would be that many requests.
const LONGEST_PATH: usize = 32;

/// What leads from an earlier snapshot to a later one. What is small is said whole; of what grows with the
/// blocks, only what went and what came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Changes {
    pub version: u32,
    /// The number of the snapshot that it leads to.
    pub number: u64,
    /// Numbers, ascending: the whole snapshot that all begins with, and those that lead from there to the one
    /// that this changes, which is the last.
    pub stands_on: Vec<u64>,
    /// The commit of the last of them.
    #[serde(with = "ulid_text::one")]
    pub since_commit: Ulid,
    /// Bytes of the whole snapshot's object, and of those that were stored as changes since then.
    pub whole_bytes: u64,
    pub spent_bytes: u64,
    pub writer: String,
    /// The commits since then (the latest of them, where they are more than a snapshot names), newest last.
    #[serde(with = "ulid_text::list")]
    pub commits: Vec<Ulid>,
    pub watermarks: BTreeMap<String, u64>,
    #[serde(default, skip_serializing_if = "ListChange::is_none")]
    pub blocks: ListChange<BlockMeta>,
    #[serde(default, skip_serializing_if = "ListChange::is_none")]
    pub tombstones: ListChange<Tombstone>,
    #[serde(with = "ulid_text::list", default, skip_serializing_if = "Vec::is_empty")]
    pub clean_gone: Vec<Ulid>,
    #[serde(with = "ulid_map", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub clean: BTreeMap<Ulid, Ulid>,
    #[serde(with = "ulid_text::list", default, skip_serializing_if = "Vec::is_empty")]
    pub quarantined_gone: Vec<Ulid>,
    #[serde(with = "text_map", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub quarantined: BTreeMap<Ulid, Quarantine>,
    #[serde(default, skip_serializing_if = "ListChange::is_none")]
    pub exemplars: ListChange<Sidecar>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Sidecar>,
    #[serde(default, skip_serializing_if = "ListChange::is_none")]
    pub expired: ListChange<ExpiredBlock>,
    /// CRC-32 of this text without this field, eight hexadecimal digits.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub crc32: String,
}

/// What went out of a list, and what came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound = "T: Serialize + for<'a> Deserialize<'a>")]
pub(super) struct ListChange<T> {
    #[serde(with = "ulid_text::list", default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<Ulid>,
    #[serde(with = "shared_list", default, skip_serializing_if = "Vec::is_empty")]
    pub new: Vec<Arc<T>>,
}

impl<T> Default for ListChange<T> {
    fn default() -> Self {
        ListChange { gone: Vec::new(), new: Vec::new() }
    }
}

/// What has a name of its own in a catalog.
pub(super) trait Named {
    fn ulid(&self) -> Ulid;
}

impl Named for BlockMeta {
    fn ulid(&self) -> Ulid {
        self.ulid
    }
}

impl Named for Tombstone {
    fn ulid(&self) -> Ulid {
        self.ulid
    }
}

impl Named for Sidecar {
    fn ulid(&self) -> Ulid {
        self.ulid
    }
}

impl Named for ExpiredBlock {
    fn ulid(&self) -> Ulid {
        self.block.ulid
    }
}

impl<T: Named + Eq> ListChange<T> {
    fn is_none(&self) -> bool {
        self.gone.is_empty() && self.new.is_empty()
    }

    fn between(old: &[Arc<T>], new: &[Arc<T>]) -> ListChange<T> {
        let by_name = |list: &[Arc<T>]| -> HashMap<Ulid, Arc<T>> {
            list.iter().map(|one| (one.ulid(), one.clone())).collect()
        };
        let (had, has) = (by_name(old), by_name(new));
        let gone = old.iter().filter(|one| has.get(&one.ulid()) != Some(one)).map(|one| one.ulid()).collect();
        let new = new.iter().filter(|one| had.get(&one.ulid()) != Some(one)).cloned().collect();
        ListChange { gone, new }
    }

    /// The list that it leads to, what came at its end; the name of what should have been there and was not,
    /// or the other way round.
    fn apply(&self, old: &[Arc<T>]) -> Result<Vec<Arc<T>>, Ulid> {
        let gone: HashSet<Ulid> = self.gone.iter().copied().collect();
        let mut left: Vec<Arc<T>> = old.iter().filter(|one| !gone.contains(&one.ulid())).cloned().collect();
        if left.len() + self.gone.len() != old.len() {
            let there: HashSet<Ulid> = old.iter().map(|one| one.ulid()).collect();
            return Err(self.gone.iter().copied().find(|name| !there.contains(name)).unwrap_or_default());
        }
        let mut there: HashSet<Ulid> = left.iter().map(|one| one.ulid()).collect();
        if let Some(double) = self.new.iter().find(|one| !there.insert(one.ulid())) {
            return Err(double.ulid());
        }
        left.extend(self.new.iter().cloned());
        Ok(left)
    }
}

/// The keys that are gone, and what is new or other than before.
fn map_between<V: Eq + Clone>(
    old: &BTreeMap<Ulid, V>,
    new: &BTreeMap<Ulid, V>,
) -> (Vec<Ulid>, BTreeMap<Ulid, V>) {
    let gone = old.keys().filter(|key| !new.contains_key(key)).copied().collect();
    let set = new.iter().filter(|(key, value)| old.get(key) != Some(value));
    (gone, set.map(|(key, value)| (*key, value.clone())).collect())
}

fn map_applied<V: Clone>(
    old: &BTreeMap<Ulid, V>,
    gone: &[Ulid],
    set: &BTreeMap<Ulid, V>,
) -> BTreeMap<Ulid, V> {
    let mut map = old.clone();
    for key in gone {
        map.remove(key);
    }
    map.extend(set.iter().map(|(key, value)| (*key, value.clone())));
    map
}

impl Changes {
    /// The version of such a text: programs that know whole snapshots only refuse it.
    pub const VERSION: u32 = Snapshot::VERSION + 1;

    /// What leads from the last of `path` to `next`; `path` begins with a whole snapshot.
    pub fn between(
        path: &[Arc<Snapshot>],
        next: &Snapshot,
        whole_bytes: u64,
        spent_bytes: u64,
    ) -> Option<Changes> {
        let since = path.last()?;
        let commits = usize::try_from(next.number - since.number).unwrap_or(usize::MAX);
        let known = next.commits.len().saturating_sub(commits);
        let (clean_gone, clean) = map_between(&since.clean, &next.clean);
        let (quarantined_gone, quarantined) = map_between(&since.quarantined, &next.quarantined);
        Some(Changes {
            version: Self::VERSION,
            number: next.number,
            stands_on: path.iter().map(|s| s.number).collect(),
            since_commit: since.commit()?,
            whole_bytes,
            spent_bytes,
            writer: next.writer.clone(),
            commits: next.commits[known..].to_vec(),
            watermarks: next.watermarks.clone(),
            blocks: ListChange::between(&since.blocks, &next.blocks),
            tombstones: ListChange::between(&since.tombstones, &next.tombstones),
            clean_gone,
            clean,
            quarantined_gone,
            quarantined,
            exemplars: ListChange::between(&since.exemplars, &next.exemplars),
            metadata: next.metadata.clone(),
            expired: ListChange::between(&since.expired, &next.expired),
            crc32: String::new(),
        })
    }

    /// The snapshot that it leads to from `since`, or why that is not the one that it changes.
    pub fn apply(&self, since: &Snapshot) -> Result<Snapshot, String> {
        if since.commit() != Some(self.since_commit) {
            return Err(format!(
                "it changes snapshot {} as commit {} left it, and what is there is another",
                since.number, self.since_commit
            ));
        }
        let other = |list| move |name| format!("it does not fit snapshot {}: {list} {name}", since.number);
        let mut next = Snapshot {
            version: 0,
            number: self.number,
            writer: self.writer.clone(),
            commits: latest(since.commits.iter().chain(&self.commits).copied().collect()),
            watermarks: self.watermarks.clone(),
            blocks: self.blocks.apply(&since.blocks).map_err(other("block"))?,
            tombstones: self.tombstones.apply(&since.tombstones).map_err(other("deletion"))?,
            clean: map_applied(&since.clean, &self.clean_gone, &self.clean),
            quarantined: map_applied(&since.quarantined, &self.quarantined_gone, &self.quarantined),
            exemplars: self.exemplars.apply(&since.exemplars).map_err(other("exemplars"))?,
            metadata: self.metadata.clone(),
            expired: self.expired.apply(&since.expired).map_err(other("expired block"))?,
            crc32: String::new(),
        };
        next.arrange();
        next.version = next.lowest_version();
        Ok(next)
    }

    pub fn to_json(&self) -> Vec<u8> {
        sealed(self)
    }

    pub fn from_json(object: &str, text: &[u8]) -> Result<Changes, CatalogError> {
        let mut c: Changes = serde_json::from_slice(text).map_err(|e| not_a_snapshot(object, &e))?;
        let said = std::mem::take(&mut c.crc32);
        check_seal(object, &c, &said)?;
        let ascend = c.stands_on.windows(2).all(|pair| pair[0] < pair[1]);
        let before = c.stands_on.last().is_some_and(|last| *last < c.number);
        if !ascend || !before || c.stands_on[0] == 0 || c.stands_on.len() > LONGEST_PATH {
            let what = format!("snapshot {} cannot stand on {:?}", c.number, c.stands_on);
            return Err(CatalogError::Corrupt { object: object.to_string(), what });
        }
        let expired = c.expired.new.iter().map(|e| &e.block);
        check_blocks(object, c.blocks.new.iter().map(|b| &**b).chain(expired))?;
        Ok(c)
    }
}
