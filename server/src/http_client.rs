//! The HTTP client for the server's own requests to Entra and Graph.
//!
//! It uses https only, follows no redirects (a token must not follow one), and bounds time and body size of every
//! request. It checks certificates against the system's roots and the trust bundle.

mod retry;

use std::error::Error;
use std::time::Duration;

use http::{HeaderMap, StatusCode};

pub(crate) use retry::{Again, Patience, retry_after};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TOTAL_TIMEOUT: Duration = Duration::from_secs(15);

/// The reason why there is no HTTP client.
#[derive(Debug, thiserror::Error)]
pub enum HttpClientError {
    /// The trust bundle is not one or more CA certificates.
    #[error("the trust bundle is not usable ({0}); it must be one or more CA certificates in PEM")]
    TrustBundle(String),
    /// The client could not be set up.
    #[error("no HTTPS client: {0}; without a trust bundle the system needs CA certificates (package ca-certificates)")]
    Client(String),
}

/// A failure of a request, or an unusable answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ExchangeError {
    /// No answer in time, or no trusted TLS connection.
    #[error("{0}")]
    Network(String),
    /// The answer is longer than the limit.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    /// An unexpected status.
    #[error("the answer was HTTP {0}")]
    Status(StatusCode),
}

/// A complete answer.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// Returns a client that trusts the system's roots and the certificates in this bundle (PEM).
pub fn build(trust_bundle: Option<&[u8]>) -> Result<reqwest::Client, HttpClientError> {
    finish(builder(trust_bundle)?)
}

/// Returns a builder with the same settings, for a stricter client.
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

/// Returns an error with all its causes. The outermost error of a TLS or connection failure does not help.
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
