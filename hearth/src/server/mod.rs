//! One server process from listening to exit.

pub mod compaction;
pub mod disk_cache;
pub mod identity;
mod lifecycle;
pub mod limits;
pub mod listening;
pub mod many;
mod memory_limit;
mod memory_watch;
mod names;
mod prometheus_words;
mod query_storage;
mod reload;
pub mod retention;
mod rules;
mod snapshot;
mod stored_cardinality;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use compactor::worker::Compactor;
use ingest::http::IngestState;
use model::backoff::Backoff;
use model::clock::{Clock, SystemClock};
use model::tenant_limits::LimitsByTenant;
use object_store::ObjectStore;
use parking_lot::RwLock;
use prometheus_client::registry::Registry;
use query::api::active_queries::ActiveQueries;
use query::api::{ApiConfig, ApiState, CorsOrigins, TenantResolver};
use query::engine::EngineOptions;
use query::parse::ParseOptions;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, watch};
use tsdb::bucket::maintenance::{BucketMaintenance, Patience};
use tsdb::catalog::Commits;
use tsdb::db::{Db, DbOptions, OpenError, RetentionOf};

use self::lifecycle::Lifecycle;
use self::limits::LiveLimits;
use self::listening::Listening;
use self::many::Membership;
use self::memory_limit::MemoryPlan;
use self::query_storage::{QueryStorage, RecentHeads};
pub use self::reload::ReadSettings;
use self::reload::Reload;
use self::retention::Retention;
use self::rules::Rules;
use self::stored_cardinality::StoredCounts;
use crate::config::value::Role;
use crate::config::{self, Loaded, Origin, Settings};
use crate::error_chain::error_chain;
use crate::http::Server;
use crate::http::guard::Guard;
use crate::http::listener::{self, Bounds};
use crate::metrics::limits::{FileStatus, LimitMetrics};
use crate::metrics::process;
use crate::metrics::self_metrics::SelfMetrics;
use crate::metrics::store::StoreMetrics;
use crate::objstore::{self, Location};
use crate::profiles;
use crate::secrets::redacted;
use crate::traces;

/// Why a process ended other than well.
pub enum Failure {
    /// It could not start: something for the person who started it.
    Start(String),
    /// It could not stop cleanly.
    Stop(String),
}

/// Pauses between attempts to open the store.
pub const FIRST_PAUSE: Duration = Duration::from_millis(500);
pub const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// How long an ingester has what a flush has committed: a querier's snapshot may be as old as twice the pause
/// between two looks at the catalogs, and its query may take as long as queries may.
pub const KEEP_COMMITTED: Duration = Duration::from_secs(300);

/// Exit code after a second signal: 128 + SIGTERM, as a shell shows it.
const EXIT_AT_ONCE: i32 = 143;

/// Runs until a signal; `read` reads the settings again, for a reload. Blocks the calling thread.
pub fn run(loaded: Loaded, read: ReadSettings, location: Location) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("hearth").build();
    let runtime = runtime.map_err(|e| Failure::Start(format!("cannot start threads: {e}")))?;
    let result = match loaded.settings.role {
        Role::Query | Role::Rules => runtime.block_on(many::serve(&loaded, read, &location)),
        _ => runtime.block_on(serve(&loaded, read, location)),
    };
    // What still runs after the deadline (a query on a blocking thread) does not hold up the exit.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

