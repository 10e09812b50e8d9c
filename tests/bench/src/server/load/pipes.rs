//! Closed loop over the pipes of a process, with a fixed number of open requests. The next one is sent after an answer.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::connection::PATIENCE;
use super::{Order, Process, microseconds};
use crate::server::cores::spawn_on;
use crate::server::handshake::{INITIALIZED, initialize};

/// A process after the handshake. It ends with this value.
pub(super) struct Pipes {
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

#[derive(Deserialize)]
struct Answer {
    /// Absent in a notification.
    id: Option<usize>,
}

impl Pipes {
    pub(super) async fn open(process: &Process) -> anyhow::Result<Self> {
        let (program, arguments) = process.command.split_first().context("a command")?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = spawn_on(&[process.core], command)?;
        let (input, output) = (child.stdin.take().context("standard input")?, child.stdout.take().context("output")?);
        let mut pipes = Self { input, output: BufReader::new(output).lines(), _child: child };
        pipes.write(&initialize()).await?;
        pipes.answer().await?;
        pipes.write(INITIALIZED).await?;
        Ok(pipes)
    }

    /// Sends requests, and returns their latencies in microseconds.
    pub(super) async fn send(mut self, order: &Order) -> anyhow::Result<Vec<u32>> {
        let requests = (0..order.connections).map(|id| request(order, id)).collect::<Result<Vec<_>, _>>()?;
        let end = Instant::now() + Duration::from_secs_f64(order.seconds);
        let mut starts = Vec::new();
        for request in &requests {
            starts.push(Instant::now());
            self.write(request).await?;
        }
        let (mut latencies, mut under_way) = (Vec::new(), requests.len());
        while under_way > 0 {
            let (id, line) = self.answer().await?;
            ensure!(line.contains(&order.part), "answered {line}");
            let request = requests.get(id).zip(starts.get_mut(id));
            let (request, start) = request.with_context(|| format!("an answer without a request: {line}"))?;
            let now = Instant::now();
            latencies.push(microseconds(now - *start));
            if now < end {
                *start = now;
                self.write(request).await?;
            } else {
                under_way -= 1;
            }
        }
        Ok(latencies)
    }

    /// Returns the next answer with its id.
    async fn answer(&mut self) -> anyhow::Result<(usize, String)> {
        loop {
            let line = timeout(PATIENCE, self.output.next_line()).await.context("no answer in 30 s")??;
            let line = line.context("the process has ended")?;
            if let Answer { id: Some(id) } = serde_json::from_str(&line).with_context(|| line.clone())? {
                return Ok((id, line));
            }
        }
    }

    async fn write(&mut self, message: &str) -> anyhow::Result<()> {
        Ok(self.input.write_all(format!("{message}\n").as_bytes()).await?)
    }
}

/// Returns the request of an order with another id.
fn request(order: &Order, id: usize) -> anyhow::Result<String> {
    let mut request: Value = serde_json::from_str(&order.body)?;
    request.as_object_mut().context("a request")?.insert("id".to_owned(), json!(id));
    Ok(request.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::cores;

    /// Answers each line that has an id.
    const ANSWERER: &str = r#"s/.*"id":\([0-9]*\).*/{"jsonrpc":"2.0","id":\1,"result":"hej"}/p"#;

    fn order(part: &str) -> Order {
        let core = cores::available().unwrap()[0];
        let command = ["sed", "-u", "-n", ANSWERER].map(str::to_owned).into();
        Order {
            address: ([127, 0, 0, 1], 0).into(),
            path: String::new(),
            process: Some(Process { command, core }),
            headers: vec![],
            body: r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#.to_owned(),
            tokens: vec![],
            status: 200,
            part: part.to_owned(),
            connections: 3,
            seconds: 0.0,
            at_least: 0,
            rate: None,
        }
    }

    #[tokio::test]
    async fn each_request_under_way_is_answered_as_expected() {
        for (part, answered) in [("hej", Some(3)), ("hello", None)] {
            let order = order(part);
            let pipes = Pipes::open(order.process.as_ref().unwrap()).await.unwrap();
            assert_eq!(pipes.send(&order).await.ok().map(|latencies| latencies.len()), answered, "{part}");
        }
    }
}
