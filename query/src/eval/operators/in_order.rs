//! What is made of the series of a selection, on several cores, taken in the order of series; the next
//! batch is read meanwhile.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;

use model::source::at_once::is_at_once;
use model::source::{Budget, SeriesColumns};
use parking_lot::Mutex;

use super::batches::{Batch, BatchSource, Batches, NextBatch};
use super::counts_only::leave_counts;
use crate::eval::cores::{Spread, cores};
use crate::eval::evaluator::Evaluator;
use crate::eval::timeline::Reach;
use crate::plan::{NodeId, Selector};
use crate::value::QueryError;

/// From how many slots and samples on a batch is worth more than one core.
const PARALLEL_FROM: usize = 1 << 15;

/// Batches that are held at once: one whose rows are taken, one that is read meanwhile.
const BATCHES: usize = 2;

/// As many waiting pieces keep the cores at work while the next batch is read.
const FEW_PIECES: usize = 4;

/// What is done with what was made of a series, in the order of series.
pub(crate) type TakeMade<'f, E, T> = dyn FnMut(&mut E, &SeriesColumns, T) -> Result<(), QueryError> + 'f;

/// What waits to be taken: a batch, and the numbers of its pieces that are left.
struct Pending {
    batch: Batch,
    pieces: Range<usize>,
    /// Series of it that were taken.
    taken: usize,
    wide: bool,
}

/// What is made of batches, on its way to who takes it in order.
struct InOrder<T> {
    spread: Arc<Spread<Result<Vec<T>, QueryError>>>,
    pending: VecDeque<Pending>,
    /// Whether all batches were read.
    ended: bool,
    /// Whose they are.
    selector: Option<NodeId>,
}

/// A thread that reads for a wide selection: half as many as there are cores, all queries together. Others
/// read for themselves.
struct Reader;

/// How many read.
static READERS: AtomicUsize = AtomicUsize::new(0);

impl Reader {
    fn to_spare() -> Option<Reader> {
        let most = cores() / 2;
        let one_more = |n: usize| (n < most).then_some(n + 1);
        READERS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok().then_some(Reader)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        READERS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Batches that somebody wants: after the end, a panic included, their reader sees that nobody does.
struct Wanted<'b, 'a>(&'b mut Batches<'a>);

impl Drop for Wanted<'_, '_> {
    fn drop(&mut self) {
        self.0.source = BatchSource::InMemory(VecDeque::new());
    }
}

impl<'a> Evaluator<'a> {
    /// Makes something of each series of a selection, on several cores where that is worth it, and has it
    /// taken in the order of series.
    pub(crate) fn select_made<T: Send + 'static>(
        &mut self,
        s: &Selector,
        reach: &Reach,
        range_ms: i64,
        make: impl Fn(&SeriesColumns) -> T + Send + Sync + 'static,
        take: &mut TakeMade<'_, Self, T>,
    ) -> Result<(), QueryError> {
        let mut batches = self.open(s, reach, range_ms)?;
        self.take_made(Some(s.id), &mut batches, make, take)?;
        self.close(batches);
        Ok(())
    }

    /// [`Evaluator::select_made`] over batches; `selector` is whose they are.
    pub(crate) fn take_made<T: Send + 'static>(
        &mut self,
        selector: Option<NodeId>,
        batches: &mut Batches<'a>,
        make: impl Fn(&SeriesColumns) -> T + Send + Sync + 'static,
        take: &mut TakeMade<'_, Self, T>,
    ) -> Result<(), QueryError> {
        let budget = self.budget.clone();
        let spread = Spread::new(move |series| make_each(&budget, &make, series));
        // Whoever asks which series are still to come means those behind the rows that were taken.
        let asked = self.to_come.as_ref().is_some_and(|t| Some(t.selector) == selector);
        let mut order = InOrder { spread: spread.clone(), pending: VecDeque::new(), ended: false, selector };
        let most = if asked { 1 } else { BATCHES };
        let taken = match asked || self.trace.is_some() {
            true => self.take_in_order(&mut order, batches, most, false, take),
            false => self
                .take_in_order(&mut order, batches, most, true, take)
                .and_then(|()| self.reading_ahead(&mut order, batches, take)),
        };
        spread.stop();
        taken
    }

