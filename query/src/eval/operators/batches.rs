//! Selections, read batch by batch, and kept where somebody else will read them too.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};

use model::labels::Labels;
use model::source::{Hints, Reservation, Selection, SeriesColumns, SeriesCursor, SourceError};

use super::counts_only::leave_counts;
use super::selector::hints;
use crate::eval::evaluator::Evaluator;
use crate::eval::stats::trace::Trace;
use crate::eval::timeline::Reach;
use crate::plan::{NodeId, Selector};
use crate::value::QueryError;

/// What is done with every batch of a selection.
type EachBatch<'f, E> = dyn FnMut(&mut E, &[SeriesColumns]) -> Result<(), QueryError> + 'f;

/// A batch of series, charged as long as it is held.
pub(super) struct Batch {
    pub series: Arc<Vec<SeriesColumns>>,
    reserved: Reservation,
}

/// The batches of a selection, or of series that are there already.
pub(crate) struct Batches<'a> {
    pub(super) source: BatchSource<'a>,
    /// Read when there was no room for it beside the one before.
    unreserved: Option<Vec<SeriesColumns>>,
    pub(super) selection: Option<Reading>,
}

pub(super) enum BatchSource<'a> {
    Cursor(Box<dyn SeriesCursor + 'a>),
    /// A cursor that a thread of its own reads.
    Ahead(Receiver<Result<Vec<SeriesColumns>, SourceError>>),
    InMemory(VecDeque<Arc<Vec<SeriesColumns>>>),
}

/// A selection that is read from its source.
pub(super) struct Reading {
    key: (usize, i64, i64),
    turns: Turns,
    pub counts_only: bool,
    max_resolution_ms: i64,
    /// What is kept of it for who reads it next. `None`: nothing, nobody will, or it is too much to hold: the
    /// next who reads it reads it again.
    kept: Option<Vec<Arc<Vec<SeriesColumns>>>>,
    kept_reserved: Reservation,
}

impl<'a> Batches<'a> {
    /// Series that are there and charged.
    pub fn in_memory(batches: impl IntoIterator<Item = Arc<Vec<SeriesColumns>>>) -> Batches<'a> {
        let source = BatchSource::InMemory(batches.into_iter().collect());
        Batches { source, unreserved: None, selection: None }
    }

    /// The label sets behind what was read, where that is known.
    pub(super) fn labels_to_come(&self) -> Option<Vec<Labels>> {
        match &self.source {
            BatchSource::Cursor(cursor) => cursor.labels_to_come(),
            BatchSource::Ahead(_) => None,
            BatchSource::InMemory(rest) => {
                Some(rest.iter().flat_map(|b| b.iter()).map(|s| s.labels.clone()).collect())
            }
        }
    }

    /// The next series of a cursor, as they come; `None` at the end. What another thread reads is not waited
    /// for unless `wait`.
    fn read(&mut self, wait: bool) -> Result<NextRead, QueryError> {
        if let Some(read) = self.unreserved.take() {
            return Ok(NextRead::Series(read));
        }
        let cursor = match &mut self.source {
            BatchSource::Cursor(cursor) => cursor,
            BatchSource::InMemory(_) => return Ok(NextRead::End),
            BatchSource::Ahead(read) if wait => {
                return Ok(read.recv().map_or(Ok(NextRead::End), |read| read.map(NextRead::Series))?);
            }
            BatchSource::Ahead(read) => {
                return match read.try_recv() {
                    Ok(read) => Ok(NextRead::Series(read?)),
                    Err(TryRecvError::Empty) => Ok(NextRead::NotYet),
                    Err(TryRecvError::Disconnected) => Ok(NextRead::End),
                };
            }
        };
        let Some(reading) = &self.selection else { return Ok(NextRead::End) };
        reading.turns.reading();
        let mut batch = cursor.next_batch()?;
        if reading.counts_only {
            batch.iter_mut().flatten().for_each(leave_counts);
        }
        let series = batch.as_deref().unwrap_or_default();
        reading.turns.taken(series.len(), series.iter().map(|s| series_reservation(s).bytes).sum());
        Ok(batch.map_or(NextRead::End, NextRead::Series))
    }
}

/// What came of asking for the next series.
enum NextRead {
    Series(Vec<SeriesColumns>),
    NotYet,
    End,
}

/// What came of asking for the next batch.
pub(super) enum NextBatch {
    Batch(Batch),
    /// There is no room for it, or it is not read yet.
    Later,
    End,
}

/// Whose work it is while a selection is read, for the trace if there is one: the selector's, or that of
/// whoever takes its batches.
struct Turns {
    trace: Option<Arc<Trace>>,
    selector: NodeId,
    taker: NodeId,
}

impl Turns {
    /// The selector's turn.
    fn begin(trace: Option<Arc<Trace>>, selector: NodeId) -> Turns {
        let taker = trace.as_ref().map(|t| t.switch(selector)).unwrap_or_default();
        Turns { trace, selector, taker }
    }

    /// A batch was read, and its taker's turn comes.
    fn taken(&self, series: usize, bytes: u64) {
        if let Some(trace) = &self.trace {
            trace.switch(self.taker);
            trace.note(self.selector, |f| {
                f.series += series as u64;
                f.bytes += bytes;
            });
        }
    }

    fn reading(&self) {
        if let Some(trace) = &self.trace {
            trace.switch(self.selector);
        }
    }

    fn end(&self, max_resolution_ms: i64) {
        if let Some(trace) = &self.trace {
            trace.switch(self.taker);
            trace.note(self.selector, |f| {
                f.runs += 1;
                f.max_resolution_ms = max_resolution_ms;
            });
        }
    }
}

