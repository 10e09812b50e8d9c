//! Tests that the node runs pods bound to it, and reports their correct status.

use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Container, ContainerStatus, Event, Node as ApiNode, Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use testbed::address::Announced;
use testbed::node::{Images, Node, Settings};
use testbed::supervisor::Supervisor;

use crate::{SUPERVISOR, control_plane, namespace, until};

const PORT: u16 = 8080;

/// Namespace and node of one test.
pub(crate) struct Bed {
    client: Client,
    pub(crate) namespace: String,
    pub(crate) supervisor: Supervisor,
    pub(crate) node: Node,
}

impl Bed {
    pub(crate) async fn start() -> Self {
        Self::start_with(Settings::default()).await
    }

    async fn start_with(settings: Settings) -> Self {
        let client = control_plane().client().unwrap();
        let namespace = namespace().await;
        let supervisor = Supervisor::start_program(Path::new(SUPERVISOR)).unwrap();
        let images = Images::default()
            .with("example.test/pod:1", env!("CARGO_BIN_EXE_testbed-pod"))
            .with("example.test/shell:1", "/bin/sh");
        let node = Node::start_with(control_plane(), &supervisor, &namespace, images, settings).await.unwrap();
        Self { client, namespace, supervisor, node }
    }

    pub(crate) async fn stop(self) {
        self.node.stop().await.unwrap();
        self.supervisor.stop().await;
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(crate) async fn create<K>(&self, object: Value) -> K
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
        K: DeserializeOwned + serde::Serialize + Clone + std::fmt::Debug,
    {
        let object: K = serde_json::from_value(object).unwrap();
        self.api().create(&PostParams::default(), &object).await.unwrap()
    }

    /// Creates a pod on this test's node.
    pub(crate) async fn create_pod(&self, name: &str, mut spec: Value) {
        spec["nodeSelector"] = json!({ "kubernetes.io/hostname": self.namespace });
        until("the default service account", async || self.try_create_pod(name, &spec).await).await;
    }

    async fn try_create_pod(&self, name: &str, spec: &Value) -> bool {
        let pod: Pod = serde_json::from_value(json!({ "metadata": { "name": name }, "spec": spec })).unwrap();
        match self.api().create(&PostParams::default(), &pod).await {
            Ok(_) => true,
            Err(error) if error.to_string().contains("serviceaccount \"default\" not found") => false,
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) async fn pod(&self, name: &str) -> Pod {
        self.api().get(name).await.unwrap()
    }

    async fn config_map(&self, content: &str) {
        let config_map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "config" }, "data": { "content": content },
        });
        let parameters = PatchParams::apply("test").force();
        self.api::<ConfigMap>().patch("config", &parameters, &Patch::Apply(config_map)).await.unwrap();
    }

    async fn touch(&self, pod: &str) {
        let now = jiff::Timestamp::now().to_string();
        let patch = json!({ "metadata": { "annotations": { "touched": now } } });
        self.api::<Pod>().patch(pod, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// Waits until the pod has an event with this reason and message.
    pub(crate) async fn until_event(&self, pod: &str, reason: &str, says: &str) {
        let wanted = ListParams::default().fields(&format!("involvedObject.name={pod},reason={reason}"));
        until(&format!("pod {pod} has an event {reason} with {says:?}"), async || {
            let events = self.api::<Event>().list(&wanted).await.unwrap();
            events.iter().filter_map(|event| event.message.as_ref()).any(|message| message.contains(says))
        })
        .await;
    }

    pub(crate) async fn until_pod(&self, name: &str, what: &str, holds: impl Fn(&Pod) -> bool) -> Pod {
        until(&format!("pod {name} {what}"), async || holds(&self.pod(name).await)).await;
        self.pod(name).await
    }

    pub(crate) async fn until_gone(&self, pod: &str) {
        until(&format!("pod {pod} is gone"), async || self.api::<Pod>().get_opt(pod).await.unwrap().is_none()).await;
    }

    pub(crate) async fn until_ready(&self, pod: &str) -> Pod {
        self.until_pod(pod, "is ready", |pod| condition(pod, "Ready") == "True").await
    }
}

pub(crate) fn condition(pod: &Pod, kind: &str) -> String {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.filter(|known| known.type_ == kind).map(|known| known.status.clone()).collect()
}

pub(crate) fn container(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first()
}

fn waits_for(pod: &Pod, reason: &str) -> bool {
    let state = container(pod).and_then(|container| container.state.as_ref());
    let waiting = state.and_then(|state| state.waiting.as_ref());
    waiting.is_some_and(|waiting| waiting.reason.as_deref() == Some(reason))
}

pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// Returns the answer of the pod's program at `path`, or the error if it cannot be reached.
async fn ask(pod: &Pod, path: &str) -> reqwest::Result<String> {
    let announced = pod.status.as_ref().unwrap().pod_ip.as_ref().unwrap();
    let address = announced.parse::<Announced>().unwrap().dialable(PORT);
    reqwest::get(format!("http://{address}{path}")).await?.text().await
}

/// Returns a container that serves, and is ready while the ConfigMap `config` has `ready`.
fn server() -> Value {
    let probe = json!({ "httpGet": { "path": "/ready", "port": "http" }, "periodSeconds": 1, "failureThreshold": 1 });
    json!({
        "name": "server",
        "image": "example.test/pod:1",
        "args": [format!("--listen=0.0.0.0:{PORT}"), "--file=/etc/server/content"],
        "ports": [{ "name": "http", "containerPort": PORT }],
        "env": [{ "name": "ADDRESS", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } }],
        "volumeMounts": [{ "name": "config", "mountPath": "/etc/server" }],
        "readinessProbe": probe,
    })
}

