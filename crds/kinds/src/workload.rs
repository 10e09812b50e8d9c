//! Fields of an McpServer about its pods: their number, their place, the network, and additions to each.

use std::{borrow::Cow, collections::BTreeMap};

use k8s_openapi::api::{
    core::v1::{Affinity, Toleration},
    networking::v1::NetworkPolicyPeer,
};
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An autoscaler that sets the number of pods by the CPU that they use. Needs metrics-server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self.minReplicas <= self.maxReplicas", "minReplicas is at most maxReplicas"))]
pub struct Autoscaling {
    /// The fewest pods that there are.
    #[schemars(range(min = 1, max = 100))]
    pub min_replicas: i32,
    /// The most pods that there are.
    #[schemars(range(min = 1, max = 100))]
    pub max_replicas: i32,
    /// Pods are added and removed to keep the average use near this percentage of the CPU that each requests.
    #[schemars(range(min = 1, max = 1000))]
    #[serde(default = "default_target_cpu_utilization")]
    pub target_cpu_utilization: i32,
}

fn default_target_cpu_utilization() -> i32 {
    80
}

/// Peers that reach the pods over the network, in clusters that enforce NetworkPolicies. The pods themselves reach DNS,
/// port 443, and the ports of `spec.entra.endpoints`, of a session store and of a proxy in `spec.podTemplate.env`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkPolicy {
    /// Peers that reach the MCP endpoint: the Gateway's or ingress controller's pods, and clients in the cluster. Each
    /// is an `ipBlock`, or pods by `namespaceSelector` and `podSelector`.
    #[schemars(length(min = 1, max = 16), schema_with = "bounded::<Vec<NetworkPolicyPeer>>")]
    #[x_kube(validation = (
        "self.all(peer, has(peer.ipBlock) != (has(peer.namespaceSelector) || has(peer.podSelector)))",
        "each peer is an ipBlock, or has a namespaceSelector, a podSelector or both; an empty selector means all"
    ))]
    #[x_kube(validation = (
        "self.all(peer, !has(peer.ipBlock) || (isCIDR(peer.ipBlock.cidr) && (!has(peer.ipBlock.except) || peer.ipBlock.except.all(except, isCIDR(except) && cidr(peer.ipBlock.cidr).containsCIDR(except)))))",
        "ipBlock.cidr is a range of addresses such as 10.0.0.0/8, and each of ipBlock.except is one within it"
    ))]
    pub allow_from: Vec<NetworkPolicyPeer>,
}

/// Additions to the pods that the operator builds. Its own values are never replaced: labels and annotations
/// of its own win, and security context, volumes, probes and ports are not to be changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodTemplate {
    /// Labels of the pods. Only those that the operator's own configuration allows: labels decide which Services and
    /// policies mean a pod, and what webhooks do to it.
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = string(63)))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[x_kube(validation = (
        "self.all(name, !name.startsWith('app.kubernetes.io/') && !name.startsWith('azure.workload.identity/') && !name.startsWith('mcp-entra.dev/'))",
        "app.kubernetes.io/*, azure.workload.identity/* and mcp-entra.dev/* are the operator's own"
    ))]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the pods. Only those that the operator's own configuration allows: annotations can inject
    /// containers, networks and security profiles.
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = string(4096)))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[x_kube(validation = (
        "self.all(name, !name.startsWith('azure.workload.identity/') && !name.startsWith('mcp-entra.dev/'))",
        "azure.workload.identity/* and mcp-entra.dev/* are the operator's own"
    ))]
    pub annotations: BTreeMap<String, String>,
    /// Environment variables for the server's container, such as `HTTPS_PROXY`.
    #[schemars(length(max = 64))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[x_kube(validation = (
        "self.all(variable, !(variable.name in ['AZURE_CLIENT_SECRET', 'AZURE_PASSWORD']) && !variable.name.startsWith('AZURE_CLIENT_CERTIFICATE'))",
        "AZURE_CLIENT_SECRET, AZURE_PASSWORD and AZURE_CLIENT_CERTIFICATE_* are refused: the only credential is the pod's service account token; create a federated credential in Entra instead"
    ))]
    #[x_kube(validation = (
        "self.all(variable, variable.name in ['HTTPS_PROXY', 'https_proxy', 'NO_PROXY', 'no_proxy', 'RUST_LOG', 'TZ'])",
        "may name HTTPS_PROXY, NO_PROXY (or both in lower case), RUST_LOG and TZ; others could change what the server trusts or runs"
    ))]
    pub env: Vec<EnvironmentVariable>,
    /// Labels of the nodes that may run the pods.
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = string(63)))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes that the pods put up with.
    #[schemars(length(max = 16), schema_with = "bounded::<Vec<Toleration>>")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// Which nodes, and which other pods of this namespace, they are drawn to or kept from.
    #[schemars(schema_with = "affinity")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// Spread of the pods. Absent: over nodes and zones, as well as can be.
    #[schemars(length(max = 8))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["topologyKey".into(), "whenUnsatisfiable".into()]))]
    pub topology_spread_constraints: Vec<TopologySpread>,
    /// PriorityClass of the pods.
    #[schemars(length(min = 1, max = 253))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = (
        "!self.startsWith('system-')",
        "the priorities system-* are for what the cluster itself needs to run"
    ))]
    pub priority_class_name: Option<String>,
    /// Secrets of this namespace that images are pulled with.
    #[schemars(length(max = 8))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub image_pull_secrets: Vec<PullSecret>,
    /// Requests and limits of the server's container. A resource that is named here, in either, is left wholly to what
    /// stands here; another keeps the operator's defaults (requests of 50m CPU and 64Mi memory, limit of 256Mi memory).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
}

