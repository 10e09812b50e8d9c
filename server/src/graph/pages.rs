//! Lists that Graph answers page by page.
//!
//! What leads to the next page is opaque, and comes from the answer: it is followed on Graph's own host alone, for the
//! token goes along.

use serde_json::Value;
use url::Url;

use super::question::{Question, in_time};
use super::{Graph, GraphError};

/// Most pages of one list. Pages may be empty, so that the number of entries alone bounds nothing.
const MAXIMUM_PAGES: usize = 20;

impl Graph {
    /// The first entries of the list at `path` behind the user, at most `limit`.
    pub async fn list(
        &self,
        path: &'static str,
        query: &[(&str, &str)],
        limit: usize,
    ) -> Result<Vec<Value>, GraphError> {
        in_time(self.pages(path, query, limit)).await
    }

    async fn pages(&self, path: &'static str, query: &[(&str, &str)], limit: usize) -> Result<Vec<Value>, GraphError> {
        let mut question = Question { url: self.url(path), query, body: None };
        let mut entries = Vec::new();
        for _ in 0..MAXIMUM_PAGES {
            let mut page = self.answer(&question).await?;
            match page.get_mut("value").map(Value::take) {
                Some(Value::Array(more)) => entries.extend(more),
                _ => return Err(GraphError::Unexpected { path }),
            }
            let next = page.get("@odata.nextLink").and_then(Value::as_str).filter(|_| entries.len() < limit);
            let Some(next) = next else { break };
            question = Question { url: self.on_our_host(next)?, query: &[], body: None };
        }
        entries.truncate(limit);
        Ok(entries)
    }

    fn on_our_host(&self, link: &str) -> Result<String, GraphError> {
        match (Url::parse(link), Url::parse(&self.client.0.base_url)) {
            (Ok(link), Ok(ours)) if link.origin() == ours.origin() => Ok(link.into()),
            _ => Err(GraphError::ForeignLink),
        }
    }
}
