//! Expired values. Tests have the server's keys, so they can make one; others cannot.

use std::sync::Arc;

use mcp_entra_policy::{KeyEpoch, KeyEpochs};
use mcp_entra_server::oauth::keys::KeyRing;
use mcp_entra_server::oauth::seal::{Purpose, Sealer};
use serde_json::{Value, json};

use super::by_hand::{Shown, cookie, get};
use super::mcp_client::{McpClient, error, tokens};
use super::site::OAuthSite;
use crate::tenant::ALICE;

/// Returns the sealed value with a time that is this number of seconds earlier.
fn aged(site: &OAuthSite, purpose: Purpose, sealed: &str, time: &str, seconds: i64) -> String {
    let keys =
        KeyEpochs { registration: 1, epochs: vec![KeyEpoch { number: 1, used_from: 0 }], after_compromise: None };
    let ring = KeyRing::read(site.site.setup.oauth.keys.as_ref().unwrap(), &keys, &site.url("")).unwrap();
    let sealer = Sealer::new(Arc::new(ring));
    let mut value: Value = serde_json::from_slice(&sealer.open(purpose, "", sealed).unwrap()).unwrap();
    value[time] = json!(value[time].as_i64().unwrap() - seconds);
    sealer.seal(purpose, "", value.to_string().as_bytes()).unwrap()
}

#[tokio::test]
async fn a_code_is_valid_for_a_minute() {
    let site = OAuthSite::new().await;
    let client = McpClient::register(&site).await;
    for (age, is_good) in [(30, true), (62, false), (3600, false)] {
        let code = aged(&site, Purpose::Code, &client.code(ALICE).await, "issued", age);
        let answer = client.redeem(&code).await;
        match is_good {
            true => _ = tokens(answer).await,
            false => assert_eq!(error(answer).await, "invalid_grant", "{age}"),
        }
    }
}

#[tokio::test]
async fn a_consent_page_is_valid_for_ten_minutes() {
    let site = OAuthSite::new().await;
    let client = McpClient::register(&site).await;
    for (age, status) in [(590, 303), (602, 400), (660, 400)] {
        let mut shown = Shown::to(&client, &[]).await;
        shown.request = aged(&site, Purpose::Request, &shown.request, "shown", age);
        let answer = shown.approve(&site, &shown.cookie, &[]).await;
        assert_eq!(answer.status(), status, "{age}");
        assert_eq!(answer.headers().contains_key("location"), status == 303, "{age}");
    }
}

#[tokio::test]
async fn a_visit_of_the_sessions_page_ends_after_a_quarter_of_an_hour() {
    let site = OAuthSite::new().await;
    let browser = site.browser();
    let entra = browser.open(&site.url("/sessions")).await.unwrap().page().unwrap();
    entra.sign_in(ALICE).await.unwrap().page().unwrap();
    let cookie = cookie(&site, &browser, "sessions");
    let (name, value) = cookie.split_once('=').unwrap();
    for (age, status) in [(890, 200), (901, 303)] {
        let aged = aged(&site, Purpose::Browser, value, "until", age);
        let answer = get(&site, &site.url("/sessions"), &format!("{name}={aged}")).await;
        assert_eq!(answer.status(), status, "{age}");
    }
}
