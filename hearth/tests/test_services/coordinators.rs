//! ZooKeeper and etcd, each alone on one port, from Debian's packages zookeeper and etcd-server, with and
//! without locks on their doors.

use super::{Api, Process, free_port, installed, wait_for};
use serde_json::{Value, json};
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

/// Who may use a secured coordinator.
pub const USER: &str = "hearth";
pub const PASSWORD: &str = "pass: word";

pub struct Coordinator {
    kind: Kind,
    folder: PathBuf,
    port: u16,
    /// Serves TLS with the certificate in its folder.
    tls: bool,
    process: Process,
}

impl Coordinator {
    pub fn start(kind: Kind, folder: &Path) -> Coordinator {
        let folder = folder.join(format!("{kind:?}"));
        std::fs::create_dir_all(&folder).expect("a folder for a coordinator");
        let port = free_port();
        let process = spawn(kind, &folder, port, false);
        let mut new = Coordinator { kind, folder, port, tls: false, process };
        new.wait();
        new
    }

    /// One that wants to know who asks: etcd with users, over TLS. (ZooKeeper is as ever: there, who logs in
    /// has nodes that are his alone.)
    pub fn secured(kind: Kind, folder: &Path) -> Coordinator {
        let mut new = Coordinator::start(kind, folder);
        if kind == Kind::Etcd {
            // Before it is locked, and without TLS, because the client of these tests has none.
            add_users(&Api::new(new.port));
            make_certificate(&new.folder);
            new.stop();
            new.tls = true;
            new.again();
        }
        new
    }

    /// Whom Hearth has to trust, where that is not known to the system.
    pub fn environment(&self) -> Vec<(String, String)> {
        let authority = self.folder.join("ca.pem").display().to_string();
        self.tls.then(|| ("SSL_CERT_FILE".to_owned(), authority)).into_iter().collect()
    }

    /// What `catalog.lock` has to be.
    pub fn url(&self, path: &str) -> String {
        let scheme = match self.kind {
            Kind::ZooKeeper => "zookeeper",
            Kind::Etcd if self.tls => "etcd+tls",
            Kind::Etcd => "etcd",
        };
        format!("{scheme}://127.0.0.1:{}/{path}", self.port)
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn stop(&mut self) {
        self.process.kill();
    }

    /// On the same port, with what it knew.
    pub fn again(&mut self) {
        self.process = spawn(self.kind, &self.folder, self.port, self.tls);
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

/// The administrator that etcd insists on, and a user who may do what Hearth does below `/hearth`.
fn add_users(api: &Api) {
    use base64::Engine;
    let coded = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let ask = |method: &str, body: Value| {
        let answer = api.post(
            &format!("/v3/auth/{method}"),
            &[("Content-Type", "application/json")],
            body.to_string().as_bytes(),
        );
        assert_eq!(answer.status, 200, "{method}: {}", answer.text());
    };
    // The end of a range is the first key that does not begin with its beginning.
    let ours = json!({ "permType": "READWRITE", "key": coded("/hearth/"), "range_end": coded("/hearth0") });
    ask("user/add", json!({ "name": "root", "password": "only here" }));
    ask("user/grant", json!({ "user": "root", "role": "root" }));
    ask("role/add", json!({ "name": "ours" }));
    ask("role/grant", json!({ "name": "ours", "perm": ours }));
    ask("user/add", json!({ "name": USER, "password": PASSWORD }));
    ask("user/grant", json!({ "user": USER, "role": "ours" }));
    ask("enable", json!({}));
}

/// An authority `ca.pem`, and by it a certificate `cert.pem` of 127.0.0.1 with its key `key.pem`.
fn make_certificate(folder: &Path) {
    let openssl = |args: &str| {
        let mut command = Command::new(installed("openssl", "openssl"));
        let output = command.args(args.split(' ')).current_dir(folder).output().expect("openssl runs");
        assert!(output.status.success(), "{args}: {}", String::from_utf8_lossy(&output.stderr));
    };
    std::fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1\n").expect("a file can be written");
    let new_key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!("req -x509 {new_key} -keyout ca.key -out ca.pem -days 2 -subj /CN=authority"));
    openssl(&format!("req {new_key} -keyout key.pem -out request.pem -subj /CN=etcd"));
    openssl(
        "x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out cert.pem",
    );
}

fn spawn(kind: Kind, folder: &Path, port: u16, tls: bool) -> Process {
    let data = folder.join("data");
    let mut command = match kind {
        Kind::ZooKeeper => {
            assert!(
                Path::new(JAR).exists(),
                "{JAR} is not there; `.ci/test-services` installs it (on Debian: apt-get install -y --no-install-recommends zookeeper)"
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
            let scheme = if tls { "https" } else { "http" };
            let (client, peer) =
                (format!("{scheme}://127.0.0.1:{port}"), format!("http://127.0.0.1:{}", free_port()));
            if tls {
                command.args(["--cert-file", "cert.pem", "--key-file", "key.pem"]);
            }
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
