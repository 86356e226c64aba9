//! Reads the index of a Prometheus block (`index`, format 2): its strings, its series, and where their chunks
//! lie.
//!
//! Follows upstream's `tsdb/docs/format/index.md`. Every section that is read is held against its CRC-32C,
//! every reference against the length of what it points into. Series are read one by one from the disk; in
//! memory are the strings and four bytes a series.

use std::path::Path;

use model::codec::varint::{take_bytes, take_i64, take_u64};
use model::labels::{Labels, MAX_LABEL_BYTES};

use super::crc32c::{Crc32c, crc32c};
use super::read_ahead::ReadAhead;
use crate::import::ImportError;

const MAGIC: [u8; 4] = [0xba, 0xaa, 0xd7, 0x00];
/// Six offsets and their checksum.
const CONTENTS_BYTES: u64 = 6 * 8 + 4;
/// Series lie at multiples of this.
const SERIES_ALIGNMENT: u64 = 16;
/// The longest entry of a series: at four bytes a chunk, those of a sample a millisecond for a month.
const MAX_SERIES_BYTES: usize = 64 << 20;
/// Labels of one series; a bound on what a damaged index can make of few bytes.
const MAX_LABELS: u64 = 10_000;

/// Where a chunk lies and which time it spans, ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::import) struct ChunkPlace {
    pub segment: u32,
    pub offset: u32,
    pub min_t_ms: i64,
    pub max_t_ms: i64,
}

/// One series as the index has it.
#[derive(Clone, Debug)]
pub(in crate::import) struct SeriesEntry {
    pub labels: Labels,
    pub chunks: Vec<ChunkPlace>,
}

/// An open index.
pub(in crate::import) struct Index {
    file: ReadAhead,
    /// All strings one after the other, and where each ends.
    text: String,
    ends: Vec<u32>,
    /// Of all series, in the index' order.
    series: Vec<u32>,
}

impl Index {
    pub fn open(path: &Path) -> Result<Index, ImportError> {
        let mut file = ReadAhead::open(path)?;
        let head = file.take(0, 5)?;
        if head[..4] != MAGIC {
            return Err(file.damaged("it does not begin as an index of Prometheus does"));
        }
        if head[4] != 2 {
            let what =
                format!("its format is {}, and 2 is read, which Prometheus has written since 2018", head[4]);
            return Err(file.damaged(what));
        }
        let end = file
            .length()
            .checked_sub(CONTENTS_BYTES)
            .ok_or_else(|| file.damaged("it is too short to have a table of contents"))?;
        let contents = file.take(end, CONTENTS_BYTES as usize)?;
        let (offsets, sum) = contents.split_at(48);
        let offsets: Vec<u64> = offsets.as_chunks::<8>().0.iter().map(|b| u64::from_be_bytes(*b)).collect();
        if crc32c(&contents[..48]).to_be_bytes() != sum {
            return Err(file
                .damaged("its table of contents does not match its checksum: it was cut short or changed"));
        }
        let mut index = Index { file, text: String::new(), ends: Vec::new(), series: Vec::new() };
        index.read_symbols(offsets[0])?;
        index.read_all_series(offsets[5])?;
        Ok(index)
    }

    /// How many series there are.
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// The content of a section with a length of four bytes before and a checksum behind it, as position and
    /// length.
    fn section(&mut self, at: u64, name: &str) -> Result<(u64, u64), ImportError> {
        let length = u64::from(be_u32(self.file.take(at, 4)?));
        let from = at + 4;
        let mut sum = Crc32c::new();
        let mut done = 0;
        while done < length {
            let part = (length - done).min(1 << 20) as usize;
            sum.update(self.file.take(from + done, part)?);
            done += part as u64;
        }
        if be_u32(self.file.take(from + length, 4)?) != sum.sum() {
            return Err(self.file.damaged(format!("its {name} do not match their checksum")));
        }
        Ok((from, length))
    }

    fn read_symbols(&mut self, at: u64) -> Result<(), ImportError> {
        if at == 0 {
            return Ok(());
        }
        let (from, length) = self.section(at, "strings")?;
        if length > u64::from(u32::MAX) {
            return Err(self.file.damaged("its strings are longer than 4 GiB"));
        }
        let bytes = self.file.take(from, length as usize)?;
        let (text, ends) = symbols(bytes).map_err(|what| ImportError::damaged(self.file.path(), what))?;
        (self.text, self.ends) = (text, ends);
        Ok(())
    }

