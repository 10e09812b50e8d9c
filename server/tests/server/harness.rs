//! Server in this process, on free ports, with a tenant of the emulated Entra. All of it ends with the test.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use entra_emulator::{Fault, FaultKind, Host, Matcher};
use mcp_entra_policy::{
    BUILT_IN_TOOLS, CallerKind, CompiledPolicy, Deny, Grant, GraphAccess, MappingReference, Pattern, Primitives,
    Requirements, ServerConfiguration, ServerStatus, Subject,
};
use mcp_entra_server::entra::FederatedToken;
use mcp_entra_server::oauth::start::Files;
use mcp_entra_server::offer::Offer;
use mcp_entra_server::serve::{self, Running};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::tenant::{BOB, ROLE, TestTenant, control, trust_bundle};

/// Host of the public URL.
pub(crate) const HOST: &str = "graph.mcp.contoso.com";
/// The grant type of the on-behalf-of exchange (RFC 7523).
pub(crate) const ON_BEHALF_OF: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// Timeout of everything that a test waits for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Schema of every line of the audit log.
static AUDIT_LINE: LazyLock<jsonschema::Validator> = LazyLock::new(|| {
    let schema = serde_json::to_value(mcp_entra_server::audit::schema()).unwrap();
    jsonschema::validator_for(&schema).unwrap()
});

/// A tenant, and the input of its server. Change it as the test needs, then call [`Setup::start`].
pub(crate) struct Setup {
    pub(crate) tenant: TestTenant,
    pub(crate) configuration: ServerConfiguration,
    pub(crate) policy: CompiledPolicy,
    pub(crate) drain: Duration,
    pub(crate) oauth: Files,
    /// The socket of a backend over stdio.
    pub(crate) backend_socket: Option<PathBuf>,
    /// Offer that replaces the built-in tools.
    pub(crate) offer: Option<Arc<dyn Offer>>,
}

/// A running server, its tenant and its files.
pub(crate) struct Site {
    pub(crate) setup: Setup,
    pub(crate) running: Running,
    pub(crate) http: Client,
    /// Scheme, host and port of clients' connections.
    pub(crate) origin: String,
    audit: AuditLines,
}

#[derive(Clone, Default)]
struct AuditLines(Arc<Mutex<Vec<u8>>>);

impl Write for AuditLines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Setup {
    /// A server with a public URL and all built-in tools. Its policy grants the tools that only read to [`ROLE`].
    pub(crate) fn new() -> Self {
        let tenant = TestTenant::new();
        let configuration = tenant.configuration();
        let policy =
            CompiledPolicy { denies: vec![], grants: vec![grant_to_readers(&["*"])], ..CompiledPolicy::default() };
        Self {
            tenant,
            configuration,
            policy,
            drain: Duration::ZERO,
            oauth: Files::default(),
            backend_socket: None,
            offer: None,
        }
    }

    /// Writes the files of the server.
    pub(crate) fn write_files(&self) {
        replace(&self.file("ca.pem"), trust_bundle().as_bytes());
        replace(&self.file("config.yaml"), serde_yaml::to_string(&self.configuration).unwrap().as_bytes());
        self.write_policy(&self.policy);
    }

    /// Starts a server and waits until it is ready.
    pub(crate) async fn start(self) -> Site {
        let site = self.start_unready().await;
        eventually("the server is ready", async || (site.admin("/readyz").await.status() == 200).then_some(())).await;
        site
    }

    /// Starts a server that may never become ready.
    pub(crate) async fn start_unready(self) -> Site {
        self.write_files();
        self.launch().await
    }

    /// Starts a server whose policy file contains these bytes from the beginning.
    pub(crate) async fn start_with_policy(self, document: &[u8]) -> Site {
        self.write_files();
        self.write_policy_document(document);
        self.launch().await
    }

    async fn launch(self) -> Site {
        let audit = AuditLines::default();
        let running = self.run(&audit).await;
        let http = Client::builder().no_proxy().resolve(HOST, running.address()).timeout(PATIENCE).build().unwrap();
        let origin = format!("http://{HOST}:{}", running.address().port());
        Site { setup: self, running, http, origin, audit }
    }

