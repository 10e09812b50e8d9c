//! The application's own token for Graph, from azure_identity's credential over the projected token.
//!
//! azure_identity requests and caches the token. This module decides when to ask again and how to read a refusal, as
//! for users.

use std::error::Error;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use azure_core::cloud::CustomConfiguration;
use azure_core::credentials::TokenCredential;
use azure_core::error::ErrorKind;
use azure_core::http::headers::RETRY_AFTER;
use azure_core::http::{ClientMethodOptions, ClientOptions, RawResponse, RetryOptions, Transport};
use azure_identity::{ClientAssertion, ClientAssertionCredential, ClientAssertionCredentialOptions};
use http::{HeaderMap, StatusCode, header};
use mcp_entra_policy::{CompactSet, EntraConfiguration};
use moka::future::Cache;
use secrecy::{ExposeSecret, SecretString};

use super::diagnosis::Asker;
use super::error::{EntraRefusal, StsError};
use super::federated_token::{FederatedToken, FederatedTokenError};
use super::sts::REFUSED_FOR;
use super::token_endpoint::{GraphToken, PATIENCE, Registration};
use crate::http_client::{Answer, ExchangeError, retry_after};

/// Time for which a token is served without asking azure_identity. Callers in this time share the result of one
/// exchange, even a failure.
const SHARED_FOR: Duration = Duration::from_secs(1);

type Credential = ClientAssertionCredential<Assertion>;

/// The application with the projected token as its credential.
pub struct ApplicationCredential {
    http: reqwest::Client,
    registration: Registration,
    scope: String,
    federated_token: FederatedToken,
    /// Made on first use, and again after Graph rejects its token: azure_identity has no other way to drop a token.
    credential: std::sync::Mutex<Option<Arc<Credential>>>,
    replacing: tokio::sync::Mutex<()>,
    shared: Cache<(), Arc<GraphToken>>,
    refusals: Cache<(), Arc<StsError>>,
}

/// The projected token, read again for every exchange.
#[derive(Debug)]
struct Assertion(FederatedToken);

#[async_trait::async_trait]
impl ClientAssertion for Assertion {
    async fn secret(&self, _: Option<ClientMethodOptions<'_>>) -> azure_core::Result<String> {
        let token = self.0.read().await.map_err(|error| azure_core::Error::new(ErrorKind::Credential, error))?;
        Ok(token.expose_secret().to_owned())
    }
}

impl ApplicationCredential {
    /// Returns the configured application with this projected token. `resource` is an address such as
    /// `https://graph.microsoft.com`.
    pub fn new(http: reqwest::Client, entra: &EntraConfiguration, resource: &str, token: FederatedToken) -> Self {
        Self {
            http,
            registration: entra.into(),
            scope: format!("{resource}/.default"),
            federated_token: token,
            credential: std::sync::Mutex::new(None),
            replacing: tokio::sync::Mutex::new(()),
            shared: Cache::builder().max_capacity(1).time_to_live(SHARED_FOR).build(),
            refusals: Cache::builder().max_capacity(1).time_to_live(REFUSED_FOR).build(),
        }
    }

    /// Returns the application's token, from the cache if possible.
    pub async fn token(&self) -> Result<Arc<GraphToken>, StsError> {
        if let Some(refusal) = self.refusals.get(&()).await {
            return Err(StsError::clone(&refusal));
        }
        let exchange = async {
            let attempts = PATIENCE.attempt(|| self.attempt(), StsError::again).await;
            let result =
                attempts.unwrap_or_else(|| Err(self.unreachable(&format!("no answer in {:?}", PATIENCE.total))));
            if let Err(error) = &result
                && error.is_lasting()
            {
                self.refusals.insert((), Arc::new(error.clone())).await;
            }
            result
        };
        self.shared.try_get_with((), exchange).await.map_err(|error| StsError::clone(&error))
    }

