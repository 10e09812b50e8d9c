//! Who may do what, as the policy in force has it at that moment.

use mcp_entra_policy::CompiledPolicy;
use reqwest::header::WWW_AUTHENTICATE;
use serde_json::{Value, json};

use crate::harness::{Setup, eventually, grant_to_readers, grant_to_sales};
use crate::tenant::{ALICE, BOB};

#[tokio::test]
async fn a_caller_sees_and_calls_what_a_role_grants_and_nothing_else() {
    let mut setup = Setup::new();
    setup.policy = CompiledPolicy { grants: vec![grant_to_readers(&["get_user_details"])] };
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
async fn a_refused_call_says_which_role_or_group_would_allow_it() {
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
    assert_eq!(
        (&answer["jsonrpc"], &answer["id"], &answer["error"]["code"]),
        (&json!("2.0"), &json!(7), &json!(-32003))
    );
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
async fn an_application_with_the_role_is_not_a_person_with_it() {
    let site = Setup::new().start().await;
    let tenant = &site.setup.tenant;
    let daemon = tenant.sign(&json!({}), &tenant.application_claims(tenant.daemon));
    assert_eq!(site.tools(&daemon).await, [""; 0]);
    assert_eq!(site.call(&daemon, "get_user_details", json!({})).await.status(), 403);
}

#[tokio::test]
async fn a_changed_policy_bites_within_seconds_and_without_a_restart() {
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
async fn a_policy_that_cannot_be_read_leaves_the_last_good_one_in_force_and_is_reported() {
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
async fn a_tool_that_the_server_does_not_offer_is_unknown_whatever_is_granted() {
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
