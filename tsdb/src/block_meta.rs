//! `meta.json`: what a block is, in few bytes, so that most questions never open its data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use ulid::Ulid;

use crate::ulid_text;
use model::labels::METRIC_NAME;
use model::matcher::{MatchOp, Matcher};
use model::source::merge::conflict::Origin;

/// The newest version of the format that this code reads. Each kind of block is written in the oldest version
/// that has it.
pub const FORMAT_VERSION: u32 = 4;

/// The version that the files of a block of a resolution are written in: 1 has samples, 2 has windows as
/// doubles, which are no longer written, 4 has windows as decimals too.
pub fn version_of(resolution_ms: i64) -> u32 {
    if resolution_ms == 0 { 1 } else { 4 }
}

/// The version of a description that says when its sources have samples.
pub const VERSION_WITH_SOURCE_SPANS: u32 = 3;

/// A text that describes no block, or one that only a newer Hearth reads.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{object} is damaged: {what}")]
pub struct MetaError {
    /// Where the text lies.
    pub object: String,
    pub what: String,
}

/// A block's description; the same text is `meta.json` and the block's entry in the catalog.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockMeta {
    pub version: u32,
    #[serde(with = "ulid_text::one")]
    pub ulid: Ulid,
    pub tenant: String,
    /// First and last timestamp of its samples, both included, in milliseconds.
    pub min_t_ms: i64,
    pub max_t_ms: i64,
    /// 0 for raw samples, else the length of a downsampling window.
    pub resolution_ms: i64,
    /// 0 as flushed, one more than its highest source when compacted.
    pub level: u32,
    /// The blocks it was made of; empty as flushed.
    #[serde(with = "ulid_text::list", default)]
    pub sources: Vec<Ulid>,
    /// First and last timestamp of each of `sources`, in their order. Empty where that is not known, or where
    /// the block holds less than its sources did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source_spans_ms: Vec<(i64, i64)>,
    /// Windows, in milliseconds, for which downsampled blocks were made in the pass that wrote this block of
    /// raw samples.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub downsampled_ms: Vec<i64>,
    /// Windows that another system made (Thanos), or made of such: they tell less than Hearth's own, and what
    /// is computed from them is approximate.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub approximate: bool,
    /// Which share of a larger whole it is; `None` where it is a whole by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Share>,
    /// Who wrote it: the ingester's or compactor's own name.
    pub writer: String,
    /// Ingesters whose samples it holds, by name; empty where nobody says: what is imported, and blocks from
    /// before this was written down. See [`BlockMeta::origin`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub writers: Vec<String>,
    /// Labels that hold for all its series without being part of them.
    #[serde(default)]
    pub external_labels: BTreeMap<String, String>,
    pub stats: BlockStats,
    pub files: BlockFileMetas,
    /// CRC-32 of this text without this field, eight hexadecimal digits.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub crc32: String,
}

/// Blocks that one pass wrote of one span, because together they would have been too large: each has a run of
/// the series, in their order. They have their sources in common and are committed, planned and replaced
/// together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The same for all shares, those of other resolutions included.
    #[serde(with = "ulid_text::one")]
    pub whole: Ulid,
    /// From 0: all series of a share come before those of the next.
    pub number: u32,
    /// Metric names of its first and of its last series; empty where a series has none.
    pub first_name: String,
    pub last_name: String,
}

/// What is in a block, counted while it was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockStats {
    pub series: u64,
    /// All samples, histograms and staleness markers included.
    pub samples: u64,
    pub histograms: u64,
    pub stale_markers: u64,
    /// Distinct vectors of timestamps, and the timestamps in them.
    pub timelines: u64,
    pub timeline_timestamps: u64,
    /// Rows of `samples.parquet`.
    pub rows: u64,
}

/// The three data files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockFileMetas {
    pub series: FileMeta,
    pub timelines: FileMeta,
    pub samples: FileMeta,
}

impl BlockFileMetas {
    /// Bytes of the three files together.
    pub fn bytes(&self) -> u64 {
        self.series.bytes + self.timelines.bytes + self.samples.bytes
    }
}

