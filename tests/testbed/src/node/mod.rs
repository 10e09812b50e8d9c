//! A Kubernetes node whose pods are local processes.
//!
//! It registers itself, renews its lease, and runs every pod that the scheduler binds to it: each container as one
//! process under the [`Supervisor`], by a table from image to program. Everything that others see in the API server,
//! the status, conditions, reasons and events of a pod, is written as a kubelet writes it.
//!
//! # Where it differs from a kubelet
//!
//! A process has neither a file system nor a network of its own, and nobody here is root. So:
//!
//! - **Addresses.** A pod announces 10.244.b.c in its status, where nothing listens (the API server would refuse a
//!   loopback address in an EndpointSlice), and its processes listen on 127.244.b.c: `0.0.0.0` and `[::]` in arguments
//!   and environment are rewritten to it, and so is the downward API's `status.podIP`. Probes dial it; their `host` is
//!   ignored. The containers of a pod reach each other there, not on `localhost`. The node's own address is 127.0.0.1.
//! - **Paths.** Mount paths do not exist. Where one starts a path in arguments or environment, the node's own folder
//!   takes its place; in a file's content it does not. Other paths are the machine's own. Read-only mounts, file system
//!   groups and termination message files do not exist; `FallbackToLogsOnError` does.
//! - **Service account.** Where the pod's token is mounted for calls to the API server, `KUBECONFIG` names a file that
//!   says what clients would find at the mount path and in the variables `KUBERNETES_SERVICE_*`.
//! - **Images.** A command whose first word has the file name of one of the image's programs is that program; any other is
//!   the machine's. `PATH` begins with the folders of the image's programs, so that a program finds them by name. Nothing is
//!   pulled; an image that is added later is found within a second.
//! - **Environment.** Only what the spec says, `PATH` and `HOSTNAME`: no variables of Services.
//! - **Isolation.** `securityContext`, resource limits, host namespaces and network policies are not enforced, as
//!   a process without privileges cannot have them; [`crate::network_policy`] says who heeds policies instead. Of
//!   `securityContext` only `runAsNonRoot` and `runAsUser` are read: who must not be root, and would be, is not started.
//!   A port on the loopback address 127.0.0.1 is there for all pods, so that only one can have it, and `/proc/net/tcp` of
//!   a container tells of every listener of the machine.
//! - **Volumes.** configMap, secret, emptyDir, downwardAPI (fields, not resources) and projected ones. An emptyDir is a
//!   folder on disk, whatever its medium, and as large as the disk. What cannot be mounted is tried again after at most 8 s
//!   (a kubelet waits up to two minutes).
//! - **Probes.** httpGet and tcpSocket; redirects are not followed. A pod is not ready as soon as it is deleted.
//! - **Signals.** They reach every process of a container, not only the first.
//! - **Hooks.** `preStop.sleep` alone; a sidecar's begins when its turn to end has come, not with the pod's deletion.
//! - **Containers.** No ephemeral ones. Restart rules of single containers do not exist but for `Always`, of sidecars.
//! - **The kubelet's own API.** Logs alone, and only as they are: `kubectl logs` knows `--previous` and `--tail`, while
//!   `--follow` ends at once. No `kubectl exec` or `port-forward`.
//! - **Events.** One that repeats the last of its reason is not counted.
//! - **Restart of the node.** Pods end with it.

mod account;
mod claim;
mod container;
mod files;
mod logs;
mod order;
mod plan;
mod pod;
mod probes;
mod registration;
mod sources;
mod state;
mod status;
mod translate;
mod user;
mod volumes;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::Ipv4Addr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::WatchStreamExt;
use kube::runtime::events::EventType as Severity;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::control_plane::ControlPlane;
use crate::supervisor::Supervisor;
use logs::{Logs, serve_logs};

/// The node's own address.
const HOST_ADDRESS: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// What the API server may take to answer.
const REQUEST_LIMIT: Duration = Duration::from_secs(15);

/// The programs that stand for images.
#[derive(Debug, Clone, Default)]
pub struct Images(BTreeMap<String, Image>);

