//! What all subscribers of a run have in common.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use jsonwebtoken::{EncodingKey, Header};
use serde::Serialize;

use crate::clock::RunClock;
use crate::payload::PayloadFormat;
use crate::target::Endpoint;
use crate::target::speech::Speech;

/// A description of subscribers: where they go, what they subscribe to, how they check what comes.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// The WebSocket endpoint.
    pub endpoint: Endpoint,
    /// What is spoken there.
    pub speech: Speech,
    /// Who the clients say they are.
    pub tokens: Tokens,
    /// How many subscribers.
    pub subscribers: u32,
    /// Channels that each of them subscribes to, from 1 to the number of channels.
    pub subscriptions: u32,
    /// The channels.
    pub channels: ChannelNames,
    /// Ordered streams per channel.
    pub streams: u16,
    /// Checks payloads.
    pub format: Arc<PayloadFormat>,
    /// The run's clock.
    pub clock: RunClock,
    /// Receiving threads.
    pub threads: usize,
    /// Time for one connection to open.
    pub connect_timeout: Duration,
    /// Connections that open at the same time, all threads together.
    pub connect_concurrency: usize,
    /// Connections opened per second, all threads together; as fast as they come when absent.
    pub connects_per_second: Option<f64>,
    /// True when the run cuts connections.
    pub cuts: bool,
    /// True when who was cut asks for what it missed.
    pub recover: bool,
    /// So many subscribers read no faster than [`Fleet::slow_bytes_per_second`].
    pub slow_readers: u32,
    /// What a slow reader reads.
    pub slow_bytes_per_second: u64,
    /// So many subscribers neither read nor answer once they are subscribed.
    pub half_open: u32,
    /// Seed of who is cut.
    pub seed: u64,
}

/// What a subscriber does once it is subscribed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Reads and is audited.
    Reader,
    /// Reads less than comes.
    SlowReader,
    /// Neither reads nor answers, and does not close.
    HalfOpen,
}

impl Fleet {
    /// What a subscriber does: the last ones are half-open, the slow ones come before them.
    pub fn role(&self, subscriber: u32) -> Role {
        let from_the_end = self.subscribers.saturating_sub(subscriber);
        if from_the_end <= self.half_open {
            Role::HalfOpen
        } else if from_the_end <= self.half_open.saturating_add(self.slow_readers) {
            Role::SlowReader
        } else {
            Role::Reader
        }
    }

    /// The first channel of a subscriber; its other ones follow, from the last to the first again.
    pub fn first_channel(&self, subscriber: u32) -> u32 {
        let channels = u64::from(self.channels.count());
        (u64::from(subscriber) * u64::from(self.subscriptions) % channels) as u32
    }

    /// The channels of a subscriber.
    pub fn channels_of(&self, subscriber: u32) -> impl Iterator<Item = u32> + use<> {
        let (first, count) = (self.first_channel(subscriber), self.channels.count());
        (0..self.subscriptions).map(move |step| ((u64::from(first) + u64::from(step)) % u64::from(count)) as u32)
    }

    /// Where a channel stands among the subscriptions of a subscriber; `None` when it has not subscribed to it.
    pub fn place_of(&self, subscriber: u32, channel: u32) -> Option<usize> {
        let (first, count) = (u64::from(self.first_channel(subscriber)), u64::from(self.channels.count()));
        let step = (u64::from(channel) + count - first) % count;
        (step < u64::from(self.subscriptions)).then_some(step as usize)
    }

    /// How many audited subscribers each channel has, by index.
    pub fn subscribers_by_channel(&self) -> Vec<u64> {
        let mut counts = vec![0; self.channels.count() as usize];
        for subscriber in (0..self.subscribers).filter(|&subscriber| self.role(subscriber) == Role::Reader) {
            for channel in self.channels_of(subscriber) {
                counts[channel as usize] += 1;
            }
        }
        counts
    }
}

/// Names of the channels of a run: a prefix and a decimal number, so that a name gives its index without a map.
#[derive(Clone, Debug)]
pub struct ChannelNames {
    prefix: String,
    names: Arc<[String]>,
}

impl ChannelNames {
    /// `count` names that begin with `prefix`.
    pub fn new(prefix: &str, count: u32) -> Self {
        let names = (0..count).map(|index| format!("{prefix}{index}")).collect();
        ChannelNames { prefix: prefix.to_owned(), names }
    }

    /// How many.
    pub fn count(&self) -> u32 {
        self.names.len() as u32
    }

    /// All names by index.
    pub fn all(&self) -> &Arc<[String]> {
        &self.names
    }

    /// The name of one channel.
    pub fn name(&self, index: u32) -> &str {
        &self.names[index as usize]
    }

