//! `hearth compact`: compaction, retention and clean-up of a bucket in a process of its own; any number of
//! them share the work by leases.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};
use compactor::metrics::Metrics;
use compactor::worker::{Compactor, Round};
use members::roster::Member;
use model::backoff::Backoff;
use model::clock::{Clock, SystemClock};
use prometheus_client::registry::Registry;
use tokio::signal::unix::{SignalKind, signal};
use tsdb::bucket::maintenance::{BucketMaintenance, Patience};
use tsdb::catalog::Arranged;
use ulid::Ulid;

use super::one_shot::{self, CommandError};
use crate::config::value::Role;
use crate::config::{self, Loaded, Settings};
use crate::error_chain::error_chain;
use crate::metrics::process;
use crate::objstore::{self, Location};
use crate::secrets::redacted;
use crate::server::limits::watch_retention;
use crate::server::listening::Listening;
use crate::server::many::{self, Membership};
use crate::server::{compaction, retention};
use crate::{logging, say};

pub fn command() -> Command {
    Command::new("compact")
        .about("Compact the blocks of a bucket, apply retention and remove garbage; any number of these may run at once")
        .arg(
            Arg::new("once")
                .long("once")
                .action(ArgAction::SetTrue)
                .help("Do all there is to do now, say what was done, and end"),
        )
}

pub fn run(matches: &ArgMatches, loaded: Loaded, location: Location) -> ExitCode {
    serve(&loaded, &location, matches.get_flag("once"))
}

/// Compacts: `once`, or until a signal.
pub fn serve(loaded: &Loaded, location: &Location, once: bool) -> ExitCode {
    logging::start_logging(&loaded.settings);
    let threads = one_shot::threads().map_err(CommandError::from);
    match threads.and_then(|threads| threads.block_on(work(loaded, location, once))) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => e.end(),
    }
}

/// Whether all went well.
async fn work(loaded: &Loaded, location: &Location, once: bool) -> Result<bool, CommandError> {
    let settings = &loaded.settings;
    let mut registry = Registry::default();
    process::register(&mut registry);
    let writer = format!("compactor-{}", Ulid::new());
    let arranged = open(location, settings, &writer, once).await?;
    let maintenance =
        BucketMaintenance::new(arranged.store.clone(), Arc::new(SystemClock), Patience::default());
    let metrics = Metrics::register(&mut registry);
    let limits = config::limits::load(settings).map_err(|e| error_chain(&e))?;
    let keep = retention::with_limits(compaction::keep(settings), &limits.limits);
    let compaction_settings = compaction::settings(settings, keep)?;
    let compactor = Arc::new(Compactor::new(maintenance, compaction_settings, &writer, metrics)?);
    let stop = stop_on_signals(&compactor)?;
    let fine = if once {
        let round = compactor.round().await;
        say(summary(&round));
        round.errors.is_empty()
    } else {
        let listening = Listening::begin(settings, registry, Role::Compact).await?;
        let address = listening.address;
        listening.web.open_roles(compaction::router(compactor.clone()));
        tokio::spawn(watch_retention(compactor.clone(), settings.clone()));
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let member = many::member(settings, &writer, address, &*clock);
        let member = Member { role: Role::Compact.to_string(), ..member };
        let membership = Membership::begin(arranged.store.clone(), clock, member).await;
        let membership = membership
            .inspect_err(|e| tracing::warn!("other members are not told that this process is here: {e}"));
        say(format_args!("Hearth compacts {location}; metrics on http://{address}/metrics\n"));
        compactor.run(|| std::future::ready(())).await;
        listening.web.stop();
        if let Ok(membership) = membership {
            membership.leave().await;
        }
        listening.drain().await;
        true
    };
    stop.abort();
    if let Some(owner) = arranged.owner {
        owner.release().await;
    }
    Ok(fine)
}

/// Opens the bucket, again and again where what is in the way may pass by itself; with `once` only as long as
/// other commands do.
async fn open(
    location: &Location,
    settings: &Settings,
    writer: &str,
    once: bool,
) -> Result<Arranged, CommandError> {
    if once {
        return one_shot::open_to_commit(location, settings, writer).await;
    }
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(15));
    loop {
        match objstore::open_to_commit(location, settings, writer).await {
            Ok(arranged) => return Ok(arranged),
            Err(e) if e.passes() => {
                tracing::warn!("the bucket cannot be used yet, trying again: {}", redacted(&e.to_string()));
                tokio::time::sleep(backoff.next_pause()).await;
            }
            Err(e) => return Err(e.into()),
        }
    }
}

fn stop_on_signals(compactor: &Arc<Compactor>) -> Result<tokio::task::JoinHandle<()>, String> {
    let failed = |e: std::io::Error| format!("cannot listen for signals: {e}");
    let mut term = signal(SignalKind::terminate()).map_err(failed)?;
    let mut int = signal(SignalKind::interrupt()).map_err(failed)?;
    let compactor = compactor.clone();
    Ok(tokio::spawn(async move {
        tokio::select! { _ = term.recv() => {} _ = int.recv() => {} }
        tracing::info!("stopping; a job that runs is given up, its inputs stay as they are");
        compactor.stop();
    }))
}

fn summary(round: &Round) -> String {
    let mut text = format!(
        "{} jobs done, {} left; {} blocks past their retention, {} folders of garbage removed\n",
        round.jobs, round.left, round.expired_blocks, round.garbage_blocks
    );
    for e in &round.errors {
        text += &format!("failed: {e}\n");
    }
    text
}
