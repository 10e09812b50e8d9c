//! Tests of a server with a backend on a real API server: a namespace with restricted Pod Security accepts its pods,
//! nothing of them is drift, and its status follows the pods' reports on the backend.

use std::net::Ipv4Addr;

use k8s_openapi::api::{core::v1::Pod, networking::v1::NetworkPolicy};
use mcp_entra_crds::{McpRoleMapping, McpServer};
use mcp_entra_policy::BackendStatus;
use serde_json::{Value, json};

use testbed::shared::Shared;
use tokio::net::TcpListener;

use crate::harness::{Cluster, Space, find, mk_mapping, mk_server, until};

/// A server with a backend over stdio that uses every field.
pub(crate) fn mk_backend() -> Value {
    let mut server = mk_server();
    let spec = server["spec"].as_object_mut().unwrap();
    spec.retain(|field, _| field == "entra");
    spec.insert("networkPolicy".into(), json!({"allowFrom": [{"podSelector": {}}]}));
    spec.insert("replicas".into(), json!(1));
    spec.insert(
        "backend".into(),
        json!({
            "image": "registry.example/mcp/time:1",
            "transport": "Stdio",
            "command": ["python", "-m", "mcp_server_time"],
            "args": ["--local-timezone", "Europe/Stockholm"],
            "env": [
                {"name": "TZ", "value": "UTC"},
                {"name": "EMPTY", "value": ""},
                {"name": "API_KEY", "valueFrom": {"secretKeyRef": {"name": "graph-backend", "key": "api-key"}}},
            ],
            "resources": {"requests": {"cpu": "0.1"}, "limits": {"memory": "1024Mi"}},
            "runAsUser": 1000,
            "writableDirs": ["/tmp", "/var/lib/data"],
            "identity": {"assertion": {}},
            "egress": [{"cidr": "10.2.0.0/16", "ports": [5432]}],
        }),
    );
    server
}

/// The report of a pod about a working backend without other listeners.
fn mk_status() -> BackendStatus {
    let tools = [("get_current_time", "0"), ("convert_time", "1")];
    BackendStatus {
        works: Some(true),
        name: Some("time".into()),
        version: Some("1.2".into()),
        protocol: Some("2025-11-25".into()),
        tools: tools.map(|(name, digest)| (name.to_owned(), digest.to_owned())).into(),
        listens: Some([].into()),
        ..BackendStatus::default()
    }
}

#[tokio::test]
async fn pods_with_a_backend_are_accepted_by_restricted_pod_security_and_cause_no_drift() {
    let space = Space::new().await;
    space.label("pod-security.kubernetes.io/enforce", Some("restricted")).await;
    space.apply(mk_backend()).await;
    let pod = space.bound_pod().await;
    let containers = space.get::<Pod>(&pod).await.unwrap().spec.unwrap().init_containers.unwrap();
    let names = Vec::from_iter(containers.iter().map(|container| container.name.as_str()));
    assert_eq!(names, ["hold-ports", "install-shim", "backend"]);
    space.condition("Programmed", "True", "Applied").await;
    assert!(space.get::<NetworkPolicy>("graph").await.is_some());
    space.quiet().await;
    let mark = space.mark();
    // A reconcile that reads every child.
    space.edit::<McpServer>("graph", json!({"metadata": {"labels": {"a": "b"}}})).await;
    space.quiet().await;
    let writes = space.writes(mark).await;
    assert_eq!(writes, [], "the stored object matches the built one");
}

