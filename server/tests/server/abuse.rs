//! Tests that strangers and slow readers do not stop the server: thousands of silent connections, and an unread
//! standard output.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt;
use futures::stream;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use reqwest::StatusCode;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::{Child, ChildStderr, Command};

use crate::harness::{PATIENCE, Setup, eventually, eventually_within};
use crate::program::{http, log_line, post, ready, serve, serve_under, terminate};
use crate::tenant::ALICE;

/// Number of silent connections to each port.
const SILENT: u32 = 2_000;
/// Number of connections from each address, below the admin port's limit.
const OF_ADDRESS: u32 = 50;

/// A connection from an address of this machine, which then sends nothing.
async fn silent(number: u32, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let from = Ipv4Addr::from_bits(Ipv4Addr::new(127, 7, 0, 1).to_bits() + number / OF_ADDRESS);
    socket.bind((from, 0).into())?;
    socket.connect(to).await
}

/// A ready server, its log, and the line with its addresses.
async fn started(command: &mut Command) -> (Child, Lines<BufReader<ChildStderr>>, Value) {
    let mut child = command.spawn().unwrap();
    let mut logs = BufReader::new(child.stderr.take().unwrap()).lines();
    let serving = log_line(&mut logs, "admin_address").await;
    ready(&serving).await;
    (child, logs, serving)
}

fn address(serving: &Value, member: &str) -> SocketAddr {
    serving[member].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn thousands_of_silent_connections_to_each_port_block_neither_probes_nor_calls() {
    // This process has the other ends of the connections.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(16_384), hard).unwrap();
    let setup = Setup::new();
    setup.write_files();
    // Same as many container runtimes start it.
    let (_child, _logs, serving) = started(&mut serve_under(&setup, &["prlimit", "--nofile=1024:8192"])).await;
    let (mcp, admin) = (address(&serving, "address"), address(&serving, "admin_address"));
    let open = |to: SocketAddr| stream::iter(0..SILENT).map(move |number| silent(number, to)).buffer_unordered(32);
    let (of_mcp, of_admin): (Vec<_>, Vec<_>) = tokio::join!(open(mcp).collect(), open(admin).collect());
    let held: Vec<TcpStream> = of_mcp.into_iter().chain(of_admin).collect::<Result<_, _>>().unwrap();
    assert_eq!(held.len(), 2 * SILENT as usize);

    let token = setup.tenant.token(ALICE);
    let call = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"get_user_details"}}"#;
    for _ in 0..3 {
        let healthy = http().get(format!("http://{admin}/healthz")).send().await.unwrap();
        assert_eq!(healthy.status(), StatusCode::OK);
        let answer: Value = post(&serving).bearer_auth(&token).body(call).send().await.unwrap().json().await.unwrap();
        assert_eq!(answer["result"]["structuredContent"]["displayName"], "Alice Adams", "{answer}");
    }
    drop(held);
}

