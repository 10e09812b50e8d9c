//! The product's chart, and the objects and images that result from its values.

use anyhow::Context;
use serde_json::Value;

use crate::helm::Helm;
use crate::node::{Image, Images};
use crate::programs::program;
use crate::stack::repository;
use crate::supervisor::Supervisor;

/// Namespace and name of the operator's service account, and of its lease, in an installation as in the quickstart.
pub const OPERATOR: (&str, &str) = ("mcp-entra-system", "mcp-entra-operator");

/// Registry in the names of the images of tests and demo, and the chart's value that sets it.
pub const REGISTRY: &str = "localhost";
/// Returns it as an argument of `--set`.
pub const REGISTRY_VALUE: &str = "image.registry=localhost";

/// Image of our own backend: the program [`BACKEND`], which does what its caller requests.
pub const BACKEND_IMAGE: &str = "localhost/scripted-backend:1";
/// Image of mcp-server-time. Its entry point is a Python with this package. A test adds it to the node.
pub const PUBLIC_BACKEND_IMAGE: &str = "localhost/mcp-server-time:1";
/// Package and name of this program.
pub const BACKEND: (&str, &str) = ("stock-backends", "scripted-backend");

/// Chart `mcp-entra`, as an argument of Helm.
pub fn chart() -> String {
    repository("charts/mcp-entra")
}

/// Returns the programs of this workspace, by the references that the chart gives to them.
///
/// # Errors
/// If the workspace does not build.
pub fn images() -> anyhow::Result<Images> {
    let reference = |name| format!("{REGISTRY}/{name}:{}", env!("CARGO_PKG_VERSION"));
    let (operator, server) = ("mcp-entra-operator", "mcp-entra-server");
    let server_image = Image::from(program(server)?).with_program(program("mcp-entra-shim")?);
    let (_, backend) = BACKEND;
    Ok(Images::default()
        .with(reference(operator), program(operator)?)
        .with(reference(server), server_image)
        .with(BACKEND_IMAGE, program(backend)?))
}

/// Installs the chart as in the quickstart with these values. Waits until its pods are ready, and returns Helm's
/// output.
///
/// # Errors
/// Returns the error output of Helm.
pub async fn install(helm: &Helm, values: &Value) -> anyhow::Result<String> {
    let (namespace, _) = OPERATOR;
    let values = values.to_string();
    let release = ["install", "mcp-entra", &chart(), "--namespace", namespace, "--create-namespace"];
    helm.run(&[&release[..], &["--wait", "--timeout=2m", "--set", REGISTRY_VALUE, "--set-json", &values]].concat())
        .await
}

/// Returns the operator's account and rights for these watched namespaces. No namespace means all.
///
/// # Errors
/// Returns the error output of Helm.
pub async fn rights(supervisor: &Supervisor, watched: &[String]) -> anyhow::Result<Vec<Value>> {
    let watched = format!("watchNamespaces={}", serde_json::to_string(watched)?);
    let show = ["--show-only=templates/service-account.yaml", "--show-only=templates/rights.yaml"];
    rendered(&Helm::offline(supervisor).await?, &[&["--set-json", &watched], &show[..]].concat()).await
}

/// Returns the objects that Helm renders from the chart with these additional arguments.
///
/// # Errors
/// Returns the error output of Helm.
pub async fn rendered(helm: &Helm, arguments: &[&str]) -> anyhow::Result<Vec<Value>> {
    let (namespace, _) = OPERATOR;
    let usual = ["template", "mcp-entra", &chart(), "--namespace", namespace, "--set", REGISTRY_VALUE];
    let text = helm.run(&[&usual[..], arguments].concat()).await?;
    let documents = serde_yaml::Deserializer::from_str(&text).map(serde::Deserialize::deserialize);
    let objects: Result<Vec<Value>, _> = documents.collect();
    Ok(objects.context("the output of Helm is not YAML")?.into_iter().filter(|object| !object.is_null()).collect())
}