/// An environment variable with a plain value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentVariable {
    /// Its name.
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[-._a-zA-Z][-._a-zA-Z0-9]*$"))]
    pub name: String,
    /// Its value.
    #[schemars(length(max = 4096))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
}

/// Spread of the pods over nodes that differ in a label. It applies to the server's own pods.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopologySpread {
    /// By how many pods any two values of the label may differ.
    #[schemars(range(min = 1, max = 100))]
    pub max_skew: i32,
    /// The nodes' label, such as `topology.kubernetes.io/zone`.
    #[schemars(length(min = 1, max = 316))]
    pub topology_key: String,
    /// Treatment of a pod that cannot be placed so.
    pub when_unsatisfiable: WhenUnsatisfiable,
}

/// Treatment of a pod that cannot be placed as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WhenUnsatisfiable {
    /// It waits.
    DoNotSchedule,
    /// It is placed nevertheless.
    ScheduleAnyway,
}

/// A Secret that images are pulled with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PullSecret {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Requests and limits of a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Resources {
    /// Amounts that are reserved for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<Amounts>,
    /// The most that it may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Amounts>,
}

/// Amounts of resources, such as `500m` CPU and `256Mi` memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Amounts {
    /// Processors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Amount>,
    /// Bytes of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Amount>,
    /// Bytes of the node's disk.
    #[serde(default, rename = "ephemeral-storage", skip_serializing_if = "Option::is_none")]
    pub ephemeral_storage: Option<Amount>,
}

/// An amount of a resource. Bytes are more than the 32 bits of Kubernetes' own type of this shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Amount {
    /// A whole number.
    Number(i64),
    /// A whole number with a unit, or a decimal without.
    Text(String),
}

impl JsonSchema for Amount {
    fn schema_name() -> Cow<'static, str> {
        "Amount".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "pattern": AMOUNT,
            "minimum": 0,
            "maximum": 999_999_999_999_i64,
        })
    }
}

/// The pattern of an amount.
const AMOUNT: &str = r"^([0-9]{1,12}(m|k|M|G|T|Ki|Mi|Gi|Ti)?|[0-9]{1,6}\.[0-9]{1,3})$";

/// The longest string in a type of Kubernetes' own.
const LONGEST: usize = 316;

fn string(longest: usize) -> Value {
    serde_json::json!({"type": "string", "maxLength": longest})
}

/// The schema of a type of Kubernetes' own, bounded as everything here is, and without its long descriptions.
fn bounded<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = Value::from(T::json_schema(generator));
    bound(&mut schema);
    Schema::try_from(schema).unwrap_or_default()
}

/// Affinity to pods of the server's own namespace alone: a term that names others would keep their pods from nodes.
fn affinity(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = Value::from(bounded::<Affinity>(generator));
    let rules = serde_json::json!([{
        "rule": "!has(self.namespaces) && !has(self.namespaceSelector)",
        "message": "namespaces and namespaceSelector are refused: a term means pods of this namespace, since others' could be kept from their nodes",
    }]);
    for affinity in ["podAffinity", "podAntiAffinity"] {
        for terms in [
            "requiredDuringSchedulingIgnoredDuringExecution/items",
            "preferredDuringSchedulingIgnoredDuringExecution/items/properties/podAffinityTerm",
        ] {
            let term = schema.pointer_mut(&format!("/properties/{affinity}/properties/{terms}"));
            let members = term.and_then(Value::as_object_mut);
            members.map(|members| members.insert("x-kubernetes-validations".to_owned(), rules.clone()));
        }
    }
    Schema::try_from(schema).unwrap_or_default()
}

fn bound(schema: &mut Value) {
    let Some(members) = schema.as_object_mut() else { return };
    members.remove("description");
    match members.get("type").and_then(Value::as_str) {
        Some("string") => drop(members.entry("maxLength").or_insert(LONGEST.into())),
        Some("array") => drop(members.entry("maxItems").or_insert(16.into())),
        Some("object") if members.contains_key("additionalProperties") => {
            members.entry("maxProperties").or_insert(32.into());
        }
        _ => {}
    }
    for schema in ["items", "additionalProperties"] {
        members.get_mut(schema).into_iter().for_each(bound);
    }
    let properties = members.get_mut("properties").and_then(Value::as_object_mut);
    properties.into_iter().flat_map(|properties| properties.values_mut()).for_each(bound);
}
