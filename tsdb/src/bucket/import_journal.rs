//! Blocks that are made of what others kept: written down in a journal, uploaded, read back, and committed
//! exactly once.
//!
//! An import is cut into units, each of which becomes one block (or none, where it holds nothing) and has a
//! key made of what it is: the source's identity, the span of time, what was selected of it. The journal is
//! two small objects a unit:
//!
//! 1. `<key>.<ulid>.begun.json`, before the block is uploaded: "if this block was ever committed, the unit is
//!    in the store".
//! 2. `<key>.done.json`, after the commit.
//!
//! A run that died between the two is settled by the catalog: the block is live, or among the sources of one
//! that is, or it never was. So a unit is imported once, however often and wherever an import is run again,
//! also when its block has been compacted, or deleted by retention. A block's ULID is of the time of the
//! import: what is imported counts as written last, and deletions from before do not reach it.
//!
//! Everything here blocks the thread.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use parking_lot::Mutex;
use serde::Serialize;
use ulid::Ulid;

use crate::block::upload::upload;
use crate::block::{BlockError, BlockFiles, BlockMeta, BlockOrigin};
use crate::bucket::{BlockStore, BucketSource};
use crate::catalog::{
    ArrangeError, Arranged, Catalog, CatalogError, CatalogOptions, Commits, Edit, Snapshot, arrange,
};
use crate::layout;
use model::tenant::TenantId;

/// Cache for reading back what was written: each block is read once.
const CACHE_BYTES: usize = 32 << 20;

/// Why blocks could not be taken in.
#[derive(Debug, thiserror::Error, Clone)]
pub enum ImportJournalError {
    /// This process may not commit to the bucket.
    #[error(transparent)]
    Arrange(#[from] ArrangeError),
    /// The catalog could not be read or changed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A block could not be uploaded.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// The journal's own objects could not be listed or written.
    #[error("cannot {what}: {cause}")]
    Journal {
        what: String,
        #[source]
        cause: Arc<object_store::Error>,
    },
}

impl ImportJournalError {
    fn journal(what: String, cause: object_store::Error) -> ImportJournalError {
        ImportJournalError::Journal { what, cause: Arc::new(cause) }
    }
}

/// What the journal knows of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    /// Blocks that runs before this one were about to commit.
    Pending(Vec<Ulid>),
    Done,
}

/// The way into a tenant's catalog for blocks from elsewhere.
pub struct ImportJournal {
    store: Arc<dyn ObjectStore>,
    blocks: Arc<BlockStore>,
    catalog: Catalog,
    runtime: tokio::runtime::Handle,
    scratch: PathBuf,
    journal: Mutex<BTreeMap<String, Entry>>,
    /// Shows for as long as it lives that this process may commit.
    _arranged: Arranged,
}

impl ImportJournal {
    /// Opens the catalog and reads the names of the journal's entries: two LISTs. `commits` is what the
    /// server is given as well ([`Commits::Unasked`] for a dry run), `scratch` a local folder for blocks
    /// under way.
    pub async fn open(
        store: Arc<dyn ObjectStore>,
        tenant: TenantId,
        writer: &str,
        scratch: impl Into<PathBuf>,
        commits: &Commits,
    ) -> Result<ImportJournal, ImportJournalError> {
        let arranged = arrange(store, commits, writer).await?;
        ImportJournal::new(arranged, tenant, writer, scratch).await
    }

    /// The same on a store whose commits are arranged.
    pub async fn new(
        arranged: Arranged,
        tenant: TenantId,
        writer: &str,
        scratch: impl Into<PathBuf>,
    ) -> Result<ImportJournal, ImportJournalError> {
        let store = arranged.store.clone();
        let folder = layout::imports(&tenant);
        let catalog = Catalog::open(store.clone(), tenant, writer, CatalogOptions::default()).await?;
        let listed: Vec<_> = store
            .list(Some(&folder))
            .try_collect()
            .await
            .map_err(|e| ImportJournalError::journal(format!("list {folder}"), e))?;
        let mut journal = BTreeMap::new();
        for (key, block) in listed.iter().filter_map(|o| layout::import_entry(&o.location)) {
            let entry = journal.entry(key.to_string()).or_insert_with(|| Entry::Pending(Vec::new()));
            match (block, entry) {
                (None, entry) => *entry = Entry::Done,
                (Some(block), Entry::Pending(blocks)) => blocks.push(block),
                (Some(_), Entry::Done) => {}
            }
        }
        let runtime = tokio::runtime::Handle::current();
        let blocks = BlockStore::new(store.clone(), runtime.clone(), CACHE_BYTES);
        Ok(ImportJournal {
            store,
            blocks,
            catalog,
            runtime,
            scratch: scratch.into(),
            journal: Mutex::new(journal),
            _arranged: arranged,
        })
    }

