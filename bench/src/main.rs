//! Loads remote-write servers with a seeded fleet, one after the other, and says how they compare. The life
//! of a run:
//!
//! 1. The fleet ([`fleet`], of [`target`]s) is thrown from a seed and encoded ([`encode`]) into files
//!    ([`spool`]), before anything is measured.
//! 2. A server is started on an empty folder ([`server`]) and sent everything over several connections
//!    ([`load`]).
//! 3. It is asked the query mix ([`queries`]), killed and started again, told to make blocks of all it has,
//!    and asked again.
//! 4. The next server gets the same bytes. Then the figures are put side by side ([`report`]) and the answers
//!    compared.
//!
//! `cargo run --release -p bench -- --help` says what can be set; `bench/README.md` what came out.

mod classes;
mod encode;
mod fleet;
mod load;
mod mixed;
mod queries;
mod report;
mod rng;
mod rules;
mod server;
mod spool;
mod target;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use clap::{Args, Parser, Subcommand};
use serde_json::json;

use encode::Protocol;
use fleet::{Exposition, FleetOptions};
use load::quantile;
use queries::TimedAnswer;
use report::{Better, Measured};
use server::{Kind, Server, folder_bytes};
use spool::Spool;

#[derive(Parser)]
#[command(about, version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Everything: ingest, memory, queries on the head, restart, disk, queries on blocks
    Run(Options),
    /// Ingest and memory only
    Ingest(Options),
    /// Ingest, then `kill -9`, and the time until it is ready again
    Restart(Options),
    /// As `run`, with ten series a target and the panels of a dashboard over a day;
    /// `--targets 100 --minutes 1440` has 1,000 series
    Dashboards(Options),
    /// As `run`, with an application beside each node exporter (636 series a target) and questions by class,
    /// each class with the geometric mean of its questions; `--targets 160` has 101,760 series
    Fleet(Options),
    /// CPU of evaluating rules over the fleet, on servers that have rules
    Rules(RulesOptions),
    /// Clients that ask for the last hour while samples arrive; `--targets 102 --minutes 90` has 51,204
    /// series
    Mixed(MixedOptions),
}

#[derive(Args, Clone)]
struct Options {
    /// What to measure, first what the others are compared with: hearth[=PATH], prometheus[=PATH],
    /// victoria=PATH, http://host:port#pid
    #[arg(long, value_delimiter = ',', default_value = "hearth,prometheus", value_parser = Kind::parse)]
    servers: Vec<Kind>,
    /// Machines of the fleet, about 500 series each
    #[arg(long, default_value_t = 200)]
    targets: u32,
    /// Data time, in minutes; it ends now
    #[arg(long, default_value_t = 120)]
    minutes: i64,
    /// Seconds between scrapes
    #[arg(long, default_value_t = 15)]
    interval: i64,
    /// Scrape every target twice, as an HA pair does
    #[arg(long)]
    ha: bool,
    /// Share of the targets replaced within an hour
    #[arg(long, default_value_t = 0.0)]
    churn: f64,
    /// Restarts of a target within an hour
    #[arg(long, default_value_t = 0.02)]
    restarts: f64,
    /// Share of the scrapes that come late
    #[arg(long, default_value_t = 0.0)]
    late: f64,
    /// How late they come at most, in minutes
    #[arg(long, default_value_t = 720)]
    late_minutes: i64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Connections that send at once
    #[arg(long, default_value_t = 4)]
    connections: u32,
    /// Samples in a request; Prometheus sends up to 2,000
    #[arg(long, default_value_t = 2000)]
    batch: usize,
    /// Remote write 1 or 2
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    protocol: u8,
    /// How many times faster than real scrapes the samples are sent, such as 1: sizes of a server that works
    /// in the background are others than those of one that is flooded; 0 sends as fast as is acknowledged
    #[arg(long, default_value_t = 0.0)]
    pace: f64,
    /// How often all servers are measured; the table shows medians
    #[arg(long, default_value_t = 1)]
    repeat: u32,
    /// How often each query is timed
    #[arg(long, default_value_t = 20)]
    query_times: u32,
    /// Folder for requests and servers' data, emptied at the end
    #[arg(long, default_value = "bench-data")]
    dir: PathBuf,
    /// Keep the servers' folders
    #[arg(long)]
    keep: bool,
    /// Write the figures here as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// A further argument for every Hearth that is started, such as --hearth-arg=--wal-sync=100ms
    #[arg(long)]
    hearth_arg: Vec<String>,
}

