//! `hearth rules backfill`: recording rules for the past, out of the blocks in the object store and into
//! new ones beside them.

use std::process::ExitCode;
use std::sync::Arc;

use clap::{Arg, ArgMatches, Command};
use ingest::import::ImportError;
use ingest::import::unit::{Unit, spans};
use model::matcher::Matcher;
use model::source::memory::MemorySource;
use model::source::{Budget, Hints, Selection, Source};
use query::engine::Engine;
use rules::backfill::{BackfillError, fill};
use rules::file::FileOptions;
use rules::group::{Defaults, Group, load};
use tsdb::bucket::{BlockStore, BucketSource};
use tsdb::catalog::{Catalog, CatalogOptions};

use super::export::time;
use super::import::session::{Session, when};
use super::{import, one_shot};
use crate::config::{Loaded, Settings};
use crate::logging;
use crate::objstore::{self, Location};

/// Memory for what is read of blocks.
const CACHE_BYTES: usize = 256 << 20;

/// How long before now it ends by default: what is younger may not be in the object store yet.
const YOUNGEST_MS: i64 = 3 * 3600 * 1000;

pub fn command() -> Command {
    let backfill = Command::new("backfill")
        .about("Compute recording rules for the past, from the blocks in the object store")
        .arg(
            Arg::new("file")
                .value_name("FILE")
                .required(true)
                .num_args(1..)
                .help("Rule files; alerting rules in them are left out"),
        )
        .arg(
            Arg::new("start")
                .long("start")
                .value_name("TIME")
                .required(true)
                .help("First time, as 2024-05-01T00:00:00Z, in seconds, or as a duration ago (7d)"),
        )
        .arg(
            Arg::new("end")
                .long("end")
                .value_name("TIME")
                .help("Last time, included [default: three hours ago]"),
        )
        .arg(
            Arg::new("eval-interval")
                .long("eval-interval")
                .value_name("DURATION")
                .default_value("1m")
                .help("Interval of groups that do not say it"),
        );
    Command::new("rules")
        .about("Work with recording rules")
        .subcommand_required(true)
        .subcommand(import::with_common(backfill))
}

pub fn run(matches: &ArgMatches, loaded: Loaded, location: Location) -> ExitCode {
    logging::start_logging(&loaded.settings);
    let Some((_, matches)) = matches.subcommand() else { return ExitCode::from(crate::EXIT_USAGE) };
    let wanted = match wanted(matches, &loaded.settings) {
        Ok(wanted) => wanted,
        Err(e) => return crate::refuse(e),
    };
    let mut session = match Session::open(matches, &loaded.settings, &location) {
        Ok(session) => session,
        Err(e) => return e.end(),
    };
    if let Err(e) = backfill(&mut session, &wanted, &loaded.settings, &location) {
        session.failed(e);
    }
    session.end()
}

/// What is to be computed.
struct Wanted {
    groups: Vec<Group>,
    range: (i64, i64),
    /// Of the rules: other rules are another import.
    identity: String,
}

fn wanted(matches: &ArgMatches, settings: &Settings) -> Result<Wanted, String> {
    let at = |name: &str, usual: i64| {
        match matches.get_one::<String>(name) {
        Some(text) => time(text).ok_or_else(|| {
            format!("--{name} {text:?}: write 2024-05-01T00:00:00Z, seconds since 1970, or a duration such as 7d for so long ago")
        }),
        None => Ok(usual),
    }
    };
    let range = (at("start", 0)?, at("end", jiff::Timestamp::now().as_millisecond() - YOUNGEST_MS)?);
    if range.0 > range.1 {
        return Err("--start lies after --end".into());
    }
    let interval = matches.get_one::<String>("eval-interval").map_or("1m", String::as_str);
    let interval_ns = query::parse::parse_duration_ns(interval)
        .map_err(|e| format!("--eval-interval {interval:?}: {e}"))?;
    let defaults = Defaults {
        interval_ms: ((interval_ns / 1_000_000) as i64).max(1),
        query_offset_ms: settings.rules_query_offset.ms(),
    };
    let parse = crate::server::engine_options(settings).parse;
    let files: Vec<String> = matches.get_many::<String>("file").into_iter().flatten().cloned().collect();
    let tenant = one_shot::tenant(matches)?;
    let options = FileOptions { parse, ..FileOptions::default() };
    let groups = load::load(&files, &tenant, &defaults, &options).map_err(|errors| errors.join("\n"))?;
    let mut identity = format!("recording rules, {} to {}", when(range.0), when(range.1));
    for group in &groups {
        let mut text = String::new();
        rules::file::write_group(&mut text, &group.spec, 0);
        identity += &format!("\n{} every {} ms\n{text}", group.key.file, group.interval_ms);
    }
    Ok(Wanted { groups, range, identity })
}

