//! Tests of rate limits, and that one caller's requests never block another caller.

use std::collections::BTreeMap;

use entra_emulator::{Fault, FaultKind, Host, Matcher};
use mcp_entra_policy::Rate;
use reqwest::Response;
use serde_json::json;

use crate::harness::{Setup, Site};
use crate::tenant::{ALICE, BOB, control};

/// As in the server: refused tokens, from one address.
const REFUSED_TOKENS: usize = 60;

/// A server whose proxy is this machine, so that a test can use any address.
async fn behind_a_trusted_proxy() -> Site {
    let mut setup = Setup::new();
    setup.configuration.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    setup.start().await
}

async fn ping(site: &Site, address: &str, token: &str) -> Response {
    let message = json!({ "jsonrpc": "2.0", "id": 7, "method": "ping" });
    let request = site.request().header("x-forwarded-for", address).bearer_auth(token);
    request.body(message.to_string()).send().await.unwrap()
}

async fn use_up(site: &Site, address: &str) {
    for _ in 0..REFUSED_TOKENS {
        assert_eq!(ping(site, address, "no.such.token").await.status(), 401);
    }
    // The request that finds no budget.
    ping(site, address, "no.such.token").await;
}

fn retry_after(response: &Response) -> u64 {
    response.headers()["retry-after"].to_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn each_caller_has_its_own_budget_and_gets_the_time_to_retry() {
    let mut setup = Setup::new();
    setup.configuration.rate_limit.per_user = Rate { requests: 2, per_seconds: 3600 };
    let site = setup.start().await;
    let (alice, bob) = (site.setup.tenant.token(ALICE), site.setup.tenant.token(BOB));
    for _ in 0..2 {
        assert_eq!(site.rpc(&alice, "ping", json!({})).await.status(), 200);
    }
    // Another token of the same user uses the same budget.
    for token in [&alice, &site.setup.tenant.token(ALICE)] {
        let refused = site.rpc(token, "ping", json!({})).await;
        assert_eq!(refused.status(), 429);
        assert!((1..=1800).contains(&retry_after(&refused)));
        let line = site.audit_of(&refused).await;
        assert_eq!((&line["reason"], &line["decision"]), (&json!("rate_limited"), &json!("refused")), "{line}");
        assert!(line["objectId"].is_string(), "{line}");
    }
    assert_eq!(site.rpc(&bob, "ping", json!({})).await.status(), 200);
}

#[tokio::test]
async fn only_an_address_with_refused_tokens_has_to_pause() {
    let site = behind_a_trusted_proxy().await;
    use_up(&site, "192.0.2.7").await;
    let refused = ping(&site, "192.0.2.7", "another.such.token").await;
    assert_eq!(refused.status(), 429);
    assert!((1..=60).contains(&retry_after(&refused)));
    assert_eq!(site.audit_of(&refused).await["reason"], "address_rate_limited");
    // The proxy appends its client's address to the header, after anything that the client wrote.
    assert_eq!(ping(&site, "192.0.2.8, 192.0.2.7", "no.such.token").await.status(), 429);
    assert_eq!(ping(&site, "192.0.2.8", "no.such.token").await.status(), 401);
}

#[tokio::test]
async fn a_valid_token_is_accepted_from_an_address_that_has_to_pause() {
    let site = behind_a_trusted_proxy().await;
    let tenant = &site.setup.tenant;
    assert_eq!(ping(&site, "192.0.2.7", &tenant.token(ALICE)).await.status(), 200);
    use_up(&site, "192.0.2.7").await;
    assert_eq!(ping(&site, "192.0.2.7", "no.such.token").await.status(), 429);
    // Both the earlier token and a new one.
    for user in [ALICE, BOB] {
        assert_eq!(ping(&site, "192.0.2.7", &tenant.token(user)).await.status(), 200, "{user}");
    }
}

#[tokio::test]
async fn a_token_without_any_access_counts_like_a_forged_token() {
    let site = behind_a_trusted_proxy().await;
    let tenant = &site.setup.tenant;
    let token = tenant.sign(&json!({}), &tenant.application_claims(tenant.daemon_without_role));
    for _ in 0..=REFUSED_TOKENS {
        assert_eq!(ping(&site, "192.0.2.7", &token).await.status(), 403);
    }
    assert_eq!(ping(&site, "192.0.2.7", &token).await.status(), 429);
}

#[tokio::test]
async fn requests_without_a_token_and_with_valid_ones_use_up_nothing() {
    let site = behind_a_trusted_proxy().await;
    let alice = site.setup.tenant.token(ALICE);
    for _ in 0..=REFUSED_TOKENS / 2 {
        let message = json!({ "jsonrpc": "2.0", "id": 7, "method": "ping" }).to_string();
        let request = site.request().header("x-forwarded-for", "192.0.2.7").body(message);
        assert_eq!(request.send().await.unwrap().status(), 401);
        assert_eq!(ping(&site, "192.0.2.7", &alice).await.status(), 200);
    }
    assert_eq!(ping(&site, "192.0.2.7", &site.setup.tenant.token(BOB)).await.status(), 200);
}

#[tokio::test]
async fn failures_not_caused_by_the_token_use_up_nothing() {
    let mut setup = Setup::new();
    setup.configuration.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let matcher = Matcher { tenant: Some(setup.tenant.id), host: Some(Host::Authority), ..Matcher::default() };
    let kind = FaultKind::Status { status: 500, headers: BTreeMap::new(), body: String::new() };
    control().inject(Fault { matcher, times: 1000, kind }).unwrap();
    let site = setup.start_unready().await;
    let alice = site.setup.tenant.token(ALICE);
    for _ in 0..REFUSED_TOKENS + 2 {
        assert_eq!(ping(&site, "192.0.2.7", &alice).await.status(), 503);
    }
}

#[tokio::test]
async fn behind_an_unlisted_proxy_no_client_can_use_up_the_shared_budget() {
    let site = Setup::new().start().await;
    use_up(&site, "192.0.2.7").await;
    assert_eq!(ping(&site, "192.0.2.7", &site.setup.tenant.token(BOB)).await.status(), 200);
}