fn server_pod() -> Value {
    json!({
        "containers": [server()],
        "volumes": [{ "name": "config", "configMap": { "name": "config" } }],
        "terminationGracePeriodSeconds": 5,
    })
}

pub(crate) fn shell(script: &str) -> Value {
    json!({ "name": "shell", "image": "example.test/shell:1", "args": ["-c", script] })
}

#[tokio::test]
async fn a_deployment_becomes_available_is_reached_and_scales_down() {
    let bed = Bed::start().await;
    bed.config_map("ready").await;
    let mut spec = server_pod();
    spec["nodeSelector"] = json!({ "kubernetes.io/hostname": bed.namespace });
    let deployment = json!({
        "metadata": { "name": "web" },
        "spec": {
            "replicas": 2,
            "selector": { "matchLabels": { "app": "web" } },
            "template": { "metadata": { "labels": { "app": "web" } }, "spec": spec },
        },
    });
    bed.create::<Deployment>(deployment).await;
    let available = async || {
        let status = bed.api::<Deployment>().get("web").await.unwrap().status.unwrap_or_default();
        status.available_replicas
    };
    until("two replicas are available", async || available().await == Some(2)).await;

    let pods = bed.api::<Pod>().list(&ListParams::default()).await.unwrap().items;
    for pod in &pods {
        let address = ask(pod, "/environment/ADDRESS").await.unwrap();
        let announced: Announced = pod.status.as_ref().unwrap().pod_ip.as_ref().unwrap().parse().unwrap();
        assert_eq!(address, announced.listening().to_string());
        assert_eq!(ask(pod, "/environment/HOSTNAME").await.unwrap(), pod.name_any());
        assert_eq!(ask(pod, "/environment/CARGO_MANIFEST_DIR").await.unwrap(), "", "no variable of our environment");
    }

    let one = Patch::Merge(json!({ "spec": { "replicas": 1 } }));
    bed.api::<Deployment>().patch("web", &PatchParams::default(), &one).await.unwrap();
    until("one pod is left", async || bed.api::<Pod>().list(&ListParams::default()).await.unwrap().items.len() == 1)
        .await;
    let mut serving = 0;
    for pod in &pods {
        serving += i32::from(ask(pod, "/content").await.is_ok());
    }
    assert_eq!(serving, 1, "the other's process has ended");
    bed.stop().await;
}

#[tokio::test]
async fn an_endpoint_is_ready_while_the_readiness_probe_passes() {
    let bed = Bed::start().await;
    bed.config_map("not yet").await;
    bed.create_pod("web", server_pod()).await;
    let label = Patch::Merge(json!({ "metadata": { "labels": { "app": "web" } } }));
    bed.api::<Pod>().patch("web", &PatchParams::default(), &label).await.unwrap();
    let service = json!({
        "metadata": { "name": "web" },
        "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": "http" }] },
    });
    bed.create::<Service>(service).await;
    let endpoint_is = async |ready: bool| {
        until(&format!("the endpoint's readiness is {ready}"), async || {
            let slices = bed.api::<EndpointSlice>().list(&ListParams::default()).await.unwrap();
            let endpoints: Vec<_> = slices.iter().flat_map(|slice| &slice.endpoints).collect();
            let [endpoint] = endpoints.as_slice() else { return false };
            endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) == Some(ready)
        })
        .await;
    };
    endpoint_is(false).await;
    bed.until_event("web", "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503").await;
    for (content, ready) in [("ready", true), ("no more", false)] {
        bed.config_map(content).await;
        bed.touch("web").await;
        endpoint_is(ready).await;
    }
    let pod = bed.pod("web").await;
    assert_eq!(container(&pod).unwrap().restart_count, 0, "an unready container is left alone");
    assert_eq!(condition(&pod, "ContainersReady"), "False");
    bed.stop().await;
}

