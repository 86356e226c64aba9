//! Sources that are asked for a service: Consul, ZooKeeper and Kubernetes.

use std::path::Path;
use std::time::Duration;

use discovery::consul::Services;
use discovery::http::Secret;
use discovery::kubernetes::Slices;
use discovery::zookeeper::{self, Kind, Paths};
use discovery::{Discovery, SHORTEST_REFRESH};

use super::fields::{access, interval, scheme as scheme_of, texts, unknown};
use crate::file::FileError;
use crate::file::yaml::Node;

/// An item of `consul_sd_configs`.
pub fn consul(node: &Node, folder: &Path) -> Result<Discovery, FileError> {
    let (mut server, mut scheme, mut prefix) =
        ("localhost:8500".to_owned(), "http".to_owned(), String::new());
    let mut is_stale = true;
    let mut services = Services {
        url: String::new(),
        access: Default::default(),
        token: None,
        parameters: Vec::new(),
        services: Vec::new(),
        tags: Vec::new(),
        node_meta: Vec::new(),
        filter: String::new(),
        health_filter: String::new(),
        tag_separator: ",".to_owned(),
        refresh: SHORTEST_REFRESH,
    };
    for (name, (place, value)) in node.fields("consul.SDConfig")? {
        match name.as_str() {
            "server" => server = value.text()?,
            "scheme" => scheme = scheme_of(&value)?,
            "path_prefix" => prefix = value.text()?.trim_matches('/').to_owned(),
            "token" => services.token = Some(Secret::Text(value.text()?)),
            "datacenter" => services.parameters.push(("dc".into(), value.text()?)),
            "namespace" => services.parameters.push(("ns".into(), value.text()?)),
            "partition" => services.parameters.push(("partition".into(), value.text()?)),
            "allow_stale" => is_stale = value.truth()?,
            "services" => services.services = texts(&value)?,
            "tags" => services.tags = texts(&value)?,
            "node_meta" => {
                let pairs = value.text_map()?;
                services.node_meta = pairs.iter().map(|(key, value)| format!("{key}:{value}")).collect();
            }
            "filter" => services.filter = value.text()?,
            "health_filter" => services.health_filter = value.text()?,
            "tag_separator" => services.tag_separator = value.text()?,
            "refresh_interval" => services.refresh = interval(&value)?,
            other if access(&mut services.access, other, &value, folder)? => {}
            other => return Err(unknown(place, other, "consul.plain")),
        }
    }
    if server.trim().is_empty() {
        return Err(FileError::at(node.place, "consul SD configuration requires a server address".into()));
    }
    let slash = if prefix.is_empty() { "" } else { "/" };
    services.url = format!("{scheme}://{server}{slash}{prefix}");
    if is_stale {
        services.parameters.push(("stale".into(), String::new()));
    }
    services.parameters.retain(|(key, value)| key == "stale" || !value.is_empty());
    Ok(Discovery::Consul(Box::new(services)))
}

/// An item of `serverset_sd_configs` or `nerve_sd_configs`.
pub fn zookeeper(node: &Node, kind: Kind) -> Result<Discovery, FileError> {
    let mut all = Paths { kind, servers: Vec::new(), paths: Vec::new(), timeout: zookeeper::TIMEOUT };
    for (name, (place, value)) in node.fields("zookeeper.SDConfig")? {
        match name.as_str() {
            "servers" => all.servers = texts(&value)?,
            "paths" => {
                for item in value.items("[]string")? {
                    let path = item.text()?;
                    if !path.starts_with('/') {
                        let text = format!("zookeeper SD config paths must begin with '/': {path}");
                        return Err(FileError::at(item.place, text));
                    }
                    all.paths.push(path);
                }
            }
            "timeout" => {
                let timeout = Duration::from_millis(value.duration_ms()?.unsigned_abs());
                all.timeout = timeout.max(SHORTEST_REFRESH);
            }
            other => return Err(unknown(place, other, "zookeeper.plain")),
        }
    }
    let missing = match () {
        _ if all.servers.is_empty() => "zookeeper SD config must contain at least one server",
        _ if all.paths.is_empty() => "zookeeper SD config must contain at least one path",
        _ => {
            let with_port = |server: String| if server.contains(':') { server } else { server + ":2181" };
            all.servers = all.servers.into_iter().map(with_port).collect();
            return Ok(Discovery::ZooKeeper(all));
        }
    };
    Err(FileError::at(node.place, missing.into()))
}

/// An item of `kubernetes_sd_configs`.
pub fn kubernetes(node: &Node, folder: &Path) -> Result<Discovery, FileError> {
    let (mut slices, mut role) = (Slices::default(), String::new());
    let mut has_access = false;
    for (name, (place, value)) in node.fields("kubernetes.SDConfig")? {
        match name.as_str() {
            "role" => role = value.text()?,
            "api_server" => slices.api_server = value.text()?,
            "namespaces" => namespaces(&mut slices, &value)?,
            "selectors" => selectors(&mut slices, &value)?,
            other if access(&mut slices.access, other, &value, folder)? => has_access = true,
            other => return Err(unknown(place, other, "kubernetes.plain")),
        }
    }
    let wrong = |text: String| Err(FileError::at(node.place, text));
    match role.as_str() {
        "endpointslice" => {}
        "" => return wrong("role missing (one of: endpointslice)".into()),
        other => return wrong(format!("the role {other:?} is not supported here: endpointslice is")),
    }
    if has_access && slices.api_server.is_empty() {
        return wrong(
            "to use custom HTTP client configuration please provide the 'api_server' URL explicitly".into(),
        );
    }
    Ok(Discovery::Kubernetes(Box::new(slices)))
}

