//! `hearth import thanos`: the blocks of a Thanos bucket, raw ones where there are, downsampled ones where
//! the raw are gone.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Arg, ArgAction, ArgMatches, Command};
use futures::{StreamExt, TryStreamExt};
use ingest::import::ImportError;
use ingest::import::block::{Filter, SourceBlock};
use ingest::import::meta::{MAX_META_BYTES, SourceMeta, is_ulid};
use ingest::import::relabel::Relabel;
use ingest::import::replicas;
use ingest::import::unit::{Unit, spans};
use model::source::merge::replicas::grid;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::io::AsyncWriteExt;
use tsdb::small_object;

use super::prometheus::without_superseded;
use super::session::{Session, when};
use crate::commands::one_shot::{self, CommandError};
use crate::commands::quantities::{short_count as count, size};
use crate::config::Settings;
use crate::objstore::{self, Location};

/// Objects of one block that are downloaded at the same time.
const DOWNLOADS: usize = 4;

pub fn command() -> Command {
    Command::new("thanos")
        .about("Import a Thanos bucket: raw blocks, and downsampled ones where raw ones are gone")
        .arg(
            Arg::new("url")
                .value_name("URL")
                .required(true)
                .help("The bucket: s3://bucket/prefix (with the same settings as --objstore), file:///path, or a folder"),
        )
        .arg(
            Arg::new("drop-label")
                .long("drop-label")
                .value_name("LABEL")
                .action(ArgAction::Append)
                .help("An external label that only tells replicas apart, such as `replica`: series are merged without it"),
        )
        .arg(
            Arg::new("marked")
                .long("marked")
                .action(ArgAction::SetTrue)
                .help("Import also what is marked for deletion"),
        )
}

/// A block that is complete.
struct Block {
    meta: SourceMeta,
    /// Names below the block's folder, and their bytes.
    objects: Vec<(String, u64)>,
}

pub fn run(mut session: Session, settings: &Settings, matches: &ArgMatches) -> ExitCode {
    let url = matches.get_one::<String>("url").map_or("", String::as_str);
    let location = match locate(url) {
        Ok(location) => location,
        Err(e) => return crate::refuse(e),
    };
    let found = session.runtime.block_on(async {
        let store = one_shot::open(&location, settings).await?;
        let found = list(&*store, matches.get_flag("marked")).await;
        let (blocks, notes) = found.map_err(|e| CommandError::failed(format_args!("{location}: {e}")))?;
        Ok::<_, CommandError>((store, blocks, notes))
    });
    let (store, blocks, notes) = match found {
        Ok(found) => found,
        Err(e) => return e.end(),
    };
    for note in notes {
        session.console.line(note);
    }
    if blocks.is_empty() {
        return crate::refuse(format_args!("{location} has no complete block of Thanos"));
    }
    let blocks: Vec<_> = blocks.into_iter().map(|b| (b.meta.clone(), b)).collect();
    let mut blocks = without_superseded(&mut session, blocks);
    // Raw ones first: what they hold, nothing downsampled is needed for.
    blocks.sort_by_key(|(meta, _)| (meta.resolution_ms(), meta.min_time, meta.ulid.clone()));
    session.console.expect(blocks.iter().map(|(m, _)| m.stats.num_samples).sum());
    let drop: Vec<String> = matches.get_many::<String>("drop-label").into_iter().flatten().cloned().collect();
    let metas: Vec<SourceMeta> = blocks.iter().map(|(meta, _)| meta.clone()).collect();
    let import = Import { store, location, raw: RawSpans::of(&metas, &drop), drop };
    let blocks: Vec<Block> = blocks.into_iter().map(|(_, block)| block).collect();
    for job in jobs(&metas, &import.drop) {
        if session.should_stop() {
            break;
        }
        let blocks: Vec<&Block> = job.iter().map(|i| &blocks[*i]).collect();
        let named: Vec<&str> = blocks.iter().map(|b| b.meta.ulid.as_str()).collect();
        session.console.title(format!("block {}", named.join(", ")));
        match import.job(&mut session, &blocks) {
            Ok(()) => {}
            Err(ImportError::Stopped) => break,
            Err(e) => session.failed(format_args!("block {}: {e}", named.join(", "))),
        }
    }
    session.end()
}

