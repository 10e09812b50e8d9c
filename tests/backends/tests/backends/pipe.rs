//! A raw client over the pipes of a process: lines of JSON, without a library that knows the protocol.

use std::time::Duration;

use serde_json::{Value, json};
use stock_backends::Launch;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// Time limit of an answer while all servers start at the same time.
const PATIENCE: Duration = Duration::from_secs(120);

/// A process and its pipes.
pub(crate) struct Pipe {
    pub(crate) child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Pipe {
    pub(crate) fn start(launch: &Launch) -> Self {
        Self::of(launch.command())
    }

    pub(crate) fn of(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, input, output: BufReader::new(output) }
    }

    pub(crate) async fn send(&mut self, message: &Value) {
        self.send_line(&message.to_string()).await;
    }

    pub(crate) async fn send_line(&mut self, line: &str) {
        self.input.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    /// The next line, unless the output has ended.
    pub(crate) async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = timeout(PATIENCE, self.output.read_line(&mut line)).await.unwrap().unwrap();
        (read > 0).then(|| line.trim_end_matches('\n').to_owned())
    }

    /// Reads to the end of a line that starts with this.
    pub(crate) async fn bytes(&mut self, last: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            let start = bytes.len();
            assert_ne!(timeout(PATIENCE, self.output.read_until(b'\n', &mut bytes)).await.unwrap().unwrap(), 0);
            if bytes[start..].starts_with(last) {
                return bytes;
            }
        }
    }

    /// Reads this number of bytes.
    pub(crate) async fn some(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        timeout(PATIENCE, self.output.read_exact(&mut bytes)).await.unwrap().unwrap();
        bytes
    }

    /// Closes stdin, and keeps the process.
    pub(crate) fn close(self) -> Child {
        self.child
    }

    /// The next message.
    pub(crate) async fn message(&mut self) -> Value {
        serde_json::from_str(&self.line().await.unwrap()).unwrap()
    }

    /// Sends a request, and returns its answer. Notifications before it are dropped.
    pub(crate) async fn ask(&mut self, method: &str, params: Value) -> Value {
        self.send(&json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params })).await;
        loop {
            let message = self.message().await;
            if message["id"] == 1 && message["method"].is_null() {
                return message;
            }
        }
    }

    pub(crate) async fn initialize(&mut self) -> Value {
        let answer = self.ask("initialize", crate::initialization()).await;
        self.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await;
        answer
    }

    /// Closes stdin, and returns whether the process ends with success.
    pub(crate) async fn ends_well(self) -> bool {
        let Self { mut child, input, .. } = self;
        drop(input);
        timeout(PATIENCE, child.wait()).await.unwrap().unwrap().success()
    }
}
