//! A visibility against one block's series table: resolved once, kept in the cache of blocks, asked by series number.

use std::sync::Arc;

use hashbrown::HashMap;
use xxhash_rust::xxh3::Xxh3Default;

use super::{Cutter, Intervals, Tombstone, Visibility};
use crate::block::BlockMeta;
use crate::block::cache::{BlockCache, Key};
use crate::block::series_table::SeriesTable;
use model::source::{Budget, SeriesColumns, SourceError};

/// What is hidden of which series of a block: series with the same fate share an entry.
struct Resolved {
    /// Per series, which of `fates`; the first is that of series of which nothing is hidden.
    fate_of: Vec<u32>,
    fates: Vec<Fate>,
}

/// What tombstones hide, and which rule of retention speaks for the series (`rules.len()` is the word for all others).
#[derive(Clone, Default)]
struct Fate {
    deleted: Arc<Intervals>,
    rule: Option<u32>,
}

/// The part of a visibility that hides something of one block, at one moment.
pub(crate) struct BlockVisibility {
    resolved: Arc<Resolved>,
    /// By fate.
    hidden: Vec<Arc<Intervals>>,
    cutter: Cutter,
}

impl BlockVisibility {
    /// `None` where nothing of the block is hidden, which is known without its series table in nearly all cases.
    pub fn resolve(
        visibility: &Visibility,
        cache: &BlockCache,
        meta: &BlockMeta,
        table: &SeriesTable,
        budget: &Budget,
    ) -> Result<Option<BlockVisibility>, SourceError> {
        if visibility.is_empty() {
            return Ok(None);
        }
        let tombstones = visibility.tombstones_of(meta);
        let expires = visibility.expires_in(meta);
        if tombstones.is_empty() && !expires {
            return Ok(None);
        }
        let key = Key::Visibility(meta.ulid, fingerprint(visibility, &tombstones, expires));
        let resolved = match cache.get::<Resolved>(&key) {
            Some(resolved) => resolved,
            None => {
                let resolved = Arc::new(Resolved::new(visibility, &tombstones, expires, table, budget)?);
                cache.put(key, resolved.clone(), resolved.fate_of.len() * 4 + resolved.fates.len() * 64);
                resolved
            }
        };
        if resolved.fates.len() == 1 {
            return Ok(None);
        }
        let hidden = resolved.fates.iter().map(|fate| {
            let keep = fate.rule.and_then(|r| match visibility.retention.rules.get(r as usize) {
                Some(rule) => rule.keep_ms,
                None => visibility.retention.otherwise_ms,
            });
            match keep {
                None => fate.deleted.clone(),
                Some(keep) => {
                    let mut hidden = (*fate.deleted).clone();
                    hidden.add(i64::MIN, visibility.now_ms.saturating_sub(keep).saturating_sub(1));
                    Arc::new(hidden)
                }
            }
        });
        let hidden = hidden.collect();
        Ok(Some(BlockVisibility { resolved, hidden, cutter: Cutter::default() }))
    }

    fn of(&self, series: u32) -> (u32, &Arc<Intervals>) {
        // A series number comes from the table that this was resolved against.
        let fate = self.resolved.fate_of[series as usize];
        (fate, &self.hidden[fate as usize])
    }

    /// Whether any sample of a series is hidden.
    pub fn touches(&self, series: u32) -> bool {
        !self.of(series).1.is_empty()
    }

    /// Whether all that a series has in a range (ends included) is hidden.
    pub fn covers(&self, series: u32, min_t_ms: i64, max_t_ms: i64) -> bool {
        self.of(series).1.covers(min_t_ms, max_t_ms)
    }

    /// Takes out the samples that are hidden; false when none is left.
    pub fn cut(&mut self, series: u32, columns: &mut SeriesColumns) -> bool {
        let (fate, hidden) = self.of(series);
        if hidden.is_empty() {
            return true;
        }
        let hidden = hidden.clone();
        self.cutter.cut(columns, &hidden, fate)
    }
}

/// Tells apart what was resolved under different tombstones and rules.
fn fingerprint(visibility: &Visibility, tombstones: &[Arc<Tombstone>], expires: bool) -> u64 {
    let mut hash = Xxh3Default::new();
    for t in tombstones {
        hash.update(&t.ulid.to_bytes());
    }
    if expires {
        for rule in &visibility.retention.rules {
            hash.update(super::selector_text(&rule.matchers).as_bytes());
            hash.update(&[0]);
        }
        hash.update(&[1]);
    }
    hash.digest()
}

impl Resolved {
    fn new(
        visibility: &Visibility,
        tombstones: &[Arc<Tombstone>],
        expires: bool,
        table: &SeriesTable,
        budget: &Budget,
    ) -> Result<Resolved, SourceError> {
        let mut fate_of = vec![0u32; table.len()];
        let mut fates = vec![Fate::default()];
        for t in tombstones {
            budget.check()?;
            // From the fate before to the fate with this tombstone as well.
            let mut next: HashMap<u32, u32> = HashMap::new();
            for series in table.matching(&t.matchers) {
                let fate = &mut fate_of[series as usize];
                *fate = *next.entry(*fate).or_insert_with(|| {
                    let mut deleted = (*fates[*fate as usize].deleted).clone();
                    deleted.add(t.min_t_ms, t.max_t_ms);
                    fates.push(Fate { deleted: Arc::new(deleted), rule: None });
                    fates.len() as u32 - 1
                });
            }
        }
        if expires {
            let rules = &visibility.retention.rules;
            let mut decided = vec![false; table.len()];
            let every = 0..table.len() as u32;
            for rule in 0..=rules.len() {
                budget.check()?;
                let matching = match rules.get(rule) {
                    Some(r) => table.matching(&r.matchers),
                    None => every.clone().collect(),
                };
                let mut next: HashMap<u32, u32> = HashMap::new();
                for series in matching {
                    if std::mem::replace(&mut decided[series as usize], true) {
                        continue;
                    }
                    let fate = &mut fate_of[series as usize];
                    *fate = *next.entry(*fate).or_insert_with(|| {
                        let deleted = fates[*fate as usize].deleted.clone();
                        fates.push(Fate { deleted, rule: Some(rule as u32) });
                        fates.len() as u32 - 1
                    });
                }
            }
        }
        Ok(Resolved { fate_of, fates })
    }
}
