//! Tokens on behalf of users for a resource such as Graph: exchanged for the user's own token, and cached.
//!
//! An exchange requests only the scopes that its tool needs, so that missing consent for one scope stops only that
//! tool. Entra may grant more than requested: a token that covers another tool's scopes is shared with it.
//!
//! The cache key is a hash of assertion and resource. A token is cached until shortly before it expires, and renewed
//! in the background. Concurrent calls for the same scopes share one exchange. A lasting refusal is cached for half a
//! minute; one that an administrator may correct at any moment is not.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mcp_entra_policy::{CompactSet, EntraConfiguration, FederatedIdentity};
use moka::Expiry;
use moka::future::Cache;
use moka::ops::compute::Op;
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};

use super::claims::{self, ClaimsChallenge};
use super::credential::ClientCredential;
use super::error::StsError;
use super::federated_token::FederatedToken;
use super::remedy::Remedy;
use super::token_endpoint::{GraphToken, Issued, TokenEndpoint};
use crate::http_client::Again;
use crate::token::{Assertion, User};

/// Most bytes of tokens in each of the two caches; the least used are evicted first.
const KEPT_BYTES: u64 = 16 * 1024 * 1024;
/// Longest time without use. A user's token, and with it the cache key, changes about this often.
const LONGEST_IDLE: Duration = Duration::from_secs(3600);
/// Time before the end of a token from which it is not served. A renewal happens before that, if Entra recommends no
/// time.
const MARGIN: Duration = Duration::from_secs(300);
/// Pause between attempts to renew a token that is still valid.
const RENEWAL_PAUSE: Duration = Duration::from_secs(30);
/// Time for which a refusal is cached.
pub(super) const REFUSED_FOR: Duration = Duration::from_secs(30);
const KEPT_REFUSALS: u64 = 2_000;

type CacheKey = [u8; 32];

/// Tokens of one application from the token endpoint.
pub struct Sts {
    endpoint: Arc<TokenEndpoint>,
    /// The latest token, by assertion and resource.
    latest: Cache<CacheKey, Arc<KeptToken>>,
    /// The served token, by assertion, resource and scopes.
    tokens: Cache<CacheKey, Arc<KeptToken>>,
    refusals: Cache<CacheKey, Arc<StsError>>,
    /// Scopes that were last refused for lack of consent, each with its resource. There are few, because the
    /// configuration names them.
    unconsented: Mutex<BTreeSet<(String, String)>>,
}

/// A cached token and its renewal.
struct KeptToken {
    token: Arc<GraphToken>,
    /// The requested scopes that Entra's answer omits, by name in lower case. The token carries them, too.
    asked: CompactSet<Box<str>>,
    schedule: Schedule,
    renewing: AtomicBool,
}

/// The end of serving a token, and the start of its renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Schedule {
    usable_until: Instant,
    renew_from: Instant,
}

/// A user on whose behalf a resource is called, and the scopes.
#[derive(Clone)]
pub struct OnBehalfOf {
    /// The hash of assertion, resource and scopes.
    key: CacheKey,
    /// The hash of assertion and resource.
    resource_key: CacheKey,
    assertion: Assertion,
    resource: String,
    /// Names of the scopes, such as `User.Read`.
    scopes: BTreeSet<String>,
}

struct WhileUsable;

impl Expiry<CacheKey, Arc<KeptToken>> for WhileUsable {
    fn expire_after_create(&self, _: &CacheKey, kept: &Arc<KeptToken>, created_at: Instant) -> Option<Duration> {
        Some(kept.schedule.usable_until.saturating_duration_since(created_at))
    }

    fn expire_after_update(
        &self,
        _: &CacheKey,
        kept: &Arc<KeptToken>,
        updated_at: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(kept.schedule.usable_until.saturating_duration_since(updated_at))
    }
}

impl Sts {
    /// Returns the tokens of the configured application at the configured authority, with this credential. Fails if
    /// the authority is not a URL.
    pub fn new(
        http: reqwest::Client,
        entra: &EntraConfiguration,
        federated_token: FederatedToken,
    ) -> Result<Self, url::ParseError> {
        let endpoint = TokenEndpoint::new(http, entra.into(), ClientCredential::Federated(federated_token))?;
        let tokens = || {
            Cache::builder()
                .weigher(|_, kept: &Arc<KeptToken>| kept.weight())
                .max_capacity(KEPT_BYTES)
                .time_to_idle(LONGEST_IDLE)
                .expire_after(WhileUsable)
                .build()
        };
        Ok(Self {
            endpoint: Arc::new(endpoint),
            latest: tokens(),
            tokens: tokens(),
            refusals: Cache::builder().max_capacity(KEPT_REFUSALS).time_to_live(REFUSED_FOR).build(),
            unconsented: Mutex::new(BTreeSet::new()),
        })
    }