#[tokio::test]
async fn a_container_that_fails_its_liveness_probe_is_restarted() {
    let bed = Bed::start().await;
    bed.config_map("ready").await;
    let mut spec = server_pod();
    let probe = spec["containers"][0]["readinessProbe"].clone();
    spec["containers"][0]["livenessProbe"] = probe.clone();
    // Without it, such an impatient liveness probe would end the program before it listens.
    spec["containers"][0]["startupProbe"] = probe;
    spec["containers"][0]["startupProbe"]["failureThreshold"] = json!(60);
    bed.create_pod("web", spec).await;
    bed.until_ready("web").await;
    bed.config_map("broken").await;
    bed.touch("web").await;
    let pod = bed.until_pod("web", "is restarted", |pod| container(pod).unwrap().restart_count > 0).await;
    assert!(container(&pod).unwrap().last_state.as_ref().unwrap().terminated.is_some());
    bed.until_event("web", "Killing", "Container server failed liveness probe, will be restarted").await;
    bed.stop().await;
}

#[tokio::test]
async fn a_crash_looping_container_backs_off_and_its_termination_message_is_reported() {
    let bed = Bed::start().await;
    let mut shell = shell("echo no such account; exit 3");
    shell["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
    bed.create_pod("loop", json!({ "containers": [shell] })).await;
    let pod = bed.until_pod("loop", "is in back-off", |pod| waits_for(pod, "CrashLoopBackOff")).await;
    let container = container(&pod).unwrap();
    assert_eq!(container.restart_count, 1, "the first restart comes at once");
    let waiting = container.state.as_ref().unwrap().waiting.as_ref().unwrap();
    assert!(waiting.message.as_ref().unwrap().starts_with("back-off 10s restarting failed container=shell pod=loop_"));
    let last = container.last_state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (3, Some("Error")));
    assert_eq!(last.message.as_deref(), Some("no such account"));
    assert_eq!(phase(&pod), "Running");
    bed.until_event("loop", "BackOff", "Back-off restarting failed container shell in pod loop_").await;
    assert_eq!(bed.node.logs(&bed.namespace, "loop").unwrap(), "no such account\nno such account\n");
    bed.stop().await;
}

#[tokio::test]
async fn a_projected_token_names_the_pod_and_only_its_own_audience() {
    let bed = Bed::start().await;
    let mut shell = shell("cat /var/run/secrets/entra/token; sleep 100");
    shell["volumeMounts"] = json!([{ "name": "entra", "mountPath": "/var/run/secrets/entra" }]);
    let token = json!({ "path": "token", "audience": "api://AzureADTokenExchange", "expirationSeconds": 600 });
    let sources = json!([{ "serviceAccountToken": token }]);
    let volumes = json!([{ "name": "entra", "projected": { "sources": sources } }]);
    bed.create_pod("web", json!({ "containers": [shell], "volumes": volumes })).await;
    let pod = bed.until_ready("web").await;
    let mut claims = Value::Null;
    until("the token is printed", async || {
        let log = bed.node.logs(&bed.namespace, "web").unwrap();
        let payload = log.split('.').nth(1).and_then(|payload| URL_SAFE_NO_PAD.decode(payload).ok());
        claims = payload.and_then(|payload| serde_json::from_slice(&payload).ok()).unwrap_or_default();
        claims.is_object()
    })
    .await;
    assert_eq!(claims["aud"], json!(["api://AzureADTokenExchange"]));
    assert_eq!(claims["sub"], format!("system:serviceaccount:{}:default", bed.namespace));
    assert_eq!(claims["kubernetes.io"]["pod"]["uid"], json!(pod.uid()));
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 600);
    bed.stop().await;
}

