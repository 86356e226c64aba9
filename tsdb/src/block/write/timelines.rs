//! Timestamp vectors, each stored once: the biggest saving there is, since all series of one scrape have the
//! same.

use std::path::Path;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_array::builder::{Int64Builder, ListBuilder, UInt32Builder};
use hashbrown::HashTable;
use model::keyed_hash::keyed_hash;

use super::file::ParquetFile;
use super::list_builders::int_lists;
use crate::block::error::BlockError;
use crate::block::options::WriteOptions;
use crate::block::schema;
use crate::block_meta::FileMeta;

/// Timestamps per row group of `timelines.parquet`.
const ROW_GROUP_TIMESTAMPS: usize = 4 << 20;

/// Hands out references to timelines and writes each new one.
pub(crate) struct Timelines {
    file: ParquetFile,
    /// Recent timelines by hash, compared whole on a match: an equal hash alone would give a series another's
    /// times.
    written: HashTable<WrittenTimeline>,
    /// Those, packed one after the other.
    packed: Vec<u8>,
    memory_bytes: usize,
    next: u32,
    refs: UInt32Builder,
    lists: ListBuilder<Int64Builder>,
    waiting: usize,
    in_group: usize,
    timestamps: u64,
    scratch: Vec<u8>,
}

/// A timeline that is in the file: its packed form is `packed[from..to]`.
struct WrittenTimeline {
    hash: u64,
    tsref: u32,
    from: usize,
    to: usize,
}

impl Timelines {
    pub fn create(path: &Path, options: &WriteOptions) -> Result<Timelines, BlockError> {
        Ok(Timelines {
            file: ParquetFile::create(
                path,
                schema::TIMELINES.clone(),
                schema::timelines_properties(options)?,
            )?,
            written: HashTable::new(),
            packed: Vec::new(),
            memory_bytes: options.timeline_memory_bytes,
            next: 0,
            refs: UInt32Builder::new(),
            lists: int_lists(),
            waiting: 0,
            in_group: 0,
            timestamps: 0,
            scratch: Vec::new(),
        })
    }

    /// The reference of a timeline, which is written if it is new.
    pub fn refer(&mut self, ts_ms: &[i64]) -> Result<u32, BlockError> {
        pack(ts_ms, &mut self.scratch);
        let hash = keyed_hash(&self.scratch);
        let same = |k: &WrittenTimeline| k.hash == hash && self.packed[k.from..k.to] == self.scratch[..];
        if let Some(written) = self.written.find(hash, same) {
            return Ok(written.tsref);
        }
        if self.packed.len() + self.scratch.len() > self.memory_bytes {
            // Forgetting costs a timeline stored again, never a wrong answer.
            self.written.clear();
            self.packed.clear();
        }
        let tsref = self.next;
        self.next = tsref
            .checked_add(1)
            .ok_or_else(|| BlockError::Input("a block holds at most 2^32 - 1 timelines".to_string()))?;
        let from = self.packed.len();
        self.packed.extend_from_slice(&self.scratch);
        let written = WrittenTimeline { hash, tsref, from, to: self.packed.len() };
        self.written.insert_unique(hash, written, |k| k.hash);
        self.refs.append_value(tsref);
        self.lists.values().append_slice(ts_ms);
        self.lists.append(true);
        self.waiting += ts_ms.len();
        self.timestamps += ts_ms.len() as u64;
        if self.waiting >= 256 * 1024 {
            self.write()?;
        }
        Ok(tsref)
    }

    /// Bytes of the file so far.
    pub fn bytes(&self) -> u64 {
        self.file.bytes() + self.file.open_bytes() as u64
    }

    /// About how many bytes of memory it holds.
    pub fn memory_bytes(&self) -> usize {
        self.packed.capacity()
            + self.written.capacity() * size_of::<WrittenTimeline>()
            + self.waiting * 8
            + self.file.memory_bytes()
    }