/// What belongs together: blocks alone, or, where replicas are merged, all blocks of one resolution whose
/// external labels differ in dropped ones only. Places in the list, in its order.
fn jobs(metas: &[SourceMeta], drop: &[String]) -> Vec<Vec<usize>> {
    let mut jobs: Vec<Vec<usize>> = Vec::new();
    let mut by_stream: BTreeMap<(i64, BTreeMap<String, String>), usize> = BTreeMap::new();
    for (i, meta) in metas.iter().enumerate() {
        let key = (meta.resolution_ms(), stream(meta, drop));
        match by_stream.get(&key) {
            Some(job) if !drop.is_empty() => jobs[*job].push(i),
            _ => {
                by_stream.insert(key, jobs.len());
                jobs.push(vec![i]);
            }
        }
    }
    // Of one replica alone, blocks are imported one by one.
    let replicas =
        |job: &Vec<usize>| job.iter().map(|i| stream(&metas[*i], &[])).collect::<BTreeSet<_>>().len();
    let apart = |job: Vec<usize>| match replicas(&job) {
        1 => job.into_iter().map(|i| vec![i]).collect(),
        _ => vec![job],
    };
    jobs.into_iter().flat_map(apart).collect()
}

/// A URL, or a folder as a shell names it.
fn locate(url: &str) -> Result<Location, String> {
    let location = match url.contains("://") {
        true => objstore::parse(url)?,
        false => Location::Folder(std::path::absolute(url).map_err(|e| format!("{url}: {e}"))?),
    };
    match &location {
        Location::Folder(path) if !path.is_dir() => {
            Err(format!("{} is no folder; a bucket is written s3://bucket/prefix", path.display()))
        }
        _ => Ok(location),
    }
}

/// The complete blocks of a bucket, and what is said of the others.
async fn list(store: &dyn ObjectStore, marked: bool) -> Result<(Vec<Block>, Vec<String>), String> {
    let top = store.list_with_delimiter(None).await.map_err(|e| format!("cannot be listed: {e}"))?;
    let mut found = Vec::new();
    let mut notes = Vec::new();
    for folder in top.common_prefixes {
        let Some(ulid) = folder.filename().filter(|n| is_ulid(n)).map(str::to_owned) else { continue };
        let listed: Vec<_> = store
            .list(Some(&folder))
            .try_collect()
            .await
            .map_err(|e| format!("{folder} cannot be listed: {e}"))?;
        let objects: Vec<(String, u64)> = listed
            .iter()
            .filter_map(|o| {
                let below = o.location.prefix_match(&folder)?;
                let parts: Vec<String> = below.map(|p| p.as_ref().to_owned()).collect();
                Some((parts.join("/"), o.size))
            })
            .collect();
        let size_of = |name: &str| objects.iter().find(|(n, _)| n == name).map(|(_, size)| *size);
        if size_of("deletion-mark.json").is_some() && !marked {
            notes.push(format!(
                "block {ulid}: left out, it is marked for deletion (--marked imports it all the same)"
            ));
            continue;
        }
        // Thanos uploads `meta.json` last.
        match size_of("meta.json") {
            None => {
                notes.push(format!("block {ulid}: left out, its upload is not complete (no meta.json)"));
                continue;
            }
            Some(bytes) if bytes > MAX_META_BYTES => {
                return Err(format!("{folder}/meta.json has {bytes} bytes"));
            }
            Some(_) => {}
        }
        let path = folder.clone().join("meta.json");
        let failed = |e: object_store::Error| format!("{path} cannot be read: {e}");
        let Some(text) = small_object::read_bytes(store, &path).await.map_err(failed)? else { continue };
        let meta = match SourceMeta::parse(&text) {
            Ok(meta) => meta,
            Err(e) => {
                notes.push(format!("block {ulid}: left out, its meta.json: {e}"));
                continue;
            }
        };
        let files = meta.thanos.as_ref().map(|t| t.files.clone()).unwrap_or_default();
        let missing = files
            .iter()
            .filter(|f| f.rel_path != "meta.json")
            .find(|f| size_of(&f.rel_path).is_none_or(|size| f.size_bytes > 0 && size != f.size_bytes));
        if let Some(missing) = missing {
            notes.push(format!(
                "block {ulid}: left out, {} is missing or of another length",
                missing.rel_path
            ));
            continue;
        }
        if size_of("index").is_none() {
            notes.push(format!("block {ulid}: left out, it has no index"));
            continue;
        }
        found.push(Block { meta, objects });
    }
    Ok((found, notes))
}

/// Which spans of time each stream has raw blocks for.
struct RawSpans(BTreeMap<BTreeMap<String, String>, BTreeSet<i64>>);

