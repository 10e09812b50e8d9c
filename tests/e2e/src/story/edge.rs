//! Exposure: a route at a Gateway, a certificate, and a host that another server already has.

use anyhow::{Context, ensure};
use kube::ResourceExt;
use mcp_entra_crds::ConditionType;
use serde_json::json;
use testbed::certificate_manager::Behaviour;
use uuid::Uuid;

use super::world::{World, merge};
use crate::report::Evidence;

pub(super) async fn exposure(world: &World) -> anyhow::Result<Evidence> {
    let exposed = world.condition(ConditionType::Exposed, "True").await?;
    let mut evidence = vec![exposed.message];
    world.allow_listeners("None").await?;
    let refused = world.condition(ConditionType::Exposed, "False").await?;
    ensure!(refused.message.contains("ListenerSet"), "the Gateway is not quoted: {}", refused.message);
    let ready = world.condition(ConditionType::Ready, "False").await?;
    ensure!(ready.message == refused.message, "Ready does not report it: {}", ready.message);
    evidence.push(format!("the Gateway no longer allows it: {}", refused.message));
    world.allow_listeners("All").await?;
    world.condition(ConditionType::Ready, "True").await?;
    evidence.push("allowed again, it is Ready by itself".to_owned());
    Ok(evidence)
}

pub(super) async fn certificate(world: &World) -> anyhow::Result<Evidence> {
    let valid = world.condition(ConditionType::CertificateReady, "True").await?;
    let mut evidence = vec![valid.message];
    let issuer = &world.stack.certificate_manager;
    issuer.behave(&world.namespace, Behaviour::IssueExpired);
    let expired = world.condition(ConditionType::CertificateReady, "False").await?;
    ensure!(expired.reason == "CertificateExpired", "it is {}: {}", expired.reason, expired.message);
    evidence.push(format!("expired: {}", expired.message));
    issuer.behave(&world.namespace, Behaviour::Issue);
    world.condition(ConditionType::CertificateReady, "True").await?;
    world.condition(ConditionType::Ready, "True").await?;
    Ok(evidence)
}

/// Returns a server of another namespace with this world's host.
pub(super) async fn conflict(world: &World) -> anyhow::Result<Evidence> {
    let elsewhere = format!("{}-elsewhere", world.namespace);
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": elsewhere}});
    let mut server = world.server_manifest()?;
    let change = json!({"metadata": {"name": "late", "namespace": elsewhere},
                        "spec": {"entra": {"clientId": Uuid::new_v4(), "endpoints": null, "trustBundle": null}}});
    merge(&mut server, &change);
    let entra = server.pointer_mut("/spec/entra").and_then(|entra| entra.as_object_mut()).context("an entra")?;
    entra.retain(|_, value| !value.is_null());
    world.apply(&format!("---\n{namespace}\n---\n{server}\n")).await?;
    let conflicted = world.condition_in(&elsewhere, "late", ConditionType::Conflicted, "True").await?;
    ensure!(conflicted.reason == "HostTaken", "it is {}: {}", conflicted.reason, conflicted.message);
    ensure!(!conflicted.message.contains(&world.namespace), "the message names another team: {}", conflicted.message);
    world.condition(ConditionType::Ready, "True").await?;
    let mine = world.server().await?.name_any();
    world.stack.kubectl(&["delete", "namespace", &elsewhere, "--wait=false"], None).await?;
    Ok(vec![format!("the younger server gets: {}", conflicted.message), format!("{mine} stays Ready")])
}
