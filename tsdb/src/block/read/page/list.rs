//! Lists of numbers read straight out of a column's pages: what a scan of samples does nearly all of its work
//! in.
//!
//! Parquet's own reader makes levels, lists and offsets of each page, then joins pages, and what is wanted is
//! copied out of that. Here a page's bytes become the numbers of the rows that are wanted, in the place where
//! they are wanted. Columns that are laid out in another way than Hearth's writer does (dictionaries, other
//! encodings) are left to [`crate::block::read::scan`].

use std::fmt::Display;
use std::ops::Range;

use bytes::Bytes;
use parquet::basic::{Compression, Encoding, Type};
use parquet::schema::types::ColumnDescriptor;

use crate::block::read::file::BlockFile;
use crate::block::read::page::bit_packed::{Numbers, row_ends};
use crate::block::read::page::header::{self, DataPage, Inflate};
use model::source::SourceError;

/// Longest list that is decoded, many times what a row holds: differences of nothing take no bytes, so a page
/// of a few bytes may claim any number.
const LONGEST_LIST: u64 = 1 << 20;

/// The lists of some rows of one column in one row group.
pub(crate) struct PageScan<'a> {
    file: &'a BlockFile,
    group: usize,
    leaf: usize,
    /// Numbers of the rows within the row group, ascending.
    rows: &'a [u32],
    /// Which of the column's pages hold them.
    pages: Vec<usize>,
}

/// A list as it lies in a page. Its numbers are to be taken from the front, any part of them.
pub(crate) struct PackedList<'n, 'p> {
    pub len: usize,
    numbers: &'n mut Numbers<'p>,
    taken: usize,
}

impl<'n, 'p> PackedList<'n, 'p> {
    /// The next `len` of a page's numbers.
    pub fn new(len: usize, numbers: &'n mut Numbers<'p>) -> PackedList<'n, 'p> {
        PackedList { len, numbers, taken: 0 }
    }

    /// Hands on the numbers of a range behind what was taken, some at a time: doubles as bits, 32-bit
    /// integers wrapped. `None` if the page does not have them.
    #[inline]
    pub fn take(&mut self, range: Range<usize>, to: impl FnMut(&[i64])) -> Option<()> {
        self.numbers.skip(range.start.checked_sub(self.taken)?)?;
        self.taken = range.end;
        self.numbers.take(range.len(), to)
    }
}

