//! Tests of the program itself: its environment, its output, its end.

use std::process::Stdio;
use std::time::Duration;

use entra_emulator::{Fault, FaultKind, Host, Matcher, Message};
use mcp_entra_policy::{CallerKind, GraphAccess, Subject};
use mcp_entra_server::entra::{ApplicationCredential, FederatedToken};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::task::JoinHandle;

use crate::harness::{
    HOST, ON_BEHALF_OF, PATIENCE, Setup, delay_graph, eventually, eventually_within, grant, grant_to_sales,
};
use crate::tenant::{ALICE, BOB, ROLE, control, http as http_of_the_server};

/// `serve` with complete input. `setpriv` (util-linux) ends it with this process, even if that is killed.
pub(crate) fn serve(setup: &Setup) -> Command {
    serve_under(setup, &[])
}

/// `serve`, started through this command.
pub(crate) fn serve_under(setup: &Setup, starter: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).args(starter).args([env!("CARGO_BIN_EXE_mcp-entra-server"), "serve"]);
    command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--drain-seconds", "0"]);
    for (option, file) in [("--config", "config.yaml"), ("--policy", "policy.json"), ("--trust-bundle", "ca.pem")] {
        command.arg(option).arg(setup.file(file));
    }
    // A pod's environment, not this machine's, which may contain a proxy or CA certificates.
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    command.env("AZURE_FEDERATED_TOKEN_FILE", setup.tenant.token_file()).env("RUST_LOG", "info");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

async fn refusal(mut command: Command) -> String {
    let output = tokio::time::timeout(PATIENCE, command.output()).await.unwrap().unwrap();
    assert!(!output.status.success());
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}

/// Reads standard error up to the first log line with this member, and returns it.
pub(crate) async fn log_line(lines: &mut tokio::io::Lines<BufReader<ChildStderr>>, member: &str) -> Value {
    loop {
        let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
        let line: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        if line.get(member).is_some() {
            return line;
        }
    }
}

#[tokio::test]
async fn the_server_refuses_to_start_with_a_secret_in_the_environment() {
    let setup = Setup::new();
    setup.write_files();
    for variable in [
        "AZURE_CLIENT_SECRET",
        "AZURE_CLIENT_CERTIFICATE_PATH",
        "AZURE_CLIENT_CERTIFICATE_PASSWORD",
        "AZURE_CLIENT_CERTIFICATE_SEND_CHAIN",
        "AZURE_PASSWORD",
    ] {
        let mut command = serve(&setup);
        command.env(variable, "hunter2");
        let message = refusal(command).await;
        assert!(message.contains(&format!("{variable} is set in the environment")), "{message}");
        assert!(!message.contains("hunter2"));
    }
}

