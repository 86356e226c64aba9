//! `hearth check rules`: rule files as `promtool check rules` checks them, with its exit codes.

use std::io::Read;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};
use rules::check::check;
use rules::file::FileOptions;

use crate::config::Loaded;
use crate::objstore::Location;

/// Exit code for what only lint complains of, where that is fatal.
const EXIT_LINT: u8 = 3;

pub fn command() -> Command {
    Command::new("check").about("Check files").subcommand_required(true).subcommand(
        Command::new("rules")
            .about("Check rule files: exit code 1 if anything is wrong, 3 for lint with --lint-fatal")
            .arg(Arg::new("file").value_name("FILE").num_args(0..).help("Rule files; none is standard input"))
            .arg(
                Arg::new("lint")
                    .long("lint")
                    .value_name("WHAT")
                    .value_parser(["all", "duplicate-rules", "none"])
                    .default_value("duplicate-rules")
                    .help("What is looked for beside errors"),
            )
            .arg(
                Arg::new("lint-fatal")
                    .long("lint-fatal")
                    .action(ArgAction::SetTrue)
                    .help("What lint finds is an error"),
            )
            .arg(
                Arg::new("ignore-unknown-fields")
                    .long("ignore-unknown-fields")
                    .action(ArgAction::SetTrue)
                    .help("Let keys pass that nobody knows"),
            ),
    )
}

pub fn run(matches: &ArgMatches, loaded: Loaded, _: Location) -> ExitCode {
    let Some((_, matches)) = matches.subcommand() else { return ExitCode::from(crate::EXIT_USAGE) };
    let options = FileOptions {
        strict: !matches.get_flag("ignore-unknown-fields"),
        parse: crate::server::engine_options(&loaded.settings).parse,
        ..FileOptions::default()
    };
    let lint = matches.get_one::<String>("lint").is_none_or(|l| l != "none");
    let lint_fatal = matches.get_flag("lint-fatal");
    let files: Vec<&String> = matches.get_many::<String>("file").into_iter().flatten().collect();
    let (mut failed, mut linted) = (false, false);
    let mut one = |name: &str, text: Result<String, String>| {
        let checked = match text {
            Ok(text) => check(name, &text, &options, lint),
            Err(e) => rules::check::Checked { result: Err(vec![format!("{name}: {e}")]), lint: vec![] },
        };
        match &checked.result {
            Err(errors) => {
                failed = true;
                crate::complain("  FAILED:");
                for error in errors {
                    crate::complain(error);
                }
            }
            // Upstream says that it failed even where the exit code says that it did not.
            Ok(_) if !checked.lint.is_empty() => {
                linted = true;
                crate::complain("  FAILED:");
                for text in &checked.lint {
                    crate::complain(format_args!("lint error {text}"));
                }
            }
            Ok(count) => crate::say(format_args!("  SUCCESS: {count} rules found\n")),
        }
        crate::say("\n");
    };
    if files.is_empty() {
        let mut text = String::new();
        let read = std::io::stdin().read_to_string(&mut text).map_err(|e| e.to_string());
        crate::say("Checking standard input\n");
        one("standard input", read.map(|_| text));
    }
    for file in files {
        crate::say(format_args!("Checking {file}\n"));
        one(file, std::fs::read_to_string(file).map_err(|e| e.to_string()));
    }
    match (failed, linted && lint_fatal) {
        (true, _) => ExitCode::FAILURE,
        (false, true) => ExitCode::from(EXIT_LINT),
        _ => ExitCode::SUCCESS,
    }
}
