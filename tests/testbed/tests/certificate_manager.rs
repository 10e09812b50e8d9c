//! Tests of the testbed's cert-manager, which issues, fails and lets certificates expire, with the real definitions.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams, DynamicObject};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};
use testbed::certificate_manager::{Behaviour, CertificateManager};
use testbed::certificates::CertificateAuthority;
use testbed::definitions::{cert_manager, define};

use crate::backend::apply;
use crate::{control_plane, namespace, until};

/// Manager of one test. Its issuer has the name of the test's namespace.
struct Bed {
    namespace: String,
    manager: CertificateManager,
}

impl Bed {
    async fn new() -> Self {
        let (client, namespace) = (control_plane().client().unwrap(), namespace().await);
        let authority = Arc::new(CertificateAuthority::new("test").unwrap());
        // It runs before the definitions exist, unless another test was faster.
        let manager = CertificateManager::start(client.clone(), "ClusterIssuer", &namespace, authority);
        define(&client, &cert_manager().unwrap()).await.unwrap();
        Self { namespace, manager }
    }

    fn certificates(&self) -> Api<DynamicObject> {
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("cert-manager.io", "v1", "Certificate"));
        Api::namespaced_with(control_plane().client().unwrap(), &self.namespace, &kind)
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(control_plane().client().unwrap(), &self.namespace)
    }

    async fn ask(&self, name: &str, issuer: &str, host: &str) {
        let certificate = json!({
            "apiVersion": "cert-manager.io/v1", "kind": "Certificate", "metadata": { "name": name },
            "spec": {
                "secretName": format!("{name}-tls"), "dnsNames": [host],
                "issuerRef": { "kind": "ClusterIssuer", "name": issuer, "group": "cert-manager.io" },
            },
        });
        apply(&self.certificates(), name, certificate).await;
    }

    /// Waits until the condition has this reason and message, and returns the status.
    async fn until_says(&self, condition: &str, status: &str, reason: &str, says: &str) -> Value {
        let mut found = Value::Null;
        until(&format!("{condition} is {status}, {reason}: {says}"), async || {
            found = self.certificates().get("web").await.unwrap().data["status"].clone();
            found["conditions"].as_array().into_iter().flatten().any(|known| {
                let message = known["message"].as_str().unwrap_or_default();
                known["type"] == condition
                    && known["status"] == status
                    && known["reason"] == reason
                    && message.contains(says)
            })
        })
        .await;
        found
    }
}

#[tokio::test]
async fn only_certificates_of_the_issuer_are_issued_and_they_follow_their_names() {
    let bed = Bed::new().await;
    bed.ask("theirs", "another", "a.example.com").await;
    bed.ask("web", &bed.namespace, "b.example.com").await;
    let status = bed.until_says("Ready", "True", "Ready", "Certificate is up to date and has not expired").await;
    assert_eq!(status["revision"], 1);
    let time = |name: &str| status[name].as_str().unwrap().parse::<Timestamp>().unwrap();
    assert!(time("notBefore") < time("renewalTime") && time("renewalTime") < time("notAfter"));
    // The condition was there before.
    let theirs = bed.certificates().get("theirs").await.unwrap();
    assert!(theirs.data.get("status").is_none() && bed.secrets().get_opt("theirs-tls").await.unwrap().is_none());
    let secret = bed.secrets().get("web-tls").await.unwrap();
    assert_eq!(secret.type_.as_deref(), Some("kubernetes.io/tls"));
    let data = secret.data.unwrap();
    assert!(data.contains_key("tls.crt") && data.contains_key("tls.key") && data.contains_key("ca.crt"));

    bed.ask("web", &bed.namespace, "c.example.com").await;
    until("another is issued", async || {
        bed.secrets().get("web-tls").await.unwrap().data.unwrap()["tls.crt"] != data["tls.crt"]
    })
    .await;
}

#[tokio::test]
async fn an_unready_issuer_and_a_failed_order_are_reported_until_they_recover() {
    let bed = Bed::new().await;
    bed.manager.behave(&bed.namespace, Behaviour::Wait);
    bed.ask("web", &bed.namespace, "a.example.com").await;
    let missing = "Issuing certificate as Secret does not exist";
    bed.until_says("Ready", "False", "DoesNotExist", missing).await;
    bed.until_says("Issuing", "True", "DoesNotExist", missing).await;
    bed.manager.behave(&bed.namespace, Behaviour::Fail("the order is refused: rateLimited".to_owned()));
    let status =
        bed.until_says("Issuing", "False", "Failed", "will be retried: the order is refused: rateLimited").await;
    assert_eq!(status["failedIssuanceAttempts"], 1);
    assert!(bed.secrets().get_opt("web-tls").await.unwrap().is_none());
    bed.manager.behave(&bed.namespace, Behaviour::Issue);
    let status = bed.until_says("Ready", "True", "Ready", "").await;
    assert_eq!(status["conditions"].as_array().unwrap().len(), 1, "nothing is issuing any more");
}

#[tokio::test]
async fn an_expired_certificate_is_replaced_when_its_secret_is_deleted() {
    let bed = Bed::new().await;
    bed.manager.behave(&bed.namespace, Behaviour::IssueFor(Duration::from_secs(3)));
    bed.ask("web", &bed.namespace, "a.example.com").await;
    bed.until_says("Ready", "True", "Ready", "").await;
    bed.until_says("Ready", "False", "Expired", "Certificate expired on ").await;
    bed.manager.behave(&bed.namespace, Behaviour::IssueExpired);
    until("it expired an hour ago", async || {
        let status = bed.certificates().get("web").await.unwrap().data["status"].clone();
        let end: Timestamp = status["notAfter"].as_str().unwrap().parse().unwrap();
        end < Timestamp::now() - jiff::SignedDuration::from_mins(59)
    })
    .await;
    bed.manager.behave(&bed.namespace, Behaviour::Issue);
    let status = bed.until_says("Ready", "True", "Ready", "").await;
    assert_eq!(status["revision"], 3);
    bed.manager.behave(&bed.namespace, Behaviour::Wait);
    bed.secrets().delete("web-tls", &DeleteParams::default()).await.unwrap();
    bed.until_says("Ready", "False", "DoesNotExist", "").await;
}
