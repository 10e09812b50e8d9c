//! Tests of the caller's identity, as a backend receives it.

use mcp_entra_policy::{BackendConfiguration, BackendIdentity};
use serde_json::{Value, json};
use stock_backends::scripted::{self, Era, Options, Scripted};

use super::puppet::{Puppet, described, told};
use super::stage::{answer, request, text};
use super::{Shim, call, over_http, over_stdio, setup};
use crate::harness::{Site, eventually};
use crate::identity::backend_identity::{registered, verified};
use crate::tenant::ALICE;

const TOOLS: [&str; 3] = ["whoami", "add", "replay_assertion"];

fn with(identity: BackendIdentity, backend: BackendConfiguration) -> BackendConfiguration {
    BackendConfiguration { identity, ..backend }
}

async fn over_scripted_http(era: Era, identity: BackendIdentity) -> (Site, Scripted) {
    let scripted = scripted::start(Options::of(era)).await.unwrap();
    let site = setup(with(identity, over_http(port(&scripted), "/mcp")), None, &TOOLS).start().await;
    (site, scripted)
}

fn port(scripted: &Scripted) -> u16 {
    scripted.url().parse::<reqwest::Url>().unwrap().port().unwrap()
}

/// Returns the headers and `_meta` that the backend received with a call of alice.
async fn received(site: &Site) -> (Value, Value) {
    let answer = call(site, true, "whoami", json!({})).await;
    let told = &answer["structuredContent"];
    (told["headers"].clone(), told["meta"].clone())
}