/// A program that stands for an image: the image's entry point.
#[derive(Debug, Clone)]
pub struct Image {
    program: PathBuf,
    arguments: Vec<String>,
    others: Vec<PathBuf>,
    user: String,
}

impl Images {
    /// Adds an image by its exact reference, as pods name it.
    #[must_use]
    pub fn with(mut self, reference: impl Into<String>, image: impl Into<Image>) -> Self {
        self.0.insert(reference.into(), image.into());
        self
    }
}

impl NodeContext {
    /// The image of that reference, as it is now.
    fn image(&self, reference: &str) -> Option<Image> {
        self.images.lock().unwrap_or_else(PoisonError::into_inner).0.get(reference).cloned()
    }
}

impl<P: Into<PathBuf>> From<P> for Image {
    fn from(program: P) -> Self {
        Self { program: program.into(), arguments: Vec::new(), others: Vec::new(), user: "65532".to_owned() }
    }
}

impl Image {
    /// Adds arguments that come before a pod's own, unless the pod has a command.
    #[must_use]
    pub fn args<A: Into<String>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Adds a program that commands may name instead of the entry point.
    #[must_use]
    pub fn with_program(mut self, program: impl Into<PathBuf>) -> Self {
        self.others.push(program.into());
        self
    }

    /// Sets the user that the image names, as `USER` does: a number or a name. Empty: root. Without it, the image names
    /// somebody who is not root by number.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = user.into();
        self
    }

    /// All its programs, the entry point first.
    fn programs(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(&self.program).chain(&self.others).map(PathBuf::as_path)
    }

    /// An image id that differs between programs.
    fn id(&self) -> String {
        let digest = Sha256::digest(self.program.as_os_str().as_encoded_bytes());
        format!("testbed@sha256:{}", hex::encode(digest))
    }
}

/// What of a node may differ from the usual.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long a changed ConfigMap or Secret takes to reach a mounted volume, if the pod is not touched; chosen at
    /// random within this range, each time anew.
    pub volume_refresh: Range<Duration>,
}

impl Default for Settings {
    /// As a kubelet.
    fn default() -> Self {
        Self { volume_refresh: Duration::from_secs(60)..Duration::from_secs(90) }
    }
}

/// A running node. When dropped, it ends its pods' processes in the background; [`Node::stop`] waits for that.
pub struct Node {
    context: Arc<NodeContext>,
    task: JoinHandle<()>,
    shutdown: DropGuard,
}

/// What everything on the node shares.
struct NodeContext {
    client: Client,
    /// The API server's address.
    server: String,
    supervisor: Supervisor,
    name: String,
    images: Mutex<Images>,
    settings: Settings,
    folder: PathBuf,
    logs: Logs,
    /// What ends each pod, by namespace and name.
    ends: Mutex<HashMap<(String, String), pod::End>>,
}

impl Node {
    /// Registers a node and starts to run what is bound to it. Its tasks live on the current runtime.
    ///
    /// # Errors
    /// Where the API server refuses the node, because there is one of that name for example.
    pub async fn start(
        control_plane: &ControlPlane,
        supervisor: &Supervisor,
        name: &str,
        images: Images,
    ) -> anyhow::Result<Self> {
        Self::start_with(control_plane, supervisor, name, images, Settings::default()).await
    }

