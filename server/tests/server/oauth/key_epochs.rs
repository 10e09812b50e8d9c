//! Tests of keys that change while users are signed in: scheduled rotation, and replacement after a compromise.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use entra_emulator::sign_in::Page;
use reqwest::header::COOKIE;
use serde_json::Value;

use super::mcp_client::{McpClient, Tokens, error, tokens};
use super::replica_set::{Replicas, keys, part_of_token, shared_store, with_valkey};
use super::site::OAuthSite;
use crate::harness::{PATIENCE, eventually, eventually_within};
use crate::tenant::{ALICE, BOB};

/// Interval between two calls of a busy client. Its session must not be refreshed more often than the server allows.
const PACE: Duration = Duration::from_millis(50);
const CALLS_WITH_A_TOKEN: usize = 20;

/// The id of the key that signed an access token.
fn key_id(tokens: &Tokens) -> Value {
    part_of_token(&tokens.access_token, 0)["kid"].clone()
}

/// A client that always calls and refreshes, and is never refused. Its latest tokens are in `latest`.
async fn never_refused(replicas: &Replicas, client: &McpClient<'_>, latest: &Mutex<Tokens>) {
    loop {
        let mut mine = latest.lock().unwrap().clone();
        for _ in 0..CALLS_WITH_A_TOKEN {
            assert_eq!(replicas.ping(&mine.access_token).await, 200);
            tokio::time::sleep(PACE).await;
        }
        mine = tokens(client.refresh(&mine.refresh_token).await).await;
        *latest.lock().unwrap() = mine;
    }
}

#[tokio::test]
async fn key_epochs_roll_under_load_and_their_end_ends_only_sessions_that_were_not_refreshed_meanwhile() {
    let valkey = shared_store().await;
    let mut setup = with_valkey(&valkey).await;
    setup.server().keys = keys(1, &[(1, 0), (2, 0)]);
    let start = Instant::now();
    let replicas = Replicas::start(setup, 3).await;
    // Later than the new key has reached every replica, even on a slow machine.
    let rollout = 3 + 6 * start.elapsed().as_secs();
    let client = McpClient::register(&replicas.site).await;
    let idle = client.sign_in(ALICE).await;
    let (alice, bob) = (Mutex::new(client.sign_in(ALICE).await), Mutex::new(client.sign_in(BOB).await));
    let are_new = |old: &Value| [&alice, &bob].iter().all(|latest| key_id(&latest.lock().unwrap()) != *old);
    let rolling = async {
        let old = key_id(&idle);
        let used_from = now() + i64::try_from(rollout).unwrap();
        replicas.configure(|server| server.keys = keys(1, &[(1, 0), (2, 0), (3, used_from)]));
        replicas.roll().await;
        assert!(now() < used_from, "the replicas restart too slowly for this test");
        assert_eq!(key_id(&alice.lock().unwrap()), old, "a key signs before its time");
        let patience = PATIENCE + Duration::from_secs(rollout);
        eventually_within(patience, "the new key signs", async || are_new(&old).then_some(())).await;
        assert_eq!(replicas.ping(&idle.access_token).await, 200, "the old key is listed");
        replicas.configure(|server| server.keys = keys(1, &[(1, 0), (3, used_from)]));
        replicas.roll().await;
        let tokens = |latest: &Mutex<Tokens>| latest.lock().unwrap().refresh_token.clone();
        let before = [tokens(&alice), tokens(&bob)];
        let again = async || (tokens(&alice) != before[0] && tokens(&bob) != before[1]).then_some(());
        eventually("the clients go on", again).await;
    };
    tokio::select! {
        () = rolling => {}
        () = never_refused(&replicas, &client, &alice) => {}
        () = never_refused(&replicas, &client, &bob) => {}
    }
    assert_eq!(replicas.ping(&idle.access_token).await, 401);
    assert_eq!(error(client.refresh(&idle.refresh_token).await).await, "invalid_grant");
    // Sessions that were refreshed meanwhile are still in their user's list.
    let (_, page) = sessions_page(&replicas.site).await;
    assert!(page.text().unwrap().contains("Test client"), "{}", page.html);
    // The registration has the first epoch, which outlives all others.
    client.sign_in(ALICE).await;
}

#[tokio::test]
async fn after_a_compromise_everything_issued_before_is_refused_and_users_sign_in_again() {
    let valkey = shared_store().await;
    let replicas = Replicas::new(&valkey).await;
    let site = &replicas.site;
    let client = McpClient::register(site).await;
    let old = client.sign_in(ALICE).await;
    let code = client.code(ALICE).await;
    let consent = client.consent_page(&site.browser(), &[]).await;
    let entra = client.consent_page(&site.browser(), &[]).await.press("approve").await.unwrap().page().unwrap();
    let (visitor, _) = sessions_page(site).await;
    assert_eq!(visited(site, &visitor).await, 200);

    replicas.configure(|server| server.keys = keys(2, &[(2, 0)]));
    replicas.restart().await;

    for replica in 0..3 {
        replicas.lead_to(replica);
        assert_eq!(replicas.ping(&old.access_token).await, 401);
        let page = client.consent_page(&site.browser(), &[]).await;
        assert!(page.status == 400 && page.forms().unwrap().is_empty(), "{}", page.html);
        assert_eq!(visited(site, &visitor).await, 303, "the cookie counts");
    }
    replicas.balance();
    for refused in [client.redeem(&code).await, client.refresh(&old.refresh_token).await] {
        assert_eq!(refused.status(), 401);
        assert_eq!(error(refused).await, "invalid_client");
    }
    for page in [consent.press("approve").await, entra.sign_in(ALICE).await] {
        let page = page.unwrap().page().unwrap();
        assert!(page.status == 400 && page.text().unwrap().contains("too old"), "{}", page.html);
    }
    // The client registers again, and its user has a session and a list of sessions again.
    let client = McpClient::register(site).await;
    for refused in [client.redeem(&code).await, client.refresh(&old.refresh_token).await] {
        assert_eq!(error(refused).await, "invalid_grant");
    }
    let new = client.sign_in(ALICE).await;
    assert_eq!(replicas.call(&new.access_token).await.status(), 200);
    tokens(client.refresh(&new.refresh_token).await).await;
    let (_, page) = sessions_page(site).await;
    assert!(page.text().unwrap().contains("Test client"), "{}", page.html);
}

/// Opens the page of alice's own sessions, with the cookies of its browser.
async fn sessions_page(site: &OAuthSite) -> (String, Page) {
    let browser = site.browser();
    let url = site.url("/sessions");
    let page = browser.open(&url).await.unwrap().page().unwrap().sign_in(ALICE).await.unwrap().page().unwrap();
    assert_eq!((page.status, page.url.as_str()), (200, url.as_str()), "{}", page.html);
    let cookies = browser.cookies(&url).unwrap();
    let cookies: Vec<String> = cookies.iter().map(|cookie| format!("{}={}", cookie.name, cookie.value)).collect();
    (cookies.join("; "), page)
}

/// Returns the status of the page of sessions with these cookies: 303 redirects to Entra.
async fn visited(site: &OAuthSite, cookies: &str) -> u16 {
    site.http.get(site.url("/sessions")).header(COOKIE, cookies).send().await.unwrap().status().as_u16()
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}
