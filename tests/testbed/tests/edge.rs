//! Tests that the edge serves only the Ingresses of its class.

use std::collections::BTreeSet;
use std::sync::Arc;

use http_body_util::StreamBody;
use hyper::body::Frame;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::Api;
use reqwest::{Client, ClientBuilder, Response, StatusCode, Version};
use serde_json::{Value, json};
use testbed::certificates::{Certificate, CertificateAuthority};
use testbed::edge::Edge;
use testbed::shared::Shared;

use crate::backend::{Backend, apply, service, unused_pod};
use crate::{control_plane, namespace, until};

pub(crate) fn edge() -> &'static Edge {
    static EDGE: Shared<Edge> = Shared::new();
    EDGE.get_or_start(async || Edge::start(control_plane().client()?).await).unwrap()
}

/// Namespace with its own host, whose certificate is in the Secret `tls`.
pub(crate) struct Site {
    pub(crate) namespace: String,
    host: String,
    authority: Arc<CertificateAuthority>,
}

impl Site {
    async fn new() -> Self {
        Self::of(&namespace().await).await
    }

    pub(crate) async fn of(namespace: &str) -> Self {
        let namespace = namespace.to_owned();
        let host = format!("{namespace}.example.com");
        let authority = Arc::new(CertificateAuthority::new("test").unwrap());
        let site = Self { namespace, host, authority };
        let certificate = site.authority.issue(&[&site.host]).unwrap();
        site.secret("tls", &certificate.certificate_pem, &certificate.key_pem).await;
        site
    }

    async fn secret(&self, name: &str, certificate_pem: &str, key_pem: &str) {
        let secrets: Api<Secret> = Api::namespaced(control_plane().client().unwrap(), &self.namespace);
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": { "name": name },
            "stringData": { "tls.crt": certificate_pem, "tls.key": key_pem },
        });
        apply(&secrets, name, secret).await;
    }

    /// Returns an Ingress of this host with these paths: (path, type, service).
    pub(crate) async fn ingress(&self, class: &str, secret: &str, paths: &[(&str, &str, &str)]) {
        let paths: Vec<_> = paths
            .iter()
            .map(|(path, kind, service)| {
                let backend = json!({ "service": { "name": service, "port": { "name": "http" } } });
                json!({ "path": path, "pathType": kind, "backend": backend })
            })
            .collect();
        let ingress = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": { "name": class },
            "spec": {
                "ingressClassName": class,
                "tls": [{ "hosts": [self.host], "secretName": secret }],
                "rules": [{ "host": self.host, "http": { "paths": paths } }],
            },
        });
        apply(&self.ingresses(), class, ingress).await;
    }

    fn ingresses(&self) -> Api<Ingress> {
        Api::namespaced(control_plane().client().unwrap(), &self.namespace)
    }

    pub(crate) fn builder(&self) -> ClientBuilder {
        let root = reqwest::Certificate::from_pem(self.authority.pem().as_bytes()).unwrap();
        Client::builder().tls_certs_only([root]).no_proxy().resolve(&self.host, edge().address())
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://{}:{}{path}", self.host, edge().address().port())
    }

    async fn get(&self, path: &str) -> reqwest::Result<Response> {
        self.builder().build().unwrap().get(self.url(path)).send().await
    }

    /// Waits until the edge answers this way.
    pub(crate) async fn until_status(&self, path: &str, status: StatusCode) {
        let what = format!("{path} is answered with {status}");
        until(&what, async || self.get(path).await.is_ok_and(|response| response.status() == status)).await;
    }

    pub(crate) async fn answer(&self, path: &str) -> (StatusCode, String) {
        let response = self.get(path).await.unwrap();
        (response.status(), response.text().await.unwrap())
    }

    async fn name_at(&self, path: &str) -> String {
        let answer: Value = self.get(path).await.unwrap().error_for_status().unwrap().json().await.unwrap();
        answer["name"].as_str().unwrap().to_owned()
    }
}

/// Returns a site with one backend at `/`.
pub(crate) async fn simple(name: &'static str) -> (Site, Backend) {
    let (site, backend) = (Site::new().await, Backend::start(name).await);
    service(&site.namespace, "one", backend.port, &[(&backend.pod.to_string(), true)]).await;
    site.ingress("testbed", "tls", &[("/", "Prefix", "one")]).await;
    site.until_status("/", StatusCode::OK).await;
    (site, backend)
}

