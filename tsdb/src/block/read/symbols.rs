//! Distinct strings of one column of a series table, by number.

use std::sync::Arc;

use hashbrown::HashMap;

/// Distinct strings by number.
#[derive(Default)]
pub(crate) struct Symbols {
    pub strings: Vec<Arc<str>>,
    pub numbers: HashMap<Arc<str>, u32>,
}

impl Symbols {
    /// The number of a string, a new one if it is new.
    pub fn number(&mut self, s: &str) -> u32 {
        if let Some(n) = self.numbers.get(s) {
            return *n;
        }
        let n = self.strings.len() as u32;
        let shared: Arc<str> = s.into();
        self.strings.push(shared.clone());
        self.numbers.insert(shared, n);
        n
    }

    /// About how many bytes of memory it holds.
    pub fn bytes(&self) -> usize {
        self.strings.iter().map(|s| s.len() + 16 + 40).sum()
    }
}
