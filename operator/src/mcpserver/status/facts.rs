//! Facts that a status depends on.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use mcp_entra_crds::{Exposure, McpServer};

use crate::{
    mcpserver::{
        build::configuration_hash,
        outcome::Outcome,
        pod_status::PolledPod,
        poll::Answers,
        status::{exposed::Leading, observed_children::ObservedChildren},
    },
    objects::{child::ChildKind, owner::Owner, views::ChildView},
    ownership::Standing,
    policy::compile::Compiled,
};

/// Time for a ready pod to report the compiled policy before the conditions show a failure.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// The facts that a pass has found about one McpServer.
pub(crate) struct Facts<'a> {
    pub(crate) server: &'a McpServer,
    pub(crate) owner: &'a Owner,
    pub(crate) compiled: &'a Compiled,
    pub(crate) outcome: &'a Outcome,
    pub(crate) observed: &'a ObservedChildren,
    pub(crate) answers: &'a Answers,
}

impl<'a> Facts<'a> {
    pub(crate) fn child(&self, kind: ChildKind) -> Option<&'a ChildView> {
        self.observed.own.get(&kind).map(|child| &**child)
    }

    /// Returns the children that route clients to the server. A shared listener's children belong to the older server.
    pub(super) fn leading(&self, exposure: &'a Exposure, now: Timestamp) -> Leading<'a> {
        let listener_of = self.outcome.standing.held().and_then(|held| held.listener_of.as_ref());
        let carrying = if listener_of.is_some() { &self.observed.carrying } else { &self.observed.own };
        let exposed = self.outcome.accepted().and_then(|accepted| accepted.exposure.as_ref());
        let carried = |kind| carrying.get(&kind).map(|child| &**child);
        Leading {
            namespace: &self.owner.namespace,
            exposure,
            absent: exposed.map(|exposed| exposed.absent.as_slice()).unwrap_or_default(),
            ingress: self.child(ChildKind::Ingress),
            route: self.child(ChildKind::HttpRoute),
            listener_set: carried(ChildKind::ListenerSet),
            listener_set_name: &listener_of.unwrap_or(self.owner).name,
            certificate: carried(ChildKind::Certificate),
            now,
        }
    }

    /// Returns true if the spec could be applied, but its claims are undecided.
    pub(crate) fn is_undecided(&self) -> bool {
        self.outcome.standing == Standing::Open
            && !self.server.spec.suspend
            && self.outcome.error().is_none()
            && self.outcome.accepted().is_some()
    }

    /// Returns the ready pods that run with the desired configuration.
    pub(crate) fn current_pods(&self) -> Vec<&'a PolledPod> {
        let settled = self.outcome.accepted().filter(|accepted| accepted.is_settled());
        let configuration = settled.map(configuration_hash);
        let is_current = |polled: &&PolledPod| {
            configuration.is_none() || polled.pod.configuration_hash.as_deref() == configuration.as_deref()
        };
        self.answers.ready().filter(is_current).collect()
    }
}
