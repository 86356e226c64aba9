//! `hearth bucket`: what is in the object store, is it whole, what does it cost, what may go; and blocks
//! written anew. It works on a bucket that a server uses.

mod cleanup;
mod inspect;
mod ls;
mod members;
mod restore;
mod rewrite;
mod stats;
mod table;
mod verify;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};
use compactor::inspect::listing::SidecarTotals;
use compactor::inspect::stats::Order;
use compactor::job::rewrite::Rewrite;
use model::clock::SystemClock;
use model::matcher::Matcher;
use model::tenant::TenantId;
use object_store::ObjectStore;
use query::parse::ParseOptions;
use serde_json::Value;
use tsdb::bucket::BlockStore;
use tsdb::bucket::maintenance::{BucketMaintenance, Patience};
use tsdb::catalog::Catalog;
use ulid::Ulid;

use crate::commands::one_shot::{self, CommandError};
use crate::commands::quantities::{count, size};
use crate::config::value::{Span, Value as _};
use crate::config::{Loaded, Settings};
use crate::objstore::Location;
use crate::{EXIT_USAGE, say};

/// Memory for what is read of blocks: each is read once.
const CACHE_BYTES: usize = 64 << 20;

fn span(text: &str) -> Result<Duration, String> {
    Span::parse(text).map(|s| s.0)
}

pub fn command() -> Command {
    Command::new("bucket")
        .about("Look into the object store, check it, clean it, rewrite its blocks")
        .subcommand_required(true)
        .subcommand(sub("ls", "List tenants and their blocks"))
        .subcommand(
            sub("inspect", "Show a block: its description, and its columns with their sizes")
                .arg(blocks().required(true)),
        )
        .subcommand(verify_command())
        .subcommand(stats_command())
        .subcommand(cleanup_command())
        .subcommand(restore_command())
        .subcommand(rewrite_command())
        .subcommand(sub(
            "members",
            "List the processes on the bucket, and which of them hold samples that it does not have",
        ))
        .subcommand(forget_command())
}

/// A subcommand with what all of them take.
fn sub(name: &'static str, about: &'static str) -> Command {
    let tenant = Arg::new("tenant")
        .long("tenant")
        .value_name("TENANT")
        .action(ArgAction::Append)
        .help("Only this tenant (may be given several times) [default: all]");
    let json = Arg::new("json").long("json").action(ArgAction::SetTrue).help("Answer in JSON");
    Command::new(name).about(about).arg(json).arg(tenant)
}

fn blocks() -> Arg {
    Arg::new("block").value_name("BLOCK").action(ArgAction::Append).help("The block's name (a ULID)")
}

fn verify_command() -> Command {
    sub("verify", "Check catalog, checksums, order and counts, exemplars and metadata; exit code 1 if anything is damaged")
        .arg(
            Arg::new("checksums-only")
                .long("checksums-only")
                .action(ArgAction::SetTrue)
                .help("Compare bytes with their checksums, but do not decode samples"),
        )
        .arg(blocks())
}

fn stats_command() -> Command {
    sub("stats", "Say what metrics and labels cost, over all blocks and so over all of history")
        .arg(
            Arg::new("top")
                .long("top")
                .value_name("N")
                .default_value("20")
                .value_parser(clap::value_parser!(usize))
                .help("Lines of each list"),
        )
        .arg(
            Arg::new("by")
                .long("by")
                .value_parser(["bytes", "cardinality"])
                .default_value("bytes")
                .help("What the lists are ordered and cut by"),
        )
}

fn cleanup_command() -> Command {
    sub("cleanup", "Find objects that nobody needs; with --delete, remove them")
        .arg(
            Arg::new("delete")
                .long("delete")
                .action(ArgAction::SetTrue)
                .help("Remove them, instead of only saying which"),
        )
        .arg(
            Arg::new("older-than")
                .long("older-than")
                .value_name("DURATION")
                .default_value("1d")
                .value_parser(span)
                .help("Only objects of at least this age: younger ones may be under way"),
        )
}

