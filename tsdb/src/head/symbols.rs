//! Every label name and value of the head, held once and numbered.

use hashbrown::HashTable;

/// The number of a string in [`Symbols`].
pub type Symbol = u32;

/// Strings with reference counts: what no series uses any more is freed and its number given out again.
#[derive(Default)]
pub struct Symbols {
    strings: Vec<Slot>,
    by_text: HashTable<Symbol>,
    /// Of this process alone: texts come from outside, and whoever does not know the key cannot choose many
    /// that fall into one place.
    hash_key: ahash::RandomState,
    free: Vec<Symbol>,
    bytes: usize,
}

#[derive(Default)]
struct Slot {
    text: Box<str>,
    uses: u32,
}

impl Symbols {
    /// The text of a number that is in use.
    #[inline]
    pub fn text(&self, symbol: Symbol) -> &str {
        &self.strings[symbol as usize].text
    }

    /// All numbers that were ever given out are below this.
    pub fn bound(&self) -> usize {
        self.strings.len()
    }

    /// The number of a text, if any series uses it.
    pub fn find(&self, text: &str) -> Option<Symbol> {
        self.by_text.find(self.hash_key.hash_one(text), |&s| &*self.strings[s as usize].text == text).copied()
    }

    /// Counts one more use of a text, and numbers it where it is new.
    pub fn take(&mut self, text: &str) -> Symbol {
        if let Some(symbol) = self.find(text) {
            self.strings[symbol as usize].uses += 1;
            return symbol;
        }
        let slot = Slot { text: text.into(), uses: 1 };
        self.bytes += text.len();
        let symbol = match self.free.pop() {
            Some(symbol) => {
                self.strings[symbol as usize] = slot;
                symbol
            }
            None => {
                self.strings.push(slot);
                (self.strings.len() - 1) as Symbol
            }
        };
        let (strings, hash_key) = (&self.strings, &self.hash_key);
        let hash = |text: &str| hash_key.hash_one(text);
        self.by_text.insert_unique(hash(text), symbol, |&s| hash(&strings[s as usize].text));
        symbol
    }

    /// Counts one use less.
    pub fn release(&mut self, symbol: Symbol) {
        let slot = &mut self.strings[symbol as usize];
        slot.uses -= 1;
        if slot.uses == 0 {
            let text = std::mem::take(&mut slot.text);
            self.bytes -= text.len();
            if let Ok(entry) = self.by_text.find_entry(self.hash_key.hash_one(&*text), |&s| s == symbol) {
                entry.remove();
            }
            self.free.push(symbol);
        }
    }

    /// Heap bytes held, about.
    pub fn heap_bytes(&self) -> usize {
        self.bytes + self.strings.capacity() * std::mem::size_of::<Slot>() + self.by_text.capacity() * 5
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbol_number_lives_as_long_as_its_uses() {
        let mut s = Symbols::default();
        let a = s.take("job");
        assert_eq!(s.take("job"), a);
        let b = s.take("node");
        assert_ne!(a, b);
        s.release(a);
        assert_eq!(s.find("job"), Some(a));
        s.release(a);
        assert_eq!(s.find("job"), None);
        assert_eq!(s.take("other"), a, "the number is given out again");
        assert_eq!((s.text(a), s.text(b)), ("other", "node"));
    }
}
