//! One span of a job: inputs merged, the raw block and its downsampled ones written in the same pass, into
//! scratch files.
//!
//! Where a block would become larger than one may be, or fill the scratch disk, it ends, and the next begins
//! with the next series: all blocks of a pass end at the same places. So they are the shares of one whole,
//! uploaded and gone from the disk one after the other.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use model::labels::Labels;
use model::rollup::downsample::downsample;
use model::source::SeriesColumns;
use model::tenant::TenantId;
use tsdb::block::{BlockError, BlockFiles, BlockOrigin, BlockWriter, Share};
use ulid::Ulid;

use super::input::{Inputs, PeakMemory, ReadError};
use super::merge::{Counts, Merge};
use super::verify::Digest;
use crate::settings::Settings;

/// Why a span was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// An input could not be read.
    #[error("cannot read {0}")]
    Read(#[from] ReadError),
    /// The scratch disk failed, or is full.
    #[error("cannot write: {0}")]
    Block(#[from] BlockError),
    /// Samples were lost or made up on the way: a fault of Hearth's own. Nothing is replaced.
    #[error("the account does not balance: {0:?}")]
    Unbalanced(Counts),
    /// The process is stopping.
    #[error("stopped")]
    Stopped,
}

/// What all outputs of a job have in common.
#[derive(Clone, Debug)]
pub struct Lineage {
    pub writer: String,
    /// Whose samples the inputs hold; see [`tsdb::block::BlockMeta::writers`].
    pub writers: Vec<String>,
    /// Of inputs and output: 0 for raw samples.
    pub resolution_ms: i64,
    pub level: u32,
    pub sources: Vec<Ulid>,
    /// First and last timestamp of each source; empty where the outputs will hold less than the sources did.
    pub source_spans_ms: Vec<(i64, i64)>,
    /// Whether any input is [approximate](tsdb::block::BlockMeta::approximate).
    pub approximate: bool,
    pub external_labels: BTreeMap<String, String>,
}

/// One share of a span, or all of it.
pub struct Written {
    /// Of the resolution of the inputs.
    pub merged: BlockFiles,
    /// Finest first.
    pub downsampled: Vec<BlockFiles>,
    /// Samples (or windows) of the merged block and their sum, as `super::verify` takes it.
    pub digest: (u64, u64),
}

/// How and where is written.
#[derive(Clone)]
pub struct OutputOptions {
    pub settings: Arc<Settings>,
    /// Folder for blocks that are being written.
    pub scratch: PathBuf,
    pub tenant: TenantId,
    pub lineage: Lineage,
    /// Windows to make, finest first; only of raw inputs.
    pub resolutions_ms: Vec<i64>,
    pub peak_memory: Arc<PeakMemory>,
    pub stop: Arc<AtomicBool>,
}

/// How many series pass between two looks at memory and the stop sign.
const LOOK_EVERY: u64 = 64;

/// A span that is being merged and written, share by share.
pub struct MergeWriter {
    output: OutputOptions,
    merge: Merge,
    whole: Ulid,
    /// Of the next share.
    number: u32,
    /// The series that the next share begins with.
    next: Option<SeriesColumns>,
    /// Samples written so far.
    written: u64,
    seen: u64,
}

impl MergeWriter {
    /// Opens the inputs. Blocks the thread, as everything here does.
    pub fn begin(output: OutputOptions, inputs: &Inputs<'_>) -> Result<MergeWriter, WriteError> {
        let mut merge = Merge::open(inputs)?;
        let next = merge.next_series()?;
        Ok(MergeWriter { output, merge, whole: Ulid::new(), number: 0, next, written: 0, seen: 0 })
    }

    /// Merges and writes the next share, for as long as it takes; `None` when all is written.
    pub fn next_share(&mut self) -> Result<Option<Written>, WriteError> {
        let Some(first) = self.next.take() else { return Ok(None) };
        let first_name = name_of(&first.labels);
        let mut merged = self.writer(self.output.lineage.resolution_ms)?;
        let mut others: Vec<(i64, BlockWriter)> = Vec::new();
        for resolution_ms in self.output.resolutions_ms.clone() {
            others.push((resolution_ms, self.writer(resolution_ms)?));
        }
        let mut digest = Digest::default();
        let mut room = Room::default();
        let mut series = first;
        let last_name = loop {
            digest.add(&series);
            let labels = series.labels.clone();
            room.left_bytes = room.left_bytes.saturating_sub(series.memory_bytes());
            let mut before: Option<(i64, SeriesColumns)> = None;
            for (resolution_ms, writer) in &mut others {
                let finer =
                    before.as_ref().filter(|(r, _)| *resolution_ms % *r == 0).map_or(&series, |(_, s)| s);
                let windows = downsample(finer, *resolution_ms);
                before = Some((*resolution_ms, windows.clone()));
                writer.append(windows)?;
            }
            merged.append(series)?;
            let writers = || std::iter::once(&merged).chain(others.iter().map(|(_, w)| w));
            if self.seen.is_multiple_of(LOOK_EVERY) {
                if self.output.stop.load(Ordering::Relaxed) {
                    return Err(WriteError::Stopped);
                }
                let held = self.merge.held_bytes() + writers().map(BlockWriter::memory_bytes).sum::<u64>();
                self.output.peak_memory.note(held);
            }
            self.seen += 1;
            let Some(next) = self.merge.next_series()? else { break name_of(&labels) };
            if room.left_bytes == 0 {
                room.look(writers(), &self.output.settings);
            }
            let other_metric = || next.labels.metric_name() != labels.metric_name();
            if room.full || (room.nearly && other_metric()) {
                self.next = Some(next);
                break name_of(&labels);
            }
            series = next;
        };
        let mut out = Vec::new();
        for writer in std::iter::once(merged).chain(others.into_iter().map(|(_, w)| w)) {
            out.extend(writer.finish()?);
        }
        if self.number > 0 || self.next.is_some() {
            for files in &mut out {
                let (first_name, last_name) = (first_name.clone(), last_name.clone());
                files.meta.share =
                    Some(Share { whole: self.whole, number: self.number, first_name, last_name });
            }
        }
        self.number += 1;
        let mut out = out.into_iter();
        // A series is never without samples.
        let Some(mut merged) = out.next() else { return Err(WriteError::Unbalanced(self.merge.counts())) };
        merged.meta.downsampled_ms = self.output.resolutions_ms.clone();
        self.written += merged.meta.stats.samples;
        Ok(Some(Written { merged, downsampled: out.collect(), digest: digest.finish() }))
    }

    /// What was read and merged, once all is written; an error where that does not agree with what was.
    pub fn finish(self) -> Result<Counts, WriteError> {
        let counts = self.merge.counts();
        if !counts.balance() || self.written != counts.merged {
            return Err(WriteError::Unbalanced(counts));
        }
        Ok(counts)
    }

    fn writer(&self, resolution_ms: i64) -> Result<BlockWriter, WriteError> {
        let lineage = &self.output.lineage;
        let origin = BlockOrigin {
            ulid: Ulid::new(),
            tenant: self.output.tenant.clone(),
            writer: lineage.writer.clone(),
            writers: lineage.writers.clone(),
            resolution_ms,
            level: lineage.level,
            sources: lineage.sources.clone(),
            source_spans_ms: lineage.source_spans_ms.clone(),
            approximate: lineage.approximate,
            external_labels: lineage.external_labels.clone(),
        };
        let options = self.output.settings.write_options(resolution_ms);
        Ok(BlockWriter::create(&self.output.scratch, origin, options)?)
    }
}

fn name_of(labels: &Labels) -> String {
    labels.metric_name().unwrap_or_default().to_string()
}

/// How much more fits into a share.
#[derive(Default)]
struct Room {
    /// Decoded samples that may be added before it is worth looking again: encoded they are less.
    left_bytes: u64,
    /// So much that it should end with its metric.
    nearly: bool,
    full: bool,
}

impl Room {
    /// The least between two looks, which cost some microseconds.
    const STEP_BYTES: u64 = 16 << 10;

    fn look<'w>(&mut self, writers: impl Iterator<Item = &'w BlockWriter>, settings: &Settings) {
        let (mut largest, mut scratch) = (0, 0);
        for writer in writers {
            largest = largest.max(writer.bytes());
            scratch += writer.scratch_bytes();
        }
        let (most, most_scratch) = (settings.max_block_bytes, settings.max_scratch_bytes);
        let left = most.saturating_sub(largest).min(most_scratch.saturating_sub(scratch));
        self.full = left == 0;
        self.nearly = largest >= most - most / 8 || scratch >= most_scratch - most_scratch / 8;
        self.left_bytes = (left / 4).max(Self::STEP_BYTES);
    }
}
