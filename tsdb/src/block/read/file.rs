//! A block's file in the object store: ranged reads that are checked, cached and made together.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::{Bytes, BytesMut};
use hashbrown::HashMap;
use object_store::path::Path;
use parquet::DecodeResult;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataPushDecoder};
use ulid::Ulid;

use super::store::BlockStore;
use crate::block::checksums::{CRC_BLOCK_BYTES, from_base64};
use crate::block::error::BlockError;
use crate::block::metric_runs::{METRICS_KEY, MetricRuns};
use crate::block::read::cache::{FileKind, Key};
use crate::block::schema;
use crate::block_meta::{BlockMeta, FileMeta};
use crate::layout;
use model::source::SourceError;
use model::source::at_once::may_wait;
use model::tenant::TenantId;

/// Two missing pieces closer than this are fetched in one request: the bytes between cost less than another
/// round trip.
const COALESCE_BYTES: u64 = 16 * 1024;
/// Longest single request.
const LONGEST_GET_BYTES: u64 = 8 << 20;
/// A series table up to this size is fetched with its footer in one request where all of it is needed next,
/// and up to that where some of it is.
const WHOLE_SERIES_BYTES: u64 = 8 << 20;
const WHOLE_SERIES_BYTES_FOR_SOME: u64 = 256 << 10;
/// Timelines and samples up to this size are fetched with their footer.
const WHOLE_BYTES: u64 = 64 << 10;
/// Where a read takes more requests than this, near ones are joined that are further apart too, as long as
/// the bytes between are no more than one part in so many of those that are needed.
const MANY_REQUESTS: usize = 4;
const BETWEEN_PART: u64 = 4;

/// Footer, page index and checksums of one file.
pub(crate) struct FileIndex {
    pub arrow: ArrowReaderMetadata,
    crcs: Vec<u32>,
    /// Number of the first row of each row group, and of all rows last.
    pub row_starts: Vec<u64>,
    /// Of a series table, whose rows are which metric's, where the footer says so.
    pub metrics: Option<MetricRuns>,
    /// How many of its series were read in parts, all parts added up.
    pub rows_in_parts: AtomicU64,
}

/// One file of a block, its index read.
#[derive(Clone)]
pub(crate) struct BlockFile {
    pub path: Path,
    ulid: Ulid,
    kind: FileKind,
    head_bytes: u64,
    pub index: Arc<FileIndex>,
}

fn damaged(path: &Path, what: impl std::fmt::Display) -> SourceError {
    SourceError::storage(BlockError::Corrupt { object: path.to_string(), what: what.to_string() })
}

impl BlockFile {
    /// An error that names the file.
    pub fn damaged(&self, what: impl std::fmt::Display) -> SourceError {
        damaged(&self.path, what)
    }

