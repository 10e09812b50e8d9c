//! Sign-ins: with a browser, without one, on another device, cancelled and interrupted.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::report::Evidence;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::browser::is_one_time_address;
use crate::session::{Client, Session};
use crate::world::{PATIENCE, World};

pub(super) async fn first_call(world: &mut World<'_>) -> anyhow::Result<Evidence> {
    let mut session = Session::start(Client::Python, world, &world.server(&["--token-store=memory"])).await?;
    let tools = session.list().await?;
    ensure!(tools.iter().any(|tool| tool == "get_user_details"), "the tools are {tools:?}");
    ensure!(world.requests().is_empty(), "requests to Entra before a call: {:?}", world.requests());

    let call = session.call("get_user_details").await?;
    let url = world.openings.next().await?;
    session.progress(call).await?;
    let page = world.sign_in(&url).await?;
    session.answer(call).await?.is_alices()?;
    session.profile().await?.is_alices()?;
    world.expect(1, 1)?;

    // A later visitor of the address is not redirected to Entra.
    let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build()?;
    let again = http.get(url.clone()).timeout(PATIENCE).send().await;
    ensure!(again.is_err() || again.is_ok_and(|again| !again.status().is_redirection()), "{url} works a second time");
    session.close().await?;
    Ok(vec![format!("tools: {}", tools.join(", ")), format!("last page: {:?}", page.text)])
}

pub(super) async fn without_browser(world: &mut World<'_>) -> anyhow::Result<Evidence> {
    let browser = std::fs::read_to_string(world.file("bin/xdg-open"))?;
    world.write_program("bin/xdg-open", "#!/bin/sh\nexit 3\n")?;
    let mut session = Session::start(Client::Python, world, &world.server(&["--token-store=file"])).await?;
    let answer = session.profile().await?;
    answer.is_error_with(&["local", "--sign-in"])?;

    // As in a terminal of the desktop.
    world.write_program("bin/xdg-open", &browser)?;
    let command = world.unrecorded(&["--token-store=file", "--sign-in"]);
    let child = command.spawn()?;
    let url = world.openings.next().await?;
    world.sign_in(&url).await?;
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.context("--sign-in does not end")??;
    ensure!(output.status.success(), "--sign-in: {}", String::from_utf8_lossy(&output.stderr));

    session.profile().await?.is_alices()?;
    world.expect(1, 1)?;
    session.close().await?;
    Ok(vec![format!("the answer: {}", answer.text)])
}

/// A user that exists on every machine and owns nothing.
const NOBODY: &str = "65534";

pub(super) async fn other_user(world: &mut World<'_>) -> anyhow::Result<Evidence> {
    // Only root can become another user. Without root, only the user's own part is played.
    let is_root = nix::unistd::geteuid().is_root();
    let mut session = Session::start(Client::Python, world, &world.server(&["--token-store=memory"])).await?;
    let call = session.call("get_user_details").await?;
    let url = world.openings.next().await?;
    let mut told = vec![];
    if is_root {
        let mut home = url.clone();
        home.set_path("/");
        for (url, form) in [(&url, None), (&home, Some("state=x&code=y"))] {
            let status = status_for_nobody(url, form).await?;
            ensure!(status == "403", "{url} answers {status} to another user");
            told.push(format!("{}: {status} to user {NOBODY}", url.path().split('/').nth(1).unwrap_or_default()));
        }
    }
    world.sign_in(&url).await?;
    session.answer(call).await?.is_alices()?;
    session.close().await?;
    Ok(told)
}

/// HTTP status that another user gets there.
async fn status_for_nobody(url: &reqwest::Url, form: Option<&str>) -> anyhow::Result<String> {
    const ASK: &str =
        r#"exec 3<>"/dev/tcp/127.0.0.1/$1"; printf '%s' "$2" >&3; read -r _ status _ <&3; echo "$status""#;
    let port = url.port().context("a port")?.to_string();
    let method = if form.is_some() { "POST" } else { "GET" };
    let (path, form) = (url.path(), form.unwrap_or_default());
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{form}",
        form.len()
    );
    let user = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".to_owned()];
    let mut command = Command::new("setpriv");
    command.args(user).args(["bash", "-c", ASK, "bash", &port, &request]).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await.context("no answer")??;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

pub(super) async fn device_code(world: &mut World<'_>) -> anyhow::Result<Evidence> {
    let server = world.server(&["--token-store=memory", "--device-code"]);
    let mut session = Session::start(Client::Python, world, &server).await?;
    let answer = session.profile().await?;
    let page = format!("{}/devicelogin", world.lane.emulator.authority());
    answer.is_error_with(&[&page])?;
    let is_code = |word: &&str| word.len() == 9 && word.chars().all(|letter| letter.is_ascii_uppercase());
    let mut words = answer.text.split(|character: char| !character.is_ascii_alphanumeric());
    let code = words.find(is_code).with_context(|| format!("no code in {:?}", answer.text))?;
    let last = world.enter_code(&page.parse()?, code).await?;
    ensure!(last.title.starts_with("Done"), "{last:?}");
    session.profile().await?.is_alices()?;
    world.expect(0, 1)?;
    session.close().await?;
    Ok(vec![format!("the answer: {}", answer.text)])
}

pub(super) async fn cancelled(world: &mut World<'_>) -> anyhow::Result<Evidence> {
    let mut session = Session::start(Client::Python, world, &world.server(&["--token-store=memory"])).await?;
    let call = session.call("get_user_details").await?;
    let url = world.openings.next().await?;
    session.cancel(call).await?;
    world.sign_in(&url).await?;
    session.profile().await?.is_alices()?;
    world.expect(1, 1)?;
    session.close().await?;
    Ok(vec![])
}

pub(super) async fn closed(world: &mut World<'_>) -> anyhow::Result<Evidence> {
    let server = world.server(&["--token-store=memory"]);
    let mut child = Command::new(&server.program)
        .args(&server.arguments)
        .env_clear()
        .envs(&server.environment)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let mut input = child.stdin.take().context("a pipe")?;
    let client = json!({"name": "by hand", "version": "1"});
    let hello = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client});
    for message in [
        json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}),
        json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
        json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "get_user_details"}}),
    ] {
        input.write_all(format!("{message}\n").as_bytes()).await?;
    }
    let url = world.openings.next().await?;
    is_one_time_address(&url)?;
    let address = ("localhost", url.port().context("a port")?);
    TcpStream::connect(address).await.context("the server listens for the browser")?;

    let start = Instant::now();
    drop(input);
    let ended = tokio::time::timeout(PATIENCE, child.wait()).await.context("the server does not end")??;
    let took = start.elapsed();
    ensure!(ended.success() && took < Duration::from_secs(1), "{ended} after {took:.1?}");
    ensure!(TcpStream::connect(address).await.is_err(), "its port is still open");
    Ok(vec![format!("it ended after {} ms", took.as_millis())])
}