async fn jwks(site: &Site) -> Value {
    site.admin("/backend/jwks.json").await.json().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_over_http_gets_only_an_assertion_about_the_caller() {
    for era in [Era::Modern, Era::Legacy] {
        let (site, _scripted) = over_scripted_http(era, BackendIdentity::Assertion {}).await;
        let (headers, _) = received(&site).await;
        let assertion = headers["mcp-entra-assertion"].as_str().unwrap_or_else(|| panic!("{headers}"));
        let claims = verified(assertion, &jwks(&site).await, "mcp-entra-backend:productivity/graph").unwrap();
        assert_eq!(claims["target"], "whoami", "{claims}");
        assert_eq!(claims["oid"], site.setup.tenant.user_id(ALICE).to_string(), "{claims}");
        assert_eq!(headers["authorization"], Value::Null, "the caller's token is not forwarded");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_gets_an_assertion_about_the_caller_in_the_meta_of_a_call() {
    for era in [Era::Modern, Era::Legacy] {
        let shim = Shim::start(&Options::of(era).launch().unwrap()).await;
        let backend = with(BackendIdentity::Assertion {}, over_stdio());
        let site = setup(backend, Some(shim.socket()), &TOOLS).start().await;
        let (_, meta) = received(&site).await;
        let assertion = meta["dev.mcp-entra/assertion"].as_str().unwrap_or_else(|| panic!("{meta}"));
        assert!(verified(assertion, &jwks(&site).await, "mcp-entra-backend:productivity/graph").is_some(), "{era:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_without_identity_gets_nothing_about_the_caller() {
    let (site, _scripted) = over_scripted_http(Era::Modern, BackendIdentity::None).await;
    let (headers, meta) = received(&site).await;
    for absent in ["authorization", "mcp-entra-assertion", "cookie"] {
        assert_eq!(headers[absent], Value::Null, "{headers}");
    }
    assert_eq!(meta["dev.mcp-entra/assertion"], Value::Null, "{meta}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_assertion_that_a_backend_replays_at_the_endpoint_is_refused() {
    let scripted = scripted::start(Options::of(Era::Modern)).await.unwrap();
    let mut setup = setup(with(BackendIdentity::Assertion {}, over_http(port(&scripted), "/mcp")), None, &TOOLS);
    // The backend is reached by its address.
    setup.configuration.public_url = None;
    let site = setup.start().await;
    let url = format!("http://{}{}", site.running.address(), site.setup.configuration.path);
    let answer = call(&site, true, "replay_assertion", json!({ "url": url })).await;
    assert_eq!(answer["structuredContent"]["status"], 401, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_gets_a_token_of_entra_for_itself_on_behalf_of_the_caller() {
    let scripted = scripted::start(Options::of(Era::Modern)).await.unwrap();
    let mut setup = setup(over_http(port(&scripted), "/mcp"), None, &TOOLS);
    let (backend, identity) = registered(&setup.tenant, true);
    setup.configuration.backend.as_mut().unwrap().identity = identity;
    let site = setup.start().await;
    let (headers, _) = received(&site).await;
    let bearer = headers["authorization"].as_str().unwrap_or_else(|| panic!("{headers}"));
    let token = bearer.strip_prefix("Bearer ").unwrap();
    assert_ne!(token, site.setup.tenant.token(ALICE));
    assert!(crate::identity::backend_identity::claims(token)["aud"].as_str().unwrap().contains(&backend.to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_consent_nothing_reaches_the_backend_and_the_answer_has_the_next_step() {
    let scripted = scripted::start(Options::of(Era::Modern)).await.unwrap();
    let mut setup = setup(over_http(port(&scripted), "/mcp"), None, &TOOLS);
    let (_, identity) = registered(&setup.tenant, false);
    setup.configuration.backend.as_mut().unwrap().identity = identity;
    let site = setup.start().await;
    let response = site.call(&site.setup.tenant.token(ALICE), "whoami", json!({})).await;
    assert_eq!(response.status(), 503);
    let text = response.text().await.unwrap();
    assert!(text.contains("AADSTS65001") && text.contains("Grant admin consent"), "{text}");
    assert!(!format!("{:?}", scripted.received()).contains("whoami"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_of_a_pod_lists_a_port_that_its_backend_opens_on_all_addresses() {
    let shim = Shim::start(&Options::of(Era::Modern).launch().unwrap()).await;
    let tools = ["listen_everywhere", "announce"];
    let site = setup(over_stdio(), Some(shim.socket()), &tools).start().await;
    let listens = async || site.status().await.backend?.listens;
    eventually("a probe has read the sockets", listens).await;
    // Other programs listen, too. The status has the first 16 addresses in the order of text, so this port is low.
    let mut ports = 10_000..11_000;
    let address = loop {
        let port = ports.next().unwrap();
        let answer = call(&site, true, "listen_everywhere", json!({ "port": port })).await;
        if answer["isError"] != true {
            break format!("0.0.0.0:{port}");
        }
    };
    // A probe follows each change of a list.
    call(&site, true, "announce", json!({ "kind": "tools" })).await;
    eventually("a probe has seen the port", async || listens().await?.contains(&address).then_some(())).await;
}

/// A state whose bytes another layer might change.
const STATE: &str = r#"{"round":1.50,"to":"Alice Ö",  "n":12345678901234567890123}"#;

/// Starts a backend that requests input of the client, and answers with the state that it gets back.
async fn stateful() -> Puppet {
    Puppet::start(|received| {
        let state = &received.message["params"]["requestState"];
        match received.method() {
            "tools/list" => told(received, r#""result":{"tools":[{"name":"asks","inputSchema":{}}]}"#),
            "prompts/list" => told(received, r#""result":{"prompts":[]}"#),
            "resources/list" => told(received, r#""result":{"resources":[]}"#),
            "tools/call" if state.is_null() => {
                let request = json!({ "method": "elicitation/create", "params": {
                    "message": "Sure?", "requestedSchema": { "type": "object", "properties": {} },
                } });
                let result = json!({
                    "resultType": "input_required", "inputRequests": { "sure": request }, "requestState": STATE,
                });
                told(received, &format!(r#""result":{result}"#))
            }
            "tools/call" => told(received, &format!(r#""result":{{"content":[{{"type":"text","text":{state}}}]}}"#)),
            _ => described(received),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_sees_the_user_gives_and_gets_its_state_verbatim() {
    for is_asserted in [true, false] {
        let puppet = stateful().await;
        let site = puppet
            .site_with(&["asks"], |setup| {
                let on_behalf_of = registered(&setup.tenant, true).1;
                let identity = if is_asserted { BackendIdentity::Assertion {} } else { on_behalf_of };
                setup.configuration.backend.as_mut().unwrap().identity = identity;
            })
            .await;
        let ask = |input: Value| {
            let mut params = json!({ "name": "asks", "arguments": {} });
            params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({ "elicitation": {} });
            params.as_object_mut().unwrap().extend(input.as_object().unwrap().clone());
            answer(request(&site, ALICE, true, "tools/call", params))
        };
        let asked = ask(json!({})).await;
        assert_eq!(asked["result"]["requestState"], STATE, "{asked}");
        // The backend decides about states, since it knows the user.
        for state in [STATE, "of nobody"] {
            let given = json!({ "sure": { "action": "accept" } });
            let done = ask(json!({ "requestState": state, "inputResponses": given })).await;
            assert_eq!(text(&done), state, "{done}");
            let mut calls = puppet.received().into_iter().filter(|one| one.method() == "tools/call");
            let received = calls.next_back().unwrap();
            assert_eq!(received.message["params"]["inputResponses"], given, "{received:?}");
        }
    }
}
