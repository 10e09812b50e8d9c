//! Sources of a pod's environment and volumes: ConfigMaps, Secrets and the pod's own fields.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ConfigMap, Container, ObjectFieldSelector, Pod, Secret, Volume};
use kube::{Api, Client, ResourceExt};

use super::request;

/// Kind of object that holds keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    ConfigMap,
    Secret,
}

impl Kind {
    fn title(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::ConfigMap => "configmap",
            Self::Secret => "secret",
        })
    }
}

/// Error for a missing value, in the kubelet's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Missing {
    #[error("{0} \"{1}\" not found")]
    Object(Kind, String),
    #[error("couldn't find key {key} in {} {namespace}/{name}", kind.title())]
    Key { kind: Kind, namespace: String, name: String, key: String },
    #[error("references non-existent {0} key: {1}")]
    Item(Kind, String),
    #[error("the testbed's node does not support the field path {0:?}")]
    Field(String),
    #[error("the testbed's node does not support {0}")]
    Unsupported(&'static str),
}

/// Keys and values of one object.
pub(super) type Data = BTreeMap<String, Vec<u8>>;

/// ConfigMaps and Secrets of one pod at the time of the fetch. Missing objects are absent.
#[derive(Debug, Default)]
pub(super) struct Sources(pub(super) BTreeMap<(Kind, String), Data>);

impl Sources {
    /// Returns the object's data; `None` if it is optional and absent.
    pub(super) fn data(&self, kind: Kind, name: &str, optional: Option<bool>) -> Result<Option<&Data>, Missing> {
        match self.0.get(&(kind, name.to_owned())) {
            None if optional != Some(true) => Err(Missing::Object(kind, name.to_owned())),
            data => Ok(data),
        }
    }

    /// Reads the objects from the API server.
    pub(super) async fn fetch(
        client: &Client,
        namespace: &str,
        references: BTreeSet<(Kind, String)>,
    ) -> anyhow::Result<Self> {
        let mut sources = BTreeMap::new();
        for (kind, name) in references {
            let data = match kind {
                Kind::ConfigMap => {
                    let api = Api::<ConfigMap>::namespaced(client.clone(), namespace);
                    request(api.get_opt(&name)).await?.map(config_map_data)
                }
                Kind::Secret => {
                    let api = Api::<Secret>::namespaced(client.clone(), namespace);
                    request(api.get_opt(&name)).await?.map(secret_data)
                }
            };
            if let Some(data) = data {
                sources.insert((kind, name), data);
            }
        }
        Ok(Self(sources))
    }
}

fn config_map_data(object: ConfigMap) -> Data {
    let text = object.data.unwrap_or_default();
    let binary = object.binary_data.unwrap_or_default();
    let text = text.into_iter().map(|(key, value)| (key, value.into_bytes()));
    text.chain(binary.into_iter().map(|(key, value)| (key, value.0))).collect()
}

fn secret_data(object: Secret) -> Data {
    let data = object.data.unwrap_or_default();
    data.into_iter().map(|(key, value)| (key, value.0)).collect()
}

/// Returns the references of the container's environment.
pub(super) fn of_environment(container: &Container) -> BTreeSet<(Kind, String)> {
    let mut references = BTreeSet::new();
    for source in container.env_from.iter().flatten() {
        references.extend(source.config_map_ref.iter().map(|from| (Kind::ConfigMap, from.name.clone())));
        references.extend(source.secret_ref.iter().map(|from| (Kind::Secret, from.name.clone())));
    }
    for source in container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
        references.extend(source.config_map_key_ref.iter().map(|from| (Kind::ConfigMap, from.name.clone())));
        references.extend(source.secret_key_ref.iter().map(|from| (Kind::Secret, from.name.clone())));
    }
    references
}

/// Returns the references of the volumes.
pub(super) fn of_volumes(volumes: &[Volume]) -> BTreeSet<(Kind, String)> {
    let mut references = BTreeSet::new();
    for volume in volumes {
        references.extend(volume.config_map.iter().map(|from| (Kind::ConfigMap, from.name.clone())));
        references.extend(volume.secret.iter().filter_map(|from| Some((Kind::Secret, from.secret_name.clone()?))));
        let projections = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
        for source in projections {
            references.extend(source.config_map.iter().map(|from| (Kind::ConfigMap, from.name.clone())));
            references.extend(source.secret.iter().map(|from| (Kind::Secret, from.name.clone())));
        }
    }
    references
}

