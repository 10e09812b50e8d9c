//! Guarded fetch of a client ID metadata document from an address that an outsider chose.
//!
//! Outsiders must not use it to reach what only the server can reach. The name is resolved once, all its addresses
//! must be public, and the connection goes to one of them. Redirects are not followed. Time, size and number of
//! requests are limited.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use mediatype::MediaType;
use moka::sync::Cache;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use url::Url;

use super::public_addresses;
use crate::http_client::{self, ExchangeError, HttpClientError};

/// Longest document, in bytes.
pub const MAXIMUM_LENGTH: usize = 16 * 1024;
/// Longest time of a request, from name resolution to the end of the answer. The wait before it has the same limit.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most concurrent requests.
const AT_A_TIME: usize = 4;
/// Most requests to one host: the burst, and the number per minute.
const PER_HOST: NonZeroU32 = NonZeroU32::new(10).unwrap();
/// Most hosts with a counter; the least used are evicted first.
const HOSTS: u64 = 5_000;

/// The network of document fetches.
#[derive(Clone)]
pub struct Network {
    /// The resolver of names.
    pub names: Arc<dyn Resolve>,
    /// Returns true if connections to an address are allowed.
    pub is_public: fn(IpAddr) -> bool,
    /// True if a URL may have another port than 443.
    pub any_port: bool,
    /// Longest time of a request.
    pub patience: Duration,
}

/// Fetches documents, guarded.
pub struct Fetcher {
    client: reqwest::Client,
    any_port: bool,
    patience: Duration,
    is_proxied: bool,
    turns: Semaphore,
    hosts: Cache<String, Arc<DefaultDirectRateLimiter>>,
}

/// A document with the cache lifetime from its host.
pub(super) struct Fetched {
    pub(super) body: Vec<u8>,
    pub(super) max_age: Duration,
}

/// The reason why there is no document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The URL has a port.
    #[error("its URL names a port; it must be served at port 443")]
    Port,
    /// Too many requests are running, or too many went to this host.
    #[error("too many documents are being fetched; try again in a minute")]
    Busy,
    /// No answer in time from a public address over trusted TLS. The text has no details, because they would reveal
    /// names inside the network.
    #[error("its host does not answer at a public address over HTTPS; check the URL, and try again in a minute")]
    Unreachable,
    /// The status is not 200. Redirects are not followed.
    #[error("its host answers HTTP {0} instead of 200; the client's publisher must correct this")]
    Status(StatusCode),
    /// The content type is not JSON.
    #[error("its content type is not application/json; the client's publisher must correct this")]
    ContentType,
    /// The document is longer than [`MAXIMUM_LENGTH`].
    #[error("it is longer than {MAXIMUM_LENGTH} bytes; the client's publisher must correct this")]
    TooLong,
}

impl FetchError {
    /// True if a later attempt may succeed by itself.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Busy | Self::Unreachable => true,
            Self::Status(status) => status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS,
            Self::Port | Self::ContentType | Self::TooLong => false,
        }
    }
}

impl Network {
    /// Returns the public internet with the system's resolver.
    pub fn public() -> Self {
        let names = Arc::new(SystemNames);
        Self { names, is_public: public_addresses::is_public, any_port: false, patience: PATIENCE }
    }
}

impl Fetcher {
    /// Returns a fetcher for the public internet that trusts the system's roots and the certificates in this bundle
    /// (PEM).
    ///
    /// A forward proxy resolves names itself, so addresses cannot be checked. With a proxy, documents are allowed
    /// only from listed hosts.
    pub fn new(trust_bundle: Option<&[u8]>, proxy: Option<&str>) -> Result<Self, HttpClientError> {
        match proxy {
            None => Self::within(Network::public(), trust_bundle),
            Some(address) => {
                let proxy = reqwest::Proxy::https(address)
                    .map_err(|_| HttpClientError::Client("HTTPS_PROXY is not a valid proxy URL".to_owned()))?;
                let builder = http_client::builder(trust_bundle)?.proxy(proxy);
                Ok(Self { is_proxied: true, ..Self::from_builder(builder, &Network::public())? })
            }
        }
    }

    /// Returns a fetcher for this network, without a proxy.
    pub fn within(network: Network, trust_bundle: Option<&[u8]>) -> Result<Self, HttpClientError> {
        let names = Guarded { names: Arc::clone(&network.names), is_public: network.is_public };
        let builder = http_client::builder(trust_bundle)?.no_proxy().dns_resolver(Arc::new(names));
        Self::from_builder(builder, &network)
    }

