//! Tests of requests to the authorization endpoint: the user's page, errors for the client, and refused redirects.

use mcp_entra_policy::ClientRegistration;
use serde_json::json;

use super::by_hand::{answered, header};
use super::mcp_client::{McpClient, register, tokens};
use super::site::{OAuthSetup, OAuthSite};
use crate::tenant::ALICE;

/// A client that has registered these redirect URIs.
async fn client_at<'a>(site: &'a OAuthSite, redirect_uris: &[&str]) -> McpClient<'a> {
    let answer = register(site, json!({ "redirect_uris": redirect_uris })).await;
    let document: serde_json::Value = answer.json().await.unwrap();
    McpClient::known(site, document["client_id"].as_str().unwrap_or_else(|| panic!("{document}")))
}

#[tokio::test]
async fn the_error_of_an_invalid_request_goes_to_the_client_with_its_state_and_the_issuer() {
    let site = OAuthSite::new().await;
    let client = McpClient::register(&site).await;
    let origin = site.edge.origin.clone();
    let (foreign_path, deeper) = (format!("{origin}/other"), format!("{origin}/mcp/tools"));
    let (plain, double) = (site.url("").replace("https:", "http:"), site.url("//"));
    let verifier = client.verifier.clone();
    for (changes, error) in [
        (vec![("response_type", "")], "invalid_request"),
        (vec![("response_type", "token")], "unsupported_response_type"),
        (vec![("response_type", "code id_token")], "unsupported_response_type"),
        (vec![("response_mode", "fragment")], "invalid_request"),
        (vec![("response_mode", "form_post")], "invalid_request"),
        (vec![("request", "eyJ")], "request_not_supported"),
        (vec![("request_uri", "https://evil.example")], "request_uri_not_supported"),
        (vec![("resource", "https://evil.example/mcp")], "invalid_target"),
        (vec![("resource", foreign_path.as_str())], "invalid_target"),
        (vec![("resource", &deeper)], "invalid_target"),
        (vec![("resource", &plain)], "invalid_target"),
        (vec![("resource", &double)], "invalid_target"),
        (vec![("resource", &origin)], "invalid_target"),
        (vec![("code_challenge_method", "")], "invalid_request"),
        (vec![("code_challenge_method", "plain")], "invalid_request"),
        (vec![("code_challenge_method", "s256")], "invalid_request"),
        (vec![("code_challenge", "")], "invalid_request"),
        (vec![("code_challenge", ""), ("code_challenge_method", "")], "invalid_request"),
        (vec![("code_challenge", &verifier), ("code_challenge_method", "plain")], "invalid_request"),
        (vec![("code_challenge", "short")], "invalid_request"),
        (vec![("code_challenge", "+23456789012345678901234567890123456789012=")], "invalid_request"),
        (vec![("prompt", "none")], "interaction_required"),
    ] {
        let callback = answered(&client, &changes).await;
        assert_eq!(callback.parameter("error").as_deref(), Some(error), "{changes:?}");
        assert_eq!(callback.parameter("state").as_deref(), Some("client-state"), "{changes:?}");
        assert_eq!(callback.parameter("iss"), Some(site.url("")), "{changes:?}");
        assert_eq!(callback.parameter("code"), None, "{changes:?}");
    }
    // Entra got no request for these.
    assert!(!site.site.setup.tenant.requests().iter().any(|request| request.path.ends_with("/authorize")));
}

#[tokio::test]
async fn every_answer_has_the_issuer_that_the_metadata_names() {
    let site = OAuthSite::new().await;
    let client = McpClient::register(&site).await;
    let issuer = site.document("/.well-known/oauth-authorization-server/mcp").await["issuer"].clone();
    let browser = site.browser();
    let declined = client.consent_page(&browser, &[]).await.press("cancel").await.unwrap().callback().unwrap();
    assert_eq!(declined.parameter("error").as_deref(), Some("access_denied"));
    let approved = client.approve(&browser, ALICE, &[]).await;
    assert!(approved.parameter("code").is_some());
    for callback in [declined, approved] {
        assert_eq!(json!(callback.parameter("iss")), issuer);
        assert_eq!(callback.parameter("state").as_deref(), Some("client-state"));
        let names: Vec<_> = callback.url.query_pairs().map(|(name, _)| name.into_owned()).collect();
        assert_eq!(names.iter().filter(|name| *name == "iss").count(), 1, "{names:?}");
    }
}

