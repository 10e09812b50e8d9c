//! Tests of answers that only the user's next sign-in can fix: a challenge to a capable client, once, otherwise an
//! error of the tool.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use entra_emulator::sign_in::{Authority, SignIn};
use entra_emulator::{App, ConditionalAccess, Fault, FaultKind, Host, Matcher};
use http::header::WWW_AUTHENTICATE;
use mcp_entra_policy::{Deny, GraphAccess, Subject};
use reqwest::Response;
use serde_json::{Value, json};

use crate::harness::{ON_BEHALF_OF, Setup, Site, deny_to_everyone, grant_to_sales};
use crate::tenant::{ALICE, BOB, SCOPE, TestTenant, control, trust_bundle};

/// Token of alice, whose client declares that it can answer claims challenges, or not.
pub(crate) fn token(tenant: &TestTenant, capable: bool) -> String {
    token_with(tenant, tenant.claims(ALICE), capable)
}

/// Token of bob that does not list his groups.
fn token_without_groups(tenant: &TestTenant, capable: bool) -> String {
    let mut claims = tenant.claims(BOB);
    claims.as_object_mut().unwrap().remove("groups");
    token_with(tenant, claims, capable)
}

fn token_with(tenant: &TestTenant, mut claims: Value, capable: bool) -> String {
    if capable {
        claims["xms_cc"] = json!(["cp1"]);
    }
    tenant.sign(&json!({}), &claims)
}

async fn call(site: &Site, token: &str) -> Response {
    site.call(token, "get_user_details", json!({})).await
}

/// Returns the claims of the challenge to the client.
pub(crate) fn asked(response: &Response) -> Option<Value> {
    let header = response.headers().get(WWW_AUTHENTICATE)?.to_str().unwrap();
    assert!(header.starts_with("Bearer error=\"insufficient_claims\", claims=\""), "{header}");
    assert!(header.contains("resource_metadata=\"https://") && header.contains("error_description="), "{header}");
    let encoded = header.split("claims=\"").nth(1)?.split('"').next()?;
    Some(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(encoded).unwrap()).unwrap())
}

/// Returns alice's token of a sign-in with these claims.
pub(crate) async fn signed_in_with(tenant: &TestTenant, claims: &Value) -> String {
    let authority = Authority { url: tenant.configuration().entra.authority, ca_pem: trust_bundle().to_owned() };
    let scope = tenant.configuration().entra.qualified_scope(SCOPE);
    let sign_in = SignIn {
        authority: &authority,
        tenant: tenant.id,
        client: tenant.client,
        redirect_uri: "http://localhost",
        user: ALICE,
        scopes: &[&scope],
        claims: Some(&claims.to_string()),
    };
    sign_in.tokens().await.unwrap().access_token
}

/// The text of the tool's error.
pub(crate) async fn tool_error(response: Response) -> String {
    assert_eq!((response.status().as_u16(), response.headers().get(WWW_AUTHENTICATE)), (200, None));
    let answer: Value = response.json().await.unwrap();
    assert_eq!((&answer["id"], &answer["result"]["isError"]), (&json!(7), &json!(true)), "{answer}");
    answer["result"]["content"][0]["text"].as_str().unwrap().to_owned()
}

fn change_server(tenant: &TestTenant, change: impl Fn(&mut App)) {
    let server = tenant.server;
    control()
        .change_tenant(tenant.id, |directory| {
            directory.apps.iter_mut().filter(|app| app.client_id == server).for_each(change);
            Ok(())
        })
        .unwrap();
}

#[tokio::test]
async fn a_second_factor_in_either_format_is_a_challenge_that_a_capable_client_meets() {
    for access in [ConditionalAccess::MultiFactor, ConditionalAccess::MultiFactorBasicAction] {
        let site = Setup::new().start().await;
        let tenant = &site.setup.tenant;
        change_server(tenant, |app| app.conditional_access = access);

        let response = call(&site, &token(tenant, true)).await;
        assert_eq!(response.status(), 401);
        let claims = asked(&response).unwrap();
        assert_eq!(claims["access_token"]["capolids"]["essential"], true, "{claims}");
        let line = site.audit_of(&response).await;
        assert_eq!((&line["reason"], &line["status"]), (&json!("insufficient_claims"), &json!(401)), "{line}");
        assert_eq!(line["rule"]["grant"], "readers", "{line}");

        let response = call(&site, &signed_in_with(tenant, &claims).await).await;
        assert_eq!(response.status(), 200);
        assert_ne!(response.json::<Value>().await.unwrap()["result"]["isError"], true);
    }
}

