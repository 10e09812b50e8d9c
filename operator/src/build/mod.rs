//! Building: what was validated becomes Kubernetes objects, one file a kind. Pure.

mod configuration;
mod deployment;
mod ingress;
mod policy;
mod service;
mod service_account;

pub(crate) use deployment::{ADMIN_PORT, CONFIGURATION_HASH, configuration_hash};
pub(crate) use policy::policy;

use crate::{
    child::{Child, ChildKind},
    claims::Held,
    validate::Validated,
};

/// Builds the children of an accepted McpServer that holds what it claims, besides its policy, in the order in which
/// they are applied.
///
/// # Errors
/// If an object cannot be written as JSON, which none refuses.
pub(crate) fn children(server: &Validated, held: Held) -> Result<Vec<Child>, serde_json::Error> {
    let mut children = vec![
        Child::new(ChildKind::ServiceAccount, &service_account::service_account(server))?,
        Child::new(ChildKind::Configuration, &configuration::configuration(server))?,
        Child::new(ChildKind::Service, &service::service(server))?,
        Child::new(ChildKind::Deployment, &deployment::deployment(server))?,
    ];
    if let Some(exposure) = &server.exposure {
        children.push(Child::new(ChildKind::Ingress, &ingress::ingress(server, exposure, held))?);
    }
    Ok(children)
}

#[cfg(test)]
mod tests;