#[tokio::test]
async fn an_unread_standard_output_blocks_requests_once_the_queue_is_full_and_loses_no_line() {
    let mut setup = Setup::new();
    setup.configuration.rate_limit.per_user.requests = 1;
    setup.write_files();
    let (mut child, _logs, serving) = started(&mut serve(&setup)).await;
    let token = setup.tenant.token(ALICE);
    let admin = format!("http://{}", address(&serving, "admin_address"));

    // Cheap requests of a known user: the first is refused for its body, the others for their number.
    let (client, answered) = (http(), Arc::new(AtomicUsize::new(0)));
    let url = format!("http://{}/mcp", address(&serving, "address"));
    let ask = |(client, url, token, answered): (reqwest::Client, String, String, Arc<AtomicUsize>)| async move {
        loop {
            let response = client.post(&url).header("host", crate::harness::HOST).bearer_auth(&token);
            assert!(response.send().await.unwrap().status().is_client_error());
            answered.fetch_add(1, Ordering::SeqCst);
        }
    };
    let asking: Vec<_> = (0..32)
        .map(|_| tokio::spawn(ask((client.clone(), url.clone(), token.clone(), Arc::clone(&answered)))))
        .collect();
    // Thousands of requests.
    let readiness = eventually_within(4 * PATIENCE, "the queue is full", async || {
        let response = http().get(format!("{admin}/readyz")).send().await.unwrap();
        if response.status() == StatusCode::OK { None } else { Some(response.text().await.unwrap()) }
    })
    .await;
    assert!(readiness.contains("[-] audit: the queue of unwritten lines is full"), "{readiness}");
    assert_eq!(http().get(format!("{admin}/healthz")).send().await.unwrap().status(), StatusCode::OK);

    // The requests continue when standard output is read again.
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    let reading = tokio::spawn(async move {
        let mut lines = 0_usize;
        while output.next_line().await.unwrap().is_some() {
            lines += 1;
        }
        lines
    });
    let before = answered.load(Ordering::SeqCst);
    eventually("requests go on", async || (answered.load(Ordering::SeqCst) > before + 100).then_some(())).await;
    ready(&serving).await;
    asking.iter().for_each(tokio::task::JoinHandle::abort);
    for asker in asking {
        assert!(asker.await.unwrap_err().is_cancelled());
    }
    terminate(&child);
    assert!(child.wait().await.unwrap().success());
    let (lines, answered) = (reading.await.unwrap(), answered.load(Ordering::SeqCst));
    assert!((answered..=answered + 32).contains(&lines), "{answered} answers, {lines} lines");
}

#[tokio::test]
async fn a_stopping_server_with_an_unread_standard_output_ends_and_reports_the_lost_lines() {
    let setup = Setup::new();
    setup.write_files();
    let (mut child, mut logs, serving) = started(&mut serve(&setup)).await;
    let token = setup.tenant.token(ALICE);
    let fill = stream::iter(0..1_000).map(|_| post(&serving).bearer_auth(&token).send());
    fill.buffer_unordered(16).for_each(async |answer| assert!(answer.unwrap().status().is_client_error())).await;
    terminate(&child);
    let said = log_line(&mut logs, "seconds").await;
    assert!(said["message"].as_str().unwrap().contains("draining"));
    let said = log_line(&mut logs, "seconds").await;
    assert!(said["message"].as_str().unwrap().contains("standard output is blocked"), "{said}");
    let ended = tokio::time::timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
    assert!(ended.success());
}

#[tokio::test]
async fn a_failed_standard_output_only_makes_the_server_unready() {
    let setup = Setup::new();
    setup.write_files();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let (mut child, _logs, serving) = started(serve(&setup).stdout(full)).await;
    assert_eq!(post(&serving).header("authorization", "Bearer").send().await.unwrap().status(), 400);
    let url = format!("http://{}/readyz", address(&serving, "admin_address"));
    let readiness = eventually("the failure is told", async || {
        let response = http().get(&url).send().await.unwrap();
        if response.status() == StatusCode::OK { None } else { Some(response.text().await.unwrap()) }
    })
    .await;
    assert!(readiness.contains("[-] audit: the last write to standard output failed: No space left"), "{readiness}");
    assert_eq!(post(&serving).header("authorization", "Bearer").send().await.unwrap().status(), 400);
    terminate(&child);
    let ended = tokio::time::timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
    assert!(ended.success());
}

#[tokio::test]
async fn an_unread_standard_error_delays_neither_requests_nor_the_end_of_the_server() {
    let setup = Setup::new();
    setup.write_files();
    let (mut child, logs, serving) = started(serve(&setup).env("RUST_LOG", "trace")).await;
    let flood = stream::iter(0..300).map(|_| post(&serving).send());
    flood.buffer_unordered(16).for_each(async |answer| assert_eq!(answer.unwrap().status(), 401)).await;
    terminate(&child);
    let ended = tokio::time::timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
    assert!(ended.success());
    drop(logs);
}
