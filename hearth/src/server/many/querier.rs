//! The roles `query` and `rules`: no data folder, no lock, no log, no head. They answer out of the bucket and
//! of what members have not flushed; rules are evaluated over the same, and write to ingesters.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use members::addresses::Met;
use members::client::HttpTransport;
use members::ingesters::{Ingesters, Options, RefreshError};
use model::backoff::Backoff;
use model::clock::{Clock, SystemClock};
use model::tenant_limits::LimitsByTenant;
use object_store::ObjectStore;
use prometheus_client::registry::Registry;
use query::api::ApiState;
use serde_json::json;
use tokio::sync::Notify;
use tsdb::bucket::reader::{BucketReader, ReaderOptions};
use ulid::Ulid;

use super::addresses::Addresses;
use super::membership::Membership;
use super::storage::FreshStorage;
use super::{member, tls, tokens};
use crate::config::value::Role;
use crate::config::{Loaded, Settings};
use crate::error_chain::error_chain;
use crate::http::Server;
use crate::metrics::process;
use crate::objstore::{self, Location};
use crate::secrets::redacted;
use crate::server::lifecycle::{self, Lifecycle};
use crate::server::listening::Listening;
use crate::server::memory_limit::MemoryPlan;
use crate::server::reload::{self, ReadSettings, Reload};
use crate::server::retention::Retention;
use crate::server::rules::{self, Home, Rules};
use crate::server::{self, Failure, Signals, compaction, disk_cache, identity, limits, memory_watch, names};
use crate::traces;

/// How often the catalogs of all tenants are read. With twice this and the longest query, what a member has
/// committed is still to be had of it (see [`crate::server::KEEP_COMMITTED`]).
const CATALOGS_EVERY: Duration = Duration::from_secs(60);

/// Runs until a signal.
pub async fn serve(loaded: &Loaded, read: ReadSettings, location: &Location) -> Result<(), Failure> {
    let settings = &loaded.settings;
    let mut signals =
        Signals::install().map_err(|e| Failure::Start(format!("cannot listen for signals: {e}")))?;
    let mut registry = Registry::default();
    process::register(&mut registry);
    let listening = Listening::begin(settings, registry, settings.role).await.map_err(Failure::Start)?;
    let (web, address) = (listening.web.clone(), listening.address);
    let quit = Arc::new(Notify::new());
    let opened = tokio::select! {
        opened = open_with_patience(loaded, &read, location, &web, address, &quit) => opened.map_err(Failure::Start)?,
        name = signals.next() => {
            tracing::info!("{name} while opening: stopping");
            return Ok(());
        }
    };
    let does = if opened.rules.is_some() { "evaluates rules and answers queries" } else { "answers queries" };
    crate::say(format_args!("Hearth {does} over {location} on http://{address}\n"));
    tokio::spawn(traces::export(address.to_string()));
    let reload = opened.rules.as_ref().map(|(_, reload)| reload);
    let name = signals.end(&quit, reload).await;
    tracing::info!("{name}: stopping, requests in flight have {}", settings.shutdown_timeout);
    web.stop();
    opened.membership.leave().await;
    listening.drain().await;
    if let Some((rules, _)) = &opened.rules {
        rules.stop(settings.shutdown_timeout.0).await;
    }
    traces::flush(&address.to_string()).await;
    Ok(())
}

/// What is open while the process runs.
struct Opened {
    membership: Membership,
    /// Where the role evaluates any, and what has them read again.
    rules: Option<(Rules, Reload)>,
}

/// Opens the bucket and the roster, again and again where what is in the way may pass by itself.
async fn open_with_patience(
    loaded: &Loaded,
    read: &ReadSettings,
    location: &Location,
    web: &Server,
    address: SocketAddr,
    quit: &Arc<Notify>,
) -> Result<Opened, String> {
    let mut backoff = Backoff::new(server::FIRST_PAUSE, server::LONGEST_PAUSE);
    loop {
        match open(loaded, read, location, web, address, quit).await {
            Ok(opened) => return Ok(opened),
            Err(Unopened::Mend(why)) => return Err(redacted(&why)),
            Err(Unopened::Wait(why)) => {
                let why = redacted(&why);
                tracing::warn!("the bucket cannot be read yet, trying again: {why}");
                web.wait_for(&why);
                tokio::time::sleep(backoff.next_pause()).await;
            }
        }
    }
}

/// Why it could not be opened: something to mend, or something that may pass by itself.
enum Unopened {
    Mend(String),
    Wait(String),
}

impl From<RefreshError> for Unopened {
    fn from(e: RefreshError) -> Unopened {
        match &e {
            RefreshError::Catalog(c) if !c.passes() => Unopened::Mend(e.to_string()),
            _ => Unopened::Wait(e.to_string()),
        }
    }
}

