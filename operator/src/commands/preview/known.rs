//! Facts that decisions about a server follow from, read from the cluster or from manifests.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, Config, Resource, ResourceExt, core::DeserializeGuard};
use mcp_entra_crds::{ClusterMcpRoleMapping, McpRoleMapping, McpServer};

use crate::{
    commands::{
        asked_backend::ask,
        manifests::{ManifestError, Manifests},
        preview::{error::PreviewError, options::PreviewOptions},
    },
    policy::{binding::Labels, offered::Offered},
};

/// The objects that decisions about a server depend on.
#[derive(Default)]
pub(super) struct Known {
    pub(super) servers: Vec<McpServer>,
    pub(super) mappings: Vec<McpRoleMapping>,
    pub(super) cluster_mappings: Vec<ClusterMcpRoleMapping>,
    pub(super) namespace_labels: Option<Labels>,
    /// Names of unreadable mappings.
    pub(super) unreadable: Vec<String>,
    /// The names that the server's backend offers, or the reason why they are unknown.
    pub(super) backend: Option<Result<Offered, String>>,
    /// The backend's tools that are hidden because they differ from the pin.
    pub(super) hidden: Vec<String>,
}

/// The facts as the cluster has them, with the namespace.
pub(super) async fn from_cluster(options: &PreviewOptions) -> Result<(String, Known), PreviewError> {
    let config = Config::infer().await.map_err(|error| PreviewError::Config(error.to_string()))?;
    let namespace = options.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    let client = Client::try_from(config).map_err(|error| PreviewError::Config(error.to_string()))?;
    let failed = |action: String| move |source| PreviewError::Kubernetes { action, source: Box::new(source) };
    let servers = Api::<McpServer>::namespaced(client.clone(), &namespace).list(&Default::default()).await;
    let mut known = Known {
        servers: servers.map_err(failed(format!("listing the McpServers of {namespace}")))?.items,
        ..Known::default()
    };
    let backend = known.servers.iter().find(|server| server.name_any() == options.server);
    if let Some(backend) = backend.and_then(|server| server.spec.backend.as_ref()) {
        let asked = ask(&client, &namespace, &options.server).await;
        let report = asked.map_err(|error| error.to_string()).map(|(_, report)| report);
        known.hidden = report.iter().flat_map(|report| report.hidden.iter().cloned()).collect();
        known.backend = Some(report.map(|report| Offered {
            tools: report.tools.into_keys().filter(|name| !report.hidden.contains(name)).collect(),
            prompts: report.prompts,
            resources: report.resources,
            is_pinned: backend.pin.is_some(),
        }));
    }
    let mappings: Api<DeserializeGuard<McpRoleMapping>> = Api::namespaced(client.clone(), &namespace);
    let mappings = mappings.list(&Default::default()).await;
    let mappings = mappings.map_err(failed(format!("listing the McpRoleMappings of {namespace}")))?;
    known.mappings = readable(mappings.items, &mut known.unreadable);
    let mappings: Api<DeserializeGuard<ClusterMcpRoleMapping>> = Api::all(client.clone());
    let mappings = mappings.list(&Default::default()).await;
    let mappings = mappings.map_err(failed("listing the ClusterMcpRoleMappings".to_owned()))?;
    known.cluster_mappings = readable(mappings.items, &mut known.unreadable);
    if !known.cluster_mappings.is_empty() {
        let read = Api::<Namespace>::all(client).get_metadata(&namespace).await;
        let read = read.map_err(failed(format!("reading the labels of namespace {namespace}")))?;
        known.namespace_labels = Some(read.labels().clone());
    }
    Ok((namespace, known))
}

fn readable<K: Resource<DynamicType = ()>>(found: Vec<DeserializeGuard<K>>, unreadable: &mut Vec<String>) -> Vec<K> {
    let mut read = |found: DeserializeGuard<K>| {
        let name = format!("{} {}", K::kind(&()), found.name_any());
        found.0.inspect_err(|_| unreadable.push(name)).ok()
    };
    found.into_iter().filter_map(&mut read).collect()
}

/// The facts as manifests have them.
pub(super) fn from_files(files: &[PathBuf], namespace: &str) -> Result<Known, ManifestError> {
    let manifests = Manifests::read(files)?;
    Ok(Known {
        servers: manifests.of(namespace)?,
        mappings: manifests.of(namespace)?,
        cluster_mappings: manifests.all()?,
        namespace_labels: manifests.labels_of(namespace)?,
        ..Known::default()
    })
}
