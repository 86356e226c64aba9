//! Instances of services out of Consul's health API, as Prometheus' `consul_sd_configs` have them: questions
//! that wait until something changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::http::{self, Access, Secret};
use crate::teller::Teller;
use crate::{Group, SHORTEST_REFRESH};

/// How long one question may wait for a change; Consul adds a sixteenth.
const WAIT: Duration = Duration::from_secs(120);
/// How long is left for the answer itself.
const GRACE: Duration = Duration::from_secs(20);
/// After an error.
const RETRY: Duration = Duration::from_secs(15);
/// The most services that are followed where none is named.
const MOST: usize = 1_000;

/// Services whose instances are addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Services {
    /// `http://HOST:PORT` of the agent, with a prefix if need be.
    pub url: String,
    pub access: Access,
    /// Shown as `X-Consul-Token`.
    pub token: Option<Secret>,
    /// Parameters of every question: `dc`, `ns`, `partition`, `stale`.
    pub parameters: Vec<(String, String)>,
    /// Names; none: all there are.
    pub services: Vec<String>,
    /// Tags that an instance must have, all of them.
    pub tags: Vec<String>,
    /// Of nodes, `key:value` each.
    pub node_meta: Vec<String>,
    /// Consul's expressions over services, and over instances with their health.
    pub filter: String,
    pub health_filter: String,
    pub tag_separator: String,
    /// The shortest time between two answers.
    pub refresh: Duration,
}

/// What is known of all services, and who is told.
struct Shared {
    services: Services,
    known: Mutex<BTreeMap<String, Result<Vec<Group>, String>>>,
    teller: Teller,
}

/// An answer's index and text; the index is what the next question waits to go beyond.
struct Answer {
    index: u64,
    text: Vec<u8>,
}

impl Shared {
    async fn ask(&self, path: &str, more: &[(&str, &str)], index: u64) -> Result<Answer, String> {
        let of = &self.services;
        let client = of.access.client()?;
        let wait_s = format!("{}s", WAIT.as_secs());
        let index_text = index.to_string();
        let fixed = of.parameters.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let nodes = of.node_meta.iter().map(|pair| ("node-meta", pair.as_str()));
        let waits = [("index", index_text.as_str()), ("wait", wait_s.as_str())];
        let parameters = fixed.chain(nodes).chain(more.iter().copied()).chain(waits);
        let url = http::url(&format!("{}{path}", of.url), parameters)?;
        let mut request = client.get(url).timeout(WAIT + WAIT / 16 + GRACE);
        if let Some(token) = &of.token {
            request = request.header("X-Consul-Token", token.read()?);
        }
        let response = http::send(of.access.shown(request)?).await?;
        let index = response.headers().get("x-consul-index").and_then(|v| v.to_str().ok()?.parse().ok());
        let index: u64 = index.ok_or("its answer has no X-Consul-Index: is it Consul?")?;
        Ok(Answer { index, text: http::body(response).await? })
    }

    /// Says what all services have. Until each was answered once, nothing is said to be all.
    async fn tell(&self, service: &str, found: Result<Vec<Group>, String>) {
        let mut known = self.known.lock().await;
        match (known.get_mut(service), found) {
            // What was found before stays; the reason is told now.
            (Some(Ok(_)), Err(why)) => {
                let groups = known.values().flatten().flatten().cloned().collect();
                return self.teller.found_in_part(groups, format!("Consul, service {service}: {why}"));
            }
            (_, found) => drop(known.insert(service.to_owned(), found)),
        }
        let groups: Vec<Group> = known.values().flatten().flatten().cloned().collect();
        let failure = known.iter().find_map(|(name, found)| found.as_ref().err().map(|why| (name, why)));
        match failure {
            None => self.teller.found(groups),
            Some((name, why)) => self.teller.found_in_part(groups, format!("Consul, service {name}: {why}")),
        }
    }
}

/// What the next question waits to go beyond: an index that went back, or is none, begins anew.
fn next_index(before: u64, now: u64) -> u64 {
    if now < before || now == 0 { 0 } else { now }
}

