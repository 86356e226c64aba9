//! One numbered, immutable statement of which blocks are live, and the pure edit that leads to the next.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use ulid::Ulid;

use super::error::CatalogError;
use crate::block_meta::{BlockMeta, MetaError};
use crate::deletion::{Tombstone, Visibility, selector_text};
use crate::sidecar::{Kind, Sidecar};
use crate::ulid_text;

/// How many of the latest commits a snapshot names, so that a writer that lost sight of its own can find it
/// again.
const RECENT_COMMITS: usize = 64;

/// Tombstones a tenant may have at once, and bytes of their selectors. Compaction makes room; each costs
/// readers of the blocks it reaches.
pub const MAX_TOMBSTONES: usize = 1000;
pub const MAX_TOMBSTONE_BYTES: usize = 1 << 20;

/// Which blocks of a tenant are live, and up to where each writer's log is in blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    pub version: u32,
    /// 0 is the empty snapshot before the first commit, which is nowhere stored.
    pub number: u64,
    /// Who committed it.
    pub writer: String,
    /// The latest commits, newest last; the last is this snapshot's own.
    #[serde(with = "ulid_text::list")]
    pub commits: Vec<Ulid>,
    /// Writer name → number of the log segment up to which (included) all is in blocks.
    pub watermarks: BTreeMap<String, u64>,
    /// Live blocks by [`BlockMeta::order`], oldest first: of two that disagree about a sample the later wins.
    #[serde(with = "shared_list")]
    pub blocks: Vec<Arc<BlockMeta>>,
    /// Deletions that some live block has still to be rewritten for, ascending by ULID, which is the order of
    /// their commits.
    #[serde(with = "shared_list", default, skip_serializing_if = "Vec::is_empty")]
    pub tombstones: Vec<Arc<Tombstone>>,
    /// Live block → the newest tombstone of which it is known to hold nothing any more.
    #[serde(with = "ulid_map", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub clean: BTreeMap<Ulid, Ulid>,
    /// Live blocks that could not be read, and why: compaction leaves them alone. Queries that need them
    /// still say that they cannot be read.
    #[serde(with = "text_map", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub quarantined: BTreeMap<Ulid, Quarantine>,
    /// Files of exemplars, ascending by first time.
    #[serde(with = "shared_list", default, skip_serializing_if = "Vec::is_empty")]
    pub exemplars: Vec<Arc<Sidecar>>,
    /// The file of what is known of metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Sidecar>,
    /// Blocks that retention has taken out of [`Snapshot::blocks`] and that can still be brought back; nobody
    /// reads them.
    #[serde(with = "shared_list", default, skip_serializing_if = "Vec::is_empty")]
    pub expired: Vec<Arc<ExpiredBlock>>,
    /// CRC-32 of this text without this field, eight hexadecimal digits.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub crc32: String,
}

/// Why a block is not compacted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// What is wrong with it.
    pub reason: String,
    /// When that was found, in milliseconds, and by whom.
    pub since_ms: i64,
    pub found_by: String,
}

/// A block past its retention, kept for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpiredBlock {
    pub block: BlockMeta,
    /// When it was taken out, in milliseconds.
    pub since_ms: i64,
}

/// What a commit changes. Applying it is pure, so a commit that lost a race is applied again to what won.
#[derive(Clone, Debug, Default)]
pub struct Edit {
    pub add: Vec<BlockMeta>,
    /// All must be live, else the edit fails: somebody else replaced them.
    pub remove: Vec<Ulid>,
    /// Live blocks that become expired ones, and when; all must be live, else the edit fails.
    pub expire: Vec<(Ulid, i64)>,
    /// Expired blocks that become live again; all must be there, else the edit fails.
    pub restore: Vec<Ulid>,
    /// Expired blocks that are given up.
    pub give_up: Vec<Ulid>,
    /// Writer name → log segment; never moves back.
    pub watermarks: BTreeMap<String, u64>,
    /// A writer, and what its watermark must be (any of these; `None`: it has none), else the edit fails:
    /// another process has its name.
    pub expected_watermark: Option<(String, Vec<Option<u64>>)>,
    /// Deletions: they reach every block that is live when the commit is made.
    pub bury: Vec<Tombstone>,
    /// Blocks (live or in `add`) that hold nothing of any tombstone up to one: they were written through the
    /// visibility, or looked through.
    pub clean: Vec<(Ulid, Ulid)>,
    /// Live blocks that are damaged, and live blocks that are whole again.
    pub quarantine: Vec<(Ulid, Quarantine)>,
    pub release: Vec<Ulid>,
    pub add_exemplars: Vec<Sidecar>,
    /// All must be there, else the edit fails: somebody else dropped them.
    pub drop_exemplars: Vec<Ulid>,
    /// The file that is there (`None`: none is), else the edit fails, and the one that takes its place.
    pub metadata: Option<(Option<Ulid>, Sidecar)>,
}

