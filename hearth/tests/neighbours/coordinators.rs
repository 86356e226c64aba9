//! ZooKeeper and etcd, each alone on one port, from Debian's packages zookeeper and etcd-server.

use super::{Process, free_port, installed, wait_for};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);
const JAR: &str = "/usr/share/java/zookeeper.jar";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    ZooKeeper,
    Etcd,
}

pub struct Coordinator {
    kind: Kind,
    folder: PathBuf,
    port: u16,
    process: Process,
}

impl Coordinator {
    pub fn start(kind: Kind, folder: &Path) -> Coordinator {
        let folder = folder.join(format!("{kind:?}"));
        std::fs::create_dir_all(&folder).expect("a folder for a coordinator");
        let port = free_port();
        let process = spawn(kind, &folder, port);
        let mut new = Coordinator { kind, folder, port, process };
        new.wait();
        new
    }

    /// What `catalog.lock` has to be.
    pub fn url(&self, path: &str) -> String {
        let scheme = match self.kind {
            Kind::ZooKeeper => "zookeeper",
            Kind::Etcd => "etcd",
        };
        format!("{scheme}://127.0.0.1:{}/{path}", self.port)
    }

    pub fn stop(&mut self) {
        self.process.kill();
    }

    /// On the same port, with what it knew.
    pub fn again(&mut self) {
        self.process = spawn(self.kind, &self.folder, self.port);
        self.wait();
    }

    fn wait(&mut self) {
        wait_for("the coordinator to listen", PATIENCE, || {
            let log = self.process.log_tail();
            assert!(self.process.exited().is_none(), "{:?} ended: {log}", self.kind);
            TcpStream::connect(("127.0.0.1", self.port)).ok()
        });
    }
}

fn spawn(kind: Kind, folder: &Path, port: u16) -> Process {
    let data = folder.join("data");
    let mut command = match kind {
        Kind::ZooKeeper => {
            assert!(
                Path::new(JAR).exists(),
                "{JAR} is not there; `.ci/neighbours` installs it (on Debian: apt-get install -y --no-install-recommends zookeeper)"
            );
            let conf = folder.join("zoo.cfg");
            let text = format!(
                "tickTime=500\ndataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\n",
                data.display()
            );
            std::fs::write(&conf, text).expect("a configuration can be written");
            let mut command = Command::new(installed("java", "default-jre-headless"));
            command
                .args(["-Xmx96m", "-cp", JAR, "org.apache.zookeeper.server.ZooKeeperServerMain"])
                .arg(conf);
            command
        }
        Kind::Etcd => {
            let mut command = Command::new(installed("etcd", "etcd-server"));
            let (client, peer) =
                (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{}", free_port()));
            command.arg("--data-dir").arg(data);
            command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
            command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
            command.args(["--initial-cluster", &format!("default={peer}"), "--enable-v2=false"]);
            command
        }
    };
    command.current_dir(folder);
    Process::spawn(&format!("{kind:?}"), &mut command, &folder.join("log"))
}