impl<'a> PageScan<'a> {
    /// `column` is a top-level one by position. `None` where the column is not laid out for this.
    pub fn new(file: &'a BlockFile, group: usize, column: usize, rows: &'a [u32]) -> Option<PageScan<'a>> {
        let metadata = file.index.arrow.metadata();
        let schema = metadata.file_metadata().schema_descr();
        let is_of = |leaf: &usize| schema.get_column_root_idx(*leaf) == column;
        let mut leaves = (0..schema.num_columns()).filter(is_of);
        let leaf = leaves.next().filter(|_| leaves.next().is_none())?;
        let chunk = metadata.row_group(group).column(leaf);
        let descriptor = chunk.column_descr();
        let is_list = descriptor.max_rep_level() == 1 && (1..=2).contains(&descriptor.max_def_level());
        let fits = |e: Encoding| match e {
            Encoding::RLE | Encoding::DELTA_BINARY_PACKED => true,
            Encoding::PLAIN | Encoding::BYTE_STREAM_SPLIT => descriptor.physical_type() != Type::INT32,
            _ => false,
        };
        let is_number = matches!(descriptor.physical_type(), Type::INT32 | Type::INT64 | Type::DOUBLE);
        let inflates = matches!(chunk.compression(), Compression::ZSTD(_) | Compression::UNCOMPRESSED);
        if !is_list
            || !is_number
            || !inflates
            || chunk.dictionary_page_offset().is_some()
            || !chunk.encodings().all(fits)
        {
            return None;
        }
        let index = metadata.page_index_for_row_group(group);
        let pages = index.offset_index(leaf)?.page_locations();
        let mut wanted: Vec<usize> = Vec::new();
        let mut at = 0;
        for row in rows {
            let row = i64::from(*row);
            if wanted.is_empty() || pages.get(at + 1).is_some_and(|p| p.first_row_index <= row) {
                at += pages[at..].partition_point(|p| p.first_row_index <= row).checked_sub(1)?;
                wanted.push(at);
            }
        }
        Some(PageScan { file, group, leaf, rows, pages: wanted })
    }

    /// The bytes of its pages, to be fetched.
    pub fn needs(&self) -> impl Iterator<Item = (&'a BlockFile, Range<u64>)> {
        let index = self.file.index.arrow.metadata().page_index_for_row_group(self.group);
        let of_page = |page: &usize| {
            let place = index.offset_index(self.leaf).and_then(|i| i.page_locations().get(*page));
            // Checked when the file was opened.
            let (from, length) = place.map_or((0, 0), |p| (p.offset as u64, p.compressed_page_size as u64));
            (self.file, from..from + length)
        };
        self.pages.iter().map(of_page).collect::<Vec<_>>().into_iter()
    }

    /// How many [`PageScan::needs`] there are.
    pub fn len(&self) -> usize {
        self.pages.len()
    }

    /// Decodes the fetched bytes: `each` gets the position of every row among those asked for, and its list
    /// (of length 0 where the row has none), and says what is wrong with it.
    pub fn decode(
        &self,
        bytes: Vec<Bytes>,
        mut each: impl FnMut(usize, &mut PackedList<'_, '_>) -> Result<(), String>,
    ) -> Result<(), SourceError> {
        let metadata = self.file.index.arrow.metadata();
        let group = metadata.row_group(self.group);
        let chunk = group.column(self.leaf);
        let damaged = |what: &dyn Display| self.file.damaged(format!("{}: {what}", chunk.column_path()));
        let group_rows = usize::try_from(group.num_rows()).map_err(|e| damaged(&e))?;
        let index = metadata.page_index_for_row_group(self.group);
        let places = index.offset_index(self.leaf).map_or(&[][..], |i| i.page_locations());
        let mut inflate = Inflate::take().map_err(|e| damaged(&e))?;
        let mut ends = Vec::new();
        let mut at = 0;
        for (&page, bytes) in self.pages.iter().zip(&bytes) {
            let not_so = || damaged(&"a page is not laid out as its header says");
            let found = inflate.page(bytes, chunk.compression(), header::OF_LISTS).ok_or_else(not_so)?;
            let row_of = |page: usize| places.get(page).map_or(group_rows, |p| p.first_row_index as usize);
            let (first_row, end_row) = (row_of(page), row_of(page + 1));
            let wanted = self.rows[at..].partition_point(|r| (*r as usize) < end_row);
            let mut numbers =
                open(&found, chunk.column_descr(), end_row - first_row, &mut ends).ok_or_else(not_so)?;
            let mut passed = 0;
            for (i, row) in (at..).zip(&self.rows[at..at + wanted]) {
                let row = *row as usize - first_row;
                let from = if row == 0 { 0 } else { ends[row - 1] };
                let len = ends[row] - from;
                if len > LONGEST_LIST {
                    return Err(damaged(&format!("a list of {len} values is longer than any that is read")));
                }
                numbers
                    .skip((from - passed) as usize)
                    .ok_or_else(|| damaged(&"a page has fewer values than lists"))?;
                let mut list = PackedList::new(len as usize, &mut numbers);
                each(i, &mut list).map_err(|what| damaged(&what))?;
                passed = from + list.taken as u64;
            }
            at += wanted;
        }
        inflate.leave();
        match at == self.rows.len() {
            true => Ok(()),
            false => Err(damaged(&"it has fewer rows than are asked for")),
        }
    }
}

/// The values of a page with so many rows, and after how many values each row ends; `None` where it is not as
/// it says.
fn open<'p>(
    page: &DataPage<'p>,
    column: &ColumnDescriptor,
    rows: usize,
    ends: &mut Vec<u64>,
) -> Option<Numbers<'p>> {
    let whole = column.max_def_level() as u8;
    row_ends(page.repetition, page.definition, whole, page.levels, rows, ends)?;
    let count = usize::try_from(ends.last().copied()?).ok()?;
    let wide = column.physical_type() != Type::INT32 && page.values.len() == count.checked_mul(8)?;
    match page.encoding {
        _ if count == 0 => Numbers::plain(&[]),
        header::DELTA_BINARY_PACKED => Numbers::deltas(page.values),
        header::BYTE_STREAM_SPLIT if wide => Numbers::planes(page.values),
        header::PLAIN if wide => Numbers::plain(page.values),
        _ => None,
    }
}
