//! What the API needs from the process around it, handed in once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::http::request::Parts;
use model::clock::{Clock, SystemClock};
use model::exemplar::SeriesExemplars;
use model::head_stats::HeadStats;
use model::identity::Tenants;
use model::matcher::Matcher;
use model::sample::Metadata;
use model::source::{Budget, CoreShares, MemoryPool, Source, SourceError, TenantList};
use model::tenant::TenantId;
use model::tenant_limits::LimitsByTenant;
use tokio::sync::Semaphore;

use crate::api::active_queries::ActiveQueries;
use crate::api::at_once::LargeQueries;
use crate::api::error::ApiError;
use crate::api::metrics::Metrics;
use crate::api::notifications::Notifications;
use crate::api::parameters::form::Form;
use crate::api::parameters::replicas::Replicas;
use crate::api::progress::{ReloadStatus, ReplayProgress};
use crate::api::queue::Queue;
use crate::api::running::Running;
use crate::api::upkeep::{CostOrder, StoredCardinality, Upkeep};
use crate::engine::{Engine, EngineOptions};
use crate::results_cache::ResultsCache;

/// Whether the process can answer queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    Ready,
    /// The log is still being replayed.
    Starting,
    Stopping,
}

/// What is stored of a tenant, as this process knows it without asking the object store.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    pub blocks: Vec<StoredBlock>,
    /// `None` where this process has no head.
    pub head: Option<StoredHead>,
}

/// A block of the object store.
#[derive(Clone, Debug)]
pub struct StoredBlock {
    pub ulid: String,
    pub min_t_ms: i64,
    pub max_t_ms: i64,
    /// 0 for raw samples, else the length of its windows.
    pub resolution_ms: i64,
    pub level: u32,
    pub series: u64,
    /// Of a block of windows, their number.
    pub samples: u64,
    /// All of its files.
    pub bytes: u64,
    pub writer: String,
    pub approximate: bool,
}

/// The head of a tenant.
#[derive(Clone, Copy, Debug, Default)]
pub struct StoredHead {
    pub series: u64,
    pub min_t_ms: i64,
    pub max_t_ms: i64,
    /// Of the whole head, all tenants together.
    pub bytes: u64,
}

/// What an answer lacks that is given all the same, a sentence for each part, as known so far.
pub type Gaps = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