impl<'a> Evaluator<'a> {
    /// Begins to read a selection. What several selectors of the plan read is read once and kept.
    pub(super) fn open(
        &mut self,
        s: &Selector,
        reach: &Reach,
        range_ms: i64,
    ) -> Result<Batches<'a>, QueryError> {
        let (min_t_ms, max_t_ms) = reach.span();
        let key = (s.selection, min_t_ms, max_t_ms);
        if let Some(kept) = self.selected.get(&key).cloned() {
            if let Some(trace) = &self.trace {
                trace.note(s.id, |f| {
                    f.runs += 1;
                    f.series += kept.iter().map(|batch| batch.len() as u64).sum::<u64>();
                    f.reused = true;
                });
            }
            let batches = Batches::in_memory(kept.iter().cloned());
            self.answer_to_come(s.id, || batches.labels_to_come());
            return Ok(batches);
        }
        let (rollups, needs, looks) = self.rollup_hints_of(s, reach, range_ms);
        let mut selection = Selection {
            matchers: s.matchers.clone(),
            min_t_ms,
            max_t_ms,
            hints: Hints { rollups, ..hints(s, self.steps, range_ms) },
            budget: self.budget.clone(),
        };
        let uses = self.selection_uses.get(s.selection).copied().unwrap_or_default();
        // Others may look at more of what is kept for them.
        selection.hints.newest_only &= uses <= 1;
        let source = self.source;
        let turns = Turns::begin(self.trace.clone(), s.id);
        let cursor = source.select(&selection)?;
        let what = (if range_ms > 0 { s.func } else { "" }, s.metric_name());
        self.note_resolutions(what, &selection.hints.rollups, needs, looks, (min_t_ms, max_t_ms));
        self.answer_to_come(s.id, || cursor.labels_to_come());
        let reading = Reading {
            key,
            turns,
            counts_only: s.counts_only,
            max_resolution_ms: selection.hints.rollups.max_resolution_ms,
            kept: (uses > 1).then(Vec::new),
            kept_reserved: Reservation::default(),
        };
        Ok(Batches { source: BatchSource::Cursor(cursor), unreserved: None, selection: Some(reading) })
    }

    /// The next batch, charged. `beside` others that are held it may have to wait.
    pub(super) fn next_batch(
        &mut self,
        batches: &mut Batches<'a>,
        beside: bool,
    ) -> Result<NextBatch, QueryError> {
        self.budget.check_in_turn()?;
        if let BatchSource::InMemory(rest) = &mut batches.source {
            let batch = |series| NextBatch::Batch(Batch { series, reserved: Reservation::default() });
            return Ok(rest.pop_front().map_or(NextBatch::End, batch));
        }
        let read = match batches.read(!beside)? {
            NextRead::Series(read) => read,
            NextRead::NotYet => return Ok(NextBatch::Later),
            NextRead::End => return Ok(NextBatch::End),
        };
        let reserved: Reservation = read.iter().map(series_reservation).sum();
        match self.budget.reserve(reserved) {
            Ok(()) => {
                self.budget.read_series(read.len() as u64);
                Ok(NextBatch::Batch(Batch { series: Arc::new(read), reserved }))
            }
            Err(_) if beside => {
                batches.unreserved = Some(read);
                Ok(NextBatch::Later)
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Keeps a batch for who reads the selection next, as long as there is room; else gives back what it
    /// holds.
    pub(super) fn done(&mut self, batches: &mut Batches<'a>, batch: Batch) {
        let Some(reading) = &mut batches.selection else { return };
        let Some(kept) = &mut reading.kept else { return self.budget.release(batch.reserved) };
        reading.kept_reserved += batch.reserved;
        if self.may_keep(reading.kept_reserved) {
            kept.push(batch.series);
        } else {
            reading.kept = None;
            self.budget.release(reading.kept_reserved);
        }
    }

    pub(super) fn close(&mut self, batches: Batches<'a>) {
        let Some(reading) = batches.selection else { return };
        reading.turns.end(reading.max_resolution_ms);
        if let Some(kept) = reading.kept {
            self.selected.insert(reading.key, Arc::new(kept));
        }
    }

    /// Reads a selection in batches.
    pub(crate) fn select(
        &mut self,
        s: &Selector,
        reach: &Reach,
        range_ms: i64,
        each: &mut EachBatch<'_, Self>,
    ) -> Result<(), QueryError> {
        let mut batches = self.open(s, reach, range_ms)?;
        while let NextBatch::Batch(batch) = self.next_batch(&mut batches, false)? {
            each(self, &batch.series)?;
            self.answer_to_come(s.id, || batches.labels_to_come());
            self.done(&mut batches, batch);
        }
        self.close(batches);
        Ok(())
    }
}

/// What a series' columns hold, a shared timeline counted in part.
pub(crate) fn series_reservation(s: &SeriesColumns) -> Reservation {
    let histograms =
        s.histograms.as_ref().map_or(0, |h| h.iter().flatten().map(|h| h.size_bytes() + 16).sum::<usize>());
    let shared = Arc::strong_count(&s.ts_ms).max(1);
    let windows = s.windows.as_ref().map_or(0, |w| w.bytes());
    let bytes = (s.ts_ms.len() * 8 + s.ts_ms.len() * 8 / shared + histograms + windows + 96) as u64;
    Reservation { bytes, samples: (s.ts_ms.len() + histograms / 16) as u64 }
}
