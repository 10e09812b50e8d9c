//! Which pods a request goes to: a pure function of the cluster's Ingresses, Services and EndpointSlices.

use std::cmp::Reverse;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{HTTPIngressPath, Ingress, IngressServiceBackend};
use kube::ResourceExt;

use super::is_ours;
use crate::forward::Target;

/// Every rule of every Ingress of our class, the one that wins first.
#[derive(Default)]
pub(super) struct Table {
    rules: Vec<Rule>,
}

struct Rule {
    host: Host,
    path: Path,
    backend: Backend,
}

/// Where a rule leads.
#[derive(Debug)]
pub(super) struct Backend {
    /// `namespace/name` of the Ingress, for whoever reads an error.
    pub(super) ingress: String,
    /// `namespace/name:port` of the Service.
    pub(super) service: String,
    /// Ready endpoints alone.
    pub(super) targets: Vec<Target>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Host {
    Exact(String),
    /// Below this domain by one label, as in `*.example.com`.
    Wildcard(String),
    Any,
}

impl Host {
    fn new(host: Option<&str>) -> Self {
        match host.map(str::to_ascii_lowercase) {
            None => Self::Any,
            Some(host) => match host.strip_prefix("*.") {
                Some(domain) => Self::Wildcard(domain.to_owned()),
                None => Self::Exact(host),
            },
        }
    }

    fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(wanted) => wanted == host,
            Self::Wildcard(domain) => host.split_once('.').is_some_and(|(_, parent)| parent == domain),
            Self::Any => true,
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Exact(_) => 0,
            Self::Wildcard(_) => 1,
            Self::Any => 2,
        }
    }
}

#[derive(Debug)]
struct Path {
    /// Of a prefix without its trailing slash: `/` is empty.
    path: String,
    exact: bool,
}

impl Path {
    fn new(rule: &HTTPIngressPath) -> Self {
        let exact = rule.path_type == "Exact";
        let path = rule.path.as_deref().unwrap_or("/");
        let path = if exact { path } else { path.trim_end_matches('/') };
        Self { path: path.to_owned(), exact }
    }

    /// A prefix is one of whole elements: `/a` matches `/a/b`, not `/ab`.
    fn matches(&self, path: &str) -> bool {
        match path.strip_prefix(&self.path) {
            Some("") => true,
            Some(rest) => !self.exact && rest.starts_with('/'),
            None => false,
        }
    }
}

impl Table {
    pub(super) fn new(ingresses: &[Arc<Ingress>], services: &[Arc<Service>], slices: &[Arc<EndpointSlice>]) -> Self {
        let mut ours: Vec<_> = ingresses.iter().filter(|ingress| is_ours(ingress)).collect();
        // Of two equal rules the older Ingress's counts, as in other controllers.
        ours.sort_by_key(|ingress| (ingress.creation_timestamp(), ingress.namespace(), ingress.name_any()));
        let mut rules: Vec<Rule> = ours.into_iter().flat_map(|ingress| rules(ingress, services, slices)).collect();
        rules.sort_by_key(|rule| (rule.host.rank(), Reverse(rule.path.path.len()), !rule.path.exact));
        Self { rules }
    }

    /// The backend for a host (lower case, without port) and path: the most specific host's longest path.
    pub(super) fn route(&self, host: &str, path: &str) -> Option<&Backend> {
        let found = self.rules.iter().find(|rule| rule.host.matches(host) && rule.path.matches(path));
        found.map(|rule| &rule.backend)
    }
}

fn rules(ingress: &Ingress, services: &[Arc<Service>], slices: &[Arc<EndpointSlice>]) -> Vec<Rule> {
    let namespace = ingress.namespace().unwrap_or_default();
    let mut found = Vec::new();
    for rule in ingress.spec.iter().flat_map(|spec| spec.rules.iter().flatten()) {
        for path in rule.http.iter().flat_map(|http| &http.paths) {
            let Some(service) = &path.backend.service else { continue };
            found.push(Rule {
                host: Host::new(rule.host.as_deref()),
                path: Path::new(path),
                backend: Backend {
                    ingress: format!("{namespace}/{}", ingress.name_any()),
                    service: format!("{namespace}/{}:{}", service.name, port_text(service)),
                    targets: targets(&namespace, service, services, slices),
                },
            });
        }
    }
    found
}

fn port_text(backend: &IngressServiceBackend) -> String {
    let port = backend.port.clone().unwrap_or_default();
    port.name.or_else(|| Some(port.number?.to_string())).unwrap_or_default()
}

fn targets(
    namespace: &str,
    backend: &IngressServiceBackend,
    services: &[Arc<Service>],
    slices: &[Arc<EndpointSlice>],
) -> Vec<Target> {
    let Some(port_name) = services
        .iter()
        .find(|service| service.namespace().as_deref() == Some(namespace) && service.name_any() == backend.name)
        .and_then(|service| port_name(service, backend))
    else {
        return Vec::new();
    };
    slices
        .iter()
        .filter(|slice| slice.namespace().as_deref() == Some(namespace))
        .filter(|slice| slice.labels().get("kubernetes.io/service-name") == Some(&backend.name))
        .flat_map(|slice| ready(slice, &port_name))
        .collect()
}