    /// Starts a server with the files as they are.
    async fn run(&self, audit: &AuditLines) -> Running {
        let options = serve::Options {
            config: self.file("config.yaml"),
            policy: self.file("policy.json"),
            trust_bundle: Some(self.file("ca.pem")),
            oauth: self.oauth.clone(),
            listen: ([127, 0, 0, 1], 0).into(),
            backend_socket: self.backend_socket.clone(),
            admin_listen: ([127, 0, 0, 1], 0).into(),
            drain: self.drain,
        };
        let token = FederatedToken::at(self.tenant.token_file());
        let audit = Box::new(audit.clone());
        match self.offer.clone() {
            None => serve::start(options, token, audit).await.unwrap(),
            Some(offer) => serve::start_offering(options, token, audit, |_, _, _| offer).await.unwrap(),
        }
    }

    /// Path of a file of the server: `config.yaml`, `policy.json` or `ca.pem`.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.tenant.path().join(name)
    }

    /// Replaces the policy atomically, as a kubelet does.
    pub(crate) fn write_policy(&self, policy: &CompiledPolicy) {
        self.write_policy_document(&serde_json::to_vec(policy).unwrap());
    }

    /// Replaces the policy with any bytes.
    pub(crate) fn write_policy_document(&self, document: &[u8]) {
        replace(&self.file("policy.json"), document);
    }
}

impl Site {
    /// The URL of a path on the public port.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    /// A POST to the MCP endpoint without a body and without a token, as an MCP client of 2025-11-25 sends it.
    pub(crate) fn request(&self) -> RequestBuilder {
        self.http
            .post(self.url(&self.setup.configuration.path))
            .header("accept", "application/json, text/event-stream")
            .header("content-type", "application/json")
    }

    /// Sends one JSON-RPC request, whose id is 7.
    pub(crate) async fn rpc(&self, token: &str, method: &str, params: Value) -> Response {
        let message = json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params });
        self.request().bearer_auth(token).body(message.to_string()).send().await.unwrap()
    }

    /// Sends one JSON-RPC request of MCP 2026-07-28.
    pub(crate) async fn rpc_of_2026(&self, token: &str, method: &str, mut params: Value) -> Response {
        const VERSION: &str = "2026-07-28";
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": VERSION,
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        let mut request = self.request().header("mcp-protocol-version", VERSION).header("mcp-method", method);
        if let Some(name) = params.get("name").or(params.get("uri")) {
            request = request.header("mcp-name", name.as_str().unwrap());
        }
        let message = json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params });
        request.bearer_auth(token).body(message.to_string()).send().await.unwrap()
    }

    /// Returns the answer, with status 200, to a client of 2026-07-28 or of an earlier revision.
    pub(crate) async fn answer_in(&self, is_modern: bool, token: &str, method: &str, params: Value) -> Value {
        let response = match is_modern {
            true => self.rpc_of_2026(token, method, params).await,
            false => self.rpc(token, method, params).await,
        };
        assert_eq!(response.status(), 200, "{method}");
        response.json().await.unwrap()
    }

    /// Calls a tool.
    pub(crate) async fn call(&self, token: &str, tool: &str, arguments: Value) -> Response {
        self.rpc(token, "tools/call", json!({ "name": tool, "arguments": arguments })).await
    }

    /// Returns the names of the tools in the list for this token.
    pub(crate) async fn tools(&self, token: &str) -> Vec<String> {
        let answer: Value = self.rpc(token, "tools/list", json!({})).await.json().await.unwrap();
        let tools = answer["result"]["tools"].as_array().unwrap_or_else(|| panic!("no tools in {answer}"));
        tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
    }

    /// Starts another server with the current files, and waits until it is ready. Both write to the same audit log.
    pub(crate) async fn another(&self) -> Running {
        let running = self.setup.run(&self.audit).await;
        let url = format!("http://{}/readyz", running.admin_address());
        let ready = async || (self.http.get(&url).send().await.unwrap().status() == 200).then_some(());
        eventually("the other server is ready", ready).await;
        running
    }

    /// A GET on the admin port.
    pub(crate) async fn admin(&self, path: &str) -> Response {
        self.http.get(format!("http://{}{path}", self.running.admin_address())).send().await.unwrap()
    }

    /// `/status` on the admin port.
    pub(crate) async fn status(&self) -> ServerStatus {
        self.admin("/status").await.json().await.unwrap()
    }

    /// All audit lines so far.
    pub(crate) fn audit(&self) -> Vec<Value> {
        let lines: Vec<Value> = self.audit_log().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for line in &lines {
            AUDIT_LINE.validate(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        }
        lines
    }

    /// Stops the server, and returns the whole audit log.
    pub(crate) async fn stop(self) -> String {
        self.running.shutdown().await;
        String::from_utf8(self.audit.0.lock().unwrap().clone()).unwrap()
    }

    /// Returns the exact audit log so far.
    pub(crate) fn audit_log(&self) -> String {
        String::from_utf8(self.audit.0.lock().unwrap().clone()).unwrap()
    }

    /// Returns the audit line of the request with this answer. It is written just after the answer.
    pub(crate) async fn audit_of(&self, response: &Response) -> Value {
        let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
        eventually("the audit line is written", async || self.audit().into_iter().find(|line| line["requestId"] == *id))
            .await
    }
}

