//! What sessions and workers need of the configuration, compiled. Replaced as a whole when it is read again.

use std::{sync::Arc, time::Duration};

use crate::{
    auth::{Authenticator, ConfigProblem},
    config::Config,
    names::UserId,
    namespace::Namespaces,
};

/// Settings in force.
pub struct Settings {
    /// Version text that clients are told.
    pub version: &'static str,
    /// Channel rules and permissions.
    pub namespaces: Arc<Namespaces>,
    /// Tokens and who may come without one.
    pub auth: Authenticator,
    /// `client.ping_interval`; `None` for no pings.
    pub ping_interval: Option<Duration>,
    /// `client.pong_timeout`; `None` when pongs are not needed.
    pub pong_timeout: Option<Duration>,
    /// `client.stale_close_delay`.
    pub stale_close_delay: Duration,
    /// `client.expired_close_delay`.
    pub expired_close_delay: Duration,
    /// `client.expired_sub_close_delay`.
    pub expired_sub_close_delay: Duration,
    /// `client.channel_limit`.
    pub channel_limit: u32,
    /// `client.queue_max_size`, in bytes.
    pub backlog_bytes: usize,
    /// `client.user_connection_limit`.
    pub user_connection_limit: Option<u32>,
    /// `client.concurrency`: commands of one connection that may wait for answers at once; at least 1.
    pub concurrency: u32,
    /// `client.connect_include_server_time`.
    pub include_server_time: bool,
    /// `client.history_max_publication_limit`; `None` for no limit.
    pub history_limit: Option<u32>,
    /// `client.recovery_max_publication_limit`; `None` for no limit.
    pub recovery_limit: Option<u32>,
    /// `client.presence_update_interval`.
    pub presence_update_interval: Duration,
    /// `client.channel_position_check_delay`.
    pub position_check_delay: Duration,
    /// `client.subscribe_to_user_personal_channel`: what stands before `#` in the channel; `None` when it is off.
    personal_channel: Option<String>,
    /// Whether a new connection of a user ends the others.
    pub single_connection: bool,
    /// `websocket.message_size_limit`, in bytes.
    pub message_size_limit: usize,
    /// `websocket.decompressed_message_size_limit`, in bytes.
    pub inflated_size_limit: usize,
    /// `websocket.compression_level`, 0 to 9.
    pub deflate_level: u32,
    /// `websocket.compression_min_size`, in bytes.
    pub deflate_min_size: usize,
    /// `websocket.write_timeout`: how long a client may take nothing of what waits for it.
    pub write_timeout: Duration,
    /// Checks what RFC 6455 asks for and the reference server does not look at. For conformance suites.
    pub strict_frames: bool,
}

impl Settings {
    /// The channel that is the user's own: `#42`, or `ns:#42`. `None` when there are none, and for anonymous users.
    pub fn personal_channel(&self, user: &UserId) -> Option<String> {
        let prefix = self.personal_channel.as_ref().filter(|_| !user.is_anonymous())?;
        Some(format!("{prefix}{user}"))
    }

    /// Compiles the configuration.
    ///
    /// # Errors
    ///
    /// A value that only compiling shows to be wrong: a pattern, a key.
    pub fn new(config: &Config, version: &'static str) -> Result<Self, ConfigProblem> {
        let client = &config.client;
        let websocket = &config.websocket;
        let personal = &client.subscribe_to_user_personal_channel;
        Ok(Self {
            version,
            namespaces: Arc::new(Namespaces::new(&config.channel, client)?),
            auth: Authenticator::new(client)?,
            ping_interval: client.ping_interval,
            pong_timeout: client.pong_timeout,
            stale_close_delay: client.stale_close_delay,
            expired_close_delay: client.expired_close_delay,
            expired_sub_close_delay: client.expired_sub_close_delay,
            channel_limit: client.channel_limit,
            backlog_bytes: client.queue_max_size,
            user_connection_limit: client.user_connection_limit,
            concurrency: client.concurrency.unwrap_or(1).max(1),
            include_server_time: client.connect_include_server_time,
            history_limit: client.history_max_publication_limit,
            recovery_limit: client.recovery_max_publication_limit,
            presence_update_interval: client.presence_update_interval,
            position_check_delay: client.channel_position_check_delay,
            personal_channel: personal.enabled.then(|| {
                let boundary = &config.channel.namespace_boundary;
                let namespace = personal.personal_channel_namespace.as_ref();
                namespace.map(|name| format!("{name}{boundary}")).unwrap_or_default() + &config.channel.user_boundary
            }),
            single_connection: personal.enabled && personal.single_connection,
            message_size_limit: websocket.message_size_limit,
            inflated_size_limit: websocket
                .decompressed_message_size_limit
                .unwrap_or(websocket.message_size_limit.saturating_mul(10)),
            deflate_level: websocket.compression_level,
            deflate_min_size: websocket.compression_min_size.unwrap_or(0),
            write_timeout: websocket.write_timeout,
            strict_frames: false,
        })
    }
}
