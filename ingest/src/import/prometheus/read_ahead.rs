//! Reads a file mostly forwards, a window of it in memory.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::import::ImportError;

/// Bytes that one read brings: few after a jump, more and more while reading goes on forwards. A span of a
/// long block is short runs with long gaps between them, and reading the gaps too would read the block once
/// per span.
const FIRST_BYTES: usize = 8 << 10;
const MOST_BYTES: usize = 1 << 20;
/// A gap that costs less to read than to jump.
const GAP_BYTES: u64 = 4 << 10;

/// A file, and the part of it that was read last. Memory is the window, or the longest piece that was asked
/// for.
pub(in crate::import) struct ReadAhead {
    path: PathBuf,
    file: File,
    length: u64,
    bytes: Vec<u8>,
    start: u64,
    /// What the next read brings at least.
    ahead: usize,
}

impl ReadAhead {
    pub fn open(path: &Path) -> Result<ReadAhead, ImportError> {
        let failed = |e: std::io::Error| ImportError::disk(path, e);
        let file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        Ok(ReadAhead { path: path.to_owned(), file, length, bytes: Vec::new(), start: 0, ahead: FIRST_BYTES })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn length(&self) -> u64 {
        self.length
    }

    /// An error that names the file.
    pub fn damaged(&self, what: impl std::fmt::Display) -> ImportError {
        ImportError::damaged(&self.path, what)
    }

    /// `length` bytes from `at`; an error where the file is shorter.
    pub fn take(&mut self, at: u64, length: usize) -> Result<&[u8], ImportError> {
        let there = self.up_to(at, length)?.len();
        if there < length {
            return Err(self.damaged(format!("{length} bytes at {at} lie beyond its end at {}", self.length)));
        }
        self.up_to(at, length)
    }

    /// Up to `length` bytes from `at`, fewer where the file ends.
    pub fn up_to(&mut self, at: u64, length: usize) -> Result<&[u8], ImportError> {
        let left = self.length.saturating_sub(at);
        let length = length.min(usize::try_from(left).unwrap_or(usize::MAX));
        let inside = at >= self.start && at + length as u64 <= self.start + self.bytes.len() as u64;
        if !inside {
            let end = self.start + self.bytes.len() as u64;
            let forwards = at >= self.start && at <= end + GAP_BYTES;
            self.ahead = if forwards { (2 * self.ahead).min(MOST_BYTES) } else { FIRST_BYTES };
            let fill = length.max(self.ahead.min(usize::try_from(left).unwrap_or(usize::MAX)));
            self.bytes.resize(fill, 0);
            self.start = at;
            if let Err(e) = self.file.read_exact_at(&mut self.bytes, at) {
                self.bytes.clear();
                return Err(ImportError::disk(&self.path, e));
            }
            if fill > 4 * MOST_BYTES {
                self.bytes.shrink_to_fit();
            }
        }
        let from = (at - self.start) as usize;
        Ok(&self.bytes[from..from + length])
    }
}
