//! Tests of the server behind an API gateway that follows docs/api-gateway.md, and of clients that lie about their
//! identity.

mod page;
mod proxy;

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::mcp_client::{McpClient, error, register, tokens};
use super::site::{OAuthSetup, OAuthSite, REDIRECT_URI};
use crate::harness::HOST;
use crate::tenant::ALICE;
use page::{Page, matches};
use proxy::{FROM, Gateway};

/// A server behind this trusted gateway.
async fn behind(gateway: &Gateway) -> OAuthSite {
    let mut setup = OAuthSetup::new().await;
    setup.setup.configuration.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    setup.start_behind_gateway(async |server| gateway.start(server).await).await
}

/// Goes as a user from only the URL to a tool's answer, a refresh and the end of the session. Returns the access token.
async fn whole_way(site: &OAuthSite) -> String {
    let challenge = site.site.request().body("{}").send().await.unwrap();
    assert_eq!(challenge.status(), 401);
    let document = site.edge.origin.clone() + "/.well-known/oauth-protected-resource/mcp";
    let challenge = challenge.headers()["www-authenticate"].to_str().unwrap().to_owned();
    assert!(challenge.contains(&format!("resource_metadata=\"{document}\"")), "{challenge}");
    for path in ["/.well-known/oauth-protected-resource/mcp", "/.well-known/oauth-protected-resource"] {
        let resource = site.document(path).await;
        assert_eq!(resource["resource"], site.url(""), "{path}");
        assert_eq!(resource["authorization_servers"], json!([site.url("")]), "{path}");
    }
    let metadata = site.document("/.well-known/oauth-authorization-server/mcp").await;
    assert_eq!(metadata["issuer"], site.url(""));
    for endpoint in metadata.as_object().unwrap().values().filter_map(Value::as_str) {
        assert!(endpoint.starts_with(&site.url("")), "{endpoint}");
    }

    let client = McpClient::register(site).await;
    let first = client.sign_in(ALICE).await;
    let answer = site.site.call(&first.access_token, "get_user_details", json!({})).await;
    let line = site.site.audit_of(&answer).await;
    assert_eq!((&line["reason"], &line["tool"]), (&json!("granted"), &json!("get_user_details")), "{line}");
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer["result"]["structuredContent"]["displayName"], "Alice Adams", "{answer}");

    let second = tokens(client.refresh(&first.refresh_token).await).await;
    assert!(!site.site.tools(&second.access_token).await.is_empty());
    let form = [("token", second.refresh_token.as_str()), ("client_id", &client.id)];
    let revoked = site.http.post(site.url("/revoke")).form(&form).send().await.unwrap();
    assert_eq!(revoked.status(), 200);
    assert_eq!(error(client.refresh(&second.refresh_token).await).await, "invalid_grant");
    site.audited("session_revoked").await;
    second.access_token
}

#[tokio::test]
async fn everything_works_through_a_gateway_that_passes_exactly_what_the_page_lists() {
    let gateway = Gateway::new();
    let site = behind(&gateway).await;
    let token = whole_way(&site).await;
    // Pages outside of this way, and the preflights of browsers.
    for path in ["/connect", "/jwks"] {
        assert_eq!(site.http.get(site.url(path)).send().await.unwrap().status(), 200, "{path}");
    }
    let entra = site.browser().open(&site.url("/sessions")).await.unwrap().page().unwrap();
    let sessions = entra.sign_in(ALICE).await.unwrap().page().unwrap();
    assert_eq!((sessions.status, sessions.url.as_str()), (200, site.url("/sessions").as_str()));
    let asked = site.http.request(Method::OPTIONS, site.url("/token")).header("origin", "https://app.example");
    let told = asked.header("access-control-request-method", "POST").send().await.unwrap();
    assert_eq!(told.headers()["access-control-allow-origin"], "*");
    assert_eq!(site.http.get(site.url("")).bearer_auth(&token).send().await.unwrap().status(), 401);
    let direct = site.site.setup.tenant.token(ALICE);
    let stream = site.http.get(site.url("")).bearer_auth(direct).send().await.unwrap();
    assert_eq!((stream.status().as_u16(), &stream.headers()["allow"]), (405, &"POST".parse().unwrap()));

    let seen = gateway.seen();
    let of_connections = ["content-length", "date"];
    let lost: Vec<_> = seen.dropped.iter().filter(|name| !of_connections.contains(&name.as_str())).collect();
    assert!(lost.is_empty(), "the page does not list {lost:?}");
    // A separate test covers `Retry-After`.
    let needed = |pattern: &String| pattern == "retry-after" || seen.passed.iter().any(|name| matches(pattern, name));
    let unknown: Vec<_> = Page::read().answers().iter().filter(|pattern| !needed(pattern)).cloned().collect();
    assert!(unknown.is_empty(), "the server does not send {unknown:?}");
}

