//! Tests of the edge as a Gateway API implementation, with the real definitions.

use axum::body::Bytes;
use http_body_util::StreamBody;
use hyper::body::Frame;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams, DynamicObject};
use kube::core::{ApiResource, GroupVersionKind};
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use testbed::certificates::CertificateAuthority;
use testbed::definitions::{define, gateway_api};
use testbed::edge::CONTROLLER;

use crate::backend::{Backend, apply, service};
use crate::edge::edge;
use crate::{control_plane, namespace, until};

/// Namespace with a Gateway `shared`, whose certificate is the Secret `cert`, and one pod behind the Service `web`.
struct Site {
    namespace: String,
    host: String,
    authority: CertificateAuthority,
    _backend: Backend,
}

impl Site {
    async fn new() -> Self {
        // The edge runs before the definitions exist, unless another test was faster.
        edge();
        define(&control_plane().client().unwrap(), &gateway_api().unwrap()).await.unwrap();
        let namespace = namespace().await;
        let backend = Backend::start("web").await;
        service(&namespace, "web", backend.port, &[(&backend.pod.to_string(), true)]).await;
        let host = format!("{namespace}.example.com");
        let site = Self { namespace, host, authority: CertificateAuthority::new("test").unwrap(), _backend: backend };
        site.secret("cert").await;
        let listener = site.listener("https", &site.host, "cert");
        let allowed = json!({ "namespaces": { "from": "Same" } });
        let spec = json!({ "gatewayClassName": "testbed", "listeners": [listener], "allowedListeners": allowed });
        site.put("Gateway", "shared", spec).await;
        site
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(control_plane().client().unwrap(), &self.namespace)
    }

    async fn secret(&self, name: &str) {
        let issued = self.authority.issue(&[&self.host, &format!("*.{}", self.host)]).unwrap();
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": { "name": name },
            "stringData": { "tls.crt": issued.certificate_pem, "tls.key": issued.key_pem },
        });
        apply(&self.secrets(), name, secret).await;
    }

    fn listener(&self, name: &str, hostname: &str, secret: &str) -> Value {
        let tls = json!({ "certificateRefs": [{ "name": secret }] });
        json!({ "name": name, "hostname": hostname, "port": 443, "protocol": "HTTPS", "tls": tls })
    }

    fn api(&self, kind: &str) -> Api<DynamicObject> {
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", kind));
        Api::namespaced_with(control_plane().client().unwrap(), &self.namespace, &kind)
    }

    async fn put(&self, kind: &str, name: &str, spec: Value) {
        let object = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": kind, "metadata": { "name": name }, "spec": spec,
        });
        apply(&self.api(kind), name, object).await;
    }

    /// Returns a route of this host for paths below `/mcp`.
    async fn route(&self, hostname: &str, parent: Value, service: &str, limit: &str) {
        let rule = json!({
            "matches": [{ "path": { "type": "PathPrefix", "value": "/mcp" } }],
            "backendRefs": [{ "name": service, "port": 80 }],
            "timeouts": { "request": limit },
        });
        let spec = json!({ "parentRefs": [parent], "hostnames": [hostname], "rules": [rule] });
        self.put("HTTPRoute", "web", spec).await;
    }

    /// Waits until the condition of this type has this reason, for the current generation. The object is a kind and a
    /// name.
    async fn until_reason(&self, (kind, name): (&str, &str), pointer: &str, condition: &str, reason: &str) {
        until(&format!("{condition} of {kind} {name} is {reason}"), async || {
            let object = self.api(kind).get(name).await.unwrap();
            let conditions = object.data.pointer(pointer).and_then(Value::as_array);
            conditions.into_iter().flatten().any(|found| {
                found["type"] == condition
                    && found["reason"] == reason
                    && found["observedGeneration"].as_i64() == object.metadata.generation
            })
        })
        .await;
    }

    async fn until_route(&self, condition: &str, reason: &str) {
        self.until_reason(("HTTPRoute", "web"), "/status/parents/0/conditions", condition, reason).await;
    }

    fn client(&self, host: &str) -> Client {
        let root = reqwest::Certificate::from_pem(self.authority.pem().as_bytes()).unwrap();
        Client::builder().tls_certs_only([root]).no_proxy().resolve(host, edge().address()).build().unwrap()
    }

    fn url(&self, host: &str, path: &str) -> String {
        format!("https://{host}:{}{path}", edge().address().port())
    }

    async fn get(&self, host: &str, path: &str) -> reqwest::Result<Response> {
        self.client(host).get(self.url(host, path)).send().await
    }

    async fn until_status(&self, host: &str, path: &str, status: StatusCode) {
        let what = format!("{host}{path} is answered with {status}");
        until(&what, async || self.get(host, path).await.is_ok_and(|response| response.status() == status)).await;
    }
}