fn restore_command() -> Command {
    sub("restore", "List blocks that retention took out and that are still kept (retention_delay); with --commit, bring them back")
        .arg(
            Arg::new("commit")
                .long("commit")
                .action(ArgAction::SetTrue)
                .help("Bring them back, instead of only listing them"),
        )
        .arg(blocks())
}

fn rewrite_command() -> Command {
    sub("rewrite", "Write blocks anew without some series or labels, or in the present format")
        .arg(
            Arg::new("drop-series")
                .long("drop-series")
                .value_name("SELECTOR")
                .action(ArgAction::Append)
                .value_parser(selector)
                .help("Leave out series that match, such as '{job=\"debug\",path=~\"/tmp/.*\"}' (may be given several times)"),
        )
        .arg(
            Arg::new("drop-label")
                .long("drop-label")
                .value_name("NAME")
                .action(ArgAction::Append)
                .help("Take this label off; refused where two series would become one (may be given several times)"),
        )
        .arg(
            Arg::new("all")
                .long("all")
                .action(ArgAction::SetTrue)
                .help("Rewrite every block, also those of which nothing is left out: in the present format"),
        )
        .arg(Arg::new("commit").long("commit").action(ArgAction::SetTrue).help("Do it, instead of only saying which blocks it concerns"))
        .arg(blocks())
}

fn forget_command() -> Command {
    Command::new("forget")
        .about("Give up what a process that is gone for good has not flushed: queries answer without it from then on")
        .arg(Arg::new("member").value_name("MEMBER").required(true).help("Its name, as `hearth bucket members` shows it"))
        .arg(
            Arg::new("force")
                .long("force")
                .action(ArgAction::SetTrue)
                .help("Also one that was there a moment ago"),
        )
}

/// What a subcommand works with.
struct Bucket {
    runtime: tokio::runtime::Runtime,
    maintenance: BucketMaintenance,
    store: Arc<BlockStore>,
    tenants: Vec<TenantId>,
    json: bool,
    writer: String,
}

pub fn run(matches: &ArgMatches, loaded: Loaded, location: Location) -> ExitCode {
    crate::logging::start_logging(&loaded.settings);
    let Some((name, of)) = matches.subcommand() else { return ExitCode::from(EXIT_USAGE) };
    match dispatch(name, of, &loaded.settings, &location) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => e.end(),
    }
}

/// Whether all is well.
fn dispatch(
    name: &str,
    of: &ArgMatches,
    settings: &Settings,
    location: &Location,
) -> Result<bool, CommandError> {
    if let Location::Folder(folder) = location
        && !folder.is_dir()
    {
        return Err(CommandError::Mend(format!(
            "there is no folder of blocks at {}: name the bucket with --objstore",
            folder.display()
        )));
    }
    let runtime = one_shot::threads()?;
    let writer = format!("bucket-{}", Ulid::new());
    let commits = ["restore", "rewrite"].contains(&name) && of.get_flag("commit");
    let (store, owner): (Arc<dyn ObjectStore>, _) = if commits {
        let arranged = runtime.block_on(one_shot::open_to_commit(location, settings, &writer))?;
        (arranged.store, arranged.owner)
    } else {
        (runtime.block_on(one_shot::open(location, settings))?, None)
    };
    match name {
        "members" => return members::list(&runtime, &*store, of.get_flag("json")),
        "forget" => {
            let member = of.get_one::<String>("member").map_or("", String::as_str);
            return members::forget(&runtime, &*store, member, of.get_flag("force"));
        }
        _ => {}
    }
    let maintenance = BucketMaintenance::new(store, Arc::new(SystemClock), Patience::default());
    let all = runtime.block_on(maintenance.tenants()).map_err(CommandError::failed)?;
    let tenants = match of.get_many::<String>("tenant") {
        Some(names) => names.map(|n| named(n, &all)).collect::<Result<_, _>>()?,
        None => all,
    };
    let store = {
        let _entered = runtime.enter();
        maintenance.blocks(CACHE_BYTES)
    };
    let bucket = Bucket { runtime, maintenance, store, tenants, json: of.get_flag("json"), writer };
    let result = match name {
        "ls" => bucket.ls(),
        "inspect" => bucket.inspect(&ulids(of)?),
        "verify" => bucket.verify(&ulids(of)?, !of.get_flag("checksums-only")),
        "stats" => {
            let order = match of.get_one::<String>("by").map(String::as_str) {
                Some("cardinality") => Order::Cardinality,
                _ => Order::Bytes,
            };
            bucket.stats(order, of.get_one("top").copied().unwrap_or(20))
        }
        "cleanup" => {
            bucket.cleanup(of.get_flag("delete"), of.get_one("older-than").copied().unwrap_or_default())
        }
        "restore" => bucket.restore(&ulids(of)?, commits, &crate::server::compaction::keep(settings)),
        _ => {
            let many = |name| of.get_many::<String>(name).into_iter().flatten().cloned().collect();
            let drop_series =
                of.get_many::<Vec<Matcher>>("drop-series").into_iter().flatten().cloned().collect();
            let what = Rewrite { drop_series, drop_labels: many("drop-label") };
            bucket.rewrite(&ulids(of)?, what, of.get_flag("all"), commits, settings)
        }
    };
    if let Some(owner) = owner {
        bucket.runtime.block_on(owner.release());
    }
    result
}

