//! Options of the operator, and what they allow McpServers.

use std::{net::SocketAddr, str::FromStr, time::Duration};

use clap::Args;

use crate::MANAGER;

/// The operator's own configuration.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Image of mcp-entra-server that the pods run.
    #[arg(long, env = "MCP_ENTRA_SERVER_IMAGE")]
    pub server_image: String,
    /// Another image that `spec.image` may name, or a prefix of such with a trailing `*`; repeatable. It runs under the
    /// server's identity, and is handed its users' tokens.
    #[arg(long = "allowed-image", value_name = "IMAGE")]
    pub allowed_images: Vec<String>,
    /// An image that `spec.backend.image` may name, or a prefix of such with a trailing `*`; repeatable. None: no McpServer
    /// has a backend. It runs beside the server, without its identity.
    #[arg(long = "allowed-backend-image", value_name = "IMAGE")]
    pub allowed_backend_images: Vec<String>,
    /// A resource that `spec.backend.identity.onBehalfOf.scope` may be of, as api://application; repeatable. Backends are
    /// handed users' tokens for it.
    #[arg(long = "allowed-backend-resource", value_name = "URI")]
    pub allowed_backend_resources: Vec<String>,
    /// Servers whose pods are replaced at once where the operator itself wants other pods: after its own upgrade.
    #[arg(long = "upgrades-at-once", value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    pub at_once: u16,
    /// Seconds after which a roll-out that makes no progress has failed, and halts upgrades of its namespace, or of all
    /// namespaces once two have failed. One that finds no room gives its turn back then, and halts nobody.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub roll_out_deadline_seconds: u32,
    /// An address that `spec.entra.endpoints.authority` may name, as https://host[:port]; repeatable. None: no McpServer
    /// may set endpoints. Whoever runs an authority decides who every user of its servers is.
    #[arg(long = "allowed-authority", value_name = "URL")]
    pub allowed_authorities: Vec<String>,
    /// An address that `spec.entra.endpoints.graph` may name, as https://host[:port]; repeatable. Whoever runs it is
    /// handed the users' tokens for Graph.
    #[arg(long = "allowed-graph", value_name = "URL")]
    pub allowed_graphs: Vec<String>,
    /// Let McpServers add CA certificates to their outgoing TLS by `spec.entra.trustBundle`.
    #[arg(long)]
    pub allow_trust_bundles: bool,
    /// An annotation that `spec.exposure.ingress.annotations` may have, or a prefix of such with a trailing `*`;
    /// repeatable. Some controllers run what annotations say, so that none is allowed unasked.
    #[arg(long = "allowed-ingress-annotation", value_name = "NAME")]
    pub allowed_ingress_annotations: Vec<String>,
    /// An annotation that `spec.podTemplate.annotations` may have, or a prefix of such with a trailing `*`; repeatable. None
    /// is allowed unasked: annotations can inject containers, networks and security profiles into pods.
    #[arg(long = "allowed-pod-annotation", value_name = "NAME")]
    pub allowed_pod_annotations: Vec<String>,
    /// A label that `spec.podTemplate.labels` may have, or a prefix of such with a trailing `*`; repeatable. None is
    /// allowed unasked: labels decide which Services and policies mean a pod.
    #[arg(long = "allowed-pod-label", value_name = "NAME")]
    pub allowed_pod_labels: Vec<String>,
    /// A namespace to watch and write in; repeatable. None named: all of them. Cluster mappings, namespaces and Gateways are
    /// read in the whole cluster in any case. What servers elsewhere claim, hosts and client ids, is not seen.
    #[arg(long = "watch-namespace", value_name = "NAMESPACE")]
    pub watch_namespaces: Vec<String>,
    /// A PriorityClass that `spec.podTemplate.priorityClassName` may name; repeatable. None is allowed unasked: pods of a
    /// higher priority take the place of others, whoever's they are.
    #[arg(long = "allowed-priority-class", value_name = "NAME")]
    pub allowed_priority_classes: Vec<String>,
    /// A host that `spec.exposure.host` may name, `*.` and the domain that it is to lie in, or `*` for any; repeatable. None:
    /// no McpServer is exposed. Routes and Ingresses of others are not checked, so a host must be meant for McpServers.
    #[arg(long = "allowed-host", value_name = "HOST")]
    pub allowed_hosts: Vec<String>,
    /// The operator's own namespace: that of the lease by which its replicas elect their leader and of the claims on hosts
    /// and client ids, and from which the pods' admin ports are polled.
    #[arg(long, env = "POD_NAMESPACE", default_value = "mcp-entra-system", value_name = "NAMESPACE")]
    pub operator_namespace: String,
    /// A namespace whose pods may read the servers' metrics on their admin ports, where `spec.networkPolicy` is set;
    /// repeatable.
    #[arg(long = "monitoring-namespace", value_name = "NAMESPACE")]
    pub monitoring_namespaces: Vec<String>,
    /// Give each server a PodMonitor for the Prometheus operator, with that label if Prometheus selects by one. Not a
    /// ServiceMonitor: the admin port, which has the metrics, is in no Service.
    #[arg(long, value_name = "KEY=VALUE", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub pod_monitors: Option<PodMonitors>,
    /// Forward proxy through which the pods' admin ports are polled. Proxies of the environment are never used.
    #[arg(long, value_name = "URL")]
    pub pod_proxy_url: Option<String>,
    /// Proxies before the servers (Gateways, ingress controllers), as a range of addresses such as `10.0.0.0/8`: what they
    /// write into X-Forwarded-For is believed, so that limits by address mean clients; repeatable.
    #[arg(long = "trusted-proxy", value_name = "CIDR")]
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// Seconds between polls of a pod's status while nothing changes.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub status_poll_seconds: u32,
    /// Seconds between a pod's probes of its federated credential while they work.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=86400))]
    pub probe_interval_seconds: u32,
    /// Seconds after which another replica takes over from a leader that is gone without a word. A leader that cannot
    /// renew its lease ends after two thirds of them.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u16).range(3..=300))]
    pub lease_duration_seconds: u16,
    /// Name by which this replica holds the lease, nobody else's. By default the host's, with something random.
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub identity: Option<String>,
    /// Seconds for which a host or client id is kept for an McpServer that is gone or names another, so that the same one
    /// can come back.
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..=86400))]
    pub release_after_seconds: u32,
    /// Where /healthz, /readyz and /metrics are served. `[::]` takes IPv4 connections, too; without IPv6 it is `0.0.0.0`.
    #[arg(long, default_value = "[::]:8080")]
    pub listen: SocketAddr,
}

