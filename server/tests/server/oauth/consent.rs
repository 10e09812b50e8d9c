//! Tests of consent: requested from each browser for each client, before Entra, and accepted only from the page in that
//! browser.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use entra_emulator::sign_in::{Browser, SameSite};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::by_hand::{Shown, header, location};
use super::mcp_client::{McpClient, register};
use super::site::{OAuthSite, REDIRECT_URI};
use crate::tenant::{ALICE, BOB, authority};

/// Returns whether the emulator got a sign-in request.
fn entra_was_asked(site: &OAuthSite) -> bool {
    site.site.setup.tenant.requests().iter().any(|request| request.path.ends_with("/authorize"))
}

#[tokio::test]
async fn the_page_names_the_client_and_the_redirect_before_any_request_to_entra() {
    let site = OAuthSite::new().await;
    let metadata = json!({ "client_name": "Contoso Editor", "redirect_uris": ["https://vscode.dev/redirect"] });
    let document: serde_json::Value = register(&site, metadata).await.json().await.unwrap();
    let client = McpClient::known(&site, document["client_id"].as_str().unwrap());
    let changes = [("redirect_uri", "https://vscode.dev/redirect")];
    let text = client.consent_page(&site.browser(), &changes).await.text().unwrap();
    for shown in ["Contoso Editor", "vscode.dev", "graph", "productivity"] {
        assert!(text.contains(shown), "{shown} is not in {text}");
    }
    assert!(!entra_was_asked(&site));
    let here = McpClient::register(&site).await.consent_page(&site.browser(), &[]).await.text().unwrap();
    assert!(!here.contains("vscode.dev"), "{here}");
}