#[tokio::test]
async fn a_changed_config_map_reaches_a_pod_late_and_at_once_when_the_pod_changes() {
    let an_hour = Duration::from_secs(3600);
    let bed = Bed::start_with(Settings { volume_refresh: an_hour..2 * an_hour }).await;
    bed.config_map("ready").await;
    bed.create_pod("early", server_pod()).await;
    let early = bed.until_ready("early").await;

    bed.config_map(" ready ").await;
    bed.create_pod("late", server_pod()).await;
    let late = bed.until_ready("late").await;
    assert_eq!(ask(&late, "/content").await.unwrap(), " ready ");
    assert_eq!(ask(&early, "/content").await.unwrap(), "ready", "the mounted content stays");

    bed.touch("early").await;
    until("the change has arrived", async || ask(&early, "/content").await.unwrap() == " ready ").await;
    bed.stop().await;
}

#[tokio::test]
async fn a_changed_config_map_reaches_an_unchanged_pod() {
    let volume_refresh = Duration::from_millis(200)..Duration::from_millis(400);
    let bed = Bed::start_with(Settings { volume_refresh }).await;
    bed.config_map("ready").await;
    bed.create_pod("web", server_pod()).await;
    let pod = bed.until_ready("web").await;
    bed.config_map("ready, and more").await;
    until("the change has arrived", async || ask(&pod, "/content").await.unwrap() == "ready, and more").await;
    bed.stop().await;
}

#[tokio::test]
async fn a_deleted_pod_may_finish_its_work_and_one_that_does_not_end_is_killed() {
    let bed = Bed::start().await;
    let pods = bed.api::<Pod>();
    let polite = shell("trap 'sleep 0.5; echo done; exit 0' TERM; echo up; while :; do sleep 0.05; done");
    let deaf = shell("trap '' TERM; echo up; while :; do sleep 0.05; done");
    bed.create_pod("polite", json!({ "containers": [polite], "terminationGracePeriodSeconds": 50 })).await;
    bed.create_pod("deaf", json!({ "containers": [deaf], "terminationGracePeriodSeconds": 1 })).await;
    for name in ["polite", "deaf"] {
        bed.until_ready(name).await;
        until("the trap is set", async || bed.node.logs(&bed.namespace, name).unwrap() == "up\n").await;
        pods.delete(name, &DeleteParams::default()).await.unwrap();
    }
    bed.until_gone("polite").await;
    bed.until_gone("deaf").await;
    let log = bed.node.logs(&bed.namespace, "polite").unwrap();
    assert!(log.ends_with("done\n"), "{log}");
    bed.stop().await;
}

#[tokio::test]
async fn an_unknown_image_is_not_pulled_and_its_neighbour_runs() {
    let bed = Bed::start().await;
    let unknown = json!({ "name": "unknown", "image": "example.test/unknown:1" });
    bed.create_pod("mixed", json!({ "containers": [unknown, shell("sleep 100")] })).await;
    let pod = bed.until_pod("mixed", "waits for its image", |pod| waits_for(pod, "ImagePullBackOff")).await;
    bed.until_event("mixed", "Failed", "Failed to pull image \"example.test/unknown:1\"").await;
    assert_eq!(phase(&pod), "Pending");
    bed.until_pod("mixed", "runs its other container", |pod| {
        pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[1].ready
    })
    .await;
    bed.stop().await;
}

#[tokio::test]
async fn a_pod_waits_for_a_missing_config_map_and_starts_once_it_exists() {
    let bed = Bed::start().await;
    bed.create_pod("web", server_pod()).await;
    bed.until_event(
        "web",
        "FailedMount",
        "MountVolume.SetUp failed for volume \"config\": configmap \"config\" not found",
    )
    .await;
    let pod = bed.until_pod("web", "waits", |pod| waits_for(pod, "ContainerCreating")).await;
    assert_eq!(condition(&pod, "PodReadyToStartContainers"), "False");
    bed.config_map("ready").await;
    bed.until_ready("web").await;
    bed.stop().await;
}

#[tokio::test]
async fn a_container_waits_for_a_secret_that_its_environment_needs() {
    let bed = Bed::start().await;
    let mut shell = shell("echo the word is $WORD; sleep 100");
    let secret = json!({ "secretKeyRef": { "name": "secret", "key": "word" } });
    shell["env"] = json!([{ "name": "WORD", "valueFrom": secret }]);
    bed.create_pod("web", json!({ "containers": [shell] })).await;
    bed.until_pod("web", "waits", |pod| waits_for(pod, "CreateContainerConfigError")).await;
    bed.until_event("web", "Failed", "Error: secret \"secret\" not found").await;
    bed.create::<Secret>(json!({ "metadata": { "name": "secret" }, "stringData": { "word": "hush" } })).await;
    bed.until_ready("web").await;
    until("the word is printed", async || bed.node.logs(&bed.namespace, "web").unwrap() == "the word is hush\n").await;
    bed.stop().await;
}

