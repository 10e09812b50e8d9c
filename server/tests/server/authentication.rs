//! Tests of authentication: accepted and refused callers, challenges, metadata, hosts and origins.

use reqwest::header::WWW_AUTHENTICATE;
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::harness::{HOST, Setup, Site};
use crate::tenant::ALICE;

const PING: &str = r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#;

fn challenge(response: &Response) -> &str {
    response.headers()[WWW_AUTHENTICATE].to_str().unwrap()
}

fn scope(site: &Site) -> String {
    format!("{}/mcp.access", site.setup.tenant.server)
}

#[tokio::test]
async fn a_request_without_a_token_gets_the_address_of_the_metadata_and_the_scope() {
    let site = Setup::new().start().await;
    let response = site.request().body(PING).send().await.unwrap();
    assert_eq!(response.status(), 401);
    let metadata = format!("https://{HOST}/.well-known/oauth-protected-resource/mcp");
    assert_eq!(challenge(&response), format!("Bearer resource_metadata=\"{metadata}\", scope=\"{}\"", scope(&site)));
}

#[tokio::test]
async fn the_answer_to_a_refused_token_has_the_reason() {
    let site = Setup::new().start().await;
    let response = site.rpc("not.a.token", "ping", json!({})).await;
    assert_eq!(response.status(), 401);
    let header = challenge(&response).to_owned();
    assert!(header.starts_with("Bearer error=\"invalid_token\", resource_metadata=\""), "{header}");
    assert!(header.contains(&format!("scope=\"{}\"", scope(&site))), "{header}");
    assert!(header.contains("error_description=\"the token is malformed"), "{header}");
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["error"], "invalid_token");
}

#[tokio::test]
async fn a_token_without_the_scope_gets_a_step_up_challenge() {
    let site = Setup::new().start().await;
    let claims = site.setup.tenant.claims_with_scope(ALICE, "other.scope");
    let response = site.rpc(&site.setup.tenant.sign(&json!({}), &claims), "ping", json!({})).await;
    assert_eq!(response.status(), 403);
    let header = challenge(&response);
    assert!(header.starts_with("Bearer error=\"insufficient_scope\", resource_metadata=\""), "{header}");
    assert!(header.contains(&format!("scope=\"{}\"", scope(&site))), "{header}");
    assert_eq!(site.audit_of(&response).await["reason"], "scope_missing");
}

/// Entra puts every granted scope into a token. The required scopes therefore do not separate two servers of one client
/// id. The operator allows a shared client id only in one namespace, and only if both servers agree.
#[tokio::test]
async fn a_token_with_the_scopes_of_two_servers_of_one_client_id_is_accepted_by_either() {
    for required in ["mcp.access", "other.access"] {
        let mut setup = Setup::new();
        setup.configuration.entra.required_scopes = vec![required.to_owned()];
        let site = setup.start().await;
        let mut claims = site.setup.tenant.claims(ALICE);
        claims["scp"] = json!("mcp.access other.access");
        let token = site.setup.tenant.sign(&json!({}), &claims);
        assert_eq!(site.rpc(&token, "ping", json!({})).await.status(), 200, "{required}");
    }
}

#[tokio::test]
async fn a_valid_token_is_accepted_only_in_the_header() {
    let site = Setup::new().start().await;
    let token = site.setup.tenant.token(ALICE);
    assert_eq!(site.rpc(&token, "ping", json!({})).await.status(), 200);

    let in_the_query = site.request().query(&[("access_token", &token)]).body(PING).send().await.unwrap();
    assert_eq!(in_the_query.status(), 401);
    assert!(!challenge(&in_the_query).contains("error="));
}

#[tokio::test]
async fn an_authorization_header_without_exactly_one_token_is_a_malformed_request() {
    let site = Setup::new().start().await;
    let token = site.setup.tenant.token(ALICE);
    let two = site.request().bearer_auth(&token).bearer_auth(&token).body(PING).send().await.unwrap();
    assert_eq!(two.status(), 400);
    assert!(challenge(&two).starts_with("Bearer error=\"invalid_request\""));

    let empty = site.request().header("authorization", "Bearer ").body(PING).send().await.unwrap();
    assert_eq!(empty.status(), 400);

    let other_scheme = site.request().header("authorization", "Basic YTpi").body(PING).send().await.unwrap();
    assert_eq!(other_scheme.status(), 401);
}

#[tokio::test]
async fn everybody_may_read_the_metadata_at_both_of_its_places() {
    let site = Setup::new().start().await;
    let tenant = &site.setup.tenant;
    let expected = json!({
        "resource": format!("https://{HOST}/mcp"),
        "authorization_servers": [format!("{}/{}/v2.0", site.setup.configuration.entra.authority, tenant.id)],
        "scopes_supported": [scope(&site)],
        "bearer_methods_supported": ["header"],
        "resource_name": "graph (productivity)",
    });
    for path in ["/.well-known/oauth-protected-resource/mcp", "/.well-known/oauth-protected-resource"] {
        let response = site.http.get(site.url(path)).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(response.json::<Value>().await.unwrap(), expected, "{path}");
    }
    let elsewhere = site.http.get(site.url("/.well-known/oauth-protected-resource/other")).send().await.unwrap();
    assert_eq!(elsewhere.status(), 404);
}

