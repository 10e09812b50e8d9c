//! Fields of an McpServer for its pods: autoscaling, network, scheduling and container settings.

use std::{borrow::Cow, collections::BTreeMap};

use k8s_openapi::api::{
    core::v1::{Affinity, Toleration},
    networking::v1::NetworkPolicyPeer,
};
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// HorizontalPodAutoscaler that sets the number of pods by their CPU usage. Requires metrics-server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self.minReplicas <= self.maxReplicas", "minReplicas must not be greater than maxReplicas"))]
pub struct Autoscaling {
    /// Minimum number of pods, from 1 to 100.
    #[schemars(range(min = 1, max = 100))]
    pub min_replicas: i32,
    /// Maximum number of pods, from 1 to 100. Must not be less than `minReplicas`.
    #[schemars(range(min = 1, max = 100))]
    pub max_replicas: i32,
    /// Target for the average CPU usage of the pods, in percent of their CPU request. Defaults to 80.
    #[schemars(range(min = 1, max = 1000))]
    #[serde(default = "default_target_cpu_utilization")]
    pub target_cpu_utilization: i32,
}

fn default_target_cpu_utilization() -> i32 {
    80
}

/// NetworkPolicy of the pods. It takes effect only in clusters that enforce NetworkPolicies. Outgoing traffic is
/// limited to DNS, port 443, `spec.backend.egress`, and the ports of `spec.entra.endpoints`, the session store and a
/// proxy in `spec.podTemplate.env`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkPolicy {
    /// Peers that may connect to the MCP endpoint: the pods of the Gateway or ingress controller, and clients in the
    /// cluster. Each peer is an `ipBlock`, or has a `namespaceSelector`, a `podSelector` or both.
    #[schemars(length(min = 1, max = 16), schema_with = "bounded::<Vec<NetworkPolicyPeer>>")]
    #[x_kube(validation = (
        "self.all(peer, has(peer.ipBlock) != (has(peer.namespaceSelector) || has(peer.podSelector)))",
        "each peer must have an ipBlock, or a namespaceSelector, a podSelector or both; an empty selector selects all"
    ))]
    #[x_kube(validation = (
        "self.all(peer, !has(peer.ipBlock) || (isCIDR(peer.ipBlock.cidr) && (!has(peer.ipBlock.except) || peer.ipBlock.except.all(except, isCIDR(except) && cidr(peer.ipBlock.cidr).containsCIDR(except)))))",
        "ipBlock.cidr must be a range of addresses such as 10.0.0.0/8, and each of ipBlock.except must be a range within it"
    ))]
    pub allow_from: Vec<NetworkPolicyPeer>,
}

/// Settings that are added to the pods. Labels and annotations of the operator take precedence. The security context,
/// volumes, probes and ports cannot be changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodTemplate {
    /// Labels of the pods. Each must be allowed by the operator's configuration, since Services, policies and webhooks
    /// select pods by their labels. At most 32.
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = string(63)))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[x_kube(validation = (
        "self.all(name, !name.startsWith('app.kubernetes.io/') && !name.startsWith('azure.workload.identity/') && !name.startsWith('mcp-entra.dev/'))",
        "app.kubernetes.io/*, azure.workload.identity/* and mcp-entra.dev/* are reserved for the operator"
    ))]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the pods. Each must be allowed by the operator's configuration, since annotations can inject
    /// containers, networks and security profiles. At most 32.
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = string(4096)))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[x_kube(validation = (
        "self.all(name, !name.startsWith('azure.workload.identity/') && !name.startsWith('mcp-entra.dev/'))",
        "azure.workload.identity/* and mcp-entra.dev/* are reserved for the operator"
    ))]
    pub annotations: BTreeMap<String, String>,
    /// Environment variables of the server's container. Allowed are `HTTPS_PROXY` and `NO_PROXY` (also in lower case),
    /// `RUST_LOG` and `TZ`.
    #[schemars(length(max = 64))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[x_kube(validation = (
        "self.all(variable, !(variable.name in ['AZURE_CLIENT_SECRET', 'AZURE_PASSWORD']) && !variable.name.startsWith('AZURE_CLIENT_CERTIFICATE'))",
        "AZURE_CLIENT_SECRET, AZURE_PASSWORD and AZURE_CLIENT_CERTIFICATE_* are not allowed, since the only credential is the pod's service account token; create a federated credential in Entra instead"
    ))]
    #[x_kube(validation = (
        "self.all(variable, variable.name in ['HTTPS_PROXY', 'https_proxy', 'NO_PROXY', 'no_proxy', 'RUST_LOG', 'TZ'])",
        "only HTTPS_PROXY, NO_PROXY (also in lower case), RUST_LOG and TZ are allowed, since other variables could change the server's security"
    ))]
    pub env: Vec<EnvironmentVariable>,
    /// Labels that a node must have to run the pods.
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = string(63)))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Tolerations of the pods.
    #[schemars(length(max = 16), schema_with = "bounded::<Vec<Toleration>>")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// Affinity to nodes, and to other pods of this namespace.
    #[schemars(schema_with = "affinity")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// Topology spread constraints of the pods. If absent, the pods are spread over nodes and zones as far as possible.
    #[schemars(length(max = 8))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["topologyKey".into(), "whenUnsatisfiable".into()]))]
    pub topology_spread_constraints: Vec<TopologySpread>,
    /// Name of the PriorityClass of the pods. Must not start with `system-`.
    #[schemars(length(min = 1, max = 253))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = (
        "!self.startsWith('system-')",
        "priority classes that start with system- are reserved for the cluster"
    ))]
    pub priority_class_name: Option<String>,
    /// Secrets of this namespace with credentials of image registries.
    #[schemars(length(max = 8))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub image_pull_secrets: Vec<PullSecret>,
    /// Resource requests and limits of the server's container. A resource that is set here, in `requests` or `limits`,
    /// gets none of the operator's defaults. The defaults are requests of 50m CPU and 64Mi memory, and a limit of 256Mi
    /// memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
}

