//! Reads: who owns the children's names now, and the trust bundle's content. What the watches show is taken from
//! there; the API server is asked for what they do not.

use std::{collections::BTreeMap, fmt::Debug};

use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, Service, ServiceAccount},
        networking::v1::Ingress,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, Resource,
    runtime::reflector::{Lookup, ObjectRef, Store},
};
use mcp_entra_crds::{McpServer, TrustBundle};
use serde::de::DeserializeOwned;

use crate::{
    errors::Error,
    memory::{ReadTrustBundle, ServerMemory},
    owner::{ChildKind, Owner},
    world::World,
};

/// An object that has a child's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) uid: String,
    /// Changes whenever something changes that could be ours: the generation where the kind has one (its status may
    /// change freely), else the resource version.
    pub(crate) version: String,
    /// Whether it is this server's own.
    pub(crate) ours: bool,
    /// The kind and name of its controller, for people.
    pub(crate) controller: Option<String>,
}

impl Seen {
    pub(crate) fn of(metadata: &ObjectMeta, owner: &Owner) -> Self {
        let generation = metadata.generation.filter(|generation| *generation > 0).map(|number| number.to_string());
        let controller =
            metadata.owner_references.iter().flatten().find(|reference| reference.controller == Some(true));
        Self {
            uid: metadata.uid.clone().unwrap_or_default(),
            version: generation.or_else(|| metadata.resource_version.clone()).unwrap_or_default(),
            ours: owner.owns(metadata),
            controller: controller.map(|reference| format!("{} {}", reference.kind, reference.name)),
        }
    }
}

/// The objects that have the children's names.
pub(crate) type SeenChildren = BTreeMap<ChildKind, Seen>;

/// Finds who has the children's names. Of an Ingress that is not asked for, only one that the watch shows matters.
pub(crate) async fn children(
    client: &Client,
    world: &World,
    owner: &Owner,
    exposed: bool,
) -> Result<SeenChildren, Error> {
    let mut seen = SeenChildren::new();
    let mut add = |kind: ChildKind, found: Option<Seen>| {
        if let Some(found) = found {
            seen.insert(kind, found);
        }
    };
    for kind in [ChildKind::Policy, ChildKind::Configuration] {
        add(kind, child::<_, ConfigMap>(client, &world.config_maps, owner, kind).await?);
    }
    let kind = ChildKind::ServiceAccount;
    add(kind, child::<_, ServiceAccount>(client, &world.service_accounts, owner, kind).await?);
    let kind = ChildKind::Service;
    add(kind, child::<_, Service>(client, &world.services, owner, kind).await?);
    let kind = ChildKind::Deployment;
    add(kind, child::<_, Deployment>(client, &world.deployments, owner, kind).await?);
    let kind = ChildKind::Ingress;
    if exposed {
        add(kind, child::<_, Ingress>(client, &world.ingresses, owner, kind).await?);
    } else {
        add(kind, watched(&world.ingresses, owner, kind));
    }
    Ok(seen)
}

fn watched<W>(store: &Store<W>, owner: &Owner, kind: ChildKind) -> Option<Seen>
where
    W: Lookup<DynamicType = ()> + Resource + Clone + 'static,
{
    let found = store.get(&ObjectRef::new(&kind.name(&owner.name)).within(&owner.namespace))?;
    Some(Seen::of(found.meta(), owner))
}

async fn child<W, K>(client: &Client, store: &Store<W>, owner: &Owner, kind: ChildKind) -> Result<Option<Seen>, Error>
where
    W: Lookup<DynamicType = ()> + Resource + Clone + 'static,
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Clone + Debug,
{
    if let Some(seen) = watched(store, owner, kind) {
        return Ok(Some(seen));
    }
    let name = kind.name(&owner.name);
    let found = Api::<K>::namespaced(client.clone(), &owner.namespace)
        .get_metadata_opt(&name)
        .await
        .map_err(Error::kubernetes(format!("reading {} {name}", kind.kind())))?;
    Ok(found.map(|found| Seen::of(&found.metadata, owner)))
}

/// What `spec.entra.trustBundle` refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ResolvedTrustBundle {
    /// The spec names none.
    Unset,
    /// There is no such ConfigMap.
    NoConfigMap,
    /// The ConfigMap has no such key.
    NoKey,
    /// What stands under the key.
    Content(String),
}

/// Reads the trust bundle, if it has changed since it was read last.
pub(crate) async fn trust_bundle(
    client: &Client,
    world: &World,
    server: &McpServer,
    owner: &Owner,
    memory: &mut ServerMemory,
) -> Result<ResolvedTrustBundle, Error> {
    let Some(TrustBundle { name, key }) = &server.spec.entra.trust_bundle else {
        return Ok(ResolvedTrustBundle::Unset);
    };
    let Some(watched) = world.config_maps.get(&ObjectRef::new(name).within(&owner.namespace)) else {
        return Ok(ResolvedTrustBundle::NoConfigMap);
    };
    let known = memory.trust_bundle.take().filter(|known| {
        watched.metadata.uid.as_ref() == Some(&known.uid)
            && watched.metadata.resource_version.as_ref() == Some(&known.resource_version)
            && known.key == *key
    });
    let read = match known {
        Some(known) => known,
        None => {
            let config_map = Api::<ConfigMap>::namespaced(client.clone(), &owner.namespace)
                .get_opt(name)
                .await
                .map_err(Error::kubernetes(format!("reading ConfigMap {name}")))?;
            let Some(config_map) = config_map else { return Ok(ResolvedTrustBundle::NoConfigMap) };
            ReadTrustBundle {
                uid: config_map.metadata.uid.unwrap_or_default(),
                resource_version: config_map.metadata.resource_version.unwrap_or_default(),
                key: key.clone(),
                certificates: config_map.data.unwrap_or_default().remove(key),
            }
        }
    };
    let resolved = match &read.certificates {
        Some(certificates) => ResolvedTrustBundle::Content(certificates.clone()),
        None => ResolvedTrustBundle::NoKey,
    };
    memory.trust_bundle = Some(read);
    Ok(resolved)
}
