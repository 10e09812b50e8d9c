//! Evaluation of NetworkPolicies: a pure function of the policies and of both ends of a connection.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use kube::core::{Selector, SelectorExt};

type Labels = BTreeMap<String, String>;

/// End of a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct End {
    /// Pod at this end; `None` outside the cluster.
    pub(crate) pod: Option<PodEnd>,
    pub(crate) address: Option<IpAddr>,
}

/// Properties of a pod that policies use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PodEnd {
    pub(crate) namespace: String,
    pub(crate) namespace_labels: Labels,
    pub(crate) labels: Labels,
    /// Named TCP ports.
    pub(crate) ports: BTreeMap<String, i32>,
}

impl PodEnd {
    pub(crate) fn new(pod: &Pod, namespace_labels: Labels) -> Self {
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        let ports = containers.flat_map(|container| container.ports.iter().flatten());
        let tcp = ports.filter(|port| port.protocol.as_deref().unwrap_or("TCP") == "TCP");
        Self {
            namespace: pod.namespace().unwrap_or_default(),
            namespace_labels,
            labels: pod.labels().clone(),
            ports: tcp.filter_map(|port| Some((port.name.clone()?, port.container_port))).collect(),
        }
    }
}

/// Allows a TCP connection, or names the end whose policies do not. A pod without a policy is open.
pub(crate) fn check(policies: &[NetworkPolicy], from: &End, to: &End, port: u16) -> Result<(), String> {
    let connection = Connection { from, to, port };
    for (direction, end, way) in [(Direction::Egress, from, "out"), (Direction::Ingress, to, "in")] {
        if let Some(pod) = &end.pod
            && !is_open(policies, pod, direction, connection)
        {
            return Err(format!("no NetworkPolicy of namespace {} allows the connection {way}", pod.namespace));
        }
    }
    Ok(())
}

/// TCP connection.
#[derive(Clone, Copy)]
struct Connection<'a> {
    from: &'a End,
    to: &'a End,
    port: u16,
}

/// Direction, from the pod that a policy selects.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "Ingress",
            Self::Egress => "Egress",
        }
    }

    /// Returns the other end of a connection.
    fn peer<'a>(self, connection: Connection<'a>) -> &'a End {
        match self {
            Self::Ingress => connection.from,
            Self::Egress => connection.to,
        }
    }

    fn rules(self, spec: &NetworkPolicySpec) -> Vec<Rule> {
        let ingress = spec.ingress.iter().flatten();
        let egress = spec.egress.iter().flatten();
        match self {
            Self::Ingress => ingress.map(|rule| (rule.from.clone(), rule.ports.clone())).collect(),
            Self::Egress => egress.map(|rule| (rule.to.clone(), rule.ports.clone())).collect(),
        }
    }
}

/// Rule of either direction: peers and ports. An empty list means all.
type Rule = (Option<Vec<NetworkPolicyPeer>>, Option<Vec<NetworkPolicyPort>>);

fn is_open(policies: &[NetworkPolicy], subject: &PodEnd, direction: Direction, connection: Connection<'_>) -> bool {
    let (Connection { to, port, .. }, peer) = (connection, direction.peer(connection));
    let ours = policies.iter().filter(|policy| policy.namespace().as_ref() == Some(&subject.namespace));
    let specs = ours.filter_map(|policy| policy.spec.as_ref()).filter(|spec| {
        concerns(spec, direction)
            && selects(spec.pod_selector.as_ref().unwrap_or(&LabelSelector::default()), &subject.labels)
    });
    let mut is_selected = false;
    for spec in specs {
        is_selected = true;
        for (peers, ports) in direction.rules(spec) {
            let peers = peers.unwrap_or_default();
            let ports = ports.unwrap_or_default();
            if (peers.is_empty() || peers.iter().any(|wanted| is_peer(wanted, &subject.namespace, peer)))
                && (ports.is_empty() || ports.iter().any(|wanted| is_port(wanted, to, port)))
            {
                return true;
            }
        }
    }
    !is_selected
}

