//! This process in the roster: its record is written before it does anything that others have to know of,
//! again and again, and withdrawn when nothing is owed any more.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use members::ingesters::NEWCOMERS_WAIT;
use members::roster::{self, Member, RosterError};
use model::clock::Clock;
use object_store::ObjectStore;
use tsdb::db::Db;
use tsdb::db::owed::TellOwed;

/// How long a write waits until others are told that it is older than what they know of.
const TELL_WITHIN: Duration = Duration::from_secs(5);

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Membership(Arc<Inner>);

struct Inner {
    store: Arc<dyn ObjectStore>,
    clock: Arc<dyn Clock>,
    /// The record as it is written; `None` once nothing is to be written any more.
    record: tokio::sync::Mutex<Option<Member>>,
    interval: Duration,
    name: String,
    /// What this process holds that is not in the bucket.
    db: OnceLock<Weak<Db>>,
}

impl Membership {
    /// Writes the record, and from now on every interval.
    pub async fn begin(
        store: Arc<dyn ObjectStore>,
        clock: Arc<dyn Clock>,
        member: Member,
    ) -> Result<Membership, RosterError> {
        let interval = Duration::from_millis(member.interval_ms.max(100));
        let name = member.name.clone();
        let record = tokio::sync::Mutex::new(Some(member));
        let membership =
            Membership(Arc::new(Inner { store, clock, record, interval, name, db: OnceLock::new() }));
        membership.beat().await?;
        let beating = Arc::downgrade(&membership.0);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(interval).await;
                let Some(inner) = beating.upgrade() else { return };
                if let Err(e) = Membership(inner).beat().await {
                    tracing::warn!("other members are not told that this process is here: {e}");
                }
            }
        });
        Ok(membership)
    }

    /// Joins as one that takes samples. One that nobody knew to owe any waits until all have read the roster
    /// again: a sample that is acknowledged is seen by every query after it. `waiting` is told for how long.
    pub async fn owe(
        store: Arc<dyn ObjectStore>,
        clock: Arc<dyn Clock>,
        member: Member,
        waiting: impl FnOnce(Duration),
    ) -> Result<Membership, RosterError> {
        let known = roster::read(&*store, &member.name).await?.is_some_and(|before| before.owes);
        let membership = Membership::begin(store, clock, Member { owes: true, ..member }).await?;
        if !known {
            // One more, because a roster is read some time after its reader began.
            let patience = membership.0.interval * (NEWCOMERS_WAIT + 1);
            waiting(patience);
            tokio::time::sleep(patience).await;
        }
        Ok(membership)
    }

    /// From now on the record says from which time on this process may hold samples: others can do without
    /// it, where it is away, for what is older.
    pub fn say_what_is_owed(&self, db: &Arc<Db>) {
        if self.0.db.set(Arc::downgrade(db)).is_ok() {
            db.tell_owed(Arc::new(self.clone()));
        }
    }

    fn db(&self) -> Option<Arc<Db>> {
        self.0.db.get().and_then(Weak::upgrade)
    }

    async fn beat(&self) -> Result<(), RosterError> {
        let db = self.db();
        if let Some(db) = &db {
            // Before the record is held: a write may wait for that while it keeps this from going on.
            db.raise_owed_from().await;
        }
        let mut record = self.0.record.lock().await;
        let Some(member) = &mut *record else { return Ok(()) };
        member.beat_ms = self.0.clock.now_ms();
        member.owes_from_ms = db.and_then(|db| db.owed_from_ms());
        roster::write(&*self.0.store, member).await
    }

    /// Says that all samples are in the bucket; the process takes no more.
    pub async fn withdraw(&self) -> Result<(), RosterError> {
        let mut record = self.0.record.lock().await;
        let Some(mut member) = record.take() else { return Ok(()) };
        (member.owes, member.beat_ms) = (false, self.0.clock.now_ms());
        roster::write(&*self.0.store, &member).await
    }

    /// Leaves the record as it is, for a process that ends and owes samples.
    pub async fn fall_silent(&self) {
        self.0.record.lock().await.take();
    }

    /// Takes the record away, for a process that never owed anything.
    pub async fn leave(&self) {
        self.fall_silent().await;
        if let Err(e) = roster::forget(&*self.0.store, &self.0.name).await {
            tracing::debug!("the record of this process stays for an hour: {e}");
        }
    }
}

#[async_trait::async_trait]
impl TellOwed for Membership {
    async fn tell_owed_from(&self, t_ms: i64) -> Result<(), String> {
        let told = async {
            let mut record = self.0.record.lock().await;
            let Some(member) = &mut *record else { return Ok(()) };
            let before = member.owes_from_ms.unwrap_or(i64::MIN);
            member.owes_from_ms = Some(before.min(t_ms));
            roster::write(&*self.0.store, member).await?;
            if let Some(db) = self.db() {
                db.lower_owed_from(t_ms);
            }
            Ok::<_, RosterError>(())
        };
        let told = tokio::time::timeout(TELL_WITHIN, told).await;
        let late = |_| format!("the bucket did not answer within {TELL_WITHIN:?}");
        told.map_err(late)?.map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::clock::SystemClock;
    use object_store::memory::InMemory;

    #[tokio::test]
    async fn member_that_is_new_waits_and_one_that_owes_does_not() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let member = Member { interval_ms: 100, ..Member::new("a", "ingest", "http://a") };
        let join = |told: Arc<parking_lot::Mutex<Option<Duration>>>| {
            let waiting = move |patience| *told.lock() = Some(patience);
            Membership::owe(store.clone(), clock.clone(), member.clone(), waiting)
        };
        let told = Arc::new(parking_lot::Mutex::default());
        let first = join(told.clone()).await.unwrap();
        assert_eq!(told.lock().take(), Some(Duration::from_millis(300)));
        first.fall_silent().await;
        let again = join(told.clone()).await.unwrap();
        assert_eq!(*told.lock(), None, "it is known to owe samples");
        again.withdraw().await.unwrap();
        assert!(!roster::read(&*store, "a").await.unwrap().unwrap().owes);
        drop(join(told.clone()).await.unwrap());
        assert!(told.lock().is_some(), "it owed nothing in between");
    }
}
