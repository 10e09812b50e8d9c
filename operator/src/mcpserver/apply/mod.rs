//! Writes of children: brings them to the desired state with server-side apply, only if they differ.

pub(crate) mod replicas;

use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    MANAGER,
    fleet::RollOut,
    mcpserver::{
        build::MOVING,
        pass_memory::{ServerMemory, Settled},
        resolved::SeenChildren,
    },
    objects::{
        child::{Child, ChildKind, json_of},
        config_map_edition::Edition,
        drift::drift,
        names::{APPLIED_HASH, POLICY_VOLUME, ROLL_OUT},
        observed_child::Seen,
        owner::{Owner, Whose},
        views::ChildView,
    },
    runtime::errors::{Error, code},
};

/// The number of attempts to apply a child that changes meanwhile.
const ATTEMPTS: u32 = 4;

/// Names of children that other objects have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conflict {
    /// The conflicting objects; never empty.
    pub(crate) objects: Vec<NameHolder>,
    /// True if all of them belong to a deleted McpServer of the same name.
    pub(crate) collected: bool,
}

/// An object that has a child's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NameHolder {
    pub(crate) kind: ChildKind,
    /// The kind and name of its controller; none if it has no controller.
    pub(crate) controller: Option<String>,
}

/// The reason why a child could not be applied.
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

/// The writer of one McpServer's children.
pub(crate) struct Applier<'a> {
    pub(crate) client: &'a Client,
    pub(crate) owner: &'a Owner,
    pub(crate) seen: SeenChildren,
    pub(crate) memory: &'a mut ServerMemory,
}

/// Returns the foreign objects that have names of wanted children. Without any, returns those that the garbage
/// collector will delete.
pub(crate) fn conflict(seen: &SeenChildren, wanted: &[ChildKind]) -> Option<Conflict> {
    let all = |whose: Whose| -> Vec<NameHolder> {
        let found = seen.iter().filter(|(kind, found)| found.whose == whose && wanted.contains(kind));
        found.map(|(kind, found)| NameHolder { kind: *kind, controller: found.controller.clone() }).collect()
    };
    [(Whose::Foreign, false), (Whose::Predecessors, true)]
        .map(|(whose, collected)| Conflict { objects: all(whose), collected })
        .into_iter()
        .find(|conflict| !conflict.objects.is_empty())
}

fn conflict_with(kind: ChildKind, found: &Seen) -> Conflict {
    let objects = vec![NameHolder { kind, controller: found.controller.clone() }];
    Conflict { objects, collected: found.whose == Whose::Predecessors }
}

/// The action if the object does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Absent {
    Create,
    Leave,
}

