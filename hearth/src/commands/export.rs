//! `hearth export`: samples of the store as Parquet rows or OpenMetrics text, beside a server that may be
//! running.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use compactor::export::openmetrics::OpenMetrics;
use compactor::export::parquet::{ParquetOptions, ParquetRows};
use compactor::export::{ExportError, Exported, Wanted, export, parts};
use model::tenant::TenantId;
use query::parse::parse_duration_ns;
use tsdb::bucket::{BlockStore, BucketSource};
use tsdb::catalog::{Catalog, CatalogOptions};

use super::console::Console;
use super::one_shot::{self, CommandError};
use super::quantities::{short_count, size};
use crate::config::Loaded;
use crate::error_chain::error_chain;
use crate::live_client::beginning_of;
use crate::logging;
use crate::objstore::Location;

/// Rows are sorted by series within so much time: what bounds the blocks that are open at once.
const PART_MS: i64 = 14 * 24 * 3600 * 1000;
/// For indexes and small columns of blocks.
const CACHE_BYTES: usize = 128 << 20;

const MORE: &str = "\
What is exported lies in blocks. A running server holds the newest samples (two hours or so) in its head: give its address with --flush-url, and
it makes blocks of them first (the same as `curl -XPOST http://localhost:9494/-/flush`).";

pub fn command() -> Command {
    Command::new("export")
        .about("Write samples of the store as Parquet or OpenMetrics; a server may be running on it")
        .after_help(MORE)
        .subcommand_required(true)
        .subcommand(
            with_common(
                Command::new("parquet").about("Parquet with a row per sample, sorted, in several files"),
            )
            .arg(
                Arg::new("out")
                    .long("out")
                    .value_name("DIR|FILE.parquet")
                    .required(true)
                    .value_parser(value_parser!(PathBuf))
                    .help("Folder for part-00000.parquet and so on, or one file"),
            )
            .arg(
                Arg::new("column").long("column").value_name("LABEL").action(ArgAction::Append).help(
                    "A label that gets a column of its own instead of a place in the map; may be repeated",
                ),
            )
            .arg(
                Arg::new("file-bytes")
                    .long("file-bytes")
                    .value_name("BYTES")
                    .value_parser(value_parser!(u64).range(1..))
                    .default_value("536870912")
                    .help("Begin a new file after about so many bytes"),
            ),
        )
        .subcommand(
            with_common(Command::new("openmetrics").about("OpenMetrics text with timestamps, floats only"))
                .arg(
                    Arg::new("out")
                        .long("out")
                        .value_name("FILE")
                        .required(true)
                        .value_parser(value_parser!(PathBuf))
                        .help("The file; - is standard output; .gz and .zst are compressed"),
                ),
        )
}

fn with_common(command: Command) -> Command {
    let text = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    command
        .after_help(MORE)
        .arg(text("tenant", "NAME", "Tenant whose series are exported").default_value("default"))
        .arg(
            text(
                "match",
                "SELECTOR",
                "Only series that match, such as '{job=\"node\"}'; several: any of them",
            )
            .action(ArgAction::Append),
        )
        .arg(text(
            "start",
            "TIME",
            "First time, as 2024-05-01T00:00:00Z, in seconds, or as a duration ago (7d)",
        ))
        .arg(text("end", "TIME", "Last time, included"))
        .arg(
            text("resolution", "RESOLUTION", "Coarsest that is taken where there is such: raw, 5m, 1h")
                .value_parser(["raw", "5m", "1h"])
                .default_value("raw"),
        )
        .arg(text("flush-url", "URL", "A running server that is asked to make blocks of its head first"))
}

