//! Tests of operation: health, status, metrics, the audit log, and a stop that drops no request.

use std::time::Duration;

use mcp_entra_server::audit::chain::{self, Verified};
use serde_json::{Value, json};

use crate::harness::{ON_BEHALF_OF, Setup, delay_graph, eventually};
use crate::tenant::{ALICE, AUDIENCE, BOB, SUBJECT, control, issuer};

#[tokio::test]
async fn the_admin_port_reports_the_current_state() {
    let site = Setup::new().start().await;
    assert_eq!(site.admin("/healthz").await.status(), 200);
    let readiness = site.admin("/readyz").await.text().await.unwrap();
    assert_eq!(readiness.lines().filter(|line| line.starts_with("[+]")).count(), 4, "{readiness}");

    let status = eventually("the probe works", async || {
        Some(site.status().await).filter(|status| status.federation.works == Some(true))
    })
    .await;
    assert_eq!(status.version, env!("CARGO_PKG_VERSION"));
    assert!(status.keys.count > 0 && status.keys.error.is_none());
    let identity = status.federation.identity.unwrap();
    assert_eq!(
        (identity.issuer, identity.subject, identity.audience),
        (issuer().url.clone(), SUBJECT.into(), AUDIENCE.into())
    );

    for path in ["/healthz", "/readyz", "/status", "/metrics"] {
        let url = format!("http://{}{path}", site.running.admin_address());
        assert_eq!(site.http.post(url).send().await.unwrap().status(), 405, "{path}");
    }
    assert_eq!(site.admin("/mcp").await.status(), 404);
    assert_eq!(site.http.get(site.url("/status")).send().await.unwrap().status(), 404);
}

#[tokio::test]
async fn a_failing_federated_credential_is_reported_and_leaves_the_pod_ready() {
    let setup = Setup::new();
    control().remove_federated_credential(setup.tenant.id, setup.tenant.server, crate::tenant::CREDENTIAL).unwrap();
    let site = setup.start().await;
    let federation = eventually("the probe fails", async || {
        Some(site.status().await.federation).filter(|federation| federation.works == Some(false))
    })
    .await;
    let message = federation.message.unwrap();
    assert!(message.contains("AADSTS70025") && message.contains(SUBJECT), "{message}");
    assert_eq!(site.admin("/readyz").await.status(), 200);
}

