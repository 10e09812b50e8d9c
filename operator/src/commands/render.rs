//! `render`: prints the children of McpServers in manifests as the operator would apply them, offline. It assumes an
//! empty cluster: no earlier claims and no Gateways.

use std::path::PathBuf;

use clap::Args;
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use mcp_entra_crds::{AuthorizationServer, ClusterMcpRoleMapping, McpRoleMapping, McpServer};

use crate::{
    commands::manifests::{ManifestError, Manifests},
    conditions::condition::Reason,
    mcpserver::{
        apply::Desired,
        build,
        keys::objects::config_map as epoch_config_map,
        resolved::{Resolved, ResolvedAccount, ResolvedTrustBundle},
        validate::{refusal::Refusal, validate},
    },
    objects::{
        config_map_edition::{Edition, Mounted},
        owner::Owner,
    },
    ownership::{self, Standing},
    policy::{
        binding::{Mapping, Target},
        compile::compile,
    },
    runtime::options::Options,
};

/// The uid in owner references of an McpServer without a uid from the API server.
const NO_UID: &str = "00000000-0000-0000-0000-000000000000";

/// The manifests to render.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Manifests with McpServers, and the mappings, Namespaces, ConfigMaps and ServiceAccounts that belong to them.
    /// Repeatable; `-` for standard input.
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Namespace of objects without one.
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
    /// Options of the operator.
    #[command(flatten)]
    pub options: Options,
}