#[derive(Args, Clone)]
struct RulesOptions {
    #[command(flatten)]
    options: Options,
    /// Groups of 20 rules, each over one machine
    #[arg(long, default_value_t = 1000)]
    groups: u32,
    /// Seconds between evaluations of a group
    #[arg(long, default_value_t = 30)]
    every: u32,
    /// Seconds to watch
    #[arg(long, default_value_t = 60)]
    watch: u64,
}

#[derive(Args, Clone)]
struct MixedOptions {
    #[command(flatten)]
    options: Options,
    /// Clients that ask one question after the other
    #[arg(long, default_value_t = 8)]
    clients: u32,
    /// Samples a second that arrive meanwhile
    #[arg(long, default_value_t = 100_000.0)]
    rate: f64,
    /// Seconds to watch
    #[arg(long, default_value_t = 60.0)]
    watch: f64,
    /// Let servers answer from results that they keep
    #[arg(long)]
    cached: bool,
}

/// What is measured in place of a server's whole life.
enum Special {
    Rules(RulesOptions),
    Mixed(MixedOptions),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Parts {
    Everything,
    Ingest,
    Restart,
    Dashboards,
    Fleet,
}

impl Parts {
    fn exposition(self) -> Exposition {
        match self {
            Parts::Dashboards => Exposition::Dashboards,
            Parts::Fleet => Exposition::NodeAndApplication,
            Parts::Everything | Parts::Ingest | Parts::Restart => Exposition::Node,
        }
    }
}

impl Options {
    fn fleet(&self, exposition: Exposition) -> FleetOptions {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
        let interval_ms = self.interval * 1000;
        let duration_ms = self.minutes * 60_000;
        // The newest scrape lies a little in the past, so that no server takes it for one from the future.
        let begin_ms = (now_ms - duration_ms - 60_000).div_euclid(interval_ms) * interval_ms;
        FleetOptions {
            seed: self.seed,
            targets: self.targets,
            ha: self.ha,
            begin_ms,
            duration_ms,
            interval_ms,
            churn_per_hour: self.churn,
            restarts_per_hour: self.restarts,
            late: self.late,
            late_by_ms: self.late_minutes * 60_000,
            exposition,
        }
    }

    /// Samples a second, if they shall come at a pace.
    fn samples_per_second(&self, spool: &Spool) -> Option<f64> {
        (self.pace > 0.0).then(|| self.pace * spool.samples as f64 / (self.minutes as f64 * 60.0))
    }

    /// Further arguments of a server of this kind.
    fn more_args(&self, kind: &Kind) -> &[String] {
        if matches!(kind, Kind::Hearth(_)) { &self.hearth_arg } else { &[] }
    }

    fn protocol(&self) -> Protocol {
        if self.protocol == 2 { Protocol::V2 } else { Protocol::V1 }
    }
}

fn main() -> ExitCode {
    let mut special = None;
    let (options, parts) = match Cli::parse().command {
        Command::Run(o) => (o, Parts::Everything),
        Command::Ingest(o) => (o, Parts::Ingest),
        Command::Restart(o) => (o, Parts::Restart),
        Command::Dashboards(o) => (o, Parts::Dashboards),
        Command::Fleet(o) => (o, Parts::Fleet),
        Command::Rules(o) => {
            let options = o.options.clone();
            special = Some(Special::Rules(o));
            (options, Parts::Ingest)
        }
        Command::Mixed(o) => {
            let options = o.options.clone();
            special = Some(Special::Mixed(o));
            (options, Parts::Everything)
        }
    };
    match run(&options, parts, special.as_ref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            tell(&format!("bench: {e}"));
            ExitCode::FAILURE
        }
    }
}

/// Progress goes to standard error: standard output is for the table.
fn tell(what: &str) {
    let _ = writeln!(io::stderr().lock(), "{what}");
}

