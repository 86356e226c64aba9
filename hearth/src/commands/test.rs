//! `hearth test rules`: unit tests of rules in the format of `promtool test rules`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use rules::unit_test::{self, TestOptions};

use crate::config::Loaded;
use crate::objstore::Location;

pub fn command() -> Command {
    Command::new("test").about("Run unit tests").subcommand_required(true).subcommand(
        Command::new("rules")
            .about("Run unit tests of rules: exit code 1 if any fails")
            .arg(
                Arg::new("file")
                    .value_name("FILE")
                    .required(true)
                    .num_args(1..)
                    .help("Files of tests, as Prometheus documents them"),
            )
            .arg(
                Arg::new("run")
                    .long("run")
                    .value_name("REGEX")
                    .help("Only test groups whose name it matches"),
            )
            .arg(
                Arg::new("diff")
                    .long("diff")
                    .action(ArgAction::SetTrue)
                    .help("Show line by line what differs"),
            )
            .arg(
                Arg::new("junit")
                    .long("junit")
                    .value_name("FILE")
                    .value_parser(value_parser!(PathBuf))
                    .help("Write the results as JUnit XML"),
            )
            .arg(
                Arg::new("ignore-unknown-fields")
                    .long("ignore-unknown-fields")
                    .action(ArgAction::SetTrue)
                    .help("Let keys of rule files pass that nobody knows"),
            ),
    )
}

pub fn run(matches: &ArgMatches, loaded: Loaded, _: Location) -> ExitCode {
    let Some((_, matches)) = matches.subcommand() else { return ExitCode::from(crate::EXIT_USAGE) };
    let only = match matches.get_one::<String>("run").map(|p| unit_test::name_pattern(p)).transpose() {
        Ok(only) => only,
        Err(e) => return crate::refuse(format_args!("--run: {e}")),
    };
    let options = TestOptions {
        parse: crate::server::engine_options(&loaded.settings).parse,
        only,
        ignore_unknown_fields: matches.get_flag("ignore-unknown-fields"),
        diff: matches.get_flag("diff"),
    };
    let mut outcomes = Vec::new();
    for file in matches.get_many::<String>("file").into_iter().flatten() {
        crate::say(format_args!("Unit Testing:  {file}\n"));
        let outcome = unit_test::run(Path::new(file), &options);
        outcome.warnings.iter().for_each(crate::complain);
        if outcome.passed() {
            crate::say("  SUCCESS\n");
        } else {
            crate::complain("  FAILED:");
            for failure in outcome.failures() {
                crate::complain(failure);
                crate::say("\n");
            }
        }
        crate::say("\n");
        outcomes.push(outcome);
    }
    if let Some(path) = matches.get_one::<PathBuf>("junit")
        && let Err(e) = std::fs::write(path, unit_test::junit(&outcomes))
    {
        return crate::refuse(format_args!("--junit {}: {e}", path.display()));
    }
    if outcomes.iter().all(unit_test::FileOutcome::passed) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
