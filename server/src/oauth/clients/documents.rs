//! Clients with a client ID metadata document, kept for a while.
//!
//! A document is fetched once for all who ask at the same time. What its host cannot serve just now is served as it was, up to a
//! day: nobody can lock a client out by making this server ask too often.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::future::Cache;

use super::client::Client;
use super::document::{self, DocumentError, DocumentUrl};
use super::fetch::{FetchError, Fetcher};
use super::redirects::Redirects;

/// Times for which a document is kept, whatever its host says.
const SHORTEST: Duration = Duration::from_secs(5 * 60);
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// Time for which a refusal is repeated without asking again.
const REFUSED_FOR: Duration = Duration::from_secs(60);
/// The same for a refusal for want of a turn.
const PAUSE: Duration = Duration::from_secs(2);
/// Most documents and refusals kept; the least used go first.
const KEPT: u64 = 1_000;

/// Clients by the URL of their document.
pub(super) struct Documents {
    fetcher: Fetcher,
    hosts: BTreeSet<String>,
    answers: Cache<String, Answer>,
    /// Each as it was when its host last served it.
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
    /// Fetches from these hosts alone; if there are none, from any, unless a forward proxy stands between.
    pub(super) fn new(fetcher: Fetcher, hosts: &[String]) -> Self {
        Self {
            fetcher,
            hosts: hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
            answers: Cache::builder().max_capacity(KEPT).expire_after(KeptFor).build(),
            last: Cache::builder().max_capacity(KEPT).time_to_live(LONGEST).build(),
        }
    }

    /// True if documents are taken from any host at all.
    pub(super) fn may_come(&self) -> bool {
        !self.hosts.is_empty() || !self.fetcher.is_proxied()
    }

    /// True if documents are taken from this host.
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
    /// Lets the time pass for which an answer is kept.
    pub(super) async fn expire(&self, url: &str) {
        self.answers.invalidate(url).await;
    }

    pub(super) async fn kept_for(&self, url: &str) -> Option<Duration> {
        self.answers.get(url).await.map(|answer| answer.kept_for)
    }
}
