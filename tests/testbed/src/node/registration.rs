//! Registration of the node with the control plane, and its lease.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node as ApiNode;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};

use super::{HOST_ADDRESS, request};

/// Namespace of node leases, which the node lifecycle controller watches.
const LEASE_NAMESPACE: &str = "kube-node-lease";
const LEASE_SECONDS: i32 = 40;
const RENEWAL: Duration = Duration::from_secs(10);
/// Maximum number of pods, as for a kubelet.
const PODS: &str = "110";

/// Creates the Node, ready at once, and clears the taint that keeps pods off a new one. `port` is the port of its logs.
pub(super) async fn register(client: &Client, name: &str, port: u16) -> anyhow::Result<ApiNode> {
    let nodes = Api::<ApiNode>::all(client.clone());
    let node: ApiNode = serde_json::from_value(description(name, port, Timestamp::now()))?;
    let created = request(nodes.create(&PostParams::default(), &node)).await?;
    // The lifecycle controller would clear it some seconds later.
    let untainted = Patch::Merge(json!({ "spec": { "taints": null } }));
    request(nodes.patch(name, &PatchParams::default(), &untainted)).await?;
    Ok(created)
}

/// Removes the Node. Its lease is deleted with it, as a dependent.
pub(super) async fn remove(client: &Client, name: &str) -> anyhow::Result<()> {
    let nodes = Api::<ApiNode>::all(client.clone());
    request(nodes.delete(name, &DeleteParams::default())).await.map(drop)
}

/// Renews the node's lease forever.
pub(super) async fn keep_alive(client: &Client, node: &ApiNode) {
    let leases = Api::<Lease>::namespaced(client.clone(), LEASE_NAMESPACE);
    let name = node.metadata.name.clone().unwrap_or_default();
    let parameters = PatchParams::apply("kubelet").force();
    let mut ticks = interval(RENEWAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                owner_references: Some(node.owner_ref(&()).into_iter().collect()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(name.clone()),
                lease_duration_seconds: Some(LEASE_SECONDS),
                renew_time: Some(MicroTime(Timestamp::now())),
                ..LeaseSpec::default()
            }),
        };
        if let Err(error) = request(leases.patch(&name, &parameters, &Patch::Apply(&lease))).await {
            tracing::warn!(node = name, "its lease is not renewed: {error:#}");
        }
    }
}

/// Returns the Node, as a kubelet of a machine like this one describes it.
fn description(name: &str, port: u16, now: Timestamp) -> serde_json::Value {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    // Requests are not enforced here; they must only fit. The capacity is therefore large.
    let resources = json!({
        "cpu": (processors * 16).to_string(),
        "memory": "64Gi",
        "ephemeral-storage": "100Gi",
        "pods": PODS,
    });
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({
            "type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        })
    };
    json!({
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": architecture,
            },
        },
        "status": {
            "capacity": resources,
            "allocatable": resources,
            // Without the node's name: the API server would resolve it before it uses the address.
            "addresses": [{ "type": "InternalIP", "address": HOST_ADDRESS }],
            "daemonEndpoints": { "kubeletEndpoint": { "Port": port } },
            "conditions": [
                condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
                condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
                condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
                condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
            ],
            "nodeInfo": {
                "architecture": architecture,
                "bootID": "", "machineID": "", "systemUUID": "",
                "containerRuntimeVersion": concat!("testbed://", env!("CARGO_PKG_VERSION")),
                "kernelVersion": kernel(),
                "kubeProxyVersion": "",
                "kubeletVersion": "v1.37.2",
                "operatingSystem": "linux",
                "osImage": "processes of the testbed",
            },
        },
    })
}

fn kernel() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease");
    release.map(|release| release.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registered_node_is_ready() {
        let node: ApiNode = serde_json::from_value(description("n", 1, Timestamp::UNIX_EPOCH)).unwrap();
        let status = node.status.unwrap();
        let ready = status.conditions.unwrap().into_iter().find(|condition| condition.type_ == "Ready").unwrap();
        assert_eq!(ready.status, "True");
        assert_eq!(status.allocatable, status.capacity);
    }
}
