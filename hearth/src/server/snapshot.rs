//! Snapshots of the data folder for backups: a folder of hard links that a Hearth of its own can be started
//! on.
//!
//! 1. The head becomes blocks, unless it is to be left out.
//! 2. For each tenant the newest snapshot of the catalog is read, what it names is linked, and then the
//!    snapshot itself is written, all of it (in the store it may be what it changes of another): whatever is
//!    written, replaced or removed meanwhile, the links hold what that one snapshot needs.
//! 3. The folder gets its name when all of it is on the disk. It has no log and no writer's name, so a Hearth
//!    that is started on it is another writer than the one it was taken from.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::tenant::TenantId;
use tsdb::catalog::{Catalog, CatalogOptions, Snapshot};
use tsdb::db::Db;
use tsdb::layout;
use ulid::Ulid;

/// How often a tenant is begun anew, whose blocks were removed while they were linked.
const ATTEMPTS: usize = 5;

/// Makes a snapshot below `data_dir/snapshots`; its name, as Prometheus forms it. `blocks` is the folder of
/// the object store.
pub async fn make(db: &Arc<Db>, data_dir: &Path, blocks: &Path, skip_head: bool) -> Result<String, String> {
    if !skip_head {
        db.flush()
            .await
            .map_err(|e| format!("no snapshot was made, because the head could not be flushed: {e}"))?;
    }
    let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
    let name = format!("{now}-{:016x}", Ulid::new().random() as u64);
    let folder = data_dir.join("snapshots");
    let under_way = folder.join(format!("{name}.partial"));
    let linked = link_all(db, blocks, &under_way.join("blocks")).await;
    let finished =
        linked.and_then(|()| finish(&under_way, &folder.join(&name)).map_err(|e| told(&under_way, &e)));
    match finished {
        Ok(()) => Ok(name),
        Err(why) => {
            // What is left of it has a name that says so.
            let _ = fs::remove_dir_all(&under_way);
            Err(format!("no snapshot was made: {why}"))
        }
    }
}

fn told(path: &Path, e: &io::Error) -> String {
    format!("{}: {e}", path.display())
}

async fn link_all(db: &Arc<Db>, from: &Path, to: &Path) -> Result<(), String> {
    fs::create_dir_all(to).map_err(|e| told(to, &e))?;
    let store = db.object_store();
    let tenants = Catalog::tenants(&*store).await.map_err(|e| e.to_string())?;
    for tenant in tenants {
        let mut attempt = 1;
        loop {
            let catalog =
                Catalog::open(store.clone(), tenant.clone(), db.writer(), CatalogOptions::default()).await;
            let snapshot = catalog.map_err(|e| e.to_string())?.snapshot();
            match link_tenant(&tenant, &snapshot, from, to) {
                Ok(()) => break,
                Err((_, e)) if e.kind() == io::ErrorKind::NotFound && attempt < ATTEMPTS => attempt += 1,
                Err((path, e)) => return Err(told(&path, &e)),
            }
        }
    }
    Ok(())
}

type PathError = (PathBuf, io::Error);

/// Links what a snapshot of the catalog names, and writes the snapshot.
fn link_tenant(tenant: &TenantId, snapshot: &Snapshot, from: &Path, to: &Path) -> Result<(), PathError> {
    if snapshot.number == 0 {
        return Ok(());
    }
    for block in &snapshot.blocks {
        link_folder(from, to, &layout::block(tenant, block.ulid))?;
    }
    for (kind, file) in snapshot.sidecars() {
        link(from, to, kind.path(tenant, file.ulid).as_ref() as &str)?;
    }
    // What was imported, so that it is not imported again.
    let imports = layout::imports(tenant);
    if from.join(imports.as_ref() as &str).is_dir() {
        link_folder(from, to, &imports)?;
    }
    let target = to.join(layout::snapshot(tenant, snapshot.number).as_ref() as &str);
    write(&target, &snapshot.to_json()).map_err(|e| (target, e))
}

/// Writes a file, durably but for its name.
fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut file = fs::File::create(path)?;
    file.write_all(text)?;
    file.sync_all()
}

/// Links a folder and what is below it.
fn link_folder(from: &Path, to: &Path, folder: &object_store::path::Path) -> Result<(), PathError> {
    let mut folders = vec![PathBuf::from(folder.as_ref() as &str)];
    while let Some(folder) = folders.pop() {
        let path = from.join(&folder);
        for entry in fs::read_dir(&path).map_err(|e| (path.clone(), e))? {
            let entry = entry.map_err(|e| (path.clone(), e))?;
            let name = folder.join(entry.file_name());
            match entry.file_type().map_err(|e| (entry.path(), e))?.is_dir() {
                true => folders.push(name),
                false => link(from, to, &name)?,
            }
        }
    }
    Ok(())
}

/// Links a file, or copies it where the file system has no links or the folders lie on two.
fn link(from: &Path, to: &Path, name: impl AsRef<Path>) -> Result<(), PathError> {
    let (source, target) = (from.join(name.as_ref()), to.join(name.as_ref()));
    if target.exists() {
        return Ok(());
    }
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent).map_err(|e| (parent.to_owned(), e))?;
    }
    match fs::hard_link(&source, &target) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err((source, e)),
        Err(_) => {
            let copied = fs::copy(&source, &target).and_then(|_| fs::File::open(&target)?.sync_all());
            copied.map_err(|e| (source, e))
        }
    }
}

/// Makes the names durable, from the innermost folder out, and gives the snapshot its own.
fn finish(under_way: &Path, finished: &Path) -> io::Result<()> {
    sync_folders(under_way)?;
    fs::rename(under_way, finished)?;
    match finished.parent() {
        Some(parent) => fs::File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn sync_folders(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_folders(&entry.path())?;
        }
    }
    fs::File::open(folder)?.sync_all()
}
