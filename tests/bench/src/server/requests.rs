//! Requests of one kind, over connections that are kept.

use std::time::Duration;

use anyhow::ensure;
use futures::future::try_join_all;
use serde_json::json;

use super::Kind;
use super::program::Program;
use super::tenant::BenchTenant;

/// Time for one answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client that sends one request again and again.
pub(super) struct Client {
    http: reqwest::Client,
    url: String,
    token: String,
    body: String,
    /// The HTTP status and a part of the body of the expected answer.
    expected: (u16, &'static str),
}

impl Client {
    pub(super) fn new(program: &Program, tenant: &BenchTenant, kind: Kind) -> anyhow::Result<Self> {
        let (token, method, params, expected) = match kind {
            Kind::List => (tenant.reader()?, "tools/list", json!({}), (200, "list_my_messages")),
            Kind::Refused => {
                (tenant.nobody()?, "tools/call", json!({"name": "get_user_details"}), (403, "may not call"))
            }
            Kind::Call => {
                let params = json!({"name": "list_my_messages", "arguments": {"top": 1000}});
                (tenant.reader()?, "tools/call", params, (200, "from 1 to 25"))
            }
        };
        Ok(Self {
            http: reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?,
            url: program.url.clone(),
            token,
            body: json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params}).to_string(),
            expected,
        })
    }

    /// Sends so many requests over so many connections, and checks each answer.
    pub(super) async fn send(&self, requests: u32, connections: u32) -> anyhow::Result<()> {
        let share = |index: u32| requests / connections + u32::from(index < requests % connections);
        let connections = (0..connections).map(|index| async move {
            for _ in 0..share(index) {
                self.send_one().await?;
            }
            anyhow::Ok(())
        });
        try_join_all(connections).await.map(drop)
    }

    async fn send_one(&self) -> anyhow::Result<()> {
        let request = self.http.post(&self.url).bearer_auth(&self.token).body(self.body.clone());
        let request = request.header("content-type", "application/json");
        let answer = request.header("accept", "application/json, text/event-stream").send().await?;
        let (status, text) = (answer.status().as_u16(), answer.text().await?);
        let (expected, part) = self.expected;
        ensure!(status == expected && text.contains(part), "{status} instead of {expected}: {text}");
        Ok(())
    }
}
