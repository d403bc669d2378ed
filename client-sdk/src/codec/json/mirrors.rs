//! The shapes of the messages in JSON, in the order of the .proto file.
//!
//! `Always` marks the fields that the protocol wants to see even when they are zero or empty; every other field is then
//! left out.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use starling_proto::client;

use super::{Always, Mirror, Payload};

/// Defines the mirrors. Taking a message apart names all its fields, so a field that is new in the .proto file does not
/// compile until it is here, too.
macro_rules! mirrors {
    ($($name:ident { $($field:ident: $type:ty),* $(,)? })*) => {$(
        #[derive(Default, Serialize, Deserialize)]
        #[serde(default)]
        pub(super) struct $name {
            $(
                #[serde(skip_serializing_if = "Mirror::is_absent", deserialize_with = "Mirror::read")]
                $field: $type,
            )*
        }

        impl Mirror for $name {
            type Wire = client::$name;

            fn from_wire(wire: client::$name) -> Self {
                let client::$name { $($field),* } = wire;
                Self { $($field: Mirror::from_wire($field)),* }
            }

            fn into_wire(self) -> client::$name {
                let Self { $($field),* } = self;
                client::$name { $($field: Mirror::into_wire($field)),* }
            }

            fn is_absent(&self) -> bool {
                false
            }

            fn read<'de, D: Deserializer<'de>>(field: D) -> Result<Self, D::Error> {
                Self::deserialize(field)
            }
        }
    )*};
}

mirrors! {
    Error { code: u32, message: String, temporary: bool }
    Command {
        id: u32,
        connect: Option<ConnectRequest>,
        subscribe: Option<SubscribeRequest>,
        unsubscribe: Option<UnsubscribeRequest>,
        publish: Option<PublishRequest>,
        presence: Option<PresenceRequest>,
        presence_stats: Option<PresenceStatsRequest>,
        history: Option<HistoryRequest>,
        ping: Option<PingRequest>,
        send: Option<SendRequest>,
        rpc: Option<RpcRequest>,
        refresh: Option<RefreshRequest>,
        sub_refresh: Option<SubRefreshRequest>,
    }
    Reply {
        id: u32,
        error: Option<Error>,
        push: Option<Push>,
        connect: Option<ConnectResult>,
        subscribe: Option<SubscribeResult>,
        unsubscribe: Option<UnsubscribeResult>,
        publish: Option<PublishResult>,
        presence: Option<PresenceResult>,
        presence_stats: Option<PresenceStatsResult>,
        history: Option<HistoryResult>,
        ping: Option<PingResult>,
        rpc: Option<RpcResult>,
        refresh: Option<RefreshResult>,
        sub_refresh: Option<SubRefreshResult>,
    }
    Push {
        id: i64,
        channel: String,
        r#pub: Option<Publication>,
        join: Option<Join>,
        leave: Option<Leave>,
        unsubscribe: Option<Unsubscribe>,
        message: Option<Message>,
        subscribe: Option<Subscribe>,
        connect: Option<Connect>,
        disconnect: Option<Disconnect>,
        refresh: Option<Refresh>,
    }
    ClientInfo { user: Always<String>, client: Always<String>, conn_info: Payload, chan_info: Payload }
    Publication {
        data: Payload,
        info: Option<ClientInfo>,
        offset: u64,
        tags: BTreeMap<String, String>,
        delta: bool,
        time: i64,
        channel: String,
        key: String,
        removed: bool,
        score: i64,
        epoch: String,
        prev_data: Payload,
        version: u64,
    }
    StreamPosition { offset: u64, epoch: String }
    FilterNode { op: String, key: String, cmp: String, val: String, vals: Vec<String>, nodes: Vec<FilterNode> }
    KeyedItem { key: String, version: u64 }
    TrackBatch { signature: String, items: Vec<KeyedItem> }
    Dictionary { id: String, data: Payload, data_b64: String }
    Join { info: Option<ClientInfo> }
    Leave { info: Option<ClientInfo> }
    Unsubscribe { code: u32, reason: String }
    Message { data: Payload }
    Subscribe { recoverable: bool, epoch: String, offset: u64, positioned: bool, data: Payload }
    Connect {
        client: String,
        version: String,
        data: Payload,
        subs: BTreeMap<String, SubscribeResult>,
        expires: bool,
        ttl: u32,
        ping: u32,
        pong: bool,
        session: String,
        node: String,
        time: i64,
    }
    Disconnect { code: u32, reason: String, reconnect: bool }
    Refresh { expires: bool, ttl: u32 }
    ConnectRequest {
        token: String,
        data: Payload,
        subs: BTreeMap<String, SubscribeRequest>,
        name: String,
        version: String,
        headers: BTreeMap<String, String>,
        flag: i64,
        dict: String,
        profile: String,
    }
    ConnectResult {
        client: String,
        version: String,
        expires: bool,
        ttl: u32,
        data: Payload,
        subs: BTreeMap<String, SubscribeResult>,
        ping: u32,
        pong: bool,
        session: String,
        node: String,
        time: i64,
        flag: i64,
        dict: Option<Dictionary>,
    }
    SubscribeRequest {
        channel: String,
        token: String,
        recover: bool,
        epoch: String,
        offset: u64,
        data: Payload,
        positioned: bool,
        recoverable: bool,
        join_leave: bool,
        delta: String,
        tf: Option<FilterNode>,
        flag: i64,
        r#type: i32,
        phase: i32,
        cursor: String,
        limit: i32,
        asc: bool,
    }
    SubscribeResult {
        expires: bool,
        ttl: u32,
        recoverable: bool,
        epoch: String,
        publications: Vec<Publication>,
        recovered: bool,
        offset: u64,
        positioned: bool,
        data: Payload,
        was_recovering: bool,
        delta: bool,
        id: i64,
        r#type: i32,
        phase: i32,
        cursor: String,
        state: Vec<Publication>,
        publish_debounce: u32,
    }
    UnsubscribeRequest { channel: String }
    UnsubscribeResult {}
    PublishRequest { channel: String, data: Payload, r#type: i32, key: String, removed: bool }
    PublishResult {}
    PresenceRequest { channel: String }
    PresenceResult { presence: Always<BTreeMap<String, ClientInfo>> }
    PresenceStatsRequest { channel: String }
    PresenceStatsResult { num_clients: Always<u32>, num_users: Always<u32> }
    HistoryRequest { channel: String, limit: i32, since: Option<StreamPosition>, reverse: bool }
    HistoryResult { publications: Always<Vec<Publication>>, epoch: Always<String>, offset: Always<u64> }
    PingRequest {}
    PingResult {}
    RpcRequest { data: Payload, method: String }
    RpcResult { data: Payload }
    SendRequest { data: Payload }
    RefreshRequest { token: String }
    RefreshResult { client: String, version: String, expires: bool, ttl: u32 }
    SubRefreshRequest { channel: String, token: String, r#type: i32, track: Vec<TrackBatch>, untrack: Vec<String> }
    SubRefreshResult { expires: bool, ttl: u32, items: Vec<Publication> }
}
