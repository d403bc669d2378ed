//! The methods of the server API by all their names.

/// Declares the methods: variant, name on the wire, number of the old form.
macro_rules! methods {
    ($($(#[$doc:meta])* $variant:ident = $name:literal $(, $number:literal)?;)*) => {
        /// A method of the server API.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Method {
            $($(#[$doc])* $variant,)*
        }

        impl Method {
            /// All methods.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Name in paths and commands, and label of the metrics.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The method of a path. Case matters.
            pub(super) fn from_path(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)* _ => None }
            }

            /// The method of a name in the gRPC service. Case matters.
            pub(super) fn from_rpc(name: &str) -> Option<Self> {
                match name {
                    "RPC" => Some(Self::Rpc),
                    "Rpc" => None,
                    $(stringify!($variant) => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// Number in the old form; absent for methods that it never had.
            fn number(self) -> Option<u32> {
                match self { $(Self::$variant => methods!(@number $($number)?),)* }
            }
        }
    };
    (@number) => { None };
    (@number $number:literal) => { Some($number) };
}

methods! {
    /// Publishes to one channel.
    Publish = "publish", 0;
    /// Publishes the same data to many channels.
    Broadcast = "broadcast", 1;
    /// Ends a subscription of a user.
    Unsubscribe = "unsubscribe", 2;
    /// Closes connections of a user.
    Disconnect = "disconnect", 3;
    /// Lists the clients of a channel.
    Presence = "presence", 4;
    /// Counts the clients of a channel.
    PresenceStats = "presence_stats", 5;
    /// Reads a channel's history.
    History = "history", 6;
    /// Empties a channel's history.
    HistoryRemove = "history_remove", 7;
    /// Lists channels with subscribers.
    Channels = "channels", 8;
    /// Describes the nodes.
    Info = "info", 9;
    /// Calls a method of an extension.
    Rpc = "rpc", 10;
    /// Adds a server-side subscription to connections of a user.
    Subscribe = "subscribe", 11;
    /// Changes when connections of a user expire.
    Refresh = "refresh", 12;
    /// Carries out several commands.
    Batch = "batch";
    /// Writes a key of a map.
    MapPublish = "map_publish", 33;
    /// Removes a key of a map.
    MapRemove = "map_remove", 34;
    /// Reads the keys of a map.
    MapReadState = "map_read_state", 35;
    /// Reads the changes of a map.
    MapReadStream = "map_read_stream", 36;
    /// Counts the keys of a map.
    MapStats = "map_stats", 37;
    /// Empties a map.
    MapClear = "map_clear", 38;
    /// Publishes to a channel that is polled.
    SharedPollPublish = "shared_poll_publish", 39;
}

/// Methods of the old form that only a paid edition of the reference server has: known names, never carried out.
const PAID: &[&str] = &[
    "connections",
    "update_user_status",
    "get_user_status",
    "delete_user_status",
    "block_user",
    "unblock_user",
    "revoke_token",
    "invalidate_user_tokens",
    "device_register",
    "device_update",
    "device_remove",
    "device_list",
    "device_topic_list",
    "device_topic_update",
    "user_topic_list",
    "user_topic_update",
    "send_push_notification",
    "update_push_status",
    "cancel_push",
];

/// How a command of the old form names its method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OldName {
    /// One that this server has.
    Known(Method),
    /// A number without a method, or a paid method: error 104.
    Missing,
}

impl OldName {
    /// A name in any case. `None` for one that nobody knows, which spoils the whole request.
    pub(super) fn from_text(text: &str) -> Option<Self> {
        let known = Method::ALL.iter().find(|method| method.name().eq_ignore_ascii_case(text));
        match known {
            Some(method) if method.number().is_some() => Some(Self::Known(*method)),
            Some(_) => None,
            None if PAID.iter().any(|name| name.eq_ignore_ascii_case(text)) => Some(Self::Missing),
            None => None,
        }
    }

    /// A number.
    pub(super) fn from_number(number: i64) -> Self {
        let known = Method::ALL.iter().find(|method| method.number().is_some_and(|own| i64::from(own) == number));
        known.map_or(Self::Missing, |method| Self::Known(*method))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_found_by_its_path_and_its_number() {
        for method in Method::ALL {
            assert_eq!(Method::from_path(method.name()), Some(*method));
            if let Some(number) = method.number() {
                assert_eq!(OldName::from_number(number.into()), OldName::Known(*method));
            }
        }
    }

    #[test]
    fn the_old_form_knows_names_in_any_case_but_not_batch() {
        assert_eq!(OldName::from_text("Presence_STATS"), Some(OldName::Known(Method::PresenceStats)));
        assert_eq!(OldName::from_text("connections"), Some(OldName::Missing));
        assert_eq!(OldName::from_text("batch"), None);
        assert_eq!(OldName::from_text("dance"), None);
        for number in [13, 14, 32, 40, -1, i64::MAX] {
            assert_eq!(OldName::from_number(number), OldName::Missing, "{number}");
        }
    }
}
