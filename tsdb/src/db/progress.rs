//! How far a data folder has come: what of its log is accounted for and how new each tenant's catalog was, so
//! that a start notices what has gone since.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::OpenError;
use crate::catalog::Snapshot;
use crate::wal::replay::Replayed;
use model::tenant::TenantId;

/// What is remembered, as it lies in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct State {
    /// Every segment of the log up to this is in the object store, or had nothing in it.
    pub accounted: u64,
    /// The newest segment that is known to have been created.
    pub last_segment: u64,
    /// Tenant → number of the newest snapshot of its catalog that was seen.
    pub snapshots: BTreeMap<String, u64>,
}

/// Remembers, in a file of the data folder.
pub(crate) struct Progress {
    path: PathBuf,
    state: Mutex<State>,
}

impl Progress {
    /// Reads what the process before remembered; `None` in its place where there is no such file, as in the
    /// folder of an earlier version. One that cannot be read is logged and counts as missing: it only helps
    /// to notice what is gone.
    pub fn open(dir: &Path) -> (Progress, Option<State>) {
        let path = dir.join("progress.json");
        let read = match std::fs::read(&path) {
            Ok(text) => match serde_json::from_slice::<State>(&text) {
                Ok(state) => Some(state),
                Err(e) => {
                    tracing::error!(
                        "{} is damaged, what is gone from the folder is not noticed: {e}",
                        path.display()
                    );
                    None
                }
            },
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => {
                tracing::error!(
                    "{} cannot be read, what is gone from the folder is not noticed: {e}",
                    path.display()
                );
                None
            }
        };
        let state = Mutex::new(read.clone().unwrap_or_default());
        (Progress { path, state }, read)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Changes what is remembered, and writes it down where it is other than before. Blocks the thread.
    pub fn update(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        let mut next = state.clone();
        change(&mut next);
        if next == *state {
            return;
        }
        if let Err(e) = self.write(&next) {
            // The next change writes all of it again.
            tracing::warn!("{} cannot be written: {e}", self.path.display());
            return;
        }
        *state = next;
    }

    fn write(&self, state: &State) -> std::io::Result<()> {
        let new = self.path.with_extension("json.new");
        let mut file = std::fs::File::create(&new)?;
        file.write_all(&serde_json::to_vec(state)?)?;
        file.sync_all()?;
        std::fs::rename(&new, &self.path)?;
        std::fs::File::open(self.path.parent().unwrap_or(Path::new(".")))?.sync_all()
    }
}

/// The segments that should be there and are not: after `accounted`, up to `last`, neither in the log nor in
/// local blocks (ranges with both ends included).
pub(crate) fn missing(accounted: u64, last: u64, log: &[u64], local: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut present: BTreeSet<(u64, u64)> = log.iter().map(|n| (*n, *n)).collect();
    present.extend(local);
    let mut missing = Vec::new();
    let mut next = accounted.saturating_add(1);
    for (from, to) in present {
        if from > next {
            missing.push((next, from - 1));
        }
        next = next.max(to.saturating_add(1));
    }
    if next <= last {
        missing.push((next, last));
    }
    missing
}

/// Tenants whose catalog is older than it was: the number of the snapshot that was seen, and that of the
/// newest there is (0: none).
pub(crate) fn moved_backwards(
    seen: &BTreeMap<String, u64>,
    now: impl Fn(&str) -> u64,
) -> Vec<(String, u64, u64)> {
    seen.iter()
        .map(|(tenant, number)| (tenant.clone(), *number, now(tenant)))
        .filter(|(_, seen, now)| now < seen)
        .collect()
}

/// Refuses to go on where a tenant's catalog is older than this folder has seen it: what it named then is in
/// no query, and compaction would remove it as left over.
pub(super) fn refuse_older_catalog(
    progress: &Progress,
    known: Option<&State>,
    snapshots: &BTreeMap<TenantId, Arc<Snapshot>>,
) -> Result<(), OpenError> {
    let Some(known) = known else { return Ok(()) };
    let now = |tenant: &str| {
        snapshots.iter().find(|(id, _)| id.as_str() == tenant).map_or(0, |(_, snapshot)| snapshot.number)
    };
    let backwards = moved_backwards(&known.snapshots, now);
    let Some((tenant, seen, now)) = backwards.first() else { return Ok(()) };
    Err(OpenError::mend(format!(
        "the catalog of tenant {tenant}{} is older than it was: this folder has seen its snapshot {seen}, the newest in the object store is {now} (0: none). \
         Blocks that only the newer one names would be taken for left over and removed. Restore the catalog (or the bucket) as it was; if what is gone \
         may stay gone, remove {} and start again",
        if backwards.len() > 1 { format!(" (and of {} more)", backwards.len() - 1) } else { String::new() },
        progress.path().display()
    )))
}

/// Notes how new the catalogs are.
pub(super) fn note_snapshots(state: &mut State, snapshots: &BTreeMap<TenantId, Arc<Snapshot>>) {
    for (tenant, snapshot) in snapshots {
        state.snapshots.insert(tenant.to_string(), snapshot.number);
    }
}

/// Segments whose header was durable once, and that have none any more: all in them is lost.
pub(super) fn emptied_segments(known: Option<&State>, replayed: &Replayed) -> u64 {
    let last = known.map_or(0, |known| known.last_segment);
    let emptied: Vec<_> = replayed.without_header.iter().filter(|number| **number <= last).collect();
    if !emptied.is_empty() {
        tracing::error!(
            "segments {emptied:?} of the log are empty or lost their beginning, which was on the disk once: what was acknowledged in them is lost"
        );
    }
    emptied.len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_segments_are_those_in_no_place() {
        assert_eq!(missing(0, 3, &[1, 2, 3], &[]), []);
        assert_eq!(missing(4, 9, &[8, 9], &[(5, 6), (7, 7)]), []);
        assert_eq!(missing(4, 9, &[8, 9], &[(5, 6)]), [(7, 7)]);
        assert_eq!(missing(4, 9, &[5, 8], &[(2, 4)]), [(6, 7), (9, 9)]);
        assert_eq!(missing(9, 9, &[3], &[(1, 2)]), [], "what was not removed yet is no gap");
        assert_eq!(missing(0, 5, &[], &[]), [(1, 5)]);
        assert_eq!(missing(u64::MAX, 5, &[], &[]), []);
    }

    #[test]
    fn catalogs_that_are_older_than_they_were_are_named() {
        let seen = BTreeMap::from([("a".to_string(), 7), ("b".to_string(), 2), ("c".to_string(), 1)]);
        let now = |tenant: &str| match tenant {
            "a" => 6,
            "b" => 3,
            _ => 0,
        };
        assert_eq!(moved_backwards(&seen, now), [("a".to_string(), 7, 6), ("c".to_string(), 1, 0)]);
    }
}
