//! Names and values of labels, answered from the index: no series' labels are put together, and few of its
//! samples looked at.

use std::ops::RangeInclusive;

use roaring::RoaringBitmap;

use super::postings::Postings;
use super::symbols::Symbols;
use super::{ById, Head, TenantHead};
use model::matcher::Matcher;

/// Which series count: those that have a sample in the range, of a selection or of all.
struct Touched<'a> {
    by_id: &'a ById,
    generations: RangeInclusive<u64>,
    range: (i64, i64),
    /// Known to have one.
    with: RoaringBitmap,
    /// Known to have none.
    without: RoaringBitmap,
    /// All series count; else `with` is complete.
    every: bool,
}

impl Touched<'_> {
    /// Whether one of these series has a sample in the range. Where all count, series are looked at one by
    /// one, until the first that does, nearly always the first; and no series twice, however many names and
    /// values it carries.
    fn some_of(&mut self, ids: &RoaringBitmap) -> bool {
        if !self.every || !self.with.is_disjoint(ids) {
            return !self.with.is_disjoint(ids);
        }
        for id in (ids - &self.without).iter() {
            if touches(self.by_id, id, &self.generations, self.range) {
                self.with.insert(id);
                return true;
            }
            self.without.insert(id);
        }
        false
    }
}

fn touches(by_id: &ById, id: u32, generations: &RangeInclusive<u64>, (min_t, max_t): (i64, i64)) -> bool {
    let series = by_id.series.get(id as usize).and_then(Option::as_ref);
    let range = series.and_then(|s| s.range_ms(generations.clone()));
    range.is_some_and(|(a, b)| a <= max_t && b >= min_t)
}

fn touched<'a>(
    postings: &Postings,
    symbols: &Symbols,
    by_id: &'a ById,
    selectors: &[Vec<Matcher>],
    generations: RangeInclusive<u64>,
    range: (i64, i64),
) -> Touched<'a> {
    let selected = selectors.iter().fold(RoaringBitmap::new(), |all, s| all | postings.select(s, symbols));
    let with = selected.into_iter().filter(|id| touches(by_id, *id, &generations, range)).collect();
    let (without, every) = (RoaringBitmap::new(), selectors.is_empty());
    Touched { by_id, generations, range, with, without, every }
}

impl Head {
    /// Names of the labels of a tenant's series, ascending. Any of `selectors` may match (none: every
    /// series), and the series must have a sample of `generations` within `range` (milliseconds, ends
    /// included).
    pub fn label_names(
        &self,
        tenant: &TenantHead,
        selectors: &[Vec<Matcher>],
        generations: RangeInclusive<u64>,
        range: (i64, i64),
    ) -> Vec<String> {
        let (sets, postings, by_id) = (self.labels.read(), tenant.postings.read(), self.by_id.read());
        let symbols = sets.symbols();
        let mut touched = touched(&postings, symbols, &by_id, selectors, generations, range);
        let carried = postings.iter().filter(|(_, values)| values.values().any(|ids| touched.some_of(ids)));
        let mut names: Vec<String> = carried.map(|(name, _)| symbols.text(name).to_string()).collect();
        names.sort_unstable();
        names
    }

    /// Values of one label, ascending; see [`Head::label_names`] for the rest.
    pub fn label_values(
        &self,
        tenant: &TenantHead,
        name: &str,
        selectors: &[Vec<Matcher>],
        generations: RangeInclusive<u64>,
        range: (i64, i64),
    ) -> Vec<String> {
        let (sets, postings, by_id) = (self.labels.read(), tenant.postings.read(), self.by_id.read());
        let symbols = sets.symbols();
        let Some(values) = symbols.find(name).and_then(|n| postings.values(n)) else { return Vec::new() };
        let mut touched = touched(&postings, symbols, &by_id, selectors, generations, range);
        let carried = values.iter().filter(|(_, ids)| touched.some_of(ids));
        let mut values: Vec<String> = carried.map(|(value, _)| symbols.text(*value).to_string()).collect();
        values.sort_unstable();
        values
    }
}
