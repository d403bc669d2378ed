//! `starling publish`: one call of a running server's API, over HTTP or gRPC.

use std::future::Future;
use std::io::Read as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use serde::Serialize;
use serde_json::value::RawValue;
use starling_proto::api::{PublishRequest, centrifugo_api_client::CentrifugoApiClient};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use super::trust::TrustFlags;
use super::{ConfigFlags, complain, remark, say, with_config};
use crate::config::{Config, Environment};

#[derive(Debug, Args)]
pub(super) struct PublishFlags {
    /// Channel to publish to
    channel: String,
    /// What to publish: JSON; any other text is published as a JSON text; - reads it from standard input
    data: String,
    /// Where the HTTP API is [default: as the configuration says, http://127.0.0.1:8000/api without one]
    #[arg(long)]
    url: Option<String>,
    /// Publish over gRPC instead, to this address (127.0.0.1:10000)
    #[arg(long, value_name = "ADDRESS", conflicts_with = "url")]
    grpc: Option<String>,
    /// Key of the API [default: the one of the configuration]
    #[arg(long)]
    key: Option<String>,
    #[command(flatten)]
    trust: TrustFlags,
    #[command(flatten)]
    config: ConfigFlags,
}

/// For the whole call.
const PATIENCE: Duration = Duration::from_secs(10);

/// Longest answer that is read, in bytes.
const MAX_ANSWER: usize = 1 << 20;

pub(super) fn run(flags: PublishFlags, environment: Environment) -> ExitCode {
    let PublishFlags { channel, data, url, grpc, key, trust, config } = flags;
    with_config(config.sources(environment), |loaded| {
        let config = &loaded.config;
        let done = json_data(data).and_then(|data| match grpc {
            Some(address) => {
                let key = key.or_else(|| config.grpc_api.key.as_deref().map(str::to_owned));
                in_time(over_grpc(&address, key, &trust, channel.clone(), data))
            }
            None => {
                let key = key.or_else(|| config.http_api.key.as_deref().map(str::to_owned));
                let url = url.unwrap_or_else(|| api_url(config));
                in_time(over_http(&url, key, &trust, &channel, data))
            }
        });
        match done {
            Ok(position) => {
                say(&format!("published to {channel}{position}\n"));
                ExitCode::SUCCESS
            }
            Err(problem) => {
                complain(&problem);
                ExitCode::FAILURE
            }
        }
    })
}

/// Runs one call on a runtime of its own.
fn in_time(call: impl Future<Output = Result<String, String>>) -> Result<String, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("no runtime: {error}"))?;
    runtime.block_on(async { timeout(PATIENCE, call).await.unwrap_or_else(|_| Err("no answer in time".into())) })
}

/// The data as JSON. A shell easily eats the quotes of a JSON text, so that a bare word means one.
fn json_data(data: String) -> Result<Box<RawValue>, String> {
    let data = if data == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(|error| format!("standard input: {error}"))?;
        text.trim_end().to_owned()
    } else {
        data
    };
    if let Ok(json) = serde_json::from_str(&data) {
        return Ok(json);
    }
    remark("The data is not JSON; it is published as a JSON text.");
    serde_json::value::to_raw_value(&data).map_err(|error| error.to_string())
}

/// Where a server with this configuration, on this machine, has its API.
fn api_url(config: &Config) -> String {
    let http = &config.http_server;
    let internal = http.internal_port.is_some() && !config.http_api.external;
    let (address, port) = match internal {
        true => (http.internal_address.as_ref().or(http.address.as_ref()), http.internal_port.unwrap_or(http.port)),
        false => (http.address.as_ref(), http.port),
    };
    let tls = match internal {
        true => http.internal_tls.enabled || (http.tls.enabled && !http.tls_external),
        false => http.tls.enabled,
    };
    let scheme = if tls { "https" } else { "http" };
    format!("{scheme}://{}:{port}{}", super::reachable(address), config.http_api.handler_prefix)
}

// === HTTP ===

