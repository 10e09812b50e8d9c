//! Writes statuses, as few times as possible.

use std::collections::HashMap;
use std::time::Duration;

use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::ApiResource;
use kube::{Client, Resource, ResourceExt};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(10);

/// Statuses that a controller has written.
pub(crate) struct Statuses {
    client: Client,
    manager: &'static str,
    /// Resource version of each object before the last write, by uid. No write is needed until the watch reports a
    /// newer one.
    written: HashMap<String, Option<String>>,
}

impl Statuses {
    pub(crate) fn new(client: Client, manager: &'static str) -> Self {
        Self { client, manager, written: HashMap::new() }
    }

    /// Forgets objects that do not exist any more.
    pub(crate) fn retain(&mut self, exists: impl Fn(&str) -> bool) {
        self.written.retain(|uid, _| exists(uid));
    }

    /// Writes a status unless it is unchanged. A failed write is tried again at the next call.
    pub(crate) async fn put<K>(&mut self, object: &K, status: Option<&Value>, wanted: Value)
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
        // Another controller may write to the same list. Its latest write must not be lost.
        let patch = Patch::Merge(json!({ "metadata": { "resourceVersion": version }, "status": wanted }));
        let parameters = PatchParams { field_manager: Some(self.manager.into()), ..Default::default() };
        match tokio::time::timeout(PATIENCE, api.patch_status(&name, &parameters, &patch)).await {
            Ok(Ok(_)) => {
                self.written.insert(uid, version);
            }
            Ok(Err(error)) => tracing::warn!("status of {} {name}: {error}", kind.kind),
            Err(_) => tracing::warn!("status of {} {name}: timeout", kind.kind),
        }
    }
}
