//! Tests of the program's `check`: a line for everything that the configuration needs, with a next step for each
//! failure.

use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::tenant::{ALICE, AUDIENCE, CREDENTIAL, SUBJECT, TestTenant, control, issuer, trust_bundle};

const POLICY: &str = r#"{"grants":[]}"#;

/// Writes a server's files into the tenant's folder and returns the command that checks them.
fn check(tenant: &TestTenant) -> Command {
    let file = |name: &str, content: &str| {
        let path = tenant.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-entra-server"));
    command
        .env_clear()
        .env("AZURE_FEDERATED_TOKEN_FILE", tenant.token_file())
        .arg("check")
        .arg("--config")
        .arg(file("config.yaml", &serde_yaml::to_string(&tenant.configuration()).unwrap()))
        .arg("--policy")
        .arg(file("policy.json", POLICY))
        .arg("--trust-bundle")
        .arg(file("ca.pem", trust_bundle()))
        .kill_on_drop(true);
    command
}

async fn output(mut command: Command) -> (bool, Vec<String>) {
    let output: Output = tokio::time::timeout(Duration::from_secs(60), command.output()).await.unwrap().unwrap();
    let lines = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    (output.status.success(), lines)
}

/// Returns the only failed line.
async fn failure(command: Command) -> String {
    let (success, lines) = output(command).await;
    assert!(!success, "{lines:#?}");
    let failed: Vec<_> = lines.iter().filter(|line| line.starts_with("FAIL  ")).collect();
    assert_eq!(failed.len(), 1, "{lines:#?}");
    failed[0].clone()
}

#[tokio::test]
async fn a_working_configuration_is_ok_line_by_line() {
    let tenant = TestTenant::new();
    let (success, lines) = output(check(&tenant)).await;
    assert!(success, "{lines:#?}");
    assert!(lines.iter().all(|line| line.starts_with("ok    ")), "{lines:#?}");
    let revision = mcp_entra_policy::revision(POLICY.as_bytes());
    for part in [
        "environment: no client secret",
        "is valid, for McpServer productivity/graph",
        &format!("revision {revision} with 0 grants"),
        &format!("issuer {}, subject {SUBJECT}, audience {AUDIENCE}, valid for another ", issuer().url),
        "signing keys: ",
        "token exchange: Entra accepts the federated token",
        &format!("graph: {} answers", tenant.configuration().graph.base_url),
    ] {
        assert!(lines.iter().any(|line| line.contains(part)), "{part} is not in {lines:#?}");
    }
}

#[tokio::test]
async fn a_missing_credential_fails_with_entras_text_and_the_next_step() {
    let tenant = TestTenant::new();
    control().remove_federated_credential(tenant.id, tenant.server, CREDENTIAL).unwrap();
    let line = failure(check(&tenant)).await;
    assert!(line.contains("token exchange: ") && line.contains("AADSTS70025") && line.contains(SUBJECT), "{line}");
}

#[tokio::test]
async fn a_secret_in_the_environment_fails() {
    let tenant = TestTenant::new();
    let mut command = check(&tenant);
    command.env("AZURE_CLIENT_SECRET", "hunter2");
    let line = failure(command).await;
    assert!(line.contains("environment: AZURE_CLIENT_SECRET") && !line.contains("hunter2"), "{line}");
}

#[tokio::test]
async fn entra_is_reached_through_the_proxy_that_the_environment_names() {
    let tenant = TestTenant::new();
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut command = check(&tenant);
    command.env("HTTPS_PROXY", format!("http://{}", proxy.local_addr().unwrap()));
    let mut checking = command.stdout(Stdio::null()).spawn().unwrap();
    let (stream, _) = tokio::time::timeout(Duration::from_secs(60), proxy.accept()).await.unwrap().unwrap();
    let asked = BufReader::new(stream).lines().next_line().await.unwrap().unwrap();
    let authority = tenant.configuration().entra.authority;
    assert_eq!(asked, format!("CONNECT {} HTTP/1.1", authority.strip_prefix("https://").unwrap()));
    checking.kill().await.unwrap();
}

#[tokio::test]
async fn each_unusable_file_fails_on_its_own_line() {
    let tenant = TestTenant::new();
    let command = check(&tenant);
    std::fs::write(tenant.path().join("policy.json"), "{").unwrap();
    assert!(failure(command).await.contains("policy: "));

    let command = check(&tenant);
    std::fs::write(tenant.path().join("ca.pem"), "none").unwrap();
    assert!(failure(command).await.contains("trust: "));

    let command = check(&tenant);
    let yaml = serde_yaml::to_string(&tenant.configuration()).unwrap();
    std::fs::write(tenant.path().join("config.yaml"), yaml.replace(&tenant.id.to_string(), "contoso.com")).unwrap();
    let line = failure(command).await;
    assert!(line.contains("configuration: ") && line.contains("entra.tenantId"), "{line}");

    let command = check(&tenant);
    std::fs::write(tenant.token_file(), tenant.token(ALICE).split('.').next().unwrap()).unwrap();
    let (success, lines) = output(command).await;
    assert!(!success);
    assert!(lines.iter().any(|line| line.starts_with("FAIL  federated token: ")), "{lines:#?}");
}

#[tokio::test]
async fn an_unknown_tenant_and_an_unreachable_graph_fail() {
    let tenant = TestTenant::new();
    let mut configuration = tenant.configuration();
    configuration.graph.base_url = "https://localhost:1".to_owned();
    configuration.entra.tenant_id = uuid::Uuid::new_v4().to_string();
    let command = check(&tenant);
    std::fs::write(tenant.path().join("config.yaml"), serde_yaml::to_string(&configuration).unwrap()).unwrap();
    let (success, lines) = output(command).await;
    assert!(!success);
    for what in ["FAIL  signing keys: ", "FAIL  token exchange: ", "FAIL  graph: "] {
        assert!(lines.iter().any(|line| line.starts_with(what)), "{what} is not in {lines:#?}");
    }
}
