//! The store as rules see it in a process without one: they read through members what a querier reads, and
//! write to ingesters.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use members::ingesters::{Ingesters, KnownMembers};
use members::source::FreshSource;
use model::source::Source;
use model::tenant::TenantId;
use rules::group::error::WriteError;
use rules::group::{Row, Storage};
use tokio::runtime::Handle;

use super::peers::Peers;
use crate::config::Settings;
use crate::config::value::Role;

/// How long an evaluation waits for an ingester that takes what it gave: one that is started again is back
/// by then.
const PATIENCE: Duration = Duration::from_secs(60);

/// See the module. Must be made within a runtime.
pub struct IngesterStorage {
    ingesters: Arc<Ingesters>,
    peers: Peers,
    /// Where to write; empty: every ingester there is.
    given: BTreeSet<String>,
    runtime: Handle,
}

impl IngesterStorage {
    pub fn new(ingesters: Arc<Ingesters>, peers: Peers, settings: &Settings) -> IngesterStorage {
        let given = settings.rules_write_urls.with_secrets().iter().cloned().collect();
        IngesterStorage { ingesters, peers, given, runtime: Handle::current() }
    }

    /// Where to write now. One that is late may be back in a moment: it is told what it missed.
    fn targets(&self, known: &KnownMembers) -> BTreeSet<String> {
        if !self.given.is_empty() {
            return self.given.clone();
        }
        let ingests = Role::Ingest.to_string();
        let ingesters = known.all().map(|seen| &seen.member).filter(|member| member.role == ingests);
        ingesters.map(|member| self.ingesters.address(member)).filter(|url| !url.is_empty()).collect()
    }
}

impl Storage for IngesterStorage {
    fn source(&self, tenant: &TenantId) -> Arc<dyn Source> {
        Arc::new(FreshSource::new(self.ingesters.clone(), tenant.clone(), None))
    }

    fn write(&self, tenant: &TenantId, rows: &[Row]) -> Result<Vec<(usize, String)>, WriteError> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let _runtime = self.runtime.enter();
        self.peers.set(self.targets(&self.ingesters.known()));
        let refused = self.runtime.block_on(self.peers.write(tenant, rows, PATIENCE));
        // Which sample it was is in the text; the others of the request are stored.
        Ok(refused.map_err(WriteError::new)?.into_iter().map(|why| (0, why)).collect())
    }
}