#[tokio::test]
async fn a_client_without_support_for_challenges_gets_an_error_of_the_tool() {
    let site = Setup::new().start().await;
    let tenant = &site.setup.tenant;
    change_server(tenant, |app| app.conditional_access = ConditionalAccess::MultiFactor);
    for _ in 0..2 {
        let text = tool_error(call(&site, &token(tenant, false)).await).await;
        assert!(text.contains("AADSTS50076") && text.contains("second factor"), "{text}");
    }
    // This client was not asked, so that a capable one is still asked.
    assert_eq!(call(&site, &token(tenant, true)).await.status(), 401);
}

#[tokio::test]
async fn the_same_challenge_is_not_repeated() {
    let site = Setup::new().start().await;
    let tenant = &site.setup.tenant;
    change_server(tenant, |app| app.conditional_access = ConditionalAccess::MultiFactor);
    assert_eq!(call(&site, &token(tenant, true)).await.status(), 401);
    // No new challenge for the same token, or for another one that satisfies no more.
    for token in [token(tenant, true), token(tenant, true)] {
        let text = tool_error(call(&site, &token).await).await;
        assert!(text.contains("AADSTS50076") && text.contains("sign in again"), "{text}");
    }
    // A different challenge is a new case.
    change_server(tenant, |app| app.conditional_access = ConditionalAccess::None);
    let alice = control().change_tenant(tenant.id, |directory| Ok(directory.find_user(ALICE).unwrap().oid)).unwrap();
    let before = token(tenant, true);
    control().revoke(tenant.id, alice).unwrap();
    let response = call(&site, &before).await;
    assert!(asked(&response).unwrap()["access_token"]["nbf"]["essential"].as_bool().unwrap());
}

#[tokio::test]
async fn a_revoked_session_ends_at_once_and_a_new_one_continues() {
    let site = Setup::new().start().await;
    let tenant = &site.setup.tenant;
    let alice = control().change_tenant(tenant.id, |directory| Ok(directory.find_user(ALICE).unwrap().oid)).unwrap();
    let before = token(tenant, true);
    assert_eq!(call(&site, &before).await.status(), 200);
    control().revoke(tenant.id, alice).unwrap();
    let response = call(&site, &before).await;
    assert_eq!(response.status(), 401);
    assert!(asked(&response).is_some());
    assert_eq!(call(&site, &token(tenant, true)).await.status(), 200);
}

/// Sets the answer of the next `times` exchanges on behalf of users.
fn refuse_exchange(tenant: &TestTenant, times: u32, code: u32, error: &str, claims: Option<&str>) {
    let matcher = Matcher {
        host: Some(Host::Authority),
        tenant: Some(tenant.id),
        grant_type: Some(ON_BEHALF_OF.to_owned()),
        ..Matcher::default()
    };
    let kind = FaultKind::Aadsts {
        code,
        status: 400,
        error: error.to_owned(),
        message: "No.".to_owned(),
        suberror: None,
        claims: claims.map(str::to_owned),
    };
    control().inject(Fault { matcher, times, kind }).unwrap();
}

