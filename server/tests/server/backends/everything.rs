//! Tests of long calls of the public server-everything over both transports: progress, cancellation, and a killed process.

use std::fs;
use std::sync::{Arc, Mutex};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use stock_backends::{Launch, Public};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Child;

use super::sessions::{free_port, started};
use super::stage::{answer, failure, request, text};
use super::{Shim, over_http, over_stdio, setup};
use crate::harness::{Site, eventually};
use crate::scripted::Events;
use crate::tenant::ALICE;

const LONG: &str = "trigger-long-running-operation";
/// Tools that the policy grants.
const GRANTED: [&str; 2] = ["echo", LONG];

/// A server in front of server-everything. The messages to the backend are recorded.
struct Stand {
    site: Site,
    behind: Behind,
    /// Over stdio, it has the files `pids` and `read` of all processes.
    scratch: TempDir,
}

enum Behind {
    Http { port: u16, process: Child, read: Arc<Mutex<Vec<u8>>> },
    Stdio { _shim: Shim },
}

impl Stand {
    /// Starts one for each transport.
    async fn each() -> [Self; 2] {
        let (http, stdio) = tokio::join!(Self::http(), Self::stdio());
        [http, stdio]
    }

    async fn http() -> Self {
        let (port, read) = (free_port(), Arc::default());
        let process = started(&Public::Everything.launch_http(port).unwrap(), port).await;
        let site = setup(over_http(relay(port, Arc::clone(&read)).await, "/mcp"), None, &GRANTED).start().await;
        Self { site, behind: Behind::Http { port, process, read }, scratch: tempfile::tempdir().unwrap() }
    }

    async fn stdio() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        // The server has the id of bash. Its input passes through a child process.
        let script = r#"cd "$0"; echo $$ >> pids; exec "$@" < <(exec tee -a read)"#;
        let folder = scratch.path().to_str().unwrap();
        let launch = Public::Everything.launch(scratch.path()).unwrap();
        let args = ["-c", script, folder].into_iter().map(str::to_owned).chain(launch.words()).collect();
        let shim = Shim::start(&Launch { program: "/bin/bash".into(), args, ..launch }).await;
        let site = setup(over_stdio(), Some(shim.socket()), &GRANTED).start().await;
        Self { site, behind: Behind::Stdio { _shim: shim }, scratch }
    }

    /// Returns the name of the transport, for messages of assertions.
    fn name(&self) -> &'static str {
        match self.behind {
            Behind::Http { .. } => "over HTTP",
            Behind::Stdio { .. } => "over stdio",
        }
    }

    /// Begins a call with progress.
    async fn begin(&self, is_modern: bool, seconds: f64, steps: u32) -> Events {
        let arguments = json!({ "duration": seconds, "steps": steps });
        let params = json!({ "name": LONG, "arguments": arguments, "_meta": { "progressToken": "p" } });
        Events::of(request(&self.site, ALICE, is_modern, "tools/call", params).send().await.unwrap())
    }

    /// Returns the answer to a short call.
    async fn echo(&self) -> Value {
        let params = json!({ "name": "echo", "arguments": { "message": "hej" } });
        answer(request(&self.site, ALICE, true, "tools/call", params)).await
    }

    /// Returns the messages with this method that the backend has read.
    fn read(&self, method: &str) -> Vec<Value> {
        let all = match &self.behind {
            Behind::Http { read, .. } => String::from_utf8(read.lock().unwrap().clone()).unwrap(),
            Behind::Stdio { .. } => fs::read_to_string(self.scratch.path().join("read")).unwrap_or_default(),
        };
        // Over HTTP, the next request follows a body in the same line.
        let messages =
            all.lines().flat_map(|line| serde_json::Deserializer::from_str(line).into_iter().map_while(Result::ok));
        messages.filter(|message: &Value| message["method"] == method).collect()
    }

    /// Kills all processes of the backend. Over HTTP, it starts another one, as a kubelet does.
    async fn kill(&mut self) {
        match &mut self.behind {
            Behind::Http { port, process, .. } => {
                process.kill().await.unwrap();
                *process = started(&Public::Everything.launch_http(*port).unwrap(), *port).await;
            }
            Behind::Stdio { .. } => {
                for pid in fs::read_to_string(self.scratch.path().join("pids")).unwrap().lines() {
                    _ = kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL);
                }
            }
        }
    }
}

