//! Tests of authorization by the current policy.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mcp_entra_policy::{CallerKind, CompiledPolicy, Requirements, Subject};
use reqwest::header::WWW_AUTHENTICATE;
use serde_json::{Value, json};

use crate::harness::{Setup, Site, deny_to_everyone, eventually, grant, grant_to_readers, grant_to_sales};
use crate::tenant::{ALICE, BOB, ROLE, SCOPE};

#[tokio::test]
async fn a_caller_sees_and_calls_only_the_tools_that_a_role_grants() {
    let mut setup = Setup::new();
    setup.policy = CompiledPolicy {
        denies: vec![],
        grants: vec![grant_to_readers(&["get_user_details"])],
        ..CompiledPolicy::default()
    };
    let site = setup.start().await;
    let alice = site.setup.tenant.token(ALICE);
    assert_eq!(site.tools(&alice).await, ["get_user_details"]);
    let granted = site.call(&alice, "get_user_details", json!({})).await;
    assert_eq!(granted.status(), 200);
    let line = site.audit_of(&granted).await;
    assert_eq!(line["rule"], json!({ "mapping": "productivity/readers-mapping", "grant": "readers" }));
    assert_eq!(site.call(&alice, "list_my_messages", json!({})).await.status(), 403);
    assert_eq!(site.tools(&site.setup.tenant.token(BOB)).await, [""; 0]);
}

#[tokio::test]
async fn a_refused_call_names_the_role_or_group_that_would_allow_it() {
    let mut setup = Setup::new();
    let other_group = mcp_entra_policy::Subject::Group {
        id: "11111111-1111-4111-8111-111111111111".into(),
        display_name: Some("Marketing".into()),
    };
    setup.policy.grants.iter_mut().for_each(|grant| grant.to.push(other_group.clone()));
    let site = setup.start().await;
    let response = site.call(&site.setup.tenant.token(BOB), "get_user_details", json!({})).await;
    assert_eq!(response.status(), 403);
    assert!(!response.headers().contains_key(WWW_AUTHENTICATE));

    let line = site.audit_of(&response).await;
    let answer: Value = response.json().await.unwrap();
    assert_eq!((&answer["jsonrpc"], &answer["id"], &answer["error"]["code"]), (&json!("2.0"), &json!(7), &json!(403)));
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("the app role Mcp.Reader or membership in the group Marketing"), "{message}");
    let data = &answer["error"]["data"];
    assert_eq!((&data["roles"], &data["groups"]), (&json!(["Mcp.Reader"]), &json!(["Marketing"])));
    assert_eq!(data["requestId"], line["requestId"]);
    assert_eq!(
        (&line["decision"], &line["reason"], &line["rule"]),
        (&json!("refused"), &json!("not_granted"), &Value::Null)
    );

    let reached_graph = site.setup.tenant.requests().iter().any(|request| request.host == entra_emulator::Host::Graph);
    assert!(!reached_graph);
}

#[tokio::test]
async fn a_grant_to_users_with_the_role_does_not_apply_to_an_application_with_it() {
    let site = Setup::new().start().await;
    let tenant = &site.setup.tenant;
    let daemon = tenant.sign(&json!({}), &tenant.application_claims(tenant.daemon));
    assert_eq!(site.tools(&daemon).await, [""; 0]);
    assert_eq!(site.call(&daemon, "get_user_details", json!({})).await.status(), 403);
}