#[tokio::test]
async fn forged_hosts_schemes_and_addresses_change_nothing_on_the_whole_way() {
    let site = behind(&Gateway::with_forgers()).await;
    whole_way(&site).await;
    let client = McpClient::register(&site).await;
    let page = site.http.get(client.authorize(&[])).send().await.unwrap();
    let cookie = page.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.starts_with("__Host-") && cookie.contains("; Secure") && cookie.contains("; Path=/;"), "{cookie}");
    assert!(!cookie.contains("Domain"), "{cookie}");
    let approved = client.consent_page(&site.browser(), &[]).await.press("approve").await.unwrap().page().unwrap();
    let back = approved.url.query_pairs().find(|(name, _)| name == "redirect_uri").unwrap().1;
    assert_eq!(back, site.url("/callback"));
}

#[tokio::test]
async fn a_client_with_changing_forged_addresses_uses_one_budget_and_blocks_no_other_client() {
    let site = behind(&Gateway::new()).await;
    let metadata = json!({ "redirect_uris": [REDIRECT_URI] });
    let ask = async |from: &str, forged: &str| {
        let request = site.http.post(site.url("/register")).header(FROM, from).header("x-forwarded-for", forged);
        request.json(&metadata).send().await.unwrap()
    };
    let mut refused = None;
    for number in 0..200 {
        let answer = ask("198.51.100.1", &format!("192.0.2.{number}")).await;
        if answer.status() == 429 {
            refused = Some(answer);
            break;
        }
        assert_eq!(answer.status(), 201);
    }
    assert!(refused.expect("forged addresses have budgets of their own").headers().contains_key("retry-after"));
    assert_eq!(ask("198.51.100.2", "198.51.100.1").await.status(), 201);
}

#[tokio::test]
async fn a_gateway_that_sends_its_backends_name_is_refused_with_a_message_everywhere() {
    let site = behind(&Gateway::without_host()).await;
    let client = McpClient::known(&site, "any");
    let answers = [
        (403, site.site.request().body("{}").send().await.unwrap()),
        (421, register(&site, json!({ "redirect_uris": [REDIRECT_URI] })).await),
        (421, client.redeem("any").await),
        (421, site.http.get(client.authorize(&[])).send().await.unwrap()),
        (421, site.http.get(site.url("/sessions")).send().await.unwrap()),
    ];
    for (status, answer) in answers {
        let url = answer.url().path().to_owned();
        assert_eq!(answer.status(), status, "{url}");
        assert_eq!(site.site.audit_of(&answer).await["reason"], "host_not_accepted", "{url}");
        let text = answer.text().await.unwrap();
        assert!(text.contains("this host name does not belong to the server"), "{url}: {text}");
    }
}

#[test]
fn the_policy_of_the_page_sets_the_host_and_forwards_once_without_touching_anything() {
    let policy = Page::read().policy;
    assert_eq!(policy.name, "policies");
    let sections: Vec<_> = policy.children.iter().map(|section| section.name.as_str()).collect();
    assert_eq!(sections, ["inbound", "backend", "outbound", "on-error"]);
    let of = |section: usize| -> Vec<&str> {
        policy.children[section].children.iter().map(|policy| policy.name.as_str()).collect()
    };
    assert_eq!(of(0), ["base", "set-header", "rate-limit-by-key"]);
    assert_eq!((of(1), of(2), of(3)), (vec!["forward-request"], vec!["base"], vec!["base"]));
    let forward = policy.all("forward-request")[0];
    // Longer than any answer of the server takes. Answers longer than four minutes are cut.
    let time = Duration::from_secs(forward.attribute("timeout").unwrap().parse().unwrap());
    assert!(time > Duration::from_secs(60) && time < Duration::from_secs(240));
    for off in ["follow-redirects", "buffer-request-body", "buffer-response", "fail-on-error-status-code"] {
        assert_eq!(forward.attribute(off), Some("false"), "{off}");
    }
    assert_eq!(Page::read().sets("Host"), Some(HOST));
}

#[test]
fn the_table_the_api_and_nginx_of_the_page_publish_the_same_paths() {
    let page = Page::read();
    let in_table = |path: &str| -> Vec<&str> {
        let rows = Page::lines(&format!("| `{path}` | "));
        rows.iter().flat_map(|row| row.split(" | ").next().unwrap().split(", ")).collect()
    };
    let operations = page.operations();
    assert_eq!(operations.len(), 13);
    for (_, path) in operations {
        let of_api: Vec<_> = operations.iter().filter(|(_, known)| known == path).map(|(method, _)| method).collect();
        assert_eq!(in_table(path), of_api, "{path}");
        let locations = Page::lines("location ");
        let leads = |location: &&str| path.starts_with(location.split(' ').next().unwrap());
        assert_eq!(locations.iter().filter(|location| leads(location)).count(), 1, "{path} in {locations:?}");
    }
    for neighbour in ["/", "/mcpx", "/metrics", "/status", "/.well-known/openid-configuration"] {
        assert!(!page.publishes(&Method::GET, neighbour), "{neighbour}");
    }
    assert_eq!(Page::lines("proxy_set_header Host "), [format!("{HOST};")]);
}
