//! Tests of the exchange at Entra's token endpoint: the projected token is the credential, and only allowed results are
//! cached.

use std::time::Duration;

use entra_emulator::{Fault, FaultKind, FederatedCredential, FederatedIdentity, Host, Matcher};
use mcp_entra_server::entra::{ClaimsChallenge, FederatedToken, OnBehalfOf, Sts, StsError};
use mcp_entra_server::token::Principal;
use secrecy::ExposeSecret;
use serde_json::json;

use super::{signed_in, sts};
use crate::harness::eventually;
use crate::tenant::{ALICE, AUDIENCE, BOB, CREDENTIAL, SUBJECT, TestTenant, control, http, issuer};

const ON_BEHALF_OF: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// These scopes of the tenant's Graph.
fn scopes(tenant: &TestTenant, names: &[&'static str]) -> (String, Vec<&'static str>) {
    (tenant.configuration().graph.base_url, names.to_vec())
}

fn user(principal: &Principal, (resource, names): &(String, Vec<&'static str>)) -> OnBehalfOf {
    match principal {
        Principal::User(user) => OnBehalfOf::new(user, resource, names.iter().copied()),
        other => panic!("no user: {other:?}"),
    }
}

fn next_exchange(tenant: &TestTenant, kind: FaultKind) {
    let matcher = Matcher {
        host: Some(Host::Authority),
        tenant: Some(tenant.id),
        path: Some("/oauth2/v2.0/token".to_owned()),
        ..Matcher::default()
    };
    control().inject(Fault { matcher, times: 1, kind }).unwrap();
}

/// An answer with this token, which has these scopes.
fn issued(token: &str, scope: &str) -> FaultKind {
    let body = json!({ "access_token": token, "expires_in": 3600, "scope": scope }).to_string();
    FaultKind::Status { status: 200, headers: [].into(), body }
}

fn aadsts(code: u32, error: &str) -> FaultKind {
    let (error, message) = (error.to_owned(), "Something.".to_owned());
    FaultKind::Aadsts { code, status: 400, error, message, suberror: None, claims: None }
}

fn refusal(result: Result<impl Sized, StsError>) -> String {
    match result {
        Err(StsError::Refused(refusal)) => refusal.to_string(),
        Err(error) => panic!("not refused by Entra: {error}"),
        Ok(_) => panic!("not refused"),
    }
}

#[tokio::test]
async fn the_projected_token_and_no_secret_proves_the_server_to_entra() {
    let tenant = TestTenant::new();
    let (sts, alice) = (sts(&tenant), signed_in(&tenant, ALICE).await);
    sts.on_behalf_of(&user(&alice, &scopes(&tenant, &["User.Read"]))).await.unwrap();
    let exchange =
        tenant.requests().into_iter().find(|request| request.grant_type.as_deref() == Some(ON_BEHALF_OF)).unwrap();
    assert_eq!(exchange.status, 200);
    assert_eq!(exchange.user.unwrap().to_string(), alice.object_id());
    assert_eq!(exchange.client, Some(tenant.server.to_string()));
    assert!(!exchange.client_secret_present);
    let presented =
        FederatedIdentity { issuer: issuer().url.clone(), subject: SUBJECT.to_owned(), audience: AUDIENCE.to_owned() };
    assert_eq!(exchange.federated, Some(presented));
}

#[tokio::test]
async fn concurrent_and_later_calls_for_the_same_token_make_one_exchange() {
    let tenant = TestTenant::new();
    let (sts, alice) = (sts(&tenant), signed_in(&tenant, ALICE).await);
    let scopes = scopes(&tenant, &["User.Read"]);
    let user = user(&alice, &scopes);
    let calls = (0..20).map(|_| sts.on_behalf_of(&user));
    let tokens = futures::future::try_join_all(calls).await.unwrap();
    let later = sts.on_behalf_of(&user).await.unwrap();
    assert!(tokens.iter().all(|token| token.access_token.expose_secret() == later.access_token.expose_secret()));
    assert_eq!(tenant.grants(ON_BEHALF_OF), 1);
}

/// Consents as an administrator to exactly these permissions of the server.
fn consent(tenant: &TestTenant, scopes: &[&str]) {
    control()
        .change_tenant(tenant.id, |directory| {
            let app = directory.apps.iter_mut().find(|app| app.client_id == tenant.server).unwrap();
            app.granted_graph_scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
            Ok(())
        })
        .unwrap();
}

#[tokio::test]
async fn a_token_serves_for_every_scope_that_it_carries() {
    let tenant = TestTenant::new();
    let (sts, alice) = (sts(&tenant), signed_in(&tenant, ALICE).await);
    let read = scopes(&tenant, &["User.Read"]);
    let first = sts.on_behalf_of(&user(&alice, &read)).await.unwrap();
    for names in [&["Mail.Read"][..], &["User.Read", "Mail.Read"], &["user.read"]] {
        let token = sts.on_behalf_of(&user(&alice, &scopes(&tenant, names))).await.unwrap();
        assert_eq!(token.access_token.expose_secret(), first.access_token.expose_secret(), "{names:?}");
    }
    assert_eq!(tenant.grants(ON_BEHALF_OF), 1);
    // A rejected token is no longer the latest: it serves no new scope.
    let second = sts.instead_of(&first, None, &user(&alice, &read)).await.unwrap();
    let both = sts.on_behalf_of(&user(&alice, &scopes(&tenant, &["Mail.Read", "user.read"]))).await.unwrap();
    assert_eq!(both.access_token.expose_secret(), second.access_token.expose_secret());
    assert_eq!(tenant.grants(ON_BEHALF_OF), 2);
}

#[tokio::test]
async fn a_requested_scope_that_entra_does_not_return_is_not_granted() {
    let tenant = TestTenant::new();
    let (sts, alice) = (sts(&tenant), signed_in(&tenant, ALICE).await);
    let asked = user(&alice, &scopes(&tenant, &["User.Read", "Member.Read.Hidden"]));
    next_exchange(&tenant, issued("a token", "User.Read"));
    let token = sts.on_behalf_of(&asked).await.unwrap();
    assert_eq!(Vec::from_iter(token.granted.iter().map(|scope| &**scope)), ["user.read"]);
    let hidden = user(&alice, &scopes(&tenant, &["Member.Read.Hidden"]));
    let again = sts.on_behalf_of(&hidden).await.unwrap();
    assert_eq!(again.access_token.expose_secret(), "a token", "it serves every request for the same");
}

#[tokio::test]
async fn a_scope_that_a_token_does_not_carry_is_asked_for_by_itself_and_neither_takes_the_others_place() {
    let tenant = TestTenant::new();
    let (sts, alice) = (sts(&tenant), signed_in(&tenant, ALICE).await);
    let (read, mail) = (scopes(&tenant, &["User.Read"]), scopes(&tenant, &["Mail.Read"]));
    consent(&tenant, &["User.Read"]);
    let (first, refused) = (user(&alice, &read), user(&alice, &mail));
    let (token, text) = tokio::join!(sts.on_behalf_of(&first), sts.on_behalf_of(&refused));
    assert!(refusal(text).contains("AADSTS65001"), "one refusal is not the other's");
    let token = token.unwrap();
    consent(&tenant, &["Mail.Read"]);
    sts.on_behalf_of(&refused).await.unwrap();
    let again = sts.on_behalf_of(&first).await.unwrap();
    assert_eq!(again.access_token.expose_secret(), token.access_token.expose_secret());
    sts.on_behalf_of(&refused).await.unwrap();
    assert_eq!(tenant.grants(ON_BEHALF_OF), 3);
}

#[tokio::test]
async fn another_user_and_another_scope_need_separate_exchanges() {
    let tenant = TestTenant::new();
    let sts = sts(&tenant);
    let (alice, bob) = (signed_in(&tenant, ALICE).await, signed_in(&tenant, BOB).await);
    let (read, mail) = (scopes(&tenant, &["User.Read"]), scopes(&tenant, &["Mail.Read"]));
    let of_alice = sts.on_behalf_of(&user(&alice, &read)).await.unwrap();
    let of_bob = sts.on_behalf_of(&user(&bob, &read)).await.unwrap();
    assert_ne!(of_alice.access_token.expose_secret(), of_bob.access_token.expose_secret());
    next_exchange(&tenant, issued("mail", ""));
    let carol = signed_in(&tenant, ALICE).await;
    sts.on_behalf_of(&user(&carol, &mail)).await.unwrap();
    let token = sts.on_behalf_of(&user(&carol, &read)).await.unwrap();
    assert_ne!(token.access_token.expose_secret(), "mail", "an answer without scope has the requested scopes");
    assert_eq!(tenant.grants(ON_BEHALF_OF), 4);
}

#[tokio::test]
async fn a_rejected_token_is_replaced_once_for_all_who_used_it_and_no_other_is() {
    let tenant = TestTenant::new();
    let (sts, alice) = (sts(&tenant), signed_in(&tenant, ALICE).await);
    let (read, mail) = (scopes(&tenant, &["User.Read"]), scopes(&tenant, &["Mail.Read"]));
    next_exchange(&tenant, issued("of mail", "Mail.Read"));
    sts.on_behalf_of(&user(&alice, &mail)).await.unwrap();
    let rejected = sts.on_behalf_of(&user(&alice, &read)).await.unwrap();
    let challenge = ClaimsChallenge::parse(r#"{"access_token":{"nbf":{"value":"1"}}}"#).unwrap();
    let alice_reads = user(&alice, &read);
    let calls = (0..5).map(|_| sts.instead_of(&rejected, Some(&challenge), &alice_reads));
    let replacements = futures::future::try_join_all(calls).await.unwrap();
    let late = sts.instead_of(&rejected, None, &alice_reads).await.unwrap();
    let kept = sts.on_behalf_of(&user(&alice, &read)).await.unwrap();
    for token in replacements.iter().chain([&late]) {
        assert_eq!(token.access_token.expose_secret(), kept.access_token.expose_secret());
    }
    let other = sts.on_behalf_of(&user(&alice, &mail)).await.unwrap();
    assert_eq!(other.access_token.expose_secret(), "of mail");
    assert_eq!(tenant.grants(ON_BEHALF_OF), 3);
}

#[tokio::test]
async fn transient_failures_are_retried_and_answered() {
    let date = "Tue, 24 Nov 2020 08:00:00 GMT";
    let status = |status, retry_after: &str| FaultKind::Status {
        status,
        headers: [("Retry-After".to_owned(), retry_after.to_owned())].into(),
        body: "<html>".to_owned(),
    };
    let faults = [
        aadsts(90033, "temporarily_unavailable"),
        aadsts(50087, "invalid_request"),
        status(503, ""),
        status(429, "0.1"),
        status(429, date),
        status(500, "0"),
    ];
    for fault in faults {
        let tenant = TestTenant::new();
        let (sts, alice) = (sts(&tenant), signed_in(&tenant, ALICE).await);
        next_exchange(&tenant, fault.clone());
        let token = sts.on_behalf_of(&user(&alice, &scopes(&tenant, &["User.Read"]))).await;
        assert!(token.is_ok(), "{fault:?}: {:?}", token.err());
        assert_eq!(tenant.grants(ON_BEHALF_OF), 2, "{fault:?}");
    }
}

#[tokio::test]
async fn the_wait_for_entra_ends_with_the_time_limit_of_a_call() {
    let tenant = TestTenant::new();
    let (sts, alice) = (sts(&tenant), signed_in(&tenant, ALICE).await);
    let scopes = scopes(&tenant, &["User.Read"]);
    let headers = [("Retry-After".to_owned(), "60".to_owned())].into();
    next_exchange(&tenant, FaultKind::Status { status: 429, headers, body: String::new() });
    let error = sts.on_behalf_of(&user(&alice, &scopes)).await.err().unwrap();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(60)), "{error}");
    assert_eq!(tenant.grants(ON_BEHALF_OF), 1, "it did not wait and ask again");
    sts.on_behalf_of(&user(&alice, &scopes)).await.unwrap();
}

#[tokio::test]
async fn a_busy_entra_is_asked_four_times_and_the_next_call_asks_anew() {
    let tenant = TestTenant::new();
    let (sts, alice) = (sts(&tenant), signed_in(&tenant, ALICE).await);
    let scopes = scopes(&tenant, &["User.Read"]);
    (0..4).for_each(|_| next_exchange(&tenant, aadsts(90033, "temporarily_unavailable")));
    let text = refusal(sts.on_behalf_of(&user(&alice, &scopes)).await);
    assert!(text.contains("AADSTS90033") && text.contains("Entra is busy"), "{text}");
    assert_eq!(tenant.grants(ON_BEHALF_OF), 4);
    sts.on_behalf_of(&user(&alice, &scopes)).await.unwrap();
}

#[tokio::test]
async fn a_permanent_refusal_is_not_requested_again_at_once() {
    for (code, error) in [(50173, "invalid_grant"), (53003, "invalid_grant"), (700_016, "unauthorized_client")] {
        let tenant = TestTenant::new();
        let (sts, alice, bob) = (sts(&tenant), signed_in(&tenant, ALICE).await, signed_in(&tenant, BOB).await);
        let scopes = scopes(&tenant, &["User.Read"]);
        next_exchange(&tenant, aadsts(code, error));
        let first = refusal(sts.on_behalf_of(&user(&alice, &scopes)).await);
        assert_eq!(refusal(sts.on_behalf_of(&user(&alice, &scopes)).await), first);
        assert_eq!(tenant.grants(ON_BEHALF_OF), 1, "{code}");
        sts.on_behalf_of(&user(&bob, &scopes)).await.unwrap();
        // Another sign-in is a new question.
        let again = signed_in(&tenant, ALICE).await;
        sts.on_behalf_of(&user(&again, &scopes)).await.unwrap();
    }
}

#[tokio::test]
async fn a_refusal_that_an_administrator_can_fix_is_requested_again_each_time() {
    for (code, error) in [(65001, "invalid_grant"), (70021, "invalid_request"), (700_213, "invalid_client")] {
        let tenant = TestTenant::new();
        let (sts, alice) = (sts(&tenant), signed_in(&tenant, ALICE).await);
        let scopes = scopes(&tenant, &["User.Read"]);
        next_exchange(&tenant, aadsts(code, error));
        refusal(sts.on_behalf_of(&user(&alice, &scopes)).await);
        sts.on_behalf_of(&user(&alice, &scopes)).await.unwrap();
    }
}

#[tokio::test]
async fn a_token_is_renewed_in_the_background_while_the_old_one_serves() {
    let tenant = TestTenant::new();
    let (sts, alice) = (sts(&tenant), signed_in(&tenant, ALICE).await);
    let scopes = scopes(&tenant, &["User.Read"]);
    let body = r#"{"access_token":"old","expires_in":"3600","refresh_in":"0","refresh_token":"never kept"}"#;
    next_exchange(&tenant, FaultKind::Status { status: 200, headers: [].into(), body: body.to_owned() });
    // Delayed until the old token has been used.
    next_exchange(&tenant, FaultKind::Delay { milliseconds: 300 });
    for _ in 0..3 {
        let token = sts.on_behalf_of(&user(&alice, &scopes)).await.unwrap();
        assert_eq!(token.access_token.expose_secret(), "old");
    }
    eventually("the token is renewed", async || {
        let token = sts.on_behalf_of(&user(&alice, &scopes)).await.unwrap();
        (token.access_token.expose_secret() != "old").then_some(())
    })
    .await;
    assert_eq!(tenant.grants(ON_BEHALF_OF), 2, "renewed once");
    assert_eq!(tenant.grants("refresh_token"), 0);
}

#[tokio::test]
async fn a_token_that_cannot_be_renewed_serves_on() {
    let tenant = TestTenant::new();
    let (sts, alice) = (sts(&tenant), signed_in(&tenant, ALICE).await);
    let scopes = scopes(&tenant, &["User.Read"]);
    let body = r#"{"access_token":"old","expires_in":3600,"refresh_in":0}"#;
    next_exchange(&tenant, FaultKind::Status { status: 200, headers: [].into(), body: body.to_owned() });
    next_exchange(&tenant, aadsts(50173, "invalid_grant"));
    sts.on_behalf_of(&user(&alice, &scopes)).await.unwrap();
    eventually("it was tried", async || (tenant.grants(ON_BEHALF_OF) == 2).then_some(())).await;
    let token = sts.on_behalf_of(&user(&alice, &scopes)).await.unwrap();
    assert_eq!(token.access_token.expose_secret(), "old");
    assert_eq!(tenant.grants(ON_BEHALF_OF), 2);
}

#[tokio::test]
async fn the_projected_token_is_read_afresh_for_every_exchange() {
    let tenant = TestTenant::new();
    let sts = sts(&tenant);
    let graph = tenant.configuration().graph.base_url;
    sts.as_application(&graph).await.unwrap();
    tenant.project("system:serviceaccount:productivity:another", AUDIENCE);
    assert!(refusal(sts.as_application(&graph).await).contains("AADSTS700213"));
    tenant.project(SUBJECT, AUDIENCE);
    sts.as_application(&graph).await.unwrap();
    assert_eq!(tenant.grants("client_credentials"), 3, "the application's own token is never cached");
}

#[tokio::test]
async fn a_credential_that_does_not_match_is_answered_with_what_it_must_say_exactly() {
    let good = FederatedCredential {
        name: "almost".to_owned(),
        issuer: issuer().url.clone(),
        subject: SUBJECT.to_owned(),
        audience: AUDIENCE.to_owned(),
    };
    let table = [
        ("AADSTS700211", FederatedCredential { issuer: format!("{}/", good.issuer), ..good.clone() }),
        ("AADSTS700213", FederatedCredential { subject: format!("{SUBJECT}2"), ..good.clone() }),
        ("AADSTS7002138", FederatedCredential { subject: SUBJECT.to_uppercase(), ..good.clone() }),
        ("AADSTS700212", FederatedCredential { audience: format!("{AUDIENCE}China"), ..good }),
    ];
    for (code, credential) in table {
        let tenant = TestTenant::new();
        control().remove_federated_credential(tenant.id, tenant.server, CREDENTIAL).unwrap();
        control().add_federated_credential(tenant.id, tenant.server, credential).unwrap();
        let text = refusal(sts(&tenant).as_application(&tenant.configuration().graph.base_url).await);
        assert!(text.contains(&format!("{code}:")), "{code} is not in {text}");
        let must_say = format!("issuer {}, subject {SUBJECT}, audience {AUDIENCE} ", issuer().url);
        assert!(text.contains(&must_say), "{must_say} is not in {text}");
        assert!(text.contains(&tenant.server.to_string()) && text.contains(&tenant.id.to_string()), "{text}");
        for passing in ["Trace ID", "Correlation ID", "Timestamp"] {
            assert!(!text.contains(passing), "{text}");
        }
    }
}

#[tokio::test]
async fn an_answer_that_is_not_entras_is_reported_as_such() {
    let tenant = TestTenant::new();
    let (sts, graph) = (sts(&tenant), tenant.configuration().graph.base_url);
    let answers = [
        (502, "<html>Bad gateway</html>"),
        (200, "<html>Sign in to this network</html>"),
        (200, r#"{"error":"invalid_client"}"#),
        (307, ""),
    ];
    for (status, body) in answers {
        let headers = [("Location".to_owned(), "https://localhost:1/".to_owned())].into();
        next_exchange(&tenant, FaultKind::Status { status, headers, body: body.to_owned() });
        let error = sts.as_application(&graph).await.err().unwrap();
        assert!(matches!(error, StsError::NotEntra { .. }), "{status} {body}: {error}");
        assert!(error.to_string().contains(&format!("HTTP {status}")), "{error}");
    }
    sts.as_application(&graph).await.unwrap();
}

#[tokio::test]
async fn an_untrusted_authority_gets_no_token() {
    let tenant = TestTenant::new();
    let strict = mcp_entra_server::http_client::build(Some(issuer().ca_pem.as_bytes())).unwrap();
    let sts = Sts::new(strict, &tenant.configuration().entra, FederatedToken::at(tenant.token_file())).unwrap();
    let error = sts.as_application(&tenant.configuration().graph.base_url).await.err().unwrap();
    assert!(matches!(error, StsError::Unreachable { .. }), "{error}");
    assert!(error.to_string().to_lowercase().contains("certificate"), "{error}");
    assert!(tenant.requests().is_empty());
}

#[tokio::test]
async fn a_file_without_a_projected_token_is_reported_and_nothing_is_sent() {
    let tenant = TestTenant::new();
    let now = jiff::Timestamp::now().as_second();
    let two_audiences = json!({ "iss": "i", "sub": "s", "aud": ["a", "b"], "exp": now });
    let table = [
        (Some(String::new()), "it is empty"),
        (Some(" \n".to_owned()), "it is empty"),
        (Some("x".repeat(17 * 1024)), "longer than 16 KiB"),
        (None, "cannot be read"),
    ];
    for (content, problem) in table {
        match content {
            Some(content) => std::fs::write(tenant.token_file(), content).unwrap(),
            None => std::fs::remove_file(tenant.token_file()).unwrap(),
        }
        let error = sts(&tenant).as_application(&tenant.configuration().graph.base_url).await.err().unwrap();
        assert!(error.to_string().contains(problem), "{problem} is not in {error}");
        assert!(error.to_string().contains(tenant.token_file().to_str().unwrap()), "{error}");
    }
    assert!(tenant.requests().is_empty());

    for (content, problem) in
        [("opaque".to_owned(), "not a JWT"), (issuer().sign(&two_audiences).unwrap(), "one audience")]
    {
        std::fs::write(tenant.token_file(), content).unwrap();
        let error = FederatedToken::at(tenant.token_file()).describe().await.unwrap_err().to_string();
        assert!(error.contains(problem), "{problem} is not in {error}");
    }
}

#[tokio::test]
async fn nothing_is_sent_without_tls() {
    let tenant = TestTenant::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let mut entra = tenant.configuration().entra;
    entra.authority = format!("http://{}", listener.local_addr().unwrap());
    let sts = Sts::new(http(), &entra, FederatedToken::at(tenant.token_file())).unwrap();
    let error = sts.as_application(&tenant.configuration().graph.base_url).await.err().unwrap();
    assert!(matches!(error, StsError::Unreachable { .. }), "{error}");
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "somebody connected");
}
