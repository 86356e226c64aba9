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
                let most = if some_series { WHOLE_SERIES_BYTES_FOR_SOME } else { WHOLE_SERIES_BYTES };
                let whole = *kind == FileKind::Series && file.bytes <= most;
                let from = if whole { 0 } else { file.bytes - file.tail_bytes };
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
                let index = Arc::new(FileIndex::parse(&path, file, tail)?);
                let opened = BlockFile { path, ulid: meta.ulid, kind, head_bytes, index: index.clone() };
                if bytes.len() as u64 == file.bytes {
                    for block in opened.checked_blocks(0, &bytes.slice(..head_bytes as usize)) {
                        let (number, block) = block?;
                        store.cache.put_bytes(opened.key(number), Bytes::copy_from_slice(&block));
                    }
                }
                // The parsed index takes a few times its bytes in the file.
                store.cache.put(Key::Index(meta.ulid, kind), index.clone(), 4 * file.tail_bytes as usize);
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

    fn key(&self, block: u64) -> Key {
        Key::Bytes(self.ulid, self.kind, block)
    }

    /// Cuts bytes that start at a block's start into blocks, each checked.
    fn checked_blocks<'a>(
        &'a self,
        first: u64,
        bytes: &'a Bytes,
    ) -> impl Iterator<Item = Result<(u64, Bytes), SourceError>> + 'a {
        (0..bytes.len()).step_by(CRC_BLOCK_BYTES as usize).zip(first..).map(|(from, number)| {
            let block = bytes.slice(from..bytes.len().min(from + CRC_BLOCK_BYTES as usize));
            if self.index.crcs.get(number as usize) != Some(&crc32fast::hash(&block)) {
                let at = number * CRC_BLOCK_BYTES;
                return Err(
                    self.damaged(format!("checksum mismatch in bytes {at}..{}", at + block.len() as u64))
                );
            }
            Ok((number, block))
        })
    }
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

/// Ranges of the heads of several files: from the cache or with as few requests as make sense, all at once,
/// and checked.
pub(crate) fn fetch(
    store: &BlockStore,
    wanted: &[(&BlockFile, Range<u64>)],
) -> Result<Vec<Bytes>, SourceError> {
    // By file: which blocks are needed, which are there, which are not.
    let mut have: HashMap<Key, Bytes> = HashMap::new();
    let mut missing: Vec<(&BlockFile, BTreeSet<u64>)> = Vec::new();
    for (file, range) in wanted {
        if range.start > range.end || range.end > file.head_bytes {
            return Err(file.damaged(format!("its index points to bytes {}..{}", range.start, range.end)));
        }
        for block in blocks_of(range) {
            let key = file.key(block);
            if have.contains_key(&key) {
                continue;
            }
            match store.cache.get_bytes(&key) {
                Some(bytes) => {
                    have.insert(key, bytes);
                }
                None => match missing.iter_mut().find(|(f, _)| f.ulid == file.ulid && f.kind == file.kind) {
                    Some((_, blocks)) => {
                        blocks.insert(block);
                    }
                    None => missing.push((file, BTreeSet::from([block]))),
                },
            }
        }
    }
    let runs = requests(missing);
    let read = match runs.is_empty() {
        true => Vec::new(),
        false => store.get(runs.iter().map(|(file, run)| (file.path.clone(), run.clone())).collect())?,
    };
    for ((file, run), bytes) in runs.iter().zip(&read) {
        for block in file.checked_blocks(run.start / CRC_BLOCK_BYTES, bytes) {
            let (number, block) = block?;
            // Copied, so that a small entry of the cache does not keep a large answer alive.
            store.cache.put_bytes(file.key(number), Bytes::copy_from_slice(&block));
            have.insert(file.key(number), block);
        }
    }
    wanted
        .iter()
        .map(|(file, range)| {
            let same = |f: &BlockFile| f.ulid == file.ulid && f.kind == file.kind;
            let inside = |run: &Range<u64>| run.start <= range.start && range.end <= run.end;
            if let Some(at) = runs.iter().position(|(f, run)| same(f) && inside(run)) {
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
    runs
}

fn blocks_of(range: &Range<u64>) -> Range<u64> {
    if range.is_empty() { 0..0 } else { range.start / CRC_BLOCK_BYTES..range.end.div_ceil(CRC_BLOCK_BYTES) }
}
