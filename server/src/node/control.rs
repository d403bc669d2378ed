//! Control messages: what the nodes of a cluster tell each other, and the seam to what carries them.
//!
//! Each message is one Protobuf `Command` with the uid of its sender and one part. The format is Centrifugo's. Rules of
//! receiving: a node ignores its own messages, parts it does not know, and requests with a condition it cannot apply. A
//! missing user means the anonymous connections; only the field `all_users` would mean everybody, and that is such a
//! condition: acting on fewer or other connections than were meant would be worse than not acting.

use std::{borrow::Cow, fmt};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use prost::Message as _;
use starling_proto::control as wire;

use super::{Counts, NodeInfo, Target};
use crate::{
    auth::{ChannelClaims, Overrides, UnixSeconds},
    broker::{BrokerError, StreamPosition},
    error::{Disconnect, Unsubscribed},
    names::{ChannelName, NodeId, UserId},
    namespace::Rules,
    session::{ServerRefresh, ServerSubscription},
};

/// Who asks for a subscription, in Centrifugo's numbers: the server API.
const SOURCE_API: u32 = 10;

/// Whom a control message is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    /// Every node. The sender hears it, too, and ignores it.
    All,
    /// One node.
    Node(NodeId),
}

/// Carries control messages between nodes, best effort: a message is lost for nodes that are not connected, and may come
/// twice after a failure. No method blocks; futures end within the carrier's time limit, and may be polled on any thread of a
/// runtime that has timers.
pub trait Control: Send + Sync {
    /// Sends bytes of [`encode`].
    fn send(&self, to: To, message: Bytes) -> BoxFuture<'static, Result<(), BrokerError>>;
}

/// What a carrier reports, in the order in which it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlEvent {
    /// Messages are received from now on, for the first time or again. The others may have forgotten this node.
    Connected,
    /// The bytes of one message.
    Message(Bytes),
}

/// One control message.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// A node tells about itself.
    Announce(NodeInfo),
    /// End a subscription.
    Unsubscribe {
        /// Whose.
        target: Target,
        /// Which; without one the clients are only told.
        channel: Option<ChannelName>,
        /// What the clients are told.
        cause: Unsubscribed,
    },
    /// Subscribe connections.
    Subscribe {
        /// Which.
        target: Target,
        /// To what.
        subscription: RemoteSubscription,
    },
    /// Change when connections expire.
    Refresh {
        /// Which.
        target: Target,
        /// To when.
        refresh: ServerRefresh,
    },
    /// Disconnect connections.
    Disconnect {
        /// Which.
        target: Target,
        /// What the clients are told.
        cause: Disconnect,
        /// Client ids that stay.
        keep: Vec<String>,
    },
    /// The sender stops.
    Shutdown,
    /// A question to all nodes, or to one.
    SurveyRequest {
        /// The asker's count of its questions.
        id: u64,
        /// What is asked.
        op: String,
        /// The question itself, in the form that `op` has.
        data: Bytes,
    },
    /// An answer to the node that asked.
    SurveyResponse {
        /// The question's id.
        id: u64,
        /// 0 when there is an answer in `data`.
        code: u32,
        /// The answer itself.
        data: Bytes,
    },
}

/// What a control message can say of a [`ServerSubscription`]: no more than Centrifugo's format has fields for.
#[derive(Clone, Debug, PartialEq)]
pub struct RemoteSubscription {
    /// To which channel.
    pub channel: ChannelName,
    /// The subscriber is kept in presence.
    pub presence: bool,
    /// Its coming and going is told.
    pub join_leave: bool,
    /// It is told that of everyone.
    pub push_join_leave: bool,
    /// Its position is checked. Always so when it is recoverable.
    pub positioned: bool,
    /// It may recover.
    pub recoverable: bool,
    /// When it expires; `None` for never.
    pub expire_at: Option<UnixSeconds>,
    /// What others in the channel are shown about the subscriber; empty for nothing.
    pub info: Bytes,
    /// Data for the subscriber; empty for none.
    pub data: Bytes,
    /// Publications behind this position are sent first.
    pub recover_since: Option<StreamPosition>,
}

impl From<&ServerSubscription> for RemoteSubscription {
    fn from(subscription: &ServerSubscription) -> Self {
        let ServerSubscription { channel, granted, recover_since, history: _ } = subscription;
        Self {
            channel: channel.clone(),
            presence: granted.presence,
            join_leave: granted.join_leave,
            push_join_leave: granted.push_join_leave,
            positioned: granted.positioned,
            recoverable: granted.recoverable,
            expire_at: granted.expire_at,
            info: granted.info.clone(),
            data: granted.data.clone(),
            recover_since: recover_since.clone(),
        }
    }
}

