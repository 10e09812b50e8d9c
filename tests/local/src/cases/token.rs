//! Clients that get the URL of a server, and a token.
//!
//! A client of MCP 2026-07-28 cancels a call by closing its stream, and is notified of a new policy. A client of an
//! earlier revision stops waiting, and lists again.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use e2e::report::Evidence;
use entra_emulator::{Fault, FaultKind, Host, Matcher};
use futures::future::try_join_all;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use super::remote::{inspector_command, mcp_remote_command};
use crate::remote::{Remote, SignIn, set_policy};
use crate::session::{Client, Session};
use crate::tools::script;
use crate::world::{Launch, PATIENCE, World};

/// Tools that the policy allows at first.
const TOOLS: [&str; 2] = ["get_user_details", "list_my_messages"];
/// Offered tool without a grant.
const REFUSED: &str = "send_mail";
/// Tools that the policy allows in the end.
const LEFT: [&str; 1] = ["get_user_details"];
/// Tool with a slow answer, which therefore comes in an event stream.
const SLOW: &str = "list_my_messages";
const PROMPT: &str = "summarize_inbox";
const RESOURCE: &str = "graph://me/profile";

/// Delay that is longer than an attempt at Graph: the next attempt gets an answer.
const DELAY: Duration = Duration::from_secs(20);
/// Limit for the end of a cancelled call, and for a new policy to reach clients. It is shorter than an attempt at
/// Graph.
const SOON: Duration = Duration::from_secs(10);

/// A connected client.
struct Connected {
    session: Session,
    /// True if it closes the stream of a cancelled call.
    cancels: bool,
    listens: Listens,
}

/// Way in which a client learns of changes.
#[derive(Clone, Copy, PartialEq)]
enum Listens {
    /// Notifications after it subscribes.
    WhenTold,
    /// Notifications from its start.
    Always,
    Never,
}

/// Starts a server whose policy allows [`TOOLS`].
async fn start(world: &World<'_>) -> anyhow::Result<(Remote, String)> {
    let remote = Remote::start(world, SignIn::Elsewhere).await?;
    let token = remote.token(world)?;
    Ok((remote, token))
}

/// Sets the last policy.
fn allow_what_is_left(world: &World<'_>) -> anyhow::Result<()> {
    set_policy(world, &json!({ "tools": LEFT }))
}

/// Makes Graph answer this number of requests for messages late.
fn delay(world: &World<'_>, times: usize) -> anyhow::Result<()> {
    inject(world, times, FaultKind::Delay { milliseconds: DELAY.as_millis().try_into()? })
}

/// Makes Graph require a wait of one second before it answers the next request for messages.
fn ask_to_wait(world: &World<'_>) -> anyhow::Result<()> {
    let headers = [("Retry-After".to_owned(), "1".to_owned())].into();
    inject(world, 1, FaultKind::Status { status: 429, headers, body: String::new() })
}

fn inject(world: &World<'_>, times: usize, kind: FaultKind) -> anyhow::Result<()> {
    let path = Some("/me/messages".to_owned());
    let matcher = Matcher { host: Some(Host::Graph), tenant: Some(world.tenant), path, grant_type: None };
    world.lane.emulator.control().inject(Fault { matcher, times: times.try_into()?, kind })
}

