//! Memory of recent challenges, so that no caller gets the same one twice in a row.
//!
//! A client that answers a challenge without satisfying it would loop. Each replica has its own memory, so such a
//! client may take one round for each replica.

use std::time::Duration;

use moka::future::Cache;
use sha2::{Digest, Sha256};

use crate::entra::SignIn;
use crate::token::Principal;

/// Lifetime of an entry. It is long enough to stop a loop; after it, a person who missed the first sign-in may be
/// asked again.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);
const REMEMBERED: u64 = 10_000;

/// Recent challenges.
pub(super) struct Challenged(Cache<[u8; 32], ()>);

impl Challenged {
    pub(super) fn new() -> Self {
        Self(Cache::builder().max_capacity(REMEMBERED).time_to_live(REMEMBERED_FOR).build())
    }

    /// True if this caller gets this challenge for the first time; records it.
    pub(super) async fn is_first(&self, principal: &Principal, sign_in: &SignIn) -> bool {
        let demand = match sign_in {
            SignIn::Anew => String::new(),
            SignIn::Satisfying(claims) => claims.as_json().to_owned(),
            SignIn::Consenting(permissions) => permissions.join(" "),
        };
        let mut hash = Sha256::new();
        for part in [principal.tenant_id(), principal.object_id(), principal.client_id(), &demand] {
            hash.update(part);
            hash.update([0]);
        }
        self.0.entry(hash.finalize().into()).or_insert(()).await.is_fresh()
    }
}
