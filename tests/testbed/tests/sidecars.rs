//! Tests of init containers and sidecars: their order, their restarts, and the pod's status.

use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, Secret};
use kube::api::{Api, DeleteParams};
use serde_json::{Value, json};
use testbed::node::Image;
use testbed::programs::program;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use crate::node::{Bed, condition, phase, shell};
use crate::until;

/// Returns a script that runs until SIGTERM, and then runs `then`. It discards standard error, since the shell reports
/// the end of its `sleep` there.
fn until_told(then: &str) -> String {
    format!("exec 2>/dev/null; trap '{then}; exit 0' TERM; while :; do sleep 0.05; done")
}

/// Returns a container with the folder `/scratch`, which all containers of a pod share.
fn sharing(name: &str, script: &str) -> Value {
    let mut shell = shell(script);
    shell["name"] = json!(name);
    shell["volumeMounts"] = json!([{ "name": "work", "mountPath": "/scratch" }]);
    shell
}

fn sidecar(name: &str, script: &str) -> Value {
    let mut sidecar = sharing(name, script);
    sidecar["restartPolicy"] = json!("Always");
    sidecar
}

fn pod_of(inits: &[Value], main: Value) -> Value {
    json!({
        "initContainers": inits, "containers": [main],
        "volumes": [{ "name": "work", "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } }],
    })
}

fn init(pod: &Pod, index: usize) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.init_container_statuses.as_ref()?.get(index)
}

/// Returns the reason and the message with which an init container waits.
fn waits(pod: &Pod, index: usize) -> (String, String) {
    let waiting = init(pod, index).and_then(|status| status.state.as_ref()?.waiting.clone()).unwrap_or_default();
    (waiting.reason.unwrap_or_default(), waiting.message.unwrap_or_default())
}

fn main_waits(pod: &Pod) -> Option<&str> {
    let status = crate::node::container(pod)?;
    status.state.as_ref()?.waiting.as_ref()?.reason.as_deref()
}

#[tokio::test]
async fn init_containers_end_in_turn_and_sidecars_run_around_the_container_and_end_in_reverse() {
    let bed = Bed::start().await;
    let note = |word: &str| format!("echo {word} >> /scratch/order");
    let run = |word: &str, then: &str| format!("{}; {}", note(word), until_told(&format!("{}; {then}", note("end"))));
    let outer = format!("{}; {}", note("outer"), until_told("cat /scratch/order"));
    let inner = format!("{}; {}", note("inner"), until_told(&note("inner-ends")));
    let main = run("main", "true").replace("echo end", "sleep 0.3; echo main-ends");
    let spec = pod_of(
        &[
            sharing("first", &format!("sleep 0.2; {}", note("first"))),
            sidecar("outer", &outer),
            sharing("second", &format!("sleep 0.2; {}", note("second"))),
            sidecar("inner", &inner),
        ],
        sharing("main", &main),
    );
    bed.create_pod("web", spec).await;
    let pod = bed.until_ready("web").await;
    assert_eq!(condition(&pod, "Initialized"), "True");
    for (index, is_sidecar) in [false, true, false, true].into_iter().enumerate() {
        let status = init(&pod, index).unwrap();
        assert!(status.ready, "{status:?}");
        assert_eq!(status.started, Some(is_sidecar), "{status:?}");
        assert_eq!(status.state.as_ref().unwrap().running.is_some(), is_sidecar, "{status:?}");
    }
    bed.api::<Pod>().delete("web", &DeleteParams::default()).await.unwrap();
    bed.until_gone("web").await;
    let log = bed.node.logs(&bed.namespace, "web").unwrap();
    assert_eq!(log, "first\nouter\nsecond\ninner\nmain\nmain-ends\ninner-ends\n");
    bed.stop().await;
}

#[tokio::test]
async fn an_ended_sidecar_is_restarted_while_the_container_continues() {
    let bed = Bed::start().await;
    let once = "[ -e /scratch/again ] && exec sleep 100; touch /scratch/again; until [ -e /scratch/go ]; do sleep 0.05; done; exit 3";
    let spec = pod_of(&[sidecar("sidecar", once)], sharing("main", "touch /scratch/go; sleep 100"));
    bed.create_pod("web", spec).await;
    let restarted = |pod: &Pod| init(pod, 0).is_some_and(|status| status.restart_count == 1 && status.ready);
    let pod = bed.until_pod("web", "has its sidecar again", restarted).await;
    let last = init(&pod, 0).unwrap().last_state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (3, Some("Error")));
    let pod = bed.until_ready("web").await;
    assert_eq!(crate::node::container(&pod).unwrap().restart_count, 0);
    bed.stop().await;
}