#[tokio::test]
async fn obstacles_that_only_an_administrator_can_remove_are_errors_of_the_tool_unless_claims_are_included() {
    let site = Setup::new().start().await;
    let tenant = &site.setup.tenant;
    for code in [
        50005, 50020, 50034, 50053, 50057, 50105, 500_212, 500_213, 53000, 53001, 53002, 53003, 530_003, 530_032,
        65001, 90094, 90095, 650_053, 650_056, 650_057, 700_016, 7_000_112, 7_000_218, 70025,
    ] {
        for error in ["invalid_grant", "interaction_required"] {
            refuse_exchange(tenant, 1, code, error, None);
            let text = tool_error(call(&site, &token(tenant, true)).await).await;
            assert!(text.contains(&format!("AADSTS{code}:")) && !text.contains("sign in again"), "{text}");
        }
    }
    let claims = r#"{"access_token":{"capolids":{"essential":true,"values":["p"]}}}"#;
    refuse_exchange(tenant, 1, 50105, "invalid_grant", Some(claims));
    let response = call(&site, &token(tenant, true)).await;
    assert_eq!(
        (response.status().as_u16(), asked(&response).map(|asked| asked.to_string()).as_deref()),
        (401, Some(claims))
    );
    refuse_exchange(tenant, 1, 50173, "invalid_grant", None);
    assert_eq!(call(&site, &token(tenant, true)).await.status(), 401, "a sign-in is still requested if it helps");
}

#[tokio::test]
async fn an_invalidated_sign_in_is_requested_again_once() {
    let site = Setup::new().start().await;
    let tenant = &site.setup.tenant;
    refuse_exchange(tenant, 2, 500_133, "invalid_grant", None);
    let response = call(&site, &token(tenant, false)).await;
    assert_eq!(response.status(), 401);
    let header = response.headers()[WWW_AUTHENTICATE].to_str().unwrap();
    assert!(header.starts_with("Bearer error=\"invalid_token\", resource_metadata="), "{header}");
    let line = site.audit_of(&response).await;
    assert_eq!((&line["decision"], &line["reason"]), (&json!("refused"), &json!("sign_in_needed")), "{line}");
    let text = tool_error(call(&site, &token(tenant, false)).await).await;
    assert!(text.contains("AADSTS500133") && text.contains("sign in again"), "{text}");
    assert_eq!(call(&site, &token(tenant, false)).await.status(), 200);
}

#[tokio::test]
async fn an_error_that_no_sign_in_fixes_is_no_challenge() {
    let site = Setup::new().start().await;
    let tenant = &site.setup.tenant;
    change_server(tenant, |app| app.conditional_access = ConditionalAccess::Blocked);
    let text = tool_error(call(&site, &token(tenant, true)).await).await;
    assert!(text.contains("AADSTS53003") && text.contains("administrator"), "{text}");
    change_server(tenant, |app| {
        app.conditional_access = ConditionalAccess::None;
        app.granted_graph_scopes.clear();
    });
    let text = tool_error(call(&site, &token(tenant, true)).await).await;
    assert!(text.contains("AADSTS65001") && text.contains("Grant admin consent"), "{text}");
}

/// A server where everything depends on groups: a grant to Sales, which has bob as a member, and a deny for another
/// group.
fn for_groups() -> Setup {
    let mut setup = Setup::new();
    setup.policy.grants = vec![grant_to_sales(&setup.tenant, &["*"])];
    setup.policy.denies.push(Deny {
        to: Some(vec![Subject::Group { id: uuid::Uuid::new_v4().to_string(), display_name: None }]),
        ..deny_to_everyone(&["*"])
    });
    setup
}

