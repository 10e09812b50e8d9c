//! Polls of pods' admin ports, and nudges of pods with an old policy.

pub(crate) mod nudge;
pub(crate) mod reach;
pub(crate) mod report;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use mcp_entra_policy::ServerStatus;

use crate::{
    mcpserver::{build::ADMIN_PORT, pod_status::report::Report},
    objects::views::PodView,
    runtime::metrics::Metrics,
};

/// The timeout of a pod's answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The maximum size of an answer, in bytes.
pub(crate) const LARGEST_ANSWER: usize = 512 * 1024;
/// The most pods of one server that are polled at once.
const AT_ONCE: usize = 16;

/// The reason why a pod gave no report. The texts are fixed, because they become part of conditions, where each change
/// is a write.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PollError {
    #[error("the pod has no address")]
    NoAddress,
    #[error("{}", words(.0))]
    Request(#[from] reqwest::Error),
    #[error("the pod answered with HTTP status {0}")]
    Status(u16),
    #[error("the answer is larger than {LARGEST_ANSWER} bytes")]
    TooLarge,
    #[error("the answer is not a status of this server version")]
    Unreadable(#[from] serde_json::Error),
}

fn words(error: &reqwest::Error) -> &'static str {
    if error.is_timeout() {
        "no answer in time"
    } else if error.is_connect() {
        "connection refused"
    } else {
        "connection lost"
    }
}

/// A pod and its report.
#[derive(Debug)]
pub(crate) struct PolledPod {
    pub(crate) pod: Arc<PodView>,
    pub(crate) report: Result<Report, PollError>,
}

/// Builds the client for admin ports. Pods are asked directly, or through the configured proxy.
pub(crate) fn status_client(proxy: Option<&str>) -> reqwest::Result<reqwest::Client> {
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        // Idle connections to thousands of pods would take more memory than everything else about them.
        .pool_max_idle_per_host(0)
        .timeout(TIMEOUT)
        .connect_timeout(TIMEOUT);
    match proxy {
        Some(url) => client.proxy(reqwest::Proxy::all(url)?),
        None => client,
    }
    .build()
}

/// Polls every running pod, in the given order.
pub(crate) async fn poll(client: &reqwest::Client, metrics: &Metrics, pods: Vec<Arc<PodView>>) -> Vec<PolledPod> {
    stream::iter(pods.into_iter().filter(|pod| pod.is_running()))
        .map(|pod| async move {
            let report = ask(client, &pod).await;
            polled(metrics, pod, report)
        })
        .buffered(AT_ONCE)
        .collect()
        .await
}

/// Polls one pod.
pub(crate) async fn poll_one(client: &reqwest::Client, metrics: &Metrics, pod: Arc<PodView>) -> PolledPod {
    let report = ask(client, &pod).await;
    polled(metrics, pod, report)
}

fn polled(metrics: &Metrics, pod: Arc<PodView>, report: Result<Report, PollError>) -> PolledPod {
    if let Err(error) = &report {
        metrics.poll_failed();
        tracing::debug!(pod = pod.name(), ?error, "cannot read a pod's status");
    }
    PolledPod { pod, report }
}

async fn ask(client: &reqwest::Client, pod: &PodView) -> Result<Report, PollError> {
    let address = pod.address.ok_or(PollError::NoAddress)?;
    let mut response = client.get(format!("http://{}/status", SocketAddr::new(address, ADMIN_PORT))).send().await?;
    if !response.status().is_success() {
        return Err(PollError::Status(response.status().as_u16()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > LARGEST_ANSWER {
            return Err(PollError::TooLarge);
        }
    }
    Ok(serde_json::from_slice::<ServerStatus>(&body)?.into())
}

impl PolledPod {
    /// Returns true if the pod enforces the policy of this revision.
    pub(crate) fn enforces(&self, revision: &str) -> bool {
        self.report
            .as_ref()
            .is_ok_and(|report| report.revision.as_ref().is_some_and(|reported| reported.raw() == revision))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_unreachable_pod_always_has_the_same_message() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let refused = reqwest::get(format!("http://{address}/status")).await.unwrap_err();
        assert_eq!(PollError::from(refused).to_string(), "connection refused");
        let unreadable = serde_json::from_str::<ServerStatus>("{").unwrap_err();
        assert_eq!(PollError::from(unreadable).to_string(), "the answer is not a status of this server version");
    }

    #[tokio::test]
    async fn no_connection_is_kept_to_a_pod_that_has_answered() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = status_client(Some(&format!("http://{}", listener.local_addr().unwrap()))).unwrap();
        let asked = client.get("http://10.244.0.1:8081/status").send();
        let answered = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert_ne!(stream.read(&mut [0; 1024]).await.unwrap(), 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
            stream
        };
        let (response, mut stream) = tokio::join!(asked, answered);
        assert_eq!(response.unwrap().text().await.unwrap(), "{}");
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest));
        closed.await.expect("the client hangs up").unwrap();
    }
}
