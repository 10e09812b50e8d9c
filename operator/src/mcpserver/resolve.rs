//! Reads: who owns the children's names now, and the trust bundle's content. What the watches show is taken from
//! there; the API server is asked for what they do not.
//!
//! A start needs none of them. A child or claim that no watch shows is created, in a way that changes nothing where there
//! is one of its name. Only then is that one read, and, where it is somebody else's, all other names.

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

/// The object that has a child's name, as far as its watch shows one.
pub(crate) fn watched(world: &World, owner: &Owner, kind: ChildKind) -> Option<Seen> {
    named(world, owner, kind, &kind.name(&owner.name))
}

fn named(world: &World, owner: &Owner, kind: ChildKind, name: &str) -> Option<Seen> {
    world.children.named(kind, &owner.namespace, name).map(|found| Seen::watched(&found, owner))
}

/// The policy of an edition, as far as its watch shows one: all ConfigMaps are watched, whosever they are.
pub(crate) fn policy(world: &World, owner: &Owner, edition: Edition) -> Option<Seen> {
    named(world, owner, ChildKind::Policy, &edition.name(ChildKind::Policy, &owner.name))
}

/// The objects that have the children's names, as far as the watches show them.
pub(crate) fn children(world: &World, owner: &Owner, mounted: Mounted) -> SeenChildren {
    let found = |kind: &ChildKind| named(world, owner, *kind, &mounted.name(*kind, &owner.name));
    ChildKind::ALL.iter().filter_map(|kind| Some((*kind, found(kind)?))).collect()
}

/// The same, with those that have the names of these children and that no watch shows.
pub(crate) async fn all_children(
    client: &Client,
    world: &World,
    owner: &Owner,
    mounted: Mounted,
    wanted: &[ChildKind],
) -> Result<SeenChildren, Error> {
    let mut seen = children(world, owner, mounted);
    // All ConfigMaps are watched, whosever they are.
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

/// Finds what the spec refers to.
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

/// The server uid that the pods of the live Deployment carry. An adopted Deployment keeps that of its first owner: another
/// one would change the template, and so restart the pods.
async fn pods_uid(client: &Client, world: &World, owner: &Owner) -> Result<Option<String>, Error> {
    let Some(found) = world.children.get(ChildKind::Deployment, owner) else { return Ok(None) };
    let noted = found.annotation(SERVER_UID).map(str::to_owned);
    match Seen::watched(&found, owner).whose {
        Whose::Ours => return Ok(noted),
        Whose::Offered if noted.is_some() => return Ok(noted),
        Whose::Offered => {}
        Whose::Predecessors | Whose::Foreign => return Ok(None),
    }
    // Earlier versions note it in the template alone.
    let name = ChildKind::Deployment.name(&owner.name);
    let api = ChildKind::Deployment.api(client, &owner.namespace);
    let live = api.get_opt(&name).await.map_err(Error::kubernetes(format!("reading Deployment {name}")))?;
    let uid = |live: &DynamicObject| {
        let annotations = live.data.pointer("/spec/template/metadata/annotations")?;
        Some(annotations.get(SERVER_UID)?.as_str()?.to_owned())
    };
    Ok(live.as_ref().and_then(uid))
}

/// The Gateways that the exposure names, where the cluster has such a kind.
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

/// Looks at the ServiceAccount of somebody else at every pass: it carries no label that is watched, and what it allows
/// may be withdrawn.
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

/// The key epochs of the server's authorization server, if it is to have one.
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

/// Reads CA certificates by the name and the key of their ConfigMap, if it has changed since it was read last.
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
