//! One consistent view of a tenant: its blocks and what of the head is in none of them.

use std::sync::Arc;

use super::ReadState;
use crate::bucket::BucketSource;
use crate::head::source::HeadSource;
use crate::labels::Labels;
use crate::merge::{MergeCursor, MergedSource};
use crate::source::{LabelWish, Selection, SeriesCursor, Source, SourceError};

/// Blocks and head as one source, which keeps the state it was taken from alive.
pub(super) struct View {
    bucket: Option<Arc<BucketSource>>,
    head: Option<Arc<HeadSource>>,
    merged: MergedSource,
    /// Generations that this state reads from the head stay there until it is dropped.
    _state: Arc<ReadState>,
}

impl View {
    pub fn new(bucket: Option<BucketSource>, head: Option<HeadSource>, state: Arc<ReadState>) -> View {
        let (bucket, head) = (bucket.map(Arc::new), head.map(Arc::new));
        let mut sources: Vec<Arc<dyn Source>> = Vec::new();
        sources.extend(bucket.clone().map(|b| b as Arc<dyn Source>));
        sources.extend(head.clone().map(|h| h as Arc<dyn Source>));
        View { bucket, head, merged: MergedSource::new(sources), _state: state }
    }
}

impl Source for View {
    fn select(&self, wish: &Selection) -> Result<Box<dyn SeriesCursor + '_>, SourceError> {
        if let (Some(bucket), Some(head)) = (&self.bucket, &self.head)
            && let Some((first, last)) = bucket.windows_span_ms(wish.min_t_ms, wish.max_t_ms)
        {
            // What came late and is still in the head is in no window.
            let late = head.spans_ms(&wish.matchers, first.max(wish.min_t_ms), last.min(wish.max_t_ms));
            let blocks = bucket.select_beside(wish, &late)?;
            return Ok(Box::new(MergeCursor::new(vec![blocks, head.select(wish)?])));
        }
        self.merged.select(wish)
    }

    fn series(&self, wish: &LabelWish) -> Result<Vec<Labels>, SourceError> {
        self.merged.series(wish)
    }

    fn label_names(&self, wish: &LabelWish) -> Result<Vec<String>, SourceError> {
        self.merged.label_names(wish)
    }

    fn label_values(&self, name: &str, wish: &LabelWish) -> Result<Vec<String>, SourceError> {
        self.merged.label_values(name, wish)
    }
}
