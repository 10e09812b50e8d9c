//! Reports failed status writes in a metric, a log line and an event.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder},
};

use crate::{
    MANAGER,
    conditions::events,
    runtime::{
        errors::{code, describe},
        metrics::{Kind, Metrics},
    },
};

/// The reason of the event.
const REASON: &str = "StatusNotWritten";

/// The reporter of failed status writes of one kind.
pub(crate) struct Unwritten {
    /// Kept, so that repeated failures are counted in one event.
    recorder: Recorder,
    metrics: Metrics,
    kind: Kind,
}

impl Unwritten {
    pub(crate) fn new(client: Client, metrics: Metrics, kind: Kind) -> Self {
        Self { recorder: Recorder::new(client, MANAGER.into()), metrics, kind }
    }

    /// Reports a status that could not be written, unless its object is gone.
    pub(crate) async fn tell(&self, about: &ObjectReference, error: &kube::Error) {
        if matches!(code(error), Some(404 | 409)) {
            return;
        }
        self.metrics.status_not_written(self.kind);
        let said = describe(error);
        tracing::error!(
            kind = ?self.kind, namespace = about.namespace, name = about.name, error = said,
            "cannot write a status; the last one stays"
        );
        let note = format!(
            "the status cannot be written, so the last one stays and may be wrong; remove the cause, or ask the cluster's administrators: {said}"
        );
        let event = Event {
            type_: EventType::Warning,
            reason: REASON.to_owned(),
            note: Some(events::bounded(&note)),
            action: "WriteStatus".to_owned(),
            secondary: None,
        };
        events::publish_one(&self.recorder, &event, about).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use http::{Request, Response};
    use kube::{Resource, client::Body};
    use prometheus_client::registry::Registry;
    use serde_json::Value;

    use super::*;
    use crate::objects::{fixtures::mk_server, untrusted_text::tests::hostile};

    #[tokio::test]
    async fn a_refused_status_is_counted_and_reported_in_a_valid_event() {
        let sent = Arc::new(Mutex::new(Vec::new()));
        let notes = sent.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let notes = notes.clone();
            async move {
                let body = request.into_body().collect_bytes().await.unwrap();
                notes.lock().unwrap().push(serde_json::from_slice::<Value>(&body).unwrap());
                Ok::<_, std::convert::Infallible>(Response::new(Body::from(body.to_vec())))
            }
        });
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let unwritten = Unwritten::new(Client::new(service, "default"), metrics, Kind::McpServer);
        let refused = |code| {
            let status = kube::core::Status::failure(&hostile(), "Invalid").with_code(code);
            kube::Error::Api(Box::new(status))
        };
        for code in [422, 404, 409] {
            unwritten.tell(&mk_server().object_ref(&()), &refused(code)).await;
        }

        let mut exported = String::new();
        prometheus_client::encoding::text::encode(&mut exported, &registry).unwrap();
        assert!(
            exported.contains("mcp_entra_operator_status_write_errors_total{kind=\"McpServer\"} 1\n"),
            "{exported}"
        );
        let sent = sent.lock().unwrap();
        let [event] = sent.as_slice() else { panic!("{sent:#?}") };
        assert_eq!((event["type"].as_str(), event["reason"].as_str()), (Some("Warning"), Some(REASON)));
        let note = event["note"].as_str().unwrap();
        assert!(note.len() <= 1024 && note.contains("the last one stays"), "{note}");
        crate::objects::untrusted_text::tests::assert_harmless(note);
    }
}
