//! Certificate authority for the testbed's own HTTPS.

use std::ops::Range;
use std::time::SystemTime;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

/// Certificate authority that exists only in memory.
pub struct CertificateAuthority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// Certificate and its key, both PEM.
#[derive(Clone)]
pub struct Certificate {
    /// Certificate without the issuer's.
    pub certificate_pem: String,
    /// PKCS#8 key.
    pub key_pem: String,
}

impl CertificateAuthority {
    /// Creates an authority with its own key. `name` is its common name.
    ///
    /// # Errors
    /// If no key can be made.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let mut params = params(name, &[])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)? })
    }

    /// Certificate of the authority.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Issues a certificate for servers and clients with these DNS names and IP addresses. The first is its common
    /// name.
    ///
    /// # Errors
    /// If one of them is neither a DNS name nor an IP address.
    pub fn issue(&self, names: &[&str]) -> anyhow::Result<Certificate> {
        self.issue_with(names, |_| ())
    }

    /// Issues a certificate that is valid in this period.
    ///
    /// # Errors
    /// Same as [`CertificateAuthority::issue`].
    pub fn issue_for(&self, names: &[&str], valid: Range<SystemTime>) -> anyhow::Result<Certificate> {
        self.issue_with(names, |params| {
            params.not_before = valid.start.into();
            params.not_after = valid.end.into();
        })
    }

    fn issue_with(&self, names: &[&str], with: impl FnOnce(&mut CertificateParams)) -> anyhow::Result<Certificate> {
        let mut params = params(names.first().copied().unwrap_or_default(), names)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        with(&mut params);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Certificate { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }
}

fn params(common_name: &str, names: &[&str]) -> anyhow::Result<CertificateParams> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    Ok(params)
}