    /// Opens the three files of a block (series, timelines, samples): at most one round trip. `some_series`:
    /// not the whole of the series table is going to be needed.
    pub fn open(
        store: &BlockStore,
        tenant: &TenantId,
        meta: &BlockMeta,
        some_series: bool,
    ) -> Result<[BlockFile; 3], SourceError> {
        let kinds = [
            (FileKind::Series, layout::SERIES, &meta.files.series),
            (FileKind::Timelines, layout::TIMELINES, &meta.files.timelines),
            (FileKind::Samples, layout::SAMPLES, &meta.files.samples),
        ];
        let mut found: Vec<Option<Arc<FileIndex>>> =
            kinds.iter().map(|(kind, ..)| store.cache.get(&Key::Index(meta.ulid, *kind))).collect();
        let mut wanted = Vec::new();
        let mut missing = Vec::new();
        for (i, (kind, name, file)) in kinds.iter().enumerate() {
            if found[i].is_none() {
                let path = layout::block_file(tenant, meta.ulid, name);
                if file.tail_bytes > file.bytes || file.tail_bytes < 12 {
                    return Err(damaged(&path, "its meta.json gives impossible sizes"));
                }
                store.fetches.need(file.tail_bytes);
                if let Some(tail) = tail_from_disk(store, (meta.ulid, *kind), file)? {
                    let index = Arc::new(FileIndex::parse(&path, file, tail)?);
                    store.cache.put(Key::Index(meta.ulid, *kind), index.clone(), index_bytes(file));
                    found[i] = Some(index);
                    continue;
                }
                let most = match kind {
                    FileKind::Series if some_series => WHOLE_SERIES_BYTES_FOR_SOME,
                    FileKind::Series => WHOLE_SERIES_BYTES,
                    FileKind::Timelines | FileKind::Samples => WHOLE_BYTES,
                };
                let from = if file.bytes <= most { 0 } else { file.bytes - file.tail_bytes };
                wanted.push((path, from..file.bytes));
                missing.push(i);
            }
        }
        if !wanted.is_empty() {
            let paths: Vec<Path> = wanted.iter().map(|(p, _)| p.clone()).collect();
            let read = store.get(wanted)?;
            for ((i, path), bytes) in missing.into_iter().zip(paths).zip(read) {
                let (kind, _, file) = kinds[i];
                let head_bytes = file.bytes - file.tail_bytes;
                let tail = bytes.slice(bytes.len() - file.tail_bytes as usize..);
                let index = Arc::new(FileIndex::parse(&path, file, tail.clone())?);
                let opened = BlockFile { path, ulid: meta.ulid, kind, head_bytes, index: index.clone() };
                if bytes.len() as u64 == file.bytes {
                    opened.keep(store, 0, &bytes.slice(..head_bytes as usize), |_, _| {})?;
                }
                store.disk.iter().for_each(|disk| disk.put_tail((meta.ulid, kind), tail.clone()));
                store.cache.put(Key::Index(meta.ulid, kind), index.clone(), index_bytes(file));
                found[i] = Some(index);
            }
        }
        let mut opened = kinds.iter().zip(found).map(|((kind, name, file), index)| {
            let index = index.expect("each was found or read");
            let path = layout::block_file(tenant, meta.ulid, name);
            BlockFile { path, ulid: meta.ulid, kind: *kind, head_bytes: file.bytes - file.tail_bytes, index }
        });
        Ok([(); 3].map(|()| opened.next().expect("three files")))
    }

    /// Whether two are of the same file.
    fn same(&self, other: &BlockFile) -> bool {
        self.id() == other.id()
    }

    fn key(&self, block: u64) -> Key {
        Key::Bytes(self.ulid, self.kind, block)
    }

    fn id(&self) -> (Ulid, FileKind) {
        (self.ulid, self.kind)
    }

    /// Puts fetched bytes, which start at a block's start, into the caches, each block checked first and
    /// handed on.
    fn keep(
        &self,
        store: &BlockStore,
        first: u64,
        bytes: &Bytes,
        mut each: impl FnMut(u64, Bytes),
    ) -> Result<(), SourceError> {
        for block in self.checked_blocks(first, bytes) {
            let (number, block) = block?;
            // Copied, so that a small entry of the cache does not keep a large answer alive.
            store.cache.put_bytes(self.key(number), Bytes::copy_from_slice(&block));
            each(number, block);
        }
        store.disk.iter().for_each(|disk| disk.put_blocks(self.id(), first, bytes.clone()));
        Ok(())
    }

    /// Whether a block is as its checksum says.
    fn is_right(&self, number: u64, block: &[u8]) -> bool {
        self.index.crcs.get(number as usize) == Some(&crc32fast::hash(block))
    }

