//! Everything the product runs on, started together: control plane, node, edge and Entra emulator; and, once
//! installed, the product itself: its definitions, its rights, its operator.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use entra_emulator::{Configuration, EntraEmulator};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, PostParams};
use serde_json::json;
use tokio::sync::{Mutex, OnceCell};

use crate::address::Pods;
use crate::certificate_manager::CertificateManager;
use crate::certificates::CertificateAuthority;
use crate::command_line::CommandLine;
use crate::container_node::{self, ContainerNode};
use crate::control_plane::ControlPlane;
use crate::definitions;
use crate::edge::Edge;
use crate::network_policy::{Identity, NetworkPolicies};
use crate::node::{Images, Node};
use crate::pod_proxy::PodProxy;
use crate::programs;
use crate::supervisor::{Child, Command, Supervisor};

/// Where the images are, as far as clusters here know.
pub const REGISTRY: &str = "localhost";

/// The image that the operator gives to servers here; the node runs the workspace's own `mcp-entra-server` for it.
pub const SERVER_IMAGE: &str = "localhost/mcp-entra-server:0.1.0";

/// Kind and name of the issuer that the examples name.
const ISSUER: (&str, &str) = ("ClusterIssuer", "letsencrypt");

/// Namespace and name of the operator's service account, and of its lease, as `operator/rbac.yaml` has them.
pub const OPERATOR: (&str, &str) = ("mcp-entra-system", "mcp-entra-operator");

/// The name that pods know the emulated Entra by, where they have addresses of their own: the Service `entra` of the
/// namespace `default`.
const ENTRA_HOST: &str = "entra.default.svc.cluster.local";

/// Seconds between two probes of a federated credential here; five minutes by default elsewhere.
const PROBE_INTERVAL_SECONDS: u32 = 5;

/// Everything the product runs on. Dropping it ends every process and removes every file.
pub struct Stack {
    /// The Kubernetes API server and its controllers.
    pub control_plane: ControlPlane,
    /// Runs the pods.
    pub node: AnyNode,
    /// HTTPS on one port for every Ingress.
    pub edge: Edge,
    /// Microsoft Entra ID and Graph.
    pub entra: EntraEmulator,
    /// The authority of every certificate that the edge shows.
    pub certificates: Arc<CertificateAuthority>,
    /// Issues what Certificates of the examples' issuer ask for.
    pub certificate_manager: CertificateManager,
    /// What the pod proxy heeds, and an egress proxy that a test starts.
    pub policies: NetworkPolicies,
    /// What lies between the operator and pods that do not listen where they say.
    pod_proxy: Option<PodProxy>,
    defined: OnceCell<()>,
    /// The operator's replicas by the names under which they hold the lease.
    operators: Mutex<Vec<(String, Child)>>,
    supervisor: Supervisor,
}

/// A node of either sort.
pub enum AnyNode {
    /// Whose pods are processes.
    Processes(Node),
    /// Whose pods are containers.
    Containers(ContainerNode),
}

impl AnyNode {
    /// What the pod has written.
    ///
    /// # Errors
    /// Where it has not run.
    pub async fn logs(&self, namespace: &str, pod: &str) -> anyhow::Result<String> {
        match self {
            Self::Processes(node) => node.logs(namespace, pod),
            Self::Containers(node) => node.logs(namespace, pod).await,
        }
    }
}

impl Stack {
    /// Starts everything but the product. `report` gets a line for each part that stands.
    ///
    /// # Errors
    /// Where a part does not come up, with the last lines of its log.
    pub async fn start(report: &(dyn Fn(&str) + Sync)) -> anyhow::Result<Self> {
        let server = programs::program("mcp-entra-server")?;
        let supervisor = Supervisor::start()?;
        let control_plane = ControlPlane::start(&supervisor).await?;
        report(&format!("kube-apiserver, controllers and etcd at {}", control_plane.url()));
        let images = Images::default().with(SERVER_IMAGE, server);
        let node = Node::start(control_plane.client()?, &supervisor, "node", images).await?;
        report("a node whose pods are processes");
        let entra = Configuration { trusted_ca_files: vec![control_plane.ca_file()], ..Configuration::default() };
        let entra = EntraEmulator::start(entra, (Ipv4Addr::LOCALHOST, 0).into()).await?;
        Self::start_around(supervisor, control_plane, AnyNode::Processes(node), entra, report).await
    }

