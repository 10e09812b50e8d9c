//! Cache of recent validations: a client sends the same token with each request. The cache holds no tokens.

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;

use super::assertion::{Assertion, TokenDigest};
use super::keys::{Key, Keys};
use super::principal::{Principal, Profile, User};

/// Longest lifetime of a validation in the cache, in seconds. It never exceeds the token's end.
const RELIED_ON: u64 = 60;
/// Memory of the cached validations, in bytes; the least used are evicted first.
const CAPACITY: u64 = 16 * 1024 * 1024;

/// Recent successful validations, by the digest of the token.
pub(super) struct Recent(Cache<TokenDigest, Validated>);

#[derive(Clone)]
struct Validated {
    owner: Owner,
    key: Arc<Key>,
    /// End of the entry, in seconds since 1970.
    until: u64,
    token_length: usize,
}

/// The owner of a token, without the token.
#[derive(Clone)]
pub(super) enum Owner {
    User(Arc<Profile>),
    Other(Arc<Principal>),
}

impl Owner {
    fn of(principal: &Arc<Principal>) -> Self {
        match &**principal {
            Principal::User(user) => Self::User(Arc::clone(&user.profile)),
            Principal::Application(_) | Principal::LocalUser(_) => Self::Other(Arc::clone(principal)),
        }
    }

    /// Returns the principal, whose token came with this request.
    pub(super) fn with(self, assertion: impl FnOnce() -> Assertion) -> Arc<Principal> {
        match self {
            Self::User(profile) => Arc::new(Principal::User(User { profile, assertion: assertion() })),
            Self::Other(principal) => principal,
        }
    }
}

impl Recent {
    pub(super) fn new() -> Self {
        // An owner has a copy of each of the token's claims.
        let weight = |_: &TokenDigest, validated: &Validated| {
            u32::try_from(validated.token_length.saturating_mul(2).saturating_add(1024)).unwrap_or(u32::MAX)
        };
        let cache = Cache::builder().max_capacity(CAPACITY).weigher(weight);
        Self(cache.time_to_live(Duration::from_secs(RELIED_ON)).build())
    }

    /// Returns the cached owner of this token. The key that verified it must still be published, so that the
    /// withdrawal of a key also removes its validations.
    pub(super) async fn owner(&self, token: TokenDigest, keys: &Keys, now: u64) -> Option<Owner> {
        let validated = self.0.get(&token).await?;
        (now < validated.until && keys.still_publish(&validated.key)).then_some(validated.owner)
    }

    /// Caches the principal of the token with this digest and length in bytes, verified with this key.
    pub(super) async fn remember(
        &self,
        (digest, token_length): (TokenDigest, usize),
        key: Arc<Key>,
        principal: &Arc<Principal>,
        now: u64,
    ) {
        let until = relied_on_until(now, principal.expires_at());
        if now < until {
            self.0.insert(digest, Validated { owner: Owner::of(principal), key, until, token_length }).await;
        }
    }
}

/// Without the clock skew that applies to a token's end: during the skew, a token is validated each time.
fn relied_on_until(now: u64, expires_at: u64) -> u64 {
    expires_at.min(now.saturating_add(RELIED_ON))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_validation_is_relied_on_for_a_minute_and_never_beyond_the_tokens_end() {
        assert_eq!(relied_on_until(1000, 5000), 1060);
        assert_eq!(relied_on_until(1000, 1030), 1030);
        assert_eq!(relied_on_until(1000, 990), 990, "accepted by the skew alone, and not relied on at all");
    }
}