    /// The index of a name, or `None` when it is not one of these.
    pub fn index(&self, name: &str) -> Option<u32> {
        let number = name.strip_prefix(self.prefix.as_str())?;
        let index = number.bytes().try_fold(0u32, |index, digit| {
            let digit = digit.is_ascii_digit().then(|| u32::from(digit - b'0'))?;
            index.checked_mul(10)?.checked_add(digit)
        })?;
        (self.names.get(index as usize).map(String::as_str) == Some(name)).then_some(index)
    }
}

/// Where tokens come from.
#[derive(Clone)]
pub enum Tokens {
    /// Clients are anonymous.
    Anonymous,
    /// All clients use the same token.
    Fixed(String),
    /// Each client is a user of its own, with a token signed by HS256.
    Signed(EncodingKey),
}

#[derive(Serialize)]
struct Claims {
    sub: String,
    exp: u64,
}

impl Tokens {
    /// The source that a secret or a token asks for; the secret comes first.
    pub fn new(secret: Option<&str>, token: Option<&str>) -> Self {
        match (secret, token) {
            (Some(secret), _) => Tokens::Signed(EncodingKey::from_secret(secret.as_bytes())),
            (None, Some(token)) => Tokens::Fixed(token.to_owned()),
            (None, None) => Tokens::Anonymous,
        }
    }

    /// The token of one user, empty for an anonymous one. Signed ones are valid for a day.
    ///
    /// # Errors
    ///
    /// When the secret cannot sign.
    pub fn token(&self, user: &str) -> anyhow::Result<String> {
        match self {
            Tokens::Anonymous => Ok(String::new()),
            Tokens::Fixed(token) => Ok(token.clone()),
            Tokens::Signed(key) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let claims = Claims { sub: user.to_owned(), exp: now.as_secs() + 86_400 };
                jsonwebtoken::encode(&Header::default(), &claims, key).context("signing a token")
            }
        }
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Tokens::Anonymous => "Anonymous",
            Tokens::Fixed(_) => "Fixed",
            Tokens::Signed(_) => "Signed",
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::target::centrifuge::Encoding;

    pub(crate) fn fleet(subscribers: u32, subscriptions: u32, channels: u32) -> Fleet {
        Fleet {
            endpoint: Endpoint::parse("ws://127.0.0.1:1", "ws", "/").expect("sound"),
            speech: Speech::Centrifuge(Encoding::Json),
            tokens: Tokens::Anonymous,
            subscribers,
            subscriptions,
            channels: ChannelNames::new("t-", channels),
            streams: 1,
            format: Arc::new(PayloadFormat::new(1, &[128], 0.0, 1)),
            clock: RunClock::start(),
            threads: 1,
            connect_timeout: Duration::from_secs(1),
            connect_concurrency: 1,
            connects_per_second: None,
            cuts: false,
            recover: false,
            slow_readers: 0,
            slow_bytes_per_second: 0,
            half_open: 0,
            seed: 1,
        }
    }

    #[test]
    fn those_who_misbehave_are_the_last_ones_and_owed_nothing() {
        let fleet = Fleet { slow_readers: 2, half_open: 1, ..fleet(5, 1, 1) };
        let roles: Vec<Role> = (0..5).map(|subscriber| fleet.role(subscriber)).collect();
        assert_eq!(roles, [Role::Reader, Role::Reader, Role::SlowReader, Role::SlowReader, Role::HalfOpen]);
        assert_eq!(fleet.subscribers_by_channel(), [2]);
    }

    #[test]
    fn subscriptions_are_spread_evenly_and_found_again() {
        for (subscribers, subscriptions, channels) in [(10, 1, 3), (10, 2, 3), (7, 3, 3), (4, 1, 100)] {
            let fleet = fleet(subscribers, subscriptions, channels);
            let counts = fleet.subscribers_by_channel();
            assert_eq!(counts.iter().sum::<u64>(), u64::from(subscribers * subscriptions));
            for subscriber in 0..subscribers {
                let mine: Vec<u32> = fleet.channels_of(subscriber).collect();
                for channel in 0..channels {
                    let place = mine.iter().position(|&one| one == channel);
                    assert_eq!(fleet.place_of(subscriber, channel), place, "{subscriber} {channel}");
                }
            }
        }
    }

    #[test]
    fn a_name_gives_its_index_and_strangers_give_none() {
        let names = ChannelNames::new("t-", 12);
        assert_eq!(names.index("t-11"), Some(11));
        for stranger in ["t-12", "t-", "t-01", "x-1", "t-1x", "t-99999999999999"] {
            assert_eq!(names.index(stranger), None, "{stranger}");
        }
    }

    #[test]
    fn a_signed_token_has_three_parts_and_an_anonymous_one_is_empty() {
        let signed = Tokens::new(Some("secret"), None).token("u").expect("signs");
        assert_eq!(signed.split('.').count(), 3);
        assert_eq!(Tokens::new(None, None).token("u").expect("nothing to sign"), "");
    }
}
