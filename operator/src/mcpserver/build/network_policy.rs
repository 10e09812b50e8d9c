//! Builds the NetworkPolicy: clients reach the MCP endpoint, operator and monitoring reach the admin port, and pods
//! reach the destinations that the spec implies.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::networking::v1::{
        IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
        NetworkPolicyPort, NetworkPolicySpec,
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

use ipnet::IpNet;
use mcp_entra_crds::METADATA_SERVICES;

use super::container::{ADMIN_PORT_NAME, HTTP_PORT_NAME};
use crate::{
    mcpserver::validate::workload::Network,
    objects::{child::ChildKind, owner::Owner},
};

/// The label with a namespace's name, which the API server sets.
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
    let out = |to: Option<Vec<NetworkPolicyPeer>>, ports: Vec<NetworkPolicyPort>| NetworkPolicyEgressRule {
        to,
        ports: Some(ports),
    };
    let dns = ["UDP", "TCP"].map(|protocol| port(protocol, IntOrString::Int(DNS)));
    let outside = network.egress.iter().map(|number| port("TCP", IntOrString::Int((*number).into())));
    // Containers of a pod share its network, so restrictions of the backend also apply to the server.
    let anywhere = network.backend_egress.as_ref().map(|_| anywhere());
    let besides = network.backend_egress.iter().flatten().map(|egress| {
        let ports = egress.ports.iter().map(|number| port("TCP", IntOrString::Int(*number)));
        out(Some(vec![block(&egress.cidr)]), ports.collect())
    });
    NetworkPolicy {
        metadata: owner.child_metadata(ChildKind::NetworkPolicy),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(labelled(owner.selector())),
            policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
            ingress: Some(vec![into(network.clients.clone(), HTTP_PORT_NAME), into(admins.collect(), ADMIN_PORT_NAME)]),
            egress: Some(
                [out(None, dns.into()), out(anywhere, outside.collect())].into_iter().chain(besides).collect(),
            ),
        }),
    }
}

/// Returns all addresses except metadata services, and all pods: some network plugins do not treat pods as addresses.
fn anywhere() -> Vec<NetworkPolicyPeer> {
    let pods = NetworkPolicyPeer { namespace_selector: Some(LabelSelector::default()), ..NetworkPolicyPeer::default() };
    vec![block("0.0.0.0/0"), block("::/0"), pods]
}

/// Returns a range of addresses without the metadata services in it.
fn block(cidr: &str) -> NetworkPolicyPeer {
    let contains = |inner: &&str| {
        let (outer, inner) = (cidr.parse::<IpNet>(), inner.parse::<IpNet>());
        outer.is_ok_and(|outer| inner.is_ok_and(|inner| outer.contains(&inner)))
    };
    let except: Vec<String> = METADATA_SERVICES.into_iter().filter(contains).map(str::to_owned).collect();
    NetworkPolicyPeer {
        ip_block: Some(IPBlock { cidr: cidr.to_owned(), except: (!except.is_empty()).then_some(except) }),
        ..NetworkPolicyPeer::default()
    }
}

fn labelled(labels: BTreeMap<String, String>) -> LabelSelector {
    LabelSelector { match_labels: Some(labels), match_expressions: None }
}

fn port(protocol: &str, port: IntOrString) -> NetworkPolicyPort {
    NetworkPolicyPort { protocol: Some(protocol.to_owned()), port: Some(port), end_port: None }
}
