//! Complete environment of the product: control plane, node, edge and Entra emulator, and the product, installed by its
//! chart.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use entra_emulator::{Configuration, EntraEmulator};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::address::Pods;
use crate::certificate_manager::CertificateManager;
use crate::certificates::CertificateAuthority;
use crate::chart::{self, BACKEND_IMAGE, OPERATOR, PUBLIC_BACKEND_IMAGE, REGISTRY};
use crate::command_line::CommandLine;
use crate::container_node::{self, ContainerNode};
use crate::control_plane::ControlPlane;
use crate::definitions;
use crate::edge::Edge;
use crate::helm::Helm;
use crate::network_policy::{Identity, NetworkPolicies};
use crate::node::Node;
use crate::pod_proxy::PodProxy;
use crate::programs::{GoPrograms, HELM};
use crate::supervisor::Supervisor;

/// Kind and name of the issuer in the examples.
const ISSUER: (&str, &str) = ("ClusterIssuer", "letsencrypt");

/// Name of the emulated Entra for pods with their own addresses: the Service `entra` of the namespace `default`.
const ENTRA_HOST: &str = "entra.default.svc.cluster.local";

/// Interval between two probes of a federated credential, in seconds. The default is five minutes.
const PROBE_INTERVAL_SECONDS: u32 = 5;

/// Part of a replica's log that a failure shows.
const LAST_LINES: usize = 20;

/// Complete environment of the product. Dropping it ends every process and removes every file.
pub struct Stack {
    /// Kubernetes API server and its controllers.
    pub control_plane: ControlPlane,
    /// Node that runs the pods.
    pub node: AnyNode,
    /// HTTPS on one port for every Ingress.
    pub edge: Edge,
    /// Microsoft Entra ID and Graph.
    pub entra: EntraEmulator,
    /// Authority of every certificate that the edge presents.
    pub certificates: Arc<CertificateAuthority>,
    /// Issuer of the Certificates of the examples.
    pub certificate_manager: CertificateManager,
    /// Policies that the pod proxy applies, and also an egress proxy of a test.
    pub policies: NetworkPolicies,
    /// Proxy between the operator and pods that do not listen at their announced address.
    pod_proxy: Option<PodProxy>,
    installed: OnceCell<()>,
    supervisor: Supervisor,
}

/// Node of either sort.
pub enum AnyNode {
    /// Node whose pods are processes.
    Processes(Node),
    /// Node whose pods are containers.
    Containers(ContainerNode),
}

impl AnyNode {
    /// Returns the output of the pod.
    ///
    /// # Errors
    /// If it has not run.
    pub async fn logs(&self, namespace: &str, pod: &str) -> anyhow::Result<String> {
        match self {
            Self::Processes(node) => node.logs(namespace, pod),
            Self::Containers(node) => node.logs(namespace, pod).await,
        }
    }

    /// Kills the processes of a pod without SIGTERM.
    ///
    /// # Errors
    /// If it does not run.
    pub async fn kill(&self, namespace: &str, pod: &str) -> anyhow::Result<()> {
        match self {
            Self::Processes(node) => node.kill(namespace, pod),
            Self::Containers(node) => node.kill(namespace, pod).await,
        }
    }
}

impl Stack {
    /// Starts everything except the product. `report` gets a line for each started part.
    ///
    /// # Errors
    /// If a part does not start. The error has the last lines of its log.
    pub async fn start(report: &(dyn Fn(&str) + Sync)) -> anyhow::Result<Self> {
        let supervisor = Supervisor::start()?;
        // Builds of Rust and Go run in parallel.
        let images = tokio::task::spawn_blocking(chart::images);
        let control_plane = ControlPlane::start(&supervisor).await?;
        let images = images.await??;
        // The first step of the story installs with it, and must not wait.
        GoPrograms::find_or_build(&supervisor, &HELM).await?;
        report(&format!("kube-apiserver, controllers and etcd at {}", control_plane.url()));
        let node = Node::start(&control_plane, &supervisor, "node", images).await?;
        report("a node whose pods are processes");
        let entra = Configuration { trusted_ca_files: vec![control_plane.ca_file()], ..Configuration::default() };
        let entra = EntraEmulator::start(entra, (Ipv4Addr::LOCALHOST, 0).into()).await?;
        Self::start_around(supervisor, control_plane, AnyNode::Processes(node), entra, report).await
    }

