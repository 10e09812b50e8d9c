//! Tests of the page of a user's own sessions: it shows only theirs, and only they can end them.

use entra_emulator::sign_in::{Browser, Form, Page};
use serde_json::json;

use super::by_hand::{cookie, get};
use super::mcp_client::{McpClient, Tokens, error, register, tokens};
use super::site::{OAuthSite, REDIRECT_URI};
use crate::harness::eventually_within;
use crate::tenant::{ALICE, BOB};

/// A client of this name.
async fn client<'a>(site: &'a OAuthSite, name: &str) -> McpClient<'a> {
    let answer = register(site, json!({ "client_name": name, "redirect_uris": [REDIRECT_URI] })).await;
    let document: serde_json::Value = answer.json().await.unwrap();
    McpClient::known(site, document["client_id"].as_str().unwrap())
}

/// Opens the page, after the user has signed in for it.
async fn page_of(site: &OAuthSite, browser: &Browser, user: &str) -> Page {
    let entra = browser.open(&site.url("/sessions")).await.unwrap().page().unwrap();
    let page = entra.sign_in(user).await.unwrap().page().unwrap();
    assert_eq!((page.status, page.url.path()), (200, "/mcp/sessions"), "{}", page.html);
    page
}

/// Returns the forms with a button that ends one session.
fn rows(page: &Page) -> Vec<Form> {
    let ends_one = |form: &Form| form.buttons.iter().any(|button| button.name == "session");
    page.forms().unwrap().into_iter().filter(ends_one).collect()
}

async fn is_let_in(site: &OAuthSite, tokens: &Tokens) -> bool {
    site.site.rpc(&tokens.access_token, "ping", json!({})).await.status() == 200
}

/// Waits until the session of these tokens ends, for at most five seconds.
async fn ends(client: &McpClient<'_>, tokens: &Tokens) {
    let refused = async || (!is_let_in(client.site, tokens).await).then_some(());
    eventually_within(std::time::Duration::from_secs(5), "the access token is refused", refused).await;
    assert_eq!(error(client.refresh(&tokens.refresh_token).await).await, "invalid_grant");
}

#[tokio::test]
async fn a_user_sees_only_their_own_sessions_and_ends_one_or_all() {
    let site = OAuthSite::new().await;
    let (editor, terminal) = (client(&site, "Editor").await, client(&site, "Terminal").await);
    let first = editor.sign_in(ALICE).await;
    let (second, third) = (terminal.sign_in(ALICE).await, terminal.sign_in(ALICE).await);
    let bobs = client(&site, "Notebook").await;
    let of_bob = bobs.sign_in(BOB).await;
    for session in [&first, &second, &third, &of_bob] {
        assert!(is_let_in(&site, session).await);
    }
    let page = page_of(&site, &site.browser(), ALICE).await;
    let text = page.text().unwrap();
    assert!(text.contains("Editor") && text.contains("Terminal") && text.contains(ALICE), "{text}");
    assert!(!text.contains("Notebook") && !text.contains(BOB), "{text}");
    assert_eq!(rows(&page).len(), 3);
    // The oldest is the last.
    let handle = rows(&page)[2].buttons[0].value.clone();
    let page = page.press(&handle).await.unwrap().page().unwrap();
    assert_eq!((page.status, rows(&page).len()), (200, 2));
    ends(&editor, &first).await;
    assert!(is_let_in(&site, &second).await && is_let_in(&site, &third).await);
    let page = page.press("true").await.unwrap().page().unwrap();
    assert_eq!(rows(&page).len(), 0);
    ends(&terminal, &second).await;
    ends(&terminal, &third).await;
    assert!(is_let_in(&site, &of_bob).await);
    tokens(bobs.refresh(&of_bob.refresh_token).await).await;
    let bobs_page = page_of(&site, &site.browser(), BOB).await;
    assert_eq!(rows(&bobs_page).len(), 1);
    assert!(!bobs_page.text().unwrap().contains("Editor"));
}

