//! The McpServer itself: refused specs, its objects, and its deletion.

use anyhow::{Context, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service, ServiceAccount};
use kube::api::ListParams;
use kube::{Api, Resource, ResourceExt};
use mcp_entra_crds::ConditionType;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::world::{SERVER, World, merge};
use crate::report::Evidence;

/// Objects that route clients to the server, by resource and name.
const EXPOSING: [(&str, &str); 3] =
    [("certificates.cert-manager.io", "NAME-tls"), ("listenersets", "NAME"), ("httproutes", "NAME")];

/// Invalid manifests, and the field that the refusal must name.
fn bad_manifests() -> [(&'static str, &'static str, Value); 4] {
    [
        ("a tenant that is not a GUID", "spec.entra.tenantId", json!({"spec": {"entra": {"tenantId": "contoso.com"}}})),
        (
            "a client secret in an env list",
            "spec.podTemplate.env",
            json!({"spec": {"podTemplate": {"env": [{"name": "AZURE_CLIENT_SECRET", "value": "hunter2"}]}}}),
        ),
        ("exposure without TLS", "spec.exposure.tls", json!({"spec": {"exposure": {"tls": null}}})),
        ("an unknown field", "spec.entra.clientSecret", json!({"spec": {"entra": {"clientSecret": "hunter2"}}})),
    ]
}

pub(super) async fn definitions(world: &World) -> anyhow::Result<Evidence> {
    world.stack.install().await?;
    let mut evidence =
        vec!["helm install mcp-entra: its kinds are established, and both operators are ready".to_owned()];
    for (what, field, change) in bad_manifests() {
        let mut manifest = world.server_manifest()?;
        merge(&mut manifest, &change);
        merge(&mut manifest, &json!({"metadata": {"namespace": "default"}}));
        let refusal = world.stack.kubectl_refused(&["apply", "-f", "-"], &manifest.to_string()).await?;
        ensure!(refusal.contains(field), "the refusal of {what} does not name {field}: {refusal}");
        let line = refusal.lines().find(|line| line.contains(field)).unwrap_or_default();
        // After the prefix that kubectl prints for every refused object.
        let told = ["is invalid: ", "decoding error: ", "* "].iter().find_map(|before| line.split_once(before));
        evidence.push(format!("{what}: {}", told.map_or(line, |(_, told)| told)));
    }
    Ok(evidence)
}

pub(super) async fn runs(world: &World) -> anyhow::Result<Evidence> {
    world.stack.install().await?;
    world.apply(&world.manifests()?).await?;
    let running = || async { Ok(world.pods().await?.into_iter().find(is_running)) };
    let (pod, _) = world.eventually("a running pod of the server", running, Option::is_some).await?;
    let pod = pod.context("eventually only returns a success")?;

    let namespace = &world.namespace;
    owned::<ServiceAccount>(world, SERVER).await?;
    owned::<ConfigMap>(world, &format!("{SERVER}-config")).await?;
    owned::<ConfigMap>(world, &format!("{SERVER}-policy")).await?;
    owned::<Service>(world, SERVER).await?;
    for (resource, name) in EXPOSING {
        let uid = "-o=jsonpath={.metadata.ownerReferences[0].uid}";
        let owner = world.kubectl(&["get", resource, &name.replace("NAME", SERVER), uid]).await?;
        ensure!(Some(owner) == world.server().await?.uid(), "{resource} is not owned by {SERVER}");
    }
    let deployment: Deployment = owned(world, SERVER).await?;
    let deployment = serde_json::to_value(deployment)?;
    let projected = deployment
        .pointer("/spec/template/spec/volumes")
        .and_then(Value::as_array)
        .and_then(|volumes| {
            volumes.iter().find_map(|volume| volume.pointer("/projected/sources/0/serviceAccountToken"))
        })
        .context("the Deployment projects no service account token")?;
    let audience = projected.get("audience").and_then(Value::as_str);
    ensure!(audience == Some("api://AzureADTokenExchange"), "the token is projected for {audience:?}");
    Ok(vec![
        format!(
            "in {namespace}: ServiceAccount, two ConfigMaps, Deployment, Service, Certificate, ListenerSet and HTTPRoute, each owned by {SERVER}"
        ),
        format!("pod {} runs mcp-entra-server with a token for {}", name(&pod), audience.unwrap_or_default()),
    ])
}

fn is_running(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
}

fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// Returns the child of this name, which must be controlled by the McpServer.
async fn owned<K>(world: &World, name: &str) -> anyhow::Result<K>
where
    K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let child = Api::<K>::namespaced(world.kube.clone(), &world.namespace).get(name).await?;
    let uid = world.server().await?.metadata.uid;
    let owner = child.owner_references().iter().find(|owner| owner.controller == Some(true));
    ensure!(owner.map(|owner| &owner.uid) == uid.as_ref(), "{} {name} is not owned by the McpServer", K::kind(&()));
    Ok(child)
}

pub(super) async fn is_deleted(world: &World) -> anyhow::Result<Evidence> {
    world.kubectl(&["delete", "mcpserver", SERVER, "--wait=true", "--timeout=30s"]).await?;
    let left = || async { children(world).await };
    let (_, took) = world.eventually("no child is left", left, Vec::is_empty).await?;
    Ok(vec![format!(
        "its ServiceAccount, ConfigMaps, Deployment, Service, Certificate, ListenerSet, HTTPRoute and pods were deleted {took:.1?} later"
    )])
}

/// Returns the names of all objects in the namespace with the server's label.
async fn children(world: &World) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    names.extend(labelled::<ServiceAccount>(world).await?);
    names.extend(labelled::<ConfigMap>(world).await?);
    names.extend(labelled::<Deployment>(world).await?);
    names.extend(labelled::<Service>(world).await?);
    for (resource, _) in EXPOSING {
        let selected = format!("app.kubernetes.io/instance={SERVER}");
        let found = world.kubectl(&["get", resource, "--selector", &selected, "-o", "name"]).await?;
        names.extend(found.lines().map(str::to_owned));
    }
    names.extend(labelled::<Pod>(world).await?);
    Ok(names)
}

async fn labelled<K>(world: &World) -> anyhow::Result<Vec<String>>
where
    K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let selected = ListParams::default().labels(&format!("app.kubernetes.io/instance={SERVER}"));
    let found = Api::<K>::namespaced(world.kube.clone(), &world.namespace).list(&selected).await?;
    let named = |object: &K| format!("{} {}", K::kind(&()), object.meta().name.as_deref().unwrap_or_default());
    Ok(found.items.iter().map(named).collect())
}

/// Runs the first command of a new user, and checks its output.
pub(super) async fn listed(world: &World) -> anyhow::Result<Evidence> {
    world.condition(ConditionType::Ready, "True").await?;
    let table = world.kubectl(&["get", "mcpservers"]).await?;
    Ok(table.lines().map(str::to_owned).collect())
}
