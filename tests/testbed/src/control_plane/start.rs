//! Start of the control plane's processes, and checks of their readiness.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::api::{Api, Patch, PatchParams};
use rcgen::{KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::{Value, json};

use super::{ControlPlane, Reach, audit, write_kubeconfig};
use crate::certificates::CertificateAuthority;
use crate::pod_tunnels::PodTunnels;
use crate::programs::{CONTROL_PLANE, GoPrograms};
use crate::supervisor::{Child, Command, Supervisor};

/// Name of the node that a control plane is started for.
pub(crate) const NODE: &str = "node";
/// User of this node, without the prefix `system:`.
const NODE_USER: &str = "node:node";
/// User of the API server for requests to this node's kubelet.
const KUBELET_CLIENT: &str = "kube-apiserver-kubelet-client";
/// First address in the range of Services, which is the API server's.
const SERVICE_ADDRESS: &str = "10.96.0.1";

/// Timeout of a start. A machine that is busy with builds takes several times the usual five seconds.
const READY: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(50);
/// Number of attempts. Another process may take a free port before its use.
const ATTEMPTS: u32 = 4;

pub(super) async fn start(supervisor: &Supervisor, reach: Reach) -> anyhow::Result<ControlPlane> {
    let programs = GoPrograms::find_or_build(supervisor, &CONTROL_PLANE).await?;
    let mut attempt = 1;
    loop {
        let folder = tempfile::Builder::new()
            .prefix("control-plane-")
            .tempdir_in(supervisor.folder())
            .context("make a folder for the control plane")?
            .keep();
        match start_in(supervisor, &programs, folder, reach).await {
            Err(error) if attempt < ATTEMPTS && is_collision(&error) => attempt += 1,
            started => return started,
        }
    }
}

fn is_collision(error: &anyhow::Error) -> bool {
    format!("{error:#}").contains("address already in use")
}

async fn start_in(
    supervisor: &Supervisor,
    programs: &GoPrograms,
    folder: PathBuf,
    reach: Reach,
) -> anyhow::Result<ControlPlane> {
    let ports = Ports::choose(reach.address())?;
    let url = format!("https://{}:{}", reach.address(), ports.api_server);
    let files = Files::write(&folder, &url, reach)?;
    let tunnels = match reach {
        Reach::Loopback => Some(PodTunnels::start().await?),
        Reach::Node(_) => None,
    };
    // The API server uses this proxy for plain HTTP, which it only speaks to pods and Services.
    let proxy = tunnels.iter().map(|tunnels| ("HTTP_PROXY", tunnels.url())).collect();
    let launcher = Launcher { supervisor, programs, folder: &folder, proxy };
    let etcd = launcher.launch("etcd", etcd(&folder, &ports)).await?;
    let api_server = launcher.launch("kube-apiserver", api_server(&folder, &ports, &url, reach)).await?;
    let config = config(&url, &files)?;
    let client = kube::Client::try_from(config.clone())?;
    let deadline = Instant::now() + READY;
    until_ready(&[&etcd, &api_server], deadline, "kube-apiserver", async || answers(&client, "/readyz").await).await?;
    let controllers = launcher.launch("kube-controller-manager", controller_manager(&folder, reach)).await?;
    let scheduler = launcher.launch("kube-scheduler", scheduler(&folder)).await?;
    open_discovery(&client).await.context("open the issuer's discovery")?;
    if let Reach::Node(_) = reach {
        let (role, user) = ("system:kubelet-api-admin", json!({ "kind": "User", "name": KUBELET_CLIENT }));
        bind(&client, "testbed:kubelet-client", role, user).await.context("let the API server ask kubelets")?;
    }
    let everyone = [&etcd, &api_server, &controllers, &scheduler];
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
    until_ready(&everyone, deadline, "the default service account", async || {
        matches!(accounts.get_opt("default").await, Ok(Some(_)))
    })
    .await?;
    Ok(ControlPlane {
        folder,
        programs: programs.clone(),
        url,
        ca_pem: files.ca_pem,
        admin: config,
        _supervisor: supervisor.clone(),
        _tunnels: tunnels.map(Arc::new),
    })
}

struct Ports {
    etcd: u16,
    etcd_peer: u16,
    api_server: u16,
}

impl Ports {
    /// All listeners are open at the same time, so that the ports differ.
    fn choose(api_server: Ipv4Addr) -> anyhow::Result<Self> {
        let listen = |address| TcpListener::bind((address, 0));
        let loopback = Ipv4Addr::LOCALHOST;
        let (etcd, peer, api_server) = (listen(loopback)?, listen(loopback)?, listen(api_server)?);
        Ok(Self {
            etcd: etcd.local_addr()?.port(),
            etcd_peer: peer.local_addr()?.port(),
            api_server: api_server.local_addr()?.port(),
        })
    }
}

struct Files {
    ca_pem: String,
    admin_token: String,
}

impl Files {
    fn write(folder: &Path, url: &str, reach: Reach) -> anyhow::Result<Self> {
        let write = |name: &str, content: &str| {
            std::fs::write(folder.join(name), content).with_context(|| format!("write {name} in {}", folder.display()))
        };
        let ca = CertificateAuthority::new("testbed-kubernetes")?;
        let ca_pem = ca.pem();
        write("ca.crt", &ca_pem)?;
        let address = reach.address().to_string();
        let server = ca.issue(&[
            &address,
            SERVICE_ADDRESS,
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
        ])?;
        write("server.crt", &server.certificate_pem)?;
        write("server.key", &server.key_pem)?;
        let mut users = vec![("kube-controller-manager", None), ("kube-scheduler", None)];
        if let Reach::Node(_) = reach {
            for (file, names) in [("kubelet", [NODE, &address].as_slice()), ("kubelet-client", &[KUBELET_CLIENT])] {
                let certificate = ca.issue(names)?;
                write(&format!("{file}.crt"), &certificate.certificate_pem)?;
                write(&format!("{file}.key"), &certificate.key_pem)?;
            }
            users.extend([("kube-proxy", None), (NODE_USER, Some("system:nodes"))]);
        }
        // etcd has its own authority: only this API server can use it, and this API server can use no other etcd.
        let ca = CertificateAuthority::new("testbed-etcd")?;
        write("etcd-ca.crt", &ca.pem())?;
        let etcd = ca.issue(&["127.0.0.1"])?;
        write("etcd.crt", &etcd.certificate_pem)?;
        write("etcd.key", &etcd.key_pem)?;
        // RSA, since Entra accepts only federated tokens that are signed with RS256.
        let signer = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?;
        write("service-account.key", &signer.serialize_pem())?;
        write("audit-policy.yaml", audit::POLICY)?;

        let admin_token = token();
        let mut tokens = format!("{admin_token},admin,admin,system:masters\n");
        write_kubeconfig(&folder.join("admin.kubeconfig"), url, &ca_pem, &admin_token, "default")?;
        for (name, group) in users {
            let token = token();
            let group = group.map(|group| format!(",{group}")).unwrap_or_default();
            tokens.push_str(&format!("{token},system:{name},{name}{group}\n"));
            // A colon would make KUBECONFIG a list.
            let file = folder.join(format!("{}.kubeconfig", name.replace(':', "-")));
            write_kubeconfig(&file, url, &ca_pem, &token, "default")?;
        }
        write("tokens.csv", &tokens)?;
        Ok(Self { ca_pem, admin_token })
    }
}

fn token() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

fn config(url: &str, files: &Files) -> anyhow::Result<kube::Config> {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;
    let mut config = kube::Config::new(url.parse()?);
    config.root_cert = Some(vec![CertificateDer::from_pem_slice(files.ca_pem.as_bytes())?.to_vec()]);
    config.auth_info.token = Some(files.admin_token.clone().into());
    Ok(config)
}

fn etcd(folder: &Path, ports: &Ports) -> Vec<String> {
    let client = format!("https://127.0.0.1:{}", ports.etcd);
    let peer = format!("http://127.0.0.1:{}", ports.etcd_peer);
    vec![
        "--name=testbed".into(),
        flag("data-dir", folder.join("etcd")),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=testbed={peer}"),
        flag("cert-file", folder.join("etcd.crt")),
        flag("key-file", folder.join("etcd.key")),
        flag("trusted-ca-file", folder.join("etcd-ca.crt")),
        "--client-cert-auth".into(),
        // The data need not survive the processes.
        "--unsafe-no-fsync".into(),
        "--log-level=warn".into(),
    ]
}

fn api_server(folder: &Path, ports: &Ports, url: &str, reach: Reach) -> Vec<String> {
    let mut arguments = vec![
        format!("--etcd-servers=https://127.0.0.1:{}", ports.etcd),
        flag("etcd-cafile", folder.join("etcd-ca.crt")),
        flag("etcd-certfile", folder.join("etcd.crt")),
        flag("etcd-keyfile", folder.join("etcd.key")),
        format!("--bind-address={}", reach.address()),
        format!("--advertise-address={}", reach.address()),
        format!("--secure-port={}", ports.api_server),
        flag("tls-cert-file", folder.join("server.crt")),
        flag("tls-private-key-file", folder.join("server.key")),
        flag("token-auth-file", folder.join("tokens.csv")),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction,OwnerReferencesPermissionEnforcement".into(),
        format!("--service-account-issuer={url}"),
        // Without this flag, the keys are advertised at the host's external address.
        format!("--service-account-jwks-uri={url}/openid/v1/jwks"),
        flag("service-account-key-file", folder.join("service-account.key")),
        flag("service-account-signing-key-file", folder.join("service-account.key")),
        "--service-cluster-ip-range=10.96.0.0/16".into(),
        flag("audit-policy-file", folder.join("audit-policy.yaml")),
        flag("audit-log-path", folder.join("audit.log")),
        // The log is one file, so that a position in it stays valid.
        "--audit-log-maxsize=0".into(),
    ];
    match reach {
        // The Service `kubernetes` must not have a loopback address as its endpoint.
        Reach::Loopback => arguments.push("--endpoint-reconciler-type=none".into()),
        Reach::Node(_) => arguments.extend([
            flag("kubelet-client-certificate", folder.join("kubelet-client.crt")),
            flag("kubelet-client-key", folder.join("kubelet-client.key")),
            flag("kubelet-certificate-authority", folder.join("ca.crt")),
            flag("client-ca-file", folder.join("ca.crt")),
            "--kubelet-preferred-address-types=InternalIP".into(),
        ]),
    }
    arguments
}

fn controller_manager(folder: &Path, reach: Reach) -> Vec<String> {
    let mut arguments = component(folder, "kube-controller-manager");
    arguments.extend([
        "--use-service-account-credentials".into(),
        // It creates an account and a token for each of its controllers, one after another. At its default rate this
        // takes 5 s.
        "--kube-api-qps=1000".into(),
        "--kube-api-burst=1000".into(),
        flag("service-account-private-key-file", folder.join("service-account.key")),
        flag("root-ca-file", folder.join("ca.crt")),
    ]);
    if let Reach::Loopback = reach {
        // There is no node. Tests act as the kubelet of one. This controller would delete the pods of a missing node
        // about once a minute.
        arguments.push("--controllers=*,-pod-garbage-collector-controller".into());
    }
    arguments
}

fn scheduler(folder: &Path) -> Vec<String> {
    component(folder, "kube-scheduler")
}

fn component(folder: &Path, name: &str) -> Vec<String> {
    let kubeconfig = folder.join(format!("{name}.kubeconfig"));
    vec![
        flag("kubeconfig", &kubeconfig),
        flag("authentication-kubeconfig", &kubeconfig),
        flag("authorization-kubeconfig", &kubeconfig),
        "--leader-elect=false".into(),
        // No client uses this server.
        "--secure-port=0".into(),
    ]
}

fn flag(name: &str, path: impl AsRef<Path>) -> String {
    format!("--{name}={}", path.as_ref().display())
}

struct Launcher<'a> {
    supervisor: &'a Supervisor,
    programs: &'a GoPrograms,
    folder: &'a Path,
    /// Variable of a proxy.
    proxy: Vec<(&'static str, String)>,
}

struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Launcher<'_> {
    async fn launch(&self, name: &'static str, arguments: Vec<String>) -> anyhow::Result<Process> {
        let log = self.folder.join(format!("{name}.log"));
        let command =
            Command::new(self.programs.path(name), &log).args(arguments).envs(self.proxy.clone()).folder(self.folder);
        let child = self.supervisor.spawn(command).await?;
        Ok(Process { name, child, log })
    }
}

