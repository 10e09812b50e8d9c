//! On behalf of a user: tokens for a resource, as Graph, exchanged for the user's own and kept.
//!
//! An exchange names the scopes that its tool needs and no others, so that one which nobody consented to stops that tool
//! alone. Entra grants more than was asked for: a token that covers another tool's scopes serves that one, too.
//!
//! A token is kept by a hash of assertion and resource until shortly before it expires, and replaced in the background
//! while it still serves. Concurrent calls for the same scopes make one exchange. A refusal that would be repeated is kept
//! for half a minute; one that somebody may be putting right at this moment never.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mcp_entra_policy::{EntraConfiguration, FederatedIdentity};
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

/// Most bytes of tokens kept at once in each of both caches; the least used go first.
const KEPT_BYTES: u64 = 16 * 1024 * 1024;
/// A user's token, and with it the key of what is kept, is renewed about this often.
const LONGEST_IDLE: Duration = Duration::from_secs(3600);
/// Time before its end from which a token is no longer handed out, and before that renewed, if Entra recommends nothing.
const MARGIN: Duration = Duration::from_secs(300);
/// Pause between attempts to renew a token that still serves.
const RENEWAL_PAUSE: Duration = Duration::from_secs(30);
/// Time in which a refusal is repeated without asking Entra.
pub(super) const REFUSED_FOR: Duration = Duration::from_secs(30);
const KEPT_REFUSALS: u64 = 2_000;

type CacheKey = [u8; 32];

/// The token endpoint, asked by one application.
pub struct Sts {
    endpoint: Arc<TokenEndpoint>,
    /// By assertion and resource: the latest token.
    latest: Cache<CacheKey, Arc<KeptToken>>,
    /// By assertion, resource and scopes: the token that is handed out.
    tokens: Cache<CacheKey, Arc<KeptToken>>,
    refusals: Cache<CacheKey, Arc<StsError>>,
    /// The scopes that were last refused because nobody has consented to them, each behind its resource; few, for the
    /// configuration names them.
    unconsented: Mutex<BTreeSet<(String, String)>>,
}

/// A token that is kept, and when it is renewed.
struct KeptToken {
    token: Arc<GraphToken>,
    /// The scopes that it was asked for with, by name in lower case: it carries them, whether or not Entra says so.
    asked: BTreeSet<String>,
    schedule: Schedule,
    renewing: AtomicBool,
}

/// Times until which a token is handed out, and from which it is renewed meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Schedule {
    usable_until: Instant,
    renew_from: Instant,
}

/// A user on whose behalf a resource is reached, and with which of its scopes.
#[derive(Clone)]
pub struct OnBehalfOf {
    /// By assertion, resource and scopes.
    key: CacheKey,
    /// By assertion and resource.
    resource_key: CacheKey,
    assertion: Assertion,
    resource: String,
    /// Names, as `User.Read`.
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
    /// The configured authority, asked by the configured application with this credential.
    /// Fails if the authority is no address.
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

    /// A token on the user's behalf, kept from before if possible.
    pub async fn on_behalf_of(&self, user: &OnBehalfOf) -> Result<Arc<GraphToken>, StsError> {
        let exchange = async {
            if let Some(refusal) = self.refusals.get(&user.key).await {
                return Err(StsError::clone(&refusal));
            }
            // One that another tool has brought may carry these scopes as well.
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
        };
        let kept = self.tokens.try_get_with(user.key, exchange).await.map_err(|error| StsError::clone(&error))?;
        if kept.is_to_be_renewed(Instant::now()) {
            self.renew(user.clone(), Arc::clone(&kept));
        }
        Ok(Arc::clone(&kept.token))
    }

