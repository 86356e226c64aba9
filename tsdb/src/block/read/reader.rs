//! Reads a whole block, series after series in order, in memory that does not grow with the block: what
//! compaction, rewriting and export stand on.
//!
//! Series are looked at in runs: a run's labels, the small columns of its rows, then the rows themselves in
//! batches. A read that fails is made again, because all of it is a function of immutable objects.

use std::sync::Arc;
use std::time::Duration;

use crate::block::options::ReadOptions;
use crate::block::read::plan::{Block, RowPlan};
use crate::block::read::samples::Carried;
use crate::block::read::series_table::SeriesTable;
use crate::block::read::store::BlockStore;
use crate::block_meta::BlockMeta;
use crate::deletion::{Cutter, Intervals, Visibility};
use model::backoff::Backoff;
use model::labels::Labels;
use model::source::{Budget, SeriesColumns, SeriesCursor, SourceError};
use model::tenant::TenantId;

/// Series of a run: as many as fit, but not so few that each costs a read of its own, nor more than help.
const RUN_SERIES: std::ops::RangeInclusive<u64> = 128..=8192;
/// About what labels take in memory for each series, and a row's small columns and its place in the plan.
const LABELS_BYTES: u64 = 300;
const ROW_BYTES: u64 = 80;

/// Reads a block from its first series to its last. Blocks the thread that uses it.
pub struct BlockReader {
    block: Block,
    options: ReadOptions,
    run_series: u32,
    visibility: Option<Visibility>,
    /// Which fate a series has under the visibility, as a number for the cutter.
    fates: Vec<Intervals>,
    cutter: Cutter,
    keep: Option<SeriesFilter>,
    budget: Arc<Budget>,
    next: u32,
    run: Option<OpenTable>,
    hidden_samples: u64,
    read_samples: u64,
}

/// Chooses series by their labels.
pub type SeriesFilter = Box<dyn Fn(&Labels) -> bool + Send>;

struct OpenTable {
    table: SeriesTable,
    plan: RowPlan,
    /// Planned rows before this are done.
    at: usize,
}

impl BlockReader {
    /// Reads the block's footers. `visibility` takes out what is deleted or expired.
    pub fn open(
        store: &Arc<BlockStore>,
        tenant: &TenantId,
        meta: &Arc<BlockMeta>,
        visibility: &Visibility,
        options: ReadOptions,
    ) -> Result<BlockReader, SourceError> {
        let block = again(&options, || Block::open(store, tenant, meta, false))?;
        let rows = meta.stats.rows / meta.stats.series.max(1);
        let run_series = options.batch_bytes / (LABELS_BYTES + ROW_BYTES * (1 + rows));
        Ok(BlockReader {
            run_series: run_series.clamp(*RUN_SERIES.start(), *RUN_SERIES.end()) as u32,
            visibility: visibility.concerns(meta).then(|| visibility.clone()),
            block,
            options,
            fates: Vec::new(),
            cutter: Cutter::default(),
            keep: None,
            budget: Budget::unlimited(),
            next: 0,
            run: None,
            hidden_samples: 0,
            read_samples: 0,
        })
    }

    /// Only series that are chosen.
    pub fn only(mut self, keep: SeriesFilter) -> BlockReader {
        self.keep = Some(keep);
        self
    }

    pub fn meta(&self) -> &Arc<BlockMeta> {
        &self.block.meta
    }

    /// Samples within the range read so far, and those of them that the visibility took out.
    pub fn counts(&self) -> (u64, u64) {
        (self.read_samples, self.hidden_samples)
    }

    /// About how many bytes it holds between two batches.
    pub fn held_bytes(&self) -> u64 {
        self.run.as_ref().map_or(0, |r| (r.table.bytes() + self.block.plan_bytes(&r.plan)) as u64)
    }

    /// The labels of the next few series, all of them and whether they have samples in the range or not;
    /// `None` at the end. Not to be mixed with [`SeriesCursor::next_batch`].
    pub fn next_labels(&mut self) -> Result<Option<Vec<Labels>>, SourceError> {
        if u64::from(self.next) >= self.block.meta.stats.series {
            return Ok(None);
        }
        let table = again(&self.options, || self.block.series_run(self.next, self.run_series))?;
        let ids = self.next..self.next + table.len() as u32;
        self.next = ids.end;
        Ok(Some(ids.map(|s| table.labels(s)).collect()))
    }

