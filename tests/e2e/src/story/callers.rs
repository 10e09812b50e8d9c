//! Callers and their results: without a token, alice with her role, bob without a role, bob by his group.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use rmcp::ServiceExt;
use rmcp::model::CallToolRequestParams;
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use serde_json::{Value, json};

use super::world::{READER, SALES, SERVER, World};
use crate::report::Evidence;

/// Complete HTTP answer of the server.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) challenge: Option<String>,
    pub(super) body: Value,
}

impl Answer {
    /// Returns whether it is a tool's result, not an error of the protocol or of the tool.
    pub(super) fn is_tool_result(&self) -> bool {
        self.status == 200
            && self.body.pointer("/result/content").is_some()
            && self.body.pointer("/result/isError") != Some(&json!(true))
    }
}

/// Calls a tool over plain HTTP, without a client library that could hide anything.
pub(super) async fn call(world: &World, token: &str, tool: &str) -> anyhow::Result<Answer> {
    call_at(world, &world.url(), token, &json!({"name": tool, "arguments": {}})).await
}

/// Calls a tool at any server's URL, with more parameters than the name.
pub(super) async fn call_at(world: &World, url: &str, token: &str, params: &Value) -> anyhow::Result<Answer> {
    let message = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params});
    answer(request(world, url, Some(token), &message).send().await?).await
}

async fn post(world: &World, token: Option<&str>, message: &Value) -> anyhow::Result<Answer> {
    answer(request(world, &world.url(), token, message).send().await?).await
}

/// Returns the request for a message.
pub(super) fn request(world: &World, url: &str, token: Option<&str>, message: &Value) -> reqwest::RequestBuilder {
    let request = world
        .http
        .post(url)
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2025-11-25")
        .json(message);
    match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    }
}

async fn answer(response: reqwest::Response) -> anyhow::Result<Answer> {
    let challenge = response.headers().get("www-authenticate").map(|value| value.to_str().map(str::to_owned));
    let status = response.status().as_u16();
    let text = response.text().await?;
    let body = serde_json::from_str(&text).ok().or_else(|| last_event(&text)).unwrap_or(Value::String(text));
    Ok(Answer { status, challenge: challenge.transpose()?, body })
}

/// Returns the message of the last event of an answer.
pub(super) fn last_event(text: &str) -> Option<Value> {
    let data = text.lines().rev().find_map(|line| line.strip_prefix("data:"))?;
    serde_json::from_str(data).ok()
}

pub(super) async fn challenge(world: &World) -> anyhow::Result<Evidence> {
    let answer = post(world, None, &json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})).await?;
    let challenge = answer.challenge.clone().with_context(|| format!("no challenge: {answer:?}"))?;
    ensure!(answer.status == 401, "not 401: {answer:?}");
    ensure!(challenge.starts_with("Bearer ") && !challenge.contains("error="), "RFC 6750 section 3.1: {challenge}");
    let inserted = format!("https://{}/.well-known/oauth-protected-resource/mcp", world.host);
    ensure!(challenge.contains(&format!("resource_metadata=\"{inserted}\"")), "{challenge}");
    for address in [inserted, format!("https://{}/.well-known/oauth-protected-resource", world.host)] {
        let metadata: Value = world.http.get(&address).send().await?.error_for_status()?.json().await?;
        ensure!(metadata.get("resource") == Some(&json!(world.url())), "{address}: {metadata}");
        let issuer = format!("{}/{}/v2.0", world.stack.entra.authority(), world.tenant);
        ensure!(metadata.get("authorization_servers") == Some(&json!([issuer])), "{address}: {metadata}");
    }
    Ok(vec![
        format!("401, WWW-Authenticate: {challenge}"),
        format!("both forms of the metadata have resource {}", world.url()),
    ])
}

/// Lists the tools with a real MCP client.
async fn tools(world: &World, token: &str) -> anyhow::Result<Vec<String>> {
    tools_at(world, world.url(), token).await
}

/// Lists the tools at any server's URL with a real MCP client.
pub(super) async fn tools_at(world: &World, url: String, token: &str) -> anyhow::Result<Vec<String>> {
    let client = ().serve(transport(world, url, token)).await?;
    let mut names: Vec<_> = client.list_all_tools().await?.into_iter().map(|tool| tool.name.to_string()).collect();
    names.sort();
    client.cancel().await?;
    Ok(names)
}

fn transport(world: &World, url: String, token: &str) -> StreamableHttpClientTransport<reqwest::Client> {
    let configuration = StreamableHttpClientTransportConfig::with_uri(url).auth_header(token);
    StreamableHttpClientTransport::with_client(world.http.clone(), configuration)
}

pub(super) async fn alice(world: &World) -> anyhow::Result<Evidence> {
    let token = world.sign_in(&world.alice).await?.access_token;
    let listed = tools(world, &token).await?;
    ensure!(listed == ["get_user_details", "list_my_messages"], "alice sees {listed:?}");

    let client = ().serve(transport(world, world.url(), &token)).await?;
    let result = client.call_tool(CallToolRequestParams::new("get_user_details")).await?;
    client.cancel().await?;
    let profile = result.structured_content.with_context(|| format!("no structured content: {:?}", result.content))?;
    ensure!(profile.get("id") == Some(&json!(world.alice.oid)), "not the profile of alice: {profile}");
    let shown = profile.get("displayName").and_then(Value::as_str).unwrap_or_default();
    Ok(vec![
        format!("an MCP client sees {}", listed.join(", ")),
        format!("get_user_details: {shown}, by Graph's /me"),
        exchange(world)?,
    ])
}

