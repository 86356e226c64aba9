//! Which labels a series gets on its way in: those of its source's outside, without those that only tell
//! replicas apart.

use std::collections::BTreeMap;

use model::labels::Labels;

/// Labels to add to every series, and names to drop.
#[derive(Clone, Debug, Default)]
pub struct Relabel {
    /// They win over labels of the same name in the series, as external labels do in Thanos.
    pub add: BTreeMap<String, String>,
    /// They are added where the series has no label of that name, as external labels are in Prometheus.
    pub fill: BTreeMap<String, String>,
    /// Names that are dropped, whether the series or `add` brings them.
    pub drop: Vec<String>,
}

impl Relabel {
    pub fn apply(&self, labels: Labels) -> Labels {
        if self.add.is_empty() && self.fill.is_empty() && self.drop.is_empty() {
            return labels;
        }
        let mut builder = labels.to_builder();
        for (name, value) in &self.add {
            builder.set(name, value);
        }
        for (name, value) in &self.fill {
            if labels.value(name).is_empty() {
                builder.set(name, value);
            }
        }
        for name in &self.drop {
            builder.remove(name);
        }
        builder.build()
    }

    /// What tells series of one source apart that are the same once they are relabelled: the values of
    /// dropped labels, and those that others took the place of. Empty strings for labels that a series lacks.
    pub(super) fn origin(&self, labels: &Labels) -> Vec<String> {
        let dropped = self.drop.iter().map(|name| match self.add.get(name) {
            Some(added) => added.clone(),
            None => labels.value(name).to_owned(),
        });
        let replaced = self.add.keys().chain(self.fill.keys()).map(|name| labels.value(name).to_owned());
        dropped.chain(replaced).collect()
    }

    /// What it does as a text: part of the key under which an import is remembered.
    pub fn describe(&self) -> String {
        let mut drop = self.drop.clone();
        drop.sort();
        drop.dedup();
        let filled = if self.fill.is_empty() { String::new() } else { format!("fill {:?}", self.fill) };
        let add: BTreeMap<_, _> = self.add.iter().filter(|(n, _)| !drop.contains(n)).collect();
        match (add.is_empty(), drop.is_empty()) {
            (true, true) => filled,
            _ => format!("add {add:?} drop {drop:?}{filled}"),
        }
    }
}