#[tokio::test]
async fn the_resource_may_be_absent_or_this_server_in_any_of_its_forms() {
    for serves_root in [false, true] {
        let mut setup = OAuthSetup::new().await;
        setup.server().serves_root = serves_root;
        let site = setup.start().await;
        let client = McpClient::register(&site).await;
        let (origin, rooted) = (site.edge.origin.clone(), format!("{}/", site.edge.origin));
        let (ours, slash) = (site.url(""), site.url("/"));
        for (resource, is_ours) in
            [("", true), (ours.as_str(), true), (&slash, true), (&origin, serves_root), (&rooted, serves_root)]
        {
            let address = client.authorize(&[("resource", resource)]);
            let step = site.browser().open(address.as_str()).await.unwrap();
            assert_eq!(step.page().is_ok(), is_ours, "{resource} with root {serves_root}");
        }
    }
}

#[tokio::test]
async fn unknown_and_tenant_breaking_scopes_are_dropped() {
    let site = OAuthSite::new().await;
    let client = McpClient::register(&site).await;
    let scope = "openid profile email offline_access mcp.access Mail.ReadWrite graph:Directory.ReadWrite.All acrs:c9 *";
    let changes = [("scope", scope), ("prompt", "consent"), ("claims", r#"{"id_token":{"acr":{}}}"#)];
    let consent = client.consent_page(&site.browser(), &changes).await;
    for dropped in ["Mail.ReadWrite", "Directory.ReadWrite.All"] {
        assert!(!consent.text().unwrap().contains(dropped), "{dropped}");
    }
    let entra = consent.press("approve").await.unwrap().page().unwrap();
    let asked: std::collections::BTreeMap<_, _> = entra.url.query_pairs().into_owned().collect();
    let mut scopes: Vec<&str> = asked["scope"].split(' ').collect();
    scopes.sort_unstable();
    let own = format!("{}/mcp.access", site.site.setup.tenant.server);
    let mut expected = [own.as_str(), "offline_access", "openid", "profile"];
    expected.sort_unstable();
    assert_eq!(scopes, expected);
    assert_eq!((asked.get("prompt"), asked.get("resource")), (None, None));
    assert_eq!(asked["claims"], r#"{"access_token":{"xms_cc":{"values":["cp1"]}}}"#);
    assert_eq!(asked["code_challenge_method"], "S256");
    let code = entra.sign_in(ALICE).await.unwrap().callback().unwrap().parameter("code").unwrap();
    assert_eq!(tokens(client.redeem(&code).await).await.scope, "mcp.access");
}

#[tokio::test]
async fn an_unregistered_redirect_uri_gets_no_answer_and_the_page_shows_the_reason() {
    let site = OAuthSite::new().await;
    let client = client_at(&site, &["http://127.0.0.1:33418/callback", "https://vscode.dev/redirect"]).await;
    for uri in [
        "",
        "https://evil.example/callback",
        "http://127.0.0.1:33418/callback/",
        "http://127.0.0.1:33418/callback/../callback",
        "http://127.0.0.1:33418/callback%2e",
        "http://127.0.0.1:33418/callback?x=y",
        "http://127.0.0.1:33418/callback#x",
        "http://127.0.0.1:33418/Callback",
        "http://127.0.0.1:33418/other",
        "http://localhost:33418/callback",
        "http://127.0.0.1:33418@evil.example/callback",
        "http://user@127.0.0.1:33418/callback",
        "http://127.0.0.1:0/callback",
        "http://127.0.0.1:99999/callback",
        "http://127.0.0.1.evil.example/callback",
        "https://127.0.0.1:33418/callback",
        "https://vscode.dev/redirect/",
        "https://vscode.dev/redirect?code=x",
        "https://vscode.dev:8443/redirect",
        "https://vscode.dev:443/redirect",
        "https://VSCODE.dev/redirect",
        "http://vscode.dev/redirect",
        "https://insiders.vscode.dev/redirect",
        "https://vscode.dev/redirect\r\nLocation: https://evil.example",
        "//evil.example",
        "javascript:alert(1)",
    ] {
        // A redirect to a client would be an error here.
        let page = client.consent_page(&site.browser(), &[("redirect_uri", uri)]).await;
        assert_eq!((page.status, page.forms().unwrap().len()), (400, 0), "{uri}");
        assert_eq!(header(&page.headers, "location"), "", "{uri}");
        assert!(page.links().unwrap().iter().all(|link| !link.target.contains("evil")), "{uri}");
    }
    for uri in ["http://127.0.0.1:1/callback", "http://127.0.0.1/callback", "https://vscode.dev/redirect"] {
        assert_eq!(client.consent_page(&site.browser(), &[("redirect_uri", uri)]).await.status, 200, "{uri}");
    }
}

#[tokio::test]
async fn the_redirect_uri_may_only_be_omitted_if_there_is_one_without_a_variable_port() {
    let site = OAuthSite::new().await;
    for (registered, is_enough) in [
        (vec!["https://vscode.dev/redirect"], true),
        (vec!["http://127.0.0.1:33418/callback"], false),
        (vec!["https://vscode.dev/redirect", "https://insiders.vscode.dev/redirect"], false),
    ] {
        let client = client_at(&site, &registered).await;
        let page = client.consent_page(&site.browser(), &[("redirect_uri", "")]).await;
        assert_eq!(page.status == 200, is_enough, "{registered:?}");
    }
}

#[tokio::test]
async fn a_repeated_parameter_is_refused_and_redirects_nowhere() {
    let site = OAuthSite::new().await;
    let client = McpClient::register(&site).await;
    for name in ["client_id", "redirect_uri", "state", "code_challenge", "scope", "resource", "unknown"] {
        let mut url = client.authorize(&[("resource", &site.url("")), ("unknown", "x")]);
        url.query_pairs_mut().append_pair(name, "again");
        let page = site.browser().open(url.as_str()).await.unwrap().page().unwrap();
        assert_eq!((page.status, page.forms().unwrap().len()), (400, 0), "{name}");
    }
}

#[tokio::test]
async fn no_value_of_a_request_ends_a_header_or_a_tag() {
    let site = OAuthSite::new().await;
    let name = "<script>alert(1)</script>\"'><img src=x>";
    let answer = register(&site, json!({ "client_name": name, "redirect_uris": [super::site::REDIRECT_URI] })).await;
    let document: serde_json::Value = answer.json().await.unwrap();
    let client = McpClient::known(&site, document["client_id"].as_str().unwrap());
    let state = "x\r\nSet-Cookie: evil=1\r\n\r\n<script>&code=evil&iss=evil#fragment";
    let consent = client.consent_page(&site.browser(), &[("state", state)]).await;
    assert!(!consent.html.contains("<script") && !consent.html.contains("<img"), "{}", consent.html);
    for callback in [
        consent.press("cancel").await.unwrap().callback().unwrap(),
        answered(&client, &[("state", state), ("response_type", "token")]).await,
        client.approve(&site.browser(), ALICE, &[("state", state)]).await,
    ] {
        assert_eq!(callback.parameter("state").as_deref(), Some(state));
        assert_eq!(callback.parameter("iss"), Some(site.url("")));
        assert_eq!(callback.url.fragment(), None);
    }
    let wrong = [("redirect_uri", "http://evil.example/\"><script>alert(1)</script>")];
    let page = client.consent_page(&site.browser(), &wrong).await;
    assert!(!page.html.contains("<script"), "{}", page.html);
    let raw = format!("{}&state=%0d%0aSet-Cookie:%20evil=1&response_type=token", site.url("/authorize?x=y"));
    let answer = site.http.get(raw).send().await.unwrap();
    assert!(!answer.headers().contains_key("set-cookie"));
}

#[tokio::test]
async fn a_refused_client_is_shown_the_setting_and_an_unreadable_one_its_publisher() {
    for (registration, client, status, text) in [
        (ClientRegistration::Listed, "https://editor.example/client.json", 403, "spec.authorizationServer.clients"),
        (ClientRegistration::Listed, "unknown", 403, "spec.authorizationServer.clients"),
        (
            ClientRegistration::Dynamic,
            "https://editor.example/client.json",
            403,
            "spec.authorizationServer.clientMetadataHosts",
        ),
        (ClientRegistration::Dynamic, "https://vscode.dev", 400, "publisher"),
        (ClientRegistration::Dynamic, "unknown", 400, "~/.mcp-auth"),
    ] {
        let mut setup = OAuthSetup::new().await;
        setup.server().client_registration = registration;
        setup.server().client_metadata_hosts = vec!["vscode.dev".to_owned()];
        setup.server().clients = vec![super::site::listed()];
        let site = setup.start().await;
        let page = McpClient::known(&site, client).consent_page(&site.browser(), &[]).await;
        assert_eq!((page.status, page.text().unwrap().contains(text)), (status, true), "{client}: {}", page.html);
        site.audited("client_not_allowed").await;
    }
}
