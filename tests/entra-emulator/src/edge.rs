//! Edge of a server under test: terminates TLS on its own port, and forwards every byte.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::tls;

/// A port with TLS, which ends with its runtime. It forwards connections after the server is known.
pub struct Edge {
    /// `https://localhost:PORT`
    pub origin: String,
    /// The certificate authority to trust (PEM).
    pub ca_pem: String,
    target: Arc<OnceLock<SocketAddr>>,
}

impl Edge {
    /// Listens on a free port.
    ///
    /// # Errors
    /// If no port is free, or no certificate can be made.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let origin = format!("https://localhost:{}", listener.local_addr()?.port());
        let (ca_pem, configuration) = tls::configuration("edge", "localhost")?;
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
        Ok(Self { origin, ca_pem, target })
    }

    /// Sets the server. Only the first call has an effect.
    pub fn lead_to(&self, target: SocketAddr) {
        _ = self.target.set(target);
    }
}
