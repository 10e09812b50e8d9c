//! Entra's token endpoint: one exchange from its parameters to the token, repeated while Entra is busy.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use mcp_entra_policy::{EntraConfiguration, FederatedIdentity};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::Url;
use zeroize::Zeroizing;

use super::credential::ClientCredential;
use super::diagnosis::Asker;
use super::error::{EntraRefusal, StsError};
use crate::http_client::{self, ExchangeError, Patience, retry_after};

/// Longest answer of the token endpoint that is read, in bytes.
const MAXIMUM_ANSWER: usize = 256 * 1024;
/// Longest time of one attempt.
const ATTEMPT: Duration = Duration::from_secs(8);
/// Longest time of an exchange: a tool call waits for this, and for Graph afterwards.
pub(super) const PATIENCE: Patience =
    Patience { repetitions: 3, first_pause: Duration::from_millis(500), total: Duration::from_secs(20) };

/// The token endpoint, asked by one application.
pub(super) struct TokenEndpoint {
    http: reqwest::Client,
    url: Url,
    tenant_id: String,
    client_id: String,
    credential: ClientCredential,
}

/// A token for Microsoft Graph: opaque to us, and never looked into.
#[derive(Debug)]
pub struct GraphToken {
    /// The text behind `Authorization: Bearer`.
    pub access_token: SecretString,
    /// The delegated permissions that Entra says it carries, by name in lower case. Entra may leave out those that were
    /// asked for. An application's carries none.
    pub granted: BTreeSet<String>,
}

/// A token that Entra issued.
pub(super) struct Issued {
    pub(super) token: GraphToken,
    /// Time of the question.
    pub(super) asked_at: Instant,
    /// Lifetime from then on.
    pub(super) life: Duration,
    /// Time from then on after which Entra recommends to ask for the next one.
    pub(super) refresh_in: Option<Duration>,
    /// `scope`: what the token carries. Entra puts every scope that was granted into it.
    pub(super) scope: String,
}

/// Entra's answer; other members come and go. A refresh token among them is not kept: it would outlive the user's own
/// token, on which the next exchange depends.
#[derive(Deserialize)]
struct TokenDocument {
    access_token: String,
    expires_in: Seconds,
    refresh_in: Option<Seconds>,
    #[serde(default)]
    scope: String,
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

impl From<Seconds> for Duration {
    fn from(seconds: Seconds) -> Self {
        let (Seconds::Number(seconds) | Seconds::Text(seconds)) = seconds;
        Self::from_secs(seconds.into())
    }
}

impl TokenEndpoint {
    /// The endpoint of the configured tenant, asked by the configured application with this credential.
    pub(super) fn new(
        http: reqwest::Client,
        entra: &EntraConfiguration,
        credential: ClientCredential,
    ) -> Result<Self, url::ParseError> {
        let (tenant_id, client_id) = (entra.tenant_id.clone(), entra.client_id.clone());
        Ok(Self { http, url: address(entra).parse()?, tenant_id, client_id, credential })
    }

    /// Values that the federated credential in Entra must have, if there is one and it can be read.
    pub(super) async fn identity(&self) -> Option<FederatedIdentity> {
        self.credential.identity().await
    }

    /// The token that these parameters ask for; asks again while Entra is busy, as long as it makes sense.
    pub(super) async fn exchange(&self, parameters: &[(&str, &str)]) -> Result<Issued, StsError> {
        let attempts = PATIENCE.attempt(|| self.attempt(parameters), StsError::again).await;
        attempts.unwrap_or_else(|| {
            let source = ExchangeError::Network(format!("no answer within {} s", PATIENCE.total.as_secs()));
            Err(StsError::Unreachable { url: self.url.to_string(), source })
        })
    }

    /// The same in one attempt.
    pub(super) async fn attempt(&self, parameters: &[(&str, &str)]) -> Result<Issued, StsError> {
        let credential = self.credential.parameters().await?;
        let credential = credential.iter().map(|(name, value)| (*name, value.expose_secret()));
        let client = [("client_id", self.client_id.as_str())];
        let form: Vec<_> = parameters.iter().copied().chain(client).chain(credential).collect();
        let asked_at = Instant::now();
        let request = self.http.post(self.url.clone()).form(&form).timeout(ATTEMPT);
        let mut answer = match http_client::exchange(request, MAXIMUM_ANSWER).await {
            Ok(answer) => answer,
            Err(source) => return Err(StsError::Unreachable { url: self.url.to_string(), source }),
        };
        if answer.status.is_success() {
            let body = Zeroizing::new(std::mem::take(&mut answer.body));
            if let Ok(document) = serde_json::from_slice::<TokenDocument>(&body) {
                return Ok(Issued {
                    token: GraphToken {
                        access_token: SecretString::from(document.access_token),
                        granted: BTreeSet::new(),
                    },
                    asked_at,
                    life: document.expires_in.into(),
                    refresh_in: document.refresh_in.map(Duration::from),
                    scope: document.scope,
                });
            }
        }
        let identity = self.identity().await;
        let asker = Asker { tenant_id: &self.tenant_id, client_id: &self.client_id, identity: identity.as_ref() };
        Err(match EntraRefusal::read(&answer, asker) {
            Some(refusal) => StsError::Refused(Box::new(refusal)),
            None => {
                let retry_after = retry_after(&answer.headers, jiff::Timestamp::now());
                StsError::NotEntra { url: self.url.to_string(), status: answer.status, retry_after }
            }
        })
    }
}

/// Address of the tenant's token endpoint.
pub(super) fn address(entra: &EntraConfiguration) -> String {
    format!("{}/{}/oauth2/v2.0/token", entra.authority, entra.tenant_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_read_as_numbers_and_as_strings() {
        for (body, refresh_in) in [
            (r#"{"access_token":"x","expires_in":3599}"#, None),
            (r#"{"access_token":"x","expires_in":"3599","refresh_in":"1800"}"#, Some(1800)),
            (r#"{"access_token":"x","expires_in":3599,"refresh_in":1800,"refresh_token":"y"}"#, Some(1800)),
        ] {
            let document: TokenDocument = serde_json::from_str(body).unwrap();
            assert_eq!(Duration::from(document.expires_in).as_secs(), 3599, "{body}");
            assert_eq!(document.refresh_in.map(|seconds| Duration::from(seconds).as_secs()), refresh_in, "{body}");
        }
    }
}
