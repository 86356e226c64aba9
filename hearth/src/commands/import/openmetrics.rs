//! `hearth import openmetrics`: a file or pipe of OpenMetrics text with timestamps.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command, value_parser};
use ingest::import::ImportError;
use ingest::import::block::Filter;
use ingest::import::openmetrics::{Spool, SpoolOptions, open};
use ingest::import::relabel::Relabel;
use ingest::import::unit::Unit;

use super::session::{Session, when};
use super::{label_arg, labels};
use crate::commands::quantities::short_count as count;

pub fn command() -> Command {
    Command::new("openmetrics")
        .about("Import OpenMetrics text in which every sample has a timestamp")
        .arg(
            Arg::new("file")
                .value_name("FILE")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("The text, ending with # EOF; .gz and .zst are decompressed; - is standard input"),
        )
        .arg(label_arg("A label that every series gets; none of them may have one of that name"))
}

pub fn run(mut session: Session, matches: &ArgMatches) -> ExitCode {
    let path = matches.get_one::<PathBuf>("file").cloned().unwrap_or_else(|| "-".into());
    let relabel = match labels(matches) {
        Ok(add) => Relabel { add, ..Relabel::default() },
        Err(e) => return crate::refuse(e),
    };
    if let Err(e) = import(&mut session, &path, relabel)
        && !matches!(e, ImportError::Stopped)
    {
        session.failed(e);
    }
    session.end()
}

fn import(session: &mut Session, path: &std::path::Path, relabel: Relabel) -> Result<(), ImportError> {
    let name = if path.as_os_str() == "-" { "standard input".into() } else { path.display().to_string() };
    let filter = Filter { selectors: session.selectors.clone(), relabel };
    let folder = session.scratch.path().join("spool");
    session.console.title(format!("reading {name}"));
    let text = open(path)?;
    // How long it is once it is decompressed is not known.
    let plain = !path.extension().is_some_and(|e| e == "gz" || e == "zst");
    let length = std::fs::metadata(path).ok().filter(|m| plain && m.is_file()).map_or(0, |m| m.len());
    session.console.expect_bytes(length);
    let options = SpoolOptions::default();
    let read = session.watch(|progress| Spool::read(&name, text, &filter, folder, options, progress));
    let mut spool = read?;
    let counts = spool.counts.clone();
    let range = counts.span_ms.map_or(String::new(), |(a, b)| format!(", {} to {}", when(a), when(b)));
    session.console.line(format_args!(
        "{name}: {} samples on {} lines{range}",
        count(counts.samples),
        count(counts.lines)
    ));
    if counts.exemplars > 0 {
        session.console.line(format_args!("{name}: {} exemplars are not imported", count(counts.exemplars)));
    }
    if session.dry_run {
        return Ok(());
    }
    let identity = format!(
        "openmetrics text {:032x}, select [{}], labels [{}]",
        spool.hash,
        session.selection,
        filter.relabel.describe()
    );
    session.console.restart(counts.samples);
    let spans = spool.spans();
    let n = spans.len();
    for (i, range) in spans.into_iter().enumerate() {
        session.console.title(format!("block {} of {n}, up to {}", i + 1, when(range.1)));
        let unit = Unit::raw(&identity, range);
        session.unit(&unit, |progress, give| spool.series(range, progress, give))?;
    }
    if spool.conflicts() > 0 {
        session.console.line(format_args!(
            "{name}: {} samples have a later line with the same series and time and another value: the later line stands",
            count(spool.conflicts())
        ));
    }
    Ok(())
}