#[tokio::test]
async fn a_changed_policy_is_enforced_within_seconds_and_without_a_restart() {
    let site = Setup::new().start().await;
    let bob = site.setup.tenant.token(BOB);
    assert_eq!(site.call(&bob, "get_user_details", json!({})).await.status(), 403);

    let mut policy = site.setup.policy.clone();
    policy.grants.push(grant_to_sales(&site.setup.tenant, &["get_*"]));
    site.setup.write_policy(&policy);
    eventually("bob may call", async || {
        (site.call(&bob, "get_user_details", json!({})).await.status() == 200).then_some(())
    })
    .await;
    assert_eq!(site.tools(&bob).await, ["get_user_details"]);
    let expected = mcp_entra_policy::revision(&serde_json::to_vec(&policy).unwrap());
    assert_eq!(site.status().await.policy.revision, Some(expected));

    site.setup.write_policy(&site.setup.policy);
    eventually("bob may no longer call", async || {
        (site.call(&bob, "get_user_details", json!({})).await.status() == 403).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_unreadable_policy_is_reported_and_the_last_valid_one_stays_in_force() {
    let site = Setup::new().start().await;
    let alice = site.setup.tenant.token(ALICE);
    let revision = site.status().await.policy.revision;
    assert!(revision.is_some());

    let mut too_large = br#"{"grants":[]}"#.to_vec();
    too_large.resize(2 * 1024 * 1024, b' ');
    for document in [&b"{"[..], br#"{"grants":[{"everything":true}]}"#, &too_large] {
        site.setup.write_policy_document(document);
        let status = eventually("the error is reported", async || {
            Some(site.status().await.policy).filter(|policy| policy.error.is_some())
        })
        .await;
        assert_eq!(status.revision, revision);
        let readiness = site.admin("/readyz").await;
        assert_eq!(readiness.status(), 200);
        assert!(readiness.text().await.unwrap().contains("but not the newest"));
        assert_eq!(site.call(&alice, "get_user_details", json!({})).await.status(), 200);

        site.setup.write_policy(&site.setup.policy);
        eventually("the error is gone", async || site.status().await.policy.error.is_none().then_some(())).await;
    }
    std::fs::remove_file(site.setup.file("policy.json")).unwrap();
    eventually("the error is reported", async || site.status().await.policy.error).await;
    assert_eq!(site.call(&alice, "get_user_details", json!({})).await.status(), 200);
}

#[tokio::test]
async fn without_a_policy_nothing_is_allowed_and_the_pod_is_not_ready() {
    let site = Setup::new().start_with_policy(b"nonsense").await;
    let alice = site.setup.tenant.token(ALICE);
    eventually("alice gets in", async || (site.rpc(&alice, "ping", json!({})).await.status() == 200).then_some(()))
        .await;
    assert_eq!(site.tools(&alice).await, [""; 0]);
    assert_eq!(site.call(&alice, "get_user_details", json!({})).await.status(), 403);
    let readiness = site.admin("/readyz").await;
    assert_eq!(readiness.status(), 503);
    assert!(readiness.text().await.unwrap().contains("[-] policy: none"));
}

#[tokio::test]
async fn a_tool_that_the_server_does_not_offer_is_unknown_with_any_grant() {
    let mut setup = Setup::new();
    setup.configuration.graph.tools = vec!["get_user_details".into()];
    let site = setup.start().await;
    let alice = site.setup.tenant.token(ALICE);
    assert_eq!(site.tools(&alice).await, ["get_user_details"]);
    for tool in ["list_my_messages", "no_such_tool"] {
        let response = site.call(&alice, tool, json!({})).await;
        assert_eq!(site.audit_of(&response).await["reason"], "unknown_tool", "{tool}");
        let answer: Value = response.json().await.unwrap();
        assert_eq!(answer["error"]["code"], -32602, "{tool}: {answer}");
    }
}

#[tokio::test]
async fn a_deny_wins_over_every_grant_hides_the_tool_and_is_named() {
    let mut setup = Setup::new();
    setup.policy.denies = vec![deny_to_everyone(&["list_*"])];
    let site = setup.start().await;
    let alice = site.setup.tenant.token(ALICE);
    assert_eq!(site.tools(&alice).await, ["get_user_details"]);
    assert_eq!(site.call(&alice, "get_user_details", json!({})).await.status(), 200);

    let response = site.call(&alice, "list_my_messages", json!({})).await;
    assert_eq!(response.status(), 403);
    assert!(!response.headers().contains_key(WWW_AUTHENTICATE));
    let line = site.audit_of(&response).await;
    assert_eq!((&line["decision"], &line["reason"]), (&json!("refused"), &json!("denied")));
    assert_eq!(line["rule"], json!({ "mapping": "guardrails", "deny": "nobody" }));
    let answer: Value = response.json().await.unwrap();
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("The deny nobody of the ClusterMcpRoleMapping guardrails forbids it"), "{message}");
}

/// A server whose grant to readers requires this.
async fn requiring(scopes: &[&str], context: Option<&str>) -> Site {
    let mut setup = Setup::new();
    setup.policy.grants[0].require = Requirements {
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        authentication_context: context.map(str::to_owned),
    };
    setup.start().await
}

#[tokio::test]
async fn a_missing_scope_is_a_challenge_that_names_all_scopes_of_the_call_at_once() {
    let site = requiring(&["mail.read", "other.scope"], None).await;
    let tenant = &site.setup.tenant;
    let mut claims = tenant.claims(ALICE);
    claims["scp"] = json!(format!("{SCOPE} other.scope"));
    let without = tenant.sign(&json!({}), &claims);
    assert_eq!(site.tools(&without).await, [""; 0]);
    let response = site.call(&without, "get_user_details", json!({})).await;
    assert_eq!(response.status(), 403);
    let header = response.headers()[WWW_AUTHENTICATE].to_str().unwrap();
    let of = |scope: &str| format!("{}/{scope}", tenant.server);
    let scope = format!("scope=\"{} {} {}\"", of("mail.read"), of(SCOPE), of("other.scope"));
    assert!(header.starts_with("Bearer error=\"insufficient_scope\"") && header.contains(&scope), "{header}");
    let line = site.audit_of(&response).await;
    assert_eq!(line["reason"], "insufficient_scope");
    assert_eq!(line["rule"], json!({ "mapping": "productivity/readers-mapping", "grant": "readers" }));

    claims["scp"] = json!(format!("{SCOPE} other.scope mail.read"));
    let with = tenant.sign(&json!({}), &claims);
    assert_eq!(site.call(&with, "get_user_details", json!({})).await.status(), 200);
    // A caller without a grant is not sent for scopes that would not help.
    let mut bob = tenant.claims(BOB);
    bob["scp"] = claims["scp"].clone();
    let response = site.call(&tenant.sign(&json!({}), &bob), "get_user_details", json!({})).await;
    assert_eq!((response.status().as_u16(), response.headers().contains_key(WWW_AUTHENTICATE)), (403, false));
}

#[tokio::test]
async fn a_missing_authentication_context_is_a_claims_challenge_to_a_client_that_can_answer_it() {
    let site = requiring(&[], Some("c1")).await;
    let tenant = &site.setup.tenant;
    let mut claims = tenant.claims(ALICE);
    claims["xms_cc"] = json!(["cp1"]);
    claims["acrs"] = json!(["c2"]);
    let response = site.call(&tenant.sign(&json!({}), &claims), "get_user_details", json!({})).await;
    assert_eq!(response.status(), 401);
    let header = response.headers()[WWW_AUTHENTICATE].to_str().unwrap();
    assert!(header.starts_with("Bearer error=\"insufficient_claims\", claims=\""), "{header}");
    let encoded = header.split("claims=\"").nth(1).unwrap().split('"').next().unwrap();
    let asked: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(encoded).unwrap()).unwrap();
    assert_eq!(asked, json!({ "access_token": { "acrs": { "essential": true, "value": "c1" } } }));
    let line = site.audit_of(&response).await;
    assert_eq!((&line["reason"], &line["rule"]["grant"]), (&json!("insufficient_claims"), &json!("readers")));

    claims["acrs"] = json!(["c1"]);
    assert_eq!(site.call(&tenant.sign(&json!({}), &claims), "get_user_details", json!({})).await.status(), 200);
}

#[tokio::test]
async fn a_client_that_cannot_answer_a_claims_challenge_gets_an_error_of_the_tool_instead() {
    let site = requiring(&[], Some("c1")).await;
    let tenant = &site.setup.tenant;
    for capabilities in [None, Some(json!(["cp2"]))] {
        let mut claims = tenant.claims(ALICE);
        claims.as_object_mut().unwrap().remove("xms_cc");
        if let Some(capabilities) = capabilities {
            claims["xms_cc"] = capabilities;
        }
        let response = site.call(&tenant.sign(&json!({}), &claims), "get_user_details", json!({})).await;
        assert_eq!((response.status().as_u16(), response.headers().contains_key(WWW_AUTHENTICATE)), (200, false));
        assert_eq!(site.audit_of(&response).await["decision"], "refused");
        let answer: Value = response.json().await.unwrap();
        assert_eq!((&answer["id"], &answer["result"]["isError"]), (&json!(7), &json!(true)));
        let text = answer["result"]["content"][0]["text"].as_str().unwrap();
        assert!(text.contains("authentication context c1") && text.contains("cp1"), "{text}");
    }
    let reached_graph = tenant.requests().iter().any(|request| request.host == entra_emulator::Host::Graph);
    assert!(!reached_graph);
}

#[tokio::test]
async fn an_application_has_access_by_a_grant_to_itself_or_to_its_role_for_applications() {
    let mut setup = Setup::new();
    let daemon = setup.tenant.daemon.to_string();
    let tools = &["get_user_details"];
    setup.policy.grants = vec![grant("daemon", Subject::Application { client_id: daemon }, tools)];
    let site = setup.start().await;
    let tenant = &site.setup.tenant;
    let token = tenant.sign(&json!({}), &tenant.application_claims(tenant.daemon));
    assert_eq!(site.tools(&token).await, ["get_user_details"]);
    let mut claims = tenant.application_claims(tenant.daemon);
    claims["azp"] = json!(tenant.client);
    assert_eq!(site.tools(&tenant.sign(&json!({}), &claims)).await, [""; 0]);
    // A user who signed in through that client is another principal.
    let mut claims = tenant.claims(ALICE);
    claims["azp"] = json!(tenant.daemon);
    assert_eq!(site.tools(&tenant.sign(&json!({}), &claims)).await, [""; 0]);

    let everybody = [CallerKind::User, CallerKind::Application].into();
    let role = Subject::AppRole { role: ROLE.into(), callers: everybody };
    site.setup.write_policy(&CompiledPolicy {
        denies: vec![],
        grants: vec![grant("role", role, tools)],
        ..CompiledPolicy::default()
    });
    let revision = |policy: &CompiledPolicy| mcp_entra_policy::revision(&serde_json::to_vec(policy).unwrap());
    let old = revision(&site.setup.policy);
    eventually("the policy is in force", async || {
        site.status().await.policy.revision.filter(|revision| *revision != old)
    })
    .await;
    assert_eq!(site.tools(&token).await, ["get_user_details"]);
}
