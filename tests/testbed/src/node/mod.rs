//! Kubernetes node whose pods are local processes.
//!
//! It registers itself, renews its lease, and runs every pod that the scheduler binds to it. Each container is one
//! process under the [`Supervisor`], by a table from image to program. The status, conditions, reasons and events of a
//! pod in the API server are as a kubelet writes them.
//!
//! # Differences from a kubelet
//!
//! A process has neither its own file system nor its own network, and nothing runs as root. Therefore:
//!
//! - **Addresses.** A pod announces 10.244.b.c in its status, where nothing listens (the API server would refuse a
//!   loopback address in an EndpointSlice). Its processes listen on 127.244.b.c: `0.0.0.0` and `[::]` in arguments and
//!   environment are rewritten to it, and so is the downward API's `status.podIP`. Probes dial this address; their
//!   `host` is ignored. The containers of a pod reach each other there, not on `localhost`. The node's own address is
//!   127.0.0.1.
//! - **Paths.** Mount paths do not exist. In arguments and environment, a mount path at the start of a path is replaced
//!   by the node's folder; in the content of a file it is not. Other paths are the machine's own. Read-only mounts,
//!   file system groups and termination message files do not exist; `FallbackToLogsOnError` does.
//! - **Service account.** If the pod's token is mounted for requests to the API server, `KUBECONFIG` names a file. It
//!   has the content that clients would find at the mount path and in the variables `KUBERNETES_SERVICE_*`.
//! - **Images.** A command whose first word has the file name of one of the image's programs is that program. Any other
//!   is the machine's. `PATH` begins with the folders of the image's programs, so that a program finds them by name.
//!   Nothing is pulled; an image that is added later is found within a second.
//! - **Environment.** Only the variables of the spec, `PATH` and `HOSTNAME`: no variables of Services.
//! - **Isolation.** `securityContext`, resource limits, host namespaces and network policies are not enforced, since a
//!   process without privileges cannot have them. [`crate::network_policy`] lists the proxies that apply policies
//!   instead. Of `securityContext` only `runAsNonRoot` and `runAsUser` are read: a container that must not run as root,
//!   and would, is not started. All pods share the loopback address 127.0.0.1, so that only one can have a port on it.
//!   `/proc/net/tcp` of a container lists every listener of the machine.
//! - **Volumes.** configMap, secret, emptyDir, downwardAPI (fields, not resources) and projected ones. An emptyDir is a
//!   folder on disk, whatever its medium, and as large as the disk. A failed mount is tried again after at most 8 s (a
//!   kubelet waits up to two minutes).
//! - **Probes.** httpGet and tcpSocket; redirects are not followed. A pod is not ready as soon as it is deleted.
//! - **Signals.** They reach every process of a container, not only the first.
//! - **Hooks.** Only `preStop.sleep`. A sidecar's hook starts when its turn to end comes, not with the pod's deletion.
//! - **Containers.** No ephemeral ones. Restart rules of single containers do not exist, except `Always`, of sidecars.
//! - **The kubelet's own API.** Only logs, and only as they are: `kubectl logs` knows `--previous` and `--tail`, while
//!   `--follow` ends at once. No `kubectl exec` or `port-forward`.
//! - **Events.** A repetition of the last event of its reason is not counted.
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

/// Address of the node.
const HOST_ADDRESS: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Timeout of a request to the API server.
const REQUEST_LIMIT: Duration = Duration::from_secs(15);

/// Programs that represent images.
#[derive(Debug, Clone, Default)]
pub struct Images(BTreeMap<String, Image>);

/// Program that represents an image: the image's entry point.
#[derive(Debug, Clone)]
pub struct Image {
    program: PathBuf,
    arguments: Vec<String>,
    others: Vec<PathBuf>,
    user: String,
}

impl Images {
    /// Adds an image by the exact reference that pods use.
    #[must_use]
    pub fn with(mut self, reference: impl Into<String>, image: impl Into<Image>) -> Self {
        self.0.insert(reference.into(), image.into());
        self
    }
}

impl NodeContext {
    /// Returns the current image of this reference.
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
    /// Adds arguments before those of a pod, unless the pod has a command.
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

    /// Sets the user of the image, as `USER` does: a number or a name. Empty means root. Without this call, the image
    /// has a numeric user who is not root.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = user.into();
        self
    }

    /// Returns all its programs, the entry point first.
    fn programs(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(&self.program).chain(&self.others).map(PathBuf::as_path)
    }

    /// Returns an image id that differs between programs.
    fn id(&self) -> String {
        let digest = Sha256::digest(self.program.as_os_str().as_encoded_bytes());
        format!("testbed@sha256:{}", hex::encode(digest))
    }
}

