//! Stand-ins for Consul's agent and Kubernetes' API on loopback, in the shape of their answers: questions
//! that wait for a change, lists and watches. Both have one service, `hearth`, whose ports a test sets.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};
use tokio::sync::watch;

/// What both want to be shown.
pub const SECRET: &str = "a-secret-of-the-registry";

/// Ports of the service by version; what is before `oldest` is forgotten.
#[derive(Clone, Default)]
struct Versions {
    versions: Vec<Vec<u16>>,
    oldest: usize,
}

/// One of them.
pub struct Registry {
    pub address: String,
    known: watch::Sender<Versions>,
    _runtime: tokio::runtime::Runtime,
}

type Shared = State<Arc<watch::Receiver<Versions>>>;

impl Registry {
    pub fn consul(ports: &[u16]) -> Registry {
        Registry::start(ports, Router::new().route("/v1/health/service/{name}", get(health)))
    }

    pub fn kubernetes(ports: &[u16]) -> Registry {
        let path = "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices";
        Registry::start(ports, Router::new().route(path, get(slices)))
    }

    fn start(ports: &[u16], routes: Router<Arc<watch::Receiver<Versions>>>) -> Registry {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a thread for the registry");
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("its address").to_string();
        let (known, seen) = watch::channel(Versions { versions: vec![ports.to_vec()], oldest: 1 });
        let app = routes.with_state(Arc::new(seen));
        runtime.spawn(async move { axum::serve(listener, app).await });
        Registry { address, known, _runtime: runtime }
    }

    /// Where the service is from now on.
    pub fn set(&self, ports: &[u16]) {
        self.known.send_modify(|known| known.versions.push(ports.to_vec()));
    }

    /// The same, of which no watch learns: it is told that what it goes on from is forgotten.
    pub fn set_and_forget(&self, ports: &[u16]) {
        self.known.send_modify(|known| {
            known.versions.push(ports.to_vec());
            known.oldest = known.versions.len();
        });
    }
}

fn is_shown(headers: &HeaderMap, name: &str, value: &str) -> bool {
    headers.get(name).and_then(|v| v.to_str().ok()) == Some(value)
}

fn number(query: &HashMap<String, String>, name: &str) -> usize {
    query.get(name).and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// `GET /v1/health/service/{name}`: waits until there is something beyond the index.
async fn health(
    State(known): Shared,
    Path(name): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    if !is_shown(&headers, "x-consul-token", SECRET) {
        return (StatusCode::FORBIDDEN, "Permission denied: anonymous token lacks permission")
            .into_response();
    }
    let index = number(&query, "index");
    let mut seen = (*known).clone();
    let now = match seen.wait_for(|known| known.versions.len() > index).await {
        Ok(known) => known.clone(),
        Err(_) => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    };
    let ports = if name == "hearth" { now.versions.last().cloned().unwrap_or_default() } else { Vec::new() };
    let instance = |port: &u16| {
        json!({
            "Node": {"ID": "9e1d", "Node": "n1", "Address": "127.0.0.1", "Datacenter": "dc1",
                "TaggedAddresses": {"lan": "127.0.0.1"}, "Meta": {"consul-network-segment": ""}, "CreateIndex": 1, "ModifyIndex": 2},
            "Service": {"ID": format!("hearth-{port}"), "Service": "hearth", "Tags": [], "Address": "",
                "TaggedAddresses": {"lan_ipv4": {"Address": "127.0.0.1", "Port": port}}, "Meta": null, "Port": port,
                "Weights": {"Passing": 1, "Warning": 1}, "EnableTagOverride": false, "Proxy": {}, "Connect": {}},
            "Checks": [{"Node": "n1", "CheckID": "serfHealth", "Name": "Serf Health Status", "Status": "passing", "ServiceTags": []}]
        })
    };
    let body = Value::from(ports.iter().map(instance).collect::<Vec<_>>()).to_string();
    let index = now.versions.len().to_string();
    ([("content-type", "application/json".to_owned()), ("x-consul-index", index)], body).into_response()
}

/// The one slice of the service.
fn slice(namespace: &str, version: usize, ports: &[u16]) -> Value {
    // A slice has one list of ports for all its endpoints, so these differ only here.
    let ports: Vec<Value> = ports
        .iter()
        .map(|port| json!({"name": format!("http-{port}"), "port": port, "protocol": "TCP"}))
        .collect();
    json!({
        "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
        "metadata": {"name": "hearth-x7zq2", "namespace": namespace, "uid": "5c1e", "resourceVersion": version.to_string(),
            "generation": version, "creationTimestamp": "2026-11-30T00:00:00Z", "labels": {"kubernetes.io/service-name": "hearth"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": "n1", "targetRef": {"kind": "Pod", "namespace": namespace, "name": "hearth-0", "uid": "77"}}],
        "ports": ports
    })
}

/// `GET …/endpointslices`, a list or a watch.
async fn slices(
    State(known): Shared,
    Path(namespace): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    if !is_shown(&headers, "authorization", &format!("Bearer {SECRET}")) {
        let body = json!({"kind": "Status", "status": "Failure", "message": "Unauthorized", "reason": "Unauthorized", "code": 401});
        return (StatusCode::UNAUTHORIZED, body.to_string()).into_response();
    }
    assert_eq!(query.get("labelSelector").map(String::as_str), Some("kubernetes.io/service-name=hearth"));
    if query.get("watch").is_none_or(|w| w != "1") {
        let now = known.borrow().clone();
        let version = now.versions.len();
        let ports = now.versions.last().cloned().unwrap_or_default();
        let items = if ports.is_empty() { Vec::new() } else { vec![slice(&namespace, version, &ports)] };
        let body = json!({"kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1",
            "metadata": {"resourceVersion": version.to_string()}, "items": items});
        return ([("content-type", "application/json")], body.to_string()).into_response();
    }
    let from = number(&query, "resourceVersion");
    let events = futures::stream::unfold(((*known).clone(), Some(from)), move |(mut seen, at)| {
        let namespace = namespace.clone();
        async move {
            let at = at?;
            let now = seen.wait_for(|known| known.versions.len() > at).await.ok()?.clone();
            let (event, next) = if at < now.oldest && now.oldest > 1 {
                let gone = json!({"kind": "Status", "status": "Failure", "reason": "Expired", "code": 410,
                    "message": format!("too old resource version: {at} ({})", now.oldest)});
                (json!({"type": "ERROR", "object": gone}), None)
            } else {
                let object = slice(&namespace, at + 1, &now.versions[at]);
                (json!({"type": "MODIFIED", "object": object}), Some(at + 1))
            };
            Some((Ok::<_, std::convert::Infallible>(format!("{event}\n")), (seen, next)))
        }
    });
    ([("content-type", "application/json")], Body::from_stream(events)).into_response()
}
