//! Cache of clients with a client ID metadata document.
//!
//! Concurrent requests share one fetch. If the host fails, the last good document stays in use for up to a day. So
//! nobody can lock out a client by making this server fetch too often.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::future::Cache;

use super::client::Client;
use super::document::{self, DocumentError, DocumentUrl};
use super::fetch::{FetchError, Fetcher};
use super::redirects::Redirects;

/// Bounds of a document's lifetime in the cache, whatever its host says.
const SHORTEST: Duration = Duration::from_secs(5 * 60);
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// Lifetime of a refusal in the cache.
const REFUSED_FOR: Duration = Duration::from_secs(60);
/// Lifetime of a refusal because of too many fetches.
const PAUSE: Duration = Duration::from_secs(2);
/// Most documents and refusals in the cache; the least used are evicted first.
const KEPT: u64 = 1_000;

/// Clients by the URL of their document.
pub(super) struct Documents {
    fetcher: Fetcher,
    hosts: BTreeSet<String>,
    answers: Cache<String, Answer>,
    /// The last good version of each document.
    last: Cache<String, Arc<Client>>,
}

#[derive(Clone)]
struct Answer {
    client: Result<Arc<Client>, DocumentError>,
    kept_for: Duration,
}

struct KeptFor;

impl Expiry<String, Answer> for KeptFor {
    fn expire_after_create(&self, _: &String, answer: &Answer, _: Instant) -> Option<Duration> {
        Some(answer.kept_for)
    }
}

impl Documents {
    /// Fetches only from these hosts. An empty list allows any host, unless there is a forward proxy.
    pub(super) fn new(fetcher: Fetcher, hosts: &[String]) -> Self {
        Self {
            fetcher,
            hosts: hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
            answers: Cache::builder().max_capacity(KEPT).expire_after(KeptFor).build(),
            last: Cache::builder().max_capacity(KEPT).time_to_live(LONGEST).build(),
        }
    }

    /// True if documents are allowed from any host at all.
    pub(super) fn may_come(&self) -> bool {
        !self.hosts.is_empty() || !self.fetcher.is_proxied()
    }

    /// True if documents are allowed from this host.
    pub(super) fn come_from(&self, host: &str) -> bool {
        let is_any_host = self.hosts.is_empty() && !self.fetcher.is_proxied();
        is_any_host || self.hosts.contains(host)
    }

    /// Returns the client whose document is at this URL.
    pub(super) async fn find(&self, url: &str, redirects: &Redirects) -> Result<Arc<Client>, DocumentError> {
        let url = DocumentUrl::read(url)?;
        if !self.come_from(url.host()) {
            return Err(DocumentError::HostNotListed(url.host().to_owned()));
        }
        self.answers.get_with_by_ref(url.as_str(), self.ask(&url, redirects)).await.client
    }

    async fn ask(&self, url: &DocumentUrl, redirects: &Redirects) -> Answer {
        let error = match self.read(url, redirects).await {
            Ok((client, max_age)) => {
                let client = Arc::new(client);
                self.last.insert(url.as_str().to_owned(), Arc::clone(&client)).await;
                return Answer { client: Ok(client), kept_for: max_age.clamp(SHORTEST, LONGEST) };
            }
            Err(error) => error,
        };
        let kept_for = if error == DocumentError::Fetch(FetchError::Busy) { PAUSE } else { REFUSED_FOR };
        let last = match &error {
            DocumentError::Fetch(error) if error.is_passing() => self.last.get(url.as_str()).await,
            _ => self.last.remove(url.as_str()).await.and(None),
        };
        Answer { client: last.ok_or(error), kept_for }
    }

    async fn read(&self, url: &DocumentUrl, redirects: &Redirects) -> Result<(Client, Duration), DocumentError> {
        let fetched = self.fetcher.fetch(url.url()).await?;
        Ok((document::read(url, &fetched.body, redirects)?, fetched.max_age))
    }
}

#[cfg(test)]
impl Documents {
    /// Makes the cached answer expire.
    pub(super) async fn expire(&self, url: &str) {
        self.answers.invalidate(url).await;
    }

    pub(super) async fn kept_for(&self, url: &str) -> Option<Duration> {
        self.answers.get(url).await.map(|answer| answer.kept_for)
    }
}
