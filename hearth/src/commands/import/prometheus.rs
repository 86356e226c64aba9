//! `hearth import prometheus`: the blocks of a Prometheus' data directory, of a snapshot of one, or single
//! ones.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use ingest::import::ImportError;
use ingest::import::block::{Filter, SourceBlock};
use ingest::import::meta::{SourceMeta, is_ulid, superseded};
use ingest::import::relabel::Relabel;
use ingest::import::replicas::common_series;
use ingest::import::unit::{Unit, spans};

use super::session::{Session, when};
use super::{label_arg, labels};
use crate::commands::quantities::{short_count as count, size};

pub fn command() -> Command {
    Command::new("prometheus")
        .about("Import blocks of Prometheus")
        .arg(
            Arg::new("dir")
                .value_name("DIR")
                .required(true)
                .action(ArgAction::Append)
                .value_parser(value_parser!(PathBuf))
                .help("A data directory of Prometheus, a snapshot of one, or the folder of a single block"),
        )
        .arg(
            label_arg(
                "An external label, which blocks of Prometheus do not have: added to every series without a label of that name",
            )
            .visible_alias("external-label"),
        )
}

pub fn run(mut session: Session, matches: &ArgMatches) -> ExitCode {
    let dirs: Vec<PathBuf> = matches.get_many::<PathBuf>("dir").into_iter().flatten().cloned().collect();
    let relabel = match labels(matches) {
        Ok(fill) => Relabel { fill, ..Relabel::default() },
        Err(e) => return crate::refuse(e),
    };
    let mut found = Vec::new();
    for (of_dir, dir) in dirs.iter().enumerate() {
        match folders(dir) {
            Ok(folders) => found.extend(folders.into_iter().map(|folder| (of_dir, folder))),
            Err(e) => return crate::refuse(e),
        }
        if has_head(dir) {
            session.console.line(format_args!("note: {}", head_note(dir)));
        }
    }
    let mut blocks = Vec::new();
    for (of_dir, folder) in found {
        match SourceMeta::read(&folder) {
            Ok(meta) => blocks.push((meta, (of_dir, folder))),
            Err(e) => session.failed(e),
        }
    }
    let blocks = without_superseded(&mut session, blocks);
    match pair(&blocks) {
        Ok(None) => {}
        Ok(Some(pair)) => return crate::refuse(pair),
        Err(e) => return crate::refuse(e),
    }
    session.console.expect(blocks.iter().map(|(m, _)| m.stats.num_samples).sum());
    let n = blocks.len();
    for (i, (meta, (_, folder))) in blocks.iter().enumerate() {
        if session.should_stop() {
            break;
        }
        session.console.title(format!("block {} of {n}, {}", i + 1, meta.ulid));
        match block(&mut session, folder, &relabel, "prometheus block") {
            Ok(()) => {}
            Err(ImportError::Stopped) => break,
            Err(e) => session.failed(format_args!("block {}: {e}", meta.ulid)),
        }
    }
    session.end()
}

/// Why blocks of several directories must not become one tenant's series: their servers are an HA pair, whose
/// samples would lie between each other.
fn pair(blocks: &[(SourceMeta, (usize, PathBuf))]) -> Result<Option<String>, ImportError> {
    for (i, (a, (dir_a, folder_a))) in blocks.iter().enumerate() {
        for (b, (dir_b, folder_b)) in &blocks[..i] {
            if dir_a == dir_b || a.ulid == b.ulid || a.min_time >= b.max_time || b.min_time >= a.max_time {
                continue;
            }
            let mut open_a = SourceBlock::open(folder_a, Filter::default())?;
            let mut open_b = SourceBlock::open(folder_b, Filter::default())?;
            if let Some(series) = common_series(&mut open_a, &mut open_b)? {
                return Ok(Some(format!(
                    "{} and {} both have {series}, each at its own times: their servers scraped the same targets. Import one after the other, each \
                     with a label of its own (--label replica=a, --label replica=b), and let queries merge them (query.replica_labels: replica)",
                    folder_a.display(),
                    folder_b.display()
                )));
            }
        }
    }
    Ok(None)
}

