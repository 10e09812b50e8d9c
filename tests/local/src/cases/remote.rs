//! Clients that get the URL of a server, and sign users in themselves.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, ensure};
use e2e::report::Evidence;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;
use url::Url;

use crate::remote::{Remote, SignIn};
use crate::session::{Client, Session};
use crate::world::{Launch, PATIENCE, World};

/// Duration in seconds that is longer than the lifetime of an access token.
const A_LIFETIME: u64 = 660;

/// Fails unless the tools are listed and answer for alice.
async fn works(session: &mut Session) -> anyhow::Result<()> {
    let tools = session.list().await?;
    ensure!(tools == ["get_user_details"], "the tools are {tools:?}");
    session.profile().await?.is_alices()
}

/// Fails unless there were this many windows and refreshes so far.
fn expect(world: &World<'_>, windows: usize, refreshes: usize) -> anyhow::Result<()> {
    let is_refresh = |request: &&entra_emulator::LoggedRequest| {
        request.status == 200 && request.grant_type.as_deref() == Some("refresh_token")
    };
    let seen = (world.openings.count()?, world.requests().iter().filter(is_refresh).count());
    ensure!(seen == (windows, refreshes), "{windows} windows and {refreshes} refreshes are expected, not {seen:?}");
    Ok(())
}

/// Actions of the user in the next window.
async fn approve(world: &World<'_>, remote: &Remote, client: &str) -> anyhow::Result<()> {
    remote.approve(&world.openings.next().await?, client).await
}

/// A Python client, which detects an expired token by its own clock.
async fn of_python(world: &World<'_>, client: &str, name: &str) -> anyhow::Result<Evidence> {
    let remote = Remote::start(world, SignIn::Here).await?;
    let argument = json!({ "client": client, "url": remote.url, "folder": world.file("data") });
    let connect = || Session::connect(Client::Python, world, &argument);
    let (mut session, ()) = tokio::try_join!(connect(), approve(world, &remote, name))?;
    works(&mut session).await?;
    expect(world, 1, 0)?;
    session.put_clock_ahead(A_LIFETIME).await?;
    works(&mut session).await?;
    expect(world, 1, 1)?;
    session.close().await?;

    let mut session = connect().await?;
    works(&mut session).await?;
    expect(world, 1, 1)?;
    remote.end_sessions().await?;
    let call = session.call("get_user_details").await?;
    approve(world, &remote, name).await?;
    session.answer(call).await?.is_alices()?;
    expect(world, 2, 1)?;
    session.close().await?;
    Ok(vec![])
}

pub(super) async fn python(world: &mut World<'_>) -> anyhow::Result<Evidence> {
    of_python(world, "mcp", "Python SDK").await
}

pub(super) async fn fastmcp(world: &mut World<'_>) -> anyhow::Result<Evidence> {
    of_python(world, "fastmcp", "FastMCP Client").await
}

/// A client that stores its tokens in a file, and detects an expired one by the server's answer.
async fn of_kept_tokens<F: Future<Output = anyhow::Result<Session>>>(
    world: &World<'_>,
    name: &str,
    connect: impl Fn(String) -> F,
) -> anyhow::Result<Evidence> {
    let remote = Remote::start(world, SignIn::Here).await?;
    let connect = || connect(remote.url.clone());
    let (mut session, ()) = tokio::try_join!(connect(), approve(world, &remote, name))?;
    works(&mut session).await?;
    session.close().await?;
    expect(world, 1, 0)?;

    spoil_tokens(&[world.file("home"), world.file("data")])?;
    let mut session = connect().await?;
    works(&mut session).await?;
    session.close().await?;
    expect(world, 1, 1)?;

    remote.end_sessions().await?;
    let (mut session, ()) = tokio::try_join!(connect(), approve(world, &remote, name))?;
    works(&mut session).await?;
    session.close().await?;
    expect(world, 2, 1)?;
    Ok(vec![])
}

