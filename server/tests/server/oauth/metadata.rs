//! Tests of the documents for discovery (RFC 8414), and of every endpoint's answers over HTTP.

use reqwest::{Method, Response};
use serde_json::{Value, json};

use super::by_hand::{Shown, header};
use super::mcp_client::McpClient;
use super::site::{OAuthSetup, OAuthSite};

const METADATA: &str = "/.well-known/oauth-authorization-server/mcp";
/// Endpoints with their methods. Clients use the first ones, browsers the others.
const OF_CLIENTS: [(&str, Method); 4] =
    [("/jwks", Method::GET), ("/token", Method::POST), ("/register", Method::POST), ("/revoke", Method::POST)];
const OF_BROWSERS: [(&str, Method); 5] = [
    ("/authorize", Method::GET),
    ("/consent", Method::POST),
    ("/callback", Method::GET),
    ("/connect", Method::GET),
    ("/sessions", Method::GET),
];

async fn ask(site: &OAuthSite, method: &Method, path: &str) -> Response {
    let request = site.http.request(method.clone(), site.url(path)).header("origin", "https://any.example");
    request.send().await.unwrap()
}

#[tokio::test]
async fn the_metadata_has_the_issuer_of_its_address_and_offers_what_the_server_does() {
    let site = OAuthSite::new().await;
    let expected = json!({
        "issuer": site.url(""),
        "authorization_endpoint": site.url("/authorize"),
        "token_endpoint": site.url("/token"),
        "registration_endpoint": site.url("/register"),
        "revocation_endpoint": site.url("/revoke"),
        "jwks_uri": site.url("/jwks"),
        "scopes_supported": ["mcp.access"],
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "token_endpoint_auth_methods_supported": ["none"],
        "revocation_endpoint_auth_methods_supported": ["none"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": true,
        "client_id_metadata_document_supported": true,
        "service_documentation": site.url("/connect"),
        "ui_locales_supported": ["en", "sv"],
    });
    assert_eq!(site.document(METADATA).await, expected);
    // For every host in a request, the document contains the configured one.
    let named = site.http.get(format!("{}{METADATA}", site.edge.origin)).header("x-forwarded-host", "evil.example");
    assert_eq!(named.send().await.unwrap().json::<Value>().await.unwrap(), expected);
    // Other forms of the address and other paths have no answer with this issuer.
    for other in ["/.well-known/oauth-authorization-server", "/mcp/.well-known/oauth-authorization-server"] {
        let answer = site.http.get(format!("{}{other}", site.edge.origin)).send().await.unwrap();
        assert_eq!(answer.status(), 404, "{other}");
    }
}

#[tokio::test]
async fn a_server_of_listed_clients_offers_no_registration() {
    let mut setup = OAuthSetup::new().await;
    setup.server().client_registration = mcp_entra_policy::ClientRegistration::Listed;
    setup.server().clients = vec![super::site::listed()];
    let site = setup.start().await;
    let metadata = site.document(METADATA).await;
    assert_eq!(
        (&metadata["registration_endpoint"], metadata.get("client_id_metadata_document_supported")),
        (&json!(null), None)
    );
    let client = json!({ "redirect_uris": [super::site::REDIRECT_URI] });
    let refused = super::mcp_client::register(&site, client).await;
    assert!(refused.status().is_client_error(), "{}", refused.status());
    assert_eq!(super::mcp_client::error(refused).await, "invalid_client_metadata");
}

#[tokio::test]
async fn any_page_may_call_the_endpoints_of_clients_and_none_may_read_those_of_browsers() {
    let site = OAuthSite::new().await;
    let public = OF_CLIENTS.iter().map(|(path, method)| (site.url(path), method.clone()));
    let document = (format!("{}{METADATA}", site.edge.origin), Method::GET);
    for (url, method) in public.chain([document]) {
        let asked = || site.http.request(method.clone(), &url).header("origin", "https://any.example");
        let answer = asked().send().await.unwrap();
        assert_eq!(header(answer.headers(), "access-control-allow-origin"), "*", "{url}");
        assert_eq!(header(answer.headers(), "access-control-allow-credentials"), "", "{url}");
        let preflight = site.http.request(Method::OPTIONS, &url).header("origin", "https://any.example");
        let preflight = preflight.header("access-control-request-method", method.as_str()).send().await.unwrap();
        assert_eq!(header(preflight.headers(), "access-control-allow-origin"), "*", "{url}");
    }
    for (path, method) in OF_BROWSERS.iter().chain(&[("/sessions", Method::POST), ("/authorize", Method::OPTIONS)]) {
        let answer = ask(&site, method, path).await;
        let told: Vec<_> = answer.headers().keys().filter(|name| name.as_str().starts_with("access-control")).collect();
        assert!(told.is_empty(), "{method} {path}: {told:?}");
    }
}

#[tokio::test]
async fn each_endpoint_accepts_only_its_methods() {
    let site = OAuthSite::new().await;
    for (path, taken) in OF_CLIENTS.iter().chain(&OF_BROWSERS) {
        for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            let status = ask(&site, &method, path).await.status();
            let is_taken = method == *taken || (*path == "/sessions" && method == Method::POST);
            assert_eq!(status != 405, is_taken, "{method} {path}: {status}");
        }
    }
}

