//! Questions to the application backend.

use std::collections::BTreeMap;
use std::time::Duration;

use super::TlsOptions;
use crate::config::options::options;
use crate::config::values::Secret;

options! {
    /// A proxy: an endpoint of the application backend and what is sent to it.
    pub struct Proxy {
        /// Address: `http://`, `https://` or `grpc://`.
        endpoint: Option<String>,
        /// Longest time for one call.
        timeout: Duration = Duration::from_secs(1) => zero_is_default,
        /// Headers of the client's request that are passed on.
        http_headers: Vec<String>,
        /// gRPC metadata of the client's call that is passed on.
        grpc_metadata: Vec<String>,
        /// Headers inside the connect command that are passed on. They are the client's word.
        emulated_headers: Vec<String>,
        /// Sends data as base64.
        binary_encoding: bool,
        /// Sends the meta information of the connection along.
        include_connection_meta: bool,
        /// What only concerns HTTP.
        http: ProxyHttp,
        /// What only concerns gRPC.
        grpc: ProxyGrpc,
    }

    /// `….http` of a proxy.
    pub struct ProxyHttp {
        /// TLS towards the backend.
        tls: TlsOptions,
        /// Headers added to every call.
        static_headers: BTreeMap<String, String>,
        /// What an HTTP status other than 200 means.
        status_to_code_transforms: Vec<StatusTransform>,
    }

    /// One entry of `….http.status_to_code_transforms`: exactly one of the two targets.
    pub struct StatusTransform {
        /// HTTP status of the backend.
        status_code: u16,
        /// The error that the client gets.
        to_error: TransformError,
        /// The code that the connection is closed with.
        to_disconnect: TransformDisconnect,
    }

    /// An error for the client.
    pub struct TransformError {
        /// Code; 0 means that there is no such target.
        code: u32,
        /// Message.
        message: String,
        /// Whether the client may try again.
        temporary: bool,
    }

    /// A code and reason to close a connection with.
    pub struct TransformDisconnect {
        /// Code; 0 means that there is no such target.
        code: u32,
        /// Reason.
        reason: String,
    }

    /// `….grpc` of a proxy.
    pub struct ProxyGrpc {
        /// TLS towards the backend.
        tls: TlsOptions,
        /// Key of the metadata that carries the credentials.
        credentials_key: Option<String>,
        /// The credentials.
        credentials_value: Option<Secret>,
        /// Compresses calls with gzip.
        compression: bool,
        /// Metadata added to every call.
        static_metadata: BTreeMap<String, String>,
    }

    /// A proxy for one event that has a switch of its own.
    pub struct EventProxy {
        /// Turns it on.
        enabled: bool,
        /// The proxy.
        proxy as "": Proxy,
    }

    /// One entry of `proxies`.
    pub struct NamedProxy {
        /// Name that namespaces refer to.
        name: String,
        /// The proxy.
        proxy as "": Proxy,
    }

    /// `rpc`: remote procedure calls of clients.
    pub struct Rpc {
        /// The default proxy.
        proxy: Proxy,
        /// Methods without a namespace.
        without_namespace: RpcOptions,
        /// Namespaces of methods.
        namespaces: Vec<RpcNamespace>,
        /// A built-in method that answers without asking the backend.
        ping: RpcPing,
        /// What separates a namespace from the rest of a method.
        namespace_boundary: String = ":".into(),
    }

    /// How methods are handled.
    pub struct RpcOptions {
        /// Asks the backend.
        proxy_enabled: bool,
        /// Name of the proxy.
        proxy_name: String = "default".into(),
    }

    /// One entry of `rpc.namespaces`.
    pub struct RpcNamespace {
        /// Name of the namespace.
        name: String,
        /// How its methods are handled.
        options as "": RpcOptions,
    }

    /// `rpc.ping`
    pub struct RpcPing {
        /// Turns it on.
        enabled: bool,
        /// Name of the method.
        method: String = "ping".into(),
    }
}