    /// The same, with pods that are containers of these images, OCI archives; within [`crate::namespaces`] of its own.
    ///
    /// # Errors
    /// Where a part does not come up, with the last lines of its log.
    pub async fn start_on_containers(images: &[PathBuf], report: &(dyn Fn(&str) + Sync)) -> anyhow::Result<Self> {
        let supervisor = Supervisor::start()?;
        ContainerNode::prepare(&supervisor, &[ENTRA_HOST]).await?;
        let control_plane = ControlPlane::start_for_node(&supervisor, container_node::ADDRESS).await?;
        report(&format!("kube-apiserver, controllers and etcd at {}", control_plane.url()));
        let node = ContainerNode::start(&supervisor, &control_plane).await?;
        for archive in images {
            node.import(archive).await.with_context(|| format!("import {}", archive.display()))?;
        }
        report("containerd, kubelet, kube-proxy and CoreDNS, and the images imported");
        let entra = Configuration {
            host: ENTRA_HOST.to_owned(),
            trusted_ca_files: vec![control_plane.ca_file()],
            ..Configuration::default()
        };
        let entra = EntraEmulator::start(entra, (container_node::ADDRESS, 0).into()).await?;
        name_entra(&control_plane.client()?, &entra).await.context("name Entra in the cluster")?;
        Self::start_around(supervisor, control_plane, AnyNode::Containers(node), entra, report).await
    }

    async fn start_around(
        supervisor: Supervisor,
        control_plane: ControlPlane,
        node: AnyNode,
        entra: EntraEmulator,
        report: &(dyn Fn(&str) + Sync),
    ) -> anyhow::Result<Self> {
        let certificates = Arc::new(CertificateAuthority::new("testbed")?);
        let (issuer_kind, issuer) = ISSUER;
        let certificate_manager =
            CertificateManager::start(control_plane.client()?, issuer_kind, issuer, Arc::clone(&certificates));
        let policies = NetworkPolicies::start(&control_plane.client()?).await?;
        let (namespace, name) = OPERATOR;
        let (pods, pod_proxy) = match node {
            AnyNode::Processes(_) => {
                let operator = Identity::new(namespace, name);
                (Pods::Processes, Some(PodProxy::start_as(policies.clone(), operator).await?))
            }
            AnyNode::Containers(_) => (Pods::Containers, None),
        };
        let edge = Edge::start_before(control_plane.client()?, pods).await?;
        report(&format!("an HTTPS edge at {}", edge.address()));
        report(&format!("Entra at {}, Graph at {}", entra.authority(), entra.graph()));
        Ok(Self {
            control_plane,
            node,
            edge,
            entra,
            certificates,
            certificate_manager,
            pod_proxy,
            defined: OnceCell::new(),
            operators: Mutex::new(Vec::new()),
            policies,
            supervisor,
        })
    }

    /// Applies the definitions, those of Gateway API and cert-manager included, and waits until the API server serves them.
    ///
    /// # Errors
    /// With kubectl's own words.
    pub async fn define(&self) -> anyhow::Result<()> {
        self.defined.get_or_try_init(|| self.define_once()).await.copied()
    }

