//! Writes: brings the children to what was built, by server-side apply, where they differ and nowhere else.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use mcp_entra_crds::GROUP;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    MANAGER,
    build::Children,
    errors::{Error, code},
    memory::{ServerMemory, Settled},
    owner::{APPLIED_HASH, ChildKind, Owner},
    resolve::{Seen, SeenChildren},
};

/// How often a child is applied anew when it changes under our hands.
const ATTEMPTS: u32 = 4;

/// A child's name is somebody else's object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conflict {
    pub(crate) kind: &'static str,
    pub(crate) name: String,
    /// The kind and name of its controller; absent if it has none.
    pub(crate) controller: Option<String>,
}

/// Why a child could not be applied.
#[derive(Debug)]
pub(crate) enum Failure {
    Conflict(Conflict),
    Error(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// Writes the children of one McpServer.
pub(crate) struct Applier<'a> {
    pub(crate) client: &'a Client,
    pub(crate) owner: &'a Owner,
    pub(crate) seen: &'a SeenChildren,
    pub(crate) memory: &'a mut ServerMemory,
}

/// The first child's name that is somebody else's object.
pub(crate) fn conflict(owner: &Owner, seen: &SeenChildren) -> Option<Conflict> {
    let (kind, found) = seen.iter().find(|(_, found)| !found.ours)?;
    Some(conflict_with(owner, *kind, found))
}

fn conflict_with(owner: &Owner, kind: ChildKind, found: &Seen) -> Conflict {
    Conflict { kind: kind.kind(), name: kind.name(&owner.name), controller: found.controller.clone() }
}

impl Applier<'_> {
    /// Applies everything but the policy, the Deployment after what its pods need, and removes what is no longer
    /// wanted last.
    pub(crate) async fn children(&mut self, children: &Children) -> Result<(), Failure> {
        self.child(ChildKind::ServiceAccount, &children.service_account).await?;
        self.child(ChildKind::Configuration, &children.configuration).await?;
        self.child(ChildKind::Service, &children.service).await?;
        self.child(ChildKind::Deployment, &children.deployment).await?;
        match &children.ingress {
            Some(ingress) => self.child(ChildKind::Ingress, ingress).await,
            None => self.prune_ingress().await,
        }
    }

    /// Applies one child, if it is not as built.
    pub(crate) async fn child<K>(&mut self, kind: ChildKind, built: &K) -> Result<(), Failure>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Serialize + DeserializeOwned + Clone + Debug,
    {
        let desired = document(built).map_err(Error::from)?;
        let settled = self.memory.settled.get(&kind);
        if let (Some(settled), Some(seen)) = (settled, self.seen.get(&kind))
            && (&settled.uid, &settled.version, &settled.hash) == (&seen.uid, &seen.version, &desired.hash)
        {
            return Ok(());
        }
        let api = Api::<K>::namespaced(self.client.clone(), &self.owner.namespace);
        let name = kind.name(&self.owner.name);
        let object = format!("{} {name}", kind.kind());
        for _ in 0..ATTEMPTS {
            let live = api.get_opt(&name).await.map_err(Error::kubernetes(format!("reading {object}")))?;
            if let Some(live) = &live {
                let found = Seen::of(live.meta(), self.owner);
                if !found.ours {
                    return Err(Failure::Conflict(conflict_with(self.owner, kind, &found)));
                }
                if holds(&serde_json::to_value(live).map_err(Error::from)?, &desired.value) {
                    self.settle(kind, live, desired.hash);
                    return Ok(());
                }
            }
            let patch = desired.guarded(live.as_ref().map(K::meta));
            let parameters = PatchParams::apply(MANAGER).force();
            match api.patch(&name, &parameters, &Patch::Apply(&patch)).await {
                Ok(applied) => {
                    tracing::info!(
                        server = %self.owner.name, namespace = %self.owner.namespace,
                        "applied {object}: {}", cause(live.as_ref(), &desired.hash)
                    );
                    if !holds(&serde_json::to_value(&applied).map_err(Error::from)?, &desired.value) {
                        return Err(Error::Overridden { object }.into());
                    }
                    self.settle(kind, &applied, desired.hash);
                    return Ok(());
                }
                // Somebody was faster: what they made may be theirs, so it is looked at again.
                Err(error) if code(&error) == Some(409) => {}
                Err(error) => return Err(Error::kubernetes(format!("applying {object}"))(error).into()),
            }
        }
        Err(Error::Contended { object, attempts: ATTEMPTS }.into())
    }

    fn settle<K: Resource>(&mut self, kind: ChildKind, object: &K, hash: String) {
        let Seen { uid, version, .. } = Seen::of(object.meta(), self.owner);
        self.memory.settled.insert(kind, Settled { uid, version, hash });
    }

    async fn prune_ingress(&mut self) -> Result<(), Failure> {
        let kind = ChildKind::Ingress;
        self.memory.settled.remove(&kind);
        let Some(seen) = self.seen.get(&kind).filter(|seen| seen.ours) else { return Ok(()) };
        let name = kind.name(&self.owner.name);
        let api =
            Api::<k8s_openapi::api::networking::v1::Ingress>::namespaced(self.client.clone(), &self.owner.namespace);
        let preconditions = Preconditions { uid: Some(seen.uid.clone()), resource_version: None };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match api.delete(&name, &parameters).await {
            Ok(_) => {
                tracing::info!(server = %self.owner.name, namespace = %self.owner.namespace,
                    "deleted Ingress {name}: spec.exposure is gone");
                Ok(())
            }
            Err(error) if matches!(code(&error), Some(404 | 409)) => Ok(()),
            Err(error) => Err(Error::kubernetes(format!("deleting Ingress {name}"))(error).into()),
        }
    }
}

