//! One request for a client ID metadata document, at an address that somebody else chose.
//!
//! Nobody may reach by it what the server reaches and they do not. The name is resolved once, each of its addresses must be
//! public, and the connection goes to one of these. Redirects are not followed; time, size and number are bounded.

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

/// Greatest length of a document, in bytes.
pub const MAXIMUM_LENGTH: usize = 16 * 1024;
/// Time for a request, from the name to the last byte of the answer, and again for the wait before it.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most requests at a time.
const AT_A_TIME: usize = 4;
/// Most requests to a host, at once and each minute.
const PER_HOST: NonZeroU32 = NonZeroU32::new(10).unwrap();
/// Most hosts whose requests are counted; the least asked begin anew.
const HOSTS: u64 = 5_000;

/// The network that documents are fetched from.
#[derive(Clone)]
pub struct Network {
    /// Addresses by name.
    pub names: Arc<dyn Resolve>,
    /// Says if an address may be connected to.
    pub is_public: fn(IpAddr) -> bool,
    /// True if a URL may name another port than 443.
    pub any_port: bool,
    /// Time for a request.
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

/// A document, and the time for which its host lets it be kept.
pub(super) struct Fetched {
    pub(super) body: Vec<u8>,
    pub(super) max_age: Duration,
}

/// The reason why there is no document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The URL names a port.
    #[error("its URL names a port; it must be served at port 443")]
    Port,
    /// Too many requests are under way, or its host was asked too often.
    #[error("too many documents are being fetched; try again in a minute")]
    Busy,
    /// Nobody answered at a public address, or not in time, or not over TLS that can be trusted. Not more is said, or
    /// the answer would tell of names inside the network.
    #[error("its host does not answer at a public address over HTTPS; check the URL, and try again in a minute")]
    Unreachable,
    /// Another status than 200; redirects are not followed.
    #[error("its host answers HTTP {0} instead of 200; the client's publisher has to put that right")]
    Status(StatusCode),
    /// Another type than JSON.
    #[error("its content type is not application/json; the client's publisher has to put that right")]
    ContentType,
    /// It is longer than [`MAXIMUM_LENGTH`].
    #[error("it is longer than {MAXIMUM_LENGTH} bytes; the client's publisher has to put that right")]
    TooLong,
}

impl FetchError {
    /// True if the next attempt may succeed without anybody doing something.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Busy | Self::Unreachable => true,
            Self::Status(status) => status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS,
            Self::Port | Self::ContentType | Self::TooLong => false,
        }
    }
}

impl Network {
    /// The public internet, as the system resolves its names.
    pub fn public() -> Self {
        let names = Arc::new(SystemNames);
        Self { names, is_public: public_addresses::is_public, any_port: false, patience: PATIENCE }
    }
}

impl Fetcher {
    /// Returns a fetcher on the public internet, trusting the system's roots and the certificates in this bundle (PEM).
    ///
    /// A forward proxy resolves names itself, so that no address can be checked: where there is one, documents come from
    /// listed hosts alone.
    pub fn new(trust_bundle: Option<&[u8]>, proxy: Option<&str>) -> Result<Self, HttpClientError> {
        match proxy {
            None => Self::within(Network::public(), trust_bundle),
            Some(address) => {
                let proxy = reqwest::Proxy::https(address)
                    .map_err(|_| HttpClientError::Client("HTTPS_PROXY names no proxy".to_owned()))?;
                let builder = http_client::builder(trust_bundle)?.proxy(proxy);
                Ok(Self { is_proxied: true, ..Self::from_builder(builder, &Network::public())? })
            }
        }
    }

    /// Returns a fetcher on this network, without a proxy.
    pub fn within(network: Network, trust_bundle: Option<&[u8]>) -> Result<Self, HttpClientError> {
        let names = Guarded { names: Arc::clone(&network.names), is_public: network.is_public };
        let builder = http_client::builder(trust_bundle)?.no_proxy().dns_resolver(Arc::new(names));
        Self::from_builder(builder, &network)
    }

    fn from_builder(builder: reqwest::ClientBuilder, network: &Network) -> Result<Self, HttpClientError> {
        // A connection that waits for another request would outlive the check of its address.
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

    /// True if a forward proxy stands between.
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
            tracing::info!(%url, %error, "no client ID metadata document");
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

/// The forward proxy that the environment names for https, if it names one. `NO_PROXY` does not matter: nothing that a client
/// chose may go past the proxy.
pub fn proxy_of(environment: impl Fn(&str) -> Option<String>) -> Option<String> {
    ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]
        .into_iter()
        .find_map(|name| environment(name).filter(|address| !address.is_empty()))
}

/// Names as the system resolves them.
struct SystemNames;

impl Resolve for SystemNames {
    fn resolve(&self, name: Name) -> Resolving {
        // Absolute: a search domain of the cluster could lead a public name to a service of the cluster.
        let name = format!("{}.", name.as_str());
        Box::pin(async move {
            let addresses = tokio::net::lookup_host((name, 0)).await?;
            Ok(Box::new(addresses) as Addrs)
        })
    }
}

/// Names whose addresses are all public.
struct Guarded {
    names: Arc<dyn Resolve>,
    is_public: fn(IpAddr) -> bool,
}

/// An address that is not public.
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

/// `max-age` of `Cache-Control`; zero where it is absent or the answer is not to be kept (RFC 9111 §5.2.2).
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
