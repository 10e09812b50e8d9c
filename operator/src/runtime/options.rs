//! Options of the operator, and what they allow for McpServers.

use std::{net::SocketAddr, str::FromStr, time::Duration};

use clap::Args;

use crate::MANAGER;

/// The configuration of the operator.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Image of mcp-entra-server for the pods.
    #[arg(long, env = "MCP_ENTRA_SERVER_IMAGE")]
    pub server_image: String,
    /// Another image that `spec.image` may name, or a prefix that ends with `*`. Repeatable. It runs with the server's
    /// identity and receives the tokens of its users.
    #[arg(long = "allowed-image", value_name = "IMAGE")]
    pub allowed_images: Vec<String>,
    /// An image that `spec.backend.image` may name, or a prefix that ends with `*`. Repeatable. By default no McpServer
    /// can have a backend. It runs beside the server, without the server's identity.
    #[arg(long = "allowed-backend-image", value_name = "IMAGE")]
    pub allowed_backend_images: Vec<String>,
    /// A resource that `spec.backend.identity.onBehalfOf.scope` may belong to, such as api://application. Repeatable.
    /// Backends receive users' tokens for it.
    #[arg(long = "allowed-backend-resource", value_name = "URI")]
    pub allowed_backend_resources: Vec<String>,
    /// Another Secret that `spec.backend.env` may name, besides those named after the McpServer. Repeatable. Every backend
    /// in the namespace may read it. Keys of authorization servers are never allowed.
    #[arg(long = "allowed-backend-secret", value_name = "NAMESPACE/NAME")]
    pub allowed_backend_secrets: Vec<String>,
    /// Number of servers whose pods are replaced at the same time after an upgrade of the operator.
    #[arg(long = "upgrades-at-once", value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    pub at_once: u16,
    /// Seconds after which a rollout without progress has failed. A failed rollout halts upgrades in its namespace; two
    /// halt them in all namespaces. A rollout that lacks room in the cluster gives up its turn, and halts no other
    /// upgrade.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub roll_out_deadline_seconds: u32,
    /// An address that `spec.entra.endpoints.authority` may name, as https://host or https://host:port. Repeatable. By
    /// default no McpServer can set endpoints. An authority decides which user each caller is.
    #[arg(long = "allowed-authority", value_name = "URL")]
    pub allowed_authorities: Vec<String>,
    /// An address that `spec.entra.endpoints.graph` may name, as https://host or https://host:port. Repeatable. It
    /// receives the users' tokens for Graph.
    #[arg(long = "allowed-graph", value_name = "URL")]
    pub allowed_graphs: Vec<String>,
    /// Let McpServers add CA certificates to their outgoing TLS with `spec.entra.trustBundle`.
    #[arg(long)]
    pub allow_trust_bundles: bool,
    /// An annotation that `spec.exposure.ingress.annotations` may have, or a prefix that ends with `*`. Repeatable. By
    /// default none is allowed: some controllers execute the content of annotations.
    #[arg(long = "allowed-ingress-annotation", value_name = "NAME")]
    pub allowed_ingress_annotations: Vec<String>,
    /// An annotation that `spec.podTemplate.annotations` may have, or a prefix that ends with `*`. Repeatable. By
    /// default none is allowed: annotations can inject containers, networks and security profiles into pods.
    #[arg(long = "allowed-pod-annotation", value_name = "NAME")]
    pub allowed_pod_annotations: Vec<String>,
    /// A label that `spec.podTemplate.labels` may have, or a prefix that ends with `*`. Repeatable. By default none is
    /// allowed: Services and policies select pods by labels.
    #[arg(long = "allowed-pod-label", value_name = "NAME")]
    pub allowed_pod_labels: Vec<String>,
    /// A namespace to watch and write in. Repeatable. By default all namespaces. Cluster mappings, namespaces and
    /// Gateways are always read in the whole cluster. Hosts and client ids of servers in other namespaces are not seen.
    #[arg(long = "watch-namespace", value_name = "NAMESPACE")]
    pub watch_namespaces: Vec<String>,
    /// A PriorityClass that `spec.podTemplate.priorityClassName` may name. Repeatable. By default none is allowed: pods
    /// with a higher priority evict pods of other owners.
    #[arg(long = "allowed-priority-class", value_name = "NAME")]
    pub allowed_priority_classes: Vec<String>,
    /// A host that `spec.exposure.host` may name, or `*.` with its parent domain, or `*` for any host. Repeatable. By
    /// default no McpServer can be exposed. Other routes and Ingresses are not checked, so allow only hosts that are
    /// meant for McpServers.
    #[arg(long = "allowed-host", value_name = "HOST")]
    pub allowed_hosts: Vec<String>,
    /// The operator's own namespace. It holds the lease for leader election and the claims on hosts and client ids. The
    /// admin ports of pods are polled from it.
    #[arg(long, env = "POD_NAMESPACE", default_value = "mcp-entra-system", value_name = "NAMESPACE")]
    pub operator_namespace: String,
    /// A namespace whose pods may read the servers' metrics on their admin ports if `spec.networkPolicy` is set.
    /// Repeatable.
    #[arg(long = "monitoring-namespace", value_name = "NAMESPACE")]
    pub monitoring_namespaces: Vec<String>,
    /// Create a PodMonitor of the Prometheus operator for each server, with this label if Prometheus selects by label.
    /// It is not a ServiceMonitor, because no Service contains the admin port with the metrics.
    #[arg(long, value_name = "KEY=VALUE", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub pod_monitors: Option<PodMonitors>,
    /// Forward proxy for polls of the pods' admin ports. Proxies from the environment are never used.
    #[arg(long, value_name = "URL")]
    pub pod_proxy_url: Option<String>,
    /// Addresses of proxies in front of the servers (Gateways, ingress controllers), as a range such as `10.0.0.0/8`.
    /// Repeatable. Their X-Forwarded-For is trusted, so that limits by address apply to the clients.
    #[arg(long = "trusted-proxy", value_name = "CIDR")]
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// Seconds between polls of a pod's status in a stable state.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub status_poll_seconds: u32,
    /// Seconds between a pod's probes of its federated credential while they succeed.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=86400))]
    pub probe_interval_seconds: u32,
    /// Seconds after which another replica takes over from a leader that disappeared. A leader that cannot renew its
    /// lease exits after two thirds of this time.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u16).range(3..=300))]
    pub lease_duration_seconds: u16,
    /// Identity of this replica for the lease. It must be unique. The default is the host name with a random suffix.
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub identity: Option<String>,
    /// Seconds for which a host or client id stays reserved after its McpServer is deleted or names another. In that
    /// time only the same McpServer can claim it again.
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..=86400))]
    pub release_after_seconds: u32,
    /// Address of /healthz, /readyz and /metrics. `[::]` accepts IPv4 connections, too. Without IPv6 it becomes
    /// `0.0.0.0`.
    #[arg(long, default_value = "[::]:8080")]
    pub listen: SocketAddr,
}