    /// Cuts bytes that start at a block's start into blocks, each checked.
    fn checked_blocks<'a>(
        &'a self,
        first: u64,
        bytes: &'a Bytes,
    ) -> impl Iterator<Item = Result<(u64, Bytes), SourceError>> + 'a {
        (0..bytes.len()).step_by(CRC_BLOCK_BYTES as usize).zip(first..).map(|(from, number)| {
            let block = bytes.slice(from..bytes.len().min(from + CRC_BLOCK_BYTES as usize));
            if !self.is_right(number, &block) {
                let at = number * CRC_BLOCK_BYTES;
                return Err(
                    self.damaged(format!("checksum mismatch in bytes {at}..{}", at + block.len() as u64))
                );
            }
            Ok((number, block))
        })
    }
}

/// What is kept on disk of what lies behind a file's last page.
fn tail_from_disk(
    store: &BlockStore,
    id: (Ulid, FileKind),
    file: &FileMeta,
) -> Result<Option<Bytes>, SourceError> {
    let Some(disk) = &store.disk else { return Ok(None) };
    may_wait()?;
    let Some(tail) = disk.tail(id) else {
        disk.count(0, file.tail_bytes);
        return Ok(None);
    };
    if tail.len() as u64 != file.tail_bytes || crc32fast::hash(&tail) != file.tail_crc32 {
        disk.drop_damaged(id, None);
        disk.count(0, file.tail_bytes);
        return Ok(None);
    }
    disk.count(file.tail_bytes, 0);
    store.fetches.read_from_disk(file.tail_bytes);
    Ok(Some(tail))
}

/// A parsed index takes a few times its bytes in the file.
fn index_bytes(file: &FileMeta) -> usize {
    4 * file.tail_bytes as usize
}

impl FileIndex {
    pub fn parse(path: &Path, file: &FileMeta, tail: Bytes) -> Result<FileIndex, SourceError> {
        if crc32fast::hash(&tail) != file.tail_crc32 {
            return Err(damaged(path, "checksum mismatch in its index and footer"));
        }
        let broken = |e: parquet::errors::ParquetError| damaged(path, e);
        let mut decoder = ParquetMetaDataPushDecoder::try_new(file.bytes)
            .map_err(broken)?
            .with_column_index_policy(PageIndexPolicy::Skip)
            .with_offset_index_policy(PageIndexPolicy::Required);
        decoder.push_range(file.bytes - file.tail_bytes..file.bytes, tail).map_err(broken)?;
        let metadata = match caught(|| decoder.try_decode()).map_err(|e| damaged(path, e))? {
            DecodeResult::Data(metadata) => Arc::new(metadata),
            _ => return Err(damaged(path, "its footer lies outside of its tail")),
        };
        let pairs = metadata.file_metadata().key_value_metadata().map_or(&[][..], |kv| kv);
        let sums = pairs.iter().find(|kv| kv.key == schema::CRC_KEY).and_then(|kv| kv.value.as_deref());
        let sums = sums.and_then(from_base64).ok_or_else(|| damaged(path, "its footer has no checksums"))?;
        let crcs: Vec<u32> = sums.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
        if crcs.len() as u64 != (file.bytes - file.tail_bytes).div_ceil(CRC_BLOCK_BYTES) {
            return Err(damaged(path, "its footer has checksums for a file of another length"));
        }
        let metrics = pairs.iter().find(|kv| kv.key == METRICS_KEY).and_then(|kv| kv.value.as_deref());
        let metrics = metrics.and_then(MetricRuns::from_text);
        check_places(&metadata, file.bytes - file.tail_bytes).map_err(|what| damaged(path, what))?;
        let mut row_starts = vec![0];
        for group in metadata.row_groups() {
            let before = row_starts[row_starts.len() - 1];
            row_starts.push(before + u64::try_from(group.num_rows()).map_err(|e| damaged(path, e))?);
        }
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let arrow = caught(|| ArrowReaderMetadata::try_new(metadata, options));
        let arrow = arrow.map_err(|e| damaged(path, e))?;
        Ok(FileIndex { arrow, crcs, row_starts, metrics, rows_in_parts: AtomicU64::new(0) })
    }
}