/// Leaves out what went into another block, and says so. The rest, oldest first.
pub fn without_superseded<T>(session: &mut Session, blocks: Vec<(SourceMeta, T)>) -> Vec<(SourceMeta, T)> {
    let metas: Vec<SourceMeta> = blocks.iter().map(|(m, _)| m.clone()).collect();
    let mut kept: Vec<(SourceMeta, T)> = Vec::new();
    for ((meta, what), gone) in blocks.into_iter().zip(superseded(&metas)) {
        if gone {
            session.console.line(format_args!("block {}: left out, another block was made of it", meta.ulid));
        } else if meta.compaction.deletable {
            session.console.line(format_args!("block {}: left out, it is empty and about to go", meta.ulid));
        } else {
            kept.push((meta, what));
        }
    }
    kept.sort_by(|(a, _), (b, _)| (a.min_time, &a.ulid).cmp(&(b.min_time, &b.ulid)));
    kept
}

/// Imports the raw samples of one block folder.
pub fn block(session: &mut Session, folder: &Path, relabel: &Relabel, kind: &str) -> Result<(), ImportError> {
    let filter = Filter { selectors: session.selectors.clone(), relabel: relabel.clone() };
    let mut source = SourceBlock::open(folder, filter)?;
    let ulid = source.meta().ulid.clone();
    let Some(span) = source.span_ms() else {
        session.console.line(format_args!("block {ulid}: no series of it are wanted"));
        return Ok(());
    };
    let deleted = match source.tombstones() {
        0 => String::new(),
        n => format!(", {n} deleted ranges left out"),
    };
    session.console.line(format_args!(
        "block {ulid}: {} to {}, {} series, {} samples in {} of chunks{deleted}",
        when(span.0),
        when(span.1),
        count(source.series() as u64),
        count(source.meta().stats.num_samples),
        size(source.bytes()),
    ));
    if session.dry_run {
        return Ok(());
    }
    let identity = format!("{kind} {ulid}, select [{}], labels [{}]", session.selection, relabel.describe());
    for range in spans(span) {
        let unit = Unit::raw(&identity, range);
        session.unit(&unit, |progress, give| source.read(range, progress, give))?;
    }
    Ok(())
}

/// The block folders that a path names.
fn folders(dir: &Path) -> Result<Vec<PathBuf>, String> {
    if dir.join("meta.json").is_file() {
        return Ok(vec![dir.to_owned()]);
    }
    let entries = std::fs::read_dir(dir).map_err(|e| format!("cannot read {}: {e}", dir.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| format!("cannot read {}: {e}", dir.display()))?.path();
        // What is being made or deleted has an ending behind its name.
        let named = path.file_name().and_then(|n| n.to_str()).is_some_and(is_ulid);
        if named && path.join("meta.json").is_file() {
            found.push(path);
        }
    }
    if found.is_empty() && !has_head(dir) {
        return Err(format!(
            "{} has no blocks: give a data directory of Prometheus (--storage.tsdb.path) or the folder of a block (with meta.json, index and chunks)",
            dir.display()
        ));
    }
    found.sort();
    Ok(found)
}

/// Whether there is a log with something in it.
fn has_head(dir: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(dir.join("wal")) else { return false };
    entries.flatten().any(|e| e.metadata().is_ok_and(|m| m.is_dir() || m.len() > 0))
}

fn head_note(dir: &Path) -> String {
    format!(
        "{} has an open head (wal/), up to three hours of samples that are in no block yet; it is not imported. To have it too, let Prometheus make a \
         snapshot (started with --web.enable-admin-api: curl -XPOST http://localhost:9090/api/v1/admin/tsdb/snapshot) and import \
         snapshots/<name>, now or later: what is imported already is not imported twice",
        dir.display()
    )
}
