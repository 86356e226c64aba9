//! Rules in this process: groups out of files and out of the bucket over the one store, their alerts to the
//! Alertmanagers, reloads, and sharing the groups with other processes.

mod bucket;
mod ingester_storage;
mod peers;
mod share_store;
mod sharing;
mod storage;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use members::ingesters::Ingesters;
use model::clock::Clock;
use model::tenant::TenantId;
use object_store::ObjectStore;
use parking_lot::Mutex;
use query::api::parameters::form::Form;
use query::api::{ApiError, RulesView, TenantResolver};
use query::engine::{Engine, EngineOptions};
use query::parse::ParseOptions;
use rules::alert::restore::Restore;
use rules::api::config::ConfigApi;
use rules::api::show;
use rules::api::store::{RuleStore, StoreError};
use rules::file::{FileOptions, parse_group};
use rules::group::environment::Environment;
use rules::group::handover::Handover;
use rules::group::progress::{Progress, id};
use rules::group::running::{Groups, RunOptions};
use rules::group::sharing::share_of;
use rules::group::side_by_side::SpareThreads;
use rules::group::view::GroupView;
use rules::group::{Alone, Defaults, Group, GroupKey, Ownership, Storage, load};
use rules::metrics::Metrics;
use rules::notifier::config::{self as alerting, Alerting};
use rules::notifier::{Limits, Notifier};
use rules::template::{External, SharedExternal};
use tokio::task::JoinHandle;
use tsdb::db::Db;

use self::bucket::BucketRules;
use self::ingester_storage::IngesterStorage;
use self::peers::{Credentials, Peers};
use self::share_store::ShareStore;
use self::sharing::Sharing;
use self::storage::RuleStorage;
use crate::auth::tenants::USUAL;
use crate::config::Settings;
use crate::secrets::redacted;
use crate::server::names;

/// How often it is looked whether another process has changed the rules in the bucket.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Below this a pause that is quite usual would cost the lease.
const SHORTEST_LEASE: Duration = Duration::from_secs(3);

/// What is read of rule files and the alerting file.
pub struct RuleFiles {
    groups: Vec<Group>,
    alerting: Alerting,
}

/// What of the settings has to do with reading.
#[derive(Clone)]
struct ReadSettings {
    settings: Settings,
    parse: ParseOptions,
}

impl ReadSettings {
    fn defaults(&self) -> Defaults {
        Defaults {
            interval_ms: self.settings.rules_interval.ms().max(1),
            query_offset_ms: self.settings.rules_query_offset.ms(),
        }
    }

    /// Reads everything; the error has all that is wrong, a line each.
    fn read(&self) -> Result<RuleFiles, String> {
        let mut wrong = Vec::new();
        let options = FileOptions { parse: self.parse, ..FileOptions::default() };
        let patterns = &self.settings.rule_files.0;
        let groups =
            load::load(patterns, &TenantId::single(), &self.defaults(), &options).unwrap_or_else(|errors| {
                wrong.extend(errors);
                Vec::new()
            });
        let mut read = Alerting::default();
        let file = &self.settings.rules_alerting_file.0;
        if !file.as_os_str().is_empty() {
            let shown = file.display();
            let folder = file.parent().unwrap_or(Path::new("."));
            match std::fs::read_to_string(file) {
                Ok(text) => match alerting::parse(&text, folder) {
                    Ok(parsed) => read = parsed,
                    Err(e) => wrong.push(format!("{shown}: {e}")),
                },
                Err(e) => wrong.push(format!("{shown}: {e}")),
            }
        }
        for url in self.settings.rules_alertmanagers.with_secrets() {
            match alerting::from_url(url) {
                Ok(set) => read.alertmanagers.push(set),
                Err(e) => wrong.push(redacted(&format!("rules.alertmanagers: {e}"))),
            }
        }
        if wrong.is_empty() { Ok(RuleFiles { groups, alerting: read }) } else { Err(wrong.join("\n")) }
    }
}

/// Reads rule files before anything is started, so that what is wrong with them is said first.
pub fn read_files(settings: &Settings, parse: &ParseOptions) -> Result<RuleFiles, String> {
    ReadSettings { settings: settings.clone(), parse: *parse }.read()
}

/// The rules of this process. Cheap to clone.
#[derive(Clone)]
pub struct Rules(Arc<Inner>);

