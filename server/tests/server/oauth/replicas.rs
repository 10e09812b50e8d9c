//! Tests of replicas that share a Redis or Valkey server: every step of a sign-in may reach another replica.

use std::time::{Duration, Instant};

use mcp_entra_policy::SessionStore;
use mcp_entra_server::oauth::store::Store;
use sha2::{Digest, Sha256};

use super::mcp_client::{McpClient, Tokens, error, tokens};
use super::replica_set::{Replicas, part_of_token, shared_store};
use super::site::OAuthSetup;
use crate::harness::eventually;
use crate::tenant::{ALICE, BOB};
use crate::valkey::PREFIX;

/// Longest time until a revocation is effective at every replica.
const REVOKED_WITHIN: Duration = Duration::from_secs(5);
const LIFE: Duration = Duration::from_secs(600);
/// Steps of a session, in their order.
const STEPS: [&str; 7] = ["registration", "consent page", "approval", "callback", "code", "call", "refresh"];

#[tokio::test]
async fn each_step_of_a_session_may_reach_another_replica_and_all_see_its_end_within_seconds() {
    let valkey = shared_store().await;
    let replicas = Replicas::new(&valkey).await;
    replicas.lead_to(0);
    let client = McpClient::register(&replicas.site).await;
    let page = client.consent_page(&replicas.site.browser(), &[]).await;
    replicas.lead_to(1);
    let entra = page.press("approve").await.unwrap().page().unwrap();
    replicas.lead_to(2);
    let callback = entra.sign_in(ALICE).await.unwrap().callback().unwrap();
    replicas.lead_to(0);
    let first = tokens(client.redeem(&callback.parameter("code").unwrap()).await).await;
    replicas.lead_to(1);
    assert_eq!(replicas.call(&first.access_token).await.status(), 200);
    replicas.lead_to(2);
    let second = tokens(client.refresh(&first.refresh_token).await).await;
    // Each has now read from the store that the session is open.
    for replica in 0..3 {
        replicas.lead_to(replica);
        assert_eq!(replicas.ping(&second.access_token).await, 200, "{replica}");
    }
    replicas.lead_to(1);
    assert_eq!(revoke(&client, &second.refresh_token).await, 200);
    let revoked = Instant::now();
    for replica in [1, 0, 2] {
        replicas.lead_to(replica);
        let refused = async || {
            let sent = revoked.elapsed();
            let is_refused = replicas.ping(&second.access_token).await == 401;
            assert!(is_refused || sent < REVOKED_WITHIN, "accepted {sent:?} after the revocation");
            is_refused.then_some(())
        };
        eventually("the revocation counts", refused).await;
    }
    assert_eq!(error(client.refresh(&second.refresh_token).await).await, "invalid_grant");
}

#[tokio::test]
async fn the_stop_of_a_replica_after_any_step_has_no_effect() {
    let valkey = shared_store().await;
    let replicas = Replicas::new(&valkey).await;
    for step in STEPS {
        let tokens = session_with_a_loss_after(step, &replicas).await;
        assert_eq!(replicas.call(&tokens.access_token).await.status(), 200, "{step}");
        replicas.launch(0).await;
    }
}

/// Starts a session that one replica serves until this step, after which it stops. The others serve the rest. Returns
/// the tokens.
async fn session_with_a_loss_after(step: &str, replicas: &Replicas) -> Tokens {
    replicas.lead_to(0);
    let done = async |name: &str| {
        if name == step {
            replicas.balance();
            replicas.stop(0).await;
        }
    };
    let client = McpClient::register(&replicas.site).await;
    done("registration").await;
    let page = client.consent_page(&replicas.site.browser(), &[]).await;
    done("consent page").await;
    let entra = page.press("approve").await.unwrap().page().unwrap();
    done("approval").await;
    let callback = entra.sign_in(ALICE).await.unwrap().callback().unwrap();
    done("callback").await;
    let first = tokens(client.redeem(&callback.parameter("code").unwrap()).await).await;
    done("code").await;
    assert_eq!(replicas.call(&first.access_token).await.status(), 200, "{step}");
    done("call").await;
    let second = tokens(client.refresh(&first.refresh_token).await).await;
    done("refresh").await;
    second
}

#[tokio::test]
async fn twenty_concurrent_refreshes_at_three_replicas_return_the_same_successor() {
    let valkey = shared_store().await;
    let replicas = Replicas::new(&valkey).await;
    let client = McpClient::register(&replicas.site).await;
    let first = client.sign_in(ALICE).await;
    let answers = futures::future::join_all((0..20).map(|_| client.refresh(&first.refresh_token))).await;
    let mut successors = Vec::new();
    for answer in answers {
        successors.push(tokens(answer).await);
    }
    let second = &successors[0];
    assert_ne!(second.refresh_token, first.refresh_token);
    for other in &successors {
        assert_eq!(other.refresh_token, second.refresh_token);
        assert_eq!(replicas.ping(&other.access_token).await, 200);
    }
    // Each replica asks Entra at most once, for all requests that reached it.
    let asked = replicas.site.site.setup.tenant.grants("refresh_token");
    assert!((1..=3).contains(&asked), "{asked}");
    tokens(client.refresh(&second.refresh_token).await).await;
}

