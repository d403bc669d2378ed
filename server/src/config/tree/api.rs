//! The server API and the admin interface.

use std::path::PathBuf;

use super::TlsOptions;
use crate::config::options::{options, words};
use crate::config::values::Secret;

options! {
    /// `http_api`: the server API over HTTP.
    pub struct HttpApi {
        /// Turns it off.
        disabled: bool,
        /// Path that it is served under.
        handler_prefix: String = "/api".into(),
        /// Key that every call must carry. Absent refuses every call unless `insecure` is set.
        key: Option<Secret>,
        /// Where errors are told.
        error_mode: ErrorMode = ErrorMode::InBody,
        /// Serves it on the external listener.
        external: bool,
        /// Takes calls without a key.
        insecure: bool,
    }

    /// `grpc_api`: the server API over gRPC.
    pub struct GrpcApi {
        /// Turns it on.
        enabled: bool,
        /// Where errors are told.
        error_mode: ErrorMode = ErrorMode::InBody,
        /// Address to listen on; absent means all interfaces.
        address: Option<String>,
        /// Port to listen on.
        port: u16 = 10000,
        /// Key that every call must carry; absent means that none is asked for.
        key: Option<Secret>,
        /// TLS of the listener.
        tls: TlsOptions,
        /// Serves the reflection service.
        reflection: bool,
        /// Largest message that is taken, in bytes; absent means 4 MiB.
        max_receive_message_size: Option<usize>,
    }

    /// `admin`: the admin interface.
    pub struct Admin {
        /// Turns it on.
        enabled: bool,
        /// Path that it is served under; absent means the root.
        handler_prefix: Option<String>,
        /// Password to log in with.
        password: Option<Secret>,
        /// Key that signs log-in tokens.
        secret: Option<Secret>,
        /// Asks for no log-in.
        insecure: bool,
        /// Folder of another interface to serve.
        web_path: Option<PathBuf>,
        /// Address of another interface to pass requests on to.
        web_proxy_address: Option<String>,
        /// Serves it on the external listener.
        external: bool,
    }

    /// `swagger`: the Swagger page of the HTTP API.
    pub struct Swagger {
        /// Turns it on.
        enabled: bool,
        /// Path that it is served under.
        handler_prefix: String = "/swagger".into(),
    }
}

words! {
    /// Where errors of the server API are told.
    pub enum ErrorMode {
        /// In the body, with a successful status.
        InBody = "",
        /// By the status of the transport.
        Transport = "transport",
    }
}
