//! Whom to trust with `wss://`.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::Error;

/// TLS settings, made once and shared by all connections (clones share them, too).
#[derive(Clone)]
pub struct Tls(Arc<ClientConfig>);

impl Tls {
    /// Trusts servers whose certificates lead to one of these roots: certificates in PEM form, one or more.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`]: the text is not PEM, holds no certificate, or holds one that cannot be a root.
    pub fn with_roots_pem(pem: &[u8]) -> Result<Self, Error> {
        let invalid = |why: String| Error::InvalidConfig(format!("root certificates: {why}"));
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| invalid(error.to_string()))?;
            roots.add(certificate).map_err(|error| invalid(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(invalid("there are none".to_owned()));
        }
        // Named explicitly, so that it does not matter whether and which process-wide provider an application installs.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| invalid(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(Arc::new(config)))
    }

    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        self.0.clone()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}
