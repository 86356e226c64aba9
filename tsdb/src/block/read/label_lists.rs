//! The names of a block's labels, and the values of one, of all series or of those that selectors pick: short
//! lists beside the series table, which they are made of once. Menus ask for them over years of blocks, whose
//! tables would not all fit into the cache.

use std::fmt::Write;
use std::sync::Arc;

use ulid::Ulid;
use xxhash_rust::xxh3::xxh3_64;

use super::cache::Key;
use super::plan::Block;
use super::series_table::SeriesTable;
use super::store::BlockStore;
use model::labels::METRIC_NAME;
use model::matcher::Matcher;
use model::source::SourceError;

/// Which list of a block is meant.
pub(crate) struct ListOf<'a> {
    /// The values of this label; `None`: the names of labels.
    label: Option<&'a str>,
    /// All of it as a text, by which it is known.
    text: Box<str>,
}

impl<'a> ListOf<'a> {
    /// Of series that any of the selectors picks; of all where there is none.
    pub fn new(label: Option<&'a str>, selectors: &[Vec<Matcher>]) -> ListOf<'a> {
        let mut text = format!("{label:?}");
        for selector in selectors {
            text.push(';');
            for matcher in selector {
                // Names and values are quoted, so that no two selectors have one text.
                let _ = write!(text, ",{matcher}");
            }
        }
        ListOf { label, text: text.into() }
    }

    fn key(&self, block: Ulid) -> Key {
        Key::LabelList(block, xxh3_64(self.text.as_bytes()))
    }
}

/// Texts, ascending, each once.
pub(crate) struct LabelList {
    /// See [`ListOf::text`]: two of them may have one hash.
    of: Box<str>,
    texts: Vec<Box<str>>,
}

impl LabelList {
    /// The list of a block, where it is kept.
    pub fn kept(store: &BlockStore, block: Ulid, of: &ListOf<'_>) -> Option<Arc<LabelList>> {
        store.cache.get::<LabelList>(&of.key(block)).filter(|list| list.of == of.text)
    }

    /// Makes it of the series (ascending ids; `None`: all) of a table, and keeps it.
    pub fn of_table(
        block: &Block,
        of: &ListOf<'_>,
        table: &SeriesTable,
        series: Option<&[u32]>,
    ) -> Arc<LabelList> {
        let mut texts: Vec<Box<str>> = Vec::new();
        match of.label {
            None => table.names(series, &mut |name| texts.push(name.into())),
            Some(label) => table.values(label, series, &mut |value| texts.push(value.into())),
        }
        LabelList::keep(block, of, texts)
    }

    fn keep(block: &Block, of: &ListOf<'_>, mut texts: Vec<Box<str>>) -> Arc<LabelList> {
        texts.sort_unstable();
        texts.dedup();
        let list = Arc::new(LabelList { of: of.text.clone(), texts });
        block.store.cache.put(of.key(block.meta.ulid), list.clone(), list.bytes());
        list
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
    /// A list of all series, of the directory of metrics where that is enough.
    pub fn label_list(&self, of: &ListOf<'_>) -> Result<Arc<LabelList>, SourceError> {
        if let Some(metrics) = self.metrics().filter(|_| of.label == Some(METRIC_NAME)) {
            let names = metrics.names().filter(|name| !name.is_empty()).map(Box::from).collect();
            return Ok(LabelList::keep(self, of, names));
        }
        let table = self.series_table()?;
        Ok(LabelList::of_table(self, of, &table, None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::matcher::MatchOp;

    #[test]
    fn label_lists_of_different_questions_have_different_texts() {
        let m = |op, name: &str, value: &str| Matcher::new(op, name, value).unwrap();
        let (a, b) = (m(MatchOp::Equal, "a", "1"), m(MatchOp::Regex, "a", "1"));
        let selectors: [&[Vec<Matcher>]; 6] = [
            &[],
            &[vec![]],
            &[vec![a.clone()]],
            &[vec![b.clone()]],
            &[vec![a.clone(), b.clone()]],
            &[vec![a.clone()], vec![b.clone()]],
        ];
        let mut texts = std::collections::HashSet::new();
        for label in [None, Some(""), Some("None"), Some("a;,a=\"1\"")] {
            for selectors in selectors {
                assert!(texts.insert(ListOf::new(label, selectors).text), "{label:?} {selectors:?}");
            }
        }
    }
}