#[tokio::test]
async fn requests_are_counted_by_method_and_decision() {
    let site = Setup::new().start().await;
    let alice = site.setup.tenant.token(ALICE);
    let allowed = site.call(&alice, "get_user_details", json!({})).await;
    site.audit_of(&allowed).await;
    let refused = site.call(&site.setup.tenant.token(BOB), "get_user_details", json!({})).await;
    site.audit_of(&refused).await;
    let metrics = site.admin("/metrics").await.text().await.unwrap();
    for expected in [
        r#"mcp_entra_server_requests_total{method="tools/call",decision="allowed",reason="granted"} 1"#,
        r#"mcp_entra_server_requests_total{method="tools/call",decision="refused",reason="not_granted"} 1"#,
        "mcp_entra_server_policy_usable 1",
        "mcp_entra_server_request_duration_seconds_count 2",
    ] {
        assert!(metrics.lines().any(|line| line == expected), "{expected} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn an_audit_line_names_caller_and_call_without_personal_data() {
    let site = Setup::new().start().await;
    let alice = site.setup.tenant.token(ALICE);
    let response = site.call(&alice, "get_user_details", json!({ "secret": "argument" })).await;
    let line = site.audit_of(&response).await;
    let claims = site.setup.tenant.claims(ALICE);
    let object = line.as_object().unwrap();
    let expected = [
        ("server", json!("productivity/graph")),
        ("tenantId", claims["tid"].clone()),
        ("objectId", claims["oid"].clone()),
        ("clientId", claims["azp"].clone()),
        ("caller", json!("User")),
        ("schema", json!("mcp-entra-audit/1")),
        ("method", json!("tools/call")),
        ("tool", json!("get_user_details")),
        ("decision", json!("allowed")),
        ("reason", json!("granted")),
        ("rule", json!({ "mapping": "productivity/readers-mapping", "grant": "readers" })),
        ("status", json!(200)),
    ];
    for (name, value) in &expected {
        assert_eq!(&object[*name], value, "{name}");
    }
    assert!(object["latencyMs"].is_u64());
    assert!(object["time"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
    assert_eq!(object.len(), expected.len() + 3, "{line}");

    let text = line.to_string();
    for personal in [&alice, "argument", "alice", "Adams"] {
        assert!(!text.contains(personal), "{personal} is in {text}");
    }
}

#[tokio::test]
async fn a_chained_audit_log_verifies_until_it_is_changed() {
    let mut setup = Setup::new();
    setup.configuration.audit.hash_chain = true;
    let site = setup.start().await;
    for token in [site.setup.tenant.token(ALICE), site.setup.tenant.token(BOB), "no.such.token".to_owned()] {
        let response = site.call(&token, "get_user_details", json!({})).await;
        let line = site.audit_of(&response).await;
        assert!(line["hash"].is_string() && line["chain"]["sequence"].is_u64(), "{line}");
    }
    let log = site.audit_log();
    // As in Prometheus: the label of the run, and the number.
    let metrics = site.admin("/metrics").await.text().await.unwrap();
    let run = metrics.lines().find_map(|line| line.strip_prefix("mcp_entra_server_audit_chain_lines{run=\"")).unwrap();
    let runs = chain::runs(&run.replacen("\"}", "", 1)).unwrap();
    let verify = |log: &str| {
        let mut report = Vec::new();
        let verified = chain::verify(&mut log.as_bytes(), &runs, &mut report).unwrap();
        (verified, String::from_utf8(report).unwrap())
    };
    let (verified, report) = verify(&log);
    assert!(verified == Verified::Whole && report.contains("lines 1 to 3"), "{report}");
    let (verified, report) = verify(&log.replacen("refused", "allowed", 1));
    assert!(verified == Verified::Broken && report.contains("line 2 was changed"), "{report}");
    let (verified, report) = verify(log.split_inclusive('\n').take(2).collect::<String>().as_str());
    assert!(verified == Verified::Broken && report.contains("its end is missing: lines 3 to 3"), "{report}");
}

#[tokio::test]
async fn requests_without_a_token_are_one_line_with_their_number_and_no_address() {
    let site = Setup::new().start().await;
    let mut latest = String::new();
    for _ in 0..3 {
        let response = site.request().send().await.unwrap();
        assert_eq!(response.status(), 401);
        latest = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    }
    let other = site.call("no.such.token", "get_user_details", json!({})).await;
    site.audit_of(&other).await;
    assert_eq!(site.audit().len(), 1, "the others are counted");
    let metrics = site.admin("/metrics").await.text().await.unwrap();
    let counted = r#"mcp_entra_server_requests_total{method="",decision="refused",reason="token_missing"} 3"#;
    assert!(metrics.lines().any(|line| line == counted), "{metrics}");
    let log = site.stop().await;
    let line: Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    let numbers = ["count", "addresses", "mostOfOneAddress"].map(|name| line[name].as_u64().unwrap());
    assert_eq!((numbers, log.lines().count()), ([3, 1, 3], 2), "{log}");
    assert_eq!((&line["requestId"], &line["status"]), (&json!(latest), &json!(401)));
    assert!(!log.contains("127.0.0.1"), "{log}");
}

#[tokio::test]
async fn a_refused_token_leaves_its_reason_in_the_audit_log_and_none_of_its_claims() {
    let site = Setup::new().start().await;
    let mut claims = site.setup.tenant.claims(ALICE);
    claims["exp"] = json!(1);
    let response = site.call(&site.setup.tenant.sign(&json!({}), &claims), "get_user_details", json!({})).await;
    let line = site.audit_of(&response).await;
    assert_eq!(
        (&line["decision"], &line["reason"], &line["status"]),
        (&json!("refused"), &json!("expired"), &json!(401))
    );
    for name in ["tenantId", "objectId", "clientId", "method", "tool", "rule"] {
        assert_eq!(line[name], Value::Null, "{name}");
    }
}

#[tokio::test]
async fn the_id_of_a_request_is_never_the_clients_choice() {
    let site = Setup::new().start().await;
    let mut ids = std::collections::BTreeSet::from(["chosen".to_owned()]);
    for _ in 0..2 {
        let response = site.request().header("x-request-id", "chosen").send().await.unwrap();
        assert!(ids.insert(response.headers()["x-request-id"].to_str().unwrap().to_owned()));
    }
}

#[tokio::test]
async fn a_caller_who_disconnects_is_still_in_the_audit_log() {
    let site = Setup::new().start().await;
    delay_graph(site.setup.tenant.id, 20_000);
    let call = site.request().bearer_auth(site.setup.tenant.token(ALICE)).timeout(Duration::from_secs(2));
    let body = json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": { "name": "get_user_details" } });
    assert!(call.body(body.to_string()).send().await.unwrap_err().is_timeout());
    let line = eventually("the call is recorded", async || {
        site.audit().into_iter().find(|line| line["tool"] == "get_user_details")
    })
    .await;
    assert_eq!((&line["decision"], &line["status"]), (&json!("allowed"), &Value::Null));
}

#[tokio::test]
async fn a_stopping_server_is_unready_at_once_and_finishes_its_answers() {
    let mut setup = Setup::new();
    setup.drain = Duration::from_secs(2);
    let site = setup.start().await;
    let alice = site.setup.tenant.token(ALICE);
    delay_graph(site.setup.tenant.id, 4_000);
    let address = site.running.address();
    let admin = format!("http://{}/readyz", site.running.admin_address());

    let in_flight = tokio::spawn(
        site.request()
            .bearer_auth(&alice)
            .body(
                json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": { "name": "get_user_details" } })
                    .to_string(),
            )
            .send(),
    );
    eventually("the call has reached Entra", async || {
        let asked = site.setup.tenant.grants(ON_BEHALF_OF);
        (asked > 0).then_some(())
    })
    .await;

    let (http, setup) = (site.http.clone(), site.setup);
    let stopping = tokio::spawn(site.running.shutdown());
    eventually("the server is unready", async || (http.get(&admin).send().await.ok()?.status() == 503).then_some(()))
        .await;
    let answer: Value = in_flight.await.unwrap().unwrap().json().await.unwrap();
    assert_eq!(answer["result"]["structuredContent"]["displayName"], "Alice Adams");
    stopping.await.unwrap();
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    drop(setup);
}