/// All blocks of the tenant, as they are now.
fn history(session: &Session, settings: &Settings, location: &Location) -> Result<Arc<dyn Source>, String> {
    let tenant = session.journal.tenant().clone();
    session.runtime.block_on(async {
        let store = objstore::open(location, settings)?;
        let catalog = Catalog::open(store.clone(), tenant.clone(), "rules", CatalogOptions::default()).await;
        let snapshot = catalog.map_err(|e| e.to_string())?.snapshot();
        if snapshot.number == 0 {
            return Err(format!("{location} holds nothing of tenant {tenant}"));
        }
        let blocks = BlockStore::new(store, tokio::runtime::Handle::current(), CACHE_BYTES);
        let source =
            BucketSource::new(blocks, tenant, snapshot.blocks.clone()).with_visibility(snapshot.visibility());
        Ok(Arc::new(source) as Arc<dyn Source>)
    })
}

fn backfill(
    session: &mut Session,
    wanted: &Wanted,
    settings: &Settings,
    location: &Location,
) -> Result<(), String> {
    let engine = Engine::new(crate::server::engine_options(settings));
    let mut skipped = 0;
    let all: Vec<(i64, i64)> =
        spans(wanted.range).map(|(from, to)| (from.max(wanted.range.0), to.min(wanted.range.1))).collect();
    let count = all.len();
    for (at, range) in all.into_iter().enumerate() {
        if session.should_stop() {
            return Ok(());
        }
        session.console.title(format!("block {} of {count}, up to {}", at + 1, when(range.1)));
        let unit = Unit::raw(&wanted.identity, range);
        if session.all_done(std::slice::from_ref(&unit)).map_err(|e| e.to_string())? {
            continue;
        }
        // Read anew each time, so that what was committed for earlier spans is there.
        let history = history(session, settings, location)?;
        let out = Arc::new(MemorySource::new());
        let stopped = session.stop_sign();
        let go_on = |_| !stopped.load(std::sync::atomic::Ordering::Relaxed);
        let filled = match fill(&wanted.groups, &engine, &history, range, &out, go_on) {
            Err(BackfillError::Stopped) => return Ok(()),
            filled => filled.map_err(|e| e.to_string())?,
        };
        skipped = filled.skipped;
        if session.dry_run {
            session.console.line(format_args!(
                "{} to {}: {} samples",
                when(range.0),
                when(range.1),
                filled.samples
            ));
            continue;
        }
        let selectors = session.selectors.clone();
        let given = session.unit(&unit, |_, give| {
            let selection = Selection {
                matchers: Vec::new(),
                min_t_ms: range.0,
                max_t_ms: range.1,
                hints: Hints::default(),
                budget: Budget::unlimited(),
            };
            let mut cursor = out.select(&selection)?;
            while let Some(batch) = cursor.next_batch()? {
                for series in batch {
                    let fits =
                        |set: &Vec<Matcher>| set.iter().all(|m| m.matches(series.labels.value(&m.name)));
                    if selectors.is_empty() || selectors.iter().any(fits) {
                        give(series)?;
                    }
                }
            }
            Ok(())
        });
        match given {
            Err(ImportError::Stopped) => return Ok(()),
            given => given.map_err(|e| e.to_string())?,
        }
    }
    if skipped > 0 {
        session.console.line(format_args!("{skipped} alerting rules were left out"));
    }
    Ok(())
}
