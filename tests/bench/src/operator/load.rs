//! Load of the measurement: servers with one mapping each, and later a deny.

use anyhow::Context;
use futures::{TryStreamExt, stream};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::discovery::ApiResource;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use super::Size;
use crate::until::PATIENCE;

/// Name of the deny that applies everywhere. It occurs in a compiled policy that contains the deny.
pub(super) const DENY: &str = "bench-deny";

const API_VERSION: &str = "mcp-entra.dev/v1alpha1";
/// Number of servers that are applied at the same time. One `kubectl apply -f folder` does not reach it, but some
/// pipelines do.
const AT_ONCE: usize = 8;

fn namespace(number: u32) -> String {
    format!("team-{number:03}")
}

fn server_name(number: u32) -> String {
    format!("graph-{number:04}")
}

pub(super) async fn namespaces(client: &Client, size: &Size) -> anyhow::Result<()> {
    let api = Api::<Namespace>::all(client.clone());
    for number in 0..size.namespaces {
        let name = namespace(number);
        let manifest = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        api.patch(&name, &PatchParams::apply("bench"), &Patch::Apply(manifest)).await?;
    }
    Ok(())
}

/// Applies all servers, each after its mapping.
pub(super) async fn apply(client: &Client, size: &Size) -> anyhow::Result<()> {
    stream::iter((0..size.servers).map(Ok))
        .try_for_each_concurrent(AT_ONCE, async |number| {
            let (namespace, name) = (namespace(number % size.namespaces), server_name(number));
            patch(client, "mcprolemappings", &mapping(&namespace, &name)).await?;
            patch(client, "mcpservers", &server(&namespace, &name, number, size.replicas)).await
        })
        .await
}

/// Applies servers of one more namespace that all name one host, and as many that name a client id of another namespace.
/// None has pods.
pub(super) async fn rivals(client: &Client, size: &Size) -> anyhow::Result<()> {
    let namespace = "rivals";
    let manifest = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
    Api::<Namespace>::all(client.clone())
        .patch(namespace, &PatchParams::apply("bench"), &Patch::Apply(manifest))
        .await?;
    let beside = |number: u32| {
        let mut server = server(namespace, &format!("beside-{number:04}"), size.servers + number, 0);
        let exposure = json!({"host": "one.mcp.contoso.com", "path": format!("/beside-{number}"),
            "ingress": {}, "tls": {"secretName": "graph-tls"}});
        if let Some(spec) = server.get_mut("spec").and_then(Value::as_object_mut) {
            spec.insert("exposure".to_owned(), exposure);
        }
        server
    };
    // The first of all servers owns this client id.
    let loser = |number: u32| server(namespace, &format!("loser-{number:04}"), 0, 0);
    stream::iter((0..size.rivals).flat_map(|number| [beside(number), loser(number)]).map(Ok))
        .try_for_each_concurrent(AT_ONCE, async |server| patch(client, "mcpservers", &server).await)
        .await
}

/// Applies a deny to every server.
pub(super) async fn deny(client: &Client) -> anyhow::Result<()> {
    let mapping = json!({
        "apiVersion": API_VERSION,
        "kind": "ClusterMcpRoleMapping",
        "metadata": {"name": DENY},
        "spec": {
            "namespaceSelector": {},
            "servers": {"selector": {}},
            "deny": [{"name": "mail", "tools": ["list_*"]}],
        },
    });
    patch(client, "clustermcprolemappings", &mapping).await
}

fn mapping(namespace: &str, server: &str) -> Value {
    json!({
        "apiVersion": API_VERSION,
        "kind": "McpRoleMapping",
        "metadata": {"name": server, "namespace": namespace},
        "spec": {
            "servers": {"names": [server]},
            "grants": [{
                "name": "readers",
                "to": [{"appRole": "Mcp.Reader"}, {"group": {"id": "3f0c0000-0000-0000-0000-000000000001"}}],
                "allow": {"tools": ["get_user_details", "list_*"]},
            }],
        },
    })
}

fn server(namespace: &str, name: &str, number: u32, replicas: u32) -> Value {
    json!({
        "apiVersion": API_VERSION,
        "kind": "McpServer",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "entra": {
                "tenantId": "8f6b0000-0000-0000-0000-00000000000a",
                "clientId": format!("1c2d0000-0000-0000-0000-{number:012x}"),
            },
            "graph": {"scopes": ["User.Read", "Mail.Read"]},
            "exposure": {
                "host": format!("{name}.mcp.contoso.com"),
                "ingress": {},
                "tls": {"secretName": "graph-tls"},
            },
            "replicas": replicas,
        },
    })
}

async fn patch(client: &Client, plural: &str, manifest: &Value) -> anyhow::Result<()> {
    let object: DynamicObject = serde_json::from_value(manifest.clone())?;
    let kind = object.types.as_ref().map(|types| types.kind.clone()).unwrap_or_default();
    let (group, version) = API_VERSION.split_once('/').unwrap_or_default();
    let resource = ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: API_VERSION.to_owned(),
        kind,
        plural: plural.to_owned(),
    };
    let api: Api<DynamicObject> = match object.namespace() {
        Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let name = object.name_any();
    let parameters = PatchParams::apply("bench").force();
    let patch = Patch::Apply(&object);
    let applied = tokio::time::timeout(PATIENCE, api.patch(&name, &parameters, &patch)).await;
    applied.with_context(|| format!("{plural} {name}: no answer"))?.with_context(|| format!("{plural} {name}"))?;
    Ok(())
}
