//! One run of an import: the store it goes to, what it selects, its result.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::ArgMatches;
use ingest::import::unit::{self, Outcome, Unit};
use ingest::import::{ImportError, Progress};
use model::matcher::Matcher;
use model::source::SeriesColumns;
use tokio::runtime::Runtime;
use tsdb::bucket::import_journal::ImportJournal;
use tsdb::catalog::Commits;

use crate::commands::console::Console;
use crate::commands::one_shot::{self, CommandError};
use crate::commands::quantities::{short_count as count, size};
use crate::config::Settings;
use crate::objstore::{self, Location};

/// The name under which imports commit.
const WRITER: &str = "import";

/// What all parts of an import share.
pub struct Session {
    pub journal: ImportJournal,
    /// Of `--match`; none means everything.
    pub selectors: Vec<Vec<Matcher>>,
    /// The same as it was written.
    pub selection: String,
    pub dry_run: bool,
    pub console: Console,
    /// For downloads and spools; it goes with the session.
    pub scratch: Scratch,
    pub runtime: Runtime,
    stop: Arc<AtomicBool>,
    totals: Totals,
}

#[derive(Default)]
struct Totals {
    blocks: u64,
    before: u64,
    series: u64,
    samples: u64,
    bytes: u64,
    failed: u64,
}

/// A folder of one run.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Shows what a source reads, and stops it when somebody asks.
struct Watch<'a> {
    console: &'a mut Console,
    stop: &'a AtomicBool,
}

impl Progress for Watch<'_> {
    fn read(&mut self, samples: u64, bytes: u64) {
        self.console.advance(samples, bytes);
    }

    fn should_stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl Session {
    /// Opens the store that is imported into.
    pub fn open(
        matches: &ArgMatches,
        settings: &Settings,
        location: &Location,
    ) -> Result<Session, CommandError> {
        let tenant = one_shot::tenant(matches)?;
        let (texts, selectors) = one_shot::selectors(matches)?;
        let selection = texts.join(" or ");
        let dry_run = matches.get_flag("dry-run");
        let parent = matches.get_one::<PathBuf>("scratch").cloned().unwrap_or_else(std::env::temp_dir);
        let scratch = Scratch(parent.join(format!("hearth-import-{}", std::process::id())));
        let failed = |e: std::io::Error| {
            format!("cannot make the folder {}: {e}. Give another with --scratch", scratch.0.display())
        };
        std::fs::create_dir_all(&scratch.0).map_err(failed)?;
        let runtime = one_shot::threads()?;
        let commits = if dry_run { Commits::Unasked } else { objstore::commits(location, settings)? };
        let journal = runtime.block_on(async {
            let arranged = one_shot::open_arranged(location, settings, WRITER, &commits).await?;
            let opened = ImportJournal::new(arranged, tenant, WRITER, scratch.0.join("blocks")).await;
            opened.map_err(CommandError::failed)
        })?;
        let stop = one_shot::stop_sign(&runtime, "stopping at the next series");
        let console = Console::new(0);
        let totals = Totals::default();
        Ok(Session { journal, selectors, selection, dry_run, console, scratch, runtime, stop, totals })
    }

    pub fn should_stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// What is set when somebody asks to stop.
    pub fn stop_sign(&self) -> Arc<AtomicBool> {
        self.stop.clone()
    }

    /// Whether all of some units were imported before; then they are counted, and their source need not be
    /// opened.
    pub fn all_done(&mut self, units: &[Unit]) -> Result<bool, ImportError> {
        for unit in units {
            if !self.journal.is_done(&unit.key())? {
                return Ok(false);
            }
        }
        self.totals.before += units.len() as u64;
        Ok(true)
    }

    /// Imports one unit and counts it. `read` gives its series.
    pub fn unit(
        &mut self,
        unit: &Unit,
        read: impl FnOnce(
            &mut dyn Progress,
            &mut dyn FnMut(SeriesColumns) -> Result<(), ImportError>,
        ) -> Result<(), ImportError>,
    ) -> Result<(), ImportError> {
        let mut watch = Watch { console: &mut self.console, stop: &self.stop };
        match unit::import(&self.journal, unit, |give| read(&mut watch, give))? {
            Outcome::Before => self.totals.before += 1,
            Outcome::Nothing => {}
            Outcome::Written { fingerprint, bytes, .. } => {
                self.totals.blocks += 1;
                self.totals.series += fingerprint.series;
                self.totals.samples += fingerprint.samples;
                self.totals.bytes += bytes;
            }
        }
        Ok(())
    }

    /// Lets something else than a unit be watched: it is told how far it is and whether to stop.
    pub fn watch<T>(&mut self, work: impl FnOnce(&mut dyn Progress) -> T) -> T {
        work(&mut Watch { console: &mut self.console, stop: &self.stop })
    }

    /// Tells of something that could not be imported; the rest goes on.
    pub fn failed(&mut self, what: impl std::fmt::Display) {
        self.totals.failed += 1;
        self.console.line(format_args!("error: {what}"));
    }

    /// Says what was done; the exit code says whether it was all.
    pub fn end(mut self) -> ExitCode {
        self.console.clear();
        let Totals { blocks, before, series, samples, bytes, failed } = self.totals;
        let seconds = self.console.elapsed().as_secs_f64().max(0.001);
        if self.dry_run {
            crate::say("nothing was written: this was a dry run\n");
        } else {
            let per_sample = if samples == 0 { 0.0 } else { bytes as f64 / samples as f64 };
            crate::say(format_args!(
                "imported {} samples in {blocks} blocks ({} series in all of them), {} from {} read, {per_sample:.3} bytes a sample, in {seconds:.1} s: {} samples/s, {}/s\n",
                count(samples),
                count(series),
                size(bytes),
                size(self.console.bytes()),
                count((self.console.samples() as f64 / seconds) as u64),
                size((self.console.bytes() as f64 / seconds) as u64),
            ));
            if before > 0 {
                crate::say(format_args!("{before} blocks were there from an earlier run\n"));
            }
            if blocks > 0 {
                crate::say(format_args!(
                    "verified: each of the {blocks} blocks was read back from the store and is what its source has, series by series\n"
                ));
            }
        }
        if failed > 0 || self.should_stop() {
            crate::complain(format_args!(
                "{}run the same command again to go on: what was committed is not imported twice",
                match failed {
                    0 => String::new(),
                    1 => "one source could not be imported; ".to_owned(),
                    n => format!("{n} sources could not be imported; "),
                }
            ));
            return ExitCode::FAILURE;
        }
        ExitCode::SUCCESS
    }
}

/// `2024-05-01T12:00:00Z`, for people.
pub fn when(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| format!("{ms} ms"), |t| t.to_string())
}