impl Edit {
    /// A flush: one more block (or none, where a window held nothing), and the log segments that are now in
    /// blocks.
    pub fn flush(block: Option<BlockMeta>, writer: &str, watermark: u64) -> Edit {
        Edit {
            add: block.into_iter().collect(),
            watermarks: BTreeMap::from([(writer.to_string(), watermark)]),
            ..Edit::default()
        }
    }

    /// A compaction, downsampling or deletion: some blocks in the place of others.
    pub fn replace(remove: Vec<Ulid>, add: Vec<BlockMeta>) -> Edit {
        Edit { add, remove, ..Edit::default() }
    }

    /// A deletion.
    pub fn delete(tombstones: Vec<Tombstone>) -> Edit {
        Edit { bury: tombstones, ..Edit::default() }
    }

    /// What is known of metrics, in the place of the file `replaces`.
    pub fn metadata(replaces: Option<Ulid>, with: Sidecar) -> Edit {
        Edit { metadata: Some((replaces, with)), ..Edit::default() }
    }

    /// Says that what is added was read through [`Snapshot::visibility`] of this snapshot, so that its
    /// tombstones need not be applied again.
    pub fn written_through(mut self, snapshot: &Snapshot) -> Edit {
        if let Some(newest) = snapshot.tombstones.last() {
            self.clean.extend(self.add.iter().map(|b| (b.ulid, newest.ulid)));
        }
        self
    }
}

impl Snapshot {
    /// The files beside the blocks.
    pub fn sidecars(&self) -> impl Iterator<Item = (Kind, &Sidecar)> {
        let exemplars = self.exemplars.iter().map(|f| (Kind::Exemplars, &**f));
        exemplars.chain(self.metadata.iter().map(|f| (Kind::Metadata, f)))
    }

    /// The newest version of a whole snapshot's text; what is stored as changes has the one above, see
    /// [`Changes`](super::changes::Changes).
    pub(super) const VERSION: u32 = Self::EXPIRED;
    /// The version of a snapshot that names nothing but blocks: older programs read it too.
    const PLAIN: u32 = 1;
    /// That of one that names more than blocks, and of one with blocks that are
    /// [shares](crate::block::Share): a program that does not know them would replace some of a whole and
    /// leave the others.
    const MORE: u32 = 2;
    const SHARES: u32 = 3;
    /// That of one with blocks that retention has taken out for now: a program that does not know them would
    /// delete them.
    const EXPIRED: u32 = 4;

    /// The state before anybody committed.
    pub fn empty() -> Snapshot {
        Snapshot { version: Self::PLAIN, ..Snapshot::default() }
    }

