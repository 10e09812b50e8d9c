//! The facts that a status follows from.

use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::jiff::Timestamp;
use mcp_entra_crds::{Exposure, McpServer};

use crate::{
    fleet,
    mcpserver::{apply::Conflict, pod_status::PolledPod, status::exposed::Leading, validate::refusal::Refusal},
    objects::{
        child::ChildKind,
        config_map_edition::Mounted,
        owner::Owner,
        views::{ChildView, PodView},
    },
    ownership::Standing,
    policy::compile::Compiled,
    runtime::errors::Error,
    watch::stores::OwnChildren,
};

/// How long a ready pod may fail to report the compiled policy before the conditions say so.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// What a pass has found out about one McpServer.
pub(crate) struct Facts<'a> {
    pub(crate) server: &'a McpServer,
    pub(crate) owner: &'a Owner,
    /// Whether the spec is accepted; absent where that could not be found out.
    pub(crate) validation: Option<Result<(), &'a Refusal>>,
    /// Hash of the configuration that the pods should have, if the spec is accepted.
    pub(crate) configuration: Option<String>,
    pub(crate) conflict: Option<&'a Conflict>,
    /// Its standing among the servers that name the same host or client id.
    pub(crate) standing: &'a Standing,
    pub(crate) error: Option<&'a Error>,
    pub(crate) policy: &'a Compiled,
    /// Whether the Deployment has been applied, but not been seen again since.
    pub(crate) deployment_is_stale: bool,
    /// Kinds that the spec asks for and this cluster lacks.
    pub(crate) missing: &'a BTreeSet<ChildKind>,
    /// Why the pods as built are not rolled out yet.
    pub(crate) upgrade: Option<&'a fleet::Waits>,
    pub(crate) mounted: Mounted,
    pub(crate) children: &'a OwnChildren,
    /// Gateways and listeners that the spec names and that do not exist, in words.
    pub(crate) absent: &'a [String],
    /// The children of the earlier server of this host whose listener this one shares, if it shares one.
    pub(crate) carrying: &'a OwnChildren,
    pub(crate) pods: &'a [&'a PodView],
    pub(crate) polled: &'a [PolledPod],
    /// For how long some ready pod has not reported the compiled policy.
    pub(crate) lagging: Option<Duration>,
    /// For how long some ready pod has not ended its first probe, or could not be asked.
    pub(crate) probing: Option<Duration>,
}

impl<'a> Facts<'a> {
    pub(crate) fn child(&self, kind: ChildKind) -> Option<&'a ChildView> {
        self.children.get(&kind).map(|child| &**child)
    }

    /// What leads clients to the server: where it shares an older server's listener, that one's.
    pub(super) fn leading(&self, exposure: &'a Exposure, now: Timestamp) -> Leading<'a> {
        let listener_of = self.standing.held().and_then(|held| held.listener_of.as_ref());
        let carrying = if listener_of.is_some() { self.carrying } else { self.children };
        let carried = |kind| carrying.get(&kind).map(|child| &**child);
        Leading {
            namespace: &self.owner.namespace,
            exposure,
            absent: self.absent,
            ingress: self.child(ChildKind::Ingress),
            route: self.child(ChildKind::HttpRoute),
            listener_set: carried(ChildKind::ListenerSet),
            listener_set_name: &listener_of.unwrap_or(self.owner).name,
            certificate: carried(ChildKind::Certificate),
            now,
        }
    }

    /// Says whether the spec could be applied, if it were decided who holds what it names.
    pub(crate) fn is_undecided(&self) -> bool {
        *self.standing == Standing::Open
            && !self.server.spec.suspend
            && self.error.is_none()
            && self.validation.is_some_and(|validation| validation.is_ok())
    }

    pub(crate) fn ready_pods(&self) -> impl Iterator<Item = &PolledPod> {
        self.polled.iter().filter(|polled| polled.pod.is_ready())
    }

    /// Ready pods that were started with the configuration that there should be.
    pub(crate) fn current_pods(&self) -> Vec<&PolledPod> {
        let is_current = |polled: &&PolledPod| {
            self.configuration.is_none() || polled.pod.configuration_hash.as_deref() == self.configuration.as_deref()
        };
        self.ready_pods().filter(is_current).collect()
    }
}

/// Whether a ready pod has yet to say whether its credential works.
pub(crate) fn is_probing(polled: &PolledPod) -> bool {
    polled.pod.is_ready() && !polled.report.as_ref().is_ok_and(|report| report.works.is_some())
}
