//! Certificate of each host, from the Secret that an Ingress or a listener names.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use anyhow::Context;
use arc_swap::ArcSwap;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::networking::v1::Ingress;
use kube::ResourceExt;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::is_ours;
use crate::certificates::{Certificate, CertificateAuthority};

/// Certificates by host, in lower case, with `*.`; the reason if the Secret is missing or unusable.
#[derive(Default)]
pub(super) struct Certificates(HashMap<String, Result<Arc<CertifiedKey>, String>>);

impl Certificates {
    /// Certificates of Ingresses, and of listeners by hostname. `*` is any hostname.
    pub(super) fn new(
        ingresses: &[Arc<Ingress>],
        secrets: &[Arc<Secret>],
        others: impl Iterator<Item = (String, Result<Arc<CertifiedKey>, String>)>,
    ) -> Self {
        let mut certificates: HashMap<_, _> = others.collect();
        for ingress in ingresses.iter().filter(|ingress| is_ours(ingress)) {
            for tls in ingress.spec.iter().flat_map(|spec| spec.tls.iter().flatten()) {
                let namespace = ingress.namespace().unwrap_or_default();
                let key = find(&namespace, tls.secret_name.as_deref().unwrap_or_default(), secrets);
                for host in tls.hosts.iter().flatten() {
                    certificates.insert(host.to_ascii_lowercase(), key.clone());
                }
            }
        }
        Self(certificates)
    }

    /// The longest matching name wins.
    fn find(&self, host: &str) -> Result<Arc<CertifiedKey>, String> {
        let parents = std::iter::successors(Some(host), |name| name.split_once('.').map(|(_, parent)| parent));
        let wildcards = parents.skip(1).map(|parent| format!("*.{parent}"));
        let mut names = std::iter::once(host.to_owned()).chain(wildcards).chain(["*".to_owned()]);
        names
            .find_map(|name| self.0.get(&name))
            .cloned()
            .unwrap_or_else(|| Err("no Ingress and no listener has a certificate for it".to_owned()))
    }
}

/// Returns the certificate in a Secret, or the reason why it is unusable.
pub(super) fn find(namespace: &str, name: &str, secrets: &[Arc<Secret>]) -> Result<Arc<CertifiedKey>, String> {
    let mut secrets = secrets.iter();
    match secrets.find(|secret| secret.namespace().as_deref() == Some(namespace) && secret.name_any() == name) {
        Some(secret) => usable(secret).map_err(|error| format!("Secret {namespace}/{name}: {error:#}")),
        None => Err(format!("there is no Secret {namespace}/{name} of type kubernetes.io/tls")),
    }
}

fn usable(secret: &Secret) -> anyhow::Result<Arc<CertifiedKey>> {
    let data = |name: &str| {
        let data = secret.data.as_ref().and_then(|data| data.get(name));
        data.map(|data| data.0.as_slice()).with_context(|| format!("it has no {name}"))
    };
    certified(data("tls.crt")?, data("tls.key")?)
}

fn certified(certificates: &[u8], key: &[u8]) -> anyhow::Result<Arc<CertifiedKey>> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificates).collect::<Result<_, _>>().context("tls.crt")?;
    let key = PrivateKeyDer::from_pem_slice(key).context("tls.key")?;
    // Refuses an empty chain, and a key of another certificate.
    Ok(Arc::new(CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())?))
}

/// Selects a certificate by server name. If none is usable, it serves one for `edge.invalid`, as controllers do.
pub(super) struct Resolver {
    pub(super) current: ArcSwap<Certificates>,
    fallback: Arc<CertifiedKey>,
}

impl Resolver {
    pub(super) fn new() -> anyhow::Result<Self> {
        let Certificate { certificate_pem, key_pem } =
            CertificateAuthority::new("testbed-edge")?.issue(&["edge.invalid"])?;
        Ok(Self { current: ArcSwap::default(), fallback: certified(certificate_pem.as_bytes(), key_pem.as_bytes())? })
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let host = hello.server_name().unwrap_or_default().to_ascii_lowercase();
        let found = self.current.load().find(&host);
        Some(found.unwrap_or_else(|why| {
            tracing::warn!(host, "serving the certificate for edge.invalid: {why}");
            Arc::clone(&self.fallback)
        }))
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}