impl Applier<'_> {
    /// Applies one child, if it differs from the desired one.
    pub(crate) async fn child(&mut self, built: &Child) -> Result<(), Failure> {
        self.bring(built, Absent::Create).await.map(drop)
    }

    /// Applies one child if it exists and is ours, and creates none. Returns true if it exists as desired.
    pub(crate) async fn in_place(&mut self, built: &Child) -> Result<bool, Failure> {
        match self.seen.get(&built.kind()) {
            Some(seen) if seen.is_ours() => self.bring(built, Absent::Leave).await,
            _ => Ok(false),
        }
    }

    async fn bring(&mut self, built: &Child, absent: Absent) -> Result<bool, Failure> {
        let kind = built.kind();
        let desired = Desired::of(built);
        let settled = self.memory.settled.get(&kind);
        if let (Some(settled), Some(seen)) = (settled, self.seen.get(&kind))
            && settled.hash == Settled::hash(&seen.uid, &seen.version, &desired.hash)
        {
            return Ok(true);
        }
        let api = kind.api(self.client, &self.owner.namespace);
        let name = built.name();
        let object = format!("{} {name}", kind.kind());
        let mut replaced = false;
        // A child that is in no cache and was not written before is created without a read. A 409 shows that it exists.
        let is_made = self.memory.settled.contains_key(&kind);
        let mut is_known = self.seen.contains_key(&kind) || is_made || absent == Absent::Leave;
        for _ in 0..ATTEMPTS {
            let live = match is_known {
                true => api.get_opt(name).await.map_err(Error::kubernetes(format!("reading {object}")))?,
                false => None,
            };
            is_known = true;
            if let Some(live) = &live {
                let found = Seen::of(live.meta(), self.owner);
                if !found.is_for_us() {
                    return Err(Failure::Conflict(conflict_with(kind, &found)));
                }
                if live.data.get("immutable") == Some(&Value::Bool(true)) {
                    self.freeze(kind, name, found.uid);
                    return Err(Error::Immutable(object).into());
                }
                if !replaced && drift(live, &desired.value).map_err(Error::from)?.is_none() {
                    release(&api, live).await?;
                    self.settle(kind, live, &desired.hash);
                    return Ok(true);
                }
                if !keep(&api, live, &desired).await? {
                    continue;
                }
            } else if absent == Absent::Leave {
                return Ok(false);
            }
            let patch = desired.guarded(live.as_ref().map(DynamicObject::meta));
            let parameters = PatchParams::apply(MANAGER).force();
            match api.patch(name, &parameters, &Patch::Apply(&patch)).await {
                Ok(applied) => {
                    tracing::info!(
                        server = %self.owner.name, namespace = %self.owner.namespace,
                        "applied {object}: {}", cause(live.as_ref(), &desired.hash)
                    );
                    if let Some(drift) = drift(&applied, &desired.value).map_err(Error::from)? {
                        return Err(Error::Overridden { object, drift }.into());
                    }
                    release(&api, &applied).await?;
                    self.settle(kind, &applied, &desired.hash);
                    return Ok(true);
                }
                // Another writer was faster. The object may be foreign, so it is read again.
                Err(error) if code(&error) == Some(409) => {}
                Err(error) if code(&error) == Some(422) && !replaced => {
                    let uid = live.as_ref().and_then(ResourceExt::uid);
                    let live = live.map(serde_json::to_value).transpose().map_err(Error::from)?;
                    let Some(patch) = live.and_then(|live| replacement(&live, &desired.value)) else {
                        return Err(self.refused(built, &desired, error).await.into());
                    };
                    let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
                    match api.patch(name, &parameters, &Patch::<DynamicObject>::Json(patch)).await {
                        Ok(_) => replaced = true,
                        // A failed test in the patch: the object changed since it was read.
                        Err(later) if matches!(code(&later), Some(404 | 409)) => {}
                        // The ConfigMap cannot be changed, so its content moves to another name.
                        Err(later) if code(&later) == Some(422) && kind.watched_as() == ChildKind::Policy => {
                            self.freeze(kind, name, uid.unwrap_or_default());
                            return Err(Error::Immutable(object).into());
                        }
                        // The first error describes the cause best.
                        Err(_) => return Err(self.refused(built, &desired, error).await.into()),
                    }
                }
                Err(error) => return Err(Error::kubernetes(format!("applying {object}"))(error).into()),
            }
        }
        Err(Error::Contended { object, attempts: ATTEMPTS }.into())
    }

    /// Records that a ConfigMap is immutable.
    fn freeze(&mut self, kind: ChildKind, name: &str, uid: String) {
        let Some(edition) = Edition::of(kind, &self.owner.name, name) else { return };
        tracing::warn!(server = %self.owner.name, namespace = %self.owner.namespace, config_map = name,
            "a ConfigMap is immutable; its content is written under another name");
        self.memory.frozen.note(kind, edition, uid);
    }

    /// Returns the error of a refused child. A dry-run creation finds out if the child is invalid, or if only this live
    /// object cannot be changed to it. The API server checks the name last, so a 409 shows that the child is valid.
    async fn refused(&self, built: &Child, desired: &Desired, refusal: kube::Error) -> Error {
        let object = format!("{} {}", built.kind().kind(), built.name());
        let parameters = PostParams { dry_run: true, field_manager: Some(MANAGER.to_owned()) };
        let api = built.kind().api(self.client, &self.owner.namespace);
        let created = match serde_json::from_value::<DynamicObject>(desired.value.clone()) {
            Ok(new) => api.create(&parameters, &new).await,
            Err(error) => return error.into(),
        };
        match created {
            Err(error) if code(&error) == Some(409) => {
                let command = format!("kubectl -n {} delete {}", self.owner.namespace, built.kubectl_name());
                Error::Unchangeable { object, command, source: Box::new(refusal) }
            }
            _ => Error::kubernetes(format!("applying {object}"))(refusal),
        }
    }

    /// Changes the policy that a Deployment mounts. All its old pods are deleted at once, because they receive no more
    /// updates.
    pub(crate) async fn mount_policy(&self, deployment: &ChildView, policy: &str) -> Result<(), Error> {
        let volume = json!({"name": POLICY_VOLUME, "configMap": {"name": policy}});
        // With the strategy Recreate, the API server accepts no numbers.
        let strategy = match deployment.recreates {
            true => json!({}),
            false => json!({"rollingUpdate": {"maxUnavailable": MOVING}}),
        };
        let patch = json!({
            "metadata": {"uid": deployment.uid, "annotations": {ROLL_OUT: RollOut::Requested.as_str()}},
            "spec": {"strategy": strategy, "template": {"spec": {"volumes": [volume]}}},
        });
        let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let api = ChildKind::Deployment.api(self.client, &self.owner.namespace);
        match api.patch(deployment.name(), &parameters, &Patch::Strategic(&patch)).await {
            Ok(_) => {
                tracing::info!(server = %self.owner.name, namespace = %self.owner.namespace, policy,
                    "replacing pods to mount another policy");
                Ok(())
            }
            Err(error) if matches!(code(&error), Some(404 | 409)) => Ok(()),
            Err(error) => {
                Err(Error::kubernetes(format!("mounting {policy} in Deployment {}", deployment.name()))(error))
            }
        }
    }

    /// Sets an annotation of a child, if the object is still the one that was seen. It changes nothing else.
    pub(crate) async fn annotate(&self, kind: ChildKind, annotation: &str, value: &str) -> Result<(), Error> {
        let Some(seen) = self.seen.get(&kind).filter(|seen| seen.is_ours()) else { return Ok(()) };
        let name = kind.name(&self.owner.name);
        let patch = json!({"metadata": {"uid": seen.uid, "annotations": {annotation: value}}});
        let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let api = kind.api(self.client, &self.owner.namespace);
        match api.patch(&name, &parameters, &Patch::Merge(&patch)).await {
            Ok(_) => Ok(()),
            Err(error) if matches!(code(&error), Some(404 | 409)) => Ok(()),
            Err(error) => Err(Error::kubernetes(format!("annotating {} {name}", kind.kind()))(error)),
        }
    }

    fn settle(&mut self, kind: ChildKind, object: &DynamicObject, built: &str) {
        let Seen { uid, version, .. } = Seen::of(&object.metadata, self.owner);
        let hash = Settled::hash(&uid, &version, built);
        self.memory.settled.insert(kind, Settled { hash, generation: object.metadata.generation });
    }

    /// Deletes an unwanted child, as it was seen.
    pub(crate) async fn prune_seen(&mut self, kind: ChildKind) -> Result<(), Error> {
        let seen = self.seen.get(&kind).cloned();
        self.prune(kind, seen).await
    }

    /// Deletes an unwanted child, if it is ours and is not being deleted yet.
    pub(crate) async fn prune(&mut self, kind: ChildKind, seen: Option<Seen>) -> Result<(), Error> {
        self.memory.settled.remove(&kind);
        // Deleting once is enough: the watch may not show the deletion yet.
        let is_told = |seen: &Seen| seen.leaving || self.memory.deleted.get(&kind) == Some(&seen.uid);
        let Some(seen) = seen.filter(|seen| seen.is_ours() && !is_told(seen)) else { return Ok(()) };
        let object = format!("{} {}", kind.kind(), kind.name(&self.owner.name));
        let preconditions = Preconditions { uid: Some(seen.uid.clone()), resource_version: None };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let api = kind.api(self.client, &self.owner.namespace);
        match api.delete(&kind.name(&self.owner.name), &parameters).await {
            Ok(_) => {
                tracing::info!(server = %self.owner.name, namespace = %self.owner.namespace,
                    "deleted {object}: it is no longer wanted");
                self.memory.deleted.insert(kind, seen.uid);
                Ok(())
            }
            Err(error) if matches!(code(&error), Some(404 | 409)) => Ok(()),
            Err(error) => Err(Error::kubernetes(format!("deleting {object}"))(error)),
        }
    }
}