    /// Another token in place of one that its resource no longer accepts, satisfying what the resource challenged us
    /// with. Whatever was kept is passed over, unless another call has replaced that very token meanwhile.
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
        let exchange = self.exchange(user, challenge);
        let kept = self.tokens.try_get_with(user.key, exchange).await.map_err(|error| StsError::clone(&error))?;
        Ok(Arc::clone(&kept.token))
    }

    /// A token for the application itself, past every cache and in one attempt. `resource` is an address like
    /// `https://graph.microsoft.com`.
    pub async fn as_application(&self, resource: &str) -> Result<GraphToken, StsError> {
        let scope = format!("{resource}/.default");
        let parameters = [("grant_type", "client_credentials"), ("scope", scope.as_str())];
        self.endpoint.attempt(&parameters).await.map(|issued| issued.token)
    }

    /// Values that the federated credential in Entra must have, if the projected token can be read.
    pub(super) async fn identity(&self) -> Option<FederatedIdentity> {
        self.endpoint.identity().await
    }

    /// A token that is issued now, and the latest from then on.
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

    /// The scopes of this resource that were last refused because nobody has consented to them, by name.
    pub fn unconsented(&self, resource: &str) -> BTreeSet<String> {
        let unconsented = self.unconsented.lock().unwrap_or_else(PoisonError::into_inner);
        unconsented.iter().filter(|(of, _)| of == resource).map(|(_, scope)| scope.clone()).collect()
    }

    /// Places where the token for these scopes of the user may be kept.
    fn kept_at(&self, user: &OnBehalfOf) -> [(Cache<CacheKey, Arc<KeptToken>>, CacheKey); 2] {
        [(self.latest.clone(), user.resource_key), (self.tokens.clone(), user.key)]
    }

    /// Replaces a token in the background. If that fails, the old one serves on: Entra is asked again after a pause.
    fn renew(&self, user: OnBehalfOf, kept: Arc<KeptToken>) {
        let (endpoint, kept_at) = (Arc::clone(&self.endpoint), self.kept_at(&user));
        tokio::spawn(async move {
            match user.ask(&endpoint, None).await {
                Ok(renewed) => {
                    for (cache, key) in kept_at {
                        let replaced = cache.entry(key).and_compute_with(async |current| match current {
                            // One that was dropped meanwhile was dropped for a reason.
                            Some(current) if Arc::ptr_eq(current.value(), &kept) => Op::Put(Arc::clone(&renewed)),
                            _ => Op::Nop,
                        });
                        replaced.await;
                    }
                }
                Err(error) => {
                    let correlation_id = error.correlation_id();
                    tracing::warn!(%error, correlation_id, "a token on behalf of a user is not renewed; the old one serves to its end");
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
    /// This user, with these scopes (names, as `User.Read`) of the resource with this address, as
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

    /// The scopes as Entra is asked for them. Fully qualified: in a sovereign cloud a bare one would mean another Graph.
    pub fn scope(&self) -> String {
        let qualified = self.scopes.iter().map(|scope| format!("{}/{scope}", self.resource));
        Vec::from_iter(qualified).join(" ")
    }

    /// The scopes by name, for people.
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
        let asked = self.scopes.iter().map(|scope| scope.to_ascii_lowercase()).collect();
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
        scopes.all(|scope| self.token.granted.contains(&scope) || self.asked.contains(&scope))
    }

    fn weight(&self) -> u32 {
        u32::try_from(self.token.access_token.expose_secret().len()).unwrap_or(u32::MAX)
    }

    /// True for the first who asks after it is time.
    fn is_to_be_renewed(&self, now: Instant) -> bool {
        now >= self.schedule.renew_from && !self.renewing.swap(true, Ordering::Relaxed)
    }
}

/// Key of these parts. The digest of the whole assertion identifies the user, the client, and the granted scopes.
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
        let token = GraphToken { access_token: SecretString::from("x"), granted: BTreeSet::new() };
        let schedule = Schedule::new(now, Duration::from_secs(100), None);
        let kept =
            KeptToken { token: Arc::new(token), asked: BTreeSet::new(), schedule, renewing: AtomicBool::new(false) };
        assert!(!kept.is_to_be_renewed(now + Duration::from_secs(49)));
        assert!(kept.is_to_be_renewed(now + Duration::from_secs(50)));
        assert!(!kept.is_to_be_renewed(now + Duration::from_secs(50)));
    }
}
