//! Creates the edge's classes, and writes the address of each Ingress to its status, as controllers do.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::gateway;
use super::{CLASS, CONTROLLER, is_ours};
use crate::controller::Statuses;

pub(super) const MANAGER: &str = "testbed-edge";
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn create_class(client: &Client) -> anyhow::Result<()> {
    let classes: Api<IngressClass> = Api::all(client.clone());
    let class = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IngressClass",
        "metadata": { "name": CLASS },
        "spec": { "controller": CONTROLLER },
    });
    let apply = PatchParams::apply(MANAGER);
    tokio::time::timeout(PATIENCE, classes.patch(CLASS, &apply, &Patch::Apply(class))).await??;
    Ok(())
}

/// Creates the Gateway class. A failed attempt is repeated at the next call.
pub(super) async fn create_gateway_class(client: &Client) {
    match tokio::time::timeout(PATIENCE, gateway::create_class(client)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!("create the Gateway class: {error}"),
        Err(_) => tracing::warn!("create the Gateway class: timeout"),
    }
}

/// Writes to the status of our Ingresses that they are served at this port of this machine.
pub(super) async fn write(statuses: &mut Statuses, ingresses: &[Arc<Ingress>], port: u16) {
    let at = json!([{ "hostname": "localhost", "ports": [{ "port": port, "protocol": "TCP" }] }]);
    for ingress in ingresses.iter().filter(|ingress| is_ours(ingress)) {
        let status = serde_json::to_value(&ingress.status).ok();
        statuses.put(&**ingress, status.as_ref(), json!({ "loadBalancer": { "ingress": at } })).await;
    }
}
