//! One numbered, immutable statement of which blocks are live, and the pure edit that leads to the next.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use ulid::Ulid;

use super::CatalogError;
use crate::block::BlockMeta;
use crate::block::meta::ulid_texts;

/// How many of the latest commits a snapshot names, so that a writer that lost sight of its own can find it again.
const RECENT_COMMITS: usize = 64;

/// Which blocks of a tenant are live, and up to where each writer's log is in blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    pub version: u32,
    /// 0 is the empty snapshot before the first commit, which is nowhere stored.
    pub number: u64,
    /// Who committed it.
    pub writer: String,
    /// The latest commits, newest last; the last is this snapshot's own.
    #[serde(with = "ulid_texts")]
    pub commits: Vec<Ulid>,
    /// Writer name → number of the log segment up to which (included) all is in blocks.
    pub watermarks: BTreeMap<String, u64>,
    /// Live blocks by [`BlockMeta::order`], oldest first: of two that disagree about a sample the later wins.
    #[serde(with = "shared_blocks")]
    pub blocks: Vec<Arc<BlockMeta>>,
    /// CRC-32 of this text without this field, eight hexadecimal digits.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub crc32: String,
}

/// What a commit changes. Applying it is pure, so a commit that lost a race is applied again to what won.
#[derive(Clone, Debug, Default)]
pub struct Edit {
    pub add: Vec<BlockMeta>,
    /// All must be live, else the edit fails: somebody else replaced them.
    pub remove: Vec<Ulid>,
    /// Writer name → log segment; never moves back.
    pub watermarks: BTreeMap<String, u64>,
}

impl Edit {
    /// A flush: one more block (or none, where a window held nothing), and the log segments that are now in blocks.
    pub fn flush(block: Option<BlockMeta>, writer: &str, watermark: u64) -> Edit {
        Edit {
            add: block.into_iter().collect(),
            remove: Vec::new(),
            watermarks: BTreeMap::from([(writer.to_string(), watermark)]),
        }
    }

    /// A compaction, downsampling or deletion: some blocks in the place of others.
    pub fn replace(remove: Vec<Ulid>, add: Vec<BlockMeta>) -> Edit {
        Edit { add, remove, watermarks: BTreeMap::new() }
    }
}

impl Snapshot {
    /// The newest version of the text that this code reads and writes.
    pub const VERSION: u32 = 1;

    /// The state before anybody committed.
    pub fn empty() -> Snapshot {
        Snapshot { version: Self::VERSION, ..Snapshot::default() }
    }

    /// The snapshot that follows from this one by an edit.
    pub fn apply(&self, edit: &Edit, writer: &str, commit: Ulid) -> Result<Snapshot, CatalogError> {
        let mut next = self.clone();
        next.crc32.clear();
        next.version = Self::VERSION;
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
        if next.commits.len() >= RECENT_COMMITS {
            next.commits.drain(..=next.commits.len() - RECENT_COMMITS);
        }
        next.commits.push(commit);
        Ok(next)
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

    pub(super) fn to_json(&self) -> Vec<u8> {
        let mut sealed = self.clone();
        sealed.crc32 = String::new();
        let plain = serde_json::to_vec(&sealed).expect("numbers and strings always serialize");
        sealed.crc32 = format!("{:08x}", crc32fast::hash(&plain));
        serde_json::to_vec(&sealed).expect("numbers and strings always serialize")
    }

    pub(super) fn from_json(object: &str, text: &[u8]) -> Result<Snapshot, CatalogError> {
        let corrupt = |what: String| CatalogError::Corrupt { object: object.to_string(), what };
        let mut s: Snapshot =
            serde_json::from_slice(text).map_err(|e| corrupt(format!("not a catalog snapshot: {e}")))?;
        let said = std::mem::take(&mut s.crc32);
        let plain = serde_json::to_vec(&s).expect("numbers and strings always serialize");
        let found = format!("{:08x}", crc32fast::hash(&plain));
        if said != found {
            return Err(corrupt(format!("its checksum is {found}, it says {said:?}")));
        }
        if s.version == 0 || s.version > Self::VERSION {
            return Err(corrupt(format!(
                "catalog version {}, this Hearth reads 1 to {}: upgrade it",
                s.version,
                Self::VERSION
            )));
        }
        for b in &s.blocks {
            b.check_version(object).map_err(|e| corrupt(e.to_string()))?;
        }
        Ok(s)
    }
}

/// Blocks that are shared among snapshots, as a plain list.
mod shared_blocks {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serializer};

    use crate::block::BlockMeta;

    pub fn serialize<S: Serializer>(blocks: &[Arc<BlockMeta>], s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(blocks.iter().map(|b| &**b))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Arc<BlockMeta>>, D::Error> {
        Ok(Vec::<BlockMeta>::deserialize(d)?.into_iter().map(Arc::new).collect())
    }
}