impl RawSpans {
    fn of(metas: &[SourceMeta], drop: &[String]) -> RawSpans {
        let mut out: BTreeMap<_, BTreeSet<i64>> = BTreeMap::new();
        for meta in metas.iter().filter(|m| m.resolution_ms() == 0) {
            let of = out.entry(stream(meta, drop)).or_default();
            of.extend(spans(range_of(meta)).map(|(_, end)| end));
        }
        RawSpans(out)
    }

    fn has(&self, stream: &BTreeMap<String, String>, span_end: i64) -> bool {
        self.0.get(stream).is_some_and(|ends| ends.contains(&span_end))
    }
}

/// A set of external labels, without those that are dropped.
fn stream(meta: &SourceMeta, drop: &[String]) -> BTreeMap<String, String> {
    let mut labels = meta.thanos.as_ref().map(|t| t.labels.clone()).unwrap_or_default();
    labels.retain(|name, _| !drop.contains(name));
    labels
}

/// First and last timestamp that a block may have.
fn range_of(meta: &SourceMeta) -> (i64, i64) {
    (meta.min_time, meta.max_time.saturating_sub(1))
}

fn overlap(a: (i64, i64), b: (i64, i64)) -> bool {
    a.0 <= b.1 && b.0 <= a.1
}

/// What all jobs of an import share.
struct Import {
    store: Arc<dyn ObjectStore>,
    location: Location,
    raw: RawSpans,
    /// Names of labels that only tell replicas apart.
    drop: Vec<String>,
}

impl Import {
    /// Imports some blocks of one resolution and stream; several are replicas, which become one.
    fn job(&self, session: &mut Session, blocks: &[&Block]) -> Result<(), ImportError> {
        let Some(first) = blocks.first() else { return Ok(()) };
        let stream = stream(&first.meta, &self.drop);
        let resolution_ms = first.meta.resolution_ms();
        let mut wanted: BTreeSet<(i64, i64)> = BTreeSet::new();
        for block in blocks {
            let of_block: Vec<(i64, i64)> = spans(range_of(&block.meta))
                .filter(|(_, end)| resolution_ms == 0 || !self.raw.has(&stream, *end))
                .collect();
            session.console.line(describe(&block.meta, of_block.is_empty()));
            wanted.extend(of_block);
        }
        let unit = |range: (i64, i64)| Unit {
            resolution_ms,
            // Windows stand apart from the samples of other streams, which say nothing of theirs. Raw samples
            // are merged with all others.
            external_labels: if resolution_ms > 0 { stream.clone() } else { BTreeMap::new() },
            ..Unit::raw(&self.identity(session, blocks, range), range)
        };
        let units: Vec<Unit> = wanted.into_iter().map(unit).collect();
        if units.is_empty() || session.dry_run || session.all_done(&units)? {
            return Ok(());
        }
        let mut open: BTreeMap<usize, OpenBlock> = BTreeMap::new();
        for unit in &units {
            if blocks.len() > 1 {
                self.check_not_imported_apart(session, blocks, unit)?;
            }
            // Beyond a span, what replicas become in it depends on some minutes on either side.
            let reach = grid::reach(unit.range);
            open.retain(|i, _| blocks[*i].meta.max_time > reach.0);
            for (i, block) in blocks.iter().enumerate().filter(|(_, b)| overlap(range_of(&b.meta), reach)) {
                if let Entry::Vacant(place) = open.entry(i) {
                    place.insert(self.open(session, block)?);
                }
            }
            let mut sources: Vec<&mut SourceBlock> = open.values_mut().map(|o| &mut o.source).collect();
            session.unit(unit, |progress, give| replicas::read(&mut sources, unit.range, progress, give))?;
        }
        Ok(())
    }

    /// What a unit is remembered by.
    fn identity(&self, session: &Session, blocks: &[&Block], range: (i64, i64)) -> String {
        if let [block] = blocks {
            return self.identity_alone(session, block);
        }
        let inside: Vec<&&Block> = blocks.iter().filter(|b| overlap(range_of(&b.meta), range)).collect();
        if let [alone] = inside[..] {
            return self.identity_alone(session, alone);
        }
        let mut named: Vec<&str> = inside.iter().map(|b| b.meta.ulid.as_str()).collect();
        named.sort_unstable();
        format!(
            "thanos blocks {} of {} ms merged without {:?}, select [{}]",
            named.join(" "),
            blocks[0].meta.resolution_ms(),
            self.drop,
            session.selection
        )
    }

    fn identity_alone(&self, session: &Session, block: &Block) -> String {
        format!(
            "thanos block {} of {} ms, select [{}], labels [{}]",
            block.meta.ulid,
            block.meta.resolution_ms(),
            session.selection,
            self.relabel(&block.meta).describe()
        )
    }