#[tokio::test]
async fn answers_about_users_are_not_cacheable_and_public_documents_are_for_minutes() {
    let site = OAuthSite::new().await;
    let client = McpClient::register(&site).await;
    let shown = Shown::to(&client, &[]).await;
    assert_eq!(header(&shown.page.headers, "cache-control"), "no-store");
    let approved = shown.approve(&site, &shown.cookie, &[]).await;
    assert_eq!(header(approved.headers(), "cache-control"), "no-store");
    for path in ["/token", "/register"] {
        assert_eq!(header(ask(&site, &Method::POST, path).await.headers(), "cache-control"), "no-store", "{path}");
    }
    let code = client.code(crate::tenant::ALICE).await;
    let granted = client.redeem(&code).await;
    assert_eq!((granted.status().as_u16(), header(granted.headers(), "cache-control")), (200, "no-store"));
    assert_eq!(header(ask(&site, &Method::GET, "/callback").await.headers(), "cache-control"), "no-store");
    assert_eq!(header(ask(&site, &Method::GET, "/jwks").await.headers(), "cache-control"), "max-age=300");
}

#[tokio::test]
async fn a_body_is_read_up_to_its_limit() {
    let site = OAuthSite::new().await;
    for (path, _) in OF_CLIENTS.iter().filter(|(_, method)| *method == Method::POST) {
        let limit = if *path == "/register" { 16 * 1024 } else { 64 * 1024 };
        for (length, too_large) in [(limit, false), (limit + 1, true)] {
            let answer = site.http.post(site.url(path)).body("x".repeat(length)).send().await.unwrap();
            assert_eq!(answer.status() == 413, too_large, "{path} {length}: {}", answer.status());
        }
    }
}

#[tokio::test]
async fn the_published_keys_are_public_halves_for_es256() {
    let site = OAuthSite::new().await;
    let document = site.document("/mcp/jwks").await;
    let [key] = document["keys"].as_array().unwrap().as_slice() else { panic!("{document}") };
    let members: Vec<&str> = key.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members, ["alg", "crv", "kid", "kty", "use", "x", "y"]);
    assert_eq!((&key["alg"], &key["crv"]), (&json!("ES256"), &json!("P-256")));
}

#[tokio::test]
async fn a_request_for_another_host_is_answered_by_no_endpoint() {
    let site = OAuthSite::new().await;
    for (path, method) in OF_CLIENTS.iter().chain(&OF_BROWSERS) {
        let request = site.http.request(method.clone(), site.url(path)).header("host", "evil.example");
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 421, "{method} {path}");
    }
}
