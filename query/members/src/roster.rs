//! Who takes part: one small object in the bucket for each process, which it writes anew at every beat.
//!
//! A record is a debt where its process takes samples: what it has not flushed is nowhere else. It is
//! withdrawn after the last flush, or by an operator who gives those samples up. A record that is old says
//! that its process is away, not that nothing is owed.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutPayload};
use serde::{Deserialize, Serialize};
use tsdb::{layout, small_object};

/// The version of records that this code writes and reads.
const VERSION: u32 = 1;

/// Records that are read at the same time, and the most that are believed: beyond it something else writes
/// into the folder.
const READ_AT_ONCE: usize = 16;
const MOST: usize = 10_000;

/// How long the record of a process stays that is away and owes nothing.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);

/// What a process says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub version: u32,
    /// The name of its data folder's log in catalogs; of a process without a folder, a name of its own.
    pub name: String,
    /// `all`, `ingest`, `query`, `compact`.
    pub role: String,
    /// URL under which other processes reach it, without a slash at its end.
    pub address: String,
    /// Where it runs, for people; may be empty.
    pub zone: String,
    /// Members that each take the whole stream of samples have one name here; empty: nobody else has what
    /// this one has.
    pub replica_group: String,
    /// Whether it holds, or may hold, samples that are not in the bucket.
    pub owes: bool,
    /// Nothing older than this, in milliseconds, is among them; `None`: they may be of all times. It is taken
    /// back before an older sample is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owes_from_ms: Option<i64>,
    /// When it started and when it wrote this, in milliseconds by its own clock.
    pub started_ms: i64,
    pub beat_ms: i64,
    /// How often it writes this, in milliseconds.
    pub interval_ms: u64,
    /// The program's version, for people.
    pub hearth: String,
}

impl Member {
    /// A member of this version of records.
    pub fn new(name: &str, role: &str, address: &str) -> Member {
        Member {
            version: VERSION,
            name: name.to_owned(),
            role: role.to_owned(),
            address: address.to_owned(),
            zone: String::new(),
            replica_group: String::new(),
            owes: false,
            owes_from_ms: None,
            started_ms: 0,
            beat_ms: 0,
            interval_ms: 10_000,
            hearth: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// A member's record, and how old it is by the store's clock against the newest of all records.
#[derive(Clone, Debug)]
pub struct Seen {
    pub member: Member,
    pub age: Duration,
}

impl Seen {
    /// Whether it has missed some beats.
    pub fn is_late(&self) -> bool {
        self.age > Duration::from_millis(self.member.interval_ms.saturating_mul(3)) + Duration::from_secs(1)
    }
}

/// The roster could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RosterError {
    #[error("cannot {doing} {path}: {source}")]
    Store {
        doing: &'static str,
        path: Path,
        #[source]
        source: Error,
    },
    #[error(
        "{path} cannot be understood: {what}. If its process is gone for good, `hearth bucket forget` its name"
    )]
    Damaged { path: Path, what: String },
    #[error("there are more than {MOST} objects in {0}: something else writes there")]
    TooMany(Path),
}

/// Writes a member's record.
pub async fn write(store: &dyn ObjectStore, member: &Member) -> Result<(), RosterError> {
    let path = layout::member(&member.name);
    let text = serde_json::to_vec(member).expect("numbers and texts always serialize");
    let put = store.put(&path, PutPayload::from(text)).await;
    put.map(drop).map_err(|source| RosterError::Store { doing: "write", path, source })
}

/// One member's record; `None` where there is none.
pub async fn read(store: &dyn ObjectStore, name: &str) -> Result<Option<Member>, RosterError> {
    let path = layout::member(name);
    let found = small_object::read(store, &path, |text| understand(&path, name, text)).await;
    found.map_err(|source| RosterError::Store { doing: "read", path, source })?.transpose()
}