/// The reason why nothing is rendered.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The manifests cannot be used.
    #[error(transparent)]
    Manifests(#[from] ManifestError),
    /// The operator would not accept the McpServer.
    #[error("McpServer {name} would not be accepted ({reason}): {message}")]
    Refused {
        /// The name of the McpServer.
        name: String,
        /// The condition's reason.
        reason: String,
        /// The condition's message.
        message: String,
    },
    /// A document cannot be written.
    #[error("a document cannot be written: {0}")]
    Json(#[from] serde_json::Error),
    /// A document cannot be written.
    #[error("a document cannot be written: {0}")]
    Yaml(#[from] serde_yaml::Error),
}

/// Returns the children of every McpServer in the manifests, as YAML documents in the order of applying.
///
/// # Errors
/// The manifests cannot be used, or the operator would not accept an McpServer.
pub fn render(arguments: &Arguments) -> Result<String, RenderError> {
    let manifests = Manifests::read(&arguments.files)?;
    let mut servers: Vec<McpServer> = manifests.of(&arguments.namespace)?;
    let mappings: Vec<McpRoleMapping> = manifests.of(&arguments.namespace)?;
    let cluster_mappings: Vec<ClusterMcpRoleMapping> = manifests.all()?;
    let config_maps: Vec<ConfigMap> = manifests.of(&arguments.namespace)?;
    let accounts: Vec<ServiceAccount> = manifests.of(&arguments.namespace)?;
    if servers.is_empty() {
        return Err(ManifestError::Missing("McpServer".to_owned()).into());
    }
    for server in &mut servers {
        server.metadata.uid.get_or_insert_with(|| NO_UID.to_owned());
    }
    let mut rendered = String::new();
    for (server, standing) in servers.iter().zip(ownership::from_manifests::standings(&servers)) {
        let name = server.metadata.name.clone().unwrap_or_default();
        let refused = |reason: Reason, message: &str| RenderError::Refused {
            name: name.clone(),
            reason: reason.to_string(),
            message: message.to_owned(),
        };
        let owner = Owner::of(server).map_err(|error| refused(Reason::InvalidConfiguration, &error.to_string()))?;
        let resolved = Resolved {
            trust_bundle: {
                let bundle = server.spec.entra.trust_bundle.as_ref().map(|bundle| (&*bundle.name, &*bundle.key));
                certificates(bundle, &owner, &config_maps)
            },
            store_ca: {
                let bundle = server.spec.authorization_server.as_ref().and_then(AuthorizationServer::store_ca);
                certificates(bundle.map(|bundle| (&*bundle.name, bundle.key())), &owner, &config_maps)
            },
            account: account(server, &owner, &accounts),
            ..Resolved::default()
        };
        let mut validated = validate(server, &owner, &resolved, &arguments.options)
            .map_err(|Refusal { reason, message }| refused(reason, &message))?;
        let held = match standing {
            Standing::Held(held) => held,
            Standing::Lost(lost) => return Err(refused(lost.reason(), &lost.message())),
            Standing::Open => {
                return Err(refused(
                    Reason::OwnershipPending,
                    "the manifests do not decide which server holds its host and client id",
                ));
            }
        };
        validated.hold(&held);
        let labels = manifests.labels_of(&owner.namespace)?;
        let all = mappings.iter().map(Mapping::from).chain(cluster_mappings.iter().map(Mapping::from));
        let policy = build::policy(&owner, Edition::default(), &compile(&Target::of(server, labels.as_ref()), all)?);
        let children = build::children(&validated, &held, Mounted::default());
        if let (Some(_), Some(first)) = (&validated.sign_in, &resolved.keys.made) {
            rendered.push_str("# A Secret of the same name holds a random key, which the operator creates.\n---\n");
            rendered.push_str(&serde_yaml::to_string(&epoch_config_map(&owner, first)?)?);
        }
        for child in std::iter::once(&policy).chain(&children) {
            rendered.push_str("---\n");
            rendered.push_str(&serde_yaml::to_string(&Desired::of(child).value)?);
        }
    }
    Ok(rendered)
}

/// Returns the CA certificates in a key of a ConfigMap.
fn certificates(bundle: Option<(&str, &str)>, owner: &Owner, config_maps: &[ConfigMap]) -> ResolvedTrustBundle {
    let Some((name, key)) = bundle else { return ResolvedTrustBundle::Unset };
    let is_named = |found: &&ConfigMap| {
        found.metadata.name.as_deref() == Some(name) && found.metadata.namespace.as_ref() == Some(&owner.namespace)
    };
    let Some(found) = config_maps.iter().find(is_named) else { return ResolvedTrustBundle::NoConfigMap };
    match found.data.as_ref().and_then(|data| data.get(key)) {
        Some(certificates) => ResolvedTrustBundle::Content(certificates.clone()),
        None => ResolvedTrustBundle::NoKey,
    }
}

fn account(server: &McpServer, owner: &Owner, accounts: &[ServiceAccount]) -> ResolvedAccount {
    let federation = server.spec.entra.federation.as_ref();
    let Some(name) = federation.and_then(|federation| federation.service_account_name.as_ref()) else {
        return ResolvedAccount::Unset;
    };
    let mut metadata = accounts.iter().map(|account| &account.metadata);
    let named =
        metadata.find(|found| found.name.as_ref() == Some(name) && found.namespace.as_ref() == Some(&owner.namespace));
    ResolvedAccount::of(named, owner)
}

#[cfg(test)]
mod tests {
    use std::{io::Write, path::Path};

    use serde::Deserialize;
    use serde_json::Value;

    use super::*;
    use crate::mcpserver::validate::tests::mk_options;

    fn example(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds/examples").join(name)
    }

    fn render_examples(names: &[&str], change: impl FnOnce(&mut Arguments)) -> Result<String, RenderError> {
        let mut arguments = Arguments {
            files: names.iter().map(|name| example(name)).collect(),
            namespace: "default".into(),
            options: mk_options(),
        };
        change(&mut arguments);
        render(&arguments)
    }

    #[test]
    fn the_examples_children_are_rendered_in_the_order_in_which_they_are_applied() {
        let rendered = render_examples(&["2-server.yaml", "3-mapping.yaml"], |_| {}).unwrap();
        let documents: Vec<Value> = serde_yaml::Deserializer::from_str(&rendered)
            .map(|document| Value::deserialize(document).unwrap())
            .collect();
        let kinds: Vec<_> = documents.iter().map(|document| document["kind"].as_str().unwrap()).collect();
        assert_eq!((kinds[0], kinds.last()), ("ConfigMap", Some(&"HTTPRoute")));
        assert!(kinds.contains(&"Deployment"), "{kinds:?}");
        assert!(documents[0]["data"]["policy.json"].as_str().unwrap().contains("Mcp.Reader"));
        let hashed = |document: &Value| document["metadata"]["annotations"]["mcp-entra.dev/applied-hash"].is_string();
        assert!(documents.iter().all(hashed), "as applied");
    }

    #[test]
    fn the_keys_of_an_authorization_server_are_rendered_without_a_key() {
        let rendered = render_examples(&["5-sign-in.yaml"], |_| {}).unwrap();
        assert!(rendered.contains("name: profile-00000000-oauth-1\n"), "{rendered}");
        assert!(rendered.contains("servesRoot: true") && !rendered.contains("\nkind: Secret"), "{rendered}");
        let error = render_examples(&["6-sign-in-with-valkey.yaml"], |_| {}).unwrap_err().to_string();
        assert!(error.contains("there is no ConfigMap session-store-ca"), "{error}");
        assert!(!render_examples(&["2-server.yaml"], |_| {}).unwrap().contains("authorizationServer"));
    }

    #[test]
    fn a_foreign_service_account_is_used_if_the_manifests_contain_it_and_it_allows_the_server() {
        let text = std::fs::read_to_string(example("2-server.yaml")).unwrap();
        let render_with = |allowed: &str| {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            let federation = "  entra:\n    federation: {serviceAccountName: shared}\n";
            let account = format!(
                "---\napiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: shared\n  namespace: productivity\n  annotations: {{mcp-entra.dev/allow-server: {allowed}}}\n"
            );
            file.write_all(format!("{}{account}", text.replace("  entra:\n", federation)).as_bytes()).unwrap();
            render_examples(&[], |arguments| arguments.files = vec![file.path().to_owned()])
        };
        assert!(render_with("graph").unwrap().contains("serviceAccountName: shared"));
        let error = render_with("other").unwrap_err();
        assert!(error.to_string().contains("ServiceAccountNotAllowed"), "{error}");
    }

    #[test]
    fn a_server_that_is_not_accepted_is_refused_with_the_message_of_its_condition() {
        let text = std::fs::read_to_string(example("2-server.yaml")).unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.replace("spec:\n", "spec:\n  image: evil.example/server\n").as_bytes()).unwrap();
        let error = render_examples(&[], |arguments| arguments.files = vec![file.path().to_owned()]).unwrap_err();
        assert!(error.to_string().contains("ImageNotAllowed"), "{error}");
        let error = render_examples(&["3-mapping.yaml"], |_| {}).unwrap_err();
        assert!(error.to_string().contains("no McpServer"), "{error}");
    }
}
