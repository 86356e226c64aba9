//! Where log lines go and how they look, as the settings say.

use std::sync::OnceLock;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt, reload};

use crate::config::Settings;
use crate::config::value::LogFormat;
use crate::traces;

/// Puts another filter in the place of the one that logging was started with.
type SetFilter = Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>;

static SET_FILTER: OnceLock<SetFilter> = OnceLock::new();

/// Logs from now on what a level (`log.level`) says.
pub fn set_level(level: &str) -> Result<(), String> {
    match SET_FILTER.get() {
        Some(set) => set(filter(level)),
        None => Ok(()),
    }
}

fn filter(level: &str) -> EnvFilter {
    // The object store tells of every retry; a dozen lines for each request while a bucket is away help
    // nobody who did not ask.
    if level.contains('=') || matches!(level, "debug" | "trace" | "error") {
        EnvFilter::new(level)
    } else {
        EnvFilter::new(format!("{level},object_store=warn"))
    }
}

/// Log lines go to standard error; standard output is for what was asked. Spans of requests go to a
/// collector as well, where the settings name one.
pub fn start_logging(settings: &Settings) {
    let (filter, handle) = reload::Layer::new(filter(&settings.log_level.0));
    // A line that cannot be written (standard error is a file on a disk that is full) is no reason to panic.
    let lines = fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    // What libraries do is not ours to tell. Spans of work that nobody asked for are at `debug`, so that log
    // lines, which name all spans they lie in, do not say everything twice.
    let own =
        ["hearth", "ingest", "query", "rules", "tsdb", "compactor"].map(|name| (name, LevelFilter::DEBUG));
    let traces = traces::start(settings).map(|layer| layer.with_filter(Targets::new().with_targets(own)));
    let registry = tracing_subscriber::registry().with(traces);
    // A second start in one process (tests) keeps the first.
    let started = match settings.log_format {
        LogFormat::Text => {
            let colours = std::io::IsTerminal::is_terminal(&std::io::stderr())
                && std::env::var_os("NO_COLOR").is_none();
            registry.with(lines.with_ansi(colours).with_filter(filter)).try_init()
        }
        LogFormat::Json => registry.with(lines.json().flatten_event(true).with_filter(filter)).try_init(),
    };
    if started.is_ok() {
        let _ = SET_FILTER.set(Box::new(move |new| handle.reload(new).map_err(|e| e.to_string())));
    }
}
