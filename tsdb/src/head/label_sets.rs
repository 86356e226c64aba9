//! The label sets of the head's series: the names of a set held once for all series that have the same ones,
//! its values a row of numbers.
//!
//! The series of a scrape differ in their values; which names they have takes a few dozen forms. So a series
//! of eight labels takes 40 bytes here: a row of 32 among others of its length, none of which the allocator
//! knows by itself, and eight for the place of both.

use hashbrown::HashTable;

use super::symbols::{Symbol, Symbols};

/// All label sets, and their strings.
#[derive(Default)]
pub struct LabelSets {
    symbols: Symbols,
    names: Vec<Names>,
    by_names: HashTable<u32>,
    hash_key: ahash::RandomState,
    /// Places of `names` that nobody uses.
    free: Vec<u32>,
    /// By how many labels they are of.
    rows: Vec<Rows>,
    /// Of rows and lists of names.
    bytes: usize,
}

/// Where the set of one series is.
#[derive(Clone, Copy, Debug)]
pub struct LabelSet {
    names: u32,
    row: u32,
}

/// A list of names, and how many sets have it.
#[derive(Default)]
struct Names {
    symbols: Box<[Symbol]>,
    uses: u32,
}

/// Symbols of a block of rows, about: 8 KiB, a size that allocators give without rounding up where rows are
/// of usual lengths.
const BLOCK_SYMBOLS: usize = 2048;

/// Rows of one length, in blocks that never move.
struct Rows {
    length: usize,
    /// Rows of a block: two to this power.
    power: u32,
    blocks: Vec<Box<[Symbol]>>,
    /// Rows that were ever given out.
    given: u32,
    free: Vec<u32>,
}

impl Rows {
    fn new(length: usize) -> Rows {
        let power = (BLOCK_SYMBOLS / length.max(1)).max(1).ilog2();
        Rows { length, power, blocks: Vec::new(), given: 0, free: Vec::new() }
    }

    fn place(&self, row: u32) -> (usize, std::ops::Range<usize>) {
        let at = (row as usize & ((1 << self.power) - 1)) * self.length;
        ((row >> self.power) as usize, at..at + self.length)
    }

    #[inline]
    fn get(&self, row: u32) -> &[Symbol] {
        let (block, within) = self.place(row);
        &self.blocks[block][within]
    }

    fn put(&mut self, values: impl Iterator<Item = Symbol>) -> u32 {
        let row = self.free.pop().unwrap_or_else(|| {
            self.given += 1;
            self.given - 1
        });
        let (block, within) = self.place(row);
        if block == self.blocks.len() {
            self.blocks.push(vec![0; self.length << self.power].into());
        }
        self.blocks[block][within].iter_mut().zip(values).for_each(|(place, value)| *place = value);
        row
    }

    fn give_back(&mut self, row: u32) {
        self.free.push(row);
        if self.free.len() == self.given as usize {
            *self = Rows::new(self.length);
        }
    }

    fn heap_bytes(&self) -> usize {
        let block = (self.length << self.power) * size_of::<Symbol>() + size_of::<Box<[Symbol]>>();
        self.blocks.len() * block + self.free.capacity() * size_of::<u32>()
    }
}

impl LabelSets {
    /// The strings, by which matchers and postings go.
    pub fn symbols(&self) -> &Symbols {
        &self.symbols
    }

    /// Holds one more set: ascending by name.
    pub fn take(&mut self, labels: &[(&str, &str)]) -> LabelSet {
        let names = self.take_names(labels);
        while self.rows.len() <= labels.len() {
            self.rows.push(Rows::new(self.rows.len()));
        }
        let (rows, symbols) = (&mut self.rows[labels.len()], &mut self.symbols);
        self.bytes -= rows.heap_bytes();
        let row = rows.put(labels.iter().map(|(_, value)| symbols.take(value)));
        self.bytes += rows.heap_bytes();
        LabelSet { names, row }
    }

    fn take_names(&mut self, labels: &[(&str, &str)]) -> u32 {
        let known: Option<Vec<Symbol>> = labels.iter().map(|(name, _)| self.symbols.find(name)).collect();
        if let Some(known) = known {
            let same = |at: &u32| *self.names[*at as usize].symbols == *known;
            if let Some(&at) = self.by_names.find(self.hash_key.hash_one(&known[..]), same) {
                self.names[at as usize].uses += 1;
                return at;
            }
        }
        let symbols: Box<[Symbol]> = labels.iter().map(|(name, _)| self.symbols.take(name)).collect();
        let hash_of_new = self.hash_key.hash_one(&*symbols);
        self.bytes += size_of_val(&*symbols) + size_of::<Names>();
        let new = Names { symbols, uses: 1 };
        let at = match self.free.pop() {
            Some(at) => {
                self.names[at as usize] = new;
                at
            }
            None => {
                self.names.push(new);
                self.names.len() as u32 - 1
            }
        };
        let (names, hash_key) = (&self.names, &self.hash_key);
        self.by_names.insert_unique(hash_of_new, at, |at| hash_key.hash_one(&*names[*at as usize].symbols));
        at
    }