/// Reads Parquet, and makes an error of a panic. Checksums that are right only say that somebody wrote the
/// file so: the decoder takes much of what it reads for granted, and what [`check_places`] does not see is
/// met here.
pub(crate) fn caught<T, E: std::fmt::Display>(read: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    // Whatever was in the middle of decoding is given up with the error.
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(read)) {
        Ok(read) => read.map_err(|e| e.to_string()),
        Err(_) => Err("its contents contradict themselves, the Parquet decoder gave up".to_string()),
    }
}

/// Whether columns and pages lie where they can, in the first `head_bytes` of the file: what reads them takes
/// that for granted and would panic. Checksums that are right only say that somebody wrote the footer so.
fn check_places(metadata: &ParquetMetaData, head_bytes: u64) -> Result<(), String> {
    let within = |start: i64, length: i64| {
        let end =
            u64::try_from(start).ok().zip(u64::try_from(length).ok()).and_then(|(s, l)| s.checked_add(l));
        end.is_some_and(|end| end <= head_bytes)
    };
    for (at, group) in metadata.row_groups().iter().enumerate() {
        let pages_of = metadata.page_index_for_row_group(at);
        for (leaf, column) in group.columns().iter().enumerate() {
            let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
            let pages = pages_of.offset_index(leaf).map_or(&[][..], |index| index.page_locations());
            let mut next_row = 0;
            let pages_fit = pages.iter().all(|page| {
                let follows = page.first_row_index >= next_row && page.first_row_index < group.num_rows();
                next_row = page.first_row_index.saturating_add(1);
                follows && page.offset >= start && within(page.offset, i64::from(page.compressed_page_size))
            });
            let starts = pages.first().is_none_or(|page| page.first_row_index == 0);
            let fits = within(start, column.compressed_size()) && within(column.data_page_offset(), 0);
            if !fits || !pages_fit || !starts || column.num_values() < 0 {
                return Err(format!("column {} does not lie where it can", column.column_path()));
            }
        }
    }
    Ok(())
}

/// Which blocks some ranges need, what of them the cache has, and which have to be fetched.
#[derive(Default)]
struct Sorted<'f> {
    have: HashMap<Key, Bytes>,
    missing: Vec<(&'f BlockFile, BTreeSet<u64>)>,
}

