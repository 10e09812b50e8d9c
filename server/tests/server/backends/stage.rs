//! Server in front of a scripted backend, in each combination of era and transport.

use std::collections::BTreeMap;

use futures::future::join_all;
use mcp_entra_policy::{Pattern, Rate};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use stock_backends::scripted::{self, Era, Options, Scripted, TOOLS};

use super::{Shim, over_http, over_stdio, setup};
use crate::harness::{Setup, Site, eventually, grant_to_sales};
use crate::tenant::ALICE;

/// The eras of backends.
pub(super) const ERAS: [Era; 2] = [Era::Legacy, Era::Modern];

const VERSION: &str = "2026-07-28";
const PREFIX: &str = "io.modelcontextprotocol/";

/// A server and the backend behind it. Alice and Bob may use all of its tools.
pub(super) struct Stage {
    pub(super) site: Site,
    pub(super) behind: Behind,
    pub(super) options: Options,
}

/// Backend, by its transport.
pub(super) enum Behind {
    Http(Scripted),
    /// Dropping this ends the shim.
    Stdio {
        _shim: Shim,
    },
}

/// A message that the backend has received.
#[derive(Clone, Debug)]
pub(super) struct Received {
    pub(super) text: String,
    pub(super) message: Value,
    /// The headers, in lower case. Empty over stdio.
    pub(super) headers: BTreeMap<String, String>,
}

impl Received {
    pub(super) fn new(text: &str, headers: impl IntoIterator<Item = (String, String)>) -> Self {
        let message = serde_json::from_str(text).unwrap();
        Self { text: text.to_owned(), message, headers: headers.into_iter().collect() }
    }

    pub(super) fn method(&self) -> &str {
        self.message["method"].as_str().unwrap_or_default()
    }
}

impl Stage {
    /// Starts a server with a backend for each era and transport.
    pub(super) async fn each() -> Vec<Self> {
        let all = ERAS.map(async |era| [Self::http(Options::of(era)).await, Self::stdio(Options::of(era)).await]);
        join_all(all).await.into_iter().flatten().collect()
    }

    pub(super) async fn http(options: Options) -> Self {
        Self::http_with(options, |_| ()).await
    }

    /// Starts a server with this backend over HTTP, with this change of the setup.
    pub(super) async fn http_with(options: Options, change: impl FnOnce(&mut Setup)) -> Self {
        let backend = scripted::start(options.clone()).await.unwrap();
        let mut setup = everything(setup(over_http(backend.address.port(), "/mcp"), None, &[]));
        change(&mut setup);
        Self { site: setup.start().await, behind: Behind::Http(backend), options }
    }

    pub(super) async fn stdio(options: Options) -> Self {
        Self::stdio_with(options, |_| ()).await
    }

    /// Starts a server with this backend over stdio, with this change of the setup.
    pub(super) async fn stdio_with(options: Options, change: impl FnOnce(&mut Setup)) -> Self {
        let shim = Shim::start(&options.launch().unwrap()).await;
        let mut setup = everything(setup(over_stdio(), Some(shim.socket()), &[]));
        change(&mut setup);
        Self { site: setup.start().await, behind: Behind::Stdio { _shim: shim }, options }
    }

    /// Returns the era and the transport, for messages of assertions.
    pub(super) fn name(&self) -> String {
        format!("{:?} over {}", self.options.era, if self.is_http() { "HTTP" } else { "stdio" })
    }

    pub(super) fn is_modern(&self) -> bool {
        self.options.era == Era::Modern
    }

    pub(super) fn is_http(&self) -> bool {
        matches!(self.behind, Behind::Http(_))
    }

    /// Returns the backend over HTTP.
    pub(super) fn scripted(&self) -> &Scripted {
        let Behind::Http(scripted) = &self.behind else { panic!("over stdio") };
        scripted
    }

    /// Returns the messages that the backend has received. Over stdio, these are only those of Alice.
    pub(super) async fn received(&self) -> Vec<Received> {
        match &self.behind {
            Behind::Http(scripted) => {
                scripted.received().into_iter().map(|one| Received::new(&one.body, one.headers)).collect()
            }
            Behind::Stdio { .. } => {
                let answer = self.call(true, "received", json!({})).await;
                let all = answer["result"]["structuredContent"]["received"].as_array().unwrap().clone();
                all.iter().map(|one| Received::new(one["body"].as_str().unwrap(), [])).collect()
            }
        }
    }

