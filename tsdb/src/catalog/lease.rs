//! Claims on work, for some time: so that processes which could do the same thing do not, most of the time.
//!
//! A lease is a folder of numbered epochs, each written with create-if-absent; the highest one speaks.
//! Whoever finds it run out (by its own clock) or given back creates the next epoch. Nothing may depend on a
//! lease being exclusive: clocks differ, and some stores ignore conditions. What must be exclusive is a
//! commit to the [catalog](crate::catalog); a lost lease costs work done twice.

use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use serde::{Deserialize, Serialize};

use crate::layout;
use crate::small_object;
use model::clock::Clock;
use model::tenant::TenantId;

/// A lease could not be read or written.
#[derive(Debug, thiserror::Error, Clone)]
#[error("cannot {what}: {cause}")]
pub struct LeaseError {
    /// What was to be done, with the object's path.
    what: String,
    #[source]
    cause: Arc<object_store::Error>,
}

impl LeaseError {
    fn new(what: String, cause: object_store::Error) -> LeaseError {
        LeaseError { what, cause: Arc::new(cause) }
    }
}

/// What an epoch says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Epoch {
    holder: String,
    /// When it runs out, in milliseconds; 0 when given back.
    expires_ms: i64,
}

/// A tenant's leases, as one holder sees them.
pub struct Leases {
    store: Arc<dyn ObjectStore>,
    clock: Arc<dyn Clock>,
    tenant: TenantId,
    holder: String,
}

/// A lease that is held until it runs out.
#[derive(Debug)]
pub struct Lease {
    name: String,
    number: u64,
}

impl Leases {
    pub fn new(store: Arc<dyn ObjectStore>, clock: Arc<dyn Clock>, tenant: TenantId, holder: &str) -> Leases {
        Leases { store, clock, tenant, holder: holder.to_string() }
    }

    /// Takes a lease for some time; `None` where another holds it. The name is one path segment: letters,
    /// digits and dashes.
    pub async fn take(&self, name: &str, length: Duration) -> Result<Option<Lease>, LeaseError> {
        let numbers = self.numbers(name).await?;
        let mut next = 1;
        if let Some(last) = numbers.last() {
            let held = self.read(name, *last).await?.is_some_and(|e| {
                // The same holder after a restart does not wait for itself.
                e.expires_ms > self.clock.now_ms() && e.holder != self.holder
            });
            if held {
                return Ok(None);
            }
            next = last + 1;
        }
        let lease = self.create(name, next, length).await?;
        if lease.is_some() {
            self.forget(name, &numbers).await;
        }
        Ok(lease)
    }

    /// Holds it for longer; `None` where another took it meanwhile.
    pub async fn renew(&self, lease: &Lease, length: Duration) -> Result<Option<Lease>, LeaseError> {
        let renewed = self.create(&lease.name, lease.number + 1, length).await?;
        if renewed.is_some() {
            self.forget(&lease.name, &[lease.number]).await;
        }
        Ok(renewed)
    }

    /// Gives it back. A failure only means that others wait until it runs out.
    pub async fn give_back(&self, lease: Lease) {
        let after = lease.number + 1;
        match self.write(&lease.name, after, &Epoch { holder: self.holder.clone(), expires_ms: 0 }).await {
            // The last epoch stays: numbers must not begin anew.
            Ok(_) => self.forget(&lease.name, &[lease.number]).await,
            Err(e) => tracing::debug!(lease = lease.name, "could not be given back, it will run out: {e}"),
        }
    }

    async fn create(&self, name: &str, number: u64, length: Duration) -> Result<Option<Lease>, LeaseError> {
        let length_ms = i64::try_from(length.as_millis()).unwrap_or(i64::MAX);
        let epoch =
            Epoch { holder: self.holder.clone(), expires_ms: self.clock.now_ms().saturating_add(length_ms) };
        let ours = self.write(name, number, &epoch).await?;
        Ok(ours.then(|| Lease { name: name.to_string(), number }))
    }

    /// Whether the epoch is ours afterwards.
    async fn write(&self, name: &str, number: u64, epoch: &Epoch) -> Result<bool, LeaseError> {
        let path = layout::lease(&self.tenant, name, number);
        let text = serde_json::to_vec(epoch).expect("numbers and strings always serialize");
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.store.put_opts(&path, PutPayload::from(text), options).await {
            Ok(_) => Ok(true),
            // Perhaps our own request, repeated by the client library.
            Err(_) => Ok(self.read(name, number).await?.is_some_and(|there| there == *epoch)),
        }
    }

    async fn read(&self, name: &str, number: u64) -> Result<Option<Epoch>, LeaseError> {
        let path = layout::lease(&self.tenant, name, number);
        let read = small_object::read(&*self.store, &path, |text| serde_json::from_slice(text)).await;
        // One that nobody understands holds nothing.
        Ok(read.map_err(|e| LeaseError::new(format!("read {path}"), e))?.and_then(Result::ok))
    }

    async fn numbers(&self, name: &str) -> Result<Vec<u64>, LeaseError> {
        let folder = layout::lease_folder(&self.tenant, name);
        let listed: Result<Vec<_>, _> = self.store.list(Some(&folder)).try_collect().await;
        let listed = listed.map_err(|e| LeaseError::new(format!("list {folder}"), e))?;
        let mut numbers: Vec<u64> =
            listed.iter().filter_map(|o| layout::snapshot_number(&o.location)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Removes epochs that no longer speak; what stays costs a line in a listing.
    async fn forget(&self, name: &str, numbers: &[u64]) {
        for number in numbers {
            let path: Path = layout::lease(&self.tenant, name, *number);
            let _ = self.store.delete(&path).await;
        }
    }
}
