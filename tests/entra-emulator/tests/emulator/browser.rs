//! Tests of the browser: cookies, redirects, forms, and the headers about the origin of a navigation.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Query, RawQuery},
    http::{HeaderMap, StatusCode, header},
    response::{AppendHeaders, Html, IntoResponse, Redirect, Response},
    routing::get,
};
use entra_emulator::sign_in::{Browser, Page};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;
use url::Url;

use crate::world::EMULATOR;

const FORM: &str = r#"<h1>Consent</h1><!-- <form action="/wrong"> -->
<p class=x role="alert">Be <em>careful</em> &amp; read</p>
<form action="/echo?from=form" METHOD=POST>
  <input value='a &quot;token&quot;' type="hidden" name="csrf"/>
  <input name=note> <input type=checkbox name=all value=yes checked> <input type=checkbox name=none>
  <select name="age"><option value="1">One</option><option selected>Two</option></select>
  <textarea name="text">&lt;old&gt;</textarea> <input name=off disabled value=1>
  <button type="button" name="b">Nothing</button>
  <button name="decision" value="yes"><span>Approve</span> it</button>
  <button name="decision" value="no" formaction="/echo?from=button">Cancel</button>
</form>
<form action="/echo"><input type=hidden name=q value="1"><input type=submit value=Search></form>
<a href="/echo?from=link">Read more</a>"#;

/// A web site on HTTPS with its own certificate.
struct Site {
    url: String,
    ca_pem: String,
}

impl Site {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let ca_pem = certificate.cert.pem();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let configuration = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.cert.der().clone()], PrivateKeyDer::from(certificate.signing_key))
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(configuration));
        let router = Router::new()
            .route("/echo", get(echo).post(echo))
            .route("/deep/echo", get(echo))
            .route("/set", get(set))
            .route("/deep/set", get(set))
            .route("/redirect", get(redirect).post(redirect))
            .route("/loop", get(async || Redirect::to("/loop")))
            .route("/form", get(form));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, router) = (acceptor.clone(), router.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        let service = TowerToHyperService::new(router);
                        _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
                    }
                });
            }
        });
        Self { url, ca_pem }
    }

    fn browser(&self) -> Browser {
        Browser::trusting(&[EMULATOR.ca_pem(), &self.ca_pem]).unwrap()
    }

    fn at(&self, path: &str, query: &[(&str, &str)]) -> String {
        Url::parse_with_params(&format!("{}{path}", self.url), query).unwrap().into()
    }

    /// Opens this path, and sets these cookies.
    async fn set(&self, browser: &Browser, path: &str, cookies: &[&str]) {
        let query: Vec<_> = cookies.iter().map(|cookie| ("cookie", *cookie)).collect();
        browser.open(&self.at(path, &query)).await.unwrap();
    }

    /// The cookies that the browser sends to this path.
    async fn sent(&self, browser: &Browser, path: &str) -> String {
        let page = browser.open(&self.at(path, &[])).await.unwrap().page().unwrap();
        seen(&page)["cookie"].as_str().unwrap_or_default().to_owned()
    }
}

/// Request of this page: its headers, method, query and form.
fn seen(page: &Page) -> Value {
    serde_json::from_str(&page.html).unwrap()
}

async fn echo(method: axum::http::Method, RawQuery(query): RawQuery, headers: HeaderMap, body: Bytes) -> Json<Value> {
    let mut seen = json!({"method": method.as_str(), "query": query, "form": String::from_utf8_lossy(&body)});
    for (name, value) in &headers {
        seen[name.as_str()] = value.to_str().unwrap().into();
    }
    Json(seen)
}

async fn set(Query(cookies): Query<Vec<(String, String)>>) -> impl IntoResponse {
    AppendHeaders(cookies.into_iter().map(|(_, cookie)| (header::SET_COOKIE, cookie)).collect::<Vec<_>>())
}

async fn redirect(Query(query): Query<std::collections::HashMap<String, String>>) -> Response {
    let status = query["status"].parse::<u16>().unwrap();
    (StatusCode::from_u16(status).unwrap(), [(header::LOCATION, query["to"].clone())]).into_response()
}

async fn form(Query(query): Query<std::collections::HashMap<String, String>>) -> Response {
    let policy = query.get("policy").cloned().unwrap_or_default();
    ([(header::REFERRER_POLICY, policy)], Html(FORM)).into_response()
}

