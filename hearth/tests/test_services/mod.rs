//! The programs Hearth works with, started for real: its own binary, Prometheus, the node exporter and Ceph
//! with its S3 gateway.
//!
//! Every service runs in a temporary folder of its own, on ports of its own, and ends with the value that
//! started it. A service that is not installed fails the test with the command that installs it.
#![allow(
    dead_code,
    unused_imports,
    reason = "every test file is a crate of its own and uses its own part of this module"
)]

pub mod alertmanager;
pub mod api;
pub mod balancer;
pub mod ceph;
pub mod certificates;
pub mod command_line;
pub mod coordinators;
pub mod dns;
pub mod garage;
pub mod hearth;
pub mod model;
pub mod plain_s3;
pub mod prometheus;
pub mod recording;
pub mod registries;
pub mod remote_write;
pub mod roles;
pub mod shared_rules;
pub mod sigv4;
pub mod split;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use ::model::source::testing::rng::Rng;
pub use api::{Api, Data, Labels};
pub use hearth::{Hearth, Running, Start};
pub use model::Model;
pub use remote_write::{Series, series};

/// A program that was started, with its output in a file. It is killed when this value goes; if a test is
/// failing at that moment, the end of the output is shown.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    pub fn spawn(name: &str, command: &mut Command, log: &Path) -> Process {
        let out =
            File::options().create(true).append(true).open(log).expect("the log of a service can be opened");
        let err = out.try_clone().expect("the log of a service can be shared");
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .unwrap_or_else(|e| panic!("{name} does not start: {e}"));
        Process { name: name.to_owned(), child, log: log.to_owned() }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`, and waits until the process is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends SIGTERM and waits for the end, at most `patience`.
    pub fn terminate(&mut self, patience: Duration) -> ExitStatus {
        self.signal("TERM");
        wait_for(&format!("{} to end after SIGTERM", self.name), patience, || self.exited())
    }

    pub fn signal(&self, signal: &str) {
        let sent = Command::new("/bin/sh").args(["-c", &format!("kill -{signal} {}", self.id())]).status();
        assert!(
            sent.is_ok_and(|s| s.success()),
            "SIG{signal} could not be sent to {} ({})",
            self.name,
            self.id()
        );
    }

    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// The last 6,000 bytes of what the process wrote.
    pub fn log_tail(&self) -> String {
        let Ok(mut file) = File::open(&self.log) else { return String::new() };
        let size = file.metadata().map_or(0, |m| m.len());
        let mut bytes = Vec::new();
        let _ = file.seek(SeekFrom::Start(size.saturating_sub(6_000)));
        let _ = file.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A number of bytes from `/proc/<pid>/status`, by its field, such as `VmHWM`, the largest resident size
    /// so far.
    pub fn memory_bytes(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()))
            .expect("/proc tells about a child that runs");
        let line =
            status.lines().find(|l| l.starts_with(field)).unwrap_or_else(|| panic!("no {field} in {status}"));
        let kib: u64 = line
            .split_whitespace()
            .nth(1)
            .and_then(|n| n.parse().ok())
            .unwrap_or_else(|| panic!("no number in {line}"));
        kib * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!(
                "--- the end of what {} wrote ({}) ---\n{}\n---",
                self.name,
                self.log.display(),
                self.log_tail()
            );
        }
    }
}

/// The path of an installed program, or a failure that says which Debian package brings it.
pub fn installed(program: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")])
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("{program} is not installed; `.ci/test-services` installs it (on Debian: apt-get install -y --no-install-recommends {package})"))
}

/// A TCP port on 127.0.0.1 that nobody listens on. Ports come from below the range the system hands to
/// outgoing connections, and each process starts at a place of its own, so tests that run side by side do not
/// take one another's.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    const FIRST: u32 = 12_000;
    const COUNT: u32 = 18_000;
    let start = std::process::id().wrapping_mul(97) % COUNT;
    for _ in 0..COUNT {
        let port = (FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}

/// Asks until there is an answer; fails the test when `patience` runs out.
pub fn wait_for<T>(what: &str, patience: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < patience, "waited {patience:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_millis() as i64
}