    /// Returns a token on the user's behalf, from the cache if possible.
    pub async fn on_behalf_of(&self, user: &OnBehalfOf) -> Result<Arc<GraphToken>, StsError> {
        // Boxed: the future is large and rarely needed, and would enlarge every request.
        let exchange = Box::pin(async {
            if let Some(refusal) = self.refusals.get(&user.key).await {
                return Err(StsError::clone(&refusal));
            }
            // A token for another tool may also carry these scopes.
            if let Some(latest) = self.latest.get(&user.resource_key).await.filter(|latest| latest.covers(&user.scopes))
            {
                return Ok(latest);
            }
            let result = self.exchange(user, None).await;
            if let Err(error) = &result
                && error.is_lasting()
            {
                self.refusals.insert(user.key, Arc::new(error.clone())).await;
            }
            result
        });
        let kept = self.tokens.try_get_with(user.key, exchange).await.map_err(|error| StsError::clone(&error))?;
        if kept.is_to_be_renewed(Instant::now()) {
            self.renew(user.clone(), Arc::clone(&kept));
        }
        Ok(Arc::clone(&kept.token))
    }

    /// Returns another token in place of one that its resource rejected. It satisfies the resource's challenge. The
    /// cache is skipped, unless another call already replaced that token.
    pub async fn instead_of(
        &self,
        rejected: &Arc<GraphToken>,
        challenge: Option<&ClaimsChallenge>,
        user: &OnBehalfOf,
    ) -> Result<Arc<GraphToken>, StsError> {
        for (cache, key) in self.kept_at(user) {
            let dropped = cache.entry(key).and_compute_with(async |kept| match kept {
                Some(kept) if Arc::ptr_eq(&kept.value().token, rejected) => Op::Remove,
                _ => Op::Nop,
            });
            dropped.await;
        }
        let exchange = Box::pin(self.exchange(user, challenge));
        let kept = self.tokens.try_get_with(user.key, exchange).await.map_err(|error| StsError::clone(&error))?;
        Ok(Arc::clone(&kept.token))
    }

    /// Returns a token for the application itself, without cache or retry. `resource` is an address such as
    /// `https://graph.microsoft.com`.
    pub async fn as_application(&self, resource: &str) -> Result<GraphToken, StsError> {
        let scope = format!("{resource}/.default");
        let parameters = [("grant_type", "client_credentials"), ("scope", scope.as_str())];
        self.endpoint.attempt(&parameters).await.map(|issued| issued.token)
    }

    /// Returns the values that the federated credential in Entra must have, if the projected token can be read.
    pub(super) async fn identity(&self) -> Option<FederatedIdentity> {
        self.endpoint.identity().await
    }

    /// Requests a new token, which becomes the latest.
    async fn exchange(
        &self,
        user: &OnBehalfOf,
        challenge: Option<&ClaimsChallenge>,
    ) -> Result<Arc<KeptToken>, StsError> {
        let result = user.ask(&self.endpoint, challenge).await;
        self.note_consent(user, &result);
        let issued = result?;
        self.latest.insert(user.resource_key, Arc::clone(&issued)).await;
        Ok(issued)
    }

    fn note_consent(&self, user: &OnBehalfOf, result: &Result<Arc<KeptToken>, StsError>) {
        let mut unconsented = self.unconsented.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(issued) => unconsented.retain(|(of, scope)| *of != user.resource || !issued.covers([scope])),
            Err(error) if error.remedy() == Remedy::Consent => {
                unconsented.extend(user.scopes.iter().map(|scope| (user.resource.clone(), scope.clone())));
            }
            Err(_) => {}
        }
    }

    /// Returns the names of this resource's scopes that were last refused for lack of consent.
    pub fn unconsented(&self, resource: &str) -> BTreeSet<String> {
        let unconsented = self.unconsented.lock().unwrap_or_else(PoisonError::into_inner);
        unconsented.iter().filter(|(of, _)| of == resource).map(|(_, scope)| scope.clone()).collect()
    }

    /// Returns the cache entries that may hold the token for these scopes of the user.
    fn kept_at(&self, user: &OnBehalfOf) -> [(Cache<CacheKey, Arc<KeptToken>>, CacheKey); 2] {
        [(self.latest.clone(), user.resource_key), (self.tokens.clone(), user.key)]
    }

    /// Replaces a token in the background. On failure, the old one is served further, and the renewal is retried
    /// after a pause.
    fn renew(&self, user: OnBehalfOf, kept: Arc<KeptToken>) {
        let (endpoint, kept_at) = (Arc::clone(&self.endpoint), self.kept_at(&user));
        tokio::spawn(async move {
            match user.ask(&endpoint, None).await {
                Ok(renewed) => {
                    for (cache, key) in kept_at {
                        let replaced = cache.entry(key).and_compute_with(async |current| match current {
                            // A token that was dropped meanwhile must not return.
                            Some(current) if Arc::ptr_eq(current.value(), &kept) => Op::Put(Arc::clone(&renewed)),
                            _ => Op::Nop,
                        });
                        replaced.await;
                    }
                }
                Err(error) => {
                    let correlation_id = error.correlation_id();
                    tracing::warn!(%error, correlation_id, "cannot renew a token on behalf of a user; using the old one until it expires");
                    if error.again() != Again::Never {
                        tokio::time::sleep(RENEWAL_PAUSE).await;
                        kept.renewing.store(false, Ordering::Relaxed);
                    }
                }
            }
        });
    }
}

