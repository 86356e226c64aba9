//! Reads a Prometheus block's `tombstones`: which times of which series were deleted and are still in its
//! chunks.

use std::collections::HashMap;
use std::path::Path;

use model::codec::varint::{take_i64, take_u64};

use super::crc32c::crc32c;
use crate::import::ImportError;

const MAGIC: [u8; 4] = [0x01, 0x30, 0xba, 0x30];
/// The largest file that is read: some millions of deletions.
const MAX_BYTES: u64 = 256 << 20;

/// Deleted times (ends included, ascending, apart) by the reference of the series.
#[derive(Debug, Default)]
pub(in crate::import) struct Tombstones {
    by_series: HashMap<u64, Vec<(i64, i64)>>,
}

impl Tombstones {
    /// A file that is not there deletes nothing.
    pub fn read(path: &Path) -> Result<Tombstones, ImportError> {
        let length = match std::fs::metadata(path) {
            Ok(metadata) => metadata.len(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Tombstones::default()),
            Err(e) => return Err(ImportError::disk(path, e)),
        };
        if length > MAX_BYTES {
            return Err(ImportError::damaged(
                path,
                format!("it has {length} bytes, and {MAX_BYTES} are read"),
            ));
        }
        let bytes = std::fs::read(path).map_err(|e| ImportError::disk(path, e))?;
        Tombstones::parse(&bytes).map_err(|what| ImportError::damaged(path, what))
    }

    fn parse(bytes: &[u8]) -> Result<Tombstones, String> {
        let (content, sum) = bytes.split_last_chunk::<4>().ok_or("it is too short")?;
        let stones = content.strip_prefix(&MAGIC).ok_or("it does not begin as tombstones do")?;
        let (format, mut stones) = stones.split_first().ok_or("it is too short")?;
        if *format != 1 {
            return Err(format!("its format is {format}, and 1 is read"));
        }
        if crc32c(stones).to_be_bytes() != *sum {
            return Err("it does not match its checksum".to_string());
        }
        let mut by_series: HashMap<u64, Vec<(i64, i64)>> = HashMap::new();
        while !stones.is_empty() {
            let stone = take_u64(&mut stones).zip(take_i64(&mut stones)).zip(take_i64(&mut stones));
            let ((series, min), max) = stone.ok_or("its last entry is cut short")?;
            by_series.entry(series).or_default().push((min, max));
        }
        for ranges in by_series.values_mut() {
            ranges.retain(|(min, max)| min <= max);
            ranges.sort_unstable();
            ranges.dedup_by(|next, last| {
                let touches = next.0 <= last.1.saturating_add(1);
                if touches {
                    last.1 = last.1.max(next.1);
                }
                touches
            });
        }
        Ok(Tombstones { by_series })
    }

    /// What is deleted of a series.
    pub fn of(&self, series: u64) -> &[(i64, i64)] {
        self.by_series.get(&series).map_or(&[], Vec::as_slice)
    }

    /// How many ranges there are.
    pub fn len(&self) -> usize {
        self.by_series.values().map(Vec::len).sum()
    }
}

/// Whether a time lies in one of ranges that ascend.
pub(in crate::import) fn covers(ranges: &[(i64, i64)], ts_ms: i64) -> bool {
    let at = ranges.partition_point(|(_, max)| *max < ts_ms);
    ranges.get(at).is_some_and(|(min, _)| *min <= ts_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::codec::varint::{put_i64, put_u64};

    #[test]
    fn ranges_are_joined_and_checked() {
        let mut stones = Vec::new();
        for (series, min, max) in [(7, 10, 20), (7, 21, 30), (9, -5, 5), (7, 100, 90), (7, 40, 50)] {
            put_u64(&mut stones, series);
            put_i64(&mut stones, min);
            put_i64(&mut stones, max);
        }
        let mut file = MAGIC.to_vec();
        file.push(1);
        file.extend(&stones);
        file.extend(crc32c(&stones).to_be_bytes());
        let read = Tombstones::parse(&file).unwrap();
        assert_eq!(read.of(7), [(10, 30), (40, 50)]);
        assert_eq!(read.len(), 3);
        assert!(covers(read.of(7), 30) && !covers(read.of(7), 31) && covers(read.of(7), 40));
        assert!(!covers(read.of(8), 0) && covers(read.of(9), -5));
        for at in 0..file.len() {
            let mut changed = file.clone();
            changed[at] ^= 4;
            assert!(Tombstones::parse(&changed).is_err(), "a bit of byte {at} flipped");
            assert!(Tombstones::parse(&file[..at]).is_err(), "cut at {at}");
        }
    }
}
