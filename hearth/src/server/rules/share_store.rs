//! The table of members and what they say of their groups, as objects of the bucket.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use rules::group::handover::States;
use rules::group::sharing::Table;
use tsdb::layout;

use crate::error_chain::error_chain;

/// Tables that stay. A member that reads on from a number must find the next one, or know that it was away
/// for long; at three tables a member and lease this is far more than a lease.
const TABLES_KEPT: u64 = 256;

/// How long the states of a process stay that is no member any more.
const STATES_KEPT: Duration = Duration::from_secs(24 * 3600);

/// The store did not answer, or not with what was written.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    #[error("{doing} {path}: {}", error_chain(source))]
    Store {
        doing: &'static str,
        path: Path,
        #[source]
        source: Error,
    },
    #[error("{path} is not what was written there: {source}")]
    Damaged {
        path: Path,
        #[source]
        source: serde_json::Error,
    },
}

/// A bucket as the place of the table and of what members say.
pub struct ShareStore {
    store: Arc<dyn ObjectStore>,
}

impl ShareStore {
    pub fn new(store: Arc<dyn ObjectStore>) -> ShareStore {
        ShareStore { store }
    }

    /// The newest table with its number; 0 and an empty one where there is none. `known` was the newest less
    /// than a lease ago; without it the folder is listed.
    pub async fn latest(&self, known: Option<(u64, Table)>) -> Result<(u64, Table), ShareError> {
        let (mut number, mut table) = match known {
            Some(known) => known,
            None => match self.newest_number().await? {
                0 => (0, Table::default()),
                number => (number, self.table(number).await?.unwrap_or_default()),
            },
        };
        while let Some(next) = self.table(number + 1).await? {
            (number, table) = (number + 1, next);
        }
        Ok((number, table))
    }

    /// Writes a table unless its number is taken; whether it is ours.
    pub async fn create(&self, number: u64, table: &Table) -> Result<bool, ShareError> {
        let path = layout::rule_table(number);
        let text = serde_json::to_vec(table).expect("numbers and texts always serialize");
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let ours = match self.store.put_opts(&path, PutPayload::from(text), options).await {
            Ok(_) => true,
            // Perhaps our own request, whose answer was lost and which was made again.
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {
                self.table(number).await?.is_some_and(|there| there == *table)
            }
            Err(source) => return Err(ShareError::Store { doing: "cannot write", path, source }),
        };
        if ours && let Some(old) = number.checked_sub(TABLES_KEPT).filter(|old| *old > 0) {
            // One that stays costs a line in a listing.
            let _ = self.store.delete(&layout::rule_table(old)).await;
        }
        Ok(ours)
    }

    /// What a member says of its groups; nothing where it has said nothing yet.
    pub async fn states_of(&self, member: &str) -> Result<States, ShareError> {
        Ok(self.read(&layout::rule_state(member)).await?.unwrap_or_default())
    }

    /// What all say that are members or were until a day ago, each under its name.
    pub async fn all_states(&self, table: &Table) -> Result<BTreeMap<String, States>, ShareError> {
        let folder = layout::rule_states();
        let listed = self.store.list(Some(&folder)).try_collect::<Vec<_>>().await;
        let listed =
            listed.map_err(|source| ShareError::Store { doing: "cannot list", path: folder, source })?;
        let newest = listed.iter().map(|object| object.last_modified).max();
        let mut all = BTreeMap::new();
        for object in listed {
            let Some(member) = object.location.filename().and_then(|name| name.strip_suffix(".json")) else {
                continue;
            };
            // By the store's own clock: the members write all the time.
            let age = newest.map(|newest| newest - object.last_modified);
            let old = age.and_then(|age| age.to_std().ok()).is_some_and(|age| age > STATES_KEPT);
            if old && !table.members.contains_key(member) {
                let _ = self.store.delete(&object.location).await;
                continue;
            }
            all.insert(member.to_owned(), self.states_of(member).await?);
        }
        Ok(all)
    }

    pub async fn put_states(&self, member: &str, states: &States) -> Result<(), ShareError> {
        let path = layout::rule_state(member);
        let text = serde_json::to_vec(states).expect("numbers and texts always serialize");
        match self.store.put(&path, PutPayload::from(text)).await {
            Ok(_) => Ok(()),
            Err(source) => Err(ShareError::Store { doing: "cannot write", path, source }),
        }
    }

    async fn newest_number(&self) -> Result<u64, ShareError> {
        let folder = layout::rule_tables();
        let listed = self.store.list(Some(&folder)).try_collect::<Vec<_>>().await;
        let listed =
            listed.map_err(|source| ShareError::Store { doing: "cannot list", path: folder, source })?;
        Ok(listed.iter().filter_map(|o| layout::snapshot_number(&o.location)).max().unwrap_or(0))
    }

    async fn table(&self, number: u64) -> Result<Option<Table>, ShareError> {
        self.read(&layout::rule_table(number)).await
    }

    async fn read<T: serde::de::DeserializeOwned>(&self, path: &Path) -> Result<Option<T>, ShareError> {
        let store = |source| ShareError::Store { doing: "cannot read", path: path.clone(), source };
        let bytes = match self.store.get(path).await {
            Ok(found) => found.bytes().await.map_err(store)?,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(e) => return Err(store(e)),
        };
        let read = serde_json::from_slice(&bytes);
        read.map(Some).map_err(|source| ShareError::Damaged { path: path.clone(), source })
    }
}