impl RemoteSubscription {
    /// The whole subscription: what the message does not say is as this node's rules of the channel have it.
    pub fn under(self, rules: Rules<'_>) -> ServerSubscription {
        let overrides = Overrides {
            presence: Some(self.presence),
            join_leave: Some(self.join_leave),
            force_push_join_leave: Some(self.push_join_leave),
            force_recovery: Some(self.recoverable),
            force_positioning: Some(self.positioned),
        };
        let claims = ChannelClaims { info: self.info, data: self.data, overrides };
        ServerSubscription {
            channel: self.channel,
            granted: rules.granted_by_server(Some(&claims), self.expire_at),
            recover_since: self.recover_since,
            history: rules.history(),
        }
    }
}

/// Why a message is not acted upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// It is our own.
    Own,
    /// Not a Protobuf `Command` with a sender.
    Malformed,
    /// A part we do not know or cannot carry out, or none.
    Unknown,
    /// Its `label_filter` or `all_users` selects connections in a way that we cannot apply.
    Selection,
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Own => "our own",
            Self::Malformed => "malformed",
            Self::Unknown => "unknown part",
            Self::Selection => "selects connections in a way we cannot apply",
        })
    }
}

/// The bytes of a message from `from`.
pub fn encode(from: &NodeId, message: Message) -> Bytes {
    let mut command = wire::Command { uid: from.to_string(), ..wire::Command::default() };
    match message {
        Message::Announce(node) => command.node = Some(encode_node(node)),
        Message::Unsubscribe { target: Target { user, client, session }, channel, cause } => {
            command.unsubscribe = Some(wire::Unsubscribe {
                channel: channel.map(|channel| channel.to_string()).unwrap_or_default(),
                user: user.to_string(),
                client: client.unwrap_or_default(),
                session: session.unwrap_or_default(),
                code: cause.code,
                reason: cause.reason.into_owned(),
                label_filter: None,
                all_users: false,
            });
        }
        Message::Disconnect { target: Target { user, client, session }, cause, keep } => {
            command.disconnect = Some(wire::Disconnect {
                user: user.to_string(),
                whitelist: keep,
                code: cause.code,
                reason: cause.reason.into_owned(),
                // Older than the ranges of codes, which say it now.
                reconnect: false,
                client: client.unwrap_or_default(),
                session: session.unwrap_or_default(),
                label_filter: None,
                all_users: false,
            });
        }
        Message::Subscribe { target, subscription } => command.subscribe = Some(encode_subscribe(target, subscription)),
        Message::Refresh { target: Target { user, client, session }, refresh } => {
            let ServerRefresh { expired, expire_at, info } = refresh;
            command.refresh = Some(wire::Refresh {
                user: user.to_string(),
                client: client.unwrap_or_default(),
                expired,
                expire_at: seconds(expire_at),
                info: info.unwrap_or_default(),
                session: session.unwrap_or_default(),
                label_filter: None,
                all_users: false,
            });
        }
        Message::Shutdown => command.shutdown = Some(wire::Shutdown {}),
        Message::SurveyRequest { id, op, data } => command.survey_request = Some(wire::SurveyRequest { id, op, data }),
        Message::SurveyResponse { id, code, data } => {
            command.survey_response = Some(wire::SurveyResponse { id, code, data });
        }
    }
    command.encode_to_vec().into()
}

/// A message that says nothing: it shows its sender, who ignores it, that messages come through.
pub fn nothing_to_say(from: &NodeId) -> Bytes {
    wire::Command { uid: from.to_string(), ..wire::Command::default() }.encode_to_vec().into()
}

