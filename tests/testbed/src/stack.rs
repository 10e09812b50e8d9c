//! Everything the product runs on, started together: control plane, node, edge and Entra emulator; and, once
//! installed, the product itself: its definitions, its rights, its operator.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use entra_emulator::{Configuration, EntraEmulator};
use tokio::io::AsyncWriteExt;
use tokio::sync::Mutex;

use crate::certificates::CertificateAuthority;
use crate::control_plane::ControlPlane;
use crate::edge::Edge;
use crate::network_policy::{Identity, NetworkPolicies};
use crate::node::{Images, Node};
use crate::pod_proxy::PodProxy;
use crate::programs;
use crate::supervisor::{Child, Command, Supervisor};

/// The image that the operator gives to servers here; the node runs the workspace's own `mcp-entra-server` for it.
pub const SERVER_IMAGE: &str = "mcp-entra-server:workspace";

/// Namespace and name of the operator's service account, as `operator/rbac.yaml` has them.
pub const OPERATOR: (&str, &str) = ("mcp-entra-system", "mcp-entra-operator");

/// Seconds between two probes of a federated credential here; five minutes by default elsewhere.
const PROBE_INTERVAL_SECONDS: u32 = 5;

/// Everything the product runs on. Dropping it ends every process and removes every file.
pub struct Stack {
    /// The Kubernetes API server and its controllers.
    pub control_plane: ControlPlane,
    /// Runs pods as processes.
    pub node: Node,
    /// HTTPS on one port for every Ingress.
    pub edge: Edge,
    /// Microsoft Entra ID and Graph.
    pub entra: EntraEmulator,
    /// Issues the certificates that people put into Secrets.
    pub certificates: CertificateAuthority,
    pod_proxy: PodProxy,
    operator: Mutex<Option<Child>>,
    supervisor: Supervisor,
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
        let certificates = CertificateAuthority::new("testbed")?;
        let images = Images::default().with(SERVER_IMAGE, server);
        let node = Node::start(control_plane.client()?, &supervisor, "node", images).await?;
        let edge = Edge::start(control_plane.client()?).await?;
        let policies = NetworkPolicies::start(&control_plane.client()?).await?;
        let (namespace, name) = OPERATOR;
        let pod_proxy = PodProxy::start_as(policies, Identity::new(namespace, name)).await?;
        report(&format!("a node whose pods are processes, and an HTTPS edge at {}", edge.address()));
        let configuration = Configuration { tenants: Vec::new(), trusted_ca_files: vec![control_plane.ca_file()] };
        let entra = EntraEmulator::start(configuration, "127.0.0.1:0".parse()?).await?;
        report(&format!("Entra at {}, Graph at {}", entra.authority(), entra.graph()));
        Ok(Self { control_plane, node, edge, entra, certificates, pod_proxy, operator: Mutex::new(None), supervisor })
    }

    /// Applies the definitions and waits until the API server serves them.
    ///
    /// # Errors
    /// With kubectl's own words.
    pub async fn define(&self) -> anyhow::Result<()> {
        self.kubectl(&["apply", "--server-side", "-f", &repository("crds/yaml")], None).await?;
        let established = ["wait", "--for=condition=Established", "--timeout=30s", "-f", &repository("crds/yaml")];
        self.kubectl(&established, None).await?;
        Ok(())
    }

    /// Gives the operator its rights and starts it, unless it runs already.
    ///
    /// # Errors
    /// Where the rights cannot be applied or the program does not start.
    pub async fn install(&self) -> anyhow::Result<()> {
        let mut operator = self.operator.lock().await;
        if operator.is_none() {
            let (namespace, name) = OPERATOR;
            let manifest = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n");
            self.kubectl(&["apply", "--server-side", "-f", "-"], Some(&manifest)).await?;
            self.kubectl(&["apply", "--server-side", "-f", &repository("operator/rbac.yaml")], None).await?;
            let kubeconfig = self.control_plane.kubeconfig_for_service_account(namespace, name).await?;
            *operator = Some(self.supervisor.spawn(self.operator_command(&kubeconfig)?).await?);
        }
        Ok(())
    }

    fn operator_command(&self, kubeconfig: &Path) -> anyhow::Result<Command> {
        let probe = PROBE_INTERVAL_SECONDS.to_string();
        let arguments = [
            "run",
            "--listen=127.0.0.1:0",
            "--allow-trust-bundles",
            "--status-poll-seconds=1",
            "--server-image",
            SERVER_IMAGE,
            "--pod-proxy-url",
            &self.pod_proxy.url(),
            "--allowed-authority",
            self.entra.authority(),
            "--allowed-graph",
            self.entra.graph(),
            "--probe-interval-seconds",
            &probe,
        ];
        Ok(Command::new(programs::program("mcp-entra-operator")?, self.operator_log())
            .args(arguments)
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
        let output = self.kubectl_output(arguments, input).await?;
        ensure!(
            output.status.success(),
            "kubectl {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs kubectl where it has to fail, and returns what it says then.
    ///
    /// # Errors
    /// Where kubectl succeeds.
    pub async fn kubectl_refused(&self, arguments: &[&str], input: &str) -> anyhow::Result<String> {
        let output = self.kubectl_output(arguments, Some(input)).await?;
        ensure!(!output.status.success(), "kubectl {} was to be refused, and was not", arguments.join(" "));
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    async fn kubectl_output(&self, arguments: &[&str], input: Option<&str>) -> anyhow::Result<std::process::Output> {
        let mut child = tokio::process::Command::new(self.control_plane.kubectl())
            .arg("--kubeconfig")
            .arg(self.control_plane.kubeconfig())
            .args(arguments)
            // Discovery is cached below HOME otherwise, and would stay behind.
            .env("KUBECACHEDIR", self.supervisor.folder().join("kubectl"))
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("kubectl does not start")?;
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
            stdin.write_all(input.as_bytes()).await?;
        }
        tokio::time::timeout(Duration::from_secs(60), child.wait_with_output())
            .await
            .context("kubectl did not end within a minute")?
            .context("kubectl cannot be awaited")
    }
}

/// A path of this repository, as an argument.
pub fn repository(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path).display().to_string()
}