/// Begins the hand-over of replicas to an autoscaler, if the Deployment gets one. Returns true if the Deployment did
/// not change since it was read.
async fn keep(api: &Api<DynamicObject>, live: &DynamicObject, desired: &Desired) -> Result<bool, Error> {
    if !replicas::is_dropped(live, &desired.value) {
        return Ok(true);
    }
    match replicas::keep(api, live).await {
        Ok(()) => Ok(true),
        // Another client has scaled it.
        Err(error) if code(&error) == Some(409) => Ok(false),
        Err(error) => Err(Error::kubernetes(format!("keeping the replicas of Deployment {}", live.name_any()))(error)),
    }
}

/// Ends the hand-over of replicas back to the spec.
async fn release(api: &Api<DynamicObject>, live: &DynamicObject) -> Result<(), Error> {
    if replicas::is_held_twice(live) {
        let action = format!("releasing the replicas of Deployment {}", live.name_any());
        replicas::release(api, live).await.map_err(Error::kubernetes(action))?;
    }
    Ok(())
}

/// A child in the form that is applied.
pub(crate) struct Desired {
    pub(crate) value: Value,
    hash: String,
}

impl Desired {
    pub(crate) fn of(built: &Child) -> Self {
        let mut value = json_of(built);
        let mut hash = hex::encode(Sha256::digest(value.to_string()));
        hash.truncate(16);
        merge(&mut value, json!({"metadata": {"annotations": {APPLIED_HASH: hash}}}));
        Self { value, hash }
    }

