//! Names and values of labels, answered from the index: no series' labels are put together, and few of its
//! samples looked at; and the labels of series.

use std::ops::RangeInclusive;
use std::sync::Arc;

use hashbrown::HashSet;
use roaring::RoaringBitmap;

use super::label_sets::LabelSet;
use super::postings::Postings;
use super::symbols::Symbols;
use super::{ById, Head, TenantHead, order};
use model::labels::Labels;
use model::matcher::Matcher;
use model::source::at_once::may_read_series;
use model::source::{Budget, Charge, SourceError};

/// Values of a label that are looked at one by one rather than that all its carriers are made into one set,
/// which is kept along from then on.
const FEW_VALUES: usize = 16;

/// Series of a selection that are looked at one by one rather than each name of the index. Of those that
/// carry the same names, or the same value, only the first that counts is looked at further.
const FEW_SERIES: u64 = 16 << 10;

/// For one value of a label, so many series are looked at in the time in which its carriers are compared
/// with a selection.
const SERIES_PER_VALUE: u64 = 8;

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
            Some(selected) if selected.is_disjoint(ids) => return false,
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

    /// The series of the selection, if there is one and they are few.
    fn few(&self, most: u64) -> Option<&RoaringBitmap> {
        self.selected.as_ref().filter(|ids| ids.len() <= most)
    }

    fn labels(&self, id: u32) -> Option<LabelSet> {
        Some(self.by_id.series.get(id as usize)?.as_ref()?.labels)
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

/// Texts in order as strings of their own, charged while they are made: who gets them charges them.
fn made_of(mut texts: Vec<&str>, budget: &Arc<Budget>) -> Result<Vec<String>, SourceError> {
    texts.sort_unstable();
    let mut held = Charge::of(budget);
    let mut make = |text: &str| {
        held.add_later(text.len() as u64)?;
        Ok(text.to_string())
    };
    texts.into_iter().map(&mut make).collect()
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
        budget: &Arc<Budget>,
    ) -> Result<Vec<String>, SourceError> {
        if !self.may_hold(&generations, range) {
            return Ok(Vec::new());
        }
        let (sets, postings, by_id) = (self.labels.read(), tenant.postings.read(), self.by_id.read());
        let symbols = sets.symbols();
        let selected = selected(&postings, symbols, selectors);
        let mut touched = Touched::new(&by_id, selected, generations, range);
        if let Some(few) = touched.few(FEW_SERIES) {
            let mut seen: HashSet<u32> = HashSet::new();
            for id in few.iter() {
                let Some(set) = touched.labels(id) else { continue };
                let number = sets.names_of(set);
                if !seen.contains(&number) && touched.touches(id) {
                    seen.insert(number);
                }
            }
            let all = seen.iter().flat_map(|number| sets.names(*number));
            let mut names: Vec<&str> = all.map(|name| symbols.text(*name)).collect();
            names.sort_unstable();
            names.dedup();
            return made_of(names, budget);
        }
        let carried = postings.iter().filter(|(name, values)| {
            // Of a label that no series of the selection carries, all values would be looked at.
            let carriers = (touched.selected.is_some() && values.len() > FEW_VALUES)
                .then(|| postings.carriers(*name))
                .flatten();
            match carriers {
                Some(carriers) => touched.some_of(&carriers),
                None => values.values().any(|ids| touched.some_of(ids)),
            }
        });
        made_of(carried.map(|(name, _)| symbols.text(name)).collect(), budget)
    }

    /// Values of one label, ascending; see [`Head::label_names`] for the rest.
    pub fn label_values(
        &self,
        (tenant, name): (&TenantHead, &str),
        selectors: &[Vec<Matcher>],
        generations: RangeInclusive<u64>,
        range: (i64, i64),
        budget: &Arc<Budget>,
    ) -> Result<Vec<String>, SourceError> {
        if !self.may_hold(&generations, range) {
            return Ok(Vec::new());
        }
        let (sets, postings, by_id) = (self.labels.read(), tenant.postings.read(), self.by_id.read());
        let symbols = sets.symbols();
        let Some(name) = symbols.find(name) else { return Ok(Vec::new()) };
        let Some(values) = postings.values(name) else { return Ok(Vec::new()) };
        let selected = selected(&postings, symbols, selectors);
        let mut touched = Touched::new(&by_id, selected, generations, range);
        if let Some(few) = touched.few(FEW_SERIES.min(SERIES_PER_VALUE * values.len() as u64)) {
            let mut seen = HashSet::new();
            for id in few.iter() {
                let value = touched.labels(id).and_then(|set| sets.value(set, name));
                if value.is_some_and(|value| !seen.contains(&value)) && touched.touches(id) {
                    seen.extend(value);
                }
            }
            return made_of(seen.iter().map(|value| symbols.text(*value)).collect(), budget);
        }
        let carried = values.iter().filter(|(_, ids)| touched.some_of(ids));
        made_of(carried.map(|(value, _)| symbols.text(*value)).collect(), budget)
    }

    /// Labels of a tenant's series, ascending in [`Labels`]' order; see [`Head::label_names`] for the rest.
    pub fn series_labels(
        &self,
        tenant: &TenantHead,
        selectors: &[Vec<Matcher>],
        generations: RangeInclusive<u64>,
        range: (i64, i64),
        budget: &Arc<Budget>,
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
        // While they are made: who gets them charges them.
        let mut held = Charge::of(budget);
        let mut found = Vec::with_capacity(series.len());
        let mut make = |set: &LabelSet| {
            let labels = Labels::from_sorted(sets.pairs(*set));
            held.add_later(labels.byte_len() as u64)?;
            found.push(labels);
            Ok::<_, SourceError>(())
        };
        match order::sorted(&sets, &series, false) {
            Some(order) => order.iter().try_for_each(|at| make(&series[*at as usize]))?,
            None => {
                series.iter().try_for_each(make)?;
                found.sort_unstable();
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::sample::Value;
    use model::tenant::TenantId;

    #[test]
    fn names_of_a_selection_are_those_that_its_series_in_range_carry() {
        let head = Head::default();
        let tenant = head.tenant(&TenantId::single());
        for i in 0..200i64 {
            let (pod, device) = (format!("pod-{i}"), format!("disk{i}"));
            let mut labels = vec![("__name__", if i % 2 == 0 { "even" } else { "odd" })];
            labels.extend((i % 2 == 0).then_some(("device", device.as_str())));
            labels.extend((i == 151).then_some(("late", "yes")));
            labels.push(("pod", &pod));
            let series = head.series(&tenant, &labels);
            head.put(&series, i, Value::Float(1.0), 0).unwrap();
        }
        let names = |metric: &str, range| {
            let selectors = [vec![Matcher::equal("__name__", metric)]];
            head.label_names(&tenant, &selectors, 0..=u64::MAX, range, &Budget::unlimited()).unwrap()
        };
        for _ in 0..2 {
            assert_eq!(names("even", (0, 500)), ["__name__", "device", "pod"]);
            assert_eq!(names("odd", (0, 500)), ["__name__", "late", "pod"]);
            assert_eq!(names("odd", (0, 150)), ["__name__", "pod"]);
            assert_eq!(names("even", (199, 500)), Vec::<String>::new());
            assert_eq!(names("none", (0, 500)), Vec::<String>::new());
        }
        assert_eq!(
            head.label_names(&tenant, &[], 0..=u64::MAX, (151, 151), &Budget::unlimited()).unwrap(),
            ["__name__", "late", "pod"]
        );
    }
}
