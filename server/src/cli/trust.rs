//! Whom the client commands trust when an address says TLS.

use std::path::PathBuf;

use base64::Engine as _;
use clap::Args;

#[derive(Debug, Args)]
pub(super) struct TrustFlags {
    /// Root certificates (PEM) to check the server by, with https:// and wss:// [default: those of the system]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

impl TrustFlags {
    /// The root certificates as PEM.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or the system has no root certificates.
    pub(super) fn roots(&self) -> Result<Vec<u8>, String> {
        match &self.ca {
            Some(file) => std::fs::read(file).map_err(|error| format!("{}: {error}", file.display())),
            None => of_system(),
        }
    }
}

fn of_system() -> Result<Vec<u8>, String> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let why = found.errors.first().map_or_else(|| "there are none".to_owned(), ToString::to_string);
        return Err(format!("root certificates of the system: {why}; name a file with --ca"));
    }
    let base64 = base64::engine::general_purpose::STANDARD;
    let pem = |der: &[u8]| format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", base64.encode(der));
    Ok(found.certs.iter().map(|certificate| pem(certificate)).collect::<String>().into_bytes())
}
