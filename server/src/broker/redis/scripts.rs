//! The scripts that keep streams, as calls with types. Their effects and order are Centrifugo's; their texts are ours.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use bytes::Bytes;
use hashbrown::HashMap;
use redis::{ErrorKind, RedisError, Script, Value, aio::MultiplexedConnection};
use smallvec::{SmallVec, smallvec};

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

impl Append {
    /// Whether both may be of one run: what is asked of Redis is the same but for the payload.
    fn goes_with(&self, other: &Self) -> bool {
        self.is_plain() && other.is_plain() && self.stream == other.stream && self.history == other.history
    }

    fn is_plain(&self) -> bool {
        !self.idempotent && self.version.is_none()
    }
}

/// What Redis said to one of several publications.
pub(super) type Appended = Result<Published, String>;

/// Publishes many: in the order given for each stream, in any order between streams. Answers in the order given.
/// One that fails leaves those of other streams alone.
///
/// # Errors
///
/// The call failed as a whole; each publication may or may not have happened.
pub(super) async fn publish(
    mut connection: MultiplexedConnection,
    batch: &[Append],
) -> Result<Vec<Appended>, RedisError> {
    let runs = runs(batch);
    let mut call = PUBLISH.prepare_invoke();
    call.arg("publish");
    for run in &runs {
        let first = &batch[run[0]];
        call.key(&first.stream).key(&first.meta).key(&first.result);
        call.arg(run.len()).arg(first.history.size).arg(seconds(first.history.ttl)).arg(&first.message_channel);
        call.arg(seconds(first.history.meta_ttl)).arg(epoch::random());
        if first.idempotent {
            call.arg(RESULT_TTL_S)
        } else {
            call.arg("")
        };
        match &first.version {
            Some(version) => call.arg(version.number).arg(&version.epoch),
            None => call.arg("0").arg(""),
        };
        for index in run {
            call.arg(if batch[*index].delta { "1" } else { "" }).arg(&batch[*index].payload);
        }
    }
    let answers: Vec<Value> = call.invoke_async(&mut connection).await?;
    if answers.len() != runs.len() {
        return Err(unexpected("publish"));
    }
    let mut each: Vec<Option<Appended>> = (0..batch.len()).map(|_| None).collect();
    for (run, answer) in runs.iter().zip(answers) {
        let last = appended(answer)?;
        for (index, behind) in run.iter().rev().zip(0..) {
            each[*index] = Some(last.clone().map(|last| before(last, behind)));
        }
    }
    Ok(each.into_iter().map(|answer| answer.expect("each publication is in one run")).collect())
}

/// Indices of publications that are served together: those of one stream that follow each other.
fn runs(batch: &[Append]) -> Vec<SmallVec<[usize; 4]>> {
    let mut runs: Vec<SmallVec<[usize; 4]>> = Vec::with_capacity(batch.len());
    let mut last_of: HashMap<&str, usize> = HashMap::with_capacity(batch.len());
    for (index, append) in batch.iter().enumerate() {
        match last_of.get(append.stream.as_str()) {
            Some(run) if batch[runs[*run][0]].goes_with(append) => runs[*run].push(index),
            Some(_) | None => {
                last_of.insert(&append.stream, runs.len());
                runs.push(smallvec![index]);
            }
        }
    }
    runs
}

/// What became of the publication that many places before the last of its run.
fn before(last: Published, behind: u64) -> Published {
    let Published { position, suppressed } = last;
    let position =
        position.map(|position| StreamPosition { offset: position.offset.saturating_sub(behind), ..position });
    Published { position, suppressed }
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