async fn serve(loaded: &Loaded, read: ReadSettings, location: Location) -> Result<(), Failure> {
    let settings = &loaded.settings;
    let mut signals =
        Signals::install().map_err(|e| Failure::Start(format!("cannot listen for signals: {e}")))?;
    let mut registry = Registry::default();
    process::register(&mut registry);
    let listening = Listening::begin(settings, registry, settings.role).await.map_err(Failure::Start)?;
    let (web, address) = (listening.web.clone(), listening.address);
    let quit = Arc::new(Notify::new());
    let opening = open_with_patience(loaded, &read, &location, &web, address, &quit);
    let Opened { db, compactor, rules, reload, membership } = tokio::select! {
        opened = opening => opened.map_err(Failure::Start)?,
        name = signals.next() => {
            tracing::info!("{name} while opening: stopping");
            return Ok(());
        }
    };
    crate::say(banner(settings, &location, address));
    tokio::spawn(traces::export(address.to_string()));

    let name = signals.end(&quit, Some(&reload)).await;
    tracing::info!(
        "{name}: stopping, requests in flight have {} (again: exit at once)",
        settings.shutdown_timeout
    );
    tokio::spawn(async move {
        signals.next().await;
        crate::complain("second signal: exiting at once; the log has everything that was acknowledged");
        std::process::exit(EXIT_AT_ONCE);
    });
    web.stop();
    // A job that runs is given up: its inputs stay as they are.
    compactor.iter().for_each(|c| c.stop());
    if let Some(membership) = membership {
        hand_over(loaded, &db, &membership).await?;
    }
    listening.drain().await;
    // After the last write that rules could have read, before the store that they write to.
    rules.stop(settings.shutdown_timeout.0).await;
    if settings.role == Role::Ingest {
        // It has handed over what it had.
        traces::flush(&address.to_string()).await;
        tracing::info!("stopped");
        return Ok(());
    }
    if settings.shutdown_flush {
        tracing::info!("turning the head into blocks");
    }
    db.close(settings.shutdown_flush).await.map_err(|e| {
        Failure::Stop(format!(
            "the store did not close cleanly: {e}. Nothing acknowledged is lost: the log has it"
        ))
    })?;
    traces::flush(&address.to_string()).await;
    tracing::info!("stopped");
    Ok(())
}

/// Ends taking samples while queriers still read what is here: it is flushed, and when the bucket has all,
/// the others are told that nothing is owed any more.
async fn hand_over(loaded: &Loaded, db: &Arc<Db>, membership: &Membership) -> Result<(), Failure> {
    let flush = flushes_at_end(loaded);
    if flush {
        tracing::info!("no more writes: turning the head into blocks, so that nobody misses this process");
    }
    if let Err(e) = db.close(flush).await {
        membership.fall_silent().await;
        return Err(Failure::Stop(format!(
            "what this process holds could not be handed over: {e}. Nothing acknowledged is lost: the log has it, and queries name this process until it is back"
        )));
    }
    match flush {
        false => membership.fall_silent().await,
        true => {
            if let Err(e) = membership.withdraw().await {
                tracing::warn!("queries name this process until it is back, although it owes nothing: {e}");
            }
        }
    }
    Ok(())
}

/// Whether the head becomes blocks at the end: as the settings say, and where they say nothing in an
/// ingester, whose samples others wait for.
fn flushes_at_end(loaded: &Loaded) -> bool {
    let at = config::TABLE.iter().position(|option| option.key == "shutdown.flush");
    let is_said = at.and_then(|at| loaded.origins.get(at)).is_some_and(|origin| *origin != Origin::Default);
    match loaded.settings.role {
        Role::Ingest if !is_said => true,
        _ => loaded.settings.shutdown_flush,
    }
}