#[tokio::test]
async fn a_pod_waits_for_the_image_of_its_sidecar() {
    let bed = Bed::start().await;
    let mut later = sidecar("sidecar", "sleep 100");
    later["image"] = json!("example.test/later:1");
    bed.create_pod("web", pod_of(&[later], sharing("main", "sleep 100"))).await;
    let missing = bed.until_pod("web", "lacks an image", |pod| waits(pod, 0).0 == "ImagePullBackOff").await;
    assert_eq!((phase(&missing), main_waits(&missing)), ("Pending", Some("PodInitializing")));
    assert_eq!(condition(&missing, "Initialized"), "False");
    bed.node.add_image("example.test/later:1", "/bin/sh");
    bed.until_ready("web").await;
    bed.stop().await;
}

#[tokio::test]
async fn a_failed_start_of_a_program_is_reported_and_retried_with_back_off() {
    let bed = Bed::start().await;
    let mut missing = sidecar("sidecar", "");
    missing["command"] = json!(["/no/such/program"]);
    bed.create_pod("web", pod_of(&[missing], sharing("main", "sleep 100"))).await;
    let pod = bed.until_pod("web", "does not start", |pod| waits(pod, 0).0 == "RunContainerError").await;
    assert!(waits(&pod, 0).1.starts_with("failed to create containerd task: "), "{:?}", waits(&pod, 0));
    let pod = bed.until_pod("web", "is in back-off", |pod| waits(pod, 0).0 == "CrashLoopBackOff").await;
    let last = init(&pod, 0).unwrap().last_state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (128, Some("StartError")));
    assert_eq!((phase(&pod), main_waits(&pod)), ("Pending", Some("PodInitializing")));
    bed.stop().await;
}

#[tokio::test]
async fn a_root_image_is_refused_by_run_as_non_root_and_runs_as_another_user() {
    let bed = Bed::start().await;
    bed.node.add_image("example.test/root:1", Image::from("/bin/sh").user("root"));
    bed.node.add_image("example.test/nobody:1", Image::from("/bin/sh").user("0:0"));
    let with = |image: &str, user: Option<i64>| {
        let mut sidecar = sidecar("sidecar", "sleep 100");
        sidecar["image"] = json!(image);
        sidecar["securityContext"] = json!({ "runAsUser": user });
        let mut spec = pod_of(&[sidecar], sharing("main", "sleep 100"));
        spec["securityContext"] = json!({ "runAsNonRoot": true });
        spec
    };
    bed.create_pod("name", with("example.test/root:1", None)).await;
    bed.create_pod("number", with("example.test/nobody:1", None)).await;
    bed.create_pod("other", with("example.test/root:1", Some(1000))).await;
    for (name, why) in [("name", "has non-numeric user (root)"), ("number", "image will run as root")] {
        let refused = |pod: &Pod| waits(pod, 0).0 == "CreateContainerConfigError";
        let pod = bed.until_pod(name, "is refused", refused).await;
        assert!(waits(&pod, 0).1.contains(why), "{:?}", waits(&pod, 0));
    }
    bed.until_ready("other").await;
    bed.stop().await;
}

#[tokio::test]
async fn a_sidecar_waits_for_its_secret_and_is_stopped_once_the_container_has_completed() {
    let bed = Bed::start().await;
    let mut served = sidecar("sidecar", &format!("echo $WORD > /scratch/word; {}", until_told("echo stopped")));
    let secret = json!({ "secretKeyRef": { "name": "web-backend", "key": "word" } });
    served["env"] = json!([{ "name": "WORD", "valueFrom": secret }]);
    let main = "until [ -s /scratch/word ]; do sleep 0.05; done; cat /scratch/word; echo main has $WORD";
    let mut spec = pod_of(&[served], sharing("main", main));
    spec["restartPolicy"] = json!("Never");
    bed.create_pod("web", spec).await;
    bed.until_pod("web", "waits", |pod| waits(pod, 0).0 == "CreateContainerConfigError").await;
    bed.create::<Secret>(json!({ "metadata": { "name": "web-backend" }, "stringData": { "word": "hush" } })).await;
    bed.until_pod("web", "succeeds", |pod| phase(pod) == "Succeeded").await;
    // The event of `main`, whose name is shorter, comes first.
    assert_eq!(bed.node.logs(&bed.namespace, "web").unwrap(), "hush\nmain has\nstopped\n");
    bed.stop().await;
}

