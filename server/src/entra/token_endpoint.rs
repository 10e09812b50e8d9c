//! Entra's token endpoint: one exchange, repeated while Entra is busy.

use std::time::{Duration, Instant};

use mcp_entra_policy::{CompactSet, EntraConfiguration, FederatedIdentity};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::Url;
use zeroize::Zeroizing;

use super::credential::ClientCredential;
use super::diagnosis::Asker;
use super::error::{EntraRefusal, StsError};
use crate::http_client::{self, Answer, ExchangeError, Patience, retry_after};

/// Longest answer of the token endpoint that is read, in bytes.
const MAXIMUM_ANSWER: usize = 256 * 1024;
/// Longest time of one attempt.
const ATTEMPT: Duration = Duration::from_secs(8);
/// Longest time of an exchange. A tool call waits for it, and then for Graph.
pub(super) const PATIENCE: Patience =
    Patience { repetitions: 3, first_pause: Duration::from_millis(500), total: Duration::from_secs(20) };

/// The token endpoint with the credential of one application.
pub(super) struct TokenEndpoint {
    http: reqwest::Client,
    url: Url,
    registration: Registration,
    credential: ClientCredential,
}

/// An app registration and its authority.
#[derive(Clone, Debug)]
pub struct Registration {
    /// Entra's address without a trailing slash, such as `https://login.microsoftonline.com`.
    pub authority: String,
    /// The tenant: a GUID or a domain.
    pub tenant: String,
    /// The application: a GUID in lower case.
    pub client_id: String,
}

impl From<&EntraConfiguration> for Registration {
    fn from(entra: &EntraConfiguration) -> Self {
        let EntraConfiguration { authority, tenant_id, client_id, .. } = entra;
        Self { authority: authority.clone(), tenant: tenant_id.clone(), client_id: client_id.clone() }
    }
}

/// An opaque access token for Microsoft Graph or another resource.
#[derive(Debug)]
pub struct GraphToken {
    /// The token in `Authorization: Bearer`.
    pub access_token: SecretString,
    /// The delegated permissions in Entra's answer, by name in lower case. Entra may omit requested ones. Empty for
    /// an application's token.
    pub granted: CompactSet<Box<str>>,
}

/// A token that Entra issued.
pub(super) struct Issued {
    pub(super) token: GraphToken,
    /// Time of the request.
    pub(super) asked_at: Instant,
    /// Lifetime from the request.
    pub(super) life: Duration,
    /// Time from the request after which Entra recommends a renewal.
    pub(super) refresh_in: Option<Duration>,
    /// The refresh token, with `offline_access`. An on-behalf-of exchange discards it: it would outlive the user's
    /// own token, which the next exchange needs.
    pub(super) refresh_token: Option<SecretString>,
    /// The ID token, with `openid`.
    pub(super) id_token: Option<SecretString>,
}

/// Entra's answer. Other members vary.
#[derive(Deserialize)]
struct TokenDocument {
    access_token: SecretString,
    expires_in: Seconds,
    refresh_in: Option<Seconds>,
    /// The scopes of the token. It carries every granted scope.
    #[serde(default)]
    scope: String,
    refresh_token: Option<SecretString>,
    id_token: Option<SecretString>,
}

/// A number, which Entra sometimes sends as a string.
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
    /// Returns the token endpoint of the registration's tenant, with this credential.
    pub(super) fn new(
        http: reqwest::Client,
        registration: Registration,
        credential: ClientCredential,
    ) -> Result<Self, url::ParseError> {
        Ok(Self { http, url: registration.endpoint("token").parse()?, registration, credential })
    }

    /// Returns the registration.
    pub(super) fn registration(&self) -> &Registration {
        &self.registration
    }

    /// Returns the values that the federated credential in Entra must have, if the credential is federated and
    /// readable.
    pub(super) async fn identity(&self) -> Option<FederatedIdentity> {
        self.credential.identity().await
    }

    /// Requests the token with these parameters. Retries while Entra is busy, within limits.
    pub(super) async fn exchange(&self, parameters: &[(&str, &str)]) -> Result<Issued, StsError> {
        let attempts = PATIENCE.attempt(|| self.attempt(parameters), StsError::again).await;
        attempts.unwrap_or_else(|| {
            let source = ExchangeError::Network(format!("no answer within {} s", PATIENCE.total.as_secs()));
            Err(StsError::Unreachable { url: self.url.to_string(), source })
        })
    }

    /// Requests the token in one attempt.
    pub(super) async fn attempt(&self, parameters: &[(&str, &str)]) -> Result<Issued, StsError> {
        let credential = self.credential.parameters().await?;
        let credential = credential.iter().map(|(name, value)| (*name, value.expose_secret()));
        let client = [("client_id", self.registration.client_id.as_str())];
        let form: Vec<_> = parameters.iter().copied().chain(client).chain(credential).collect();
        let asked_at = Instant::now();
        let mut answer = self.ask(&self.url, &form).await?;
        if answer.status.is_success() {
            let body = Zeroizing::new(std::mem::take(&mut answer.body));
            if let Ok(document) = serde_json::from_slice(&body) {
                return Ok(Issued::new(document, asked_at));
            }
        }
        Err(self.refusal(&self.url, &answer).await)
    }

    /// Posts this form to an endpoint of Entra and returns the answer.
    pub(super) async fn ask(&self, url: &Url, form: &[(&str, &str)]) -> Result<Answer, StsError> {
        let request = self.http.post(url.clone()).form(form).timeout(ATTEMPT);
        let answer = http_client::exchange(request, MAXIMUM_ANSWER).await;
        answer.map_err(|source| StsError::Unreachable { url: url.to_string(), source })
    }

    /// Converts an unsuccessful answer of an endpoint to an error.
    pub(super) async fn refusal(&self, url: &Url, answer: &Answer) -> StsError {
        let identity = self.identity().await;
        match EntraRefusal::read(answer, self.asker(identity.as_ref())) {
            Some(refusal) => StsError::Refused(Box::new(refusal)),
            None => {
                let retry_after = retry_after(&answer.headers, jiff::Timestamp::now());
                StsError::NotEntra { url: url.to_string(), status: answer.status, retry_after }
            }
        }
    }

    /// Returns the properties of the application for next steps.
    pub(super) fn asker<'a>(&'a self, identity: Option<&'a FederatedIdentity>) -> Asker<'a> {
        let Registration { tenant, client_id, .. } = &self.registration;
        let is_public = matches!(self.credential, ClientCredential::Public);
        Asker { tenant_id: tenant, client_id, identity, is_public }
    }
}

impl Registration {
    /// Returns the address of an endpoint of the tenant, such as `token`.
    pub(super) fn endpoint(&self, name: &str) -> String {
        format!("{}/{}/oauth2/v2.0/{name}", self.authority, self.tenant)
    }
}

impl Issued {
    fn new(document: TokenDocument, asked_at: Instant) -> Self {
        let TokenDocument { access_token, expires_in, refresh_in, scope, refresh_token, id_token } = document;
        // Entra names scopes with or without their resource.
        let named = scope.split_ascii_whitespace().filter_map(|scope| scope.rsplit('/').next());
        let granted = named.map(str::to_ascii_lowercase).collect();
        Self {
            token: GraphToken { access_token, granted },
            asked_at,
            life: expires_in.into(),
            refresh_in: refresh_in.map(Duration::from),
            refresh_token,
            id_token,
        }
    }
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