#[tokio::test]
async fn a_cookie_is_only_sent_to_its_origin_and_path() {
    let (site, other) = (Site::start().await, Site::start().await);
    let browser = Browser::trusting(&[&site.ca_pem, &other.ca_pem]).unwrap();
    site.set(&browser, "/deep/set", &["deep=1; Secure", "all=2; Path=/; HttpOnly", "c=3; Path=/dee"]).await;
    assert_eq!(site.sent(&browser, "/deep/echo").await, "deep=1; all=2");
    assert_eq!(site.sent(&browser, "/echo").await, "all=2");
    assert_eq!(other.sent(&browser, "/deep/echo").await, "");
    assert_eq!(site.sent(&site.browser(), "/echo").await, "", "another person's browser");

    site.set(&browser, "/set", &["all=new; Path=/"]).await;
    assert_eq!(site.sent(&browser.clone(), "/echo").await, "all=new", "another window of the same browser");
    site.set(&browser, "/set", &["all=; Path=/; Max-Age=0"]).await;
    assert_eq!(site.sent(&browser, "/echo").await, "");
    site.set(&browser, "/set", &["all=1", "old=1; Expires=Thu, 01 Jan 1970 00:00:00 GMT"]).await;
    assert_eq!(site.sent(&browser, "/echo").await, "all=1");
    browser.forget_cookies();
    assert_eq!(site.sent(&browser, "/echo").await, "");
}

#[tokio::test]
async fn a_cookie_that_a_browser_refuses_is_not_kept() {
    let site = Site::start().await;
    let browser = site.browser();
    let refused = [
        "__Host-a=1; Secure",
        "__Host-b=1; Path=/",
        "__Host-c=1; Secure; Path=/deep",
        "__Host-d=1; Secure; Path=/; Domain=localhost",
        "__Secure-e=1",
        "f=1; SameSite=None",
        "=1",
    ];
    site.set(&browser, "/set", &refused).await;
    assert_eq!(site.sent(&browser, "/echo").await, "");
    for cookie in refused {
        assert!(browser.plant_cookie(&site.url, cookie).is_err(), "{cookie}");
    }
    assert!(browser.plant_cookie("http://localhost/", "a=1; Secure").is_err(), "not over HTTPS");
    site.set(&browser, "/set", &["__Host-a=1; Secure; Path=/", "__Secure-b=2; Secure; SameSite=None"]).await;
    assert_eq!(site.sent(&browser, "/echo").await, "__Host-a=1; __Secure-b=2");
}

#[tokio::test]
async fn same_site_limits_cookies_in_navigations_from_other_sites() {
    let site = Site::start().await;
    let browser = site.browser();
    let cookies = ["lax=1", "strict=1; SameSite=Strict", "none=1; SameSite=None; Secure"];
    site.set(&browser, "/set", &cookies).await;
    let (echo, attacker) = (site.at("/echo", &[]), "https://attacker.example/");
    assert_eq!(site.sent(&browser, "/echo").await, "lax=1; strict=1; none=1");
    let linked = seen(&browser.open_from(attacker, &echo).await.unwrap().page().unwrap());
    assert_eq!((&linked["cookie"], &linked["sec-fetch-site"]), (&json!("lax=1; none=1"), &json!("cross-site")));
    let forged = browser.post_from(attacker, &echo, &[("a", "b")]).await.unwrap().page().unwrap();
    let forged = seen(&forged);
    assert_eq!((&forged["cookie"], &forged["form"]), (&json!("none=1"), &json!("a=b")));
    assert_eq!(forged["origin"], "https://attacker.example");
}

#[tokio::test]
async fn a_server_gets_the_origin_of_a_navigation() {
    let (site, other) = (Site::start().await, Site::start().await);
    let browser = Browser::trusting(&[&site.ca_pem, &other.ca_pem]).unwrap().with_languages("sv");
    let page = browser.open(&site.at("/echo", &[])).await.unwrap().page().unwrap();
    let typed = seen(&page);
    assert_eq!((&typed["sec-fetch-site"], &typed["sec-fetch-mode"]), (&json!("none"), &json!("navigate")));
    assert_eq!((typed.get("origin"), &typed["accept-language"]), (None, &json!("sv")));

    for (policy, origin) in [("", site.url.as_str()), ("no-referrer", "null"), ("same-origin", &site.url)] {
        let page = browser.open(&site.at("/form", &[("policy", policy)])).await.unwrap().page().unwrap();
        let pressed = seen(&page.press("Cancel").await.unwrap().page().unwrap());
        assert_eq!((&pressed["origin"], &pressed["sec-fetch-site"]), (&json!(origin), &json!("same-origin")));
    }
    // Through another origin and back: the widest relation counts.
    let back = site.at("/redirect", &[("status", "302"), ("to", &site.at("/echo", &[]))]);
    let there = other.at("/redirect", &[("status", "302"), ("to", &back)]);
    let page = browser.open_from(&site.url, &there).await.unwrap().page().unwrap();
    assert_eq!(seen(&page)["sec-fetch-site"], "same-site");
}

