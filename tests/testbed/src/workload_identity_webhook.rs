//! Double of azure-workload-identity's webhook (1.6): adds the projected token and the variables of Azure's libraries
//! to pods that request them.
//!
//! Differences from the real one: there is no proxy sidecar, and it refuses a pod whose service account it cannot read. The
//! real one (v1.6.0) is not built, since it imports `monis.app/mlog`, which a Go module proxy with a list of allowed hosts
//! does not serve: `reading …/monis.app/mlog/@v/v0.0.4.zip: 403 Forbidden`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::body::{Bytes, Incoming};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{Container, EnvVar, PodSpec, ServiceAccount, Volume, VolumeMount};
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;

use crate::certificates::CertificateAuthority;
use crate::forward::Body;
use crate::serve::{Serving, answer, serve};

/// Name in the project's own chart.
const NAME: &str = "azure-wi-webhook-mutating-webhook-configuration";
const PATIENCE: Duration = Duration::from_secs(5);
const LARGEST_POD: usize = 4 * 1024 * 1024;
const VOLUME: &str = "azure-identity-token";
const MOUNT_PATH: &str = "/var/run/secrets/azure/wi/token";
const TOKEN_FILE: &str = "/var/run/secrets/azure/wi/token/azure-identity-token";
const CLIENT_ID: &str = "azure.workload.identity/client-id";
const TENANT_ID: &str = "azure.workload.identity/tenant-id";
const EXPIRATION: &str = "azure.workload.identity/service-account-token-expiration";
/// Annotation with the names of containers and init containers to skip, separated by semicolons.
const SKIP_CONTAINERS: &str = "azure.workload.identity/skip-containers";

/// Running webhook. Its registration stays when it is dropped, so that pods that request it are refused.
pub struct WorkloadIdentityWebhook {
    _serving: Serving,
}

/// Settings of the webhook.
struct Installed {
    client: Client,
    tenant: String,
    authority: String,
}

impl WorkloadIdentityWebhook {
    /// Serves the webhook on a free loopback port and registers it for pods with the label
    /// `azure.workload.identity/use: "true"`. `tenant` is the default of service accounts; `authority` becomes
    /// `AZURE_AUTHORITY_HOST`.
    ///
    /// # Errors
    /// If it cannot listen, or the API server refuses the registration.
    pub async fn start(client: Client, tenant: &str, authority: &str) -> anyhow::Result<Self> {
        let ca = CertificateAuthority::new("azure-workload-identity-webhook")?;
        let installed =
            Arc::new(Installed { client: client.clone(), tenant: tenant.to_owned(), authority: authority.to_owned() });
        let serving =
            serve(Some(acceptor(&ca)?), move |request, _: IpAddr| review(request, Arc::clone(&installed))).await?;
        let url = format!("https://{}/mutate-v1-pod", serving.address());
        let webhooks: Api<MutatingWebhookConfiguration> = Api::all(client);
        let parameters = PatchParams::apply("testbed-webhook").force();
        let patch = Patch::Apply(registration(&url, &ca.pem()));
        tokio::time::timeout(PATIENCE, webhooks.patch(NAME, &parameters, &patch)).await.context("register it")??;
        Ok(Self { _serving: serving })
    }
}

fn acceptor(ca: &CertificateAuthority) -> anyhow::Result<TlsAcceptor> {
    let issued = ca.issue(&["127.0.0.1"])?;
    let chain = vec![CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes())?];
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes())?;
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn registration(url: &str, ca_pem: &str) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": { "name": NAME },
        "webhooks": [{
            "name": "mutation.azure-workload-identity.io",
            "admissionReviewVersions": ["v1"],
            "clientConfig": { "url": url, "caBundle": STANDARD.encode(ca_pem) },
            "failurePolicy": "Fail",
            "matchPolicy": "Equivalent",
            "objectSelector": { "matchLabels": { "azure.workload.identity/use": "true" } },
            "reinvocationPolicy": "IfNeeded",
            "rules": [{ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"] }],
            "sideEffects": "None",
            "timeoutSeconds": 10,
        }],
    })
}

async fn review(request: Request<Incoming>, installed: Arc<Installed>) -> Response<Body> {
    match read(request).await {
        Ok(review) => {
            let mut response =
                Response::new(Either::Right(Full::new(Bytes::from(decide(&review, &installed).await.to_string()))));
            let json = header::HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, json);
            response
        }
        Err(error) => answer(StatusCode::BAD_REQUEST, format!("invalid AdmissionReview: {error:#}")),
    }
}

async fn read(request: Request<Incoming>) -> anyhow::Result<Value> {
    let body = Limited::new(request.into_body(), LARGEST_POD).collect();
    let body = tokio::time::timeout(PATIENCE, body).await?.map_err(|error| anyhow!(error))?;
    Ok(serde_json::from_slice(&body.to_bytes())?)
}

