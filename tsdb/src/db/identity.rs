//! Whose name a data folder's log has in the catalog: what tells a folder from its copy, and from its own
//! past.
//!
//! The name (the file `writer`) alone does not: it is copied with the folder, and a copy numbers its log's
//! segments as the first does. So every start is an *epoch*: one more than the last, with a token of its own,
//! written into the folder (`epoch`) and then created in the object store, where only one can. A folder that
//! does not hold the store's last epoch is a copy, or was put back from a backup: it is refused. And while it
//! runs, a process expects its watermarks as it left them ([`Watermarks`]): where a copy that started in the
//! meantime commits first, the other's commits fail, and its samples stay in its log.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use crate::catalog::Snapshot;
use crate::{layout, small_object};
use model::tenant::TenantId;

/// The file of the folder's last epoch.
const FILE: &str = "epoch";

/// What to do about a folder that is not the only one of its name.
const WAY_OUT: &str = "Make sure that no other Hearth uses it or a copy of it; then remove the file `writer` in this folder and start again: it gets \
                       a name of its own, and all that is still in its log and on its disk goes into the object store (what is there already is merged)";

/// One start of a folder's process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Epoch {
    number: u64,
    token: String,
}

/// Why a folder's next epoch could not be claimed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ClaimError {
    /// The store or the disk failed: it may pass.
    #[error("{0}")]
    Failed(String),
    /// The folder must not be used as it is; the text says what to do.
    #[error("{0}")]
    Refused(String),
}

/// Claims the next epoch of a folder; an error says why it must not be used and what to do.
pub(super) async fn claim(dir: &Path, store: &dyn ObjectStore, writer: &str) -> Result<u64, ClaimError> {
    let unusable = |e: object_store::Error| {
        ClaimError::Failed(format!(
            "cannot claim the name of the data folder {} in the object store: {e}",
            dir.display()
        ))
    };
    let known = read(dir).map_err(ClaimError::Refused)?;
    let folder = layout::writer_epochs(writer);
    let listed: Vec<_> = store.list(Some(&folder)).try_collect().await.map_err(unusable)?;
    let mut numbers: Vec<u64> = listed.iter().filter_map(|o| layout::snapshot_number(&o.location)).collect();
    numbers.sort_unstable();
    let last = numbers.last().copied().unwrap_or(0);
    let here = known.as_ref().map_or(0, |e| e.number);
    let taken_by_another = match here.cmp(&last) {
        std::cmp::Ordering::Less => true,
        std::cmp::Ordering::Equal if last > 0 => {
            token_of(store, writer, last).await.map_err(unusable)? != known.map(|e| e.token)
        }
        // About to be claimed when the process died, or the bucket is another.
        _ => false,
    };
    if taken_by_another {
        return Err(refusal(dir, writer, here, last));
    }
    let epoch = Epoch { number: here.max(last) + 1, token: Ulid::new().to_string() };
    // Before the store knows of it: whoever dies between the two finds its own token there.
    write(dir, &epoch)
        .map_err(|e| ClaimError::Failed(format!("cannot write to the data folder {}: {e}", dir.display())))?;
    let text = serde_json::to_vec(&epoch).expect("numbers and strings always serialize");
    let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    let put =
        store.put_opts(&layout::writer_epoch(writer, epoch.number), PutPayload::from(text), options).await;
    if let Err(e) = put {
        // Perhaps our own request, repeated by the client library.
        match token_of(store, writer, epoch.number).await.map_err(unusable)? {
            Some(token) if token == epoch.token => {}
            Some(_) => return Err(refusal(dir, writer, here, epoch.number)),
            None => return Err(unusable(e)),
        }
    }
    for number in numbers {
        // The last one speaks for all before it.
        let _ = store.delete(&layout::writer_epoch(writer, number)).await;
    }
    Ok(epoch.number)
}

fn refusal(dir: &Path, writer: &str, here: u64, last: u64) -> ClaimError {
    ClaimError::Refused(format!(
        "the data folder {} is a copy, or older than what is in the object store: it knows of start {here} of the name {writer}, and the store has start {last}. \
         Going on would lose samples. {WAY_OUT}",
        dir.display()
    ))
}

async fn token_of(
    store: &dyn ObjectStore,
    writer: &str,
    number: u64,
) -> object_store::Result<Option<String>> {
    let path = layout::writer_epoch(writer, number);
    let epoch = small_object::read(store, &path, |text| serde_json::from_slice::<Epoch>(text)).await?;
    Ok(epoch.and_then(Result::ok).map(|e| e.token))
}

fn read(dir: &Path) -> Result<Option<Epoch>, String> {
    let path = dir.join(FILE);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(format!("cannot read {}: {e}", path.display())),
    };
    serde_json::from_slice(&text).map(Some).map_err(|e| {
        format!(
            "{} cannot be understood, so it is not known whether this folder is a copy: {e}. {WAY_OUT}",
            path.display()
        )
    })
}

