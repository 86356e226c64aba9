//! What is planned as one: a block, or all shares of a whole. Only together are they merged, replaced, kept
//! or left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tsdb::block::BlockMeta;
use ulid::Ulid;

/// A block, or all shares of one whole: what a plan moves as one.
#[derive(Clone, Debug)]
pub(crate) struct Unit {
    /// Shares in their order.
    pub blocks: Vec<Arc<BlockMeta>>,
    /// First and last timestamp of all of them, both included.
    pub min_t_ms: i64,
    pub max_t_ms: i64,
    /// Of all files.
    pub bytes: u64,
}

impl Unit {
    /// Puts blocks together that belong together; in the order that decides between them, oldest first.
    pub fn all_of<'a>(blocks: impl IntoIterator<Item = &'a Arc<BlockMeta>>) -> Vec<Unit> {
        let mut wholes: BTreeMap<(i64, Ulid), Vec<Arc<BlockMeta>>> = BTreeMap::new();
        for block in blocks {
            wholes.entry((block.resolution_ms, block.whole())).or_default().push(block.clone());
        }
        let mut units: Vec<Unit> = wholes.into_values().map(Unit::new).collect();
        units.sort_by_key(Unit::order);
        units
    }

    fn new(mut blocks: Vec<Arc<BlockMeta>>) -> Unit {
        blocks.sort_by_key(|b| b.share.as_ref().map(|s| s.number));
        Unit {
            min_t_ms: blocks.iter().map(|b| b.min_t_ms).min().unwrap_or(i64::MAX),
            max_t_ms: blocks.iter().map(|b| b.max_t_ms).max().unwrap_or(i64::MIN),
            bytes: blocks.iter().map(|b| b.files.bytes()).sum(),
            blocks,
        }
    }

    /// [`BlockMeta::order`], and a name that is its own.
    pub fn order(&self) -> (Ulid, Ulid) {
        self.blocks.first().map(|b| (b.order(), b.whole())).unwrap_or_default()
    }

    /// The highest of its blocks.
    pub fn level(&self) -> u32 {
        self.blocks.iter().map(|b| b.level).max().unwrap_or(0)
    }

    pub fn any(&self, of: impl Fn(&BlockMeta) -> bool) -> bool {
        self.blocks.iter().any(|b| of(b))
    }

    pub fn is_any_of(&self, some: &BTreeSet<Ulid>) -> bool {
        self.any(|b| some.contains(&b.ulid))
    }
}
