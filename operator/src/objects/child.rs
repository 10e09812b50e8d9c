//! The kinds of children: what each is to the API server, what it is called, and what it is for.

use kube::{Api, Client, api::DynamicObject, discovery::ApiResource};
use serde::Serialize;
use serde_json::Value;

/// A kind of child; a server has at most one of each. In the order in which they are applied: a pod's needs before the
/// Deployment, a route after what it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ChildKind {
    Policy,
    ServiceAccount,
    Configuration,
    NetworkPolicy,
    Service,
    Deployment,
    DisruptionBudget,
    Autoscaler,
    PodMonitor,
    Certificate,
    ListenerSet,
    HttpRoute,
    Ingress,
}

/// What a kind is to the API server.
pub(super) struct Names {
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    pub(super) kind: &'static str,
    pub(super) plural: &'static str,
}

const fn names(group: &'static str, version: &'static str, kind: &'static str, plural: &'static str) -> Names {
    Names { group, version, kind, plural }
}

impl ChildKind {
    /// Every kind, in the order in which they are applied.
    pub(crate) const ALL: &[Self] = &[
        Self::Policy,
        Self::ServiceAccount,
        Self::Configuration,
        Self::NetworkPolicy,
        Self::Service,
        Self::Deployment,
        Self::DisruptionBudget,
        Self::Autoscaler,
        Self::PodMonitor,
        Self::Certificate,
        Self::ListenerSet,
        Self::HttpRoute,
        Self::Ingress,
    ];

    /// What leads clients to the server: to be gone at once where nothing is to be exposed.
    pub(crate) const EXPOSING: &[Self] = &[Self::Ingress, Self::HttpRoute, Self::ListenerSet, Self::Certificate];

    pub(super) fn names(self) -> Names {
        match self {
            Self::Policy | Self::Configuration => names("", "v1", "ConfigMap", "configmaps"),
            Self::ServiceAccount => names("", "v1", "ServiceAccount", "serviceaccounts"),
            Self::Service => names("", "v1", "Service", "services"),
            Self::Deployment => names("apps", "v1", "Deployment", "deployments"),
            Self::NetworkPolicy => names("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"),
            Self::DisruptionBudget => names("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
            Self::Autoscaler => names("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
            Self::PodMonitor => names("monitoring.coreos.com", "v1", "PodMonitor", "podmonitors"),
            Self::Certificate => names("cert-manager.io", "v1", "Certificate", "certificates"),
            Self::ListenerSet => names("gateway.networking.k8s.io", "v1", "ListenerSet", "listenersets"),
            Self::HttpRoute => names("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes"),
            Self::Ingress => names("networking.k8s.io", "v1", "Ingress", "ingresses"),
        }
    }

    /// Whether a server may do without, so that one which is no longer built is deleted.
    pub(crate) fn is_optional(self) -> bool {
        !matches!(self, Self::Policy | Self::Configuration | Self::Service | Self::Deployment)
    }

    /// Who brings the kind to a cluster, for those that Kubernetes itself does not have.
    pub(crate) fn brought_by(self) -> Option<&'static str> {
        match self {
            Self::Certificate => Some("cert-manager"),
            Self::PodMonitor => Some("the Prometheus operator"),
            Self::HttpRoute => Some("Gateway API (standard channel)"),
            Self::ListenerSet => Some("Gateway API (standard channel, 1.5 or newer)"),
            _ => None,
        }
    }

    /// The kind whose watch shows it: both ConfigMaps are shown by one.
    pub(crate) fn watched_as(self) -> Self {
        if self == Self::Configuration { Self::Policy } else { self }
    }

    /// Whether more is read of it than its metadata.
    pub(crate) fn is_read(self) -> bool {
        match self {
            Self::Deployment | Self::Autoscaler => true,
            Self::Certificate | Self::ListenerSet | Self::HttpRoute | Self::Ingress => true,
            Self::Policy | Self::Configuration | Self::ServiceAccount | Self::NetworkPolicy => false,
            Self::Service | Self::DisruptionBudget | Self::PodMonitor => false,
        }
    }

    /// The kind as Kubernetes names it.
    pub(crate) fn kind(self) -> &'static str {
        self.names().kind
    }

    /// The plural that discovery lists.
    pub(crate) fn plural(self) -> &'static str {
        self.names().plural
    }

    /// `group/version`, or the version alone for the core group.
    pub(crate) fn api_version(self) -> String {
        let Names { group, version, .. } = self.names();
        if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
    }

    /// What the API server calls it, for clients of objects that have no type here.
    pub(crate) fn api_resource(self) -> ApiResource {
        let Names { group, version, kind, plural } = self.names();
        ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version: self.api_version(),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
        }
    }

    /// An object of the kind as an argument of kubectl: the kind with its group, and the name.
    pub(crate) fn kubectl_name(self, name: &str) -> String {
        let Names { group, kind, .. } = self.names();
        let dot = if group.is_empty() { "" } else { "." };
        format!("{}{dot}{group}/{name}", kind.to_lowercase())
    }

    /// A client for whole objects of the kind.
    pub(crate) fn api(self, client: &Client, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(client.clone(), namespace, &self.api_resource())
    }

    /// Says if other children refer to it by its name.
    pub(crate) fn is_referred_to(self) -> bool {
        matches!(self, Self::Policy | Self::Configuration | Self::ServiceAccount | Self::Service)
    }

    /// The child's name: the server's, or derived from it. The federated credential's subject depends on it.
    pub(crate) fn name(self, server: &str) -> String {
        match self {
            Self::Policy => format!("{server}-policy"),
            Self::Configuration => format!("{server}-config"),
            Self::Certificate => format!("{server}-tls"),
            _ => server.to_owned(),
        }
    }
}

/// A child as built: the whole of what is applied.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Child {
    pub(crate) kind: ChildKind,
    pub(crate) object: Value,
}

impl Child {
    /// # Errors
    /// If the object cannot be written as JSON, which no Kubernetes object refuses.
    pub(crate) fn new(kind: ChildKind, object: &impl Serialize) -> Result<Self, serde_json::Error> {
        Ok(Self { kind, object: serde_json::to_value(object)? })
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        self.object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default()
    }

    /// The child as an argument of kubectl.
    pub(crate) fn kubectl_name(&self) -> String {
        self.kind.kubectl_name(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_applied_in_its_order_and_what_exposes_can_be_done_without() {
        assert!(ChildKind::ALL.is_sorted(), "the order of the kinds is the order in which they are applied");
        assert!(ChildKind::EXPOSING.iter().all(|kind| kind.is_optional()));
        assert!(ChildKind::ALL.iter().filter(|kind| kind.brought_by().is_some()).all(|kind| kind.is_optional()));
    }

    #[test]
    fn children_of_one_kind_have_different_names() {
        assert_ne!(ChildKind::Policy.name("graph"), ChildKind::Configuration.name("graph"));
    }
}
