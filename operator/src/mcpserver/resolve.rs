//! Reads of a reconcile: owners of the children's names, and references of the spec. Caches are preferred; the API server
//! is asked for the rest.
//!
//! A normal start needs no such read. A child or claim that is in no cache is created in a way that changes no existing
//! object. If the creation shows that it exists, it is read. If it is foreign, all other names are read, too.

use k8s_openapi::{
    api::core::v1::{ConfigMap, ServiceAccount},
    jiff::Timestamp,
};
use kube::{Api, Client, api::DynamicObject, runtime::reflector::ObjectRef};
use mcp_entra_crds::{AuthorizationServer, GatewayReference, McpServer};

use crate::{
    mcpserver::{
        keys::{
            epochs::{Decision, Requests, decide},
            seen,
        },
        pass_memory::{ReadTrustBundle, ServerMemory},
        resolved::{NamedGateway, Resolved, ResolvedAccount, ResolvedTrustBundle, SeenChildren},
    },
    objects::{
        child::ChildKind,
        config_map_edition::{Edition, Mounted},
        names::SERVER_UID,
        observed_child::Seen,
        owner::{Owner, Whose},
    },
    runtime::errors::Error,
    watch::stores::World,
};

/// Returns the cached object with a child's name.
pub(crate) fn watched(world: &World, owner: &Owner, kind: ChildKind) -> Option<Seen> {
    named(world, owner, kind, &kind.name(&owner.name))
}

fn named(world: &World, owner: &Owner, kind: ChildKind, name: &str) -> Option<Seen> {
    world.children.named(kind, &owner.namespace, name).map(|found| Seen::watched(&found, owner))
}

/// Returns the cached policy of an edition. All ConfigMaps are watched, of any owner.
pub(crate) fn policy(world: &World, owner: &Owner, edition: Edition) -> Option<Seen> {
    named(world, owner, ChildKind::Policy, &edition.name(ChildKind::Policy, &owner.name))
}

/// Returns the cached objects with the children's names.
pub(crate) fn children(world: &World, owner: &Owner, mounted: Mounted) -> SeenChildren {
    let found = |kind: &ChildKind| named(world, owner, *kind, &mounted.name(*kind, &owner.name));
    ChildKind::ALL.iter().filter_map(|kind| Some((*kind, found(kind)?))).collect()
}

/// Returns the same, after reading the wanted children that are in no cache.
pub(crate) async fn all_children(
    client: &Client,
    world: &World,
    owner: &Owner,
    mounted: Mounted,
    wanted: &[ChildKind],
) -> Result<SeenChildren, Error> {
    let mut seen = children(world, owner, mounted);
    // All ConfigMaps are watched, of any owner.
    for kind in wanted.iter().filter(|kind| kind.watched_as() != ChildKind::Policy) {
        if seen.contains_key(kind) {
            continue;
        }
        let name = mounted.name(*kind, &owner.name);
        let found = kind
            .api(client, &owner.namespace)
            .get_metadata_opt(&name)
            .await
            .map_err(Error::kubernetes(format!("reading {} {name}", kind.kind())))?;
        seen.extend(found.map(|found| (*kind, Seen::of(&found.metadata, owner))));
    }
    Ok(seen)
}

/// Reads the objects that the spec refers to.
pub(crate) async fn references(
    client: &Client,
    world: &World,
    server: &McpServer,
    owner: &Owner,
    memory: &mut ServerMemory,
) -> Result<Resolved, Error> {
    Ok(Resolved {
        pods_uid: pods_uid(client, world, owner).await?,
        trust_bundle: {
            let bundle = server.spec.entra.trust_bundle.as_ref().map(|bundle| (&*bundle.name, &*bundle.key));
            certificates((client, world), owner, bundle, &mut memory.trust_bundle).await?
        },
        store_ca: {
            let bundle = server.spec.authorization_server.as_ref().and_then(AuthorizationServer::store_ca);
            let bundle = bundle.map(|bundle| (&*bundle.name, bundle.key()));
            certificates((client, world), owner, bundle, &mut memory.store_ca).await?
        },
        keys: keys(client, world, server, owner, memory).await?,
        account: account(client, server, owner).await?,
        gateways: gateways(world, server, owner),
    })
}

