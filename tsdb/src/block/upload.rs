//! Copies a finished block into the object store: data files first, `meta.json` last, visible only by a commit to the catalog.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};

use super::{BlockError, BlockFiles};
use crate::layout;
use crate::tenant::TenantId;

/// Files up to this size go in one request, larger ones in parts of it.
const PART_BYTES: usize = 16 << 20;

/// Uploads a block. When it returns the objects are complete (and, where the store is a local folder opened with fsync, on disk), but
/// nobody reads them before they are committed. A failed upload leaves objects that no snapshot names.
pub async fn upload(store: &dyn ObjectStore, files: &BlockFiles) -> Result<(), BlockError> {
    let ulid = files.meta.ulid;
    let tenant = TenantId::new(&files.meta.tenant).map_err(|e| BlockError::Input(e.to_string()))?;
    for name in [layout::SERIES, layout::TIMELINES, layout::SAMPLES] {
        upload_file(store, &files.path(name), &layout::block_file(&tenant, ulid, name)).await?;
    }
    let path = layout::block_file(&tenant, ulid, layout::META);
    store.put(&path, PutPayload::from(files.meta.to_json())).await.map_err(|e| store_error(&path, &e))?;
    Ok(())
}

fn store_error(path: &object_store::path::Path, e: &object_store::Error) -> BlockError {
    BlockError::Store { object: path.to_string(), cause: e.to_string() }
}

async fn upload_file(
    store: &dyn ObjectStore,
    from: &Path,
    to: &object_store::path::Path,
) -> Result<(), BlockError> {
    let (mut file, mut part) = read_part(None, from.to_path_buf()).await?;
    if part.len() < PART_BYTES {
        store.put(to, PutPayload::from(part)).await.map_err(|e| store_error(to, &e))?;
        return Ok(());
    }
    let mut parts = store.put_multipart(to).await.map_err(|e| store_error(to, &e))?;
    while !part.is_empty() {
        if let Err(e) = parts.put_part(PutPayload::from(part)).await {
            // Best effort: stores remove abandoned parts by themselves sooner or later.
            let _ = parts.abort().await;
            return Err(store_error(to, &e));
        }
        (file, part) = read_part(Some(file), from.to_path_buf()).await?;
    }
    parts.complete().await.map_err(|e| store_error(to, &e))?;
    Ok(())
}

/// The next part of a local file, read on a thread that may block.
async fn read_part(file: Option<File>, path: PathBuf) -> Result<(File, Bytes), BlockError> {
    let shown = path.display().to_string();
    let read = tokio::task::spawn_blocking(move || {
        let mut file = match file {
            Some(file) => file,
            None => File::open(&path)?,
        };
        let mut part = Vec::new();
        (&mut file).take(PART_BYTES as u64).read_to_end(&mut part)?;
        Ok::<_, std::io::Error>((file, Bytes::from(part)))
    });
    let failed = |cause: String| BlockError::Disk { what: format!("cannot read {shown}"), cause };
    read.await.map_err(|e| failed(e.to_string()))?.map_err(|e| failed(e.to_string()))
}