    /// The list of all series is the one that hangs on the empty label.
    fn read_all_series(&mut self, table: u64) -> Result<(), ImportError> {
        if table == 0 {
            return Ok(());
        }
        let (from, length) = self.section(table, "postings' offsets")?;
        let bytes = self.file.up_to(from, length.min(64) as usize)?;
        let first = |mut bytes: &[u8]| {
            bytes = bytes.get(4..)?;
            let both = take_u64(&mut bytes)? == 2
                && take_bytes(&mut bytes)?.is_empty()
                && take_bytes(&mut bytes)?.is_empty();
            both.then(|| take_u64(&mut bytes))?
        };
        if length < 5 || be_u32(bytes) == 0 {
            return Ok(());
        }
        let Some(at) = first(bytes) else {
            return Err(self.file.damaged("its postings do not begin with the list of all series"));
        };
        let (from, length) = self.section(at, "postings")?;
        if length < 4 || !length.is_multiple_of(4) {
            return Err(self.file.damaged("the list of all series has no whole number of entries"));
        }
        let bytes = self.file.take(from, length as usize)?;
        let count = be_u32(bytes);
        self.series = bytes[4..].as_chunks::<4>().0.iter().map(|b| u32::from_be_bytes(*b)).collect();
        if self.series.len() != count as usize {
            let what = format!("the list of all series has {} entries and says {count}", self.series.len());
            return Err(self.file.damaged(what));
        }
        if self.series.windows(2).any(|w| w[0] >= w[1]) {
            return Err(self.file.damaged("the list of all series does not ascend"));
        }
        Ok(())
    }

    /// The reference of series number `n`, as tombstones name it.
    pub fn reference(&self, n: usize) -> u64 {
        u64::from(self.series[n])
    }

    /// Series number `n`.
    pub fn read(&mut self, n: usize) -> Result<SeriesEntry, ImportError> {
        let at = u64::from(self.series[n]) * SERIES_ALIGNMENT;
        let mut start = self.file.up_to(at, 10)?;
        let before = start.len();
        let length = take_u64(&mut start).and_then(|l| usize::try_from(l).ok());
        let used = before - start.len();
        let Some(length) = length.filter(|l| *l <= MAX_SERIES_BYTES) else {
            return Err(self.file.damaged(format!("the series at {at} has no length that can be")));
        };
        let whole = self.file.take(at + used as u64, length + 4)?;
        let (entry, sum) = whole.split_at(length);
        if be_u32(sum) != crc32c(entry) {
            return Err(self.file.damaged(format!("the series at {at} does not match its checksum")));
        }
        match parse_series(entry, &self.text, &self.ends) {
            Ok(entry) => Ok(entry),
            Err(what) => Err(self.file.damaged(format!("the series at {at}: {what}"))),
        }
    }
}

fn be_u32(bytes: &[u8]) -> u32 {
    bytes.first_chunk::<4>().map_or(0, |b| u32::from_be_bytes(*b))
}

/// The table of strings: all as one text, and where each ends.
fn symbols(mut bytes: &[u8]) -> Result<(String, Vec<u32>), String> {
    let cut = || "its strings end too early".to_string();
    let count = be_u32(bytes) as usize;
    bytes = bytes.get(4..).ok_or_else(cut)?;
    // Each takes a byte at least.
    if count > bytes.len() {
        return Err(format!("it names {count} strings in {} bytes", bytes.len()));
    }
    let mut text = Vec::with_capacity(bytes.len());
    let mut ends = Vec::with_capacity(count);
    for n in 0..count {
        let one = take_bytes(&mut bytes).ok_or_else(cut)?;
        if std::str::from_utf8(one).is_err() {
            return Err(format!("string number {n} is not UTF-8"));
        }
        text.extend_from_slice(one);
        ends.push(text.len() as u32);
    }
    let text = String::from_utf8(text).map_err(|_| "its strings are not UTF-8".to_string())?;
    Ok((text, ends))
}

