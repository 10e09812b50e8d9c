//! Tests of a session store that stops during use, and comes back with or without its data.

use std::time::{Duration, Instant};

use super::mcp_client::{McpClient, error, tokens};
use super::replica_set::{Replicas, shared_store};
use crate::harness::eventually;
use crate::tenant::ALICE;

/// Longest time until a sign-in fails that cannot be stored.
const AT_ONCE: Duration = Duration::from_secs(5);
const PACE: Duration = Duration::from_millis(50);

/// Calls repeatedly with this access token, and is never refused.
async fn never_refused(replicas: &Replicas, token: &str) {
    loop {
        assert_eq!(replicas.ping(token).await, 200);
        assert_eq!(replicas.call(token).await.status(), 200);
        tokio::time::sleep(PACE).await;
    }
}

/// Waits until a server's status reports that the store works, or that it does not.
async fn store_works(replicas: &Replicas, expected: bool) {
    let said = async || (replicas.site.site.status().await.session_store?.works == Some(expected)).then_some(());
    eventually(&format!("the status reports that the store works: {expected}"), said).await;
}

#[tokio::test]
async fn during_an_outage_of_the_store_cached_tokens_work_and_everything_else_must_be_retried() {
    let mut valkey = shared_store().await;
    let replicas = Replicas::new(&valkey).await;
    let client = McpClient::register(&replicas.site).await;
    let (working, other) = (client.sign_in(ALICE).await, client.sign_in(ALICE).await);
    // Each replica has a token for Graph now.
    for replica in 0..3 {
        replicas.lead_to(replica);
        assert_eq!(replicas.call(&working.access_token).await.status(), 200);
    }
    replicas.balance();
    let consent = client.consent_page(&replicas.site.browser(), &[]).await;
    let entra = consent.press("approve").await.unwrap().page().unwrap();
    store_works(&replicas, true).await;
    let losing = async {
        valkey.stop().await;
        for replica in 0..3 {
            assert_eq!(replicas.ping(&other.access_token).await, 200, "{replica}");
        }
        let refused = replicas.call(&other.access_token).await;
        assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (503, &"30".parse().unwrap()));
        let line = replicas.site.site.audit_of(&refused).await;
        assert_eq!(line["reason"], "session_store_unavailable");
        let refused = client.refresh(&other.refresh_token).await;
        assert!(refused.status() == 503 && refused.headers().contains_key("retry-after"));
        assert_eq!(error(refused).await, "temporarily_unavailable");
        let consent = client.consent_page(&replicas.site.browser(), &[]).await;
        let asked = Instant::now();
        for page in [consent.press("approve").await, entra.sign_in(ALICE).await] {
            let page = page.unwrap().page().unwrap();
            assert!(page.status == 503 && page.headers.contains_key("retry-after"), "{}", page.html);
        }
        assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
        store_works(&replicas, false).await;

        valkey.restart().await;
        for replica in 0..3 {
            replicas.lead_to(replica);
            let works = async || (replicas.call(&other.access_token).await.status() == 200).then_some(());
            eventually("the replica uses the store again", works).await;
        }
        replicas.balance();
        // Nothing was used up.
        tokens(client.refresh(&other.refresh_token).await).await;
        client.sign_in(ALICE).await;
        store_works(&replicas, true).await;
    };
    tokio::select! {
        () = losing => {}
        () = never_refused(&replicas, &working.access_token) => {}
    }
}

#[tokio::test]
async fn a_store_that_comes_back_without_its_data_requires_new_sign_ins() {
    let mut valkey = shared_store().await;
    let replicas = Replicas::new(&valkey).await;
    let client = McpClient::register(&replicas.site).await;
    let old = client.sign_in(ALICE).await;
    assert_eq!(replicas.call(&old.access_token).await.status(), 200);
    valkey.lose_data().await;
    for replica in 0..3 {
        replicas.lead_to(replica);
        let refused = async || (replicas.call(&old.access_token).await.status() == 401).then_some(());
        eventually("the token for Graph is no longer used", refused).await;
        let refused = client.refresh(&old.refresh_token).await;
        assert_eq!(error(refused).await, "invalid_grant");
    }
    let new = client.sign_in(ALICE).await;
    assert_eq!(replicas.call(&new.access_token).await.status(), 200);
}
