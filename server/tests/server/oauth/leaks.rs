//! Tests that Entra's tokens stay in the sealed session: no answer contains one, and the audit log contains no secret.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Response;
use serde_json::{Value, json};

use super::by_hand::{Returning, Shown, cookie, decoded, get};
use super::mcp_client::McpClient;
use super::site::OAuthSite;
use crate::tenant::{ALICE, http};

/// Status line, headers and body of an answer, as text.
async fn whole(answer: Response) -> String {
    let headers = format!("{:?}", answer.headers());
    format!("{headers}\n{}", answer.text().await.unwrap())
}

/// Returns every run of token characters, also inside of base64url.
fn words(text: &str) -> BTreeSet<String> {
    let is_of_word = |character: char| character.is_ascii_alphanumeric() || "-_.~".contains(character);
    let runs = text.split(|character| !is_of_word(character)).filter(|run| run.len() >= 20);
    let mut words = BTreeSet::new();
    for run in runs {
        words.insert(run.to_owned());
        for part in run.split('.').filter(|part| part.len() >= 20) {
            words.insert(part.to_owned());
            if let Some(inside) = URL_SAFE_NO_PAD.decode(part).ok().and_then(|bytes| String::from_utf8(bytes).ok()) {
                words.extend(self::words(&inside));
            }
        }
    }
    words
}

/// Returns true if Entra accepts this as a refresh token of the server's application.
async fn is_entras_refresh_token(site: &OAuthSite, word: &str) -> bool {
    let tenant = &site.site.setup.tenant;
    let entra = tenant.configuration().entra;
    let url = format!("{}/{}/oauth2/v2.0/token", entra.authority, tenant.id);
    let assertion = std::fs::read_to_string(tenant.token_file()).unwrap();
    let form = [
        ("grant_type", "refresh_token"),
        ("client_id", &tenant.server.to_string()),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", assertion.trim()),
        ("scope", &format!("{}/mcp.access", tenant.server)),
        ("refresh_token", word),
    ];
    let answer: Value = http().post(url).form(&form).send().await.unwrap().json().await.unwrap();
    // Entra refuses it as malformed.
    assert!(answer["access_token"].is_string() || answer["error_codes"] == json!([9_002_313]), "{answer}");
    answer["access_token"].is_string()
}

#[tokio::test]
async fn no_answer_carries_a_token_of_entra_and_the_audit_log_carries_none_at_all() {
    let site = OAuthSite::new().await;
    let client = McpClient::register(&site).await;
    let mut seen = String::new();
    let shown = Shown::to(&client, &[]).await;
    seen += &format!("{:?}\n{}", shown.page.headers, shown.page.html);
    seen += &whole(shown.approve(&site, &shown.cookie, &[]).await).await;
    let returning = Returning::of(&client, ALICE).await;
    let back = returning.open(&site, &returning.cookie).await;
    let code = super::by_hand::parameter(&super::by_hand::location(&back), "code").unwrap();
    seen += &whole(back).await;
    let granted = whole(client.redeem(&code).await).await;
    seen += &granted;
    let granted: Value = serde_json::from_str(granted.split_once('\n').unwrap().1).unwrap();
    let (access, refresh) = (granted["access_token"].as_str().unwrap(), granted["refresh_token"].as_str().unwrap());
    seen += &whole(site.site.call(access, "get_user_details", json!({})).await).await;
    let refreshed = whole(client.refresh(refresh).await).await;
    seen += &refreshed;
    seen += &whole(client.refresh(refresh).await).await;
    let browser = site.browser();
    let entra = browser.open(&site.url("/sessions")).await.unwrap().page().unwrap();
    let page = entra.sign_in(ALICE).await.unwrap().page().unwrap();
    let sessions = cookie(&site, &browser, "sessions");
    seen += &format!("{:?}\n{}\n{sessions}", page.headers, page.html);
    seen += &whole(get(&site, &site.url("/sessions"), &sessions).await).await;
    seen += &whole(client.redeem(&code).await).await;
    seen += &whole(client.refresh(refresh).await).await;
    let audit = site.site.audit_log();

    let all = words(&seen);
    assert!(all.contains(access) && all.contains(refresh), "the search finds nothing");
    let issuer = site.url("");
    for word in all.iter().filter(|word| word.starts_with("eyJ") && word.matches('.').count() == 2) {
        assert_eq!(decoded(word).1["iss"], *issuer, "a token of another issuer");
    }
    for word in &all {
        assert!(!is_entras_refresh_token(&site, word).await, "Entra's refresh token is in an answer");
    }
    for secret in
        [access, refresh, &code, &shown.cookie, &shown.request, &returning.cookie, &sessions, &client.verifier]
    {
        assert!(!audit.contains(secret), "the audit log has a secret: {secret}");
    }
    assert!(!words(&audit).iter().any(|word| word.starts_with("eyJ")), "{audit}");
}