fn parse_series(mut entry: &[u8], text: &str, ends: &[u32]) -> Result<SeriesEntry, String> {
    let from = &mut entry;
    let cut = || "it ends too early".to_string();
    let symbol = |n: u64| {
        let n = usize::try_from(n).ok()?;
        let end = *ends.get(n)? as usize;
        let start = if n == 0 { 0 } else { ends[n - 1] as usize };
        text.get(start..end)
    };
    let count = take_u64(from).ok_or_else(cut)?;
    if count > MAX_LABELS {
        return Err(format!("it has {count} labels"));
    }
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    for _ in 0..count {
        let (name, value) = (take_u64(from).ok_or_else(cut)?, take_u64(from).ok_or_else(cut)?);
        let (Some(name), Some(value)) = (symbol(name), symbol(value)) else {
            return Err(format!("string {name} or {value} is not there"));
        };
        if name.is_empty() || name.len().max(value.len()) > MAX_LABEL_BYTES {
            return Err("a label has no name, or one that is too long".to_string());
        }
        // An empty value is no label.
        if !value.is_empty() {
            pairs.push((name, value));
        }
    }
    pairs.sort_unstable();
    if let Some(w) = pairs.windows(2).find(|w| w[0].0 == w[1].0) {
        return Err(format!("label {:?} is there twice", w[0].0));
    }
    let labels = Labels::from_sorted(pairs);
    let count = take_u64(from).ok_or_else(cut)?;
    // Three numbers each.
    if count > entry.len() as u64 / 3 {
        return Err(format!("it names {count} chunks in {} bytes", entry.len()));
    }
    let mut chunks = Vec::with_capacity(count as usize);
    let (mut t, mut reference) = (0i64, 0i64);
    let from = &mut entry;
    for n in 0..count {
        let min = match n {
            0 => take_i64(from),
            _ => take_u64(from).map(|d| t.wrapping_add(d as i64)),
        };
        let min_t_ms = min.ok_or_else(cut)?;
        let max_t_ms = min_t_ms.wrapping_add(take_u64(from).ok_or_else(cut)? as i64);
        reference = match n {
            0 => take_u64(from).ok_or_else(cut)? as i64,
            _ => reference.wrapping_add(take_i64(from).ok_or_else(cut)?),
        };
        if max_t_ms < min_t_ms {
            return Err(format!("chunk {n} ends before it begins"));
        }
        t = max_t_ms;
        chunks.push(ChunkPlace {
            segment: (reference as u64 >> 32) as u32,
            offset: reference as u32,
            min_t_ms,
            max_t_ms,
        });
    }
    Ok(SeriesEntry { labels, chunks })
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::codec::varint::{put_bytes, put_i64, put_u64};
    use model::source::testing::rng::Rng;

    fn series(labels: &[(u64, u64)], chunks: &[(i64, u64, i64)]) -> Vec<u8> {
        let mut out = Vec::new();
        put_u64(&mut out, labels.len() as u64);
        labels.iter().flat_map(|(n, v)| [n, v]).for_each(|r| put_u64(&mut out, *r));
        put_u64(&mut out, chunks.len() as u64);
        for (n, (t, length, reference)) in chunks.iter().enumerate() {
            match n {
                0 => put_i64(&mut out, *t),
                _ => put_u64(&mut out, *t as u64),
            }
            put_u64(&mut out, *length);
            match n {
                0 => put_u64(&mut out, *reference as u64),
                _ => put_i64(&mut out, *reference),
            }
        }
        out
    }

    fn strings(all: &[&str]) -> Vec<u8> {
        let mut out = (all.len() as u32).to_be_bytes().to_vec();
        all.iter().for_each(|s| put_bytes(&mut out, s.as_bytes()));
        out
    }

    #[test]
    fn entries_are_read_as_they_are_written() {
        let (text, ends) = symbols(&strings(&["", "__name__", "a", "up"])).unwrap();
        let entry = series(&[(1, 3), (2, 0)], &[(-5, 10, 8 | 2 << 32), (1, 4, 100)]);
        let read = parse_series(&entry, &text, &ends).unwrap();
        assert_eq!(read.labels, Labels::from_pairs([("__name__", "up")]), "an empty value is no label");
        let place = |offset, min_t_ms, max_t_ms| ChunkPlace { segment: 2, offset, min_t_ms, max_t_ms };
        assert_eq!(read.chunks, [place(8, -5, 5), place(108, 6, 10)]);
        for wrong in [series(&[(1, 9)], &[]), series(&[(0, 1)], &[]), series(&[(1, 3), (1, 2)], &[])] {
            assert!(parse_series(&wrong, &text, &ends).is_err(), "{wrong:?}");
        }
        assert!(symbols(&[0xff, 0xff, 0xff, 0xff, 1, b'a']).unwrap_err().contains("names 4294967295"));
    }

    #[test]
    fn entries_of_any_bytes_are_read_or_refused() {
        let names: Vec<String> = (0..40).map(|i| format!("name{i}")).collect();
        let table = strings(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let (text, ends) = symbols(&table).unwrap();
        let labels: Vec<_> = (0..10).map(|i| (i, i + 10)).collect();
        let chunks: Vec<_> = (0..50).map(|i| (i, 1000 * i as u64, 40)).collect();
        let good = series(&labels, &chunks);
        let mut rng = Rng(17);
        let mut read = 0;
        for round in 0..20_000 {
            let mut bytes = if round % 2 == 0 { good.clone() } else { table.clone() };
            for _ in 0..1 + rng.below(4) {
                let at = rng.below(bytes.len());
                bytes[at] = rng.below(256) as u8;
            }
            bytes.truncate(1 + rng.below(bytes.len() * 2).min(bytes.len() - 1));
            match round % 2 {
                0 => {
                    if let Ok(entry) = parse_series(&bytes, &text, &ends) {
                        read += 1;
                        assert!(entry.chunks.len() <= bytes.len() && entry.labels.len() <= bytes.len());
                    }
                }
                _ => {
                    if let Ok((text, ends)) = symbols(&bytes) {
                        read += 1;
                        assert!(text.len() <= bytes.len() && ends.len() <= bytes.len());
                    }
                }
            }
        }
        assert!(read > 100, "{read} of the changed entries were still entries");
    }
}
