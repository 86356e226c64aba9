//! Where log lines go and how they look, as the settings say.

use tracing_subscriber::EnvFilter;

use crate::config::Settings;
use crate::config::value::LogFormat;

/// Log lines go to standard error; standard output is for what was asked.
pub fn start_logging(settings: &Settings) {
    let level = &settings.log_level.0;
    // The object store tells of every retry; a dozen lines for each request while a bucket is away help
    // nobody who did not ask.
    let filter = if level.contains('=') || matches!(level.as_str(), "debug" | "trace" | "error") {
        EnvFilter::new(level)
    } else {
        EnvFilter::new(format!("{level},object_store=warn"))
    };
    // A line that cannot be written (standard error is a file on a disk that is full) is no reason to panic.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    // A second start in one process (tests) keeps the first.
    let _ = match settings.log_format {
        LogFormat::Text => {
            let colours = std::io::IsTerminal::is_terminal(&std::io::stderr())
                && std::env::var_os("NO_COLOR").is_none();
            builder.with_ansi(colours).try_init()
        }
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}