#[tokio::test]
async fn the_longest_path_of_the_host_wins_and_prefixes_match_whole_segments() {
    let site = Site::new().await;
    let backends = [Backend::start("short").await, Backend::start("long").await, Backend::start("exact").await];
    for (name, backend) in ["short", "long", "exact"].into_iter().zip(&backends) {
        service(&site.namespace, name, backend.port, &[(&backend.pod.to_string(), true)]).await;
    }
    let paths = [("/mcp", "Prefix", "short"), ("/mcp/deep/", "Prefix", "long"), ("/mcp/deep", "Exact", "exact")];
    site.ingress("testbed", "tls", &paths).await;
    site.until_status("/mcp/deep", StatusCode::OK).await;
    for (path, name) in [
        ("/mcp", "short"),
        ("/mcp/", "short"),
        ("/mcp/x?y=/mcp/deep", "short"),
        ("/mcp/deeper", "short"),
        ("/mcp/deep", "exact"),
        ("/mcp/deep/", "long"),
        ("/mcp/deep/x", "long"),
    ] {
        assert_eq!(site.name_at(path).await, name, "{path}");
    }
    for path in ["/", "/mcpx", "/other/mcp", "/MCP"] {
        let (status, text) = site.answer(path).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
        assert!(text.contains(&site.host) && text.contains(path), "{text}");
    }
}

#[tokio::test]
async fn another_host_and_another_class_are_not_served() {
    let (site, backend) = simple("one").await;
    // The certificate follows the connection's name; the request has another one.
    let client = site.builder().http1_only().build().unwrap();
    let response = client.get(site.url("/")).header("host", "other.example.com").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::NOT_FOUND);

    let foreign = Site::new().await;
    service(&foreign.namespace, "one", backend.port, &[(&backend.pod.to_string(), true)]).await;
    foreign.ingress("another", "tls", &[("/", "Prefix", "one")]).await;
    foreign.ingress("testbed", "tls", &[("/ours", "Prefix", "one")]).await;
    foreign.until_status("/ours", StatusCode::OK).await;
    assert_eq!(foreign.answer("/").await.0, StatusCode::NOT_FOUND);
    let theirs = foreign.ingresses().get("another").await.unwrap();
    let status = theirs.status.and_then(|status| status.load_balancer).and_then(|balancer| balancer.ingress);
    assert!(status.is_none_or(|written| written.is_empty()));
}

#[tokio::test]
async fn the_secrets_certificate_is_served_and_without_it_an_untrusted_one() {
    let (site, _backend) = simple("one").await;
    let is_refused = async || {
        let refused = site.get("/").await.err();
        refused.is_some_and(|error| format!("{error:?}").contains("UnknownIssuer"))
    };
    site.ingress("testbed", "missing", &[("/", "Prefix", "one")]).await;
    until("the missing Secret shows", is_refused).await;

    let (good, other) = (site.authority.issue(&[&site.host]).unwrap(), site.authority.issue(&[&site.host]).unwrap());
    let Certificate { certificate_pem, .. } = &good;
    site.secret("missing", certificate_pem, &good.key_pem).await;
    site.until_status("/", StatusCode::OK).await;
    site.secret("missing", certificate_pem, &other.key_pem).await;
    until("a key of another certificate shows", is_refused).await;
    site.secret("missing", certificate_pem, &good.key_pem).await;
    site.until_status("/", StatusCode::OK).await;
}

#[tokio::test]
async fn both_versions_of_http_reach_the_pod_with_the_true_client_address() {
    let (site, _backend) = simple("one").await;
    for (builder, version) in [(site.builder().http1_only(), Version::HTTP_11), (site.builder(), Version::HTTP_2)] {
        let request = builder.build().unwrap().get(site.url("/a?b=c"));
        let request = request
            .header("x-forwarded-for", "203.0.113.9")
            .header("x-forwarded-proto", "http")
            .header("x-forwarded-host", "evil.example.com")
            .header("forwarded", "for=203.0.113.9")
            .header("authorization", "Bearer abc");
        let response = request.send().await.unwrap();
        assert_eq!(response.version(), version);
        let told: Value = response.json().await.unwrap();
        let host = format!("{}:{}", site.host, edge().address().port());
        let headers = &told["headers"];
        assert_eq!(told["path"], "/a?b=c");
        assert_eq!(headers["x-forwarded-for"], "127.0.0.1");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-forwarded-host"], host.as_str());
        assert_eq!(headers["host"], host.as_str());
        assert_eq!(headers["authorization"], "Bearer abc");
        assert!(headers.get("forwarded").is_none());
    }
}