    /// Returns another token in place of one that Graph rejected. If another call already replaced it, returns that
    /// one.
    pub async fn instead_of(&self, rejected: &GraphToken) -> Result<Arc<GraphToken>, StsError> {
        let _one_at_a_time = self.replacing.lock().await;
        let kept = self.token().await?;
        if kept.access_token.expose_secret() != rejected.access_token.expose_secret() {
            return Ok(kept);
        }
        *self.credential.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.shared.invalidate(&()).await;
        self.token().await
    }

    async fn attempt(&self) -> Result<Arc<GraphToken>, StsError> {
        let credential = self.credential().map_err(|error| self.unreachable(&error.to_string()))?;
        match credential.get_token(&[&self.scope], None).await {
            Ok(token) => Ok(Arc::new(GraphToken {
                access_token: SecretString::from(token.token.secret().to_owned()),
                granted: CompactSet::default(),
            })),
            Err(error) => Err(self.read(&error).await),
        }
    }

    fn credential(&self) -> azure_core::Result<Arc<Credential>> {
        let mut credential = self.credential.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(credential) = &*credential {
            return Ok(Arc::clone(credential));
        }
        let mut cloud = CustomConfiguration::default();
        cloud.authority_host.clone_from(&self.registration.authority);
        let client_options = ClientOptions {
            cloud: Some(Arc::new(cloud.into())),
            transport: Some(Transport::new(Arc::new(self.http.clone()))),
            retry: RetryOptions::none(),
            ..ClientOptions::default()
        };
        let made = ClientAssertionCredential::new(
            self.registration.tenant.clone(),
            self.registration.client_id.clone(),
            Assertion(self.federated_token.clone()),
            Some(ClientAssertionCredentialOptions { client_options }),
        )?;
        *credential = Some(Arc::clone(&made));
        Ok(made)
    }

    /// Returns the cause of an error of azure_identity.
    async fn read(&self, error: &azure_core::Error) -> StsError {
        if let Some(error) = causes(error).find_map(|cause| cause.downcast_ref::<FederatedTokenError>()) {
            return error.clone().into();
        }
        let response = causes(error).find_map(|cause| cause.downcast_ref().and_then(raw_response));
        let identity = self.federated_token.describe().await.ok().map(|token| token.identity);
        let Registration { tenant, client_id, .. } = &self.registration;
        let asker = Asker { tenant_id: tenant, client_id, identity: identity.as_ref(), is_public: false };
        let Some(answer) = response.map(answer) else {
            // azure_identity does not keep an answer that it cannot parse, and quotes from it.
            let unreadable = causes(error).any(|cause| cause.is::<serde_json::Error>());
            return match unreadable {
                true => self.unreachable("its answer is neither a token nor an error of Entra"),
                false => self.unreachable(&error.to_string()),
            };
        };
        match EntraRefusal::read(&answer, asker) {
            Some(refusal) => StsError::Refused(Box::new(refusal)),
            None => {
                let retry_after = retry_after(&answer.headers, jiff::Timestamp::now());
                StsError::NotEntra { url: self.registration.endpoint("token"), status: answer.status, retry_after }
            }
        }
    }

    fn unreachable(&self, problem: &str) -> StsError {
        StsError::Unreachable {
            url: self.registration.endpoint("token"),
            source: ExchangeError::Network(problem.to_owned()),
        }
    }
}

fn causes(error: &azure_core::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(Some(error as &(dyn Error + 'static)), |error| Error::source(*error))
}

fn raw_response(error: &azure_core::Error) -> Option<&RawResponse> {
    match error.kind() {
        ErrorKind::HttpResponse { raw_response, .. } => raw_response.as_deref(),
        _ => None,
    }
}

fn answer(response: &RawResponse) -> Answer {
    let mut headers = HeaderMap::new();
    if let Some(Ok(retry_after)) = response.headers().get_optional_str(&RETRY_AFTER).map(str::parse) {
        headers.insert(header::RETRY_AFTER, retry_after);
    }
    let status = StatusCode::from_u16(response.status().into()).unwrap_or(StatusCode::BAD_GATEWAY);
    Answer { status, headers, body: response.body().to_vec() }
}
