//! Hearth's own binary as a service: started, killed, stopped and started again on the same folder and port.

use super::{Api, Process, free_port, wait_for};
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
    pub port: u16,
    pub objstore: Option<String>,
    pub config: Option<String>,
    pub env: Vec<(String, String)>,
    /// The largest file the process may write, in KiB (`ulimit -S -f`): a full disk that needs no privileges.
    pub file_limit_kib: Option<u64>,
}

impl Start {
    /// The usual way: data under `folder/data`, blocks there too, a port of its own.
    pub fn at(folder: &Path) -> Start {
        Start {
            folder: folder.to_owned(),
            port: free_port(),
            objstore: None,
            config: None,
            env: Vec::new(),
            file_limit_kib: None,
        }
    }

    pub fn config(mut self, yaml: &str) -> Start {
        self.config = Some(yaml.to_owned());
        self
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
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
        command
            .arg("--listen")
            .arg(format!("127.0.0.1:{}", self.port))
            .arg("--data-dir")
            .arg(self.data_dir());
        if let Some(url) = &self.objstore {
            command.arg("--objstore").arg(url);
        }
        if let Some(yaml) = &self.config {
            let file = self.folder.join("hearth.yaml");
            std::fs::write(&file, yaml).expect("a configuration can be written");
            command.arg("--config").arg(file);
        }
        command.current_dir(&self.folder).envs(self.env.iter().map(|(k, v)| (k, v)));
        command
    }

    /// Starts Hearth and does not wait for anything.
    pub fn spawn(self) -> Hearth {
        let process = Process::spawn("hearth", &mut self.command(), &self.folder.join("hearth.log"));
        Hearth { api: Api::new(self.port), start: self, process }
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
}

impl Hearth {
    pub fn wait_ready(&mut self) {
        wait_for("hearth to become ready", READY_PATIENCE, || {
            if let Some(status) = self.process.exited() {
                panic!("hearth ended instead of becoming ready: {status}\n{}", self.process.log_tail());
            }
            self.api.try_get("/-/ready", &[]).ok().filter(|a| a.status == 200)
        });
    }

    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGTERM; the exit status must come.
    pub fn stop(&mut self) -> ExitStatus {
        self.process.terminate(STOP_PATIENCE)
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
