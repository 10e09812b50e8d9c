pub(super) mod fixtures;
#[cfg(unix)]
mod processes;

use std::fs;
use std::sync::atomic::Ordering;
use std::time::Duration;

use secrecy::ExposeSecret;

use self::fixtures::{Place, fabrikam, others, tokens};
use super::error::NotOpenable;
use super::sealed::Key;
use super::{KeptTokens, LockPurpose, StoreError, StoreKind, TokenStore};

const ON_DISK: [StoreKind; 2] = [StoreKind::Os, StoreKind::File];

/// Returns everything in the tokens, with secrets.
fn all(tokens: &KeptTokens) -> String {
    let access =
        tokens.access.as_ref().map(|access| (access.token.expose_secret(), &access.granted, access.usable_until));
    format!("{:?} {} {} {access:?}", tokens.account, tokens.issued_at, tokens.refresh_token.expose_secret())
}

async fn kept(store: &TokenStore) -> Option<String> {
    store.read().await.unwrap().as_ref().map(all)
}

fn why(result: Result<impl Sized, StoreError>) -> NotOpenable {
    match result.err().unwrap() {
        StoreError::NotOpenable { why, .. } => why,
        error => panic!("{error}"),
    }
}

#[tokio::test]
async fn tokens_come_back_as_they_were_kept() {
    for kind in ON_DISK {
        let place = Place::new();
        assert_eq!(kept(&place.store(kind)).await, None, "{kind:?}");
        for refresh_token in ["first", "second"] {
            for with_access in [true, false] {
                let mut tokens = tokens(refresh_token);
                tokens.access = tokens.access.filter(|_| with_access);
                place.store(kind).write(&tokens).await.unwrap();
                assert_eq!(kept(&place.store(kind)).await, Some(all(&tokens)), "{kind:?}");
            }
        }
        assert_eq!(place.files().len(), 1, "{kind:?}");
    }
}

#[tokio::test]
async fn a_cache_of_a_large_account_is_kept() {
    for kind in ON_DISK {
        let place = Place::new();
        let tokens = tokens(&"r".repeat(100_000));
        place.store(kind).write(&tokens).await.unwrap();
        assert_eq!(kept(&place.store(kind)).await, Some(all(&tokens)), "{kind:?}");
    }
}

#[tokio::test]
async fn tokens_that_no_reader_would_take_are_not_written() {
    for kind in ON_DISK {
        let place = Place::new();
        place.store(kind).write(&tokens("old")).await.unwrap();
        let error = place.store(kind).write(&tokens(&"r".repeat(300_000))).await.unwrap_err();
        assert!(matches!(error, StoreError::Defect(_)), "{error}");
        assert_eq!(kept(&place.store(kind)).await, Some(all(&tokens("old"))));
    }
}

#[tokio::test]
async fn memory_stores_nothing_and_its_locks_do_not_exclude_others() {
    let place = Place::new();
    let store = place.store(StoreKind::Memory);
    let _lock = store.lock(LockPurpose::Tokens, Duration::ZERO).await.unwrap().unwrap();
    let _other = store.lock(LockPurpose::Tokens, Duration::ZERO).await.unwrap().unwrap();
    store.write(&tokens("one")).await.unwrap();
    store.replace(&tokens("one")).await.unwrap();
    assert_eq!(kept(&store).await, None);
    assert!(!store.delete().await.unwrap());
    assert!(store.describe().await.unwrap().contains("memory"));
    assert!(!place.path().exists());
    assert!(place.keys.kept.lock().unwrap().is_empty());
}

#[tokio::test]
async fn secrets_are_neither_in_an_encrypted_file_nor_in_debug() {
    let place = Place::new();
    let tokens = tokens("the-refresh-token");
    place.store(StoreKind::Os).write(&tokens).await.unwrap();
    let key = place.keys.kept.lock().unwrap().values().next().unwrap().clone();
    let key = String::from_utf8(key).unwrap();
    for (name, content) in place.files() {
        let content = String::from_utf8_lossy(&content);
        for secret in ["the-refresh-token", "the.access.token", "contoso", "mail.read", &key] {
            assert!(!content.contains(secret), "{secret} is in {name}");
        }
    }
    for secret in ["the-refresh-token", "the.access.token"] {
        assert!(!format!("{tokens:?}").contains(secret));
    }
}