/// Ends when the process is to stop.
pub async fn until(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is an end as well.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// What bounds the HTTP server, as the settings and the operating system say.
pub fn bounds(settings: &Settings) -> Bounds {
    Bounds {
        max_connections: listener::connections_that_fit(
            settings.max_connections.get(),
            listener::raise_file_limit(),
        ),
        header_timeout: settings.header_timeout.0,
        write_timeout: settings.write_timeout.0,
        max_connection_age: settings.max_connection_age.0,
        max_url_bytes: settings.max_url.bytes(),
        drain_timeout: settings.shutdown_timeout.0,
    }
}

/// Which requests of browsers are turned away, as the settings say.
pub fn guard(settings: &Settings) -> Guard {
    let origins = settings.write_origins.matcher.clone();
    Guard::new(origins, &settings.allowed_hosts.0, &settings.listen.host)
}

/// What is open while the process runs.
struct Opened {
    db: Arc<Db>,
    compactor: Option<Arc<Compactor>>,
    rules: Rules,
    reload: Reload,
    /// In a process that others read from.
    membership: Option<Membership>,
}

/// Opens the store, again and again where what is in the way may pass by itself: an object store, a
/// coordinator or the former process that still has the folder. `/-/ready` says what for.
async fn open_with_patience(
    loaded: &Loaded,
    read: &ReadSettings,
    location: &Location,
    web: &Server,
    address: SocketAddr,
    quit: &Arc<Notify>,
) -> Result<Opened, String> {
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    loop {
        match open(loaded, read, location, web, address, quit.clone()).await {
            Ok(opened) => return Ok(opened),
            Err(e) if e.passes() => {
                // The next attempt opens the folder anew.
                web.open_to_members(None);
                let why = redacted(&e.to_string());
                tracing::warn!("the store cannot be opened yet, trying again: {why}");
                web.wait_for(&why);
                tokio::time::sleep(backoff.next_pause()).await;
            }
            Err(e) => return Err(redacted(&e.to_string())),
        }
    }
}

/// Opens the store and joins the roles to the server.
async fn open(
    loaded: &Loaded,
    read: &ReadSettings,
    location: &Location,
    web: &Server,
    address: SocketAddr,
    quit: Arc<Notify>,
) -> Result<Opened, OpenError> {
    let settings = &loaded.settings;
    // What is wrong with it should be said before anything is opened.
    if let Some(warning) = MemoryPlan::of(settings).warning() {
        tracing::warn!("{warning}");
    }
    let read_limits = config::limits::load(settings).map_err(|e| OpenError::mend(error_chain(&e)))?;
    read_limits.warnings.iter().take(20).for_each(|warning| tracing::warn!("{warning}"));
    let keep = retention::with_limits(compaction::keep(settings), &read_limits.limits);
    let tenant_limits = LimitsByTenant::new(read_limits.limits);
    let compaction = compaction::settings(settings, keep.clone()).map_err(OpenError::mend)?;
    let engine = engine_options(settings);
    let rule_files = rules::read_files(settings, &engine.parse).map_err(OpenError::mend)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let base_limits = ingest_limits(settings, compaction::longest_raw_ms(&keep));
    let retention = Retention::new(keep);
    let kept = retention.clone();
    let db = open_db(settings, &retention, location, web, clock.clone()).await?;
    let (tenant_of_write, tenants_of_query) = identity::resolvers();
    let ingest_metrics = web.register(ingest::metrics::Metrics::register);
    let ingest = IngestState::new(db.clone(), base_limits, clock.clone(), tenant_of_write, ingest_metrics)
        .with_tenant_limits(tenant_limits.clone());
    let mut roles = ingest::http::router(ingest.clone());
    let mut compactor = None;
    if settings.compactor_enabled && settings.role == Role::All {
        let worker = compactor_of(&db, compaction, web, clock.clone())?;
        roles = roles.merge(compaction::router(worker.clone()));
        compactor = Some(worker);
    }
    let storage = QueryStorage {
        db: db.clone(),
        web: web.clone(),
        compactor: compactor.clone(),
        data_dir: settings.data_dir.0.clone(),
        location: location.clone(),
        heads: RecentHeads::default(),
        counts: StoredCounts::new(db.clone(), clock.clone(), tokio::runtime::Handle::current()),
        runtime: tokio::runtime::Handle::current(),
    };
    let rule_metrics = web.register(::rules::metrics::Metrics::register);
    let home = rules::Home::Own(db.clone());
    let rules = Rules::new(settings, engine, home, clock.clone(), rule_metrics, address);
    let rules = rules.map_err(OpenError::mend)?;
    let file: Arc<FileStatus> = Arc::default();
    let metrics = LimitMetrics { limits: tenant_limits.clone(), file: file.clone() };
    web.register(|r| r.register_collector(Box::new(metrics)));
    web.register(|r| MemoryPlan::of(settings).register(r));
    let live_limits = LiveLimits::new(limits::Parts {
        limits: tenant_limits.clone(),
        settings: RwLock::new(settings.clone()),
        file,
        retention,
        ingest,
        compactor: compactor.clone(),
        clock: clock.clone(),
    });
    roles = roles.merge(live_limits.router());
    tokio::spawn(live_limits.clone().watch());
    let reload = Reload::new(reload::Parts {
        started: settings.clone(),
        read: read.clone(),
        rules: rules.clone(),
        limits: Some(live_limits),
        clock: clock.clone(),
        notifications: web.notifications().clone(),
        status: Arc::default(),
        metrics: web.register(|r| reload::Metrics::register(r, &*clock)),
    });
    if settings.role == Role::All {
        let mut api = api_config(loaded, Arc::new(storage), web, clock.clone(), tenants_of_query, &kept);
        api.rules = Some(Arc::new(rules.clone()));
        api.tenant_limits = tenant_limits;
        api.active_queries = active_queries(&settings.data_dir.0);
        api.reload = reload.status();
        api.addresses = names::addresses(settings, address);
        api.external_url = names::external_url(settings, address);
        roles = roles.merge(rules.config_router(api.tenants.clone()));
        let api = ApiState::new(api);
        tokio::spawn(memory_watch::watch(MemoryPlan::of(settings), api.query_memory().clone()));
        roles = roles.merge(query::api::router(api));
    } else {
        roles = roles.merge(many::router(settings, &db));
    }
    roles = roles.merge(profiles::router(settings.admin_api, web.clone()));
    roles = roles.merge(lifecycle::router(Lifecycle {
        enabled: settings.enable_lifecycle,
        reload: reload.clone(),
        quit,
        ending: Arc::default(),
    }));
    let membership = match settings.role {
        Role::Ingest => Some(join(settings, &db, web, address, &clock).await?),
        _ => None,
    };
    let own = SelfMetrics { server: web.clone(), db: db.clone(), clock, instance: address.to_string() };
    record(own, settings.self_metrics_interval.0).await;
    // Who asks once the process is ready sees the groups.
    rules.start(rule_files).await;
    web.open(roles, db.clone());
    if let Some(worker) = compactor.clone() {
        tokio::spawn(compact(worker, db.clone()));
    }
    Ok(Opened { db, compactor, rules, reload, membership })
}

/// Tells other members that this process holds samples from now on, before it takes any.
async fn join(
    settings: &Settings,
    db: &Arc<Db>,
    web: &Server,
    address: SocketAddr,
    clock: &Arc<dyn Clock>,
) -> Result<Membership, OpenError> {
    let member = many::member(settings, db.writer(), address, &**clock);
    let waiting = |patience: Duration| {
        let text = format!(
            "nobody knew of this ingester: it takes samples in {patience:?}, when all have read who takes part"
        );
        tracing::info!("{text}");
        web.wait_for(&text);
    };
    // Whoever hears of this process asks it, also while it waits.
    web.open_to_members(Some(many::router(settings, db)));
    let joined = Membership::owe(db.object_store(), clock.clone(), member, waiting).await;
    let membership = joined.map_err(|e| OpenError::wait(e.to_string()))?;
    membership.say_what_is_owed(db);
    Ok(membership)
}

/// The file of queries at work; says which ones the process before was at when it crashed. Queries run
/// without it too.
fn active_queries(data_dir: &Path) -> Option<ActiveQueries> {
    let path = data_dir.join("queries.active");
    let file = match ActiveQueries::open(&path) {
        Ok(file) => file,
        Err(e) => {
            tracing::warn!(
                "{} cannot be used, a crash will not leave its queries there: {e}",
                path.display()
            );
            return None;
        }
    };
    for query in file.unfinished() {
        tracing::warn!(
            tenant = query.tenant,
            endpoint = query.endpoint,
            started_ms = query.started_ms,
            "this query did not end in the last run: {}",
            query.query
        );
    }
    Some(file)
}

/// Opens the store of samples in the bucket and the data folder, and shows what it holds.
async fn open_db(
    settings: &Settings,
    retention: &Retention,
    location: &Location,
    web: &Server,
    clock: Arc<dyn Clock>,
) -> Result<Arc<Db>, OpenError> {
    let store = objstore::open(location, settings).map_err(OpenError::mend)?;
    objstore::reach(location, settings).await?;
    let commits = objstore::commits(location, settings).map_err(OpenError::mend)?;
    let replay = web.replay().clone();
    let options = DbOptions {
        replaying: Arc::new(move |first, last, current| replay.set(first, last, current)),
        disk_cache: disk_cache::open(settings, web).map_err(OpenError::mend)?,
        ..db_options(settings, retention, store, commits, clock)
    };
    let db = Db::open(options).await?;
    web.register(|r| r.register_collector(Box::new(StoreMetrics::new(&db))));
    Ok(db)
}

/// The compactor of this process.
fn compactor_of(
    db: &Db,
    settings: compactor::settings::Settings,
    web: &Server,
    clock: Arc<dyn Clock>,
) -> Result<Arc<Compactor>, OpenError> {
    let maintenance = BucketMaintenance::new(db.object_store(), clock, Patience::default());
    let metrics = web.register(compactor::metrics::Metrics::register);
    Compactor::new(maintenance, settings, db.writer(), metrics).map(Arc::new).map_err(OpenError::mend)
}

/// Writes the server's own metrics into itself, now and at an interval; zero is never.
async fn record(own: SelfMetrics, every: Duration) {
    if every.is_zero() {
        return;
    }
    // A disk that is full says so here and again in answers to writes; queries work all the same.
    if let Err(e) = own.write().await {
        tracing::warn!("own metrics could not be written: {e}");
    }
    tokio::spawn(own.run(every));
}

/// Compacts for ever; queries see what it committed at once.
async fn compact(worker: Arc<Compactor>, db: Arc<Db>) {
    let changed = || {
        let db = db.clone();
        async move {
            if let Err(e) = db.refresh().await {
                tracing::debug!(
                    "the catalog could not be read after compaction, it will be in a minute: {e}"
                );
            }
        }
    };
    worker.run(changed).await;
}

/// What the settings say of the store of samples.
fn db_options(
    settings: &Settings,
    retention: &Retention,
    store: Arc<dyn ObjectStore>,
    commits: Commits,
    clock: Arc<dyn Clock>,
) -> DbOptions {
    let memory = MemoryPlan::of(settings);
    DbOptions {
        window_ms: settings.head_window.ms(),
        flush_sealed: settings.head_flush_sealed,
        log_sync: settings.wal_sync.0,
        clock,
        max_head_bytes: memory.head,
        cache_bytes: usize::try_from(memory.cache).unwrap_or(usize::MAX),
        commits,
        keep_committed: match settings.role {
            Role::Ingest => KEEP_COMMITTED,
            _ => Duration::ZERO,
        },
        exemplar_bytes: memory.exemplars,
        exemplar_keep_ms: Some(settings.exemplars_retention.ms()).filter(|ms| *ms > 0),
        retention_delay_ms: settings.retention_delay.ms(),
        metadata_keep_ms: Some(settings.metadata_retention.ms()).filter(|ms| *ms > 0),
        rules: retention_rules(retention),
        ..DbOptions::new(&settings.data_dir.0, store)
    }
}

/// The rules of retention that queries apply, by tenant.
pub fn retention_rules(retention: &Retention) -> RetentionOf {
    let retention = retention.clone();
    Arc::new(move |tenant| Arc::new(retention.get().rules_of(tenant)))
}

/// What the API is made of, over a storage.
pub fn api_config(
    loaded: &Loaded,
    storage: Arc<dyn query::api::Storage>,
    web: &Server,
    clock: Arc<dyn Clock>,
    tenants: TenantResolver,
    keep: &Retention,
) -> ApiConfig {
    let keep = keep.clone();
    let settings = &loaded.settings;
    let metrics = web.register(query::api::Metrics::new);
    let own = web.clone();
    let retention = settings.retention.to_string();
    ApiConfig {
        engine: engine_options(settings),
        limits: query::api::Limits {
            max_concurrency: settings.query_max_concurrency.get(),
            max_points: settings.query_max_points.0.into(),
            results_cache_bytes: MemoryPlan::of(settings).results_cache,
            // Three bytes of a form for each of a text, and something for the other parameters.
            max_body_bytes: settings.query_max_text.bytes().saturating_mul(3).saturating_add(1 << 20),
            ..query::api::Limits::default()
        },
        cors: match settings.cors_origin.pattern.as_str() {
            ".*" => CorsOrigins::Any,
            _ => CorsOrigins::Matching(settings.cors_origin.matcher.clone()),
        },
        tenants,
        replicas: query::api::Replicas {
            labels: settings.query_replica_labels.0.clone(),
            mode: match settings.query_dedup_mode {
                config::value::Dedup::Hearth => model::source::dedup::DedupMode::Hearth,
                config::value::Dedup::Thanos => model::source::dedup::DedupMode::Thanos,
            },
        },
        process: query::api::ProcessInfo {
            cwd: std::env::current_dir().map_or_else(|_| String::new(), |d| d.display().to_string()),
            hostname: std::fs::read_to_string("/proc/sys/kernel/hostname")
                .unwrap_or_default()
                .trim()
                .to_owned(),
            started_ms: clock.now_ms(),
            storage_retention: if retention == "0" { "forever".to_owned() } else { retention },
            config_yaml: prometheus_words::config(loaded),
            flags: prometheus_words::flags(settings),
        },
        retention: Arc::new(move |tenant| retention::texts_of(&keep.get(), tenant)),
        clock,
        admin_api: settings.admin_api,
        search_api: settings.enable_feature.has("search-api"),
        features: prometheus_words::features(settings),
        external_labels: settings.rules_external_labels.0.clone().into_iter().collect(),
        notifications: web.notifications().clone(),
        replay: web.replay().clone(),
        own_metrics: Some(Arc::new(move || own.metrics_text_blocking())),
        build: query::api::BuildInfo {
            features: match settings.rules_config_api {
                true => [("ruler_config_api", "true")].into(),
                false => Default::default(),
            },
            ..Default::default()
        },
        ..ApiConfig::new(storage, metrics)
    }
}

/// How queries run, whoever asks them.
pub fn engine_options(settings: &Settings) -> EngineOptions {
    let on = |feature| settings.enable_feature.has(feature);
    EngineOptions {
        lookback_ms: settings.query_lookback.ms(),
        max_samples: settings.query_max_samples.0,
        max_memory_bytes: settings.query_max_memory.0,
        max_total_memory_bytes: MemoryPlan::of(settings).queries,
        timeout: settings.query_timeout.0,
        delayed_name_removal: on("promql-delayed-name-removal"),
        use_start_timestamps: on("use-start-timestamps"),
        type_and_unit_labels: on("type-and-unit-labels"),
        max_resolution: settings.query_max_source_resolution.0,
        parse: ParseOptions {
            experimental_functions: on("promql-experimental-functions"),
            extended_range_selectors: on("promql-extended-range-selectors"),
            fill_modifiers: on("promql-binop-fill-modifiers"),
            max_text_bytes: settings.query_max_text.bytes(),
            ..ParseOptions::default()
        },
        ..EngineOptions::default()
    }
}

/// What one request and one series may cost; samples older than `retention_ms` are refused.
fn ingest_limits(settings: &Settings, retention_ms: Option<i64>) -> ingest::Limits {
    ingest::Limits {
        max_body_bytes: settings.ingest_max_body.bytes(),
        max_decoded_bytes: settings.ingest_max_decoded.bytes(),
        max_in_flight_bytes: usize::try_from(MemoryPlan::of(settings).writes).unwrap_or(usize::MAX),
        max_labels: settings.ingest_max_labels.get(),
        max_label_name_bytes: settings.ingest_max_label_name.bytes(),
        max_label_value_bytes: settings.ingest_max_label_value.bytes(),
        max_series_bytes: settings.ingest_max_series.bytes(),
        max_ahead_ms: settings.ingest_max_ahead.ms(),
        retention_ms,
        ..ingest::Limits::default()
    }
}

/// What a person who starts it in a terminal wants to know next.
fn banner(settings: &Settings, location: &Location, address: SocketAddr) -> String {
    let reach = match address {
        a if a.ip().is_unspecified() => format!("localhost:{}", a.port()),
        a => a.to_string(),
    };
    let reach = format!("{}://{reach}", names::scheme(settings));
    let tenant = match &settings.tenant_header.0 {
        Some(header) => format!("\n             headers: {{{header}: default}}"),
        None => String::new(),
    };
    format!(
        "
Hearth {version} is ready on {reach}

  Data       {data} (log), {location} (blocks)
  Prometheus add to prometheus.yml:
             remote_write:
               - url: {reach}/api/v1/write{tenant}
  Grafana    add a data source of type Prometheus with the URL {reach}
  Try        curl '{reach}/api/v1/query?query=up'

",
        version = env!("CARGO_PKG_VERSION"),
        data = settings.data_dir,
        tenant = tenant.replace("\n             ", "\n                 "),
    )
}

/// What the outside wants of the process.
enum Told {
    /// The name of the signal or request.
    End(&'static str),
    Reload,
}

/// SIGTERM and SIGINT, which end the process, and SIGHUP, which has files read again.
pub struct Signals {
    term: Signal,
    int: Signal,
    hangup: Signal,
}

impl Signals {
    pub fn install() -> std::io::Result<Signals> {
        Ok(Signals {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for a signal or a request to end, and carries out those to reload meanwhile.
    pub async fn end(&mut self, quit: &Notify, reload: Option<&Reload>) -> &'static str {
        loop {
            let told = tokio::select! {
                told = self.told() => told,
                () = quit.notified() => Told::End("/-/quit"),
            };
            match (told, reload) {
                (Told::End(name), _) => return name,
                (Told::Reload, None) => {}
                (Told::Reload, Some(reload)) => match reload.run().await {
                    Ok(_) => tracing::info!("SIGHUP: settings and rules were read again"),
                    Err(e) => tracing::error!("SIGHUP: {e}"),
                },
            }
        }
    }

    async fn told(&mut self) -> Told {
        tokio::select! {
            _ = self.term.recv() => Told::End("SIGTERM"),
            _ = self.int.recv() => Told::End("SIGINT"),
            _ = self.hangup.recv() => Told::Reload,
        }
    }

    /// The next signal to end.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }
}
