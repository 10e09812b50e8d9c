//! Tests of the built-in resources: answers of tools about the signed-in user, for users with a grant.

use entra_emulator::{ConditionalAccess, Fault, FaultKind, Host, Matcher};
use http::header::WWW_AUTHENTICATE;
use mcp_entra_policy::{BUILT_IN_RESOURCES, MY_PROFILE, Pattern};
use serde_json::{Value, json};

use crate::harness::{Setup, Site, deny_to_everyone, grant_to_readers};
use crate::tenant::{ALICE, BOB, control};

/// A server whose policy grants all tools that only read and every resource to readers.
fn setup() -> Setup {
    let mut setup = Setup::new();
    let mut grant = grant_to_readers(&["*"]);
    grant.allow.resources = vec![Pattern("*".into())];
    setup.policy.grants = vec![grant];
    setup
}

async fn uris(site: &Site, token: &str) -> Vec<String> {
    let answer: Value = site.rpc(token, "resources/list", json!({})).await.json().await.unwrap();
    let resources = answer["result"]["resources"].as_array().unwrap_or_else(|| panic!("no resources in {answer}"));
    resources.iter().map(|resource| resource["uri"].as_str().unwrap().to_owned()).collect()
}

fn all() -> Vec<&'static str> {
    BUILT_IN_RESOURCES.iter().map(|resource| resource.uri).collect()
}

async fn read(site: &Site, uri: &str) -> Value {
    site.rpc(&site.setup.tenant.token(ALICE), "resources/read", json!({ "uri": uri })).await.json().await.unwrap()
}

