//! The servers that are measured: how each is started, and what the operating system says about it.

use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Hearth(Option<PathBuf>),
    Prometheus(PathBuf),
    Victoria(PathBuf),
    /// Somebody else's, already running: its address, and its process id for CPU and memory.
    Running {
        url: String,
        pid: Option<u32>,
    },
}

impl Kind {
    /// `hearth`, `hearth=/path`, `prometheus`, `prometheus=/path`, `victoria=/path`, or
    /// `http://host:port#pid`.
    pub fn parse(text: &str) -> Result<Kind, String> {
        if text.starts_with("http://") {
            let (url, pid) = text.split_once('#').map_or((text, None), |(u, p)| (u, Some(p)));
            let pid = pid.map(|p| p.parse().map_err(|_| format!("{p:?} is not a process id"))).transpose()?;
            return Ok(Kind::Running { url: url.trim_end_matches('/').to_string(), pid });
        }
        let (name, path) = text.split_once('=').map_or((text, None), |(n, p)| (n, Some(PathBuf::from(p))));
        match (name, path) {
            ("hearth", path) => Ok(Kind::Hearth(path)),
            ("prometheus", path) => Ok(Kind::Prometheus(path.unwrap_or_else(|| "prometheus".into()))),
            ("victoria", Some(path)) => Ok(Kind::Victoria(path)),
            ("victoria", None) => Err("victoria needs its binary: victoria=/path/to/victoria-metrics".into()),
            _ => Err(format!(
                "{text:?} is no server: hearth, prometheus, victoria=/path, or http://host:port#pid"
            )),
        }
    }

    pub fn name(&self) -> &str {
        match self {
            Kind::Hearth(_) => "hearth",
            Kind::Prometheus(_) => "prometheus",
            Kind::Victoria(_) => "victoria",
            Kind::Running { url, .. } => url,
        }
    }
}

/// A server that runs.
pub struct Server {
    kind: Kind,
    more_args: Vec<String>,
    rule_file: Option<PathBuf>,
    child: Option<Child>,
    dir: PathBuf,
    port: u16,
    pub url: String,
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Builds Hearth beside this program and says where it is.
fn build_hearth() -> io::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo).args(["build", "--release", "-p", "hearth"]).status()?;
    if !status.success() {
        return Err(io::Error::other("hearth does not build"));
    }
    let own = std::env::current_exe()?;
    let target = own.ancestors().nth(2).ok_or_else(|| io::Error::other("no target folder"))?;
    Ok(target.join("release/hearth"))
}

impl Server {
    /// Starts it in an empty folder and waits until it is ready.
    pub fn start(kind: &Kind, dir: &Path, more_args: &[String]) -> io::Result<Server> {
        Server::start_on(kind, dir, more_args, None)
    }

    /// The same with a rule file, for servers that have rules.
    pub fn start_with_rules(
        kind: &Kind,
        dir: &Path,
        more_args: &[String],
        rules: &Path,
    ) -> io::Result<Server> {
        match kind {
            Kind::Hearth(_) | Kind::Prometheus(_) => Server::start_on(kind, dir, more_args, Some(rules)),
            _ => Err(io::Error::other(format!("{} has no rules to be measured here", kind.name()))),
        }
    }

    fn start_on(kind: &Kind, dir: &Path, more_args: &[String], rules: Option<&Path>) -> io::Result<Server> {
        let mut kind = kind.clone();
        if kind == Kind::Hearth(None) {
            kind = Kind::Hearth(Some(build_hearth()?));
        }
        std::fs::create_dir_all(dir)?;
        let port = free_port()?;
        let url = match &kind {
            Kind::Running { url, .. } => url.clone(),
            _ => format!("http://127.0.0.1:{port}"),
        };
        let more_args = more_args.to_vec();
        let rule_file = rules.map(Path::to_owned);
        let mut server = Server { kind, more_args, rule_file, child: None, dir: dir.to_owned(), port, url };
        server.spawn()?;
        Ok(server)
    }