struct Inner {
    read: Mutex<ReadSettings>,
    external: SharedExternal,
    address: SocketAddr,
    groups: Groups,
    notifier: Notifier,
    /// Of rule files.
    from_files: Mutex<Vec<Group>>,
    /// Of the bucket, as it was read last.
    from_bucket: Mutex<Vec<Group>>,
    bucket: Option<Arc<BucketRules>>,
    /// All groups, wherever they run.
    all: Mutex<Vec<Arc<Group>>>,
    /// Where other processes evaluate a part of the groups.
    sharing: Option<Arc<Sharing>>,
    taking_part: Mutex<Option<JoinHandle<()>>>,
    /// One reload at a time.
    reloading: tokio::sync::Mutex<()>,
}

impl Rules {
    /// Puts everything together; nothing is evaluated before [`Rules::start`].
    pub fn new(
        settings: &Settings,
        engine: EngineOptions,
        home: Home,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
        address: SocketAddr,
    ) -> Result<Rules, String> {
        let external = SharedExternal::from(external(settings, address));
        let limits = Limits { queue_capacity: settings.rules_queue.get(), ..Limits::default() };
        let notifier = Notifier::new(external.clone(), clock.clone(), metrics.clone(), limits);
        let parse = engine.parse;
        let sharing = match home.shares(settings) {
            true => Some(sharing(settings, &home, &clock, address, metrics.clone())?),
            false => None,
        };
        let ownership: Arc<dyn Ownership> = match &sharing {
            Some((sharing, _)) => sharing.clone(),
            None => Arc::new(Alone),
        };
        let peers = sharing.as_ref().map(|(_, peers)| peers.clone());
        // How far groups are is in the bucket then: others may have gone on with them.
        let progress =
            sharing.is_none().then(|| Progress::new(settings.data_dir.0.join("rules").join("slots.json")));
        let environment = Environment {
            engine: Engine::new(engine),
            storage: home.storage(settings, peers)?,
            notify: Arc::new(notifier.clone()),
            clock,
            external: external.clone(),
            restore: Restore {
                outage_tolerance_ms: settings.rules_outage_tolerance.ms(),
                grace_period_ms: settings.rules_for_grace.ms(),
            },
            resend_delay_ms: settings.rules_resend_delay.ms(),
            metrics,
            ownership,
            spare: SpareThreads::new(settings.rules_concurrent_evals.get() - 1),
        };
        let options = RunOptions {
            concurrency: settings.rules_concurrency.get(),
            max_fill_age_ms: settings.rules_backfill.ms(),
            progress,
        };
        let bucket = settings.rules_config_api.then(|| Arc::new(BucketRules::new(home.store())));
        Ok(Rules(Arc::new(Inner {
            read: Mutex::new(ReadSettings { settings: settings.clone(), parse }),
            external,
            address,
            groups: Groups::new(environment, options),
            notifier,
            from_files: Mutex::default(),
            from_bucket: Mutex::default(),
            bucket,
            all: Mutex::default(),
            sharing: sharing.map(|(sharing, _)| sharing),
            taking_part: Mutex::default(),
            reloading: tokio::sync::Mutex::default(),
        })))
    }

