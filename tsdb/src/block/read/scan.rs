//! Decoding of chosen columns and rows of a file, several files and columns in step so that their reads go
//! out together.

use std::ops::Range;

use arrow_array::RecordBatch;
use bytes::Bytes;
use parquet::DecodeResult;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, RowSelection};
use parquet::arrow::push_decoder::{ParquetPushDecoder, ParquetPushDecoderBuilder};
use parquet::basic::Compression;
use parquet::file::metadata::ParquetMetaData;

use crate::block::read::file::{BlockFile, caught, fetch};
use crate::block::read::page::header::{Inflate, OF_LISTS, has_levels};
use crate::block::read::store::BlockStore;
use model::source::SourceError;

/// One projection of one row group on its way.
pub(crate) struct Scan<'a> {
    file: &'a BlockFile,
    decoder: ParquetPushDecoder,
    needs: Vec<Range<u64>>,
    done: bool,
    batches: Vec<RecordBatch>,
    watched: Vec<WatchedPage>,
}

/// A page of a column with repetition within which rows are skipped. Parquet's reader (60.1, `skip_records`)
/// looks for ever for the levels of one that has fewer than its header says.
struct WatchedPage {
    place: Range<u64>,
    compression: Compression,
    level_bits: u8,
}

impl WatchedPage {
    /// The pages of these columns, by top-level position.
    fn all(metadata: &ParquetMetaData, row_group: usize, columns: &[usize]) -> Vec<WatchedPage> {
        let schema = metadata.file_metadata().schema_descr();
        let index = metadata.page_index_for_row_group(row_group);
        let mut all = Vec::new();
        for (leaf, column) in metadata.row_group(row_group).columns().iter().enumerate() {
            let most = column.column_descr().max_rep_level();
            if most == 0 || !columns.contains(&schema.get_column_root_idx(leaf)) {
                continue;
            }
            let level_bits = (i16::BITS - most.leading_zeros()) as u8;
            let places = index.offset_index(leaf).map_or(&[][..], |i| i.page_locations());
            all.extend(places.iter().map(|p| {
                // Checked when the file was opened.
                let place = p.offset as u64..p.offset as u64 + p.compressed_page_size as u64;
                WatchedPage { place, compression: column.compression(), level_bits }
            }));
        }
        all
    }

    fn is_whole(&self, bytes: &[u8]) -> std::io::Result<bool> {
        let mut inflate = Inflate::take()?;
        let page = inflate.page(bytes, self.compression, OF_LISTS);
        let whole = page.is_some_and(|page| has_levels(page.repetition, self.level_bits, page.levels));
        inflate.leave();
        Ok(whole)
    }
}

