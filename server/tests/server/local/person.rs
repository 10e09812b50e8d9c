//! User with a laptop: their tenant, their folders, their browser, and MCP clients that start the program.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use entra_emulator::LoggedRequest;
use entra_emulator::sign_in::{Browser, Shown};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::harness::{PATIENCE, eventually};
use crate::tenant::{ALICE, TestTenant, authority, control, http};

/// Tool that reads the user's profile.
pub(crate) const PROFILE: &str = "get_user_details";
/// The client's first revision with a session.
const REVISION: &str = "2025-11-25";

/// A user with a laptop. Its browser launcher only records the addresses.
pub(crate) struct Person {
    pub(crate) tenant: TestTenant,
    home: TempDir,
}

impl Person {
    pub(crate) fn new() -> Self {
        let person =
            Self { tenant: TestTenant::new(), home: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap() };
        std::fs::write(person.file("ca.pem"), authority().ca_pem).unwrap();
        person.launcher("printf '%s\\n' \"$1\" >> \"$HOME/opened\"");
        person
    }

    /// Path of a file in the user's home.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Replaces the browser launcher with this script.
    pub(crate) fn launcher(&self, script: &str) {
        use std::os::unix::fs::PermissionsExt;
        std::fs::create_dir_all(self.file("bin")).unwrap();
        let new = self.file("bin/new");
        std::fs::write(&new, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(new, self.file("bin/xdg-open")).unwrap();
    }

    /// The program in local mode, with these additional arguments.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", env!("CARGO_BIN_EXE_mcp-entra-server"), "local"]);
        let configuration = self.tenant.configuration();
        for (option, value) in [
            ("--tenant", self.tenant.id.to_string()),
            ("--client-id", self.tenant.client.to_string()),
            ("--authority", configuration.entra.authority),
            ("--graph-url", configuration.graph.base_url),
            ("--trust-bundle", self.file("ca.pem").display().to_string()),
        ] {
            if !arguments.contains(&option) {
                command.args([option, &value]);
            }
        }
        command.args(arguments).env_clear().kill_on_drop(true);
        self.dress(&mut command);
        command
    }

    /// Gives a program the environment of the user's desktop, and pipes.
    pub(crate) fn dress(&self, command: &mut Command) {
        let path = format!("{}:{}", self.file("bin").display(), std::env::var("PATH").unwrap());
        command.env("PATH", path).env("HOME", self.home.path()).env("DISPLAY", ":0").env("RUST_LOG", "info");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    }

    /// An MCP client that stores tokens in a file, after its handshake.
    pub(crate) async fn client(&self) -> Client {
        self.client_with(&["--token-store", "file"], json!({})).await
    }

    /// An MCP client with these arguments and capabilities, after its handshake.
    pub(crate) async fn client_with(&self, arguments: &[&str], capabilities: Value) -> Client {
        let mut client = Client::start(self.command(arguments));
        client.begin(capabilities).await;
        client
    }

    /// Returns the addresses for a browser.
    pub(crate) fn opened(&self) -> Vec<String> {
        let opened = std::fs::read_to_string(self.file("opened")).unwrap_or_default();
        opened.lines().map(str::to_owned).collect()
    }

    /// Returns the address for a browser with this number.
    pub(crate) async fn opens(&self, number: usize) -> String {
        eventually("a browser opens", async || self.opened().get(number).cloned()).await
    }

    /// Signs this user in, in the browser with this number.
    pub(crate) async fn signs_in_at(&self, number: usize, user: &str) -> Shown {
        browser().sign_in(&self.opens(number).await, user).await.unwrap()
    }

    /// Signs in by a tool call of this client.
    pub(crate) async fn signs_in(&self, client: &mut Client) {
        let opened = self.opened().len();
        let id = client.send("tools/call", json!({"name": PROFILE, "arguments": {}})).await;
        let shown = self.signs_in_at(opened, ALICE).await;
        assert_eq!(shown.status, 200, "{}", shown.html);
        assert_profile(&client.answer(id).await);
    }

    /// Enters the code in this text, as this user.
    pub(crate) async fn enters(&self, text: &str, user: &str) {
        let after = |before: &str| text.split(before).nth(1).unwrap().split([',', ' ']).next().unwrap().to_owned();
        let (address, code) = (after("open "), after("enter the code "));
        let form = [("otc", code.as_str()), ("emulator_user", user)];
        assert_eq!(http().post(address).form(&form).send().await.unwrap().status(), 200);
    }

