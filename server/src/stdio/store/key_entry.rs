//! Keys in secure stores with blocking calls: macOS and Windows.

use keyring_core::{Entry, Error};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::{SERVICE, StoreError};

#[cfg_attr(target_os = "macos", path = "key_macos.rs")]
#[cfg_attr(windows, path = "key_windows.rs")]
mod platform;

use platform::{PATIENCE, REMEDY, entry};

pub(super) const PLACE: &str = platform::PLACE;

pub(super) async fn get(user: &str) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
    call(user, |entry| present(entry.get_secret().map(Zeroizing::new))).await
}

pub(super) async fn set(user: &str, text: Zeroizing<String>) -> Result<(), StoreError> {
    call(user, move |entry| entry.set_secret(text.as_bytes())).await
}

pub(super) async fn delete(user: &str) -> Result<bool, StoreError> {
    Ok(call(user, |entry| present(entry.delete_credential())).await?.is_some())
}

/// Returns `None` if the store has no such entry.
fn present<T>(result: keyring_core::Result<T>) -> keyring_core::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::NoEntry) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Calls the store on a separate thread. After a timeout, the call continues there and its result is ignored.
async fn call<T: Send + 'static>(
    user: &str,
    work: impl FnOnce(Entry) -> keyring_core::Result<T> + Send + 'static,
) -> Result<T, StoreError> {
    let user = user.to_owned();
    let running = spawn_blocking(move || entry(SERVICE, &user).and_then(work));
    let late = || failed(&format!("it did not answer within {} s", PATIENCE.as_secs()));
    let ended = timeout(PATIENCE, running).await.map_err(|_| late())?;
    let result = ended.map_err(|_| StoreError::Defect("the call of the secure store failed"))?;
    result.map_err(|error| failed(&error.to_string()))
}

fn failed(why: &str) -> StoreError {
    StoreError::NoKeyStore(format!("{why}; {REMEDY}"))
}
