//! What an operator wants to know of a block: is it whole, and where do its bytes go.

pub mod weigh;

use futures::StreamExt;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::Serialize;
use xxhash_rust::xxh3::Xxh3Default;

use crate::block::error::{BlockError, ReadFailed};
use crate::block::read::file::FileIndex;
use crate::block_meta::{BlockMeta, FileMeta};
use crate::{layout, small_object};
use model::source::SourceError;
use model::tenant::TenantId;

/// One column of one file.
#[derive(Clone, Debug, Serialize)]
pub struct ColumnSize {
    pub file: &'static str,
    /// Dotted path of the Parquet column.
    pub column: String,
    pub row_groups: u64,
    pub pages: u64,
    /// Values (null lists and list ends included, as Parquet counts).
    pub values: u64,
    pub compressed_bytes: u64,
    pub uncompressed_bytes: u64,
    pub encodings: Vec<String>,
}

pub(crate) fn files(meta: &BlockMeta) -> [(&'static str, &FileMeta); 3] {
    [
        (layout::SERIES, &meta.files.series),
        (layout::TIMELINES, &meta.files.timelines),
        (layout::SAMPLES, &meta.files.samples),
    ]
}

/// Reads a block's `meta.json`, as recovery does when the catalog is gone.
pub async fn read_meta(
    store: &dyn ObjectStore,
    tenant: &TenantId,
    ulid: ulid::Ulid,
) -> Result<BlockMeta, BlockError> {
    let path = layout::block_file(tenant, ulid, layout::META);
    let failed = |e: object_store::Error| BlockError::of_store(&path, e);
    let understand = |text: &bytes::Bytes| BlockMeta::from_json(path.as_ref(), text);
    match small_object::read(store, &path, understand).await.map_err(failed)? {
        Some(meta) => Ok(meta?),
        None => Err(BlockError::Missing { object: path.to_string() }),
    }
}

/// Reads all of a block and compares it with the catalog's word: `meta.json`, and length and checksum of each
/// file. Streams, so memory stays small.
pub async fn verify(store: &dyn ObjectStore, tenant: &TenantId, meta: &BlockMeta) -> Result<(), BlockError> {
    let said = read_meta(store, tenant, meta.ulid).await?;
    let plain = BlockMeta { crc32: String::new(), ..meta.clone() };
    if said != plain {
        return Err(BlockError::Corrupt {
            object: layout::block_file(tenant, meta.ulid, layout::META).to_string(),
            what: "it says other than the catalog".to_string(),
        });
    }
    for (name, file) in files(meta) {
        let path = layout::block_file(tenant, meta.ulid, name);
        let failed = |e: object_store::Error| BlockError::of_store(&path, e);
        let got = store.get(&path).await.map_err(failed)?;
        let length = got.meta.size;
        let mut body = got.into_stream();
        let mut whole = Xxh3Default::new();
        let mut bytes = 0u64;
        while let Some(part) = body.next().await {
            let part = part.map_err(failed)?;
            bytes += part.len() as u64;
            whole.update(&part);
        }
        if bytes != length {
            let what = format!("of its {length} bytes {bytes} arrived");
            return Err(failed(object_store::Error::Generic { store: "block", source: what.into() }));
        }
        let found = format!("{:016x}", whole.digest());
        if bytes != file.bytes || found != file.xxh3 {
            return Err(BlockError::Corrupt {
                object: path.to_string(),
                what: format!(
                    "{bytes} bytes with xxh3 {found}; written were {} with {}",
                    file.bytes, file.xxh3
                ),
            });
        }
    }
    Ok(())
}

/// Where a block's bytes go, column by column; reads only the footers.
pub async fn columns(
    store: &dyn ObjectStore,
    tenant: &TenantId,
    meta: &BlockMeta,
) -> Result<Vec<ColumnSize>, SourceError> {
    let mut out: Vec<ColumnSize> = Vec::new();
    for (name, file) in files(meta) {
        let path = layout::block_file(tenant, meta.ulid, name);
        let tail = store.get_range(&path, file.bytes.saturating_sub(file.tail_bytes)..file.bytes).await;
        let failed = |cause| SourceError::storage(ReadFailed { what: path.to_string(), cause });
        let tail = tail.map_err(failed)?;
        let index = FileIndex::parse(&path, file, tail)?;
        let metadata = index.arrow.metadata();
        for (g, group) in metadata.row_groups().iter().enumerate() {
            let pages = metadata.page_index_for_row_group(g);
            for (c, chunk) in group.columns().iter().enumerate() {
                let column = chunk.column_path().string();
                let at = match out.iter().position(|o| o.file == name && o.column == column) {
                    Some(at) => at,
                    None => {
                        out.push(ColumnSize {
                            file: name,
                            column,
                            row_groups: 0,
                            pages: 0,
                            values: 0,
                            compressed_bytes: 0,
                            uncompressed_bytes: 0,
                            encodings: Vec::new(),
                        });
                        out.len() - 1
                    }
                };
                let of = &mut out[at];
                of.row_groups += 1;
                of.pages += pages.offset_index(c).map_or(0, |o| o.page_locations().len() as u64);
                of.values += u64::try_from(chunk.num_values()).unwrap_or(0);
                of.compressed_bytes += u64::try_from(chunk.compressed_size()).unwrap_or(0);
                of.uncompressed_bytes += u64::try_from(chunk.uncompressed_size()).unwrap_or(0);
                for encoding in chunk.encodings() {
                    let encoding = format!("{encoding:?}");
                    if !of.encodings.contains(&encoding) {
                        of.encodings.push(encoding);
                    }
                }
            }
        }
    }
    Ok(out)
}
