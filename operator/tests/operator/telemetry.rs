//! Tests of logs and traces of the program.

use std::time::Duration;

use axum::{Router, body::Bytes, extract::State, routing::post};
use serde_json::Value;
use testbed::supervisor::Supervisor;
use tokio::sync::mpsc;

use crate::replicas::{ACCOUNTS, cluster, replica, scale};

/// Receiver of OTLP, which returns the arrivals.
async fn collector() -> (String, mpsc::UnboundedReceiver<Bytes>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let receive = |State(sender): State<mpsc::UnboundedSender<Bytes>>, body: Bytes| async move {
        sender.send(body).ok();
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().route("/v1/traces", post(receive)).with_state(sender);
    tokio::spawn(axum::serve(listener, router).into_future());
    (url, receiver)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_reconcile_is_a_span_at_the_collector_and_every_line_of_the_log_is_json() {
    let (cluster, client, _turn) = cluster().await;
    let supervisor = Supervisor::start().unwrap();
    let (url, mut received) = collector().await;
    let operator =
        replica(cluster, &supervisor, ACCOUNTS[0], |command| command.env("OTEL_EXPORTER_OTLP_ENDPOINT", url)).await;
    scale(&client, "traced", 0).await;
    assert_eq!(operator.process.terminate(Duration::from_secs(20)).await.code, Some(0));

    // Everything: the rest was sent at the end.
    received.close();
    let mut spans = Vec::new();
    while let Some(body) = received.recv().await {
        spans.extend_from_slice(&body);
    }
    let spans = String::from_utf8_lossy(&spans);
    for part in ["mcp-entra-operator", "reconcile", "McpServer", "namespace", "default", "traced", "outcome", "Settled"]
    {
        assert!(spans.contains(part), "{part} is missing in {spans}");
    }
    assert!(!spans.contains("/api/v1"), "the spans contain requests: {spans}");

    let log = std::fs::read_to_string(&operator.log).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(
        lines
            .iter()
            .any(|line| line["message"].as_str().is_some_and(|text| text.starts_with("this replica is the leader"))),
        "{log}"
    );
    let is_of_pass = |line: &Value| line["span"]["object"] == "traced" && line["span"]["namespace"] == "default";
    assert!(lines.iter().any(is_of_pass), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_collector_nothing_is_sent_and_logs_are_text_on_request() {
    let (cluster, client, _turn) = cluster().await;
    let supervisor = Supervisor::start().unwrap();
    let operator = replica(cluster, &supervisor, ACCOUNTS[0], |command| command.args(["--log-format=text"])).await;
    scale(&client, "untraced", 0).await;
    assert_eq!(operator.process.terminate(Duration::from_secs(20)).await.code, Some(0));
    let log = std::fs::read_to_string(&operator.log).unwrap();
    assert!(log.lines().any(|line| line.contains("INFO") && line.contains("this replica is the leader")), "{log}");
    assert!(!log.contains("{\"timestamp"), "{log}");
}
