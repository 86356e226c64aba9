//! Hearth's own binary as a command: run with arguments, its answer read when it has ended.

use std::process::Command;
use std::time::Duration;

/// The binary, without what this process' environment may say to it.
pub fn hearth() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
    without_environment(&mut command);
    command.env("COLUMNS", "200");
    command
}

/// Takes out of a command's environment what would set options.
pub fn without_environment(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HEARTH_") {
            command.env_remove(name);
        }
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A client that takes every status for an answer.
pub fn agent() -> ureq::Agent {
    let patience = Duration::from_secs(60);
    ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(patience)).build().into()
}