impl<'a> Scan<'a> {
    /// `columns` are top-level ones by position, `rows` ascending numbers within the row group (`None`: all).
    pub fn new(
        file: &'a BlockFile,
        row_group: usize,
        columns: &[usize],
        rows: Option<&[u32]>,
    ) -> Result<Scan<'a>, SourceError> {
        Scan::with_metadata(file, file.index.arrow.clone(), row_group, columns, rows)
    }

    /// The same, with text columns read as dictionaries.
    pub fn with_dictionaries(
        file: &'a BlockFile,
        schema: arrow_schema::SchemaRef,
        row_group: usize,
        rows: Option<&[u32]>,
    ) -> Result<Scan<'a>, SourceError> {
        let all: Vec<usize> = (0..schema.fields().len()).collect();
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true).with_schema(schema);
        let metadata = caught(|| ArrowReaderMetadata::try_new(file.index.arrow.metadata().clone(), options));
        Scan::with_metadata(file, metadata.map_err(|e| file.damaged(e))?, row_group, &all, rows)
    }

    fn with_metadata(
        file: &'a BlockFile,
        metadata: ArrowReaderMetadata,
        row_group: usize,
        columns: &[usize],
        rows: Option<&[u32]>,
    ) -> Result<Scan<'a>, SourceError> {
        let mask = ProjectionMask::roots(metadata.parquet_schema(), columns.iter().copied());
        let group_rows = file.index.row_starts[row_group + 1] - file.index.row_starts[row_group];
        let watched =
            rows.map_or_else(Vec::new, |_| WatchedPage::all(metadata.metadata(), row_group, columns));
        let mut builder = ParquetPushDecoderBuilder::new_with_metadata(metadata)
            .with_row_groups(vec![row_group])
            .with_projection(mask)
            .with_batch_size(rows.map_or(group_rows as usize, <[u32]>::len).clamp(1, 1 << 20));
        if let Some(rows) = rows {
            let runs = runs_of(rows);
            let selection = RowSelection::from_consecutive_ranges(runs.into_iter(), group_rows as usize);
            builder = builder.with_row_selection(selection);
        }
        let decoder = caught(|| builder.build()).map_err(|e| file.damaged(e))?;
        Ok(Scan { file, decoder, needs: Vec::new(), done: false, batches: Vec::new(), watched })
    }

    fn check_pages(&self, ranges: &[Range<u64>], bytes: &[Bytes]) -> Result<(), SourceError> {
        for page in &self.watched {
            let holds = |range: &Range<u64>| range.start <= page.place.start && page.place.end <= range.end;
            let Some(at) = ranges.iter().position(holds) else { continue };
            let from = (page.place.start - ranges[at].start) as usize;
            let of_page = &bytes[at][from..from + (page.place.end - page.place.start) as usize];
            if !page.is_whole(of_page).map_err(|e| self.file.damaged(e))? {
                return Err(self.file.damaged("a page is not laid out as its header says"));
            }
        }
        Ok(())
    }

    /// The bytes that it needs next.
    pub fn needs(&mut self) -> Result<impl Iterator<Item = Range<u64>>, SourceError> {
        self.step()?;
        Ok(self.needs.clone().into_iter())
    }

    /// Decodes as far as the bytes at hand allow.
    fn step(&mut self) -> Result<(), SourceError> {
        while !self.done {
            match caught(|| self.decoder.try_decode()).map_err(|e| self.file.damaged(e))? {
                DecodeResult::NeedsData(ranges) => {
                    self.needs = ranges;
                    return Ok(());
                }
                DecodeResult::Data(batch) => self.batches.push(batch),
                DecodeResult::Finished => self.done = true,
            }
        }
        Ok(())
    }
}

/// Runs scans to their end, all reads of one round at once; the batches of each.
pub(crate) fn run(store: &BlockStore, scans: Vec<Scan<'_>>) -> Result<Vec<Vec<RecordBatch>>, SourceError> {
    run_with_reads(store, scans, &[]).map(|(batches, _)| batches)
}

/// The same, with other ranges read in the first round.
pub(crate) fn run_with_reads(
    store: &BlockStore,
    mut scans: Vec<Scan<'_>>,
    other_ranges: &[(&BlockFile, Range<u64>)],
) -> Result<(Vec<Vec<RecordBatch>>, Vec<Bytes>), SourceError> {
    let mut other_reads = Vec::new();
    loop {
        for scan in &mut scans {
            scan.step()?;
        }
        let other_ranges = if other_reads.is_empty() { other_ranges } else { &[] };
        let of_scans = scans.iter().flat_map(|s| s.needs.iter().map(|r| (s.file, r.clone())));
        let wanted: Vec<(&BlockFile, Range<u64>)> = other_ranges.iter().cloned().chain(of_scans).collect();
        if wanted.is_empty() {
            return match scans.iter().find(|s| !s.done) {
                Some(stuck) => Err(stuck.file.damaged("it cannot be decoded")),
                None => Ok((scans.into_iter().map(|s| s.batches).collect(), other_reads)),
            };
        }
        let mut read = fetch(store, &wanted)?.into_iter();
        other_reads.extend(read.by_ref().take(other_ranges.len()));
        for scan in &mut scans {
            let needs = std::mem::take(&mut scan.needs);
            if !needs.is_empty() {
                let bytes: Vec<Bytes> = read.by_ref().take(needs.len()).collect();
                scan.check_pages(&needs, &bytes)?;
                scan.decoder.push_ranges(needs, bytes).map_err(|e| scan.file.damaged(e))?;
            }
        }
    }
}

/// Ascending numbers as runs.
fn runs_of(rows: &[u32]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for row in rows {
        let row = *row as usize;
        match runs.last_mut() {
            Some(run) if run.end == row => run.end += 1,
            _ => runs.push(row..row + 1),
        }
    }
    runs
}