/// The label by which the Prometheus operator finds PodMonitors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodMonitors {
    /// The label that Prometheus selects by, if it selects by label.
    pub label: Option<(String, String)>,
}

impl FromStr for PodMonitors {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok(Self { label: Some((key.to_owned(), value.to_owned())) }),
            None if text.is_empty() => Ok(Self::default()),
            _ => Err("set a label as KEY=VALUE, such as release=prometheus"),
        }
    }
}

impl Options {
    /// Returns the identity of this replica for the lease.
    pub(crate) fn identity(&self) -> String {
        self.identity.clone().unwrap_or_else(|| {
            let host = std::env::var("HOSTNAME").unwrap_or_else(|_| MANAGER.to_owned());
            format!("{host}-{:08x}", rand::random::<u32>())
        })
    }

    /// Returns the time after which another replica can take the lease of a leader that is gone.
    pub(crate) fn lease_duration(&self) -> Duration {
        Duration::from_secs(self.lease_duration_seconds.into())
    }

    /// Returns the time for which a value stays reserved after its server is gone.
    pub(crate) fn release_after(&self) -> Duration {
        Duration::from_secs(self.release_after_seconds.into())
    }

    /// Returns the time between polls of a pod's status in a stable state.
    pub(crate) fn status_poll(&self) -> Duration {
        Duration::from_secs(self.status_poll_seconds.into())
    }
}

/// Returns true if a name is in a list of names and of prefixes that end with `*`.
pub(crate) fn matches_any(allowed: &[String], name: &str) -> bool {
    allowed.iter().any(|allowed| match allowed.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == allowed,
    })
}