async fn follow_service(shared: Arc<Shared>, name: String) {
    let mut index = 0;
    loop {
        let path = format!("/v1/health/service/{}", escaped(&name));
        let mut more: Vec<(&str, &str)> =
            shared.services.tags.iter().map(|tag| ("tag", tag.as_str())).collect();
        if !shared.services.health_filter.is_empty() {
            more.push(("filter", &shared.services.health_filter));
        }
        let found = match shared.ask(&path, &more, index).await {
            Ok(answer) if answer.index == index => None,
            Ok(answer) => {
                index = next_index(index, answer.index);
                Some(instances(&answer.text, &shared.services.tag_separator))
            }
            Err(why) => Some(Err(why)),
        };
        let failed = matches!(found, Some(Err(_)));
        if let Some(found) = found {
            shared.tell(&name, found).await;
        }
        tokio::time::sleep(if failed { RETRY } else { shared.services.refresh.max(SHORTEST_REFRESH) }).await;
    }
}

/// A task that ends with this value.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(crate) async fn follow(services: Services, teller: Teller) {
    let named: BTreeSet<String> = services.services.iter().cloned().collect();
    let shared = Arc::new(Shared { services, known: Mutex::default(), teller });
    let begin = |name: &String| Task(tokio::spawn(follow_service(shared.clone(), name.clone())));
    let mut tasks: BTreeMap<String, Task> = named.iter().map(|name| (name.clone(), begin(name))).collect();
    if !named.is_empty() {
        return std::future::pending().await;
    }
    let mut index = 0;
    loop {
        let filter = [("filter", shared.services.filter.as_str())];
        let filter = if shared.services.filter.is_empty() { &[][..] } else { &filter };
        let there = match shared.ask("/v1/catalog/services", filter, index).await {
            Ok(answer) => {
                index = next_index(index, answer.index);
                names(&answer.text, &shared.services.tags)
            }
            Err(why) => Err(why),
        };
        match there {
            Ok(there) => {
                tasks.retain(|name, _| there.contains(name));
                let mut known = shared.known.lock().await;
                known.retain(|name, _| there.contains(name));
                if there.is_empty() {
                    shared.teller.found(Vec::new());
                }
                drop(known);
                for name in &there {
                    tasks.entry(name.clone()).or_insert_with(|| begin(name));
                }
                tokio::time::sleep(shared.services.refresh.max(SHORTEST_REFRESH)).await;
            }
            Err(why) => {
                shared.teller.failed(format!("Consul, its services: {why}"));
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// A name as a part of a path.
fn escaped(name: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    name.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// Names of the services that have all tags.
fn names(text: &[u8], tags: &[String]) -> Result<BTreeSet<String>, String> {
    let all: BTreeMap<String, Vec<String>> =
        serde_json::from_slice(text).map_err(|e| format!("its answer cannot be read: {e}"))?;
    let wanted = all.into_iter().filter(|(_, has)| tags.iter().all(|tag| has.contains(tag)));
    Ok(wanted.map(|(name, _)| name).take(MOST).collect())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Instance {
    node: Node,
    service: Service,
    #[serde(default)]
    checks: Option<Vec<Check>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    node: String,
    address: String,
    #[serde(default)]
    datacenter: String,
    #[serde(default)]
    partition: String,
    #[serde(default)]
    meta: Option<BTreeMap<String, String>>,
    #[serde(default)]
    tagged_addresses: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    #[serde(rename = "ID")]
    id: String,
    service: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    tags: Option<Vec<String>>,
    #[serde(default)]
    address: String,
    port: u32,
    #[serde(default)]
    meta: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    #[serde(rename = "CheckID", default)]
    id: String,
    #[serde(default)]
    status: String,
}

/// The worst of an instance's checks.
fn health(checks: &[Check]) -> &'static str {
    let has = |status: &str| checks.iter().any(|c| c.status == status);
    match () {
        // Put by Consul for a node, or for a service, that is in maintenance.
        _ if checks
            .iter()
            .any(|c| c.id == "_node_maintenance" || c.id.starts_with("_service_maintenance:")) =>
        {
            "maintenance"
        }
        _ if has("critical") => "critical",
        _ if has("warning") => "warning",
        _ => "passing",
    }
}

/// The instances of a service, sick ones too, each with upstream's labels.
fn instances(text: &[u8], separator: &str) -> Result<Vec<Group>, String> {
    let all: Vec<Instance> =
        serde_json::from_slice(text).map_err(|e| format!("its answer cannot be read: {e}"))?;
    Ok(all.into_iter().map(|instance| group(instance, separator)).collect())
}

fn group(Instance { node, service, checks }: Instance, separator: &str) -> Group {
    let mut labels = BTreeMap::new();
    let mut set = |name: &str, value: String| labels.insert(format!("__meta_consul_{name}"), value);
    let host = if service.address.is_empty() { &node.address } else { &service.address };
    let target = crate::host_port(host, service.port);
    let tags = service.tags.unwrap_or_default();
    set("tags", format!("{separator}{}{separator}", tags.join(separator)));
    set("health", health(&checks.unwrap_or_default()).to_owned());
    set("service_port", service.port.to_string());
    for (name, value) in [
        ("address", node.address),
        ("dc", node.datacenter),
        ("node", node.node),
        ("namespace", service.namespace),
        ("partition", node.partition),
        ("service", service.service),
        ("service_id", service.id),
        ("service_address", service.address),
    ] {
        set(name, value);
    }
    for (kind, pairs) in [
        ("metadata", node.meta),
        ("service_metadata", service.meta),
        ("tagged_address", node.tagged_addresses),
    ] {
        for (name, value) in pairs.into_iter().flatten() {
            set(&format!("{kind}_{}", crate::label_name(&name)), value);
        }
    }
    Group { targets: vec![target], labels }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_have_addresses_and_labels() {
        let text = br#"[{
            "Node": {"ID": "x", "Node": "n1", "Address": "10.1.0.1", "Datacenter": "eu", "TaggedAddresses": {"lan": "10.1.0.1"}, "Meta": {"rack-id": "7"}},
            "Service": {"ID": "h-1", "Service": "hearth", "Tags": ["a", "b"], "Address": "", "Meta": null, "Port": 9494, "Weights": {"Passing": 1, "Warning": 1}},
            "Checks": [{"Node": "n1", "CheckID": "serfHealth", "Status": "passing"}, {"CheckID": "c", "Status": "critical"}]
        }, {
            "Node": {"Node": "n2", "Address": "10.1.0.2", "Meta": null},
            "Service": {"ID": "h-2", "Service": "hearth", "Tags": null, "Address": "10.2.0.2", "Port": 1},
            "Checks": null
        }]"#;
        let found = instances(text, ",").unwrap();
        let targets: Vec<&str> = found.iter().flat_map(|g| g.targets.iter().map(String::as_str)).collect();
        assert_eq!(targets, ["10.1.0.1:9494", "10.2.0.2:1"]);
        for (name, value) in [
            ("tags", ",a,b,"),
            ("health", "critical"),
            ("metadata_rack_id", "7"),
            ("tagged_address_lan", "10.1.0.1"),
            ("service_id", "h-1"),
            ("dc", "eu"),
        ] {
            assert_eq!(found[0].labels[&format!("__meta_consul_{name}")], value);
        }
        assert_eq!(found[1].labels["__meta_consul_health"], "passing");
        for bad in [&b"{}"[..], b"", b"[{}]", b"<html>"] {
            assert!(instances(bad, ",").unwrap_err().contains("cannot be read"));
        }
    }

    #[test]
    fn index_that_goes_back_begins_anew() {
        assert_eq!((next_index(5, 7), next_index(7, 5), next_index(3, 0)), (7, 0, 0));
    }

    #[test]
    fn services_are_chosen_by_tags() {
        let text = br#"{"consul": [], "hearth": ["a", "b"], "other": ["a"]}"#;
        let tags =
            |tags: &[&str]| names(text, &tags.iter().map(|t| t.to_string()).collect::<Vec<_>>()).unwrap();
        assert_eq!(tags(&[]).len(), 3);
        assert_eq!(tags(&["a", "b"]).into_iter().collect::<Vec<_>>(), ["hearth"]);
        assert_eq!(escaped("a b/c"), "a%20b%2Fc");
    }
}
