//! The `hearth` binary. The life of a process:
//!
//! 1. The command line is read ([`cli`]); with the environment and `hearth.yaml` it becomes settings
//!    ([`config`]), or a list of all that is wrong with them and exit code 2. Where it names a command, that
//!    does its work and the process ends ([`commands`]).
//! 2. It listens ([`http`]) before anything else, so that health checks have something to talk to; of the
//!    rest, `/metrics`, `/version`, the page, and how far the log was replayed are answered too, and
//!    everything else with 503.
//!    Certificates and passwords ([`web_config`]) and who may do what ([`auth`]) are read before, and again
//!    whenever their files change.
//! 3. The object store is opened ([`objstore`]), with the coordinator of its commits where the settings name
//!    one ([`coordinator`]), then the store itself, which replays its log.
//! 4. The roles' routes are joined and `/-/ready` says yes. The first round of the process' own metrics
//!    ([`metrics`]) is already in the store. Compaction goes on beside them, unless it runs elsewhere
//!    ([`server`]).
//!    What the process works on can be looked at with profilers over HTTP, where that is allowed
//!    ([`profiles`]), and spans of it go to a collector ([`traces`]).
//! 5. SIGTERM or SIGINT: no new connections, requests in flight finish within a deadline, the store closes,
//!    exit code 0.

mod auth;
mod cli;
mod commands;
mod config;
mod coordinator;
mod error_chain;
mod http;
mod live_client;
mod live_file;
mod logging;
mod metrics;
mod objstore;
mod profiles;
mod secrets;
mod server;
mod traces;
mod web_config;

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Exit code for what the person who started it has to mend: options, folders, addresses.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let matches = cli::command().get_matches();
    let variables = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let loaded = match config::load(&matches, variables) {
        Ok(loaded) => loaded,
        Err(e) => return refuse(e),
    };
    install_tls();
    if let Err(e) = server::many::check(&loaded.settings) {
        return refuse(e);
    }
    let checked = |location| objstore::check(&location, &loaded.settings).map(|()| location);
    let location = match objstore::locate(&loaded.settings).and_then(checked) {
        Ok(location) => location,
        Err(e) => return refuse(e),
    };
    for warning in &loaded.warnings {
        complain(format_args!("warning: {warning}"));
    }
    if let Some((command, of_command)) = commands::asked(&matches) {
        return (command.run)(of_command, loaded, location);
    }
    if loaded.settings.role == config::value::Role::Compact {
        return commands::compact(loaded, location);
    }
    logging::start_logging(&loaded.settings);
    let read: server::ReadSettings = Arc::new(move || {
        let variables = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        config::load(&matches, variables)
    });
    match server::run(loaded, read, location) {
        Ok(()) => ExitCode::SUCCESS,
        Err(server::Failure::Start(e)) => refuse(e),
        Err(server::Failure::Stop(e)) => {
            complain(format_args!("error: {e}"));
            ExitCode::FAILURE
        }
    }
}

/// TLS comes from rustls with ring, chosen here once for the whole process.
fn install_tls() {
    // An error means that it is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

fn refuse(e: impl Display) -> ExitCode {
    complain(format_args!("error: {e}"));
    ExitCode::from(EXIT_USAGE)
}

fn complain(text: impl Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// To standard output; a reader that went away (`hearth config print | head`) is no error.
fn say(text: impl Display) {
    let _ = write!(std::io::stdout(), "{text}");
}
