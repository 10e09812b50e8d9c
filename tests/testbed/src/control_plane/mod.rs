//! Real Kubernetes control plane on loopback: etcd, the API server, the controller manager and the scheduler. Each is a
//! child of the supervisor. The control plane has its own certificate authority, service account issuer and audit log.

mod audit;
mod start;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, PostParams};
use serde_json::json;

pub use audit::{AuditEvent, AuditLog, Marker};
pub(crate) use start::NODE;

use crate::pod_tunnels::PodTunnels;
use crate::programs::GoPrograms;
use crate::supervisor::Supervisor;

/// Clients that can reach the API server.
#[derive(Debug, Clone, Copy)]
enum Reach {
    /// Processes of this machine, which are also its pods.
    Loopback,
    /// Pods with their own addresses, through this address of their node.
    Node(Ipv4Addr),
}

impl Reach {
    fn address(self) -> Ipv4Addr {
        match self {
            Self::Loopback => Ipv4Addr::LOCALHOST,
            Self::Node(address) => address,
        }
    }
}

/// Running control plane. It ends with its supervisor.
#[derive(Clone)]
pub struct ControlPlane {
    folder: PathBuf,
    programs: GoPrograms,
    url: String,
    ca_pem: String,
    admin: kube::Config,
    /// Keeps the processes alive.
    _supervisor: Supervisor,
    /// Way of the API server to pods that are processes.
    _tunnels: Option<Arc<PodTunnels>>,
}

impl ControlPlane {
    /// Starts a control plane in about five seconds, plus the build of missing programs. Returns when it is ready, with
    /// the default service account and with public discovery of its issuer.
    ///
    /// # Errors
    /// If its programs are not available, or one of them does not start. The error has the last lines of its log.
    pub async fn start(supervisor: &Supervisor) -> anyhow::Result<Self> {
        start::start(supervisor, Reach::Loopback).await
    }

    /// Starts a control plane for a node whose pods have their own addresses. They reach the API server at this address
    /// of the node, and the API server reaches the node's kubelet.
    ///
    /// # Errors
    /// Same as [`ControlPlane::start`].
    pub(crate) async fn start_for_node(supervisor: &Supervisor, address: Ipv4Addr) -> anyhow::Result<Self> {
        start::start(supervisor, Reach::Node(address)).await
    }

    /// Creates a client with the rights of the cluster administrator. A client belongs to the tokio runtime that
    /// creates it, so each test creates its own.
    ///
    /// # Errors
    /// If it cannot be built from [`ControlPlane::config`].
    pub fn client(&self) -> anyhow::Result<kube::Client> {
        Ok(kube::Client::try_from(self.config())?)
    }

    /// Returns the configuration of a client with the rights of the cluster administrator.
    pub fn config(&self) -> kube::Config {
        self.admin.clone()
    }

    /// Path of the cluster administrator's kubeconfig file.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("admin.kubeconfig")
    }

    /// Program `kubectl` of the same version.
    pub fn kubectl(&self) -> PathBuf {
        self.programs.path("kubectl")
    }

    /// URL of the API server: `https://127.0.0.1:PORT`, or with the address of its node.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Issuer of service account tokens. Its discovery document and keys are public.
    pub fn issuer(&self) -> &str {
        &self.url
    }

    /// Certificate of the authority that issued the API server's certificate.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Path of the file with [`ControlPlane::ca_pem`].
    pub fn ca_file(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    /// Writes a kubeconfig file for an existing service account, with a token for 24 hours, in the account's namespace.
    ///
    /// # Errors
    /// If the API server issues no token: the account does not exist.
    pub async fn kubeconfig_for_service_account(&self, namespace: &str, name: &str) -> anyhow::Result<PathBuf> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client()?, namespace);
        let request = TokenRequest {
            spec: TokenRequestSpec { expiration_seconds: Some(24 * 60 * 60), ..Default::default() },
            ..Default::default()
        };
        let issued = accounts
            .create_token_request(name, &PostParams::default(), &request)
            .await
            .with_context(|| format!("a token for the service account {namespace}/{name}"))?;
        let token = issued.status.context("a token request without status")?.token;
        // An underscore cannot occur in these names. A colon would make KUBECONFIG a list.
        let file = self.folder.join(format!("{namespace}_{name}.kubeconfig"));
        write_kubeconfig(&file, &self.url, &self.ca_pem, &token, namespace)?;
        Ok(file)
    }

    /// Folder of its files.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Audit log of the control plane.
    pub fn audit(&self) -> AuditLog {
        AuditLog::new(self.folder.join("audit.log"))
    }
}

fn write_kubeconfig(file: &Path, url: &str, ca_pem: &str, token: &str, namespace: &str) -> anyhow::Result<()> {
    use base64::Engine;
    let ca = base64::engine::general_purpose::STANDARD.encode(ca_pem);
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "testbed", "cluster": { "server": url, "certificate-authority-data": ca } }],
        "users": [{ "name": "testbed", "user": { "token": token } }],
        "contexts": [{ "name": "testbed", "context": { "cluster": "testbed", "user": "testbed", "namespace": namespace } }],
        "current-context": "testbed",
    });
    std::fs::write(file, serde_yaml::to_string(&kubeconfig)?).with_context(|| format!("write {}", file.display()))
}
