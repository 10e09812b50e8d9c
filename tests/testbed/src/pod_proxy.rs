//! Forward proxy to pods, for programs that poll pods at their announced addresses, as the operator does.

use std::sync::Arc;

use http::uri::Scheme;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::Either;
use hyper::body::Incoming;

use crate::address::Pods;
use crate::forward::{Body, Limited, Target, forward};
use crate::network_policy::{Identity, NetworkPolicies};
use crate::serve::{Serving, answer, serve};

/// Running proxy; it ends when dropped. It forwards `GET http://10.244.B.C:PORT/…` to the pod that announced this
/// address, and refuses everything else.
pub struct PodProxy {
    serving: Serving,
}

impl PodProxy {
    /// Starts the proxy on a free loopback port, on the current tokio runtime.
    ///
    /// # Errors
    /// If it cannot listen.
    pub async fn start() -> anyhow::Result<Self> {
        Ok(Self { serving: serve(None, |request, _| handle(request, None)).await? })
    }

    /// Starts a proxy for these pods. It refuses the connections that NetworkPolicies do not allow them.
    ///
    /// # Errors
    /// Same as [`PodProxy::start`].
    pub async fn start_as(policies: NetworkPolicies, identity: Identity) -> anyhow::Result<Self> {
        let guard = Arc::new((policies, identity));
        Ok(Self { serving: serve(None, move |request, _| handle(request, Some(Arc::clone(&guard)))).await? })
    }

    /// Value for the HTTP proxy: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.serving.address())
    }
}

async fn handle(request: Request<Incoming>, guard: Option<Arc<(NetworkPolicies, Identity)>>) -> Response<Body> {
    let target = match target(request.method(), request.uri()) {
        Ok(target) => target,
        Err(why) => return answer(StatusCode::FORBIDDEN, why),
    };
    let refused = guard.and_then(|guard| guard.0.check(&guard.1, target.pod.ip(), target.port).err());
    if let Some(why) = refused {
        return answer(StatusCode::GATEWAY_TIMEOUT, format!("pod {}: {why}", target.pod));
    }
    match forward(request, [target], Pods::Processes).await {
        Ok(response) => response.map(|body| Either::Left(Limited::new(body, None))),
        Err(error) => answer(StatusCode::BAD_GATEWAY, format!("pod {}: {error}", target.pod)),
    }
}

fn target(method: &Method, uri: &Uri) -> Result<Target, String> {
    if method != Method::GET {
        return Err(format!("this proxy only forwards GET, not {method}"));
    }
    if uri.scheme() != Some(&Scheme::HTTP) {
        return Err("this proxy only forwards http://10.244.B.C:PORT/…".to_owned());
    }
    let pod = uri.host().unwrap_or_default().parse().map_err(|error| format!("{error}"))?;
    Ok(Target { pod, port: uri.port_u16().unwrap_or(80) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_get_to_an_announced_address_has_a_target() {
        let target = |method, uri: &str| target(&method, &uri.parse().unwrap());
        let found = target(Method::GET, "http://10.244.1.2:9090/status").unwrap();
        assert_eq!(found, Target { pod: crate::address::Announced::new(1, 2), port: 9090 });
        assert_eq!(target(Method::GET, "http://10.244.1.2/status").unwrap().port, 80);
        for (method, uri) in [
            (Method::POST, "http://10.244.1.2:9090/status"),
            (Method::CONNECT, "10.244.1.2:9090"),
            (Method::GET, "https://10.244.1.2:9090/status"),
            (Method::GET, "/status"),
            (Method::GET, "http://10.245.1.2:9090/status"),
            (Method::GET, "http://127.0.0.1:9090/status"),
            (Method::GET, "http://127.244.1.2:9090/status"),
            (Method::GET, "http://localhost:9090/status"),
        ] {
            assert!(target(method.clone(), uri).is_err(), "{method} {uri}");
        }
    }
}