    /// The snapshot that follows from this one by an edit.
    pub fn apply(&self, edit: &Edit, writer: &str, commit: Ulid) -> Result<Snapshot, CatalogError> {
        if let Some((name, expected)) = &edit.expected_watermark
            && !expected.contains(&self.watermark(name))
        {
            return Err(CatalogError::Fenced(format!(
                "another process has committed under the name {name} (up to segment {:?} of its log) in snapshot {}",
                self.watermark(name),
                self.number
            )));
        }
        let mut next = self.clone();
        next.crc32.clear();
        next.number += 1;
        next.writer = writer.to_string();
        for gone in &edit.remove {
            let Some(at) = next.blocks.iter().position(|b| b.ulid == *gone) else {
                return Err(CatalogError::Conflict(format!(
                    "block {gone} is not live in snapshot {}: another writer has replaced or deleted it; plan again from the current snapshot",
                    self.number
                )));
            };
            next.blocks.remove(at);
        }
        next.edit_expired(edit)?;
        for block in &edit.add {
            if next.blocks.iter().any(|b| b.ulid == block.ulid) {
                return Err(CatalogError::Conflict(format!(
                    "block {} is live already in snapshot {}",
                    block.ulid, self.number
                )));
            }
            next.blocks.push(Arc::new(block.clone()));
        }
        next.blocks.sort_by_key(|b| (b.order(), b.ulid));
        for (name, segment) in &edit.watermarks {
            let mark = next.watermarks.entry(name.clone()).or_insert(*segment);
            *mark = (*mark).max(*segment);
        }
        next.bury(&edit.bury)?;
        for (block, tombstone) in &edit.clean {
            let to = next.clean.entry(*block).or_insert(*tombstone);
            *to = (*to).max(*tombstone);
        }
        next.drop_spent_tombstones();
        for (block, why) in &edit.quarantine {
            next.quarantined.entry(*block).or_insert_with(|| why.clone());
        }
        let blocks = &next.blocks;
        next.quarantined.retain(|q, _| !edit.release.contains(q) && blocks.iter().any(|b| b.ulid == *q));
        next.edit_sidecars(edit)?;
        next.version = next.lowest_version();
        next.commits.push(commit);
        next.commits = latest(next.commits);
        Ok(next)
    }

    /// Puts its lists into their order; expired blocks stay in the order in which they came.
    pub(super) fn arrange(&mut self) {
        self.blocks.sort_by_key(|b| (b.order(), b.ulid));
        self.tombstones.sort_by_key(|t| t.ulid);
        self.exemplars.sort_by_key(|f| (f.min_t_ms, f.ulid));
    }

    /// The lowest version that says all. A program that does not know tombstones would show what was deleted,
    /// and one that does not know the rest would drop it with its next commit: they must refuse.
    pub(super) fn lowest_version(&self) -> u32 {
        let no_sidecars = self.exemplars.is_empty() && self.metadata.is_none();
        let plain = self.tombstones.is_empty() && self.quarantined.is_empty() && no_sidecars;
        match plain {
            _ if !self.expired.is_empty() => Self::EXPIRED,
            _ if self.blocks.iter().any(|b| b.share.is_some()) => Self::SHARES,
            true => Self::PLAIN,
            false => Self::MORE,
        }
    }

    /// What readers of this snapshot's blocks must not see.
    pub fn visibility(&self) -> Visibility {
        Visibility::of(&self.tombstones, &self.clean)
    }

    /// The newest that decides between blocks: what is written from here on must have a later
    /// [`BlockMeta::order`], or a tombstone would reach it.
    pub fn newest_order(&self) -> Ulid {
        let blocks = self.blocks.last().map_or(Ulid::nil(), |b| b.order());
        self.tombstones.iter().map(|t| t.covers).fold(blocks, Ulid::max)
    }

    /// A name for a block of new samples: later than everything known here, whatever the clock says.
    pub fn next_ulid(&self) -> Ulid {
        let newest = self.newest_order();
        let ulid = Ulid::new();
        // Random beyond the first step, so that two writers with a clock behind do not choose the same.
        if ulid > newest { ulid } else { Ulid(newest.0.saturating_add(1 + ulid.random() % (1 << 40))) }
    }

    fn edit_expired(&mut self, edit: &Edit) -> Result<(), CatalogError> {
        for (gone, since_ms) in &edit.expire {
            let Some(at) = self.blocks.iter().position(|b| b.ulid == *gone) else {
                return Err(CatalogError::Conflict(format!(
                    "block {gone} is not live any more: another has replaced or expired it"
                )));
            };
            let block = BlockMeta::clone(&self.blocks.remove(at));
            self.expired.push(Arc::new(ExpiredBlock { block, since_ms: *since_ms }));
        }
        for back in &edit.restore {
            let Some(at) = self.expired.iter().position(|e| e.block.ulid == *back) else {
                return Err(CatalogError::Conflict(format!(
                    "block {back} is not among the expired ones any more: another has restored it, or given it up"
                )));
            };
            self.blocks.push(Arc::new(self.expired.remove(at).block.clone()));
        }
        self.expired.retain(|e| !edit.give_up.contains(&e.block.ulid));
        Ok(())
    }