    fn from_builder(builder: reqwest::ClientBuilder, network: &Network) -> Result<Self, HttpClientError> {
        // A pooled connection would outlive the check of its address.
        let builder = builder.timeout(network.patience).pool_max_idle_per_host(0).retry(reqwest::retry::never());
        Ok(Self {
            client: http_client::finish(builder)?,
            any_port: network.any_port,
            patience: network.patience,
            is_proxied: false,
            turns: Semaphore::new(AT_A_TIME),
            hosts: Cache::builder().max_capacity(HOSTS).time_to_idle(Duration::from_secs(61)).build(),
        })
    }

    /// True if there is a forward proxy.
    pub(super) fn is_proxied(&self) -> bool {
        self.is_proxied
    }

    /// Fetches the document at a URL whose host is a name.
    pub(super) async fn fetch(&self, url: &Url) -> Result<Fetched, FetchError> {
        if url.port().is_some() && !self.any_port {
            return Err(FetchError::Port);
        }
        let host = url.host_str().unwrap_or_default().to_owned();
        let budget = self.hosts.get_with(host, || Arc::new(RateLimiter::direct(Quota::per_minute(PER_HOST))));
        budget.check().map_err(|_| FetchError::Busy)?;
        let _turn = match timeout(self.patience, self.turns.acquire()).await {
            Ok(Ok(turn)) => turn,
            Ok(Err(_)) | Err(_) => return Err(FetchError::Busy),
        };
        let request = self.client.get(url.clone()).header(ACCEPT, "application/json");
        let answer = http_client::exchange(request, MAXIMUM_LENGTH).await.map_err(|error| {
            tracing::info!(%url, %error, "cannot fetch a client ID metadata document");
            match error {
                ExchangeError::TooLong(_) => FetchError::TooLong,
                ExchangeError::Network(_) => FetchError::Unreachable,
                ExchangeError::Status(status) => FetchError::Status(status),
            }
        })?;
        if answer.status != StatusCode::OK {
            return Err(FetchError::Status(answer.status));
        }
        if !is_json(&answer.headers) {
            return Err(FetchError::ContentType);
        }
        Ok(Fetched { max_age: max_age(&answer.headers), body: answer.body })
    }
}

/// Returns the forward proxy for https from the environment, if any. `NO_PROXY` is ignored: no URL that a client
/// chose may bypass the proxy.
pub fn proxy_of(environment: impl Fn(&str) -> Option<String>) -> Option<String> {
    ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]
        .into_iter()
        .find_map(|name| environment(name).filter(|address| !address.is_empty()))
}

/// The system's resolver.
struct SystemNames;

impl Resolve for SystemNames {
    fn resolve(&self, name: Name) -> Resolving {
        // A trailing dot makes the name absolute. Otherwise a search domain of the cluster could turn a public name
        // into a service of the cluster.
        let name = format!("{}.", name.as_str());
        Box::pin(async move {
            let addresses = tokio::net::lookup_host((name, 0)).await?;
            Ok(Box::new(addresses) as Addrs)
        })
    }
}

/// A resolver that accepts only public addresses.
struct Guarded {
    names: Arc<dyn Resolve>,
    is_public: fn(IpAddr) -> bool,
}

/// The error for an address that is not public.
#[derive(Debug, thiserror::Error)]
#[error("one of the host's addresses is not public: {0}")]
struct NotPublic(IpAddr);

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let (resolving, is_public) = (self.names.resolve(name), self.is_public);
        Box::pin(async move {
            let addresses: Vec<_> = resolving.await?.collect();
            match addresses.iter().find(|address| !is_public(address.ip())) {
                Some(address) => Err(NotPublic(address.ip()).into()),
                None => Ok(Box::new(addresses.into_iter()) as Addrs),
            }
        })
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let Some(Ok(media)) = content_type.map(MediaType::parse) else { return false };
    let is_json = media.subty == mediatype::names::JSON || media.suffix == Some(mediatype::names::JSON);
    media.ty == mediatype::names::APPLICATION && is_json
}

/// Returns `max-age` of `Cache-Control`; zero if it is absent or the answer must not be cached (RFC 9111 §5.2.2).
fn max_age(headers: &HeaderMap) -> Duration {
    let values = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let directives: Vec<String> =
        values.flat_map(|value| value.split(',')).map(|directive| directive.trim().to_ascii_lowercase()).collect();
    if directives.iter().any(|directive| directive == "no-store" || directive == "no-cache") {
        return Duration::ZERO;
    }
    let seconds = directives.iter().find_map(|directive| directive.strip_prefix("max-age=")?.parse().ok());
    seconds.map_or(Duration::ZERO, Duration::from_secs)
}
