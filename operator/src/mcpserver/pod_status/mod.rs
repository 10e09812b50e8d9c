//! The pods: the reports on their admin ports, and the nudge for those whose policy is old.

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

/// The time that a pod may take to answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The longest answer in bytes.
pub(crate) const LARGEST_ANSWER: usize = 512 * 1024;
/// Pods of one server that are asked at once.
const AT_ONCE: usize = 16;

/// The reason why a pod could not be asked, in a few fixed words: they end up in conditions, where every change is a
/// write.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PollError {
    #[error("it has no address")]
    NoAddress,
    #[error("{}", words(.0))]
    Request(#[from] reqwest::Error),
    #[error("it answered with status {0}")]
    Status(u16),
    #[error("it answered with more than {LARGEST_ANSWER} bytes")]
    TooLarge,
    #[error("its answer is not what a server of this version says")]
    Unreadable(#[from] serde_json::Error),
}

fn words(error: &reqwest::Error) -> &'static str {
    if error.is_timeout() {
        "it did not answer in time"
    } else if error.is_connect() {
        "the connection was refused"
    } else {
        "the connection broke off"
    }
}

/// A pod, and what it said.
#[derive(Debug)]
pub(crate) struct PolledPod {
    pub(crate) pod: Arc<PodView>,
    pub(crate) report: Result<Report, PollError>,
}

/// A client for admin ports: pods are asked directly, or through the one proxy that the operator was told of.
pub(crate) fn status_client(proxy: Option<&str>) -> reqwest::Result<reqwest::Client> {
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        // Kept, the connections to thousands of pods would take more memory than all that is known of them.
        .pool_max_idle_per_host(0)
        .timeout(TIMEOUT)
        .connect_timeout(TIMEOUT);
    match proxy {
        Some(url) => client.proxy(reqwest::Proxy::all(url)?),
        None => client,
    }
    .build()
}

/// Asks every running pod, by name.
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

/// Asks one pod.
pub(crate) async fn poll_one(client: &reqwest::Client, metrics: &Metrics, pod: Arc<PodView>) -> PolledPod {
    let report = ask(client, &pod).await;
    polled(metrics, pod, report)
}

fn polled(metrics: &Metrics, pod: Arc<PodView>, report: Result<Report, PollError>) -> PolledPod {
    if let Err(error) = &report {
        metrics.poll_failed();
        tracing::debug!(pod = pod.name(), ?error, "a pod's status cannot be read");
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
    /// Says if the pod enforces the policy of that revision.
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
    async fn a_pod_that_cannot_be_reached_is_told_in_words_that_stay_the_same() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let refused = reqwest::get(format!("http://{address}/status")).await.unwrap_err();
        assert_eq!(PollError::from(refused).to_string(), "the connection was refused");
        let unreadable = serde_json::from_str::<ServerStatus>("{").unwrap_err();
        assert_eq!(PollError::from(unreadable).to_string(), "its answer is not what a server of this version says");
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
