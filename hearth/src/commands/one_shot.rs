//! What commands that read or fill a bucket have alike: threads, a tenant, selectors, a way to be stopped, a
//! bucket that is waited for, and exit codes.

use std::fmt::Display;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::ArgMatches;
use model::backoff::Backoff;
use model::matcher::Matcher;
use model::tenant::TenantId;
use object_store::ObjectStore;
use query::parse::{ParseOptions, parse_metric_selector};
use tokio::runtime::Runtime;
use tokio::time::Instant;
use tsdb::catalog::{Arranged, Commits, arrange};
use tsdb::cause::AttemptError;

use crate::config::Settings;
use crate::objstore::{self, Location};
use crate::secrets::redacted;
use crate::{EXIT_USAGE, complain};

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub enum CommandError {
    /// Something that whoever started it has to mend: exit code 2.
    Mend(String),
    /// Something that may pass by itself, or that was found out on the way: exit code 1.
    Failed(String),
}

impl CommandError {
    pub fn failed(why: impl Display) -> CommandError {
        CommandError::Failed(why.to_string())
    }

    /// Says what was wrong; how the process ends.
    pub fn end(self) -> ExitCode {
        let (why, code) = match self {
            CommandError::Mend(why) => (why, ExitCode::from(EXIT_USAGE)),
            CommandError::Failed(why) => (why, ExitCode::FAILURE),
        };
        complain(format_args!("error: {}", redacted(&why)));
        code
    }
}

/// What is wrong with options.
impl From<String> for CommandError {
    fn from(why: String) -> CommandError {
        CommandError::Mend(why)
    }
}

impl From<AttemptError> for CommandError {
    fn from(e: AttemptError) -> CommandError {
        if e.passes() { CommandError::failed(e) } else { CommandError::Mend(e.to_string()) }
    }
}

/// Opens a bucket to read it, when it answers.
pub async fn open(location: &Location, settings: &Settings) -> Result<Arc<dyn ObjectStore>, CommandError> {
    let store = objstore::open(location, settings)?;
    with_patience(settings, async || Ok(objstore::reach(location, settings).await?)).await?;
    Ok(store)
}

/// Opens a bucket to commit to it, when it answers, and what decides its commits does. `writer` is a name
/// that stays over restarts.
pub async fn open_to_commit(
    location: &Location,
    settings: &Settings,
    writer: &str,
) -> Result<Arranged, CommandError> {
    let commits = objstore::commits(location, settings)?;
    open_arranged(location, settings, writer, &commits).await
}

/// The same with commits decided by what the caller says.
pub async fn open_arranged(
    location: &Location,
    settings: &Settings,
    writer: &str,
    commits: &Commits,
) -> Result<Arranged, CommandError> {
    let store = open(location, settings).await?;
    with_patience(settings, async || Ok(arrange(store.clone(), commits, writer).await?)).await
}

/// Tries something again for as long as requests to an object store are made again, where what is in its way
/// may pass by itself.
async fn with_patience<T>(
    settings: &Settings,
    mut attempt: impl AsyncFnMut() -> Result<T, CommandError>,
) -> Result<T, CommandError> {
    let end = Instant::now() + settings.objstore_retry.0;
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(5));
    loop {
        match attempt().await {
            Err(CommandError::Failed(why)) if Instant::now() < end => {
                tracing::warn!("the bucket cannot be used yet, trying again: {}", redacted(&why));
                tokio::time::sleep(backoff.next_pause()).await;
            }
            done => return done,
        }
    }
}

/// Threads for a command.
pub fn threads() -> Result<Runtime, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("hearth").build();
    runtime.map_err(|e| format!("cannot start threads: {e}"))
}

/// A sign that is set by the first Ctrl-C, which `said` is answered to; the second one ends the process.
pub fn stop_sign(runtime: &Runtime, said: &'static str) -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let asked = stop.clone();
    runtime.spawn(async move {
        while tokio::signal::ctrl_c().await.is_ok() {
            if asked.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
            crate::complain(format_args!("\n{said}; again: at once"));
        }
    });
    stop
}

/// Whose series are meant, of `--tenant`.
pub fn tenant(matches: &ArgMatches) -> Result<TenantId, String> {
    let tenant = matches.get_one::<String>("tenant").map_or("default", String::as_str);
    TenantId::new(tenant).map_err(|e| format!("--tenant {tenant:?}: {e}"))
}

/// The selectors of `--match`, as they were written and as PromQL reads them; none means everything.
pub fn selectors(matches: &ArgMatches) -> Result<(Vec<&str>, Vec<Vec<Matcher>>), String> {
    let texts: Vec<&str> =
        matches.get_many::<String>("match").into_iter().flatten().map(String::as_str).collect();
    let parse = |text: &&str| {
        let parsed = parse_metric_selector(text, &ParseOptions::default());
        parsed.map_err(|e| format!("--match {text:?}: {e}"))
    };
    let selectors = texts.iter().map(parse).collect::<Result<_, _>>()?;
    Ok((texts, selectors))
}
