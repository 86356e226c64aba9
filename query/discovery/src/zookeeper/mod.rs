//! Members of a service below ZooKeeper's paths: serversets as Finagle writes them, and Nerve's, as
//! Prometheus' `serverset_sd_configs` and `nerve_sd_configs` read them.

pub mod connection;

use std::collections::BTreeMap;
use std::time::Duration;

use model::backoff::Backoff;
use serde::Deserialize;
use tokio::time::timeout;

use crate::Group;
use crate::teller::Teller;
use connection::{Connection, Failure};

/// How long a session lives without a word, where nothing else is configured.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// Pauses between attempts, and between two readings of a tree that keeps changing.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
const BETWEEN: Duration = Duration::from_millis(200);

/// The most nodes below all paths.
const MOST: usize = 10_000;

/// What stands in nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Serverset,
    Nerve,
}

/// Paths below which members stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    pub kind: Kind,
    /// `host:port`, tried one after the other.
    pub servers: Vec<String>,
    pub paths: Vec<String>,
    pub timeout: Duration,
}

pub(crate) async fn follow(paths: Paths, teller: Teller) {
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    for server in paths.servers.iter().cycle() {
        let mut was_read = false;
        let Err(failure) = session(&paths, server, &teller, &mut was_read).await;
        if was_read {
            backoff.reset();
        }
        teller.failed(format!("ZooKeeper at {server}: {}", failure.told()));
        tokio::time::sleep(backoff.next_pause()).await;
    }
}

/// Reads all paths again and again as they change, until the connection breaks. The whole is read where one
/// node changes: members are few, and what was missed in between does not matter then.
async fn session(
    paths: &Paths,
    server: &str,
    teller: &Teller,
    was_read: &mut bool,
) -> Result<std::convert::Infallible, Failure> {
    let late = |_| Failure::Broken(format!("it does not answer within {:?}", paths.timeout));
    let opened = timeout(paths.timeout, Connection::open(server, paths.timeout, None)).await;
    let mut connection = opened.map_err(late)??;
    loop {
        connection.watch_anew();
        let groups = timeout(paths.timeout, read(paths, &mut connection)).await.map_err(late)??;
        teller.found(groups);
        *was_read = true;
        connection.until_changed().await?;
        tokio::time::sleep(BETWEEN).await;
    }
}

async fn read(paths: &Paths, connection: &mut Connection) -> Result<Vec<Group>, Failure> {
    let mut groups = Vec::new();
    let mut nodes = 0;
    let mut open: Vec<String> = paths.paths.iter().rev().cloned().collect();
    while let Some(path) = open.pop() {
        nodes += 1;
        if nodes > MOST {
            return Err(Failure::Broken(format!("there are more than {MOST} nodes below its paths")));
        }
        let Some((data, mut below)) = connection.watch(&path).await? else { continue };
        if !data.is_empty() {
            match group(paths.kind, &path, &data) {
                Ok(group) => groups.push(group),
                Err(why) => tracing::debug!("{path} in ZooKeeper is no member: {why}"),
            }
        }
        below.sort();
        let parent = path.trim_end_matches('/');
        open.extend(below.iter().rev().map(|name| format!("{parent}/{name}")));
    }
    Ok(groups)
}

#[derive(Deserialize)]
struct Endpoint {
    host: String,
    port: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Serverset {
    service_endpoint: Endpoint,
    #[serde(default)]
    additional_endpoints: BTreeMap<String, Endpoint>,
    #[serde(default)]
    status: String,
    #[serde(default)]
    shard: i64,
}

#[derive(Deserialize)]
struct Nerve {
    host: String,
    port: u32,
    #[serde(default)]
    name: String,
}

/// What a node says, with upstream's labels.
fn group(kind: Kind, path: &str, data: &[u8]) -> Result<Group, String> {
    let mut labels = BTreeMap::new();
    let target = match kind {
        Kind::Serverset => {
            let member: Serverset = serde_json::from_slice(data).map_err(|e| e.to_string())?;
            let mut set =
                |name: String, value: String| labels.insert(format!("__meta_serverset_{name}"), value);
            set("path".into(), path.to_owned());
            set("status".into(), member.status);
            set("shard".into(), member.shard.to_string());
            let at = &member.service_endpoint;
            set("endpoint_host".into(), at.host.clone());
            set("endpoint_port".into(), at.port.to_string());
            for (name, at) in &member.additional_endpoints {
                let name = crate::label_name(name);
                set(format!("endpoint_host_{name}"), at.host.clone());
                set(format!("endpoint_port_{name}"), at.port.to_string());
            }
            crate::host_port(&at.host, at.port)
        }
        Kind::Nerve => {
            let member: Nerve = serde_json::from_slice(data).map_err(|e| e.to_string())?;
            let mut set = |name: &str, value: String| labels.insert(format!("__meta_nerve_{name}"), value);
            set("path", path.to_owned());
            set("endpoint_host", member.host.clone());
            set("endpoint_port", member.port.to_string());
            set("endpoint_name", member.name);
            crate::host_port(&member.host, member.port)
        }
    };
    Ok(Group { targets: vec![target], labels })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_both_kinds_are_read() {
        let text = br#"{"serviceEndpoint":{"host":"10.0.0.1","port":9494},
            "additionalEndpoints":{"http-admin":{"host":"10.0.0.1","port":9990}},"status":"ALIVE","shard":3}"#;
        let found = group(Kind::Serverset, "/hearth/m_1", text).unwrap();
        assert_eq!(found.targets, ["10.0.0.1:9494"]);
        for (name, value) in [
            ("path", "/hearth/m_1"),
            ("status", "ALIVE"),
            ("shard", "3"),
            ("endpoint_host", "10.0.0.1"),
            ("endpoint_port", "9494"),
            ("endpoint_port_http_admin", "9990"),
        ] {
            assert_eq!(found.labels[&format!("__meta_serverset_{name}")], value);
        }
        let found = group(Kind::Nerve, "/n/a", br#"{"host":"::1","port":1,"name":"a","x":0}"#).unwrap();
        assert_eq!(found.targets, ["[::1]:1"]);
        assert_eq!(found.labels["__meta_nerve_endpoint_name"], "a");
        for bad in [&b"{}"[..], b"", b"[1]", b"\xff", br#"{"host":1,"port":2}"#] {
            assert!(group(Kind::Nerve, "/", bad).is_err() && group(Kind::Serverset, "/", bad).is_err());
        }
    }
}
