//! Certificate authorities that programs in an image trust: Mozilla's, of the release in Cargo.lock, not those of the
//! build machine.

/// Path at which programs look for the certificates: the one of Debian's paths that every TLS library knows.
pub(crate) const PATH: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The certificates as PEM.
#[must_use]
pub(crate) fn bundle() -> Vec<u8> {
    let certificates = webpki_root_certs::TLS_SERVER_ROOT_CERTS
        .iter()
        .map(|certificate| pem::Pem::new("CERTIFICATE", certificate.as_ref()))
        .collect::<Vec<_>>();
    pem::encode_many_config(&certificates, pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF)).into_bytes()
}