    /// Begins with what was read, and with what is in the bucket.
    pub async fn start(&self, files: RuleFiles) {
        self.0.notifier.configure(files.alerting);
        *self.0.from_files.lock() = files.groups;
        self.apply().await;
        if let Some(sharing) = &self.0.sharing {
            let (of_states, of_apply) = (self.clone(), self.clone());
            let states = move || of_states.0.groups.states();
            let apply = move || {
                let rules = of_apply.clone();
                async move { rules.apply().await }
            };
            let taking_part = tokio::spawn(sharing.clone().run(states, apply));
            *self.0.taking_part.lock() = Some(taking_part);
        }
        if self.0.bucket.is_some() {
            let rules = self.clone();
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(LOOK_EVERY).await;
                    rules.apply().await;
                }
            });
        }
    }

    /// Reads all files again, as these settings say. Where something is wrong with any, everything stays as
    /// it was.
    pub async fn reload(&self, settings: &Settings) -> Result<(), String> {
        let parse = self.0.read.lock().parse;
        let read = ReadSettings { settings: settings.clone(), parse };
        let reading = read.clone();
        let files = tokio::task::spawn_blocking(move || reading.read())
            .await
            .map_err(|e| format!("reading the rule files ended unexpectedly: {e}"))?
            .map_err(|e| format!("error loading rules, previous rule set restored: {e}"))?;
        *self.0.read.lock() = read;
        self.0.external.set(external(settings, self.0.address));
        self.0.notifier.configure(files.alerting);
        *self.0.from_files.lock() = files.groups;
        self.apply().await;
        Ok(())
    }

    /// Makes the groups of files and bucket the ones that run. A bucket that does not answer leaves those
    /// of it that run.
    async fn apply(&self) {
        let _alone = self.0.reloading.lock().await;
        if let Some(bucket) = &self.0.bucket {
            match self.stored(bucket).await {
                Ok(stored) => *self.0.from_bucket.lock() = stored,
                Err(e) => tracing::warn!("rules in the bucket could not be read, those known run on: {e}"),
            }
        }
        let mut groups = self.0.from_files.lock().clone();
        let known: HashSet<GroupKey> = groups.iter().map(|g| g.key.clone()).collect();
        // A namespace may be called as a file is; then the file's group of a name is the one that runs.
        let stored = self.0.from_bucket.lock().clone();
        groups.extend(stored.into_iter().filter(|g| !known.contains(&g.key)));
        *self.0.all.lock() = groups.iter().cloned().map(Arc::new).collect();
        match &self.0.sharing {
            None => self.0.groups.reload(groups).await,
            Some(sharing) => self.apply_part(sharing, groups).await,
        }
    }

    /// Makes those of all groups run that fall to this process. While it cannot be read how far others came
    /// with them, everything stays as it is.
    async fn apply_part(&self, sharing: &Sharing, groups: Vec<Group>) {
        let wanted = sharing.wanted();
        let states = match sharing.known_states().await {
            Ok(states) => states,
            Err(e) => {
                tracing::warn!("it is not known how far other processes came with rules, trying again: {e}");
                sharing.not_applied();
                return;
            }
        };
        let (own, others): (Vec<Group>, Vec<Group>) =
            groups.into_iter().partition(|group| wanted.contains(&share_of(&group.key)));
        let elsewhere = others.into_iter().map(|group| group.key).collect();
        self.0.groups.reload_shared(own, Some(Handover { states, elsewhere })).await;
        sharing.applied(wanted);
    }

    /// All groups of all tenants in the bucket.
    async fn stored(&self, bucket: &BucketRules) -> Result<Vec<Group>, StoreError> {
        let (parse, defaults) = {
            let read = self.0.read.lock();
            (read.parse, read.defaults())
        };
        let options = FileOptions { strict: false, mimir_keys: true, parse };
        let mut groups = Vec::new();
        for tenant in bucket.tenants().await? {
            for (namespace, of_namespace) in bucket.list(&tenant).await? {
                for text in of_namespace.values() {
                    let made = parse_group(text, &options)
                        .map_err(|e| e.first().map(ToString::to_string).unwrap_or_default())
                        .and_then(|spec| Group::new(tenant.clone(), &namespace, spec, &defaults, &parse));
                    match made {
                        Ok(group) => groups.push(group),
                        Err(why) => {
                            tracing::warn!(
                                tenant = tenant.as_str(),
                                namespace,
                                "a stored group cannot be run: {why}"
                            );
                        }
                    }
                }
            }
        }
        Ok(groups)
    }

    /// The routes of the configuration API, if it is on.
    pub fn config_router(&self, tenants: TenantResolver) -> Router {
        let Some(bucket) = &self.0.bucket else { return Router::new() };
        let rules = self.clone();
        rules::api::config::router(ConfigApi {
            store: bucket.clone(),
            tenants,
            parse: self.0.read.lock().parse,
            changed: Arc::new(move |_| {
                let rules = rules.clone();
                tokio::spawn(async move { rules.apply().await });
            }),
        })
    }

    /// Ends evaluation, then hands out what waits for Alertmanagers.
    pub async fn stop(&self, patience: Duration) {
        if let Some(sharing) = &self.0.sharing {
            sharing.stop();
            let taking_part = self.0.taking_part.lock().take();
            if let Some(taking_part) = taking_part {
                let _ = taking_part.await;
            }
        }
        self.0.groups.stop().await;
        if let Some(sharing) = &self.0.sharing {
            sharing.leave(&self.0.groups.states()).await;
        }
        self.0.notifier.drain(patience).await;
    }

    /// A tenant's groups, ascending by file and name: those of other processes as they showed them last.
    fn of_tenant(&self, tenant: &TenantId) -> Vec<Arc<GroupView>> {
        let mut views = self.0.groups.views();
        views.retain(|v| v.group.key.tenant == *tenant);
        let Some(sharing) = &self.0.sharing else { return views };
        let here: HashSet<GroupKey> = views.iter().map(|v| v.group.key.clone()).collect();
        let states = sharing.states_of_others();
        for group in self.0.all.lock().iter().filter(|g| g.key.tenant == *tenant && !here.contains(&g.key)) {
            let state = states.get(&id(&group.key)).cloned().unwrap_or_default();
            views.push(Arc::new(state.view(group.clone())));
        }
        views.sort_by(|a, b| a.group.key.cmp(&b.group.key));
        views
    }
}