/// Reads a message that reached the node `own`: its sender and what it says.
pub fn decode(own: &NodeId, bytes: Bytes) -> Result<(NodeId, Message), Ignored> {
    let command = wire::Command::decode(bytes).map_err(|_| Ignored::Malformed)?;
    if command.uid.is_empty() {
        return Err(Ignored::Malformed);
    }
    if *command.uid == *own.0 {
        return Err(Ignored::Own);
    }
    let message = match command {
        wire::Command { node: Some(node), .. } => Message::Announce(decode_node(node, &command.uid)),
        wire::Command { unsubscribe: Some(unsubscribe), .. } => decode_unsubscribe(unsubscribe)?,
        wire::Command { disconnect: Some(disconnect), .. } => decode_disconnect(disconnect)?,
        wire::Command { subscribe: Some(subscribe), .. } => decode_subscribe(subscribe)?,
        wire::Command { refresh: Some(refresh), .. } => decode_refresh(refresh)?,
        wire::Command { shutdown: Some(wire::Shutdown {}), .. } => Message::Shutdown,
        wire::Command { survey_request: Some(wire::SurveyRequest { id, op, data }), .. } => {
            Message::SurveyRequest { id, op, data }
        }
        wire::Command { survey_response: Some(wire::SurveyResponse { id, code, data }), .. } => {
            Message::SurveyResponse { id, code, data }
        }
        // Notifications carry usage statistics.
        wire::Command { .. } => return Err(Ignored::Unknown),
    };
    Ok((NodeId(command.uid.into()), message))
}

fn encode_node(node: NodeInfo) -> wire::Node {
    let NodeInfo { uid, name, version, counts, uptime_s, metrics } = node;
    let Counts { clients, users, channels, subscriptions } = counts;
    wire::Node {
        uid,
        name,
        version,
        num_clients: clients,
        num_users: users,
        num_channels: channels,
        uptime: uptime_s,
        metrics: metrics.map(|(interval, items)| wire::Metrics { interval, items }),
        data: Bytes::new(),
        num_subs: subscriptions,
    }
}

fn decode_node(node: wire::Node, sender: &str) -> NodeInfo {
    let wire::Node { uid: _, name, version, num_clients, num_users, num_channels, uptime, metrics, data: _, num_subs } =
        node;
    NodeInfo {
        // Nodes announce themselves and nobody else.
        uid: sender.to_owned(),
        name,
        version,
        counts: Counts { clients: num_clients, users: num_users, channels: num_channels, subscriptions: num_subs },
        uptime_s: uptime,
        metrics: metrics.map(|wire::Metrics { interval, items }| (interval, items)),
    }
}

fn decode_unsubscribe(unsubscribe: wire::Unsubscribe) -> Result<Message, Ignored> {
    let wire::Unsubscribe { channel, user, client, session, code, reason, label_filter, all_users } = unsubscribe;
    if all_users || label_filter.is_some() {
        return Err(Ignored::Selection);
    }
    let cause = if (2000..=2999).contains(&code) {
        Unsubscribed { code, reason: Cow::Owned(reason) }
    } else {
        Unsubscribed::SERVER
    };
    let channel = (!channel.is_empty()).then(|| channel.into());
    Ok(Message::Unsubscribe { target: target(user, client, session), channel, cause })
}

fn decode_disconnect(disconnect: wire::Disconnect) -> Result<Message, Ignored> {
    let wire::Disconnect { user, whitelist, code, reason, reconnect: _, client, session, label_filter, all_users } =
        disconnect;
    if all_users || label_filter.is_some() {
        return Err(Ignored::Selection);
    }
    // Only these codes may stand in a Close frame of ours, with a reason of at most 123 bytes.
    let cause = if (3000..=4999).contains(&code) {
        Disconnect { code, reason: Cow::Owned(cut(reason, 123)) }
    } else {
        Disconnect::FORCE_DISCONNECT
    };
    Ok(Message::Disconnect { target: target(user, client, session), cause, keep: whitelist })
}

fn encode_subscribe(target: Target, subscription: RemoteSubscription) -> wire::Subscribe {
    let Target { user, client, session } = target;
    let RemoteSubscription {
        channel,
        presence,
        join_leave,
        push_join_leave,
        positioned,
        recoverable,
        expire_at,
        info,
        data,
        recover_since,
    } = subscription;
    wire::Subscribe {
        user: user.to_string(),
        channel: channel.to_string(),
        emit_presence: presence,
        emit_join_leave: join_leave,
        expire_at: seconds(expire_at),
        position: positioned,
        recover: recoverable,
        channel_info: info,
        client: client.unwrap_or_default(),
        data,
        recover_since: recover_since
            .map(|StreamPosition { epoch, offset }| wire::StreamPosition { offset, epoch: epoch.to_string() }),
        session: session.unwrap_or_default(),
        push_join_leave,
        source: SOURCE_API,
        label_filter: None,
        all_users: false,
    }
}