impl<'f> Sorted<'f> {
    /// Sorts the blocks of some ranges. Those that are `coming` are neither.
    fn of(
        store: &BlockStore,
        wanted: &[(&'f BlockFile, Range<u64>)],
        coming: impl Fn(&BlockFile, u64) -> bool,
    ) -> Result<Sorted<'f>, SourceError> {
        let mut sorted = Sorted::default();
        for (file, range) in wanted {
            if range.start > range.end || range.end > file.head_bytes {
                return Err(file.damaged(format!("its index points to bytes {}..{}", range.start, range.end)));
            }
            let mut misses = false;
            for block in blocks_of(range) {
                misses |= sorted.sort(store, file, block, &coming);
            }
            if misses {
                store.fetches.need(range.end - range.start);
            }
        }
        Ok(sorted)
    }

    fn missing_blocks(&self) -> usize {
        self.missing.iter().map(|(_, blocks)| blocks.len()).sum()
    }

    /// Takes from the cache on disk what it has of what is missing.
    fn read_from_disk(&mut self, store: &BlockStore) -> Result<(), SourceError> {
        let Some(disk) = store.disk.as_ref().filter(|_| !self.missing.is_empty()) else { return Ok(()) };
        may_wait()?;
        let mut hit_bytes = 0;
        for (file, blocks) in &mut self.missing {
            let right = |number, block: &[u8]| file.is_right(number, block);
            for (number, block) in disk.blocks(file.id(), blocks, file.head_bytes, right) {
                hit_bytes += block.len() as u64;
                blocks.remove(&number);
                store.cache.put_bytes(file.key(number), Bytes::copy_from_slice(&block));
                self.have.insert(file.key(number), block);
            }
        }
        store.fetches.read_from_disk(hit_bytes);
        disk.count(hit_bytes, self.missing_blocks() as u64 * CRC_BLOCK_BYTES);
        Ok(())
    }

    /// Whether the block is missing.
    fn sort(
        &mut self,
        store: &BlockStore,
        file: &'f BlockFile,
        block: u64,
        coming: &impl Fn(&BlockFile, u64) -> bool,
    ) -> bool {
        let key = file.key(block);
        if self.have.contains_key(&key) || coming(file, block) {
            return false;
        }
        if let Some(bytes) = store.cache.get_bytes(&key) {
            self.have.insert(key, bytes);
            return false;
        }
        match self.missing.iter_mut().find(|(f, _)| f.same(file)) {
            Some((_, blocks)) => {
                blocks.insert(block);
            }
            None => self.missing.push((file, BTreeSet::from([block]))),
        }
        true
    }
}

/// Ranges of the heads of several files: from the cache or with as few requests as make sense, all at once,
/// and checked.
pub(crate) fn fetch(
    store: &BlockStore,
    wanted: &[(&BlockFile, Range<u64>)],
) -> Result<Vec<Bytes>, SourceError> {
    if !store.coming.is_empty() {
        // The others must not wait for the answers that are under way.
        fetch_ahead(store, wanted)?;
    }
    for (file, range) in wanted {
        store.coming.wait_for(file.id(), &blocks_of(range))?;
    }
    let mut sorted = Sorted::of(store, wanted, |_, _| false)?;
    sorted.read_from_disk(store)?;
    let Sorted { mut have, missing } = sorted;
    let runs = requests(missing);
    let read = match runs.is_empty() {
        true => Vec::new(),
        false => store.get(runs.iter().map(|(file, run)| (file.path.clone(), run.clone())).collect())?,
    };
    for ((file, run), bytes) in runs.iter().zip(&read) {
        file.keep(store, run.start / CRC_BLOCK_BYTES, bytes, |number, block| {
            have.insert(file.key(number), block);
        })?;
    }
    wanted
        .iter()
        .map(|(file, range)| {
            let inside = |run: &Range<u64>| run.start <= range.start && range.end <= run.end;
            if let Some(at) = runs.iter().position(|(f, run)| f.same(file) && inside(run)) {
                let from = runs[at].1.start;
                return Ok(read[at].slice((range.start - from) as usize..(range.end - from) as usize));
            }
            let mut whole = BytesMut::with_capacity((range.end - range.start) as usize);
            for number in blocks_of(range) {
                let block = have
                    .get(&file.key(number))
                    .ok_or_else(|| file.damaged("a block was lost while reading"))?;
                let start = number * CRC_BLOCK_BYTES;
                let from = range.start.saturating_sub(start) as usize;
                let to = ((range.end - start).min(CRC_BLOCK_BYTES)) as usize;
                let part = block.get(from..to).ok_or_else(|| file.damaged("a block is too short"))?;
                whole.extend_from_slice(part);
            }
            Ok(whole.freeze())
        })
        .collect()
}

/// Whether all of some ranges can be had without a request.
pub(crate) fn is_here(store: &BlockStore, wanted: &[(&BlockFile, Range<u64>)]) -> bool {
    wanted.iter().all(|(file, range)| blocks_of(range).all(|block| store.cache.contains(&file.key(block))))
}

/// Asks for what is not in the cache of some ranges, and does not wait: it goes there as it arrives, and a
/// [`fetch`] that needs it meanwhile waits. How many bytes were asked for.
pub(crate) fn fetch_ahead(
    store: &BlockStore,
    wanted: &[(&BlockFile, Range<u64>)],
) -> Result<u64, SourceError> {
    // What a disk has is not waited for long.
    let on_disk = |file: &BlockFile, block| store.disk.as_ref().is_some_and(|d| d.has(file.id(), block));
    let is_coming = |file: &BlockFile, block| store.coming.has(file.id(), block) || on_disk(file, block);
    let runs = requests(Sorted::of(store, wanted, is_coming)?.missing);
    if runs.is_empty() {
        return Ok(0);
    }
    let numbers = |run: &Range<u64>| run.start / CRC_BLOCK_BYTES..run.end.div_ceil(CRC_BLOCK_BYTES);
    let under_way = |(file, run): &(&BlockFile, Range<u64>)| {
        let file = (*file).clone();
        Some((store.coming.add(file.id(), numbers(run)), file, run.start / CRC_BLOCK_BYTES))
    };
    let mut waiting: Vec<_> = runs.iter().map(under_way).collect();
    let to = store.without_query();
    let asked = runs.iter().map(|(file, run)| (file.path.clone(), run.clone())).collect();
    store.get_ahead(asked, move |number, bytes| {
        let Some((_under_way, file, first)) = waiting[number].take() else { return };
        // What is damaged is fetched again by who needs it, and told.
        let _ = bytes.map(|bytes| file.keep(&to, first, &bytes, |_, _| {}));
    });
    Ok(runs.iter().map(|(_, run)| run.end - run.start).sum())
}

/// The byte ranges to ask for, given the missing blocks of each file: near ones go together.
fn requests(missing: Vec<(&BlockFile, BTreeSet<u64>)>) -> Vec<(&BlockFile, Range<u64>)> {
    let mut runs: Vec<(&BlockFile, Range<u64>)> = Vec::new();
    for (file, blocks) in missing {
        let mut open: Option<Range<u64>> = None;
        for block in blocks {
            let from = block * CRC_BLOCK_BYTES;
            let to = (from + CRC_BLOCK_BYTES).min(file.head_bytes);
            match &mut open {
                Some(run) if from <= run.end + COALESCE_BYTES && to - run.start <= LONGEST_GET_BYTES => {
                    run.end = to
                }
                _ => runs.extend(open.replace(from..to).map(|run| (file, run))),
            }
        }
        runs.extend(open.map(|run| (file, run)));
    }
    if runs.len() > MANY_REQUESTS { joined(runs) } else { runs }
}

/// Fewer requests, for some bytes that nobody needs: the shortest gaps between runs of a file are fetched
/// too.
fn joined(runs: Vec<(&BlockFile, Range<u64>)>) -> Vec<(&BlockFile, Range<u64>)> {
    let needed: u64 = runs.iter().map(|(_, run)| run.end - run.start).sum();
    let gap = |at: usize| {
        let ((before, a), (file, b)) = (&runs[at - 1], &runs[at]);
        before.same(file).then(|| b.start - a.end)
    };
    let mut gaps: Vec<(u64, usize)> = (1..runs.len()).filter_map(|at| Some((gap(at)?, at))).collect();
    gaps.sort_unstable();
    let mut left = needed / BETWEEN_PART;
    let mut closed = vec![false; runs.len()];
    for (bytes, at) in gaps {
        let Some(rest) = left.checked_sub(bytes) else { break };
        (left, closed[at]) = (rest, true);
    }
    let mut out: Vec<(&BlockFile, Range<u64>)> = Vec::with_capacity(runs.len());
    for ((file, run), closed) in runs.into_iter().zip(closed) {
        match out.last_mut() {
            Some((_, before)) if closed && run.end - before.start <= LONGEST_GET_BYTES => {
                before.end = run.end;
            }
            _ => out.push((file, run)),
        }
    }
    out
}

fn blocks_of(range: &Range<u64>) -> Range<u64> {
    if range.is_empty() { 0..0 } else { range.start / CRC_BLOCK_BYTES..range.end.div_ceil(CRC_BLOCK_BYTES) }
}
