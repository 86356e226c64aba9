//! What several tests begin with: a block's description, a runtime, a selection of all there is.

// Each test that includes it uses a part.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::sync::OnceLock;

use model::source::{Budget, Hints, Selection};
use tsdb::block::{BlockMeta, BlockStats};
use tsdb::block_meta::{BlockFileMetas, FORMAT_VERSION};
use ulid::Ulid;

/// Describes a block of one series with two samples, of which no file has to be there.
pub fn meta(ulid: Ulid) -> BlockMeta {
    BlockMeta {
        version: FORMAT_VERSION,
        ulid,
        tenant: "default".to_string(),
        min_t_ms: 0,
        max_t_ms: 10,
        resolution_ms: 0,
        level: 0,
        sources: Vec::new(),
        source_spans_ms: Vec::new(),
        downsampled_ms: Vec::new(),
        approximate: false,
        share: None,
        writer: "test".to_string(),
        writers: Vec::new(),
        external_labels: BTreeMap::from([("cluster".to_string(), "lab".to_string())]),
        stats: BlockStats { series: 1, samples: 2, ..BlockStats::default() },
        files: BlockFileMetas::default(),
        crc32: String::new(),
    }
}

/// One for all tests of a process that call storage from threads that may block.
pub fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    })
}

/// All series, at all times.
pub fn everything() -> Selection {
    Selection {
        matchers: Vec::new(),
        min_t_ms: i64::MIN,
        max_t_ms: i64::MAX,
        hints: Hints::default(),
        budget: Budget::unlimited(),
    }
}
