//! Memory of the sign-ins that callers were asked for lately: nobody is asked for the same one twice in a row.
//!
//! A client that answers a challenge without meeting it would be sent around in circles. Each replica remembers for
//! itself, so that it can take one round for each of them.

use std::time::Duration;

use moka::future::Cache;
use sha2::{Digest, Sha256};

use crate::entra::SignIn;
use crate::token::Principal;

/// Long enough to see a client go in circles; after that, a person who was not there may be asked again.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);
const REMEMBERED: u64 = 10_000;

/// Sign-ins that callers were challenged with.
pub(super) struct Challenged(Cache<[u8; 32], ()>);

impl Challenged {
    pub(super) fn new() -> Self {
        Self(Cache::builder().max_capacity(REMEMBERED).time_to_live(REMEMBERED_FOR).build())
    }

    /// True if this caller is asked for this sign-in for the first time. The next call will know of it.
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
