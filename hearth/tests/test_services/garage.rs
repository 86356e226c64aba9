//! A store that ignores conditions: a real Garage where its program is installed, else the stand-in of
//! [`super::plain_s3`]. Garage comes from no Debian package and takes ten minutes to compile
//! (`cargo install garage`), so the usual run of the tests has the stand-in; what ran is printed.

use super::plain_s3::PlainS3;
use super::sigv4::S3;
use super::{Process, free_port, wait_for};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);
/// Keys of Garage have this form.
const KEY: &str = "GK0123456789abcdef01234567";
const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

pub enum CarelessS3 {
    Garage(Garage),
    StandIn(PlainS3),
}

pub struct Garage {
    s3: S3,
    _process: Process,
}

impl CarelessS3 {
    /// With a bucket `plain`.
    pub fn start(folder: &Path) -> CarelessS3 {
        match program() {
            Some(program) => {
                eprintln!("the store that ignores conditions is a real Garage: {}", program.display());
                CarelessS3::Garage(Garage::start(&program, folder))
            }
            None => {
                eprintln!("there is no `garage` on PATH (nor in $GARAGE): a stand-in of its behaviour runs");
                CarelessS3::StandIn(PlainS3::start())
            }
        }
    }

    /// What Hearth needs in its environment to use it.
    pub fn environment(&self) -> Vec<(String, String)> {
        match self {
            CarelessS3::StandIn(s3) => s3.environment(),
            CarelessS3::Garage(Garage { s3, .. }) => [
                ("AWS_ENDPOINT", s3.endpoint.as_str()),
                ("AWS_REGION", &s3.region),
                ("AWS_ACCESS_KEY_ID", KEY),
                ("AWS_SECRET_ACCESS_KEY", SECRET),
                ("AWS_ALLOW_HTTP", "true"),
            ]
            .into_iter()
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect(),
        }
    }

    /// The keys in the bucket.
    pub fn keys(&self) -> Vec<String> {
        match self {
            CarelessS3::StandIn(s3) => s3.keys(),
            CarelessS3::Garage(Garage { s3, .. }) => s3.list("plain", ""),
        }
    }
}

/// `$GARAGE`, or what is on the path.
fn program() -> Option<PathBuf> {
    let named = std::env::var_os("GARAGE").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join("garage")).find(|f| f.is_file());
    named.or(found)
}

impl Garage {
    fn start(program: &Path, folder: &Path) -> Garage {
        let folder = folder.join("garage");
        std::fs::create_dir_all(&folder).expect("a folder for Garage");
        let (rpc, api, admin) = (free_port(), free_port(), free_port());
        let conf = folder.join("garage.toml");
        let text = format!(
            "metadata_dir = {meta:?}\ndata_dir = {data:?}\ndb_engine = \"sqlite\"\nreplication_factor = 1\n\
             rpc_bind_addr = \"127.0.0.1:{rpc}\"\nrpc_public_addr = \"127.0.0.1:{rpc}\"\nrpc_secret = \"{SECRET}\"\n\
             [s3_api]\ns3_region = \"us-east-1\"\napi_bind_addr = \"127.0.0.1:{api}\"\nroot_domain = \".s3.localhost\"\n\
             [admin]\napi_bind_addr = \"127.0.0.1:{admin}\"\n",
            meta = folder.join("meta"),
            data = folder.join("data"),
        );
        std::fs::write(&conf, text).expect("a configuration can be written");
        let command = |args: &[&str]| {
            let mut command = Command::new(program);
            command.arg("-c").arg(&conf).args(args).env("RUST_LOG", "garage=warn");
            command
        };
        let mut process = Process::spawn("Garage", &mut command(&["server"]), &folder.join("log"));
        let run = |args: &[&str]| {
            let output = command(args).output().expect("garage runs");
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
        };
        wait_for("Garage to answer", PATIENCE, || {
            assert!(process.exited().is_none(), "Garage ended: {}", process.log_tail());
            run(&["status"])
        });
        let must = |args: &[&str]| run(args).unwrap_or_else(|| panic!("garage {args:?} failed"));
        let node = must(&["node", "id", "-q"]);
        must(&["layout", "assign", "-z", "here", "-c", "1G", node.get(..16).expect("a node's id is longer")]);
        must(&["layout", "apply", "--version", "1"]);
        must(&["key", "import", "--yes", "-n", "test", KEY, SECRET]);
        must(&["key", "allow", "--create-bucket", "test"]);
        let endpoint = format!("http://127.0.0.1:{api}");
        let s3 = S3 { endpoint, region: "us-east-1".into(), key: KEY.into(), secret: SECRET.into() };
        s3.create_bucket("plain");
        Garage { s3, _process: process }
    }
}