/// Checks the on-behalf-of exchange in Entra's log, and that the tenant never received a secret.
fn exchange(world: &World) -> anyhow::Result<String> {
    let requests = world.stack.entra.control().requests();
    let ours: Vec<_> = requests.iter().filter(|request| request.tenant == Some(world.tenant)).collect();
    ensure!(!ours.iter().any(|request| request.client_secret_present), "a client secret was sent to Entra");
    let exchange = ours
        .iter()
        .find(|request| {
            request.grant_type.as_deref() == Some("urn:ietf:params:oauth:grant-type:jwt-bearer")
                && request.user == Some(world.alice.oid)
                && request.status == 200
        })
        .context("Entra saw no on-behalf-of exchange for alice")?;
    let federated = exchange.federated.as_ref().context("the exchange had no client assertion")?;
    ensure!(federated.subject == world.subject(), "the exchange was made by {}", federated.subject);
    ensure!(federated.audience == "api://AzureADTokenExchange", "the assertion was for {}", federated.audience);
    Ok(format!("Entra's log: on-behalf-of, client assertion of {}, no client secret", world.subject()))
}

pub(super) async fn bob(world: &World) -> anyhow::Result<Evidence> {
    let token = world.sign_in(&world.bob).await?.access_token;
    let listed = tools(world, &token).await?;
    ensure!(listed.is_empty(), "bob sees {listed:?}");
    let answer = call(world, &token, "get_user_details").await?;
    ensure!(answer.status == 403 && answer.challenge.is_none(), "{answer:?}");
    ensure!(answer.body.get("id") == Some(&json!(7)), "not the request's id: {answer:?}");
    let message = answer.body.pointer("/error/message").and_then(Value::as_str).unwrap_or_default();
    ensure!(message.contains(READER), "the role is not named: {answer:?}");

    let told = |line: &Value| {
        line.get("decision") == Some(&json!("refused")) && line.get("objectId") == Some(&json!(world.bob.oid))
    };
    let lines = || async { Ok(world.audit().await?.into_iter().find(|line| told(line))) };
    let (line, _) = world.eventually("bob's refusal on the audit log", lines, Option::is_some).await?;
    let line = line.context("eventually only returns a success")?;
    ensure!(line.get("tool") == Some(&json!("get_user_details")), "{line}");
    ensure!(line.get("reason").and_then(Value::as_str).is_some_and(|reason| !reason.is_empty()), "{line}");
    Ok(vec![
        "an MCP client sees no tool".to_owned(),
        format!("tools/call: 403 without a challenge, {message:?}"),
        format!("audit: {line}"),
    ])
}

pub(super) async fn mapping(world: &World) -> anyhow::Result<Evidence> {
    let token = world.sign_in(&world.bob).await?.access_token;
    let before = pods(world).await?;
    let status = || async { Ok(call(world, &token, "get_user_details").await?.status) };
    world.eventually("bob is refused before the mapping", status, |status| *status == 403).await?;

    apply_sales_mapping(world, &json!({})).await?;
    let (_, granted) = world.eventually("bob may call", status, |status| *status == 200).await?;
    world.kubectl(&["delete", "mcprolemapping", "sales"]).await?;
    let (_, withdrawn) = world.eventually("bob may no longer call", status, |status| *status == 403).await?;
    let after = pods(world).await?;
    ensure!(before == after, "a pod was replaced or restarted: {before:?} became {after:?}");
    Ok(vec![
        format!("{granted:.1?} after the mapping was applied, bob could call"),
        format!("{withdrawn:.1?} after its deletion, he could not; same pods, no restart"),
    ])
}

/// Grants `get_user_details` to the group [`SALES`]. `more` can narrow the grant.
pub(super) async fn apply_sales_mapping(world: &World, more: &Value) -> anyhow::Result<()> {
    let mut grant = json!({
        "name": "sales", "to": [{"group": {"id": world.sales, "displayName": SALES}}],
        "allow": {"tools": ["get_user_details"]},
    });
    super::world::merge(&mut grant, more);
    let mapping = json!({
        "apiVersion": "mcp-entra.dev/v1alpha1", "kind": "McpRoleMapping",
        "metadata": {"name": "sales", "namespace": world.namespace},
        "spec": {"servers": {"names": [SERVER]}, "grants": [grant]},
    });
    world.apply(&mapping.to_string()).await.map(drop)
}

/// Returns uid and restarts of each pod.
async fn pods(world: &World) -> anyhow::Result<BTreeMap<String, i32>> {
    let restarts = |pod: &k8s_openapi::api::core::v1::Pod| {
        let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        statuses.map(|container| container.restart_count).sum()
    };
    let pods = world.pods().await?;
    Ok(pods.iter().map(|pod| (pod.metadata.uid.clone().unwrap_or_default(), restarts(pod))).collect())
}