    fn write(&mut self) -> Result<(), BlockError> {
        let columns = vec![Arc::new(self.refs.finish()) as _, Arc::new(self.lists.finish()) as _];
        let batch = RecordBatch::try_new(schema::TIMELINES.clone(), columns)
            .map_err(|e| BlockError::Encode(format!("timelines: {e}")))?;
        self.file.write(&batch)?;
        self.in_group += self.waiting;
        self.waiting = 0;
        if self.in_group >= ROW_GROUP_TIMESTAMPS {
            self.file.end_row_group()?;
            self.in_group = 0;
        }
        Ok(())
    }

    /// The file, how many timelines it holds, and how many timestamps in all.
    pub fn finish(mut self) -> Result<(FileMeta, u64, u64), BlockError> {
        if self.waiting > 0 {
            self.write()?;
        }
        Ok((self.file.finish()?, u64::from(self.next), self.timestamps))
    }
}

/// Zigzag varints of second differences: one byte for most timestamps, and equal for equal vectors only.
fn pack(ts_ms: &[i64], out: &mut Vec<u8>) {
    out.clear();
    let (mut before, mut step) = (0i64, 0i64);
    for t in ts_ms {
        let delta = t.wrapping_sub(before);
        let second = delta.wrapping_sub(step);
        (before, step) = (*t, delta);
        let mut zigzag = ((second << 1) ^ (second >> 63)) as u64;
        while zigzag >= 0x80 {
            out.push(zigzag as u8 | 0x80);
            zigzag >>= 7;
        }
        out.push(zigzag as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;
    use xxhash_rust::xxh3::xxh3_64;

    fn unpack(mut bytes: &[u8]) -> Vec<i64> {
        let (mut t, mut step) = (0i64, 0i64);
        let mut out = Vec::new();
        while !bytes.is_empty() {
            let (mut zigzag, mut shift) = (0u64, 0);
            loop {
                let b = bytes[0];
                bytes = &bytes[1..];
                zigzag |= u64::from(b & 0x7f) << shift;
                shift += 7;
                if b < 0x80 {
                    break;
                }
            }
            step = step.wrapping_add((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64));
            t = t.wrapping_add(step);
            out.push(t);
        }
        out
    }

    /// Timelines whose packed bytes collide in a hash whose key everybody knows: the first eight are a part
    /// of that key, and then the next eight do not count.
    fn colliding(count: u32) -> Vec<Vec<i64>> {
        let timeline = |i: u32| {
            let mut packed = vec![0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 1];
            packed.extend((0..7).map(|group| (u64::from(i) >> (7 * group) & 0x7f) as u8));
            packed.extend([2; 16]);
            unpack(&packed)
        };
        (0..count).map(timeline).collect()
    }

    #[test]
    fn timelines_that_were_made_to_collide_do_not() {
        let (dir, all) = (tempfile::tempdir().unwrap(), colliding(20_000));
        let mut packed = Vec::new();
        let known: HashSet<u64> = all
            .iter()
            .map(|ts| {
                pack(ts, &mut packed);
                xxh3_64(&packed)
            })
            .collect();
        assert_eq!(known.len(), 1, "with the key that everybody knows");
        let mut timelines = Timelines::create(&dir.path().join("timelines"), &WriteOptions::fresh()).unwrap();
        for ts in &all {
            timelines.refer(ts).unwrap();
        }
        let hashes: HashSet<u64> = timelines.written.iter().map(|k| k.hash).collect();
        assert_eq!((timelines.next, hashes.len()), (20_000, 20_000));
    }

    proptest! {
        #[test]
        fn timelines_are_compared_as_whole_vectors(ts in proptest::collection::vec(any::<i64>(), 0..50)) {
            let mut packed = Vec::new();
            pack(&ts, &mut packed);
            prop_assert_eq!(unpack(&packed), ts);
        }
    }
}