    async fn define_once(&self) -> anyhow::Result<()> {
        let others = tokio::task::spawn_blocking(|| {
            anyhow::Ok([definitions::gateway_api()?, definitions::cert_manager()?].concat())
        });
        definitions::define(&self.control_plane.client()?, &others.await??).await?;
        self.kubectl(&["apply", "--server-side", "-f", &repository("crds/yaml")], None).await?;
        let established = ["wait", "--for=condition=Established", "--timeout=30s", "-f", &repository("crds/yaml")];
        self.kubectl(&established, None).await?;
        // Where whoever runs the cluster has the Gateways, and the certificate of their own listeners.
        let certificate = self.certificates.issue(&["edge.example.com"])?;
        let infrastructure = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "infra"}});
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": "edge-tls", "namespace": "infra"},
            "stringData": {"tls.crt": certificate.certificate_pem, "tls.key": certificate.key_pem},
        });
        self.kubectl(&["apply", "-f", "-"], Some(&format!("---\n{infrastructure}\n---\n{secret}\n"))).await?;
        Ok(())
    }

    /// Gives the operator its rights and starts two replicas of it, unless they run already.
    ///
    /// # Errors
    /// Where the rights cannot be applied or the program does not start.
    pub async fn install(&self) -> anyhow::Result<()> {
        let mut operators = self.operators.lock().await;
        if operators.is_empty() {
            let (namespace, _) = OPERATOR;
            let manifest = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n");
            self.kubectl(&["apply", "--server-side", "-f", "-"], Some(&manifest)).await?;
            self.kubectl(&["apply", "--server-side", "-f", &repository("operator/rbac.yaml")], None).await?;
            for number in 1..=2 {
                operators.push(self.start_operator(&format!("mcp-entra-operator-{number}")).await?);
            }
        }
        Ok(())
    }

    async fn start_operator(&self, identity: &str) -> anyhow::Result<(String, Child)> {
        let (namespace, name) = OPERATOR;
        let kubeconfig = self.control_plane.kubeconfig_for_service_account(namespace, name).await?;
        let child = self.supervisor.spawn(self.operator_command(&kubeconfig, identity)?).await?;
        Ok((identity.to_owned(), child))
    }

    /// Which of the operator's replicas leads, by the lease.
    ///
    /// # Errors
    /// Where the lease cannot be read.
    pub async fn leader(&self) -> anyhow::Result<Option<String>> {
        let (namespace, name) = OPERATOR;
        let leases: Api<Lease> = Api::namespaced(self.control_plane.client()?, namespace);
        Ok(leases.get_opt(name).await?.and_then(|lease| lease.spec?.holder_identity))
    }

    /// Kills the replica that leads, as a node that fails does, and starts another in its place, as its Deployment would.
    /// Returns the killed one's name.
    ///
    /// # Errors
    /// Where none leads, or the other does not start.
    pub async fn kill_leader(&self) -> anyhow::Result<String> {
        let mut operators = self.operators.lock().await;
        let leader = self.leader().await?.context("no replica leads")?;
        let index = operators.iter().position(|(identity, _)| *identity == leader);
        let (_, child) = operators.swap_remove(index.with_context(|| format!("{leader} is no replica of ours"))?);
        child.kill().await;
        let successor = format!("{leader}-again");
        operators.push(self.start_operator(&successor).await?);
        Ok(leader)
    }

    fn operator_command(&self, kubeconfig: &Path, identity: &str) -> anyhow::Result<Command> {
        let probe = PROBE_INTERVAL_SECONDS.to_string();
        let arguments = [
            "run",
            "--listen=127.0.0.1:0",
            "--allow-trust-bundles",
            "--status-poll-seconds=1",
            "--server-image",
            SERVER_IMAGE,
            "--operator-namespace",
            OPERATOR.0,
            "--identity",
            identity,
            "--allowed-authority",
            self.entra.authority(),
            "--allowed-graph",
            self.entra.graph(),
            "--probe-interval-seconds",
            &probe,
        ];
        let pod_proxy = self.pod_proxy.as_ref().map(|proxy| format!("--pod-proxy-url={}", proxy.url()));
        Ok(Command::new(programs::program("mcp-entra-operator")?, self.operator_log())
            .args(arguments)
            .args(pod_proxy)
            .env("KUBECONFIG", kubeconfig.display().to_string()))
    }

    /// The operator's log.
    pub fn operator_log(&self) -> PathBuf {
        self.supervisor.folder().join("operator.log")
    }

    /// The folder of everything that runs here, which vanishes with it.
    pub fn folder(&self) -> &Path {
        self.supervisor.folder()
    }

    /// Runs kubectl as cluster administrator and returns what it prints.
    ///
    /// # Errors
    /// Where kubectl fails, with what it says.
    pub async fn kubectl(&self, arguments: &[&str], input: Option<&str>) -> anyhow::Result<String> {
        self.kubectl_command_line(arguments).succeed(input).await
    }

    /// Runs kubectl where it has to fail, and returns what it says then.
    ///
    /// # Errors
    /// Where kubectl succeeds.
    pub async fn kubectl_refused(&self, arguments: &[&str], input: &str) -> anyhow::Result<String> {
        self.kubectl_command_line(arguments).fail(Some(input)).await
    }

    fn kubectl_command_line(&self, arguments: &[&str]) -> CommandLine {
        let mut command = tokio::process::Command::new(self.control_plane.kubectl());
        command
            .arg("--kubeconfig")
            .arg(self.control_plane.kubeconfig())
            // Discovery is cached below HOME otherwise, and would stay behind.
            .env("KUBECACHEDIR", self.supervisor.folder().join("kubectl"));
        CommandLine::new("kubectl", command, arguments, Duration::from_secs(60))
    }
}

/// Gives pods a name for Entra, which runs beside them on their node: a Service without pods of its own.
async fn name_entra(client: &kube::Client, entra: &EntraEmulator) -> anyhow::Result<()> {
    let mut labels = ENTRA_HOST.split('.');
    let (name, namespace) = (labels.next().unwrap_or_default(), labels.next().unwrap_or_default());
    let port =
        |url: &str| url.rsplit(':').next().and_then(|port| port.parse::<u16>().ok()).context("a URL with a port");
    let (authority, graph) = (port(entra.authority())?, port(entra.graph())?);
    let ports = json!([{"name": "authority", "port": authority}, {"name": "graph", "port": graph}]);
    let service: Service = serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"ports": ports}}))?;
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4", "endpoints": [{"addresses": [container_node::ADDRESS]}], "ports": ports,
    }))?;
    Api::namespaced(client.clone(), namespace).create(&PostParams::default(), &service).await?;
    Api::namespaced(client.clone(), namespace).create(&PostParams::default(), &slice).await?;
    Ok(())
}

/// A path of this repository, as an argument.
pub fn repository(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path).display().to_string()
}