#[tokio::test]
async fn servers_with_different_prefixes_in_one_database_are_isolated() {
    let valkey = shared_store().await;
    let replicas = Replicas::new(&valkey).await;
    // The last replica is equal to the server except for the prefix.
    let mut other = valkey.configuration();
    other.key_prefix = format!("{PREFIX}other:");
    replicas.configure(|server| server.session_store = SessionStore::Valkey(other));
    replicas.stop(2).await;
    replicas.launch(2).await;
    replicas.lead_to(0);
    let client = McpClient::register(&replicas.site).await;
    let alice = client.sign_in(ALICE).await;
    let code = client.code(ALICE).await;
    let entra = client.consent_page(&replicas.site.browser(), &[]).await.press("approve").await.unwrap();
    replicas.lead_to(2);
    assert_eq!(replicas.ping(&alice.access_token).await, 401);
    assert_eq!(error(client.refresh(&alice.refresh_token).await).await, "invalid_grant");
    assert_eq!(error(client.redeem(&code).await).await, "invalid_grant");
    assert_eq!(revoke(&client, &alice.refresh_token).await, 200);
    let page = entra.page().unwrap().sign_in(ALICE).await.unwrap().page().unwrap();
    assert_eq!(page.status, 400, "{}", page.html);
    // None of that has reached the first server's records.
    replicas.lead_to(1);
    assert_eq!(replicas.ping(&alice.access_token).await, 200);
    tokens(client.redeem(&code).await).await;
    tokens(client.refresh(&alice.refresh_token).await).await;
}

#[tokio::test]
async fn a_record_that_was_moved_in_the_store_is_refused() {
    let valkey = shared_store().await;
    let replicas = Replicas::new(&valkey).await;
    let (store, client) = (valkey.store(), McpClient::register(&replicas.site).await);
    let move_to = async |from: &str, to: &str| {
        let value = store.get(from).await.unwrap().unwrap_or_else(|| panic!("no {from}"));
        store.take(to).await.unwrap();
        assert!(store.put_new(to, &value, LIFE).await.unwrap());
    };
    let session = |tokens: &Tokens| key("session", part_of_token(&tokens.access_token, 1)["sid"].as_str().unwrap());

    // Alice's session in the place of Bob's: neither token of Bob becomes one of Alice.
    let (alice, bob) = (client.sign_in(ALICE).await, client.sign_in(BOB).await);
    move_to(&session(&alice), &session(&bob)).await;
    assert_eq!(error(client.refresh(&bob.refresh_token).await).await, "invalid_grant");
    for replica in 0..3 {
        replicas.lead_to(replica);
        let refused = async || (replicas.ping(&bob.access_token).await == 401).then_some(());
        eventually("the moved session is none", refused).await;
        assert_eq!(replicas.ping(&alice.access_token).await, 200);
    }
    replicas.balance();

    // Another sign-in, and a record of another purpose, in the place of the browser's sign-in.
    let state = |url: &url::Url| url.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
    let begin = async || {
        client.consent_page(&replicas.site.browser(), &[]).await.press("approve").await.unwrap().page().unwrap()
    };
    let attackers = begin().await;
    for from in [key("transaction", &state(&attackers.url)), session(&alice)] {
        let entra = begin().await;
        move_to(&from, &key("transaction", &state(&entra.url))).await;
        let page = entra.sign_in(ALICE).await.unwrap().page().unwrap();
        assert_eq!(page.status, 400, "{from}: {}", page.html);
    }
    // A record in its own place is accepted.
    attackers.sign_in(BOB).await.unwrap().callback().unwrap();
    tokens(client.refresh(&alice.refresh_token).await).await;
}

/// The key of a record in the store, below the prefix.
fn key(purpose: &str, id: &str) -> String {
    format!("{purpose}:{}", hex::encode(Sha256::digest(id)))
}

async fn revoke(client: &McpClient<'_>, token: &str) -> u16 {
    let form = [("token", token), ("client_id", &client.id)];
    client.site.http.post(client.site.url("/revoke")).form(&form).send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_restart_signs_all_users_out_if_sessions_are_in_memory() {
    let replicas = Replicas::start(OAuthSetup::new().await, 1).await;
    let client = McpClient::register(&replicas.site).await;
    let first = client.sign_in(ALICE).await;
    assert_eq!(replicas.call(&first.access_token).await.status(), 200);
    replicas.restart().await;
    let refused = replicas.call(&first.access_token).await;
    assert_eq!(refused.status(), 401);
    assert!(refused.headers()["www-authenticate"].to_str().unwrap().contains("invalid_token"));
    assert_eq!(error(client.refresh(&first.refresh_token).await).await, "invalid_grant");
    // The client keeps its id.
    let second = client.sign_in(ALICE).await;
    assert_eq!(replicas.call(&second.access_token).await.status(), 200);
}