fn shared() -> Value {
    json!({ "name": "shared" })
}

#[tokio::test]
async fn a_route_at_a_gateway_of_the_edges_class_is_accepted_and_served_over_https() {
    let site = Site::new().await;
    site.route(&site.host, shared(), "web", "10s").await;
    site.until_route("Accepted", "Accepted").await;
    site.until_route("ResolvedRefs", "ResolvedRefs").await;
    site.until_status(&site.host, "/mcp", StatusCode::OK).await;
    site.until_status(&site.host, "/mcpx", StatusCode::NOT_FOUND).await;
    site.until_reason(("Gateway", "shared"), "/status/conditions", "Programmed", "Programmed").await;
    let route = site.api("HTTPRoute").get("web").await.unwrap();
    assert_eq!(route.data["status"]["parents"][0]["controllerName"], CONTROLLER);
    assert_eq!(route.data["status"]["parents"][0]["parentRef"]["name"], "shared");

    site.route(&site.host, shared(), "nowhere", "10s").await;
    site.until_route("ResolvedRefs", "BackendNotFound").await;
    site.until_status(&site.host, "/mcp", StatusCode::INTERNAL_SERVER_ERROR).await;
    site.route("elsewhere.example.com", shared(), "web", "10s").await;
    site.until_route("Accepted", "NoMatchingListenerHostname").await;
    site.until_status(&site.host, "/mcp", StatusCode::NOT_FOUND).await;
}

#[tokio::test]
async fn a_gateway_reports_a_missing_certificate_until_it_exists() {
    let site = Site::new().await;
    site.route(&site.host, shared(), "web", "10s").await;
    site.until_status(&site.host, "/mcp", StatusCode::OK).await;
    site.secrets().delete("cert", &DeleteParams::default()).await.unwrap();
    let listener = "/status/listeners/0/conditions";
    site.until_reason(("Gateway", "shared"), listener, "ResolvedRefs", "InvalidCertificateRef").await;
    site.until_reason(("Gateway", "shared"), "/status/conditions", "Programmed", "Invalid").await;
    assert!(site.get(&site.host, "/mcp").await.is_err(), "no certificate that anybody trusts");
    site.secret("cert").await;
    site.until_reason(("Gateway", "shared"), listener, "ResolvedRefs", "ResolvedRefs").await;
    site.until_status(&site.host, "/mcp", StatusCode::OK).await;
}

#[tokio::test]
async fn a_listener_set_adds_its_own_hostname_and_certificate() {
    let site = Site::new().await;
    site.secret("own").await;
    let host = format!("own.{}", site.host);
    let listeners = json!([site.listener("own", &host, "own")]);
    site.put("ListenerSet", "own", json!({ "parentRef": shared(), "listeners": listeners })).await;
    site.route(&host, json!({ "kind": "ListenerSet", "name": "own", "sectionName": "own" }), "web", "10s").await;
    site.until_reason(("ListenerSet", "own"), "/status/conditions", "Accepted", "Accepted").await;
    site.until_route("Accepted", "Accepted").await;
    site.until_status(&host, "/mcp", StatusCode::OK).await;

    let spec = json!({ "gatewayClassName": "testbed", "listeners": [site.listener("https", &site.host, "cert")] });
    site.put("Gateway", "shared", spec).await;
    site.until_reason(("ListenerSet", "own"), "/status/conditions", "Accepted", "NotAllowed").await;
    until("nothing is served there", async || site.get(&host, "/mcp").await.is_err()).await;
}

#[tokio::test]
async fn a_timeout_ends_a_long_answer_and_zero_means_no_limit() {
    let site = Site::new().await;
    for (limit, ends) in [("300ms", true), ("0s", false)] {
        site.put(
            "HTTPRoute",
            "web",
            json!({
                "parentRefs": [shared()], "hostnames": [site.host],
                "rules": [{ "backendRefs": [{ "name": "web", "port": 80 }], "timeouts": { "request": limit } }],
            }),
        )
        .await;
        site.until_route("Accepted", "Accepted").await;
        // The edge's table is as new as its written status.
        let (sender, parts) = futures::channel::mpsc::unbounded::<Result<Frame<Bytes>, std::io::Error>>();
        sender.unbounded_send(Ok(Frame::data("first".into()))).unwrap();
        let body = reqwest::Body::wrap(StreamBody::new(parts));
        let url = site.url(&site.host, "/echo");
        let mut answer = site.client(&site.host).post(url).body(body).send().await.unwrap();
        assert_eq!(answer.chunk().await.unwrap().unwrap(), "first");
        if ends {
            assert!(answer.chunk().await.is_err(), "it breaks off");
        } else {
            let more = tokio::time::timeout(std::time::Duration::from_millis(600), answer.chunk()).await;
            assert!(more.is_err(), "it goes on");
        }
    }
}
