//! Sessions of third-party MCP clients: each is a script around an SDK, which starts the server as its child.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use url::Url;

use crate::tools::script;
use crate::world::{Launch, World};

/// Timeout of an event, longer than a call waits for a user.
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
    lines: Lines<BufReader<ChildStdout>>,
    events: Vec<Event>,
    last_id: u64,
}

/// An event of a client, in a line of JSON.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Event {
    /// Client and server have agreed on a version of the protocol.
    Ready {},
    /// Names, or URIs, on the requested list.
    Listed {
        id: u64,
        names: Vec<String>,
    },
    Progress {
        id: u64,
        message: Option<String>,
    },
    Answer {
        id: u64,
        is_error: bool,
        text: String,
    },
    /// The server has acknowledged the client's subscription.
    Listening {
        id: u64,
    },
    /// A notification that a list has changed.
    Changed {
        what: String,
    },
    /// The request failed, and gets no answer.
    Failed {
        id: u64,
        error: String,
    },
    /// The server asks the client to open an address.
    Elicitation {
        mode: Option<String>,
        url: Url,
    },
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
        ensure!(is_hers && !self.is_error, "alice's profile is expected: {self:?}");
        Ok(())
    }

    /// Fails unless it is an error with all of this text.
    pub(crate) fn is_error_with(&self, words: &[&str]) -> anyhow::Result<()> {
        let says_all = words.iter().all(|word| self.text.contains(word));
        ensure!(self.is_error && says_all, "an error with {words:?} is expected: {self:?}");
        Ok(())
    }
}

impl Session {
    /// Starts a client and its server, and waits until they have agreed on a version of the protocol.
    pub(crate) async fn start(client: Client, world: &World<'_>, server: &Launch) -> anyhow::Result<Self> {
        let tools = &world.lane.tools;
        let server = json!({"command": server.program, "args": server.arguments, "env": server.environment});
        let (interpreter, script) = match client {
            Client::Python => (&tools.python, script("python/session.py")),
            Client::TypeScript | Client::TypeScriptWithUrls => (&tools.node, script("node/session.cjs")),
        };
        let mut command = Command::new(interpreter);
        command.arg(script).arg(server.to_string());
        command.args(matches!(client, Client::TypeScriptWithUrls).then_some("--url-elicitation"));
        Self::of(command, world).await
    }

    /// Starts a client with this argument, which selects its server, and waits until it has connected.
    pub(crate) async fn connect(client: Client, world: &World<'_>, argument: &Value) -> anyhow::Result<Self> {
        let tools = &world.lane.tools;
        let (interpreter, script) = match client {
            Client::Python => (&tools.python, script("python/remote.py")),
            Client::TypeScript | Client::TypeScriptWithUrls => (&tools.node, script("node/remote.cjs")),
        };
        let mut command = Command::new(interpreter);
        command.arg(script).arg(argument.to_string()).env_clear().envs(world.environment_with_https()?);
        Self::of(command, world).await
    }

    /// Starts a client by this command, and waits until it has connected.
    pub(crate) async fn of(mut command: Command, world: &World<'_>) -> anyhow::Result<Self> {
        let mut child = command
            .env("NODE_PATH", &world.lane.tools.node_modules)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(world.log()?)
            .kill_on_drop(true)
            .spawn()?;
        let commands = child.stdin.take().context("a pipe")?;
        let lines = BufReader::new(child.stdout.take().context("a pipe")?).lines();
        let mut session = Self { child, commands, lines, events: vec![], last_id: 0 };
        session.event(|event| matches!(event, Event::Ready {}).then_some(())).await?;
        Ok(session)
    }

    /// The names of the tools.
    pub(crate) async fn list(&mut self) -> anyhow::Result<Vec<String>> {
        self.list_of("tools").await
    }

    /// The names of the tools or prompts, or the URIs of the resources.
    pub(crate) async fn list_of(&mut self, kind: &str) -> anyhow::Result<Vec<String>> {
        let asked = self.send(json!({"list": kind})).await?;
        let listed = self.event(|event| match event {
            Event::Listed { id, names } if *id == asked => Some(Ok(names.clone())),
            _ => event.failure_of(asked),
        });
        listed.await?
    }

    /// Returns the text of a prompt.
    pub(crate) async fn prompt(&mut self, name: &str) -> anyhow::Result<Answer> {
        let asked = self.send(json!({"get": name})).await?;
        self.answer(asked).await
    }

    /// The text of a resource.
    pub(crate) async fn resource(&mut self, uri: &str) -> anyhow::Result<Answer> {
        let asked = self.send(json!({"read": uri})).await?;
        self.answer(asked).await
    }

