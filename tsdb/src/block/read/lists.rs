//! Lists of numbers by column and row, read with all requests together: from their pages where they are laid
//! out for it, else through Arrow.

use std::ops::Range;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type};
use arrow_array::{Array, ListArray, RecordBatch};
use arrow_schema::DataType;
use bytes::Bytes;

use crate::block::read::arrow_lists::primitives;
use crate::block::read::file::BlockFile;
use crate::block::read::page::bit_packed::Numbers;
use crate::block::read::page::list::{PackedList, PageScan};
use crate::block::read::scan::{self, Scan};
use crate::block::read::store::BlockStore;
use model::source::SourceError;

/// Lists of a top-level column, of some rows of a row group.
pub(crate) struct Wanted<'f> {
    pub file: &'f BlockFile,
    pub group: usize,
    pub column: usize,
    /// Numbers within the row group, strictly ascending.
    pub rows: Vec<u32>,
}

/// What was read of it.
pub(crate) struct ListRead<'w> {
    pub wanted: &'w Wanted<'w>,
    found: Found<'w>,
}

enum Found<'w> {
    Pages(PageScan<'w>, Vec<Bytes>),
    Arrays(Vec<RecordBatch>),
}

/// Reads lists, and runs other scans to their end along with it: what was read, in the order of `wanted`, and
/// the scans' batches.
#[allow(clippy::type_complexity)]
pub(crate) fn read<'w>(
    store: &BlockStore,
    wanted: &'w [Wanted<'w>],
    mut others: Vec<Scan<'w>>,
) -> Result<(Vec<ListRead<'w>>, Vec<Vec<RecordBatch>>), SourceError> {
    let mut pages: Vec<Option<PageScan<'w>>> = Vec::with_capacity(wanted.len());
    let mut ranges: Vec<(&BlockFile, Range<u64>)> = Vec::new();
    let of_others = others.len();
    for w in wanted {
        let scan = PageScan::new(w.file, w.group, w.column, &w.rows);
        match &scan {
            Some(scan) => ranges.extend(scan.needs()),
            None => others.push(Scan::new(w.file, w.group, &[w.column], Some(&w.rows))?),
        }
        pages.push(scan);
    }
    let (mut batches, bytes) = scan::run_with_reads(store, others, &ranges)?;
    let mut arrays = batches.split_off(of_others).into_iter();
    let mut bytes = bytes.into_iter();
    let read = |(wanted, pages): (&'w Wanted<'w>, Option<PageScan<'w>>)| {
        let found = match pages {
            Some(pages) => {
                let own = bytes.by_ref().take(pages.len()).collect();
                Found::Pages(pages, own)
            }
            None => Found::Arrays(arrays.next().unwrap_or_default()),
        };
        ListRead { wanted, found }
    };
    Ok((wanted.iter().zip(pages).map(read).collect(), batches))
}

/// The bytes that lists lie in, where they are not read through Arrow in several steps: those of its first.
pub(crate) fn needs<'f>(wanted: &'f [Wanted<'f>]) -> Result<Vec<(&'f BlockFile, Range<u64>)>, SourceError> {
    let mut all = Vec::new();
    for w in wanted {
        match PageScan::new(w.file, w.group, w.column, &w.rows) {
            Some(scan) => all.extend(scan.needs()),
            None => {
                let mut scan = Scan::new(w.file, w.group, &[w.column], Some(&w.rows))?;
                all.extend(scan.needs()?.map(|range| (w.file, range)));
            }
        }
    }
    Ok(all)
}

impl ListRead<'_> {
    /// Hands each row's list on, in order, with its position among the rows that were wanted; `each` says
    /// what is wrong with it.
    pub fn decode(
        self,
        mut each: impl FnMut(usize, &mut PackedList<'_, '_>) -> Result<(), String>,
    ) -> Result<(), SourceError> {
        let Wanted { file, rows, .. } = self.wanted;
        let batches = match self.found {
            Found::Pages(scan, bytes) => return scan.decode(bytes, each),
            Found::Arrays(batches) => batches,
        };
        for (i, (array, at)) in lists_of(file, &batches, rows.len())?.into_iter().enumerate() {
            let words = words(&array, at).ok_or_else(|| file.damaged("a list is not one of numbers"))?;
            let mut numbers = Numbers::Words(&words);
            each(i, &mut PackedList::new(words.len(), &mut numbers)).map_err(|what| file.damaged(what))?;
        }
        Ok(())
    }
}

/// The numbers of a list as [`PackedList`] has them; none where it is null.
fn words(array: &ListArray, at: usize) -> Option<Vec<i64>> {
    if array.is_null(at) {
        return Some(Vec::new());
    }
    Some(match array.values().data_type() {
        DataType::Int64 => primitives::<Int64Type>(array, at)?.to_vec(),
        DataType::Int32 => primitives::<Int32Type>(array, at)?.iter().map(|v| i64::from(*v)).collect(),
        _ => primitives::<Float64Type>(array, at)?.iter().map(|v| v.to_bits() as i64).collect(),
    })
}