fn decode_subscribe(subscribe: wire::Subscribe) -> Result<Message, Ignored> {
    let wire::Subscribe {
        user,
        channel,
        emit_presence,
        emit_join_leave,
        expire_at,
        position,
        recover,
        channel_info,
        client,
        data,
        recover_since,
        session,
        push_join_leave,
        source: _,
        label_filter,
        all_users,
    } = subscribe;
    if all_users || label_filter.is_some() {
        return Err(Ignored::Selection);
    }
    if channel.is_empty() {
        return Err(Ignored::Malformed);
    }
    let subscription = RemoteSubscription {
        channel: channel.into(),
        presence: emit_presence,
        join_leave: emit_join_leave,
        push_join_leave,
        positioned: position || recover,
        recoverable: recover,
        expire_at: given_seconds(expire_at),
        info: channel_info,
        data,
        recover_since: recover_since
            .map(|wire::StreamPosition { offset, epoch }| StreamPosition { epoch: epoch.into(), offset }),
    };
    Ok(Message::Subscribe { target: target(user, client, session), subscription })
}

fn decode_refresh(refresh: wire::Refresh) -> Result<Message, Ignored> {
    let wire::Refresh { user, client, expired, expire_at, info, session, label_filter, all_users } = refresh;
    if all_users || label_filter.is_some() {
        return Err(Ignored::Selection);
    }
    let info = (!info.is_empty()).then_some(info);
    let refresh = ServerRefresh { expired, expire_at: given_seconds(expire_at), info };
    Ok(Message::Refresh { target: target(user, client, session), refresh })
}

/// A time on the wire, where never is 0.
fn seconds(at: Option<UnixSeconds>) -> i64 {
    at.map_or(0, |at| at.0)
}

/// A time from the wire, where what is not positive is never.
fn given_seconds(at: i64) -> Option<UnixSeconds> {
    (at > 0).then_some(UnixSeconds(at))
}

fn target(user: String, client: String, session: String) -> Target {
    let given = |text: String| (!text.is_empty()).then_some(text);
    Target { user: UserId::from(user), client: given(client), session: given(session) }
}

fn cut(mut text: String, bytes: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes));
    text
}

#[cfg(test)]
mod tests {
    use base64::{Engine, prelude::BASE64_STANDARD};
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::{
        config::{self, RecoveryMode},
        namespace::Namespaces,
    };

