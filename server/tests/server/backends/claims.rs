//! Tests of a backend that requires further claims in the tokens that it receives on behalf of users.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::Response;
use axum::http::header::WWW_AUTHENTICATE;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use entra_emulator::OptionalClaim;
use mcp_entra_policy::BackendIdentity;
use serde_json::{Value, json};

use super::puppet::{Puppet, described, status, told};
use super::stage::{Received, text};
use crate::claims_challenges::{asked, signed_in_with, token, tool_error};
use crate::harness::{ON_BEHALF_OF, Setup};
use crate::identity::backend_identity::{claims, registered};
use crate::scripted::Events;
use crate::tenant::control;

/// The authentication context that the backend requires.
const CONTEXT: &str = "c7";

/// The start of the refusal of a token in a tool's error.
const REFUSED: &str = "the backend refuses the user's token";

fn required() -> Value {
    json!({ "access_token": { "acrs": { "essential": true, "value": CONTEXT } } })
}

/// Returns a 401 with this challenge.
fn challenging(challenge: &str) -> Response<String> {
    let mut response = status(401);
    response.headers_mut().insert(WWW_AUTHENTICATE, challenge.parse().unwrap());
    response
}

/// Returns a 401 that requires these claims.
fn requiring(claims: &Value) -> Response<String> {
    let claims = STANDARD.encode(claims.to_string());
    challenging(&format!(r#"Bearer error="insufficient_claims", claims="{claims}""#))
}

/// Returns true if the token is of a sign-in with [`CONTEXT`].
fn has_context(received: &Received) -> bool {
    let token = received.headers.get("authorization").and_then(|bearer| bearer.strip_prefix("Bearer "));
    token.is_some_and(|token| claims(token)["acrs"] == json!([CONTEXT]))
}

/// Returns the answer of a backend that requires nothing.
fn served(received: &Received) -> Response<String> {
    match received.method() {
        "tools/list" => told(received, r#""result":{"tools":[{"name":"guarded","inputSchema":{}}]}"#),
        "tools/call" => told(received, r#""result":{"content":[{"type":"text","text":"in"}]}"#),
        "prompts/list" => told(received, r#""result":{"prompts":[]}"#),
        "resources/list" => told(received, r#""result":{"resources":[]}"#),
        _ => described(received),
    }
}

/// Starts a backend that requires [`CONTEXT`] for this method.
async fn strict(method: &'static str) -> Puppet {
    Puppet::start(move |received| match received.method() == method && !has_context(received) {
        true => requiring(&required()),
        false => served(received),
    })
    .await
}

/// Lets the backend get tokens on behalf of users. Tokens name the authentication contexts of the sign-in.
fn on_behalf_of(setup: &mut Setup) {
    let (backend, identity) = registered(&setup.tenant, true);
    setup.configuration.backend.as_mut().unwrap().identity = identity;
    let registrations = [backend, setup.tenant.server];
    let change = control().change_tenant(setup.tenant.id, |directory| {
        let apps = directory.apps.iter_mut().filter(|app| registrations.contains(&app.client_id));
        apps.for_each(|app| app.optional_claims.push(OptionalClaim::Acrs));
        Ok(())
    });
    change.unwrap();
}

fn params() -> Value {
    json!({ "name": "guarded", "arguments": {} })
}

fn calls(puppet: &Puppet) -> usize {
    puppet.received().iter().filter(|one| one.method() == "tools/call").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_that_the_backend_requires_are_a_challenge_that_a_capable_client_meets() {
    for (method, params, expected) in
        [("tools/call", params(), r#""text":"in""#), ("tools/list", json!({}), r#""name":"guarded""#)]
    {
        let puppet = strict(method).await;
        let site = puppet.site_with(&["guarded"], on_behalf_of).await;
        let tenant = &site.setup.tenant;
        let refused = site.rpc(&token(tenant, true), method, params.clone()).await;
        assert_eq!(refused.status(), 401, "{method}");
        let claims = asked(&refused).unwrap();
        assert_eq!(claims["access_token"]["acrs"], required()["access_token"]["acrs"], "{claims}");
        let line = site.audit_of(&refused).await;
        assert_eq!((&line["reason"], &line["status"]), (&json!("insufficient_claims"), &json!(401)), "{line}");

        let answered = site.rpc(&signed_in_with(tenant, &claims).await, method, params).await;
        assert_eq!(answered.status(), 200, "{method}");
        let answer = answered.text().await.unwrap();
        assert!(answer.contains(expected), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_support_for_challenges_gets_the_backends_requirement_as_a_tool_error() {
    let puppet = strict("tools/call").await;
    let site = puppet.site_with(&["guarded"], on_behalf_of).await;
    for _ in 0..2 {
        let text = tool_error(site.rpc(&token(&site.setup.tenant, false), "tools/call", params()).await).await;
        assert!(text.contains("AADSTS50076") && text.contains("second factor"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_that_the_backend_requires_during_a_stream_are_a_tool_error_and_a_challenge_to_the_next_call() {
    let puppet = Puppet::start(|received| {
        let params = &received.message["params"];
        match received.method() {
            "tools/call" if params["requestState"].is_null() => {
                let progress = json!({ "progressToken": params["_meta"]["progressToken"], "progress": 1 });
                let notification = json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": progress });
                let again = told(received, r#""result":{"resultType":"input_required","requestState":"again"}"#);
                let body = format!("data: {notification}\n\ndata: {}\n\n", again.body());
                Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
            }
            "tools/call" if !has_context(received) => requiring(&required()),
            _ => served(received),
        }
    })
    .await;
    let site = puppet.site_with(&["guarded"], on_behalf_of).await;
    let token = token(&site.setup.tenant, true);
    let mut params = params();
    params["_meta"] = json!({ "progressToken": 1 });
    let mut events = Events::of(site.rpc(&token, "tools/call", params.clone()).await);
    assert_eq!(events.next().await.unwrap()["method"], "notifications/progress");
    let answer = events.next().await.unwrap();
    assert_eq!((&answer["id"], &answer["result"]["isError"]), (&json!(7), &json!(true)), "{answer}");
    assert!(text(&answer).contains("AADSTS50076"), "{answer}");
    assert_eq!(events.next().await, None);

    let before = calls(&puppet);
    let challenged = site.rpc(&token, "tools/call", params).await;
    assert_eq!(challenged.status(), 401);
    assert_eq!(asked(&challenged).unwrap()["access_token"]["acrs"]["value"], CONTEXT);
    assert_eq!(calls(&puppet), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_the_backend_refuses_is_replaced_once_and_a_second_refusal_is_a_tool_error() {
    let claims = json!({ "access_token": { "nbf": { "essential": true, "value": "1" } } });
    for refusals in [1, 2] {
        let (claims, asked) = (claims.clone(), Arc::<AtomicUsize>::default());
        let puppet = Puppet::start(move |received| {
            let refuses = received.method() == "tools/call" && asked.fetch_add(1, Ordering::SeqCst) < refusals;
            if refuses { requiring(&claims) } else { served(received) }
        })
        .await;
        let site = puppet.site_with(&["guarded"], on_behalf_of).await;
        let tenant = &site.setup.tenant;
        let response = site.rpc(&token(tenant, true), "tools/call", params()).await;
        if refusals == 1 {
            assert_eq!(text(&response.json::<Value>().await.unwrap()), "in");
        } else {
            let text = tool_error(response).await;
            assert!(text.contains(REFUSED), "{text}");
        }
        let received = puppet.received().into_iter().filter(|one| one.method() == "tools/call");
        let tokens = Vec::from_iter(received.map(|one| one.headers["authorization"].clone()));
        assert_eq!((tokens.len(), tenant.grants(ON_BEHALF_OF)), (2, 2), "{refusals}");
        assert_ne!(tokens[0], tokens[1]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_401_without_claims_or_for_no_token_of_entra_is_a_tool_error_and_no_challenge() {
    let (asserts, nothing) = (BackendIdentity::Assertion {}, BackendIdentity::None);
    let header = requiring(&required()).headers()[WWW_AUTHENTICATE].to_str().unwrap().to_owned();
    for (identity, header) in [
        (None, "Bearer".to_owned()),
        (None, r#"Bearer error="invalid_token""#.to_owned()),
        (None, header.replace("insufficient_claims", "invalid_token")),
        (Some(asserts), header.clone()),
        (Some(nothing), header.clone()),
    ] {
        let challenge = header.clone();
        let puppet = Puppet::start(move |received| match received.method() {
            "tools/call" => challenging(&challenge),
            _ => served(received),
        })
        .await;
        let site = puppet
            .site_with(&["guarded"], |setup| match identity {
                Some(identity) => setup.configuration.backend.as_mut().unwrap().identity = identity,
                None => on_behalf_of(setup),
            })
            .await;
        let text = tool_error(site.rpc(&token(&site.setup.tenant, true), "tools/call", params()).await).await;
        assert!(text.contains(REFUSED), "{header}: {text}");
        assert_eq!(calls(&puppet), 1, "{header}");
    }
}