#[tokio::test]
async fn every_built_in_resource_is_listed_and_has_the_answer_of_its_tool_in_both_eras() {
    let site = setup().start().await;
    let token = site.setup.tenant.token(ALICE);
    for is_modern in [false, true] {
        let ask = async |method: &str, params: Value| site.answer_in(is_modern, &token, method, params).await;
        let listed = ask("resources/list", json!({})).await;
        let listed = listed["result"]["resources"].as_array().unwrap().clone();
        assert_eq!(listed.len(), BUILT_IN_RESOURCES.len());
        for (resource, built_in) in listed.iter().zip(BUILT_IN_RESOURCES) {
            assert_eq!(resource["uri"], built_in.uri);
            let got = ask("resources/read", json!({ "uri": built_in.uri })).await;
            let content = &got["result"]["contents"][0];
            assert_eq!((&content["uri"], &content["mimeType"]), (&resource["uri"], &resource["mimeType"]), "{got}");
            let told: Value = serde_json::from_str(content["text"].as_str().unwrap()).unwrap();
            let answer: Value = site.call(&token, built_in.tool.name, json!({})).await.json().await.unwrap();
            assert_eq!(told, answer["result"]["structuredContent"]);
            if is_modern {
                assert_eq!(got["result"]["cacheScope"], "private", "{got}");
            }
        }
    }
    let profile = read(&site, MY_PROFILE.uri).await;
    let text = profile["result"]["contents"][0]["text"].as_str().unwrap();
    assert!(text.contains(r#""displayName":"Alice Adams""#), "{text}");
}

#[tokio::test]
async fn a_resource_that_is_not_granted_is_not_listed_and_refused_by_its_uri() {
    let site = Setup::new().start().await;
    let alice = site.setup.tenant.token(ALICE);
    assert!(uris(&site, &alice).await.is_empty(), "a grant of tools does not apply to resources");
    let response = site.rpc(&alice, "resources/read", json!({ "uri": MY_PROFILE.uri })).await;
    assert_eq!(response.status(), 403);
    assert!(response.text().await.unwrap().contains(MY_PROFILE.uri));

    let mut setup = setup();
    let mut deny = deny_to_everyone(&[]);
    deny.forbid.resources = vec![Pattern("graph://me/*".into())];
    setup.policy.denies = vec![deny];
    let site = setup.start().await;
    for user in [ALICE, BOB] {
        let token = site.setup.tenant.token(user);
        assert!(uris(&site, &token).await.is_empty());
        let response = site.rpc(&token, "resources/read", json!({ "uri": MY_PROFILE.uri })).await;
        assert_eq!(response.status(), 403);
        assert!(response.text().await.unwrap().contains("guardrails"));
    }
    assert!(site.setup.tenant.requests().iter().all(|request| request.host != Host::Graph));
}

#[tokio::test]
async fn an_unknown_or_similar_uri_gets_an_error_with_the_uri() {
    let site = setup().start().await;
    assert_eq!(uris(&site, &site.setup.tenant.token(ALICE)).await, all());
    for uri in [
        "graph://me/photo",
        "graph://me/profile/",
        "GRAPH://me/profile",
        "graph://me/profile?x",
        "graph://me/%70rofile",
    ] {
        let answer = read(&site, uri).await;
        // The code of revisions before 2026-07-28.
        assert_eq!(
            (&answer["error"]["code"], &answer["error"]["data"]["uri"]),
            (&json!(-32002), &json!(uri)),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn a_resource_exists_only_with_its_tool() {
    let mut setup = setup();
    setup.configuration.graph.scopes = vec!["Mail.Read".into()];
    let site = setup.start().await;
    let alice = site.setup.tenant.token(ALICE);
    assert_eq!(site.tools(&alice).await, ["list_my_messages"]);
    let answer = read(&site, MY_PROFILE.uri).await;
    assert_eq!(answer["error"]["code"], -32601, "a server without resources has no method for them: {answer}");
    let described: Value = site.rpc_of_2026(&alice, "server/discover", json!({})).await.json().await.unwrap();
    let capabilities = &described["result"]["capabilities"];
    assert!(capabilities["prompts"].is_object() && capabilities["resources"].is_null(), "{described}");
}

#[tokio::test]
async fn a_sign_in_that_graph_requires_is_a_challenge_once_and_then_an_error_message() {
    let site = setup().start().await;
    let tenant = &site.setup.tenant;
    control()
        .change_tenant(tenant.id, |directory| {
            let apps = directory.apps.iter_mut().filter(|app| app.client_id == tenant.server);
            apps.for_each(|app| app.conditional_access = ConditionalAccess::MultiFactor);
            Ok(())
        })
        .unwrap();
    let mut claims = tenant.claims(ALICE);
    claims["xms_cc"] = json!(["cp1"]);
    let token = tenant.sign(&json!({}), &claims);
    let read = async || site.rpc(&token, "resources/read", json!({ "uri": MY_PROFILE.uri })).await;
    let response = read().await;
    assert_eq!(response.status(), 401);
    let challenge = response.headers()[WWW_AUTHENTICATE].to_str().unwrap();
    assert!(challenge.contains("insufficient_claims"), "{challenge}");
    let answer: Value = read().await.json().await.unwrap();
    assert_eq!(answer["error"]["code"], -32603, "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("AADSTS50076"), "{answer}");
}

#[tokio::test]
async fn missing_consent_and_refusals_of_graph_are_errors_with_a_next_step() {
    let site = setup().start().await;
    let tenant = site.setup.tenant.id;
    let body = json!({ "error": { "code": "ErrorAccessDenied", "message": "Access is denied.", "innerError": {} } });
    control()
        .inject(Fault {
            matcher: Matcher { tenant: Some(tenant), host: Some(Host::Graph), ..Matcher::default() },
            times: 1,
            kind: FaultKind::Status { status: 403, headers: [].into(), body: body.to_string() },
        })
        .unwrap();
    let answer = read(&site, MY_PROFILE.uri).await;
    assert_eq!(answer["error"]["code"], -32603, "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("ErrorAccessDenied"), "{answer}");

    let site = setup().start().await;
    control()
        .change_tenant(site.setup.tenant.id, |directory| {
            directory.apps.iter_mut().for_each(|app| app.granted_graph_scopes.clear());
            Ok(())
        })
        .unwrap();
    let answer = read(&site, MY_PROFILE.uri).await;
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("65001") && message.contains("User.Read") && message.contains("consent"), "{message}");
}
