//! Writes what the edge says of objects into their status, as controllers do; of an Ingress, where it is served.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::ApiResource;
use kube::{Client, Resource, ResourceExt};
use serde_json::{Value, json};

use super::gateway;
use super::{CLASS, CONTROLLER, is_ours};

const MANAGER: &str = "testbed-edge";
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

/// The statuses it has written.
pub(super) struct Statuses {
    client: Client,
    ingress: Value,
    /// By uid, the version each was written upon: until the watch tells of a newer one, there is nothing to write.
    written: HashMap<String, Option<String>>,
}

impl Statuses {
    pub(super) fn new(client: Client, port: u16) -> Self {
        let ingress = json!([{ "hostname": "localhost", "ports": [{ "port": port, "protocol": "TCP" }] }]);
        Self { client, ingress: json!({ "loadBalancer": { "ingress": ingress } }), written: HashMap::new() }
    }

    /// Writes those of Ingresses that differ.
    pub(super) async fn write(&mut self, ingresses: &[Arc<Ingress>]) {
        let wanted = self.ingress.clone();
        for ingress in ingresses.iter().filter(|ingress| is_ours(ingress)) {
            let status = serde_json::to_value(&ingress.status).ok();
            self.put(&**ingress, status.as_ref(), wanted.clone()).await;
        }
    }

    /// Offers the Gateway class; where that fails, it is tried again at the next call.
    pub(super) async fn create_gateway_class(&self) {
        match tokio::time::timeout(PATIENCE, gateway::create_class(&self.client)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!("create the Gateway class: {error}"),
            Err(_) => tracing::warn!("create the Gateway class: time-out"),
        }
    }

    /// Forgets what is no more.
    pub(super) fn retain(&mut self, exists: impl Fn(&str) -> bool) {
        self.written.retain(|uid, _| exists(uid));
    }

    /// Writes a status unless it is so already; what fails is tried again at the next call.
    pub(super) async fn put<K>(&mut self, object: &K, status: Option<&Value>, wanted: Value)
    where
        K: Resource<DynamicType = ()>,
    {
        let (name, uid, version) = (object.name_any(), object.uid().unwrap_or_default(), object.resource_version());
        let known = |key: &str| status.and_then(|status| status.get(key));
        let is_right =
            wanted.as_object().is_some_and(|wanted| wanted.iter().all(|(key, value)| known(key) == Some(value)));
        if is_right || self.written.get(&uid) == Some(&version) {
            return;
        }
        let kind = ApiResource::erase::<K>(&());
        let api: Api<DynamicObject> = match object.namespace() {
            Some(namespace) => Api::namespaced_with(self.client.clone(), &namespace, &kind),
            None => Api::all_with(self.client.clone(), &kind),
        };
        // Another controller may write into the same list: what it has just written is not to be lost.
        let patch = Patch::Merge(json!({ "metadata": { "resourceVersion": version }, "status": wanted }));
        let parameters = PatchParams { field_manager: Some(MANAGER.into()), ..Default::default() };
        match tokio::time::timeout(PATIENCE, api.patch_status(&name, &parameters, &patch)).await {
            Ok(Ok(_)) => {
                self.written.insert(uid, version);
            }
            Ok(Err(error)) => tracing::warn!("status of {} {name}: {error}", kind.kind),
            Err(_) => tracing::warn!("status of {} {name}: time-out", kind.kind),
        }
    }
}