/// A tenant by its name, which has to be in the bucket.
fn named(name: &str, all: &[TenantId]) -> Result<TenantId, String> {
    let tenant = TenantId::new(name).map_err(|e| format!("--tenant {name:?}: {e}"))?;
    if !all.contains(&tenant) {
        let there: Vec<&str> = all.iter().take(10).map(TenantId::as_str).collect();
        let more = if all.len() > 10 { ", …" } else { "" };
        return Err(format!(
            "--tenant {name:?}: the bucket holds nothing of it, but of {}{more}",
            if there.is_empty() { "nobody".to_owned() } else { there.join(", ") }
        ));
    }
    Ok(tenant)
}

fn ulids(of: &ArgMatches) -> Result<Vec<Ulid>, String> {
    let names = of.get_many::<String>("block").into_iter().flatten();
    names
        .map(|n| Ulid::from_string(n).map_err(|e| format!("{n:?} is not the name of a block: {e}")))
        .collect()
}

/// Reads `{name="value",…}`, with or without a metric's name before it. As PromQL has it, by the query
/// engine's own reader.
fn selector(text: &str) -> Result<Vec<Matcher>, String> {
    let matchers =
        query::parse::parse_metric_selector(text, &ParseOptions::default()).map_err(|e| e.to_string())?;
    if matchers.iter().all(Matcher::matches_empty) {
        return Err("may match every series: name something that they must have".into());
    }
    Ok(matchers)
}

fn print(value: &Value) {
    say(format_args!("{value:#}\n"));
}

fn to_json(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

impl Bucket {
    fn catalog(&self, tenant: &TenantId) -> Result<Catalog, CommandError> {
        let opening = self.maintenance.catalog(tenant, &self.writer);
        self.runtime.block_on(opening).map_err(CommandError::failed)
    }

    /// Fails for a block, or file beside them, that is not live.
    fn must_be_live(&self, blocks: &[Ulid]) -> Result<(), CommandError> {
        let mut live = std::collections::BTreeSet::new();
        for tenant in self.tenants.iter().filter(|_| !blocks.is_empty()) {
            let snapshot = self.catalog(tenant)?.snapshot();
            live.extend(
                snapshot.blocks.iter().map(|b| b.ulid).chain(snapshot.sidecars().map(|(_, f)| f.ulid)),
            );
        }
        match blocks.iter().find(|b| !live.contains(*b)) {
            Some(missing) => Err(CommandError::Mend(format!(
                "block {missing} is not live in the catalog of any of the tenants"
            ))),
            None => Ok(()),
        }
    }
}

/// A line about the files beside a tenant's blocks; nothing where there are none.
fn beside(exemplars: &SidecarTotals, metadata: &SidecarTotals) -> String {
    let one = |of: &SidecarTotals, what: &str| {
        format!("{} {what} in {} files, {}", count(of.rows), of.files, size(of.bytes))
    };
    match exemplars.files + metadata.files {
        0 => String::new(),
        _ => format!(
            "beside them: {}; {}\n",
            one(exemplars, "exemplars"),
            one(metadata, "entries of metadata")
        ),
    }
}
