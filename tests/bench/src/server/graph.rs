//! Microsoft Graph with one profile over HTTPS for every caller, which is all that the bench needs.
//!
//! The emulator's Graph verifies each token, checks permissions, and logs each request. This takes longer than a whole
//! call of a fast server, so that it would limit the measured figures.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// A running Graph; it ends with its runtime.
pub(super) struct StaticGraph {
    /// `https://localhost:PORT`
    pub(super) url: String,
    /// The certificate to trust (PEM).
    pub(super) ca_pem: String,
}

impl StaticGraph {
    /// Listens on a free port.
    pub(super) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("https://localhost:{}", listener.local_addr()?.port());
        let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let ca_pem = certificate.cert.pem();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut configuration = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.cert.der().clone()], PrivateKeyDer::from(certificate.signing_key))?;
        // Same as the real Graph.
        configuration.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(configuration));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(acceptor.clone(), stream));
            }
        });
        Ok(Self { url, ca_pem })
    }
}

/// The profile of every user.
pub(super) fn profile() -> Value {
    json!({
        "id": "48d31887-5fad-4d73-a9f5-3c356e68a038",
        "displayName": "Megan Bowen",
        "givenName": "Megan",
        "surname": "Bowen",
        "userPrincipalName": "meganb@contoso.com",
        "mail": "meganb@contoso.com",
        "jobTitle": "Auditor",
        "officeLocation": "12/1110",
        "mobilePhone": null,
        "businessPhones": ["+1 412 555 0109"],
        "preferredLanguage": "en-US",
    })
}

async fn serve(acceptor: TlsAcceptor, stream: TcpStream) {
    _ = stream.set_nodelay(true);
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let body = Bytes::from(profile().to_string());
    let service = service_fn(move |_: Request<Incoming>| {
        let mut answer = Response::new(Full::new(body.clone()));
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        async { Ok::<_, Infallible>(answer) }
    });
    // Graph ignores clients that disconnect.
    _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}