#[tokio::test]
async fn no_answer_of_graph_reaches_the_log_at_any_level() {
    const SUBJECT: &str = "Merger with Fabrikam";
    let setup = Setup::new();
    setup.write_files();
    control()
        .change_tenant(setup.tenant.id, |tenant| {
            let message = Message {
                subject: SUBJECT.into(),
                from: "sender@contoso.com".into(),
                from_name: "Sender".into(),
                received_date_time: "2026-03-01T09:30:00Z".into(),
                body_preview: "Hello".into(),
                is_read: true,
            };
            tenant.users.iter_mut().for_each(|user| user.messages = vec![message.clone()]);
            Ok(())
        })
        .unwrap();
    let token = setup.tenant.token(ALICE);
    for filter in ["trace", "info,rmcp=trace", "info,rmcp::service=trace", "info,[request]=trace"] {
        let server = Logged::start(&setup, filter).await;
        let answer = server.call(&token, r#"{"name":"list_my_messages"}"#).await;
        assert!(answer.contains(SUBJECT));
        let log = server.end().await;
        for private in [SUBJECT, &token] {
            assert!(!log.contains(private), "{filter}: {private} is in {log}");
        }
    }
}

#[tokio::test]
async fn a_request_to_graph_ends_when_the_client_disconnects_without_an_error() {
    const HANGS_UP_AFTER: Duration = Duration::from_secs(1);
    // The server itself gives a request up after 15 s.
    const AT_ONCE: Duration = Duration::from_secs(12);
    let setup = Setup::new();
    setup.write_files();
    inject(&setup, "", 1000, FaultKind::Delay { milliseconds: 60_000 });
    let server = Logged::start(&setup, "info").await;
    let token = setup.tenant.token(ALICE);
    let abandoned = eventually_within(AT_ONCE, "a question is abandoned", async || {
        tokio::time::timeout(HANGS_UP_AFTER, server.call_that_can_be_given_up(&token)).await.unwrap_err();
        setup.tenant.requests().into_iter().find(|request| request.host == Host::Graph)
    });
    assert_eq!(abandoned.await.status, 0);
    let log = server.end().await;
    for level in ["ERROR", "WARN"] {
        assert!(!log.contains(level), "{log}");
    }
}

/// Text that is in every message of Entra and Graph, and nowhere else.
const ACCOUNT: &str = "mallory@fabrikam.com";

/// Makes `times` requests of this grant fail this way, with [`ACCOUNT`] in the text.
fn refuse(setup: &Setup, grant_type: &str, times: u32, code: u32) {
    let message = format!("The account '{ACCOUNT}' is not known.");
    let (error, suberror, claims) = ("invalid_grant".to_owned(), None, None);
    inject(setup, grant_type, times, FaultKind::Aadsts { code, status: 400, error, message, suberror, claims });
}

fn inject(setup: &Setup, grant_type: &str, times: u32, kind: FaultKind) {
    let grant_type = Some(grant_type.to_owned()).filter(|grant_type| !grant_type.is_empty());
    let host = Some(if grant_type.is_some() { Host::Authority } else { Host::Graph });
    let matcher = Matcher { host, tenant: Some(setup.tenant.id), path: None, grant_type };
    control().inject(Fault { matcher, times, kind }).unwrap();
}

fn status(status: u16, body: &str) -> FaultKind {
    FaultKind::Status { status, headers: [].into(), body: body.replace("ACCOUNT", ACCOUNT) }
}

#[tokio::test]
async fn no_text_in_which_entra_or_graph_name_an_account_reaches_log_status_or_metrics() {
    for filter in ["info", "trace"] {
        let mut setup = Setup::new();
        setup.configuration.graph.access = GraphAccess::Application;
        let daemons = Subject::AppRole { role: ROLE.into(), callers: [CallerKind::Application].into() };
        setup.policy.grants.push(grant("daemons", daemons, &["*"]));
        setup.policy.grants.push(grant_to_sales(&setup.tenant, &["*"]));
        setup.write_files();
        let tenant = &setup.tenant;
        let daemon = tenant.sign(&json!({}), &tenant.application_claims(tenant.daemon));
        // Each call has its own token, since Entra is not asked again at once for a refused one. bob's token requires
        // his groups.
        let token = |user: &str, number: u32| {
            let mut claims = tenant.claims(user);
            claims.as_object_mut().unwrap().remove("groups");
            claims["uti"] = json!(number.to_string());
            tenant.sign(&json!({}), &claims)
        };
        let details = r#"{"name":"get_user_details"}"#;
        let of_alice = r#"{"name":"get_user_details","arguments":{"user":"alice@contoso.com"}}"#;

        refuse(&setup, "client_credentials", 50, 700_016);
        let server = Logged::start(&setup, filter).await;
        let probed = server.status_with("AADSTS700016").await;
        // The caller gets the text, independent of its author and subject.
        let mut told = vec![server.call(&daemon, of_alice).await];
        refuse(&setup, ON_BEHALF_OF, 2, 50034);
        told.push(server.call(&token(ALICE, 1), details).await);
        told.push(server.call(&token(BOB, 1), details).await);
        inject(&setup, "", 2, status(403, r#"{"error":{"code":"Denied","message":"Not for ACCOUNT."}}"#));
        told.push(server.call(&token(ALICE, 2), details).await);
        told.push(server.call(&token(BOB, 2), details).await);
        for text in &told {
            assert!(text.contains(ACCOUNT), "{text}");
        }
        assert_eq!((probed + &server.metrics().await).find(ACCOUNT), None);
        let log = server.end().await;
        for logged in
            ["AADSTS700016", "AADSTS50034", "cannot look up the groups of a user", "HTTP 403 Denied", "correlation_id"]
        {
            assert!(log.contains(logged), "{filter}: {logged} is not in {log}");
        }
        assert_eq!(log.find(ACCOUNT), None, "{filter}: {log}");
    }
}

#[tokio::test]
async fn an_answer_to_the_application_that_is_not_entras_is_not_quoted() {
    for (code, body) in [
        (400, r#"{"error_description":"For ACCOUNT."}"#),
        (400, r#"{"error_codes":"ACCOUNT"}"#),
        (200, r#"{"expires_in":"ACCOUNT"}"#),
        (400, "ACCOUNT"),
    ] {
        let setup = Setup::new();
        let (credential, entra) = (FederatedToken::at(setup.tenant.token_file()), &setup.configuration.entra);
        let application = ApplicationCredential::new(http_of_the_server(), entra, "https://graph.example", credential);
        inject(&setup, "client_credentials", 50, status(code, body));
        let error = application.token().await.unwrap_err().to_string();
        assert!(!error.contains(ACCOUNT) && error.contains("Entra"), "{body}: {error}");
    }
}

#[tokio::test]
async fn the_server_refuses_to_start_with_a_missing_token_file_or_an_invalid_configuration() {
    let setup = Setup::new();
    setup.write_files();
    let mut command = serve(&setup);
    command.env_remove("AZURE_FEDERATED_TOKEN_FILE");
    assert!(refusal(command).await.contains("AZURE_FEDERATED_TOKEN_FILE is not set"));

    std::fs::write(setup.file("config.yaml"), "server: { namespace: a, name: b }\nclientSecret: x\n").unwrap();
    let message = refusal(serve(&setup)).await;
    assert!(message.contains("clientSecret"), "{message}");
}

#[tokio::test]
async fn the_program_writes_audit_lines_to_stdout_and_finishes_its_answers_before_it_ends() {
    let setup = Setup::new();
    setup.write_files();
    let mut child: Child = serve(&setup).spawn().unwrap();
    let mut logs = BufReader::new(child.stderr.take().unwrap()).lines();
    let serving = log_line(&mut logs, "admin_address").await;
    ready(&serving).await;
    let refused = post(&serving).send().await.unwrap();
    assert_eq!(refused.status(), 401);

    delay_graph(setup.tenant.id, 3_000);
    let call = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"get_user_details"}}"#;
    let in_flight = tokio::spawn(post(&serving).bearer_auth(setup.tenant.token(ALICE)).body(call).send());
    eventually("the call has reached Entra", async || (setup.tenant.grants(ON_BEHALF_OF) > 0).then_some(())).await;
    terminate(&child);
    let answered = in_flight.await.unwrap().unwrap();
    let answered_id = request_id(&answered);
    let answer: Value = answered.json().await.unwrap();
    assert_eq!(answer["result"]["structuredContent"]["displayName"], "Alice Adams");

    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{:?}", output.status);
    let stdout = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let recorded: Vec<_> = lines.iter().map(|line| line["requestId"].as_str().unwrap()).collect();
    assert_eq!(recorded, [&answered_id, &request_id(&refused)], "counted requests are logged at the end");
    assert_eq!((&lines[1]["reason"], &lines[1]["count"]), (&"token_missing".into(), &1.into()));
}

/// A server whose log is recorded.
struct Logged {
    child: Child,
    serving: Value,
    log: JoinHandle<String>,
}

impl Logged {
    async fn start(setup: &Setup, filter: &str) -> Self {
        let mut command = serve(setup);
        command.env("RUST_LOG", filter);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let serving = log_line(&mut lines, "admin_address").await;
        let log = tokio::spawn(async move {
            let mut log = String::new();
            while let Some(line) = lines.next_line().await.unwrap() {
                log.push_str(&line);
            }
            log
        });
        ready(&serving).await;
        Self { child, serving, log }
    }

    async fn call(&self, token: &str, params: &str) -> String {
        let call = format!(r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{params}}}"#);
        post(&self.serving).bearer_auth(token).body(call).send().await.unwrap().text().await.unwrap()
    }

    /// A call of a client of 2026-07-28, which ends with its connection.
    async fn call_that_can_be_given_up(&self, token: &str) {
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {},
        });
        let params = json!({ "name": "get_user_details", "_meta": meta });
        let call = json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params });
        let call = post(&self.serving).bearer_auth(token).body(call.to_string());
        let call = call.header("mcp-protocol-version", "2026-07-28").header("mcp-method", "tools/call");
        call.header("mcp-name", "get_user_details").send().await.unwrap();
    }

    /// Returns `/status` once it contains this.
    async fn status_with(&self, text: &str) -> String {
        eventually(text, async || Some(self.admin("/status").await).filter(|status| status.contains(text))).await
    }

    async fn metrics(&self) -> String {
        self.admin("/metrics").await
    }

    async fn admin(&self, path: &str) -> String {
        let url = format!("http://{}{path}", self.serving["admin_address"].as_str().unwrap());
        http().get(url).send().await.unwrap().text().await.unwrap()
    }

    /// Ends it. Returns its log, and its audit lines.
    async fn end(self) -> String {
        terminate(&self.child);
        let output = tokio::time::timeout(PATIENCE, self.child.wait_with_output()).await.unwrap().unwrap();
        assert!(output.status.success(), "{:?}", output.status);
        let log = self.log.await.unwrap();
        assert!(log.contains("draining"), "{log}");
        log + &String::from_utf8(output.stdout).unwrap()
    }
}

pub(crate) fn http() -> Client {
    Client::builder().no_proxy().timeout(PATIENCE).build().unwrap()
}

/// Waits until the server that has logged this line is ready.
pub(crate) async fn ready(serving: &Value) {
    let (http, url) = (http(), format!("http://{}/readyz", serving["admin_address"].as_str().unwrap()));
    eventually("it is ready", async || (http.get(&url).send().await.ok()?.status() == 200).then_some(())).await;
}

/// A POST to the server that has logged this line.
pub(crate) fn post(serving: &Value) -> RequestBuilder {
    let url = format!("http://{}/mcp", serving["address"].as_str().unwrap());
    let request = http().post(url).header("host", HOST).header("content-type", "application/json");
    request.header("accept", "application/json, text/event-stream")
}

pub(crate) fn terminate(child: &Child) {
    kill(Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()), Signal::SIGTERM).unwrap();
}

fn request_id(response: &Response) -> String {
    response.headers()["x-request-id"].to_str().unwrap().to_owned()
}
