//! The scripts that keep streams, as calls with types. Their effects and order are Centrifugo's; their texts are ours.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use bytes::Bytes;
use redis::{ErrorKind, RedisError, Script, Value, aio::MultiplexedConnection};

use super::payload;
use crate::broker::{
    Epoch, History, HistoryOptions, HistoryQuery, Limit, Publication, Published, StreamPosition, Suppressed, Version,
    epoch,
};

/// How long Redis remembers an idempotency key, in seconds.
const RESULT_TTL_S: u32 = 300;

static PUBLISH: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/publish.lua")));
static PUBLISH_ONCE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/publish_once.lua")));
static HISTORY: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/history.lua")));

/// A publication with history, ready to be sent.
pub(super) struct Append {
    pub(super) stream: String,
    pub(super) meta: String,
    /// Key of the result; with an empty idempotency key it is not touched.
    pub(super) result: String,
    pub(super) message_channel: String,
    pub(super) payload: Vec<u8>,
    pub(super) history: HistoryOptions,
    pub(super) idempotent: bool,
    pub(super) delta: bool,
    pub(super) version: Option<Version>,
}

/// What Redis said to one of several publications.
pub(super) type Appended = Result<Published, String>;

/// Publishes in order, each by itself: one that fails leaves the others alone.
///
/// # Errors
///
/// The call failed as a whole; each publication may or may not have happened.
pub(super) async fn publish(
    mut connection: MultiplexedConnection,
    batch: &[Append],
) -> Result<Vec<Appended>, RedisError> {
    let mut call = PUBLISH.prepare_invoke();
    call.arg("publish");
    for append in batch {
        call.key(&append.stream).key(&append.meta).key(&append.result);
        call.arg(&append.payload)
            .arg(append.history.size)
            .arg(seconds(append.history.ttl))
            .arg(&append.message_channel);
        call.arg(seconds(append.history.meta_ttl)).arg(epoch::random());
        if append.idempotent {
            call.arg(RESULT_TTL_S)
        } else {
            call.arg("")
        };
        call.arg(if append.delta { "1" } else { "" });
        match &append.version {
            Some(version) => call.arg(version.number).arg(&version.epoch),
            None => call.arg("0").arg(""),
        };
    }
    let answers: Vec<Value> = call.invoke_async(&mut connection).await?;
    if answers.len() != batch.len() {
        return Err(unexpected("publish"));
    }
    answers.into_iter().map(appended).collect()
}

fn appended(answer: Value) -> Result<Appended, RedisError> {
    let parts = match answer {
        Value::Array(parts) => parts,
        Value::BulkString(error) => return Ok(Err(String::from_utf8_lossy(&error).into_owned())),
        _ => return Err(unexpected("publish")),
    };
    let [offset, epoch, remembered, outdated] = <[Value; 4]>::try_from(parts).map_err(|_| unexpected("publish"))?;
    let offset: u64 = redis::from_redis_value(offset)?;
    let epoch: String = redis::from_redis_value(epoch)?;
    let remembered: bool = redis::from_redis_value(remembered)?;
    let outdated: bool = redis::from_redis_value(outdated)?;
    let suppressed = match (remembered, outdated) {
        (true, _) => Some(Suppressed::Idempotency),
        (false, true) => Some(Suppressed::Version),
        (false, false) => None,
    };
    // The first publication with this key may have been one without history.
    let position = (!epoch.is_empty()).then(|| StreamPosition { epoch: epoch.into(), offset });
    Ok(Ok(Published { position, suppressed }))
}

/// Publishes without history, unless the key of this result was used before.
pub(super) async fn publish_once(
    mut connection: MultiplexedConnection,
    result: String,
    message_channel: String,
    payload: Vec<u8>,
) -> Result<Published, RedisError> {
    let mut call = PUBLISH_ONCE.prepare_invoke();
    call.key(result).arg(payload).arg(message_channel).arg("publish").arg(RESULT_TTL_S);
    let published: bool = call.invoke_async(&mut connection).await?;
    Ok(Published { position: None, suppressed: (!published).then_some(Suppressed::Idempotency) })
}

/// Reads a stream.
pub(super) async fn history(
    mut connection: MultiplexedConnection,
    stream: String,
    meta: String,
    query: HistoryQuery,
    options: HistoryOptions,
) -> Result<History, RedisError> {
    let (start, limit) = match (query.since, query.limit, query.reverse) {
        (_, Limit::PositionOnly, _) | (Some(0 | 1), _, true) => (0, None),
        (None, limit, _) => (0, Some(limit)),
        (Some(since), limit, false) => (since.saturating_add(1), Some(limit)),
        (Some(since), limit, true) => (since - 1, Some(limit)),
    };
    let most = match limit {
        Some(Limit::AtMost(most)) => most,
        Some(Limit::All | Limit::PositionOnly) | None => 0,
    };
    let mut call = HISTORY.prepare_invoke();
    call.key(stream).key(meta);
    call.arg(u8::from(limit.is_some())).arg(start).arg(most).arg(u8::from(query.reverse));
    call.arg(seconds(options.meta_ttl)).arg(epoch::random());
    let parts: Vec<Value> = call.invoke_async(&mut connection).await?;
    let mut parts = parts.into_iter();
    let (Some(top), Some(epoch)) = (parts.next(), parts.next()) else { return Err(unexpected("history")) };
    let epoch: String = redis::from_redis_value(epoch)?;
    let top = StreamPosition { epoch: epoch.into(), offset: redis::from_redis_value(top)? };
    let entries: Vec<(String, Vec<(Bytes, Bytes)>)> = match parts.next() {
        Some(entries) => redis::from_redis_value(entries)?,
        None => Vec::new(),
    };
    Ok(History { publications: readable(entries, &top, query.reverse), top })
}

/// Publications of entries, oldest or newest first.
///
/// Entries above the top are those of an earlier life whose meta key is gone. One that cannot be read counts as dropped, and so
/// do those before it: what is answered has no holes.
fn readable(entries: Vec<(String, Vec<(Bytes, Bytes)>)>, top: &StreamPosition, reverse: bool) -> Vec<Publication> {
    let mut publications = Vec::with_capacity(entries.len());
    for (id, fields) in entries {
        let offset = id.split_once('-').and_then(|(offset, _)| offset.parse::<u64>().ok());
        let stored = fields.into_iter().find(|(name, _)| name == "d").map(|(_, stored)| stored);
        let publication = match (offset, stored) {
            (Some(offset), _) if offset > top.offset => continue,
            (Some(offset), Some(stored)) => payload::stored(stored, position(&top.epoch, offset)),
            (None, _) | (_, None) => None,
        };
        match publication {
            Some(publication) => publications.push(publication),
            None if reverse => break,
            None => publications.clear(),
        }
    }
    publications
}

fn position(epoch: &Epoch, offset: u64) -> StreamPosition {
    StreamPosition { epoch: Arc::clone(epoch), offset }
}

/// Whole seconds, rounded up: none would delete the key at once.
fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

fn unexpected(script: &'static str) -> RedisError {
    RedisError::from((ErrorKind::UnexpectedReturnType, "a script answered what it cannot answer", script.to_owned()))
}
