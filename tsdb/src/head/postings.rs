//! Which series carry which label: roaring bitmaps by name and value, and the sets that matchers pick from
//! them.

use std::cmp::Ordering;

use hashbrown::HashMap;
use parking_lot::{MappedRwLockReadGuard, RwLock, RwLockReadGuard};
use roaring::{MultiOps, RoaringBitmap};

use super::symbols::{Symbol, Symbols};
use model::matcher::{MatchOp, Matcher};

/// The index of one tenant's series.
#[derive(Default)]
pub struct Postings {
    by_name: HashMap<Symbol, OfName>,
    all: RoaringBitmap,
    /// Pairs of a series and a label, and different labels.
    entries: usize,
    pairs: usize,
}

/// The series that carry a label, by its value.
pub type ByValue = HashMap<Symbol, RoaringBitmap>;

#[derive(Default)]
struct OfName {
    values: ByValue,
    asked: RwLock<Asked>,
}

/// What is made of a label only once a matcher asks for it, and kept along from then on: most labels are
/// never asked so.
#[derive(Default)]
struct Asked {
    /// The series that carry the label, whatever its value.
    carriers: Option<RoaringBitmap>,
    /// The values by text, but for those that came later. Gone when a value goes: its number may stand for
    /// another text then.
    sorted: Option<Vec<Symbol>>,
    later: Vec<Symbol>,
}

/// Values that came later than the sorted ones and are looked through one by one; as many again for each
/// eighth of the sorted ones.
const UNSORTED: usize = 1024;

/// Bytes that an entry takes in a bitmap: an eighth in a label that all series have, two in one of some
/// hundred neighbours, four in one of every five-hundredth.
const ENTRY_BYTES: usize = 2;

/// Bytes that a label takes besides its entries: its place in the map (48) and the bitmap, which makes room
/// for four containers at once (168).
const PAIR_BYTES: usize = 216;

impl OfName {
    fn insert(&mut self, value: Symbol, id: u32) -> bool {
        let ids = self.values.entry(value).or_default();
        let new = ids.is_empty();
        ids.insert(id);
        let asked = self.asked.get_mut();
        if let Some(carriers) = &mut asked.carriers {
            carriers.insert(id);
        }
        if new && asked.sorted.is_some() {
            asked.later.push(value);
        }
        new
    }

    fn remove(&mut self, value: Symbol, id: u32) -> bool {
        let Some(ids) = self.values.get_mut(&value) else { return false };
        ids.remove(id);
        let asked = self.asked.get_mut();
        if let Some(carriers) = &mut asked.carriers {
            carriers.remove(id);
        }
        if !ids.is_empty() {
            return false;
        }
        self.values.remove(&value);
        (asked.sorted, asked.later) = (None, Vec::new());
        true
    }

