//! One span of a job: inputs merged, the raw block and its downsampled ones written in the same pass, into scratch files.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use tsdb::block::{BlockError, BlockFiles, BlockOrigin, BlockWriter};
use tsdb::downsample::downsample;
use ulid::Ulid;

use crate::merge::{Counts, Inputs, Ledger, Merge, ReadError};
use crate::settings::Settings;
use crate::verify::Digest;

/// Why a span was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// An input could not be read.
    #[error("cannot read {0}")]
    Read(#[from] ReadError),
    /// The scratch disk failed, or is full.
    #[error("cannot write: {0}")]
    Block(#[from] BlockError),
    /// More scratch disk would be needed than there may be.
    #[error("more than {0} bytes of scratch disk are needed (compactor.max_scratch_bytes)")]
    Scratch(u64),
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
    /// Of inputs and output: 0 for raw samples.
    pub resolution_ms: i64,
    pub level: u32,
    pub sources: Vec<Ulid>,
    /// Whether any input is [approximate](tsdb::block::BlockMeta::approximate).
    pub approximate: bool,
    pub external_labels: BTreeMap<String, String>,
}

/// What was written of a span.
pub struct Written {
    /// Of the resolution of the inputs; `None` where nothing is left.
    pub merged: Option<BlockFiles>,
    /// Finest first.
    pub downsampled: Vec<BlockFiles>,
    pub counts: Counts,
    /// Samples (or windows) of it and their sum, as `crate::verify` takes it.
    pub digest: (u64, u64),
}

/// How many series pass between two looks at memory, disk and the stop sign.
const LOOK_EVERY: u64 = 64;

/// Merges and writes. Blocks the thread for as long as it takes.
pub fn write_span(
    inputs: &Inputs<'_>,
    settings: &Settings,
    scratch: &Path,
    lineage: &Lineage,
    resolutions_ms: &[i64],
    ledger: &Ledger,
    stop: &AtomicBool,
) -> Result<Written, WriteError> {
    let mut merge = Merge::open(inputs)?;
    let create = |resolution_ms: i64| {
        let origin = BlockOrigin {
            ulid: Ulid::new(),
            tenant: inputs.tenant.clone(),
            writer: lineage.writer.clone(),
            resolution_ms,
            level: lineage.level,
            sources: lineage.sources.clone(),
            approximate: lineage.approximate,
            external_labels: lineage.external_labels.clone(),
        };
        BlockWriter::create(scratch, origin, settings.write_options(resolution_ms))
    };
    let mut merged = create(lineage.resolution_ms)?;
    let mut others: Vec<(i64, BlockWriter)> = Vec::new();
    for resolution_ms in resolutions_ms {
        others.push((*resolution_ms, create(*resolution_ms)?));
    }
    let mut digest = Digest::default();
    let mut seen = 0u64;
    while let Some(series) = merge.next_series()? {
        digest.add(&series);
        let mut before: Option<(i64, tsdb::source::SeriesColumns)> = None;
        for (resolution_ms, writer) in &mut others {
            let finer = before.as_ref().filter(|(r, _)| *resolution_ms % *r == 0).map_or(&series, |(_, s)| s);
            let windows = downsample(finer, *resolution_ms);
            before = Some((*resolution_ms, windows.clone()));
            writer.append(windows)?;
        }
        merged.append(series)?;
        if seen.is_multiple_of(LOOK_EVERY) {
            if stop.load(Ordering::Relaxed) {
                return Err(WriteError::Stopped);
            }
            let writers = || std::iter::once(&merged).chain(others.iter().map(|(_, w)| w));
            ledger.note(merge.held_bytes() + writers().map(BlockWriter::memory_bytes).sum::<u64>());
            if writers().map(BlockWriter::bytes).sum::<u64>() > settings.plan.max_scratch_bytes {
                return Err(WriteError::Scratch(settings.plan.max_scratch_bytes));
            }
        }
        seen += 1;
    }
    let mut merged = merged.finish()?;
    let mut downsampled = Vec::new();
    for (_, writer) in others {
        downsampled.extend(writer.finish()?);
    }
    if let Some(block) = &mut merged {
        block.meta.downsampled_ms = resolutions_ms.to_vec();
    }
    let counts = merge.counts();
    let written = merged.as_ref().map_or(0, |r| r.meta.stats.samples);
    if !counts.balance() || written != counts.merged {
        return Err(WriteError::Unbalanced(counts));
    }
    Ok(Written { merged, downsampled, counts, digest: digest.finish() })
}