#[tokio::test]
async fn a_server_without_a_public_url_has_no_metadata_and_points_to_none() {
    let mut setup = Setup::new();
    setup.configuration.public_url = None;
    let site = setup.start().await;
    for path in ["/.well-known/oauth-protected-resource/mcp", "/.well-known/oauth-protected-resource"] {
        assert_eq!(site.http.get(site.url(path)).send().await.unwrap().status(), 404, "{path}");
    }
    let response = site.request().body(PING).send().await.unwrap();
    assert_eq!(challenge(&response), format!("Bearer scope=\"{}\"", scope(&site)));

    let by_any_name =
        site.request().header("host", "graph.productivity.svc").bearer_auth(site.setup.tenant.token(ALICE));
    assert_eq!(by_any_name.body(PING).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_server_at_the_root_of_its_host_has_one_metadata_document() {
    let mut setup = Setup::new();
    setup.configuration.public_url = Some(format!("https://{HOST}/"));
    setup.configuration.path = "/".into();
    let site = setup.start().await;
    let document = site.http.get(site.url("/.well-known/oauth-protected-resource")).send().await.unwrap();
    assert_eq!(document.json::<Value>().await.unwrap()["resource"], format!("https://{HOST}/"));
    let response = site.request().body(PING).send().await.unwrap();
    let metadata = format!("resource_metadata=\"https://{HOST}/.well-known/oauth-protected-resource\"");
    assert!(challenge(&response).contains(&metadata));
}

#[tokio::test]
async fn a_foreign_host_or_origin_is_refused_before_the_token_is_checked() {
    let site = Setup::new().start().await;
    let token = site.setup.tenant.token(ALICE);
    let foreign = [
        ("host", "evil.example", "host_not_accepted"),
        ("host", "127.0.0.1", "host_not_accepted"),
        ("origin", "https://evil.example", "origin_not_accepted"),
        ("origin", "null", "origin_not_accepted"),
    ];
    for (header, value, reason) in foreign {
        let response = site.request().header(header, value).bearer_auth(&token).body(PING).send().await.unwrap();
        assert_eq!(response.status(), 403, "{header} {value}");
        let line = site.audit_of(&response).await;
        assert_eq!((line["reason"].as_str(), line["objectId"].as_str()), (Some(reason), None));
    }
    for (header, value) in [("host", HOST), ("origin", &format!("https://{HOST}"))] {
        let response = site.request().header(header, value).bearer_auth(&token).body(PING).send().await.unwrap();
        assert_eq!(response.status(), 200, "{header} {value}");
    }
}

#[tokio::test]
async fn forwarded_headers_change_nothing() {
    let site = Setup::new().start().await;
    let request = site.request().header("host", "evil.example").header("x-forwarded-host", HOST);
    let request = request.header("forwarded", format!("host={HOST}")).bearer_auth(site.setup.tenant.token(ALICE));
    assert_eq!(request.body(PING).send().await.unwrap().status(), 403);
}

#[tokio::test]
async fn get_and_delete_are_not_allowed() {
    let site = Setup::new().start().await;
    let token = site.setup.tenant.token(ALICE);
    for method in [Method::GET, Method::DELETE, Method::PUT] {
        let request = || site.http.request(method.clone(), site.url("/mcp")).header("accept", "text/event-stream");
        let response = request().bearer_auth(&token).send().await.unwrap();
        assert_eq!(response.status(), 405, "{method}");
        assert_eq!(response.headers()["allow"], "POST");
        assert_eq!(request().send().await.unwrap().status(), 401, "{method}");
    }
}

#[tokio::test]
async fn without_keys_all_calls_are_refused_and_the_pod_is_not_ready() {
    let mut setup = Setup::new();
    // Nothing listens on port 1.
    setup.configuration.entra.authority = "https://localhost:1".into();
    let token = setup.tenant.token(ALICE);
    let site = setup.start_unready().await;
    let response = site.rpc(&token, "ping", json!({})).await;
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "30");
    assert_eq!(site.audit_of(&response).await["reason"], "keys_unavailable");

    let readiness = site.admin("/readyz").await;
    assert_eq!(readiness.status(), 503);
    assert!(readiness.text().await.unwrap().contains("[-] keys: no usable signing key"));
    assert_eq!(site.admin("/healthz").await.status(), 200);
}

#[tokio::test]
async fn the_audit_line_distinguishes_members_guests_and_applications() {
    let site = Setup::new().start().await;
    let tenant = &site.setup.tenant;
    let mut guest = tenant.claims(ALICE);
    guest["idp"] = json!("https://sts.windows.net/9999/");
    let application = tenant.application_claims(tenant.daemon);
    for (claims, caller) in [(tenant.claims(ALICE), "User"), (guest, "Guest"), (application, "Application")] {
        let response = site.rpc(&tenant.sign(&json!({}), &claims), "ping", json!({})).await;
        assert_eq!(response.status(), 200, "{caller}");
        assert_eq!(site.audit_of(&response).await["caller"], caller);
    }
}
