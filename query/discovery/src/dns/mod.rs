//! Addresses and SRV records out of DNS, as Prometheus' `dns_sd_configs` have them.

mod ask;
mod message;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::teller::Teller;
use crate::{Group, SHORTEST_REFRESH};
use message::Record;

/// How often names are looked up where nothing else is configured.
pub const REFRESH: Duration = Duration::from_secs(30);

/// Names whose records are addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    pub names: Vec<String>,
    pub kind: Kind,
    /// Of all addresses; SRV records bring their own.
    pub port: u16,
    /// Who is asked; `None`: whom the system asks.
    pub server: Option<SocketAddr>,
    pub refresh: Duration,
}

/// Which records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    A,
    Aaaa,
    /// A and AAAA.
    Both,
    Srv,
}

/// The addresses of a name now.
async fn look(names: &Names, name: &str) -> Result<Vec<Group>, String> {
    let records = match (names.kind, names.server) {
        (Kind::Srv, server) => ask::records(server, name, &[message::TYPE_SRV]).await?,
        (kind, Some(server)) => {
            let types: &[u16] = match kind {
                Kind::A => &[message::TYPE_A],
                Kind::Aaaa => &[message::TYPE_AAAA],
                _ => &[message::TYPE_A, message::TYPE_AAAA],
            };
            ask::records(Some(server), name, types).await?
        }
        (_, None) => {
            let found = tokio::net::lookup_host((name, names.port)).await.map_err(|e| e.to_string())?;
            found.map(|address| Record::Address(address.ip())).collect()
        }
    };
    Ok(groups(names, name, records))
}

/// Records as groups, ascending, each once.
fn groups(names: &Names, name: &str, records: Vec<Record>) -> Vec<Group> {
    let mut all = BTreeMap::new();
    for record in records {
        let mut labels = BTreeMap::from([("__meta_dns_name".to_owned(), name.to_owned())]);
        let target = match record {
            Record::Address(ip) if names.kind == Kind::A && !ip.is_ipv4() => continue,
            Record::Address(ip) if names.kind == Kind::Aaaa && !ip.is_ipv6() => continue,
            Record::Address(ip) => SocketAddr::new(ip, names.port).to_string(),
            Record::Service { host, port } => {
                labels.insert("__meta_dns_srv_record_target".into(), format!("{host}."));
                labels.insert("__meta_dns_srv_record_port".into(), port.to_string());
                format!("{host}:{port}")
            }
        };
        all.insert(target, labels);
    }
    all.into_iter().map(|(target, labels)| Group { targets: vec![target], labels }).collect()
}

pub(crate) async fn follow(names: Names, teller: Teller) {
    let mut known: BTreeMap<&String, Vec<Group>> = BTreeMap::new();
    loop {
        let mut failure = None;
        for name in &names.names {
            match look(&names, name).await {
                Ok(groups) => drop(known.insert(name, groups)),
                Err(why) => failure = Some(format!("{name}: {why}")),
            }
        }
        let groups: Vec<Group> = known.values().flatten().cloned().collect();
        match failure {
            None => teller.found(groups),
            Some(why) if known.is_empty() => teller.failed(why),
            Some(why) => teller.found_in_part(groups, why),
        }
        tokio::time::sleep(names.refresh.max(SHORTEST_REFRESH)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(kind: Kind) -> Names {
        Names { names: vec!["a".into()], kind, port: 7, server: None, refresh: REFRESH }
    }

    #[test]
    fn records_become_targets_with_labels() {
        let address = |text: &str| Record::Address(text.parse().unwrap());
        let records = || vec![address("10.0.0.2"), address("::1"), address("10.0.0.1"), address("10.0.0.1")];
        let targets = |kind| -> Vec<String> {
            groups(&names(kind), "a", records()).into_iter().flat_map(|g| g.targets).collect()
        };
        assert_eq!(targets(Kind::A), ["10.0.0.1:7", "10.0.0.2:7"]);
        assert_eq!(targets(Kind::Aaaa), ["[::1]:7"]);
        assert_eq!(targets(Kind::Both).len(), 3);
        let service = Record::Service { host: "h.local".into(), port: 9 };
        let found = groups(&names(Kind::Srv), "_x._tcp", vec![service]);
        assert_eq!(found[0].targets, ["h.local:9"]);
        assert_eq!(found[0].labels["__meta_dns_srv_record_target"], "h.local.");
        assert_eq!(found[0].labels["__meta_dns_name"], "_x._tcp");
    }

    #[tokio::test]
    async fn names_resolve_to_all_their_addresses() {
        let found = look(&names(Kind::Both), "localhost").await.unwrap();
        assert!(found.iter().any(|g| g.targets == ["127.0.0.1:7"]), "{found:?}");
    }
}
