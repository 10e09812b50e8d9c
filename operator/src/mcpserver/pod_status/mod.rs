//! The pods: what they say of themselves on their admin ports, and the nudge for those whose policy is old.

pub(crate) mod report;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use mcp_entra_policy::ServerStatus;
use serde_json::json;

use crate::{
    MANAGER,
    mcpserver::{
        build::ADMIN_PORT,
        pass_memory::{Nudged, ServerMemory},
        pod_status::report::Report,
    },
    objects::{
        names::POLICY_REVISION,
        views::{Labelled, PodView},
        watched::WatchedPod,
    },
    runtime::{errors::code, metrics::Metrics},
};

/// The time that a pod may take to answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The longest answer in bytes.
const LARGEST_ANSWER: usize = 64 * 1024;
/// Pods of one server that are asked at once.
const AT_ONCE: usize = 16;

/// Time between the first two nudges of a pod towards one policy: the kubelet may have looked before its cache had the
/// new ConfigMap. Each further pause is twice as long, up to [`LONGEST_NUDGE_PAUSES`] doublings.
const NUDGE_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_NUDGE_PAUSES: u32 = 5;
/// The number of nudges after which counting starts anew.
const MOST_NUDGES: u64 = 1_000_000;

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

/// Nudges every pod whose policy is old: each that is ready, and each that serves with another one though it is not.
pub(crate) async fn nudge(
    client: &Client,
    memory: &mut ServerMemory,
    pods: &[PolledPod],
    revision: &str,
    now: Instant,
) {
    memory.nudged.retain(|uid, _| pods.iter().any(|polled| *polled.pod.uid == **uid));
    let serves = |polled: &&PolledPod| {
        polled.pod.is_ready() || polled.report.as_ref().is_ok_and(|report| report.revision.is_some())
    };
    for polled in pods.iter().filter(serves) {
        let last = memory.nudged.get(&*polled.pod.uid);
        if let Some(nudged) = nudge_one(client, polled, last, revision, now).await {
            memory.nudged.insert(polled.pod.uid.to_string(), nudged);
        }
    }
}

/// Nudges a pod whose policy is old: at once towards a new one, ever more rarely towards the same. Nothing is
/// restarted, and a pod that enforces the policy is left alone. Returns the nudge, if there was one.
pub(crate) async fn nudge_one(
    client: &Client,
    polled: &PolledPod,
    last: Option<&Nudged>,
    revision: &str,
    now: Instant,
) -> Option<Nudged> {
    let before = polled.pod.policy_revision.as_deref();
    let count = before.and_then(|value| counts(value, revision));
    // One that cannot be asked is nudged once a revision: repeating would be writing for ever.
    let asked = polled.report.is_ok() || count.is_none();
    if polled.enforces(revision) || !asked || !is_due(last, revision, count, now) {
        return None;
    }
    let patch = json!({"metadata": {"annotations": {POLICY_REVISION: next_value(before, revision)}}});
    let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let (namespace, name) = (polled.pod.full_name.namespace(), polled.pod.name());
    let api = Api::<WatchedPod>::namespaced(client.clone(), namespace);
    match api.patch(name, &parameters, &Patch::Merge(&patch)).await {
        Ok(_) => {
            tracing::info!(
                server = polled.pod.server(),
                namespace,
                pod = name,
                revision,
                "nudged a pod: its policy is old"
            );
            Some(Nudged { revision: revision.to_owned(), at: now })
        }
        Err(error) if code(&error) == Some(404) => None,
        Err(error) => {
            tracing::warn!(namespace, pod = name, %error, "a pod cannot be nudged; its kubelet will look by itself");
            None
        }
    }
}

fn is_due(last: Option<&Nudged>, revision: &str, count: Option<u64>, now: Instant) -> bool {
    let Some(last) = last.filter(|last| last.revision == revision) else { return true };
    let doublings = u32::try_from(count.unwrap_or(0)).unwrap_or(u32::MAX).min(LONGEST_NUDGE_PAUSES);
    now.duration_since(last.at) >= NUDGE_PAUSE * 2_u32.pow(doublings)
}

/// The number of nudges of a pod towards a revision, if there were any.
fn counts(value: &str, revision: &str) -> Option<u64> {
    match value.strip_prefix(revision)? {
        "" => Some(0),
        rest => rest.strip_prefix('.')?.parse().ok(),
    }
}

/// A value that is not there yet: only a change is noticed.
fn next_value(before: Option<&str>, revision: &str) -> String {
    match before.and_then(|value| counts(value, revision)) {
        None => revision.to_owned(),
        // Whoever may write pods may have written any number.
        Some(count) => format!("{revision}.{}", count % MOST_NUDGES + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_nudge_has_a_value_that_was_not_there() {
        assert_eq!(next_value(None, "abc"), "abc");
        assert_eq!(next_value(Some("abc"), "abc"), "abc.1");
        assert_eq!(next_value(Some("abc.9"), "abc"), "abc.10");
        assert_eq!(next_value(Some("abd.9"), "abc"), "abc");
        assert_eq!(next_value(Some("abcd"), "abc"), "abc");
        let last = format!("abc.{}", u64::MAX);
        assert_ne!(next_value(Some(&last), "abc"), last, "somebody has counted before");
    }

    #[test]
    fn a_new_policy_is_nudged_at_once_and_the_same_one_ever_more_rarely() {
        let start = Instant::now();
        let last = Nudged { revision: "abc".into(), at: start };
        let due = |revision: &str, count: u64, seconds: u64| {
            is_due(Some(&last), revision, Some(count), start + Duration::from_secs(seconds))
        };
        assert!(is_due(None, "abc", None, start));
        assert!(due("abd", 0, 0));
        assert!(!due("abc", 0, 1) && due("abc", 0, 2));
        assert!(!due("abc", 2, 7) && due("abc", 2, 8));
        assert!(!due("abc", 99, 63) && due("abc", 99, 64));
    }

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
