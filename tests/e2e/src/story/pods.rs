//! Pods: an autoscaler without conflicts, and a roll-out without failed calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use mcp_entra_crds::ConditionType;
use serde_json::{Value, json};

use super::callers;
use super::world::{SERVER, World};
use crate::report::Evidence;

/// Time for which an autoscaler's number must stay.
const LEFT_ALONE: Duration = Duration::from_secs(5);
/// Number of callers during the replacement of pods.
const CALLERS: usize = 4;

pub(super) async fn autoscaling(world: &World) -> anyhow::Result<Evidence> {
    let deployments: Api<Deployment> = Api::namespaced(world.kube.clone(), &world.namespace);
    let replicas = || async { Ok(deployments.get(SERVER).await?.spec.and_then(|spec| spec.replicas)) };
    let before = replicas().await?;
    let rate_limit = for_callers_without_pauses();
    let autoscaling = json!({"minReplicas": 1, "maxReplicas": 4});
    let change = json!({"replicas": null, "autoscaling": autoscaling, "rateLimit": rate_limit});
    patch(world, SERVER, change).await?;
    let autoscaler = || async { world.kubectl(&["get", "hpa", SERVER, "--ignore-not-found", "-o", "name"]).await };
    world.eventually("there is an autoscaler", autoscaler, |name| !name.is_empty()).await?;
    ensure!(replicas().await? == before, "the number changed at the hand-over");
    // Write of an autoscaler after enough load.
    world.kubectl(&["scale", "deployment", SERVER, "--replicas=3"]).await?;
    world
        .eventually(
            "three pods are ready",
            || async { Ok(world.server().await?.status) },
            |status| status.as_ref().is_some_and(|status| status.ready_replicas == 3),
        )
        .await?;
    // A change that must not happen cannot be awaited.
    tokio::time::sleep(LEFT_ALONE).await;
    ensure!(replicas().await? == Some(3), "the operator changed the autoscaler's number");
    world.condition(ConditionType::Ready, "True").await?;
    let mut evidence =
        vec![format!("the autoscaler's 3 pods were unchanged for {LEFT_ALONE:?}, and {SERVER} is Ready")];

    let load = Load { server: SERVER, url: world.url(), call: json!({"name": "get_user_details", "arguments": {}}) };
    let change = json!({"podTemplate": {"env": [{"name": "TZ", "value": "UTC"}]}});
    evidence.push(roll_out(world, &load, change).await?);
    patch(world, SERVER, json!({"replicas": 1, "autoscaling": null})).await?;
    world.eventually("the spec's number is back", replicas, |now| *now == Some(1)).await?;
    world.condition(ConditionType::Ready, "True").await?;
    evidence.push("without autoscaling the spec's number is back: 1".to_owned());
    Ok(evidence)
}

/// Returns a rate limit that [`CALLERS`] do not reach. The default one allows fewer calls to each person.
pub(super) fn for_callers_without_pauses() -> Value {
    json!({"perUser": {"requests": 100_000, "per": "1s"}})
}

/// Calls of one tool during the replacement of a server's pods.
pub(super) struct Load<'a> {
    pub(super) server: &'a str,
    pub(super) url: String,
    /// Name and arguments of the tool.
    pub(super) call: Value,
}

/// Changes a server's spec, which replaces every pod, during calls. None of them may fail.
pub(super) async fn roll_out(world: &World, load: &Load<'_>, change: Value) -> anyhow::Result<String> {
    let token = world.sign_in(&world.alice).await?.access_token;
    let done = Arc::new(AtomicBool::new(false));
    let calling = || async {
        let (mut calls, mut failed) = (0_usize, Vec::new());
        while !done.load(Ordering::Relaxed) {
            calls += 1;
            match callers::call_at(world, &load.url, &token, &load.call).await {
                Ok(answer) if answer.is_tool_result() => {}
                Ok(answer) => failed.push(format!("{answer:?}")),
                Err(error) => failed.push(format!("{error:#}")),
            }
        }
        (calls, failed)
    };
    let replaced = async {
        let result = replace(world, load.server, change).await;
        done.store(true, Ordering::Relaxed);
        result
    };
    let callers = futures::future::join_all((0..CALLERS).map(|_| calling()));
    let (replaced, called) = tokio::join!(replaced, callers);
    replaced?;
    let calls: usize = called.iter().map(|(calls, _)| calls).sum();
    let failed: Vec<_> = called.into_iter().flat_map(|(_, failed)| failed).collect();
    ensure!(
        failed.is_empty(),
        "{} of {calls} calls failed while pods were replaced; the first: {}",
        failed.len(),
        failed.first().context("one")?
    );
    Ok(format!("every pod was replaced during the calls of {CALLERS} callers: none of {calls} calls failed"))
}

async fn replace(world: &World, server: &str, change: Value) -> anyhow::Result<()> {
    let old: Vec<_> = names(world, server).await?;
    patch(world, server, change).await?;
    world
        .eventually(
            "every pod is new",
            || names(world, server),
            // As many as before would be too many if a pod of an earlier roll-out was still terminating.
            |names| !names.is_empty() && names.iter().all(|name| !old.contains(name)),
        )
        .await?;
    world.condition_of(server, ConditionType::Ready, "True").await.map(drop)
}

async fn names(world: &World, server: &str) -> anyhow::Result<Vec<String>> {
    Ok(world.pods_of(server).await?.into_iter().filter_map(|pod| pod.metadata.name).collect())
}

async fn patch(world: &World, server: &str, spec: Value) -> anyhow::Result<()> {
    let patch = json!({"spec": spec}).to_string();
    world.kubectl(&["patch", "mcpserver", server, "--type=merge", "-p", &patch]).await.map(drop)
}
