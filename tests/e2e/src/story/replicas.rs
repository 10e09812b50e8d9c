//! Replicas of the operator: one leads, and another takes over when it is killed.

use std::time::Instant;

use anyhow::ensure;
use mcp_entra_crds::ConditionType;

use super::world::{SERVER, World};
use crate::report::Evidence;

pub(super) async fn hand_over(world: &World) -> anyhow::Result<Evidence> {
    let start = Instant::now();
    let killed = world.stack.kill_leader().await?;
    let holder = || async { world.stack.leader().await };
    let (next, took) = world
        .eventually("another replica leads", holder, |holder| holder.as_ref().is_some_and(|holder| *holder != killed))
        .await?;
    // Only a leader does this work.
    world.kubectl(&["patch", "mcpserver", SERVER, "--type=merge", "-p", r#"{"spec":{"replicas":2}}"#]).await?;
    let replicas = || async { Ok(world.server().await?.status.map(|status| status.ready_replicas)) };
    world.eventually("the change is applied", replicas, |replicas| *replicas == Some(2)).await?;
    let worked = start.elapsed();
    world.kubectl(&["patch", "mcpserver", SERVER, "--type=merge", "-p", r#"{"spec":{"replicas":1}}"#]).await?;
    world.eventually("the change is reverted", replicas, |replicas| *replicas == Some(1)).await?;
    world.condition(ConditionType::Ready, "True").await?;
    ensure!(next.is_some(), "eventually only returns a success");
    Ok(vec![
        format!("the leader {killed} was killed; {} led {took:.1?} later", next.unwrap_or_default()),
        format!("{worked:.1?} after the kill, a second pod was ready, which only a leader creates"),
    ])
}
