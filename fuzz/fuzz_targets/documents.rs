//! Any bytes as each of the small files that lie in a bucket or a folder of blocks: no panic.
//!
//! A run may end in a timeout within `parquet_thrift::skip_till_depth` of parquet 60.1: lists in lists of
//! what takes no bytes take a time without bound. No file of exemplars or metadata comes that far but with
//! the checksum that the catalog has of it.

#![no_main]

use ingest::import::meta::SourceMeta;
use libfuzzer_sys::fuzz_target;
use tsdb::block::BlockMeta;
use tsdb::catalog::Snapshot;

fuzz_target!(|bytes: &[u8]| {
    let _ = BlockMeta::from_json("meta.json", bytes);
    // The checksum aside, so that what stands behind it is reached.
    if let Ok(meta) = serde_json::from_slice::<BlockMeta>(bytes) {
        let sealed = meta.to_json();
        let _ = BlockMeta::from_json("meta.json", &sealed);
    }
    if let Ok(snapshot) = serde_json::from_slice::<Snapshot>(bytes) {
        let _ = (snapshot.visibility(), snapshot.newest_order(), snapshot.next_ulid());
        let _ = snapshot.overlapping(i64::MIN, i64::MAX);
    }
    let _ = SourceMeta::parse(bytes);
    let _ = tsdb::sidecar::exemplars::file::decode("exemplars", bytes.to_vec().into());
    let _ = tsdb::sidecar::metadata::decode("metadata", bytes.to_vec().into());
});
