//! Objects beside the blocks: Parquet files small enough to be read whole, named in the catalog with size and
//! checksum.

pub mod exemplars;
pub mod metadata;
pub(crate) mod verify;

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, SchemaRef};
use bytes::Bytes;
use futures::StreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde::{Deserialize, Serialize};
use ulid::Ulid;
use xxhash_rust::xxh3::xxh3_64;

use crate::block::BlockError;
use crate::block::read::file::caught;
use crate::block::read::store::{BlockStore, CONCURRENT_GETS};
use crate::ulid_text;
use crate::{layout, small_object};
use model::source::SourceError;
use model::tenant::TenantId;

/// Longest object that is believed.
pub const MAX_BYTES: u64 = 1 << 30;

/// What such an object holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Exemplars,
    Metadata,
}

impl Kind {
    /// In the order of [`layout::sidecars`].
    pub const ALL: [Kind; 2] = [Kind::Exemplars, Kind::Metadata];

    /// The word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Exemplars => "exemplars",
            Kind::Metadata => "metadata",
        }
    }

    /// Where the object of that name lies.
    pub fn path(self, tenant: &TenantId, ulid: Ulid) -> Path {
        match self {
            Kind::Exemplars => layout::exemplars(tenant, ulid),
            Kind::Metadata => layout::metadata(tenant, ulid),
        }
    }
}

/// One such object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sidecar {
    #[serde(with = "ulid_text::one")]
    pub ulid: Ulid,
    /// First and last time that is spoken of in it, in milliseconds.
    pub min_t_ms: i64,
    pub max_t_ms: i64,
    pub rows: u64,
    pub bytes: u64,
    /// xxHash3 (64 bits) of all bytes, sixteen hexadecimal digits.
    pub xxh3: String,
}

impl Sidecar {
    /// Whether these are its bytes.
    pub fn check(&self, object: &str, bytes: &[u8]) -> Result<(), BlockError> {
        let wrong = |what: String| BlockError::Corrupt { object: object.to_string(), what };
        if bytes.len() as u64 != self.bytes {
            return Err(wrong(format!("it has {} bytes, the catalog says {}", bytes.len(), self.bytes)));
        }
        let found = format!("{:016x}", xxh3_64(bytes));
        if found != self.xxh3 {
            return Err(wrong(format!("its checksum is {found}, the catalog says {}", self.xxh3)));
        }
        Ok(())
    }

    pub fn overlaps(&self, min_t_ms: i64, max_t_ms: i64) -> bool {
        self.min_t_ms <= max_t_ms && self.max_t_ms >= min_t_ms
    }
}

/// The type of a column that maps texts to texts.
pub(crate) fn map_of_text() -> DataType {
    let entry = vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Utf8, true)];
    DataType::Map(Arc::new(Field::new("key_value", DataType::Struct(entry.into()), false)), false)
}

pub(crate) fn batch(schema: SchemaRef, columns: Vec<ArrayRef>) -> Result<RecordBatch, BlockError> {
    RecordBatch::try_new(schema, columns).map_err(|e| BlockError::Encode(e.to_string()))
}

/// Writes batches as a Parquet file under a new name; `span` is its first and last time.
pub(crate) fn encode(
    schema: SchemaRef,
    batches: &[RecordBatch],
    span: (i64, i64),
) -> Result<(Sidecar, Bytes), BlockError> {
    let failed = |e: parquet::errors::ParquetError| BlockError::Encode(e.to_string());
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3).map_err(failed)?))
        .set_created_by(concat!("hearth ", env!("CARGO_PKG_VERSION")).to_string())
        .build();
    let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(Vec::new(), schema, options).map_err(failed)?;
    for batch in batches {
        writer.write(batch).map_err(failed)?;
    }
    let bytes = Bytes::from(writer.into_inner().map_err(failed)?);
    let about = Sidecar {
        ulid: Ulid::new(),
        min_t_ms: span.0,
        max_t_ms: span.1,
        rows: batches.iter().map(|b| b.num_rows() as u64).sum(),
        bytes: bytes.len() as u64,
        xxh3: format!("{:016x}", xxh3_64(&bytes)),
    };
    Ok((about, bytes))
}

/// The batches of a file whose bytes were checked.
pub(crate) fn decode(object: &str, bytes: Bytes) -> Result<Vec<RecordBatch>, BlockError> {
    let corrupt = |what: String| BlockError::Corrupt { object: object.to_string(), what };
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let read = || {
        let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes, options)?;
        reader.with_batch_size(16 * 1024).build()?.map(|batch| Ok(batch?)).collect()
    };
    caught::<_, parquet::errors::ParquetError>(read).map_err(corrupt)
}

/// Writes one to its place; nobody reads it before it is committed.
pub(crate) async fn put(store: &dyn ObjectStore, path: &Path, bytes: Bytes) -> Result<(), BlockError> {
    let failed = |e: object_store::Error| BlockError::of_store(path, e);
    store.put(path, PutPayload::from(bytes)).await.map(drop).map_err(failed)
}

/// Small objects whole, several at once, each checked, in the order asked.
pub(crate) fn read_all(blocks: &BlockStore, wanted: Vec<(Path, Sidecar)>) -> Result<Vec<Bytes>, SourceError> {
    let store = blocks.store.clone();
    let all = async move {
        let reads = wanted.into_iter().map(|(path, about)| {
            let store = store.clone();
            async move { get(&*store, &path, &about).await }
        });
        let results: Vec<_> = futures::stream::iter(reads).buffered(CONCURRENT_GETS).collect().await;
        results.into_iter().collect::<Result<Vec<_>, _>>()
    };
    blocks.wait(all)?.map_err(SourceError::storage)
}

/// Reads one and checks it.
pub(crate) async fn get(store: &dyn ObjectStore, path: &Path, about: &Sidecar) -> Result<Bytes, BlockError> {
    let failed = |e: object_store::Error| BlockError::of_store(path, e);
    if about.bytes > MAX_BYTES {
        let what = format!("the catalog says it has {} bytes, at most {MAX_BYTES} are believed", about.bytes);
        return Err(BlockError::Corrupt { object: path.to_string(), what });
    }
    let understand = |bytes: &Bytes| about.check(path.as_ref(), bytes).map(|()| bytes.clone());
    match small_object::read(store, path, understand).await.map_err(failed)? {
        Some(bytes) => bytes,
        None => Err(BlockError::Missing { object: path.to_string() }),
    }
}
