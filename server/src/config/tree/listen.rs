//! Listeners, TLS, and the process itself.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::options::{options, words};
use crate::config::values::Pem;

options! {
    /// `http_server`: listeners of clients and of the internal endpoints.
    pub struct HttpServer {
        /// Address to listen on; absent means all interfaces.
        address: Option<String>,
        /// Port to listen on; 0 lets the system choose.
        port: u16 = 8000,
        /// Address of the internal endpoints (API, metrics, health, admin); absent means `address`.
        internal_address: Option<String>,
        /// Port of the internal endpoints; absent means that they share the external port.
        internal_port: Option<u16>,
        /// TLS of both listeners, of the external one only if `tls_external` is set.
        tls: TlsOptions,
        /// Certificates by ACME.
        tls_autocert: TlsAutocert,
        /// Restricts `tls` to the external listener.
        tls_external: bool,
        /// TLS of the internal listener, instead of `tls`.
        internal_tls: TlsOptions,
        /// HTTP/3.
        http3: Http3,
        /// HTTP/2 without TLS on the external listener.
        h2c_external: bool,
    }

    /// TLS of a listener or of an outgoing connection.
    pub struct TlsOptions {
        /// Turns TLS on.
        enabled: bool,
        /// Certificate chain: PEM, base64 of PEM, or a file.
        cert_pem: Option<Pem>,
        /// Private key: PEM, base64 of PEM, or a file.
        key_pem: Option<Pem>,
        /// Root certificates to check a server by, for outgoing connections: PEM, base64 of PEM, or a file.
        server_ca_pem: Option<Pem>,
        /// Root certificates to check clients by; when set, a listener demands a client certificate.
        client_ca_pem: Option<Pem>,
        /// Takes any certificate of a server.
        insecure_skip_verify: bool,
        /// Name to check a server's certificate against, instead of the host connected to.
        server_name: Option<String>,
    }

    /// `http_server.tls_autocert`: certificates by ACME.
    pub struct TlsAutocert {
        /// Turns it on.
        enabled: bool,
        /// Host names that a certificate may be asked for.
        host_whitelist: Vec<String>,
        /// Folder to keep certificates in.
        cache_dir: Option<PathBuf>,
        /// Contact given to the certificate authority.
        email: Option<String>,
        /// Name to assume when a client sends none.
        server_name: Option<String>,
        /// Serves the http-01 challenge.
        http: bool,
        /// Address of the http-01 challenge.
        http_addr: String = ":80".into(),
    }

    /// `http_server.http3`
    pub struct Http3 {
        /// Turns HTTP/3 on.
        enabled: bool,
    }

    /// `log`
    pub struct Log {
        /// Least severe level that is written.
        level: LogLevel = LogLevel::Info,
        /// File to append to; absent means standard output.
        file: Option<PathBuf>,
    }

    /// `node`
    pub struct Node {
        /// Name of this node; absent means `<hostname>_<port>`.
        name: Option<String>,
        /// How often the metrics of `info` are summed up.
        info_metrics_aggregate_interval: Duration = Duration::from_secs(60) => zero_is_default,
    }

    /// `shutdown`
    pub struct Shutdown {
        /// Longest time a graceful shutdown may take.
        timeout: Duration = Duration::from_secs(30),
    }

    /// `usage_stats`
    pub struct UsageStats {
        /// Turns the report off.
        disabled: bool,
    }
}

words! {
    /// A log level.
    pub enum LogLevel {
        /// Everything, protocol frames included.
        Trace = "trace",
        /// Steps of the server.
        Debug = "debug",
        /// What an operator may want to know.
        Info = "info",
        /// What an operator should look at some day.
        Warn = "warn",
        /// What somebody has to act on.
        Error = "error",
        /// Only what ends the process.
        Fatal = "fatal",
        /// Nothing.
        None = "none",
    }
}
