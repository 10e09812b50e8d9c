//! Images: another one is run where it is allowed, and a new operator's own reaches servers in turns.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use mcp_entra_crds::McpServer;
use mcp_entra_operator::Options;
use serde_json::json;

use crate::harness::{Cluster, Space, find, mk_server, until};

fn image(deployment: &Deployment) -> String {
    let pod = deployment.spec.clone().unwrap().template.spec.unwrap();
    pod.containers[0].image.clone().unwrap()
}

#[tokio::test]
async fn an_allowed_image_is_rolled_out_once_and_a_neighbour_is_not_accepted() {
    let space = Space::new().await;
    space.apply(mk_server()).await;
    space.condition("Programmed", "True", "Applied").await;
    space.quiet().await;
    let mark = space.mark();
    space.edit::<McpServer>("graph", json!({"spec": {"image": "registry.example/allowed:2"}})).await;
    until("the image is rolled out", async || {
        image(&space.get::<Deployment>("graph").await.unwrap()) == "registry.example/allowed:2"
    })
    .await;
    space.quiet().await;
    let writes = space.writes(mark).into_iter().filter(|write| write.resource == "deployments").count();
    assert_eq!(writes, 1);

    space.edit::<McpServer>("graph", json!({"spec": {"image": "registry.example/other:2"}})).await;
    space.condition("Accepted", "False", "ImageNotAllowed").await;
    assert_eq!(image(&space.get::<Deployment>("graph").await.unwrap()), "registry.example/allowed:2");
}

#[tokio::test]
async fn suspended_servers_are_left_as_they_are_and_their_policy_is_not() {
    let space = Space::new().await;
    space.apply(mk_server()).await;
    space.apply(crate::harness::mk_mapping("readers", "Mcp.Reader")).await;
    space.mapping_condition("readers", "Programmed", "True", "Applied").await;
    space.edit::<McpServer>("graph", json!({"spec": {"suspend": true, "replicas": 3}})).await;
    space.condition("Programmed", "Unknown", "Suspended").await;
    assert!(space.policy().await.contains("Mcp.Reader"));
    space.delete::<mcp_entra_crds::McpRoleMapping>("readers").await;
    until("the grant is gone", async || !space.policy().await.contains("Mcp.Reader")).await;
    assert_eq!(space.get::<Deployment>("graph").await.unwrap().spec.unwrap().replicas, Some(1));
    space.edit::<McpServer>("graph", json!({"spec": {"suspend": false}})).await;
    until("it is scaled", async || space.get::<Deployment>("graph").await.unwrap().spec.unwrap().replicas == Some(3))
        .await;
}

/// A stand-in for a node: pods become Ready at once, but for those of the second server that gets the image `:2`, which
/// wait until they are let.
struct ReadyPods {
    upgraded: Mutex<Vec<String>>,
    may_all: AtomicBool,
}

impl ReadyPods {
    fn may(&self, pod: &Pod) -> bool {
        let server = pod.labels()["app.kubernetes.io/instance"].clone();
        if !pod.spec.as_ref().unwrap().containers[0].image.as_ref().unwrap().ends_with(":2") {
            return true;
        }
        let mut upgraded = self.upgraded.lock().unwrap();
        if !upgraded.contains(&server) {
            upgraded.push(server.clone());
        }
        upgraded.get(1) != Some(&server) || self.may_all.load(Ordering::Relaxed)
    }

    async fn run(self: Arc<Self>, pods: Api<Pod>) {
        loop {
            for pod in pods.list(&Default::default()).await.unwrap() {
                let is_ready = pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"));
                if !is_ready && self.may(&pod) {
                    let ready =
                        json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
                    // It may be gone by now.
                    pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(ready)).await.ok();
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_operators_image_reaches_servers_in_turns_and_halts_at_one_that_fails() {
    let cluster = Cluster::start().await.unwrap();
    let client = cluster.plane.client().unwrap();
    let servers = Api::<McpServer>::namespaced(client.clone(), "default");
    let deployments = Api::<Deployment>::namespaced(client.clone(), "default");
    let node = Arc::new(ReadyPods { upgraded: Mutex::default(), may_all: AtomicBool::default() });
    tokio::spawn(node.clone().run(Api::namespaced(client, "default")));
    let count = async |reason: &str| {
        let all = servers.list(&Default::default()).await.unwrap();
        let programmed = |server: &McpServer| {
            find(&server.status.clone().unwrap_or_default().conditions, "Programmed").map(|found| found.reason)
        };
        all.iter().filter(|server| programmed(server).as_deref() == Some(reason)).count()
    };
    let upgraded = async || {
        let all = deployments.list(&Default::default()).await.unwrap();
        all.iter().filter(|found| image(found).ends_with(":2")).count()
    };

    let first = cluster.operator().await.unwrap();
    for name in ["a", "b", "c"] {
        let mut server = mk_server();
        server["metadata"]["name"] = json!(name);
        servers.patch(name, &PatchParams::apply("kubectl"), &Patch::Apply(server)).await.unwrap();
    }
    until("all have come up", async || {
        let all = deployments.list(&Default::default()).await.unwrap();
        let ready = |found: &&Deployment| found.status.as_ref().and_then(|status| status.available_replicas) == Some(1);
        all.iter().filter(ready).count() == 3 && count("Applied").await == 3
    })
    .await;
    first.shutdown.cancel();
    first.ended.await.unwrap().unwrap();

    let newer = |options: &mut Options| {
        options.server_image = "registry.example/mcp-entra-server:2".into();
        options.at_once = 1;
        options.roll_out_deadline_seconds = 4;
    };
    let second = cluster.operator_with(newer).await.unwrap();
    until("one is held back since another failed", async || count("UpgradeHalted").await == 1).await;
    assert_eq!(upgraded().await, 2);
    node.may_all.store(true, Ordering::Relaxed);
    until("all are upgraded once it came up", async || upgraded().await == 3 && count("Applied").await == 3).await;
    second.shutdown.cancel();
    second.ended.await.unwrap().unwrap();
}