    /// Returns the program's requests to the token endpoint with this grant.
    pub(crate) fn grants(&self, grant: &str) -> Vec<LoggedRequest> {
        let all = control().requests().into_iter();
        let ours = all.filter(|request| request.tenant == Some(self.tenant.id));
        ours.filter(|request| request.grant_type.as_deref() == Some(grant)).collect()
    }
}

/// A browser that trusts the emulated Entra.
pub(crate) fn browser() -> Browser {
    Browser::new(&authority()).unwrap()
}

/// Asserts that the answer to a call is alice's profile.
pub(crate) fn assert_profile(answer: &Value) {
    assert_eq!(answer["result"]["isError"], false, "{answer}");
    assert_eq!(answer["result"]["structuredContent"]["userPrincipalName"], ALICE, "{answer}");
}

/// The text of an answer that is an error of the tool.
pub(crate) fn error_text(answer: &Value) -> String {
    assert_eq!(answer["result"]["isError"], true, "{answer}");
    answer["result"]["content"][0]["text"].as_str().unwrap().to_owned()
}

/// An MCP client that writes and reads lines. Each line that it reads must be a message of JSON-RPC.
pub(crate) struct Client {
    pub(crate) child: Child,
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
    next: u64,
    /// Messages that were read during the wait for another.
    read: Vec<Value>,
}

impl Client {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, stdin, lines, next: 1, read: vec![] }
    }

    /// Begins a session with these capabilities.
    pub(crate) async fn begin(&mut self, capabilities: Value) {
        let info = json!({"name": "test", "version": "1"});
        let begin = json!({"protocolVersion": REVISION, "capabilities": capabilities, "clientInfo": info});
        let answer = self.ask("initialize", begin).await;
        assert_eq!(answer["result"]["protocolVersion"], REVISION, "{answer}");
        self.tell("notifications/initialized", json!({})).await;
    }

    /// Asserts that no answer to the request of this id was read.
    pub(crate) fn assert_no_answer(&self, id: u64) {
        assert!(self.read.iter().all(|message| message["id"] != id), "{:?}", self.read);
    }

    /// Sends an exact line.
    pub(crate) async fn line(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        stdin.flush().await.unwrap();
    }

    /// Sends a request and returns its id.
    pub(crate) async fn send(&mut self, method: &str, params: Value) -> u64 {
        let id = self.next;
        self.next += 1;
        self.line(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string()).await;
        id
    }

    pub(crate) async fn tell(&mut self, method: &str, params: Value) {
        self.line(&json!({"jsonrpc": "2.0", "method": method, "params": params}).to_string()).await;
    }

    pub(crate) async fn ask(&mut self, method: &str, params: Value) -> Value {
        let id = self.send(method, params).await;
        self.answer(id).await
    }

    pub(crate) async fn call(&mut self, tool: &str) -> Value {
        self.ask("tools/call", json!({"name": tool, "arguments": {}})).await
    }

    /// The answer to the request of this id.
    pub(crate) async fn answer(&mut self, id: u64) -> Value {
        self.message(Duration::from_secs(60), |message| message["id"] == id && message.get("method").is_none()).await
    }

    /// Returns the first message that matches.
    pub(crate) async fn message(&mut self, patience: Duration, is: impl Fn(&Value) -> bool) -> Value {
        if let Some(found) = self.read.iter().position(&is) {
            return self.read.remove(found);
        }
        loop {
            let message = self.next_message(patience).await.expect("the program continues");
            if is(&message) {
                return message;
            }
            self.read.push(message);
        }
    }

    /// Returns the next message, or `None` at the end.
    async fn next_message(&mut self, patience: Duration) -> Option<Value> {
        let line = tokio::time::timeout(patience, self.lines.next_line()).await.expect("a line in time").unwrap()?;
        let message: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(message["jsonrpc"], "2.0", "{line}");
        Some(message)
    }

    /// Closes the input.
    pub(crate) fn close(&mut self) {
        drop(self.stdin.take());
    }

    /// Sends a line if the program reads it within a moment.
    pub(crate) async fn line_while_taken(&mut self, line: &str) {
        _ = tokio::time::timeout(Duration::from_millis(5), self.line(line)).await;
    }

    /// Closes both ends, without waiting for messages.
    pub(crate) fn leave(self) -> Child {
        self.child
    }

    /// Closes the input, and returns standard error of the program. The program must end with success.
    pub(crate) async fn end(mut self) -> String {
        self.close();
        self.ended().await
    }

    /// Waits for the program to end by itself, and returns its standard error.
    pub(crate) async fn ended(mut self) -> String {
        while self.next_message(PATIENCE).await.is_some() {}
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("the program ends").unwrap();
        assert!(status.success(), "{status}");
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).await.unwrap();
        log
    }
}
