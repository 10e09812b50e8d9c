//! Stub of the node and the edge. Pods that the real scheduler binds to it become Ready at once, at addresses behind
//! the proxy that answers for them. Each Ingress gets an address.

use std::future::Future;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Context;
use futures::TryStreamExt;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use mcp_entra_policy::POLICY_KEY;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use super::pods::{Pods, ServerName};

const NODE: &str = "stub";
const INSTANCE: &str = "app.kubernetes.io/instance";
const SELECTOR: &str = "app.kubernetes.io/managed-by=mcp-entra-operator";
/// Number of statuses that are written concurrently.
const AT_ONCE: usize = 16;
const RENEWAL: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_secs(1);

/// A running stub; it ends when dropped.
pub(super) struct StubNode {
    pods: Pods,
    proxy_url: String,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

impl StubNode {
    pub(super) async fn start(client: &Client) -> anyhow::Result<Self> {
        register(client).await?;
        let pods = Pods::default();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let proxy_url = format!("http://{}", listener.local_addr()?);
        let proxy = axum::serve(listener, pods.proxy()).into_future();
        let ticking = pods.clone();
        let tasks = vec![
            told("proxy", async { Ok(proxy.await?) }),
            told("lease", keep_alive(client.clone())),
            told("policies", watch_policies(client.clone(), pods.clone())),
            told("pods", start_pods(client.clone(), pods.clone())),
            told("ingresses", expose(client.clone())),
            told("kubelet", async move {
                loop {
                    tokio::time::sleep(TICK).await;
                    ticking.sync();
                }
            }),
        ];
        Ok(Self { pods, proxy_url, _tasks: tasks })
    }

    pub(super) fn pods(&self) -> &Pods {
        &self.pods
    }

    /// Proxy that answers for the pods.
    pub(super) fn proxy_url(&self) -> &str {
        &self.proxy_url
    }
}

/// Logs a part that has ended. The awaited state will not come, and the log shows the reason.
fn told(part: &'static str, work: impl Future<Output = anyhow::Result<()>> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        if let Err(error) = work.await {
            eprintln!("bench: the stub's {part} ended: {error:#}");
        }
    }))
}

async fn register(client: &Client) -> anyhow::Result<()> {
    let room = json!({"cpu": "100000", "memory": "100Ti", "ephemeral-storage": "100Ti", "pods": "100000"});
    let node = json!({
        "metadata": {"name": NODE, "labels": {"kubernetes.io/hostname": NODE, "kubernetes.io/os": "linux"}},
        "status": {
            "capacity": room,
            "allocatable": room,
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "a stub",
                "lastHeartbeatTime": Timestamp::now(), "lastTransitionTime": Timestamp::now(),
            }],
        },
    });
    let nodes = Api::<Node>::all(client.clone());
    nodes.create(&PostParams::default(), &serde_json::from_value(node)?).await.context("create the Node")?;
    // The lifecycle controller would clear the taint of a new node some seconds later.
    let untainted = Patch::Merge(json!({"spec": {"taints": null}}));
    nodes.patch(NODE, &PatchParams::default(), &untainted).await?;
    Ok(())
}

/// Renews the lease, since a node without one loses its pods.
async fn keep_alive(client: Client) -> anyhow::Result<()> {
    let leases = Api::<Lease>::namespaced(client, "kube-node-lease");
    loop {
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": NODE},
            "spec": {"holderIdentity": NODE, "leaseDurationSeconds": 40, "renewTime": format!("{:.6}", Timestamp::now())},
        });
        leases.patch(NODE, &PatchParams::apply("kubelet").force(), &Patch::Apply(lease)).await?;
        tokio::time::sleep(RENEWAL).await;
    }
}

fn selected() -> watcher::Config {
    watcher::Config::default().labels(SELECTOR)
}

/// Returns the server of an object of the operator.
fn server_of(object: &impl ResourceExt) -> ServerName {
    let server = object.labels().get(INSTANCE).cloned().unwrap_or_default();
    (object.namespace().unwrap_or_default(), server)
}

async fn watch_policies(client: Client, pods: Pods) -> anyhow::Result<()> {
    let watch = watcher(Api::<ConfigMap>::all(client), selected()).default_backoff().applied_objects();
    let publish = watch.try_for_each(|config_map| {
        if let Some(document) = config_map.data.as_ref().and_then(|data| data.get(POLICY_KEY)) {
            pods.publish(server_of(&config_map), document);
        }
        std::future::ready(Ok(()))
    });
    Ok(publish.await?)
}

async fn start_pods(client: Client, pods: Pods) -> anyhow::Result<()> {
    let watch = watcher(Api::<Pod>::all(client.clone()), selected()).default_backoff().applied_objects();
    let placed = watch.map_err(anyhow::Error::from).try_filter_map(|pod| {
        let is_here = pod.spec.as_ref().is_some_and(|spec| spec.node_name.as_deref() == Some(NODE));
        let looks = format!("{:?}", pod.metadata.annotations);
        let start = is_here.then(|| pods.see(&pod.uid().unwrap_or_default(), server_of(&pod), looks)).flatten();
        std::future::ready(Ok(start.map(|address| (pod, address))))
    });
    placed
        .try_for_each_concurrent(AT_ONCE, async |(pod, address)| {
            let api = Api::<Pod>::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
            let patch = Patch::Strategic(running(&pod, address));
            // It may have been deleted meanwhile.
            match api.patch_status(&pod.name_any(), &PatchParams::default(), &patch).await {
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                answer => answer.map(drop).context("the status of a pod"),
            }
        })
        .await
}

/// Returns the status of a running and ready pod.
fn running(pod: &Pod, address: Ipv4Addr) -> serde_json::Value {
    let now = Timestamp::now();
    let condition = |type_: &str| json!({"type": type_, "status": "True", "lastTransitionTime": now});
    let conditions = ["PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"].map(condition);
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let statuses: Vec<_> = containers
        .map(|container| {
            json!({
                "name": container.name,
                "image": container.image,
                "imageID": format!("sha256:{:064x}", 1),
                "containerID": format!("containerd://{:064x}", u32::from(address)),
                "ready": true,
                "started": true,
                "restartCount": 0,
                "state": {"running": {"startedAt": now}},
            })
        })
        .collect();
    json!({"status": {
        "phase": "Running",
        "hostIP": "192.0.2.1",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "startTime": now,
        "conditions": conditions,
        "containerStatuses": statuses,
    }})
}

async fn expose(client: Client) -> anyhow::Result<()> {
    let watch = watcher(Api::<Ingress>::all(client.clone()), selected()).default_backoff().applied_objects();
    let without = watch.map_err(anyhow::Error::from).try_filter(|ingress| {
        let status = ingress.status.as_ref().and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
        std::future::ready(status.is_none())
    });
    without
        .try_for_each_concurrent(AT_ONCE, async |ingress| {
            let api = Api::<Ingress>::namespaced(client.clone(), &ingress.namespace().unwrap_or_default());
            let patch = Patch::Merge(json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.2"}]}}}));
            api.patch_status(&ingress.name_any(), &PatchParams::default(), &patch).await?;
            Ok(())
        })
        .await
}
