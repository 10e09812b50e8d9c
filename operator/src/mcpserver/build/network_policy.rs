//! The NetworkPolicy: clients reach the MCP endpoint, operator and monitoring the admin port, and the pods what the spec
//! implies.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::networking::v1::{
        NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
        NetworkPolicySpec,
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

use super::container::{ADMIN_PORT_NAME, HTTP_PORT_NAME};
use crate::{
    mcpserver::validate::workload::Network,
    objects::{child::ChildKind, owner::Owner},
};

/// The label that the API server itself keeps at each namespace's name.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
/// The port of DNS.
const DNS: i32 = 53;

pub(super) fn network_policy(owner: &Owner, network: &Network) -> NetworkPolicy {
    let admins = network.admin_namespaces.iter().map(|namespace| NetworkPolicyPeer {
        namespace_selector: Some(labelled([(NAMESPACE_NAME.to_owned(), namespace.clone())].into())),
        ..NetworkPolicyPeer::default()
    });
    let into = |from: Vec<NetworkPolicyPeer>, named: &str| NetworkPolicyIngressRule {
        from: Some(from),
        ports: Some(vec![port("TCP", IntOrString::String(named.to_owned()))]),
    };
    let out = |ports: Vec<NetworkPolicyPort>| NetworkPolicyEgressRule { to: None, ports: Some(ports) };
    let dns = ["UDP", "TCP"].map(|protocol| port(protocol, IntOrString::Int(DNS)));
    let outside = network.egress.iter().map(|number| port("TCP", IntOrString::Int((*number).into())));
    NetworkPolicy {
        metadata: owner.child_metadata(ChildKind::NetworkPolicy),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(labelled(owner.selector())),
            policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
            ingress: Some(vec![into(network.clients.clone(), HTTP_PORT_NAME), into(admins.collect(), ADMIN_PORT_NAME)]),
            egress: Some(vec![out(dns.into()), out(outside.collect())]),
        }),
    }
}

fn labelled(labels: BTreeMap<String, String>) -> LabelSelector {
    LabelSelector { match_labels: Some(labels), match_expressions: None }
}

fn port(protocol: &str, port: IntOrString) -> NetworkPolicyPort {
    NetworkPolicyPort { protocol: Some(protocol.to_owned()), port: Some(port), end_port: None }
}