    fn carriers(&self) -> MappedRwLockReadGuard<'_, RoaringBitmap> {
        if self.asked.read().carriers.is_none() {
            let mut asked = self.asked.write();
            asked.carriers.get_or_insert_with(|| self.values.values().union());
        }
        RwLockReadGuard::map(self.asked.read(), |a| a.carriers.as_ref().expect("just made, and kept along"))
    }

    /// Runs `f` with each value that starts with one of the prefixes, and perhaps with others.
    fn starting(&self, prefixes: &[String], symbols: &Symbols, mut f: impl FnMut(Symbol)) {
        let unsorted =
            |a: &Asked| a.sorted.as_ref().is_none_or(|sorted| a.later.len() > UNSORTED + sorted.len() / 8);
        if unsorted(&self.asked.read()) {
            let mut asked = self.asked.write();
            if unsorted(&asked) {
                let mut sorted: Vec<Symbol> = self.values.keys().copied().collect();
                sorted.sort_unstable_by_key(|v| symbols.text(*v));
                (asked.sorted, asked.later) = (Some(sorted), Vec::new());
            }
        }
        let asked = self.asked.read();
        let sorted = asked.sorted.as_deref().expect("just made, and kept along");
        for prefix in prefixes {
            let place = |v: &Symbol| {
                let text = symbols.text(*v);
                if text.starts_with(prefix.as_str()) { Ordering::Equal } else { text.cmp(prefix) }
            };
            let from = sorted.partition_point(|v| place(v) == Ordering::Less);
            let count = sorted[from..].partition_point(|v| place(v) == Ordering::Equal);
            sorted[from..from + count].iter().for_each(|v| f(*v));
        }
        asked.later.iter().for_each(|v| f(*v));
    }

    /// The series whose value of this label satisfies (`holds`) or fails the matcher.
    fn with_value(&self, m: &Matcher, holds: bool, symbols: &Symbols) -> RoaringBitmap {
        let one = |text: &str| symbols.find(text).and_then(|v| self.values.get(&v));
        let Some(re) = m.regex() else {
            // What carries the label has a value, and what equals it is easier found than what does not.
            let equal = one(&m.value);
            return match (m.op == MatchOp::Equal) == holds {
                true => equal.cloned().unwrap_or_default(),
                false => equal.map_or_else(|| self.carriers().clone(), |equal| &*self.carriers() - equal),
            };
        };
        // From here on in the regex' own terms.
        let matching = (m.op == MatchOp::Regex) == holds;
        if re.matches_all() {
            return if matching { self.carriers().clone() } else { RoaringBitmap::new() };
        }
        if let Some(set) = re.set_matches() {
            let equal = set.iter().filter_map(|text| one(text)).union();
            return if matching { equal } else { &*self.carriers() - equal };
        }
        let mut found: Vec<&RoaringBitmap> = Vec::new();
        if !re.prefixes().is_empty() {
            self.starting(re.prefixes(), symbols, |v| {
                if re.is_match(symbols.text(v)) {
                    found.extend(self.values.get(&v));
                }
            });
        } else {
            found.extend(
                self.values.iter().filter(|(v, _)| re.is_match(symbols.text(**v))).map(|(_, ids)| ids),
            );
        }
        let found = found.into_iter().union();
        if matching { found } else { &*self.carriers() - found }
    }
}

impl Postings {
    pub fn insert(&mut self, id: u32, labels: &[(Symbol, Symbol)]) {
        for &(name, value) in labels {
            self.pairs += usize::from(self.by_name.entry(name).or_default().insert(value, id));
        }
        self.entries += labels.len();
        self.all.insert(id);
    }

