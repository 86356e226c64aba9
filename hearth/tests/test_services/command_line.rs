//! Hearth's own binary as a person starts it: by flags alone, on a free port and in a folder of its own, with
//! all it prints kept.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The binary, without what this process' environment may say to it.
pub fn hearth() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HEARTH_") {
            command.env_remove(name);
        }
    }
    command.env("COLUMNS", "200");
    command
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A server that is ready; it is killed when this value goes.
pub struct Running {
    child: Child,
    address: SocketAddr,
    dir: tempfile::TempDir,
    output: Arc<Mutex<String>>,
}

const PATIENCE: Duration = Duration::from_secs(60);

impl Running {
    pub fn start(more: &[&str]) -> Running {
        Self::start_in(tempfile::tempdir().expect("a temporary folder"), more)
    }

    /// After an end: the same folder, a new port.
    pub fn again(mut self) -> Running {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let empty = tempfile::tempdir().expect("a temporary folder");
        Self::start_in(std::mem::replace(&mut self.dir, empty), &[])
    }

    fn start_in(dir: tempfile::TempDir, more: &[&str]) -> Running {
        let data = dir.path().join("data");
        Self::start_with(dir, &data, more)
    }

    /// On a data folder that is there.
    pub fn start_on(data: &std::path::Path, more: &[&str]) -> Running {
        Self::start_with(tempfile::tempdir().expect("a temporary folder"), data, more)
    }

    fn start_with(dir: tempfile::TempDir, data: &std::path::Path, more: &[&str]) -> Running {
        let mut child = hearth()
            .args(["--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data)
            .args(more)
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let output = Arc::new(Mutex::new(String::new()));
        collect(child.stdout.take().expect("piped"), output.clone());
        collect(child.stderr.take().expect("piped"), output.clone());
        let begun = Instant::now();
        let address = loop {
            let so_far = output.lock().expect("no panic while holding").clone();
            if let Some(at) = so_far.find("is ready on http://") {
                let rest = &so_far[at + "is ready on http://".len()..];
                if let Some(end) = rest.find('\n') {
                    break rest[..end].parse().expect("an address");
                }
            }
            if let Some(status) = child.try_wait().expect("a child can be waited for") {
                panic!("hearth ended instead of starting: {status}\n{so_far}");
            }
            assert!(begun.elapsed() < PATIENCE, "not ready after {PATIENCE:?}:\n{so_far}");
            std::thread::sleep(Duration::from_millis(10));
        };
        Running { child, address, dir, output }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// What it has printed so far, both streams.
    pub fn output(&self) -> String {
        self.output.lock().expect("no panic while holding").clone()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Status and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        let agent = agent();
        let mut answer = agent.get(self.url(path)).call().expect("an answer");
        (answer.status().as_u16(), answer.body_mut().read_to_string().expect("text"))
    }

    pub fn post(&self, path: &str, content_type: &str, body: &[u8]) -> (u16, String) {
        let agent = agent();
        let mut answer =
            agent.post(self.url(path)).header("content-type", content_type).send(body).expect("an answer");
        (answer.status().as_u16(), answer.body_mut().read_to_string().expect("text"))
    }

    pub fn signal(&self, name: &str) {
        let sent =
            Command::new("/bin/sh").args(["-c", &format!("kill -{name} {}", self.child.id())]).status();
        assert!(sent.expect("sh runs").success());
    }

    /// SIGTERM, and the exit status.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }

    pub fn wait(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "still running after {PATIENCE:?}:\n{}", self.output());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build().into()
}

fn collect(stream: impl Read + Send + 'static, into: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let mut into = into.lock().expect("no panic while holding");
            into.push_str(&line);
            into.push('\n');
        }
    });
}