    /// Subscribes to changes of the list of tools, and waits for the acknowledgement.
    pub(crate) async fn listen(&mut self) -> anyhow::Result<()> {
        let asked = self.send(json!({"listen": true})).await?;
        let listening = self.event(|event| match event {
            Event::Listening { id } if *id == asked => Some(Ok(())),
            _ => event.failure_of(asked),
        });
        listening.await?
    }

    /// Waits for the first notification that a list has changed, and returns its name.
    pub(crate) async fn changed(&mut self) -> anyhow::Result<String> {
        self.event(|event| if let Event::Changed { what } = event { Some(what.clone()) } else { None }).await
    }

    /// Calls a tool. The number identifies the call.
    pub(crate) async fn call(&mut self, tool: &str) -> anyhow::Result<u64> {
        self.send(json!({"call": tool})).await
    }

    /// Calls `get_user_details` and waits for the answer.
    pub(crate) async fn profile(&mut self) -> anyhow::Result<Answer> {
        let call = self.call("get_user_details").await?;
        self.answer(call).await
    }

    /// Cancels a call, and waits until the client has stopped waiting for it.
    pub(crate) async fn cancel(&mut self, call: u64) -> anyhow::Result<()> {
        self.write(&json!({"cancel": call})).await?;
        self.event(|event| event.failure_of::<()>(call).map(drop)).await
    }

    /// The answer to a call.
    pub(crate) async fn answer(&mut self, call: u64) -> anyhow::Result<Answer> {
        let answer = self.event(|event| match event {
            Event::Answer { id, is_error, text } if *id == call => Some(Ok((*is_error, text.clone()))),
            _ => event.failure_of(call),
        });
        let (is_error, text) = answer.await??;
        let message = |event: &Event| match event {
            Event::Progress { id, message } if *id == call => message.clone(),
            _ => None,
        };
        Ok(Answer { is_error, text, progress: self.events.iter().filter_map(message).collect() })
    }

    /// The address that the server asks the client to open.
    pub(crate) async fn elicited(&mut self) -> anyhow::Result<Url> {
        let asked = self.event(|event| match event {
            Event::Elicitation { mode, url } => Some((mode.clone(), url.clone())),
            _ => None,
        });
        let (mode, url) = asked.await?;
        ensure!(mode.as_deref() == Some("url"), "the server asks in the mode {mode:?}");
        Ok(url)
    }

    /// Waits until a call has made progress.
    pub(crate) async fn progress(&mut self, call: u64) -> anyhow::Result<()> {
        self.event(|event| matches!(event, Event::Progress { id, .. } if *id == call).then_some(())).await
    }

    /// Moves the client's clock forward by this number of seconds.
    pub(crate) async fn put_clock_ahead(&mut self, seconds: u64) -> anyhow::Result<()> {
        self.write(&json!({"ahead": seconds})).await
    }

    /// Ends the session, as a closed client does.
    pub(crate) async fn close(mut self) -> anyhow::Result<()> {
        drop(self.commands);
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await.context("the client does not end")??;
        ensure!(ended.success(), "the client ends with {ended}");
        Ok(())
    }

    async fn send(&mut self, mut command: Value) -> anyhow::Result<u64> {
        self.last_id += 1;
        command.as_object_mut().context("a command is an object")?.insert("id".to_owned(), json!(self.last_id));
        self.write(&command).await?;
        Ok(self.last_id)
    }

    async fn write(&mut self, command: &Value) -> anyhow::Result<()> {
        Ok(self.commands.write_all(format!("{command}\n").as_bytes()).await?)
    }

    /// Returns the selected part of the first event that has it, earlier or later.
    async fn event<T>(&mut self, pick: impl Fn(&Event) -> Option<T>) -> anyhow::Result<T> {
        if let Some(picked) = self.events.iter().find_map(&pick) {
            return Ok(picked);
        }
        loop {
            let line = tokio::time::timeout(PATIENCE, self.lines.next_line()).await;
            let line = line.with_context(|| format!("the client reports nothing more than {:?}", self.events))??;
            let Some(line) = line else { bail!("the client has ended; it reported {:?}", self.events) };
            let event = serde_json::from_str(&line).with_context(|| line.clone())?;
            let picked = pick(&event);
            self.events.push(event);
            if let Some(picked) = picked {
                return Ok(picked);
            }
        }
    }
}

impl Event {
    /// Returns the error, if the request of this number failed.
    fn failure_of<T>(&self, request: u64) -> Option<anyhow::Result<T>> {
        match self {
            Self::Failed { id, error } if *id == request => Some(Err(anyhow!("error of the client: {error}"))),
            _ => None,
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
    printed.get("result").cloned().with_context(|| format!("no result: {printed}"))
}

fn inspector_command(node: &Path, inspector: &Path, server: &Launch) -> Command {
    let mut command = Command::new(node);
    command.arg(inspector).args(["--cli", "--format", "json"]);
    for (name, value) in &server.environment {
        command.arg("-e").arg(format!("{name}={value}"));
    }
    command
}
