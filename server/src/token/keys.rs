//! Entra's signing keys: fetched from the tenant's authority, refreshed, and dropped when they are too old.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use mcp_entra_policy::{EntraConfiguration, KeysStatus, TokenVersion};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::error::TokenError;
use super::issuers::Issuers;
use crate::http_client::{self, ExchangeError};
use crate::strict_json;

/// Time between refreshes, varied by [`JITTER`].
const REFRESH_AFTER: Duration = Duration::from_secs(12 * 3600);
/// Variation that spreads the requests of several replicas.
const JITTER: f64 = 0.05;
/// Longest trust in fetched keys: an hour after the refresh that should have replaced them. Beyond that, a withdrawn
/// key could still give access, so all keys are dropped.
const TRUST_FOR: Duration = Duration::from_secs(REFRESH_AFTER.as_secs() / 100 * 105 + 3600);
/// Shortest pause between fetches for tokens with unknown keys. It is short enough for a quick key roll-over, and
/// long enough that forged tokens cannot make the server flood Entra.
const ON_DEMAND_PAUSE: Duration = Duration::from_secs(60);
/// Pause after the first failed fetch; it doubles up to [`LONGEST_RETRY`].
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Longest pause between fetches while they fail.
const LONGEST_RETRY: Duration = Duration::from_secs(60);
/// Longest discovery or key document that is read, in bytes. Entra's are about 15 KiB.
const MAXIMUM_DOCUMENT: usize = 1024 * 1024;

/// The reason why the keys could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The authority did not answer as expected.
    #[error("cannot fetch {url}: {source}; check the tenant id, the cloud, and that the network allows this address")]
    Fetch {
        /// Address of the document.
        url: String,
        /// The failure of the exchange.
        source: ExchangeError,
    },
    /// A document is malformed.
    #[error(
        "{url} is not usable: {problem}; check entra.authority and entra.tenantId, and whether something answers in Entra's place"
    )]
    Document {
        /// Address of the document.
        url: String,
        /// The defect of the document.
        problem: String,
    },
}

/// The signing keys of one tenant's authority.
pub struct Keys {
    http: reqwest::Client,
    authority: String,
    issuer: String,
    client_id: String,
    current: ArcSwapOption<KeySet>,
    error: ArcSwapOption<String>,
    /// Allows one fetch at a time, so that a slow old answer cannot replace a newer one and bring back withdrawn
    /// keys.
    fetching: Mutex<()>,
    /// Time of the last fetch for an unknown key. The lock allows one such fetch at a time.
    asked_on_demand: Mutex<Option<Instant>>,
}

/// One published key.
pub(super) struct Key {
    pub(super) verifies_with: DecodingKey,
    published: PublishedKey,
}

pub(super) struct KeySet {
    keys: HashMap<String, Arc<Key>>,
    fetched_at: Instant,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
    /// The cloud of the keys, such as `microsoftonline.com`.
    cloud_instance_name: Option<String>,
}

#[derive(Deserialize)]
struct PublishedKeys {
    keys: Vec<serde_json::Value>,
}

#[derive(PartialEq, Eq, Deserialize)]
struct PublishedKey {
    kty: String,
    #[serde(rename = "use")]
    used_for: Option<String>,
    alg: Option<String>,
    kid: String,
    n: String,
    e: String,
    /// The issuers of the key: an issuer, or a template with `{tenantid}`. A key without one is for the tenant whose
    /// authority publishes it.
    #[serde(default, deserialize_with = "stated")]
    issuer: Option<String>,
    /// The cloud of the key, if given.
    #[serde(default, deserialize_with = "stated")]
    cloud_instance_name: Option<String>,
}

/// Reads an optional member that must be a string.
fn stated<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    String::deserialize(deserializer).map(Some)
}

impl Key {
    /// True if the key is for tokens of this issuer and tenant.
    pub(super) fn is_for(&self, issuer: &str, tenant: &str) -> bool {
        self.published.issuer.as_ref().is_none_or(|own| own.replace("{tenantid}", tenant) == issuer)
    }

