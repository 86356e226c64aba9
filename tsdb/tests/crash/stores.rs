//! A folder with its stores, and what three tenants must hold in them.

use std::fs;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use futures::StreamExt;
use model::tenant::TenantId;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use tsdb::db::{Db, DbOptions};

use crate::faulty_store::FaultyStore;
use crate::held::{self, ALL, Brings, Contents, Files, files};

/// Two that bring all there is, and one that only tells of metrics.
pub fn tenants() -> [(TenantId, &'static [Brings]); 3] {
    let tenant = |name| TenantId::new(name).unwrap();
    [(tenant("a"), &ALL), (tenant("b"), &ALL), (tenant("c"), &[Brings::Metadata])]
}

/// What the tenants must hold.
pub type World = [Contents; 3];

pub async fn open(dir: &Path, store: Arc<dyn ObjectStore>) -> Arc<Db> {
    held::open(held::options(dir, store)).await
}

pub async fn write(db: &Arc<Db>, world: &mut World, n: i64) {
    for ((tenant, brings), held) in tenants().iter().zip(world) {
        held::write(db, tenant, held, n, brings).await;
    }
}

pub async fn check(db: &Arc<Db>, world: &World, what: &str) {
    for ((tenant, _), held) in tenants().iter().zip(world) {
        let read = held::read(db, tenant).await;
        assert!(read == *held, "tenant {tenant}: {what}: {}", held.against(&read));
    }
}

/// After a flush: that blocks and files of exemplars hold each sample and each exemplar once. Readers would
/// not show it, they merge.
pub async fn stored_once(db: &Arc<Db>, world: &World, what: &str) {
    for ((tenant, _), held) in tenants().iter().zip(world) {
        let stored: u64 = db.blocks(tenant).iter().map(|b| b.stats.samples).sum();
        assert_eq!(stored, held.samples(), "samples in blocks of tenant {tenant}: {what}");
    }
    let exemplars = world.iter().map(Contents::exemplars).sum::<u64>();
    assert_eq!(db.counts().stored_exemplars, exemplars, "exemplars: {what}");
}

/// A moment at which the power may go.
pub struct Moment {
    pub what: String,
    pub folder: Files,
    pub objects: InMemory,
    /// What was acknowledged by then.
    pub world: World,
}

/// A folder and its stores, which do as they are told.
pub struct Stores {
    pub dir: tempfile::TempDir,
    /// What is behind `remote`.
    pub objects: Arc<InMemory>,
    pub remote: Arc<FaultyStore>,
    /// Of the folder `sealed` in `dir`.
    pub local: Arc<FaultyStore>,
}

impl Stores {
    pub fn of(folder: &Files, objects: InMemory) -> Stores {
        let dir = held::folder(folder);
        let sealed = dir.path().join("sealed");
        fs::create_dir_all(&sealed).unwrap();
        let local = LocalFileSystem::new_with_prefix(sealed).unwrap().with_fsync(true);
        let objects = Arc::new(objects);
        let remote = Arc::new(FaultyStore::over(objects.clone()));
        Stores { dir, objects, remote, local: Arc::new(FaultyStore::over(Arc::new(local))) }
    }

    pub fn options(&self) -> DbOptions {
        let options = held::options(self.dir.path(), self.remote.clone());
        DbOptions { local_store: Some(self.local.clone()), ..options }
    }

    pub async fn open(&self) -> Arc<Db> {
        held::open(self.options()).await
    }

    pub fn moment(&self, what: String, world: &World) -> Moment {
        Moment { what, folder: files(self.dir.path()), objects: self.objects.fork(), world: world.clone() }
    }

    /// Ends all faults.
    pub fn calm(&self) {
        for store in [&self.remote, &self.local] {
            *store.on_put.lock().unwrap() = None;
        }
    }
}

impl Moment {
    /// The folder and the stores as they were, and what they hold.
    pub fn again(&self) -> (Stores, World) {
        (Stores::of(&self.folder, self.objects.fork()), self.world.clone())
    }
}

/// Runs all of them, some at once: most of it is waiting for a disk.
pub async fn side_by_side<F: Future<Output = ()> + Send + 'static>(all: impl IntoIterator<Item = F>) {
    let all = futures::stream::iter(all.into_iter().map(tokio::spawn));
    all.buffer_unordered(8).for_each(|done| async { done.unwrap() }).await;
}
