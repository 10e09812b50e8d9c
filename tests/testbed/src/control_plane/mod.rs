//! A real Kubernetes control plane on loopback: etcd, the API server, the controller manager and the scheduler, each a
//! child of the supervisor, with a certificate authority, a service account issuer and an audit log of its own.

mod audit;
mod start;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, PostParams};
use serde_json::json;

pub use audit::{AuditEvent, AuditLog, Marker};
pub(crate) use start::NODE;

use crate::programs::GoPrograms;
use crate::supervisor::Supervisor;

/// From where the API server is reached.
#[derive(Debug, Clone, Copy)]
enum Reach {
    /// This machine alone.
    Loopback,
    /// Pods with addresses of their own, by this one of their node.
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

/// A running control plane. It ends with the supervisor that it was started with.
#[derive(Clone)]
pub struct ControlPlane {
    folder: PathBuf,
    programs: GoPrograms,
    url: String,
    ca_pem: String,
    admin: kube::Config,
    /// Keeps the processes.
    _supervisor: Supervisor,
}

impl ControlPlane {
    /// Starts one, in about five seconds (building it first if need be), and returns when it can be used: ready, with
    /// the default service account, its issuer's discovery open to everyone.
    ///
    /// # Errors
    /// Where its programs cannot be had, or one of them does not start: the last lines of its log are in the error.
    pub async fn start(supervisor: &Supervisor) -> anyhow::Result<Self> {
        start::start(supervisor, Reach::Loopback).await
    }

    /// The same, for a node whose pods have addresses of their own: they reach the API server at that address of the
    /// node, and the API server reaches the node's kubelet.
    ///
    /// # Errors
    /// As [`ControlPlane::start`].
    pub(crate) async fn start_for_node(supervisor: &Supervisor, address: Ipv4Addr) -> anyhow::Result<Self> {
        start::start(supervisor, Reach::Node(address)).await
    }

    /// A new client as cluster administrator. A client belongs to the tokio runtime it is made on: each test makes its
    /// own.
    ///
    /// # Errors
    /// Where it cannot be made of [`ControlPlane::config`].
    pub fn client(&self) -> anyhow::Result<kube::Client> {
        Ok(kube::Client::try_from(self.config())?)
    }

    /// The configuration of a client as cluster administrator.
    pub fn config(&self) -> kube::Config {
        self.admin.clone()
    }

    /// The cluster administrator's kubeconfig file.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("admin.kubeconfig")
    }

    /// The program `kubectl` of the same version.
    pub fn kubectl(&self) -> PathBuf {
        self.programs.path("kubectl")
    }

    /// The API server: `https://127.0.0.1:PORT`, or at the address of the node that it was started for.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The issuer of service account tokens, which serves its discovery document and keys to everyone.
    pub fn issuer(&self) -> &str {
        &self.url
    }

    /// The certificate of the authority that the API server's certificate is of.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The file with [`ControlPlane::ca_pem`].
    pub fn ca_file(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    /// A kubeconfig file for a service account that exists, with a token for 24 hours, in the account's namespace.
    ///
    /// # Errors
    /// Where the API server issues no token: the account does not exist.
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
        // No part of such a name may contain an underscore; a colon would make KUBECONFIG a list.
        let file = self.folder.join(format!("{namespace}_{name}.kubeconfig"));
        write_kubeconfig(&file, &self.url, &self.ca_pem, &token, namespace)?;
        Ok(file)
    }

    /// The folder of its files.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What was written, by whom.
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
