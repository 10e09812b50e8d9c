//! Writes into an Ingress's status where it is served, as controllers do.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use super::{CLASS, is_ours};

const MANAGER: &str = "testbed-edge";
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn create_class(client: &Client) -> anyhow::Result<()> {
    let classes: Api<IngressClass> = Api::all(client.clone());
    let class = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IngressClass",
        "metadata": { "name": CLASS },
        "spec": { "controller": "mcp-entra.dev/testbed-edge" },
    });
    let apply = PatchParams::apply(MANAGER);
    tokio::time::timeout(PATIENCE, classes.patch(CLASS, &apply, &Patch::Apply(class))).await??;
    Ok(())
}

/// The statuses it has written.
pub(super) struct Statuses {
    client: Client,
    wanted: Value,
    /// By uid, the version each was written upon: until the watch tells of a newer one, there is nothing to write.
    written: HashMap<String, Option<String>>,
}

impl Statuses {
    pub(super) fn new(client: Client, port: u16) -> Self {
        let wanted = json!([{ "hostname": "localhost", "ports": [{ "port": port, "protocol": "TCP" }] }]);
        Self { client, wanted, written: HashMap::new() }
    }

    /// Writes those that differ; what fails is tried again at the next call.
    pub(super) async fn write(&mut self, ingresses: &[Arc<Ingress>]) {
        self.written.retain(|uid, _| ingresses.iter().any(|ingress| ingress.uid().as_ref() == Some(uid)));
        for ingress in ingresses.iter().filter(|ingress| is_ours(ingress)) {
            let uid = ingress.uid().unwrap_or_default();
            let version = ingress.resource_version();
            if self.is_right(ingress) || self.written.get(&uid) == Some(&version) {
                continue;
            }
            let api: Api<Ingress> = Api::namespaced(self.client.clone(), &ingress.namespace().unwrap_or_default());
            let patch = Patch::Merge(json!({ "status": { "loadBalancer": { "ingress": self.wanted } } }));
            let name = ingress.name_any();
            let parameters = PatchParams { field_manager: Some(MANAGER.into()), ..Default::default() };
            match tokio::time::timeout(PATIENCE, api.patch_status(&name, &parameters, &patch)).await {
                Ok(Ok(_)) => {
                    self.written.insert(uid, version);
                }
                Ok(Err(error)) => tracing::warn!("status of Ingress {name}: {error}"),
                Err(_) => tracing::warn!("status of Ingress {name}: time-out"),
            }
        }
    }

    fn is_right(&self, ingress: &Ingress) -> bool {
        let written = ingress.status.as_ref().and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
        written.and_then(|written| serde_json::to_value(written).ok()).as_ref() == Some(&self.wanted)
    }
}
