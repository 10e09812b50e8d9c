//! Tests of dynamic client registration (RFC 7591) from outside: stored members, dropped members, and floods.

use serde_json::{Value, json};

use super::by_hand::Shown;
use super::mcp_client::{McpClient, error, register};
use super::site::{OAuthSite, REDIRECT_URI};
use crate::tenant::ALICE;

#[tokio::test]
async fn a_client_gets_its_registered_metadata_and_no_secret() {
    let site = OAuthSite::new().await;
    let asked = json!({
        "client_name": "Client\r\nSet-Cookie: a=b \u{202e}",
        "redirect_uris": [REDIRECT_URI, "https://evil.example/callback", "javascript:alert(1)"],
        "token_endpoint_auth_method": "client_secret_basic",
        "grant_types": ["authorization_code", "refresh_token", "client_credentials"],
        "scope": "everything",
        "jwks_uri": "https://127.0.0.1/",
        "software_statement": "unread",
    });
    let answer = register(&site, asked).await;
    assert_eq!(
        (answer.status().as_u16(), answer.headers()["content-type"].to_str().unwrap()),
        (201, "application/json")
    );
    let mut document: Value = answer.json().await.unwrap();
    assert!(document["client_id"].take().as_str().unwrap().len() < 512);
    assert!(document["client_id_issued_at"].take().is_i64());
    let expected = json!({
        "client_id": null,
        "client_id_issued_at": null,
        "client_name": "Client Set-Cookie: a=b",
        "redirect_uris": [REDIRECT_URI],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    });
    assert_eq!(document, expected);
    site.audited("client_registered").await;
}

#[tokio::test]
async fn a_registration_without_a_usable_redirect_uri_is_refused() {
    let site = OAuthSite::new().await;
    for uri in [
        "https://evil.example/callback",
        "http://evil.example/callback",
        "http://127.0.0.1.evil.example/callback",
        "http://127.0.0.1@evil.example/callback",
        "http://localhost:80@evil.example/",
        "http://2130706433/callback",
        "http://127.1/callback",
        "http://0.0.0.0/callback",
        "http://LOCALHOST/callback",
        "http://127.0.0.1/callback#fragment",
        "http://127.0.0.1/a/../callback",
        "http://127.0.0.1\\@evil.example/",
        "http://127.0.0.1/callback?code=ours",
        "http://127.0.0.1/*",
        "javascript:alert(1)",
        "data:text/html,x",
        "cursor://evil/oauth/callback",
        "https://vscode.dev/redirect/..",
        "https://vscode.dev.evil.example/redirect",
        "",
        "/callback",
    ] {
        let refused = register(&site, json!({ "redirect_uris": [uri] })).await;
        assert_eq!(refused.status(), 400, "{uri}");
        assert_eq!(error(refused).await, "invalid_redirect_uri", "{uri}");
    }
    for (what, code) in [
        (json!({}), "invalid_redirect_uri"),
        (json!({ "redirect_uris": [] }), "invalid_redirect_uri"),
        (json!({ "redirect_uris": REDIRECT_URI }), "invalid_redirect_uri"),
        (json!([]), "invalid_client_metadata"),
        (json!({ "redirect_uris": [REDIRECT_URI], "client_name": 7 }), "invalid_client_metadata"),
        (json!({ "redirect_uris": [REDIRECT_URI], "grant_types": ["implicit"] }), "invalid_client_metadata"),
        (json!({ "redirect_uris": [REDIRECT_URI], "response_types": ["token"] }), "invalid_client_metadata"),
    ] {
        let refused = register(&site, what.clone()).await;
        assert_eq!((refused.status().as_u16(), error(refused).await.as_str()), (400, code), "{what}");
    }
    let duplicates = format!(r#"{{"redirect_uris":["{REDIRECT_URI}"],"redirect_uris":["{REDIRECT_URI}"]}}"#);
    let refused = site.http.post(site.url("/register")).body(duplicates).send().await.unwrap();
    assert_eq!(error(refused).await, "invalid_client_metadata");
}

#[tokio::test]
async fn an_altered_client_id_is_unknown() {
    let site = OAuthSite::new().await;
    let client = McpClient::register(&site).await;
    let altered = |at: usize| {
        let mut id = client.id.clone();
        let other = if id[at..].starts_with('A') { "B" } else { "A" };
        id.replace_range(at..=at, other);
        id
    };
    let (first, middle) = (altered(0), altered(client.id.len() / 2));
    for id in [first.as_str(), &middle, &client.id[1..], "unknown", &"x".repeat(5_000), "../mcp", "\0"] {
        let page = McpClient::known(&site, id).consent_page(&site.browser(), &[]).await;
        assert_eq!((page.status, page.forms().unwrap().len()), (400, 0), "{id}");
    }
    assert_eq!(client.consent_page(&site.browser(), &[]).await.status, 200);
}

#[tokio::test]
async fn a_flood_of_registrations_is_stopped_and_neither_other_addresses_nor_sign_ins_are_affected() {
    let mut setup = super::site::OAuthSetup::new().await;
    setup.setup.configuration.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let site = setup.start().await;
    let from = async |address: &str| {
        let request = site.http.post(site.url("/register")).header("x-forwarded-for", address);
        request.json(&json!({ "redirect_uris": [REDIRECT_URI] })).send().await.unwrap()
    };
    for number in 0..60 {
        assert_eq!(from("198.51.100.7").await.status(), 201, "{number}");
    }
    let refused = from("198.51.100.7").await;
    assert_eq!(refused.status(), 429);
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(error(refused).await, "temporarily_unavailable");
    // An address that the attacker writes before its own gives it no other budget.
    assert_eq!(from("203.0.113.9, 198.51.100.7").await.status(), 429);
    assert_eq!(from("198.51.100.8").await.status(), 201);
    let client = McpClient::register(&site).await;
    client.sign_in(ALICE).await;
    site.audited("address_rate_limited").await;
}

#[tokio::test]
async fn a_flood_of_approvals_is_stopped_with_a_page() {
    let site = OAuthSite::new().await;
    let client = McpClient::register(&site).await;
    let shown = Shown::to(&client, &[]).await;
    // Invalid forms use up no budget.
    for _ in 0..100 {
        assert_eq!(site.http.post(site.url("/consent")).send().await.unwrap().status(), 400);
    }
    for number in 0..60 {
        assert_eq!(shown.approve(&site, &shown.cookie, &[]).await.status(), 303, "{number}");
    }
    let last = shown.approve(&site, &shown.cookie, &[]).await;
    assert_eq!(last.status(), 429);
    assert!(last.headers().contains_key("retry-after"));
    // Registrations have a separate budget.
    McpClient::register(&site).await;
}