    /// Has a thread read what is left of a wide selection while it is worked on, if there is one to spare:
    /// what is read of one batch takes about as long as all that is made of it.
    fn reading_ahead<T: Send + 'static>(
        &mut self,
        order: &mut InOrder<T>,
        batches: &mut Batches<'a>,
        take: &mut TakeMade<'_, Self, T>,
    ) -> Result<(), QueryError> {
        let reader = match (&batches.source, &batches.selection) {
            (BatchSource::Cursor(_), Some(_)) if !order.ended && self.budget.may_have_help() => {
                Reader::to_spare()
            }
            _ => None,
        };
        let (Some(_reader), Some(selection)) = (reader, &batches.selection) else {
            return self.take_in_order(order, batches, BATCHES, false, take);
        };
        let counts_only = selection.counts_only;
        // Handed over one by one: no more than one is read that nobody has asked for.
        let (give, read) = sync_channel(0);
        let cursor = Mutex::new(Some(std::mem::replace(&mut batches.source, BatchSource::Ahead(read))));
        let held = &cursor;
        let work = move || {
            let Some(BatchSource::Cursor(mut cursor)) = held.lock().take() else { return };
            while let Some(mut read) = cursor.next_batch().transpose() {
                if let (Ok(read), true) = (&mut read, counts_only) {
                    read.iter_mut().for_each(leave_counts);
                }
                let failed = read.is_err();
                // Nobody takes it where the query has ended.
                if give.send(read).is_err() || failed {
                    return;
                }
            }
        };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("query-read".to_string());
            if thread.spawn_scoped(scope, work).is_err()
                && let Some(source) = cursor.lock().take()
            {
                batches.source = source;
            }
            let wanted = Wanted(batches);
            self.take_in_order(order, &mut *wanted.0, BATCHES, false, take)
        })
    }

    /// Takes what is made of batches in the order of series; with `until_wide` only until one of them is
    /// wide.
    fn take_in_order<T: Send + 'static>(
        &mut self,
        order: &mut InOrder<T>,
        batches: &mut Batches<'a>,
        most: usize,
        until_wide: bool,
        take: &mut TakeMade<'_, Self, T>,
    ) -> Result<(), QueryError> {
        let InOrder { spread, pending, ended, selector } = order;
        loop {
            if until_wide && pending.back().is_some_and(|last| last.wide) {
                return Ok(());
            }
            let room = match pending.back() {
                None => true,
                Some(last) => last.wide && pending.len() < most && spread.waiting() <= FEW_PIECES,
            };
            if room && !*ended {
                match self.next_batch(batches, !pending.is_empty())? {
                    NextBatch::Batch(batch) => {
                        pending.push_back(self.spread_out(spread, batch)?);
                        continue;
                    }
                    NextBatch::End => *ended = true,
                    NextBatch::Later => {}
                }
            }
            let Some(first) = pending.front_mut() else { return Ok(()) };
            let Some(made) = spread.take(first.pieces.start) else {
                spread.work_or_wait_for(first.pieces.start);
                continue;
            };
            first.pieces.start += 1;
            // What was stopped on the way is not used.
            self.budget.check_in_turn()?;
            for made in made? {
                first.taken += 1;
                take(self, &first.batch.series[first.taken - 1], made)?;
            }
            if first.pieces.is_empty()
                && let Some(Pending { batch, .. }) = pending.pop_front()
            {
                if let Some(selector) = *selector {
                    self.answer_to_come(selector, || batches.labels_to_come());
                }
                self.done(batches, batch);
            }
        }
    }

    /// Hands a batch out in pieces, for all cores to work on where it is wide.
    fn spread_out<T: Send + 'static>(
        &self,
        spread: &Arc<Spread<T>>,
        batch: Batch,
    ) -> Result<Pending, QueryError> {
        let series = batch.series.len();
        // With what each core works out of a timeline beside.
        self.expect_rows(series + 2, self.steps.count)?;
        let work: usize = batch.series.iter().map(|s| s.ts_ms.len() + self.steps.count).sum();
        // A thread that serves connections waits for nobody.
        let wide = series > 1 && work > PARALLEL_FROM && !is_at_once();
        let piece = match wide {
            true => (PARALLEL_FROM / (work / series).max(1)).clamp(1, 64),
            false => series,
        };
        let pieces = spread.add(&batch.series, piece, wide && self.budget.may_have_help());
        Ok(Pending { batch, pieces, taken: 0, wide })
    }
}

/// Samples from which on a series is worth a look at the clock.
const LONG_SERIES: usize = 1 << 10;

/// What is made of each of some series.
fn make_each<T>(
    budget: &Budget,
    make: impl Fn(&SeriesColumns) -> T,
    series: &[SeriesColumns],
) -> Result<Vec<T>, QueryError> {
    let mut made = Vec::with_capacity(series.len());
    for (i, series) in series.iter().enumerate() {
        if i % 8 == 0 || series.ts_ms.len() > LONG_SERIES {
            budget.check()?;
        }
        made.push(make(series));
    }
    Ok(made)
}
