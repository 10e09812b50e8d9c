//! The stored form of tokens: versioned JSON.

use std::borrow::Cow;
use std::collections::BTreeSet;

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::error::{NotOpenable, StoreError};
use super::{Account, KeptAccess, KeptTokens, Owner};

const VERSION: u32 = 1;

/// Capacity for everything besides the tokens. A growing buffer would leave copies of them in memory.
const ROOM: usize = 16 * 1024;

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

#[derive(Serialize, Deserialize)]
struct Written<'a> {
    version: u32,
    owner: Cow<'a, Owner>,
    tenant_id: Cow<'a, str>,
    object_id: Cow<'a, str>,
    username: Cow<'a, str>,
    issued_at: Timestamp,
    #[serde(borrow)]
    refresh_token: Cow<'a, str>,
    #[serde(borrow)]
    access: Option<WrittenAccess<'a>>,
}

#[derive(Serialize, Deserialize)]
struct WrittenAccess<'a> {
    #[serde(borrow)]
    token: Cow<'a, str>,
    granted: Cow<'a, BTreeSet<String>>,
    usable_until: Timestamp,
}

/// Returns tokens of this owner as JSON.
pub(super) fn to_json(owner: &Owner, tokens: &KeptTokens) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let access = tokens.access.as_ref().map(|access| WrittenAccess {
        token: Cow::Borrowed(access.token.expose_secret()),
        granted: Cow::Borrowed(&access.granted),
        usable_until: access.usable_until,
    });
    let written = Written {
        version: VERSION,
        owner: Cow::Borrowed(owner),
        tenant_id: Cow::Borrowed(&tokens.account.tenant_id),
        object_id: Cow::Borrowed(&tokens.account.object_id),
        username: Cow::Borrowed(&tokens.account.username),
        issued_at: tokens.issued_at,
        refresh_token: Cow::Borrowed(tokens.refresh_token.expose_secret()),
        access,
    };
    let length = written.refresh_token.len() + written.access.as_ref().map_or(0, |access| access.token.len());
    let mut json = Zeroizing::new(Vec::with_capacity(length + ROOM));
    serde_json::to_writer(&mut *json, &written).map_err(|_| StoreError::Defect("they cannot be written as JSON"))?;
    Ok(json)
}

/// Parses tokens, which must belong to this owner. Errors of the parser are dropped, because they may quote a token.
pub(super) fn from_json(owner: &Owner, json: &[u8]) -> Result<KeptTokens, NotOpenable> {
    let Versioned { version } = serde_json::from_slice(json).map_err(|_| NotOpenable::Damaged)?;
    match version {
        VERSION => {}
        0 => return Err(NotOpenable::Damaged),
        _ => return Err(NotOpenable::Newer),
    }
    let written: Written<'_> = serde_json::from_slice(json).map_err(|_| NotOpenable::Damaged)?;
    if *written.owner != *owner {
        return Err(NotOpenable::OtherOwner);
    }
    Ok(KeptTokens {
        account: Account {
            tenant_id: written.tenant_id.into_owned(),
            object_id: written.object_id.into_owned(),
            username: written.username.into_owned(),
        },
        issued_at: written.issued_at,
        refresh_token: SecretString::from(&*written.refresh_token),
        access: written.access.map(|access| KeptAccess {
            token: SecretString::from(&*access.token),
            granted: access.granted.into_owned(),
            usable_until: access.usable_until,
        }),
    })
}