    /// Lets go of a set.
    pub fn release(&mut self, set: LabelSet) {
        let names = &mut self.names[set.names as usize];
        let rows = &mut self.rows[names.symbols.len()];
        rows.get(set.row).iter().for_each(|value| self.symbols.release(*value));
        self.bytes -= rows.heap_bytes();
        rows.give_back(set.row);
        self.bytes += rows.heap_bytes();
        names.uses -= 1;
        if names.uses > 0 {
            return;
        }
        let gone = std::mem::take(&mut names.symbols);
        self.bytes -= size_of_val(&*gone) + size_of::<Names>();
        if let Ok(entry) = self.by_names.find_entry(self.hash_key.hash_one(&*gone), |at| *at == set.names) {
            entry.remove();
        }
        self.free.push(set.names);
        gone.iter().for_each(|name| self.symbols.release(*name));
    }

    /// Names and values of a set that is held, ascending by name.
    #[inline]
    pub fn pairs(&self, set: LabelSet) -> LabelPairs<'_> {
        let names = &*self.names[set.names as usize].symbols;
        let values = self.rows[names.len()].get(set.row);
        LabelPairs { names: names.iter(), values: values.iter(), symbols: &self.symbols }
    }

    /// The number of a set's names: sets with the same names have the same.
    pub fn names_of(&self, set: LabelSet) -> u32 {
        set.names
    }

    /// The names with a number, ascending by text.
    pub fn names(&self, number: u32) -> &[Symbol] {
        &self.names[number as usize].symbols
    }

    /// The value that a set has of a name, if it has the name.
    pub fn value(&self, set: LabelSet, name: Symbol) -> Option<Symbol> {
        let names = self.names(set.names);
        let at = names.iter().position(|n| *n == name)?;
        self.rows[names.len()].get(set.row).get(at).copied()
    }

    /// Heap bytes of the sets, about; the strings have a count of their own.
    pub fn heap_bytes(&self) -> usize {
        self.bytes
    }
}

/// Labels of a series of the head, pair by pair, ascending by name.
#[derive(Clone)]
pub struct LabelPairs<'a> {
    names: std::slice::Iter<'a, Symbol>,
    values: std::slice::Iter<'a, Symbol>,
    symbols: &'a Symbols,
}

impl<'a> LabelPairs<'a> {
    /// The pairs that are left, by their numbers.
    pub fn symbols(self) -> impl Iterator<Item = (Symbol, Symbol)> + 'a {
        self.names.copied().zip(self.values.copied())
    }
}

impl<'a> Iterator for LabelPairs<'a> {
    type Item = (&'a str, &'a str);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (name, value) = (self.names.next()?, self.values.next()?);
        Some((self.symbols.text(*name), self.symbols.text(*value)))
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        self.values.size_hint()
    }
}

impl ExactSizeIterator for LabelPairs<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Sets come and go in any order, and each reads back as it was taken as long as it is held.
        #[test]
        fn sets_are_what_was_taken(steps in proptest::collection::vec((proptest::collection::btree_map("[a-e]", "[v-z]{1,2}", 0..5), any::<prop::sample::Index>(), any::<bool>()), 1..300)) {
            let mut sets = LabelSets::default();
            let mut held = Vec::new();
            for (labels, which, take) in steps {
                if take || held.is_empty() {
                    let pairs: Vec<(&str, &str)> = labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
                    let set = sets.take(&pairs);
                    held.push((set, labels));
                } else {
                    let (set, _) = held.swap_remove(which.index(held.len()));
                    sets.release(set);
                }
                for (set, labels) in &held {
                    let pairs = sets.pairs(*set);
                    prop_assert_eq!(pairs.len(), labels.len());
                    prop_assert!(pairs.eq(labels.iter().map(|(n, v)| (n.as_str(), v.as_str()))));
                }
            }
            for (set, _) in held {
                sets.release(set);
            }
            prop_assert_eq!((sets.heap_bytes(), sets.symbols().find("a"), sets.by_names.len()), (0, None, 0));
        }
    }

    #[test]
    fn label_set_takes_four_bytes_a_label_and_no_more() {
        let mut sets = LabelSets::default();
        let values: Vec<String> = (0..5000).map(|i| format!("v{i}")).collect();
        for value in &values {
            sets.take(&[("__name__", "up"), ("instance", value), ("job", "node"), ("zone", "a")]);
        }
        assert!(sets.heap_bytes() < 5000 * 17, "{} bytes", sets.heap_bytes());
        sets.take(&vec![("n", "v"); 3000]);
        assert!(sets.heap_bytes() < 5000 * 17 + 3000 * 4 * 3, "{} bytes", sets.heap_bytes());
    }
}
