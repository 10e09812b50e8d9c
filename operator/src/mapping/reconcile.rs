//! Controllers of both kinds of mappings. They only write statuses: the passes over servers compile the mappings.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::{api::core::v1::ObjectReference, jiff::Timestamp};
use kube::{
    Api, Client, Resource,
    api::{DynamicObject, Patch, PatchParams},
    core::{ApiResource, DeserializeGuard},
    runtime::{controller::Action, reflector::Store},
};
use mcp_entra_crds::{McpRoleMappingStatus, McpServer};

use crate::{
    MANAGER,
    conditions::{events, status_patch::status_patch, status_write_failure::Unwritten},
    mapping::status::{Presence, presence, status, survey},
    mcpserver::pass_memory::Since,
    objects::owner::NoIdentity,
    policy::{
        binding::{Mapping, Target},
        written_policies::ProgrammedPolicies,
    },
    runtime::{
        by_uid::ByUid,
        errors::{Error, SOON},
        pass_limits::Passes,
        ready_gate::Gate,
    },
    watch::stores::{WatchedNamespace, WatchedServer, labels_of},
};

/// Time for which a mapping that is not in all policies is checked every second without a status write. Servers are
/// reconciled one after another, and each would cause a write. Later it is checked every ten seconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// The context of passes over mappings of one kind.
pub(crate) struct MappingContext<K: Resource<DynamicType = ()> + Clone + 'static> {
    pub(crate) client: Client,
    pub(crate) mappings: Store<DeserializeGuard<K>>,
    pub(crate) servers: Store<WatchedServer>,
    pub(crate) namespaces: Store<WatchedNamespace>,
    pub(crate) gate: Gate,
    pub(crate) policies: Arc<ProgrammedPolicies>,
    /// True if this operator writes the status of these mappings.
    pub(crate) is_told: bool,
    /// The time since which a mapping waits for its servers.
    pub(crate) waiting: ByUid<Since>,
    /// The last written status and the mapping's version that it is based on, until the watch shows the write.
    pub(crate) written: ByUid<(Option<String>, McpRoleMappingStatus)>,
    pub(crate) passes: Passes,
    pub(crate) unwritten: Unwritten,
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> MappingContext<K> {
    /// Returns the status that was written for this version of a mapping. A newer version from the watch includes it.
    fn written(&self, uid: &str, version: &Option<String>) -> Option<McpRoleMappingStatus> {
        let mut written = self.written.lock();
        if written.get(uid).is_some_and(|(based_on, _)| based_on != version) {
            written.remove(uid);
        }
        written.get(uid).map(|(_, status)| status.clone())
    }

    /// Forgets the memory of mappings that are gone.
    pub(crate) fn retain(&self) {
        let exists = |uid: &str| self.mappings.find(|mapping| mapping.meta().uid.as_deref() == Some(uid)).is_some();
        self.passes.retain(exists);
        self.waiting.retain(exists);
        self.written.retain(exists);
    }
}

/// Updates the status of one mapping.
pub(crate) async fn reconcile<K>(mapping: &K, context: &MappingContext<K>) -> Result<Action, Error>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
    for<'a> Mapping<'a>: From<&'a K>,
{
    context.gate.passed().await?;
    let about = mapping.object_ref(&());
    let mapping = Mapping::from(mapping);
    if mapping.metadata.deletion_timestamp.is_some() || !context.is_told {
        return Ok(Action::await_change());
    }
    let Some(uid) = mapping.metadata.uid.as_deref() else { return Err(NoIdentity.into()) };
    let namespace = mapping.metadata.namespace.as_ref();
    let watched =
        context.servers.state_filter(|server| namespace.is_none() || server.meta().namespace.as_ref() == namespace);
    let servers: Vec<&McpServer> = watched.iter().filter_map(|server| server.0.as_ref().ok()).collect();
    let labels: Vec<_> = servers.iter().map(|server| labels_of(&context.namespaces, &server.metadata)).collect();
    let targets = servers.iter().zip(&labels).map(|(server, labels)| (*server, Target::of(server, labels.as_ref())));
    let survey = survey(&mapping, &targets.collect::<Vec<_>>(), |server| context.policies.offered(server));

    let generation = mapping.metadata.generation.unwrap_or_default();
    let stands = |server: &str| presence(context.policies.get(server).as_ref(), uid, generation);
    let presences: Vec<_> = survey.bound.iter().map(|(name, server)| (name.clone(), stands(server))).collect();
    // No status is worth a write before each bound server had a pass since the start. Every pass ends this state, even
    // a failed one.
    if presences.iter().any(|(_, presence)| *presence == Presence::Unknown) {
        return Ok(Action::requeue(SOON));
    }
    let is_pending = presences.iter().any(|(_, presence)| *presence == Presence::Pending);
    let waiting = context.waiting.lock().entry(uid.to_owned()).or_default().note(is_pending, Instant::now());
    if waiting.is_some_and(|waiting| waiting < PATIENCE) {
        return Ok(Action::requeue(SOON));
    }
    let version = &mapping.metadata.resource_version;
    let before = context.written(uid, version).or_else(|| mapping.status.cloned()).unwrap_or_default();
    let status = status(&mapping.with_status(&before), &survey, &presences, Timestamp::now());
    if before != status {
        write(&mapping, uid, &status, &about, context).await?;
        context.written.put(uid, (version.clone(), status.clone()));
        events::publish(&context.client, &about, &before.conditions, &status.conditions).await;
    }
    // Otherwise, the watches and the hourly timer trigger the next pass.
    Ok(if is_pending { Action::requeue(SOON * 10) } else { Action::await_change() })
}

async fn write<K: Resource<DynamicType = ()> + Clone + 'static>(
    mapping: &Mapping<'_>,
    uid: &str,
    status: &McpRoleMappingStatus,
    about: &ObjectReference,
    context: &MappingContext<K>,
) -> Result<(), Error> {
    let (kind, name, resource) = (K::kind(&()), mapping.name(), ApiResource::erase::<K>(&()));
    let api: Api<DynamicObject> = match &mapping.metadata.namespace {
        Some(namespace) => Api::namespaced_with(context.client.clone(), namespace, &resource),
        None => Api::all_with(context.client.clone(), &resource),
    };
    let patch = status_patch(&kind, name, uid, status)?;
    let written = api.patch_status(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&patch)).await;
    if let Err(error) = &written {
        context.unwritten.tell(about, error).await;
    }
    written.map(drop).map_err(Error::kubernetes(format!("writing the status of {kind} {name}")))
}
