//! The one HTTP client for everything the server asks of others: Entra and Graph.
//!
//! https only, no redirects (a token must not follow one), time-outs on every request, bounded bodies, and certificates
//! checked against the system's roots and those of the trust bundle.

mod retry;

use std::error::Error;
use std::time::Duration;

use http::{HeaderMap, StatusCode};

pub(crate) use retry::{Again, Patience, retry_after};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TOTAL_TIMEOUT: Duration = Duration::from_secs(15);

/// The reason why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum HttpClientError {
    /// The trust bundle holds no certificates, or something else.
    #[error("the trust bundle is not usable ({0}); it must be one or more CA certificates in PEM")]
    TrustBundle(String),
    /// The client could not be set up.
    #[error("no HTTPS client: {0}; without a trust bundle the system needs CA certificates (package ca-certificates)")]
    Client(String),
}

/// The reason why an exchange gave no usable answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ExchangeError {
    /// Nobody answered, or not in time, or not over TLS that can be trusted.
    #[error("{0}")]
    Network(String),
    /// The answer is longer than anything expected.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    /// Another status than expected.
    #[error("the answer was HTTP {0}")]
    Status(StatusCode),
}

/// An answer, read to its end.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// The client, trusting the system's roots and the certificates in this bundle (PEM).
pub fn build(trust_bundle: Option<&[u8]>) -> Result<reqwest::Client, HttpClientError> {
    finish(builder(trust_bundle)?)
}

/// The same before it is built, for one that is to be stricter.
pub(crate) fn builder(trust_bundle: Option<&[u8]>) -> Result<reqwest::ClientBuilder, HttpClientError> {
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("mcp-entra-server/", env!("CARGO_PKG_VERSION")))
        .https_only(true)
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(TOTAL_TIMEOUT);
    if let Some(pem) = trust_bundle {
        let certificates =
            reqwest::Certificate::from_pem_bundle(pem).map_err(|error| HttpClientError::TrustBundle(causes(&error)))?;
        if certificates.is_empty() {
            return Err(HttpClientError::TrustBundle("it holds no certificate".to_owned()));
        }
        builder = builder.tls_certs_merge(certificates);
    }
    Ok(builder)
}

/// Builds the client.
pub(crate) fn finish(builder: reqwest::ClientBuilder) -> Result<reqwest::Client, HttpClientError> {
    builder.build().map_err(|error| HttpClientError::Client(causes(&error)))
}

/// Sends a request and reads the answer to its end, if it has at most `limit` bytes.
pub(crate) async fn exchange(request: reqwest::RequestBuilder, limit: usize) -> Result<Answer, ExchangeError> {
    let network = |error: reqwest::Error| ExchangeError::Network(causes(&error.without_url()));
    let mut response = request.send().await.map_err(network)?;
    let (status, headers) = (response.status(), response.headers().clone());
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(network)? {
        if body.len() + chunk.len() > limit {
            return Err(ExchangeError::TooLong(limit));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { status, headers, body })
}

/// An error with its causes: the outermost of a TLS or connection failure says nothing that helps.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trust_bundle_without_certificates_is_refused() {
        for bundle in [&b""[..], b"no PEM", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert!(build(Some(bundle)).is_err(), "{}", String::from_utf8_lossy(bundle));
        }
    }
}
