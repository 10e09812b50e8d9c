//! Third-party custom resource definitions, from the Go modules that `tests/control-plane/definitions` pins: Gateway
//! API, cert-manager, Prometheus operator. None of them brings its controller; the testbed has doubles of those that it
//! needs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use futures::future::try_join_all;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams};
use kube::discovery::ApiResource;
use kube::runtime::conditions::is_crd_established;
use kube::runtime::wait::await_condition;
use kube::{Client, ResourceExt};
use serde::Deserialize;
use serde_json::Value;

use crate::go_modules;

const MANAGER: &str = "testbed-definitions";
/// Timeout of a definition. A busy API server takes some seconds for one of half a megabyte.
const ESTABLISHED: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// GatewayClass, Gateway, ListenerSet, HTTPRoute and ReferenceGrant of the standard channel.
///
/// # Errors
/// If Go is missing or cannot fetch the module. Blocks until it is fetched.
pub fn gateway_api() -> anyhow::Result<Vec<Value>> {
    let plurals = ["gatewayclasses", "gateways", "listenersets", "httproutes", "referencegrants"];
    read("sigs.k8s.io/gateway-api", "config/crd/standard", "gateway.networking.k8s.io", &plurals)
}

/// Certificate, CertificateRequest, Issuer and ClusterIssuer.
///
/// # Errors
/// Same as [`gateway_api`].
pub fn cert_manager() -> anyhow::Result<Vec<Value>> {
    let plurals = ["certificates", "certificaterequests", "issuers", "clusterissuers"];
    read("github.com/cert-manager/cert-manager", "deploy/crds", "cert-manager.io", &plurals)
}

/// ServiceMonitor, PodMonitor and PrometheusRule.
///
/// # Errors
/// Same as [`gateway_api`].
pub fn prometheus_operator() -> anyhow::Result<Vec<Value>> {
    let module = "github.com/prometheus-operator/prometheus-operator";
    let plurals = ["servicemonitors", "podmonitors", "prometheusrules"];
    read(module, "example/prometheus-operator-crd", "monitoring.coreos.com", &plurals)
}

/// Applies definitions, and waits until the API server serves every version of their kinds.
///
/// # Errors
/// If the API server refuses one, or does not serve it within a minute.
pub async fn define(client: &Client, definitions: &[Value]) -> anyhow::Result<()> {
    try_join_all(definitions.iter().map(|definition| define_one(client, definition))).await.map(drop)
}

async fn define_one(client: &Client, definition: &Value) -> anyhow::Result<()> {
    let definition: CustomResourceDefinition = serde_json::from_value(definition.clone())?;
    let name = definition.name_any();
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let served = async {
        api.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&definition)).await?;
        await_condition(api.clone(), &name, is_crd_established()).await?;
        for kind in kinds(&definition) {
            let objects: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
            // Established becomes True a moment before the path exists.
            while let Err(kube::Error::Api(status)) = objects.list(&ListParams::default().limit(1)).await {
                ensure!(status.code == 404, "{status}");
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    };
    let served = tokio::time::timeout(ESTABLISHED, served).await;
    served.map_err(|_| anyhow!("not served within {} s", ESTABLISHED.as_secs())).flatten().with_context(|| name.clone())
}

/// Returns every served version of the kind.
fn kinds(definition: &CustomResourceDefinition) -> impl Iterator<Item = ApiResource> {
    let spec = &definition.spec;
    spec.versions.iter().filter(|version| version.served).map(|version| ApiResource {
        group: spec.group.clone(),
        version: version.name.clone(),
        api_version: format!("{}/{}", spec.group, version.name),
        kind: spec.names.kind.clone(),
        plural: spec.names.plural.clone(),
    })
}

/// Reads the definitions of `plurals` in a folder of a module: one file each, with controller-gen's file names.
fn read(module: &str, folder: &str, group: &str, plurals: &[&str]) -> anyhow::Result<Vec<Value>> {
    let folder = modules()?.get(module).with_context(|| format!("go.mod does not require {module}"))?.join(folder);
    let read = |plural: &&str| {
        let file = folder.join(format!("{group}_{plural}.yaml"));
        let text = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        definition(&text).with_context(|| file.display().to_string())
    };
    plurals.iter().map(read).collect()
}

fn definition(text: &str) -> anyhow::Result<Value> {
    // A file may begin with an empty document.
    let documents = serde_yaml::Deserializer::from_str(text).map(Value::deserialize);
    let mut found: Vec<Value> = documents.collect::<Result<_, _>>()?;
    found.retain(|document| document.get("kind").and_then(Value::as_str) == Some("CustomResourceDefinition"));
    found.pop().context("it contains no CustomResourceDefinition")
}

/// Folder of each required module, by its path. The first call fetches them.
fn modules() -> anyhow::Result<&'static BTreeMap<String, PathBuf>> {
    static MODULES: OnceLock<Result<BTreeMap<String, PathBuf>, String>> = OnceLock::new();
    let modules = MODULES.get_or_init(|| go_modules::fetch("definitions", &[]).map_err(|error| format!("{error:#}")));
    modules.as_ref().map_err(|error| anyhow!("{error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_documents_and_other_kinds_are_skipped() {
        let text = "---\n---\nkind: CustomResourceDefinition\nmetadata: {name: a}\n---\nkind: ConfigMap\n";
        assert_eq!(definition(text).unwrap()["metadata"]["name"], "a");
        assert!(definition("kind: ConfigMap\n").is_err());
    }
}
