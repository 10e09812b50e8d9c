//! Service account issuer of a cluster: discovery document and keys over HTTPS, and projected tokens as from the
//! kubelet.

use std::sync::Arc;

use axum::{Json, Router, routing::get};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use jsonwebtoken::{
    Algorithm, EncodingKey, Header,
    jwk::{Jwk, PublicKeyUse},
};
use rcgen::{KeyPair, PKCS_RSA_SHA256};
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const KEY_ID: &str = "service-account-key";

/// A running issuer; it ends with its runtime.
pub struct Issuer {
    /// `iss` of its tokens.
    pub url: String,
    /// Certificate authority (PEM) of its documents.
    pub ca_pem: String,
    key: EncodingKey,
}

impl Issuer {
    /// Starts an issuer on a free port.
    ///
    /// # Errors
    /// If no port is free, or no key or certificate can be made.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("https://localhost:{}", listener.local_addr()?.port());
        let key = EncodingKey::from_rsa_pem(KeyPair::generate_for(&PKCS_RSA_SHA256)?.serialize_pem().as_bytes())?;
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::RS256)?;
        jwk.common.key_id = Some(KEY_ID.to_owned());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);

        let discovery = json!({ "issuer": url, "jwks_uri": format!("{url}/openid/v1/jwks") });
        let keys = json!({ "keys": [jwk] });
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(async || Json(discovery)))
            .route("/openid/v1/jwks", get(async || Json(keys)));
        let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let ca_pem = certificate.cert.pem();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let configuration = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.cert.der().clone()], PrivateKeyDer::from(certificate.signing_key))?;
        tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(configuration)), router));
        Ok(Self { url, ca_pem, key })
    }

    /// A projected token for this subject and audience, valid for an hour.
    ///
    /// # Errors
    /// If it cannot be signed.
    pub fn token(&self, subject: &str, audience: &str) -> anyhow::Result<String> {
        let now = jiff::Timestamp::now().as_second();
        self.sign(&json!({
            "iss": self.url, "sub": subject, "aud": [audience], "iat": now, "nbf": now, "exp": now + 3600,
        }))
    }

    /// Signs these claims with the issuer's key.
    ///
    /// # Errors
    /// If they cannot be signed.
    pub fn sign(&self, claims: &Value) -> anyhow::Result<String> {
        let header = Header { kid: Some(KEY_ID.to_owned()), ..Header::new(Algorithm::RS256) };
        Ok(jsonwebtoken::encode(&header, claims, &self.key)?)
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, router: Router) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, router) = (acceptor.clone(), router.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = TowerToHyperService::new(router);
            // The issuer ignores clients that disconnect early.
            _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
