//! Create-if-absent on a store that lacks it: the store as it is, but for conditional writes, which somebody
//! else decides.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// Decides who creates a key. A key that was created is never created anew, not even after it was removed:
/// what relies on this numbers its keys, as the catalog does.
#[async_trait::async_trait]
pub(super) trait Creator: fmt::Debug + fmt::Display + Send + Sync + 'static {
    /// Creates an object or answers [`Error::AlreadyExists`]. Any other error leaves open whether it was
    /// created.
    async fn create(&self, store: &dyn ObjectStore, path: &Path, payload: PutPayload) -> Result<PutResult>;

    /// Called where a read found nothing: finishes a creation that was decided and not carried out. Whether
    /// there was one.
    async fn settle(&self, store: &dyn ObjectStore, path: &Path) -> Result<bool>;
}

/// A store whose creations somebody else decides; all else goes straight through.
#[derive(Debug)]
pub(super) struct CreatingStore {
    pub inner: Arc<dyn ObjectStore>,
    pub creator: Arc<dyn Creator>,
}

impl fmt::Display for CreatingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, created through {}", self.inner, self.creator)
    }
}

/// An error of the creator's own.
pub(super) fn failed(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Generic { store: "catalog", source: why.into() }
}

/// That somebody else was first.
pub(super) fn taken(path: &Path) -> Error {
    Error::AlreadyExists { path: path.to_string(), source: "it was created before".into() }
}

/// Whether an object is there.
pub(super) async fn exists(store: &dyn ObjectStore, path: &Path) -> Result<bool> {
    match store.head(path).await {
        Ok(_) => Ok(true),
        Err(Error::NotFound { .. }) => Ok(false),
        Err(e) => Err(e),
    }
}

fn not_here(operation: &str) -> Error {
    Error::NotSupported { source: format!("{operation} on a store without conditional writes").into() }
}

#[async_trait::async_trait]
impl ObjectStore for CreatingStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        match options.mode {
            PutMode::Create => self.creator.create(&*self.inner, path, payload).await,
            PutMode::Update(_) => Err(not_here("a conditional update")),
            PutMode::Overwrite => self.inner.put_opts(path, payload, options).await,
        }
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        match self.inner.get_opts(path, options.clone()).await {
            Err(Error::NotFound { .. }) if self.creator.settle(&*self.inner, path).await? => {
                self.inner.get_opts(path, options).await
            }
            found => found,
        }
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(path, ranges).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        match options.mode {
            CopyMode::Create => Err(not_here("a conditional copy")),
            CopyMode::Overwrite => self.inner.copy_opts(from, to, options).await,
        }
    }
}