/// Changes the signature of every access token in files of these folders. The server then refuses them as it refuses
/// expired ones.
fn spoil_tokens(folders: &[PathBuf]) -> anyhow::Result<()> {
    let mut spoiled = 0;
    let mut folders = folders.to_vec();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = fs::read_to_string(&path)
                && let Some(changed) = spoil(&text)
            {
                fs::write(path, changed)?;
                spoiled += 1;
            }
        }
    }
    ensure!(spoiled == 1, "{spoiled} files hold access tokens");
    Ok(())
}

/// The text with its first JWT changed.
fn spoil(text: &str) -> Option<String> {
    let (before, rest) = text.split_at(text.find("eyJ")?);
    let end = rest.find(|letter: char| !letter.is_ascii_alphanumeric() && !"-_.".contains(letter))?;
    let (token, after) = rest.split_at(end);
    let (signed, signature) = token.rsplit_once('.')?;
    let reversed: String = signature.chars().rev().collect();
    Some(format!("{before}{signed}.{reversed}{after}"))
}

pub(super) async fn typescript(world: &mut World<'_>) -> anyhow::Result<Evidence> {
    let (world, file) = (&*world, world.file("data/kept.json"));
    let connect = |url: String| {
        let argument = json!({ "url": url, "file": file });
        async move { Session::connect(Client::TypeScript, world, &argument).await }
    };
    of_kept_tokens(world, "TypeScript SDK", connect).await
}

/// Command that an application starts for a server's URL.
pub(super) fn mcp_remote_command(world: &World<'_>, arguments: &[&str]) -> anyhow::Result<Launch> {
    let tools = &world.lane.tools;
    let program = tools.node_modules.join("mcp-remote/dist/proxy.js").display().to_string();
    let arguments = arguments.iter().copied().map(str::to_owned);
    let arguments = std::iter::once(program).chain(arguments).collect();
    Ok(Launch { program: tools.node.clone(), arguments, environment: world.environment_with_https()? })
}

pub(super) async fn mcp_remote(world: &mut World<'_>) -> anyhow::Result<Evidence> {
    let world = &*world;
    let connect =
        |url: String| async move { Session::start(Client::Python, world, &mcp_remote_command(world, &[&url])?).await };
    of_kept_tokens(world, "MCP CLI Proxy", connect).await
}

pub(super) async fn inspector(world: &mut World<'_>) -> anyhow::Result<Evidence> {
    const NAME: &str = "MCP Inspector";
    let remote = Remote::start(world, SignIn::Here).await?;
    let (listed, ()) =
        tokio::try_join!(inspect(world, &remote, &["--method=tools/list"]), approve(world, &remote, NAME))?;
    ensure!(listed.to_string().contains("\"name\":\"get_user_details\""), "{listed}");
    let profile = ["--method=tools/call", "--tool-name=get_user_details"];
    let is_alices = |result: Value| {
        ensure!(result.to_string().contains("Alice Adams"), "alice's profile is expected: {result}");
        Ok(())
    };
    is_alices(inspect(world, &remote, &profile).await?)?;
    expect(world, 1, 0)?;
    spoil_tokens(&[world.file("home")])?;
    is_alices(inspect(world, &remote, &profile).await?)?;
    expect(world, 1, 1)?;
    remote.end_sessions().await?;
    let (answer, ()) = tokio::try_join!(inspect(world, &remote, &profile), approve(world, &remote, NAME))?;
    is_alices(answer)?;
    expect(world, 2, 1)?;
    Ok(vec![])
}

/// Runs the Inspector's command line to its end, and returns the result that it prints.
async fn inspect(world: &World<'_>, remote: &Remote, method: &[&str]) -> anyhow::Result<Value> {
    let callback = format!("--callback-url=http://127.0.0.1:{}/oauth/callback", free_port().await?);
    let mut command = inspector_command(world, remote)?;
    // As in a terminal, and on a machine without a keyring.
    command.envs([("MCP_AUTO_OPEN_ENABLED", "true"), ("MCP_INSPECTOR_SECRET_STORE", "file")]);
    let output = command.arg(callback).args(method).output();
    let output = tokio::time::timeout(PATIENCE, output).await.context("the Inspector does not end")??;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the Inspector ends with {}: {errors}", output.status);
    let printed: Value = serde_json::from_slice(&output.stdout).with_context(|| format!("no JSON: {errors}"))?;
    printed.get("result").cloned().with_context(|| format!("no result: {printed}"))
}