fn run(options: &Options, parts: Parts, special: Option<&Special>) -> io::Result<()> {
    let fleet = options.fleet(parts.exposition());
    let begun = Instant::now();
    let spool_dir = options.dir.join("spool");
    let spool =
        spool::encode(&spool_dir, &fleet, options.connections.max(1), options.protocol(), options.batch)?;
    tell(&format!(
        "{} samples of {} series ({} active at once) in {} requests, {:.1} MB, encoded in {:.1} s",
        spool.samples,
        spool.series,
        fleet.active_series(),
        spool.requests,
        spool.bytes as f64 / 1e6,
        begun.elapsed().as_secs_f64()
    ));
    let mut all: Vec<Measured> = Vec::new();
    let mut answers: Vec<Vec<Vec<TimedAnswer>>> = Vec::new();
    for (n, kind) in options.servers.iter().enumerate() {
        let taken = options.servers[..n].iter().filter(|k| k.name() == kind.name()).count();
        let server =
            if taken == 0 { kind.name().to_string() } else { format!("{} {}", kind.name(), taken + 1) };
        all.push(Measured { server, ..Measured::default() });
        answers.push(Vec::new());
    }
    for round in 0..options.repeat.max(1) {
        for (n, kind) in options.servers.iter().enumerate() {
            tell(&format!("round {}: {}", round + 1, all[n].server));
            let dir = options.dir.join(format!("server-{round}-{n}"));
            match special {
                Some(Special::Rules(rules)) => measure_rules(kind, &dir, rules, &spool, &mut all[n])?,
                Some(Special::Mixed(mixed)) => measure_mixed(kind, &dir, mixed, &fleet, &spool, &mut all[n])?,
                None => answers[n] = measure(kind, &dir, options, &fleet, &spool, parts, &mut all[n])?,
            }
            if !options.keep {
                std::fs::remove_dir_all(&dir)?;
            }
        }
    }
    compare(options, &mut all, &answers);
    io::stdout().lock().write_all(report::table(&all).as_bytes())?;
    if let Some(path) = &options.json {
        let run = json!({
            "targets": options.targets, "series": spool.series, "active": fleet.active_series(),
            "samples": spool.samples, "requests": spool.requests, "minutes": options.minutes,
            "interval_seconds": options.interval, "ha": options.ha, "churn_per_hour": options.churn,
            "late": options.late, "seed": options.seed, "connections": options.connections,
            "batch": options.batch, "protocol": options.protocol, "repeat": options.repeat,
        });
        std::fs::write(path, serde_json::to_vec_pretty(&report::json(&all, run)).map_err(io::Error::other)?)?;
    }
    std::fs::remove_dir_all(&spool_dir)?;
    if !options.keep {
        std::fs::remove_dir_all(&options.dir)?;
    }
    Ok(())
}

/// One server with rules over the fleet.
fn measure_rules(
    kind: &Kind,
    dir: &Path,
    rules: &RulesOptions,
    spool: &Spool,
    into: &mut Measured,
) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let file = dir.canonicalize()?.join("rules.yml");
    std::fs::write(&file, rules::file(rules.groups, rules.options.targets, rules.every))?;
    let server = Server::start_with_rules(kind, dir, rules.options.more_args(kind), &file)?;
    let sent = load::send(&server, spool, rules.options.protocol(), rules.options.samples_per_second(spool));
    if sent.failed > 0 {
        into.notes.push(format!(
            "{} requests failed: {}",
            sent.failed,
            sent.first_failure.unwrap_or_default()
        ));
    }
    let every = std::time::Duration::from_secs(rules.every.into());
    rules::measure(&server, every, std::time::Duration::from_secs(rules.watch), into)
}

/// One server that is asked while it is written to.
fn measure_mixed(
    kind: &Kind,
    dir: &Path,
    mixed: &MixedOptions,
    fleet: &FleetOptions,
    spool: &Spool,
    into: &mut Measured,
) -> io::Result<()> {
    let options = &mixed.options;
    let live = (mixed.rate * mixed.watch / spool.samples.max(1) as f64).min(1.0);
    let (history, live) = spool.divide(1.0 - live)?;
    let server = Server::start(kind, dir, options.more_args(kind))?;
    let load = mixed::Load {
        clients: mixed.clients,
        samples_per_second: mixed.rate,
        cached: mixed.cached,
        protocol: options.protocol(),
    };
    mixed::measure(&server, fleet, &history, &live, &load, into);
    Ok(())
}

