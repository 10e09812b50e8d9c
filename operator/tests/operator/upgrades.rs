//! Tests of images: another allowed image is run, and the image of a new operator reaches servers in turns.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, ResourceQuota},
};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use mcp_entra_crds::McpServer;
use mcp_entra_operator::Options;
use serde_json::{Value, json};
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
    let writes = space.writes(mark).await.into_iter().filter(|write| write.resource == "deployments").count();
    assert_eq!(writes, 1);

    space.edit::<McpServer>("graph", json!({"spec": {"image": "registry.example/other:2"}})).await;
    space.condition("Accepted", "False", "ImageNotAllowed").await;
    assert_eq!(image(&space.get::<Deployment>("graph").await.unwrap()), "registry.example/allowed:2");
}

#[tokio::test]
async fn suspended_servers_are_unchanged_except_for_their_policy() {
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

/// Reason why a pod does not start.
#[derive(Clone, Copy)]
enum Hold {
    /// Is on a node, and is not ready there.
    NotReady,
    /// Waits for a node.
    Unplaced,
}

/// Node that gets no pods from the scheduler: those of this test are bound to it.
const NODE: &str = "held";

/// Decides whether a server's pods start with the image `:2`, by its position among those with the image, and by its
/// name.
type Holds = Box<dyn Fn(usize, &str) -> Option<Hold> + Send>;

/// Double of the nodes: pods become Ready at once, except those of the image `:2` that are held.
struct Nodes {
    upgraded: Mutex<Vec<String>>,
    holds: Mutex<Holds>,
}

impl Nodes {
    fn hold(&self, holds: impl Fn(usize, &str) -> Option<Hold> + Send + 'static) {
        *self.holds.lock().unwrap() = Box::new(holds);
    }

    fn release(&self) {
        self.hold(|_, _| None);
    }

    fn held(&self, pod: &Pod) -> Option<Hold> {
        let server = pod.labels()["app.kubernetes.io/instance"].clone();
        if !pod.spec.as_ref().unwrap().containers[0].image.as_ref().unwrap().ends_with(":2") {
            return None;
        }
        let mut upgraded = self.upgraded.lock().unwrap();
        let place = upgraded.iter().position(|known| *known == server).unwrap_or_else(|| {
            upgraded.push(server.clone());
            upgraded.len() - 1
        });
        (self.holds.lock().unwrap())(place, &server)
    }

    async fn run(self: Arc<Self>, pods: Api<Pod>) {
        loop {
            for pod in pods.list(&Default::default()).await.unwrap() {
                let status = pod.status.clone().unwrap_or_default();
                if status.phase.as_deref() == Some("Running") {
                    continue;
                }
                // Any pod may have been deleted meanwhile.
                match self.held(&pod) {
                    Some(Hold::Unplaced) => {}
                    Some(Hold::NotReady) => place(&pods, &pod).await,
                    None => {
                        let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
                        let parameters = PatchParams::default();
                        pods.patch_status(&pod.name_any(), &parameters, &Patch::Merge(ready)).await.ok();
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Binds a pod to the node, as the scheduler does.
async fn place(pods: &Api<Pod>, pod: &Pod) {
    if pod.spec.as_ref().unwrap().node_name.is_none() {
        let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod.name_any()},
                             "target": {"apiVersion": "v1", "kind": "Node", "name": NODE}});
        pods.create_subresource::<Value, Value>("binding", &pod.name_any(), &PostParams::default(), &binding)
            .await
            .ok();
    }
}

/// Cluster of one test, on which an older operator has started servers in some namespaces. The names of servers are
/// unique.
struct Fleet {
    spaces: Vec<Space>,
    nodes: Arc<Nodes>,
}

impl Fleet {
    async fn start(cluster: &'static Shared<Cluster>, names: &[&[&str]]) -> Self {
        let cluster = tokio::task::spawn_blocking(|| cluster.get_or_start(Cluster::start).unwrap()).await.unwrap();
        let nodes = Arc::new(Nodes { upgraded: Mutex::default(), holds: Mutex::new(Box::new(|_, _| None)) });
        let node =
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}, "spec": {"unschedulable": true}});
        crate::harness::apply(&cluster.plane.client().unwrap(), &node).await.unwrap();
        let first = cluster.operator().await.unwrap();
        let mut spaces = Vec::new();
        for names in names {
            let space = Space::on(cluster).await;
            tokio::spawn(nodes.clone().run(space.api()));
            for name in *names {
                let mut server = mk_server();
                server["metadata"]["name"] = json!(name);
                space.apply(server).await;
            }
            spaces.push(space);
        }
        let fleet = Self { spaces, nodes };
        let ready = |found: &&Deployment| found.status.as_ref().and_then(|status| status.available_replicas) == Some(1);
        let all = names.iter().map(|names| names.len()).sum::<usize>();
        until("all have come up", async || {
            let ready = fleet.deployments().await.iter().filter(ready).count();
            ready == all && fleet.count("Applied").await == all
        })
        .await;
        end(first).await;
        fleet
    }

    /// Starts an operator of a newer version, which upgrades one server at a time.
    async fn upgrade(&self) -> Operator {
        self.upgrade_within(4).await
    }

    /// Starts the newer operator, with this number of seconds for each server's pods to make progress.
    async fn upgrade_within(&self, seconds: u32) -> Operator {
        let newer = |options: &mut Options| {
            options.server_image = "registry.example/mcp-entra-server:2".into();
            options.at_once = 1;
            options.roll_out_deadline_seconds = seconds;
        };
        self.spaces[0].cluster.operator_with(newer).await.unwrap()
    }

    /// Returns the namespace of a server.
    async fn space(&self, server: &str) -> &Space {
        for space in &self.spaces {
            if space.get::<McpServer>(server).await.is_some() {
                return space;
            }
        }
        panic!("server {server} does not exist");
    }

    /// Makes a server wait, so that another has its turn first, or ends the wait.
    async fn suspend(&self, server: &str, suspend: bool) {
        self.space(server).await.edit::<McpServer>(server, json!({"spec": {"suspend": suspend}})).await;
    }

    /// Pauses a server's Deployment with `kubectl rollout pause`, or resumes it.
    async fn pause(&self, server: &str, paused: bool) {
        self.space(server).await.edit::<Deployment>(server, json!({"spec": {"paused": paused}})).await;
    }

    /// Waits until Programmed of a server is True with this reason, and returns its message.
    async fn programmed(&self, server: &str, reason: &str) -> String {
        self.space(server).await.condition_of(server, "Programmed", "True", reason).await.message
    }

    async fn deployments(&self) -> Vec<Deployment> {
        let mut all = Vec::new();
        for space in &self.spaces {
            all.extend(space.api::<Deployment>().list(&Default::default()).await.unwrap());
        }
        all
    }

    /// Returns the number of servers whose Programmed has this reason.
    async fn count(&self, reason: &str) -> usize {
        let mut all = Vec::new();
        for space in &self.spaces {
            all.extend(space.api::<McpServer>().list(&Default::default()).await.unwrap());
        }
        let programmed = |server: &McpServer| {
            find(&server.status.clone().unwrap_or_default().conditions, "Programmed").map(|found| found.reason)
        };
        all.iter().filter(|server| programmed(server).as_deref() == Some(reason)).count()
    }

    async fn upgraded(&self) -> usize {
        self.deployments().await.iter().filter(|found| image(found).ends_with(":2")).count()
    }

    /// Waits until a server runs the newer version.
    async fn is_upgraded(&self, server: &str) {
        let space = self.space(server).await;
        until(&format!("{server} is upgraded"), async || {
            let deployment = space.get::<Deployment>(server).await.unwrap();
            let status = deployment.status.clone().unwrap_or_default();
            image(&deployment).ends_with(":2")
                && status.observed_generation == deployment.metadata.generation
                && (status.updated_replicas, status.available_replicas, status.replicas) == (Some(1), Some(1), Some(1))
        })
        .await;
        self.programmed(server, "Applied").await;
    }
}

async fn end(operator: Operator) {
    operator.shutdown.cancel();
    operator.ended.await.unwrap().unwrap();
}

/// Holds the pods of the second server that gets the image `:2`.
fn second_fails(place: usize, _: &str) -> Option<Hold> {
    (place == 1).then_some(Hold::NotReady)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_operators_image_reaches_servers_in_turns_and_halts_at_one_that_fails() {
    static CLUSTER: Shared<Cluster> = Shared::new();
    let fleet = Fleet::start(&CLUSTER, &[&["a", "b", "c"]]).await;
    fleet.nodes.hold(second_fails);
    let second = fleet.upgrade().await;
    until("one is held back since another failed", async || fleet.count("UpgradeHalted").await == 1).await;
    assert_eq!(fleet.upgraded().await, 2);
    fleet.nodes.release();
    until("all are upgraded once it came up", async || {
        fleet.upgraded().await == 3 && fleet.count("Applied").await == 3
    })
    .await;
    end(second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_of_a_version_with_another_hash_of_the_request_are_upgraded_in_turns_too() {
    static CLUSTER: Shared<Cluster> = Shared::new();
    const REQUESTED: &str = "mcp-entra.dev/requested-hash";
    let fleet = Fleet::start(&CLUSTER, &[&["a", "b", "c"]]).await;
    let space = &fleet.spaces[0];
    for name in ["a", "b", "c"] {
        let noted = json!({"metadata": {"annotations": {REQUESTED: "0123456789abcdef"}}});
        space.edit::<Deployment>(name, noted).await;
    }
    fleet.nodes.hold(second_fails);
    let second = fleet.upgrade().await;
    until("one is held back since another failed", async || fleet.count("UpgradeHalted").await == 1).await;
    assert_eq!(fleet.upgraded().await, 2);

    let deployments = fleet.deployments().await;
    let held = deployments.iter().find(|found| !image(found).ends_with(":2")).unwrap();
    assert!(held.annotations()[REQUESTED].starts_with("v1-"), "{:?}", held.annotations());
    assert_eq!(held.annotations()["deployment.kubernetes.io/revision"], "1", "no pod was restarted");
    // From then on its author's changes do not wait for a turn.
    let name = held.name_any();
    let change = json!({"spec": {"podTemplate": {"env": [{"name": "TZ", "value": "UTC"}]}}});
    space.edit::<McpServer>(&name, change).await;
    fleet.is_upgraded(&name).await;
    assert_eq!(fleet.count("UpgradeFailed").await, 1);
    end(second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_halts_its_own_namespace_and_failures_in_two_halt_the_fleet() {
    static CLUSTER: Shared<Cluster> = Shared::new();
    let fleet = Fleet::start(&CLUSTER, &[&["bad-x", "well-x"], &["bad-y", "well-y"], &["well-z"]]).await;
    fleet.nodes.hold(|_, server| server.starts_with("bad").then_some(Hold::NotReady));
    for server in ["well-x", "bad-y", "well-y", "well-z"] {
        fleet.suspend(server, true).await;
    }
    let second = fleet.upgrade().await;
    let failed = fleet.programmed("bad-x", "UpgradeFailed").await;
    assert!(failed.contains("no other server of this namespace is upgraded"), "{failed}");

    fleet.suspend("well-x", false).await;
    let halted = fleet.programmed("well-x", "UpgradeHalted").await;
    assert!(halted.contains("upgraded pods of McpServer bad-x in this namespace"), "{halted}");
    fleet.suspend("well-y", false).await;
    fleet.is_upgraded("well-y").await;

    fleet.suspend("bad-y", false).await;
    fleet.programmed("bad-y", "UpgradeFailed").await;
    fleet.suspend("well-z", false).await;
    let halted = fleet.programmed("well-z", "UpgradeHalted").await;
    assert!(
        halted.contains("in several namespaces do not become ready; ask the administrator of mcp-entra-operator"),
        "{halted}"
    );
    // The message must not show the names of other teams.
    for (space, name) in [(&fleet.spaces[0], "bad-x"), (&fleet.spaces[1], "bad-y")] {
        assert!(!halted.contains(&space.name) && !halted.contains(name), "{halted}");
    }

    fleet.nodes.release();
    for server in ["bad-x", "well-x", "bad-y", "well-z"] {
        fleet.is_upgraded(server).await;
    }
    end(second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_an_unschedulable_new_pod_returns_its_turn_halts_no_other_and_reports_what_is_missing() {
    static CLUSTER: Shared<Cluster> = Shared::new();
    let fleet = Fleet::start(&CLUSTER, &[&["full"], &["unplaced", "sibling"]]).await;
    fleet.nodes.hold(|_, server| (server == "unplaced").then_some(Hold::Unplaced));
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "exact"},
                       "spec": {"hard": {"pods": "1"}}});
    fleet.spaces[0].apply(quota).await;
    until("the quota counts", async || {
        let quota = fleet.spaces[0].get::<ResourceQuota>("exact").await.unwrap();
        quota.status.and_then(|status| status.used).is_some_and(|used| used["pods"].0 == "1")
    })
    .await;
    fleet.suspend("sibling", true).await;
    let second = fleet.upgrade().await;
    // One after another, in any order.
    for (server, missing) in [("full", "exceeded quota"), ("unplaced", "add capacity")] {
        let told = fleet.programmed(server, "UpgradeNoRoom").await;
        assert!(told.contains("see the condition Available for the missing resource"), "{told}");
        let space = fleet.space(server).await;
        let available = space.condition_of(server, "Available", "False", "Progressing").await;
        assert!(available.message.contains(missing), "{}", available.message);
    }
    // Two such namespaces do not stop the others, not even their neighbour.
    fleet.suspend("sibling", false).await;
    fleet.is_upgraded("sibling").await;

    fleet.spaces[0].delete::<ResourceQuota>("exact").await;
    fleet.nodes.release();
    for server in ["full", "unplaced"] {
        fleet.is_upgraded(server).await;
    }
    end(second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_deployment_has_no_turn_stays_paused_and_is_reported_with_the_command_to_resume() {
    static CLUSTER: Shared<Cluster> = Shared::new();
    let fleet = Fleet::start(&CLUSTER, &[&["before", "amid", "well"]]).await;
    let space = &fleet.spaces[0];
    fleet.nodes.hold(|_, server| (server == "amid").then_some(Hold::NotReady));
    fleet.pause("before", true).await;
    fleet.suspend("well", true).await;
    let second = fleet.upgrade_within(300).await;
    let resume = |server: &str| format!("kubectl -n {} rollout resume deployment/{server}", space.name);

    // One was paused before its turn, the other while it has the only turn.
    let told = fleet.programmed("before", "RollOutPaused").await;
    assert!(told.ends_with(&resume("before")), "{told}");
    until("the other has its turn", async || fleet.upgraded().await == 1).await;
    fleet.pause("amid", true).await;
    let told = fleet.programmed("amid", "RollOutPaused").await;
    assert!(told.ends_with(&resume("amid")), "{told}");
    let available = space.condition_of("amid", "Available", "False", "RollOutPaused").await;
    assert!(available.message.ends_with(&resume("amid")), "{}", available.message);

    fleet.suspend("well", false).await;
    fleet.is_upgraded("well").await;
    for server in ["before", "amid"] {
        let paused = space.get::<Deployment>(server).await.unwrap().spec.unwrap().paused;
        assert_eq!(paused, Some(true), "{server}");
    }
    fleet.nodes.release();
    for server in ["before", "amid"] {
        fleet.pause(server, false).await;
        fleet.is_upgraded(server).await;
    }
    end(second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_pods_are_refused_leaves_its_turn_to_the_next_server() {
    static CLUSTER: Shared<Cluster> = Shared::new();
    let fleet = Fleet::start(&CLUSTER, &[&["a", "b"]]).await;
    let space = &fleet.spaces[0];
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