    /// The same, with other settings.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub async fn start_with(
        control_plane: &ControlPlane,
        supervisor: &Supervisor,
        name: &str,
        images: Images,
        settings: Settings,
    ) -> anyhow::Result<Self> {
        let folder = supervisor.folder().join("nodes").join(name);
        let context = Arc::new(NodeContext {
            logs: Logs::new(folder.join("logs")),
            folder,
            client: control_plane.client()?,
            server: control_plane.url().to_owned(),
            supervisor: supervisor.clone(),
            name: name.to_owned(),
            images: Mutex::new(images),
            settings,
            ends: Mutex::default(),
        });
        let serving = serve_logs(context.logs.clone()).await?;
        let port = serving.address().port();
        let registered = registration::register(&context.client, name, port)
            .await
            .with_context(|| format!("register node {name}"))?;
        let shutdown = CancellationToken::new();
        let running = Arc::clone(&context);
        let stopping = shutdown.clone();
        let task = tokio::spawn(async move {
            let pods = TaskTracker::new();
            tokio::select! {
                () = stopping.cancelled() => {}
                () = registration::keep_alive(&running.client, &registered) => {}
                () = run_pods(&running, &pods, &stopping) => {}
            }
            pods.close();
            pods.wait().await;
            drop(serving);
        });
        Ok(Self { context, task, shutdown: shutdown.drop_guard() })
    }

    /// Adds an image to those that pods may have, by its exact reference.
    pub fn add_image(&self, reference: impl Into<String>, image: impl Into<Image>) {
        let mut images = self.context.images.lock().unwrap_or_else(PoisonError::into_inner);
        images.0.insert(reference.into(), image.into());
    }

    /// What the containers of a pod have written, in the order of their names and restarts. It can be read after the
    /// pod's deletion too; where several pods have had the name, all of them are read.
    ///
    /// # Errors
    /// Where the pod has run nothing on this node.
    pub fn logs(&self, namespace: &str, pod: &str) -> anyhow::Result<String> {
        self.context.logs.of_pod(namespace, pod)
    }

    /// Kills the processes of a pod, as where its machine fails: none of them is asked to end, and none is started again.
    ///
    /// # Errors
    /// Where the node runs no such pod.
    pub fn kill(&self, namespace: &str, pod: &str) -> anyhow::Result<()> {
        let ends = self.context.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let end = ends.get(&(namespace.to_owned(), pod.to_owned()));
        end.with_context(|| format!("the node runs no pod {namespace}/{pod}"))?.send_replace(Some(Duration::ZERO));
        Ok(())
    }

    /// Ends all processes of the node's pods and removes the node. Its pods are left to the control plane, which
    /// deletes them some time later.
    ///
    /// # Errors
    /// Where the API server does not remove the node.
    pub async fn stop(self) -> anyhow::Result<()> {
        drop(self.shutdown);
        self.task.await?;
        registration::remove(&self.context.client, &self.context.name).await
    }
}

/// Hands every pod that is bound to the node to a task of its own, and every change of the pod to that task.
async fn run_pods(node: &Arc<NodeContext>, tasks: &TaskTracker, shutdown: &CancellationToken) {
    let pods = Api::<Pod>::all(node.client.clone());
    let ours = watcher::Config::default().fields(&format!("spec.nodeName={}", node.name));
    let mut events = std::pin::pin!(watcher(pods, ours).default_backoff());
    let mut known: HashMap<String, watch::Sender<Arc<Pod>>> = HashMap::new();
    let mut listed = HashSet::new();
    loop {
        match events.try_next().await {
            Ok(Some(Event::Init)) => listed.clear(),
            // Dropping the sender tells the task that its pod is gone.
            Ok(Some(Event::InitDone)) => known.retain(|uid, _| listed.contains(uid)),
            Ok(Some(Event::Delete(pod))) => drop(known.remove(&pod.uid().unwrap_or_default())),
            Ok(Some(Event::Apply(pod) | Event::InitApply(pod))) => {
                let uid = pod.uid().unwrap_or_default();
                listed.insert(uid.clone());
                let pod = Arc::new(pod);
                if let Some(updates) = known.get(&uid) {
                    updates.send_replace(pod);
                } else {
                    let (sender, updates) = watch::channel(pod);
                    tasks.spawn(pod::run(Arc::clone(node), updates, shutdown.clone()));
                    known.insert(uid, sender);
                }
            }
            // The stream ends only with the process.
            Ok(None) => return,
            Err(error) => tracing::warn!(node = node.name, "its pods cannot be watched: {error}"),
        }
    }
}

/// Gives the API server a limited time to answer.
async fn request<T>(answer: impl Future<Output = kube::Result<T>>) -> anyhow::Result<T> {
    match tokio::time::timeout(REQUEST_LIMIT, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => anyhow::bail!("the API server has not answered within {} s", REQUEST_LIMIT.as_secs()),
    }
}