#[tokio::test]
async fn pods_that_are_not_restarted_end_as_succeeded_or_failed_after_their_init_containers() {
    let bed = Bed::start().await;
    let with_work = |script: &str| -> Container {
        let mut shell = shell(script);
        shell["volumeMounts"] = json!([{ "name": "work", "mountPath": "/scratch" }]);
        serde_json::from_value(shell).unwrap()
    };
    let spec = |init: &str, main: &str| {
        let mut init = with_work(init);
        init.name = "init".to_owned();
        json!({
            "restartPolicy": "Never",
            "initContainers": [init],
            "containers": [with_work(main)],
            "volumes": [{ "name": "work", "emptyDir": {} }],
        })
    };
    bed.create_pod("good", spec("echo prepared > /scratch/file", "cat /scratch/file")).await;
    bed.create_pod("bad", spec("true", "exit 4")).await;
    bed.create_pod("unprepared", spec("exit 1", "echo never")).await;
    bed.until_pod("good", "succeeds", |pod| phase(pod) == "Succeeded").await;
    assert_eq!(bed.node.logs(&bed.namespace, "good").unwrap(), "prepared\n");
    let bad = bed.until_pod("bad", "fails", |pod| phase(pod) == "Failed").await;
    let end = container(&bad).unwrap().state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!(end.exit_code, 4);
    let unprepared = bed.until_pod("unprepared", "fails", |pod| phase(pod) == "Failed").await;
    assert_eq!(condition(&unprepared, "Initialized"), "False");
    assert_eq!(bed.node.logs(&bed.namespace, "unprepared").unwrap(), "");
    bed.api::<Pod>().delete("good", &DeleteParams::default()).await.unwrap();
    bed.until_gone("good").await;
    bed.stop().await;
}

#[tokio::test]
async fn a_stopped_node_leaves_no_process_and_no_node() {
    let bed = Bed::start().await;
    bed.config_map("ready").await;
    bed.create_pod("web", server_pod()).await;
    let pod = bed.until_ready("web").await;
    assert!(ask(&pod, "/content").await.is_ok());
    bed.node.stop().await.unwrap();
    assert!(ask(&pod, "/content").await.is_err());
    let nodes: Api<ApiNode> = Api::all(bed.client);
    assert!(nodes.get_opt(&bed.namespace).await.unwrap().is_none());
    bed.supervisor.stop().await;
}

#[tokio::test]
async fn the_node_renews_its_lease() {
    let bed = Bed::start().await;
    let leases = Api::<Lease>::namespaced(bed.client.clone(), "kube-node-lease");
    let renewed = async || leases.get_opt(&bed.namespace).await.unwrap().and_then(|lease| lease.spec?.renew_time);
    until("the node has a lease", async || renewed().await.is_some()).await;
    let first = renewed().await;
    until("the lease is renewed", async || renewed().await > first).await;
    bed.stop().await;
}

#[tokio::test]
async fn kubectl_reads_the_logs_of_a_container() {
    let bed = Bed::start().await;
    bed.create_pod("loop", json!({ "containers": [shell("echo one; echo two; exit 1")] })).await;
    bed.until_pod("loop", "is in back-off", |pod| waits_for(pod, "CrashLoopBackOff")).await;
    let kubectl = async |arguments: &[&str]| {
        let plane = control_plane();
        let mut command = tokio::process::Command::new(plane.kubectl());
        command.arg("--kubeconfig").arg(plane.kubeconfig()).args(["--namespace", &bed.namespace]).args(arguments);
        let output = command.output().await.unwrap();
        String::from_utf8(if output.status.success() { output.stdout } else { output.stderr }).unwrap()
    };
    assert_eq!(kubectl(&["logs", "loop"]).await, "one\ntwo\n");
    assert_eq!(kubectl(&["logs", "loop", "--previous", "--tail=1"]).await, "two\n");
    assert!(kubectl(&["logs", "loop", "--container=other"]).await.contains("container other is not valid"));
    bed.stop().await;
}