/// Returns the downward API's value of a field. The pod's address is the dialable one: a program listens on its own
/// address, or passes it to others.
pub(super) fn field(pod: &Pod, selector: &ObjectFieldSelector, address: std::net::Ipv4Addr) -> Result<String, Missing> {
    let path = selector.field_path.as_str();
    let spec = pod.spec.as_ref();
    if let Some((map, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        let values = match map {
            "metadata.labels" => pod.labels(),
            "metadata.annotations" => pod.annotations(),
            _ => return Err(Missing::Field(path.to_owned())),
        };
        return Ok(values.get(key).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => pod.name_any(),
        "metadata.namespace" => pod.namespace().unwrap_or_default(),
        "metadata.uid" => pod.uid().unwrap_or_default(),
        "metadata.labels" => lines(pod.labels()),
        "metadata.annotations" => lines(pod.annotations()),
        "spec.nodeName" => spec.and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
        "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()).unwrap_or_default(),
        "status.podIP" | "status.podIPs" => address.to_string(),
        "status.hostIP" | "status.hostIPs" => super::HOST_ADDRESS.to_string(),
        _ => return Err(Missing::Field(path.to_owned())),
    })
}

/// Formats a map as the downward API does in a file.
fn lines(values: &BTreeMap<String, String>) -> String {
    let lines: Vec<_> = values.iter().map(|(key, value)| format!("{key}={value:?}")).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": "p", "namespace": "n", "uid": "u", "labels": { "a": "1", "b/c": "two \"2\"" } },
            "spec": { "containers": [], "nodeName": "node-1", "serviceAccountName": "account" }
        }))
        .unwrap()
    }

    fn value(path: &str) -> Result<String, Missing> {
        let selector = ObjectFieldSelector { field_path: path.to_owned(), ..Default::default() };
        field(&pod(), &selector, std::net::Ipv4Addr::new(127, 244, 0, 9))
    }

    #[test]
    fn the_downward_api_returns_the_pods_fields() {
        for (path, expected) in [
            ("metadata.name", "p"),
            ("metadata.namespace", "n"),
            ("metadata.uid", "u"),
            ("metadata.labels['b/c']", "two \"2\""),
            ("metadata.annotations['absent']", ""),
            ("metadata.labels", "a=\"1\"\nb/c=\"two \\\"2\\\"\""),
            ("spec.nodeName", "node-1"),
            ("spec.serviceAccountName", "account"),
            ("status.podIP", "127.244.0.9"),
            ("status.hostIP", "127.0.0.1"),
        ] {
            assert_eq!(value(path).as_deref(), Ok(expected), "{path}");
        }
        assert_eq!(value("spec.hostname"), Err(Missing::Field("spec.hostname".to_owned())));
    }

    #[test]
    fn references_are_found_in_environment_and_volumes() {
        let container: Container = serde_json::from_value(json!({
            "name": "c",
            "envFrom": [{ "configMapRef": { "name": "all" } }],
            "env": [
                { "name": "A", "value": "plain" },
                { "name": "B", "valueFrom": { "secretKeyRef": { "name": "s", "key": "k" } } }
            ]
        }))
        .unwrap();
        let expected = [(Kind::ConfigMap, "all".to_owned()), (Kind::Secret, "s".to_owned())];
        assert_eq!(of_environment(&container), BTreeSet::from(expected));
        let volumes: Vec<Volume> = serde_json::from_value(json!([
            { "name": "a", "configMap": { "name": "one" } },
            { "name": "b", "projected": { "sources": [{ "secret": { "name": "two" } }, { "serviceAccountToken": { "path": "t" } }] } },
            { "name": "c", "emptyDir": {} }
        ]))
        .unwrap();
        let expected = [(Kind::ConfigMap, "one".to_owned()), (Kind::Secret, "two".to_owned())];
        assert_eq!(of_volumes(&volumes), BTreeSet::from(expected));
    }
}
