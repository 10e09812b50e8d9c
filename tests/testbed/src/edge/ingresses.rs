//! Rules of the Ingresses of our class, and the endpoints of each rule.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressServiceBackend};
use kube::ResourceExt;

use super::is_ours;
use super::table::{Backend, Host, Path, Rule};
use crate::forward::Target;

/// Returns the rules of every Ingress of our class, older Ingresses first, as in other controllers.
pub(super) fn all_rules(
    ingresses: &[Arc<Ingress>],
    services: &[Arc<Service>],
    slices: &[Arc<EndpointSlice>],
) -> Vec<Rule> {
    let mut ours: Vec<_> = ingresses.iter().filter(|ingress| is_ours(ingress)).collect();
    ours.sort_by_key(|ingress| (ingress.creation_timestamp(), ingress.namespace(), ingress.name_any()));
    ours.into_iter().flat_map(|ingress| rules(ingress, services, slices)).collect()
}

fn rules(ingress: &Ingress, services: &[Arc<Service>], slices: &[Arc<EndpointSlice>]) -> Vec<Rule> {
    let namespace = ingress.namespace().unwrap_or_default();
    let mut found = Vec::new();
    for rule in ingress.spec.iter().flat_map(|spec| spec.rules.iter().flatten()) {
        for path in rule.http.iter().flat_map(|http| &http.paths) {
            let Some(service) = &path.backend.service else { continue };
            found.push(Rule {
                host: Host::of_ingress(rule.host.as_deref()),
                path: Path::new(path.path.as_deref().unwrap_or("/"), path.path_type == "Exact"),
                backend: Backend {
                    route: format!("Ingress {namespace}/{}", ingress.name_any()),
                    service: Some(format!("{namespace}/{}:{}", service.name, port_text(service))),
                    targets: targets(&namespace, service, services, slices),
                    limit: None,
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

/// Returns the ready endpoints of a port of a Service; none if the Service or port does not exist.
pub(super) fn targets(
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

/// A slice has the name of the Service's port. It is empty if the Service has a single port without a name.
pub(super) fn port_name(service: &Service, backend: &IngressServiceBackend) -> Option<String> {
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
    use crate::edge::table::Table;

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

    fn table_of(ingresses: &[Arc<Ingress>], services: &[Arc<Service>], slices: &[Arc<EndpointSlice>]) -> Table {
        Table::new(all_rules(ingresses, services, slices))
    }

    fn leads_to(table: &Table, host: &str) -> Option<String> {
        table.route(host, "/").map(|backend| backend.route.clone())
    }

    #[test]
    fn the_most_specific_host_wins() {
        let http = json!({ "name": "http" });
        let hosts = [("any", None), ("below", Some("*.example.com")), ("exact", Some("A.example.com"))];
        let ingresses = hosts.map(|(name, host)| ingress(name, 0, host, http.clone()));
        let table = table_of(&ingresses, &[], &[]);
        for (host, name) in [
            ("a.example.com", "Ingress n/exact"),
            ("b.example.com", "Ingress n/below"),
            ("a.b.example.com", "Ingress n/any"),
            ("example.com", "Ingress n/any"),
        ] {
            assert_eq!(leads_to(&table, host).as_deref(), Some(name), "{host}");
        }
        assert_eq!(leads_to(&table_of(&ingresses[1..], &[], &[]), "example.com"), None);
    }

    #[test]
    fn the_older_ingress_wins_among_equal_rules() {
        let of = |name, created| ingress(name, created, Some("a.example.com"), json!({ "name": "http" }));
        for (first, second, winner) in [(1, 2, "Ingress n/one"), (2, 1, "Ingress n/two")] {
            let table = table_of(&[of("one", first), of("two", second)], &[], &[]);
            assert_eq!(leads_to(&table, "a.example.com").as_deref(), Some(winner));
        }
    }

    #[test]
    fn a_port_is_found_by_name_or_number_in_the_namespace_of_the_ingress() {
        let slices = [slice("s", "n", "10.244.0.1"), slice("s", "other", "10.244.0.2"), slice("t", "n", "10.244.0.3")];
        let targets = |port| {
            let table = table_of(&[ingress("s", 0, None, port)], &[service("s"), service("t")], &slices);
            table.route("any", "/").map(|backend| backend.targets.clone()).unwrap()
        };
        let pod = Announced::new(0, 1);
        assert_eq!(targets(json!({ "name": "http" })), [Target { pod, port: 8080 }]);
        assert_eq!(targets(json!({ "number": 81 })), [Target { pod, port: 9090 }]);
        assert_eq!(targets(json!({ "name": "https" })), []);
        assert_eq!(targets(json!({ "number": 8080 })), []);
    }
}
