//! Hearth's own binary as a service: started, killed, stopped and started again on the same folder and port.

use super::command_line::{agent, without_environment};
use super::{Api, Process, free_port, wait_for};
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

/// In a debug build on a busy machine, a start with a long log to replay may take a while.
const READY_PATIENCE: Duration = Duration::from_secs(60);
const STOP_PATIENCE: Duration = Duration::from_secs(60);

/// How to start Hearth.
#[derive(Clone, Debug)]
pub struct Start {
    pub folder: PathBuf,
    pub data_dir: PathBuf,
    pub port: u16,
    pub objstore: Option<String>,
    pub config: Option<String>,
    /// Flags beside those that follow from the other fields.
    pub flags: Vec<String>,
    pub env: Vec<(String, String)>,
    /// The largest file the process may write, in KiB (`ulimit -S -f`): a full disk that needs no privileges.
    pub file_limit_kib: Option<u64>,
}

impl Start {
    /// The usual way: data under `folder/data`, blocks there too, a port of its own.
    pub fn at(folder: &Path) -> Start {
        Start {
            folder: folder.to_owned(),
            data_dir: folder.join("data"),
            port: free_port(),
            objstore: None,
            config: None,
            flags: Vec::new(),
            env: Vec::new(),
            file_limit_kib: None,
        }
    }

    pub fn config(mut self, yaml: &str) -> Start {
        self.config = Some(yaml.to_owned());
        self
    }

    pub fn flags(mut self, flags: &[&str]) -> Start {
        self.flags.extend(flags.iter().map(|flag| flag.to_string()));
        self
    }

    pub fn data_dir(&self) -> PathBuf {
        self.data_dir.clone()
    }

    fn log(&self) -> PathBuf {
        self.folder.join("hearth.log")
    }

    fn command(&self) -> Command {
        let hearth = env!("CARGO_BIN_EXE_hearth");
        let mut command = match self.file_limit_kib {
            None => Command::new(hearth),
            Some(kib) => {
                // `ulimit -f` counts blocks of 512 bytes in sh. SIGXFSZ is ignored, so that a write fails
                // with EFBIG as it would with ENOSPC.
                let mut shell = Command::new("/bin/sh");
                shell.args([
                    "-c",
                    &format!("trap '' XFSZ; ulimit -S -f {}; exec \"$0\" \"$@\"", kib * 2),
                    hearth,
                ]);
                shell
            }
        };
        without_environment(&mut command);
        command.arg("--listen").arg(format!("127.0.0.1:{}", self.port)).arg("--data-dir").arg(&self.data_dir);
        if let Some(url) = &self.objstore {
            command.arg("--objstore").arg(url);
        }
        if let Some(yaml) = &self.config {
            let file = self.folder.join("hearth.yaml");
            std::fs::write(&file, yaml).expect("a configuration can be written");
            command.arg("--config").arg(file);
        }
        command.args(&self.flags);
        command.current_dir(&self.folder).envs(self.env.iter().map(|(k, v)| (k, v)));
        command
    }

    /// Starts Hearth and does not wait for anything.
    pub fn spawn(self) -> Hearth {
        // A log that is there is an earlier process'.
        let log_begins = std::fs::metadata(self.log()).map_or(0, |log| log.len());
        let process = Process::spawn("hearth", &mut self.command(), &self.log());
        Hearth { api: Api::new(self.port), start: self, process, log_begins }
    }

    /// Starts Hearth and waits until it says that it is ready.
    pub fn ready(self) -> Hearth {
        let mut hearth = self.spawn();
        hearth.wait_ready();
        hearth
    }
}

pub struct Hearth {
    pub start: Start,
    pub process: Process,
    pub api: Api,
    log_begins: u64,
}

impl Hearth {
    pub fn wait_ready(&mut self) {
        wait_for("hearth to become ready", READY_PATIENCE, || {
            if let Some(status) = self.process.exited() {
                panic!("hearth ended instead of becoming ready: {status}\n{}", self.process.log_tail());
            }
            // Under a prefix the path is another, and where logs are JSON there is no banner.
            let said = self.output().contains("is ready on http");
            (said || self.api.try_get("/-/ready", &[]).is_ok_and(|a| a.status == 200)).then_some(())
        });
    }

    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGTERM; the exit status must come.
    pub fn stop(&mut self) -> ExitStatus {
        self.process.terminate(STOP_PATIENCE)
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        wait_for("hearth to end", STOP_PATIENCE, || self.process.exited())
    }

    pub fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// What this process has printed so far, both streams.
    pub fn output(&self) -> String {
        let mut log = std::fs::File::open(self.start.log()).expect("the log of a service can be opened");
        log.seek(SeekFrom::Start(self.log_begins)).expect("a file can be read from anywhere");
        let mut bytes = Vec::new();
        log.read_to_end(&mut bytes).expect("the log of a service can be read");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub fn data_dir(&self) -> PathBuf {
        self.start.data_dir()
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.start.port))
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    /// Status and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        let mut answer = agent().get(self.url(path)).call().expect("an answer");
        (answer.status().as_u16(), answer.body_mut().read_to_string().expect("text"))
    }

    /// Status and body.
    pub fn post(&self, path: &str, content_type: &str, body: &[u8]) -> (u16, String) {
        let request = agent().post(self.url(path)).header("content-type", content_type);
        let mut answer = request.send(body).expect("an answer");
        (answer.status().as_u16(), answer.body_mut().read_to_string().expect("text"))
    }

    /// After an end of any kind: the same folder and port again.
    pub fn again(mut self) -> Hearth {
        self.kill();
        self.start.clone().ready()
    }

    /// A clean stop, then the same folder and port again.
    pub fn restart(mut self) -> Hearth {
        let status = self.stop();
        assert!(status.success(), "hearth did not stop cleanly: {status}\n{}", self.process.log_tail());
        self.start.clone().ready()
    }
}

/// Hearth as a person starts it: by flags alone, in a folder of its own that goes with it.
pub struct Running {
    hearth: Hearth,
    folder: tempfile::TempDir,
}

impl Running {
    pub fn start(flags: &[&str]) -> Running {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let hearth = Start::at(folder.path()).flags(flags).ready();
        Running { hearth, folder }
    }

    /// On a data folder that is there.
    pub fn start_on(data_dir: &Path, flags: &[&str]) -> Running {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let start = Start { data_dir: data_dir.to_owned(), ..Start::at(folder.path()) };
        Running { hearth: start.flags(flags).ready(), folder }
    }

    /// After an end of any kind: the same folder and port, without flags.
    pub fn again(self) -> Running {
        let Running { mut hearth, folder } = self;
        hearth.start.flags.clear();
        Running { hearth: hearth.again(), folder }
    }
}

impl Deref for Running {
    type Target = Hearth;

    fn deref(&self) -> &Hearth {
        &self.hearth
    }
}

impl DerefMut for Running {
    fn deref_mut(&mut self) -> &mut Hearth {
        &mut self.hearth
    }
}
