//! Where others are: addresses out of DNS, files, Consul, ZooKeeper and Kubernetes, followed as they change.
//!
//! Each kind of source has a file that follows it for ever, and reading an answer is a function of its own
//! there. What is found are groups as Prometheus' discovery has them, with its `__meta_` labels, so that
//! relabelling means the same. An address is only a hint: who answers there has to say who it is. A source
//! that fails leaves what it found before in force.

pub mod consul;
pub mod dns;
pub mod file;
mod followed;
pub mod glob;
pub mod http;
pub mod kubernetes;
mod teller;
pub mod zookeeper;

use std::collections::BTreeMap;
use std::time::Duration;

pub use followed::Followed;
pub use teller::Found;

/// The longest answer or file of a source that is read.
const MAX_BYTES: usize = 16 << 20;

/// Addresses (`host:port`) with labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    pub targets: Vec<String>,
    pub labels: BTreeMap<String, String>,
}

/// Where addresses come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Discovery {
    Static(Vec<Group>),
    Dns(dns::Names),
    File(file::Files),
    Consul(Box<consul::Services>),
    ZooKeeper(zookeeper::Paths),
    Kubernetes(Box<kubernetes::Slices>),
}

impl Discovery {
    /// All addresses of a name, IPv4 and IPv6, with one port.
    pub fn addresses_of(name: &str, port: u16) -> Discovery {
        Discovery::Dns(dns::Names {
            names: vec![name.to_owned()],
            kind: dns::Kind::Both,
            port,
            server: None,
            refresh: dns::REFRESH,
        })
    }
}

/// The shortest time between two looks at a source, whatever is configured.
pub const SHORTEST_REFRESH: Duration = Duration::from_secs(1);

/// A host and a port as an address; IPv6 in brackets.
fn host_port(host: &str, port: u32) -> String {
    match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// A name as a part of a label's name, as upstream writes it: what may not stand there is `_`.
fn label_name(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}
