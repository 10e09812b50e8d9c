//! TLS: the emulator's own certificate authority, a leaf for this machine, and the loop that serves a router over TLS.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Extension, Router};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Timeout of a client's TLS handshake.
const HANDSHAKE_TIME_OUT: Duration = Duration::from_secs(10);
/// Delay between attempts after an error of the system.
const PAUSE: Duration = Duration::from_millis(100);

/// A server's side of TLS, and the authority that clients have to trust.
pub(crate) struct Identity {
    pub(crate) ca_pem: String,
    acceptor: TlsAcceptor,
}

impl Identity {
    /// Makes an authority and, signed by it, a certificate for `host`, `localhost` and `127.0.0.1`.
    pub(crate) fn generate(host: &str) -> anyhow::Result<Self> {
        let (ca_pem, mut config) = configuration("entra-emulator", host)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { ca_pem, acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    /// Serves `router` on `listener` until `stop`, while `door` is open. Open connections end with either.
    pub(crate) async fn serve(
        &self,
        mut listener: TcpListener,
        router: Router,
        door: &Door,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let address = listener.local_addr()?;
        loop {
            let connections = stop.child_token();
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = door.wants(false) => {}
                () = self.accept(&listener, &router, &connections) => {}
            }
            drop(listener);
            connections.cancel();
            door.is_open.send_replace(false);
            let reopened = async {
                door.wants(true).await;
                bind_again(address).await
            };
            listener = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                listener = reopened => listener,
            };
            door.is_open.send_replace(true);
        }
    }

    async fn accept(&self, listener: &TcpListener, router: &Router, connections: &CancellationToken) {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let connection = connection(self.acceptor.clone(), stream, peer, router.clone());
                    tokio::spawn(connections.clone().run_until_cancelled_owned(connection));
                }
                // Probably no file descriptor is free. Without a pause this would be a busy loop.
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Makes an authority of this name (PEM) and, signed by it, a server's side of TLS for `host`, `localhost` and `127.0.0.1`.
pub(crate) fn configuration(authority: &str, host: &str) -> anyhow::Result<(String, ServerConfig)> {
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    ca.distinguished_name.push(DnType::CommonName, authority);
    let ca_key = KeyPair::generate()?;
    let ca_pem = ca.self_signed(&ca_key)?.pem();

    let leaf_key = KeyPair::generate()?;
    let mut leaf = CertificateParams::new(["127.0.0.1", "localhost", host].map(str::to_owned).to_vec())?;
    leaf.use_authority_key_identifier_extension = true;
    let leaf = leaf.signed_by(&leaf_key, &Issuer::new(ca, ca_key))?;

    // Explicit, so that the start of an emulator does not depend on a provider installed for the whole process.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::from(leaf_key))?;
    Ok((ca_pem, config))
}

/// While the host was closed, another process may have used its port for a moment.
async fn bind_again(address: SocketAddr) -> TcpListener {
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) => tracing::warn!(%error, %address, "cannot listen again yet"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Reachability of a host: as tests set it, and as it is.
pub(crate) struct Door {
    wanted: watch::Sender<bool>,
    is_open: watch::Sender<bool>,
}

impl Default for Door {
    fn default() -> Self {
        Self { wanted: watch::Sender::new(true), is_open: watch::Sender::new(true) }
    }
}

impl Door {
    /// Returns when the host has the requested state.
    pub(crate) async fn set_open(&self, open: bool) {
        self.wanted.send_replace(open);
        until(&self.is_open, open).await;
    }

    async fn wants(&self, open: bool) {
        until(&self.wanted, open).await;
    }
}

async fn until(sender: &watch::Sender<bool>, value: bool) {
    // It fails only if the sender is gone, and the sender is borrowed here.
    drop(sender.subscribe().wait_for(|now| *now == value).await);
}

/// Ends the connection of a request.
#[derive(Clone)]
pub(crate) struct HangUp(CancellationToken);

impl HangUp {
    pub(crate) fn now(&self) {
        self.0.cancel();
    }
}

async fn connection(acceptor: TlsAcceptor, stream: TcpStream, peer: SocketAddr, router: Router) {
    let stream = match tokio::time::timeout(HANDSHAKE_TIME_OUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%peer, %error, "the TLS handshake failed"),
        Err(_) => return tracing::debug!(%peer, "the TLS handshake took too long"),
    };
    let hang_up = CancellationToken::new();
    let service = TowerToHyperService::new(router.layer(Extension(HangUp(hang_up.clone()))));
    let builder = Builder::new(TokioExecutor::new());
    let served = hang_up.run_until_cancelled(builder.serve_connection(TokioIo::new(stream), service)).await;
    if let Some(Err(error)) = served {
        tracing::debug!(%peer, %error, "the connection ended early");
    }
}