/// A child as it is applied.
struct Desired {
    value: Value,
    hash: String,
}

fn document<K: Serialize>(built: &K) -> Result<Desired, serde_json::Error> {
    let mut value = serde_json::to_value(built)?;
    let mut hash = hex::encode(Sha256::digest(value.to_string()));
    hash.truncate(16);
    merge(&mut value, json!({"metadata": {"annotations": {APPLIED_HASH: hash}}}));
    Ok(Desired { value, hash })
}

impl Desired {
    /// What is sent: for an object that was seen, with its uid, so that no namesake that came after it is taken over
    /// (its version would be contended by every change of its status); for an absent one with version `1`, which
    /// creates, and answers 409 if one has appeared (`0` would merge into it).
    fn guarded(&self, live: Option<&kube::core::ObjectMeta>) -> Value {
        let guard = match live {
            Some(live) => json!({"metadata": {"uid": live.uid}}),
            None => json!({"metadata": {"resourceVersion": "1"}}),
        };
        let mut patch = self.value.clone();
        merge(&mut patch, guard);
        patch
    }
}

fn cause<K: Resource>(live: Option<&K>, hash: &str) -> &'static str {
    match live {
        None => "it was absent",
        Some(live) if live.annotations().get(APPLIED_HASH).is_some_and(|applied| applied == hash) => {
            "somebody had changed it"
        }
        Some(_) => "the spec asks for something else",
    }
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// Whether everything that is desired stands in what is there. What others add is theirs: members that we do not set,
/// and entries of lists that Kubernetes merges by name.
fn holds(there: &Value, desired: &Value) -> bool {
    match (there, desired) {
        (Value::Object(there), Value::Object(desired)) => desired
            .iter()
            .all(|(key, desired)| there.get(key).map_or_else(|| is_nothing(desired), |there| holds(there, desired))),
        (Value::Array(there), Value::Array(desired)) => {
            let named = !desired.is_empty() && desired.iter().all(|entry| name_of(entry).is_some());
            if named {
                desired
                    .iter()
                    .all(|entry| there.iter().any(|found| name_of(found) == name_of(entry) && holds(found, entry)))
            } else {
                there.len() == desired.len() && there.iter().zip(desired).all(|(there, desired)| holds(there, desired))
            }
        }
        (there, desired) => there == desired,
    }
}

fn name_of(entry: &Value) -> Option<&str> {
    entry.get("name").and_then(Value::as_str)
}

/// Empty members are not stored.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        _ => false,
    }
}

/// The body of a status that is applied: of that very object, never of a namesake that came after it.
pub(crate) fn status_patch(kind: &str, name: &str, uid: &str, status: &impl Serialize) -> Result<Value, Error> {
    Ok(json!({
        "apiVersion": format!("{GROUP}/v1alpha1"),
        "kind": kind,
        "metadata": {"name": name, "uid": uid},
        "status": serde_json::to_value(status)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_add_is_theirs_and_what_they_change_of_ours_is_noticed() {
        let desired = json!({
            "metadata": {"labels": {"a": "1"}, "annotations": {}},
            "spec": {"replicas": 2, "containers": [{"name": "server", "args": ["x"], "env": [{"name": "A", "value": "1"}]}]},
        });
        let there = json!({
            "metadata": {"labels": {"a": "1", "b": "2"}, "uid": "x"},
            "spec": {"replicas": 2, "paused": false, "containers": [
                {"name": "sidecar"},
                {"name": "server", "args": ["x"], "tty": false, "env": [{"name": "B"}, {"name": "A", "value": "1"}]},
            ]},
        });
        assert!(holds(&there, &desired));
        for (pointer, value) in [
            ("/spec/replicas", json!(3)),
            ("/metadata/labels/a", json!("2")),
            ("/spec/containers/1/args", json!(["x", "y"])),
            ("/spec/containers/1/env/1/value", json!("2")),
            ("/spec/containers/1/name", json!("other")),
            ("/spec/containers/1/env", json!([])),
        ] {
            let mut changed = there.clone();
            *changed.pointer_mut(pointer).unwrap() = value;
            assert!(!holds(&changed, &desired), "{pointer}");
        }
    }

    #[test]
    fn lists_that_are_replaced_as_a_whole_must_be_equal() {
        let desired = json!({"rules": [{"host": "a"}]});
        assert!(holds(&json!({"rules": [{"host": "a", "more": 1}]}), &desired));
        assert!(!holds(&json!({"rules": [{"host": "a"}, {"host": "b"}]}), &desired));
        assert!(!holds(&json!({"rules": []}), &desired));
    }

    #[test]
    fn an_absent_child_is_only_created_and_a_present_one_only_changed() {
        let desired = document(&json!({"metadata": {"name": "graph"}})).unwrap();
        assert_eq!(desired.guarded(None)["metadata"]["resourceVersion"], "1");
        let live = kube::core::ObjectMeta { uid: Some("u".into()), ..kube::core::ObjectMeta::default() };
        let guarded = desired.guarded(Some(&live));
        assert_eq!(guarded["metadata"]["uid"], "u");
        assert_eq!(guarded["metadata"]["annotations"][APPLIED_HASH], json!(desired.hash));
    }
}
