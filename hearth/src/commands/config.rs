//! `hearth config check` and `hearth config print`: the configuration without starting anything.

use std::process::ExitCode;

use clap::{ArgMatches, Command};

use crate::config::{self, Loaded};
use crate::objstore::Location;
use crate::say;

pub fn command() -> Command {
    Command::new("config")
        .about("Check or show the configuration without starting anything")
        .subcommand_required(true)
        .subcommand(
            Command::new("check").about("Read everything and say what is wrong; exit code 2 if anything is"),
        )
        .subcommand(
            Command::new("print").about("Print the settings in force as YAML, each with where it comes from"),
        )
}

pub fn run(matches: &ArgMatches, loaded: Loaded, _: Location) -> ExitCode {
    match matches.subcommand_name() {
        Some("print") => say(config::print(&loaded)),
        // That it was loaded is the check.
        _ => {
            let file = loaded.file.as_ref().map_or("no file".into(), |f| f.display().to_string());
            say(format_args!("the configuration is fine ({file})\n"));
        }
    }
    ExitCode::SUCCESS
}
