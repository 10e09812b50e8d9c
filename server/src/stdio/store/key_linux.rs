//! Keys in the Secret Service of a Linux desktop: GNOME Keyring, KWallet or KeePassXC.

use std::collections::HashMap;
use std::time::Duration;

use secret_service::{Collection, EncryptionType, Error, Item, SecretService};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::{SERVICE, StoreError};

pub(super) const PLACE: &str = "the default keyring of the desktop";

/// Longest time of a call. A desktop answers in milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest time for unlocking the keyring. It is shorter, so that the error says that the keyring is locked.
const UNLOCK_PATIENCE: Duration = Duration::from_secs(4);

pub(super) async fn get(user: &str) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
    within(async {
        let service = connect().await?;
        let collection = open_collection(&service).await?;
        let items = find(&collection, user).await?;
        let Some(item) = items.first() else { return Ok(None) };
        let secret = item.get_secret().await.map_err(|error| failed(&error))?;
        Ok(Some(Zeroizing::new(secret)))
    })
    .await
}

pub(super) async fn set(user: &str, text: Zeroizing<String>) -> Result<(), StoreError> {
    within(async {
        let service = connect().await?;
        let collection = open_collection(&service).await?;
        let tenant = user.split_once('/').map_or(user, |(tenant, _)| tenant);
        collection
            .create_item(
                &format!("{SERVICE}: sign-in of {tenant}"),
                attributes(user),
                text.as_bytes(),
                true,
                "text/plain",
            )
            .await
            .map_err(|error| failed(&error))?;
        Ok(())
    })
    .await
}

pub(super) async fn delete(user: &str) -> Result<bool, StoreError> {
    within(async {
        let service = connect().await?;
        let collection = open_collection(&service).await?;
        let items = find(&collection, user).await?;
        for item in &items {
            item.delete().await.map_err(|error| failed(&error))?;
        }
        Ok(!items.is_empty())
    })
    .await
}

/// Secrets cross the bus encrypted, because some programs record its traffic.
async fn connect() -> Result<SecretService<'static>, StoreError> {
    SecretService::connect(EncryptionType::Dh).await.map_err(|error| {
        no_key_store(format!(
            "no Secret Service answers on the session bus ({error}); sign in to a desktop with GNOME Keyring or KWallet"
        ))
    })
}

async fn open_collection<'a>(service: &'a SecretService<'_>) -> Result<Collection<'a>, StoreError> {
    let collection = service.get_default_collection().await.map_err(|error| match error {
        Error::NoResult => no_key_store("there is no default keyring; create one, for example with Seahorse"),
        error => failed(&error),
    })?;
    if collection.is_locked().await.map_err(|error| failed(&error))? {
        // A desktop asks the person.
        let unlocked = timeout(UNLOCK_PATIENCE, collection.unlock()).await;
        if !matches!(unlocked, Ok(Ok(()))) || collection.is_locked().await.map_err(|error| failed(&error))? {
            return Err(no_key_store("the default keyring is locked; unlock it"));
        }
    }
    Ok(collection)
}

async fn find<'a>(collection: &'a Collection<'_>, user: &str) -> Result<Vec<Item<'a>>, StoreError> {
    collection.search_items(attributes(user)).await.map_err(|error| failed(&error))
}

fn attributes(user: &str) -> HashMap<&str, &str> {
    HashMap::from([("service", SERVICE), ("username", user)])
}

async fn within<T>(call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let late = || no_key_store(format!("it did not answer within {} s; restart it", PATIENCE.as_secs()));
    timeout(PATIENCE, call).await.unwrap_or_else(|_| Err(late()))
}

fn failed(error: &Error) -> StoreError {
    no_key_store(format!("it failed ({error}); restart it"))
}

fn no_key_store(why: impl Into<String>) -> StoreError {
    StoreError::NoKeyStore(why.into())
}
