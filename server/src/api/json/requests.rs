//! Which members each request has in JSON, and requests that exist in JSON only.

use std::fmt;

use bytes::Bytes;
use serde::de::{Deserializer, Error, Unexpected, Visitor};
use starling_proto::api::{
    BoolValue, BroadcastRequest, ChannelsRequest, Command, Disconnect, DisconnectRequest, FilterNode,
    HistoryRemoveRequest, HistoryRequest, InfoRequest, PresenceRequest, PresenceStatsRequest, PublishRequest,
    RefreshRequest, RpcRequest, StreamPosition, SubscribeOptionOverride, SubscribeRequest, UnsubscribeRequest,
};

use super::decode::{Value, message};
use crate::api::{
    channel_state::KeyedRequest,
    method::{Method, OldName},
};

message!(PublishRequest { channel, data, b64data, skip_history, tags, idempotency_key, delta, version, version_epoch });
message!(BroadcastRequest {
    channels,
    data,
    b64data,
    skip_history,
    tags,
    idempotency_key,
    delta,
    version,
    version_epoch
});
message!(SubscribeRequest {
    channel,
    user,
    expire_at,
    info,
    b64info,
    client,
    data,
    b64data,
    recover_since,
    r#override,
    session,
    label_filter,
    all_users
});
message!(SubscribeOptionOverride { presence, join_leave, force_recovery, force_positioning, force_push_join_leave });
message!(BoolValue { value });
message!(StreamPosition { offset, epoch });
message!(FilterNode { op, key, cmp, val, vals, nodes });
message!(UnsubscribeRequest { channel, user, client, session, label_filter, all_users });
message!(DisconnectRequest { user, disconnect, client, whitelist, session, label_filter, all_users });
message!(Disconnect { code, reason });
message!(RefreshRequest { user, client, expired, expire_at, info, session, label_filter, all_users });
message!(PresenceRequest { channel });
message!(PresenceStatsRequest { channel });
message!(HistoryRequest { channel, limit, since, reverse });
message!(HistoryRemoveRequest { channel });
message!(InfoRequest {});
message!(RpcRequest { method, params });
message!(ChannelsRequest { pattern });
message!(KeyedRequest { channel, key, version });
message!(Command {
    publish,
    broadcast,
    subscribe,
    unsubscribe,
    disconnect,
    presence,
    presence_stats,
    history,
    history_remove,
    info,
    rpc,
    refresh,
    channels
});

/// The request of `batch`, whose commands may be `null` in JSON.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::api) struct BatchCommands {
    pub(in crate::api) commands: Vec<Option<Command>>,
    pub(in crate::api) parallel: bool,
}
message!(BatchCommands { commands, parallel });

/// One command of the old form.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::api) struct OldCommand {
    /// Echoed by the reply unless it is 0.
    pub(in crate::api) id: u32,
    /// Method; publish when absent.
    pub(in crate::api) method: OldName,
    /// JSON of the request; empty when absent.
    pub(in crate::api) params: Bytes,
}
message!(OldCommand { id, method, params });

impl Default for OldCommand {
    fn default() -> Self {
        Self { id: 0, method: OldName::Known(Method::Publish), params: Bytes::new() }
    }
}

impl Value for OldName {
    fn read_value<'de, D: Deserializer<'de>>(&mut self, input: D, _: &Bytes) -> Result<(), D::Error> {
        *self = input.deserialize_any(OldNameVisitor)?;
        Ok(())
    }
}

struct OldNameVisitor;

impl Visitor<'_> for OldNameVisitor {
    type Value = OldName;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name or number of a method")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<OldName, E> {
        OldName::from_text(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<OldName, E> {
        Ok(OldName::from_number(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<OldName, E> {
        Ok(OldName::from_number(i64::try_from(number).unwrap_or(i64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::json::decode::{Message, decode};

    #[test]
    fn override_is_read_under_its_own_name() {
        let body = Bytes::from_static(br#"{"override":{"presence":{"value":true},"force_recovery":null}}"#);
        let request: SubscribeRequest = decode(&body).unwrap();
        let given = request.r#override.unwrap();
        assert_eq!((given.presence, given.force_recovery), (Some(BoolValue { value: true }), None));
        assert_eq!(SubscribeRequest::index("r#override"), None);
    }

    #[test]
    fn filters_nest_only_as_deep_as_the_parser_allows() {
        let nested = |depth: usize| {
            let open = r#"{"op":"and","nodes":["#.repeat(depth);
            Bytes::from(format!(r#"{{"label_filter":{open}{}}}"#, "]}".repeat(depth)))
        };
        assert!(decode::<DisconnectRequest>(&nested(20)).is_ok());
        assert!(decode::<DisconnectRequest>(&nested(10_000)).is_err());
    }

    #[test]
    fn commands_of_a_batch_may_be_null_or_unknown() {
        let body = Bytes::from_static(br#"{"commands":[null,{},{"dance":{}},{"info":{}}],"parallel":true}"#);
        let batch: BatchCommands = decode(&body).unwrap();
        let info = Command { info: Some(InfoRequest {}), ..Command::default() };
        assert_eq!(batch.commands, [None, Some(Command::default()), Some(Command::default()), Some(info)]);
        assert!(batch.parallel);
    }

    #[test]
    fn a_command_of_the_old_form_defaults_to_publish() {
        let read = |text: &'static str| decode::<OldCommand>(&Bytes::from_static(text.as_bytes()));
        assert_eq!(read("{}").unwrap(), OldCommand::default());
        assert_eq!(read(r#"{"method":9}"#).unwrap().method, OldName::Known(Method::Info));
        for wrong in [r#"{"method":"dance"}"#, r#"{"method":null}"#, r#"{"method":1.5}"#, r#"{"id":-1}"#] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
