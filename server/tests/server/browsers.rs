//! Tests of pages that may call the server from a browser, and of the answers that they can read.

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};
use reqwest::{Method, Response};
use serde_json::json;

use crate::harness::{HOST, Setup, Site};
use crate::tenant::{ALICE, BOB};

const METADATA: [&str; 2] = ["/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource/mcp"];
const INSPECTOR: &str = "http://localhost:6274";

/// A server that allows the inspector's origin, and one more.
async fn site() -> Site {
    let mut setup = Setup::new();
    setup.configuration.allowed_origins = vec!["https://chat.contoso.com".into(), INSPECTOR.into()];
    setup.start().await
}

/// Sends the request of a browser before a page of this origin may POST with these headers.
async fn preflight(site: &Site, path: &str, method: &str, origin: &str) -> Response {
    let request = site.http.request(Method::OPTIONS, site.url(path)).header("origin", origin);
    let request = request.header("access-control-request-method", method);
    request.header("access-control-request-headers", "authorization,mcp-param-x").send().await.unwrap()
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn every_page_may_read_the_public_documents() {
    let mut inside = Setup::new();
    inside.configuration.public_url = None;
    for site in [Setup::new().start().await, inside.start().await] {
        for path in METADATA {
            let request = site.http.get(site.url(path)).header("origin", "https://any.example");
            let document = request.send().await.unwrap();
            assert_eq!(header(document.headers(), "access-control-allow-origin"), "*", "{path}");
            let preflight = preflight(&site, path, "GET", "https://any.example").await;
            assert_eq!(preflight.status(), 200, "{path}");
            assert_eq!(header(preflight.headers(), "access-control-allow-origin"), "*", "{path}");
            assert_eq!(header(preflight.headers(), "access-control-allow-headers"), "*", "{path}");
            assert_eq!(header(preflight.headers(), "access-control-allow-methods"), "GET", "{path}");
            assert_eq!(site.http.post(site.url(path)).send().await.unwrap().status(), 405, "{path}");
        }
    }
}

#[tokio::test]
async fn a_page_of_an_allowed_origin_may_call_and_sees_every_answer() {
    let site = site().await;
    for path in ["/mcp", "/mcp/"] {
        let asked = preflight(&site, path, "POST", INSPECTOR).await;
        assert_eq!(asked.status(), 200);
        assert_eq!(header(asked.headers(), "access-control-allow-origin"), INSPECTOR);
        assert_eq!(header(asked.headers(), "access-control-allow-headers"), "authorization,mcp-param-x");
        assert_eq!(header(asked.headers(), "access-control-allow-methods"), "POST,GET,DELETE");
        assert!(header(asked.headers(), "vary").contains("origin"));
        assert_eq!(header(asked.headers(), "access-control-allow-credentials"), "");
    }
    // No message was decided yet.
    assert!(site.audit().is_empty());

    let tenant = &site.setup.tenant;
    let (alice, bob) = (tenant.token(ALICE), tenant.token(BOB));
    let call = json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": { "name": "get_user_details" } });
    let call = call.to_string();
    for (token, body, status) in [
        (&alice, call.as_str(), 200),
        (&bob, &call, 403),
        (&alice, "{", 400),
        (&alice, r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#, 202),
        (&String::from("no.such.token"), &call, 401),
    ] {
        let request = site.request().header("origin", INSPECTOR).bearer_auth(token).body(body.to_owned());
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), status, "{body}");
        assert_eq!(header(answer.headers(), "access-control-allow-origin"), INSPECTOR, "{status}");
        let exposed = header(answer.headers(), "access-control-expose-headers");
        assert_eq!(exposed, "www-authenticate,retry-after,x-request-id", "{status}");
        assert_eq!(answer.headers().contains_key(WWW_AUTHENTICATE), status == 401, "{status}");
    }
    for method in [Method::GET, Method::DELETE] {
        let request = site.http.request(method, site.url("/mcp")).header("origin", INSPECTOR).bearer_auth(&alice);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 405);
        assert_eq!(header(answer.headers(), "access-control-allow-origin"), INSPECTOR);
    }
}

#[tokio::test]
async fn a_page_of_any_other_origin_is_refused() {
    let (listed, unlisted) = (site().await, Setup::new().start().await);
    for (site, origin) in [
        (&listed, "https://evil.example"),
        (&listed, "https://chat.contoso.com.evil.example"),
        (&listed, "http://chat.contoso.com"),
        (&listed, "http://localhost:6275"),
        (&listed, "null"),
        (&unlisted, INSPECTOR),
    ] {
        let call = site.request().header("origin", origin).bearer_auth(site.setup.tenant.token(ALICE));
        let call = call.body(r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#).send().await.unwrap();
        for answer in [preflight(site, "/mcp", "POST", origin).await, call] {
            assert_eq!(answer.status(), 403, "{origin}");
            assert_eq!(header(answer.headers(), "access-control-allow-origin"), "", "{origin}");
            assert_eq!(site.audit_of(&answer).await["reason"], "origin_not_accepted", "{origin}");
        }
    }
}

#[tokio::test]
async fn a_page_of_the_servers_own_origin_calls_without_being_allowed() {
    let site = Setup::new().start().await;
    let request = site.request().header("origin", format!("https://{HOST}"));
    let ping = r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#;
    let answer = request.bearer_auth(site.setup.tenant.token(ALICE)).body(ping).send().await.unwrap();
    assert_eq!(answer.status(), 200);
}