    /// Returns a published key if RS256 can use it and it does not belong to another cloud. Entra's keys carry no
    /// `alg`, so none is required.
    fn usable(published: serde_json::Value, cloud: Option<&str>) -> Option<Self> {
        let published: PublishedKey = serde_json::from_value(published).ok()?;
        let modulus = URL_SAFE_NO_PAD.decode(&published.n).ok()?;
        let exponent = URL_SAFE_NO_PAD.decode(&published.e).ok()?;
        let modulus_bytes = modulus.iter().skip_while(|byte| **byte == 0).count();
        let for_signatures = published.used_for.as_deref().is_none_or(|used_for| used_for == "sig");
        let for_rs256 = published.alg.as_deref().is_none_or(|algorithm| algorithm == "RS256");
        let of_this_cloud =
            published.cloud_instance_name.is_none() || published.cloud_instance_name.as_deref() == cloud;
        let is_rsa = published.kty == "RSA" && modulus_bytes >= 256 && !exponent.is_empty();
        if !(is_rsa && for_signatures && for_rs256 && of_this_cloud) {
            return None;
        }
        let verifies_with = DecodingKey::from_rsa_raw_components(&modulus, &exponent);
        Some(Self { verifies_with, published })
    }

    #[cfg(test)]
    pub(super) fn for_test(published: serde_json::Value) -> Arc<Self> {
        Arc::new(Self::usable(published, None).unwrap())
    }
}

impl KeySet {
    /// Parses the usable keys in this document of that cloud.
    pub(super) fn parse(document: &[u8], cloud: Option<&str>, fetched_at: Instant) -> Result<Self, String> {
        let published: PublishedKeys = read(document)?;
        let (mut keys, mut ambiguous) = (HashMap::new(), HashSet::new());
        for key in published.keys.into_iter().filter_map(|key| Key::usable(key, cloud)) {
            let id = key.published.kid.clone();
            if keys.insert(id.clone(), Arc::new(key)).is_some() {
                ambiguous.insert(id);
            }
        }
        // Two keys with the same id are ambiguous, so neither is used.
        keys.retain(|id, _| !ambiguous.contains(id));
        if keys.is_empty() {
            return Err("it has no RSA signing key of this cloud with a kid and at least 2048 bits".to_owned());
        }
        Ok(Self { keys, fetched_at })
    }

    pub(super) fn find(&self, key_id: &str) -> Option<Arc<Key>> {
        self.keys.get(key_id).cloned()
    }

    fn trusted_at(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.fetched_at) < TRUST_FOR
    }
}

impl Keys {
    /// Returns a key store for the configured tenant. It is empty until [`Self::run`] or [`Self::refresh`] fetches
    /// keys.
    pub fn new(http: reqwest::Client, entra: &EntraConfiguration) -> Self {
        Self {
            http,
            authority: entra.authority.clone(),
            issuer: Issuers::new(&entra.authority, &entra.tenant_id).of(TokenVersion::V2).to_owned(),
            client_id: entra.client_id.clone(),
            current: ArcSwapOption::empty(),
            error: ArcSwapOption::empty(),
            fetching: Mutex::new(()),
            asked_on_demand: Mutex::new(None),
        }
    }