/// The way in which the Prometheus operator finds PodMonitors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodMonitors {
    /// The label by which Prometheus selects them, if it does.
    pub label: Option<(String, String)>,
}

impl FromStr for PodMonitors {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok(Self { label: Some((key.to_owned(), value.to_owned())) }),
            None if text.is_empty() => Ok(Self::default()),
            _ => Err("name a label as KEY=VALUE, such as release=prometheus"),
        }
    }
}

impl Options {
    /// Name by which this replica holds the lease.
    pub(crate) fn identity(&self) -> String {
        self.identity.clone().unwrap_or_else(|| {
            let host = std::env::var("HOSTNAME").unwrap_or_else(|_| MANAGER.to_owned());
            format!("{host}-{:08x}", rand::random::<u32>())
        })
    }

    /// Time after which the lease of a leader that is gone can be taken.
    pub(crate) fn lease_duration(&self) -> Duration {
        Duration::from_secs(self.lease_duration_seconds.into())
    }

    /// Time for which a value is kept for a server that is gone.
    pub(crate) fn release_after(&self) -> Duration {
        Duration::from_secs(self.release_after_seconds.into())
    }

    /// Time between polls of a pod's status while nothing changes.
    pub(crate) fn status_poll(&self) -> Duration {
        Duration::from_secs(self.status_poll_seconds.into())
    }
}

/// Returns true if a list of names, or of prefixes followed by `*`, has a name.
pub(crate) fn matches_any(allowed: &[String], name: &str) -> bool {
    allowed.iter().any(|allowed| match allowed.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == allowed,
    })
}