async fn open(
    loaded: &Loaded,
    read: &ReadSettings,
    location: &Location,
    web: &Server,
    address: SocketAddr,
    quit: &Arc<Notify>,
) -> Result<Opened, Unopened> {
    let settings = &loaded.settings;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let store = objstore::open(location, settings).map_err(Unopened::Mend)?;
    objstore::reach(location, settings).await.map_err(|e| match e.passes() {
        true => Unopened::Wait(e.to_string()),
        false => Unopened::Mend(e.to_string()),
    })?;
    let rule_files = match settings.role {
        Role::Rules => Some(rules::read_files(settings, &server::engine_options(settings).parse)),
        _ => None,
    };
    let rule_files = rule_files.transpose().map_err(Unopened::Mend)?;
    let name = format!("{}-{}", settings.role, Ulid::new());
    let keep = Retention::new(compaction::keep(settings));
    let reader = reader(settings, web, &keep, &store, &clock, &name).await?;
    let addresses = Addresses::of(settings).map_err(Unopened::Mend)?;
    let transport = HttpTransport::new(tls::client(settings).map_err(Unopened::Mend)?, tokens(settings));
    let ingesters = Ingesters::open(Options {
        store: store.clone(),
        reader,
        transport: Arc::new(transport),
        clock: clock.clone(),
        interval: settings.members_interval.0,
        addresses: members::addresses::Addresses::fixed(addresses.fixed.clone()),
        hedge_delay: settings.members_hedge_delay.0,
    })
    .await?;
    addresses.follow(ingesters.clone(), settings.members_interval.0).await;
    tokio::spawn(ingesters.clone().follow(CATALOGS_EVERY));
    let storage = FreshStorage { ingesters: ingesters.clone(), web: web.clone() };
    let (_, tenants) = identity::resolvers();
    let limits = limits::read(settings.clone()).await.map_err(|e| Unopened::Mend(error_chain(&e)))?;
    let limits = LimitsByTenant::new(limits.limits);
    tokio::spawn(limits::watch_queries(limits.clone(), settings.clone()));
    let shown_limits = limits::router(limits.clone());
    let mut api = server::api_config(loaded, Arc::new(storage), web, clock.clone(), tenants, &keep);
    api.addresses = names::addresses(settings, address);
    api.external_url = names::external_url(settings, address);
    api.tenant_limits = limits;
    let mut more = router(ingesters.clone()).merge(shown_limits);
    let own = member(settings, &name, address, &*clock);
    let membership = Membership::begin(store.clone(), clock.clone(), own).await;
    let membership = membership.map_err(|e| Unopened::Wait(e.to_string()))?;
    let mut rules = None;
    if let Some(files) = rule_files {
        let metrics = web.register(::rules::metrics::Metrics::register);
        let engine = server::engine_options(settings);
        let home = Home::Members { ingesters, store, name };
        let evaluated = Rules::new(settings, engine, home, clock.clone(), metrics, address);
        let evaluated = evaluated.map_err(Unopened::Mend)?;
        let reload = reload(settings, read, &evaluated, web, &clock);
        api.rules = Some(Arc::new(evaluated.clone()));
        api.reload = reload.status();
        more = more.merge(evaluated.config_router(api.tenants.clone())).merge(lifecycle::router(Lifecycle {
            enabled: settings.enable_lifecycle,
            reload: reload.clone(),
            quit: quit.clone(),
            ending: Arc::default(),
        }));
        evaluated.start(files).await;
        rules = Some((evaluated, reload));
    }
    let api = ApiState::new(api);
    tokio::spawn(memory_watch::watch(MemoryPlan::of(settings), api.query_memory().clone()));
    web.open_roles(query::api::router(api).merge(more));
    Ok(Opened { membership, rules })
}

/// What has settings and rule files read again.
fn reload(
    settings: &Settings,
    read: &ReadSettings,
    rules: &Rules,
    web: &Server,
    clock: &Arc<dyn Clock>,
) -> Reload {
    Reload::new(reload::Parts {
        started: settings.clone(),
        read: read.clone(),
        rules: rules.clone(),
        limits: None,
        clock: clock.clone(),
        notifications: web.notifications().clone(),
        status: Arc::default(),
        metrics: web.register(|r| reload::Metrics::register(r, &**clock)),
    })
}

async fn reader(
    settings: &Settings,
    web: &Server,
    keep: &Retention,
    store: &Arc<dyn ObjectStore>,
    clock: &Arc<dyn Clock>,
    name: &str,
) -> Result<Arc<BucketReader>, Unopened> {
    let some = |ms: i64| Some(ms).filter(|ms| *ms > 0);
    let opened = BucketReader::open(ReaderOptions {
        store: store.clone(),
        clock: clock.clone(),
        name: name.to_owned(),
        cache_bytes: usize::try_from(MemoryPlan::of(settings).cache).unwrap_or(usize::MAX),
        disk_cache: disk_cache::open(settings, web).map_err(Unopened::Mend)?,
        rules: server::retention_rules(keep),
        exemplar_keep_ms: some(settings.exemplars_retention.ms()),
        metadata_keep_ms: some(settings.metadata_retention.ms()),
    });
    opened.await.map_err(|e| Unopened::from(RefreshError::from(e)))
}

/// `GET /api/v1/status/members`: who takes part, as this process knows it.
fn router(ingesters: Arc<Ingesters>) -> Router {
    Router::new().route("/api/v1/status/members", get(status)).with_state(ingesters)
}

async fn status(State(ingesters): State<Arc<Ingesters>>) -> Response {
    let known = ingesters.known();
    let is_known = |name: &str| known.all().any(|seen| seen.member.name == name);
    let members: Vec<_> = known
        .all()
        .map(|seen| {
            let m = &seen.member;
            json!({
                "name": m.name,
                "role": m.role,
                "address": ingesters.address(m),
                "zone": m.zone,
                "replicaGroup": m.replica_group,
                "owesSamples": m.owes,
                "late": seen.is_late(),
                "started": m.started_ms as f64 / 1000.0,
                "lastBeat": m.beat_ms as f64 / 1000.0,
                "version": m.hearth,
            })
        })
        .collect();
    let met = ingesters.addresses().met();
    let found: Vec<_> = met
        .iter()
        .map(|(url, met)| match met {
            Met::Member(name) => json!({ "address": url, "name": name, "isKnown": is_known(name) }),
            Met::Nobody(why) => json!({ "address": url, "error": why }),
        })
        .collect();
    let data = json!({ "members": members, "found": found, "error": ingesters.failure() });
    let body = json!({ "status": "success", "data": data }).to_string();
    ([(axum::http::header::CONTENT_TYPE, "application/json")], body).into_response()
}
