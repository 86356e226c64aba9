//! `hearth bucket`: what is in the object store, is it whole, what does it cost, what may go; and blocks
//! written anew. It works on a bucket that a server uses.

mod table;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};
use compactor::inspect::check::{Report, Severity, check_attachments, check_block, check_catalog};
use compactor::inspect::listing::{BlockDetail, SidecarTotals, TenantListing, detail, listing, per};
use compactor::inspect::orphans::{Orphan, orphans, strays};
use compactor::inspect::stats::{LabelCounts, Order, Stats};
use compactor::job::rewrite::{Rewrite, Rewritten, exemplars_left, rewrite, rewrite_exemplars};
use compactor::job::{JobError, JobRunner};
use model::clock::SystemClock;
use model::matcher::Matcher;
use model::tenant::TenantId;
use object_store::ObjectStore;
use query::parse::ParseOptions;
use serde_json::{Value, json};
use tsdb::bucket::BlockStore;
use tsdb::bucket::maintenance::{BucketMaintenance, Patience};
use tsdb::catalog::Catalog;
use tsdb::sidecar::Kind;
use ulid::Ulid;

use self::table::{Table, colour, resolution, time};
use crate::commands::one_shot;
use crate::commands::quantities::{count, size};
use crate::config::value::{Span, Value as _};
use crate::config::{Loaded, Settings};
use crate::objstore::{self, Location};
use crate::{EXIT_USAGE, complain, say};

/// Memory for what is read of blocks: each is read once.
const CACHE_BYTES: usize = 64 << 20;

fn span(text: &str) -> Result<Duration, String> {
    Span::parse(text).map(|s| s.0)
}