    pub fn tenant(&self) -> &TenantId {
        self.catalog.tenant()
    }

    /// Where blocks are made.
    pub fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// Whether a unit was imported before. Settles what a run that died has left open.
    pub fn is_done(&self, key: &str) -> Result<bool, ImportJournalError> {
        let pending = match self.journal.lock().get(key) {
            None => return Ok(false),
            Some(Entry::Done) => return Ok(true),
            Some(Entry::Pending(blocks)) => blocks.clone(),
        };
        let snapshot = self.runtime.block_on(self.catalog.refresh())?;
        let Some(there) = pending.iter().find(|b| names(&snapshot, **b)) else { return Ok(false) };
        self.done(key, Some(*there), &"found in the catalog by a later run")?;
        Ok(true)
    }

    /// Begins a unit: what its block's writer is given. Written down before it returns.
    pub fn begin(&self, key: &str) -> Result<BlockOrigin, ImportJournalError> {
        let block = self.runtime.block_on(self.catalog.refresh())?.next_ulid();
        self.put(&layout::import_begun(self.tenant(), key, block), "{}\n".into())?;
        let mut journal = self.journal.lock();
        match journal.entry(key.to_string()).or_insert_with(|| Entry::Pending(Vec::new())) {
            Entry::Pending(blocks) => blocks.push(block),
            Entry::Done => {}
        }
        let flushed = BlockOrigin::flushed(block, self.tenant().clone(), self.catalog.writer());
        // What is imported counts by when, not by who had it.
        Ok(BlockOrigin { writers: Vec::new(), ..flushed })
    }

    /// Uploads a finished block and answers a source that reads it back from the store. It is not visible to
    /// anybody else.
    pub fn upload(&self, files: &BlockFiles) -> Result<BucketSource, ImportJournalError> {
        self.runtime.block_on(upload(&*self.store, files))?;
        Ok(self.source(vec![Arc::new(files.meta.clone())]))
    }

    /// Commits an uploaded block and closes its unit. `about` is kept in the journal for people to read.
    pub fn commit(
        &self,
        key: &str,
        meta: &BlockMeta,
        about: &impl Serialize,
    ) -> Result<(), ImportJournalError> {
        let edit = Edit { add: vec![meta.clone()], ..Edit::default() };
        self.runtime.block_on(self.catalog.commit(&edit))?;
        self.done(key, Some(meta.ulid), about)
    }

    /// Closes a unit that holds nothing.
    pub fn nothing(&self, key: &str, about: &impl Serialize) -> Result<(), ImportJournalError> {
        self.done(key, None, about)
    }

    fn source(&self, blocks: Vec<Arc<BlockMeta>>) -> BucketSource {
        BucketSource::new(self.blocks.clone(), self.tenant().clone(), blocks)
    }

    fn done(&self, key: &str, block: Option<Ulid>, about: &impl Serialize) -> Result<(), ImportJournalError> {
        let text = serde_json::json!({ "version": 1, "block": block.map(|b| b.to_string()), "about": about });
        self.put(&layout::import_done(self.tenant(), key), format!("{text:#}\n"))?;
        self.journal.lock().insert(key.to_string(), Entry::Done);
        Ok(())
    }

    fn put(&self, path: &object_store::path::Path, text: String) -> Result<(), ImportJournalError> {
        let put = self.runtime.block_on(self.store.put(path, PutPayload::from(text)));
        put.map(drop).map_err(|e| ImportJournalError::journal(format!("write {path}"), e))
    }
}

/// Whether a block is live, or went into one that is.
fn names(snapshot: &Snapshot, block: Ulid) -> bool {
    let expired = snapshot.expired.iter().map(|e| &e.block);
    let mut all = snapshot.blocks.iter().map(|b| &**b).chain(expired);
    all.any(|b| b.ulid == block || b.sources.contains(&block))
}
