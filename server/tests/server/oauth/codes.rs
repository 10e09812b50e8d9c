//! Tests of authorization codes: once, for a minute, for their client, redirect URI and verifier.

use futures::future::join_all;

use super::mcp_client::{McpClient, Tokens, error, tokens};
use super::site::{OAuthSetup, OAuthSite, REDIRECT_URI};
use crate::harness::eventually;
use crate::tenant::{ALICE, BOB};

/// Asserts that the session of these tokens has ended: no refresh, and soon no access.
async fn has_ended(client: &McpClient<'_>, tokens: &Tokens) {
    assert_eq!(error(client.refresh(&tokens.refresh_token).await).await, "invalid_grant");
    let ended = async || {
        (client.site.site.rpc(&tokens.access_token, "ping", serde_json::json!({})).await.status() == 401).then_some(())
    };
    eventually("the access token is refused", ended).await;
}

#[tokio::test]
async fn a_repeated_code_is_refused_and_ends_its_session() {
    let site = OAuthSite::new().await;
    let client = McpClient::register(&site).await;
    let code = client.code(ALICE).await;
    let first = tokens(client.redeem(&code).await).await;
    assert!(!site.site.tools(&first.access_token).await.is_empty());
    let replayed = client.redeem(&code).await;
    assert_eq!((replayed.status().as_u16(), error(replayed).await.as_str()), (400, "invalid_grant"));
    has_ended(&client, &first).await;
    site.audited("code_replayed").await;
    // Another session of the same user and client continues.
    let other = client.sign_in(ALICE).await;
    assert!(!site.site.tools(&other.access_token).await.is_empty());
}

#[tokio::test]
async fn twenty_concurrent_redemptions_of_a_code_leave_no_session() {
    let site = OAuthSite::new().await;
    let client = McpClient::register(&site).await;
    let code = client.code(ALICE).await;
    let answers = join_all((0..20).map(|_| client.redeem(&code))).await;
    let (granted, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status() == 200);
    assert!(granted.len() <= 1, "{} callers got tokens", granted.len());
    for answer in refused {
        assert_eq!(error(answer).await, "invalid_grant");
    }
    for answer in granted {
        has_ended(&client, &tokens(answer).await).await;
    }
}

#[tokio::test]
async fn a_code_needs_everything_that_it_is_bound_to() {
    let site = OAuthSite::new().await;
    let (client, other) = (McpClient::register(&site).await, McpClient::register(&site).await);
    let challenge = {
        let url = client.authorize(&[]);
        url.query_pairs().find(|(name, _)| name == "code_challenge").unwrap().1.into_owned()
    };
    let (origin, slash, short) = (site.edge.origin.clone(), site.url("//"), &client.verifier[1..]);
    for (what, change, expected) in [
        ("another client", ("client_id", other.id.as_str()), "invalid_grant"),
        ("an unknown client", ("client_id", "unknown"), "invalid_client"),
        ("no client", ("client_id", ""), "invalid_request"),
        ("another redirect URI", ("redirect_uri", "https://evil.example/"), "invalid_grant"),
        ("another port", ("redirect_uri", "http://127.0.0.1:33419/callback"), "invalid_grant"),
        ("another path", ("redirect_uri", "http://127.0.0.1:33418/callback/"), "invalid_grant"),
        ("another verifier", ("code_verifier", other.verifier.as_str()), "invalid_grant"),
        ("the challenge as verifier", ("code_verifier", &challenge), "invalid_grant"),
        ("a shorter verifier", ("code_verifier", short), "invalid_grant"),
        ("no verifier", ("code_verifier", ""), "invalid_request"),
        ("another resource", ("resource", "https://evil.example/mcp"), "invalid_target"),
        ("the origin", ("resource", &origin), "invalid_target"),
        ("two slashes", ("resource", &slash), "invalid_target"),
        ("another grant", ("grant_type", "refresh_token"), "invalid_request"),
        ("an unknown grant", ("grant_type", "password"), "unsupported_grant_type"),
        ("the application's own grant", ("grant_type", "client_credentials"), "unsupported_grant_type"),
        ("no grant", ("grant_type", ""), "invalid_request"),
    ] {
        let code = client.code(ALICE).await;
        let usual = [
            ("grant_type", "authorization_code"),
            ("client_id", &client.id),
            ("code", &code),
            ("redirect_uri", REDIRECT_URI),
            ("code_verifier", &client.verifier),
        ];
        let form = usual.into_iter().filter(|(name, _)| *name != change.0).chain([change]);
        let form: Vec<_> = form.filter(|(_, value)| !value.is_empty()).collect();
        let refused = client.ask(&form).await;
        let status = if expected == "invalid_client" { 401 } else { 400 };
        assert_eq!((refused.status().as_u16(), error(refused).await.as_str()), (status, expected), "{what}");
    }
}

