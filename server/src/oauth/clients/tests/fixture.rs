//! Clients of a configuration, and a publisher of documents on this machine.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use mcp_entra_policy::{AuthorizationServerConfiguration, KeyEpochs};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::oauth::clients::Clients;
use crate::oauth::clients::fetch::{Fetcher, Network};
use crate::oauth::keys::KeyRing;
use crate::oauth::seal::Sealer;

pub(super) const ISSUER: &str = "https://mcp.example/graph";
/// The host in the publisher's certificate.
pub(super) const HOST: &str = "client.example";
/// Address of a publisher that counts as public.
pub(super) const PUBLIC: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
/// Address of a publisher that counts as private, and must get no connection.
pub(super) const PRIVATE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));

/// Returns the configuration with these members besides the required ones.
pub(super) fn configuration(members: Value) -> AuthorizationServerConfiguration {
    let mut configuration =
        json!({"sessionStore": {"memory": {}}, "keys": {"registration": 1, "epochs": [{"number": 1}]}});
    configuration.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    serde_json::from_value(configuration).unwrap()
}

pub(super) fn sealer(registration: u32, issuer: &str) -> Sealer {
    let keys: KeyEpochs =
        serde_json::from_value(json!({"registration": registration, "epochs": [{"number": 1}]})).unwrap();
    Sealer::new(Arc::new(KeyRing::for_test(&keys, issuer)))
}

/// Returns clients that cannot fetch documents.
pub(super) fn clients(members: Value) -> Clients {
    let fetcher = Fetcher::new(None, None).unwrap();
    Clients::new(&configuration(members), sealer(1, ISSUER), fetcher)
}

/// Addresses of every name: first answer, second answer, and so on. The last one repeats.
pub(super) struct Names {
    answers: Mutex<Vec<Vec<IpAddr>>>,
    asked: Mutex<Vec<String>>,
}

impl Names {
    pub(super) fn new(answers: &[&[IpAddr]]) -> Arc<Self> {
        let answers = answers.iter().rev().map(|addresses| addresses.to_vec()).collect();
        Arc::new(Self { answers: Mutex::new(answers), asked: Mutex::default() })
    }

    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        self.asked.lock().unwrap().push(name.as_str().to_owned());
        let mut answers = self.answers.lock().unwrap();
        let addresses = if answers.len() > 1 { answers.pop() } else { answers.last().cloned() }.unwrap_or_default();
        let addresses = addresses.into_iter().map(|address| SocketAddr::new(address, 0));
        Box::pin(async move { Ok(Box::new(addresses) as Addrs) })
    }
}

/// A web server on this machine with a certificate for [`HOST`] and its subdomains.
pub(super) struct Publisher {
    pub(super) port: u16,
    ca_pem: String,
    /// Numbers of connections: to the private and to the public address.
    connections: Arc<[AtomicUsize; 2]>,
    _stop: DropGuard,
}

impl Publisher {
    /// Serves this router at [`PUBLIC`] and [`PRIVATE`] on one port.
    pub(super) async fn start(router: impl FnOnce(u16) -> Router) -> Self {
        let (public, private) = listeners().await;
        let port = public.local_addr().unwrap().port();
        let (ca_pem, acceptor) = identity();
        let (stop, connections, router) = (CancellationToken::new(), Arc::<[AtomicUsize; 2]>::default(), router(port));
        for (listener, index) in [(public, 0), (private, 1)] {
            let (acceptor, router, connections) = (acceptor.clone(), router.clone(), Arc::clone(&connections));
            let serving = async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    connections[index].fetch_add(1, Ordering::SeqCst);
                    let (acceptor, service) = (acceptor.clone(), TowerToHyperService::new(router.clone()));
                    tokio::spawn(async move {
                        let stream = acceptor.accept(stream).await.ok()?;
                        Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await.ok()
                    });
                }
            };
            tokio::spawn(stop.clone().run_until_cancelled_owned(serving));
        }
        Self { port, ca_pem, connections, _stop: stop.drop_guard() }
    }

    pub(super) fn url(&self, path: &str) -> String {
        url(self.port, path)
    }

    /// Returns the numbers of connections to the public and to the private address.
    pub(super) fn connections(&self) -> (usize, usize) {
        let [public, private] = &*self.connections;
        (public.load(Ordering::SeqCst), private.load(Ordering::SeqCst))
    }

    /// Returns clients that fetch documents from here.
    pub(super) fn clients(&self, members: Value) -> Clients {
        self.clients_with(members, Names::new(&[&[PUBLIC]]), Duration::from_secs(10))
    }

    pub(super) fn clients_with(&self, members: Value, names: Arc<Names>, patience: Duration) -> Clients {
        let network = Network { names, is_public: |address| address == PUBLIC, any_port: true, patience };
        let fetcher = Fetcher::within(network, Some(self.ca_pem.as_bytes())).unwrap();
        Clients::new(&configuration(members), sealer(1, ISSUER), fetcher)
    }
}

pub(super) fn url(port: u16, path: &str) -> String {
    format!("https://{HOST}:{port}{path}")
}

/// Returns listeners at both addresses on one port. Retries, because another test may take the second one.
async fn listeners() -> (TcpListener, TcpListener) {
    loop {
        let public = TcpListener::bind((PUBLIC, 0)).await.unwrap();
        let port = public.local_addr().unwrap().port();
        if let Ok(private) = TcpListener::bind((PRIVATE, port)).await {
            return (public, private);
        }
    }
}

fn identity() -> (String, TlsAcceptor) {
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().unwrap();
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![HOST.to_owned(), format!("*.{HOST}")]).unwrap();
    let leaf = leaf.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::from(key))
        .unwrap();
    (ca_pem, TlsAcceptor::from(Arc::new(config)))
}

/// Returns the redirect URIs of a client, sorted.
pub(super) fn redirects_of(client: &crate::oauth::clients::Client) -> BTreeSet<&str> {
    client.redirect_uris.iter().map(|uri| uri.as_str()).collect()
}
