//! Timestamp vectors, each stored once: the biggest saving there is, since all series of one scrape have the
//! same.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_array::builder::{Int64Builder, ListBuilder, UInt32Builder};
use hashbrown::HashTable;
use model::keyed_hash::keyed_hash;

use super::file::{ParquetFile, disk};
use super::list_builders::int_lists;
use crate::block::error::BlockError;
use crate::block::options::WriteOptions;
use crate::block::schema;
use crate::block_meta::FileMeta;

/// Timestamps per row group of `timelines.parquet`.
const ROW_GROUP_TIMESTAMPS: usize = 4 << 20;

/// Most timelines that are compared with, some forty bytes of memory each; then all are forgotten, which
/// costs that they are stored again, never a wrong answer. What has so many shares few.
const MOST_COMPARED: usize = 1 << 20;

/// Hands out references to timelines and writes each new one.
pub(crate) struct Timelines {
    file: ParquetFile,
    /// Timelines by hash, compared whole on a match: an equal hash alone would give a series another's times.
    written: HashTable<WrittenTimeline>,
    /// Those, packed one after the other: so many bytes here, the others in a file of their own. Series come
    /// metric by metric, so each timeline is met again only after all others have been.
    packed: Vec<u8>,
    memory_bytes: usize,
    spool: Option<Spool>,
    spool_path: PathBuf,
    next: u32,
    refs: UInt32Builder,
    lists: ListBuilder<Int64Builder>,
    waiting: usize,
    in_group: usize,
    timestamps: u64,
    scratch: Vec<u8>,
}

/// Packed timelines for which there is no room in memory.
struct Spool {
    file: File,
    bytes: u64,
    /// What was read last.
    read: Vec<u8>,
}

/// A timeline that is in the file, and where its packed form is.
#[derive(Clone, Copy)]
struct WrittenTimeline {
    hash: u64,
    tsref: u32,
    bytes: u32,
    /// In the spool, else in memory.
    spooled: bool,
    from: u64,
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
            spool: None,
            spool_path: path.with_extension("spool"),
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
        let bytes = u32::try_from(self.scratch.len())
            .map_err(|_| BlockError::Input("a row has more than 2^32 bytes of timestamps".to_string()))?;
        let found = self.written.find(hash, |k| k.hash == hash && k.bytes == bytes).copied();
        if let Some(written) = found
            && self.is_scratch(&written)?
        {
            return Ok(written.tsref);
        }
        if self.written.len() >= MOST_COMPARED {
            self.written.clear();
            self.packed.clear();
            self.spool.iter_mut().for_each(|spool| spool.bytes = 0);
        }
        let tsref = self.next;
        self.next = tsref
            .checked_add(1)
            .ok_or_else(|| BlockError::Input("a block holds at most 2^32 - 1 timelines".to_string()))?;
        let (spooled, from) = self.keep_scratch()?;
        let written = WrittenTimeline { hash, tsref, bytes, spooled, from };
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

    /// Whether a timeline is the one that was packed last.
    fn is_scratch(&mut self, written: &WrittenTimeline) -> Result<bool, BlockError> {
        let (from, bytes) = (written.from, written.bytes as usize);
        if !written.spooled {
            return Ok(self.packed[from as usize..from as usize + bytes] == self.scratch[..]);
        }
        let Some(spool) = &mut self.spool else { return Ok(false) };
        spool.read.resize(bytes, 0);
        let read = spool.file.read_exact_at(&mut spool.read, from);
        read.map_err(|e| BlockError::of_disk(format!("cannot read {}", self.spool_path.display()), e))?;
        Ok(spool.read == self.scratch)
    }

    /// Keeps what was packed last: whether in the spool, and where.
    fn keep_scratch(&mut self) -> Result<(bool, u64), BlockError> {
        if self.packed.len() + self.scratch.len() <= self.memory_bytes {
            let from = self.packed.len() as u64;
            self.packed.extend_from_slice(&self.scratch);
            return Ok((false, from));
        }
        if self.spool.is_none() {
            let mut options = File::options();
            let opened = options.read(true).write(true).create(true).truncate(true).open(&self.spool_path);
            let file = opened.map_err(|e| disk(&self.spool_path, e))?;
            self.spool = Some(Spool { file, bytes: 0, read: Vec::new() });
        }
        let Some(spool) = &mut self.spool else { return Ok((false, 0)) };
        let from = spool.bytes;
        spool.file.write_all_at(&self.scratch, from).map_err(|e| disk(&self.spool_path, e))?;
        spool.bytes += self.scratch.len() as u64;
        Ok((true, from))
    }

    /// Bytes of scratch disk that go when the file is finished.
    pub fn spooled_bytes(&self) -> u64 {
        self.spool.as_ref().map_or(0, |spool| spool.bytes)
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
        if self.spool.take().is_some() {
            std::fs::remove_file(&self.spool_path).map_err(|e| disk(&self.spool_path, e))?;
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

    /// Series come metric by metric, so timelines come round again and again.
    #[test]
    fn timelines_beyond_memory_are_stored_once_too() {
        let dir = tempfile::tempdir().unwrap();
        let options = WriteOptions { timeline_memory_bytes: 1000, ..WriteOptions::fresh() };
        let mut timelines = Timelines::create(&dir.path().join("timelines.parquet"), &options).unwrap();
        let of_target =
            |target: i64| (0..100i64).map(|i| i * 15_000 + (i * target) % 7).collect::<Vec<i64>>();
        for metric in 0..3 {
            for target in 0..50 {
                let tsref = timelines.refer(&of_target(target * 7 + 1)).unwrap();
                let again = timelines.refer(&of_target(target)).unwrap();
                assert!(metric > 0 || tsref <= again || target % 7 == 1, "{tsref} {again}");
            }
        }
        // The residues of seven, and nothing besides.
        assert_eq!((timelines.next, timelines.packed.len() <= 1000), (7, true));
        assert!(timelines.spooled_bytes() < 1000);
        let spread = |target: i64| (0..100i64).map(|i| i * 15_000 + target * i % 1009).collect::<Vec<i64>>();
        for _metric in 0..3 {
            for target in 10..60 {
                timelines.refer(&spread(target)).unwrap();
            }
        }
        assert_eq!(timelines.next, 57);
        assert!(timelines.spooled_bytes() > 4000);
        let (_, distinct, timestamps) = timelines.finish().unwrap();
        assert_eq!((distinct, timestamps), (57, 5700));
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "the spool is gone");
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