    /// Returns the messages of this method that name this tool, prompt or URI.
    pub(super) async fn received_of(&self, method: &str, name: &str) -> Vec<Received> {
        let named = |one: &Received| {
            let params = &one.message["params"];
            one.method() == method && (params["name"] == name || params["uri"] == name)
        };
        self.received().await.into_iter().filter(named).collect()
    }

    /// Returns a request of Alice with the id 7.
    pub(super) fn request(&self, is_modern: bool, method: &str, params: Value) -> RequestBuilder {
        self.request_of(ALICE, is_modern, method, params)
    }

    /// Returns a request of this user with the id 7.
    pub(super) fn request_of(&self, user: &str, is_modern: bool, method: &str, params: Value) -> RequestBuilder {
        request(&self.site, user, is_modern, method, params)
    }

    /// Returns the answer to a request of Alice.
    pub(super) async fn ask(&self, is_modern: bool, method: &str, params: Value) -> Value {
        answer(self.request(is_modern, method, params)).await
    }

    /// Returns the answer to a call of Alice.
    pub(super) async fn call(&self, is_modern: bool, tool: &str, arguments: Value) -> Value {
        self.call_of(ALICE, is_modern, tool, arguments).await
    }

    /// Returns the answer to a call of this user.
    pub(super) async fn call_of(&self, user: &str, is_modern: bool, tool: &str, arguments: Value) -> Value {
        answer(self.request_of(user, is_modern, "tools/call", json!({ "name": tool, "arguments": arguments }))).await
    }

    /// Waits until the probe has found the backend.
    pub(super) async fn probed(&self) -> mcp_entra_policy::BackendStatus {
        let status = async || self.site.status().await.backend.filter(|backend| backend.works == Some(true));
        eventually("the probe has ended", status).await
    }
}

/// Returns a request of a user with the id 7.
pub(super) fn request(site: &Site, user: &str, is_modern: bool, method: &str, mut params: Value) -> RequestBuilder {
    let mut request = site.request().bearer_auth(site.setup.tenant.token(user));
    if is_modern {
        params["_meta"][format!("{PREFIX}protocolVersion")] = json!(VERSION);
        let capabilities = &mut params["_meta"][format!("{PREFIX}clientCapabilities")];
        if capabilities.is_null() {
            *capabilities = json!({});
        }
        request = request.header("mcp-protocol-version", VERSION).header("mcp-method", method);
        if let Some(name) = params["name"].as_str().or(params["uri"].as_str()) {
            request = request.header("mcp-name", name);
        }
    }
    request.body(json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params }).to_string())
}

/// Returns the message that answers a request, or the document of a refusal.
pub(super) async fn answer(request: RequestBuilder) -> Value {
    message(request.send().await.unwrap()).await
}

/// Returns the last message of an answer.
pub(super) async fn message(response: Response) -> Value {
    let text = response.text().await.unwrap();
    let last = text.lines().rev().find_map(|line| line.strip_prefix("data: ")).unwrap_or(&text);
    serde_json::from_str(last).unwrap_or_else(|_| panic!("no message: {text}"))
}

/// Returns the text of a tool's result.
pub(super) fn text(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text: {answer}"))
}

/// Returns the text of the result of a failed tool.
pub(super) fn failure(answer: &Value) -> &str {
    assert_eq!(answer["result"]["isError"], true, "{answer}");
    text(answer)
}

fn everything(mut setup: Setup) -> Setup {
    let tools = Vec::from_iter(TOOLS.iter().map(|(name, _)| Pattern((*name).to_owned())));
    let mut bobs = grant_to_sales(&setup.tenant, &[]);
    setup.policy.grants[0].allow.tools = tools;
    bobs.allow = setup.policy.grants[0].allow.clone();
    setup.policy.grants.push(bobs);
    // One test calls more often than a person would.
    setup.configuration.rate_limit.per_user = Rate { requests: 10_000, per_seconds: 1 };
    setup
}
