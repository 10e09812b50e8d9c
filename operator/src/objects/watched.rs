//! Children and pods as the watches deserialise them. The caches keep [views](super::views) of them.

use std::{borrow::Cow, collections::BTreeMap};

use k8s_openapi::{
    api::core::v1::Pod,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time},
};
use kube::{Resource, core::DynamicResourceScope};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};

use crate::objects::{
    child::ChildKind,
    status_views::{ChildStatusView, ConditionView, ContainerStatusView},
};

/// A child as its watch deserialises it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct WatchedChild {
    #[serde(deserialize_with = "without_managers")]
    pub(crate) metadata: ObjectMeta,
    pub(crate) spec: Option<WatchedSpec>,
    #[serde(deserialize_with = "readable")]
    pub(crate) status: Option<Box<ChildStatusView>>,
}

/// The fields of a child's spec that are read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct WatchedSpec {
    #[serde(deserialize_with = "readable")]
    pub(crate) replicas: Option<i32>,
    #[serde(deserialize_with = "readable")]
    pub(crate) paused: Option<bool>,
    #[serde(deserialize_with = "readable")]
    pub(crate) strategy: Option<WatchedStrategy>,
    #[serde(deserialize_with = "readable")]
    pub(crate) template: Option<WatchedTemplate>,
}

/// The fields of a Deployment's strategy that are read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct WatchedStrategy {
    #[serde(rename = "type")]
    pub(crate) type_: String,
}

/// The fields of a pod template that are read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct WatchedTemplate {
    pub(crate) spec: WatchedPodSpec,
}

/// A Pod as its watch deserialises it.
#[derive(Clone, Debug, Default, Resource, Deserialize)]
#[resource(inherit = Pod)]
#[serde(default)]
pub(crate) struct WatchedPod {
    #[serde(deserialize_with = "without_managers")]
    pub(crate) metadata: ObjectMeta,
    pub(crate) spec: WatchedPodSpec,
    pub(crate) status: WatchedPodStatus,
}

/// The fields of a Pod's spec that are read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct WatchedPodSpec {
    pub(crate) node_name: Option<String>,
    pub(crate) volumes: Vec<WatchedVolume>,
}

/// The fields of a volume that are read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct WatchedVolume {
    name: String,
    config_map: Option<WatchedConfigMapVolume>,
}

/// The ConfigMap of a volume.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct WatchedConfigMapVolume {
    name: String,
}

impl WatchedPodSpec {
    /// Returns the name of the ConfigMap in a volume.
    pub(crate) fn config_map(&self, volume: &str) -> Option<&str> {
        let found = self.volumes.iter().find(|found| found.name == volume)?;
        found.config_map.as_ref().map(|config_map| config_map.name.as_str())
    }
}

/// The fields of a Pod's status that are read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct WatchedPodStatus {
    pub(crate) phase: String,
    #[serde(rename = "podIP")]
    pub(crate) pod_ip: Option<String>,
    pub(crate) conditions: Vec<ConditionView>,
    pub(crate) container_statuses: Vec<ContainerStatusView>,
    /// Init containers and sidecars, which must start before the other containers.
    pub(crate) init_container_statuses: Vec<ContainerStatusView>,
}

/// Deserialises the metadata that is read. Managed fields would briefly take more memory than the rest of the object,
/// for each object of a page.
fn without_managers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Read {
        name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        generation: Option<i64>,
        labels: Option<BTreeMap<String, String>>,
        annotations: Option<BTreeMap<String, String>>,
        owner_references: Option<Vec<OwnerReference>>,
        deletion_timestamp: Option<Time>,
    }
    let read = Read::deserialize(deserializer)?;
    Ok(ObjectMeta {
        name: read.name,
        namespace: read.namespace,
        uid: read.uid,
        resource_version: read.resource_version,
        generation: read.generation,
        labels: read.labels,
        annotations: read.annotations,
        owner_references: read.owner_references,
        deletion_timestamp: read.deletion_timestamp,
        ..ObjectMeta::default()
    })
}

/// Returns none for a value of another type: one such object must not end the watch of all.
fn readable<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Option<T>, D::Error> {
    Ok(serde_json::from_value(serde_json::Value::deserialize(deserializer)?).ok())
}

/// The kind of a watched child is known only at run time.
impl Resource for WatchedChild {
    type DynamicType = ChildKind;
    type Scope = DynamicResourceScope;

    fn kind(kind: &ChildKind) -> Cow<'_, str> {
        kind.names().kind.into()
    }

    fn group(kind: &ChildKind) -> Cow<'_, str> {
        kind.names().group.into()
    }

    fn version(kind: &ChildKind) -> Cow<'_, str> {
        kind.names().version.into()
    }

    fn plural(kind: &ChildKind) -> Cow<'_, str> {
        kind.names().plural.into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::objects::{child::ChildKind, fixtures::mk_owner};

    #[test]
    fn all_metadata_except_managed_fields_is_read() {
        let mut metadata = mk_owner().child_metadata(ChildKind::Service);
        metadata.uid = Some("uid-1".into());
        metadata.resource_version = Some("7".into());
        metadata.generation = Some(3);
        metadata.annotations = Some([("a".into(), "b".into())].into());
        metadata.deletion_timestamp = Some(Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH));
        let mut object = json!({"metadata": metadata});
        object["metadata"]["managedFields"] = json!([{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}]);
        let child: WatchedChild = serde_json::from_value(object.clone()).unwrap();
        let pod: WatchedPod = serde_json::from_value(object).unwrap();
        assert_eq!((&child.metadata, &pod.metadata), (&metadata, &metadata));
    }
}
