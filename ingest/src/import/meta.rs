//! What a Prometheus or Thanos block says of itself in `meta.json`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::ImportError;

/// The largest `meta.json` that is read: Thanos lists files and sources in it.
pub const MAX_META_BYTES: u64 = 16 << 20;

/// The longest time that one block may span: a century. An import is cut into half days, so a made-up time
/// would never end.
pub(super) const LONGEST_MS: i64 = 100 * 366 * 24 * 3600 * 1000;

/// The part of `meta.json` that an import needs.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceMeta {
    /// 26 characters, also the name of the block's folder.
    pub ulid: String,
    /// First timestamp, milliseconds.
    pub min_time: i64,
    /// One after the last timestamp.
    pub max_time: i64,
    #[serde(default)]
    pub stats: SourceStats,
    #[serde(default)]
    pub compaction: Compaction,
    pub version: u32,
    /// Only where Thanos wrote it.
    #[serde(default)]
    pub thanos: Option<Thanos>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SourceStats {
    pub num_samples: u64,
    pub num_series: u64,
    pub num_chunks: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Compaction {
    pub level: u32,
    /// The blocks cut from a head that went into it.
    pub sources: Vec<String>,
    /// A block without samples, about to go.
    pub deletable: bool,
}

/// What Thanos adds.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Thanos {
    /// Labels that hold for all series and stand in none.
    pub labels: BTreeMap<String, String>,
    pub downsample: Downsample,
    /// Every file of the block, where a newer Thanos wrote it.
    pub files: Vec<ThanosFile>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Downsample {
    /// Length of a window in milliseconds, 0 for raw samples.
    pub resolution: i64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ThanosFile {
    pub rel_path: String,
    /// 0 where it is not known (`meta.json` itself).
    pub size_bytes: u64,
}

impl SourceMeta {
    /// Reads the file of a block's folder.
    pub fn read(folder: &Path) -> Result<SourceMeta, ImportError> {
        let path = folder.join("meta.json");
        let length = std::fs::metadata(&path).map_err(|e| ImportError::disk(&path, e))?.len();
        if length > MAX_META_BYTES {
            return Err(ImportError::damaged(&path, format!("it has {length} bytes")));
        }
        let text = std::fs::read(&path).map_err(|e| ImportError::disk(&path, e))?;
        SourceMeta::parse(&text).map_err(|what| ImportError::damaged(&path, what))
    }

    /// Reads and checks its text.
    pub fn parse(text: &[u8]) -> Result<SourceMeta, String> {
        let meta: SourceMeta =
            serde_json::from_slice(text).map_err(|e| format!("not a block's meta.json: {e}"))?;
        if meta.version != 1 {
            return Err(format!("its version is {}, and 1 is read", meta.version));
        }
        if !is_ulid(&meta.ulid) {
            return Err(format!("{:?} is not a ULID", meta.ulid));
        }
        if meta.min_time > meta.max_time {
            return Err(format!("it begins at {} and ends at {}", meta.min_time, meta.max_time));
        }
        if meta.max_time.checked_sub(meta.min_time).is_none_or(|span| span > LONGEST_MS) {
            return Err(format!("it spans {} to {} ms, more than a block can", meta.min_time, meta.max_time));
        }
        Ok(meta)
    }

    /// Length of a window in milliseconds, 0 for raw samples.
    pub fn resolution_ms(&self) -> i64 {
        self.thanos.as_ref().map_or(0, |t| t.downsample.resolution)
    }
}

/// Whether a text is a ULID: what the folder of a block is called.
pub fn is_ulid(text: &str) -> bool {
    text.len() == 26
        && text.bytes().all(|b| b.is_ascii_digit() || (b.is_ascii_uppercase() && !b"ILOU".contains(&b)))
}

/// Which of some blocks have nothing that another does not have: compaction made one of them of several, and
/// the old ones are not gone yet.
pub fn superseded(blocks: &[SourceMeta]) -> Vec<bool> {
    let holds = |a: &SourceMeta, b: &SourceMeta| {
        let (from, of) = (&a.compaction.sources, &b.compaction.sources);
        let labels = |m: &SourceMeta| m.thanos.as_ref().map(|t| t.labels.clone());
        a.ulid != b.ulid
            && !of.is_empty()
            && from.len() > of.len()
            && of.iter().all(|s| from.contains(s))
            && a.min_time <= b.min_time
            && a.max_time >= b.max_time
            && a.resolution_ms() == b.resolution_ms()
            && labels(a) == labels(b)
    };
    blocks.iter().map(|b| blocks.iter().any(|a| holds(a, b))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metas_of_both_programs_and_what_is_none() {
        let plain = r#"{"ulid":"01M89V4NVBEZ22PMTH8DBF48XW","minTime":1,"maxTime":9,"stats":{"numSamples":5},"compaction":{"level":1,"sources":["01M89V4NVBEZ22PMTH8DBF48XW"]},"version":1}"#;
        let meta = SourceMeta::parse(plain.as_bytes()).unwrap();
        assert_eq!((meta.resolution_ms(), meta.stats.num_samples, meta.max_time), (0, 5, 9));
        let thanos = plain.replace(
            "\"version\":1}",
            r#""version":1,"thanos":{"labels":{"a":"b"},"downsample":{"resolution":300000},"source":"compactor"}}"#,
        );
        let meta = SourceMeta::parse(thanos.as_bytes()).unwrap();
        assert_eq!(meta.resolution_ms(), 300_000);
        assert_eq!(meta.thanos.unwrap().labels["a"], "b");
        for (from, to) in [
            ("01M8", "../8"),
            ("\"version\":1", "\"version\":2"),
            ("\"minTime\":1", "\"minTime\":10"),
            ("}", ""),
        ] {
            assert!(SourceMeta::parse(plain.replace(from, to).as_bytes()).is_err(), "{from} → {to}");
        }
    }

    #[test]
    fn block_that_went_into_another_is_superseded() {
        let meta = |n: u8, min_time, max_time, sources: &[&str]| SourceMeta {
            ulid: format!("01M89V4NVBEZ22PMTH8DBF48X{n}"),
            min_time,
            max_time,
            stats: SourceStats::default(),
            compaction: Compaction {
                sources: sources.iter().map(|s| s.to_string()).collect(),
                ..Compaction::default()
            },
            version: 1,
            thanos: None,
        };
        let blocks = [
            meta(1, 0, 10, &["a"]),
            meta(2, 10, 20, &["b"]),
            meta(3, 0, 20, &["a", "b"]),
            meta(4, 20, 30, &["c"]),
            meta(5, 0, 30, &[]),
        ];
        assert_eq!(superseded(&blocks), [true, true, false, false, false]);
    }
}