    fn edit_sidecars(&mut self, edit: &Edit) -> Result<(), CatalogError> {
        for gone in &edit.drop_exemplars {
            let Some(at) = self.exemplars.iter().position(|f| f.ulid == *gone) else {
                return Err(CatalogError::Conflict(format!(
                    "the file of exemplars {gone} is not live any more: another writer has joined or dropped it"
                )));
            };
            self.exemplars.remove(at);
        }
        self.exemplars.extend(edit.add_exemplars.iter().cloned().map(Arc::new));
        self.exemplars.sort_by_key(|f| (f.min_t_ms, f.ulid));
        if let Some((replaces, with)) = &edit.metadata {
            if self.metadata.as_ref().map(|f| f.ulid) != *replaces {
                return Err(CatalogError::Conflict(
                    "another writer has changed what is known of metrics meanwhile".to_string(),
                ));
            }
            self.metadata = Some(with.clone());
        }
        Ok(())
    }

    fn bury(&mut self, tombstones: &[Tombstone]) -> Result<(), CatalogError> {
        for given in tombstones {
            let mut t = given.clone();
            t.covers = t.covers.max(self.newest_order());
            if let Some(last) = self.tombstones.last() {
                t.ulid = t.ulid.max(Ulid(last.ulid.0.saturating_add(1)));
            }
            self.tombstones.retain(|other| !t.includes(other));
            let bytes: usize = self.tombstones.iter().map(|t| t.text_bytes()).sum();
            if self.tombstones.len() >= MAX_TOMBSTONES || bytes + t.text_bytes() > MAX_TOMBSTONE_BYTES {
                return Err(CatalogError::Full(format!(
                    "there are {} deletions that compaction has not carried out yet, with {bytes} bytes of selectors, and at most {MAX_TOMBSTONES} with {MAX_TOMBSTONE_BYTES} bytes may wait: nothing of {} was deleted. Clean tombstones (POST /api/v1/admin/tsdb/clean_tombstones), or delete with fewer, wider selectors",
                    self.tombstones.len(),
                    selector_text(&t.matchers)
                )));
            }
            self.tombstones.push(Arc::new(t));
        }
        Ok(())
    }

    /// A tombstone has done its work when no live block that it reaches may hold anything of it.
    fn drop_spent_tombstones(&mut self) {
        if self.tombstones.is_empty() && self.clean.is_empty() {
            return;
        }
        // What may be brought back must not bring back what was deleted of it.
        let expired = self.expired.iter().map(|e| &e.block);
        let blocks: Vec<_> =
            self.blocks.iter().map(|b| &**b).chain(expired).map(|b| (b, b.order())).collect();
        let clean = &self.clean;
        self.tombstones.retain(|t| {
            blocks.iter().any(|(b, order)| {
                *order <= t.covers
                    && b.overlaps(t.min_t_ms, t.max_t_ms)
                    && clean.get(&b.ulid).is_none_or(|to| *to < t.ulid)
            })
        });
        if self.tombstones.is_empty() {
            self.clean.clear();
        } else {
            let there: std::collections::HashSet<Ulid> = blocks.iter().map(|(b, _)| b.ulid).collect();
            self.clean.retain(|block, _| there.contains(block));
        }
    }

    /// Live blocks whose samples can lie in a range (ends included), oldest first.
    pub fn overlapping(&self, min_t_ms: i64, max_t_ms: i64) -> Vec<Arc<BlockMeta>> {
        self.blocks.iter().filter(|b| b.overlaps(min_t_ms, max_t_ms)).cloned().collect()
    }

    /// The log segment up to which a writer's samples are in blocks; `None` if it never committed.
    pub fn watermark(&self, writer: &str) -> Option<u64> {
        self.watermarks.get(writer).copied()
    }

    /// The commit that made this snapshot.
    pub fn commit(&self) -> Option<Ulid> {
        self.commits.last().copied()
    }

    /// The text of an object that holds all of it, whatever it was read from.
    pub fn to_json(&self) -> Vec<u8> {
        let mut plain = self.clone();
        plain.crc32.clear();
        sealed(&plain)
    }

