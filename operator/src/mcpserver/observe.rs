//! The first step of a reconcile: the subject, and the policy that follows from what the watches show of its mappings.

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

/// The McpServer of a pass, by what there is to do for it.
#[derive(Clone, Copy)]
pub(crate) enum Subject<'a> {
    /// It is there: its spec is brought about.
    Present(&'a McpServer),
    /// It is being deleted. Its children go with it: the garbage collector follows their owner references. As long as
    /// somebody's finalizer holds it up, its pods serve.
    Leaving(&'a McpServer),
    /// Nothing but its metadata can be read, as of one of another version of the kind. Its pods serve.
    Unreadable(&'a ObjectMeta),
}

impl<'a> Subject<'a> {
    /// The subject that a watch shows.
    pub(crate) fn of(watched: &'a WatchedServer) -> Self {
        match &watched.0 {
            Ok(server) if server.metadata.deletion_timestamp.is_none() => Self::Present(server),
            Ok(server) => Self::Leaving(server),
            Err(invalid) => Self::Unreadable(&invalid.metadata),
        }
    }

    /// Its metadata, which can always be read.
    pub(crate) fn metadata(self) -> &'a ObjectMeta {
        match self {
            Self::Present(server) | Self::Leaving(server) => &server.metadata,
            Self::Unreadable(metadata) => metadata,
        }
    }

    /// The server, if it can be read.
    pub(crate) fn readable(self) -> Option<&'a McpServer> {
        match self {
            Self::Present(server) | Self::Leaving(server) => Some(server),
            Self::Unreadable(_) => None,
        }
    }
}

/// Compiles the policy of a server from the mappings that the watches show.
pub(crate) fn compile(subject: Subject<'_>, world: &World) -> Result<Compiled, Error> {
    let metadata = subject.metadata();
    let namespace = &metadata.namespace;
    let mappings = world.mappings.state_filter(|mapping| mapping.meta().namespace == *namespace);
    let cluster_mappings = world.cluster_mappings.state();
    let own = mappings.iter().filter_map(|mapping| mapping.0.as_ref().ok()).map(Mapping::from);
    // Nobody knows the rules of a deny that cannot be read: it denies everything.
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
