//! Convergence: the operator corrects drift once, ignores fields that it does not own, and writes nothing in a steady
//! state.

use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, ResourceExt};
use mcp_entra_crds::ConditionType;
use serde_json::json;
use testbed::chart::OPERATOR;
use testbed::control_plane::{AuditEvent, Marker};

use super::world::{SERVER, World, merge};
use crate::report::Evidence;

/// Time in which nothing may be written.
const QUIET: Duration = Duration::from_secs(30);

pub(super) async fn holds(world: &World) -> anyhow::Result<Evidence> {
    let mut evidence =
        vec![edited_deployment(world).await?, deleted_config_map(world).await?, foreign_object(world).await?];
    world.condition(ConditionType::Ready, "True").await?;
    evidence.push(quiet(world).await?);
    Ok(evidence)
}

async fn edited_deployment(world: &World) -> anyhow::Result<String> {
    let api: Api<Deployment> = Api::namespaced(world.kube.clone(), &world.namespace);
    // Without a number in the spec, the owner of the Deployment's scale decides.
    world.kubectl(&["patch", "mcpserver", SERVER, "--type=merge", "-p", r#"{"spec":{"replicas":1}}"#]).await?;
    let is_held = || async {
        let deployment = api.get(SERVER).await?;
        Ok(deployment.managed_fields().iter().any(|entry| {
            entry.manager.as_deref() == Some(OPERATOR.1)
                && entry.fields_v1.as_ref().is_some_and(|fields| fields.0.pointer("/f:spec/f:replicas").is_some())
        }))
    };
    world.eventually("the operator sets the number", is_held, |is_held| *is_held).await?;
    let before = Some(1);
    let marker = world.stack.control_plane.audit().mark()?;
    world.kubectl(&["scale", "deployment", SERVER, "--replicas=3"]).await?;
    let replicas = || async { Ok(api.get(SERVER).await?.spec.and_then(|spec| spec.replicas)) };
    let (_, took) = world.eventually("the Deployment is corrected", replicas, |now| *now == before).await?;
    world.condition(ConditionType::Available, "True").await?;
    let writes = writes(world, marker, Some("deployments")).await?;
    ensure!(writes.len() == 1, "the Deployment was written {} times: {writes:?}", writes.len());
    Ok(format!("a Deployment scaled by hand was corrected after {took:.1?}, by one write"))
}

async fn deleted_config_map(world: &World) -> anyhow::Result<String> {
    let api: Api<ConfigMap> = Api::namespaced(world.kube.clone(), &world.namespace);
    let name = format!("{SERVER}-policy");
    let before = api.get(&name).await?.data;
    let marker = world.stack.control_plane.audit().mark()?;
    world.kubectl(&["delete", "configmap", &name]).await?;
    let data = || async { Ok(api.get_opt(&name).await?.map(|config_map| config_map.data)) };
    let (_, took) = world.eventually("the ConfigMap is back", data, |now| now.as_ref() == Some(&before)).await?;
    let writes = writes(world, marker, Some("configmaps")).await?;
    ensure!(writes.len() == 1, "ConfigMaps were written {} times: {writes:?}", writes.len());
    Ok(format!("a ConfigMap deleted by hand was back after {took:.1?}, by one write"))
}

async fn foreign_object(world: &World) -> anyhow::Result<String> {
    let api: Api<ConfigMap> = Api::namespaced(world.kube.clone(), &world.namespace);
    let foreign = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": {"mine": "and not yours"},
        "metadata": {"name": "stranger-policy", "namespace": world.namespace},
    });
    world.apply(&foreign.to_string()).await?;
    let before = api.get("stranger-policy").await?.metadata.resource_version;
    let mut server = world.server_manifest()?;
    merge(
        &mut server,
        &json!({"metadata": {"name": "stranger"}, "spec": {"entra": {"clientId": uuid::Uuid::new_v4()}}}),
    );
    server.pointer_mut("/spec").and_then(|spec| spec.as_object_mut()).context("a spec")?.remove("exposure");
    world.apply(&server.to_string()).await?;
    let conflicted = world.condition_of("stranger", ConditionType::Conflicted, "True").await?;
    let deployment = Api::<Deployment>::namespaced(world.kube.clone(), &world.namespace).get_opt("stranger").await?;
    ensure!(deployment.is_none(), "a Deployment uses a policy that is not ours");
    let after = api.get("stranger-policy").await?.metadata.resource_version;
    ensure!(before == after, "the foreign ConfigMap was written");
    world.kubectl(&["delete", "mcpserver/stranger", "configmap/stranger-policy"]).await?;
    Ok(format!("a ConfigMap that existed before: {}", conflicted.message))
}

async fn quiet(world: &World) -> anyhow::Result<String> {
    // Effects of the earlier steps have to end first: the last write is older than a few polls.
    let writes_of_last_seconds = || async {
        let marker = world.stack.control_plane.audit().mark()?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        writes(world, marker, None).await
    };
    world.eventually("the operator settles", writes_of_last_seconds, Vec::is_empty).await?;
    let marker = world.stack.control_plane.audit().mark()?;
    // A write that must not happen cannot be awaited. The time itself is tested.
    tokio::time::sleep(QUIET).await;
    let writes = writes(world, marker, None).await?;
    ensure!(writes.is_empty(), "in a steady state the operator wrote {writes:?}");
    Ok(format!("then {QUIET:?} without a write by the operator, in the API server's audit log"))
}

/// Returns the operator's writes in this world's namespace: to one resource, or, if none is named, to everything except
/// leases.
async fn writes(world: &World, since: Marker, resource: Option<&str>) -> anyhow::Result<Vec<AuditEvent>> {
    let (namespace, name) = OPERATOR;
    let operator = format!("system:serviceaccount:{namespace}:{name}");
    let mut writes = world.stack.control_plane.audit().writes(since, &operator).await?;
    writes.retain(|event| {
        event.namespace.as_deref() == Some(world.namespace.as_str())
            && match resource {
                Some(resource) => event.resource == resource && event.subresource.is_none(),
                None => event.resource != "leases",
            }
    });
    Ok(writes)
}