    /// Returns the object to send. For an existing object it contains the uid, so that a later object of that name is
    /// never taken over. It does not contain the version, which changes with every status. For a new object it contains
    /// version `1`, which creates, and gives a 409 if the object exists. Version `0` would merge into it.
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

/// Returns the patch for changes that server-side apply cannot revert: a changed key of a list adds a second entry, and
/// another member of a union stays. It replaces the whole spec, except fields that are set once and never change. For a
/// ConfigMap it replaces data and annotations, and removes binary data.
fn replacement(live: &Value, desired: &Value) -> Option<json_patch::Patch> {
    let metadata = live.get("metadata")?;
    let mut operations = vec![
        json!({"op": "test", "path": "/metadata/uid", "value": metadata.get("uid")?}),
        json!({"op": "test", "path": "/metadata/resourceVersion", "value": metadata.get("resourceVersion")?}),
    ];
    if let Some(data) = desired.get("data") {
        let annotations = desired.pointer("/metadata/annotations")?;
        operations.push(json!({"op": "add", "path": "/data", "value": data}));
        operations.push(json!({"op": "add", "path": "/metadata/annotations", "value": annotations}));
        operations.extend(live.get("binaryData").map(|_| json!({"op": "remove", "path": "/binaryData"})));
        return serde_json::from_value(Value::Array(operations)).ok();
    }
    let mut spec = json!({});
    for given in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "replicas"] {
        if let Some(value) = live.pointer(&format!("/spec/{given}")) {
            merge(&mut spec, json!({given: value}));
        }
    }
    merge(&mut spec, desired.get("spec")?.clone());
    operations.push(json!({"op": "replace", "path": "/spec", "value": spec}));
    serde_json::from_value(Value::Array(operations)).ok()
}