/// Returns the server uid in the live Deployment's pod template. An adopted Deployment keeps the uid of its first
/// owner, because a change would restart the pods.
async fn pods_uid(client: &Client, world: &World, owner: &Owner) -> Result<Option<String>, Error> {
    let Some(found) = world.children.get(ChildKind::Deployment, owner) else { return Ok(None) };
    let noted = found.annotation(SERVER_UID).map(str::to_owned);
    match Seen::watched(&found, owner).whose {
        Whose::Ours => return Ok(noted),
        Whose::Offered if noted.is_some() => return Ok(noted),
        Whose::Offered => {}
        Whose::Predecessors | Whose::Foreign => return Ok(None),
    }
    // Earlier versions wrote it only into the template.
    let name = ChildKind::Deployment.name(&owner.name);
    let api = ChildKind::Deployment.api(client, &owner.namespace);
    let live = api.get_opt(&name).await.map_err(Error::kubernetes(format!("reading Deployment {name}")))?;
    let uid = |live: &DynamicObject| {
        let annotations = live.data.pointer("/spec/template/metadata/annotations")?;
        Some(annotations.get(SERVER_UID)?.as_str()?.to_owned())
    };
    Ok(live.as_ref().and_then(uid))
}

/// Returns the Gateways that the exposure names, if the cluster serves the kind.
fn gateways(world: &World, server: &McpServer, owner: &Owner) -> Option<Vec<NamedGateway>> {
    if !world.missing([ChildKind::HttpRoute]).is_empty() {
        return None;
    }
    let gateway = server.spec.exposure.as_ref().and_then(|exposure| exposure.gateway.as_ref());
    let named = |parent: &GatewayReference| {
        let namespace = parent.namespace.as_ref().unwrap_or(&owner.namespace);
        let gateway = world.gateways.get(&ObjectRef::new(&parent.name).within(namespace));
        NamedGateway {
            parent: parent.clone(),
            namespace: namespace.clone(),
            takes_timeouts: gateway.as_ref().is_some_and(|gateway| {
                let class = world.gateway_classes.get(&ObjectRef::new(&gateway.spec.gateway_class_name));
                class.is_some_and(|class| class.takes_timeouts())
            }),
            listeners: gateway.map(|gateway| gateway.spec.listeners.clone()),
        }
    };
    Some(gateway.into_iter().flat_map(|gateway| &gateway.parent_refs).map(named).collect())
}

/// Reads a foreign ServiceAccount in every pass: it has no watched label, and its permission can be withdrawn.
async fn account(client: &Client, server: &McpServer, owner: &Owner) -> Result<ResolvedAccount, Error> {
    let federation = server.spec.entra.federation.as_ref();
    let Some(name) = federation.and_then(|federation| federation.service_account_name.as_ref()) else {
        return Ok(ResolvedAccount::Unset);
    };
    let account = Api::<ServiceAccount>::namespaced(client.clone(), &owner.namespace)
        .get_metadata_opt(name)
        .await
        .map_err(Error::kubernetes(format!("reading ServiceAccount {name}")))?;
    Ok(ResolvedAccount::of(account.as_ref().map(|account| &account.metadata), owner))
}

/// Returns the key epochs of the server's authorization server, if it has one.
async fn keys(
    client: &Client,
    world: &World,
    server: &McpServer,
    owner: &Owner,
    memory: &mut ServerMemory,
) -> Result<Decision, Error> {
    if server.spec.authorization_server.is_none() {
        return Ok(Decision::default());
    }
    let (seen, taken) = seen::epochs(client, world, owner, &mut memory.epochs).await?;
    Ok(decide(&Requests::of(&server.metadata), seen, taken, Timestamp::now().as_second()))
}

/// Reads CA certificates from a ConfigMap's key, if it changed since the last read.
async fn certificates(
    (client, world): (&Client, &World),
    owner: &Owner,
    bundle: Option<(&str, &str)>,
    last: &mut Option<ReadTrustBundle>,
) -> Result<ResolvedTrustBundle, Error> {
    let Some((name, key)) = bundle else { return Ok(ResolvedTrustBundle::Unset) };
    let Some(watched) = world.children.config_map(&owner.namespace, name) else {
        return Ok(ResolvedTrustBundle::NoConfigMap);
    };
    let known = last
        .take()
        .filter(|known| *watched.uid == *known.uid && *watched.version == *known.resource_version && known.key == key);
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
                key: key.to_owned(),
                certificates: config_map.data.unwrap_or_default().remove(key),
            }
        }
    };
    let resolved = match &read.certificates {
        Some(certificates) => ResolvedTrustBundle::Content(certificates.clone()),
        None => ResolvedTrustBundle::NoKey,
    };
    *last = Some(read);
    Ok(resolved)
}
