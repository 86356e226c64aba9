//! Debian's Prometheus and node exporter as test services.

use super::{Api, Process, free_port, installed, wait_for};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

pub struct NodeExporter {
    pub process: Process,
    pub port: u16,
}

impl NodeExporter {
    pub fn start(folder: &Path) -> NodeExporter {
        let port = free_port();
        let program = installed("prometheus-node-exporter", "prometheus-node-exporter");
        let mut command = Command::new(program);
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let process =
            Process::spawn("prometheus-node-exporter", &mut command, &folder.join("node-exporter.log"));
        let api = Api::new(port);
        wait_for("the node exporter to answer", PATIENCE, || {
            api.try_get("/metrics", &[]).ok().filter(|a| a.status == 200)
        });
        NodeExporter { process, port }
    }
}

pub struct Prometheus {
    pub process: Process,
    pub port: u16,
    pub api: Api,
}

impl Prometheus {
    /// Starts Prometheus so that it scrapes the exporter (job `node`) and itself (job `prometheus`) every
    /// second and sends all of it to `remote_write_url`. It has no external labels: they would stand in what
    /// it sends and not in what it answers.
    pub fn start(folder: &Path, exporter: &NodeExporter, remote_write_url: &str) -> Prometheus {
        let port = free_port();
        let config = format!(
            "global:
  scrape_interval: 1s
  scrape_timeout: 1s
scrape_configs:
  - job_name: node
    static_configs: [{{targets: ['127.0.0.1:{node}']}}]
  - job_name: prometheus
    static_configs: [{{targets: ['127.0.0.1:{port}']}}]
remote_write:
  - url: {remote_write_url}
    queue_config: {{batch_send_deadline: 1s}}
    metadata_config: {{send: true, send_interval: 5s}}
",
            node = exporter.port
        );
        Prometheus::run(folder, port, &config, &[])
    }

    /// One of an HA pair: scrapes the exporter (job `node`) every second and sends it with `replica` as an
    /// external label. `folder` is this replica's own and may be that of one which was killed.
    pub fn replica(
        folder: &Path,
        exporter: &NodeExporter,
        remote_write_url: &str,
        replica: &str,
    ) -> Prometheus {
        let config = format!(
            "global:
  scrape_interval: 1s
  scrape_timeout: 1s
  external_labels: {{replica: {replica}}}
scrape_configs:
  - job_name: node
    static_configs: [{{targets: ['127.0.0.1:{node}']}}]
remote_write:
  - url: {remote_write_url}
    queue_config: {{batch_send_deadline: 1s}}
",
            node = exporter.port
        );
        Prometheus::run(folder, free_port(), &config, &[])
    }

    /// Scrapes one target (job `traced`) every second, keeps its exemplars and sends them with the samples.
    pub fn with_exemplars(folder: &Path, target: u16, remote_write_url: &str) -> Prometheus {
        let config = format!(
            "global:
  scrape_interval: 1s
  scrape_timeout: 1s
scrape_configs:
  - job_name: traced
    static_configs: [{{targets: ['127.0.0.1:{target}']}}]
remote_write:
  - url: {remote_write_url}
    send_exemplars: true
    queue_config: {{batch_send_deadline: 1s}}
"
        );
        Prometheus::run(folder, free_port(), &config, &["--enable-feature=exemplar-storage"])
    }

    /// Starts a Prometheus of any version so that it scrapes nothing and takes remote write, to hold exactly
    /// what a test sends it.
    pub fn receiver(folder: &Path, program: &Path, features: &str) -> Prometheus {
        let features = format!("--enable-feature={features}");
        let more = ["--web.enable-remote-write-receiver", &features];
        Prometheus::run_program(program, folder, free_port(), "scrape_configs: []\n", &more)
    }

    /// Debian's, with a configuration of any kind.
    pub fn with_config(folder: &Path, config: &str, more: &[&str]) -> Prometheus {
        Prometheus::run(folder, free_port(), config, more)
    }

    /// Debian's, where nothing else was asked for.
    pub fn debian() -> PathBuf {
        installed("prometheus", "prometheus")
    }

    /// Such as 3 and 14, as the program itself says.
    pub fn version_of(program: &Path) -> (u32, u32) {
        let said = Command::new(program)
            .arg("--version")
            .output()
            .unwrap_or_else(|e| panic!("{} does not run: {e}", program.display()));
        let text = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
        let version = text.split("version ").nth(1).unwrap_or_else(|| panic!("no version in {text}"));
        let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
            _ => panic!("no version in {text}"),
        }
    }

    /// The same with the admin API, and samples kept however old they are: what it holds can be had as
    /// blocks.
    pub fn keeper(folder: &Path) -> Prometheus {
        let more = [
            "--web.enable-remote-write-receiver",
            "--web.enable-admin-api",
            "--storage.tsdb.retention.time=100y",
        ];
        Prometheus::run(folder, free_port(), "scrape_configs: []\n", &more)
    }

    /// Where it keeps its data.
    pub fn data_dir(folder: &Path) -> std::path::PathBuf {
        folder.join("prometheus")
    }

    /// Has it write all it holds, the head included, as blocks; the folder of these.
    pub fn snapshot(&self, folder: &Path) -> std::path::PathBuf {
        let name = self.api.call("POST", "/api/v1/admin/tsdb/snapshot").data();
        let name = name["name"].as_str().expect("a snapshot has a name").to_owned();
        Prometheus::data_dir(folder).join("snapshots").join(name)
    }

    fn run(folder: &Path, port: u16, config: &str, more: &[&str]) -> Prometheus {
        Prometheus::run_program(&Prometheus::debian(), folder, port, config, more)
    }

    fn run_program(program: &Path, folder: &Path, port: u16, config: &str, more: &[&str]) -> Prometheus {
        let file = folder.join("prometheus.yml");
        std::fs::write(&file, config).expect("Prometheus' configuration can be written");
        let mut command = Command::new(program);
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("prometheus").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .args(more);
        let process = Process::spawn("prometheus", &mut command, &folder.join("prometheus.log"));
        let api = Api::new(port);
        wait_for("Prometheus to be ready", PATIENCE, || {
            api.try_get("/-/ready", &[]).ok().filter(|a| a.status == 200)
        });
        Prometheus { process, port, api }
    }
}
