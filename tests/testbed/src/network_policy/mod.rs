//! Evaluation of NetworkPolicies by the programs that pass traffic on, for the node whose pods are processes: these share
//! the machine's network, so no packet filter can tell one pod from another. The edge evaluates them as the pods of an
//! ingress controller, the pod proxy as the operator's pod, and an [`egress`] proxy as the pods that use it.
//!
//! The node with containers has an enforcer instead ([`crate::container_node`]). Differences from it: pods reach each other
//! directly, and all that they do not ask a proxy for; an open connection stays open; UDP, and so DNS, is not judged; an
//! `ipBlock` also matches the addresses of pods. A kubelet's probes are always let in, as everywhere.

pub mod egress;
mod evaluation;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures::StreamExt;
use futures::stream::select_all;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::runtime::reflector::Store;
use kube::runtime::watcher;
use kube::{Client, ResourceExt};
use tokio_util::task::AbortOnDropHandle;

use crate::controller::follow;
use evaluation::{End, PodEnd, check};

const SYNCED: Duration = Duration::from_secs(30);

/// Pods that a proxy represents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Namespace of the pods, which need not exist.
    pub namespace: String,
    /// Labels of the pods.
    pub labels: BTreeMap<String, String>,
}

impl Identity {
    /// Returns the pods of a namespace with one label, `app.kubernetes.io/name`.
    pub fn new(namespace: &str, app: &str) -> Self {
        let labels = BTreeMap::from([("app.kubernetes.io/name".to_owned(), app.to_owned())]);
        Self { namespace: namespace.to_owned(), labels }
    }
}

/// Current policies of the cluster. Clones share them; the last one ends the watches.
#[derive(Clone)]
pub struct NetworkPolicies {
    policies: Store<NetworkPolicy>,
    namespaces: Store<Namespace>,
    pods: Store<Pod>,
    _task: Arc<AbortOnDropHandle<()>>,
}

impl NetworkPolicies {
    /// Reads the cluster's policies, and follows their changes on the current tokio runtime.
    ///
    /// # Errors
    /// If they cannot be learnt in time.
    pub async fn start(client: &Client) -> anyhow::Result<Self> {
        let mut changes = Vec::new();
        let policies = follow(client, watcher::Config::default(), &mut changes);
        let namespaces = follow(client, watcher::Config::default(), &mut changes);
        let pods = follow(client, watcher::Config::default(), &mut changes);
        let mut changes = select_all(changes);
        let task = tokio::spawn(async move { while changes.next().await.is_some() {} });
        let started = Self { policies, namespaces, pods, _task: Arc::new(AbortOnDropHandle::new(task)) };
        let synced = async {
            started.policies.wait_until_ready().await?;
            started.namespaces.wait_until_ready().await?;
            started.pods.wait_until_ready().await
        };
        tokio::time::timeout(SYNCED, synced).await.context("the NetworkPolicies were not read in time")??;
        Ok(started)
    }

    /// Checks whether these pods may connect to the port. The error is the reason for people.
    ///
    /// # Errors
    /// Returns the reason for people.
    pub(crate) fn check(&self, from: &Identity, to: IpAddr, port: u16) -> Result<(), String> {
        let policies: Vec<NetworkPolicy> = self.policies.state().iter().map(|policy| (**policy).clone()).collect();
        if policies.is_empty() {
            return Ok(());
        }
        let subject = PodEnd {
            namespace: from.namespace.clone(),
            namespace_labels: self.labels_of(&from.namespace),
            labels: from.labels.clone(),
            ports: BTreeMap::new(),
        };
        check(&policies, &End { pod: Some(subject), address: None }, &self.end(to), port)
    }

    fn end(&self, address: IpAddr) -> End {
        let text = address.to_string();
        let has_it = |pod: &Arc<Pod>| {
            let status = pod.status.as_ref();
            let phase = status.and_then(|status| status.phase.as_deref());
            status.and_then(|status| status.pod_ip.as_ref()) == Some(&text)
                && !matches!(phase, Some("Succeeded" | "Failed"))
        };
        let pod = self.pods.state().into_iter().find(has_it);
        let pod = pod.map(|pod| PodEnd::new(&pod, self.labels_of(&pod.namespace().unwrap_or_default())));
        End { pod, address: Some(address) }
    }

    /// Returns the labels of a namespace. One that does not exist has the label that every namespace has.
    fn labels_of(&self, namespace: &str) -> BTreeMap<String, String> {
        let known = self.namespaces.state().into_iter().find(|known| known.name_any() == namespace);
        let name = || BTreeMap::from([("kubernetes.io/metadata.name".to_owned(), namespace.to_owned())]);
        known.map_or_else(name, |known| known.labels().clone())
    }
}
