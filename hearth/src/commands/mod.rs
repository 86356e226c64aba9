//! What the binary does besides serving: one file per command, each listed once in [`COMMANDS`].
//!
//! A command gets the settings as they were loaded (flags, variables and file hold for commands too) and the
//! place of the blocks, checked but not opened. It says what was asked on standard output and everything else
//! on standard error, and answers with its exit code.

mod bucket;
mod check;
mod compact;
mod config;
mod console;
mod export;
mod import;
mod one_shot;
mod quantities;
mod rules;
mod test;

use std::process::ExitCode;

use clap::{ArgMatches, Command};

use crate::config::Loaded;
use crate::objstore::Location;

/// A command of the command line.
pub struct CommandSpec {
    /// Its place in the command line; its name is what it is found by.
    pub command: fn() -> Command,
    /// Does it. The matches are those of the command itself.
    pub run: fn(&ArgMatches, Loaded, Location) -> ExitCode,
}

/// All commands, in the order of `--help`.
pub static COMMANDS: &[CommandSpec] = &[
    CommandSpec { command: bucket::command, run: bucket::run },
    CommandSpec { command: compact::command, run: compact::run },
    CommandSpec { command: config::command, run: config::run },
    CommandSpec { command: import::command, run: import::run },
    CommandSpec { command: export::command, run: export::run },
    CommandSpec { command: check::command, run: check::run },
    CommandSpec { command: test::command, run: test::run },
    CommandSpec { command: rules::command, run: rules::run },
];

/// The role `compact`, which is what `hearth compact` does.
pub fn compact(loaded: Loaded, location: Location) -> ExitCode {
    compact::serve(&loaded, &location, false)
}

/// What the command line asks for; `None` where it names no command, which means to serve.
pub fn asked(matches: &ArgMatches) -> Option<(&'static CommandSpec, &ArgMatches)> {
    let (name, of_command) = matches.subcommand()?;
    let found = COMMANDS.iter().find(|c| (c.command)().get_name() == name)?;
    Some((found, of_command))
}
