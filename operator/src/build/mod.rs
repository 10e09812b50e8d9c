//! Building: what was validated becomes Kubernetes objects, one file a kind. Pure, and cannot fail.

mod configuration;
mod deployment;
mod ingress;
mod policy;
mod service;
mod service_account;

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Service, ServiceAccount},
    networking::v1::Ingress,
};

pub(crate) use deployment::{ADMIN_PORT, CONFIGURATION_HASH, configuration_hash};
pub(crate) use policy::policy;

use crate::{claims::Held, validate::Validated};

/// The children of an accepted McpServer, besides its policy.
#[derive(Clone, Debug)]
pub(crate) struct Children {
    pub(crate) service_account: ServiceAccount,
    pub(crate) configuration: ConfigMap,
    pub(crate) service: Service,
    pub(crate) deployment: Deployment,
    /// Only with `spec.exposure`.
    pub(crate) ingress: Option<Ingress>,
}

/// Builds the children of an accepted McpServer that holds what it claims.
pub(crate) fn children(server: &Validated, held: Held) -> Children {
    Children {
        service_account: service_account::service_account(server),
        configuration: configuration::configuration(server),
        service: service::service(server),
        deployment: deployment::deployment(server),
        ingress: server.exposure.as_ref().map(|exposure| ingress::ingress(server, exposure, held)),
    }
}

#[cfg(test)]
mod tests;