fn write(dir: &Path, epoch: &Epoch) -> std::io::Result<()> {
    let (path, new) = (dir.join(FILE), dir.join("epoch.new"));
    let mut file = File::create(&new)?;
    file.write_all(&serde_json::to_vec(epoch)?)?;
    file.sync_all()?;
    std::fs::rename(&new, &path)?;
    super::folder::sync_folder(dir)
}

/// What this process knows its own watermarks to be, by tenant: the last it saw or made, and those of commits
/// of which it never heard whether they were made.
#[derive(Debug, Default)]
pub(super) struct Watermarks(Mutex<HashMap<TenantId, Vec<Option<u64>>>>);

impl Watermarks {
    /// Those of a writer as the catalogs have them at the start.
    pub fn of(snapshots: &BTreeMap<TenantId, Arc<Snapshot>>, writer: &str) -> Watermarks {
        let watermarks = Watermarks::default();
        for (tenant, snapshot) in snapshots {
            watermarks.begin(tenant, snapshot.watermark(writer));
        }
        watermarks
    }

    /// Takes a tenant's as it is at the start.
    pub fn begin(&self, tenant: &TenantId, watermark: Option<u64>) {
        self.0.lock().insert(tenant.clone(), vec![watermark]);
    }

    /// What a commit is to find, given that it sets `next`.
    pub fn about_to_set(&self, tenant: &TenantId, next: u64) -> Vec<Option<u64>> {
        let mut all = self.0.lock();
        let of = all.entry(tenant.clone()).or_insert_with(|| vec![None]);
        let expected = of.clone();
        if !of.contains(&Some(next)) {
            of.push(Some(next));
        }
        expected
    }

    /// Whether a snapshot has one that another process made; the text says which, and what to do.
    pub fn check(
        &self,
        tenant: &TenantId,
        snapshot: &Snapshot,
        writer: &str,
        dir: &Path,
    ) -> Result<(), String> {
        let found = snapshot.watermark(writer);
        let all = self.0.lock();
        if all.get(tenant).map_or(found.is_none(), |of| of.contains(&found)) {
            return Ok(());
        }
        Err(fenced(tenant, writer, dir))
    }
}

/// Why a process may not commit any more.
pub(super) fn fenced(tenant: &TenantId, writer: &str, dir: &Path) -> String {
    format!(
        "another process has committed samples of tenant {tenant} under this one's name {writer}: the data folder {} was copied, and the copy is in use. \
         Nothing of what this process took is lost, it is in its log and on its disk, but it cannot go into the object store under this name. {WAY_OUT}",
        dir.display()
    )
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    fn copy(from: &Path) -> tempfile::TempDir {
        let to = tempfile::tempdir().unwrap();
        std::fs::copy(from.join(FILE), to.path().join(FILE)).unwrap();
        to
    }

    #[tokio::test]
    async fn folder_that_started_since_it_was_copied_refuses_the_copy() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let first = tempfile::tempdir().unwrap();
        assert_eq!(claim(first.path(), &*store, "w").await, Ok(1));
        let taken = copy(first.path());
        assert_eq!(claim(first.path(), &*store, "w").await, Ok(2));
        let refused = claim(taken.path(), &*store, "w").await.unwrap_err().to_string();
        assert!(refused.contains("is a copy, or older") && refused.contains("`writer`"), "{refused}");
        assert_eq!(claim(first.path(), &*store, "w").await, Ok(3), "the first goes on");
        // Of the other order the copy wins, and the folder itself is refused.
        let quicker = copy(first.path());
        assert_eq!(claim(quicker.path(), &*store, "w").await, Ok(4));
        assert!(claim(first.path(), &*store, "w").await.is_err());
    }

    #[tokio::test]
    async fn epoch_that_was_begun_and_not_claimed_is_the_folders_own() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let dir = tempfile::tempdir().unwrap();
        claim(dir.path(), &*store, "w").await.unwrap();
        // Died before the store knew of it, and after.
        let begun = Epoch { number: 2, token: "t".to_string() };
        write(dir.path(), &begun).unwrap();
        assert_eq!(claim(dir.path(), &*store, "w").await, Ok(3));
        let begun = Epoch { number: 4, token: "u".to_string() };
        write(dir.path(), &begun).unwrap();
        let text = serde_json::to_vec(&begun).unwrap();
        store.put(&layout::writer_epoch("w", 4), PutPayload::from(text)).await.unwrap();
        assert_eq!(claim(dir.path(), &*store, "w").await, Ok(5));
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(
            claim(dir.path(), &*store, "w").await.unwrap_err().to_string().contains("cannot be understood")
        );
    }
}