pub fn run(matches: &ArgMatches, loaded: Loaded, location: Location) -> ExitCode {
    logging::start_logging(&loaded.settings);
    let Some((kind, matches)) = matches.subcommand() else { return ExitCode::from(crate::EXIT_USAGE) };
    let (wanted, tenant) = match wanted(matches) {
        Ok(found) => found,
        Err(e) => return crate::refuse(e),
    };
    let runtime = match one_shot::threads() {
        Ok(runtime) => runtime,
        Err(e) => return crate::refuse(e),
    };
    let stop = one_shot::stop_sign(&runtime, "stopping at the next series");
    let opened = runtime.block_on(async {
        if let Some(url) = matches.get_one::<String>("flush-url") {
            flush(url).await?;
        }
        let store = one_shot::open(&location, &loaded.settings).await?;
        let catalog = Catalog::open(store.clone(), tenant.clone(), "export", CatalogOptions::default()).await;
        let snapshot = catalog.map_err(CommandError::failed)?.snapshot();
        if snapshot.number == 0 {
            return Err(CommandError::Mend(format!("{location} holds nothing of tenant {tenant}")));
        }
        let blocks = BlockStore::new(store, tokio::runtime::Handle::current(), CACHE_BYTES);
        Ok::<_, CommandError>((snapshot, blocks))
    });
    let (snapshot, blocks) = match opened {
        Ok(opened) => opened,
        Err(e) => return e.end(),
    };
    let source =
        BucketSource::new(blocks, tenant, snapshot.blocks.clone()).with_visibility(snapshot.visibility());
    let held = snapshot.blocks.iter().filter(|b| b.overlaps(wanted.min_t_ms, wanted.max_t_ms));
    let (first, last) =
        held.clone().fold((i64::MAX, i64::MIN), |(a, b), m| (a.min(m.min_t_ms), b.max(m.max_t_ms)));
    let total = held.filter(|b| b.resolution_ms == 0).map(|b| b.stats.samples).sum();
    let mut run = ExportRun {
        wanted: Wanted {
            min_t_ms: wanted.min_t_ms.max(first),
            max_t_ms: wanted.max_t_ms.min(last),
            ..wanted
        },
        console: Console::new(if matches.contains_id("match") { 0 } else { total }),
        done: Exported::default(),
        stop,
    };
    let written = match kind {
        "parquet" => run.parquet(&source, matches),
        _ => run.openmetrics(&source, matches),
    };
    run.console.clear();
    match written {
        Ok(what) => {
            run.tell(&what);
            ExitCode::SUCCESS
        }
        Err(e) => {
            crate::complain(format_args!("error: {e}"));
            ExitCode::FAILURE
        }
    }
}

fn wanted(matches: &ArgMatches) -> Result<(Wanted, TenantId), String> {
    let tenant = one_shot::tenant(matches)?;
    let at = |name: &str, usual: i64| {
        match matches.get_one::<String>(name) {
        Some(text) => time(text).ok_or_else(|| {
            format!("--{name} {text:?}: write 2024-05-01T00:00:00Z, seconds since 1970, or a duration such as 7d for so long ago")
        }),
        None => Ok(usual),
    }
    };
    let resolution_ms = match matches.get_one::<String>("resolution").map(String::as_str) {
        Some("5m") => 300_000,
        Some("1h") => 3_600_000,
        _ => 0,
    };
    let wanted = Wanted {
        selectors: one_shot::selectors(matches)?.1,
        min_t_ms: at("start", i64::MIN)?,
        max_t_ms: at("end", i64::MAX)?,
        resolution_ms,
    };
    if wanted.min_t_ms > wanted.max_t_ms {
        return Err("--start lies after --end".to_string());
    }
    Ok((wanted, tenant))
}

/// A time in milliseconds.
pub fn time(text: &str) -> Option<i64> {
    if let Ok(seconds) = text.parse::<f64>() {
        return (seconds.abs() < 9e12).then_some((seconds * 1000.0).round() as i64);
    }
    if let Ok(ago) = parse_duration_ns(text) {
        return Some(jiff::Timestamp::now().as_millisecond() - (ago / 1_000_000) as i64);
    }
    text.parse::<jiff::Timestamp>().ok().map(|t| t.as_millisecond())
}

/// Asks a server for blocks of its head. One that does not answer, or cannot now, may later.
async fn flush(url: &str) -> Result<(), CommandError> {
    let url = format!("{}/-/flush", url.trim_end_matches('/'));
    let failed = |why: String| format!("--flush-url: POST {}: {why}", crate::secrets::redacted(&url));
    let broken = |e: reqwest::Error| {
        let wrong = e.is_builder();
        let why = failed(error_chain(&e.without_url()));
        if wrong { CommandError::Mend(why) } else { CommandError::Failed(why) }
    };
    let client = reqwest::Client::builder().build().map_err(broken)?;
    let answer = client.post(&url).send().await.map_err(broken)?;
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    let said = beginning_of(answer, 300).await;
    let why = failed(format!("status {status}: {said}"));
    Err(if status.is_server_error() { CommandError::Failed(why) } else { CommandError::Mend(why) })
}

struct ExportRun {
    wanted: Wanted,
    console: Console,
    done: Exported,
    stop: Arc<AtomicBool>,
}

impl ExportRun {
    fn export(
        &mut self,
        source: &BucketSource,
        wanted: &Wanted,
        sink: &mut dyn compactor::export::Sink,
    ) -> Result<(), ExportError> {
        let (console, stop) = (&mut self.console, &self.stop);
        export(source, wanted, sink, &mut self.done, &mut |samples| {
            console.advance(samples, 0);
            !stop.load(Ordering::Relaxed)
        })
    }