async fn over_http(
    url: &str,
    key: Option<String>,
    trust: &TrustFlags,
    channel: &str,
    data: Box<RawValue>,
) -> Result<String, String> {
    let uri: Uri = url.parse().map_err(|error| format!("--url {url}: {error}"))?;
    let host = uri.host().ok_or_else(|| format!("--url {url}: no host in it"))?;
    let tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        Some(_) | None => return Err(format!("--url {url}: must begin with http:// or https://")),
    };
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    // An address without a path means the usual one.
    let prefix = Some(uri.path().trim_end_matches('/')).filter(|path| !path.is_empty()).unwrap_or("/api");
    let mut request = Request::post(format!("{prefix}/publish"))
        .header(header::HOST, uri.authority().map_or(host, |authority| authority.as_str()))
        .header(header::CONTENT_TYPE, "application/json");
    if let Some(key) = key {
        request = request.header("X-API-Key", key);
    }
    let body = serde_json::to_string(&Publication { channel, data: &data }).map_err(|error| error.to_string())?;
    let request = request.body(Full::new(Bytes::from(body))).map_err(|error| error.to_string())?;

    let failed = |error: &dyn std::fmt::Display| format!("{url}: {error}");
    let bare = host.trim_matches(['[', ']']);
    let socket = TcpStream::connect((bare, port)).await.map_err(|error| failed(&error))?;
    let (status, body) = match tls {
        false => exchange(socket, request).await?,
        true => {
            let name = ServerName::try_from(bare.to_owned()).map_err(|error| failed(&error))?;
            let connector = tokio_rustls::TlsConnector::from(tls_client(&trust.roots()?)?);
            exchange(connector.connect(name, socket).await.map_err(|error| failed(&error))?, request).await?
        }
    };
    match status {
        StatusCode::OK => outcome(&body),
        StatusCode::UNAUTHORIZED => Err("the server refuses the key; give it with --key or --config".into()),
        status => Err(format!("{url} answers {status}: {}", String::from_utf8_lossy(&body).trim())),
    }
}

/// Server API: what publish takes. The data goes as it was given: a tree of values would lose digits and the order of keys.
#[derive(Serialize)]
struct Publication<'a> {
    channel: &'a str,
    data: &'a RawValue,
}

async fn exchange(
    socket: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), String> {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(socket)).await.map_err(|error| format!("HTTP: {error}"))?;
    // Ends with the exchange; what fails in it fails there too.
    tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(|error| format!("HTTP: {error}"))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    Ok((status, body.map_err(|error| format!("HTTP: {error}"))?.to_bytes()))
}

fn tls_client(roots_pem: &[u8]) -> Result<Arc<rustls::ClientConfig>, String> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(roots_pem) {
        // A system may have some that cannot be used; a server that needs one of them is refused by the handshake.
        let _ = roots.add(certificate.map_err(|error| format!("root certificates: {error}"))?);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| format!("TLS: {error}"))?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

/// Server API: `{"result":{...}}` or `{"error":{"code":...,"message":...}}`.
fn outcome(body: &[u8]) -> Result<String, String> {
    let answer: serde_json::Value =
        serde_json::from_slice(body).map_err(|_| "the answer is not that of a server API; is the address right?")?;
    if let Some(error) = answer.get("error") {
        let message = error["message"].as_str().unwrap_or("error");
        return Err(format!("{message} (error {})", error["code"]));
    }
    Ok(at(answer["result"]["offset"].as_u64().unwrap_or(0)))
}

/// Where in the channel's stream, when it has one.
fn at(offset: u64) -> String {
    if offset == 0 { String::new() } else { format!(", offset {offset}") }
}

// === gRPC ===

async fn over_grpc(
    address: &str,
    key: Option<String>,
    trust: &TrustFlags,
    channel: String,
    data: Box<RawValue>,
) -> Result<String, String> {
    let uri = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    let failed = |error: &dyn std::error::Error| {
        // The first cause says what happened; the error itself only that something did.
        let cause = std::iter::successors(error.source(), |error| error.source()).last();
        format!("gRPC {address}: {}", cause.map_or_else(|| error.to_string(), ToString::to_string))
    };
    let mut endpoint = Endpoint::from_shared(uri.clone()).map_err(|error| failed(&error))?;
    if uri.starts_with("https://") {
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(trust.roots()?));
        endpoint = endpoint.tls_config(tls).map_err(|error| failed(&error))?;
    }
    let connection = endpoint.connect().await.map_err(|error| failed(&error))?;
    let data = Bytes::from(String::from(Box::<str>::from(data)));
    let mut request = tonic::Request::new(PublishRequest { channel, data, ..PublishRequest::default() });
    if let Some(key) = key {
        let value = format!("apikey {key}").parse().map_err(|_| "the key has characters that gRPC cannot carry")?;
        request.metadata_mut().insert("authorization", value);
    }
    let answer = CentrifugoApiClient::new(connection).publish(request).await;
    let answer = answer.map_err(|status| match status.code() {
        tonic::Code::Unauthenticated => "the server refuses the key; give it with --key or --config".to_owned(),
        code => format!("gRPC {address}: {code:?}: {}", status.message()),
    })?;
    let answer = answer.into_inner();
    match answer.error {
        Some(error) => Err(format!("{} (error {})", error.message, error.code)),
        None => Ok(at(answer.result.map_or(0, |result| result.offset))),
    }
}
