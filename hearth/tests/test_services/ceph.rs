//! A single-node Ceph in memory with its S3 gateway, from Debian's packages ceph-mon, ceph-osd and radosgw.
//!
//! A monitor, one OSD on the memory store and a gateway, all in the foreground as children of the test, so
//! that they end with it. The ports are free ones and the start is tried again on others, because between
//! choosing a port and taking it somebody else may.

use super::sigv4::S3;
use super::{Api, Process, free_port, installed, wait_for};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(90);
const KEY: &str = "hearth-test-key";
const SECRET: &str = "hearth-test-secret";

pub struct Ceph {
    pub s3: S3,
    // Dropped in this order: the gateway first, so that it does not complain about a store that went away.
    gateway: Process,
    _osd: Process,
    _monitor: Process,
    cluster: Cluster,
}

impl Ceph {
    pub fn start(folder: &Path) -> Ceph {
        let mut errors = Vec::new();
        for attempt in 0..3 {
            let folder = folder.join(format!("ceph-{attempt}"));
            match Cluster::new(folder).start() {
                Ok(ceph) => return ceph,
                Err(e) => errors.push(e),
            }
        }
        panic!("Ceph did not start in three attempts:\n{}", errors.join("\n"));
    }

    /// The store goes away; what is in it stays.
    pub fn stop_gateway(&mut self) {
        self.gateway.kill();
    }

    /// And comes back, under the same address.
    pub fn start_gateway(&mut self) {
        self.gateway = self.cluster.gateway();
    }

    /// What Hearth needs in its environment to use the gateway.
    pub fn environment(&self) -> Vec<(String, String)> {
        [
            ("AWS_ENDPOINT", self.s3.endpoint.as_str()),
            ("AWS_REGION", &self.s3.region),
            ("AWS_ACCESS_KEY_ID", KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
            ("AWS_ALLOW_HTTP", "true"),
        ]
        .into_iter()
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
    }
}

struct Cluster {
    folder: PathBuf,
    conf: PathBuf,
    keyring: PathBuf,
    /// The monitor's address in both versions of its protocol.
    monitors: String,
    port: u16,
    fsid: String,
}

impl Cluster {
    fn new(folder: PathBuf) -> Cluster {
        let monitors = format!("[v2:127.0.0.1:{},v1:127.0.0.1:{}]", free_port(), free_port());
        let (conf, keyring) = (folder.join("ceph.conf"), folder.join("keyring"));
        Cluster { folder, conf, keyring, monitors, port: free_port(), fsid: uuid() }
    }

    fn start(self) -> Result<Ceph, String> {
        for part in ["mon", "osd", "rgw", "run", "log"] {
            std::fs::create_dir_all(self.folder.join(part)).map_err(|e| e.to_string())?;
        }
        std::fs::write(&self.conf, self.configuration()).map_err(|e| e.to_string())?;
        let monitor = self.monitor()?;
        let osd = self.osd()?;
        let gateway = self.gateway();
        let user = [
            "user",
            "create",
            "--uid=hearth",
            "--display-name=hearth",
            "--access-key",
            KEY,
            "--secret-key",
            SECRET,
        ];
        self.run("radosgw-admin", "radosgw", &user)?;
        let s3 = S3 {
            endpoint: format!("http://127.0.0.1:{}", self.port),
            region: "us-east-1".to_owned(),
            key: KEY.to_owned(),
            secret: SECRET.to_owned(),
        };
        Ok(Ceph { s3, gateway, _osd: osd, _monitor: monitor, cluster: self })
    }

    /// Starts the gateway and waits until it answers.
    fn gateway(&self) -> Process {
        let mut gateway = self.daemon("radosgw", "radosgw", &["-n", "client.rgw"]);
        let web = Api::new(self.port);
        wait_for("Ceph's S3 gateway to answer", PATIENCE, || {
            assert!(gateway.exited().is_none(), "radosgw ended: {}", gateway.log_tail());
            web.try_get("/", &[]).ok()
        });
        gateway
    }