/// Forwards connections to this port, and records the requests. Returns the port in front of it.
async fn relay(port: u16, read: Arc<Mutex<Vec<u8>>>) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let front = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let read = Arc::clone(&read);
            tokio::spawn(async move {
                if let Ok(backend) = TcpStream::connect(("127.0.0.1", port)).await {
                    forward(client, backend, &read).await;
                }
            });
        }
    });
    front
}

/// Forwards a connection until one side closes it.
async fn forward(mut client: TcpStream, mut backend: TcpStream, read: &Mutex<Vec<u8>>) {
    let ((mut requests, mut client), (mut answers, mut backend)) = (client.split(), backend.split());
    let recorded = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = requests.read(&mut buffer).await {
            read.lock().unwrap().extend(&buffer[..length]);
            if backend.write_all(&buffer[..length]).await.is_err() {
                break;
            }
        }
    };
    tokio::select! { () = recorded => {}, _ = copy(&mut answers, &mut client) => {} }
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_of_a_public_server_reaches_clients_of_both_eras_over_both_transports() {
    for stand in Stand::each().await {
        for is_modern in [true, false] {
            let mut messages = stand.begin(is_modern, 0.4, 4).await.rest().await;
            let result = messages.pop().unwrap();
            assert!(text(&result).starts_with("Long running operation completed"), "{} {result}", stand.name());
            let progress = Vec::from_iter(messages.iter().map(|message| message["params"].clone()));
            let expected =
                [1.0, 2.0, 3.0, 4.0].map(|step| json!({ "progressToken": "p", "progress": step, "total": 4.0 }));
            assert_eq!(progress, expected, "{}", stand.name());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_a_client_gives_up_is_cancelled_at_a_public_server_over_both_transports() {
    for stand in Stand::each().await {
        let mut events = stand.begin(true, 60.0, 600).await;
        assert_eq!(events.next().await.unwrap()["method"], "notifications/progress");
        let called = stand.read("tools/call");
        let [call] = &called[..] else { panic!("{} {called:?}", stand.name()) };
        assert!(stand.read("notifications/cancelled").is_empty(), "{}", stand.name());
        drop(events);
        let cancelled = async || stand.read("notifications/cancelled").pop();
        let cancelled = eventually(&format!("{} it is cancelled", stand.name()), cancelled).await;
        assert_eq!(cancelled["params"]["requestId"], call["id"], "{} {cancelled}", stand.name());
        assert_eq!(text(&stand.echo().await), "Echo: hej", "{}", stand.name());
        assert_eq!(stand.read("notifications/cancelled").len(), 1, "{}", stand.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_public_server_fails_its_open_call_and_answers_the_next_over_both_transports() {
    for mut stand in Stand::each().await {
        let mut open = stand.begin(true, 60.0, 600).await;
        assert_eq!(open.next().await.unwrap()["method"], "notifications/progress");
        stand.kill().await;
        let ended = open.rest().await.pop().unwrap();
        assert!(failure(&ended).contains("may have had its effect"), "{} {ended}", stand.name());
        let again = async || Some(stand.echo().await).filter(|answer| answer["result"].is_object());
        // It rests for half a second over stdio.
        let again = eventually(&format!("{} it works again", stand.name()), again).await;
        assert_eq!(text(&again), "Echo: hej", "{}", stand.name());
        assert_eq!(stand.read("tools/call").iter().filter(|call| call["params"]["name"] == LONG).count(), 1);
    }
}
