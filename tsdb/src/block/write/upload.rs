//! Copies a finished block into the object store: data files first, `meta.json` last, visible only by a
//! commit to the catalog.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload, UploadPart};

use super::BlockFiles;
use crate::block::error::BlockError;
use crate::layout;
use model::tenant::TenantId;

/// Files up to this size go in one request, larger ones in parts of it.
const PART_BYTES: usize = 16 << 20;

/// Parts of one file that are under way at the same time: what they hold is memory.
const PARTS_AT_ONCE: usize = 4;

/// Uploads a block. When it returns the objects are complete (and, where the store is a local folder opened
/// with fsync, on disk), but nobody reads them before they are committed. A failed upload leaves objects that
/// no snapshot names.
pub async fn upload(store: &dyn ObjectStore, files: &BlockFiles) -> Result<(), BlockError> {
    let ulid = files.meta.ulid;
    let tenant = TenantId::new(&files.meta.tenant).map_err(|e| BlockError::Input(e.to_string()))?;
    for name in [layout::SERIES, layout::TIMELINES, layout::SAMPLES] {
        upload_file(store, &files.path(name), &layout::block_file(&tenant, ulid, name)).await?;
    }
    let path = layout::block_file(&tenant, ulid, layout::META);
    store
        .put(&path, PutPayload::from(files.meta.to_json()))
        .await
        .map_err(|e| BlockError::of_store(&path, e))?;
    Ok(())
}

async fn upload_file(
    store: &dyn ObjectStore,
    from: &Path,
    to: &object_store::path::Path,
) -> Result<(), BlockError> {
    let (file, part) = read_part(None, from.to_path_buf()).await?;
    if part.len() < PART_BYTES {
        store.put(to, PutPayload::from(part)).await.map_err(|e| BlockError::of_store(to, e))?;
        return Ok(());
    }
    let mut parts = store.put_multipart(to).await.map_err(|e| BlockError::of_store(to, e))?;
    match upload_parts(&mut *parts, file, part, from, to).await {
        Ok(()) => Ok(()),
        Err(e) => {
            // Best effort: stores remove abandoned parts by themselves sooner or later.
            let _ = parts.abort().await;
            Err(e)
        }
    }
}

/// Some parts at a time; each request is made again by the store's client when it fails.
async fn upload_parts(
    parts: &mut dyn MultipartUpload,
    mut file: File,
    mut part: Bytes,
    from: &Path,
    to: &object_store::path::Path,
) -> Result<(), BlockError> {
    let mut under_way: FuturesUnordered<UploadPart> = FuturesUnordered::new();
    while !part.is_empty() {
        while under_way.len() >= PARTS_AT_ONCE {
            if let Some(done) = under_way.next().await {
                done.map_err(|e| BlockError::of_store(to, e))?;
            }
        }
        under_way.push(parts.put_part(PutPayload::from(part)));
        (file, part) = read_part(Some(file), from.to_path_buf()).await?;
    }
    while let Some(done) = under_way.next().await {
        done.map_err(|e| BlockError::of_store(to, e))?;
    }
    parts.complete().await.map_err(|e| BlockError::of_store(to, e))?;
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
    read.await?.map_err(|e| BlockError::of_disk(format!("cannot read {shown}"), e))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::{Error, PutResult};
    use parking_lot::Mutex;

    use super::*;

    #[derive(Debug, Default)]
    struct Seen {
        parts: Vec<(usize, usize)>,
        under_way: usize,
        most_under_way: usize,
        completed: bool,
    }

    /// Parts that take a while; one of them fails.
    #[derive(Debug)]
    struct Slow {
        seen: Arc<Mutex<Seen>>,
        next: usize,
        fails: Option<usize>,
    }

    #[async_trait::async_trait]
    impl MultipartUpload for Slow {
        fn put_part(&mut self, data: PutPayload) -> UploadPart {
            let (seen, number, fails) = (self.seen.clone(), self.next, self.fails);
            self.next += 1;
            Box::pin(async move {
                {
                    let mut seen = seen.lock();
                    seen.under_way += 1;
                    seen.most_under_way = seen.most_under_way.max(seen.under_way);
                    seen.parts.push((number, data.content_length()));
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                seen.lock().under_way -= 1;
                match fails == Some(number) {
                    true => Err(Error::Generic { store: "Slow", source: "503 slow down".into() }),
                    false => Ok(()),
                }
            })
        }

        async fn complete(&mut self) -> object_store::Result<PutResult> {
            self.seen.lock().completed = true;
            Ok(PutResult { e_tag: None, version: None, extensions: Default::default() })
        }

        async fn abort(&mut self) -> object_store::Result<()> {
            Ok(())
        }
    }

    async fn upload_of(parts: usize, fails: Option<usize>) -> (Result<(), BlockError>, Seen) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        // A hole in a file reads as zeros and takes no disk.
        File::create(&path).unwrap().set_len((parts * PART_BYTES - 7) as u64).unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut upload = Slow { seen: seen.clone(), next: 0, fails };
        let (file, part) = read_part(None, path.clone()).await.unwrap();
        let to = object_store::path::Path::from("to");
        let done = upload_parts(&mut upload, file, part, &path, &to).await;
        let seen = std::mem::take(&mut *seen.lock());
        (done, seen)
    }

    #[tokio::test]
    async fn parts_go_side_by_side_and_within_bounds() {
        let (done, seen) = upload_of(7, None).await;
        assert!(done.is_ok() && seen.completed, "{seen:?}");
        assert!((2..=PARTS_AT_ONCE).contains(&seen.most_under_way), "{seen:?}");
        let mut parts = seen.parts;
        parts.sort_unstable();
        assert_eq!(parts.len(), 7);
        assert!(
            parts[..6].iter().all(|(_, bytes)| *bytes == PART_BYTES) && parts[6].1 == PART_BYTES - 7,
            "{parts:?}"
        );
    }

    #[tokio::test]
    async fn part_that_fails_ends_the_upload_without_completing_it() {
        let (done, seen) = upload_of(6, Some(2)).await;
        assert!(done.unwrap_err().to_string().contains("503") && !seen.completed, "{seen:?}");
        assert!(seen.parts.len() < 6 + PARTS_AT_ONCE);
    }
}
