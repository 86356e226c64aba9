//! Which series carry which label: roaring bitmaps by name and value, and the sets that matchers pick from them.

use std::collections::HashMap;

use roaring::RoaringBitmap;

use super::symbols::{Symbol, Symbols};
use crate::matcher::{MatchOp, Matcher};

/// The index of one tenant's series.
#[derive(Default)]
pub struct Postings {
    by_name: HashMap<Symbol, HashMap<Symbol, RoaringBitmap>>,
    all: RoaringBitmap,
    /// Pairs of a series and a label, and different labels.
    entries: usize,
    pairs: usize,
}

/// Bytes that an entry takes in a bitmap: two, and what the bitmaps' vectors keep in reserve.
const ENTRY_BYTES: usize = 3;

/// Bytes that a label takes beside its entries: its place in the map, the bitmap, and the first container.
const PAIR_BYTES: usize = 112;

impl Postings {
    pub fn insert(&mut self, id: u32, labels: &[(Symbol, Symbol)]) {
        for &(name, value) in labels {
            let ids = self.by_name.entry(name).or_default().entry(value).or_default();
            self.pairs += usize::from(ids.is_empty());
            ids.insert(id);
        }
        self.entries += labels.len();
        self.all.insert(id);
    }

    pub fn remove(&mut self, id: u32, labels: &[(Symbol, Symbol)]) {
        for &(name, value) in labels {
            if let Some(values) = self.by_name.get_mut(&name) {
                if let Some(ids) = values.get_mut(&value) {
                    ids.remove(id);
                    if ids.is_empty() {
                        self.pairs -= 1;
                        values.remove(&value);
                    }
                }
                if values.is_empty() {
                    self.by_name.remove(&name);
                }
            }
        }
        self.entries -= labels.len();
        self.all.remove(id);
    }

    /// Heap bytes held, about; counted along, so that asking costs nothing.
    pub fn heap_bytes(&self) -> usize {
        self.entries * ENTRY_BYTES + self.pairs * PAIR_BYTES
    }

    /// Every series.
    pub fn all(&self) -> &RoaringBitmap {
        &self.all
    }

    /// Names, their values and how many series carry each.
    pub fn iter(&self) -> impl Iterator<Item = (Symbol, &HashMap<Symbol, RoaringBitmap>)> {
        self.by_name.iter().map(|(n, v)| (*n, v))
    }

    pub fn values(&self, name: Symbol) -> Option<&HashMap<Symbol, RoaringBitmap>> {
        self.by_name.get(&name)
    }

    /// The series that satisfy all matchers.
    pub fn select(&self, matchers: &[Matcher], symbols: &Symbols) -> RoaringBitmap {
        let mut found: Option<RoaringBitmap> = None;
        // What names series comes first: it is cheap and makes the rest small.
        let (naming, excluding): (Vec<&Matcher>, Vec<&Matcher>) =
            matchers.iter().partition(|m| !m.matches_empty());
        for m in naming {
            let with = self.with_value(m, symbols, |m, v| m.matches(v));
            found = Some(match found {
                None => with,
                Some(f) => f & with,
            });
            if found.as_ref().is_some_and(|f| f.is_empty()) {
                return RoaringBitmap::new();
            }
        }
        let mut found = found.unwrap_or_else(|| self.all.clone());
        for m in excluding {
            // Series without the label satisfy it, so only those with a value that does not are taken out.
            found -= self.with_value(m, symbols, |m, v| !m.matches(v));
        }
        found
    }

    /// The series whose value of the matcher's label satisfies `wanted`.
    fn with_value(
        &self,
        m: &Matcher,
        symbols: &Symbols,
        wanted: impl Fn(&Matcher, &str) -> bool,
    ) -> RoaringBitmap {
        let Some(values) = symbols.find(&m.name).and_then(|n| self.by_name.get(&n)) else {
            return RoaringBitmap::new();
        };
        let one = |text: &str| symbols.find(text).and_then(|v| values.get(&v));
        match m.op {
            MatchOp::Equal if !m.value.is_empty() => return one(&m.value).cloned().unwrap_or_default(),
            MatchOp::NotEqual if !m.value.is_empty() => return one(&m.value).cloned().unwrap_or_default(),
            MatchOp::Regex if !m.matches_empty() => {
                if let Some(set) = m.regex().and_then(|re| re.set_matches()) {
                    return set
                        .iter()
                        .filter_map(|text| one(text))
                        .fold(RoaringBitmap::new(), |all, ids| all | ids);
                }
            }
            _ => {}
        }
        let mut found = RoaringBitmap::new();
        for (&v, ids) in values {
            if wanted(m, symbols.text(v)) {
                found |= ids;
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matchers_see_a_missing_label_as_empty() {
        let mut symbols = Symbols::default();
        let mut postings = Postings::default();
        for (id, labels) in
            [vec![("a", "1")], vec![("a", "2"), ("b", "x")], vec![("b", "y")]].into_iter().enumerate()
        {
            let labels: Vec<_> =
                labels.into_iter().map(|(n, v)| (symbols.take(n), symbols.take(v))).collect();
            postings.insert(id as u32, &labels);
        }
        let pick = |op, name: &str, value: &str| {
            let m = Matcher::new(op, name, value).unwrap();
            postings.select(&[m], &symbols).iter().collect::<Vec<_>>()
        };
        assert_eq!(pick(MatchOp::Equal, "a", "1"), [0]);
        assert_eq!(pick(MatchOp::Equal, "a", ""), [2]);
        assert_eq!(pick(MatchOp::NotEqual, "a", ""), [0, 1]);
        assert_eq!(pick(MatchOp::NotEqual, "a", "1"), [1, 2]);
        assert_eq!(pick(MatchOp::Regex, "a", "1|2"), [0, 1]);
        assert_eq!(pick(MatchOp::Regex, "a", "1|"), [0, 2]);
        assert_eq!(pick(MatchOp::Regex, "b", ".*"), [0, 1, 2]);
        assert_eq!(pick(MatchOp::Regex, "b", ".+"), [1, 2]);
        assert_eq!(pick(MatchOp::NotRegex, "b", "x|y"), [0]);
        assert_eq!(pick(MatchOp::NotRegex, "b", ".+"), [0]);
        assert_eq!(pick(MatchOp::NotRegex, "nowhere", ".+"), [0, 1, 2]);
        assert!(pick(MatchOp::Equal, "nowhere", "x").is_empty());
    }
}
