//! Client of the API server, with timeouts and a count of all requests.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use http::{Method, Request, Response, Uri};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder},
};
use tower::{BoxError, Layer, Service, timeout::TimeoutLayer};

use crate::runtime::metrics::Metrics;

/// Timeout until the head of an answer, with all of kube's own retries of refused requests. Without it, those retries
/// could take a quarter of an hour.
const ANSWER: Duration = Duration::from_secs(10);
/// Timeout between two bytes of an answer's body. It is longer than a watch without news.
const SILENCE: Duration = Duration::from_secs(240);

/// Builds a client with timeouts that counts its requests.
pub(crate) fn client(config: Config, metrics: Metrics) -> kube::Result<Client> {
    client_within(ANSWER, config, metrics)
}

fn client_within(answer: Duration, mut config: Config, metrics: Metrics) -> kube::Result<Client> {
    config.read_timeout = Some(SILENCE);
    config.reset_reader_on_write = true;
    Ok(ClientBuilder::try_from(config)?.with_layer(&TimeoutLayer::new(answer)).with_layer(&Counting(metrics)).build())
}

/// A layer that counts requests.
#[derive(Clone)]
struct Counting(Metrics);

#[derive(Clone)]
struct Counted<S> {
    inner: S,
    metrics: Metrics,
}

impl<S> Layer<S> for Counting {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner, metrics: self.0.clone() }
    }
}

impl<S, B> Service<Request<Body>> for Counted<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError, Future: Send + 'static>,
    B: 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<B>, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (metrics, verb) = (self.metrics.clone(), verb(request.method(), request.uri()));
        let answer = self.inner.call(request);
        async move {
            let answer = answer.await;
            metrics.request(verb, answer.as_ref().ok().map(|answer| answer.status().as_u16()));
            answer
        }
        .boxed()
    }
}

/// Returns the verb of a request, as in Kubernetes' roles and its audit log.
fn verb(method: &Method, uri: &Uri) -> &'static str {
    match (method, is_collection(uri.path())) {
        (&Method::POST, _) => "create",
        (&Method::PUT, _) => "update",
        (&Method::PATCH, _) => "patch",
        (&Method::DELETE, false) => "delete",
        (&Method::DELETE, true) => "deletecollection",
        (_, true) if uri.query().is_some_and(|query| query.split('&').any(|pair| pair == "watch=true")) => "watch",
        (_, true) => "list",
        _ => "get",
    }
}

/// Returns true if the path is a collection, `/api/v1/…` or `/apis/group/version/…`, of one namespace or of all.
fn is_collection(path: &str) -> bool {
    let mut segments = path.split('/').filter(|segment| !segment.is_empty());
    let version = match segments.next() {
        Some("api") => segments.next(),
        Some("apis") => segments.nth(1),
        _ => None,
    };
    let rest: Vec<&str> = segments.collect();
    version.is_some() && matches!(rest[..], [_] | ["namespaces", _, _])
}

#[cfg(test)]
mod tests {
    use prometheus_client::{encoding::text::encode, registry::Registry};

    use super::*;

    #[tokio::test]
    async fn an_answer_that_does_not_come_is_given_up_and_counted() {
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        // The kernel accepts connections, and no process answers on them.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let config = Config::new(format!("http://{}", silent.local_addr().unwrap()).parse().unwrap());
        let mut registry = Registry::default();
        let client = client_within(Duration::from_millis(50), config, Metrics::register(&mut registry)).unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(5), client.apiserver_version()).await;
        assert!(answer.expect("it times out").is_err());
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        assert!(text.contains("mcp_entra_operator_api_requests_total{verb=\"get\",code=\"none\"} 1"), "{text}");
    }

    #[test]
    fn a_request_is_called_what_kubernetes_calls_it() {
        let verb = |method: Method, uri: &str| verb(&method, &uri.parse().unwrap());
        let pods = "https://cluster/api/v1/namespaces/a/pods";
        assert_eq!(verb(Method::GET, &format!("{pods}?limit=500")), "list");
        assert_eq!(verb(Method::GET, &format!("{pods}?limit=500&watch=true&x=y")), "watch");
        assert_eq!(verb(Method::GET, "https://cluster/apis/apps/v1/deployments"), "list");
        assert_eq!(verb(Method::GET, "https://cluster/api/v1/namespaces"), "list");
        assert_eq!(verb(Method::GET, "https://cluster/api/v1/namespaces/a"), "get");
        assert_eq!(verb(Method::GET, &format!("{pods}/b?watch=true")), "get");
        assert_eq!(verb(Method::GET, "https://cluster/apis/apps/v1"), "get");
        assert_eq!(verb(Method::POST, pods), "create");
        assert_eq!(verb(Method::PUT, &format!("{pods}/b")), "update");
        assert_eq!(verb(Method::PATCH, &format!("{pods}/b/status")), "patch");
        assert_eq!(verb(Method::DELETE, &format!("{pods}/b")), "delete");
        assert_eq!(verb(Method::DELETE, pods), "deletecollection");
    }
}
