//! The exchange at Entra's token endpoint: the projected token is the credential, and what is cached is what may be.

use entra_emulator::{Fault, FaultKind, FederatedCredential, FederatedIdentity, Host, Matcher};
use mcp_entra_server::entra::{FederatedToken, Sts, StsError};
use mcp_entra_server::token::{Principal, User};
use secrecy::ExposeSecret;
use serde_json::json;

use super::{signed_in, sts};
use crate::tenant::{ALICE, AUDIENCE, BOB, CREDENTIAL, SUBJECT, TestTenant, control, http, issuer};

const ON_BEHALF_OF: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

fn scopes(tenant: &TestTenant, names: &[&str]) -> Vec<String> {
    names.iter().map(|name| format!("{}/{name}", tenant.configuration().graph.base_url)).collect()
}

fn user(principal: &Principal) -> &User {
    match principal {
        Principal::User(user) => user,
        Principal::Application(_) => panic!("{principal:?}"),
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
    sts.on_behalf_of(user(&alice), &scopes(&tenant, &["User.Read"])).await.unwrap();
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
    let calls = (0..20).map(|_| sts.on_behalf_of(user(&alice), &scopes));
    let tokens = futures::future::try_join_all(calls).await.unwrap();
    let later = sts.on_behalf_of(user(&alice), &scopes).await.unwrap();
    assert!(tokens.iter().all(|token| token.access_token.expose_secret() == later.access_token.expose_secret()));
    assert_eq!(tenant.grants(ON_BEHALF_OF), 1);
}

#[tokio::test]
async fn another_user_another_scope_and_a_forgotten_token_are_exchanges_of_their_own() {
    let tenant = TestTenant::new();
    let sts = sts(&tenant);
    let (alice, bob) = (signed_in(&tenant, ALICE).await, signed_in(&tenant, BOB).await);
    let (read, mail) = (scopes(&tenant, &["User.Read"]), scopes(&tenant, &["Mail.Read"]));
    let of_alice = sts.on_behalf_of(user(&alice), &read).await.unwrap();
    let of_bob = sts.on_behalf_of(user(&bob), &read).await.unwrap();
    assert_ne!(of_alice.access_token.expose_secret(), of_bob.access_token.expose_secret());
    sts.on_behalf_of(user(&alice), &mail).await.unwrap();
    assert_eq!(tenant.grants(ON_BEHALF_OF), 3);
    sts.forget(user(&alice), &read).await;
    sts.on_behalf_of(user(&alice), &read).await.unwrap();
    sts.on_behalf_of(user(&alice), &mail).await.unwrap();
    assert_eq!(tenant.grants(ON_BEHALF_OF), 4);
}

#[tokio::test]
async fn an_error_is_not_cached() {
    let tenant = TestTenant::new();
    let (sts, alice) = (sts(&tenant), signed_in(&tenant, ALICE).await);
    let scopes = scopes(&tenant, &["User.Read"]);
    next_exchange(&tenant, aadsts(90033, "temporarily_unavailable"));
    let text = refusal(sts.on_behalf_of(user(&alice), &scopes).await);
    assert!(text.contains("AADSTS90033") && text.contains("Entra is busy"), "{text}");
    sts.on_behalf_of(user(&alice), &scopes).await.unwrap();
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
async fn an_answer_that_is_not_entras_is_said_to_be_so() {
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
async fn an_authority_that_nobody_trusts_gets_no_token() {
    let tenant = TestTenant::new();
    let strict = mcp_entra_server::http_client::build(Some(issuer().ca_pem.as_bytes())).unwrap();
    let sts = Sts::new(strict, &tenant.configuration().entra, FederatedToken::at(tenant.token_file()));
    let error = sts.as_application(&tenant.configuration().graph.base_url).await.err().unwrap();
    assert!(matches!(error, StsError::Unreachable { .. }), "{error}");
    assert!(error.to_string().to_lowercase().contains("certificate"), "{error}");
    assert!(tenant.requests().is_empty());
}

#[tokio::test]
async fn a_file_without_a_projected_token_is_said_to_be_so_and_nothing_is_sent() {
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
    let sts = Sts::new(http(), &entra, FederatedToken::at(tenant.token_file()));
    let error = sts.as_application(&tenant.configuration().graph.base_url).await.err().unwrap();
    assert!(matches!(error, StsError::Unreachable { .. }), "{error}");
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "somebody connected");
}
