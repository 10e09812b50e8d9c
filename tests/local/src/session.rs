//! Sessions of MCP clients that nobody here wrote: each a script around an SDK, which starts the server as its child.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use url::Url;

use crate::tools::script;
use crate::world::{Launch, World};

/// Time for an event: longer than a call waits for a person.
const PATIENCE: Duration = Duration::from_secs(60);

/// An SDK.
#[derive(Clone, Copy)]
pub(crate) enum Client {
    Python,
    TypeScript,
    /// The TypeScript SDK, which declares that it opens addresses for the server.
    TypeScriptWithUrls,
}

/// A client with its server; both end with this value.
pub(crate) struct Session {
    child: Child,
    commands: ChildStdin,
    events: Lines<BufReader<ChildStdout>>,
    last_id: u64,
    /// The events that were passed over while others were awaited.
    seen: Vec<Value>,
}

/// The answer to a tool call.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) is_error: bool,
    pub(crate) text: String,
    /// The messages of the call's progress.
    pub(crate) progress: Vec<String>,
}

impl Answer {
    /// Fails unless it is alice's profile.
    pub(crate) fn is_alices(&self) -> anyhow::Result<()> {
        let is_hers = self.text.contains("Alice Adams") && !self.text.contains("Bob");
        ensure!(is_hers && !self.is_error, "alice's profile was due: {self:?}");
        Ok(())
    }

    /// Fails unless it is an error that says all of this.
    pub(crate) fn is_error_with(&self, words: &[&str]) -> anyhow::Result<()> {
        let says_all = words.iter().all(|word| self.text.contains(word));
        ensure!(self.is_error && says_all, "an error with {words:?} was due: {self:?}");
        Ok(())
    }
}

impl Session {
    /// Starts a client and its server, and waits until they have agreed on a version of the protocol.
    pub(crate) async fn start(client: Client, world: &World<'_>, server: &Launch) -> anyhow::Result<Self> {
        let tools = &world.lane.tools;
        let mut server = server.to_json();
        server["urlElicitation"] = json!(matches!(client, Client::TypeScriptWithUrls));
        let (interpreter, script) = match client {
            Client::Python => (&tools.python, script("python/session.py")),
            Client::TypeScript | Client::TypeScriptWithUrls => (&tools.node, script("node/session.cjs")),
        };
        let mut child = Command::new(interpreter)
            .arg(script)
            .arg(server.to_string())
            .env("NODE_PATH", &tools.node_modules)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let commands = child.stdin.take().context("a pipe")?;
        let events = BufReader::new(child.stdout.take().context("a pipe")?).lines();
        let mut session = Self { child, commands, events, last_id: 0, seen: vec![] };
        session.event(|event| event["event"] == "ready").await?;
        Ok(session)
    }

    /// The names of the tools.
    pub(crate) async fn list(&mut self) -> anyhow::Result<Vec<String>> {
        let id = self.send(json!({})).await?;
        let listed = self.answered(id).await?;
        Ok(serde_json::from_value(listed["tools"].clone())?)
    }

    /// Calls a tool; its number names the call.
    pub(crate) async fn call(&mut self, tool: &str) -> anyhow::Result<u64> {
        self.send(json!({"call": tool})).await
    }

    /// Calls `get_user_details` and waits for the answer.
    pub(crate) async fn profile(&mut self) -> anyhow::Result<Answer> {
        let call = self.call("get_user_details").await?;
        self.answer(call).await
    }

    /// Cancels a call, and waits until the client has given it up.
    pub(crate) async fn cancel(&mut self, call: u64) -> anyhow::Result<()> {
        self.write(json!({"cancel": call})).await?;
        self.event(|event| event["event"] == "failed" && event["id"] == call).await?;
        Ok(())
    }

    /// The answer to a call.
    pub(crate) async fn answer(&mut self, call: u64) -> anyhow::Result<Answer> {
        let answer = self.answered(call).await?;
        let of_call = self.seen.iter().filter(|event| event["event"] == "progress" && event["id"] == call);
        let progress = of_call.map(|event| event["message"].as_str().unwrap_or_default().to_owned()).collect();
        let text = answer["text"].as_str().context("an answer has text")?.to_owned();
        Ok(Answer { is_error: answer["isError"] == true, text, progress })
    }

    /// The address that the server asks the client to open.
    pub(crate) async fn elicited(&mut self) -> anyhow::Result<Url> {
        let asked = self.event(|event| event["event"] == "elicitation").await?;
        ensure!(asked["mode"] == "url", "the server asks for something else: {asked}");
        Ok(asked["url"].as_str().context("an address")?.parse()?)
    }

    /// Waits until a call has made progress.
    pub(crate) async fn progress(&mut self, call: u64) -> anyhow::Result<()> {
        let event = self.event(|event| event["event"] == "progress" && event["id"] == call).await?;
        self.seen.push(event);
        Ok(())
    }

    /// Ends the session, as a client does that is closed.
    pub(crate) async fn close(mut self) -> anyhow::Result<()> {
        drop(self.commands);
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await.context("the client does not end")??;
        ensure!(ended.success(), "the client ends with {ended}");
        Ok(())
    }

    async fn answered(&mut self, id: u64) -> anyhow::Result<Value> {
        let ended = |event: &Value| event["id"] == id && (event["event"] == "answer" || event["event"] == "failed");
        let event = self.event(ended).await?;
        ensure!(event["event"] == "answer", "{event}");
        Ok(event)
    }

    async fn send(&mut self, mut command: Value) -> anyhow::Result<u64> {
        self.last_id += 1;
        command["id"] = json!(self.last_id);
        self.write(command).await?;
        Ok(self.last_id)
    }

    async fn write(&mut self, command: Value) -> anyhow::Result<()> {
        Ok(self.commands.write_all(format!("{command}\n").as_bytes()).await?)
    }

    /// The first event that is awaited. The ones before it are kept.
    async fn event(&mut self, is_awaited: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        if let Some(place) = self.seen.iter().position(&is_awaited) {
            return Ok(self.seen.remove(place));
        }
        loop {
            let line = tokio::time::timeout(PATIENCE, self.events.next_line()).await;
            let line = line.with_context(|| format!("the client says nothing more than {:?}", self.seen))??;
            let Some(line) = line else { bail!("the client has ended; it said {:?}", self.seen) };
            let event: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
            if is_awaited(&event) {
                return Ok(event);
            }
            self.seen.push(event);
        }
    }
}

/// Runs the Inspector's command line to its end, and returns the result that it prints.
pub(crate) async fn inspect(world: &World<'_>, server: &Launch, method: &[&str]) -> anyhow::Result<Value> {
    let tools = &world.lane.tools;
    let inspector = tools.node_modules.join("@modelcontextprotocol/inspector/clients/launcher/build/index.js");
    let output: Output = inspector_command(&tools.node, &inspector, server)
        .args(method)
        .arg("--")
        .arg(&server.program)
        .args(&server.arguments)
        .env("HOME", world.file("home"))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the Inspector ends with {}: {errors}", output.status);
    let printed: Value = serde_json::from_slice(&output.stdout).with_context(|| format!("no JSON: {errors}"))?;
    Ok(printed["result"].clone())
}

fn inspector_command(node: &Path, inspector: &Path, server: &Launch) -> Command {
    let mut command = Command::new(node);
    command.arg(inspector).args(["--cli", "--format", "json"]);
    for (name, value) in &server.environment {
        command.arg("-e").arg(format!("{name}={value}"));
    }
    command
}
