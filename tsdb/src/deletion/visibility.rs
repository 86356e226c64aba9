//! A visibility against one block's series table: resolved once by whoever has the table, asked by series
//! number.

use std::sync::Arc;

use hashbrown::HashMap;
use xxhash_rust::xxh3::Xxh3Default;

use super::{Cutter, Intervals, Tombstone, Visibility};
use crate::block_meta::BlockMeta;
use model::matcher::Matcher;
use model::source::{Budget, SeriesColumns, SourceError};

/// What is hidden of which series of a block: series with the same fate share an entry.
pub(crate) struct Resolved {
    /// Per series, which of `fates`; the first is that of series of which nothing is hidden.
    fate_of: Vec<u32>,
    fates: Vec<Fate>,
}

/// What tombstones hide, and which rule of retention speaks for the series (`rules.len()` is the word for all
/// others).
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

/// What of a visibility concerns one block, before it is known which of its series.
pub(crate) struct Concern<'v> {
    visibility: &'v Visibility,
    tombstones: Vec<Arc<Tombstone>>,
    /// Whether any rule of retention has run out for a part of the block's time.
    expires: bool,
}

impl<'v> Concern<'v> {
    /// `None` where nothing of the block is hidden, which is known without its series in nearly all cases.
    pub fn of(visibility: &'v Visibility, meta: &BlockMeta) -> Option<Concern<'v>> {
        if visibility.is_empty() {
            return None;
        }
        let (tombstones, expires) = (visibility.tombstones_of(meta), visibility.expires_in(meta));
        (!tombstones.is_empty() || expires).then_some(Concern { visibility, tombstones, expires })
    }

    /// Tells apart what was resolved under different tombstones and rules.
    pub fn fingerprint(&self) -> u64 {
        fingerprint(self.visibility, &self.tombstones, self.expires)
    }

    /// Which of so many series each tombstone and rule is about; `matching` answers the numbers of those that
    /// matchers choose.
    pub fn resolve(
        &self,
        series: usize,
        matching: impl Fn(&[Matcher]) -> Result<Vec<u32>, SourceError>,
        budget: &Budget,
    ) -> Result<Resolved, SourceError> {
        Resolved::new(self.visibility, &self.tombstones, self.expires, series, matching, budget)
    }

    /// What is hidden at this moment; `None` where that is nothing after all.
    pub fn at_present(&self, resolved: Arc<Resolved>) -> Option<BlockVisibility> {
        if resolved.fates.len() == 1 {
            return None;
        }
        let visibility = self.visibility;
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
        Some(BlockVisibility { resolved, hidden, cutter: Cutter::default() })
    }
}

impl BlockVisibility {
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
    /// About how many bytes of memory it holds.
    pub fn memory_bytes(&self) -> usize {
        self.fate_of.len() * 4 + self.fates.len() * 64
    }

    fn new(
        visibility: &Visibility,
        tombstones: &[Arc<Tombstone>],
        expires: bool,
        series: usize,
        matching: impl Fn(&[Matcher]) -> Result<Vec<u32>, SourceError>,
        budget: &Budget,
    ) -> Result<Resolved, SourceError> {
        let mut fate_of = vec![0u32; series];
        let mut fates = vec![Fate::default()];
        for t in tombstones {
            budget.check()?;
            // From the fate before to the fate with this tombstone as well.
            let mut next: HashMap<u32, u32> = HashMap::new();
            for series in matching(&t.matchers)? {
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
            let mut decided = vec![false; series];
            let every = 0..series as u32;
            for rule in 0..=rules.len() {
                budget.check()?;
                let matching = match rules.get(rule) {
                    Some(r) => matching(&r.matchers)?,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deletion::{RetentionRule, RetentionRules};
    use model::labels::Labels;
    use std::collections::BTreeMap;
    use ulid::Ulid;

    const NAMES: [&str; 3] = ["a", "b", "c"];

    fn tombstone(n: u64, name: &str, min_t_ms: i64, max_t_ms: i64) -> Arc<Tombstone> {
        let new = Tombstone::new(vec![Matcher::equal("n", name)], min_t_ms, max_t_ms, 0);
        Arc::new(Tombstone { ulid: Ulid::from_parts(n, 0), covers: Ulid::from_parts(n, 0), ..new })
    }

    fn meta() -> BlockMeta {
        BlockMeta { ulid: Ulid::from_parts(5, 0), min_t_ms: 0, max_t_ms: 100, ..BlockMeta::default() }
    }

    fn at_present(visibility: &Visibility) -> Option<BlockVisibility> {
        let concern = Concern::of(visibility, &meta())?;
        let matching = |matchers: &[Matcher]| {
            let series = NAMES.iter().enumerate().filter(|(_, name)| {
                model::matcher::matches_all(&Labels::from_pairs([("n", **name)]), matchers)
            });
            Ok(series.map(|(number, _)| number as u32).collect())
        };
        let resolved = concern.resolve(NAMES.len(), matching, &Budget::unlimited()).unwrap();
        concern.at_present(Arc::new(resolved))
    }

    #[test]
    fn visibility_of_a_block_hides_of_each_series_what_any_tombstone_and_its_first_rule_hide() {
        let tombstones = [tombstone(6, "a", 0, 10), tombstone(7, "a", 11, 20), tombstone(8, "b", 90, 200)];
        let rule = |name: &str, keep_ms| RetentionRule {
            matchers: vec![Matcher::equal("n", name)],
            keep_ms: Some(keep_ms),
        };
        let retention = RetentionRules { rules: vec![rule("b", 60), rule("b", 10)], otherwise_ms: None };
        let visibility = Visibility::of(&tombstones, &BTreeMap::new()).with_retention(retention.into(), 100);
        let block = at_present(&visibility).unwrap();
        assert!(block.covers(0, 0, 20) && !block.covers(0, 0, 21), "two deletions are one stretch");
        assert!(block.covers(1, i64::MIN, 39) && !block.covers(1, 39, 40), "the first rule decides");
        assert!(block.covers(1, 90, 100));
        assert!(!block.touches(2));
    }

    #[test]
    fn visibility_of_a_block_is_none_where_nothing_of_its_series_or_its_time_is_hidden() {
        let of = |tombstones: &[Arc<Tombstone>]| Visibility::of(tombstones, &BTreeMap::new());
        assert!(Concern::of(&of(&[tombstone(6, "a", 101, 200)]), &meta()).is_none(), "after its time");
        assert!(Concern::of(&of(&[tombstone(4, "a", 0, 100)]), &meta()).is_none(), "written later");
        assert!(at_present(&of(&[tombstone(6, "d", 0, 100)])).is_none(), "no such series");
        let one = of(&[tombstone(6, "a", 0, 1)]);
        let other = of(&[tombstone(7, "a", 0, 1)]);
        let fingerprint = |v: &Visibility| Concern::of(v, &meta()).map(|c| c.fingerprint());
        assert_ne!(fingerprint(&one), fingerprint(&other), "what was resolved for one is not the other's");
    }
}