/// Storage as the API sees it. The calls may block; they are made from threads that may.
pub trait Storage: Send + Sync + 'static {
    /// One consistent view of all that a tenant has.
    fn source(&self, tenant: &TenantId) -> Arc<dyn Source>;

    /// The tenants that have anything, for requests about all of them.
    fn tenants(&self) -> TenantList {
        TenantList::default()
    }

    /// The same for who takes a part of it rather than an error where some cannot be read, and what lacks.
    fn source_in_part(&self, tenant: &TenantId) -> (Arc<dyn Source>, Gaps) {
        (self.source(tenant), Arc::new(Vec::new))
    }

    /// What is known of metrics, by name; `metric` narrows it to one. What the answer takes is reserved in
    /// the budget.
    fn metadata(
        &self,
        _tenant: &TenantId,
        _metric: Option<&str>,
        _budget: &Budget,
    ) -> Result<BTreeMap<String, Vec<Metadata>>, SourceError> {
        Ok(BTreeMap::new())
    }

    /// Exemplars of series that match any of the selectors, `min_t_ms` to `max_t_ms` both included, series in
    /// ascending order and none without an exemplar.
    fn exemplars(
        &self,
        _tenant: &TenantId,
        _selectors: &[Vec<Matcher>],
        _min_t_ms: i64,
        _max_t_ms: i64,
        _budget: &Budget,
    ) -> Result<Vec<SeriesExemplars>, SourceError> {
        Ok(Vec::new())
    }

    /// Figures of the head, its lists at most `limit` long.
    fn head_stats(&self, _tenant: &TenantId, _limit: usize) -> HeadStats {
        HeadStats::default()
    }

    /// What is there, in which blocks. Must not wait for the object store; the head may be as it was some
    /// seconds ago: this is asked with every letter that is typed into the page.
    fn stored(&self, _tenant: &TenantId) -> Stored {
        Stored::default()
    }

    /// What is hidden, damaged and on its way. Must not wait for the object store.
    fn upkeep(&self, _tenant: &TenantId) -> Upkeep {
        Upkeep::default()
    }

    /// What was counted last of the tenant's blocks, each list at most `limit` long and by `by`; begins to
    /// count anew where blocks have changed since. `None` where this process does not count. Must not wait.
    fn stored_cardinality(
        &self,
        _tenant: &TenantId,
        _limit: usize,
        _by: CostOrder,
    ) -> Option<StoredCardinality> {
        None
    }

    /// Hides the samples of series that match any of the selectors, `min_t_ms` to `max_t_ms` both included,
    /// in all that was written before the call. Returns when every new query sees it.
    fn delete_series(
        &self,
        _tenant: &TenantId,
        _selectors: &[Vec<Matcher>],
        _min_t_ms: i64,
        _max_t_ms: i64,
    ) -> Result<(), ChangeError> {
        Err(ChangeError::Refused("this process only reads: ask one that takes writes".into()))
    }

    /// Rewrites the blocks that hold deleted samples without them; returns when that is committed.
    fn clean_tombstones(&self, _tenant: &TenantId) -> Result<(), ChangeError> {
        Err(ChangeError::Refused("this process only reads: ask one that compacts".into()))
    }

    /// Makes a copy of everything that a store of its own can be opened on, without the newest samples where
    /// `skip_head` is set; its name.
    fn snapshot(&self, _skip_head: bool) -> Result<String, ChangeError> {
        Err(ChangeError::Refused("this process has no data folder of its own to copy".into()))
    }

    /// Asked for every request; must not block.
    fn readiness(&self) -> Readiness {
        Readiness::Ready
    }
}

/// Rules and alerts as the API shows them: the `data` of each answer as JSON, of what is in memory. Must not
/// block.
pub trait RulesView: Send + Sync + 'static {
    /// Of `/api/v1/rules`.
    fn rules(&self, tenant: &TenantId, form: &Form) -> Result<String, ApiError>;

    /// Of `/api/v1/alerts`.
    fn alerts(&self, tenant: &TenantId) -> String;

    /// Of `/api/v1/alertmanagers`.
    fn alertmanagers(&self) -> String;
}

/// Why the storage did not do what the admin API asked for. The text says whether anything was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// It does not work now: try again later.
    #[error("{0}")]
    Unavailable(String),
    /// It will not work as asked.
    #[error("{0}")]
    Refused(String),
}

/// From a request's head to the tenants whose data it is about; the error is what the client is answered.
/// Several only where [`crate::api::federates`] says that the route takes them.
pub type TenantResolver = Arc<dyn Fn(&Parts) -> Result<Tenants, ApiError> + Send + Sync>;

/// Every request belongs to the one default tenant.
pub fn single_tenant() -> TenantResolver {
    Arc::new(|_| Ok(Tenants::One(TenantId::single())))
}

/// `X-Scope-OrgID` names the tenant, as in Cortex and Mimir; without it the default tenant is meant.
pub fn tenant_from_header() -> TenantResolver {
    Arc::new(|parts| match parts.headers.get("x-scope-orgid") {
        None => Ok(Tenants::One(TenantId::single())),
        Some(name) => match name.to_str() {
            Ok(name) => TenantId::new(name).map(Tenants::One).map_err(|e| ApiError::bad_data(e.to_string())),
            Err(_) => Err(ApiError::bad_data("header X-Scope-OrgID is not ASCII text")),
        },
    })
}

/// Which web origins may call the API from a browser.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CorsOrigins {
    /// Upstream's default `.*`.
    #[default]
    Any,
    /// Exactly these, such as `https://grafana.example.org`.
    Only(Vec<String>),
    /// Those that satisfy a matcher; `None` for no origin.
    Matching(Option<Matcher>),
}