    fn relabel(&self, meta: &SourceMeta) -> Relabel {
        Relabel { add: stream(meta, &[]), drop: self.drop.clone(), ..Relabel::default() }
    }

    /// A block that is in the store without its label and without its replica cannot be merged with it any
    /// more: queries would take the two for copies.
    fn check_not_imported_apart(
        &self,
        session: &Session,
        blocks: &[&Block],
        unit: &Unit,
    ) -> Result<(), ImportError> {
        let inside: Vec<&&Block> = blocks.iter().filter(|b| overlap(range_of(&b.meta), unit.range)).collect();
        for block in inside.iter().filter(|_| inside.len() > 1) {
            let alone = Unit::raw(&self.identity_alone(session, block), unit.range);
            if session.journal.is_done(&alone.key())? {
                return Err(ImportError::source(format!(
                    "block {} was imported up to {} without its replicas and without {:?}: they cannot be merged with it any more. \
                     Import into another tenant, or keep the label (without --drop-label) and let queries merge (query.replica_labels)",
                    block.meta.ulid,
                    when(unit.range.1),
                    self.drop
                )));
            }
        }
        Ok(())
    }

    /// A folder is read where it lies; a bucket's block is fetched whole.
    fn open(&self, session: &mut Session, block: &Block) -> Result<OpenBlock, ImportError> {
        let ulid = &block.meta.ulid;
        let (folder, fetched) = match &self.location {
            Location::Folder(path) => (path.join(ulid), None),
            _ => {
                let fetched = Fetched(session.scratch.path().join(ulid));
                let bytes: u64 = block.objects.iter().map(|(_, size)| size).sum();
                session.console.title(format!("fetching {ulid} ({})", size(bytes)));
                session.runtime.block_on(fetch(&self.store, block, &fetched.0))?;
                (fetched.0.clone(), Some(fetched))
            }
        };
        let filter = Filter { selectors: session.selectors.clone(), relabel: self.relabel(&block.meta) };
        Ok(OpenBlock { source: SourceBlock::open(&folder, filter)?, _fetched: fetched })
    }
}

fn describe(meta: &SourceMeta, left_out: bool) -> String {
    let kind = match meta.resolution_ms() {
        0 => "raw".to_string(),
        ms => format!("{} min windows", ms / 60_000),
    };
    let why = if left_out { ": left out, the bucket has raw samples for all of its time" } else { "" };
    format!(
        "block {}: {kind}, {} to {}, {} series, {} samples, {:?}{why}",
        meta.ulid,
        when(meta.min_time),
        when(meta.max_time),
        count(meta.stats.num_series),
        count(meta.stats.num_samples),
        stream(meta, &[]),
    )
}

/// A block that is being read.
struct OpenBlock {
    source: SourceBlock,
    _fetched: Option<Fetched>,
}

/// A block's copy, for as long as it is read.
struct Fetched(PathBuf);

impl Drop for Fetched {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Copies what is read of a block into a local folder.
async fn fetch(store: &Arc<dyn ObjectStore>, block: &Block, folder: &Path) -> Result<(), ImportError> {
    let root = object_store::path::Path::from(block.meta.ulid.as_str());
    let needed = |name: &str| {
        let segment = name.strip_prefix("chunks/");
        segment.is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()))
            || ["meta.json", "index", "tombstones"].contains(&name)
    };
    std::fs::create_dir_all(folder.join("chunks")).map_err(|e| ImportError::disk(folder, e))?;
    let copies = block.objects.iter().filter(|(name, _)| needed(name)).map(|(name, bytes)| {
        let from = name.split('/').fold(root.clone(), |path, part| path.join(part));
        let to = folder.join(name);
        async move {
            let failed = |source: Box<dyn std::error::Error + Send + Sync>| ImportError::Fetch {
                object: from.to_string(),
                path: to.clone(),
                source,
            };
            let mut file = tokio::fs::File::create(&to).await.map_err(|e| failed(e.into()))?;
            let mut body = store.get(&from).await.map_err(|e| failed(e.into()))?.into_stream();
            let mut got = 0;
            while let Some(part) = body.next().await {
                let part = part.map_err(|e| failed(e.into()))?;
                got += part.len() as u64;
                file.write_all(&part).await.map_err(|e| failed(e.into()))?;
            }
            file.flush().await.map_err(|e| failed(e.into()))?;
            match got == *bytes {
                true => Ok(()),
                false => Err(failed(format!("{got} of {bytes} bytes came").into())),
            }
        }
    });
    futures::stream::iter(copies).buffer_unordered(DOWNLOADS).try_collect::<()>().await
}
