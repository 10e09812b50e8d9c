//! The pods: what they say of themselves on their admin ports, and the nudge for those whose policy is old.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
};
use mcp_entra_policy::ServerStatus;
use serde_json::json;

use crate::{
    MANAGER, build::ADMIN_PORT, errors::code, memory::ServerMemory, metrics::Metrics, owner::Owner, views::PodView,
};

/// How long a pod may take to answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The longest answer in bytes.
const LARGEST_ANSWER: usize = 64 * 1024;
/// Pods of one server that are asked at once.
const AT_ONCE: usize = 16;

/// The annotation whose change makes a kubelet look at the pod's volumes at once, instead of within a minute or two.
const POLICY_REVISION: &str = "mcp-entra.dev/policy-revision";
/// Time between nudges of one pod: the kubelet may have looked before its cache had the new ConfigMap.
const NUDGE_PAUSE: Duration = Duration::from_secs(2);

/// Why a pod could not be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PollError {
    #[error("it has no address")]
    NoAddress,
    #[error("{}", root(.0))]
    Request(#[from] reqwest::Error),
    #[error("it answered with status {0}")]
    Status(u16),
    #[error("it answered with more than {LARGEST_ANSWER} bytes")]
    TooLarge,
    #[error("its answer is not what a server of this version says: {0}")]
    Unreadable(#[from] serde_json::Error),
}

/// The innermost cause: reqwest's own text stops at "error sending request".
fn root(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// A pod, and what it said.
#[derive(Debug)]
pub(crate) struct PolledPod {
    pub(crate) pod: Arc<PodView>,
    pub(crate) report: Result<ServerStatus, PollError>,
}

/// A client for admin ports: pods are asked directly, or through the one proxy that the operator was told of.
pub(crate) fn status_client(proxy: Option<&str>) -> reqwest::Result<reqwest::Client> {
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
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
            if let Err(error) = &report {
                metrics.poll_failed();
                tracing::debug!(pod = %pod.name_any(), %error, "a pod's status cannot be read");
            }
            PolledPod { pod, report }
        })
        .buffered(AT_ONCE)
        .collect()
        .await
}

async fn ask(client: &reqwest::Client, pod: &PodView) -> Result<ServerStatus, PollError> {
    let address: IpAddr =
        pod.status.pod_ip.as_deref().and_then(|address| address.parse().ok()).ok_or(PollError::NoAddress)?;
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
    Ok(serde_json::from_slice(&body)?)
}

impl PolledPod {
    /// Whether the pod enforces the policy of that revision.
    pub(crate) fn enforces(&self, revision: &str) -> bool {
        self.report.as_ref().is_ok_and(|report| report.policy.revision.as_deref() == Some(revision))
    }
}

/// Nudges every ready pod whose policy is old, at most every two seconds each. Nothing is restarted, and a pod that
/// enforces the policy is left alone.
pub(crate) async fn nudge(
    client: &Client,
    owner: &Owner,
    memory: &mut ServerMemory,
    pods: &[PolledPod],
    revision: &str,
    now: Instant,
) {
    memory.nudged.retain(|uid, _| pods.iter().any(|polled| polled.pod.metadata.uid.as_ref() == Some(uid)));
    let api = Api::<PodView>::namespaced(client.clone(), &owner.namespace);
    for polled in pods.iter().filter(|polled| polled.pod.is_ready() && !polled.enforces(revision)) {
        let uid = polled.pod.uid().unwrap_or_default();
        let recently = memory.nudged.get(&uid).is_some_and(|last| now.duration_since(*last) < NUDGE_PAUSE);
        let before = polled.pod.annotations().get(POLICY_REVISION).map(String::as_str);
        // One that cannot be asked is nudged once a revision: repeating would be writing for ever.
        let asked = polled.report.is_ok() || before.is_none_or(|value| counts(value, revision).is_none());
        if recently || !asked {
            continue;
        }
        let value = next_value(before, revision);
        let patch = json!({"metadata": {"annotations": {POLICY_REVISION: value}}});
        let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let name = polled.pod.name_any();
        match api.patch(&name, &parameters, &Patch::Merge(&patch)).await {
            Ok(_) => {
                tracing::info!(server = %owner.name, namespace = %owner.namespace, pod = %name, revision,
                    "nudged a pod: its policy is old");
                memory.nudged.insert(uid, now);
            }
            Err(error) if code(&error) == Some(404) => {}
            Err(error) => {
                tracing::warn!(pod = %name, %error, "a pod cannot be nudged; its kubelet will look by itself")
            }
        }
    }
}

/// How often a pod has been nudged towards a revision, if it has.
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
        Some(count) => format!("{revision}.{}", count.saturating_add(1)),
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
    }
}
