//! Names and values of labels, answered from the index: no series' labels are put together, and few of its
//! samples looked at.

use std::ops::RangeInclusive;

use roaring::RoaringBitmap;

use super::postings::Postings;
use super::symbols::Symbols;
use super::{ById, Head, TenantHead};
use model::matcher::Matcher;

/// Which series count: those of a selection, or any that has a sample in the range.
enum Touched<'a> {
    /// Selected, and known to have a sample in the range.
    These(RoaringBitmap),
    /// Looked at one by one, until the first that does: nearly always the first.
    Any(&'a ById, RangeInclusive<u64>, (i64, i64)),
}

impl Touched<'_> {
    fn some_of(&self, ids: &RoaringBitmap) -> bool {
        match self {
            Touched::These(touched) => !touched.is_disjoint(ids),
            Touched::Any(by_id, generations, range) => {
                ids.iter().any(|id| touches(by_id, id, generations, *range))
            }
        }
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
    if selectors.is_empty() {
        return Touched::Any(by_id, generations, range);
    }
    let selected = selectors.iter().fold(RoaringBitmap::new(), |all, s| all | postings.select(s, symbols));
    Touched::These(selected.into_iter().filter(|id| touches(by_id, *id, &generations, range)).collect())
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
        let touched = touched(&postings, symbols, &by_id, selectors, generations, range);
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
        let touched = touched(&postings, symbols, &by_id, selectors, generations, range);
        let carried = values.iter().filter(|(_, ids)| touched.some_of(ids));
        let mut values: Vec<String> = carried.map(|(value, _)| symbols.text(*value).to_string()).collect();
        values.sort_unstable();
        values
    }
}
