//! TLS towards Redis.

use std::{fmt, io, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::settings::SettingsError;
use crate::config::{Pem, TlsOptions};

/// How to check a Redis server, and how to show ourselves to it. A clone is a reference count.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ClientConfig>,
    server_name: Option<String>,
}

/// What a [`Tls`] is made of; all texts are PEM.
#[derive(Clone, Debug, Default)]
pub struct TlsMaterial {
    /// Root certificates to check the server by; those of the system when absent.
    pub server_ca: Option<Vec<u8>>,
    /// Our certificate chain and its key, when the server asks for one.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// Name to check the certificate against; the host connected to when absent.
    pub server_name: Option<String>,
    /// Takes any certificate: protects against listening only.
    pub insecure_skip_verify: bool,
}

impl Tls {
    /// # Errors
    ///
    /// Text that is no PEM of the right kind, a key that does not belong to the certificate, or no root certificates.
    pub fn new(material: &TlsMaterial) -> Result<Self, SettingsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong("versions", error))?;
        let builder = if material.insecure_skip_verify {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(algorithms(&provider))))
        } else {
            builder.with_root_certificates(roots(material.server_ca.as_deref())?)
        };
        let config = match &material.identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let chain = certificates("cert_pem", chain)?;
                let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| wrong("key_pem", error))?;
                builder.with_client_auth_cert(chain, key).map_err(|error| wrong("cert_pem", error))?
            }
        };
        Ok(Self { config: Arc::new(config), server_name: material.server_name.clone() })
    }

    /// The given one, or else one that checks by the root certificates of the system.
    pub(super) fn or_default(given: &Option<Self>) -> Result<Self, SettingsError> {
        given.clone().map_or_else(|| Self::new(&TlsMaterial::default()), Ok)
    }

    /// Shakes hands over a fresh connection to `host`.
    pub(super) async fn connect(&self, host: &str, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = self.server_name.as_deref().unwrap_or(host).to_owned();
        let name = ServerName::try_from(name).map_err(io::Error::other)?;
        TlsConnector::from(Arc::clone(&self.config)).connect(name, stream).await
    }
}

impl TryFrom<&TlsOptions> for Tls {
    type Error = SettingsError;

    /// Reads the files that the options name.
    fn try_from(options: &TlsOptions) -> Result<Self, SettingsError> {
        let load =
            |option, pem: &Option<Pem>| pem.as_ref().map(Pem::load).transpose().map_err(|error| wrong(option, error));
        let identity = match (load("cert_pem", &options.cert_pem)?, load("key_pem", &options.key_pem)?) {
            (Some(chain), Some(key)) => Some((chain, key)),
            (None, None) => None,
            (Some(_), None) => return Err(wrong("key_pem", "missing beside cert_pem")),
            (None, Some(_)) => return Err(wrong("cert_pem", "missing beside key_pem")),
        };
        Self::new(&TlsMaterial {
            server_ca: load("server_ca_pem", &options.server_ca_pem)?,
            identity,
            server_name: options.server_name.clone(),
            insecure_skip_verify: options.insecure_skip_verify,
        })
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

fn wrong(option: &str, error: impl fmt::Display) -> SettingsError {
    SettingsError(format!("redis.tls.{option}: {error}"))
}

fn roots(ca: Option<&[u8]>) -> Result<RootCertStore, SettingsError> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(pem) => {
            for certificate in certificates("server_ca_pem", pem)? {
                roots.add(certificate).map_err(|error| wrong("server_ca_pem", error))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    Ok(roots)
}

fn certificates(option: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, SettingsError> {
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|error| wrong(option, error))?;
    if certificates.is_empty() { Err(wrong(option, "no certificate in it")) } else { Ok(certificates) }
}

fn algorithms(provider: &CryptoProvider) -> WebPkiSupportedAlgorithms {
    provider.signature_verification_algorithms
}

/// `insecure_skip_verify`: checks that the server holds the key of its certificate, and nothing about the certificate.
#[derive(Debug)]
struct AnyCertificate(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
