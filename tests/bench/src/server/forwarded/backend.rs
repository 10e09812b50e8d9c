//! MCP servers that calls are forwarded to, and the calls.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use mcp_entra_policy::{BackendConfiguration, BackendIdentity, BackendSessions, BackendTransport, HttpBackend};
use serde_json::{Value, json};
use stock_backends::Public;

use crate::server::handshake::{REVISION, open_session};
use crate::server::load::{Order, Process};
use crate::server::shim::Shim;

/// Revision without a handshake.
const MODERN: &str = "2026-07-28";

/// A running backend.
pub(super) struct Backend {
    /// Name in the table, and of the folder with the files of the server in front of it.
    pub(super) name: &'static str,
    /// Tool of the calls.
    pub(super) tool: &'static str,
    /// Configuration of the server in front of it.
    pub(super) configuration: BackendConfiguration,
    /// Shim of a backend over stdio.
    pub(super) shim: Option<Shim>,
    /// Direct calls to it, in the revision that it supports.
    pub(super) alone: Order,
    _http: Option<stock_backends::HttpBackend>,
}

impl Backend {
    /// Starts all of them on the cores of this thread. The load starts a backend over stdio on this core.
    pub(super) async fn start_all(shim: &Path, core: usize) -> anyhow::Result<[Self; 3]> {
        let scratch = Path::new("/");
        let everything = Public::Everything.start_http(scratch).await?;
        let mut legacy = everything_call();
        legacy.address = (Ipv4Addr::LOCALHOST, everything.port).into();
        legacy.headers.push(header("mcp-session-id", &open_session(&everything.url()).await?));
        let greeter = Public::Greeter.start_http(scratch).await?;
        let mut modern = greeter_call();
        modern.address = (Ipv4Addr::LOCALHOST, greeter.port).into();
        let stdio = Public::Everything.launch(scratch)?;
        let piped = Order { process: Some(Process { command: stdio.words(), core }), ..everything_call() };
        Ok([
            Self::over_http("server-everything, HTTP", "echo", everything, legacy),
            Self::over_http("FastMCP, HTTP", "greet", greeter, modern),
            Self {
                name: "server-everything, stdio",
                tool: "echo",
                // One process: a hundred of them would fill the machine.
                configuration: configuration(BackendTransport::Stdio {}, BackendSessions::Shared),
                shim: Some(Shim::start(shim, &stdio).await?),
                alone: piped,
                _http: None,
            },
        ])
    }

    fn over_http(name: &'static str, tool: &'static str, http: stock_backends::HttpBackend, alone: Order) -> Self {
        let place = HttpBackend { port: http.port, path: http.path.to_owned() };
        let transport = BackendTransport::StreamableHttp(place);
        let configuration = configuration(transport, BackendSessions::PerPrincipal);
        Self { name, tool, configuration, shim: None, alone, _http: Some(http) }
    }

    /// Returns the same calls to a server in front of it, at this address, with these tokens.
    pub(super) fn forwarded(&self, address: SocketAddr, tokens: &[String]) -> Order {
        let mut order = Order { address, process: None, tokens: tokens.to_vec(), ..self.alone.clone() };
        // The server keeps the backend's sessions, and has none itself.
        order.headers.retain(|(name, _)| name != "mcp-session-id");
        order
    }
}

fn configuration(transport: BackendTransport, sessions: BackendSessions) -> BackendConfiguration {
    BackendConfiguration { transport, identity: BackendIdentity::None, sessions, pin: None }
}

fn everything_call() -> Order {
    let params = json!({"name": "echo", "arguments": {"message": "hej"}});
    Order { headers: vec![header("mcp-protocol-version", REVISION)], ..call(params, "Echo: hej") }
}

fn greeter_call() -> Order {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": env!("CARGO_PKG_VERSION")},
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let params = json!({"name": "greet", "arguments": {"name": "Alice"}, "_meta": meta});
    let headers = [("mcp-protocol-version", MODERN), ("mcp-method", "tools/call"), ("mcp-name", "greet")];
    Order { headers: headers.map(|(name, value)| header(name, value)).into(), ..call(params, "Hello, Alice!") }
}

/// Returns a call whose address is set later.
fn call(params: Value, part: &str) -> Order {
    Order {
        address: (Ipv4Addr::LOCALHOST, 0).into(),
        path: "/mcp".to_owned(),
        process: None,
        headers: vec![],
        body: json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}).to_string(),
        tokens: vec![],
        status: 200,
        part: part.to_owned(),
        connections: 1,
        seconds: 0.0,
        at_least: 0,
        rate: None,
    }
}

fn header(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}
