//! What connections may do: tokens, origins, limits, intervals.

use std::time::Duration;

use super::{EventProxy, TransformDisconnect};
use crate::config::options::options;
use crate::config::values::Secret;

options! {
    /// `client`: what connections may do.
    pub struct Client {
        /// Events of a connection that are asked of the application backend.
        proxy: ClientProxy,
        /// Patterns of the `Origin` header that browsers may connect from. Empty refuses every request with an
        /// `Origin`.
        allowed_origins: Vec<String>,
        /// Verification of connection tokens, and of subscription tokens unless `subscription_token` is enabled.
        token: TokenOptions,
        /// Verification of subscription tokens, if it differs.
        subscription_token: SubscriptionTokenOptions,
        /// A connection without a token is anonymous instead of refused.
        allow_anonymous_connect_without_token: bool,
        /// Refuses tokens with an empty user.
        disallow_anonymous_connection_tokens: bool,
        /// Time between pings; absent means no pings.
        ping_interval: Option<Duration> = Some(Duration::from_secs(25)) => interval,
        /// How long after a ping its pong may arrive; absent means that no pong is asked for.
        pong_timeout: Option<Duration> = Some(Duration::from_secs(8)) => interval,
        /// Grace for refreshing an expired connection.
        expired_close_delay: Duration = Duration::from_secs(25) => zero_is_default,
        /// Grace for refreshing an expired subscription.
        expired_sub_close_delay: Duration = Duration::from_secs(25) => zero_is_default,
        /// How long a connection may stay without a connect command.
        stale_close_delay: Duration = Duration::from_secs(10) => zero_is_default,
        /// Most subscriptions of one connection.
        channel_limit: u32 = 128 => zero_is_default,
        /// Most bytes that may wait for one connection before it is closed as slow.
        queue_max_size: usize = 1_048_576 => zero_is_default,
        /// How often a connection renews its presence.
        presence_update_interval: Duration = Duration::from_secs(27) => zero_is_default,
        /// How many commands of one connection may be worked on at once; absent means one after the other.
        concurrency: Option<u32>,
        /// How often the position of a subscription is checked.
        channel_position_check_delay: Duration = Duration::from_secs(40) => zero_is_default,
        /// Lag that a position check tolerates; absent means that lag is not looked at.
        channel_position_max_time_lag: Option<Duration>,
        /// Most connections of this node; absent means no limit.
        connection_limit: Option<u32>,
        /// Most connections of one user on this node; absent means no limit.
        user_connection_limit: Option<u32>,
        /// Most new connections a second on this node; absent means no limit.
        connection_rate_limit: Option<u32>,
        /// Puts the time of the server into the connect reply.
        connect_include_server_time: bool,
        /// Most publications that one history call returns; absent means no limit.
        history_max_publication_limit: Option<u32> = Some(300),
        /// Most publications that are recovered at once; absent means no limit.
        recovery_max_publication_limit: Option<u32> = Some(300),
        /// Takes tokens without looking at their signature.
        insecure_skip_token_signature_verify: bool,
        /// Takes the user from this header, which a gateway in front must set.
        user_id_http_header: Option<String>,
        /// Lets every client connect, subscribe and publish. For development only.
        insecure: bool,
        /// Subscribes every user to a channel of their own.
        subscribe_to_user_personal_channel: PersonalChannel,
        /// How refused connects look on unidirectional transports.
        connect_code_to_unidirectional_disconnect: ConnectCodeToDisconnect,
    }

    /// `client.proxy`
    pub struct ClientProxy {
        /// Asked when a client connects without a token.
        connect: EventProxy,
        /// Asked when a connection is about to expire.
        refresh: EventProxy,
    }

    /// `client.token`: how tokens are verified.
    pub struct TokenOptions {
        /// Key of HS256, HS384 and HS512.
        hmac_secret_key: Option<Secret>,
        /// The key before this one, while it is being replaced.
        hmac_previous_secret_key: Option<Secret>,
        /// Until when the previous key counts, in Unix seconds; absent means without end.
        hmac_previous_secret_key_valid_until: Option<u64>,
        /// Key of RS256, RS384 and RS512, as PEM.
        rsa_public_key: Option<String>,
        /// Key of ES256, ES384 and ES512, as PEM.
        ecdsa_public_key: Option<String>,
        /// Address of a JSON Web Key Set.
        jwks_public_endpoint: Option<String>,
        /// Audience that a token must name.
        audience: Option<String>,
        /// Pattern that the audience of a token must match.
        audience_regex: Option<String>,
        /// Issuer that a token must name.
        issuer: Option<String>,
        /// Pattern that the issuer of a token must match.
        issuer_regex: Option<String>,
        /// Claim that holds the user; absent means `sub`.
        user_id_claim: Option<String>,
        /// Does not ask that every part of the key set's address taken from a token be matched by a strict pattern.
        insecure_skip_jwks_endpoint_safety_check: bool,
    }

    /// `client.subscription_token`: how subscription tokens are verified.
    pub struct SubscriptionTokenOptions {
        /// Subscription tokens have keys of their own.
        enabled: bool,
        /// Those keys.
        token as "": TokenOptions,
    }

    /// `client.subscribe_to_user_personal_channel`
    pub struct PersonalChannel {
        /// Turns it on.
        enabled: bool,
        /// Namespace of the channel; absent means none.
        personal_channel_namespace: Option<String>,
        /// Closes older connections of the same user. Needs presence in that namespace.
        single_connection: bool,
    }

    /// `client.connect_code_to_unidirectional_disconnect`
    pub struct ConnectCodeToDisconnect {
        /// Turns it on.
        enabled: bool,
        /// One entry per code.
        transforms: Vec<ConnectCodeToDisconnectTransform>,
    }

    /// One entry of `client.connect_code_to_unidirectional_disconnect.transforms`.
    pub struct ConnectCodeToDisconnectTransform {
        /// Error code of the connect.
        code: u32,
        /// What to close the connection with.
        to: TransformDisconnect,
    }
}
