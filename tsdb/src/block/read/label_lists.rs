//! The names of all labels of a block, and all values of one: short lists beside the series table, which they
//! are made of once. Menus ask for them over years of blocks, whose tables would not all fit into the cache.

use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::cache::Key;
use super::plan::Block;
use model::labels::METRIC_NAME;
use model::source::SourceError;

/// Texts, ascending, each once.
pub(crate) struct LabelList {
    /// The label that they are values of; empty for names.
    of: Box<str>,
    texts: Vec<Box<str>>,
}

impl LabelList {
    fn new(of: &str, mut texts: Vec<Box<str>>) -> LabelList {
        texts.sort_unstable();
        texts.dedup();
        LabelList { of: of.into(), texts }
    }

    pub fn texts(&self) -> Vec<&str> {
        self.texts.iter().map(|text| &**text).collect()
    }

    fn bytes(&self) -> usize {
        let texts: usize = self.texts.iter().map(|text| text.len() + size_of::<Box<str>>()).sum();
        texts + self.of.len() + size_of::<LabelList>()
    }
}

impl Block {
    /// The names of the labels that the block's series have.
    pub fn label_names(&self) -> Result<Arc<LabelList>, SourceError> {
        self.label_list(Key::LabelNames(self.meta.ulid), "", || {
            let mut names = Vec::new();
            self.series_table()?.names(None, &mut |name| names.push(name.into()));
            Ok(names)
        })
    }

    /// The values that a label has in the block.
    pub fn label_values(&self, name: &str) -> Result<Arc<LabelList>, SourceError> {
        let key = Key::LabelValues(self.meta.ulid, xxh3_64(name.as_bytes()));
        self.label_list(key, name, || {
            if let Some(metrics) = self.metrics().filter(|_| name == METRIC_NAME) {
                return Ok(metrics.names().filter(|name| !name.is_empty()).map(Box::from).collect());
            }
            let mut values = Vec::new();
            self.series_table()?.values(name, None, &mut |value| values.push(value.into()));
            Ok(values)
        })
    }

    fn label_list(
        &self,
        key: Key,
        of: &str,
        make: impl FnOnce() -> Result<Vec<Box<str>>, SourceError>,
    ) -> Result<Arc<LabelList>, SourceError> {
        // Two names may have one hash.
        if let Some(list) = self.store.cache.get::<LabelList>(&key).filter(|list| *list.of == *of) {
            return Ok(list);
        }
        let list = Arc::new(LabelList::new(of, make()?));
        self.store.cache.put(key, list.clone(), list.bytes());
        Ok(list)
    }
}
