//! What a server's pods are given and whom they let in, on a node: the token of azure-workload-identity's webhook, and
//! connections by NetworkPolicy.

use std::time::Duration;

use anyhow::{Context, ensure};
use mcp_entra_crds::ConditionType;
use serde_json::{Value, json};
use testbed::story::World;
use testbed::workload_identity_webhook::WorkloadIdentityWebhook;

async fn patch(world: &World, spec: Value) -> anyhow::Result<()> {
    let patch = json!({"spec": spec}).to_string();
    world.kubectl(&["patch", "mcpserver", "graph", "--type=merge", "-p", &patch]).await.map(drop)
}

/// What a caller without a token is answered.
async fn status(world: &World) -> anyhow::Result<u16> {
    Ok(world.http.post(world.url()).body("{}").send().await?.status().as_u16())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_the_workload_identity_webhook_projects_is_exchanged_like_one_of_ours() -> anyhow::Result<()> {
    let world = crate::world("webhook").await?;
    let (tenant, authority) = (world.tenant.to_string(), world.stack.entra.authority());
    let _webhook = WorkloadIdentityWebhook::start(world.kube.clone(), &tenant, authority).await?;
    world.make_ready().await?;
    patch(&world, json!({"entra": {"federation": {"injection": "Webhook"}}})).await?;

    let volumes = || async {
        let pods = serde_json::to_value(world.pods().await?)?;
        let names = |pod: &Value| -> Vec<String> {
            let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array);
            volumes.into_iter().flatten().filter_map(|volume| volume["name"].as_str().map(str::to_owned)).collect()
        };
        Ok(pods.as_array().context("a list")?.iter().map(names).collect::<Vec<_>>())
    };
    let is_theirs = |names: &Vec<String>| {
        names.iter().any(|name| name == "azure-identity-token")
            && !names.iter().any(|name| name == "mcp-entra-identity")
    };
    let all_are_theirs = |all: &Vec<Vec<String>>| !all.is_empty() && all.iter().all(is_theirs);
    world.eventually("every pod has the webhook's token and none of ours", volumes, all_are_theirs).await?;
    world.condition(ConditionType::FederationReady, "True").await?;
    world.condition(ConditionType::Ready, "True").await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_policy_lets_in_whom_it_names_and_the_operator_and_nobody_else() -> anyhow::Result<()> {
    let world = crate::world("network").await?;
    world.make_ready().await?;
    ensure!(status(&world).await? == 401, "without a policy the edge reaches the server");
    let from = |namespace: &str| {
        let labels = json!({"kubernetes.io/metadata.name": namespace});
        json!({"networkPolicy": {"allowFrom": [{"namespaceSelector": {"matchLabels": labels}}]}})
    };
    patch(&world, from("elsewhere")).await?;
    world.eventually("the edge is kept out", || status(&world), |status| *status != 401).await?;
    // The operator still sees what is so: a withdrawn credential would be told.
    tokio::time::sleep(Duration::from_secs(3)).await;
    world.condition(ConditionType::AuthorizationReady, "True").await?;
    patch(&world, from("edge")).await?;
    world.eventually("the edge is let in", || status(&world), |status| *status == 401).await?;
    world.condition(ConditionType::Ready, "True").await.map(drop)
}