fn namespaces(slices: &mut Slices, node: &Node) -> Result<(), FileError> {
    for (name, (place, value)) in node.fields("kubernetes.NamespaceDiscovery")? {
        match name.as_str() {
            "own_namespace" => slices.own_namespace = value.truth()?,
            "names" => slices.namespaces = texts(&value)?,
            other => return Err(unknown(place, other, "kubernetes.plain")),
        }
    }
    Ok(())
}

fn selectors(slices: &mut Slices, node: &Node) -> Result<(), FileError> {
    for item in node.items("[]kubernetes.SelectorConfig")? {
        let mut role = String::new();
        for (name, (place, value)) in item.fields("kubernetes.SelectorConfig")? {
            match name.as_str() {
                "role" => role = value.text()?,
                "label" => slices.label_selector = value.text()?,
                "field" => slices.field_selector = value.text()?,
                other => return Err(unknown(place, other, "kubernetes.SelectorConfig")),
            }
        }
        if role != "endpointslice" {
            let text = format!("a selector of the role {role:?} is not supported here: endpointslice is");
            return Err(FileError::at(item.place, text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::sources::Sources;
    use discovery::Discovery;
    use discovery::http::Secret;
    use std::path::Path;

    #[test]
    fn registries_are_read_in_upstreams_words() {
        let text = "consul_sd_configs:
- {server: 'c:8500', services: [hearth], tags: [a], datacenter: eu, token: hush, node_meta: {rack: '7'}}
- {scheme: https, path_prefix: /p/, allow_stale: false, authorization: {credentials_file: t}, tls_config: {ca_file: ca}}
serverset_sd_configs:
- {servers: [z, 'y:99'], paths: [/a, /b], timeout: 3s}
nerve_sd_configs:
- {servers: [z], paths: [/n]}
kubernetes_sd_configs:
- {role: endpointslice, namespaces: {own_namespace: true, names: [m]}, selectors: [{role: endpointslice, label: 'a=b'}]}
";
        let all = Sources::parse(text, Path::new("/etc")).unwrap().discoveries;
        // Sections come by their names.
        let [
            Discovery::Consul(c),
            Discovery::Consul(tls),
            Discovery::Kubernetes(k),
            Discovery::ZooKeeper(_),
            Discovery::ZooKeeper(set),
        ] = &all[..]
        else {
            panic!("{all:?}")
        };
        assert_eq!(
            (c.url.as_str(), c.services.join(""), c.tags.join("")),
            ("http://c:8500", "hearth".into(), "a".into())
        );
        let parameters = [("dc", "eu"), ("stale", "")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!((&c.parameters[..], c.node_meta.join("")), (&parameters[..], "rack:7".into()));
        assert!(!format!("{c:?}").contains("hush"));
        assert_eq!((tls.url.as_str(), tls.parameters.len()), ("https://localhost:8500/p", 0));
        assert_eq!(tls.access.bearer, Some(Secret::File("/etc/t".into())));
        assert_eq!(tls.access.ca_file, Some("/etc/ca".into()));
        assert_eq!((&set.servers[..], set.paths.len()), (&["z:2181".to_owned(), "y:99".to_owned()][..], 2));
        assert_eq!(
            (k.namespaces.join(""), k.own_namespace, k.label_selector.as_str()),
            ("m".into(), true, "a=b")
        );
    }

    #[test]
    fn registries_say_where_they_are_wrong() {
        for (text, want) in [
            ("consul_sd_configs: [{server: ''}]\n", "1:21: consul SD configuration requires a server"),
            (
                "nerve_sd_configs: [{servers: [a]}]\n",
                "1:20: zookeeper SD config must contain at least one path",
            ),
            ("nerve_sd_configs: [{paths: [a]}]\n", "1:29: zookeeper SD config paths must begin with '/': a"),
            ("kubernetes_sd_configs: [{}]\n", "1:25: role missing"),
            ("kubernetes_sd_configs: [{role: pod}]\n", "1:25: the role \"pod\" is not supported here"),
            (
                "kubernetes_sd_configs: [{role: endpointslice, bearer_token: a}]\n",
                "1:25: to use custom HTTP client configuration",
            ),
            ("consul_sd_configs: [{tls_config: {cert_file: a}}]\n", "1:34: exactly one of key or key_file"),
        ] {
            let why = Sources::parse(text, Path::new(".")).unwrap_err().to_string();
            assert!(why.starts_with(want), "{why}");
        }
    }
}
