//! Report of a backend from one of its pods, through the API server's proxy: `preview` and `pin` run where pods are not
//! reachable.

use futures::AsyncReadExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt, api::ListParams};
use mcp_entra_policy::ServerStatus;

use crate::{
    mcpserver::{
        build::ADMIN_PORT,
        pod_status::{LARGEST_ANSWER, report::BackendReport},
    },
    objects::names::{INSTANCE, NAME, SERVER},
};

/// The reason why a backend's report is not available.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The API server does not answer, or answers with an error.
    #[error("{action}: {source}; ask for permission to list pods and to get pods/proxy in the namespace")]
    Kubernetes {
        /// The action that failed.
        action: String,
        /// The cause.
        source: Box<kube::Error>,
    },
    /// No pod is ready.
    #[error("no pod of {namespace}/{name} is ready; see kubectl describe mcpserver -n {namespace} {name}")]
    NoPod {
        /// The server's namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The answer is not a status.
    #[error(
        "the status of pod {pod} cannot be read ({why}); if the pod runs the operator's version, report this as a defect"
    )]
    Unreadable {
        /// The pod.
        pod: String,
        /// The cause.
        why: String,
    },
    /// The backend is missing, or does not answer.
    #[error("the backend in pod {pod} does not answer{said}; see the condition BackendReady for the next step")]
    Fails {
        /// The pod.
        pod: String,
        /// The backend's message.
        said: String,
    },
}

/// Asks the first ready pod of a server, by name. Returns the pod's name and the report.
///
/// # Errors
/// No pod is ready, the pod cannot be asked, or its backend does not work.
pub(crate) async fn ask(client: &Client, namespace: &str, name: &str) -> Result<(String, BackendReport), AskError> {
    let failed = |action: String| move |source| AskError::Kubernetes { action, source: Box::new(source) };
    let ours = ListParams::default().labels(&format!("{NAME}={SERVER},{INSTANCE}={name}"));
    let pods = Api::<Pod>::namespaced(client.clone(), namespace).list(&ours).await;
    let pods = pods.map_err(failed(format!("listing the pods of {namespace}/{name}")))?;
    let ready = pods.items.iter().filter(|pod| is_ready(pod)).map(ResourceExt::name_any).min();
    let Some(pod) = ready else {
        return Err(AskError::NoPod { namespace: namespace.to_owned(), name: name.to_owned() });
    };
    let unreadable = |why: String| AskError::Unreadable { pod: pod.clone(), why };
    let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}:{ADMIN_PORT}/proxy/status");
    let request = http::Request::get(path).body(Vec::new()).map_err(|error| unreadable(error.to_string()))?;
    let answer = client.request_stream(request).await.map_err(failed(format!("asking pod {pod} for its status")))?;
    let (mut body, mut answer) = (Vec::new(), std::pin::pin!(answer.take(LARGEST_ANSWER as u64)));
    answer.read_to_end(&mut body).await.map_err(|error| unreadable(error.to_string()))?;
    let status: ServerStatus = serde_json::from_slice(&body).map_err(|error| unreadable(error.to_string()))?;
    let report = status.backend.map(BackendReport::from).unwrap_or_default();
    if report.works == Some(true) {
        return Ok((pod, report));
    }
    let said = report.message.as_ref().map(|message| format!(", with the message: {}", message.quoted()));
    Err(AskError::Fails { pod, said: said.unwrap_or_default() })
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut ready = conditions.filter(|condition| condition.type_ == "Ready" && condition.status == "True");
    pod.metadata.deletion_timestamp.is_none() && ready.next().is_some()
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A client of an API server with these pods: name, readiness, and the report about the backend.
    pub(crate) fn mk_client(pods: &[(&str, bool)], backend: Value) -> Client {
        let pods: Vec<Value> = pods
            .iter()
            .map(|(name, ready)| {
                let ready = if *ready { "True" } else { "False" };
                json!({"metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": ready}]}})
            })
            .collect();
        let status = json!({
            "version": "1", "policy": {"revision": "r", "error": null}, "backend": backend,
            "federation": {"identity": null, "works": true, "message": null, "lastProbe": null},
            "keys": {"count": 1, "ageSeconds": 1, "error": null},
        });
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let is_list = request.uri().path().ends_with("/pods");
            let is_proxy = request.uri().path() == "/api/v1/namespaces/productivity/pods/b:8081/proxy/status";
            let list = json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": pods});
            let (code, body) = match (is_list, is_proxy) {
                (true, _) => (200, list),
                (_, true) => (200, status.clone()),
                _ => (404, json!({"kind": "Status", "message": "no such pod", "code": 404})),
            };
            let body = kube::client::Body::from(body.to_string().into_bytes());
            async move { http::Response::builder().status(code).body(body) }
        });
        Client::new(service, "default")
    }

    #[tokio::test]
    async fn a_ready_pod_is_asked_and_a_backend_without_an_answer_is_an_error() {
        let client = mk_client(&[("a", false), ("b", true)], json!({"works": true, "tools": {"now": "0"}}));
        let (pod, report) = ask(&client, "productivity", "time").await.unwrap();
        assert_eq!((pod.as_str(), report.tools.len()), ("b", 1));
        let told = async |client: Client| ask(&client, "productivity", "time").await.unwrap_err().to_string();
        let none = told(mk_client(&[("b", false)], Value::Null)).await;
        assert!(none.starts_with("no pod of productivity/time is ready; see kubectl describe"), "{none}");
        let fails = told(mk_client(&[("b", true)], json!({"works": false, "message": "it ended"}))).await;
        assert!(fails.starts_with("the backend in pod b does not answer, with the message: “it ended”;"), "{fails}");
        let gone = told(mk_client(&[("c", true)], Value::Null)).await;
        assert!(gone.contains("asking pod c for its status") && gone.contains("pods/proxy"), "{gone}");
    }
}
