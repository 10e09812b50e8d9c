//! Tokens that were validated a moment ago: a client sends the same one with each of its requests.

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;

use super::assertion::{Hashed, TokenDigest};
use super::keys::{Key, Keys};
use super::principal::Principal;

/// Time in which a validation is relied on, in seconds, unless the token ends before.
const RELIED_ON: u64 = 60;
/// Memory that the remembered tokens may take, in bytes; the least used go first.
const CAPACITY: u64 = 16 * 1024 * 1024;

/// The latest validations that succeeded, by the digest of the token.
pub(super) struct Recent(Cache<TokenDigest, Validated>);

#[derive(Clone)]
struct Validated {
    principal: Arc<Principal>,
    key: Arc<Key>,
    /// Time of its end, in seconds since 1970.
    until: u64,
    token_length: usize,
}

impl Recent {
    pub(super) fn new() -> Self {
        // A principal holds the token and each of its claims in a string of its own.
        let weight = |_: &TokenDigest, validated: &Validated| {
            u32::try_from(validated.token_length.saturating_mul(4).saturating_add(1024)).unwrap_or(u32::MAX)
        };
        let cache = Cache::builder().max_capacity(CAPACITY).weigher(weight);
        Self(cache.time_to_live(Duration::from_secs(RELIED_ON)).build())
    }

    /// The principal that this token was found to speak for, while that can be relied on: the key that proved it has to be
    /// one that is still published, so that a revoked key takes every validation with it.
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

/// The skew that a token's end is judged with does not count here: in that minute it is validated each time.
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
