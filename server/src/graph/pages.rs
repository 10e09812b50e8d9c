//! Lists that Graph returns page by page.
//!
//! The link to the next page is opaque and comes from the answer. It is followed only on Graph's own host, because
//! the token goes with it, and to no page twice.

use std::collections::HashSet;

use serde_json::Value;
use url::Url;

use super::Graph;
use super::error::GraphError;
use super::question::{Question, in_time};

/// Most pages of one list. Pages may be empty, so a limit of entries is not enough.
const MAXIMUM_PAGES: usize = 20;

/// The first entries of a list.
#[derive(Debug, Default)]
pub struct List {
    /// The entries, at most the requested number.
    pub entries: Vec<Value>,
    /// True if the list is incomplete although Graph gave no usable next page.
    pub cut_short: bool,
}

impl Graph {
    /// Returns the first entries of the list at `path` after the user, at most `limit`.
    pub async fn list(&self, path: &'static str, query: &[(&str, &str)], limit: usize) -> Result<List, GraphError> {
        in_time(self.pages(path, query, limit)).await
    }

    async fn pages(&self, path: &'static str, query: &[(&str, &str)], limit: usize) -> Result<List, GraphError> {
        let mut page_url = self.url(path);
        page_url.query_pairs_mut().extend_pairs(query);
        let (mut list, mut seen) = (List::default(), HashSet::new());
        let queue = self.queue_of(path).await;
        while seen.len() < MAXIMUM_PAGES && seen.insert(place(&page_url)) {
            let question = Question { url: page_url, query: &[], body: None, queue: &queue };
            let (mut page, _) = self.answer(&question).await?;
            match page.get_mut("value").map(Value::take) {
                Some(Value::Array(more)) => list.entries.extend(more),
                _ => return Err(GraphError::Unexpected { path }),
            }
            match page.get("@odata.nextLink").and_then(Value::as_str) {
                Some(next) if list.entries.len() < limit => page_url = self.on_our_host(next)?,
                _ => {
                    list.entries.truncate(limit);
                    return Ok(list);
                }
            }
        }
        Ok(List { cut_short: true, ..list })
    }

    fn on_our_host(&self, link: &str) -> Result<Url, GraphError> {
        let link = Url::parse(link).ok().filter(|link| link.origin() == self.client.0.base_url.origin());
        link.ok_or(GraphError::ForeignLink)
    }
}

/// Returns the page of an address, independent of the encoding of its query.
fn place(url: &Url) -> (String, Vec<(String, String)>) {
    (url.path().to_owned(), url.query_pairs().into_owned().collect())
}