#[tokio::test]
async fn a_form_is_sent_with_the_inputs_of_the_page_and_the_user() {
    let site = Site::start().await;
    let page = site.browser().open(&site.at("/form", &[])).await.unwrap().page().unwrap();
    assert_eq!(page.alert().unwrap().unwrap(), "Be careful & read");
    assert!(page.text().unwrap().starts_with("Consent Be careful & read"), "{:?}", page.text());
    let form = |page: &Page| -> Vec<(String, String)> {
        let seen = seen(page);
        url::form_urlencoded::parse(seen["form"].as_str().unwrap().as_bytes()).into_owned().collect()
    };
    let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let approved = page.press_with("Approve it", &[("note", "hi"), ("more", "x")]).await.unwrap().page().unwrap();
    let sent = [("csrf", "a \"token\""), ("all", "yes"), ("age", "Two"), ("text", "<old>")];
    let person = [("note", "hi"), ("more", "x"), ("decision", "yes")];
    assert_eq!(form(&approved), pairs(&[&sent[..], &person].concat()));
    assert_eq!((&seen(&approved)["query"], &seen(&approved)["method"]), (&json!("from=form"), &json!("POST")));

    let cancelled = page.press("no").await.unwrap().page().unwrap();
    assert_eq!(seen(&cancelled)["query"], "from=button", "by its value, to its own address");
    let searched = page.press("Search").await.unwrap().page().unwrap();
    assert_eq!((&seen(&searched)["query"], &seen(&searched)["method"]), (&json!("q=1"), &json!("GET")));
    let linked = page.follow("Read more").await.unwrap().page().unwrap();
    assert_eq!(seen(&linked)["query"], "from=link");
    let submitted = page.submit(&[]).await.unwrap().page().unwrap();
    assert!(!form(&submitted).iter().any(|(name, _)| name == "decision"), "no button is pressed");
    assert!(page.press("Nothing").await.is_err() && page.follow("Approve it").await.is_err());
}

#[tokio::test]
async fn the_browser_ends_at_a_client_and_returns_its_parameters() {
    let site = Site::start().await;
    let browser = site.browser().leaving_at("http://127.0.0.1:33418/callback").unwrap();
    let to = async |target: &str, status: &str| {
        let step = browser.open(&site.at("/redirect", &[("to", target), ("status", status)])).await.unwrap();
        step.callback().unwrap()
    };
    let callback = to("http://127.0.0.1:33418/callback?code=a%20b", "302").await;
    assert_eq!((callback.parameter("code").as_deref(), callback.parameter("state")), (Some("a b"), None));
    let callback = to("cursor://anysphere.cursor-mcp/oauth/callback?error=x", "303").await;
    assert_eq!(callback.parameter("error").as_deref(), Some("x"));
    assert_eq!(to("http://127.0.0.1:33418/callback#state=s", "302").await.parameter("state").as_deref(), Some("s"));

    let here = site.at("/redirect", &[("to", "http://127.0.0.1:33418/callback"), ("status", "307")]);
    let posted = browser.post_from(&site.url, &here, &[("code", "c")]).await.unwrap().callback().unwrap();
    assert_eq!(posted.parameter("code").as_deref(), Some("c"), "307 keeps the form");
    let here = site.at("/redirect", &[("to", "http://127.0.0.1:33418/callback"), ("status", "302")]);
    let posted = browser.post_from(&site.url, &here, &[("code", "c")]).await.unwrap().callback().unwrap();
    assert_eq!(posted.parameter("code"), None, "302 does not");
    assert!(browser.open(&site.at("/echo", &[])).await.unwrap().callback().is_err());
}

#[tokio::test]
async fn endless_redirects_are_an_error() {
    let site = Site::start().await;
    let error = site.browser().open(&site.at("/loop", &[])).await.unwrap_err();
    assert!(error.to_string().contains("more than 20 redirects"), "{error}");
}