/// A slice knows a Service's port by its name, empty where the Service has but one without a name.
fn port_name(service: &Service, backend: &IngressServiceBackend) -> Option<String> {
    let wanted = backend.port.as_ref()?;
    let ports = service.spec.as_ref()?.ports.as_ref()?;
    let port = ports.iter().find(|port| match &wanted.name {
        Some(name) => port.name.as_ref() == Some(name),
        None => Some(port.port) == wanted.number,
    })?;
    Some(port.name.clone().unwrap_or_default())
}

fn ready(slice: &EndpointSlice, port_name: &str) -> Vec<Target> {
    let port = slice
        .ports
        .iter()
        .flatten()
        .find(|port| port.name.as_deref().unwrap_or_default() == port_name)
        .and_then(|port| u16::try_from(port.port?).ok());
    let Some(port) = port else { return Vec::new() };
    let mut targets = Vec::new();
    for endpoint in &slice.endpoints {
        // Absent means ready.
        if endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) == Some(false) {
            continue;
        }
        for address in &endpoint.addresses {
            match address.parse() {
                Ok(pod) => targets.push(Target { pod, port }),
                Err(error) => tracing::warn!("endpoint of {}: {error}", slice.name_any()),
            }
        }
    }
    targets
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::address::Announced;

    fn object<K: serde::de::DeserializeOwned>(value: Value) -> Arc<K> {
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn ingress(name: &str, created: u32, host: Option<&str>, port: Value) -> Arc<Ingress> {
        let backend = json!({ "service": { "name": name, "port": port } });
        object(json!({
            "metadata": { "name": name, "namespace": "n", "creationTimestamp": format!("2026-01-01T00:00:{created:02}Z") },
            "spec": {
                "ingressClassName": "testbed",
                "rules": [{ "host": host, "http": { "paths": [{ "pathType": "Prefix", "path": "/", "backend": backend }] } }],
            },
        }))
    }

    fn service(name: &str) -> Arc<Service> {
        object(json!({
            "metadata": { "name": name, "namespace": "n" },
            "spec": { "ports": [{ "name": "admin", "port": 81 }, { "name": "http", "port": 80 }] },
        }))
    }

    fn slice(name: &str, namespace: &str, pod: &str) -> Arc<EndpointSlice> {
        object(json!({
            "metadata": { "name": name, "namespace": namespace, "labels": { "kubernetes.io/service-name": name } },
            "addressType": "IPv4",
            "ports": [{ "name": "admin", "port": 9090 }, { "name": "http", "port": 8080 }],
            "endpoints": [{ "addresses": [pod] }],
        }))
    }

    fn leads_to(table: &Table, host: &str) -> Option<String> {
        table.route(host, "/").map(|backend| backend.ingress.clone())
    }

    #[test]
    fn the_most_specific_host_wins() {
        let http = json!({ "name": "http" });
        let hosts = [("any", None), ("below", Some("*.example.com")), ("exact", Some("A.example.com"))];
        let ingresses = hosts.map(|(name, host)| ingress(name, 0, host, http.clone()));
        let table = Table::new(&ingresses, &[], &[]);
        for (host, name) in [
            ("a.example.com", "n/exact"),
            ("b.example.com", "n/below"),
            ("a.b.example.com", "n/any"),
            ("example.com", "n/any"),
        ] {
            assert_eq!(leads_to(&table, host).as_deref(), Some(name), "{host}");
        }
        assert_eq!(leads_to(&Table::new(&ingresses[1..], &[], &[]), "example.com"), None);
    }

    #[test]
    fn of_equal_rules_the_older_ingress_counts() {
        let of = |name, created| ingress(name, created, Some("a.example.com"), json!({ "name": "http" }));
        for (first, second, winner) in [(1, 2, "n/one"), (2, 1, "n/two")] {
            let table = Table::new(&[of("one", first), of("two", second)], &[], &[]);
            assert_eq!(leads_to(&table, "a.example.com").as_deref(), Some(winner));
        }
    }

    #[test]
    fn a_port_by_name_or_number_is_that_of_the_services_own_namespace() {
        let slices = [slice("s", "n", "10.244.0.1"), slice("s", "other", "10.244.0.2"), slice("t", "n", "10.244.0.3")];
        let targets = |port| {
            let table = Table::new(&[ingress("s", 0, None, port)], &[service("s"), service("t")], &slices);
            table.route("any", "/").map(|backend| backend.targets.clone()).unwrap()
        };
        let pod = Announced::new(0, 1);
        assert_eq!(targets(json!({ "name": "http" })), [Target { pod, port: 8080 }]);
        assert_eq!(targets(json!({ "number": 81 })), [Target { pod, port: 9090 }]);
        assert_eq!(targets(json!({ "name": "https" })), []);
        assert_eq!(targets(json!({ "number": 8080 })), []);
    }
}