#[tokio::test]
async fn a_form_of_another_page_person_or_browser_ends_nothing() {
    let site = OAuthSite::new().await;
    let client = client(&site, "Editor").await;
    let (session, of_bob) = (client.sign_in(ALICE).await, client.sign_in(BOB).await);
    assert!(is_let_in(&site, &of_bob).await);
    let (alice, bob) = (site.browser(), site.browser());
    let (page, of_bob) = (page_of(&site, &alice, ALICE).await, page_of(&site, &bob, BOB).await);
    let [row] = rows(&page).try_into().unwrap();
    let (csrf, handle) = (row.inputs[0].1.clone(), row.buttons[0].value.clone());
    let bobs_cookie = cookie(&site, &bob, "sessions");
    let cookie = cookie(&site, &alice, "sessions");
    assert_eq!(rows(&of_bob).len(), 1);
    let (name, value) = cookie.split_once('=').unwrap();
    // In the middle, since the last character may be the same already.
    let (front, back) = value.split_at(value.len() / 2);
    let other = if back.starts_with('A') { 'B' } else { 'A' };
    let altered = format!("{name}={front}{other}{}", &back[1..]);
    for (what, cookie, csrf, headers) in [
        ("no cookie", "", csrf.as_str(), vec![]),
        ("an altered cookie", &altered, &csrf, vec![]),
        ("another person's cookie", &bobs_cookie, &csrf, vec![]),
        ("no csrf", &cookie, "", vec![]),
        ("another csrf", &cookie, "x", vec![]),
        ("the handle as csrf", &cookie, &handle, vec![]),
        ("another site", &cookie, &csrf, vec![("sec-fetch-site", "cross-site")]),
        ("a neighbour", &cookie, &csrf, vec![("sec-fetch-site", "same-site")]),
        ("another origin", &cookie, &csrf, vec![("origin", "https://evil.example")]),
    ] {
        for decision in [("session", handle.as_str()), ("all", "true")] {
            let mut request = site.http.post(site.url("/sessions")).form(&[decision, ("csrf", csrf)]);
            for (name, value) in headers.iter().chain(&[("cookie", cookie)]) {
                request = request.header(*name, *value);
            }
            let answer = request.send().await.unwrap();
            assert!(answer.status().is_client_error(), "{what}: {}", answer.status());
        }
    }
    // Bob, with his own cookie and form, names alice's session.
    let bobs_csrf = rows(&of_bob)[0].inputs[0].1.clone();
    let form = [("session", handle.as_str()), ("csrf", &bobs_csrf)];
    let request = site.http.post(site.url("/sessions")).form(&form).header("cookie", &bobs_cookie);
    assert_eq!(request.send().await.unwrap().status(), 200);
    // Another site in alice's browser.
    let form = [("all", "true"), ("csrf", csrf.as_str())];
    let refused =
        alice.post_from("https://evil.example/", &site.url("/sessions"), &form).await.unwrap().page().unwrap();
    assert_eq!(refused.status, 403);
    tokens(client.refresh(&session.refresh_token).await).await;
    assert!(is_let_in(&site, &session).await);
}

#[tokio::test]
async fn the_page_requires_a_sign_in_and_a_wrong_cookie_does_not_replace_it() {
    let site = OAuthSite::new().await;
    let client = client(&site, "Editor").await;
    client.sign_in(ALICE).await;
    let browser = site.browser();
    page_of(&site, &browser, ALICE).await;
    let cookies = browser.cookies(&site.url("/")).unwrap();
    let [of_page] = cookies.as_slice() else { panic!("{cookies:?}") };
    assert!(of_page.secure && of_page.http_only && of_page.max_age == Some(900), "{of_page:?}");
    let good = format!("{}={}", of_page.name, of_page.value);
    assert_eq!(get(&site, &site.url("/sessions"), &good).await.status(), 200);
    let other = |value: &str| format!("{}={value}", of_page.name);
    for cookie in [String::new(), other(""), other(&client.id), other(&of_page.value[1..]), good.replace("__Host-", "")]
    {
        let answer = get(&site, &site.url("/sessions"), &cookie).await;
        assert_eq!(answer.status(), 303, "{cookie}");
        let to = super::by_hand::location(&answer);
        assert!(to.path().ends_with("/authorize") && to.query().unwrap().contains("code_challenge"), "{to}");
    }
}

#[tokio::test]
async fn a_session_that_ended_is_not_listed() {
    let site = OAuthSite::new().await;
    let client = client(&site, "Editor").await;
    let (first, _second) = (client.sign_in(ALICE).await, client.sign_in(ALICE).await);
    let form = [("token", first.refresh_token.as_str()), ("client_id", &client.id)];
    site.http.post(site.url("/revoke")).form(&form).send().await.unwrap();
    assert_eq!(rows(&page_of(&site, &site.browser(), ALICE).await).len(), 1);
}