async fn decide(review: &Value, installed: &Installed) -> Value {
    let uid = review.pointer("/request/uid");
    let response = match mutate(review, installed).await {
        Ok(spec) => {
            let patch = json!([{ "op": "replace", "path": "/spec", "value": spec }]).to_string();
            json!({ "uid": uid, "allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(patch) })
        }
        Err(error) => json!({ "uid": uid, "allowed": false, "status": { "message": format!("{error:#}") } }),
    };
    json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response })
}

async fn mutate(review: &Value, installed: &Installed) -> anyhow::Result<PodSpec> {
    let pod = review.pointer("/request/object").context("the review has no object")?;
    let spec: PodSpec = serde_json::from_value(pod.get("spec").context("the pod has no spec")?.clone())?;
    let namespace =
        review.pointer("/request/namespace").and_then(Value::as_str).context("the review has no namespace")?;
    let name = spec.service_account_name.as_deref().unwrap_or("default");
    let accounts: Api<ServiceAccount> = Api::namespaced(installed.client.clone(), namespace);
    let account = tokio::time::timeout(PATIENCE, accounts.get(name)).await.context("read the service account")?;
    let account = account.with_context(|| format!("read the service account {namespace}/{name}"))?;
    let annotations = pod.pointer("/metadata/annotations").cloned().unwrap_or_default();
    Ok(with_identity(spec, &annotations, &account, &installed.tenant, &installed.authority))
}

/// Returns the pod with the token's volume. Each container that is not skipped gets its mount, and the variables that
/// it does not set itself.
fn with_identity(
    mut spec: PodSpec,
    annotations: &Value,
    account: &ServiceAccount,
    tenant: &str,
    authority: &str,
) -> PodSpec {
    let own = |name: &str| annotations.get(name).and_then(Value::as_str);
    let annotation = |name: &str| account.annotations().get(name).map(String::as_str);
    let expiration =
        own(EXPIRATION).or(annotation(EXPIRATION)).and_then(|seconds| seconds.parse().ok()).unwrap_or(3600);
    let skipped: Vec<&str> = own(SKIP_CONTAINERS).unwrap_or_default().split(';').map(str::trim).collect();
    let variables = [
        ("AZURE_CLIENT_ID", annotation(CLIENT_ID).unwrap_or_default()),
        ("AZURE_TENANT_ID", annotation(TENANT_ID).unwrap_or(tenant)),
        ("AZURE_FEDERATED_TOKEN_FILE", TOKEN_FILE),
        ("AZURE_AUTHORITY_HOST", authority),
    ];
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        if !skipped.contains(&container.name.as_str()) {
            with_variables(container, &variables);
        }
    }
    let volumes = spec.volumes.get_or_insert_default();
    if !volumes.iter().any(|volume| volume.name == VOLUME) {
        volumes.push(volume(expiration));
    }
    spec
}

fn with_variables(container: &mut Container, variables: &[(&str, &str)]) {
    let environment = container.env.get_or_insert_default();
    for (name, value) in variables {
        if !environment.iter().any(|known| known.name == *name) {
            let value = Some((*value).to_owned());
            environment.push(EnvVar { name: (*name).to_owned(), value, ..EnvVar::default() });
        }
    }
    let mounts = container.volume_mounts.get_or_insert_default();
    if !mounts.iter().any(|mount| mount.name == VOLUME) {
        mounts.push(VolumeMount {
            name: VOLUME.to_owned(),
            mount_path: MOUNT_PATH.to_owned(),
            read_only: Some(true),
            ..VolumeMount::default()
        });
    }
}

fn volume(expiration: i64) -> Volume {
    use k8s_openapi::api::core::v1::{ProjectedVolumeSource, ServiceAccountTokenProjection, VolumeProjection};
    let token = ServiceAccountTokenProjection {
        audience: Some("api://AzureADTokenExchange".to_owned()),
        expiration_seconds: Some(expiration),
        path: VOLUME.to_owned(),
    };
    let source = VolumeProjection { service_account_token: Some(token), ..VolumeProjection::default() };
    let projected = ProjectedVolumeSource { sources: Some(vec![source]), ..ProjectedVolumeSource::default() };
    Volume { name: VOLUME.to_owned(), projected: Some(projected), ..Volume::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skipped_containers_and_init_containers_get_neither_token_nor_variables() {
        let container = |name: &str| json!({ "name": name });
        let spec = json!({
            "containers": [container("server"), container("beside")],
            "initContainers": [container("backend"), container("install-shim"), container("other")],
        });
        let annotations = json!({ SKIP_CONTAINERS: "backend; install-shim;beside" });
        let spec = serde_json::from_value(spec).unwrap();
        let spec = with_identity(spec, &annotations, &ServiceAccount::default(), "t", "https://login.example/");
        let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
        let given = containers.filter(|container| container.env.is_some() && container.volume_mounts.is_some());
        assert_eq!(Vec::from_iter(given.map(|container| container.name.as_str())), ["other", "server"]);
    }
}
