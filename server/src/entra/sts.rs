//! The token exchange: a user's token for one to Graph on the user's behalf, or the application's own.
//!
//! On-behalf-of tokens are cached by a hash of assertion and scopes until shortly before they expire; concurrent calls
//! for the same one make one exchange. Errors are never cached. Tokens for Graph are opaque to us and never looked into.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mcp_entra_policy::EntraConfiguration;
use moka::Expiry;
use moka::future::Cache;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::error::Asker;
use super::{EntraRefusal, FederatedToken, StsError};
use crate::http_client;
use crate::token::User;

/// Most Graph tokens kept at once; the least used go first.
const CACHED_TOKENS: u64 = 10_000;
/// How long before its end a Graph token is no longer handed out.
const MARGIN: Duration = Duration::from_secs(300);
/// Longest answer of the token endpoint that is read, in bytes.
const MAXIMUM_ANSWER: usize = 256 * 1024;
/// RFC 7523 section 2.2.
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

type CacheKey = [u8; 32];

/// The token endpoint of one tenant, asked by one application.
pub struct Sts {
    http: reqwest::Client,
    token_endpoint: String,
    tenant_id: String,
    client_id: String,
    federated_token: FederatedToken,
    cache: Cache<CacheKey, Arc<GraphToken>>,
}

/// A token for Microsoft Graph.
pub struct GraphToken {
    /// What goes behind `Authorization: Bearer`.
    pub access_token: SecretString,
    expires_at: Instant,
}

/// Entra's answer; other members come and go.
#[derive(Deserialize)]
struct TokenDocument {
    access_token: String,
    expires_in: Seconds,
}

/// Entra has been seen to write numbers as strings.
#[derive(Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Seconds {
    Number(u32),
    Text(#[serde(deserialize_with = "from_text")] u32),
}

fn from_text<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

struct UntilShortlyBeforeTheEnd;

impl Expiry<CacheKey, Arc<GraphToken>> for UntilShortlyBeforeTheEnd {
    fn expire_after_create(&self, _: &CacheKey, token: &Arc<GraphToken>, created_at: Instant) -> Option<Duration> {
        let life = token.expires_at.saturating_duration_since(created_at);
        Some(life.saturating_sub(MARGIN.min(life / 2)))
    }
}

impl Sts {
    /// The token endpoint of the configured tenant, asked by the configured application with this credential.
    pub fn new(http: reqwest::Client, entra: &EntraConfiguration, federated_token: FederatedToken) -> Self {
        Self {
            http,
            token_endpoint: format!("{}/{}/oauth2/v2.0/token", entra.authority, entra.tenant_id),
            tenant_id: entra.tenant_id.clone(),
            client_id: entra.client_id.clone(),
            federated_token,
            cache: Cache::builder().max_capacity(CACHED_TOKENS).expire_after(UntilShortlyBeforeTheEnd).build(),
        }
    }

    /// A token for these scopes (fully qualified, of one resource) on the user's behalf, from the cache if possible.
    pub async fn on_behalf_of(&self, user: &User, scopes: &[String]) -> Result<Arc<GraphToken>, StsError> {
        let exchange = async {
            let parameters = [
                ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
                ("requested_token_use", "on_behalf_of"),
                ("assertion", user.assertion.expose_secret()),
                ("scope", &scopes.join(" ")),
            ];
            self.exchange(&parameters).await.map(Arc::new)
        };
        let token = self.cache.try_get_with(cache_key(user, scopes), exchange).await;
        token.map_err(|error| (*error).clone())
    }

    /// Drops the cached token of [`Self::on_behalf_of`]: its resource no longer accepts it.
    pub async fn forget(&self, user: &User, scopes: &[String]) {
        self.cache.invalidate(&cache_key(user, scopes)).await;
    }

    /// A token for the application itself, past every cache. `resource` is an address like
    /// `https://graph.microsoft.com`.
    pub async fn as_application(&self, resource: &str) -> Result<GraphToken, StsError> {
        self.exchange(&[("grant_type", "client_credentials"), ("scope", &format!("{resource}/.default"))]).await
    }

    /// The credential that is exchanged.
    pub fn federated_token(&self) -> &FederatedToken {
        &self.federated_token
    }

    async fn exchange(&self, parameters: &[(&str, &str)]) -> Result<GraphToken, StsError> {
        let credential = self.federated_token.read().await?;
        let ours = [
            ("client_id", self.client_id.as_str()),
            ("client_assertion_type", ASSERTION_TYPE),
            ("client_assertion", credential.expose_secret()),
        ];
        let form: Vec<_> = parameters.iter().chain(&ours).copied().collect();
        let asked_at = Instant::now();
        let request = self.http.post(&self.token_endpoint).form(&form);
        let answer = http_client::exchange(request, MAXIMUM_ANSWER)
            .await
            .map_err(|source| StsError::Unreachable { url: self.token_endpoint.clone(), source })?;
        let body = Zeroizing::new(answer.body);
        if answer.status.is_success()
            && let Ok(document) = serde_json::from_slice::<TokenDocument>(&body)
        {
            let (Seconds::Number(seconds) | Seconds::Text(seconds)) = document.expires_in;
            return Ok(GraphToken {
                access_token: SecretString::from(document.access_token),
                expires_at: asked_at + Duration::from_secs(seconds.into()),
            });
        }
        let identity = self.federated_token.describe().await.ok().map(|token| token.identity);
        let asker = Asker { tenant_id: &self.tenant_id, client_id: &self.client_id, identity: identity.as_ref() };
        Err(match EntraRefusal::parse(&body, asker) {
            Some(refusal) if !answer.status.is_success() => StsError::Refused(Box::new(refusal)),
            _ => StsError::NotEntra { url: self.token_endpoint.clone(), status: answer.status },
        })
    }
}

/// The whole assertion identifies the user, the client, and what was granted; its hash keeps it out of the cache.
fn cache_key(user: &User, scopes: &[String]) -> CacheKey {
    let mut hash = Sha256::new();
    hash.update(user.assertion.expose_secret());
    for scope in scopes {
        hash.update([0]);
        hash.update(scope);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept_for(life: u64) -> Duration {
        let now = Instant::now();
        let token = GraphToken { access_token: SecretString::from("x"), expires_at: now + Duration::from_secs(life) };
        UntilShortlyBeforeTheEnd.expire_after_create(&[0; 32], &Arc::new(token), now).unwrap()
    }

    #[test]
    fn a_token_is_kept_until_five_minutes_before_its_end_and_a_short_one_for_half_its_life() {
        assert_eq!(kept_for(3600), Duration::from_secs(3300));
        assert_eq!(kept_for(100), Duration::from_secs(50));
        assert_eq!(kept_for(0), Duration::ZERO);
    }

    #[test]
    fn lifetimes_are_read_as_numbers_and_as_strings() {
        for body in [r#"{"access_token":"x","expires_in":3599}"#, r#"{"access_token":"x","expires_in":"3599"}"#] {
            let document: TokenDocument = serde_json::from_str(body).unwrap();
            assert!(matches!(document.expires_in, Seconds::Number(3599) | Seconds::Text(3599)), "{body}");
        }
    }
}
