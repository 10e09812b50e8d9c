//! Clients besides the Python SDK.

use anyhow::ensure;
use e2e::report::Evidence;
use serde_json::Value;

use crate::session::{Client, Session, inspect};
use crate::world::World;

pub(super) async fn typescript(world: &mut World<'_>) -> anyhow::Result<Evidence> {
    let server = world.server(&["--token-store=memory", "--alias=GetUserDetailsFromGraph=get_user_details"]);
    let mut session = Session::start(Client::TypeScript, world, &server).await?;
    let tools = session.list().await?;
    for name in ["get_user_details", "GetUserDetailsFromGraph"] {
        ensure!(tools.iter().any(|tool| tool == name), "{name} is missing in {tools:?}");
    }
    ensure!(!tools.iter().any(|tool| tool == "send_mail"), "send_mail was not allowed: {tools:?}");
    let call = session.call("GetUserDetailsFromGraph").await?;
    let url = world.openings.next().await?;
    session.progress(call).await?;
    world.sign_in(&url).await?;
    let answer = session.answer(call).await?;
    answer.is_alices()?;
    session.close().await?;
    Ok(answer.progress.first().map(|message| format!("the progress: {message}")).into_iter().collect())
}

pub(super) async fn nobody_signs_in(world: &mut World<'_>) -> anyhow::Result<Evidence> {
    let mut session = Session::start(Client::TypeScript, world, &world.server(&["--token-store=memory"])).await?;
    let call = session.call("get_user_details").await?;
    let url = world.openings.next().await?;
    let answer = session.answer(call).await?;
    answer.is_error_with(&["browser", "again"])?;
    world.sign_in(&url).await?;
    session.profile().await?.is_alices()?;
    world.expect(1, 1)?;
    session.close().await?;
    Ok(vec![format!("after {} messages of progress: {}", answer.progress.len(), answer.text)])
}

pub(super) async fn url_elicitation(world: &mut World<'_>) -> anyhow::Result<Evidence> {
    let server = world.server(&["--token-store=memory"]);
    let mut session = Session::start(Client::TypeScriptWithUrls, world, &server).await?;
    let call = session.call("get_user_details").await?;
    let url = session.elicited().await?;
    world.sign_in(&url).await?;
    session.answer(call).await?.is_alices()?;
    // The client opened the address, not the server.
    world.expect(0, 1)?;
    session.close().await?;
    Ok(vec![])
}

pub(super) async fn inspector(world: &mut World<'_>) -> anyhow::Result<Evidence> {
    let server = world.server(&["--token-store=file"]);
    let listed = inspect(world, &server, &["--protocol-era=auto", "--method=tools/list"]).await?;
    let listed = listed.to_string();
    ensure!(listed.contains("\"name\":\"get_user_details\""), "{listed}");
    let signed_in = async {
        let url = world.openings.next().await?;
        world.sign_in(&url).await
    };
    let call = profile_in("legacy");
    let (called, _) = tokio::try_join!(inspect(world, &server, &call), signed_in)?;
    is_alices(&called)?;
    is_alices(&inspect(world, &server, &profile_in("modern")).await?)?;
    world.expect(1, 1)?;
    Ok(vec![])
}

/// Arguments of the Inspector for a call in an era of the protocol: with a handshake, or without.
fn profile_in(era: &str) -> [&str; 6] {
    ["--protocol-era", era, "--method", "tools/call", "--tool-name", "get_user_details"]
}

fn is_alices(result: &Value) -> anyhow::Result<()> {
    let is_error = result.get("isError") == Some(&Value::Bool(true));
    ensure!(!is_error && result.to_string().contains("Alice Adams"), "alice's profile is expected: {result}");
    Ok(())
}