/// Returns whether the policy applies to the direction. Without policyTypes it applies to ingress, and also to egress
/// if it has rules for egress.
fn concerns(spec: &NetworkPolicySpec, direction: Direction) -> bool {
    match spec.policy_types.as_deref() {
        Some(types) if !types.is_empty() => types.iter().any(|known| known == direction.as_str()),
        _ => direction == Direction::Ingress || spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()),
    }
}

/// Evaluates a selector. An empty one selects everything; an invalid one selects nothing.
fn selects(selector: &LabelSelector, labels: &Labels) -> bool {
    Selector::try_from(selector.clone()).is_ok_and(|selector| selector.matches(labels))
}

fn is_peer(wanted: &NetworkPolicyPeer, own: &str, peer: &End) -> bool {
    if let Some(block) = &wanted.ip_block {
        let is_in = |cidr: &String, address: &IpAddr| cidr.parse::<IpNet>().is_ok_and(|net| net.contains(address));
        let excepted = |address| block.except.iter().flatten().any(|except| is_in(except, address));
        return peer.address.as_ref().is_some_and(|address| is_in(&block.cidr, address) && !excepted(address));
    }
    let Some(pod) = &peer.pod else { return false };
    let namespace = match &wanted.namespace_selector {
        Some(selector) => selects(selector, &pod.namespace_labels),
        None => pod.namespace == own,
    };
    namespace && wanted.pod_selector.as_ref().is_none_or(|selector| selects(selector, &pod.labels))
}