impl OnBehalfOf {
    /// Returns this user with these scopes (names, such as `User.Read`) of the resource at this address, such as
    /// `https://graph.microsoft.com`.
    pub fn new(user: &User, resource: &str, scopes: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let scopes: BTreeSet<String> = scopes.into_iter().map(Into::into).collect();
        let digest = user.assertion.digest();
        let of_user = [digest.as_ref(), resource.as_bytes()];
        Self {
            key: cache_key(of_user.into_iter().chain(scopes.iter().map(|scope| scope.as_bytes()))),
            resource_key: cache_key(of_user),
            assertion: user.assertion.clone(),
            resource: resource.to_owned(),
            scopes,
        }
    }

    /// Returns the scopes in the form that Entra expects. They are fully qualified: in a sovereign cloud, a bare name
    /// would mean another Graph.
    pub fn scope(&self) -> String {
        let qualified = self.scopes.iter().map(|scope| format!("{}/{scope}", self.resource));
        Vec::from_iter(qualified).join(" ")
    }

    /// Returns the names of the scopes, for messages.
    pub fn permissions(&self) -> String {
        Vec::from_iter(self.scopes.iter().map(String::as_str)).join(", ")
    }

    async fn ask(
        &self,
        endpoint: &TokenEndpoint,
        challenge: Option<&ClaimsChallenge>,
    ) -> Result<Arc<KeptToken>, StsError> {
        let assertion = self.assertion.token().await?;
        let parameters = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
            ("requested_token_use", "on_behalf_of"),
            ("assertion", assertion.expose_secret()),
            ("scope", &self.scope()),
            ("claims", &claims::request(challenge)),
        ];
        let issued = endpoint.exchange(&parameters).await?;
        let Issued { token, asked_at, life, refresh_in, .. } = issued;
        let asked = self.scopes.iter().map(|scope| scope.to_ascii_lowercase());
        let asked = asked.filter(|scope| !token.granted.contains(scope.as_str())).collect();
        let schedule = Schedule::new(asked_at, life, refresh_in);
        Ok(Arc::new(KeptToken { token: Arc::new(token), asked, schedule, renewing: AtomicBool::new(false) }))
    }
}

impl Schedule {
    fn new(asked_at: Instant, life: Duration, refresh_in: Option<Duration>) -> Self {
        let margin = MARGIN.min(life / 4);
        let usable = life.saturating_sub(margin);
        let renewed = refresh_in.unwrap_or(usable.saturating_sub(margin)).min(usable);
        Self { usable_until: asked_at + usable, renew_from: asked_at + renewed }
    }
}

impl KeptToken {
    fn covers<'a>(&self, scopes: impl IntoIterator<Item = &'a String>) -> bool {
        let mut scopes = scopes.into_iter().map(|scope| scope.to_ascii_lowercase());
        scopes.all(|scope| self.token.granted.contains(scope.as_str()) || self.asked.contains(scope.as_str()))
    }

    fn weight(&self) -> u32 {
        u32::try_from(self.token.access_token.expose_secret().len()).unwrap_or(u32::MAX)
    }

    /// True for the first caller after the start of the renewal.
    fn is_to_be_renewed(&self, now: Instant) -> bool {
        now >= self.schedule.renew_from && !self.renewing.swap(true, Ordering::Relaxed)
    }
}

/// Returns the cache key of these parts. The digest of the assertion identifies the user, the client and the granted
/// scopes.
fn cache_key<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> CacheKey {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
        hash.update([0]);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;

    fn schedule(life: u64, refresh_in: Option<u64>) -> (u64, u64) {
        let now = Instant::now();
        let schedule = Schedule::new(now, Duration::from_secs(life), refresh_in.map(Duration::from_secs));
        ((schedule.usable_until - now).as_secs(), (schedule.renew_from - now).as_secs())
    }

    #[test]
    fn a_token_serves_until_five_minutes_before_its_end_and_is_renewed_before_or_when_entra_recommends() {
        assert_eq!(schedule(3600, None), (3300, 3000));
        assert_eq!(schedule(86_400, Some(43_200)), (86_100, 43_200));
        assert_eq!(schedule(3600, Some(7200)), (3300, 3300));
    }

    #[test]
    fn a_short_life_is_used_for_three_quarters() {
        assert_eq!(schedule(100, None), (75, 50));
        assert_eq!(schedule(0, None), (0, 0));
    }

    #[test]
    fn a_token_is_renewed_by_one_caller_at_a_time_and_not_before_its_time() {
        let now = Instant::now();
        let token = GraphToken { access_token: SecretString::from("x"), granted: CompactSet::default() };
        let schedule = Schedule::new(now, Duration::from_secs(100), None);
        let kept = KeptToken {
            token: Arc::new(token),
            asked: CompactSet::default(),
            schedule,
            renewing: AtomicBool::new(false),
        };
        assert!(!kept.is_to_be_renewed(now + Duration::from_secs(49)));
        assert!(kept.is_to_be_renewed(now + Duration::from_secs(50)));
        assert!(!kept.is_to_be_renewed(now + Duration::from_secs(50)));
    }
}
