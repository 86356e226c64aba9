//! `hearth import`: what other programs kept becomes Hearth's blocks, straight in the object store, beside a
//! server that may be running.

mod openmetrics;
mod prometheus;
pub mod session;
mod thanos;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use model::labels::METRIC_NAME;

use crate::config::Loaded;
use crate::logging;
use crate::objstore::Location;

use session::Session;

const ABOUT: &str =
    "Import what other programs stored, as blocks of the object store; a server may be running on it";

const MORE: &str = "\
Blocks go straight into the object store that the settings name (--objstore, or the data folder's), not through a server's log; a server on the same
store sees them within a minute. Each block is read back and compared with its source, series by series, before it is committed. Running an import
again imports nothing twice and goes on where the last run ended, also after a kill. Exit code 0: all of it is there. 1: something is not, as told, or the
store did not answer for objstore_retry. 2: something in the options has to be mended.";

pub fn command() -> Command {
    Command::new("import")
        .about(ABOUT)
        .after_help(MORE)
        .subcommand_required(true)
        .subcommand(with_common(prometheus::command()))
        .subcommand(with_common(thanos::command()))
        .subcommand(with_common(openmetrics::command()))
}

/// The options that all kinds of import share.
pub fn with_common(command: Command) -> Command {
    command
        .after_help(MORE)
        .arg(
            Arg::new("tenant")
                .long("tenant")
                .value_name("NAME")
                .default_value("default")
                .help("Tenant that the series go to"),
        )
        .arg(
            Arg::new("match")
                .long("match")
                .value_name("SELECTOR")
                .action(ArgAction::Append)
                .help("Import only series that match, such as '{job=\"node\"}'; several: any of them"),
        )
        .arg(
            Arg::new("dry-run")
                .long("dry-run")
                .action(ArgAction::SetTrue)
                .help("Say what would be imported and write nothing"),
        )
        .arg(
            Arg::new("scratch")
                .long("scratch")
                .value_name("DIR")
                .value_parser(value_parser!(PathBuf))
                .help("Local folder for blocks under way [default: the system's folder for temporary files]"),
        )
}

pub fn run(matches: &ArgMatches, loaded: Loaded, location: Location) -> ExitCode {
    logging::start_logging(&loaded.settings);
    let Some((kind, matches)) = matches.subcommand() else { return ExitCode::from(crate::EXIT_USAGE) };
    let session = match Session::open(matches, &loaded.settings, &location) {
        Ok(session) => session,
        Err(e) => return e.end(),
    };
    match kind {
        "prometheus" => prometheus::run(session, matches),
        "thanos" => thanos::run(session, &loaded.settings, matches),
        "openmetrics" => openmetrics::run(session, matches),
        other => crate::refuse(format_args!("import {other} is not known")),
    }
}

/// `--label`, once for each label.
fn label_arg(help: &'static str) -> Arg {
    Arg::new("label").long("label").value_name("NAME=VALUE").action(ArgAction::Append).help(help)
}

/// What `--label` says.
fn labels(matches: &ArgMatches) -> Result<BTreeMap<String, String>, String> {
    let mut labels = BTreeMap::new();
    for text in matches.get_many::<String>("label").into_iter().flatten() {
        let Some((name, value)) =
            text.split_once('=').filter(|(name, value)| !name.is_empty() && !value.is_empty())
        else {
            return Err(format!("--label {text:?}: write NAME=VALUE"));
        };
        if name == METRIC_NAME {
            return Err(format!("--label {text:?}: the metric's name is the series' own"));
        }
        if labels.insert(name.to_owned(), value.to_owned()).is_some() {
            return Err(format!("--label {text:?}: {name} is given twice"));
        }
    }
    Ok(labels)
}