/// Waits until Graph has this number of open requests of the world's tenant.
async fn graph_answers(world: &World<'_>, expected: usize, within: Duration) -> anyhow::Result<()> {
    let control = world.lane.emulator.control();
    let start = Instant::now();
    loop {
        let count = control.on_their_way(Host::Graph, world.tenant);
        if count == expected {
            return Ok(());
        }
        ensure!(start.elapsed() < within, "Graph has {count} open requests, not {expected}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Plays everything with these clients of one server in parallel.
async fn play(world: &World<'_>, clients: Vec<Connected>) -> anyhow::Result<Evidence> {
    let (count, cancelling) = (clients.len(), clients.iter().filter(|client| client.cancels).count());
    delay(world, 2 * count)?;
    let mut clients = try_join_all(clients.into_iter().map(|mut client| async move {
        let slow = client.session.call(SLOW).await?;
        let cancelled = client.session.call(SLOW).await?;
        anyhow::Ok((client, slow, cancelled))
    }))
    .await?;
    graph_answers(world, 2 * count, PATIENCE).await?;
    for (client, _, cancelled) in &mut clients {
        client.session.cancel(*cancelled).await?;
    }
    graph_answers(world, 2 * count - cancelling, SOON).await?;
    let mut clients = try_join_all(clients.into_iter().map(|(mut client, slow, _)| async move {
        let refusal = uses(&mut client.session).await?;
        let answer = client.session.answer(slow).await?;
        ensure!(!answer.is_error, "messages are expected: {answer:?}");
        if client.listens == Listens::WhenTold {
            client.session.listen().await?;
        }
        anyhow::Ok((client, format!("the refusal: {refusal}")))
    }))
    .await?;
    streamed(world, count)?;
    for (client, _) in &mut clients {
        ask_to_wait(world)?;
        let call = client.session.call(SLOW).await?;
        let answer = client.session.answer(call).await?;
        ensure!(!answer.is_error && answer.progress.len() == 1, "progress and messages are expected: {answer:?}");
    }

    allow_what_is_left(world)?;
    let changed = Instant::now();
    for (client, _) in &mut clients {
        if client.listens != Listens::Never {
            client.session.changed().await?;
        }
        lists_what_is_left(&mut client.session, changed).await?;
    }
    let mut evidence = vec![format!("a new policy was seen after {:.1?}", changed.elapsed())];
    for (client, told) in clients {
        client.session.close().await?;
        evidence.push(told);
    }
    Ok(evidence)
}

/// Uses everything except slow calls. Returns the text of a refusal.
async fn uses(session: &mut Session) -> anyhow::Result<String> {
    let tools = session.list().await?;
    ensure!(tools == TOOLS, "the tools are {tools:?}");
    session.profile().await?.is_alices()?;
    let refused = session.call(REFUSED).await?;
    let refusal = match session.answer(refused).await {
        Ok(answer) => bail!("a refusal is expected: {answer:?}"),
        Err(error) => error.to_string(),
    };
    ensure!(refusal.contains(REFUSED) && refusal.contains("grants"), "the refusal has no reason: {refusal}");
    let prompts = session.list_of("prompts").await?;
    ensure!(prompts.iter().any(|prompt| prompt == PROMPT), "the prompts are {prompts:?}");
    let prompt = session.prompt(PROMPT).await?;
    ensure!(prompt.text.contains(SLOW), "the prompt names the tool: {prompt:?}");
    let resources = session.list_of("resources").await?;
    ensure!(resources == [RESOURCE], "the resources are {resources:?}");
    session.resource(RESOURCE).await?.is_alices()?;
    Ok(refusal)
}

/// Fails unless the new policy soon applies to the client.
async fn lists_what_is_left(session: &mut Session, changed: Instant) -> anyhow::Result<()> {
    loop {
        let tools = session.list().await?;
        if tools == LEFT {
            return Ok(());
        }
        ensure!(changed.elapsed() < SOON, "the tools are still {tools:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Fails unless this number of slow calls was answered by a stream, whose head precedes Graph's answer.
fn streamed(world: &World<'_>, expected: usize) -> anyhow::Result<()> {
    let lines = std::fs::read_to_string(world.file("audit"))?;
    let lines: Vec<Value> = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let is_stream = |line: &&Value| {
        let latency = line.get("latencyMs").and_then(Value::as_u64).unwrap_or_default();
        line.get("tool") == Some(&json!(SLOW)) && line.get("status") == Some(&json!(200)) && latency < 17_000
    };
    let count = lines.iter().filter(is_stream).count();
    ensure!(count >= expected, "{expected} event streams are expected, not {count}: {lines:#?}");
    Ok(())
}

/// A Python client.
async fn of_python(world: &World<'_>, argument: Value) -> anyhow::Result<Session> {
    Session::connect(Client::Python, world, &argument).await
}

pub(super) async fn python(world: &mut World<'_>) -> anyhow::Result<Evidence> {
    let (remote, token) = start(world).await?;
    let argument = |mode| json!({ "client": "mcp", "url": remote.url, "token": token, "mode": mode });
    let (modern, legacy) = tokio::try_join!(of_python(world, argument("auto")), of_python(world, argument("legacy")))?;
    let modern = Connected { session: modern, cancels: true, listens: Listens::WhenTold };
    let legacy = Connected { session: legacy, cancels: false, listens: Listens::Never };
    play(world, vec![modern, legacy]).await
}

pub(super) async fn fastmcp(world: &mut World<'_>) -> anyhow::Result<Evidence> {
    let (remote, token) = start(world).await?;
    let session = of_python(world, json!({ "client": "fastmcp", "url": remote.url, "token": token })).await?;
    play(world, vec![Connected { session, cancels: true, listens: Listens::Never }]).await
}

async fn of_typescript(world: &World<'_>, sdk: u64) -> anyhow::Result<(Remote, Session)> {
    let (remote, token) = start(world).await?;
    let mut command = Command::new(&world.lane.tools.node);
    let argument = json!({ "url": remote.url, "token": token, "sdk": sdk });
    command.arg(script("node/token.cjs")).arg(argument.to_string());
    command.env_clear().envs(world.environment_with_https()?);
    let session = Session::of(command, world).await?;
    Ok((remote, session))
}

pub(super) async fn typescript(world: &mut World<'_>) -> anyhow::Result<Evidence> {
    let (_remote, session) = of_typescript(world, 1).await?;
    play(world, vec![Connected { session, cancels: false, listens: Listens::Never }]).await
}

pub(super) async fn second_typescript(world: &mut World<'_>) -> anyhow::Result<Evidence> {
    let (_remote, session) = of_typescript(world, 2).await?;
    play(world, vec![Connected { session, cancels: true, listens: Listens::WhenTold }]).await
}

pub(super) async fn mcp_remote(world: &mut World<'_>) -> anyhow::Result<Evidence> {
    let (remote, token) = start(world).await?;
    let header = "Authorization:${AUTHORIZATION}";
    let launch = |protocol| -> anyhow::Result<Launch> {
        let arguments = [remote.url.as_str(), "--header", header, "--protocol", protocol];
        let mut launch = mcp_remote_command(world, &arguments)?;
        launch.environment.insert("AUTHORIZATION", format!("Bearer {token}"));
        Ok(launch)
    };
    let (auto, legacy) = (launch("auto")?, launch("legacy")?);
    let (auto, legacy) = tokio::try_join!(
        Session::start(Client::TypeScript, world, &auto),
        Session::start(Client::TypeScript, world, &legacy)
    )?;
    // It sends `notifications/cancelled`, and leaves the stream open.
    let auto = Connected { session: auto, cancels: false, listens: Listens::Always };
    let legacy = Connected { session: legacy, cancels: false, listens: Listens::Never };
    play(world, vec![auto, legacy]).await
}

async fn of_rmcp(world: &World<'_>, argument: Value) -> anyhow::Result<Session> {
    let mut command = Command::new(&world.lane.tools.itself);
    command.arg(format!("--rmcp={argument}")).env_clear().envs(world.environment_with_https()?);
    Session::of(command, world).await
}

pub(super) async fn rmcp(world: &mut World<'_>) -> anyhow::Result<Evidence> {
    let (remote, token) = start(world).await?;
    let argument = |modern: bool| json!({ "url": remote.url, "token": token, "modern": modern });
    let (modern, legacy) = tokio::try_join!(of_rmcp(world, argument(true)), of_rmcp(world, argument(false)))?;
    let modern = Connected { session: modern, cancels: true, listens: Listens::WhenTold };
    let legacy = Connected { session: legacy, cancels: false, listens: Listens::Never };
    play(world, vec![modern, legacy]).await
}

pub(super) async fn inspector(world: &mut World<'_>) -> anyhow::Result<Evidence> {
    let (remote, token) = start(world).await?;
    let command = |era: &str, method: &[&str]| -> anyhow::Result<Command> {
        let mut command = inspector_command(world, &remote)?;
        command.arg("--header").arg(format!("Authorization: Bearer {token}"));
        command.arg(format!("--protocol-era={era}")).args(method);
        Ok(command)
    };
    let printed = async |era: &str, method: &[&str]| -> anyhow::Result<Result<String, String>> {
        let output = tokio::time::timeout(PATIENCE, command(era, method)?.output()).await;
        let output = output.context("the Inspector does not end")??;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) })
    };
    let result = async |era: &str, method: &[&str], part: &str| -> anyhow::Result<()> {
        let printed = printed(era, method).await?;
        ensure!(
            printed.as_ref().is_ok_and(|text| text.contains(part)),
            "{part:?} is expected from {method:?}: {printed:?}"
        );
        Ok(())
    };
    let call = |tool: &'static str| ["--method=tools/call", "--tool-name", tool];

    delay(world, 2)?;
    let slow = async { result("modern", &call(SLOW), "messages").await };
    let others = async {
        let mut cancelled = command("modern", &call(SLOW))?.stdout(std::process::Stdio::null()).spawn()?;
        graph_answers(world, 2, PATIENCE).await?;
        cancelled.kill().await?;
        graph_answers(world, 1, SOON).await?;
        for era in ["legacy", "modern"] {
            result(era, &["--method=tools/list"], TOOLS[1]).await?;
            result(era, &call(TOOLS[0]), "Alice Adams").await?;
        }
        // It only calls tools on the list.
        let Err(refusal) = printed("modern", &call(REFUSED)).await? else { bail!("a refusal is expected") };
        ensure!(refusal.contains("not found"), "{refusal}");
        result("modern", &["--method=prompts/list"], PROMPT).await?;
        result("modern", &["--method=prompts/get", "--prompt-name", PROMPT], SLOW).await?;
        result("modern", &["--method=resources/list"], RESOURCE).await?;
        result("modern", &["--method=resources/read", "--uri", RESOURCE], "Alice Adams").await?;
        anyhow::Ok(refusal)
    };
    let ((), refusal) = tokio::try_join!(slow, others)?;
    streamed(world, 1)?;
    ask_to_wait(world)?;
    result("modern", &call(SLOW), "messages").await?;

    allow_what_is_left(world)?;
    let changed = Instant::now();
    while printed("modern", &["--method=tools/list"]).await?.is_ok_and(|tools| tools.contains(TOOLS[1])) {
        ensure!(changed.elapsed() < SOON, "the new policy is not seen");
    }
    Ok(vec![format!("the refusal: {refusal}")])
}
