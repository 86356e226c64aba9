//! Names and values of labels, answered from the index: no series' labels are put together, and few of its
//! samples looked at; and the labels of series.

use std::ops::RangeInclusive;

use roaring::RoaringBitmap;

use super::label_sets::LabelSet;
use super::postings::Postings;
use super::symbols::Symbols;
use super::{ById, Head, TenantHead, order};
use model::labels::Labels;
use model::matcher::Matcher;
use model::source::at_once::may_read_series;
use model::source::{Budget, SourceError};

/// Which series count: those that have a sample in the range, of a selection or of all.
struct Touched<'a> {
    by_id: &'a ById,
    generations: RangeInclusive<u64>,
    range: (i64, i64),
    /// `None`: all.
    selected: Option<RoaringBitmap>,
    /// Known to have a sample there.
    with: RoaringBitmap,
    /// Known to have none.
    without: RoaringBitmap,
}

impl<'a> Touched<'a> {
    fn new(
        by_id: &'a ById,
        selected: Option<RoaringBitmap>,
        generations: RangeInclusive<u64>,
        range: (i64, i64),
    ) -> Self {
        let (with, without) = (RoaringBitmap::new(), RoaringBitmap::new());
        Touched { by_id, generations, range, selected, with, without }
    }

    /// Whether one of these series counts. Series are looked at one by one, until the first that does, nearly
    /// always the first; and no series twice, however many names and values it carries.
    fn some_of(&mut self, ids: &RoaringBitmap) -> bool {
        if !self.with.is_disjoint(ids) {
            return true;
        }
        let of_selection;
        let ids = match &self.selected {
            Some(selected) => {
                of_selection = selected & ids;
                &of_selection
            }
            None => ids,
        };
        match self.without.is_empty() {
            true => ids.iter().any(|id| self.look(id)),
            false => (ids - &self.without).iter().any(|id| self.look(id)),
        }
    }

    fn look(&mut self, id: u32) -> bool {
        let touches = self.touches(id);
        if touches { &mut self.with } else { &mut self.without }.insert(id);
        touches
    }

    fn touches(&self, id: u32) -> bool {
        let series = self.by_id.series.get(id as usize).and_then(Option::as_ref);
        let range = series.and_then(|s| s.range_ms(self.generations.clone()));
        range.is_some_and(|(a, b)| a <= self.range.1 && b >= self.range.0)
    }
}

/// The series that any of the selectors picks; `None` for all, where there is no selector.
fn selected(postings: &Postings, symbols: &Symbols, selectors: &[Vec<Matcher>]) -> Option<RoaringBitmap> {
    selectors.iter().map(|s| postings.select(s, symbols)).reduce(|all, more| all | more)
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
        if !self.may_hold(&generations, range) {
            return Vec::new();
        }
        let (sets, postings, by_id) = (self.labels.read(), tenant.postings.read(), self.by_id.read());
        let symbols = sets.symbols();
        let selected = selected(&postings, symbols, selectors);
        let mut touched = Touched::new(&by_id, selected, generations, range);
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
        if !self.may_hold(&generations, range) {
            return Vec::new();
        }
        let (sets, postings, by_id) = (self.labels.read(), tenant.postings.read(), self.by_id.read());
        let symbols = sets.symbols();
        let Some(values) = symbols.find(name).and_then(|n| postings.values(n)) else { return Vec::new() };
        let selected = selected(&postings, symbols, selectors);
        let mut touched = Touched::new(&by_id, selected, generations, range);
        let carried = values.iter().filter(|(_, ids)| touched.some_of(ids));
        let mut values: Vec<&str> = carried.map(|(value, _)| symbols.text(*value)).collect();
        values.sort_unstable();
        values.into_iter().map(str::to_string).collect()
    }

    /// Labels of a tenant's series, ascending in [`Labels`]' order; see [`Head::label_names`] for the rest.
    pub fn series_labels(
        &self,
        tenant: &TenantHead,
        selectors: &[Vec<Matcher>],
        generations: RangeInclusive<u64>,
        range: (i64, i64),
        budget: &Budget,
    ) -> Result<Vec<Labels>, SourceError> {
        if !self.may_hold(&generations, range) {
            return Ok(Vec::new());
        }
        let sets = self.labels.read();
        let series: Vec<LabelSet> = {
            let (postings, by_id) = (tenant.postings.read(), self.by_id.read());
            let selected = selected(&postings, sets.symbols(), selectors);
            may_read_series(selected.as_ref().unwrap_or(postings.all()).len() as usize)?;
            let touched = Touched::new(&by_id, None, generations, range);
            let mut series = Vec::new();
            for (i, id) in selected.as_ref().unwrap_or(postings.all()).iter().enumerate() {
                if i % 1024 == 0 {
                    budget.check()?;
                }
                if touched.touches(id) {
                    series.extend(by_id.series.get(id as usize).and_then(Option::as_ref).map(|s| s.labels));
                }
            }
            series
        };
        let labels = |set: &LabelSet| Labels::from_sorted(sets.pairs(*set));
        Ok(match order::sorted(&sets, &series, false) {
            Some(order) => order.iter().map(|at| labels(&series[*at as usize])).collect(),
            None => {
                let mut found: Vec<Labels> = series.iter().map(labels).collect();
                found.sort_unstable();
                found
            }
        })
    }
}
