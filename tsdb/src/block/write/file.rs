//! One Parquet file with checksums: written through a sink that counts and sums as bytes pass.
//!
//! Parquet's own page checksums leave the page headers uncovered, and this writer does not make them.
//! Hearth's cover every byte: one CRC-32 per 4 KiB of the file's head (all pages) under a key of the footer,
//! and one of the tail (page index and footer) in `meta.json`.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use xxhash_rust::xxh3::Xxh3Default;

use crate::block::checksums::{CRC_BLOCK_BYTES, to_base64};
use crate::block::error::BlockError;
use crate::block::schema;
use crate::block_meta::FileMeta;

/// What is gathered before it is written to disk.
const FILE_BUFFER_BYTES: usize = 256 << 10;

/// A local file that sums what is written to it.
struct SummedFile {
    file: BufWriter<File>,
    bytes: u64,
    whole: Xxh3Default,
    /// Sums of full blocks, and of the block that is being filled.
    blocks: Vec<u32>,
    open: crc32fast::Hasher,
    open_bytes: u64,
    /// Once set, everything further belongs to the tail.
    tail: Option<(u64, crc32fast::Hasher)>,
}

impl SummedFile {
    /// Ends the head: its checksums.
    fn start_tail(&mut self) -> Vec<u32> {
        if self.open_bytes > 0 {
            self.blocks.push(std::mem::take(&mut self.open).finalize());
        }
        self.tail = Some((self.bytes, crc32fast::Hasher::new()));
        std::mem::take(&mut self.blocks)
    }
}

impl Write for SummedFile {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.file.write_all(buf)?;
        self.whole.update(buf);
        self.bytes += buf.len() as u64;
        if let Some((_, tail)) = &mut self.tail {
            tail.update(buf);
            return Ok(buf.len());
        }
        let mut rest = buf;
        while !rest.is_empty() {
            let room = (CRC_BLOCK_BYTES - self.open_bytes) as usize;
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.open.update(now);
            self.open_bytes += now.len() as u64;
            if self.open_bytes == CRC_BLOCK_BYTES {
                self.blocks.push(std::mem::take(&mut self.open).finalize());
                self.open_bytes = 0;
            }
            rest = later;
        }
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Writes one Parquet file in row groups that end where the caller says.
pub(crate) struct ParquetFile {
    path: PathBuf,
    writer: ArrowWriter<SummedFile>,
    version: u32,
    /// Entries of the footer besides its own.
    entries: Vec<(&'static str, String)>,
}

impl ParquetFile {
    pub fn create(
        path: &Path,
        schema: SchemaRef,
        properties: WriterProperties,
    ) -> Result<ParquetFile, BlockError> {
        let file = File::create(path).map_err(|e| disk(path, e))?;
        let sink = SummedFile {
            file: BufWriter::with_capacity(FILE_BUFFER_BYTES, file),
            bytes: 0,
            whole: Xxh3Default::new(),
            blocks: Vec::new(),
            open: crc32fast::Hasher::new(),
            open_bytes: 0,
            tail: None,
        };
        let options = parquet::arrow::arrow_writer::ArrowWriterOptions::new()
            .with_properties(properties)
            .with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(sink, schema, options).map_err(|e| encode(path, e))?;
        Ok(ParquetFile { path: path.to_path_buf(), writer, version: 1, entries: Vec::new() })
    }

    /// Has the footer name a later version of the format than the first.
    pub fn of_version(self, version: u32) -> ParquetFile {
        ParquetFile { version, ..self }
    }

    /// Has the footer say something more.
    pub fn add_entry(&mut self, key: &'static str, text: String) {
        self.entries.push((key, text));
    }

    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), BlockError> {
        self.writer.write(batch).map_err(|e| encode(&self.path, e))
    }

    /// Bytes of the row group that is being built.
    pub fn open_bytes(&self) -> usize {
        self.writer.in_progress_size()
    }

    /// About how many bytes of memory it holds.
    pub fn memory_bytes(&self) -> usize {
        self.writer.memory_size() + FILE_BUFFER_BYTES
    }

    /// Ends a row group.
    pub fn end_row_group(&mut self) -> Result<(), BlockError> {
        self.writer.flush().map_err(|e| encode(&self.path, e))
    }

    /// Bytes of the row groups that have ended.
    pub fn bytes(&self) -> u64 {
        self.writer.bytes_written() as u64
    }

    /// Writes checksums, index and footer.
    pub fn finish(mut self) -> Result<FileMeta, BlockError> {
        self.end_row_group()?;
        self.writer.sync().map_err(|e| disk(&self.path, e))?;
        let sums: Vec<u8> =
            self.writer.inner_mut().start_tail().iter().flat_map(|crc| crc.to_le_bytes()).collect();
        self.writer.append_key_value_metadata(KeyValue::new(schema::CRC_KEY.to_string(), to_base64(&sums)));
        let version = format!("hearth block {}", self.version);
        self.writer.append_key_value_metadata(KeyValue::new(schema::FORMAT_KEY.to_string(), version));
        for (key, text) in self.entries {
            self.writer.append_key_value_metadata(KeyValue::new(key.to_string(), text));
        }
        let mut sink = self.writer.into_inner().map_err(|e| encode(&self.path, e))?;
        sink.flush().map_err(|e| disk(&self.path, e))?;
        let (tail_start, tail) = sink.tail.expect("the tail was started above");
        Ok(FileMeta {
            bytes: sink.bytes,
            xxh3: format!("{:016x}", sink.whole.digest()),
            tail_bytes: sink.bytes - tail_start,
            tail_crc32: tail.finalize(),
        })
    }
}

pub(crate) fn disk(path: &Path, e: io::Error) -> BlockError {
    BlockError::of_disk(format!("cannot write {}", path.display()), e)
}

/// The writer reports the disk's failures as its own kind of error.
fn encode(path: &Path, e: ParquetError) -> BlockError {
    match e {
        ParquetError::External(cause) => {
            BlockError::of_disk(format!("cannot write {}", path.display()), cause)
        }
        other => BlockError::Encode(format!("{}: {other}", path.display())),
    }
}
