//! Operating systems without a supported secure store.

use zeroize::Zeroizing;

use super::{SERVICE, StoreError};

pub(super) const PLACE: &str = "no store";

pub(super) async fn get(_: &str) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
    Err(unknown())
}

pub(super) async fn set(_: &str, _: Zeroizing<String>) -> Result<(), StoreError> {
    Err(unknown())
}

pub(super) async fn delete(_: &str) -> Result<bool, StoreError> {
    Err(unknown())
}

fn unknown() -> StoreError {
    StoreError::NoKeyStore(format!("{SERVICE} supports none on this system; run it on Linux, macOS or Windows"))
}