    pub fn remove(&mut self, id: u32, labels: &[(Symbol, Symbol)]) {
        for &(name, value) in labels {
            if let Some(of_name) = self.by_name.get_mut(&name) {
                self.pairs -= usize::from(of_name.remove(value, id));
                if of_name.values.is_empty() {
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
    pub fn iter(&self) -> impl Iterator<Item = (Symbol, &ByValue)> {
        self.by_name.iter().map(|(n, of_name)| (*n, &of_name.values))
    }

    /// The series that carry a label, whatever its value.
    pub fn carriers(&self, name: Symbol) -> Option<MappedRwLockReadGuard<'_, RoaringBitmap>> {
        self.by_name.get(&name).map(OfName::carriers)
    }

    pub fn values(&self, name: Symbol) -> Option<&ByValue> {
        self.by_name.get(&name).map(|of_name| &of_name.values)
    }

    /// The series that satisfy all matchers.
    pub fn select(&self, matchers: &[Matcher], symbols: &Symbols) -> RoaringBitmap {
        let mut found: Option<RoaringBitmap> = None;
        // What names series comes first: it is cheap and makes the rest small.
        let (naming, excluding): (Vec<&Matcher>, Vec<&Matcher>) =
            matchers.iter().partition(|m| !m.matches_empty());
        for m in naming {
            let with = self.with_value(m, true, symbols);
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
            found -= self.with_value(m, false, symbols);
        }
        found
    }

    /// The series that carry the matcher's label with a value that satisfies (`holds`) or fails it.
    fn with_value(&self, m: &Matcher, holds: bool, symbols: &Symbols) -> RoaringBitmap {
        let of_name = symbols.find(&m.name).and_then(|n| self.by_name.get(&n));
        of_name.map_or_else(RoaringBitmap::new, |of_name| of_name.with_value(m, holds, symbols))
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

    /// Every kind of matcher against a look at each series, while series come and go and what was asked
    /// before is kept along.
    #[test]
    fn selections_are_what_a_look_at_each_series_finds() {
        let (mut symbols, mut postings) = (Symbols::default(), Postings::default());
        let mut there: Vec<Option<Vec<(String, String)>>> = Vec::new();
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut roll = move |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % n
        };
        let asked = [
            (MatchOp::Equal, "pod", "web-7"),
            (MatchOp::NotEqual, "pod", "web-7"),
            (MatchOp::Equal, "pod", ""),
            (MatchOp::NotEqual, "pod", ""),
            (MatchOp::Regex, "pod", "web-1.*"),
            (MatchOp::NotRegex, "pod", "web-1.*"),
            (MatchOp::Regex, "pod", "web-1.*|api-[0-4]+"),
            (MatchOp::NotRegex, "pod", "(web|db)-.*"),
            (MatchOp::Regex, "pod", "web-1|api-2|none"),
            (MatchOp::NotRegex, "pod", "web-1|api-2|none"),
            (MatchOp::Regex, "pod", "web-1|"),
            (MatchOp::NotRegex, "pod", "web-1|"),
            (MatchOp::Regex, "pod", ".*-1"),
            (MatchOp::NotRegex, "pod", ".*-1"),
            (MatchOp::Regex, "pod", ".*"),
            (MatchOp::Regex, "pod", ".+"),
            (MatchOp::NotRegex, "pod", ".*"),
            (MatchOp::NotRegex, "pod", ".+"),
            (MatchOp::Regex, "pod", "(web-.*)?"),
            (MatchOp::Equal, "nowhere", ""),
            (MatchOp::NotEqual, "nowhere", ""),
        ]
        .map(|(op, name, value)| Matcher::new(op, name, value).unwrap());
        for round in 0..40 {
            for _ in 0..100 {
                if round % 7 == 6 && roll(3) > 0 {
                    let id = roll(there.len() as u64) as usize;
                    if let Some(gone) = there[id].take() {
                        let find = |text: &str| symbols.find(text).unwrap();
                        let labels: Vec<_> = gone.iter().map(|(n, v)| (find(n), find(v))).collect();
                        postings.remove(id as u32, &labels);
                        labels.iter().for_each(|(n, v)| {
                            symbols.release(*n);
                            symbols.release(*v);
                        });
                    }
                    continue;
                }
                let mut labels = vec![("job".to_string(), format!("job-{}", roll(3)))];
                if roll(4) > 0 {
                    labels.push((
                        "pod".into(),
                        format!("{}-{}", ["web", "api", "db"][roll(3) as usize], roll(900)),
                    ));
                }
                let symbols: Vec<_> =
                    labels.iter().map(|(n, v)| (symbols.take(n), symbols.take(v))).collect();
                postings.insert(there.len() as u32, &symbols);
                there.push(Some(labels));
            }
            for m in &asked {
                let with = [m.clone(), Matcher::new(MatchOp::NotEqual, "job", "job-0").unwrap()];
                let value = |labels: &[(String, String)], name: &str| {
                    labels.iter().find(|l| l.0 == name).map(|l| l.1.clone()).unwrap_or_default()
                };
                for matchers in [&with[..1], &with] {
                    let holds = |labels: &Vec<(String, String)>| {
                        matchers.iter().all(|m| m.matches(&value(labels, &m.name)))
                    };
                    let want: Vec<u32> = (0..there.len() as u32)
                        .filter(|id| there[*id as usize].as_ref().is_some_and(holds))
                        .collect();
                    let got: Vec<u32> = postings.select(matchers, &symbols).iter().collect();
                    assert_eq!(got, want, "{matchers:?} in round {round}");
                }
            }
        }
    }
}