#[tokio::test]
async fn tokens_are_read_only_for_their_tenant_client_entra_and_graph() {
    for (kind, refusal) in [(StoreKind::Os, NotOpenable::WrongKey), (StoreKind::File, NotOpenable::OtherOwner)] {
        for owner in others() {
            let place = Place::new();
            let own = place.store(kind);
            own.write(&tokens("own")).await.unwrap();
            let other = place.store_of(kind, owner);
            assert_eq!(kept(&other).await, None);
            // Not even with the file and the key under the other owner's names.
            let key = place.keys.kept.lock().unwrap().get(&own.owner.key_name()).cloned();
            place.keys.kept.lock().unwrap().extend(key.map(|key| (other.owner.key_name(), key)));
            fs::copy(own.files.tokens(), other.files.tokens()).unwrap();
            assert_eq!(why(other.read().await), refusal, "{kind:?} {:?}", other.owner);
            assert_eq!(why(other.write(&tokens("new")).await), refusal);
            other.replace(&tokens("new")).await.unwrap();
            assert_eq!(kept(&other).await, Some(all(&tokens("new"))));
            assert_eq!(kept(&own).await, Some(all(&tokens("own"))));
        }
    }
}

#[tokio::test]
async fn a_key_is_named_after_its_tenant_for_people() {
    let place = Place::new();
    place.store(StoreKind::Os).write(&tokens("own")).await.unwrap();
    let names = Vec::from_iter(place.keys.kept.lock().unwrap().keys().cloned());
    assert!(names.len() == 1 && names[0].starts_with("contoso.example/"), "{names:?}");
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_is_left_until_a_sign_in_replaces_it_unless_a_newer_program_wrote_it() {
    let large = vec![b' '; 256 * 1024 + 1];
    let json = br#"{"version":2,"accounts":[]}"#;
    let cases: [(StoreKind, &[u8], NotOpenable); 9] = [
        (StoreKind::Os, b"", NotOpenable::Damaged),
        (StoreKind::Os, b"MCPENTRA", NotOpenable::Damaged),
        (StoreKind::Os, b"MCPENTRA\x02", NotOpenable::Newer),
        (StoreKind::Os, b"{\"version\":1}", NotOpenable::Damaged),
        (StoreKind::Os, &large, NotOpenable::Damaged),
        (StoreKind::File, b"", NotOpenable::Damaged),
        (StoreKind::File, b"{\"version\":1}", NotOpenable::Damaged),
        (StoreKind::File, json, NotOpenable::Newer),
        (StoreKind::File, &large, NotOpenable::Damaged),
    ];
    for (kind, content, expected) in cases {
        let place = Place::new();
        let store = place.store(kind);
        store.write(&tokens("old")).await.unwrap();
        fs::write(store.files.tokens(), content).unwrap();
        assert_eq!(why(store.read().await), expected, "{kind:?}");
        assert_eq!(why(store.write(&tokens("new")).await), expected, "{kind:?}");
        assert_eq!(fs::read(store.files.tokens()).unwrap(), content, "{kind:?}");
        if expected == NotOpenable::Newer {
            assert_eq!(why(store.replace(&tokens("new")).await), expected, "{kind:?}");
            assert_eq!(why(store.describe().await), expected, "a sign-in is not begun: {kind:?}");
            assert_eq!(fs::read(store.files.tokens()).unwrap(), content, "{kind:?}");
            continue;
        }
        store.describe().await.unwrap();
        store.replace(&tokens("new")).await.unwrap();
        assert_eq!(kept(&store).await, Some(all(&tokens("new"))), "{kind:?}");
    }
}

#[tokio::test]
async fn a_file_without_its_key_is_left_until_a_sign_in_replaces_it() {
    let other_key = Key::random().unwrap().to_text();
    let cases: [(Option<&[u8]>, NotOpenable); 4] = [
        (None, NotOpenable::NoKey),
        (Some(b"no key"), NotOpenable::NoKey),
        (Some(b"c2hvcnQ="), NotOpenable::NoKey),
        (Some(other_key.as_bytes()), NotOpenable::WrongKey),
    ];
    for (key, expected) in cases {
        let place = Place::new();
        let store = place.store(StoreKind::Os);
        store.write(&tokens("old")).await.unwrap();
        let before = place.files();
        let kept_keys = || place.keys.kept.lock().unwrap();
        kept_keys().clear();
        kept_keys().extend(key.map(|key| (store.owner.key_name(), key.to_vec())));
        let keys_before = kept_keys().clone();
        assert_eq!(why(store.read().await), expected);
        assert_eq!(why(store.write(&tokens("new")).await), expected);
        assert_eq!((place.files(), kept_keys().clone()), (before, keys_before));
        store.replace(&tokens("new")).await.unwrap();
        assert_eq!(kept(&store).await, Some(all(&tokens("new"))));
    }
}

#[tokio::test]
async fn sign_out_deletes_all_of_a_client_and_nothing_of_another() {
    for kind in ON_DISK {
        for content in [None, Some("damaged")] {
            let place = Place::new();
            let (store, other) = (place.store(kind), place.store_of(kind, fabrikam()));
            other.write(&tokens("other")).await.unwrap();
            let before = (place.files(), place.keys.kept.lock().unwrap().clone());
            assert!(!store.delete().await.unwrap());
            store.write(&tokens("own")).await.unwrap();
            if let Some(content) = content {
                fs::write(store.files.tokens(), content).unwrap();
            }
            assert!(store.delete().await.unwrap());
            assert_eq!((place.files(), place.keys.kept.lock().unwrap().clone()), before, "{kind:?}");
            assert_eq!(kept(&store).await, None);
        }
    }
}

#[tokio::test]
async fn sign_out_deletes_what_every_kind_of_store_keeps() {
    for kind in [StoreKind::Os, StoreKind::File, StoreKind::Memory] {
        for there in [&ON_DISK[..1], &ON_DISK[1..], &ON_DISK] {
            let place = Place::new();
            for kind in there {
                place.store(*kind).write(&tokens("own")).await.unwrap();
            }
            assert!(place.store(kind).delete().await.unwrap(), "{kind:?} of {there:?}");
            assert!(place.files().is_empty() && place.keys.kept.lock().unwrap().is_empty(), "{kind:?} of {there:?}");
            assert!(!place.store(kind).delete().await.unwrap());
        }
    }
}

#[tokio::test]
async fn sign_out_deletes_the_key_of_a_deleted_file() {
    let place = Place::new();
    let store = place.store(StoreKind::Os);
    store.write(&tokens("own")).await.unwrap();
    fs::remove_file(store.files.tokens()).unwrap();
    assert!(store.delete().await.unwrap());
    assert!(place.keys.kept.lock().unwrap().is_empty());
}

#[tokio::test]
async fn without_the_secure_store_nothing_is_kept_and_sign_out_deletes_the_file() {
    let place = Place::new();
    let store = place.store(StoreKind::Os);
    place.keys.away.store(true, Ordering::Relaxed);
    assert!(matches!(store.read().await, Err(StoreError::NoKeyStore(_))));
    assert!(matches!(store.write(&tokens("new")).await, Err(StoreError::NoKeyStore(_))));
    assert!(matches!(store.replace(&tokens("new")).await, Err(StoreError::NoKeyStore(_))));
    assert!(matches!(store.describe().await, Err(StoreError::NoKeyStore(_))));
    assert!(place.files().is_empty());

    place.keys.away.store(false, Ordering::Relaxed);
    store.write(&tokens("old")).await.unwrap();
    place.keys.away.store(true, Ordering::Relaxed);
    let error = store.delete().await.unwrap_err();
    assert!(matches!(error, StoreError::KeyStays(_)), "{error}");
    assert!(place.files().is_empty());

    // Without encryption, no error mentions a remaining key.
    assert!(!store.delete().await.unwrap());
    place.store(StoreKind::File).write(&tokens("new")).await.unwrap();
    assert!(store.delete().await.unwrap());
    assert!(place.files().is_empty());
}

#[tokio::test]
async fn a_description_tries_the_store_and_changes_nothing() {
    for (kind, says) in [(StoreKind::Os, "encrypted in"), (StoreKind::File, "without encryption in")] {
        for is_signed_in in [false, true] {
            let place = Place::new();
            let store = place.store(kind);
            if is_signed_in {
                store.write(&tokens("own")).await.unwrap();
            }
            let before = (place.files(), place.keys.kept.lock().unwrap().clone());
            let line = store.describe().await.unwrap();
            assert!(line.contains(says) && line.contains(&store.files.tokens().display().to_string()), "{line}");
            assert_eq!((place.files(), place.keys.kept.lock().unwrap().clone()), before, "{kind:?}");
        }
    }
}
