//! Reads chunks out of a Prometheus block's segment files (`chunks/000001`, …).

use std::path::Path;

use model::codec::varint::take_u64;

use super::crc32c::crc32c;
use super::index::ChunkPlace;
use super::read_ahead::ReadAhead;
use crate::import::ImportError;

const MAGIC: [u8; 5] = [0x85, 0xbd, 0x40, 0xdd, 1];
/// Of the magic number, the version, and padding.
const HEADER_BYTES: u64 = 8;
/// The longest chunk. Upstream aims at a kilobyte; one of wide histograms, or one of Thanos' aggregates, may
/// be a hundred times that.
const MAX_CHUNK_BYTES: u64 = 4 << 20;

/// All segment files of a block.
pub(in crate::import) struct Segments {
    files: Vec<ReadAhead>,
}

impl Segments {
    /// `folder` is the block's `chunks`; one that is missing is as good as empty.
    pub fn open(folder: &Path) -> Result<Segments, ImportError> {
        let mut names = Vec::new();
        match std::fs::read_dir(folder) {
            Ok(entries) => {
                for entry in entries {
                    let name = entry.map_err(|e| ImportError::disk(folder, e))?.file_name();
                    // Others lie there while Prometheus deletes or repairs.
                    if let Some(name) = name.to_str().filter(|n| n.bytes().all(|b| b.is_ascii_digit())) {
                        names.push(name.to_owned());
                    }
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(ImportError::disk(folder, e)),
        }
        names.sort_by_key(|n| (n.len(), n.clone()));
        let mut files = Vec::new();
        for name in names {
            let mut file = ReadAhead::open(&folder.join(name))?;
            if file.up_to(0, MAGIC.len())? != MAGIC {
                return Err(file.damaged("it does not begin as a segment of chunks does"));
            }
            files.push(file);
        }
        Ok(Segments { files })
    }

    /// Bytes of all of them.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(ReadAhead::length).sum()
    }

    /// The encoding of a chunk and its data, checked.
    pub fn chunk(&mut self, place: &ChunkPlace) -> Result<(u8, &[u8]), ImportError> {
        let count = self.files.len();
        let Some(file) = self.files.get_mut(place.segment as usize) else {
            return Err(ImportError::source(format!(
                "a chunk is said to lie in segment {}, and there are {count}: the block is not complete",
                u64::from(place.segment) + 1
            )));
        };
        let at = u64::from(place.offset);
        if at < HEADER_BYTES {
            return Err(file.damaged(format!("a chunk is said to lie at byte {at}, in its header")));
        }
        let mut start = file.up_to(at, 10)?;
        let before = start.len();
        let length = take_u64(&mut start).filter(|l| *l <= MAX_CHUNK_BYTES);
        let used = (before - start.len()) as u64;
        let Some(length) = length else {
            return Err(file.damaged(format!("the chunk at {at} has no length that can be")));
        };
        let length = length as usize;
        let whole = file.take(at + used, length + 5)?;
        let (chunk, sum) = whole.split_at(length + 1);
        if crc32c(chunk).to_be_bytes() != sum {
            return Err(file.damaged(format!("the chunk at {at} does not match its checksum")));
        }
        let whole = file.take(at + used, length + 1)?;
        Ok((whole[0], &whole[1..]))
    }

    /// An error that names the segment.
    pub fn damaged(&self, place: &ChunkPlace, what: &str) -> ImportError {
        match self.files.get(place.segment as usize) {
            Some(file) => file.damaged(format!("the chunk at {}: {what}", place.offset)),
            None => ImportError::source(what),
        }
    }
}