fn understand(path: &Path, name: &str, text: &[u8]) -> Result<Member, RosterError> {
    let damaged = |what: String| RosterError::Damaged { path: path.clone(), what };
    let member: Member = serde_json::from_slice(text).map_err(|e| damaged(e.to_string()))?;
    if member.version != VERSION {
        return Err(damaged(format!(
            "it is of version {}, this Hearth reads {VERSION}: upgrade the older",
            member.version
        )));
    }
    if member.name != name {
        return Err(damaged(format!("it speaks of {:?}", member.name)));
    }
    Ok(member)
}

/// All records, ascending by name: one LIST, and a GET for each.
pub async fn read_all(store: &dyn ObjectStore) -> Result<Vec<Seen>, RosterError> {
    let folder = layout::members();
    let listed = store.list(Some(&folder)).take(MOST + 1).try_collect::<Vec<_>>().await;
    let listed =
        listed.map_err(|source| RosterError::Store { doing: "list", path: folder.clone(), source })?;
    if listed.len() > MOST {
        return Err(RosterError::TooMany(folder));
    }
    let newest = listed.iter().map(|o| o.last_modified).max();
    let mut reads = Vec::new();
    for object in &listed {
        let Some(name) = layout::member_of_path(&object.location) else { continue };
        let age = newest.and_then(|newest| (newest - object.last_modified).to_std().ok()).unwrap_or_default();
        reads.push(async move { Ok(read(store, &name).await?.map(|member| Seen { member, age })) });
    }
    let mut reads = futures::stream::iter(reads).buffer_unordered(READ_AT_ONCE);
    let mut all = Vec::new();
    while let Some(seen) = reads.next().await {
        // One that is gone since the listing was withdrawn or forgotten.
        all.extend(seen?);
    }
    all.sort_by(|a: &Seen, b: &Seen| a.member.name.cmp(&b.member.name));
    Ok(all)
}

/// Removes a member's record; what it owes is given up. `false` where there is none.
pub async fn forget(store: &dyn ObjectStore, name: &str) -> Result<bool, RosterError> {
    let path = layout::member(name);
    let failed = |source| RosterError::Store { doing: "remove", path: layout::member(name), source };
    match store.head(&path).await {
        Ok(_) => {}
        Err(Error::NotFound { .. }) => return Ok(false),
        Err(e) => return Err(failed(e)),
    }
    match store.delete(&path).await {
        Ok(()) | Err(Error::NotFound { .. }) => Ok(true),
        Err(e) => Err(failed(e)),
    }
}

/// Removes the records of processes that are long away and owe nothing. One that stays costs a line in a
/// listing.
pub async fn sweep(store: &dyn ObjectStore, all: &[Seen]) {
    for seen in all.iter().filter(|s| !s.member.owes && s.age > FORGOTTEN_AFTER) {
        let _ = store.delete(&layout::member(&seen.member.name)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::memory::InMemory;

    #[tokio::test]
    async fn roster_tells_who_is_there_until_they_are_forgotten() {
        let store = InMemory::new();
        assert!(read_all(&store).await.unwrap().is_empty());
        let mut a = Member::new("a", "ingest", "http://a:1");
        a.owes = true;
        let b = Member::new("b", "query", "http://b:1");
        for member in [&b, &a] {
            write(&store, member).await.unwrap();
        }
        let all: Vec<Member> = read_all(&store).await.unwrap().into_iter().map(|s| s.member).collect();
        assert_eq!(all, [a.clone(), b]);
        assert!(forget(&store, "a").await.unwrap());
        assert!(!forget(&store, "a").await.unwrap());
        assert_eq!(read(&store, "a").await.unwrap(), None);
    }

    #[tokio::test]
    async fn roster_with_a_record_that_nobody_understands_is_no_roster() {
        let store = InMemory::new();
        let mut newer = Member::new("a", "ingest", "http://a:1");
        newer.version = 2;
        for (text, says) in [
            (b"{".to_vec(), "cannot be understood"),
            (serde_json::to_vec(&newer).unwrap(), "version 2"),
            (serde_json::to_vec(&Member::new("b", "ingest", "")).unwrap(), "speaks of \"b\""),
        ] {
            store.put(&layout::member("a"), PutPayload::from(text)).await.unwrap();
            let why = read_all(&store).await.unwrap_err().to_string();
            assert!(why.contains(says), "{why}");
        }
    }
}