pub fn command() -> Command {
    let json = || Arg::new("json").long("json").action(ArgAction::SetTrue).help("Answer in JSON");
    let tenant = || {
        Arg::new("tenant")
            .long("tenant")
            .value_name("TENANT")
            .action(ArgAction::Append)
            .help("Only this tenant (may be given several times) [default: all]")
    };
    let sub =
        |name: &'static str, about: &'static str| Command::new(name).about(about).arg(json()).arg(tenant());
    let blocks =
        || Arg::new("block").value_name("BLOCK").action(ArgAction::Append).help("The block's name (a ULID)");
    Command::new("bucket")
        .about("Look into the object store, check it, clean it, rewrite its blocks")
        .subcommand_required(true)
        .subcommand(sub("ls", "List tenants and their blocks"))
        .subcommand(sub("inspect", "Show a block: its description, and its columns with their sizes").arg(blocks().required(true)))
        .subcommand(
            sub("verify", "Check catalog, checksums, order and counts, exemplars and metadata; exit code 1 if anything is damaged")
                .arg(
                    Arg::new("checksums-only")
                        .long("checksums-only")
                        .action(ArgAction::SetTrue)
                        .help("Compare bytes with their checksums, but do not decode samples"),
                )
                .arg(blocks()),
        )
        .subcommand(
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
                ),
        )
        .subcommand(
            sub("cleanup", "Find objects that nobody needs; with --delete, remove them")
                .arg(Arg::new("delete").long("delete").action(ArgAction::SetTrue).help("Remove them, instead of only saying which"))
                .arg(
                    Arg::new("older-than")
                        .long("older-than")
                        .value_name("DURATION")
                        .default_value("1d")
                        .value_parser(span)
                        .help("Only objects of at least this age: younger ones may be under way"),
                ),
        )
        .subcommand(
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
                .arg(blocks()),
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
        Err(why) => {
            complain(format_args!("error: {why}"));
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// Whether all is well.
fn dispatch(name: &str, of: &ArgMatches, settings: &Settings, location: &Location) -> Result<bool, String> {
    if let Location::Folder(folder) = location
        && !folder.is_dir()
    {
        return Err(format!(
            "there is no folder of blocks at {}: name the bucket with --objstore",
            folder.display()
        ));
    }
    let runtime = one_shot::threads()?;
    let writer = format!("bucket-{}", Ulid::new());
    let commits = name == "rewrite" && of.get_flag("commit");
    let (store, owner): (Arc<dyn ObjectStore>, _) = if commits {
        let arranged = runtime.block_on(objstore::open_to_commit(location, settings, &writer))?;
        (arranged.store, arranged.owner)
    } else {
        (objstore::open(location, settings)?, None)
    };
    let maintenance = BucketMaintenance::new(store, Arc::new(SystemClock), Patience::default());
    let all = runtime.block_on(maintenance.tenants()).map_err(|e| e.to_string())?;
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
    fn catalog(&self, tenant: &TenantId) -> Result<Catalog, String> {
        self.runtime.block_on(self.maintenance.catalog(tenant, &self.writer)).map_err(|e| e.to_string())
    }

    fn ls(&self) -> Result<bool, String> {
        let mut all: Vec<TenantListing> = Vec::new();
        for tenant in &self.tenants {
            all.push(listing(tenant, &self.catalog(tenant)?.snapshot()));
        }
        if self.json {
            print(&to_json(&all));
            return Ok(true);
        }
        for of in &all {
            let mut table = Table::new(&[
                "BLOCK",
                ">LEVEL",
                ">RES",
                "FROM (UTC)",
                "TO (UTC)",
                ">SERIES",
                ">SAMPLES",
                ">SIZE",
                ">B/SAMPLE",
                "BY",
            ]);
            for b in &of.blocks {
                table.line(vec![
                    b.block.clone(),
                    b.level.to_string(),
                    resolution(b.resolution_ms, b.approximate),
                    time(b.min_t_ms),
                    time(b.max_t_ms),
                    count(b.series),
                    count(b.samples),
                    size(b.bytes),
                    format!("{:.3}", b.bytes_per_sample),
                    b.writer.clone(),
                ]);
            }
            let (bytes, samples) = of.blocks.iter().fold((0, 0), |(b, s), l| (b + l.bytes, s + l.samples));
            say(format_args!(
                "tenant {}: {} blocks, {} samples, {}, {:.3} bytes a sample; snapshot {}, {} deletions under way\n",
                of.tenant,
                of.blocks.len(),
                count(samples),
                size(bytes),
                per(bytes, samples),
                of.snapshot,
                of.tombstones
            ));
            say(beside(&of.exemplars, &of.metadata));
            if !table.is_empty() {
                say(format_args!("{}\n", table.render(colour())));
            }
        }
        if all.is_empty() {
            say("the bucket holds no tenant\n");
        }
        Ok(true)
    }

    fn inspect(&self, blocks: &[Ulid]) -> Result<bool, String> {
        let mut found: Vec<BlockDetail> = Vec::new();
        for ulid in blocks {
            let mut why = format!("block {ulid} is of none of the tenants");
            let before = found.len();
            for tenant in &self.tenants {
                let snapshot = self.catalog(tenant)?.snapshot();
                if let Some((kind, file)) = snapshot.sidecars().find(|(_, f)| f.ulid == *ulid) {
                    why = format!(
                        "{ulid} is no block but a file of {} of tenant {tenant}: {} rows, {}; any reader of Parquet shows it: {}",
                        kind.as_str(),
                        count(file.rows),
                        size(file.bytes),
                        kind.path(tenant, *ulid)
                    );
                    continue;
                }
                match self.runtime.block_on(detail(&self.maintenance, tenant, &snapshot, *ulid)) {
                    Ok(one) => found.push(one),
                    Err(e) => why = e.to_string(),
                }
            }
            if found.len() == before {
                return Err(why);
            }
        }
        if self.json {
            print(&to_json(&found));
            return Ok(true);
        }
        found.iter().for_each(|b| say(show_block(b)));
        Ok(true)
    }

    /// Fails for a block, or file beside them, that is not live.
    fn must_be_live(&self, blocks: &[Ulid]) -> Result<(), String> {
        let mut live = std::collections::BTreeSet::new();
        for tenant in self.tenants.iter().filter(|_| !blocks.is_empty()) {
            let snapshot = self.catalog(tenant)?.snapshot();
            live.extend(
                snapshot.blocks.iter().map(|b| b.ulid).chain(snapshot.sidecars().map(|(_, f)| f.ulid)),
            );
        }
        match blocks.iter().find(|b| !live.contains(*b)) {
            Some(missing) => Err(format!("block {missing} is not live in the catalog of any of the tenants")),
            None => Ok(()),
        }
    }

    fn verify(&self, blocks: &[Ulid], decode: bool) -> Result<bool, String> {
        self.must_be_live(blocks)?;
        let mut report = Report::default();
        for tenant in &self.tenants {
            let catalog = self.catalog(tenant)?;
            let snapshot = self.runtime.block_on(check_catalog(&self.maintenance, &catalog, &mut report));
            let snapshot = snapshot.map_err(|e| e.to_string())?;
            let checked = check_attachments(&self.maintenance, &catalog, &snapshot, blocks, &mut report);
            self.runtime.block_on(checked).map_err(|e| e.to_string())?;
            for meta in snapshot.blocks.iter().filter(|b| blocks.is_empty() || blocks.contains(&b.ulid)) {
                let (runtime, before) = (self.runtime.handle(), report.findings.len());
                check_block(&self.maintenance, &self.store, runtime, tenant, meta, decode, &mut report)
                    .map_err(|e| e.to_string())?;
                // A compactor may have replaced it while it was read, and a cleaner removed it.
                if report.findings.len() > before {
                    let now = self.runtime.block_on(catalog.refresh()).map_err(|e| e.to_string())?;
                    if !now.blocks.iter().any(|b| b.ulid == meta.ulid) {
                        report.findings.truncate(before);
                    }
                }
            }
        }
        let fine = !report.damaged();
        if self.json {
            print(&to_json(&report));
            return Ok(fine);
        }
        let mut table = Table::new(&["", "TENANT", "BLOCK", "WHAT"]);
        for f in &report.findings {
            let severity = match f.severity {
                Severity::Damage => "DAMAGE",
                Severity::Note => "note",
            };
            table.line(vec![severity.into(), f.tenant.clone(), f.block.clone(), f.what.clone()]);
        }
        if !table.is_empty() {
            say(table.render(colour()));
        }
        say(format_args!(
            "{} snapshots, {} blocks and {} files beside them, {}, {} series, {} samples {}, {} exemplars, {} entries of metadata: {}\n",
            count(report.snapshots),
            count(report.blocks),
            count(report.sidecars),
            size(report.bytes),
            count(report.series),
            count(report.samples),
            if decode { "read" } else { "said (not decoded)" },
            count(report.exemplars),
            count(report.metadata),
            if fine { "all whole" } else { "DAMAGED" }
        ));
        Ok(fine)
    }

    fn stats(&self, order: Order, top: usize) -> Result<bool, String> {
        let mut all: Vec<(String, Stats, [SidecarTotals; 2])> = Vec::new();
        for tenant in &self.tenants {
            let snapshot = self.catalog(tenant)?.snapshot();
            let mut tally = LabelCounts::default();
            for meta in &snapshot.blocks {
                tally.add(&self.store, tenant, meta).map_err(|e| e.to_string())?;
            }
            let beside = Kind::ALL.map(|kind| SidecarTotals::of(&snapshot, kind));
            all.push((tenant.to_string(), tally.finish(order, top), beside));
        }
        if self.json {
            let list = all.iter().map(|(tenant, stats, beside)| {
                let mut value = to_json(stats);
                for (kind, of) in Kind::ALL.iter().zip(beside) {
                    value[kind.as_str()] = to_json(of);
                }
                value["tenant"] = json!(tenant);
                value
            });
            print(&Value::Array(list.collect()));
            return Ok(true);
        }
        for (tenant, stats, [exemplars, metadata]) in &all {
            say(format_args!(
                "tenant {tenant}: {} blocks, {}, {} distinct series, {} samples\n",
                stats.blocks,
                size(stats.bytes),
                count(stats.series),
                count(stats.samples)
            ));
            say(beside(exemplars, metadata));
            let share = |bytes: f64| format!("{:.1} %", 100.0 * bytes / (stats.bytes as f64).max(1.0));
            let mut metrics = Table::new(&["METRIC", ">SERIES", ">SAMPLES", ">SIZE", ">SHARE", ">B/SAMPLE"]);
            for m in &stats.metrics {
                metrics.line(vec![
                    m.metric.clone(),
                    count(m.series),
                    count(m.samples),
                    size(m.bytes as u64),
                    share(m.bytes),
                    format!("{:.3}", m.bytes / m.samples.max(1) as f64),
                ]);
            }
            let mut labels = Table::new(&["LABEL", ">VALUES", ">SERIES", ">SIZE", ">SHARE"]);
            for l in &stats.labels {
                labels.line(vec![
                    l.label.clone(),
                    count(l.values),
                    count(l.series),
                    size(l.bytes as u64),
                    share(l.bytes),
                ]);
            }
            say(format_args!("\n{}\n{}\n", metrics.render(colour()), labels.render(colour())));
        }
        Ok(true)
    }

    fn cleanup(&self, delete: bool, older_than: Duration) -> Result<bool, String> {
        let mut found: Vec<Orphan> = Vec::new();
        let mut failed = Vec::new();
        for tenant in &self.tenants {
            let catalog = self.catalog(tenant)?;
            let of = self.runtime.block_on(orphans(&self.maintenance, &catalog, older_than));
            for (orphan, piece) in of.map_err(|e| e.to_string())? {
                if delete && let Err(e) = self.runtime.block_on(piece.remove(&self.maintenance, tenant)) {
                    failed.push(e.to_string());
                }
                found.push(orphan);
            }
            if delete {
                self.runtime.block_on(catalog.prune());
            }
        }
        let strays =
            self.runtime.block_on(strays(&self.maintenance, older_than)).map_err(|e| e.to_string())?;
        for stray in strays.iter().filter(|_| delete) {
            if let Err(e) = self.runtime.block_on(self.maintenance.remove_orphan(stray)) {
                failed.push(e.to_string());
            }
        }
        let objects = found.iter().map(|o| o.objects).sum::<u64>() + strays.len() as u64;
        let bytes = found.iter().map(|o| o.bytes).sum::<u64>() + strays.iter().map(|s| s.bytes).sum::<u64>();
        if self.json {
            let strays: Vec<Value> = strays
                .iter()
                .map(|s| json!({ "object": s.object, "bytes": s.bytes, "written_ms": s.written_ms }))
                .collect();
            print(
                &json!({ "deleted": delete, "objects": objects, "bytes": bytes, "orphans": to_json(&found), "strays": strays, "failures": failed }),
            );
            return Ok(failed.is_empty());
        }
        let mut table = Table::new(&["TENANT", "WHAT", ">OBJECTS", ">SIZE", "WRITTEN (UTC)"]);
        for o in &found {
            let line = [
                o.tenant.clone(),
                format!("{} {}", o.kind, o.name),
                count(o.objects),
                size(o.bytes),
                time(o.written_ms),
            ];
            table.line(line.to_vec());
        }
        for s in &strays {
            table.line(vec![String::new(), s.object.clone(), "1".into(), size(s.bytes), time(s.written_ms)]);
        }
        if !table.is_empty() {
            say(table.render(colour()));
        }
        failed.iter().for_each(|e| complain(format_args!("not removed: {e}")));
        let done = match (objects, delete) {
            (0, _) => "nothing that nobody needs".to_owned(),
            (_, true) => format!("{} objects, {}: removed", count(objects), size(bytes)),
            (_, false) => {
                format!("{} objects, {}: `--delete` removes them", count(objects), size(bytes))
            }
        };
        say(format_args!("{done}\n"));
        Ok(failed.is_empty())
    }

    /// Files of exemplars bear the same series as blocks do: what is said of them, a line each.
    fn rewrite_exemplars(
        &self,
        place: &JobRunner,
        catalog: &Catalog,
        wanted: impl Fn(Ulid) -> bool,
        what: &Rewrite,
        commit: bool,
    ) -> Result<Vec<Value>, String> {
        let (tenant, snapshot) = (catalog.tenant(), catalog.snapshot());
        let mut lines = Vec::new();
        for file in snapshot.exemplars.iter().filter(|f| wanted(f.ulid)) {
            let left = self.runtime.block_on(exemplars_left(place, tenant, file, what));
            let Some(left) = left.map_err(|e| e.to_string())? else { continue };
            let mut line = json!({ "tenant": tenant.as_str(), "file": file.ulid.to_string(), "bytes": file.bytes, "samples": file.rows });
            if commit {
                let done = self.runtime.block_on(rewrite_exemplars(place, catalog, file, left));
                let became = done.map(|new| new.map(|n| (n.ulid, n.bytes, n.rows)));
                tell_became(&mut line, became);
            }
            lines.push(line);
        }
        Ok(lines)
    }

    fn rewrite(
        &self,
        blocks: &[Ulid],
        what: Rewrite,
        all: bool,
        commit: bool,
        settings: &Settings,
    ) -> Result<bool, String> {
        if what.drop_series.is_empty() && what.drop_labels.is_empty() && !all {
            return Err("say what to leave out with --drop-series or --drop-label, or give --all to write blocks anew as they are".into());
        }
        self.must_be_live(blocks)?;
        let scratch = tempfile_in(&settings.data_dir.0)?;
        let place = JobRunner {
            maintenance: self.maintenance.clone(),
            store: self.store.clone(),
            settings: Arc::new(compactor::settings::Settings::new(&scratch.0)),
            writer: self.writer.clone(),
            scratch: scratch.0.clone(),
            stop: Arc::new(AtomicBool::new(false)),
        };
        let mut lines: Vec<Value> = Vec::new();
        let mut exemplars: Vec<Value> = Vec::new();
        for tenant in &self.tenants {
            let catalog = self.catalog(tenant)?;
            for meta in
                catalog.snapshot().blocks.iter().filter(|b| blocks.is_empty() || blocks.contains(&b.ulid))
            {
                if !all && !what.concerns(&place, tenant, meta).map_err(|e| e.to_string())? {
                    continue;
                }
                let mut line = json!({ "tenant": tenant.as_str(), "block": meta.ulid.to_string(), "bytes": meta.files.bytes(), "samples": meta.stats.samples });
                if commit {
                    let snapshot = catalog.snapshot();
                    let done = self.runtime.block_on(rewrite(&place, &catalog, &snapshot, meta, &what));
                    let became = done.map(|done| match done {
                        Rewritten::Gone => None,
                        Rewritten::Replaced(new) => Some((new.ulid, new.files.bytes(), new.stats.samples)),
                    });
                    tell_became(&mut line, became);
                }
                lines.push(line);
            }
            let wanted = |ulid| blocks.is_empty() || blocks.contains(&ulid);
            exemplars.extend(self.rewrite_exemplars(&place, &catalog, wanted, &what, commit)?);
        }
        let fine = lines.iter().chain(&exemplars).all(|l| l["failed"].is_null());
        if self.json {
            print(&json!({ "committed": commit, "blocks": lines, "exemplars": exemplars }));
            return Ok(fine);
        }
        let mut table = Table::new(&["TENANT", "BLOCK", ">SAMPLES", ">SIZE", "BECAME", ">SAMPLES", ">SIZE"]);
        let of_exemplars = exemplars.len();
        let blocks = lines.len();
        for mut line in exemplars {
            line["block"] = json!(format!("exemplars {}", line["file"].as_str().unwrap_or("")));
            lines.push(line);
        }
        for line in &lines {
            let text = |key: &str| line[key].as_str().unwrap_or("").to_owned();
            let number = |key: &str| line[key].as_u64().map(count).unwrap_or_default();
            let bytes = |key: &str| line[key].as_u64().map(|b| size(b)).unwrap_or_default();
            let became = if line["failed"].is_null() { text("became") } else { "FAILED".into() };
            table.line(vec![
                text("tenant"),
                text("block"),
                number("samples"),
                bytes("bytes"),
                became,
                number("new_samples"),
                bytes("new_bytes"),
            ]);
        }
        if !table.is_empty() {
            say(table.render(colour()));
        }
        for line in lines.iter().filter(|l| !l["failed"].is_null()) {
            complain(format_args!(
                "block {}: {}",
                line["block"].as_str().unwrap_or(""),
                line["failed"].as_str().unwrap_or("")
            ));
        }
        let which = match of_exemplars {
            0 => format!("{blocks} blocks"),
            n => format!("{blocks} blocks and {n} files of exemplars"),
        };
        let done = match (lines.len(), commit) {
            (0, _) => "no block holds anything of it".to_owned(),
            (_, true) => format!("{which} written anew; the old ones are removed as garbage later"),
            (_, false) => format!("{which} are concerned: `--commit` writes them anew"),
        };
        say(format_args!("{done}\n"));
        Ok(fine)
    }
}

/// What became of something that was written anew: its new name, bytes and samples; `None` where nothing was
/// left.
fn tell_became(line: &mut Value, became: Result<Option<(Ulid, u64, u64)>, JobError>) {
    match became {
        Ok(None) => line["became"] = json!("nothing"),
        Ok(Some((ulid, bytes, samples))) => {
            line["became"] = json!(ulid.to_string());
            line["new_bytes"] = json!(bytes);
            line["new_samples"] = json!(samples);
        }
        // Another had it first; what it made is found by the next run.
        Err(JobError::Lost(why)) => line["failed"] = json!(format!("{why}; run it again")),
        Err(e) => line["failed"] = json!(e.to_string()),
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

/// A folder of this run's own, removed at the end.
struct Scratch(std::path::PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays is found by whoever looks into the data folder.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn tempfile_in(data_dir: &std::path::Path) -> Result<Scratch, String> {
    let folder = data_dir.join("rewrite").join(Ulid::new().to_string());
    std::fs::create_dir_all(&folder).map_err(|e| {
        format!(
            "cannot make a folder for blocks under way, {}: {e}; give another with --data-dir",
            folder.display()
        )
    })?;
    Ok(Scratch(folder))
}

fn show_block(block: &BlockDetail) -> String {
    let m = &block.meta;
    let mut out = format!(
        "block {}{}\n  tenant {}, {}, level {}, format {}, by {}\n  {} to {} UTC\n  {} series, {} samples ({} histograms, {} staleness markers), {} rows\n  {} timelines of {} timestamps in all\n  {}: series {}, timelines {}, samples {}; {:.3} bytes a sample\n",
        m.ulid,
        if block.live { "" } else { " (not live: no part of the newest snapshot)" },
        m.tenant,
        resolution(m.resolution_ms, m.approximate),
        m.level,
        m.version,
        m.writer,
        time(m.min_t_ms),
        time(m.max_t_ms),
        count(m.stats.series),
        count(m.stats.samples),
        count(m.stats.histograms),
        count(m.stats.stale_markers),
        count(m.stats.rows),
        count(m.stats.timelines),
        count(m.stats.timeline_timestamps),
        size(m.files.bytes()),
        size(m.files.series.bytes),
        size(m.files.timelines.bytes),
        size(m.files.samples.bytes),
        per(m.files.bytes(), m.stats.samples)
    );
    if let Some(share) = &m.share {
        let names = format!("{:?} to {:?}", share.first_name, share.last_name);
        out += &format!("  share {} of {}: metrics {names}\n", share.number, share.whole);
    }
    for (name, value) in &m.external_labels {
        out += &format!("  external label {name}={value:?}\n");
    }
    if !m.sources.is_empty() {
        let sources: Vec<String> = m.sources.iter().map(Ulid::to_string).collect();
        out += &format!("  made of {}\n", sources.join(" "));
    }
    let mut table =
        Table::new(&["FILE", "COLUMN", ">GROUPS", ">PAGES", ">VALUES", ">SIZE", ">PLAIN", "ENCODINGS"]);
    for c in &block.columns {
        table.line(vec![
            c.file.into(),
            c.column.clone(),
            count(c.row_groups),
            count(c.pages),
            count(c.values),
            size(c.compressed_bytes),
            size(c.uncompressed_bytes),
            c.encodings.join(" "),
        ]);
    }
    out + &table.render(colour()) + "\n"
}
