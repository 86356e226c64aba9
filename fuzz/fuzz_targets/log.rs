//! Any bytes as the records of a log whose checksums are right: read one by one and replayed into a head,
//! which can then be read.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tsdb::head::Head;
use tsdb::sidecar::exemplars::buffer::Buffer;
use tsdb::wal::{record, replay::replay};

fn frame(out: &mut Vec<u8>, body: &[u8]) {
    let length = body.len() as u32;
    let mut sum = crc32fast::Hasher::new();
    sum.update(&length.to_le_bytes());
    sum.update(body);
    out.extend(length.to_le_bytes());
    out.extend(sum.finalize().to_le_bytes());
    out.extend(body);
}

fuzz_target!(|bytes: &[u8]| {
    let _ = record::parse(bytes);
    // Records begin with their length in one byte; so does the corpus.
    let mut segment = Vec::new();
    segment.extend(tsdb::wal::MAGIC);
    segment.extend(7u64.to_le_bytes());
    segment.extend(1u64.to_le_bytes());
    let sum = crc32fast::hash(&segment);
    segment.extend(sum.to_le_bytes());
    let mut rest = bytes;
    while let Some((&length, tail)) = rest.split_first() {
        let (body, tail) = tail.split_at(tail.len().min(usize::from(length)));
        if !body.is_empty() {
            frame(&mut segment, body);
        }
        rest = tail;
    }
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(tsdb::wal::segment_path(folder.path(), 1), &segment).expect("a file");
    let head = Head::default();
    let exemplars = Buffer::new(1 << 20);
    let found = replay(folder.path(), &head, &exemplars, 1_700_000_000_000, &|_, _, _| {}, |_, _| false);
    let found = found.expect("it reads");
    assert_eq!(found.cut_bytes, 0);
    assert_eq!(found.series, head.series_count());
});
