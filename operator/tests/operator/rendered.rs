//! Tests that `render` prints offline what the operator applies: for the same manifests, every field of every child.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use kube::{
    ResourceExt,
    api::{DynamicObject, Patch, PatchParams},
};
use mcp_entra_crds::McpServer;
use mcp_entra_operator::{RenderArguments, render};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    backends::mk_backend,
    exposure::{by_own_listener, gateway},
    harness::{Space, api_of, mk_mapping, mk_server},
};

const MANAGER: &str = "mcp-entra-operator";

/// Returns a server with a backend for each transport.
fn backends() -> [Value; 2] {
    let secret = |name: &str| json!({"name": "API_KEY", "valueFrom": {"secretKeyRef": {"name": name, "key": "key"}}});
    let (mut stdio, mut http) = (mk_backend(), mk_backend());
    json_patch::merge(
        &mut stdio,
        &json!({"metadata": {"name": "stdio"}, "spec": {"backend": {"env": [secret("stdio-backend")]}}}),
    );
    json_patch::merge(
        &mut http,
        &json!({"metadata": {"name": "http"}, "spec": {"backend": {
            "transport": "StreamableHttp", "port": 3001, "path": "/mcp/", "env": [secret("http-backend")],
            "identity": {"assertion": null, "onBehalfOf": {"scope": "api://orders/access"}},
        }}}),
    );
    [stdio, http]
}

/// Returns servers that have every child between them, and the objects that they refer to.
fn manifests(space: &Space) -> Vec<Value> {
    let mut routed = by_own_listener();
    json_patch::merge(
        &mut routed,
        &json!({"metadata": {"name": "routed"}, "spec": {
            "autoscaling": {"minReplicas": 2, "maxReplicas": 4},
            "entra": {"federation": {"injection": "Webhook", "tokenExpirationSeconds": 7200}},
            "podTemplate": {"labels": {"team": "sales"}, "annotations": {"team.example/note": "ours"},
                            "env": [{"name": "NO_PROXY", "value": "localhost"}], "resources": {"requests": {"cpu": "250m"}}},
        }}),
    );
    let mut graph = mk_server();
    json_patch::merge(
        &mut graph["spec"],
        &json!({
            "replicas": 2, "image": "registry.example/allowed:2", "entra": {"trustBundle": {"name": "corporate"}},
            "networkPolicy": {"allowFrom": [{"namespaceSelector": {"matchLabels": {"team": "edge"}}}]},
            "exposure": {"ingress": {"annotations": {"edge.example/body-size": "1m"}}},
        }),
    );
    let bundle = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "corporate"},
                        "data": {"ca.crt": "-----BEGIN CERTIFICATE-----\n"}});
    let guardrail = json!({
        "apiVersion": "mcp-entra.dev/v1alpha1", "kind": "ClusterMcpRoleMapping", "metadata": {"name": space.name},
        "spec": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": space.name}},
                 "servers": {"selector": {}}, "deny": [{"name": "mail", "tools": ["list_my_messages"]}]},
    });
    let [stdio, http] = backends();
    vec![bundle, mk_mapping("readers", "Mcp.Reader"), guardrail, graph, routed, stdio, http]
}

/// Returns the part of an object that its author decides about, and the operator's part of it.
fn applied(object: DynamicObject) -> Value {
    let is_ours = |entry: &&ManagedFieldsEntry| {
        entry.manager.as_deref() == Some(MANAGER) && entry.operation.as_deref() == Some("Apply")
    };
    let ours = object.managed_fields().iter().find(is_ours).unwrap().fields_v1.clone();
    let ObjectMeta { labels, annotations, owner_references, .. } = object.metadata;
    let mut content = object.data;
    content.as_object_mut().unwrap().remove("status");
    json!({"metadata": [labels, annotations, owner_references], "content": content, "ours": ours})
}

#[tokio::test]
async fn the_rendered_objects_of_a_manifest_match_the_applied_ones_field_by_field() {
    let space = Space::new().await;
    space.apply(gateway("HTTPS")).await;
    let mark = space.mark();
    let mut manifests = manifests(&space);
    for manifest in &manifests {
        match manifest["kind"].as_str() {
            Some("ClusterMcpRoleMapping") => space.apply_to_cluster(manifest).await,
            _ => space.apply(manifest.clone()).await,
        }
    }
    for manifest in manifests.iter_mut().filter(|manifest| manifest["kind"] == "McpServer") {
        let name = manifest["metadata"]["name"].as_str().unwrap().to_owned();
        space.condition_of(&name, "Programmed", "True", "Applied").await;
        manifest["metadata"]["uid"] = json!(space.get::<McpServer>(&name).await.unwrap().uid());
    }
    space.quiet().await;
    let labels = json!({"kubernetes.io/metadata.name": space.name});
    manifests
        .push(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space.name, "labels": labels}}));

    let file = tempfile::NamedTempFile::new().unwrap();
    let text: String = manifests.iter().map(|manifest| format!("---\n{manifest}\n")).collect();
    std::fs::write(file.path(), text).unwrap();
    let rendered = render(&RenderArguments {
        files: vec![file.path().to_owned()],
        namespace: space.name.clone(),
        options: space.cluster.shared_options(),
    })
    .unwrap();

    let mut names = BTreeSet::new();
    for document in serde_yaml::Deserializer::from_str(&rendered) {
        let document = Value::deserialize(document).unwrap();
        let object: DynamicObject = serde_json::from_value(document.clone()).unwrap();
        let (api, plural) = api_of(&space.client, &object).await.unwrap();
        let live = applied(api.get(&object.name_any()).await.unwrap());
        // After another apply, it is unchanged, and the operator's fields are the same.
        let again = PatchParams::apply(MANAGER).force().dry_run();
        let rendered = applied(api.patch(&object.name_any(), &again, &Patch::Apply(&document)).await.unwrap());
        let name = format!("{plural} {}", object.name_any());
        assert_eq!(json_patch::diff(&live, &rendered).0, [], "{name}");
        assert!(names.insert(name), "rendered once");
    }
    let children =
        space.writes(mark).await.into_iter().filter(|write| write.verb == "patch" && write.subresource.is_none());
    let applied: BTreeSet<_> = children
        .filter(|write| write.resource != "events")
        .map(|write| format!("{} {}", write.resource, write.name.unwrap()))
        .collect();
    assert_eq!(names, applied, "no child is missing");
    assert_eq!(names.len(), 9 + 11 + 2 * 7, "{names:?}");
}
