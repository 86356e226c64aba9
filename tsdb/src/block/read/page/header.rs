//! The header of a page, as far as reading its values goes, and its body decompressed into a buffer that is
//! used again.
//!
//! After `parquet.thrift` of the Parquet format (structs `PageHeader`, `DataPageHeader`, `DataPageHeaderV2`)
//! in Thrift's compact protocol. Parquet's own page reader makes a compressor and a decompressor for each
//! column that it reads, which costs more than decompressing a page does.

use std::cell::Cell;

use parquet::basic::Compression;
use zstd::bulk::Decompressor;

use model::codec::varint;

/// Largest page that is read: what Hearth writes is a hundredth of it.
const LARGEST_PAGE_BYTES: usize = 64 << 20;
/// A buffer larger than this is not kept.
const KEPT_BUFFER_BYTES: usize = 4 << 20;
/// Structs within structs that are looked through.
const DEEPEST: u32 = 8;

/// Encodings by their numbers in the format.
pub(crate) const PLAIN: u64 = 0;
pub(crate) const PLAIN_DICTIONARY: u64 = 2;
pub(crate) const RLE: u64 = 3;
pub(crate) const DELTA_BINARY_PACKED: u64 = 5;
pub(crate) const RLE_DICTIONARY: u64 = 8;
pub(crate) const BYTE_STREAM_SPLIT: u64 = 9;

/// Which levels the pages of a column have.
#[derive(Clone, Copy)]
pub(crate) struct LevelKinds {
    pub repetition: bool,
    pub definition: bool,
}

/// Those of a column of lists.
pub(crate) const OF_LISTS: LevelKinds = LevelKinds { repetition: true, definition: true };

/// A page: its levels and values, decompressed.
pub(crate) struct DataPage<'b> {
    /// Levels of each kind, or values where there are none.
    pub levels: usize,
    pub encoding: u64,
    pub repetition: &'b [u8],
    pub definition: &'b [u8],
    pub values: &'b [u8],
}

/// Kinds of pages by their numbers in the format.
const DATA_PAGE: u64 = 0;
const DICTIONARY_PAGE: u64 = 2;
const DATA_PAGE_V2: u64 = 3;

/// What a header says; numbers of what is missing are 0.
#[derive(Default)]
struct Header {
    kind: u64,
    uncompressed_bytes: u64,
    compressed_bytes: u64,
    values: u64,
    encoding: u64,
    /// Of a first version's page how levels are encoded, of a second's how long they are.
    definition: u64,
    repetition: u64,
    is_compressed: bool,
}

/// What decompresses pages, and where to.
pub(crate) struct Inflate {
    zstd: Decompressor<'static>,
    buffer: Vec<u8>,
}

thread_local! {
    static IDLE: Cell<Option<Inflate>> = const { Cell::new(None) };
}

impl Inflate {
    /// This thread's, or a new one.
    pub fn take() -> std::io::Result<Inflate> {
        match IDLE.take() {
            Some(idle) => Ok(idle),
            None => Ok(Inflate { zstd: Decompressor::new()?, buffer: Vec::new() }),
        }
    }

    /// Leaves it to whoever is next on this thread.
    pub fn leave(mut self) {
        if self.buffer.capacity() > KEPT_BUFFER_BYTES {
            self.buffer = Vec::new();
        }
        IDLE.set(Some(self));
    }

