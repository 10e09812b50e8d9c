//! Builds Kubernetes objects from a validated McpServer, one file per kind. `container.rs`, `backend.rs`,
//! `resources.rs` and `volumes.rs` are parts of the pod template. Pure.

mod autoscaler;
mod backend;
mod certificate;
mod configuration;
mod container;
mod deployment;
mod disruption_budget;
mod gateway;
mod ingress;
mod network_policy;
mod paths;
mod pod_monitor;
mod pod_template;
mod policy;
mod resources;
mod service;
mod service_account;
mod volumes;

pub(crate) use container::ADMIN_PORT;
pub(crate) use deployment::MOVING;
pub(crate) use pod_template::configuration_hash;
pub(crate) use policy::policy;

use serde_json::Value;

use crate::{
    mcpserver::validate::{
        Validated,
        exposure::{Exposed, Way},
        workload::Scale,
    },
    objects::{child::Child, config_map_edition::Mounted, owner::Owner},
    ownership::Held,
};

/// Builds the children of an accepted McpServer that holds its claims, without the policy, in the order of applying.
pub(crate) fn children(server: &Validated, held: &Held, mounted: Mounted) -> Vec<Child> {
    let mut children = Vec::new();
    if server.workload.existing_account.is_none() {
        children.push(Child::ServiceAccount(service_account::service_account(server)));
    }
    children.push(Child::Configuration(configuration::configuration(server, mounted)));
    if let Some(network) = &server.workload.network {
        children.push(Child::NetworkPolicy(network_policy::network_policy(&server.owner, network)));
    }
    children.push(Child::Service(service::service(server)));
    children.push(Child::Deployment(Box::new(deployment::deployment(server, mounted))));
    if server.workload.scale.may_be_several() {
        children.push(Child::DisruptionBudget(disruption_budget::disruption_budget(&server.owner)));
    }
    if let Scale::Auto(autoscaling) = &server.workload.scale {
        children.push(Child::Autoscaler(autoscaler::autoscaler(&server.owner, autoscaling)));
    }
    if let Some(monitors) = &server.workload.monitored {
        children.push(Child::PodMonitor(pod_monitor::pod_monitor(&server.owner, monitors)));
    }
    if let Some(exposed) = &server.exposure {
        children.extend(exposing(&server.owner, exposed, held));
    }
    children
}

/// Builds the children that route clients to the server.
fn exposing(owner: &Owner, exposed: &Exposed, held: &Held) -> Vec<Child> {
    let issuer = exposed.issuer.as_ref();
    let certificate = issuer.map(|issuer| Child::Certificate(certificate::certificate(owner, exposed, issuer)));
    let route = |parents: &[Value]| Child::HttpRoute(gateway::http_route(owner, exposed, held, parents));
    match (&exposed.way, &held.listener_of) {
        (Way::Ingress(way), _) => {
            let ingress = Child::Ingress(ingress::ingress(owner, exposed, held, way));
            certificate.into_iter().chain([ingress]).collect()
        }
        // A route without a parent has no effect.
        (Way::Listeners(gateways), _) if gateways.is_empty() => Vec::new(),
        (Way::Listeners(gateways), _) => {
            vec![route(&gateways.iter().map(gateway::parent_of).collect::<Vec<_>>())]
        }
        (Way::OwnListener { .. }, Some(carrier)) => vec![route(&[gateway::own_listener_of(carrier)])],
        (Way::OwnListener { gateway, secret_name }, None) => {
            let listeners = Child::ListenerSet(gateway::listener_set(owner, exposed, gateway, secret_name));
            let route = route(&[gateway::own_listener_of(owner)]);
            certificate.into_iter().chain([listeners, route]).collect()
        }
    }
}

#[cfg(test)]
mod backend_tests;
#[cfg(test)]
mod sign_in_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod workload_tests;