#[tokio::test]
async fn bodies_stream_both_ways_unbuffered() {
    let (site, _backend) = simple("one").await;
    for builder in [site.builder().http1_only(), site.builder()] {
        let (sender, parts) = futures::channel::mpsc::unbounded::<Result<Frame<axum::body::Bytes>, std::io::Error>>();
        let send = |part: &'static str| sender.unbounded_send(Ok(Frame::data(part.into()))).unwrap();
        send("first");
        let request = builder.build().unwrap().post(site.url("/echo"));
        let mut response = request.body(reqwest::Body::wrap(StreamBody::new(parts))).send().await.unwrap();
        // Each part is sent after the previous one has come back.
        assert_eq!(response.chunk().await.unwrap().unwrap(), "first");
        send("second");
        assert_eq!(response.chunk().await.unwrap().unwrap(), "second");
        sender.close_channel();
        assert_eq!(response.bytes().await.unwrap(), "");
    }
}

#[tokio::test]
async fn endpoints_take_turns_and_an_unreachable_one_fails_no_request() {
    let (site, first) = simple("first").await;
    // Same port as the first, of another pod.
    let pod = unused_pod();
    let dead = unused_pod();
    let listener = tokio::net::TcpListener::bind(pod.dialable(first.port)).await.unwrap();
    let router = axum::Router::new().fallback(async || json!({ "name": "second" }).to_string());
    let second = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let addresses = [first.pod.to_string(), pod.to_string(), dead.to_string()];
    service(&site.namespace, "one", first.port, &addresses.each_ref().map(|address| (address.as_str(), true))).await;
    let mut names = BTreeSet::new();
    until("both have answered", async || {
        names.insert(site.name_at("/").await);
        names.len() == 2
    })
    .await;
    for _ in 0..12 {
        site.name_at("/").await;
    }
    second.abort();
}

#[tokio::test]
async fn only_ready_endpoints_of_the_testbed_are_dialled_at_their_loopback_address() {
    let (site, backend) = simple("one").await;
    let pod = backend.pod.to_string();
    // One is not ready. The other is an address outside the testbed, which another machine may have.
    service(&site.namespace, "one", backend.port, &[(&pod, false), ("10.9.9.9", true)]).await;
    site.until_status("/", StatusCode::SERVICE_UNAVAILABLE).await;
    let (_, text) = site.answer("/").await;
    assert!(text.contains(&format!("{}/one:http", site.namespace)), "{text}");

    let dead = unused_pod();
    service(&site.namespace, "one", backend.port, &[(&dead.to_string(), true)]).await;
    site.until_status("/", StatusCode::BAD_GATEWAY).await;
    let (_, text) = site.answer("/").await;
    assert!(text.contains(&dead.dialable(backend.port).to_string()), "{text}");
    assert!(!text.contains("10.244."), "{text}");
}

#[tokio::test]
async fn an_ingress_status_is_written_once() {
    let since = control_plane().audit().mark().unwrap();
    let (site, _backend) = simple("one").await;
    let written = async || {
        let status = site.ingresses().get("testbed").await.unwrap().status?;
        status.load_balancer?.ingress?.into_iter().next()?.hostname
    };
    until("its status is written", async || written().await.as_deref() == Some("localhost")).await;
    // Changes to other objects trigger the edge, so that it could write again.
    for ready in [false, true, false, true] {
        service(&site.namespace, "two", 80, &[("10.244.1.1", ready)]).await;
    }
    site.ingress("testbed", "tls", &[("/", "Prefix", "one"), ("/late", "Prefix", "one")]).await;
    until("it has seen them", async || site.name_at("/late").await == "one").await;
    let mut writes = control_plane().audit().writes(since, "admin").await.unwrap();
    writes.retain(|write| {
        write.namespace.as_ref() == Some(&site.namespace) && write.subresource.as_deref() == Some("status")
    });
    assert_eq!(writes.len(), 1, "{writes:?}");
}
