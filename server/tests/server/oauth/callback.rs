//! Tests of the callback from Entra: once, in the browser of the sign-in, and with Entra's answer to the same request.

use super::by_hand::{Returning, cookie, get, location, parameter};
use super::mcp_client::McpClient;
use super::site::OAuthSite;
use crate::tenant::{ALICE, BOB};

#[tokio::test]
async fn a_callback_works_once_and_only_in_its_own_browser() {
    let site = OAuthSite::new().await;
    let client = McpClient::register(&site).await;
    let (victim, attacker) = (Returning::of(&client, ALICE).await, Returning::of(&client, BOB).await);
    let (name, value) = victim.cookie.split_once('=').unwrap();
    let (attackers_name, _) = attacker.cookie.split_once('=').unwrap();
    for (what, cookie) in [
        ("none", String::new()),
        ("that of another browser", attacker.cookie.clone()),
        ("the value under another name", format!("{attackers_name}={value}")),
    ] {
        let refused = victim.open(&site, &cookie).await;
        assert_eq!(refused.status(), 400, "{what}");
        assert!(!refused.headers().contains_key("location"), "{what}");
    }
    let back = location(&victim.open(&site, &victim.cookie).await);
    assert!(parameter(&back, "code").is_some(), "{back}");
    let again = victim.open(&site, &victim.cookie).await;
    assert_eq!((again.status().as_u16(), again.headers().get("location")), (400, None));
    // A value that is not the browser's ends the sign-in, and gives no code.
    let third = Returning::of(&client, ALICE).await;
    let (third_name, _) = third.cookie.split_once('=').unwrap();
    assert_eq!(third.open(&site, &format!("{third_name}={value}")).await.status(), 400, "{name}");
}

#[tokio::test]
async fn twenty_concurrent_callbacks_result_in_one_code() {
    let site = OAuthSite::new().await;
    let client = McpClient::register(&site).await;
    let returning = Returning::of(&client, ALICE).await;
    let answers = (0..20).map(|_| returning.open(&site, &returning.cookie));
    let answers = futures::future::join_all(answers).await;
    let codes = answers.iter().filter(|answer| answer.headers().contains_key("location")).count();
    assert_eq!(codes, 1);
    // The server stopped the others, not Entra.
    assert_eq!(site.site.setup.tenant.grants("authorization_code"), 1);
}

#[tokio::test]
async fn the_address_of_an_attackers_callback_does_nothing_in_the_victims_browser() {
    let site = OAuthSite::new().await;
    let client = McpClient::register(&site).await;
    let attacker = Returning::of(&client, BOB).await;
    let victim = site.browser();
    // The victim is in the middle of another sign-in.
    let entra = client.consent_page(&victim, &[]).await.press("approve").await.unwrap().page().unwrap();
    for initiator in [None, Some("https://evil.example/")] {
        let step = match initiator {
            Some(initiator) => victim.open_from(initiator, attacker.callback.as_str()).await,
            None => victim.open(attacker.callback.as_str()).await,
        };
        let page = step.unwrap().page().unwrap();
        assert_eq!(page.status, 400, "{initiator:?}");
    }
    // The victim's own sign-in continues, and belongs to the victim.
    let code = entra.sign_in(ALICE).await.unwrap().callback().unwrap().parameter("code").unwrap();
    super::mcp_client::tokens(client.redeem(&code).await).await;
    let begun = site.audited("session_begun").await;
    assert_eq!(begun["objectId"], site.site.setup.tenant.user_id(ALICE).to_string());
}

#[tokio::test]
async fn entras_code_of_another_sign_in_is_refused() {
    let site = OAuthSite::new().await;
    let client = McpClient::register(&site).await;
    let (victim, attacker) = (Returning::of(&client, ALICE).await, Returning::of(&client, BOB).await);
    // The attacker's code in the victim's sign-in: the verifier differs.
    let mut mixed = victim.callback.clone();
    let state = parameter(&victim.callback, "state").unwrap();
    let code = parameter(&attacker.callback, "code").unwrap();
    mixed.query_pairs_mut().clear().append_pair("code", &code).append_pair("state", &state);
    let refused = get(&site, mixed.as_str(), &victim.cookie).await;
    assert!(refused.status().is_client_error(), "{}", refused.status());
    assert!(!refused.headers().contains_key("location"));
}

#[tokio::test]
async fn an_unreadable_answer_of_entra_is_a_page_and_not_a_redirect() {
    let site = OAuthSite::new().await;
    let client = McpClient::register(&site).await;
    let consented = |tenant: &str| format!("admin_consent=True&tenant={tenant}");
    let (ours, another) = (consented(&site.site.setup.tenant.id.to_string()), consented("another"));
    for (query, status) in [
        ("", 400),
        ("code=x", 400),
        ("state=x&code=x", 400),
        ("state=x&state=y&code=x", 400),
        ("error=access_denied", 400),
        ("admin_consent=True", 400),
        (&another, 400),
        (&ours, 200),
    ] {
        let answer = get(&site, &format!("{}?{query}", site.url("/callback")), "").await;
        assert_eq!(answer.status(), status, "{query}");
        assert!(!answer.headers().contains_key("location"), "{query}");
    }
    // In the right browser, Entra's error ends the sign-in with a page. The client gets nothing that an attacker chose.
    for (query, status) in [
        ("error=access_denied&error_description=AADSTS65004%3A+declined", 403),
        ("error=server_error&error_description=%3Cscript%3Ealert(1)%3C%2Fscript%3E", 503),
        ("", 400),
        ("code=unknown", 403),
    ] {
        let returning = Returning::of(&client, ALICE).await;
        let state = parameter(&returning.callback, "state").unwrap();
        let url = format!("{}?state={state}&{query}", site.url("/callback"));
        let answer = get(&site, &url, &returning.cookie).await;
        let location = answer.headers().get("location").cloned();
        assert_eq!((answer.status().as_u16(), location), (status, None), "{query}");
        assert!(!answer.text().await.unwrap().contains("<script"), "{query}");
        // The transaction has ended.
        assert_eq!(returning.open(&site, &returning.cookie).await.status(), 400, "{query}");
    }
}

#[tokio::test]
async fn a_cookie_that_was_planted_before_begins_no_sign_in() {
    let site = OAuthSite::new().await;
    let client = McpClient::register(&site).await;
    let attacker = Returning::of(&client, BOB).await;
    let victim = site.browser();
    // A sibling host or a plain page can set a `__Host-` cookie only under these rules, which the browser enforces.
    for attributes in ["Path=/mcp; Secure", "Path=/", "Path=/; Secure; Domain=localhost"] {
        victim.plant_cookie(&site.url("/"), &format!("{}; {attributes}", attacker.cookie)).unwrap_or_default();
        let page = victim.open(attacker.callback.as_str()).await.unwrap().page().unwrap();
        assert_eq!(page.status, 400, "{attributes}");
    }
    // Each step has new values, so earlier ones have no effect.
    let entra = client.consent_page(&victim, &[]).await.press("approve").await.unwrap().page().unwrap();
    let first = cookie(&site, &victim, "sign-in");
    assert_ne!(first, attacker.cookie);
    entra.sign_in(ALICE).await.unwrap().callback().unwrap();
}
