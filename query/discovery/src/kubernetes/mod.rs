//! Endpoints of services out of Kubernetes' API: EndpointSlices, listed once and then watched, as
//! Prometheus' `kubernetes_sd_configs` of the role `endpointslice` have them.

mod slice;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::backoff::Backoff;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;

use crate::http::{self, Access, Secret, told};
use crate::teller::Teller;
use crate::{Group, MAX_BYTES};

/// Where a pod finds what it shows to the API, and whom it trusts.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// How long one watch lasts, after which the next goes on where it ended.
const WATCH: Duration = Duration::from_secs(290);
/// How long is left beyond it; a list has this long.
const GRACE: Duration = Duration::from_secs(30);

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Slices in one piece of a list, and the most of a namespace.
const PIECE: usize = 500;
const MOST: usize = 50_000;

/// Which slices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slices {
    /// URL of the API; empty: that of the cluster this pod runs in, with the pod's own account.
    pub api_server: String,
    pub access: Access,
    /// None: all.
    pub namespaces: Vec<String>,
    /// Beside them, that of this pod.
    pub own_namespace: bool,
    /// Kubernetes' selectors, such as `kubernetes.io/service-name=hearth`.
    pub label_selector: String,
    pub field_selector: String,
}

/// Where the API is, and how it is asked.
struct Api {
    url: String,
    access: Access,
    namespaces: Vec<String>,
}

impl Slices {
    /// What has to be known before anything is asked.
    fn api(&self) -> Result<Api, String> {
        let mut api = Api {
            url: self.api_server.trim_end_matches('/').to_owned(),
            access: self.access.clone(),
            namespaces: self.namespaces.clone(),
        };
        let account = |file: &str| PathBuf::from(ACCOUNT).join(file);
        if self.own_namespace {
            api.namespaces.push(Secret::File(account("namespace")).read()?);
        }
        if api.url.is_empty() {
            let variable = |name: &str| {
                std::env::var(name).map_err(|_| {
                    format!("this is no pod of a cluster ({name} is not set): name the API by api_server")
                })
            };
            let host = variable("KUBERNETES_SERVICE_HOST")?;
            let port = variable("KUBERNETES_SERVICE_PORT")?
                .parse()
                .map_err(|_| "KUBERNETES_SERVICE_PORT is no port")?;
            api.url = format!("https://{}", crate::host_port(&host, port));
            api.access.bearer = Some(Secret::File(account("token")));
            api.access.ca_file = Some(account("ca.crt"));
        }
        Ok(api)
    }
}

/// What is known of all namespaces, and who is told.
struct Shared {
    known: Mutex<BTreeMap<String, InNamespace>>,
    teller: Teller,
}

#[derive(Default)]
struct InNamespace {
    slices: BTreeMap<(String, String), Vec<Group>>,
    failure: Option<String>,
    is_read: bool,
}

impl Shared {
    /// Changes what is known of a namespace, and tells it once every one was looked at.
    fn tell(&self, namespace: &str, change: impl FnOnce(&mut InNamespace)) {
        let mut known = self.known.lock();
        change(known.entry(namespace.to_owned()).or_default());
        if !known.values().all(|k| k.is_read || k.failure.is_some()) {
            return;
        }
        let slices = known.values().flat_map(|k| k.slices.values());
        let groups: Vec<Group> = slices.flatten().cloned().collect();
        match known.values().find_map(|k| k.failure.clone()) {
            None => self.teller.found(groups),
            Some(why) => self.teller.found_in_part(groups, why),
        }
    }
}

pub(crate) async fn follow(slices: Slices, teller: Teller) {
    let api = match slices.api() {
        Ok(api) => api,
        Err(why) => {
            teller.failed(format!("Kubernetes: {why}"));
            return std::future::pending().await;
        }
    };
    let namespaces = if api.namespaces.is_empty() { vec![String::new()] } else { api.namespaces.clone() };
    let known = namespaces.iter().map(|name| (name.clone(), InNamespace::default())).collect();
    let shared = Arc::new(Shared { known: Mutex::new(known), teller });
    let (api, slices) = (Arc::new(api), Arc::new(slices));
    let mut tasks = tokio::task::JoinSet::new();
    for namespace in namespaces {
        let namespace =
            Namespace { api: api.clone(), slices: slices.clone(), shared: shared.clone(), name: namespace };
        tasks.spawn(namespace.follow());
    }
    while tasks.join_next().await.is_some() {}
}

/// Why a watch ended.
enum Ended {
    /// In its time: the next goes on at this version.
    InTime(String),
    /// What it should go on from is forgotten: all is listed anew.
    Forgotten,
}

/// One namespace, or all of them where its name is empty.
struct Namespace {
    api: Arc<Api>,
    slices: Arc<Slices>,
    shared: Arc<Shared>,
    name: String,
}

impl Namespace {
    async fn follow(self) {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        loop {
            let was_read = self.list_and_watch().await;
            let Err(why) = was_read else {
                backoff.reset();
                continue;
            };
            let of = if self.name.is_empty() { String::new() } else { format!(", namespace {}", self.name) };
            self.shared.tell(&self.name, |known| known.failure = Some(format!("Kubernetes{of}: {why}")));
            tokio::time::sleep(backoff.next_pause()).await;
        }
    }