/// Size and checksums of one file. Its head (all pages) is covered block by block through checksums in the
/// Parquet footer's key `hearth.crc32`; its tail (page index and footer) by `tail_crc32`; so every ranged
/// read can be checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMeta {
    pub bytes: u64,
    /// xxHash3 (64 bits) of the whole file, sixteen hexadecimal digits.
    pub xxh3: String,
    /// Length and CRC-32 of the end of the file, from the first byte after the last page.
    pub tail_bytes: u64,
    pub tail_crc32: u32,
}

impl BlockMeta {
    /// What decides between two blocks of one writer that disagree about a sample: the later written wins. A
    /// compacted block counts as its newest source, so that compaction never changes an answer.
    pub fn order(&self) -> Ulid {
        self.sources.iter().copied().max().unwrap_or(self.ulid)
    }

    /// Whose samples it holds: where two blocks of different writers disagree, the greater sample stands.
    pub fn origin(&self) -> Origin {
        match &self.writers[..] {
            [] => Origin::Unknown,
            [only] => Origin::writer(only),
            _ => Origin::Of(self.whole().0 as u64),
        }
    }

    /// All that it is made of, each with its first and last timestamp: itself, as it was flushed or imported.
    /// `None` where it does not hold what these blocks held.
    pub fn origins(&self) -> Option<Vec<(Ulid, (i64, i64))>> {
        if self.sources.is_empty() {
            return Some(vec![(self.ulid, (self.min_t_ms, self.max_t_ms))]);
        }
        let known = self.source_spans_ms.len() == self.sources.len();
        known.then(|| self.sources.iter().copied().zip(self.source_spans_ms.iter().copied()).collect())
    }

    /// What it is a share of; its own name where it is a whole.
    pub fn whole(&self) -> Ulid {
        self.share.as_ref().map_or(self.ulid, |s| s.whole)
    }

    /// Whether its series may include one with these labels, as far as metric names tell.
    pub fn may_hold(&self, matchers: &[Matcher]) -> bool {
        let Some(share) = &self.share else { return true };
        let names = share.first_name.as_str()..=share.last_name.as_str();
        let outside = |m: &Matcher| {
            *m.name == *METRIC_NAME && m.op == MatchOp::Equal && !names.contains(&m.value.as_ref())
        };
        !matchers.iter().any(outside)
    }

    /// Whether any of its samples can lie in a range, ends included.
    pub fn overlaps(&self, min_t_ms: i64, max_t_ms: i64) -> bool {
        self.min_t_ms <= max_t_ms && self.max_t_ms >= min_t_ms
    }

    /// The text of `meta.json`, with its checksum.
    pub fn to_json(&self) -> Vec<u8> {
        let mut sealed = self.clone();
        sealed.crc32 = String::new();
        let plain = serde_json::to_vec(&sealed).expect("numbers and strings always serialize");
        sealed.crc32 = format!("{:08x}", crc32fast::hash(&plain));
        let mut text = serde_json::to_vec_pretty(&sealed).expect("numbers and strings always serialize");
        text.push(b'\n');
        text
    }

    /// Reads and checks the text of `meta.json`; `object` is its path, for errors.
    pub fn from_json(object: &str, text: &[u8]) -> Result<BlockMeta, MetaError> {
        let corrupt = |what: String| MetaError { object: object.to_string(), what };
        let mut meta: BlockMeta =
            serde_json::from_slice(text).map_err(|e| corrupt(format!("not a block's meta.json: {e}")))?;
        let said = std::mem::take(&mut meta.crc32);
        let plain = serde_json::to_vec(&meta).expect("numbers and strings always serialize");
        let found = format!("{:08x}", crc32fast::hash(&plain));
        if said != found {
            return Err(corrupt(format!("its checksum is {found}, it says {said:?}")));
        }
        meta.check_version(object)?;
        Ok(meta)
    }

    pub(crate) fn check_version(&self, object: &str) -> Result<(), MetaError> {
        if self.version == 0 || self.version > FORMAT_VERSION {
            return Err(MetaError {
                object: object.to_string(),
                what: format!(
                    "block format version {}, this Hearth reads 1 to {FORMAT_VERSION}: upgrade it",
                    self.version
                ),
            });
        }
        Ok(())
    }
}