    /// Starts the process on what its folder holds; returns how long it took to be ready.
    pub fn spawn(&mut self) -> io::Result<Duration> {
        let begun = Instant::now();
        if let Some(mut command) = self.command()? {
            let log = File::options().create(true).append(true).open(self.dir.join("output"))?;
            let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
            let named = |e| io::Error::new(io::Error::kind(&e), format!("{}: {e}", self.kind.name()));
            self.child = Some(child.map_err(named)?);
        }
        let path = if matches!(self.kind, Kind::Victoria(_)) { "/health" } else { "/-/ready" };
        let agent = agent(Duration::from_secs(5));
        while begun.elapsed() < Duration::from_secs(900) {
            if agent.get(format!("{}{path}", self.url)).call().is_ok_and(|r| r.status() == 200) {
                return Ok(begun.elapsed());
            }
            if let Some(child) = &mut self.child
                && let Some(status) = child.try_wait()?
            {
                let output = self.dir.join("output");
                let text = format!("{} ended with {status}: see {}", self.kind.name(), output.display());
                return Err(io::Error::other(text));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(io::Error::other(format!("{} was not ready within 15 minutes", self.kind.name())))
    }

    fn command(&self) -> io::Result<Option<Command>> {
        let data = self.dir.join("data");
        let address = format!("127.0.0.1:{}", self.port);
        let mut command = match &self.kind {
            Kind::Running { .. } => return Ok(None),
            Kind::Hearth(path) => {
                let mut c = Command::new(path.as_deref().unwrap_or(Path::new("hearth")));
                c.args(["--listen", &address, "--self-metrics-interval", "0", "--data-dir"]).arg(&data);
                if let Some(file) = &self.rule_file {
                    c.arg("--rules-files").arg(file);
                }
                c
            }
            Kind::Prometheus(path) => {
                let config = self.dir.join("prometheus.yml");
                // Hearth and VictoriaMetrics take late samples always; Prometheus has to be told.
                let mut text = "storage:\n  tsdb:\n    out_of_order_time_window: 24h\n".to_string();
                if let Some(file) = &self.rule_file {
                    text += &format!("rule_files: ['{}']\n", file.display());
                }
                std::fs::write(&config, text)?;
                let mut c = Command::new(path);
                c.arg(format!("--config.file={}", config.display()))
                    .arg(format!("--storage.tsdb.path={}", data.display()))
                    .arg(format!("--web.listen-address={address}"))
                    .args(["--web.enable-remote-write-receiver", "--web.enable-admin-api"])
                    .args(["--storage.tsdb.retention.time=10y", "--log.level=warn"]);
                c
            }
            Kind::Victoria(path) => {
                let mut c = Command::new(path);
                c.arg(format!("-storageDataPath={}", data.display()))
                    .arg(format!("-httpListenAddr={address}"))
                    .args(["-retentionPeriod=10y", "-search.latencyOffset=0s", "-loggerLevel=WARN"])
                    .args(["-search.maxPointsPerTimeseries=100000", "-search.maxSeries=2000000"]);
                c
            }
        };
        command.args(&self.more_args);
        Ok(Some(command))
    }

    fn pid(&self) -> Option<u32> {
        match &self.kind {
            Kind::Running { pid, .. } => *pid,
            _ => self.child.as_ref().map(Child::id),
        }
    }

    /// User and system time so far, in seconds; 0 where no process is known.
    pub fn cpu_seconds(&self) -> f64 {
        let Some(pid) = self.pid() else { return 0.0 };
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name in parentheses may hold anything: count from its end. Fields 14 and 15 of proc(5), 100
        // ticks a second.
        let Some((_, rest)) = stat.rsplit_once(')') else { return 0.0 };
        let ticks: u64 = rest.split_whitespace().skip(11).take(2).filter_map(|f| f.parse::<u64>().ok()).sum();
        ticks as f64 / 100.0
    }

    /// A figure of `/proc/PID/status` in bytes, such as `VmRSS` or `VmHWM`.
    pub fn memory_bytes(&self, field: &str) -> u64 {
        let Some(pid) = self.pid() else { return 0 };
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find(|l| l.starts_with(field) && l[field.len()..].starts_with(':'));
        let kib = line.and_then(|l| l.split_whitespace().nth(1)).and_then(|n| n.parse::<u64>().ok());
        kib.unwrap_or(0) * 1024
    }

    /// Anonymous memory: what the process holds without pages of files that the kernel may drop.
    pub fn anonymous_bytes(&self) -> u64 {
        self.memory_bytes("RssAnon")
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Waits until all that was acknowledged is seen by queries and outlives a `kill -9`, which
    /// VictoriaMetrics promises after some seconds.
    pub fn catch_up(&self) {
        if matches!(self.kind, Kind::Victoria(_)) {
            // The flush makes it seen; what is in memory goes to the disk every five seconds.
            let _ = agent(Duration::from_secs(600)).get(format!("{}/internal/force_flush", self.url)).call();
            std::thread::sleep(Duration::from_secs(7));
        }
    }

    /// Waits until the server has nothing to do any more, at most some minutes: blocks are merged in the
    /// background.
    pub fn come_to_rest(&self) {
        for _ in 0..60 {
            let cpu = self.cpu_seconds();
            std::thread::sleep(Duration::from_secs(3));
            if self.cpu_seconds() - cpu < 0.1 {
                return;
            }
        }
    }

    /// Makes all that was written long-term storage. Answers the folder whose bytes count, if the server has
    /// one.
    pub fn settle(&self) -> io::Result<Option<PathBuf>> {
        let agent = agent(Duration::from_secs(1800));
        let ask = |method: &str, path: &str| -> io::Result<String> {
            let url = format!("{}{path}", self.url);
            let answer = match method {
                "POST" => agent.post(&url).send_empty(),
                _ => agent.get(&url).call(),
            };
            let mut answer = answer.map_err(io::Error::other)?;
            let text = answer.body_mut().read_to_string().map_err(io::Error::other)?;
            if answer.status().as_u16() >= 300 {
                return Err(io::Error::other(format!("{path}: {} {text}", answer.status())));
            }
            Ok(text)
        };
        let data = self.dir.join("data");
        match &self.kind {
            Kind::Hearth(_) => {
                ask("POST", "/-/flush")?;
                Ok(Some(data.join("blocks")))
            }
            Kind::Prometheus(_) => {
                // A snapshot with the head is the only way to have its blocks now.
                ask("POST", "/api/v1/admin/tsdb/snapshot")?;
                Ok(Some(data.join("snapshots")))
            }
            Kind::Victoria(_) => {
                ask("GET", "/internal/force_flush")?;
                ask("GET", "/internal/force_merge")?;
                // The merge goes on in the background: wait until the folder stops changing.
                let mut last = (0, Instant::now());
                let begun = Instant::now();
                while begun.elapsed() < Duration::from_secs(600) {
                    std::thread::sleep(Duration::from_millis(500));
                    let now = folder_bytes(&data);
                    if now != last.0 {
                        last = (now, Instant::now());
                    } else if last.1.elapsed() > Duration::from_secs(6) {
                        break;
                    }
                }
                Ok(Some(data))
            }
            Kind::Running { .. } => Ok(None),
        }
    }

    /// The write-ahead log's folder, where there is one.
    pub fn log_dir(&self) -> Option<PathBuf> {
        match &self.kind {
            Kind::Hearth(_) => Some(self.dir.join("data/log")),
            Kind::Prometheus(_) => Some(self.dir.join("data/wal")),
            _ => None,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Bytes of all files below a folder.
pub fn folder_bytes(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(m) if m.is_dir() => folder_bytes(&entry.path()),
        Ok(m) => m.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

/// An HTTP client that takes every status for an answer.
pub fn agent(timeout: Duration) -> ureq::Agent {
    let config = ureq::Agent::config_builder().timeout_global(Some(timeout)).http_status_as_error(false);
    config.build().new_agent()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_named_by_kind_path_or_address() {
        assert_eq!(Kind::parse("hearth"), Ok(Kind::Hearth(None)));
        assert_eq!(Kind::parse("victoria=/a/b"), Ok(Kind::Victoria("/a/b".into())));
        let running = Kind::Running { url: "http://h:1".into(), pid: Some(7) };
        assert_eq!(Kind::parse("http://h:1/#7"), Ok(running));
        assert!(Kind::parse("victoria").unwrap_err().contains("binary"));
        assert!(Kind::parse("mimir").unwrap_err().contains("no server"));
    }
}