#[tokio::test]
async fn a_code_that_another_client_tried_works_for_neither() {
    let site = OAuthSite::new().await;
    let (client, thief) = (McpClient::register(&site).await, McpClient::register(&site).await);
    let code = client.code(ALICE).await;
    assert_eq!(error(thief.redeem(&code).await).await, "invalid_grant");
    assert_eq!(error(client.redeem(&code).await).await, "invalid_grant");
    site.audited("code_of_another_client").await;
}

#[tokio::test]
async fn an_attackers_code_cannot_be_injected_into_the_victims_client() {
    let site = OAuthSite::new().await;
    let client = McpClient::register(&site).await;
    // The same client on another machine: the same id, another verifier.
    let attackers = McpClient::known(&site, &client.id);
    let code = attackers.code(BOB).await;
    assert_eq!(error(client.redeem(&code).await).await, "invalid_grant");
    site.audited("code_verifier_wrong").await;
}

#[tokio::test]
async fn the_resource_at_the_token_endpoint_may_be_absent_or_this_server() {
    for serves_root in [false, true] {
        let mut setup = OAuthSetup::new().await;
        setup.server().serves_root = serves_root;
        let site = setup.start().await;
        let client = McpClient::register(&site).await;
        let (ours, slash, origin) = (site.url(""), site.url("/"), site.edge.origin.clone());
        let mut refresh_token = client.sign_in(ALICE).await.refresh_token;
        for (resource, is_ours) in [(ours.as_str(), true), (&slash, true), (&origin, serves_root)] {
            let form = [
                ("grant_type", "refresh_token"),
                ("client_id", &client.id),
                ("refresh_token", &refresh_token),
                ("resource", resource),
            ];
            let answer = client.ask(&form).await;
            if !is_ours {
                assert_eq!(error(answer).await, "invalid_target", "{resource}");
                continue;
            }
            let granted = tokens(answer).await;
            // The audience is the canonical URL, independent of its spelling in the request.
            assert_eq!(super::by_hand::decoded(&granted.access_token).1["aud"], ours, "{resource}");
            refresh_token = granted.refresh_token;
        }
    }
}

#[tokio::test]
async fn a_repeated_parameter_at_the_token_endpoint_is_refused_and_uses_up_nothing() {
    let site = OAuthSite::new().await;
    let client = McpClient::register(&site).await;
    let code = client.code(ALICE).await;
    for name in ["grant_type", "client_id", "code", "redirect_uri", "code_verifier", "resource"] {
        let form = [
            ("grant_type", "authorization_code"),
            ("client_id", &client.id),
            ("code", &code),
            ("redirect_uri", REDIRECT_URI),
            ("code_verifier", &client.verifier),
            ("resource", &site.url("")),
            (name, "again"),
        ];
        assert_eq!(error(client.ask(&form).await).await, "invalid_request", "{name}");
    }
    tokens(client.redeem(&code).await).await;
}

#[tokio::test]
async fn the_redirect_uri_of_a_code_is_that_of_the_request_and_not_the_registered_one() {
    let site = OAuthSite::new().await;
    let mut client = McpClient::register(&site).await;
    client.redirect_uri = "http://127.0.0.1:40001/callback".to_owned();
    let browser = site.browser().leaving_at(&client.redirect_uri).unwrap();
    let code = client.approve(&browser, ALICE, &[]).await.parameter("code").unwrap();
    client.redirect_uri = REDIRECT_URI.to_owned();
    assert_eq!(error(client.redeem(&code).await).await, "invalid_grant");
}
