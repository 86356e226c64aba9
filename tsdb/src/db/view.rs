//! One consistent view of a tenant: its blocks, the local blocks that are in none of them, and what of the
//! head is in neither.

use std::sync::Arc;

use super::ReadState;
use super::changes::Changes;
use crate::bucket::BucketSource;
use crate::head::source::HeadSource;
use model::labels::Labels;
use model::matcher::Matcher;
use model::source::merge::conflict::Origin;
use model::source::merge::{MergeCursor, MergedSource};
use model::source::{
    Budget, LabelQuery, Mark, MarkBuilder, Read, RollupHints, Selection, SeriesCursor, Source, SourceError,
};
use model::tenant::TenantId;

/// Blocks, local blocks and head as one source, which keeps the state it was taken from alive.
pub(super) struct View {
    bucket: Option<Arc<BucketSource>>,
    local: Option<Arc<LocalBlocks>>,
    head: Option<Arc<HeadSource>>,
    merged: MergedSource,
    /// Whose samples local blocks and head hold.
    own: Origin,
    /// What writes change of the tenant.
    changes: Option<(Arc<Changes>, TenantId)>,
    /// Generations that this state reads from the head stay there until it is dropped.
    state: Arc<ReadState>,
}

/// Local blocks, and where their samples lie: ranges with both ends included.
struct LocalBlocks {
    blocks: BucketSource,
    spans_ms: Vec<(i64, i64)>,
}

impl View {
    /// `local` with the ranges (ends included) in which samples of it lie.
    pub fn new(
        bucket: Option<BucketSource>,
        local: Option<(BucketSource, Vec<(i64, i64)>)>,
        head: Option<HeadSource>,
        own: Origin,
        state: Arc<ReadState>,
    ) -> View {
        let (bucket, head) = (bucket.map(Arc::new), head.map(Arc::new));
        let local = local.map(|(blocks, spans_ms)| Arc::new(LocalBlocks { blocks, spans_ms }));
        let mut sources: Vec<Arc<dyn Source>> = Vec::new();
        sources.extend(bucket.clone().map(|b| b as Arc<dyn Source>));
        sources.extend(local.clone().map(|l| l as Arc<dyn Source>));
        sources.extend(head.clone().map(|h| h as Arc<dyn Source>));
        View { bucket, local, head, merged: MergedSource::new(sources), own, changes: None, state }
    }

    /// The same, which can tell [`Mark`]s.
    pub fn with_changes(self, changes: Arc<Changes>, tenant: TenantId) -> View {
        View { changes: Some((changes, tenant)), ..self }
    }

    fn may_be_unsettled(&self, changes: &Changes, tenant: &TenantId, (first, last): (i64, i64)) -> bool {
        let spans = self.local.iter().flat_map(|local| &local.spans_ms);
        spans.into_iter().any(|(a, b)| *a <= last && *b >= first)
            || changes.any_since(tenant, (first, last), self.state.first_generation)
    }

    /// What a group of reads depends on; `None` where that is not known.
    fn mark(&self, group: &[Read]) -> Option<Mark> {
        let (changes, tenant) = self.changes.as_ref()?;
        let mut mark = MarkBuilder::default();
        for read in group {
            let range = (read.min_t_ms, read.max_t_ms);
            mark.time(range.0).time(range.1);
            if let Some(bucket) = &self.bucket {
                let beside = changes.any_since(tenant, range, 0);
                if !bucket.add_marks(read, beside, &mut mark) {
                    return None;
                }
                let windows = bucket.windows_span_ms(range.0, range.1);
                if windows.is_some() && self.may_be_unsettled(changes, tenant, range) {
                    // Which windows answer depends on where unflushed samples lie.
                    return None;
                }
            }
            changes.add_marks(tenant, range, &mut mark);
        }
        Some(mark.build())
    }

    /// Where samples of local blocks and head lie, coarsely: ranges with both ends included, ascending by
    /// their first.
    pub fn unsettled_ms(
        &self,
        matchers: &[Matcher],
        first: i64,
        last: i64,
        budget: &Budget,
    ) -> Result<Vec<(i64, i64)>, SourceError> {
        let mut spans = Vec::new();
        if let Some(head) = &self.head {
            spans.extend(head.spans_ms(matchers, first, last, budget)?);
        }
        if let Some(local) = &self.local {
            spans.extend(local.spans_ms.iter().filter(|(a, b)| *a <= last && *b >= first));
            spans.sort_unstable();
        }
        Ok(spans)
    }
}

impl Source for View {
    fn select(&self, selection: &Selection) -> Result<Box<dyn SeriesCursor + '_>, SourceError> {
        let Some(bucket) = &self.bucket else { return self.merged.select(selection) };
        let mut late = Vec::new();
        if let Some((first, last)) = bucket.windows_span_ms(selection.min_t_ms, selection.max_t_ms) {
            // What came late and is still in local blocks or in the head is in no window.
            let (first, last) = (first.max(selection.min_t_ms), last.min(selection.max_t_ms));
            late = self.unsettled_ms(&selection.matchers, first, last, &selection.budget)?;
        }
        let mut own: Vec<(Origin, Box<dyn SeriesCursor + '_>)> = Vec::new();
        if let Some(local) = &self.local {
            own.push((self.own, local.select(selection)?));
        }
        if let Some(head) = &self.head {
            own.push((self.own, head.select(selection)?));
        }
        bucket.select_beside(selection, &late, own)
    }

    fn marks(&self, groups: &[Vec<Read>], _: &Arc<Budget>) -> Result<Vec<Option<Mark>>, SourceError> {
        Ok(groups.iter().map(|group| self.mark(group)).collect())
    }

    fn gives_up_at_once(&self) -> bool {
        true
    }

    fn series(&self, query: &LabelQuery) -> Result<Vec<Labels>, SourceError> {
        self.merged.series(query)
    }

    fn label_names(&self, query: &LabelQuery) -> Result<Vec<String>, SourceError> {
        self.merged.label_names(query)
    }

    fn label_values(&self, name: &str, query: &LabelQuery) -> Result<Vec<String>, SourceError> {
        self.merged.label_values(name, query)
    }
}

impl Source for LocalBlocks {
    fn select(&self, selection: &Selection) -> Result<Box<dyn SeriesCursor + '_>, SourceError> {
        if !self.spans_ms.iter().any(|(a, b)| *a <= selection.max_t_ms && *b >= selection.min_t_ms) {
            return Ok(Box::new(MergeCursor::new(Vec::new())));
        }
        // There are no windows among them, and which resolution answers a part of time is for the object
        // store's blocks to say.
        let mut selection = selection.clone();
        selection.hints.rollups = RollupHints::default();
        self.blocks.select(&selection)
    }

    fn series(&self, query: &LabelQuery) -> Result<Vec<Labels>, SourceError> {
        self.blocks.series(query)
    }

    fn label_names(&self, query: &LabelQuery) -> Result<Vec<String>, SourceError> {
        self.blocks.label_names(query)
    }

    fn label_values(&self, name: &str, query: &LabelQuery) -> Result<Vec<String>, SourceError> {
        self.blocks.label_values(name, query)
    }
}