/// A grant of these tools to the app role [`ROLE`].
pub(crate) fn grant_to_readers(tools: &[&str]) -> Grant {
    grant("readers", Subject::AppRole { role: ROLE.into(), callers: [CallerKind::User].into() }, tools)
}

/// Returns the names of all built-in tools: patterns do not grant those that write.
pub(crate) fn every_tool() -> Vec<&'static str> {
    BUILT_IN_TOOLS.iter().map(|tool| tool.name).collect()
}

/// Returns arguments with which this built-in tool works.
pub(crate) fn arguments_for(tool: &str) -> Value {
    match tool {
        "create_event" => json!({
            "subject": "Lunch", "start": "2026-12-01T12:00:00", "end": "2026-12-01T13:00:00",
        }),
        "send_mail" => json!({ "to": [BOB], "subject": "Lunch", "body": "At noon?" }),
        _ => json!({}),
    }
}

/// A grant of these tools to the group `Sales`.
pub(crate) fn grant_to_sales(tenant: &TestTenant, tools: &[&str]) -> Grant {
    grant("sales", Subject::Group { id: tenant.sales.to_string(), display_name: Some("Sales".into()) }, tools)
}

/// A deny of these tools to everyone.
pub(crate) fn deny_to_everyone(tools: &[&str]) -> Deny {
    Deny {
        mapping: MappingReference { namespace: None, name: "guardrails".into() },
        name: "nobody".into(),
        registration: None,
        to: None,
        forbid: primitives(tools),
    }
}

/// A grant of these tools to that subject.
pub(crate) fn grant(name: &str, to: Subject, tools: &[&str]) -> Grant {
    Grant {
        mapping: MappingReference { namespace: Some("productivity".into()), name: format!("{name}-mapping") },
        name: name.into(),
        registration: None,
        to: vec![to],
        require: Requirements::default(),
        graph: GraphAccess::OnBehalfOf,
        allow: primitives(tools),
    }
}

fn primitives(tools: &[&str]) -> Primitives {
    Primitives { tools: tools.iter().map(|tool| Pattern((*tool).into())).collect(), ..Primitives::default() }
}

/// Polls until there is an answer. After [`PATIENCE`], it fails with the name of the awaited state.
pub(crate) async fn eventually<T>(what: &str, ask: impl AsyncFnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, ask).await
}

/// Polls with a longer limit, for slow steps on a busy machine.
pub(crate) async fn eventually_within<T>(limit: Duration, what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {} s: {what}", limit.as_secs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Delays Graph's answer to the next request of this tenant.
pub(crate) fn delay_graph(tenant: uuid::Uuid, milliseconds: u64) {
    control()
        .inject(Fault {
            matcher: Matcher { tenant: Some(tenant), host: Some(Host::Graph), ..Matcher::default() },
            times: 1,
            kind: FaultKind::Delay { milliseconds },
        })
        .unwrap();
}

/// Replaces a file atomically.
pub(crate) fn replace(path: &Path, content: &[u8]) {
    let new = path.with_extension("new");
    std::fs::write(&new, content).unwrap();
    std::fs::rename(&new, path).unwrap();
}