    pub(super) fn from_json(object: &str, text: &[u8]) -> Result<Snapshot, CatalogError> {
        let mut s: Snapshot = serde_json::from_slice(text).map_err(|e| not_a_snapshot(object, &e))?;
        let said = std::mem::take(&mut s.crc32);
        check_seal(object, &s, &said)?;
        check_blocks(object, s.blocks.iter().map(|b| &**b).chain(s.expired.iter().map(|e| &e.block)))?;
        Ok(s)
    }
}

/// As many of the latest commits as a snapshot names.
pub(super) fn latest(mut commits: Vec<Ulid>) -> Vec<Ulid> {
    commits.drain(..commits.len().saturating_sub(RECENT_COMMITS));
    commits
}

/// That a text cannot be read as a snapshot.
pub(super) fn not_a_snapshot(object: &str, e: &serde_json::Error) -> CatalogError {
    CatalogError::Corrupt { object: object.to_string(), what: format!("not a catalog snapshot: {e}") }
}

/// The JSON of something whose last field is `crc32` and left out while it is empty, with that field.
pub(super) fn sealed(plain: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec(plain).expect("numbers and strings always serialize");
    let crc32 = crc32fast::hash(&text);
    text.pop();
    text.extend_from_slice(format!(",\"crc32\":\"{crc32:08x}\"}}").as_bytes());
    text
}

/// Whether something that was read, without its `crc32`, has the checksum that it said.
pub(super) fn check_seal(object: &str, plain: &impl Serialize, said: &str) -> Result<(), CatalogError> {
    let text = serde_json::to_vec(plain).expect("numbers and strings always serialize");
    let found = format!("{:08x}", crc32fast::hash(&text));
    if said != found {
        let what = format!("its checksum is {found}, it says {said:?}");
        return Err(CatalogError::Corrupt { object: object.to_string(), what });
    }
    Ok(())
}

/// Whether this program knows the versions of blocks.
pub(super) fn check_blocks<'a>(
    object: &str,
    mut blocks: impl Iterator<Item = &'a BlockMeta>,
) -> Result<(), CatalogError> {
    let corrupt = |e: MetaError| CatalogError::Corrupt { object: object.to_string(), what: e.to_string() };
    blocks.try_for_each(|b| b.check_version(object).map_err(corrupt))
}

/// Anything by ULID, which is written as a text.
pub(super) mod text_map {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use ulid::Ulid;

    pub fn serialize<T: Serialize, S: Serializer>(map: &BTreeMap<Ulid, T>, s: S) -> Result<S::Ok, S::Error> {
        s.collect_map(map.iter().map(|(k, v)| (k.to_string(), v)))
    }

    pub fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        d: D,
    ) -> Result<BTreeMap<Ulid, T>, D::Error> {
        let one = |(k, v): (String, T)| match Ulid::from_string(&k) {
            Ok(ulid) => Ok((ulid, v)),
            Err(e) => Err(serde::de::Error::custom(format!("{k:?} is not a ULID: {e}"))),
        };
        BTreeMap::<String, T>::deserialize(d)?.into_iter().map(one).collect()
    }
}

/// ULIDs by ULID, as texts.
pub(super) mod ulid_map {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer};
    use ulid::Ulid;

    pub fn serialize<S: Serializer>(map: &BTreeMap<Ulid, Ulid>, s: S) -> Result<S::Ok, S::Error> {
        s.collect_map(map.iter().map(|(k, v)| (k.to_string(), v.to_string())))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<BTreeMap<Ulid, Ulid>, D::Error> {
        let read = |t: &str| {
            Ulid::from_string(t).map_err(|e| serde::de::Error::custom(format!("{t:?} is not a ULID: {e}")))
        };
        let texts = BTreeMap::<String, String>::deserialize(d)?;
        texts.iter().map(|(k, v)| Ok((read(k)?, read(v)?))).collect()
    }
}

/// What is shared among snapshots, as a plain list.
pub(super) mod shared_list {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<T: Serialize, S: Serializer>(list: &[Arc<T>], s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(list.iter().map(|one| &**one))
    }

    pub fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Vec<Arc<T>>, D::Error> {
        Ok(Vec::<T>::deserialize(d)?.into_iter().map(Arc::new).collect())
    }
}
