//! Tests of the session store: common behaviour of all kinds, and the effects of a Valkey server.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mcp_entra_server::oauth::store::{MemoryStore, Store, StoreError, ValkeyError, ValkeyStore};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::harness::eventually;
use crate::valkey::{Valkey, configuration};

const LIFE: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(150);
/// Longest time of a command that fails at once.
const AT_ONCE: Duration = Duration::from_millis(500);

/// A store of each kind, by its name. Stores end with the server.
async fn stores() -> (BTreeMap<&'static str, Arc<dyn Store>>, Valkey) {
    let valkey = Valkey::start().await;
    let (memory, shared): (Arc<dyn Store>, Arc<dyn Store>) = (Arc::new(MemoryStore::new()), Arc::new(valkey.store()));
    (BTreeMap::from([("memory", memory), ("valkey", shared)]), valkey)
}

async fn get(store: &dyn Store, key: &str) -> Option<Vec<u8>> {
    store.get(key).await.unwrap()
}

/// The text of the error for a store that is not available.
fn unavailable<T: std::fmt::Debug>(answer: Result<T, StoreError>) -> String {
    match answer {
        Err(StoreError::Unavailable(text)) => text,
        other => panic!("{other:?}"),
    }
}

/// Asserts that all operations fail at once.
async fn assert_fails_at_once(store: &ValkeyStore) {
    let start = Instant::now();
    for _ in 0..10 {
        unavailable(store.get("key").await);
        unavailable(store.put_new("key", b"value", LIFE).await);
        unavailable(store.take("key").await);
        unavailable(store.compare_and_set("key", b"value", b"other", LIFE).await);
    }
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
}

/// Returns the number of successful callers out of 100 concurrent ones.
async fn winners<F>(ask: impl Fn(u8) -> F) -> usize
where
    F: Future<Output = bool> + Send + 'static,
{
    (0..100).map(ask).collect::<JoinSet<_>>().join_all().await.into_iter().filter(|won| *won).count()
}

#[tokio::test]
async fn a_value_is_put_once_and_taken_once() {
    let (stores, _valkey) = stores().await;
    for (kind, store) in stores {
        let value = [0, 255, b'\r', b'\n', 0];
        assert_eq!(get(&*store, "key").await, None, "{kind}");
        assert_eq!(store.take("key").await, Ok(None), "{kind}");
        assert_eq!(store.put_new("key", &value, LIFE).await, Ok(true), "{kind}");
        assert_eq!(store.put_new("key", b"other", LIFE).await, Ok(false), "{kind}");
        assert_eq!(get(&*store, "KEY").await, None, "{kind}");
        assert_eq!(get(&*store, "key").await.as_deref(), Some(&value[..]), "{kind}");
        assert_eq!(store.take("key").await, Ok(Some(value.to_vec())), "{kind}");
        assert_eq!(get(&*store, "key").await, None, "{kind}");
        assert_eq!(store.put_new("key", b"", LIFE).await, Ok(true), "{kind}");
        assert_eq!(store.take("key").await, Ok(Some(vec![])), "{kind}");
    }
}

