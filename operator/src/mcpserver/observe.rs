//! First step of a reconcile: the subject, and the policy from the cached mappings.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use mcp_entra_crds::{ClusterMcpRoleMapping, McpServer};

use crate::{
    policy::{
        binding::{Mapping, Target, unreadable_as_deny},
        compile::{self, Compiled},
    },
    runtime::errors::Error,
    watch::stores::{WatchedServer, World, labels_of},
};

/// The McpServer of a pass, by what the pass does with it.
#[derive(Clone, Copy)]
pub(crate) enum Subject<'a> {
    /// The server exists, and its spec is applied.
    Present(&'a McpServer),
    /// The server is being deleted. The garbage collector deletes its children by their owner references. Its pods
    /// serve as long as a finalizer delays the deletion.
    Leaving(&'a McpServer),
    /// Only its metadata is readable, such as after a change of the kind's version. Its pods serve.
    Unreadable(&'a ObjectMeta),
}

impl<'a> Subject<'a> {
    /// Returns the subject for a watched object.
    pub(crate) fn of(watched: &'a WatchedServer) -> Self {
        match &watched.0 {
            Ok(server) if server.metadata.deletion_timestamp.is_none() => Self::Present(server),
            Ok(server) => Self::Leaving(server),
            Err(invalid) => Self::Unreadable(&invalid.metadata),
        }
    }

    /// Returns its metadata, which is always readable.
    pub(crate) fn metadata(self) -> &'a ObjectMeta {
        match self {
            Self::Present(server) | Self::Leaving(server) => &server.metadata,
            Self::Unreadable(metadata) => metadata,
        }
    }

    /// Returns the server, if it is readable.
    pub(crate) fn readable(self) -> Option<&'a McpServer> {
        match self {
            Self::Present(server) | Self::Leaving(server) => Some(server),
            Self::Unreadable(_) => None,
        }
    }
}

/// Compiles the policy of a server from the cached mappings.
pub(crate) fn compile(subject: Subject<'_>, world: &World) -> Result<Compiled, Error> {
    let metadata = subject.metadata();
    let namespace = &metadata.namespace;
    let mappings = world.mappings.state_filter(|mapping| mapping.meta().namespace == *namespace);
    let cluster_mappings = world.cluster_mappings.state();
    let own = mappings.iter().filter_map(|mapping| mapping.0.as_ref().ok()).map(Mapping::from);
    // The rules of an unreadable mapping are unknown, so it denies everything.
    let unreadable: Vec<ClusterMcpRoleMapping> = cluster_mappings
        .iter()
        .filter_map(|mapping| mapping.0.as_ref().err())
        .map(|invalid| unreadable_as_deny(invalid.metadata.clone()))
        .collect();
    let cluster = cluster_mappings.iter().filter_map(|mapping| mapping.0.as_ref().ok()).chain(&unreadable);
    let labels = labels_of(&world.namespaces, metadata);
    let target = match subject.readable() {
        Some(server) => Target::of(server, labels.as_ref()),
        None => Target::unreadable(metadata, labels.as_ref()),
    };
    Ok(compile::compile(&target, own.chain(cluster.map(Mapping::from)))?)
}