impl CorsOrigins {
    pub fn allows(&self, origin: &str) -> bool {
        match self {
            CorsOrigins::Any => true,
            CorsOrigins::Only(all) => all.iter().any(|o| o == origin),
            CorsOrigins::Matching(matcher) => matcher.as_ref().is_some_and(|m| m.matches(origin)),
        }
    }
}

/// Whether a feature is there and on, by category and name.
pub type Features = BTreeMap<String, BTreeMap<String, bool>>;

/// Limits on requests; those on evaluation are [`EngineOptions`]'.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Queries that run at once; more wait, and their wait counts towards their timeout.
    pub max_concurrency: usize,
    /// Most steps of a range query, less one, as upstream counts.
    pub max_points: i128,
    /// From how many bytes of rows on a range result is sent while it is computed. Below, an error that comes
    /// late still has a status.
    pub stream_from_bytes: u64,
    /// Longest form body.
    pub max_body_bytes: usize,
    /// Longest time for a form body to arrive.
    pub body_timeout: Duration,
    /// Bytes that results of range queries may take that are kept for the next time; 0: none are kept.
    pub results_cache_bytes: u64,
    /// How long a query that looks small may keep the thread that its request came in on, which serves others
    /// too.
    pub longest_at_once: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_concurrency: 20,
            max_points: 11_000,
            stream_from_bytes: 8 << 20,
            max_body_bytes: 4 << 20,
            body_timeout: Duration::from_secs(30),
            results_cache_bytes: 0,
            longest_at_once: Duration::from_millis(2),
        }
    }
}

/// What `status/buildinfo` shows. `version` is Prometheus' whose API and language this is: Grafana turns
/// features on by it.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BuildInfo {
    pub version: String,
    pub revision: String,
    pub branch: String,
    pub build_user: String,
    pub build_date: String,
    pub go_version: String,
    /// What Grafana looks at before it edits rules. With it, Grafana takes the data source for a Mimir.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub features: BTreeMap<&'static str, &'static str>,
}

impl Default for BuildInfo {
    fn default() -> Self {
        BuildInfo {
            version: "3.14.0".into(),
            revision: concat!("hearth-", env!("CARGO_PKG_VERSION")).into(),
            branch: "HEAD".into(),
            build_user: String::new(),
            build_date: String::new(),
            go_version: "none (Rust)".into(),
            features: BTreeMap::new(),
        }
    }
}

/// What `status/runtimeinfo`, `status/config` and `status/flags` show of the process.
#[derive(Clone, Debug, Default)]
pub struct ProcessInfo {
    pub cwd: String,
    pub hostname: String,
    pub started_ms: i64,
    /// As Prometheus writes it, such as `15d` or `forever`.
    pub storage_retention: String,
    /// The configuration in effect, secrets left out.
    pub config_yaml: String,
    pub flags: BTreeMap<String, String>,
}

/// How long a tenant's resolutions are kept, by their names, for people.
pub type RetentionTexts = Arc<dyn Fn(&TenantId) -> BTreeMap<String, String> + Send + Sync>;

/// Everything the API is made of.
pub struct ApiConfig {
    pub storage: Arc<dyn Storage>,
    pub metrics: Metrics,
    pub engine: EngineOptions,
    pub limits: Limits,
    pub tenants: TenantResolver,
    /// Limits of single tenants, beside those above for all.
    pub tenant_limits: LimitsByTenant,
    /// Where queries at work are noted, so that a crash leaves them behind; `None`: nowhere.
    pub active_queries: Option<ActiveQueries>,
    pub clock: Arc<dyn Clock>,
    pub cors: CorsOrigins,
    pub build: BuildInfo,
    pub process: ProcessInfo,
    pub retention: RetentionTexts,
    /// HA replicas, where a request says nothing of them.
    pub replicas: Replicas,
    /// Whether `admin/tsdb/*` does anything: upstream's `--web.enable-admin-api`.
    pub admin_api: bool,
    /// Names and ports under which this process is asked, for Thanos' `storeMatch[]`.
    pub addresses: Vec<String>,
    /// What `/federate` adds to series that lack these labels, names unique.
    pub external_labels: Vec<(String, String)>,
    /// What the process can do beside the query language, which is added.
    pub features: Features,
    /// Whether `search/*` answers: upstream's `--enable-feature=search-api`.
    pub search_api: bool,
    /// URL under which people reach this process, without a slash at its end; empty where it is not known.
    pub external_url: String,
    pub notifications: Notifications,
    /// How far the log was replayed.
    pub replay: Arc<ReplayProgress>,
    /// How the last reload of what can be reloaded ended.
    pub reload: Arc<ReloadStatus>,
    /// The process' own metrics as OpenMetrics text; called on threads that may block.
    pub own_metrics: Option<Arc<dyn Fn() -> String + Send + Sync>>,
    /// Who evaluates rules in this process, if anybody.
    pub rules: Option<Arc<dyn RulesView>>,
}

