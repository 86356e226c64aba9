//! Debian's Alertmanager as a test service, and its amtool.

use super::{Api, Process, free_port, installed, wait_for};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

pub struct Alertmanager {
    pub process: Process,
    pub port: u16,
    folder: PathBuf,
}

impl Alertmanager {
    /// Starts one that keeps everything to itself, in a folder of its own.
    pub fn start(folder: &Path) -> Alertmanager {
        Alertmanager::start_at(folder, free_port())
    }

    /// The same on a port that was chosen before.
    pub fn start_at(folder: &Path, port: u16) -> Alertmanager {
        let program = installed("prometheus-alertmanager", "prometheus-alertmanager");
        std::fs::create_dir_all(folder).expect("a folder for the Alertmanager");
        let config = folder.join("alertmanager.yml");
        std::fs::write(&config, "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
            .expect("its configuration can be written");
        let mut command = Command::new(program);
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--cluster.listen-address=");
        let process =
            Process::spawn("prometheus-alertmanager", &mut command, &folder.join("alertmanager.log"));
        let api = Api::new(port);
        wait_for("the Alertmanager to answer", PATIENCE, || {
            api.try_get("/-/ready", &[]).ok().filter(|a| a.status == 200)
        });
        Alertmanager { process, port, folder: folder.to_owned() }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The alerts that amtool sees as active.
    pub fn alerts(&self) -> Vec<serde_json::Value> {
        let output = Command::new(installed("amtool", "prometheus-alertmanager"))
            .args(["alert", "query", "--output=json", "--alertmanager.url", &self.url()])
            .env("HOME", &self.folder)
            .output()
            .expect("amtool runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("amtool says no JSON ({e}): {text}"))
    }
}
