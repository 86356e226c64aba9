//! Columns of text read straight out of their pages, as numbers of distinct strings: what a series table is
//! decoded from.
//!
//! A column is a dictionary of strings and, row by row, which of them (or, where there were too many, the
//! strings themselves). A string is looked at once however many rows have it, and not at all if no row that
//! is wanted does.

use std::fmt::Display;
use std::ops::Range;

use bytes::Bytes;
use parquet::basic::{Compression, Encoding, Type};

use crate::block::read::file::BlockFile;
use crate::block::read::page::bit_packed::{Numbers, flat_ends, indices, row_ends};
use crate::block::read::page::header::{self, Inflate, LevelKinds};
use crate::block::read::symbols::Symbols;
use model::source::SourceError;

/// Some rows of one leaf column in one row group.
pub(crate) struct TextScan<'f> {
    file: &'f BlockFile,
    group: usize,
    leaf: usize,
    /// Numbers of rows within the row group, ascending and apart.
    rows: Vec<Range<u32>>,
    /// Where the dictionary lies, and the pages.
    dictionary: Option<Range<u64>>,
    pages: Vec<usize>,
}

impl<'f> TextScan<'f> {
    /// `None` where the column is not laid out for this.
    pub fn new(file: &'f BlockFile, group: usize, leaf: usize, rows: &[Range<u32>]) -> Option<TextScan<'f>> {
        let metadata = file.index.arrow.metadata();
        let chunk = metadata.row_group(group).columns().get(leaf)?;
        let is_text = chunk.column_descr().physical_type() == Type::BYTE_ARRAY;
        let encodings = |e: Encoding| match e {
            Encoding::RLE => true,
            Encoding::PLAIN | Encoding::PLAIN_DICTIONARY | Encoding::RLE_DICTIONARY => is_text,
            Encoding::DELTA_BINARY_PACKED => !is_text,
            _ => false,
        };
        let inflates = matches!(chunk.compression(), Compression::ZSTD(_) | Compression::UNCOMPRESSED);
        let levels = chunk.column_descr();
        let is_known = levels.max_rep_level() <= 1 && levels.max_def_level() <= 3;
        if !inflates || !is_known || !chunk.encodings().all(encodings) {
            return None;
        }
        let index = metadata.page_index_for_row_group(group);
        let places = index.offset_index(leaf)?.page_locations();
        let first = u64::try_from(places.first()?.offset).ok()?;
        let dictionary = chunk.dictionary_page_offset().map(|at| at as u64..first);
        let pages = (0..places.len()).filter(|page| {
            let from = places[*page].first_row_index;
            let to = places.get(page + 1).map_or(i64::MAX, |next| next.first_row_index);
            rows.iter().any(|r| i64::from(r.start) < to && i64::from(r.end) > from)
        });
        let pages = pages.collect();
        Some(TextScan { file, group, leaf, rows: rows.to_vec(), dictionary, pages })
    }

    /// The bytes of its dictionary and its pages, to be fetched.
    pub fn needs(&self) -> Vec<(&'f BlockFile, Range<u64>)> {
        let index = self.file.index.arrow.metadata().page_index_for_row_group(self.group);
        let of_page = |page: &usize| {
            let place = index.offset_index(self.leaf).and_then(|i| i.page_locations().get(*page));
            // Checked when the file was opened.
            let (from, length) = place.map_or((0, 0), |p| (p.offset as u64, p.compressed_page_size as u64));
            from..from + length
        };
        let pages = self.pages.iter().map(of_page);
        self.dictionary.iter().cloned().chain(pages).map(|range| (self.file, range)).collect()
    }

    fn damaged(&self, what: &dyn Display) -> SourceError {
        let column = self.file.index.arrow.metadata().row_group(self.group).column(self.leaf);
        self.file.damaged(format!("{}: {what}", column.column_path()))
    }

    /// Decodes the fetched bytes: `each` gets the numbers in `symbols` of each wanted row's strings, in
    /// order.
    pub fn decode(
        &self,
        bytes: &[Bytes],
        symbols: &mut Symbols,
        mut each: impl FnMut(&[u32]),
    ) -> Result<(), SourceError> {
        let chunk = self.file.index.arrow.metadata().row_group(self.group).column(self.leaf);
        let not_so = || self.damaged(&"a page is not laid out as its header says");
        let mut inflate = Inflate::take().map_err(|e| self.damaged(&e))?;
        let (mut words, mut places) = (Vec::new(), Vec::new());
        let pages = match (&self.dictionary, bytes) {
            (None, pages) => pages,
            (Some(_), [dictionary, pages @ ..]) => {
                let page = inflate.dictionary(dictionary, chunk.compression()).ok_or_else(not_so)?;
                words.extend_from_slice(page.values);
                strings(page.values, page.levels, &mut places).ok_or_else(not_so)?;
                pages
            }
            (Some(_), []) => return Err(not_so()),
        };
        // The number of each string of the dictionary, once it is known.
        let mut known = vec![u32::MAX; places.len()];
        let (mut ends, mut codes, mut own) = (Vec::new(), Vec::new(), Vec::new());
        self.each_page(&mut inflate, pages, &mut ends, |page, ends, wanted| {
            let count = usize::try_from(ends.last().copied()?).ok()?;
            codes.clear();
            match page.encoding {
                header::RLE_DICTIONARY | header::PLAIN_DICTIONARY => {
                    indices(page.values, count, &mut codes)?;
                    for row in wanted.iter().cloned().flatten() {
                        own.clear();
                        for code in &codes[of_row(ends, row)] {
                            let number = known.get_mut(*code as usize)?;
                            if *number == u32::MAX {
                                let string = words.get(places[*code as usize].clone())?;
                                *number = symbols.number(std::str::from_utf8(string).ok()?);
                            }
                            own.push(*number);
                        }
                        each(&own);
                    }
                }
                header::PLAIN => {
                    let mut places = Vec::new();
                    strings(page.values, count, &mut places)?;
                    for row in wanted.iter().cloned().flatten() {
                        own.clear();
                        for place in &places[of_row(ends, row)] {
                            let string = std::str::from_utf8(page.values.get(place.clone())?).ok()?;
                            own.push(symbols.number(string));
                        }
                        each(&own);
                    }
                }
                _ if count == 0 => wanted.iter().cloned().flatten().for_each(|_| each(&[])),
                _ => return None,
            }
            Some(())
        })?;
        inflate.leave();
        Ok(())
    }

    /// The same for a column of whole numbers without lists or nulls.
    pub fn decode_numbers(&self, bytes: &[Bytes], mut each: impl FnMut(i64)) -> Result<(), SourceError> {
        let mut inflate = Inflate::take().map_err(|e| self.damaged(&e))?;
        let (mut ends, mut all) = (Vec::new(), Vec::new());
        self.each_page(&mut inflate, bytes, &mut ends, |page, ends, wanted| {
            if page.encoding != header::DELTA_BINARY_PACKED {
                return None;
            }
            all.clear();
            Numbers::deltas(page.values)?.take(ends.len(), |some| all.extend_from_slice(some))?;
            wanted.iter().cloned().flatten().for_each(|row| each(all[row]));
            Some(())
        })?;
        inflate.leave();
        Ok(())
    }

    /// Hands on every page, after how many values each of its rows ends, and which of its rows are wanted.
    fn each_page(
        &self,
        inflate: &mut Inflate,
        bytes: &[Bytes],
        ends: &mut Vec<u64>,
        mut each: impl FnMut(&header::DataPage<'_>, &[u64], &[Range<usize>]) -> Option<()>,
    ) -> Result<(), SourceError> {
        let metadata = self.file.index.arrow.metadata();
        let group = metadata.row_group(self.group);
        let chunk = group.column(self.leaf);
        let not_so = || self.damaged(&"a page is not laid out as its header says");
        let group_rows = usize::try_from(group.num_rows()).map_err(|e| self.damaged(&e))?;
        let index = metadata.page_index_for_row_group(self.group);
        let places = index.offset_index(self.leaf).map_or(&[][..], |i| i.page_locations());
        let descriptor = chunk.column_descr();
        let (lists, whole) = (descriptor.max_rep_level() > 0, descriptor.max_def_level() as u8);
        let levels = LevelKinds { repetition: lists, definition: whole > 0 };
        let mut found = 0;
        for (&number, bytes) in self.pages.iter().zip(bytes) {
            let page = inflate.page(bytes, chunk.compression(), levels).ok_or_else(not_so)?;
            let row_of = |page: usize| places.get(page).map_or(group_rows, |p| p.first_row_index as usize);
            let (first, end) = (row_of(number), row_of(number + 1));
            let rows = end - first;
            match lists {
                true => row_ends(page.repetition, page.definition, whole, page.levels, rows, ends),
                false => flat_ends(page.definition, whole, page.levels, rows, ends),
            }
            .ok_or_else(not_so)?;
            let of_page = |r: &Range<u32>| {
                (r.start as usize).clamp(first, end) - first..(r.end as usize).clamp(first, end) - first
            };
            let wanted: Vec<Range<usize>> = self.rows.iter().map(of_page).filter(|r| !r.is_empty()).collect();
            found += wanted.iter().map(|r| r.len()).sum::<usize>();
            each(&page, ends, &wanted).ok_or_else(not_so)?;
        }
        match found == self.rows.iter().map(|r| r.len()).sum::<usize>() {
            true => Ok(()),
            false => Err(self.damaged(&"it has fewer rows than are asked for")),
        }
    }
}

/// Which values of a page are a row's.
fn of_row(ends: &[u64], row: usize) -> Range<usize> {
    let from = if row == 0 { 0 } else { ends[row - 1] };
    from as usize..ends[row] as usize
}

/// Where so many strings lie, each behind its length in four bytes.
fn strings(bytes: &[u8], count: usize, places: &mut Vec<Range<usize>>) -> Option<()> {
    let mut at = 0usize;
    for _ in 0..count {
        let length = u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?) as usize;
        let place = at + 4..at.checked_add(4)?.checked_add(length)?;
        at = place.end;
        if at > bytes.len() {
            return None;
        }
        places.push(place);
    }
    Some(())
}
