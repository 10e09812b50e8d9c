//! Kinds of children, their names at the API server, and the children as built.

use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        autoscaling::v2::HorizontalPodAutoscaler,
        core::v1::{ConfigMap, Service, ServiceAccount},
        networking::v1::{Ingress, NetworkPolicy},
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, Client, api::DynamicObject, discovery::ApiResource};
use serde::Serialize;
use serde_json::{Value, json};

/// A kind of child, of which a server has at most one. The order is the order of applying: dependencies of pods before
/// the Deployment, and backends before routes.
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

/// The names of a kind at the API server.
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
    /// All kinds in the order of applying.
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

    /// The kinds that route clients to the server. They are deleted at once if the server is not exposed.
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

    /// Returns true if a server may lack the child. The operator deletes such a child when it is no longer built.
    pub(crate) fn is_optional(self) -> bool {
        !matches!(self, Self::Policy | Self::Configuration | Self::Service | Self::Deployment)
    }

    /// Returns the product that installs the kind, unless it is built into Kubernetes.
    pub(crate) fn brought_by(self) -> Option<&'static str> {
        match self {
            Self::Certificate => Some("cert-manager"),
            Self::PodMonitor => Some("the Prometheus operator"),
            Self::HttpRoute => Some("Gateway API (standard channel)"),
            Self::ListenerSet => Some("Gateway API (standard channel, 1.5 or newer)"),
            _ => None,
        }
    }

    /// Returns the kind whose watch contains it: one watch shows both ConfigMaps.
    pub(crate) fn watched_as(self) -> Self {
        if self == Self::Configuration { Self::Policy } else { self }
    }

    /// Returns true if more than its metadata is read.
    pub(crate) fn is_read(self) -> bool {
        match self {
            Self::Deployment | Self::Autoscaler => true,
            Self::Certificate | Self::ListenerSet | Self::HttpRoute | Self::Ingress => true,
            Self::Policy | Self::Configuration | Self::ServiceAccount | Self::NetworkPolicy => false,
            Self::Service | Self::DisruptionBudget | Self::PodMonitor => false,
        }
    }

    /// Returns the name of the kind.
    pub(crate) fn kind(self) -> &'static str {
        self.names().kind
    }

    /// Returns the plural that discovery lists.
    pub(crate) fn plural(self) -> &'static str {
        self.names().plural
    }

    /// Returns `group/version`, or only the version for the core group.
    pub(crate) fn api_version(self) -> String {
        let Names { group, version, .. } = self.names();
        if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
    }

    /// Returns the API resource, for clients of untyped objects.
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

    /// Returns an object as kubectl's argument: the kind with its group, and the name.
    pub(crate) fn kubectl_name(self, name: &str) -> String {
        let Names { group, kind, .. } = self.names();
        let dot = if group.is_empty() { "" } else { "." };
        format!("{}{dot}{group}/{name}", kind.to_lowercase())
    }

    /// Returns a client for full objects of the kind.
    pub(crate) fn api(self, client: &Client, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(client.clone(), namespace, &self.api_resource())
    }

    /// Returns true if other children refer to it by name.
    pub(crate) fn is_referred_to(self) -> bool {
        matches!(self, Self::Policy | Self::Configuration | Self::ServiceAccount | Self::Service)
    }

    /// Returns the child's name: the server's name, or derived from it. The subject of the federated credential depends
    /// on it.
    pub(crate) fn name(self, server: &str) -> String {
        match self {
            Self::Policy => format!("{server}-policy"),
            Self::Configuration => format!("{server}-config"),
            Self::Certificate => format!("{server}-tls"),
            _ => server.to_owned(),
        }
    }
}

/// A child as built, with all fields that are applied. Third-party kinds are untyped objects.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum Child {
    Policy(ConfigMap),
    ServiceAccount(ServiceAccount),
    Configuration(ConfigMap),
    NetworkPolicy(NetworkPolicy),
    Service(Service),
    Deployment(Box<Deployment>),
    DisruptionBudget(PodDisruptionBudget),
    Autoscaler(HorizontalPodAutoscaler),
    PodMonitor(DynamicObject),
    Certificate(DynamicObject),
    ListenerSet(DynamicObject),
    HttpRoute(DynamicObject),
    Ingress(Ingress),
}

impl Child {
    pub(crate) fn kind(&self) -> ChildKind {
        match self {
            Self::Policy(_) => ChildKind::Policy,
            Self::ServiceAccount(_) => ChildKind::ServiceAccount,
            Self::Configuration(_) => ChildKind::Configuration,
            Self::NetworkPolicy(_) => ChildKind::NetworkPolicy,
            Self::Service(_) => ChildKind::Service,
            Self::Deployment(_) => ChildKind::Deployment,
            Self::DisruptionBudget(_) => ChildKind::DisruptionBudget,
            Self::Autoscaler(_) => ChildKind::Autoscaler,
            Self::PodMonitor(_) => ChildKind::PodMonitor,
            Self::Certificate(_) => ChildKind::Certificate,
            Self::ListenerSet(_) => ChildKind::ListenerSet,
            Self::HttpRoute(_) => ChildKind::HttpRoute,
            Self::Ingress(_) => ChildKind::Ingress,
        }
    }

    fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Policy(object) | Self::Configuration(object) => &object.metadata,
            Self::ServiceAccount(object) => &object.metadata,
            Self::NetworkPolicy(object) => &object.metadata,
            Self::Service(object) => &object.metadata,
            Self::Deployment(object) => &object.metadata,
            Self::DisruptionBudget(object) => &object.metadata,
            Self::Autoscaler(object) => &object.metadata,
            Self::PodMonitor(object) | Self::Certificate(object) => &object.metadata,
            Self::ListenerSet(object) | Self::HttpRoute(object) => &object.metadata,
            Self::Ingress(object) => &object.metadata,
        }
    }

    pub(crate) fn name(&self) -> &str {
        self.metadata().name.as_deref().unwrap_or_default()
    }

    /// Returns the child as kubectl's argument.
    pub(crate) fn kubectl_name(&self) -> String {
        self.kind().kubectl_name(self.name())
    }
}

/// Returns a child, or a part of one, as JSON. [`json!`] cannot panic here: Kubernetes objects consist of text,
/// numbers, lists, and maps with text keys.
pub(crate) fn json_of(built: &impl Serialize) -> Value {
    json!(built)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_applied_in_order_and_kinds_that_expose_are_optional() {
        assert!(ChildKind::ALL.is_sorted(), "the order of the kinds is the order of applying");
        assert!(ChildKind::EXPOSING.iter().all(|kind| kind.is_optional()));
        assert!(ChildKind::ALL.iter().filter(|kind| kind.brought_by().is_some()).all(|kind| kind.is_optional()));
    }

    #[test]
    fn children_of_one_kind_have_different_names() {
        assert_ne!(ChildKind::Policy.name("graph"), ChildKind::Configuration.name("graph"));
    }
}
