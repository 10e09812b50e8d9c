//! Cache of recent validations: a client sends the same token with each request.

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;

use super::assertion::{Hashed, TokenDigest};
use super::keys::{Key, Keys};
use super::principal::Principal;

/// Longest lifetime of a validation in the cache, in seconds. It never exceeds the token's end.
const RELIED_ON: u64 = 60;
/// Memory of the cached tokens, in bytes; the least used are evicted first.
const CAPACITY: u64 = 16 * 1024 * 1024;

/// Recent successful validations, by the digest of the token.
pub(super) struct Recent(Cache<TokenDigest, Validated>);

#[derive(Clone)]
struct Validated {
    principal: Arc<Principal>,
    key: Arc<Key>,
    /// End of the entry, in seconds since 1970.
    until: u64,
    token_length: usize,
}

impl Recent {
    pub(super) fn new() -> Self {
        // A principal holds a copy of the token and of each of its claims.
        let weight = |_: &TokenDigest, validated: &Validated| {
            u32::try_from(validated.token_length.saturating_mul(4).saturating_add(1024)).unwrap_or(u32::MAX)
        };
        let cache = Cache::builder().max_capacity(CAPACITY).weigher(weight);
        Self(cache.time_to_live(Duration::from_secs(RELIED_ON)).build())
    }

    /// Returns the cached principal of this token. The key that verified it must still be published, so that the
    /// withdrawal of a key also removes its validations.
    pub(super) async fn principal(&self, token: TokenDigest, keys: &Keys, now: u64) -> Option<Arc<Principal>> {
        let validated = self.0.get(&token).await?;
        (now < validated.until && keys.still_publish(&validated.key)).then_some(validated.principal)
    }

    pub(super) async fn remember(&self, token: Hashed<'_>, key: Arc<Key>, principal: &Arc<Principal>, now: u64) {
        let until = relied_on_until(now, principal.expires_at());
        if now < until {
            let validated = Validated { principal: Arc::clone(principal), key, until, token_length: token.token.len() };
            self.0.insert(token.digest, validated).await;
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
