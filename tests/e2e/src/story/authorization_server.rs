//! Sign-in at the server's own authorization server: a client that only has the URL signs alice in.

use anyhow::{Context, ensure};
use entra_emulator::sign_in::Browser;
use mcp_entra_crds::ConditionType;
use rmcp::ServiceExt;
use rmcp::model::CallToolRequestParams;
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::auth::{AuthClient, AuthorizationManager};
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use serde_json::{Value, json};

use super::callers::call;
use super::world::{SERVER, World};
use crate::report::Evidence;

/// Redirect URI of the client. Nothing listens there: the browser stops before it.
const REDIRECT_URI: &str = "http://127.0.0.1:33418/callback";
const CLIENT: &str = "Demo client";
const TOOL: &str = "get_user_details";

pub(super) async fn signs_in(world: &World) -> anyhow::Result<Evidence> {
    let direct = world.sign_in(&world.alice).await?.access_token;
    patch(world, &json!({"spec": {"authorizationServer": {"sessionStore": {"memory": {}}}}})).await?;
    let redirect_uri = || async { Ok(world.server().await?.status.and_then(|status| status.redirect_uri)) };
    let (redirect_uri, _) = world.eventually("status names the redirect URI", redirect_uri, Option::is_some).await?;
    let redirect_uri = redirect_uri.context("eventually only returns a success")?;
    add_redirect_uri(world, &redirect_uri)?;
    world.condition(ConditionType::SessionStoreReady, "True").await?;
    world.condition(ConditionType::Ready, "True").await?;
    routed(world).await?;

    let mut manager = manager(world).await?;
    let metadata = manager.resolve_metadata().await?.metadata;
    manager.set_metadata(metadata);
    manager.register_client(CLIENT, REDIRECT_URI, &["mcp.access"]).await?;
    let url = manager.get_authorization_url(&["mcp.access"]).await?;
    let shown = approve(world, &url, &manager).await?;

    let client = AuthClient::new(world.http.clone(), manager);
    let configuration = StreamableHttpClientTransportConfig::with_uri(world.url());
    let session = ().serve(StreamableHttpClientTransport::with_client(client, configuration)).await?;
    let result = session.call_tool(CallToolRequestParams::new(TOOL)).await?;
    session.cancel().await?;
    let profile = result.structured_content.with_context(|| format!("no structured content: {:?}", result.content))?;
    ensure!(profile.get("id") == Some(&json!(world.alice.oid)), "not the profile of alice: {profile}");

    let beside = call(world, &direct, TOOL).await?;
    ensure!(beside.is_tool_result(), "a token of Entra itself is no longer accepted: {beside:?}");
    patch(world, &json!({"spec": {"authorizationServer": null}})).await?;
    let gone = || async { Ok(world.server().await?.status.and_then(|status| status.redirect_uri)) };
    world.eventually("status names no redirect URI", gone, Option::is_none).await?;
    world.condition(ConditionType::Ready, "True").await?;
    routed(world).await?;
    Ok(vec![
        format!("status.redirectUri: {redirect_uri}, added to the app registration"),
        format!("heading of the page: {shown}"),
        format!(
            "{CLIENT} registered itself, alice approved it and signed in at Entra, and {TOOL} returned her profile"
        ),
        "a token that Entra itself issued is still accepted".to_owned(),
    ])
}

/// Waits until the edge routes to the only pod, which was recreated. The edge learns of a ready pod after the operator.
async fn routed(world: &World) -> anyhow::Result<()> {
    let url = format!("https://{}/.well-known/oauth-protected-resource/mcp", world.host);
    let status = || async { Ok(world.http.get(&url).send().await?.status().as_u16()) };
    world.eventually("the edge routes to the new pod", status, |status| *status == 200).await.map(drop)
}

async fn patch(world: &World, patch: &Value) -> anyhow::Result<()> {
    world.kubectl(&["patch", "mcpserver", SERVER, "--type=merge", "-p", &patch.to_string()]).await.map(drop)
}

fn add_redirect_uri(world: &World, redirect_uri: &str) -> anyhow::Result<()> {
    world.stack.entra.control().change_tenant(world.tenant, |tenant| {
        let app = tenant.apps.iter_mut().find(|app| app.client_id == world.server_app).context("no app")?;
        app.redirect_uris.push(redirect_uri.to_owned());
        Ok(())
    })
}

/// Signs in with the client library, which only has the server's URL.
async fn manager(world: &World) -> anyhow::Result<AuthorizationManager> {
    let mut manager = AuthorizationManager::new(world.url()).await?;
    manager.with_client(world.http.clone())?;
    Ok(manager)
}

/// Follows the pages as alice, and passes the code to the client. Returns the heading of the consent page.
async fn approve(world: &World, url: &str, manager: &AuthorizationManager) -> anyhow::Result<String> {
    let (edge, entra) = (world.stack.certificates.pem(), world.stack.entra.ca_pem());
    let browser = Browser::knowing(&[&edge, entra], &[(&world.host, world.stack.edge.address())])?;
    let page = browser.leaving_at(REDIRECT_URI)?.open(url).await?.page()?;
    let text = page.text()?;
    ensure!(text.contains(CLIENT), "the page does not name the client: {text}");
    let heading = page.html.split_once("<h1>").and_then(|(_, rest)| rest.split_once("</h1>"));
    let heading = heading.context("the page has no heading")?.0.to_owned();
    let entra = page.press("approve").await?.page()?;
    let callback = entra.sign_in(&world.alice.user_principal_name).await?.callback()?;
    let parameter = |name: &str| callback.parameter(name).with_context(|| format!("no {name}: {}", callback.url));
    let (code, state, issuer) = (parameter("code")?, parameter("state")?, parameter("iss")?);
    manager.exchange_code_for_token_with_issuer(&code, &state, Some(&issuer)).await?;
    Ok(heading)
}
