//! Tests that a rollout of a Deployment, and evictions of its pods, interrupt no request through the edge.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures::future::join_all;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use kube::api::{EvictParams, ListParams, Patch, PatchParams};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::edge::Site;
use crate::node::Bed;
use crate::until;

const REPLICAS: i32 = 3;
const CLIENTS: usize = 4;
const PORT: u16 = 8080;

fn deployment(node: &str, version: &str) -> Value {
    let probe = json!({ "httpGet": { "path": "/ready", "port": "http" }, "periodSeconds": 1, "failureThreshold": 1 });
    let container = json!({
        "name": "server",
        "image": "example.test/pod:1",
        "args": [format!("--listen=0.0.0.0:{PORT}"), "--file=/etc/server/content"],
        "ports": [{ "name": "http", "containerPort": PORT }],
        "env": [{ "name": "VERSION", "value": version }],
        "volumeMounts": [{ "name": "config", "mountPath": "/etc/server" }],
        "readinessProbe": probe,
        // Clients with the old endpoints are still served.
        "lifecycle": { "preStop": { "sleep": { "seconds": 2 } } },
    });
    let template = json!({
        "metadata": { "labels": { "app": "web" } },
        "spec": {
            "containers": [container],
            "volumes": [{ "name": "config", "configMap": { "name": "config" } }],
            "nodeSelector": { "kubernetes.io/hostname": node },
            "terminationGracePeriodSeconds": 5,
        },
    });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web" },
        "spec": {
            "replicas": REPLICAS,
            "strategy": { "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } },
            "selector": { "matchLabels": { "app": "web" } },
            "template": template,
        },
    })
}

async fn roll_out(bed: &Bed, version: &str) {
    let parameters = PatchParams::apply("test").force();
    let patch = Patch::Apply(deployment(&bed.namespace, version));
    let applied = bed.api::<Deployment>().patch("web", &parameters, &patch).await.unwrap();
    until(&format!("version {version} is rolled out"), async || {
        let deployment = bed.api::<Deployment>().get("web").await.unwrap();
        let status = deployment.status.unwrap_or_default();
        status.observed_generation >= applied.metadata.generation
            && status.updated_replicas == Some(REPLICAS)
            && status.replicas == Some(REPLICAS)
            && status.available_replicas == Some(REPLICAS)
    })
    .await;
}

/// Returns pods that are not terminating.
async fn pods(bed: &Bed) -> Vec<Pod> {
    let mut pods = bed.api::<Pod>().list(&ListParams::default().labels("app=web")).await.unwrap().items;
    pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
    pods
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_three_replicas_are_replaced_and_evicted_one_by_one() {
    let bed = Bed::start().await;
    let site = Site::of(&bed.namespace).await;
    bed.create::<ConfigMap>(json!({ "metadata": { "name": "config" }, "data": { "content": "ready" } })).await;
    bed.create::<Service>(json!({
        "metadata": { "name": "web" },
        "spec": { "selector": { "app": "web" }, "ports": [{ "name": "http", "port": 80, "targetPort": "http" }] },
    }))
    .await;
    bed.create::<PodDisruptionBudget>(json!({
        "metadata": { "name": "web" },
        "spec": { "minAvailable": 2, "selector": { "matchLabels": { "app": "web" } } },
    }))
    .await;
    site.ingress("testbed", "tls", &[("/", "Prefix", "web")]).await;
    roll_out(&bed, "1").await;
    site.until_status("/content", StatusCode::OK).await;

    let (answered, ends) = (AtomicUsize::new(0), AtomicBool::new(false));
    let load = join_all((0..CLIENTS).map(async |_| {
        let client = site.builder().build().unwrap();
        let mut failures = Vec::new();
        while !ends.load(Ordering::Relaxed) {
            match client.get(site.url("/content")).send().await {
                Ok(answer) if answer.status() == StatusCode::OK => drop(answered.fetch_add(1, Ordering::Relaxed)),
                Ok(answer) => failures.push(format!("{}: {}", answer.status(), answer.text().await.unwrap())),
                Err(error) => failures.push(format!("{error:?}")),
            }
            tokio::task::yield_now().await;
        }
        failures
    }));
    let change = async {
        roll_out(&bed, "2").await;
        for pod in pods(&bed).await {
            let name = pod.name_any();
            let evicted = async || bed.api::<Pod>().evict(&name, &EvictParams::default()).await.is_ok();
            until(&format!("the budget lets {name} go"), evicted).await;
            until(&format!("{name} is replaced"), async || {
                let left = pods(&bed).await;
                left.iter().all(|one| one.name_any() != name) && left.len() == 3
            })
            .await;
        }
        ends.store(true, Ordering::Relaxed);
    };
    let (failures, ()) = futures::join!(load, change);
    let failures = failures.concat();
    let answered = answered.into_inner();
    assert!(
        failures.is_empty(),
        "{} of {} requests: {:?}",
        failures.len(),
        answered + failures.len(),
        failures.first()
    );
    assert!(answered > 100, "{answered} requests are not enough load");
    bed.stop().await;
}