#[tokio::test]
async fn the_page_cannot_be_framed_and_runs_nothing() {
    let site = OAuthSite::new().await;
    let client = McpClient::register(&site).await;
    let browser = site.browser();
    let consent = client.consent_page(&browser, &[]).await;
    let problem = client.consent_page(&browser, &[("redirect_uri", "https://evil.example")]).await;
    let entra = browser.open(&site.url("/sessions")).await.unwrap().page().unwrap();
    let sessions = entra.sign_in(ALICE).await.unwrap().page().unwrap();
    let connect = browser.open(&site.url("/connect")).await.unwrap().page().unwrap();
    for page in [consent, problem, sessions, connect] {
        let policy = header(&page.headers, "content-security-policy");
        for directive in ["frame-ancestors 'none'", "default-src 'none'", "base-uri 'none'"] {
            assert!(policy.contains(directive), "{}: {policy}", page.url);
        }
        // Chromium would block the redirects to Entra and back to the client.
        assert!(!policy.contains("form-action"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(header(&page.headers, "x-frame-options"), "DENY", "{}", page.url);
        assert_eq!(header(&page.headers, "x-content-type-options"), "nosniff", "{}", page.url);
        assert_eq!(header(&page.headers, "referrer-policy"), "no-referrer", "{}", page.url);
    }
}

#[tokio::test]
async fn every_cookie_belongs_to_this_host_and_is_out_of_reach_of_scripts() {
    let site = OAuthSite::new().await;
    let client = McpClient::register(&site).await;
    let browser = site.browser();
    let consent = client.consent_page(&browser, &[]).await;
    let of_consent = browser.cookies(&site.url("/")).unwrap();
    let entra = consent.press("approve").await.unwrap().page().unwrap();
    let of_sign_in = browser.cookies(&site.url("/")).unwrap();
    entra.sign_in(ALICE).await.unwrap().callback().unwrap();
    assert!(browser.cookies(&site.url("/")).unwrap().is_empty(), "a cookie outlives its sign-in");
    for (cookies, name) in [(of_consent, "__Host-mcp-consent-"), (of_sign_in, "__Host-mcp-sign-in-")] {
        let [cookie] = cookies.as_slice() else { panic!("{cookies:?}") };
        assert!(cookie.name.starts_with(name), "{cookie:?}");
        assert!(cookie.secure && cookie.http_only && cookie.path == "/", "{cookie:?}");
        assert_eq!((cookie.same_site, cookie.max_age), (SameSite::Lax, Some(600)), "{cookie:?}");
        assert!(cookie.value.len() >= 43, "{cookie:?}");
    }
}

#[tokio::test]
async fn a_forged_approval_does_not_redirect_to_entra() {
    let site = OAuthSite::new().await;
    let client = McpClient::register(&site).await;
    let (shown, others) = (Shown::to(&client, &[]).await, Shown::to(&client, &[]).await);
    let (own, other) = (shown.cookie.clone(), others.cookie.clone());
    let (name, value) = own.split_once('=').unwrap();
    let (_, value_of_other) = other.split_once('=').unwrap();
    let of_other = format!("{name}={value_of_other}");
    let hash = format!("{name}={}", URL_SAFE_NO_PAD.encode(Sha256::digest(value)));
    let (short, empty) = (format!("{name}={}", &value[1..]), format!("{name}="));
    let evil = ("origin", "https://evil.example");
    for (what, cookie, headers) in [
        ("no cookie", "", vec![]),
        ("the cookie of another browser", other.as_str(), vec![]),
        ("the value of another browser's cookie", &of_other, vec![]),
        ("the hash of the value", &hash, vec![]),
        ("a shorter value", &short, vec![]),
        ("an empty value", &empty, vec![]),
        ("a form of another site", &own, vec![("sec-fetch-site", "cross-site")]),
        ("a form of a neighbour", &own, vec![("sec-fetch-site", "same-site")]),
        ("a form of another site, cookies and all", &own, vec![("sec-fetch-site", "cross-site"), evil]),
        ("a form of another origin", &own, vec![evil]),
        ("a form of another port", &own, vec![("origin", "https://localhost:1")]),
        ("a form over plain http", &own, vec![("origin", "http://localhost")]),
        ("a form that says null from another site", &own, vec![("origin", "null"), ("sec-fetch-site", "cross-site")]),
        ("an address typed", &own, vec![("sec-fetch-site", "none")]),
    ] {
        let refused = shown.approve(&site, cookie, &headers).await;
        assert!(refused.status().is_client_error(), "{what}: {}", refused.status());
        assert!(!refused.headers().contains_key("location"), "{what}");
        assert!(!refused.headers().contains_key("set-cookie"), "{what}");
    }
    // Declining is a decision, too.
    let refused = shown.decide(&site, "cancel", &other, &[]).await;
    assert!(!refused.headers().contains_key("location"));
    // None of them used up the page.
    assert_eq!(shown.approve(&site, &own, &[("sec-fetch-site", "same-origin")]).await.status(), 303);
}

#[tokio::test]
async fn another_site_cannot_approve_in_the_victims_browser() {
    let site = OAuthSite::new().await;
    let client = McpClient::register(&site).await;
    let (victim, attacker) = (site.browser(), Shown::to(&client, &[]).await);
    // The victim has another open page, with its cookie.
    client.consent_page(&victim, &[]).await;
    let form = [("request", attacker.request.as_str()), ("decision", "approve")];
    let page = victim.post_from("https://evil.example/", &site.url("/consent"), &form).await.unwrap().page().unwrap();
    assert_eq!((page.status, page.url.path()), (403, "/mcp/consent"));
    let get = format!("{}?request={}&decision=approve", site.url("/consent"), attacker.request);
    let page = victim.open_from("https://evil.example/", &get).await.unwrap().page().unwrap();
    assert_eq!((page.status, page.text().unwrap().contains("There is no page here")), (405, true), "{}", page.html);
    // A link may show the page, which asks.
    let link = client.authorize(&[]);
    let page = victim.open_from("https://evil.example/", link.as_str()).await.unwrap().page().unwrap();
    assert_eq!((page.status, page.url.path()), (200, "/mcp/authorize"));
    assert!(!entra_was_asked(&site));
}

#[tokio::test]
async fn an_invalid_decision_is_not_an_approval() {
    let site = OAuthSite::new().await;
    let client = McpClient::register(&site).await;
    for decision in ["", "Approve", "approve ", "yes", "cancel"] {
        let shown = Shown::to(&client, &[]).await;
        let back = location(&shown.decide(&site, decision, &shown.cookie, &[]).await);
        assert!(back.as_str().starts_with(REDIRECT_URI), "{decision}: {back}");
        assert!(back.as_str().contains("error=access_denied"), "{decision}: {back}");
    }
    let shown = Shown::to(&client, &[]).await;
    let twice = format!("request={}&decision=cancel&decision=approve", shown.request);
    let request = site.http.post(site.url("/consent")).header("cookie", &shown.cookie).body(twice);
    assert_eq!(request.send().await.unwrap().status(), 400);
}

#[tokio::test]
async fn every_client_needs_consent_although_the_user_has_signed_in_at_entra() {
    let site = OAuthSite::new().await;
    let (first, second) = (McpClient::register(&site).await, McpClient::register(&site).await);
    let browser = site.browser();
    first.approve(&browser, ALICE, &[]).await;
    // The same client again, another one, and another redirect URI: Entra's own session only skips Entra's page.
    for (client, changes) in
        [(&first, vec![]), (&second, vec![]), (&first, vec![("redirect_uri", "http://127.0.0.1:33419/callback")])]
    {
        let page = client.consent_page(&browser, &changes).await;
        assert_eq!((page.status, page.url.path()), (200, "/mcp/authorize"), "{changes:?}");
    }
    let returned = second.consent_page(&browser, &[]).await.press("approve").await.unwrap().callback().unwrap();
    assert!(returned.parameter("code").is_some(), "Entra's session does not sign in by itself");
}

#[tokio::test]
async fn the_decision_is_about_the_request_that_was_shown() {
    let site = OAuthSite::new().await;
    let (client, other) = (McpClient::register(&site).await, McpClient::register(&site).await);
    let page = client.consent_page(&site.browser(), &[]).await;
    let changes = [
        ("client_id", other.id.as_str()),
        ("redirect_uri", "https://evil.example/"),
        ("state", "evil"),
        ("scope", "evil"),
        ("code_challenge", "evil"),
    ];
    let callback = page.press_with("cancel", &changes).await.unwrap().callback().unwrap();
    assert!(callback.url.as_str().starts_with(REDIRECT_URI));
    assert_eq!(callback.parameter("state").as_deref(), Some("client-state"));
}

#[tokio::test]
async fn a_browser_of_another_person_cannot_go_on_with_a_sign_in_that_was_approved() {
    let site = OAuthSite::new().await;
    let client = McpClient::register(&site).await;
    let shown = Shown::to(&client, &[]).await;
    let to_entra = location(&shown.approve(&site, &shown.cookie, &[]).await);
    let victim: Browser = Browser::trusting(&[&authority().ca_pem, &site.edge.ca_pem]).unwrap();
    let page = victim.open(to_entra.as_str()).await.unwrap().page().unwrap();
    let refused = page.sign_in(BOB).await.unwrap().page().unwrap();
    assert_eq!((refused.status, refused.url.path()), (400, "/mcp/callback"));
    assert!(refused.text().unwrap().contains("browser"), "{}", refused.text().unwrap());
    site.audited("other_browser").await;
}