/// The Inspector's command line for a server.
pub(super) fn inspector_command(world: &World<'_>, remote: &Remote) -> anyhow::Result<Command> {
    let tools = &world.lane.tools;
    let mut command = Command::new(&tools.node);
    command
        .arg(tools.node_modules.join("@modelcontextprotocol/inspector/clients/launcher/build/index.js"))
        .args(["--cli", "--format=json", "--transport=http", "--connect-timeout=60000"])
        .arg(format!("--server-url={}", remote.url))
        .env_clear()
        .envs(world.environment_with_https()?)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    Ok(command)
}

/// A port that is probably free.
async fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0)).await?.local_addr()?.port())
}

pub(super) async fn conformance(world: &mut World<'_>) -> anyhow::Result<Evidence> {
    const NAME: &str = "Conformance suite";
    let remote = Remote::start(world, SignIn::Here).await?;
    let port = free_port().await?;
    let metadata = json!({
        "client_name": NAME, "redirect_uris": [format!("http://127.0.0.1:{port}/callback")],
        "token_endpoint_auth_method": "none",
    });
    let registered = remote.http.post(format!("{}/register", remote.url)).json(&metadata).send().await?;
    let registered: Value = registered.error_for_status()?.json().await?;
    let client_id = registered.get("client_id").and_then(Value::as_str).context("a client ID")?;
    let tools = &world.lane.tools;
    let mut child = Command::new(&tools.node)
        .arg(tools.node_modules.join("@modelcontextprotocol/conformance/dist/index.js"))
        .args(["authorization", "--url", &remote.url, "--client-id", client_id, "--resource", &remote.url])
        .args(["--port", &port.to_string(), "--output-dir"])
        .arg(world.file("conformance"))
        .env_clear()
        .envs(world.environment_with_https()?)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(world.log()?)
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("a pipe")?).lines();
    let mut printed = vec![];
    let played = async {
        while let Some(line) = lines.next_line().await? {
            if let Ok(url) = Url::parse(line.trim())
                && url.path().ends_with("/authorize")
            {
                remote.approve(&url, NAME).await?;
            }
            printed.push(line);
        }
        anyhow::Ok(child.wait().await?)
    };
    let ended = tokio::time::timeout(PATIENCE, played).await.context("the suite does not end")??;
    ensure!(ended.success(), "{}", printed.join("\n"));
    let checks = checks(&world.file("conformance"))?;
    ensure!(checks.len() >= 2, "the suite checks nothing: {}", printed.join("\n"));
    let failed: Vec<&Value> =
        checks.iter().filter(|check| check.get("status") != Some(&Value::from("SUCCESS"))).collect();
    ensure!(failed.is_empty(), "{failed:#?}");
    let name = |check: &Value| check.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(vec![format!("checks: {}", checks.iter().map(name).collect::<Vec<_>>().join(", "))])
}

/// All checks that the suite recorded.
fn checks(folder: &Path) -> anyhow::Result<Vec<Value>> {
    let mut checks = vec![];
    for scenario in fs::read_dir(folder)? {
        let file = scenario?.path().join("checks.json");
        let recorded: Vec<Value> = serde_json::from_slice(&fs::read(file)?)?;
        checks.extend(recorded);
    }
    Ok(checks)
}

pub(super) async fn at_entra(world: &mut World<'_>) -> anyhow::Result<Evidence> {
    let remote = Remote::start(world, SignIn::AtEntra).await?;
    let client = json!({ "client_id": world.client }).to_string();
    let arguments = [remote.url.as_str(), "--static-oauth-client-info", &client];
    let launch = mcp_remote_command(world, &arguments)?;
    let signed_in = async { remote.sign_in_at_entra(&world.openings.next().await?).await };
    let (mut session, ()) = tokio::try_join!(Session::start(Client::Python, world, &launch), signed_in)?;
    works(&mut session).await?;
    session.close().await?;
    expect(world, 1, 0)?;
    Ok(vec![])
}