/// One server, from an empty folder to its end. Answers of the query mix come back, on the head and on
/// blocks.
fn measure(
    kind: &Kind,
    dir: &Path,
    options: &Options,
    fleet: &FleetOptions,
    spool: &Spool,
    parts: Parts,
    into: &mut Measured,
) -> io::Result<Vec<Vec<TimedAnswer>>> {
    let mut server = Server::start(kind, dir, options.more_args(kind))?;
    let sent = load::send(&server, spool, options.protocol(), options.samples_per_second(spool));
    into.add("samples/s", Better::More, sent.samples as f64 / sent.wall_seconds);
    into.add("samples per CPU second", Better::More, sent.samples as f64 / sent.cpu_seconds.max(0.01));
    into.add("acknowledged after, p50 ms", Better::Less, quantile(&sent.ack_ms, 0.5));
    into.add("acknowledged after, p99 ms", Better::Less, quantile(&sent.ack_ms, 0.99));
    let active = fleet.active_series() as f64;
    into.add("resident bytes per active series, end", Better::Less, sent.end_bytes as f64 / active);
    into.add("resident bytes per active series, peak", Better::Less, sent.peak_bytes as f64 / active);
    let anonymous = server.anonymous_bytes() as f64;
    into.add("anonymous bytes per active series", Better::Less, anonymous / active);
    if let Some(log) = server.log_dir() {
        into.add("log bytes per sample", Better::Less, folder_bytes(&log) as f64 / sent.samples as f64);
    }
    if sent.retries + sent.failed > 0 {
        let why = sent.first_failure.unwrap_or_default();
        into.notes.push(format!("{} requests tried again, {} failed: {why}", sent.retries, sent.failed));
    }
    let mut answers = Vec::new();
    if parts == Parts::Ingest {
        return Ok(answers);
    }
    let asks = matches!(parts, Parts::Everything | Parts::Dashboards | Parts::Fleet);
    let questions = match fleet.exposition {
        Exposition::Node => queries::mix(fleet),
        Exposition::Dashboards => queries::dashboards(fleet),
        Exposition::NodeAndApplication => classes::classes(fleet),
    };
    server.catch_up();
    if asks {
        server.come_to_rest();
        answers.push(note(queries::ask(&server, &questions, options.query_times), "head", into));
    }
    if !matches!(kind, Kind::Running { .. }) {
        server.kill();
        into.add("ready after kill -9, s", Better::Less, server.spawn()?.as_secs_f64());
        into.add("CPU until ready, s", Better::Less, server.cpu_seconds());
    }
    if asks {
        let cpu = server.cpu_seconds();
        if let Some(folder) = server.settle()? {
            let per_sample = folder_bytes(&folder) as f64 / sent.samples as f64;
            into.add("bytes per sample on disk", Better::Less, per_sample);
            into.add("CPU to make blocks, s", Better::Less, server.cpu_seconds() - cpu);
        }
        // Whatever begins after a flush shall not be in the queries' CPU time.
        server.come_to_rest();
        answers.push(note(queries::ask(&server, &questions, options.query_times), "blocks", into));
    }
    Ok(answers)
}

fn note(answered: Vec<TimedAnswer>, on: &str, into: &mut Measured) -> Vec<TimedAnswer> {
    for (class, p50_ms, cpu_ms) in queries::by_class(&answered) {
        into.add(&format!("{on}: {class}, p50 ms"), Better::Less, p50_ms);
        into.add(&format!("{on}: {class}, CPU ms"), Better::Less, cpu_ms);
    }
    for a in &answered {
        into.add(&format!("{}: {}, p50 ms", on, a.name), Better::Less, a.p50_ms);
        into.add(&format!("{}: {}, p95 ms", on, a.name), Better::Less, a.p95_ms);
        into.add(&format!("{}: {}, CPU ms", on, a.name), Better::Less, a.cpu_ms);
    }
    answered
}

/// Notes where the first server and another give different answers.
fn compare(options: &Options, all: &mut [Measured], answers: &[Vec<Vec<TimedAnswer>>]) {
    for other in 1..answers.len() {
        let kinds = [&options.servers[0], &options.servers[other]];
        let (mut same, mut differ, mut passed_over) = (0, Vec::new(), 0);
        for (phase, on) in answers[0].iter().zip(&answers[other]).zip(["head", "blocks"]) {
            for (a, b) in phase.0.iter().zip(phase.1) {
                match queries::difference(a, b) {
                    None => same += 1,
                    Some(_) if !queries::comparable(a, kinds) => passed_over += 1,
                    Some(why) => differ.push(format!("{on}: {}: {why}", a.name)),
                }
            }
        }
        if same + differ.len() + passed_over == 0 {
            continue;
        }
        let first = all[0].server.clone();
        all[other].notes.push(format!(
            "{same} answers equal to {first}'s, {} different, {passed_over} defined differently",
            differ.len()
        ));
        all[other].notes.extend(differ);
    }
}
