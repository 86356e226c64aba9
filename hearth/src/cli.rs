//! The command line, made from the table of options.

use std::path::PathBuf;
use std::sync::LazyLock;

use clap::{Arg, ArgAction, Command, value_parser};

use crate::commands::COMMANDS;
use crate::config::TABLE;

const ABOUT: &str = "Keeps Prometheus metrics for years in object storage and answers PromQL over all of them, from one binary.";

const EXAMPLES: &str = "\
Examples:
  hearth                                          listen on 127.0.0.1:9494, keep everything in ./hearth-data
  hearth --listen :9494 --data-dir /var/lib/hearth
  hearth --objstore s3://metrics/prod --s3-endpoint https://s3.example.org
  hearth config print --query-timeout 30s         what would be in force, and where each value comes from

Every option can be set in three ways, and the first of them wins:
  --query-timeout 30s          a flag
  HEARTH_QUERY_TIMEOUT=30s     a variable of the environment
  query: {timeout: 30s}        hearth.yaml (or the file given with --config)

Durations are written as Prometheus does (100ms, 30s, 2h, 15d), sizes as 512MiB or 1GB.
Secrets are never flags: S3 credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or from files.";

/// Flag and variable of each option: made once, because a [`Command`] borrows its names for ever.
static NAMES: LazyLock<Vec<(String, String)>> =
    LazyLock::new(|| TABLE.iter().map(|o| (o.flag(), o.env())).collect());

/// The whole command line. Values stay text here: the table reads them, so that flag, variable and file
/// complain alike.
pub fn command() -> Command {
    let mut command = Command::new("hearth")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .after_help(EXAMPLES)
        .disable_help_subcommand(true)
        .max_term_width(120)
        .arg(
            Arg::new("config")
                .long("config")
                .alias("config.file")
                .env("HEARTH_CONFIG")
                .hide_env_values(true)
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .global(true)
                .help("File with settings [default: hearth.yaml, if there is one]"),
        )
        .subcommands(COMMANDS.iter().map(|c| (c.command)()));
    for (option, (flag, env)) in TABLE.iter().zip(NAMES.iter()) {
        let mut arg = Arg::new(option.key)
            .long(flag.as_str())
            .env(env.as_str())
            .hide_env_values(true)
            .value_name(option.value_name)
            .help_heading(option.group)
            .help(option.help)
            .global(true);
        // Prometheus' own name.
        if option.key == "web.config_file" {
            arg = arg.alias("web.config.file");
        }
        if !option.default.is_empty() {
            arg = arg.default_value(option.default);
        }
        if option.switch {
            arg = arg.num_args(0..=1).require_equals(true).default_missing_value("true");
        }
        if option.list {
            arg = arg.action(ArgAction::Append);
        }
        command = command.arg(arg);
    }
    command
}

#[cfg(test)]
mod tests {
    #[test]
    fn command_line_is_consistent() {
        super::command().debug_assert();
    }
}
