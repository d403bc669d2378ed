//! Rules of listeners, paths and certificates.

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::Checker;
use crate::config::place::Place;
use crate::config::tree::{Config, EngineKind, TlsOptions};
use crate::config::values::Pem;

pub(super) fn check(config: &Config, checker: &mut Checker<'_>) {
    let server = &config.http_server;
    listener(&server.tls, &Place::from("http_server.tls"), checker);
    listener(&server.internal_tls, &Place::from("http_server.internal_tls"), checker);
    if config.grpc_api.enabled {
        listener(&config.grpc_api.tls, &Place::from("grpc_api.tls"), checker);
    }
    if config.engine.kind == EngineKind::Redis {
        outgoing(&config.engine.redis.connection.tls, &Place::from("engine.redis.tls"), checker);
    }
    paths(config, checker);
    if !(1..=9).contains(&config.websocket.compression_level) {
        checker.refuse("websocket.compression_level", "takes 1 (fast) to 9 (small)");
    }
}

/// Certificate and key of a listener: there, readable, and a pair.
fn listener(tls: &TlsOptions, place: &Place, checker: &mut Checker<'_>) {
    if !tls.enabled {
        return;
    }
    let chain = match &tls.cert_pem {
        None => Err("must be set when TLS is on".into()),
        Some(pem) => certificates(pem),
    };
    let key = match &tls.key_pem {
        None => Err("must be set when TLS is on".into()),
        Some(pem) => load(pem).and_then(|bytes| {
            PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| "has no private key in PEM form".into())
        }),
    };
    for (option, problem) in [("cert_pem", chain.as_ref().err()), ("key_pem", key.as_ref().err())] {
        if let Some(problem) = problem {
            checker.refuse(place.key(option), problem);
        }
    }
    if let (Ok(chain), Ok(key)) = (chain, key)
        && let Err(error) = CertifiedKey::from_der(chain, key, &rustls::crypto::aws_lc_rs::default_provider())
    {
        let reason = match error {
            rustls::Error::InconsistentKeys(_) => "is not the key of the certificate in `cert_pem`".into(),
            error => format!("cannot be used: {error}"),
        };
        checker.refuse(place.key("key_pem"), reason);
    }
    if let Some(Err(reason)) = tls.client_ca_pem.as_ref().map(certificates) {
        checker.refuse(place.key("client_ca_pem"), reason);
    }
}

/// What an outgoing connection checks the other side by, and shows of itself.
fn outgoing(tls: &TlsOptions, place: &Place, checker: &mut Checker<'_>) {
    if !tls.enabled {
        return;
    }
    if let Some(Err(reason)) = tls.server_ca_pem.as_ref().map(certificates) {
        checker.refuse(place.key("server_ca_pem"), reason);
    }
    if tls.cert_pem.is_some() || tls.key_pem.is_some() {
        listener(tls, place, checker);
    }
}

fn certificates(pem: &Pem) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = load(pem)?;
    match CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>() {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) | Err(_) => Err("has no certificate in PEM form".into()),
    }
}

fn load(pem: &Pem) -> Result<Vec<u8>, String> {
    pem.load().map_err(|error| match pem {
        Pem::File(path) if looks_like_path(&path.to_string_lossy()) => {
            format!("is no PEM, no base64 of PEM, and no file that can be read: {} ({error})", path.display())
        }
        Pem::File(_) | Pem::Inline(_) => "is no PEM and no base64 of PEM".into(),
    })
}

/// A key that was meant to be inline and is damaged must not end up in a log. (`LS0t` is how base64 of PEM begins.)
fn looks_like_path(text: &str) -> bool {
    !text.starts_with("LS0t")
        && !text.contains(['\n', '='])
        && (text.len() < 64 || text.len() < 200 && text.contains('.'))
}

/// Paths of endpoints that are on.
fn paths(config: &Config, checker: &mut Checker<'_>) {
    let endpoints = [
        ("websocket", !config.websocket.disabled, &config.websocket.handler_prefix),
        ("http_api", !config.http_api.disabled, &config.http_api.handler_prefix),
        ("sse", config.sse.enabled, &config.sse.handler_prefix),
        ("http_stream", config.http_stream.enabled, &config.http_stream.handler_prefix),
        ("emulation", config.sse.enabled || config.http_stream.enabled, &config.emulation.handler_prefix),
        ("prometheus", config.prometheus.enabled, &config.prometheus.handler_prefix),
        ("health", config.health.enabled, &config.health.handler_prefix),
        ("init", config.init.enabled, &config.init.handler_prefix),
    ];
    let mut taken: Vec<(&str, &str)> = Vec::new();
    for (section, _, path) in endpoints.iter().filter(|(_, on, _)| *on) {
        let option = format!("{section}.handler_prefix");
        let path = path.trim_end_matches('/');
        // Stricter than Centrifugo, where such a path is accepted and never reached.
        if !path.is_empty() && !path.starts_with('/') {
            checker.refuse(option.as_str(), "must begin with a slash");
        } else if let Some((other, _)) = taken.iter().find(|(_, known)| *known == path) {
            checker.refuse(option.as_str(), format!("is the path of `{other}` already"));
        }
        taken.push((section, path));
    }
}
