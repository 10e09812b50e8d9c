//! The edge before a server: it ends TLS on a port of its own, and passes on every byte.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// A port with TLS. Connections go to a server once it is known.
pub(crate) struct Edge {
    /// `https://localhost:PORT`
    pub(crate) origin: String,
    /// The certificate authority to trust (PEM).
    pub(crate) ca_pem: String,
    target: Arc<OnceLock<SocketAddr>>,
}

impl Edge {
    /// Listens on a free port.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let (ca_pem, configuration) = identity();
        let acceptor = TlsAcceptor::from(Arc::new(configuration));
        let target = Arc::<OnceLock<SocketAddr>>::default();
        let known = Arc::clone(&target);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, target) = (acceptor.clone(), known.get().copied());
                tokio::spawn(async move {
                    let (Some(target), Ok(mut client)) = (target, acceptor.accept(stream).await) else { return };
                    if let Ok(mut server) = TcpStream::connect(target).await {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        Self { origin, ca_pem, target }
    }

    /// Leads to this server from now on.
    pub(crate) fn lead_to(&self, target: SocketAddr) {
        self.target.set(target).unwrap();
    }
}

/// A certificate for `localhost`, and its authority.
fn identity() -> (String, ServerConfig) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let configuration =
        ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap();
    (issuer.pem(), configuration)
}