impl Process {
    fn last_words(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let (_, last) = lines.split_at(lines.len().saturating_sub(15));
        format!("last lines of {}:\n{}", self.log.display(), last.join("\n"))
    }
}

async fn until_ready(
    processes: &[&Process],
    deadline: Instant,
    what: &str,
    mut ready: impl AsyncFnMut() -> bool,
) -> anyhow::Result<()> {
    loop {
        if let Some((process, status)) = processes.iter().find_map(|process| Some((process, process.child.status()?))) {
            end_all(processes).await;
            bail!("{} ended ({status:?}); {}", process.name, process.last_words());
        }
        if matches!(tokio::time::timeout(Duration::from_secs(5), ready()).await, Ok(true)) {
            return Ok(());
        }
        if Instant::now() > deadline {
            end_all(processes).await;
            let words: Vec<String> = processes.iter().map(|process| process.last_words()).collect();
            bail!("{what} was not ready within {} s; {}", READY.as_secs(), words.join("\n"));
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn end_all(processes: &[&Process]) {
    for process in processes {
        process.child.kill().await;
    }
}

async fn answers(client: &kube::Client, path: &str) -> bool {
    match http::Request::get(path).body(Vec::new()) {
        Ok(request) => client.request_text(request).await.is_ok(),
        Err(_) => false,
    }
}

/// Makes the issuer's discovery document and keys public. By default only service accounts may read them, and Entra has
/// none.
async fn open_discovery(client: &kube::Client) -> anyhow::Result<()> {
    let everyone = json!({ "kind": "Group", "name": "system:unauthenticated" });
    let name = "system:service-account-issuer-discovery";
    bind(client, "testbed:service-account-issuer-discovery", name, everyone).await
}

/// Binds a cluster role to one subject.
async fn bind(client: &kube::Client, name: &str, role: &str, mut subject: Value) -> anyhow::Result<()> {
    let group = "rbac.authorization.k8s.io";
    if let Some(subject) = subject.as_object_mut() {
        subject.insert("apiGroup".to_owned(), group.into());
    }
    let binding = json!({
        "apiVersion": format!("{group}/v1"),
        "kind": "ClusterRoleBinding",
        "metadata": { "name": name },
        "roleRef": { "apiGroup": group, "kind": "ClusterRole", "name": role },
        "subjects": [subject],
    });
    let bindings: Api<ClusterRoleBinding> = Api::all(client.clone());
    bindings.patch(name, &PatchParams::apply("testbed"), &Patch::Apply(binding)).await?;
    Ok(())
}