fn cause(live: Option<&DynamicObject>, hash: &str) -> &'static str {
    match live {
        None => "it did not exist",
        Some(live) if live.annotations().get(APPLIED_HASH).is_some_and(|applied| applied == hash) => {
            "it was changed by others"
        }
        Some(_) => "the desired state changed",
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

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;

    use super::*;

    #[test]
    fn an_absent_child_is_only_created_and_a_present_one_only_changed() {
        let desired = Desired::of(&Child::Service(Service::default()));
        assert_eq!(desired.guarded(None)["metadata"]["resourceVersion"], "1");
        let live = kube::core::ObjectMeta { uid: Some("u".into()), ..kube::core::ObjectMeta::default() };
        let guarded = desired.guarded(Some(&live));
        assert_eq!(guarded["metadata"]["uid"], "u");
        assert_eq!(guarded["metadata"]["annotations"][APPLIED_HASH], json!(desired.hash));
    }

    #[test]
    fn a_replaced_spec_keeps_the_number_of_pods_that_it_does_not_name() {
        let live = json!({"metadata": {"uid": "u", "resourceVersion": "7"}, "spec": {"replicas": 4}});
        let replicas =
            |desired: Value| serde_json::to_value(replacement(&live, &desired).unwrap()).unwrap()[2]["value"].clone();
        assert_eq!(replicas(json!({"spec": {"paused": false}}))["replicas"], 4);
        assert_eq!(replicas(json!({"spec": {"replicas": 2}}))["replicas"], 2);
    }

    #[test]
    fn a_replaced_spec_keeps_only_immutable_and_allocated_values() {
        let live = json!({
            "metadata": {"uid": "u", "resourceVersion": "7"},
            "spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 81}], "externalName": "evil"},
        });
        let patch = replacement(&live, &json!({"spec": {"ports": [{"port": 80}]}})).unwrap();
        let patch = serde_json::to_value(patch).unwrap();
        assert_eq!(patch[0], json!({"op": "test", "path": "/metadata/uid", "value": "u"}));
        assert_eq!(patch[1], json!({"op": "test", "path": "/metadata/resourceVersion", "value": "7"}));
        assert_eq!(patch[2]["value"], json!({"clusterIP": "10.0.0.1", "ports": [{"port": 80}]}));
        assert!(replacement(&live, &json!({"secrets": []})).is_none(), "a ServiceAccount has no spec");
    }

    #[test]
    fn the_whole_content_of_a_config_map_is_replaced() {
        let desired = json!({"data": {"a": "1"}, "metadata": {"annotations": {"ours": "1"}}});
        let replaced = |rest: Value| {
            let mut live = json!({"metadata": {"uid": "u", "resourceVersion": "7", "annotations": {"theirs": "1"}}});
            merge(&mut live, rest);
            let before = live.clone();
            json_patch::patch(&mut live, &replacement(&before, &desired).unwrap()).unwrap();
            (live["data"].clone(), live["metadata"]["annotations"].clone(), live.get("binaryData").is_some())
        };
        let expected = (json!({"a": "1"}), json!({"ours": "1"}), false);
        assert_eq!(replaced(json!({"data": {"a": "2", "b": "3"}})), expected);
        assert_eq!(replaced(json!({"binaryData": {"a": "AA=="}})), expected);
    }

    #[test]
    fn a_conflict_with_a_foreign_object_comes_before_one_with_an_object_under_deletion() {
        let seen = |whose| Seen { uid: "u".into(), version: "1".into(), whose, controller: None, leaving: false };
        let mut children = SeenChildren::from([
            (ChildKind::Policy, seen(Whose::Predecessors)),
            (ChildKind::Deployment, seen(Whose::Ours)),
        ]);
        assert!(conflict(&children, ChildKind::ALL).unwrap().collected);
        children.insert(ChildKind::Service, seen(Whose::Foreign));
        children.insert(ChildKind::ServiceAccount, seen(Whose::Foreign));
        let found = conflict(&children, ChildKind::ALL).unwrap();
        let kinds: Vec<ChildKind> = found.objects.iter().map(|taken| taken.kind).collect();
        assert_eq!((kinds, found.collected), (vec![ChildKind::ServiceAccount, ChildKind::Service], false));
        assert_eq!(conflict(&children, &[ChildKind::Service]).unwrap().objects.len(), 1, "only wanted children count");
    }
}