    /// A data page out of its bytes in the file; `None` where it is not one, or not as its header says.
    pub fn page<'b>(
        &'b mut self,
        bytes: &'b [u8],
        compression: Compression,
        kinds: LevelKinds,
    ) -> Option<DataPage<'b>> {
        let mut body = bytes;
        let header = Header::parse(&mut body).filter(|h| h.kind != DICTIONARY_PAGE)?;
        self.open(header, body, compression, kinds)
    }

    /// A dictionary out of its bytes in the file: `levels` values.
    pub fn dictionary<'b>(&'b mut self, bytes: &'b [u8], compression: Compression) -> Option<DataPage<'b>> {
        let mut body = bytes;
        let header = Header::parse(&mut body).filter(|h| h.kind == DICTIONARY_PAGE)?;
        self.open(header, body, compression, LevelKinds { repetition: false, definition: false })
    }

    fn open<'b>(
        &'b mut self,
        header: Header,
        body: &'b [u8],
        compression: Compression,
        kinds: LevelKinds,
    ) -> Option<DataPage<'b>> {
        let length = usize::try_from(header.uncompressed_bytes).ok().filter(|n| *n <= LARGEST_PAGE_BYTES)?;
        if header.compressed_bytes != body.len() as u64 {
            return None;
        }
        // Of a second version's page, levels are never compressed.
        let (before, compressed) = match header.kind {
            DATA_PAGE | DICTIONARY_PAGE => (0, compression != Compression::UNCOMPRESSED),
            _ => {
                let levels = header.definition.checked_add(header.repetition)?;
                let is_compressed = header.is_compressed && compression != Compression::UNCOMPRESSED;
                (usize::try_from(levels).ok().filter(|n| *n <= body.len() && *n <= length)?, is_compressed)
            }
        };
        let whole = match compressed {
            false => body,
            true => {
                self.buffer.clear();
                self.buffer.reserve(length);
                self.buffer.extend_from_slice(&body[..before]);
                if length > before {
                    let mut rest = std::io::Cursor::new(&mut self.buffer);
                    rest.set_position(before as u64);
                    self.zstd.decompress_to_buffer(&body[before..], &mut rest).ok()?;
                }
                &self.buffer[..]
            }
        };
        if whole.len() != length {
            return None;
        }
        let levels = usize::try_from(header.values).ok()?;
        let encoding = header.encoding;
        let (repetition, definition, values) = if header.kind != DATA_PAGE_V2 {
            let part = |has: bool, encoding: u64, from| match has {
                true if encoding != RLE => None,
                true => sized(from),
                false => Some((&[][..], from)),
            };
            let (repetition, rest) = part(kinds.repetition, header.repetition, whole)?;
            let (definition, values) = part(kinds.definition, header.definition, rest)?;
            (repetition, definition, values)
        } else {
            let (repetition, rest) = whole.split_at_checked(header.repetition as usize)?;
            let (definition, values) = rest.split_at_checked(header.definition as usize)?;
            (repetition, definition, values)
        };
        Some(DataPage { levels, encoding, repetition, definition, values })
    }
}

/// Whether a stream of runs and packed bits has as many levels of so many bits, at most eight.
pub(crate) fn has_levels(mut bytes: &[u8], bits: u8, wanted: usize) -> bool {
    let mut found = 0usize;
    while found < wanted {
        let Some(header) = varint::take_u64(&mut bytes) else { return false };
        let count = usize::try_from(header >> 1).unwrap_or(usize::MAX);
        let (levels, length) = match header & 1 {
            0 => (if bytes.is_empty() { 0 } else { count }, 1),
            _ => {
                let length = count.saturating_mul(usize::from(bits));
                (bytes.len().min(length).saturating_mul(8) / usize::from(bits).max(1), length)
            }
        };
        found = found.saturating_add(levels);
        bytes = bytes.get(length..).unwrap_or(&[]);
    }
    true
}