    /// Until what was listed is forgotten by the server, or something fails.
    async fn list_and_watch(&self) -> Result<(), String> {
        let mut version = self.list().await?;
        loop {
            match self.watch(&version).await? {
                Ended::InTime(at) => version = at,
                Ended::Forgotten => return Ok(()),
            }
        }
    }

    async fn ask(&self, more: &[(&str, &str)], longest: Duration) -> Result<reqwest::Response, String> {
        let path = match self.name.as_str() {
            "" => "/apis/discovery.k8s.io/v1/endpointslices".to_owned(),
            name => format!("/apis/discovery.k8s.io/v1/namespaces/{name}/endpointslices"),
        };
        let client = self.api.access.client()?;
        let selectors =
            [("labelSelector", &self.slices.label_selector), ("fieldSelector", &self.slices.field_selector)];
        let selectors = selectors.iter().filter(|(_, value)| !value.is_empty());
        let parameters = more.iter().copied().chain(selectors.map(|(key, value)| (*key, value.as_str())));
        let url = http::url(&format!("{}{path}", self.api.url), parameters)?;
        let request = client.get(url).timeout(longest);
        http::send(self.api.access.shown(request)?).await
    }

    /// Reads all slices; the version that a watch goes on from.
    async fn list(&self) -> Result<String, String> {
        let mut slices = BTreeMap::new();
        let (mut go_on, limit) = (String::new(), PIECE.to_string());
        loop {
            let mut more = vec![("limit", limit.as_str())];
            if !go_on.is_empty() {
                more.push(("continue", &go_on));
            }
            let text = http::body(self.ask(&more, GRACE).await?).await?;
            let list: List =
                serde_json::from_slice(&text).map_err(|e| format!("its list cannot be read: {e}"))?;
            for item in list.items {
                let slice = slice::read(item)?;
                slices.insert(slice.id, slice.groups);
            }
            if slices.len() > MOST {
                return Err(format!(
                    "there are more than {MOST} slices: choose some by selectors or namespaces"
                ));
            }
            go_on = list.metadata.go_on;
            if go_on.is_empty() {
                self.shared.tell(&self.name, |known| {
                    *known = InNamespace { slices, failure: None, is_read: true };
                });
                return Ok(list.metadata.resource_version);
            }
        }
    }

    async fn watch(&self, version: &str) -> Result<Ended, String> {
        let seconds = WATCH.as_secs().to_string();
        let more = [
            ("watch", "1"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", version),
            ("timeoutSeconds", &seconds),
        ];
        let mut response = match self.ask(&more, WATCH + GRACE).await {
            Err(why) if why.starts_with("status 410") => return Ok(Ended::Forgotten),
            asked => asked?,
        };
        self.shared.tell(&self.name, |known| known.failure = None);
        let (mut version, mut line) = (version.to_owned(), Vec::new());
        while let Some(piece) = response.chunk().await.map_err(|e| told(&e))? {
            for part in piece.split_inclusive(|b| *b == b'\n') {
                line.extend_from_slice(part);
                if line.len() > MAX_BYTES {
                    return Err(format!("an event is longer than {MAX_BYTES} bytes"));
                }
                if !line.ends_with(b"\n") {
                    continue;
                }
                let event: Event =
                    serde_json::from_slice(&line).map_err(|e| format!("an event cannot be read: {e}"))?;
                line.clear();
                match self.apply(event)? {
                    Some(at) => version = at,
                    None => return Ok(Ended::Forgotten),
                }
            }
        }
        Ok(Ended::InTime(version))
    }

    /// Takes in an event; the version it is of, or `None` where a watch cannot go on.
    fn apply(&self, event: Event) -> Result<Option<String>, String> {
        match event.kind.as_str() {
            "ERROR" if event.object["code"] == 410 => return Ok(None),
            "ERROR" => {
                let why = event.object["message"].as_str().unwrap_or("it says no more");
                return Err(format!("the watch ended: {why}"));
            }
            "BOOKMARK" => {
                let version = event.object["metadata"]["resourceVersion"].as_str().unwrap_or_default();
                return Ok(Some(version.to_owned()));
            }
            "ADDED" | "MODIFIED" | "DELETED" => {}
            other => return Err(format!("it tells of an event {other:?}, which is not known")),
        }
        let is_gone = event.kind == "DELETED";
        let slice = slice::read(event.object)?;
        self.shared.tell(&self.name, |known| match is_gone {
            true => drop(known.slices.remove(&slice.id)),
            false => drop(known.slices.insert(slice.id, slice.groups)),
        });
        Ok(Some(slice.version))
    }
}

#[derive(Deserialize)]
struct List {
    metadata: ListMetadata,
    #[serde(default)]
    items: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMetadata {
    resource_version: String,
    #[serde(default, rename = "continue")]
    go_on: String,
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    object: Value,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_outside_of_a_cluster_has_to_be_named() {
        let named = Slices { api_server: "https://k8s:6443/".into(), ..Slices::default() };
        assert_eq!(named.api().map(|api| api.url).unwrap(), "https://k8s:6443");
        if std::env::var_os("KUBERNETES_SERVICE_HOST").is_none() {
            let why = Slices::default().api().err().unwrap();
            assert!(why.contains("api_server"), "{why}");
        }
    }
}
