//! The numbers that explain why a connection or a subscription changed.
//!
//! Codes below 1000 are made by the client itself and never travel; they are those of the official Centrifuge SDKs, but
//! for [`connecting::BAD_PATCH`].
//! Codes of the server are WebSocket close codes and codes of unsubscribe pushes (client protocol: disconnect codes and
//! their ranges).

/// Why a client is connecting. A server's disconnect code that allows to reconnect (3000 to 3499, 4000 to 4499) appears
/// here unchanged.
pub mod connecting {
    /// The application asked for it.
    pub const CONNECT_CALLED: u32 = 0;
    /// The transport ended without a code of the protocol.
    pub const TRANSPORT_CLOSED: u32 = 1;
    /// The server's pings stopped.
    pub const NO_PING: u32 = 2;
    /// A subscribe command stayed without reply.
    pub const SUBSCRIBE_TIMEOUT: u32 = 3;
    /// An unsubscribe command failed or stayed without reply, so what the server still sends is unknown.
    pub const UNSUBSCRIBE_ERROR: u32 = 4;
    /// A publication's payload could not be restored from the one before, although its subscription has delta compression. A
    /// new connection brings it again from the history, whole.
    pub const BAD_PATCH: u32 = 5;
}

/// Why a client is disconnected for good. A server's terminal code (3500 to 3999, 4500 to 4999) and the code of a
/// connect error appear here unchanged.
pub mod disconnected {
    /// The application asked for it.
    pub const DISCONNECT_CALLED: u32 = 0;
    /// No usable token can be had: the token source said so, or the token expired and there is no source.
    pub const UNAUTHORIZED: u32 = 1;
    /// The server sent what the protocol does not allow.
    pub const BAD_PROTOCOL: u32 = 2;
    /// A message was larger than the receiver takes, on either side.
    pub const MESSAGE_SIZE_LIMIT: u32 = 3;
}

/// Why a subscription is subscribing again. A server's unsubscribe code of 2500 and more appears here unchanged.
pub mod subscribing {
    /// The connection ended; it subscribes again when there is a new one.
    pub const TRANSPORT_CLOSED: u32 = 1;
}

/// Why a subscription ended. A server's unsubscribe code below 2500 and the code of a subscribe error appear here
/// unchanged.
pub mod unsubscribed {
    /// The application asked for it, or dropped the subscription.
    pub const UNSUBSCRIBE_CALLED: u32 = 0;
    /// No usable subscription token can be had.
    pub const UNAUTHORIZED: u32 = 1;
    /// The client is disconnected for good.
    pub const CLIENT_CLOSED: u32 = 2;
}

/// Codes of the server that the client treats in their own way.
pub mod server {
    /// Error: the token expired; a new one is asked for and the command repeated.
    pub const TOKEN_EXPIRED: u32 = 109;
    /// Error: the client has this channel already.
    pub const ALREADY_SUBSCRIBED: u32 = 105;
    /// Unsubscribe: the subscription's token expired; subscribes again with a new one.
    pub const SUBSCRIPTION_EXPIRED: u32 = 2501;
    /// Unsubscribe: token and position of the subscription are void.
    pub const SUBSCRIPTION_STATE_INVALIDATED: u32 = 2502;
    /// Disconnect: the connection's token expired; reconnects with a new one.
    pub const CONNECTION_EXPIRED: u32 = 3005;
    /// Disconnect: all tokens and positions of the connection are void.
    pub const STATE_INVALIDATED: u32 = 3014;
    /// WebSocket close code: the message was too big.
    pub const MESSAGE_TOO_BIG: u32 = 1009;
}

/// Returns whether a disconnect code of the server forbids to reconnect.
///
/// | code | the client |
/// |---|---|
/// | 0 to 2999 | reconnects, except 1009 (message too big): the same message would come again |
/// | 3000 to 3499, 4000 to 4499 | reconnects |
/// | 3500 to 3999, 4500 to 4999 | stays disconnected |
/// | 5000 and more | reconnects |
pub fn forbids_reconnect(code: u32) -> bool {
    matches!(code, server::MESSAGE_TOO_BIG | 3500..=3999 | 4500..=4999)
}

/// Returns whether an unsubscribe code of the server ends the subscription (below 2500) instead of asking the client to
/// subscribe again.
pub fn ends_subscription(code: u32) -> bool {
    code < 2500
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_disconnect_codes_follow_the_protocol() {
        for code in [0, 1, 1000, 1001, 1006, 1008, 1010, 2999, 3000, 3499, 4000, 4499, 5000, 65_535] {
            assert!(!forbids_reconnect(code), "{code} must reconnect");
        }
        for code in [1009, 3500, 3999, 4500, 4999] {
            assert!(forbids_reconnect(code), "{code} must be final");
        }
    }

    #[test]
    fn unsubscribe_codes_from_2500_subscribe_again() {
        assert!(ends_subscription(2000) && ends_subscription(2499));
        assert!(!ends_subscription(2500) && !ends_subscription(2999));
    }
}