/// Makes Graph reject the next token, and its replacement.
fn challenge_by_graph(tenant: &TestTenant) {
    let claims = URL_SAFE_NO_PAD.encode(r#"{"access_token":{"nbf":{"essential":true,"value":"1"}}}"#);
    let header = format!("Bearer error=\"insufficient_claims\", claims=\"{claims}\"");
    let body = r#"{"error":{"code":"InvalidAuthenticationToken","message":"No."}}"#.to_owned();
    let matcher = Matcher { host: Some(Host::Graph), tenant: Some(tenant.id), ..Matcher::default() };
    let headers = [("WWW-Authenticate".to_owned(), header)].into();
    control().inject(Fault { matcher, times: 2, kind: FaultKind::Status { status: 401, headers, body } }).unwrap();
}

#[tokio::test]
async fn a_repeated_challenge_of_graph_goes_to_a_user_and_not_to_an_application() {
    for (access, status) in [(GraphAccess::OnBehalfOf, 401), (GraphAccess::Application, 200)] {
        let mut setup = Setup::new();
        setup.configuration.graph.access = access;
        setup.policy.grants[0].graph = access;
        change_server(&setup.tenant, |app| app.granted_graph_roles = vec!["User.Read.All".to_owned()]);
        let site = setup.start().await;
        challenge_by_graph(&site.setup.tenant);
        let response = call(&site, &token(&site.setup.tenant, true)).await;
        assert_eq!((response.status().as_u16(), asked(&response).is_some()), (status, status == 401), "{access:?}");
    }
}

type Ask = fn(&TestTenant);

/// Every way in which Entra or Graph requires a sign-in, with the reason on the audit line.
const ASKING: [(&str, Ask); 6] = [
    ("insufficient_claims", |tenant| {
        change_server(tenant, |app| app.conditional_access = ConditionalAccess::MultiFactor)
    }),
    ("insufficient_claims", |tenant| {
        change_server(tenant, |app| app.conditional_access = ConditionalAccess::MultiFactorBasicAction);
    }),
    ("insufficient_claims", |tenant| {
        let bob = control().change_tenant(tenant.id, |directory| Ok(directory.find_user(BOB).unwrap().oid)).unwrap();
        control().revoke(tenant.id, bob).unwrap();
    }),
    ("insufficient_claims", |tenant| challenge_by_graph(tenant)),
    ("sign_in_needed", |tenant| refuse_exchange(tenant, 1, 50173, "invalid_grant", None)),
    ("sign_in_needed", |tenant| refuse_exchange(tenant, 1, 1_234_567, "interaction_required", None)),
];

#[tokio::test]
async fn a_sign_in_that_is_required_for_reading_groups_is_a_challenge_to_a_call_and_to_a_list() {
    for (reason, ask) in ASKING {
        for method in ["tools/call", "tools/list"] {
            let site = for_groups().start().await;
            let token = token_without_groups(&site.setup.tenant, true);
            ask(&site.setup.tenant);
            let params = json!({ "name": "get_user_details", "arguments": {} });
            let response = site.rpc(&token, method, params).await;
            assert_eq!(response.status(), 401, "{reason} {method}");
            let header = response.headers()[WWW_AUTHENTICATE].to_str().unwrap();
            assert!(header.contains("resource_metadata=\"https://"), "{header}");
            assert_eq!(header.contains("error=\"insufficient_claims\", claims=\""), reason == "insufficient_claims");
            let line = site.audit_of(&response).await;
            assert_eq!((&line["decision"], &line["reason"]), (&json!("refused"), &json!(reason)), "{line}");
        }
    }
}

#[tokio::test]
async fn if_the_challenge_cannot_be_met_groups_are_unknown_and_the_refusal_has_the_next_step() {
    let site = for_groups().start().await;
    let tenant = &site.setup.tenant;
    change_server(tenant, |app| app.conditional_access = ConditionalAccess::MultiFactor);
    assert_eq!(call(&site, &token_without_groups(tenant, true)).await.status(), 401);
    // Either a client that cannot, or one that got the same challenge a moment ago.
    for capable in [false, true] {
        let token = token_without_groups(tenant, capable);
        let response = call(&site, &token).await;
        assert_eq!((response.status().as_u16(), response.headers().get(WWW_AUTHENTICATE)), (403, None));
        let text = response.text().await.unwrap();
        assert!(text.contains("AADSTS50076") && text.contains("second factor"), "{text}");
        assert_eq!(site.tools(&token).await, [""; 0]);
    }
}

#[tokio::test]
async fn an_error_while_reading_groups_that_no_sign_in_fixes_is_no_challenge() {
    let site = for_groups().start().await;
    let tenant = &site.setup.tenant;
    change_server(tenant, |app| app.conditional_access = ConditionalAccess::Blocked);
    let response = call(&site, &token_without_groups(tenant, true)).await;
    assert_eq!((response.status().as_u16(), response.headers().get(WWW_AUTHENTICATE)), (403, None));
}