/// What has its length in four bytes before it, and the rest.
fn sized(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

impl Header {
    /// Takes the header of a page of data or of a dictionary off the front.
    fn parse(from: &mut &[u8]) -> Option<Header> {
        let mut header = Header { kind: u64::MAX, is_compressed: true, ..Header::default() };
        let mut data = None;
        fields(from, |field, kind, from| {
            match (field, kind) {
                (1, I32) => header.kind = number(from)?,
                (2, I32) => header.uncompressed_bytes = number(from)?,
                (3, I32) => header.compressed_bytes = number(from)?,
                (5 | 7 | 8, STRUCT) => {
                    data = Some(field);
                    fields(from, |inner, kind, from| {
                        match (field, inner, kind) {
                            (_, 1, I32) => header.values = number(from)?,
                            (5 | 7, 2, I32) | (8, 4, I32) => header.encoding = number(from)?,
                            (5, 3, I32) | (8, 5, I32) => header.definition = number(from)?,
                            (5, 4, I32) | (8, 6, I32) => header.repetition = number(from)?,
                            (8, 7, TRUE | FALSE) => header.is_compressed = kind == TRUE,
                            (_, _, kind) => skip(from, kind, DEEPEST)?,
                        }
                        Some(())
                    })?;
                }
                (_, kind) => skip(from, kind, DEEPEST)?,
            }
            Some(())
        })?;
        let kind = match data? {
            5 => DATA_PAGE,
            7 => DICTIONARY_PAGE,
            _ => DATA_PAGE_V2,
        };
        (header.kind == kind).then_some(header)
    }
}

// The compact protocol's types.
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const I8: u8 = 3;
const I16: u8 = 4;
const I32: u8 = 5;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const STRUCT: u8 = 12;

/// A number that is not negative.
fn number(from: &mut &[u8]) -> Option<u64> {
    varint::take_i64(from).and_then(|n| u64::try_from(n).ok())
}

/// Hands on the fields of a struct up to its end; what is called must take the field's value off the front.
fn fields(from: &mut &[u8], mut each: impl FnMut(i64, u8, &mut &[u8]) -> Option<()>) -> Option<()> {
    let mut field = 0i64;
    loop {
        let (head, rest) = from.split_first()?;
        *from = rest;
        if *head == 0 {
            return Some(());
        }
        field = match head >> 4 {
            0 => varint::take_i64(from)?,
            by => field.wrapping_add(i64::from(by)),
        };
        each(field, head & 0x0f, from)?;
    }
}

/// Takes a value of no interest off the front. Maps do not come in page headers.
fn skip(from: &mut &[u8], kind: u8, deep: u32) -> Option<()> {
    let deep = deep.checked_sub(1)?;
    match kind {
        TRUE | FALSE => Some(()),
        I8 => from.split_first().map(|(_, rest)| *from = rest),
        I16 | I32 | I64 => varint::take_u64(from).map(|_| ()),
        DOUBLE => varint::take_8(from).map(|_| ()),
        BINARY => varint::take_bytes(from).map(|_| ()),
        LIST | SET => {
            let (head, rest) = from.split_first()?;
            *from = rest;
            let count = match head >> 4 {
                15 => varint::take_u64(from)?,
                short => u64::from(short),
            };
            for _ in 0..count {
                match head & 0x0f {
                    // In a list a truth takes a byte.
                    TRUE | FALSE => *from = from.split_first()?.1,
                    kind => skip(from, kind, deep)?,
                }
            }
            Some(())
        }
        STRUCT => fields(from, |_, kind, from| skip(from, kind, deep)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_that_mean_nothing_are_no_page(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut inflate = Inflate::take().unwrap();
            // As they are, and behind the beginning of a header.
            let begun = [&[0x15, 0, 0x15, 20, 0x15, 20, 0x2c, 0x15, 8][..], &bytes].concat();
            for bytes in [&bytes, &begun] {
                if let Some(page) = inflate.page(bytes, Compression::UNCOMPRESSED, OF_LISTS) {
                    prop_assert!(page.values.len() <= bytes.len());
                }
            }
            inflate.leave();
        }
    }

    #[test]
    fn levels_are_counted_and_not_believed() {
        // Five times the same, then sixteen packed bits of one and two.
        let stream = [10, 1, 2 << 1 | 1, 0xff, 0xff];
        assert!(has_levels(&stream, 1, 21) && !has_levels(&stream, 1, 22));
        assert!(has_levels(&stream, 2, 13) && !has_levels(&stream, 2, 14));
        assert!(has_levels(&[], 1, 0) && !has_levels(&[], 1, 1) && !has_levels(&[10], 1, 1));
        assert!(!has_levels(&[0, 0, 0, 0, 1, 1, 1], 1, 1));
    }

    #[test]
    fn header_skips_what_is_of_no_interest() {
        // A header with a checksum, statistics with binaries, and a list of structs; then two empty levels
        // and a value.
        let header = [
            0x15, 0x00, 0x15, 18, 0x15, 18, 0x15, 2, // kind, sizes, checksum
            0x1c, 0x15, 2, 0x15, 0, 0x15, 6, 0x15, 6, // one value, plain, runs for both levels
            0x1c, 0x18, 1, b'x', 0x29, 0x2c, 0x11, 0, 0x12, 0, 0, 0, 0,
        ];
        let body = [0, 0, 0, 0, 0, 0, 0, 0, 42];
        let bytes = [&header[..], &body].concat();
        let mut inflate = Inflate::take().unwrap();
        let page = inflate.page(&bytes, Compression::UNCOMPRESSED, OF_LISTS).unwrap();
        assert_eq!((page.levels, page.encoding, page.values), (1, PLAIN, &[42][..]));
        assert!(inflate.page(&bytes[..bytes.len() - 1], Compression::UNCOMPRESSED, OF_LISTS).is_none());
    }
}
