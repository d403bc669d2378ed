//! The ways clients connect.

use std::time::Duration;

use super::TlsOptions;
use crate::config::options::options;

options! {
    /// `websocket`
    pub struct WebSocket {
        /// Turns it off.
        disabled: bool,
        /// Path that it is served under.
        handler_prefix: String = "/connection/websocket".into(),
        /// Compresses frames for clients that ask for it.
        compression: bool,
        /// Smallest message that is compressed, in bytes; absent means every message.
        compression_min_size: Option<usize>,
        /// Effort of compression, 1 to 9.
        compression_level: u32 = 1 => zero_is_default,
        /// Size of a connection's read buffer in bytes. Buffers are shared here: no effect.
        read_buffer_size: Option<usize>,
        /// Shares write buffers. They always are here: no effect.
        use_write_buffer_pool: bool,
        /// Size of a connection's write buffer in bytes. Buffers are shared here: no effect.
        write_buffer_size: Option<usize>,
        /// How long a connection may take no bytes while some are waiting.
        write_timeout: Duration = Duration::from_secs(1) => zero_is_default,
        /// Largest message of a client, in bytes.
        message_size_limit: usize = 65536 => zero_is_default,
        /// Largest message of a client after decompression, in bytes; absent means ten times `message_size_limit`.
        decompressed_message_size_limit: Option<usize>,
    }

    /// `sse`
    pub struct Sse {
        /// Turns it on.
        enabled: bool,
        /// Path that it is served under.
        handler_prefix: String = "/connection/sse".into(),
        /// Largest request body, in bytes.
        max_request_body_size: usize = 65536 => zero_is_default,
    }

    /// `http_stream`
    pub struct HttpStream {
        /// Turns it on.
        enabled: bool,
        /// Path that it is served under.
        handler_prefix: String = "/connection/http_stream".into(),
        /// Largest request body, in bytes.
        max_request_body_size: usize = 65536 => zero_is_default,
    }

    /// `webtransport`
    pub struct WebTransport {
        /// Turns it on.
        enabled: bool,
        /// Path that it is served under.
        handler_prefix: String = "/connection/webtransport".into(),
        /// Largest message of a client, in bytes.
        message_size_limit: usize = 65536 => zero_is_default,
    }

    /// `uni_sse`
    pub struct UniSse {
        /// Turns it on.
        enabled: bool,
        /// Path that it is served under.
        handler_prefix: String = "/connection/uni_sse".into(),
        /// Largest request body, in bytes.
        max_request_body_size: usize = 65536 => zero_is_default,
        /// How refused connects look.
        connect_code_to_http_response: ConnectCodeToHttpResponse,
    }

    /// `uni_http_stream`
    pub struct UniHttpStream {
        /// Turns it on.
        enabled: bool,
        /// Path that it is served under.
        handler_prefix: String = "/connection/uni_http_stream".into(),
        /// Largest request body, in bytes.
        max_request_body_size: usize = 65536 => zero_is_default,
        /// How refused connects look.
        connect_code_to_http_response: ConnectCodeToHttpResponse,
    }

    /// `uni_sse.connect_code_to_http_response`, and the same of `uni_http_stream`.
    pub struct ConnectCodeToHttpResponse {
        /// Turns it on.
        enabled: bool,
        /// One entry per code.
        transforms: Vec<ConnectCodeToHttpTransform>,
    }

    /// One entry of `connect_code_to_http_response.transforms`.
    pub struct ConnectCodeToHttpTransform {
        /// Error code of the connect.
        code: u32,
        /// What to answer.
        to: TransformHttpResponse,
    }

    /// An HTTP answer.
    pub struct TransformHttpResponse {
        /// Status.
        status_code: u16,
        /// Body.
        body: String,
    }

    /// `uni_websocket`
    pub struct UniWebSocket {
        /// Turns it on.
        enabled: bool,
        /// Path that it is served under.
        handler_prefix: String = "/connection/uni_websocket".into(),
        /// Compresses frames for clients that ask for it.
        compression: bool,
        /// Smallest message that is compressed, in bytes; absent means every message.
        compression_min_size: Option<usize>,
        /// Effort of compression, 1 to 9.
        compression_level: u32 = 1 => zero_is_default,
        /// Size of a connection's read buffer in bytes. Buffers are shared here: no effect.
        read_buffer_size: Option<usize>,
        /// Shares write buffers. They always are here: no effect.
        use_write_buffer_pool: bool,
        /// Size of a connection's write buffer in bytes. Buffers are shared here: no effect.
        write_buffer_size: Option<usize>,
        /// How long a connection may take no bytes while some are waiting.
        write_timeout: Duration = Duration::from_secs(1) => zero_is_default,
        /// Largest message of a client, in bytes.
        message_size_limit: usize = 65536 => zero_is_default,
        /// Largest message of a client after decompression, in bytes; absent means ten times `message_size_limit`.
        decompressed_message_size_limit: Option<usize>,
        /// Ends the connection without a closing handshake.
        disable_closing_handshake: bool,
        /// Does not tell the reason in a push before closing.
        disable_disconnect_push: bool,
        /// Joins several pushes into one frame.
        join_push_messages: bool,
    }

    /// `uni_grpc`
    pub struct UniGrpc {
        /// Turns it on.
        enabled: bool,
        /// Address to listen on; absent means all interfaces.
        address: Option<String>,
        /// Port to listen on.
        port: u16 = 11000,
        /// Largest message that is taken, in bytes; absent means 4 MiB.
        max_receive_message_size: Option<usize>,
        /// TLS of the listener.
        tls: TlsOptions,
    }

    /// `emulation`: the way up for SSE and HTTP streaming.
    pub struct Emulation {
        /// Path that it is served under.
        handler_prefix: String = "/emulation".into(),
        /// Largest request body, in bytes.
        max_request_body_size: usize = 65536 => zero_is_default,
    }

    /// `init`: the endpoint that prepares a connection.
    pub struct Init {
        /// Turns it on.
        enabled: bool,
        /// Path that it is served under.
        handler_prefix: String = "/connection/init".into(),
    }
}