/// The single list column of some batches, item by item.
pub(crate) fn lists_of(
    file: &BlockFile,
    batches: &[RecordBatch],
    rows: usize,
) -> Result<Vec<(ListArray, usize)>, SourceError> {
    let mut out = Vec::with_capacity(rows);
    for batch in batches {
        let list = batch.columns().first().and_then(|c| c.as_list_opt::<i32>());
        let list = list.ok_or_else(|| file.damaged("a column of values is not a list"))?;
        out.extend((0..list.len()).map(|i| (list.clone(), i)));
    }
    if out.len() != rows {
        return Err(file.damaged(format!("it holds {} of the {rows} rows that its index names", out.len())));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::ObjectStore;
    use object_store::memory::InMemory;
    use ulid::Ulid;

    use super::*;
    use crate::block::schema::{SAMPLE_COLUMNS, SMALL_COLUMNS};
    use crate::block::{BlockOrigin, WriteOptions, write_block};
    use model::histogram::Histogram;
    use model::labels::Labels;
    use model::source::SeriesColumns;
    use model::tenant::TenantId;

    /// Series of every encoding, with exceptions, start timestamps and histograms.
    fn series() -> Vec<SeriesColumns> {
        let one = |s: usize| {
            let n = 40 + 7 * (s % 5);
            let value = |i: usize| match s % 6 {
                _ if i % 17 == 3 && s.is_multiple_of(4) => f64::NAN,
                0 => 7.5,
                1 => (i * i * 31 + s) as f64 / 100.0,
                2 => (i.wrapping_mul(2_654_435_761) % 1_000_003) as f64,
                3 => (i as f64 + s as f64).sqrt(),
                4 => ((i % 3) as f64).exp(),
                _ => (i / 9) as f64,
            };
            let histogram = |i: usize| {
                (s % 7 == 6)
                    .then(|| Arc::new(Histogram { count: i as f64, sum: 0.5, ..Histogram::default() }))
            };
            SeriesColumns {
                labels: Labels::from_pairs([("__name__", format!("m{s:03}"))]),
                ts_ms: (0..n as i64).map(|i| i * 15_000).collect(),
                values: (0..n).map(|i| histogram(i).map_or(value(i), |h| h.sum)).collect(),
                histograms: (s % 7 == 6).then(|| (0..n).map(histogram).collect()),
                start_ts_ms: s
                    .is_multiple_of(3)
                    .then(|| (0..n as i64).map(|i| i / 20 * 300_000 + 1).collect()),
                windows: None,
            }
        };
        (0..200).map(one).collect()
    }

    /// Pages read here and pages read by Parquet's own reader say the same, whatever rows are wanted and
    /// however many a page holds.
    #[test]
    fn pages_say_what_arrow_says() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        for values_per_page in [100, 2_000, 20_000] {
            let dir = tempfile::tempdir().unwrap();
            let tenant = TenantId::single();
            let origin = BlockOrigin::flushed(Ulid::new(), tenant.clone(), "test");
            let options = WriteOptions { values_per_page, rows_per_page: 64, ..WriteOptions::fresh() };
            let files =
                write_block(dir.path(), origin, options, series().into_iter().map(Ok)).unwrap().unwrap();
            let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
            runtime.block_on(crate::block::write::upload::upload(&*store, &files)).unwrap();
            let blocks = BlockStore::new(store, runtime.handle().clone(), 1 << 20);
            let [_, timelines, samples] = BlockFile::open(&blocks, &tenant, &files.meta, false).unwrap();
            let mut compared = 0;
            let of_samples = (SMALL_COLUMNS..SAMPLE_COLUMNS.len()).map(|column| (&samples, column));
            for (file, column) in of_samples.chain([(&timelines, 1)]) {
                let rows = file.index.row_starts[1] as u32;
                for rows in [(0..rows).collect(), (0..rows).step_by(13).collect(), vec![rows - 1]] {
                    let wanted = Wanted { file, group: 0, column, rows };
                    let Some(pages) = PageScan::new(file, 0, column, &wanted.rows) else { continue };
                    let needs: Vec<_> = pages.needs().collect();
                    let bytes = crate::block::read::file::fetch(&blocks, &needs).unwrap();
                    let scan = Scan::new(file, 0, &[column], Some(&wanted.rows)).unwrap();
                    let arrays = scan::run(&blocks, vec![scan]).unwrap().pop().unwrap();
                    let all = |found| {
                        let mut all = Vec::new();
                        let each = |i: usize, list: &mut PackedList<'_, '_>| {
                            let mut own = Vec::new();
                            // Only a part of some.
                            let part = (i % 3).min(list.len)..list.len - (i % 2).min(list.len / 2);
                            let part = part.start.min(part.end)..part.end;
                            list.take(part, |some| own.extend_from_slice(some)).ok_or("cut off")?;
                            all.push((list.len, own));
                            Ok(())
                        };
                        ListRead { wanted: &wanted, found }.decode(each).unwrap();
                        all
                    };
                    let (ours, theirs) = (all(Found::Pages(pages, bytes)), all(Found::Arrays(arrays)));
                    assert_eq!(ours, theirs, "column {column}");
                    compared += ours.iter().filter(|(len, _)| *len > 0).count();
                }
            }
            assert!(compared > 400, "{compared} lists");
        }
    }
}