    /// Whether the visibility hides anything of any series: labels and the block's time decide, so a series
    /// of which no sample lies where it is hidden counts too. Reads only labels.
    pub fn touched(mut self) -> Result<bool, SourceError> {
        let Some(visibility) = self.visibility.take() else { return Ok(false) };
        let meta = self.block.meta.clone();
        while let Some(labels) = self.next_labels()? {
            if labels.iter().any(|l| visibility.hidden(&meta, l).meets(meta.min_t_ms, meta.max_t_ms)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// How many samples the rows of the rest of the block hold: reads the small columns only.
    pub fn count_samples(&mut self) -> Result<u64, SourceError> {
        let mut samples = 0;
        while self.next_run()? {
            let run = self.run.take().expect("there is one");
            samples += run.plan.rows.iter().map(|r| u64::from(r.n)).sum::<u64>();
        }
        Ok(samples)
    }

    /// One series by its number, where it has samples left in the range. Not to be mixed with
    /// [`SeriesCursor::next_batch`].
    pub fn series(&mut self, id: u32) -> Result<Option<SeriesColumns>, SourceError> {
        let (min, max) = self.options.range;
        let table = again(&self.options, || self.block.series_run(id, 1))?;
        let plan = again(&self.options, || self.block.plan(&[id], min, max))?;
        let read = || {
            let carried = &mut Carried::of(&[], &self.budget);
            self.block.read(&table, &plan, &plan.rows, self.options.range, None, carried)
        };
        let found = again(&self.options, read)?;
        Ok(self.hide(found).pop())
    }

    fn next_run(&mut self) -> Result<bool, SourceError> {
        if u64::from(self.next) >= self.block.meta.stats.series {
            return Ok(false);
        }
        let table = again(&self.options, || self.block.series_run(self.next, self.run_series))?;
        let ids: Vec<u32> = (self.next..self.next + table.len() as u32)
            .filter(|s| self.keep.as_ref().is_none_or(|keep| keep(&table.labels(*s))))
            .collect();
        let (min, max) = self.options.range;
        let plan = again(&self.options, || self.block.plan(&ids, min, max))?;
        self.next += table.len() as u32;
        self.run = Some(OpenTable { table, plan, at: 0 });
        Ok(true)
    }

    /// The next batch of the open run, as long as it has rows.
    fn read_some(&mut self) -> Result<Vec<SeriesColumns>, SourceError> {
        let Some(run) = &mut self.run else { return Ok(Vec::new()) };
        let rows = &run.plan.rows[run.at..];
        let (mut bytes, mut count) = (0, 0);
        for of_series in rows.chunk_by(|a, b| a.series == b.series) {
            let more: u64 = of_series.iter().map(|r| self.block.row_bytes(&run.plan, r)).sum();
            if count > 0 && bytes + more > self.options.batch_bytes {
                break;
            }
            count += of_series.len();
            bytes += more;
        }
        let rows = &rows[..count];
        let (table, plan) = (&run.table, &run.plan);
        let read = || {
            let carried = &mut Carried::of(&[], &self.budget);
            self.block.read(table, plan, rows, self.options.range, None, carried)
        };
        let found = again(&self.options, read)?;
        run.at += count;
        Ok(found)
    }

    fn hide(&mut self, found: Vec<SeriesColumns>) -> Vec<SeriesColumns> {
        self.read_samples += found.iter().map(|s| s.ts_ms.len() as u64).sum::<u64>();
        let Some(visibility) = &self.visibility else { return found };
        let mut left = Vec::with_capacity(found.len());
        for mut series in found {
            let hidden = visibility.hidden(&self.block.meta, &series.labels);
            let before = series.ts_ms.len() as u64;
            let number = self.fates.iter().position(|f| *f == hidden).unwrap_or_else(|| {
                // Few rules make few fates; a rule per series would be cut apart but not shared.
                self.fates.push(hidden.clone());
                self.fates.len() - 1
            });
            let some_left = self.cutter.cut(&mut series, &hidden, number as u32);
            self.hidden_samples += before - if some_left { series.ts_ms.len() as u64 } else { 0 };
            if some_left {
                left.push(series);
            }
        }
        // What it remembers holds timelines alive.
        self.cutter = Cutter::default();
        left
    }
}

impl SeriesCursor for BlockReader {
    fn next_batch(&mut self) -> Result<Option<Vec<SeriesColumns>>, SourceError> {
        loop {
            if self.run.as_ref().is_none_or(|r| r.at >= r.plan.rows.len()) {
                self.run = None;
                if !self.next_run()? {
                    return Ok(None);
                }
                continue;
            }
            let found = self.read_some()?;
            let left = self.hide(found);
            if !left.is_empty() {
                return Ok(Some(left));
            }
        }
    }
}

/// Longest pause before a read is made again.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Makes a read again when it fails.
fn again<T>(options: &ReadOptions, read: impl Fn() -> Result<T, SourceError>) -> Result<T, SourceError> {
    let mut backoff = Backoff::new(options.pause, LONGEST_PAUSE);
    for _ in 1..options.attempts.max(1) {
        match read() {
            Err(SourceError::Storage(why)) => {
                tracing::debug!("a read of a block failed and is made again: {why}");
                std::thread::sleep(backoff.next_pause());
            }
            done => return done,
        }
    }
    read()
}
