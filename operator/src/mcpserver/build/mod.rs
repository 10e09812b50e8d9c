//! Building: what was validated becomes Kubernetes objects, one file a kind. Pure.

mod autoscaler;
mod certificate;
mod configuration;
mod deployment;
mod disruption_budget;
mod gateway;
mod ingress;
mod network_policy;
mod paths;
mod pod_monitor;
mod pod_template_additions;
mod policy;
mod resources;
mod service;
mod service_account;

pub(crate) use deployment::{ADMIN_PORT, MOVING, configuration_hash, template_hash};
pub(crate) use policy::policy;

use serde_json::Value;

use crate::{
    mcpserver::validate::{
        Validated,
        exposure::{Exposed, Way},
        workload::Scale,
    },
    objects::{
        child::{Child, ChildKind},
        config_map_edition::Mounted,
        owner::Owner,
    },
    ownership::Held,
};

/// Builds the children of an accepted McpServer that holds what it claims, besides its policy, in the order in which
/// they are applied.
///
/// # Errors
/// If an object cannot be written as JSON, which none refuses.
pub(crate) fn children(server: &Validated, held: &Held, mounted: Mounted) -> Result<Vec<Child>, serde_json::Error> {
    let mut children = Vec::new();
    if server.workload.existing_account.is_none() {
        children.push(Child::new(ChildKind::ServiceAccount, &service_account::service_account(server))?);
    }
    children.push(Child::new(ChildKind::Configuration, &configuration::configuration(server, mounted))?);
    if let Some(network) = &server.workload.network {
        children.push(Child::new(ChildKind::NetworkPolicy, &network_policy::network_policy(&server.owner, network))?);
    }
    children.push(Child::new(ChildKind::Service, &service::service(server))?);
    children.push(Child::new(ChildKind::Deployment, &deployment::deployment(server, mounted)?)?);
    if server.workload.scale.may_be_several() {
        let budget = disruption_budget::disruption_budget(&server.owner);
        children.push(Child::new(ChildKind::DisruptionBudget, &budget)?);
    }
    if let Scale::Auto(autoscaling) = &server.workload.scale {
        children.push(Child::new(ChildKind::Autoscaler, &autoscaler::autoscaler(&server.owner, autoscaling))?);
    }
    children
        .extend(server.workload.monitored.as_ref().map(|monitors| pod_monitor::pod_monitor(&server.owner, monitors)));
    if let Some(exposed) = &server.exposure {
        children.extend(exposing(&server.owner, exposed, held)?);
    }
    Ok(children)
}

/// What leads clients to the server.
fn exposing(owner: &Owner, exposed: &Exposed, held: &Held) -> Result<Vec<Child>, serde_json::Error> {
    let certificate = exposed.issuer.as_ref().map(|issuer| certificate::certificate(owner, exposed, issuer));
    let route = |parents: &[Value]| gateway::http_route(owner, exposed, held, parents);
    Ok(match (&exposed.way, &held.listener_of) {
        (Way::Ingress { class_name, annotations, secret_name }, _) => {
            let ingress = ingress::ingress(owner, exposed, held, class_name.as_ref(), annotations, secret_name);
            certificate.into_iter().chain([Child::new(ChildKind::Ingress, &ingress)?]).collect()
        }
        // A route without a parent leads nowhere.
        (Way::Listeners(gateways), _) if gateways.is_empty() => Vec::new(),
        (Way::Listeners(gateways), _) => {
            vec![route(&gateways.iter().map(gateway::parent_of).collect::<Vec<_>>())]
        }
        (Way::OwnListener { .. }, Some(carrier)) => vec![route(&[gateway::own_listener_of(carrier)])],
        (Way::OwnListener { gateway, secret_name }, None) => {
            let listeners = gateway::listener_set(owner, exposed, gateway, secret_name);
            let route = route(&[gateway::own_listener_of(owner)]);
            certificate.into_iter().chain([listeners, route]).collect()
        }
    })
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod workload_tests;