    /// Starts a stack whose pods are containers of these images, OCI archives; within its own [`crate::namespaces`].
    ///
    /// # Errors
    /// If a part does not start. The error has the last lines of its log.
    pub async fn start_on_containers(images: &[PathBuf], report: &(dyn Fn(&str) + Sync)) -> anyhow::Result<Self> {
        let supervisor = Supervisor::start()?;
        ContainerNode::prepare(&supervisor, &[ENTRA_HOST]).await?;
        let control_plane = ControlPlane::start_for_node(&supervisor, container_node::ADDRESS).await?;
        report(&format!("kube-apiserver, controllers and etcd at {}", control_plane.url()));
        let node = ContainerNode::start(&supervisor, &control_plane).await?;
        for archive in images {
            node.import(archive).await.with_context(|| format!("import {}", archive.display()))?;
        }
        report("containerd, kubelet, kube-proxy and CoreDNS, with the imported images");
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
            installed: OnceCell::new(),
            policies,
            supervisor,
        })
    }

    /// Installs the product with its chart, unless it is installed.
    ///
    /// # Errors
    /// Returns the error output of Helm.
    pub async fn install(&self) -> anyhow::Result<()> {
        let install = async || {
            self.furnish().await?;
            chart::install(&self.helm().await?, &self.values()).await.map(drop)
        };
        self.installed.get_or_try_init(install).await.copied()
    }

    /// Records that the product was installed by other means.
    pub async fn is_installed(&self) {
        self.installed.get_or_init(async || ()).await;
    }

    /// Creates the objects of a cluster before the product's installation: the kinds of Gateway API and cert-manager,
    /// and the namespace of the Gateways.
    ///
    /// # Errors
    /// If the API server refuses something.
    pub async fn furnish(&self) -> anyhow::Result<()> {
        let others = tokio::task::spawn_blocking(|| {
            anyhow::Ok([definitions::gateway_api()?, definitions::cert_manager()?].concat())
        });
        definitions::define(&self.control_plane.client()?, &others.await??).await?;
        // Listeners with their own certificates.
        let certificate = self.certificates.issue(&["edge.example.com"])?;
        let infrastructure = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "infra"}});
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": "edge-tls", "namespace": "infra"},
            "stringData": {"tls.crt": certificate.certificate_pem, "tls.key": certificate.key_pem},
        });
        self.kubectl(&["apply", "-f", "-"], Some(&format!("---\n{infrastructure}\n---\n{secret}\n"))).await.map(drop)
    }

    /// Values of the chart for this stack: its own Entra, and short intervals.
    pub fn values(&self) -> Value {
        json!({
            "image": {"registry": REGISTRY},
            "allowedHosts": ["*.mcp.contoso.com"],
            "allowTrustBundles": true,
            "allowedImages": [format!("{REGISTRY}/mcp-entra-server:*")],
            "allowedBackendImages": [BACKEND_IMAGE, PUBLIC_BACKEND_IMAGE],
            "allowedAuthorities": [self.entra.authority()],
            "allowedGraphs": [self.entra.graph()],
            "podProxyUrl": self.pod_proxy.as_ref().map(PodProxy::url).unwrap_or_default(),
            "probeIntervalSeconds": PROBE_INTERVAL_SECONDS,
            "statusPollSeconds": 1,
        })
    }

    /// Returns Helm with the rights of the cluster administrator.
    ///
    /// # Errors
    /// If it cannot be built.
    pub async fn helm(&self) -> anyhow::Result<Helm> {
        Helm::with_kubeconfig(&self.supervisor, self.control_plane.kubeconfig()).await
    }

    /// Returns the operator's replica that leads, by the lease.
    ///
    /// # Errors
    /// If the lease cannot be read.
    pub async fn leader(&self) -> anyhow::Result<Option<String>> {
        let (namespace, name) = OPERATOR;
        let leases: Api<Lease> = Api::namespaced(self.control_plane.client()?, namespace);
        Ok(leases.get_opt(name).await?.and_then(|lease| lease.spec?.holder_identity))
    }

    /// Kills the leading pod, as a failed machine does, and deletes it from the API server. Its Deployment creates a
    /// replacement. Returns the name of the killed pod.
    ///
    /// # Errors
    /// If none leads.
    pub async fn kill_leader(&self) -> anyhow::Result<String> {
        let (namespace, _) = OPERATOR;
        let leader = self.leader().await?.context("no replica leads")?;
        self.node.kill(namespace, &leader).await?;
        let pods: Api<Pod> = Api::namespaced(self.control_plane.client()?, namespace);
        pods.delete(&leader, &DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() }).await?;
        Ok(leader)
    }

    /// Returns the last log lines of each of the operator's replicas.
    ///
    /// # Errors
    /// If its pods cannot be listed.
    pub async fn operator_log(&self) -> anyhow::Result<String> {
        let (namespace, name) = OPERATOR;
        let pods: Api<Pod> = Api::namespaced(self.control_plane.client()?, namespace);
        let own = ListParams::default().labels(&format!("app.kubernetes.io/name={name}"));
        let mut text = String::new();
        for pod in pods.list_metadata(&own).await? {
            let log = self.node.logs(namespace, &pod.name_any()).await.unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            text += &format!("{}:\n", pod.name_any());
            for line in lines.iter().skip(lines.len().saturating_sub(LAST_LINES)) {
                text += &format!("  {line}\n");
            }
        }
        Ok(text)
    }

    /// Folder of all files of the stack, which is removed with it.
    pub fn folder(&self) -> &Path {
        self.supervisor.folder()
    }

    /// Runs kubectl as cluster administrator and returns its output.
    ///
    /// # Errors
    /// If kubectl fails. The error has its output.
    pub async fn kubectl(&self, arguments: &[&str], input: Option<&str>) -> anyhow::Result<String> {
        self.kubectl_command_line(arguments).succeed(input).await
    }

    /// Runs a command of kubectl that must fail, and returns its error output.
    ///
    /// # Errors
    /// If kubectl succeeds.
    pub async fn kubectl_refused(&self, arguments: &[&str], input: &str) -> anyhow::Result<String> {
        self.kubectl_command_line(arguments).fail(Some(input)).await
    }

    fn kubectl_command_line(&self, arguments: &[&str]) -> CommandLine {
        let mut command = tokio::process::Command::new(self.control_plane.kubectl());
        command
            .arg("--kubeconfig")
            .arg(self.control_plane.kubeconfig())
            // Without this, discovery is cached below HOME and stays there.
            .env("KUBECACHEDIR", self.supervisor.folder().join("kubectl"));
        CommandLine::new("kubectl", command, arguments, Duration::from_secs(60))
    }
}

/// Creates a name of Entra for pods, a Service without pods. Entra runs beside the pods on their node.
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

/// Path of this repository, as an argument.
pub fn repository(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path).display().to_string()
}