    fn parquet(&mut self, source: &BucketSource, matches: &ArgMatches) -> Result<String, ExportError> {
        let out = matches.get_one::<PathBuf>("out").cloned().unwrap_or_default();
        let mut sink = ParquetRows::create(ParquetOptions {
            out: out.clone(),
            label_columns: matches.get_many::<String>("column").into_iter().flatten().cloned().collect(),
            file_bytes: matches.get_one::<u64>("file-bytes").copied().unwrap_or(512 << 20),
            windows: self.wanted.resolution_ms > 0,
        })?;
        for (min_t_ms, max_t_ms) in parts(self.wanted.min_t_ms, self.wanted.max_t_ms, PART_MS) {
            let part = Wanted { min_t_ms, max_t_ms, ..self.wanted.clone() };
            self.export(source, &part, &mut sink)?;
        }
        let (files, bytes) = sink.end()?;
        Ok(format!("{} in {} files ({})", size(bytes), files.len(), out.display()))
    }

    fn openmetrics(&mut self, source: &BucketSource, matches: &ArgMatches) -> Result<String, ExportError> {
        let out = matches.get_one::<PathBuf>("out").cloned().unwrap_or_default();
        let failed = |e: std::io::Error| ExportError::disk(&out, e);
        let wanted = self.wanted.clone();
        let text: Box<dyn Finish> = text_out(&out).map_err(failed)?;
        let mut sink = OpenMetrics::new(text, &out);
        if wanted.min_t_ms <= wanted.max_t_ms {
            self.export(source, &wanted, &mut sink)?;
        }
        sink.end()?.finish().map_err(failed)?;
        Ok(out.display().to_string())
    }

    fn tell(&self, what: &str) {
        let Exported { series, samples, histograms, markers, left_out } = self.done;
        let seconds = self.console.elapsed().as_secs_f64().max(0.001);
        // Standard output may be the export itself.
        crate::complain(format_args!(
            "exported {} samples ({} of them histograms) of {} series, each counted once for every part of time, to {what}, in {seconds:.1} s: {} samples/s",
            short_count(samples),
            short_count(histograms),
            short_count(series),
            short_count((samples as f64 / seconds) as u64),
        ));
        if markers > 0 {
            crate::complain(format_args!("{} staleness markers were left out", short_count(markers)));
        }
        if left_out > 0 {
            crate::complain(format_args!(
                "{} samples were left out: OpenMetrics text has no word for native histograms and for series without a name",
                short_count(left_out)
            ));
        }
    }
}

/// Where text goes: it may have an end of its own to write.
trait Finish: Write {
    fn finish(self: Box<Self>) -> std::io::Result<()>;
}

impl Finish for BufWriter<File> {
    fn finish(self: Box<Self>) -> std::io::Result<()> {
        self.into_inner().map_err(|e| e.into_error())?.sync_all()
    }
}

impl Finish for std::io::Stdout {
    fn finish(mut self: Box<Self>) -> std::io::Result<()> {
        self.flush()
    }
}

impl Finish for flate2::write::GzEncoder<BufWriter<File>> {
    fn finish(self: Box<Self>) -> std::io::Result<()> {
        Box::new((*self).finish()?).finish()
    }
}

impl Finish for zstd::Encoder<'static, BufWriter<File>> {
    fn finish(self: Box<Self>) -> std::io::Result<()> {
        Box::new((*self).finish()?).finish()
    }
}

fn text_out(path: &Path) -> std::io::Result<Box<dyn Finish>> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(std::io::stdout()));
    }
    let file = File::options().write(true).create_new(true).open(path)?;
    let file = BufWriter::with_capacity(1 << 18, file);
    Ok(match path.extension().and_then(|e| e.to_str()) {
        Some("gz") => Box::new(flate2::write::GzEncoder::new(file, flate2::Compression::default())),
        Some("zst") => Box::new(zstd::Encoder::new(file, 3)?),
        _ => Box::new(file),
    })
}

#[cfg(test)]
mod tests {
    use super::time;

    #[test]
    fn times_as_people_write_them() {
        assert_eq!(time("1700000000.5"), Some(1_700_000_000_500));
        assert_eq!(time("2023-11-14T22:13:20Z"), Some(1_700_000_000_000));
        assert!(time("7d").is_some_and(|t| t < jiff::Timestamp::now().as_millisecond() - 6 * 86_400_000));
        assert_eq!(time("yesterday"), None);
    }
}
