//! Modes of the program that end by themselves.

use std::process::Output;

use anyhow::{Context, ensure};
use e2e::report::Evidence;
use serde_json::Value;

use crate::session::{Client, Session};
use crate::world::{Launch, World};

const FILE: &str = "--token-store=file";

/// Standard output of a run, which must have succeeded.
fn printed(output: &Output) -> anyhow::Result<String> {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{}: {stdout}{stderr}", output.status);
    Ok(stdout.into_owned())
}

async fn signed_in_call(world: &World<'_>, session: &mut Session) -> anyhow::Result<()> {
    let call = session.call("get_user_details").await?;
    let url = world.openings.next().await?;
    world.sign_in(&url).await?;
    session.answer(call).await?.is_alices()
}

pub(super) async fn doctor(world: &mut World<'_>) -> anyhow::Result<Evidence> {
    let before = printed(&world.unrecorded(&[FILE, "--doctor"]).run().await?)?;
    let mut session = Session::start(Client::Python, world, &world.server(&[FILE])).await?;
    signed_in_call(world, &mut session).await?;
    session.close().await?;
    let after = printed(&world.unrecorded(&[FILE, "--doctor"]).run().await?)?;
    for report in [&before, &after] {
        let all_ok = !report.is_empty() && report.lines().all(|line| line.starts_with("ok "));
        ensure!(all_ok, "not all is ok:\n{report}");
    }
    ensure!(after.contains("alice@contoso.com"), "it does not name the signed-in user:\n{after}");
    world.expect(1, 1)?;

    let mut nowhere = world.unrecorded(&[FILE, "--doctor"]);
    for argument in &mut nowhere.arguments {
        if argument.starts_with("--authority=") {
            "--authority=https://localhost:1".clone_into(argument);
        }
    }
    let report = nowhere.run().await?;
    let text = String::from_utf8_lossy(&report.stdout);
    ensure!(!report.status.success() && text.contains("FAIL "), "Entra cannot be reached: {text}");
    Ok(after.lines().map(str::to_owned).collect())
}

pub(super) async fn sign_out(world: &mut World<'_>) -> anyhow::Result<Evidence> {
    let mut session = Session::start(Client::Python, world, &world.server(&[FILE])).await?;
    signed_in_call(world, &mut session).await?;
    session.close().await?;
    let said = printed(&world.unrecorded(&[FILE, "--sign-out"]).run().await?)?;
    let mut session = Session::start(Client::Python, world, &world.server(&[FILE])).await?;
    signed_in_call(world, &mut session).await?;
    session.close().await?;
    world.expect(2, 2)?;
    Ok(said.lines().map(str::to_owned).collect())
}

pub(super) async fn policy(world: &mut World<'_>) -> anyhow::Result<Evidence> {
    let mut session = Session::start(Client::Python, world, &world.server(&[FILE])).await?;
    signed_in_call(world, &mut session).await?;
    session.close().await?;
    let forbidden = "fileStore: Forbidden";
    // Without a network: the names of hosts are in the `/etc` that does not exist.
    let neighbour = world.unrecorded(&[FILE, "--print-config=cursor"]).with_policy(world, "fileStore: Allowed")?;
    printed(&neighbour.run().await?)?;
    let mut said = vec![];
    for arguments in [&[FILE][..], &[FILE, "--sign-in"], &[FILE, "--doctor"], &[FILE, "--print-config=cursor"]] {
        let output = world.unrecorded(arguments).with_policy(world, forbidden)?.run().await?;
        let text = String::from_utf8(output.stderr)?;
        let is_refused = !output.status.success() && text.contains("/etc/mcp-entra/local.yaml");
        ensure!(is_refused && output.stdout.is_empty(), "{arguments:?}: {}: {text}", output.status);
        said = text.lines().map(str::to_owned).collect();
    }
    for (policy, answer) in [(forbidden, "Signed out"), ("no: policy", "There was no sign-in")] {
        let signed_out = world.unrecorded(&[FILE, "--sign-out"]).with_policy(world, policy)?.run().await?;
        let told = printed(&signed_out)?;
        ensure!(told.starts_with(answer), "{policy}: {told}");
    }
    world.expect(1, 1)?;
    Ok(said)
}

pub(super) async fn print_config(world: &mut World<'_>) -> anyhow::Result<Evidence> {
    let own = world.unrecorded(&[FILE]);
    let printed = printed(&world.unrecorded(&[FILE, "--print-config=vscode"]).run().await?)?;
    let block: Value = serde_json::from_str(&printed).with_context(|| printed.clone())?;
    let servers = block.get("servers").and_then(Value::as_object).context("VS Code looks for servers")?;
    let (name, server) = servers.iter().next().context("the server is missing")?;
    let words = |member: &str| server.get(member).cloned().unwrap_or_default();
    let program: String = serde_json::from_value(words("command"))?;
    let arguments: Vec<String> = serde_json::from_value(words("args"))?;
    let launch = Launch { program: program.into(), arguments, environment: own.environment.clone() };
    let mut session = Session::start(Client::Python, world, &launch).await?;
    signed_in_call(world, &mut session).await?;
    session.close().await?;
    // The same tenant, client and store, so that no sign-in is needed.
    let mut session = Session::start(Client::Python, world, &own).await?;
    session.profile().await?.is_alices()?;
    session.close().await?;
    world.expect(1, 1)?;
    Ok(vec![format!("{name}: {} {}", launch.program.display(), launch.arguments.join(" "))])
}