    fn monitor(&self) -> Result<Process, String> {
        let all = ["--cap", "mon", "allow *", "--cap", "osd", "allow *"];
        self.tool(
            "ceph-authtool",
            &[&["--create-keyring", &text(&self.keyring), "--gen-key", "-n", "mon."], &all[..3]].concat(),
        )?;
        for name in ["client.admin", "client.rgw"] {
            self.tool(
                "ceph-authtool",
                &[&[text(&self.keyring).as_str(), "--gen-key", "-n", name], &all[..]].concat(),
            )?;
        }
        let map = text(&self.folder.join("monmap"));
        self.tool(
            "monmaptool",
            &["--create", "--clobber", "--fsid", &self.fsid, "--addv", "a", &self.monitors, &map],
        )?;
        let keyring = text(&self.keyring);
        self.run("ceph-mon", "ceph-mon", &["--mkfs", "-i", "a", "--monmap", &map, "--keyring", &keyring])?;
        Ok(self.daemon("ceph-mon", "ceph-mon", &["-i", "a"]))
    }

    fn osd(&self) -> Result<Process, String> {
        let (id, file) = (uuid(), self.folder.join("osd.json"));
        let secret = self.tool("ceph-authtool", &["--gen-print-key"])?.trim().to_owned();
        std::fs::write(&file, format!("{{\"cephx_secret\": \"{secret}\"}}")).map_err(|e| e.to_string())?;
        let caps = ["--cap", "mon", "allow profile osd", "--cap", "osd", "allow *"];
        self.tool(
            "ceph-authtool",
            &[&[text(&self.keyring).as_str(), "-n", "osd.0", "--add-key", &secret], &caps[..]].concat(),
        )?;
        self.run("ceph", "ceph-common", &["--connect-timeout", "60", "osd", "new", &id, "-i", &text(&file)])?;
        self.run("ceph-osd", "ceph-osd", &["-i", "0", "--mkfs", "--osd-uuid", &id])?;
        let osd = self.daemon("ceph-osd", "ceph-osd", &["-i", "0"]);
        let mut last = String::new();
        for _ in 0..120 {
            last = self.run("ceph", "ceph-common", &["osd", "stat"])?;
            if last.contains("1 up") {
                return Ok(osd);
            }
            std::thread::sleep(Duration::from_millis(250));
        }
        Err(format!("the OSD does not come up: {last}\n{}", osd.log_tail()))
    }

    /// A program of Ceph's with this cluster's configuration, started and kept.
    fn daemon(&self, program: &str, package: &str, arguments: &[&str]) -> Process {
        let mut command = Command::new(installed(program, package));
        command.arg("-c").arg(&self.conf).args(arguments).arg("-f");
        Process::spawn(program, &mut command, &self.folder.join(format!("{program}.out")))
    }

    /// A program of Ceph's with this cluster's configuration, run to its end; what it printed.
    fn run(&self, program: &str, package: &str, arguments: &[&str]) -> Result<String, String> {
        let conf = text(&self.conf);
        output(Command::new(installed(program, package)).args(["-c", &conf]).args(arguments))
    }

    fn tool(&self, program: &str, arguments: &[&str]) -> Result<String, String> {
        output(Command::new(installed(program, "ceph-common")).args(arguments))
    }

    fn configuration(&self) -> String {
        let (folder, keyring) = (text(&self.folder), text(&self.keyring));
        format!(
            "[global]
fsid = {fsid}
mon host = {monitors}
public network = 127.0.0.0/8
auth allow insecure global id reclaim = false
keyring = {keyring}
run dir = {folder}/run
admin socket = {folder}/run/$name.asok
log file = {folder}/log/$name.log
pid file = {folder}/run/$name.pid
osd pool default size = 1
osd pool default min size = 1
mon allow pool size one = true
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon max pg per osd = 5000
ms bind ipv6 = false
[mon]
mon data = {folder}/mon
mon cluster log file = {folder}/log/cluster.log
mon data avail crit = 1
mon data avail warn = 2
mon warn on pool no redundancy = false
[osd]
osd data = {folder}/osd
osd objectstore = memstore
memstore device bytes = 1073741824
osd max object name len = 256
osd max object namespace len = 64
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:{port} tcp_nodelay=1
rgw data = {folder}/rgw
rgw thread pool size = 16
rgw enable usage log = false
",
            fsid = self.fsid,
            monitors = self.monitors,
            port = self.port
        )
    }
}

fn output(command: &mut Command) -> Result<String, String> {
    let out = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    Err(format!("{command:?}: {}\n{}", out.status, String::from_utf8_lossy(&out.stderr)))
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A random UUID, from the kernel.
fn uuid() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/uuid").expect("the kernel makes UUIDs").trim().to_owned()
}