#[tokio::test]
async fn a_value_is_replaced_only_if_it_is_the_expected_one() {
    let (stores, _valkey) = stores().await;
    for (kind, store) in stores {
        assert_eq!(store.compare_and_set("key", b"", b"b", LIFE).await, Ok(false), "{kind}");
        assert_eq!(get(&*store, "key").await, None, "{kind}");
        store.put_new("key", b"a", LIFE).await.unwrap();
        for other in [&b""[..], b"A", b"a\0", b"b"] {
            assert_eq!(store.compare_and_set("key", other, b"b", LIFE).await, Ok(false), "{kind}");
        }
        assert_eq!(get(&*store, "key").await.as_deref(), Some(&b"a"[..]), "{kind}");
        assert_eq!(store.compare_and_set("key", b"a", b"\0\xff", LIFE).await, Ok(true), "{kind}");
        assert_eq!(get(&*store, "key").await.as_deref(), Some(&b"\0\xff"[..]), "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_one_of_a_hundred_callers_puts_replaces_and_takes() {
    let (stores, _valkey) = stores().await;
    for (kind, store) in stores {
        let put = |caller: u8| {
            let store = Arc::clone(&store);
            async move { store.put_new("key", &[caller], LIFE).await.unwrap() }
        };
        assert_eq!(winners(put).await, 1, "{kind}");
        let first = get(&*store, "key").await.unwrap();
        let replace = |caller: u8| {
            let (store, first) = (Arc::clone(&store), first.clone());
            async move { store.compare_and_set("key", &first, &[caller, caller], LIFE).await.unwrap() }
        };
        assert_eq!(winners(replace).await, 1, "{kind}");
        let take = |_| {
            let store = Arc::clone(&store);
            async move { store.take("key").await.unwrap().is_some() }
        };
        assert_eq!(winners(take).await, 1, "{kind}");
    }
}

#[tokio::test]
async fn a_value_expires_unless_its_lifetime_is_extended() {
    let (stores, _valkey) = stores().await;
    for (kind, store) in stores {
        for key in ["renewed", "shortened", "short"] {
            let life = if key == "shortened" { LIFE } else { SHORT };
            store.put_new(key, b"a", life).await.unwrap();
        }
        assert_eq!(store.compare_and_set("renewed", b"a", b"b", LIFE).await, Ok(true), "{kind}");
        assert_eq!(store.compare_and_set("shortened", b"a", b"b", SHORT).await, Ok(true), "{kind}");
        for key in ["short", "shortened"] {
            eventually("the value ends", async || get(&*store, key).await.is_none().then_some(())).await;
        }
        assert_eq!(store.take("short").await, Ok(None), "{kind}");
        assert_eq!(store.compare_and_set("shortened", b"b", b"c", LIFE).await, Ok(false), "{kind}");
        assert_eq!(store.put_new("short", b"new", LIFE).await, Ok(true), "{kind}");
        assert_eq!(get(&*store, "renewed").await.as_deref(), Some(&b"b"[..]), "{kind}");
        // A lifetime of any length works with a server's clock.
        assert_eq!(store.put_new("ended", b"a", Duration::ZERO).await, Ok(true), "{kind}");
        assert_eq!(store.put_new("long", b"a", Duration::from_secs(1 << 36)).await, Ok(true), "{kind}");
        assert_eq!(get(&*store, "long").await.as_deref(), Some(&b"a"[..]), "{kind}");
    }
}

#[tokio::test]
async fn replicas_share_a_valkey_store_and_other_servers_have_another() {
    let valkey = Valkey::start().await;
    let (one, other) = (valkey.store(), valkey.store());
    one.put_new("key", b"value", LIFE).await.unwrap();
    assert_eq!(other.take("key").await, Ok(Some(b"value".to_vec())));
    let mut foreign = valkey.configuration();
    foreign.key_prefix = "other:".to_owned();
    let foreign = ValkeyStore::new(&foreign, Some(valkey.password_file()), Some(valkey.ca.as_bytes())).unwrap();
    let text = unavailable(foreign.get("key").await);
    assert!(text.contains("~other:* +getex +set +getdel +eval"), "{text}");
}

#[tokio::test]
async fn a_stopped_server_fails_commands_at_once_and_keeps_the_values_until_its_start() {
    let mut valkey = Valkey::start().await;
    let store = valkey.store();
    store.put_new("key", b"value", LIFE).await.unwrap();
    valkey.stop().await;
    eventually("the text reports that it cannot be reached", async || {
        let text = unavailable(store.get("key").await);
        (text.contains("cannot be reached") && text.contains("check sessionStore.valkey.url")).then_some(())
    })
    .await;
    assert_fails_at_once(&store).await;
    valkey.restart().await;
    let value = eventually("the store works again", async || store.get("key").await.ok()).await;
    assert_eq!(value.as_deref(), Some(&b"value"[..]));
    assert_eq!(store.compare_and_set("key", b"value", b"other", LIFE).await, Ok(true));
}

#[tokio::test]
async fn a_connection_that_the_server_closed_while_idle_fails_no_command() {
    let mut valkey = Valkey::start().await;
    let store = valkey.store();
    store.put_new("key", b"value", LIFE).await.unwrap();
    valkey.stop().await;
    valkey.restart().await;
    assert_eq!(get(&store, "key").await.as_deref(), Some(&b"value"[..]));
}

#[tokio::test]
async fn a_silent_server_costs_only_one_caller_the_time_limit() {
    let silent = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let store = ValkeyStore::new(&configuration(port), None, None).unwrap();
    let start = Instant::now();
    let text = unavailable(store.get("key").await);
    assert!(text.contains("does not answer within 1.5 s"), "{text}");
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert_fails_at_once(&store).await;
}

#[tokio::test]
async fn a_new_password_is_used_as_soon_as_its_file_has_it() {
    let mut valkey = Valkey::start().await;
    let store = valkey.store();
    store.put_new("key", b"value", LIFE).await.unwrap();
    valkey.stop().await;
    valkey.set_password("second");
    valkey.restart().await;
    let text = unavailable(store.get("key").await);
    assert!(text.contains("refuses the sign-in of the user \"mcp-entra\""), "{text}");
    assert!(text.contains("check the ACL user and the password in") && !text.contains("first"), "{text}");
    assert_fails_at_once(&store).await;
    valkey.replace_password_file("second");
    let value = eventually("the new password is used", async || store.get("key").await.ok()).await;
    assert_eq!(value.as_deref(), Some(&b"value"[..]));
}

#[tokio::test]
async fn without_its_password_the_store_names_the_missing_file() {
    let valkey = Valkey::start().await;
    let (ca, missing) = (Some(valkey.ca.as_bytes()), valkey.password_file().with_extension("missing"));
    for (file, expected) in [(None, "give this server a password file"), (Some(missing), "password.missing")] {
        let store = ValkeyStore::new(&valkey.configuration(), file, ca).unwrap();
        let text = unavailable(store.get("key").await);
        assert!(text.contains(expected), "{text}");
    }
}

#[tokio::test]
async fn nothing_is_sent_to_a_server_without_a_trusted_certificate() {
    let (valkey, other) = (Valkey::start().await, Valkey::start().await);
    let mut other_name = valkey.configuration();
    other_name.url = other_name.url.replace("127.0.0.1", "localhost");
    let cas = [Some(valkey.ca.as_bytes()), Some(other.ca.as_bytes()), None];
    for (configuration, ca) in
        [(other_name, cas[0]), (valkey.configuration(), cas[1]), (valkey.configuration(), cas[2])]
    {
        let store = ValkeyStore::new(&configuration, Some(valkey.password_file()), ca).unwrap();
        let text = unavailable(store.get("key").await);
        assert!(text.contains("invalid peer certificate") && text.contains("from a CA in the CA bundle"), "{text}");
    }
}

#[tokio::test]
async fn plaintext_is_refused_by_url_and_by_answer() {
    let mut plain = configuration(6379);
    plain.url = plain.url.replace("rediss:", "redis:");
    assert!(matches!(ValkeyStore::new(&plain, None, None), Err(ValkeyError::Url(_))));

    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut client, _) = listener.accept().await.unwrap();
        client.write_all(b"-ERR unknown command\r\n").await.unwrap();
        let mut said = Vec::new();
        client.read_to_end(&mut said).await.unwrap();
        said
    });
    let valkey = Valkey::start().await;
    let store = ValkeyStore::new(&configuration(port), Some(valkey.password_file()), None).unwrap();
    let text = unavailable(store.get("key").await);
    assert!(text.contains("cannot set up TLS with 127.0.0.1"), "{text}");
    drop(store);
    let said = server.await.unwrap();
    assert!(!said.windows(5).any(|part| part == b"first"), "the password in plaintext");
}

#[tokio::test]
async fn a_replica_is_refused_for_reading_too_with_a_message() {
    let replica = Valkey::start_with(&["--replicaof", "127.0.0.1 1"]).await;
    for operation in 0..4 {
        let store = replica.store();
        let text = match operation {
            0 => unavailable(store.put_new("key", b"value", LIFE).await),
            1 => unavailable(store.take("key").await),
            2 => unavailable(store.get("key").await),
            _ => unavailable(store.compare_and_set("key", b"value", b"other", LIFE).await),
        };
        assert!(text.contains("is a replica, whose data may be old"), "{text}");
        assert!(text.contains("set sessionStore.valkey.url to the primary"), "{text}");
    }
}

#[tokio::test]
async fn a_server_without_memory_is_full() {
    let valkey = Valkey::start_with(&["--maxmemory", "1", "--maxmemory-policy", "noeviction"]).await;
    let store = valkey.store();
    match store.put_new("key", b"value", LIFE).await {
        Err(StoreError::Full(text)) => assert!(text.contains("raise its maxmemory"), "{text}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(get(&store, "key").await, None);
}