    /// Fetches the keys and refreshes them until cancelled.
    pub async fn run(&self, cancellation: CancellationToken) {
        let mut retry = FIRST_RETRY;
        loop {
            let pause = match self.refresh().await {
                Ok(_) => {
                    retry = FIRST_RETRY;
                    REFRESH_AFTER.mul_f64(rand::random_range(1.0 - JITTER..=1.0 + JITTER))
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot fetch the signing keys of Entra");
                    let pause = retry;
                    retry = (retry * 2).min(LONGEST_RETRY);
                    pause
                }
            };
            tokio::select! {
                () = cancellation.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Fetches the keys now and returns the number of usable ones. On failure, the earlier keys stay in use.
    pub async fn refresh(&self) -> Result<usize, KeysError> {
        let _turn = self.fetching.lock().await;
        match self.fetch().await {
            Ok(set) => {
                let count = set.keys.len();
                self.current.store(Some(Arc::new(set)));
                self.error.store(None);
                Ok(count)
            }
            Err(error) => {
                self.error.store(Some(Arc::new(error.to_string())));
                Err(error)
            }
        }
    }

    /// Returns number and age of the usable keys, and the error of the last fetch if it failed.
    pub fn status(&self) -> KeysStatus {
        let now = Instant::now();
        let current = self.current.load();
        KeysStatus {
            count: current.as_ref().filter(|set| set.trusted_at(now)).map_or(0, |set| set.keys.len()),
            age_seconds: current.as_ref().map(|set| now.saturating_duration_since(set.fetched_at).as_secs()),
            error: self.error.load().as_deref().cloned(),
        }
    }

    /// Returns the key with this id.
    pub(super) async fn find(&self, key_id: &str) -> Result<Arc<Key>, TokenError> {
        if let Some(key) = self.known(key_id)? {
            return Ok(key);
        }
        let mut asked = self.asked_on_demand.lock().await;
        // Another request may have fetched the key while this one waited for the lock.
        if let Some(key) = self.known(key_id)? {
            return Ok(key);
        }
        if asked.is_some_and(|asked| asked.elapsed() < ON_DEMAND_PAUSE) {
            return Err(TokenError::UnknownKey);
        }
        *asked = Some(Instant::now());
        if let Err(error) = self.refresh().await {
            tracing::warn!(%error, "cannot fetch the signing keys of Entra for a token with an unknown key");
        }
        self.known(key_id)?.ok_or(TokenError::UnknownKey)
    }

    /// True if this exact key is still published and trusted.
    pub(super) fn still_publish(&self, key: &Key) -> bool {
        let known = self.known(&key.published.kid).ok().flatten();
        known.is_some_and(|known| known.published == key.published)
    }

    fn known(&self, key_id: &str) -> Result<Option<Arc<Key>>, TokenError> {
        let current = self.current.load();
        match current.as_ref().filter(|set| set.trusted_at(Instant::now())) {
            Some(set) => Ok(set.find(key_id)),
            None => Err(TokenError::KeysUnavailable),
        }
    }

    async fn fetch(&self) -> Result<KeySet, KeysError> {
        // An app registration may have its own signing keys (claims mapping). Only a request with the client id
        // returns them, together with the tenant's keys.
        let url = format!("{}/.well-known/openid-configuration?appid={}", self.issuer, self.client_id);
        let document = self.get(&url).await?;
        let unusable = |url: &str, problem: String| KeysError::Document { url: url.to_owned(), problem };
        let discovery: Discovery = read(&document).map_err(|problem| unusable(&url, problem))?;
        if discovery.issuer != self.issuer {
            let problem = format!("its issuer is {:?}, not {:?}", discovery.issuer, self.issuer);
            return Err(unusable(&url, problem));
        }
        let same_origin = match (Url::parse(&discovery.jwks_uri), Url::parse(&self.authority)) {
            (Ok(keys), Ok(authority)) => keys.origin() == authority.origin(),
            _ => false,
        };
        if !same_origin {
            let problem = format!("its jwks_uri {:?} is not on {}", discovery.jwks_uri, self.authority);
            return Err(unusable(&url, problem));
        }
        let document = self.get(&discovery.jwks_uri).await?;
        let cloud = discovery.cloud_instance_name.as_deref();
        KeySet::parse(&document, cloud, Instant::now()).map_err(|problem| unusable(&discovery.jwks_uri, problem))
    }

    async fn get(&self, url: &str) -> Result<Vec<u8>, KeysError> {
        let failed = |source| KeysError::Fetch { url: url.to_owned(), source };
        let answer = http_client::exchange(self.http.get(url), MAXIMUM_DOCUMENT).await.map_err(failed)?;
        match answer.status.is_success() {
            true => Ok(answer.body),
            false => Err(failed(ExchangeError::Status(answer.status))),
        }
    }
}

/// Parses a document of the authority, strictly.
fn read<T: DeserializeOwned>(document: &[u8]) -> Result<T, String> {
    let value = strict_json::from_slice(document).map_err(|error| error.to_string())?;
    serde_json::from_value(value).map_err(|error| error.to_string())
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// A key in the form that Entra publishes.
    pub(in crate::token) fn published() -> serde_json::Value {
        json!({
            "kty": "RSA", "use": "sig", "kid": "one", "x5t": "one", "e": "AQAB",
            "n": URL_SAFE_NO_PAD.encode([0xC5; 256]),
            "issuer": "https://login.example/{tenantid}/v2.0",
        })
    }

    fn parse(keys: serde_json::Value) -> Result<KeySet, String> {
        KeySet::parse(json!({ "keys": keys }).to_string().as_bytes(), Some("cloud.example"), Instant::now())
    }

    #[test]
    fn an_unusable_key_is_left_out_and_its_neighbour_stays() {
        let changes = [
            ("kty", json!("EC")),
            ("use", json!("enc")),
            ("alg", json!("RS512")),
            ("n", json!("!")),
            ("n", json!(URL_SAFE_NO_PAD.encode([0xC5; 128]))),
            ("n", json!(null)),
            ("e", json!("")),
            ("kid", json!(null)),
            ("issuer", json!(null)),
            ("issuer", json!(["https://login.example/{tenantid}/v2.0"])),
            ("cloud_instance_name", json!(null)),
            ("cloud_instance_name", json!("")),
            ("cloud_instance_name", json!("another.example")),
            ("cloud_instance_name", json!("Cloud.example")),
        ];
        for (member, value) in changes {
            let mut bad = published();
            bad[member] = value.clone();
            assert!(parse(json!([bad])).is_err(), "{member} {value}");
            let mut neighbour = published();
            neighbour["kid"] = json!("two");
            let set = parse(json!([bad, neighbour])).unwrap();
            assert_eq!(set.keys.keys().collect::<Vec<_>>(), ["two"], "{member} {value}");
        }
    }

    #[test]
    fn a_key_may_say_that_it_is_for_rs256_and_need_not_say_what_it_is_for() {
        let mut key = published();
        key["alg"] = json!("RS256");
        key.as_object_mut().unwrap().remove("use");
        assert_eq!(parse(json!([key])).unwrap().keys.len(), 1);
    }

    #[test]
    fn a_key_that_names_its_issuers_is_for_no_other_and_one_that_names_none_for_the_tenant_that_publishes_it() {
        let ours = "https://login.example/ours/v2.0";
        let is_for = |issuer: serde_json::Value| {
            let mut key = published();
            match issuer.is_null() {
                true => _ = key.as_object_mut().unwrap().remove("issuer"),
                false => key["issuer"] = issuer,
            }
            parse(json!([key])).unwrap().find("one").unwrap().is_for(ours, "ours")
        };
        assert!(is_for(json!(null)) && is_for(json!(ours)) && is_for(json!("https://login.example/{tenantid}/v2.0")));
        for other in ["", "https://login.example/another/v2.0", "https://login.another/{tenantid}/v2.0"] {
            assert!(!is_for(json!(other)), "{other}");
        }
    }

    #[test]
    fn a_key_may_name_the_cloud_of_the_document_that_leads_to_it() {
        let mut key = published();
        key["cloud_instance_name"] = json!("cloud.example");
        assert_eq!(parse(json!([key.clone()])).unwrap().keys.len(), 1);
        let document = json!({ "keys": [key] }).to_string();
        assert!(KeySet::parse(document.as_bytes(), None, Instant::now()).is_err(), "a document that names no cloud");
    }

    #[test]
    fn two_keys_with_one_id_are_both_left_out() {
        let mut neighbour = published();
        neighbour["kid"] = json!("two");
        let set = parse(json!([published(), neighbour, published()])).unwrap();
        assert_eq!(set.keys.keys().collect::<Vec<_>>(), ["two"]);
    }

    #[test]
    fn a_document_without_usable_keys_or_with_two_readings_is_refused() {
        assert!(parse(json!([])).is_err());
        let one = json!([published()]);
        for document in
            ["<html>".to_owned(), format!(r#"{{"keys":[],"keys":{one}}}"#), format!(r#"{{"keys":{one}}} {{}}"#)]
        {
            assert!(KeySet::parse(document.as_bytes(), None, Instant::now()).is_err(), "{document}");
        }
    }

    #[test]
    fn keys_are_trusted_for_an_hour_beyond_the_refresh_that_should_have_replaced_them() {
        let set = parse(json!([published()])).unwrap();
        let after = |seconds: f64| set.fetched_at + Duration::from_secs_f64(seconds);
        assert!(set.trusted_at(after(12.6 * 3600.0 + 3590.0)));
        assert!(!set.trusted_at(after(12.6 * 3600.0 + 3610.0)));
    }
}