impl RulesView for Rules {
    fn rules(&self, tenant: &TenantId, form: &Form) -> Result<String, ApiError> {
        show::rules(&self.of_tenant(tenant), form)
    }

    fn alerts(&self, tenant: &TenantId) -> String {
        show::alerts(&self.of_tenant(tenant))
    }

    fn alertmanagers(&self) -> String {
        show::alertmanagers(&self.0.notifier.alertmanagers())
    }
}

/// Where rules of this process read and write.
pub enum Home {
    /// A store of its own.
    Own(Arc<Db>),
    /// The bucket and the ingesters on it. `name` is that of the process, new with every start.
    Members { ingesters: Arc<Ingesters>, store: Arc<dyn ObjectStore>, name: String },
}

impl Home {
    fn store(&self) -> Arc<dyn ObjectStore> {
        match self {
            Home::Own(db) => db.object_store(),
            Home::Members { store, .. } => store.clone(),
        }
    }

    fn name(&self) -> &str {
        match self {
            Home::Own(db) => db.writer(),
            Home::Members { name, .. } => name,
        }
    }

    /// Whether groups are shared with other processes. Without a folder, what groups came to has to be in
    /// the bucket.
    fn shares(&self, settings: &Settings) -> bool {
        settings.rules_share || matches!(self, Home::Members { .. })
    }

    fn storage(&self, settings: &Settings, peers: Option<Peers>) -> Result<Arc<dyn Storage>, String> {
        Ok(match self {
            Home::Own(db) => Arc::new(RuleStorage::new(db.clone(), settings, peers)),
            Home::Members { ingesters, .. } => {
                Arc::new(IngesterStorage::new(ingesters.clone(), others(settings)?, settings))
            }
        })
    }
}

/// What writes to other processes.
fn others(settings: &Settings) -> Result<Peers, String> {
    let file = |path: &Path| (!path.as_os_str().is_empty()).then(|| path.to_owned());
    // Where identities are asked for, the usual header names the tenant as well.
    let usual = file(&settings.auth_file.0).map(|_| USUAL[0].to_string());
    let credentials = Credentials {
        tenant_header: settings.tenant_header.0.as_ref().map(ToString::to_string).or(usual),
        token_file: file(&settings.rules_share_token_file.0),
    };
    Peers::new(credentials).map_err(|e| format!("cannot make a client for other members: {e}"))
}

/// What shares the groups with other processes, and what tells them what rules write.
fn sharing(
    settings: &Settings,
    home: &Home,
    clock: &Arc<dyn Clock>,
    address: SocketAddr,
    metrics: Metrics,
) -> Result<(Arc<Sharing>, Peers), String> {
    let lease = settings.rules_share_lease.0;
    if lease < SHORTEST_LEASE {
        return Err(format!(
            "rules.share_lease: {lease:?} is too short: {SHORTEST_LEASE:?} or more is needed"
        ));
    }
    let peers = others(settings)?;
    let url = match settings.rules_share_url.with_secrets() {
        "" => names::own_url(settings, address),
        given => given.to_owned(),
    };
    let store = ShareStore::new(home.store());
    let sharing = Sharing::new(store, home.name(), url, lease, clock.clone(), peers.clone(), metrics);
    Ok((Arc::new(sharing), peers))
}

/// What alerts and templates know of this process.
fn external(settings: &Settings, address: SocketAddr) -> External {
    External {
        labels: Arc::new(settings.rules_external_labels.0.clone()),
        url: names::external_url(settings, address),
    }
}
