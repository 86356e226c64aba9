//! Which labels a series gets on its way in: those of its source's outside, without those that only tell replicas apart.

use std::collections::BTreeMap;

use model::labels::Labels;

/// Labels to add to every series, and names to drop.
#[derive(Clone, Debug, Default)]
pub struct Relabel {
    /// They win over labels of the same name in the series, as they do in Thanos.
    pub add: BTreeMap<String, String>,
    /// Names that are dropped, whether the series or `add` brings them.
    pub drop: Vec<String>,
}

impl Relabel {
    pub fn apply(&self, labels: Labels) -> Labels {
        if self.add.is_empty() && self.drop.is_empty() {
            return labels;
        }
        let mut builder = labels.to_builder();
        for (name, value) in &self.add {
            builder.set(name, value);
        }
        for name in &self.drop {
            builder.remove(name);
        }
        builder.build()
    }

    /// What it does as a text: part of the key under which an import is remembered.
    pub fn describe(&self) -> String {
        let mut drop = self.drop.clone();
        drop.sort();
        drop.dedup();
        let add: BTreeMap<_, _> = self.add.iter().filter(|(n, _)| !drop.contains(n)).collect();
        match (add.is_empty(), drop.is_empty()) {
            (true, true) => String::new(),
            _ => format!("add {add:?} drop {drop:?}"),
        }
    }
}