    fn vectors() -> Value {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/redis/control.json");
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    fn base64(value: &Value) -> Bytes {
        BASE64_STANDARD.decode(value.as_str().unwrap()).unwrap().into()
    }

    /// All recorded messages with the names of their cases.
    fn recorded(vectors: &Value) -> Vec<(&str, &Value)> {
        let cases = vectors["cases"].as_array().unwrap().iter();
        cases
            .flat_map(|case| {
                let messages = case["messages"].as_array().into_iter().flatten();
                messages.map(|message| (case["name"].as_str().unwrap(), message))
            })
            .collect()
    }

    /// A node that took no part in the recording.
    fn witness() -> NodeId {
        NodeId("witness".into())
    }

    #[test]
    fn every_recorded_message_is_read_as_what_it_is() {
        let vectors = vectors();
        let mut read = 0;
        for (case, recorded) in recorded(&vectors) {
            let (from, message) = decode(&witness(), base64(&recorded["base64"])).expect(case);
            read += 1;
            let fields = &recorded["fields"];
            assert_eq!(*from.0, *fields["uid"].as_str().unwrap(), "{case}");
            assert_eq!(described(&message), described_by(fields), "{case}");
        }
        assert!(read > 20, "{read}");
    }

    /// A message in the words of the recording, without what stands there in another form.
    fn described(message: &Message) -> Value {
        let mut described = match message {
            Message::Announce(node) => serde_json::json!({"node": {
                "uid": node.uid, "name": node.name, "version": node.version, "uptime": node.uptime_s,
                "num_clients": node.counts.clients, "num_users": node.counts.users,
                "num_channels": node.counts.channels, "num_subs": node.counts.subscriptions,
            }}),
            Message::Unsubscribe { target, channel, cause } => serde_json::json!({"unsubscribe": {
                "user": target.user.as_str(), "client": target.client, "session": target.session,
                "channel": channel.as_ref().map(ChannelName::as_str), "code": cause.code, "reason": cause.reason,
            }}),
            Message::Subscribe { target, subscription } => serde_json::json!({"subscribe": {
                "user": target.user.as_str(), "client": target.client, "session": target.session,
                "channel": subscription.channel.as_str(), "source": SOURCE_API,
                "emit_presence": subscription.presence, "emit_join_leave": subscription.join_leave,
                "push_join_leave": subscription.push_join_leave,
                "position": subscription.positioned, "recover": subscription.recoverable,
                "expire_at": seconds(subscription.expire_at),
                "channel_info": text(&subscription.info), "data": text(&subscription.data),
                "recover_since": subscription.recover_since.as_ref().map(|position| serde_json::json!({
                    "offset": position.offset, "epoch": *position.epoch,
                })),
            }}),
            Message::Refresh { target, refresh } => serde_json::json!({"refresh": {
                "user": target.user.as_str(), "client": target.client, "session": target.session,
                "expired": refresh.expired, "expire_at": seconds(refresh.expire_at),
                "info": refresh.info.as_ref().map(text),
            }}),
            Message::Disconnect { target, cause, keep } => serde_json::json!({"disconnect": {
                "user": target.user.as_str(), "client": target.client, "session": target.session,
                "whitelist": keep, "code": cause.code, "reason": cause.reason,
            }}),
            Message::Shutdown => serde_json::json!({"shutdown": {}}),
            Message::SurveyRequest { id, op, .. } => serde_json::json!({"survey_request": {"id": id, "op": op}}),
            Message::SurveyResponse { id, code, .. } => {
                serde_json::json!({"survey_response": {"id": id, "code": code}})
            }
        };
        let part = described.as_object_mut().unwrap().values_mut().next().unwrap();
        part.as_object_mut()
            .unwrap()
            .retain(|_, value| !matches!(value.to_string().as_str(), "0" | "false" | "null" | "[]" | "\"\""));
        described
    }

    fn described_by(fields: &Value) -> Value {
        let mut described = fields.clone();
        let described_fields = described.as_object_mut().unwrap();
        described_fields.remove("uid");
        let (name, part) = described_fields.iter_mut().next().unwrap();
        let part = part.as_object_mut().unwrap();
        if name != "subscribe" {
            part.remove("data");
        }
        part.remove("metrics");
        described
    }

    fn text(bytes: &Bytes) -> String {
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn messages_are_written_as_they_were_recorded() {
        let vectors = vectors();
        let mut written = 0;
        for (case, recorded) in recorded(&vectors) {
            let bytes = base64(&recorded["base64"]);
            let Ok((from, message)) = decode(&witness(), bytes.clone()) else { continue };
            // Metrics are a Protobuf map, whose order is free.
            if !matches!(&message, Message::Announce(NodeInfo { metrics: Some(_), .. })) {
                assert_eq!(encode(&from, message), bytes, "{case}");
                written += 1;
            }
        }
        assert!(written > 15, "{written}");
    }

    fn subscription(wire: wire::Subscribe) -> RemoteSubscription {
        let command = wire::Command { uid: "other".into(), subscribe: Some(wire), ..Default::default() };
        match decode(&witness(), command.encode_to_vec().into()).unwrap().1 {
            Message::Subscribe { subscription, .. } => subscription,
            message => panic!("{message:?}"),
        }
    }

    #[test]
    fn a_subscription_that_is_recoverable_is_positioned_and_times_that_are_not_positive_are_none() {
        let wire = wire::Subscribe { channel: "c".into(), recover: true, expire_at: -5, ..Default::default() };
        let read = subscription(wire);
        assert_eq!((read.positioned, read.recoverable, read.expire_at), (true, true, None));
        let command = wire::Command { uid: "other".into(), subscribe: Some(Default::default()), ..Default::default() };
        assert_eq!(decode(&witness(), command.encode_to_vec().into()), Err(Ignored::Malformed));
    }

    #[test]
    fn what_a_message_leaves_out_of_a_subscription_is_as_configured_here() {
        let options = config::ChannelOptions {
            // What the message says wins over these two.
            presence: true,
            force_push_join_leave: true,
            history_size: Some(10),
            history_ttl: Some(std::time::Duration::from_secs(60)),
            force_recovery_mode: RecoveryMode::Cache,
            ..Default::default()
        };
        let channel = config::Channel { without_namespace: options, ..Default::default() };
        let namespaces = Namespaces::new(&channel, &config::Client::default()).unwrap();
        let wire = wire::Subscribe {
            channel: "c".into(),
            recover: true,
            emit_join_leave: true,
            expire_at: 7,
            channel_info: Bytes::from_static(b"1"),
            data: Bytes::from_static(b"2"),
            recover_since: Some(wire::StreamPosition { offset: 3, epoch: "e".into() }),
            ..Default::default()
        };
        let message = subscription(wire);
        let whole = message.clone().under(namespaces.resolve("c").unwrap());
        let granted = &whole.granted;
        assert_eq!((granted.presence, granted.push_join_leave, granted.join_leave), (false, false, true));
        assert_eq!((granted.recoverable, granted.recovery_mode), (true, RecoveryMode::Cache));
        assert_eq!(whole.history.map(|history| history.size), Some(10));
        assert_eq!(RemoteSubscription::from(&whole), message);
    }

    #[test]
    fn the_smallest_announcement() {
        let node = NodeInfo { uid: "A".into(), ..NodeInfo::default() };
        assert_eq!(encode(&NodeId("A".into()), Message::Announce(node)), b"\x0a\x01A\x22\x03\x0a\x01A".as_slice());
    }

    #[test]
    fn own_messages_and_those_without_a_sender_are_ignored() {
        let message = encode(&witness(), Message::Shutdown);
        assert_eq!(decode(&witness(), message), Err(Ignored::Own));
        assert_eq!(decode(&witness(), nothing_to_say(&witness())), Err(Ignored::Own));
        assert_eq!(decode(&witness(), nothing_to_say(&NodeId("other".into()))), Err(Ignored::Unknown));
        assert_eq!(decode(&witness(), Bytes::new()), Err(Ignored::Malformed));
        assert_eq!(decode(&witness(), Bytes::from_static(b"\xff")), Err(Ignored::Malformed));
    }

    #[test]
    fn what_we_cannot_select_by_is_not_acted_upon() {
        let filter = Some(wire::FilterNode::default());
        let commands = [
            wire::Command {
                disconnect: Some(wire::Disconnect { all_users: true, ..Default::default() }),
                ..Default::default()
            },
            wire::Command {
                disconnect: Some(wire::Disconnect {
                    label_filter: filter.clone(),
                    user: "u".into(),
                    ..Default::default()
                }),
                ..Default::default()
            },
            wire::Command {
                unsubscribe: Some(wire::Unsubscribe { all_users: true, ..Default::default() }),
                ..Default::default()
            },
            wire::Command {
                unsubscribe: Some(wire::Unsubscribe {
                    label_filter: filter.clone(),
                    user: "u".into(),
                    ..Default::default()
                }),
                ..Default::default()
            },
            wire::Command {
                subscribe: Some(wire::Subscribe { all_users: true, channel: "c".into(), ..Default::default() }),
                ..Default::default()
            },
            wire::Command {
                subscribe: Some(wire::Subscribe {
                    label_filter: filter.clone(),
                    channel: "c".into(),
                    ..Default::default()
                }),
                ..Default::default()
            },
            wire::Command {
                refresh: Some(wire::Refresh { all_users: true, ..Default::default() }),
                ..Default::default()
            },
            wire::Command {
                refresh: Some(wire::Refresh { label_filter: filter, user: "u".into(), ..Default::default() }),
                ..Default::default()
            },
        ];
        for command in commands {
            let bytes = wire::Command { uid: "other".into(), ..command }.encode_to_vec();
            assert_eq!(decode(&witness(), bytes.into()), Err(Ignored::Selection));
        }
    }

    #[test]
    fn codes_and_reasons_that_no_client_could_be_told_are_replaced() {
        let other = NodeId("other".into());
        let target = Target { user: "u".into(), client: None, session: None };
        let through = |cause: Disconnect| {
            let message = Message::Disconnect { target: target.clone(), cause, keep: Vec::new() };
            match decode(&witness(), encode(&other, message)).unwrap().1 {
                Message::Disconnect { cause, .. } => cause,
                message => panic!("{message:?}"),
            }
        };
        assert_eq!(through(Disconnect { code: 0, reason: "".into() }), Disconnect::FORCE_DISCONNECT);
        assert_eq!(through(Disconnect { code: 5000, reason: "x".into() }), Disconnect::FORCE_DISCONNECT);
        assert_eq!(through(Disconnect { code: 4000, reason: "ü".repeat(100).into() }).reason.len(), 122);
        let message =
            Message::Unsubscribe { target, channel: None, cause: Unsubscribed { code: 1, reason: "x".into() } };
        let (_, read) = decode(&witness(), encode(&other, message)).unwrap();
        assert!(matches!(read, Message::Unsubscribe { cause, .. } if cause == Unsubscribed::SERVER));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = decode(&witness(), bytes.into());
        }
    }
}
