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
use testbed::shared::Shared;

use crate::harness::{Cluster, Operator, Space, find, mk_server, until};

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

/// A cluster of a test's own, on which an older operator has brought up servers, one by one.
struct Fleet {
    space: Space,
    node: Arc<ReadyPods>,
}

impl Fleet {
    async fn start(cluster: &'static Shared<Cluster>, names: &[&str]) -> Self {
        let cluster = tokio::task::spawn_blocking(|| cluster.get_or_start(Cluster::start).unwrap()).await.unwrap();
        let space = Space::on(cluster).await;
        let node = Arc::new(ReadyPods { upgraded: Mutex::default(), may_all: AtomicBool::default() });
        tokio::spawn(node.clone().run(space.api()));
        let fleet = Self { space, node };
        let first = cluster.operator().await.unwrap();
        for name in names {
            let mut server = mk_server();
            server["metadata"]["name"] = json!(name);
            fleet.space.apply(server).await;
        }
        let ready = |found: &&Deployment| found.status.as_ref().and_then(|status| status.available_replicas) == Some(1);
        until("all have come up", async || {
            let ready = fleet.deployments().await.iter().filter(ready).count();
            ready == names.len() && fleet.count("Applied").await == names.len()
        })
        .await;
        end(first).await;
        fleet
    }

    /// Starts an operator of a newer version, which upgrades one server at a time.
    async fn upgrade(&self) -> Operator {
        let newer = |options: &mut Options| {
            options.server_image = "registry.example/mcp-entra-server:2".into();
            options.at_once = 1;
            options.roll_out_deadline_seconds = 4;
        };
        self.space.cluster.operator_with(newer).await.unwrap()
    }

    async fn deployments(&self) -> Vec<Deployment> {
        self.space.api::<Deployment>().list(&Default::default()).await.unwrap().items
    }

    /// Servers of which Programmed says that.
    async fn count(&self, reason: &str) -> usize {
        let all = self.space.api::<McpServer>().list(&Default::default()).await.unwrap();
        let programmed = |server: &McpServer| {
            find(&server.status.clone().unwrap_or_default().conditions, "Programmed").map(|found| found.reason)
        };
        all.iter().filter(|server| programmed(server).as_deref() == Some(reason)).count()
    }

    async fn upgraded(&self) -> usize {
        self.deployments().await.iter().filter(|found| image(found).ends_with(":2")).count()
    }
}

async fn end(operator: Operator) {
    operator.shutdown.cancel();
    operator.ended.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_operators_image_reaches_servers_in_turns_and_halts_at_one_that_fails() {
    static CLUSTER: Shared<Cluster> = Shared::new();
    let fleet = Fleet::start(&CLUSTER, &["a", "b", "c"]).await;
    let second = fleet.upgrade().await;
    until("one is held back since another failed", async || fleet.count("UpgradeHalted").await == 1).await;
    assert_eq!(fleet.upgraded().await, 2);
    fleet.node.may_all.store(true, Ordering::Relaxed);
    until("all are upgraded once it came up", async || {
        fleet.upgraded().await == 3 && fleet.count("Applied").await == 3
    })
    .await;
    end(second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_cannot_be_used_since_the_pods_are_refused_is_left_to_the_next_server() {
    static CLUSTER: Shared<Cluster> = Shared::new();
    let fleet = Fleet::start(&CLUSTER, &["a", "b"]).await;
    fleet.node.may_all.store(true, Ordering::Relaxed);
    let space = &fleet.space;
    space.refuse("apps", "deployments", "object.metadata.name != 'a'", "a is frozen").await;
    let tried = PatchParams { dry_run: true, ..PatchParams::default() };
    until("changes of one Deployment are refused", async || {
        let touched = Patch::Merge(json!({"metadata": {"labels": {"tried": "yes"}}}));
        space.api::<Deployment>().patch("a", &tried, &touched).await.is_err()
    })
    .await;
    // So that the other has its turn first.
    space.edit::<McpServer>("b", json!({"spec": {"suspend": true}})).await;
    let second = fleet.upgrade().await;
    let failed = space.condition_of("a", "Programmed", "False", "ApplyFailed").await;
    assert!(failed.message.contains("a is frozen"), "{}", failed.message);
    space.condition_of("b", "Programmed", "Unknown", "Suspended").await;
    assert_eq!(fleet.upgraded().await, 0);

    space.edit::<McpServer>("b", json!({"spec": {"suspend": false}})).await;
    until("the next is upgraded", async || image(&space.get::<Deployment>("b").await.unwrap()).ends_with(":2")).await;
    space.condition_of("a", "Programmed", "False", "ApplyFailed").await;
    space.refuse_no_longer("deployments").await;
    until("both are upgraded", async || fleet.upgraded().await == 2 && fleet.count("Applied").await == 2).await;
    end(second).await;
}
