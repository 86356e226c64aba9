//! An EndpointSlice as Kubernetes' API writes it, and its addresses with upstream's labels.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::{Group, host_port, label_name};

/// What a slice says.
#[derive(Debug)]
pub struct Slice {
    /// Namespace and name.
    pub id: (String, String),
    pub version: String,
    pub groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    metadata: Metadata,
    #[serde(default)]
    address_type: String,
    #[serde(default)]
    endpoints: Option<Vec<Endpoint>>,
    #[serde(default)]
    ports: Option<Vec<Port>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    namespace: String,
    name: String,
    #[serde(default)]
    resource_version: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    #[serde(default)]
    addresses: Option<Vec<String>>,
    #[serde(default)]
    conditions: Conditions,
    #[serde(default)]
    hostname: Option<String>,
    #[serde(default)]
    node_name: Option<String>,
    #[serde(default)]
    zone: Option<String>,
    #[serde(default)]
    target_ref: Option<Target>,
}

#[derive(Deserialize, Default)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Deserialize)]
struct Target {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    port: Option<u32>,
    #[serde(default)]
    protocol: Option<String>,
    #[serde(default)]
    app_protocol: Option<String>,
}

/// Reads a slice. One that has nothing has no groups.
pub fn read(object: Value) -> Result<Slice, String> {
    let written: Written =
        serde_json::from_value(object).map_err(|e| format!("a slice cannot be read: {e}"))?;
    let of_slice = slice_labels(&written);
    let mut groups = Vec::new();
    for endpoint in written.endpoints.iter().flatten() {
        let of_endpoint = endpoint_labels(endpoint);
        for port in written.ports.iter().flatten() {
            // One without a number is every port, which is no address.
            let Some(number) = port.port else { continue };
            let targets: Vec<String> =
                endpoint.addresses.iter().flatten().map(|address| host_port(address, number)).collect();
            let mut labels = of_slice.clone();
            labels.extend(of_endpoint.clone());
            labels.extend(port_labels(port, number));
            groups.push(Group { targets, labels });
        }
    }
    let Metadata { namespace, name, resource_version, .. } = written.metadata;
    Ok(Slice { id: (namespace, name), version: resource_version, groups })
}

type Labels = BTreeMap<String, String>;

fn meta(name: &str) -> String {
    format!("__meta_kubernetes_{name}")
}

fn slice_labels(slice: &Written) -> Labels {
    let of = &slice.metadata;
    let mut labels = Labels::from([
        (meta("namespace"), of.namespace.clone()),
        (meta("endpointslice_name"), of.name.clone()),
        (meta("endpointslice_address_type"), slice.address_type.clone()),
    ]);
    for (kind, pairs) in [("label", &of.labels), ("annotation", &of.annotations)] {
        for (name, value) in pairs.iter().flatten() {
            let name = label_name(name);
            labels.insert(meta(&format!("endpointslice_{kind}_{name}")), value.clone());
            labels.insert(meta(&format!("endpointslice_{kind}present_{name}")), "true".into());
        }
    }
    if let Some(service) = of.labels.iter().flatten().find(|(name, _)| *name == "kubernetes.io/service-name")
    {
        labels.insert(meta("service_name"), service.1.clone());
    }
    labels
}

fn endpoint_labels(endpoint: &Endpoint) -> Labels {
    let mut labels = Labels::new();
    let conditions = &endpoint.conditions;
    for (name, is) in [
        ("ready", conditions.ready),
        ("serving", conditions.serving),
        ("terminating", conditions.terminating),
    ] {
        if let Some(is) = is {
            labels.insert(meta(&format!("endpointslice_endpoint_conditions_{name}")), is.to_string());
        }
    }
    let target = endpoint.target_ref.as_ref();
    for (name, value) in [
        ("endpoint_hostname", endpoint.hostname.as_ref()),
        ("endpoint_node_name", endpoint.node_name.as_ref()),
        ("endpoint_zone", endpoint.zone.as_ref()),
        ("address_target_kind", target.map(|t| &t.kind)),
        ("address_target_name", target.map(|t| &t.name)),
    ] {
        if let Some(value) = value {
            labels.insert(meta(&format!("endpointslice_{name}")), value.clone());
        }
    }
    labels
}

fn port_labels(port: &Port, number: u32) -> Labels {
    let mut labels = Labels::from([(meta("endpointslice_port"), number.to_string())]);
    for (name, value) in
        [("name", &port.name), ("protocol", &port.protocol), ("app_protocol", &port.app_protocol)]
    {
        if let Some(value) = value {
            labels.insert(meta(&format!("endpointslice_port_{name}")), value.clone());
        }
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn slice_has_an_address_for_each_endpoint_and_port() {
        let slice = read(json!({
            "metadata": {"name": "hearth-x7", "namespace": "m", "uid": "u", "resourceVersion": "42",
                "labels": {"kubernetes.io/service-name": "hearth"}, "annotations": {"a/b": "c"}},
            "addressType": "IPv6",
            "endpoints": [
                {"addresses": ["fd00::1"], "conditions": {"ready": true, "serving": true, "terminating": false},
                 "nodeName": "n1", "zone": "z", "targetRef": {"kind": "Pod", "name": "hearth-0", "namespace": "m"}},
                {"addresses": ["fd00::2"], "conditions": {}}],
            "ports": [{"name": "http", "port": 9494, "protocol": "TCP"}, {"name": "all", "port": null}]
        }))
        .unwrap();
        assert_eq!((slice.id.1.as_str(), slice.version.as_str()), ("hearth-x7", "42"));
        let targets: Vec<&String> = slice.groups.iter().flat_map(|g| &g.targets).collect();
        assert_eq!(targets, ["[fd00::1]:9494", "[fd00::2]:9494"]);
        let labels = &slice.groups[0].labels;
        for (name, value) in [
            ("namespace", "m"),
            ("service_name", "hearth"),
            ("endpointslice_label_kubernetes_io_service_name", "hearth"),
            ("endpointslice_annotationpresent_a_b", "true"),
            ("endpointslice_endpoint_conditions_ready", "true"),
            ("endpointslice_endpoint_node_name", "n1"),
            ("endpointslice_address_target_name", "hearth-0"),
            ("endpointslice_port_name", "http"),
            ("endpointslice_port", "9494"),
            ("endpointslice_address_type", "IPv6"),
        ] {
            assert_eq!(labels[&meta(name)], value, "{name}");
        }
        assert!(!slice.groups[1].labels.contains_key(&meta("endpointslice_endpoint_conditions_ready")));
    }

    #[test]
    fn slice_may_be_empty_and_must_be_one() {
        let empty = json!({"metadata": {"name": "a"}, "endpoints": null, "ports": null});
        assert!(read(empty).unwrap().groups.is_empty());
        for bad in [
            json!({}),
            json!([]),
            json!({"metadata": {"name": 1}}),
            json!({"metadata": {"name": "a"}, "endpoints": 3}),
        ] {
            assert!(read(bad).unwrap_err().contains("cannot be read"));
        }
    }
}