impl ApiConfig {
    /// Defaults around a storage.
    pub fn new(storage: Arc<dyn Storage>, metrics: Metrics) -> ApiConfig {
        ApiConfig {
            storage,
            metrics,
            engine: EngineOptions::default(),
            limits: Limits::default(),
            tenants: tenant_from_header(),
            tenant_limits: LimitsByTenant::default(),
            active_queries: None,
            clock: Arc::new(SystemClock),
            cors: CorsOrigins::default(),
            build: BuildInfo::default(),
            process: ProcessInfo::default(),
            retention: Arc::new(|_| BTreeMap::new()),
            replicas: Replicas::default(),
            admin_api: false,
            addresses: Vec::new(),
            external_labels: Vec::new(),
            features: Features::default(),
            search_api: false,
            external_url: String::new(),
            notifications: Notifications::default(),
            replay: Arc::default(),
            reload: Arc::default(),
            own_metrics: None,
            rules: None,
        }
    }
}

/// The state of the router. Cheap to clone.
#[derive(Clone)]
pub struct ApiState(pub(in crate::api) Arc<Inner>);

pub(in crate::api) struct Inner {
    pub config: ApiConfig,
    pub engine: Engine,
    /// Queries at work and the last that ended.
    pub running: Arc<Running>,
    /// Permits for queries, and others for label lookups, so that a dashboard's menus open while its panels
    /// compute.
    pub queries: Arc<Queue>,
    pub lookups: Arc<Queue>,
    /// Queries that have given their permit back while their client does not read; each still has a thread.
    pub waiting: Arc<Semaphore>,
    /// The cores, and which tenants compute on them.
    pub cores: Arc<CoreShares>,
    /// Queries that are not tried on the runtime's threads.
    pub large: LargeQueries,
    /// Results that are kept, if any are.
    pub results: Option<Arc<ResultsCache>>,
}

/// How many queries may wait for slow clients without a permit, for each permit.
const WAITING_PER_PERMIT: usize = 4;

impl ApiState {
    pub fn new(config: ApiConfig) -> ApiState {
        let permits = config.limits.max_concurrency.max(1);
        let waiting = permits.saturating_mul(WAITING_PER_PERMIT).min(Semaphore::MAX_PERMITS);
        let engine = Engine::new(config.engine.clone());
        config.metrics.watch(engine.memory());
        let results = match config.limits.results_cache_bytes {
            0 => None,
            bytes => Some(Arc::new(ResultsCache::new(bytes))),
        };
        results.iter().for_each(|results| config.metrics.watch_results(results));
        ApiState(Arc::new(Inner {
            engine,
            running: Arc::new(Running::new(config.active_queries.clone())),
            cores: CoreShares::new(std::thread::available_parallelism().map_or(1, usize::from)),
            large: LargeQueries::default(),
            results,
            waiting: Arc::new(Semaphore::new(waiting)),
            queries: Queue::new(permits),
            lookups: Queue::new(permits),
            config,
        }))
    }

    /// The memory that queries hold, for whoever watches the process.
    pub fn query_memory(&self) -> &Arc<MemoryPool> {
        self.0.engine.memory()
    }

    pub(in crate::api) fn config(&self) -> &ApiConfig {
        &self.0.config
    }
}
