//! Double of the kubelet: there is no node, so tests write the status of pods, and set the answers of pods.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
    },
};

use axum::{
    Json, Router,
    http::{HeaderMap, Uri, header::HOST, uri::Authority},
    response::IntoResponse,
};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use mcp_entra_policy::{
    FederatedIdentity, FederationStatus, GraphStatus, KeysStatus, PolicyStatus, ServerStatus, revision,
};
use serde_json::{Value, json};

use crate::harness::{Space, until};

impl Space {
    /// Creates a running, ready pod of the server `graph`, beside those of its Deployment. It answers as [`FakePods`]
    /// are set.
    pub(crate) async fn pod(&self, name: &str) -> FakePod {
        let deployment = self.get::<Deployment>("graph").await.unwrap();
        let template = deployment.spec.unwrap().template.metadata.unwrap();
        self.pod_like(name, &json!({"labels": template.labels, "annotations": template.annotations})).await
    }

    /// Creates a pod as above, with other metadata.
    pub(crate) async fn pod_like(&self, name: &str, metadata: &Value) -> FakePod {
        let mut metadata = metadata.clone();
        metadata["name"] = json!(name);
        let pod: Pod = serde_json::from_value(json!({
            "metadata": metadata,
            "spec": {"nodeName": "none", "containers": [{"name": "server", "image": "x"}],
                     "automountServiceAccountToken": false},
        }))
        .unwrap();
        self.api::<Pod>().create(&PostParams::default(), &pod).await.unwrap();
        self.runs(name).await
    }

    /// Returns the name of an unscheduled pod of the Deployment of the server `graph`, and binds it to a node that does
    /// not exist.
    pub(crate) async fn bound_pod(&self) -> String {
        let selected = ListParams::default().labels("app.kubernetes.io/instance=graph");
        let mut found = None;
        let is_given_up = |pod: &Pod| {
            let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
            conditions.any(|condition| condition.type_ == "PodScheduled" && condition.status == "False")
        };
        until("the scheduler has given up a pod of the Deployment", async || {
            let pods = self.api::<Pod>().list(&selected).await.unwrap();
            found = pods.into_iter().find(is_given_up);
            found.is_some()
        })
        .await;
        let name = found.unwrap().name_any();
        let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
                             "target": {"apiVersion": "v1", "kind": "Node", "name": "none"}});
        let pods = self.api::<Pod>();
        pods.create_subresource::<_, Value>("binding", &name, &PostParams::default(), &binding).await.unwrap();
        name
    }

    /// Writes a pod's status as a kubelet does.
    pub(crate) async fn kubelet_says(&self, pod: &str, status: Value) {
        let patch = Patch::Strategic(json!({"status": status}));
        self.api::<Pod>().patch_status(pod, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Makes a pod running and ready.
    pub(crate) async fn runs(&self, name: &str) -> FakePod {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        self.runs_at(name, format!("10.244.77.{}", NEXT.fetch_add(1, Ordering::Relaxed))).await
    }

    /// Makes a pod running and ready at this address.
    pub(crate) async fn runs_at(&self, name: &str, address: String) -> FakePod {
        self.cluster.pods.say(&address, mk_report("none"));
        let ready = json!({"phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
                           "conditions": [{"type": "Ready", "status": "True"}]});
        self.kubelet_says(name, ready).await;
        FakePod { pods: self.cluster.pods.clone(), address, name: name.to_owned() }
    }

    /// Deletes a pod, without waiting for a kubelet to end it.
    pub(crate) async fn kill(&self, pod: &str) {
        self.api::<Pod>().delete(pod, &DeleteParams::default().grace_period(0)).await.unwrap();
    }
}

/// Answers of pods, by address, for the operator's proxy and for an operator without a proxy. The proxy contacts no
/// pods.
#[derive(Clone, Default)]
pub(crate) struct FakePods(Arc<Mutex<HashMap<String, ServerStatus>>>);

impl FakePods {
    fn say(&self, address: &str, report: ServerStatus) {
        self.0.lock().unwrap().insert(address.to_owned(), report);
    }

    pub(crate) fn router(&self) -> Router {
        let pods = self.clone();
        Router::new().fallback(move |uri: Uri, headers: HeaderMap| async move {
            // A proxy gets the whole URI, a pod the path.
            let host = || headers.get(HOST)?.to_str().ok()?.parse().ok();
            let authority: Option<Authority> = uri.authority().cloned().or_else(host);
            let asked = authority.filter(|authority| authority.port_u16() == Some(8081) && uri.path() == "/status");
            match asked.and_then(|authority| pods.0.lock().unwrap().get(authority.host()).cloned()) {
                Some(report) => Json(report).into_response(),
                _ => axum::http::StatusCode::BAD_GATEWAY.into_response(),
            }
        })
    }
}

/// A pod that consists only of its answers.
pub(crate) struct FakePod {
    pods: FakePods,
    address: String,
    pub(crate) name: String,
}

impl FakePod {
    pub(crate) fn says(&self, change: impl FnOnce(&mut ServerStatus)) {
        change(self.pods.0.lock().unwrap().get_mut(&self.address).unwrap());
    }

    pub(crate) fn enforces(&self, policy: &str) {
        self.says(|report| report.policy.revision = Some(revision(policy.as_bytes())));
    }
}

fn mk_report(revision: &str) -> ServerStatus {
    ServerStatus {
        version: "0".into(),
        policy: PolicyStatus { revision: Some(revision.into()), error: None },
        federation: FederationStatus {
            identity: Some(FederatedIdentity {
                issuer: "https://issuer.example/".into(),
                subject: "s".into(),
                audience: "a".into(),
            }),
            works: Some(true),
            message: None,
            last_probe: None,
        },
        keys: KeysStatus { count: 1, age_seconds: Some(1), error: None },
        graph: GraphStatus::default(),
        session_store: None,
        backend: None,
    }
}