#[tokio::test]
async fn the_status_follows_the_pods_reports_on_their_backend() {
    let space = Space::new().await;
    space.apply(mk_backend()).await;
    space.condition("BackendReady", "Unknown", "NoReadyPods").await;
    let mut mapping = mk_mapping("readers", "Mcp.Reader");
    mapping["spec"]["grants"][0]["allow"]["tools"] = json!(["get_current_time", "get_currant_time"]);
    space.apply(mapping).await;
    let name = space.bound_pod().await;
    let pod = space.runs(&name).await;
    pod.enforces(&space.policy().await);
    pod.says(|report| report.backend = Some(BackendStatus::default()));
    space.condition("BackendReady", "Unknown", "ProbePending").await;

    pod.says(|report| report.backend = Some(mk_status()));
    space.condition("BackendReady", "True", "BackendWorks").await;
    space.condition("BackendIsolated", "True", "LoopbackOnly").await;
    until("the policy is enforced", async || {
        pod.enforces(&space.policy().await);
        let status = space.get::<McpServer>("graph").await.unwrap().status.unwrap();
        find(&status.conditions, "Ready").is_some_and(|ready| ready.status == "True")
    })
    .await;
    let status = space.get::<McpServer>("graph").await.unwrap().status.unwrap();
    let backend = status.backend.unwrap();
    assert_eq!((backend.name.as_deref(), backend.tools, status.policy.unwrap().tools), (Some("time"), 2, 1));
    assert_eq!(backend.ungranted, ["convert_time"]);
    until("the misspelt name is reported", async || {
        let status = space.get::<McpRoleMapping>("readers").await.unwrap().status.unwrap_or_default();
        status.unmatched_names == ["get_currant_time"]
    })
    .await;

    // The harness polls pods through a proxy, which cannot try ports.
    pod.says(|report| report.backend.as_mut().unwrap().listens = Some(["0.0.0.0:3001".into()].into()));
    space.condition("BackendIsolated", "Unknown", "IsolationUnknown").await;
    space.condition("Ready", "True", "Ready").await;

    pod.says(|report| {
        let backend = report.backend.as_mut().unwrap();
        (backend.works, backend.message) = (Some(false), Some("it ended with code 1".into()));
    });
    let failed = space.condition("BackendReady", "False", "BackendFailed").await;
    assert!(failed.message.contains("with the message: “it ended with code 1”"), "{}", failed.message);
    space.condition("Ready", "False", "BackendFailed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_backend_the_operator_reaches_is_not_ready_until_the_port_is_closed() {
    // Of its own: the operator of the others polls pods through a proxy.
    static CLUSTER: Shared<Cluster> = Shared::new();
    let cluster = tokio::task::spawn_blocking(|| CLUSTER.get_or_start(Cluster::bare).unwrap()).await.unwrap();
    // A loopback address that no other process listens on, as that of a pod.
    let address = Ipv4Addr::from_bits(0x7f00_0000 | (std::process::id() << 1) & 0x00ff_fffe);
    let admin = TcpListener::bind((address, 8081)).await.unwrap();
    tokio::spawn(axum::serve(admin, cluster.pods.router()).into_future());
    cluster.operator_with(|options| options.pod_proxy_url = None).await.unwrap();
    let space = Space::on(cluster).await;
    space.apply(mk_backend()).await;
    let name = space.bound_pod().await;
    let pod = space.runs_at(&name, address.to_string()).await;
    pod.enforces(&space.policy().await);
    let open = TcpListener::bind((address, 0)).await.unwrap();
    let port = open.local_addr().unwrap().port();
    pod.says(|report| {
        report.backend = Some(BackendStatus { listens: Some([format!("0.0.0.0:{port}")].into()), ..mk_status() });
    });
    let reached = space.condition("BackendIsolated", "False", "BackendReached").await;
    assert!(reached.message.contains(&format!("reached port {port} of pod {name}")), "{}", reached.message);
    space.condition("Ready", "False", "BackendReached").await;

    drop(open);
    space.condition("BackendIsolated", "Unknown", "BackendUnreached").await;
    space.condition("Ready", "True", "Ready").await;
}

#[tokio::test]
async fn a_sidecar_that_does_not_start_is_reported_with_the_wrong_field() {
    let space = Space::new().await;
    space.apply(mk_backend()).await;
    let pod = space.bound_pod().await;
    let waiting = |name: &str, reason: &str| {
        json!({"name": name, "image": "registry.example/mcp/time:1", "imageID": "", "ready": false, "restartCount": 0,
               "state": {"waiting": {"reason": reason, "message": "403"}}, "lastState": {}})
    };
    let status = json!({
        "phase": "Pending",
        "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "False"}],
        "initContainerStatuses": [waiting("backend", "ErrImagePull")],
        "containerStatuses": [waiting("server", "PodInitializing")],
    });
    space.kubelet_says(&pod, status).await;
    let failed = space.condition("Available", "False", "ImagePullFailed").await;
    assert!(failed.message.contains("or set another image in spec.backend.image"), "{}", failed.message);
}

#[tokio::test]
async fn an_image_that_the_operator_does_not_allow_is_refused_with_the_option_that_allows_it() {
    let space = Space::new().await;
    let mut server = mk_backend();
    server["spec"]["backend"]["image"] = json!("docker.io/anybodys/image:1");
    space.apply(server).await;
    let refused = space.condition("Accepted", "False", "ImageNotAllowed").await;
    assert!(refused.message.contains("--allowed-backend-image=docker.io/anybodys/image:1"), "{}", refused.message);
}