/// Environment variable with a plain value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentVariable {
    /// Name of the variable.
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[-._a-zA-Z][-._a-zA-Z0-9]*$"))]
    pub name: String,
    /// Value of the variable. Defaults to the empty string.
    #[schemars(length(max = 4096))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
}

/// Topology spread constraint. It applies to the pods of this McpServer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopologySpread {
    /// Maximum difference in the number of pods between two values of the label.
    #[schemars(range(min = 1, max = 100))]
    pub max_skew: i32,
    /// Node label, such as `topology.kubernetes.io/zone`.
    #[schemars(length(min = 1, max = 316))]
    pub topology_key: String,
    /// Effect on a pod that cannot meet the constraint: `DoNotSchedule` keeps it pending, `ScheduleAnyway` schedules it
    /// nevertheless.
    pub when_unsatisfiable: WhenUnsatisfiable,
}

/// Effect on a pod that cannot meet a topology spread constraint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WhenUnsatisfiable {
    /// The pod stays pending.
    DoNotSchedule,
    /// The pod is scheduled nevertheless.
    ScheduleAnyway,
}

/// Reference to a Secret with credentials of an image registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PullSecret {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Resource requests and limits of a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Resources {
    /// Amounts that the scheduler reserves for the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<Amounts>,
    /// Maximum amounts that the container may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Amounts>,
}

/// Amounts of resources.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Amounts {
    /// CPU in cores, such as `500m` for half a core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Amount>,
    /// Memory in bytes, such as `256Mi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Amount>,
    /// Ephemeral storage in bytes, such as `1Gi`.
    #[serde(default, rename = "ephemeral-storage", skip_serializing_if = "Option::is_none")]
    pub ephemeral_storage: Option<Amount>,
}

/// Amount of a resource, as a Kubernetes quantity. The number is 64 bits wide, since amounts in bytes exceed the 32
/// bits of `IntOrString`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Amount {
    /// An integer without a unit.
    Number(i64),
    /// An integer with a unit, or a decimal number without a unit.
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

/// Pattern of an amount.
const AMOUNT: &str = r"^([0-9]{1,12}(m|k|M|G|T|Ki|Mi|Gi|Ti)?|[0-9]{1,6}\.[0-9]{1,3})$";

/// Maximum length in bytes of strings in Kubernetes types.
const LONGEST: usize = 316;

fn string(longest: usize) -> Value {
    serde_json::json!({"type": "string", "maxLength": longest})
}

/// Returns the schema of a Kubernetes type with bounds and without descriptions.
fn bounded<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = Value::from(T::json_schema(generator));
    bound(&mut schema);
    Schema::try_from(schema).unwrap_or_default()
}

/// Returns the schema of an affinity to pods of the server's own namespace. A term that selects pods of other
/// namespaces could keep them away from nodes.
fn affinity(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = Value::from(bounded::<Affinity>(generator));
    let rules = serde_json::json!([{
        "rule": "!has(self.namespaces) && !has(self.namespaceSelector)",
        "message": "namespaces and namespaceSelector are not allowed: a term selects only pods of this namespace, since it could keep pods of others from their nodes",
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
