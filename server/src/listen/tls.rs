//! Certificates of a listener, read again when their files change.
//!
//! Files are looked at every few seconds by content, since what renews certificates may replace, rename or link them. A pair
//! that does not fit, as while only one of the files is new, leaves the old one in force and is said once. Open connections
//! are never touched.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    server::{NoClientAuth, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    auth::ConfigProblem,
    config::{Pem, TlsOptions},
};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The TLS configuration of one listener: what is in force, and where it is from.
pub struct Certificates {
    option: &'static str,
    options: TlsOptions,
    in_force: ArcSwap<ServerConfig>,
    texts: parking_lot::Mutex<Texts>,
}

/// What the files said when they were read last.
#[derive(PartialEq, Eq)]
struct Texts {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Certificates {
    /// Loads the certificates that an option names.
    ///
    /// # Errors
    ///
    /// No certificate or key, a file that cannot be read, text that is no PEM, a key of another certificate.
    pub fn load(options: &TlsOptions, option: &'static str) -> Result<Self, ConfigProblem> {
        let texts = Texts::read(options, option)?;
        let config = texts.compile(option)?;
        Ok(Self {
            option,
            options: options.clone(),
            in_force: ArcSwap::new(Arc::new(config)),
            texts: parking_lot::Mutex::new(texts),
        })
    }

    /// The configuration for the next connection.
    pub fn current(&self) -> Arc<ServerConfig> {
        self.in_force.load_full()
    }

    /// Looks at the files until `stop`.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut said = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = look.tick() => {}
            }
            match self.refresh() {
                Ok(false) => said = None,
                Ok(true) => {
                    said = None;
                    info!(option = self.option, "new certificates are in force");
                }
                Err(problem) => {
                    if said.as_ref() != Some(&problem) {
                        warn!(%problem, "the new certificates cannot be used; the old ones stay in force");
                        said = Some(problem);
                    }
                }
            }
        }
    }

    /// Reads the files again. Answers whether something new is in force.
    fn refresh(&self) -> Result<bool, ConfigProblem> {
        let texts = Texts::read(&self.options, self.option)?;
        if *self.texts.lock() == texts {
            return Ok(false);
        }
        let config = texts.compile(self.option)?;
        self.in_force.store(Arc::new(config));
        *self.texts.lock() = texts;
        Ok(true)
    }
}

impl Texts {
    fn read(options: &TlsOptions, option: &str) -> Result<Self, ConfigProblem> {
        let load = |pem: &Pem, name: &str| {
            pem.load().map_err(|error| problem(option, name, format!("{pem:?} cannot be read: {error}")))
        };
        let needed = |pem: &Option<Pem>, name: &str| match pem {
            Some(pem) => load(pem, name),
            None => Err(problem(option, name, "TLS is enabled but this is not set".into())),
        };
        Ok(Self {
            certificate: needed(&options.cert_pem, "cert_pem")?,
            key: needed(&options.key_pem, "key_pem")?,
            client_ca: options.client_ca_pem.as_ref().map(|pem| load(pem, "client_ca_pem")).transpose()?,
        })
    }

    fn compile(&self, option: &str) -> Result<ServerConfig, ConfigProblem> {
        let chain = certificates(&self.certificate, option, "cert_pem")?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|error| problem(option, "key_pem", format!("no private key in it: {error}")))?;
        let clients = self.client_verifier(option)?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| problem(option, "cert_pem", error.to_string()))?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain, key)
            .map_err(|error| problem(option, "key_pem", format!("the pair cannot be used: {error}")))?;
        // WebSocket needs HTTP/1.1; those who speak HTTP/2 to the API say so.
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    fn client_verifier(&self, option: &str) -> Result<Arc<dyn ClientCertVerifier>, ConfigProblem> {
        let Some(client_ca) = &self.client_ca else { return Ok(Arc::new(NoClientAuth)) };
        let wrong = |error: &dyn std::fmt::Display| problem(option, "client_ca_pem", error.to_string());
        let mut roots = RootCertStore::empty();
        for certificate in certificates(client_ca, option, "client_ca_pem")? {
            roots.add(certificate).map_err(|error| wrong(&error))?;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().map_err(|error| wrong(&error))
    }
}

fn certificates(pem: &[u8], option: &str, name: &str) -> Result<Vec<CertificateDer<'static>>, ConfigProblem> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err(problem(option, name, "no certificate in it".into())),
        Ok(chain) => Ok(chain),
        Err(error) => Err(problem(option, name, format!("no PEM: {error}"))),
    }
}

fn problem(option: &str, name: &str, problem: String) -> ConfigProblem {
    ConfigProblem { option: format!("{option}.{name}"), problem }
}
