//! Shared test bed: a control plane with a node that runs the product's programs, and Helm.

use std::time::{Duration, Instant};

use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use serde_json::{Value, json};
use testbed::chart::{self, OPERATOR, REGISTRY_VALUE};
use testbed::control_plane::ControlPlane;
use testbed::helm::Helm;
use testbed::node::Node;
use testbed::shared::Shared;
use testbed::supervisor::Supervisor;

/// A cluster, and Helm for its administrator.
pub(crate) struct Bed {
    pub(crate) plane: ControlPlane,
    pub(crate) client: kube::Client,
    pub(crate) node: Node,
    pub(crate) helm: Helm,
    pub(crate) supervisor: Supervisor,
}

impl Bed {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let images = tokio::task::spawn_blocking(chart::images).await??;
        let supervisor = Supervisor::start()?;
        let plane = ControlPlane::start(&supervisor).await?;
        let node = Node::start(&plane, &supervisor, "node", images).await?;
        let helm = Helm::with_kubeconfig(&supervisor, plane.kubeconfig()).await?;
        let bed = Self { client: plane.client()?, plane, node, helm, supervisor };
        // A namespace that refuses everything that the restricted Pod Security Standard forbids.
        let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
        let metadata = json!({"name": OPERATOR.0, "labels": labels});
        bed.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})).await?;
        Ok(bed)
    }

    /// Installs or upgrades the release of the quickstart with this chart, and waits until it is ready.
    pub(crate) async fn release(&self, action: &str, chart: &str, more: &[&str]) -> anyhow::Result<String> {
        let usual = [action, "mcp-entra", chart, "--namespace", OPERATOR.0, "--wait", "--timeout=2m"];
        self.helm.run(&[&usual[..], &["--set", REGISTRY_VALUE], more].concat()).await
    }

    pub(crate) fn api(&self, kind: &str, namespace: &str) -> Api<DynamicObject> {
        api(&self.client, kind, namespace)
    }

    /// Applies manifests with kubectl.
    pub(crate) async fn apply(&self, object: &Value) -> kube::Result<DynamicObject> {
        apply(&self.client, object).await
    }

    /// Creates a namespace.
    pub(crate) async fn namespace(&self, name: &str) {
        self.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})).await.unwrap();
    }

    /// Waits until a condition of an McpServer is True.
    pub(crate) async fn until_condition(&self, namespace: &str, name: &str, kind: &str) {
        let servers = self.api("McpServer", namespace);
        until(&format!("{kind} of {namespace}/{name} is True"), async || {
            let server = serde_json::to_value(servers.get(name).await.unwrap()).unwrap();
            let conditions = server["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|condition| condition["type"] == kind && condition["status"] == "True")
        })
        .await;
    }

    /// Arguments of the operator's container.
    pub(crate) async fn arguments(&self) -> Vec<String> {
        let deployment = self.api("Deployment", OPERATOR.0).get(OPERATOR.1).await.unwrap();
        serde_json::from_value(deployment.data["spec"]["template"]["spec"]["containers"][0]["args"].clone()).unwrap()
    }
}

/// Kinds that tests read.
pub(crate) fn api(client: &kube::Client, kind: &str, namespace: &str) -> Api<DynamicObject> {
    let (group, version) = match kind {
        "McpServer" | "McpRoleMapping" | "ClusterMcpRoleMapping" => ("mcp-entra.dev", "v1alpha1"),
        "Deployment" => ("apps", "v1"),
        "Ingress" => ("networking.k8s.io", "v1"),
        "CustomResourceDefinition" => ("apiextensions.k8s.io", "v1"),
        "ClusterRole" | "ClusterRoleBinding" | "RoleBinding" => ("rbac.authorization.k8s.io", "v1"),
        _ => ("", "v1"),
    };
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    match kind {
        "ClusterMcpRoleMapping" | "CustomResourceDefinition" | "ClusterRole" | "ClusterRoleBinding" | "Namespace" => {
            Api::all_with(client.clone(), &resource)
        }
        _ => Api::namespaced_with(client.clone(), namespace, &resource),
    }
}

pub(crate) async fn apply(client: &kube::Client, object: &Value) -> kube::Result<DynamicObject> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or("default");
    let api = api(client, text("/kind"), text("/metadata/namespace"));
    let mut parameters = PatchParams::apply("kubectl").force();
    parameters.field_validation = Some(kube::api::ValidationDirective::Strict);
    api.patch(text("/metadata/name"), &parameters, &Patch::Apply(object)).await
}

/// Returns the example's McpServer, in this namespace.
pub(crate) fn mk_server(namespace: &str) -> Value {
    json!({
        "apiVersion": "mcp-entra.dev/v1alpha1", "kind": "McpServer",
        "metadata": {"name": "graph", "namespace": namespace},
        "spec": {
            "entra": {"tenantId": "8f6b3c1e-5d2a-4f0b-9a77-3e1c64d20b15", "clientId": "1c2d9e44-7b60-4c0e-8f5d-92ab4f6e7d31"},
            "graph": {"scopes": ["User.Read"]},
        },
    })
}

/// Returns a mapping of either kind, in this namespace.
pub(crate) fn mk_mapping(kind: &str, namespace: &str) -> Value {
    let mut mapping = json!({
        "apiVersion": "mcp-entra.dev/v1alpha1", "kind": kind,
        "metadata": {"name": "readers"},
        "spec": {
            "servers": {"names": ["graph"]},
            "grants": [{"name": "readers", "to": [{"appRole": "Mcp.Reader"}], "allow": {"tools": ["get_user_details"]}}],
        },
    });
    if kind == "McpRoleMapping" {
        mapping["metadata"]["namespace"] = json!(namespace);
    } else {
        mapping["spec"]["namespaceSelector"] = json!({});
    }
    mapping
}

/// Polls until the condition holds. After a minute, it fails the test with the awaited condition.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition().await {
        assert!(Instant::now() < deadline, "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Cluster with the chart installed as in the quickstart, for tests that only read.
pub(crate) async fn installed() -> &'static Bed {
    static INSTALLED: Shared<Bed> = Shared::new();
    let start = || {
        INSTALLED.get_or_start(async || {
            let bed = Bed::start().await?;
            chart::install(&bed.helm, &json!({})).await?;
            Ok(bed)
        })
    };
    tokio::task::spawn_blocking(start).await.unwrap().unwrap()
}