/// Settings of a node.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Delay until a changed ConfigMap or Secret reaches a mounted volume, if the pod is not changed. Each delay is
    /// random within this range.
    pub volume_refresh: Range<Duration>,
}

impl Default for Settings {
    /// Delay of a kubelet.
    fn default() -> Self {
        Self { volume_refresh: Duration::from_secs(60)..Duration::from_secs(90) }
    }
}

/// Running node. When dropped, it ends its pods' processes in the background; [`Node::stop`] waits for that.
pub struct Node {
    context: Arc<NodeContext>,
    task: JoinHandle<()>,
    shutdown: DropGuard,
}

/// Shared state of the node.
struct NodeContext {
    client: Client,
    /// Address of the API server.
    server: String,
    supervisor: Supervisor,
    name: String,
    images: Mutex<Images>,
    settings: Settings,
    folder: PathBuf,
    logs: Logs,
    /// Stop signal of each pod, by namespace and name.
    ends: Mutex<HashMap<(String, String), pod::End>>,
}

impl Node {
    /// Registers a node and runs the pods that are bound to it. Its tasks run on the current runtime.
    ///
    /// # Errors
    /// If the API server refuses the node, because there is one of that name for example.
    pub async fn start(
        control_plane: &ControlPlane,
        supervisor: &Supervisor,
        name: &str,
        images: Images,
    ) -> anyhow::Result<Self> {
        Self::start_with(control_plane, supervisor, name, images, Settings::default()).await
    }

    /// Starts a node with other settings.
    ///
    /// # Errors
    /// Same as [`Node::start`].
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

    /// Adds an image for pods, by its exact reference.
    pub fn add_image(&self, reference: impl Into<String>, image: impl Into<Image>) {
        let mut images = self.context.images.lock().unwrap_or_else(PoisonError::into_inner);
        images.0.insert(reference.into(), image.into());
    }

    /// Returns the output of the containers of a pod, in the order of their names and restarts. It stays available
    /// after the pod's deletion. If several pods had the name, the output of all of them is returned.
    ///
    /// # Errors
    /// If the pod has no log on this node.
    pub fn logs(&self, namespace: &str, pod: &str) -> anyhow::Result<String> {
        self.context.logs.of_pod(namespace, pod)
    }

    /// Kills the processes of a pod, as in a failure of its machine. They get no SIGTERM, and are not restarted.
    ///
    /// # Errors
    /// If the node does not run the pod.
    pub fn kill(&self, namespace: &str, pod: &str) -> anyhow::Result<()> {
        let ends = self.context.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let end = ends.get(&(namespace.to_owned(), pod.to_owned()));
        end.with_context(|| format!("the node runs no pod {namespace}/{pod}"))?.send_replace(Some(Duration::ZERO));
        Ok(())
    }

    /// Ends all processes of the node's pods and removes the node. The control plane deletes its pods some time later.
    ///
    /// # Errors
    /// If the API server does not remove the node.
    pub async fn stop(self) -> anyhow::Result<()> {
        drop(self.shutdown);
        self.task.await?;
        registration::remove(&self.context.client, &self.context.name).await
    }
}

/// Starts a task for every pod that is bound to the node, and sends every change of the pod to it.
async fn run_pods(node: &Arc<NodeContext>, tasks: &TaskTracker, shutdown: &CancellationToken) {
    let pods = Api::<Pod>::all(node.client.clone());
    let ours = watcher::Config::default().fields(&format!("spec.nodeName={}", node.name));
    let mut events = std::pin::pin!(watcher(pods, ours).default_backoff());
    let mut known: HashMap<String, watch::Sender<Arc<Pod>>> = HashMap::new();
    let mut listed = HashSet::new();
    loop {
        match events.try_next().await {
            Ok(Some(Event::Init)) => listed.clear(),
            // The task learns from the dropped sender that its pod is gone.
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

/// Limits the time of a request to the API server.
async fn request<T>(answer: impl Future<Output = kube::Result<T>>) -> anyhow::Result<T> {
    match tokio::time::timeout(REQUEST_LIMIT, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => anyhow::bail!("the API server has not answered within {} s", REQUEST_LIMIT.as_secs()),
    }
}
