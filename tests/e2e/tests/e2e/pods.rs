//! Tests of a server's pods on a node: the token of azure-workload-identity's webhook, and incoming and outgoing
//! connections by NetworkPolicy.

use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::story::{self, World};
use mcp_entra_crds::ConditionType;
use serde_json::{Value, json};
use testbed::network_policy::{Identity, egress::EgressProxy};
use testbed::workload_identity_webhook::WorkloadIdentityWebhook;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn patch(world: &World, spec: Value) -> anyhow::Result<()> {
    let patch = json!({"spec": spec}).to_string();
    world.kubectl(&["patch", "mcpserver", "graph", "--type=merge", "-p", &patch]).await.map(drop)
}

/// Status of an answer to a caller without a token.
async fn status(world: &World) -> anyhow::Result<u16> {
    Ok(world.http.post(world.url()).body("{}").send().await?.status().as_u16())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_projected_by_the_workload_identity_webhook_is_exchanged_like_ours() -> anyhow::Result<()> {
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
async fn a_network_policy_only_allows_its_named_peers_and_the_operator() -> anyhow::Result<()> {
    let world = crate::world("network").await?;
    world.make_ready().await?;
    ensure!(status(&world).await? == 401, "without a policy the edge reaches the server");
    let from = |namespace: &str| {
        let labels = json!({"kubernetes.io/metadata.name": namespace});
        json!({"networkPolicy": {"allowFrom": [{"namespaceSelector": {"matchLabels": labels}}]}})
    };
    patch(&world, from("elsewhere")).await?;
    world.eventually("the edge is kept out", || status(&world), |status| *status != 401).await?;
    // The operator still gets the correct status: it would report a withdrawn credential.
    tokio::time::sleep(Duration::from_secs(3)).await;
    world.condition(ConditionType::AuthorizationReady, "True").await?;
    patch(&world, from("edge")).await?;
    world.eventually("the edge is allowed", || status(&world), |status| *status == 401).await?;
    world.condition(ConditionType::Ready, "True").await.map(drop)
}

/// Returns the answer of the outgoing proxy to a pod of the server that requests a connection to this port.
async fn asked_as_pod(proxy: &EgressProxy, port: u16) -> anyhow::Result<String> {
    let address = proxy.url();
    let mut stream = TcpStream::connect(address.trim_start_matches("http://")).await?;
    let target = format!("127.0.0.1:{port}");
    stream.write_all(format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n\r\n").as_bytes()).await?;
    let (mut answer, mut chunk) = (String::new(), [0; 1024]);
    // A tunnel stays open; a refusal ends with its reason.
    while !answer.contains(" 200 ") && !answer.contains("127.0.0.1:") {
        let read = stream.read(&mut chunk).await?;
        ensure!(read > 0, "the proxy broke off after {answer:?}");
        answer.push_str(&String::from_utf8_lossy(chunk.get(..read).unwrap_or_default()));
    }
    Ok(answer)
}

fn port_of(url: &str) -> anyhow::Result<u16> {
    let (_, port) = url.trim_end_matches('/').rsplit_once(':').context("a port")?;
    Ok(port.parse()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_connects_only_to_the_ports_that_its_spec_implies() -> anyhow::Result<()> {
    let world = crate::world("egress").await?;
    world.make_ready().await?;
    let labels = world.pods().await?.into_iter().find_map(|pod| pod.metadata.labels).context("a pod's labels")?;
    let pods = Identity { namespace: world.namespace.clone(), labels };
    let proxy = EgressProxy::start(world.stack.policies.clone(), pods).await?;
    let edge = json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "edge"}}});
    let through_proxy = json!([{"name": "HTTPS_PROXY", "value": proxy.url()}]);
    patch(&world, json!({"networkPolicy": {"allowFrom": [edge]}, "podTemplate": {"env": through_proxy}})).await?;
    let pods = || async { Ok(serde_json::to_value(world.pods().await?)?.as_array().cloned().unwrap_or_default()) };
    let go_through_it =
        |pods: &Vec<Value>| !pods.is_empty() && pods.iter().all(|pod| pod["spec"].to_string().contains(&proxy.url()));
    world.eventually("all pods go through the proxy", pods, go_through_it).await?;
    world.condition(ConditionType::Ready, "True").await?;
    // Entra and Graph, which the spec names with their ports.
    story::ALICE.play(&world).await?;

    let entra = port_of(world.stack.entra.authority())?;
    ensure!(asked_as_pod(&proxy, entra).await?.contains(" 200 "), "the spec implies Entra's port");
    let https = asked_as_pod(&proxy, 443).await?;
    ensure!(!https.contains("NetworkPolicy"), "443 is allowed, whatever answers there: {https}");
    let api_server = asked_as_pod(&proxy, port_of(world.stack.control_plane.url())?).await?;
    ensure!(api_server.contains("no NetworkPolicy of namespace egress allows the connection out"), "{api_server}");

    // The policy is that of a server whose spec does not name Entra's port.
    patch(&world, json!({"suspend": true})).await?;
    world.condition(ConditionType::Programmed, "Unknown").await?;
    let narrower = json!([{"op": "replace", "path": "/spec/egress", "value": [{"ports": [{"port": 443}]}]}]);
    world.kubectl(&["patch", "networkpolicy", "graph", "--type=json", "-p", &narrower.to_string()]).await?;
    world.kubectl(&["delete", "pods", "--wait=false", "--selector=app.kubernetes.io/instance=graph"]).await?;
    let status = || async { Ok(serde_json::to_string(&world.server().await?.status)?) };
    let has_no_keys = |status: &String| status.contains("has no keys to verify tokens with");
    world.eventually("the server reports that it does not reach Entra", status, has_no_keys).await?;
    patch(&world, json!({"suspend": false})).await?;
    world.condition(ConditionType::Ready, "True").await.map(drop)
}
