//! What commands that read or fill a bucket have alike: threads, a tenant, selectors, and a way to be
//! stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::ArgMatches;
use model::matcher::Matcher;
use model::tenant::TenantId;
use query::parse::{ParseOptions, parse_metric_selector};
use tokio::runtime::Runtime;

/// Threads for a command.
pub fn threads() -> Result<Runtime, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("hearth").build();
    runtime.map_err(|e| format!("cannot start threads: {e}"))
}

/// A sign that is set by the first Ctrl-C, which `said` is answered to; the second one ends the process.
pub fn stop_sign(runtime: &Runtime, said: &'static str) -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let asked = stop.clone();
    runtime.spawn(async move {
        while tokio::signal::ctrl_c().await.is_ok() {
            if asked.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
            crate::complain(format_args!("\n{said}; again: at once"));
        }
    });
    stop
}

/// Whose series are meant, of `--tenant`.
pub fn tenant(matches: &ArgMatches) -> Result<TenantId, String> {
    let tenant = matches.get_one::<String>("tenant").map_or("default", String::as_str);
    TenantId::new(tenant).map_err(|e| format!("--tenant {tenant:?}: {e}"))
}

/// The selectors of `--match`, as they were written and as PromQL reads them; none means everything.
pub fn selectors(matches: &ArgMatches) -> Result<(Vec<&str>, Vec<Vec<Matcher>>), String> {
    let texts: Vec<&str> =
        matches.get_many::<String>("match").into_iter().flatten().map(String::as_str).collect();
    let parse = |text: &&str| {
        let parsed = parse_metric_selector(text, &ParseOptions::default());
        parsed.map_err(|e| format!("--match {text:?}: {e}"))
    };
    let selectors = texts.iter().map(parse).collect::<Result<_, _>>()?;
    Ok((texts, selectors))
}