fn is_port(wanted: &NetworkPolicyPort, to: &End, port: u16) -> bool {
    let port = i32::from(port);
    let matches = match (&wanted.port, wanted.end_port) {
        (None, _) => true,
        (Some(IntOrString::Int(first)), Some(last)) => (*first..=last).contains(&port),
        (Some(IntOrString::Int(number)), None) => *number == port,
        (Some(IntOrString::String(name)), _) => to.pod.as_ref().is_some_and(|pod| pod.ports.get(name) == Some(&port)),
    };
    matches && wanted.protocol.as_deref().unwrap_or("TCP") == "TCP"
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn policy(namespace: &str, spec: Value) -> NetworkPolicy {
        serde_json::from_value(json!({ "metadata": { "name": "p", "namespace": namespace }, "spec": spec })).unwrap()
    }

    /// Returns a pod with the label `app` and the port `http`, 8080.
    fn pod(namespace: &str, app: &str) -> End {
        let label = |name: &str, value: &str| Labels::from([(name.to_owned(), value.to_owned())]);
        let pod = PodEnd {
            namespace: namespace.to_owned(),
            namespace_labels: label("kubernetes.io/metadata.name", namespace),
            labels: label("app", app),
            ports: BTreeMap::from([("http".to_owned(), 8080)]),
        };
        End { pod: Some(pod), address: Some("10.244.0.1".parse().unwrap()) }
    }

    fn outside(address: &str) -> End {
        End { pod: None, address: Some(address.parse().unwrap()) }
    }

    /// Returns whether a policy of namespace `n` with these ingress rules allows `from` to reach `n/web` at 8080.
    fn lets_in(rules: Value, from: &End) -> bool {
        let policies = [policy("n", json!({ "podSelector": { "matchLabels": { "app": "web" } }, "ingress": rules }))];
        check(&policies, from, &pod("n", "web"), 8080).is_ok()
    }

    #[test]
    fn a_pod_without_a_policy_is_open_and_a_policy_without_rules_closes_it() {
        assert!(check(&[], &outside("1.2.3.4"), &pod("n", "web"), 8080).is_ok());
        assert!(!lets_in(json!([]), &pod("n", "web")));
        let closed = [policy("n", json!({ "podSelector": {} }))];
        assert!(check(&closed, &pod("n", "a"), &pod("n", "b"), 1).is_err());
        assert!(check(&closed, &pod("n", "a"), &pod("m", "b"), 1).is_ok(), "of another namespace");
        let other = [policy("n", json!({ "podSelector": { "matchLabels": { "app": "other" } } }))];
        assert!(check(&other, &pod("n", "a"), &pod("n", "b"), 1).is_ok(), "of other pods");
    }

    #[test]
    fn both_selectors_of_a_peer_must_match_and_the_default_namespace_is_the_policys() {
        let edge = json!({ "matchLabels": { "kubernetes.io/metadata.name": "edge" } });
        let proxy = json!({ "matchLabels": { "app": "proxy" } });
        let both = json!([{ "from": [{ "namespaceSelector": edge, "podSelector": proxy }] }]);
        assert!(lets_in(both.clone(), &pod("edge", "proxy")));
        assert!(!lets_in(both.clone(), &pod("edge", "other")));
        assert!(!lets_in(both, &pod("n", "proxy")));
        let own = json!([{ "from": [{ "podSelector": proxy }] }]);
        assert!(lets_in(own.clone(), &pod("n", "proxy")));
        assert!(!lets_in(own, &pod("edge", "proxy")));
        let either = json!([{ "from": [{ "namespaceSelector": edge }, { "podSelector": proxy }] }]);
        assert!(lets_in(either.clone(), &pod("edge", "other")) && lets_in(either.clone(), &pod("n", "proxy")));
        assert!(!lets_in(either, &outside("1.2.3.4")));
    }

    #[test]
    fn an_ip_block_excludes_its_exceptions() {
        let block = json!([{ "from": [{ "ipBlock": { "cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"] } }] }]);
        assert!(lets_in(block.clone(), &outside("10.2.0.1")));
        assert!(!lets_in(block.clone(), &outside("10.1.0.1")));
        assert!(!lets_in(block, &outside("11.0.0.1")));
    }

    #[test]
    fn a_tcp_port_matches_by_number_by_name_or_within_a_range() {
        for (port, is_let_in) in [
            (json!({ "port": 8080 }), true),
            (json!({ "port": 80 }), false),
            (json!({ "port": "http" }), true),
            (json!({ "port": "admin" }), false),
            (json!({ "port": 8000, "endPort": 8080 }), true),
            (json!({ "port": 8000, "endPort": 8079 }), false),
            (json!({ "port": 8080, "protocol": "UDP" }), false),
            (json!({ "protocol": "TCP" }), true),
        ] {
            assert_eq!(lets_in(json!([{ "ports": [port] }]), &outside("1.2.3.4")), is_let_in, "{port}");
        }
    }

    #[test]
    fn only_egress_policies_restrict_outgoing_connections() {
        let to_https = json!([{ "to": [{ "ipBlock": { "cidr": "0.0.0.0/0" } }], "ports": [{ "port": 443 }] }]);
        let spec = json!({ "podSelector": {}, "policyTypes": ["Egress"], "egress": to_https });
        let policies = [policy("n", spec)];
        let lets = |to: &End, port| check(&policies, &pod("n", "web"), to, port).is_ok();
        assert!(lets(&outside("1.2.3.4"), 443));
        assert!(!lets(&outside("1.2.3.4"), 80));
        assert!(check(&policies, &outside("1.2.3.4"), &pod("n", "web"), 80).is_ok(), "it has no rules for ingress");
        let ingress_alone = [policy("n", json!({ "podSelector": {}, "policyTypes": ["Ingress"] }))];
        assert!(check(&ingress_alone, &pod("n", "web"), &outside("1.2.3.4"), 80).is_ok());
        let implied = [policy("n", json!({ "podSelector": {}, "egress": [{ "ports": [{ "port": 443 }] }] }))];
        assert!(check(&implied, &pod("n", "web"), &outside("1.2.3.4"), 80).is_err());
    }
}