#[tokio::test]
async fn a_sidecar_that_ignores_sigterm_is_killed_after_the_rest_of_the_grace_period() {
    let bed = Bed::start().await;
    let deaf = "trap '' TERM; echo deaf > /scratch/deaf; while :; do sleep 0.05; done";
    let main = format!("until [ -e /scratch/deaf ]; do sleep 0.05; done; echo up; {}", until_told("sleep 0.5"));
    let mut spec = pod_of(&[sidecar("deaf", deaf)], sharing("main", &main));
    spec["terminationGracePeriodSeconds"] = json!(1);
    bed.create_pod("web", spec).await;
    until("it is up", async || bed.node.logs(&bed.namespace, "web").is_ok_and(|log| log == "up\n")).await;
    bed.api::<Pod>().delete("web", &DeleteParams::default()).await.unwrap();
    bed.until_gone("web").await;
    bed.stop().await;
}

/// Returns a pod as the operator makes it for a backend that speaks over stdio.
fn backend_pod() -> Value {
    let shim = json!({ "name": "backend-shim", "mountPath": "/run/mcp-entra/shim" });
    let read_only = json!({ "name": "backend-shim", "mountPath": "/run/mcp-entra/shim", "readOnly": true });
    let socket = json!({ "name": "backend-socket", "mountPath": "/run/mcp-entra/backend" });
    let serve = [
        "/run/mcp-entra/shim/mcp-entra-shim",
        "serve",
        "--socket",
        "/run/mcp-entra/backend/backend.sock",
        "--max-processes",
        "2",
        "--",
    ];
    json!({
        "initContainers": [
            {
                "name": "hold-ports", "image": "example.test/server:1", "restartPolicy": "Always",
                "command": ["/mcp-entra-shim", "hold", "[::]:8080", "[::]:8081"],
            },
            {
                "name": "install-shim", "image": "example.test/server:1",
                "command": ["/mcp-entra-shim", "install", "/run/mcp-entra/shim"], "volumeMounts": [shim],
            },
            {
                "name": "backend", "image": "example.test/echo:1", "restartPolicy": "Always",
                "command": serve, "args": ["cat"], "volumeMounts": [read_only, socket],
                "securityContext": { "runAsUser": 1234, "runAsNonRoot": true },
            },
        ],
        "containers": [{ "name": "server", "image": "example.test/shell:1", "args": ["-c", "sleep 100"], "volumeMounts": [socket] }],
        "volumes": [
            { "name": "backend-shim", "emptyDir": { "sizeLimit": "10Mi" } },
            { "name": "backend-socket", "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } },
        ],
        "terminationGracePeriodSeconds": 5,
    })
}

fn socket_of(bed: &Bed) -> Option<PathBuf> {
    let pods = std::fs::read_dir(bed.supervisor.folder().join("nodes").join(&bed.namespace).join("pods")).ok()?;
    let mut sockets = pods.flatten().map(|pod| pod.path().join("volumes/backend-socket/backend.sock"));
    sockets.find(|path| path.metadata().is_ok_and(|metadata| metadata.file_type().is_socket()))
}

#[tokio::test]
async fn the_shims_socket_connects_a_stdio_backend_with_the_containers_of_its_pod() {
    let bed = Bed::start().await;
    let shim = tokio::task::spawn_blocking(|| program("mcp-entra-shim").unwrap()).await.unwrap();
    bed.node.add_image("example.test/server:1", Image::from("/bin/sh").with_program(shim));
    bed.node.add_image("example.test/echo:1", "/bin/cat");
    bed.create_pod("web", backend_pod()).await;
    bed.until_ready("web").await;
    let ask = async |word: &str| {
        let mut socket = None;
        until("the socket is there", async || {
            socket = match socket_of(&bed) {
                Some(path) => UnixStream::connect(path).await.ok(),
                None => None,
            };
            socket.is_some()
        })
        .await;
        let mut socket = BufReader::new(socket.unwrap());
        socket.write_all(format!("{word}\n").as_bytes()).await.unwrap();
        let mut line = String::new();
        tokio::time::timeout(Duration::from_secs(10), socket.read_line(&mut line)).await.unwrap().unwrap();
        line
    };
    assert_eq!(ask("one").await, "one\n");
    assert_eq!(ask("two").await, "two\n");
    let log = bed.node.logs(&bed.namespace, "web").unwrap();
    let holds = |port: &str| log.lines().any(|line| line.contains("holding 127.244.") && line.ends_with(port));
    assert!(holds(":8080") && holds(":8081"), "{log}");
    let pods: Api<Pod> = bed.api();
    pods.delete("web", &DeleteParams::default()).await.unwrap();
    bed.until_gone("web").await;
    assert_eq!(socket_of(&bed), None, "the pod's volumes are gone");
    bed.stop().await;
}
