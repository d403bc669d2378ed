//! Refusals that explain themselves: the rule that did not hold, what was seen, and the option that would allow it.
//!
//! A refusal holds references only. Its text is made when it is printed, so that one that nobody logs costs nothing:
//!
//! ```text
//! refused by the rule "clients may publish": channel "chat:room", user "42"; see option
//! channel.namespaces[chat].allow_publish_for_client, or use the server API, or client.insecure in development
//! ```

use std::fmt;

use super::{Namespaces, Rules, Subject};
use crate::{
    auth::{Failure, TokenRefusal},
    error::{ClientError, Disconnect},
};

/// The rules that can refuse a client, named by what would have to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// The command names a channel.
    ChannelIsNamed,
    /// Shared polling is there.
    KindIsAvailable,
    /// The kind of difference asked for is known.
    DeltaIsKnown,
    /// The channel is at most `channel.max_length` bytes long.
    NameIsShort,
    /// The namespace exists.
    NamespaceExists,
    /// The namespace of a channel named in `connect` exists.
    NamespaceOfConnectExists,
    /// The part after the boundary matches the namespace's `channel_regex`.
    NameMatchesRegex,
    /// The channel is ASCII.
    NameIsAscii,
    /// The kind of subscription asked for is that of the namespace.
    KindIsOfNamespace,
    /// A channel with the private prefix comes with a subscription token.
    PrivateChannelHasToken,
    /// The subscription token is accepted.
    TokenIsValid,
    /// The subscription token is for this channel.
    TokenIsOfChannel,
    /// The subscription token is for this user.
    TokenIsOfUser,
    /// The subscription token is for this connection.
    TokenIsOfClient,
    /// The name of the user-limited channel lists the user.
    UserIsListed,
    /// The namespace lets this client subscribe.
    ClientMaySubscribe,
    /// The subscription has not expired already.
    SubscriptionLives,
    /// The namespace lets subscribers filter by tags.
    FilterIsAllowed,
    /// The filter is well formed and not too large.
    FilterIsWellFormed,
    /// The namespace lets this client publish.
    ClientMayPublish,
    /// There is a payload.
    DataIsPresent,
    /// The payload is JSON.
    DataIsJson,
    /// The payload is a JSON object.
    DataIsJsonObject,
    /// Presence is kept.
    PresenceIsOn,
    /// The namespace lets this client read presence.
    ClientMayReadPresence,
    /// History is kept.
    HistoryIsOn,
    /// The namespace lets this client read history.
    ClientMayReadHistory,
}

impl Rule {
    /// Name of the rule in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ChannelIsNamed => "the command names a channel",
            Self::KindIsAvailable => "shared polling is available",
            Self::DeltaIsKnown => "the delta type is known",
            Self::NameIsShort => "the channel is not too long",
            Self::NamespaceExists => "the namespace exists",
            Self::NamespaceOfConnectExists => "the namespace exists",
            Self::NameMatchesRegex => "the name matches channel_regex",
            Self::NameIsAscii => "the name is ASCII",
            Self::KindIsOfNamespace => "the subscription type is that of the namespace",
            Self::PrivateChannelHasToken => "a private channel comes with a subscription token",
            Self::TokenIsValid => "the subscription token is accepted",
            Self::TokenIsOfChannel => "the subscription token is for this channel",
            Self::TokenIsOfUser => "the subscription token is for this user",
            Self::TokenIsOfClient => "the subscription token is for this connection",
            Self::UserIsListed => "a user-limited channel lists the user",
            Self::ClientMaySubscribe => "clients may subscribe",
            Self::SubscriptionLives => "the subscription has not expired",
            Self::FilterIsAllowed => "subscribers may filter by tags",
            Self::FilterIsWellFormed => "the tags filter is well formed",
            Self::ClientMayPublish => "clients may publish",
            Self::DataIsPresent => "there is data",
            Self::DataIsJson => "the data is JSON",
            Self::DataIsJsonObject => "the data is a JSON object",
            Self::PresenceIsOn => "presence is on",
            Self::ClientMayReadPresence => "clients may read presence",
            Self::HistoryIsOn => "history is on",
            Self::ClientMayReadHistory => "clients may read history",
        }
    }

    /// The options that give the right to clients, and to anonymous ones besides.
    fn rights(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::ClientMaySubscribe => Some(("allow_subscribe_for_client", "allow_subscribe_for_anonymous")),
            Self::ClientMayPublish => Some(("allow_publish_for_client", "allow_publish_for_anonymous")),
            Self::ClientMayReadPresence => Some(("allow_presence_for_client", "allow_presence_for_anonymous")),
            Self::ClientMayReadHistory => Some(("allow_history_for_client", "allow_history_for_anonymous")),
            _ => None,
        }
    }

    /// What else than the option would help, in words.
    fn other_ways(self) -> Option<&'static str> {
        match self {
            Self::ClientMaySubscribe => Some(
                "a subscription token, a user-limited channel (allow_user_limited_channels), a server-side \
                 subscription, or client.insecure in development",
            ),
            Self::UserIsListed => Some("a subscription token, or client.insecure in development"),
            Self::ClientMayPublish => Some("the server API, or client.insecure in development"),
            Self::ClientMayReadPresence | Self::ClientMayReadHistory => Some("client.insecure in development"),
            Self::PrivateChannelHasToken => Some("a subscription token in the subscribe command"),
            Self::TokenIsOfChannel => Some("a token whose claim channel is this channel"),
            Self::TokenIsOfUser => Some("a token whose claim sub is the user of the connection"),
            Self::TokenIsOfClient => Some("a token without the claim client"),
            Self::SubscriptionLives => Some("a later claim expire_at"),
            Self::ChannelIsNamed
            | Self::KindIsAvailable
            | Self::DeltaIsKnown
            | Self::NameIsShort
            | Self::NamespaceExists
            | Self::NamespaceOfConnectExists
            | Self::NameMatchesRegex
            | Self::NameIsAscii
            | Self::KindIsOfNamespace
            | Self::TokenIsValid
            | Self::FilterIsAllowed
            | Self::FilterIsWellFormed
            | Self::DataIsPresent
            | Self::DataIsJson
            | Self::DataIsJsonObject
            | Self::PresenceIsOn
            | Self::HistoryIsOn => None,
        }
    }
}

/// Which of the options that give a right together are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    /// Neither `allow_..._for_client` nor, for a subscriber, `allow_..._for_subscriber` gives the right.
    pub(super) right: bool,
    /// Subscribers would have it, and this client is none.
    pub(super) subscription: bool,
    /// The client is anonymous, and `allow_..._for_anonymous` is off.
    pub(super) anonymous: bool,
}

/// A refusal: which rule, about what, and what would allow it. `Display` is one line for a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal<'a> {
    rule: Rule,
    channel: &'a str,
    /// Name of the namespace that was found; `None` for `without_namespace`, and where none was looked up.
    namespace: Option<&'a str>,
    seen: Option<Seen<'a>>,
    missing: Option<Missing>,
}

/// The value that a rule was applied to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen<'a> {
    /// A text from the client, its token, or about it.
    Text(&'a str),
    /// A length in bytes.
    Length(usize),
    /// A length in bytes beyond the most that may be.
    TooLong {
        /// The length.
        length: usize,
        /// The most.
        at_most: usize,
    },
    /// The user of the connection.
    User(&'a str),
    /// What is wrong with the token.
    Token(&'a TokenRefusal),
}

impl<'a> Refusal<'a> {
    /// The rule that did not hold.
    pub fn rule(&self) -> Rule {
        self.rule
    }

    /// The channel that was asked about.
    pub fn channel(&self) -> &'a str {
        self.channel
    }

    /// The value that the rule was applied to, where there is one besides the channel.
    pub fn seen(&self) -> Option<Seen<'a>> {
        self.seen
    }

    /// The option that would allow it; `None` where no option would.
    pub fn option(&self) -> Option<OptionPath<'a>> {
        let in_namespace = |option| Some(OptionPath::of_namespace(self.namespace, option));
        match self.rule {
            Rule::NameIsShort => Some(OptionPath::Global("channel.max_length")),
            Rule::NamespaceExists => Some(OptionPath::Global("channel.namespaces")),
            Rule::NamespaceOfConnectExists => Some(OptionPath::Global("channel.namespaces")),
            Rule::NameMatchesRegex => in_namespace("channel_regex"),
            Rule::NameIsAscii => in_namespace("channel_regex"),
            Rule::KindIsOfNamespace => in_namespace("subscription_type"),
            Rule::PrivateChannelHasToken => Some(OptionPath::Global("channel.private_prefix")),
            Rule::ClientMaySubscribe => self.missing_option(),
            Rule::FilterIsAllowed => in_namespace("allow_tags_filter"),
            Rule::ClientMayPublish => self.missing_option(),
            Rule::DataIsPresent => in_namespace("publication_data_format"),
            Rule::DataIsJson => in_namespace("publication_data_format"),
            Rule::DataIsJsonObject => in_namespace("publication_data_format"),
            Rule::PresenceIsOn => in_namespace("presence"),
            Rule::ClientMayReadPresence => self.missing_option(),
            Rule::HistoryIsOn => in_namespace("history_size"),
            Rule::ClientMayReadHistory => self.missing_option(),
            Rule::ChannelIsNamed => None,
            Rule::KindIsAvailable => None,
            Rule::DeltaIsKnown => None,
            Rule::TokenIsValid => None,
            Rule::TokenIsOfChannel => None,
            Rule::TokenIsOfUser => None,
            Rule::TokenIsOfClient => None,
            Rule::UserIsListed => None,
            Rule::SubscriptionLives => None,
            Rule::FilterIsWellFormed => None,
        }
    }

    fn missing_option(&self) -> Option<OptionPath<'a>> {
        let (for_client, for_anonymous) = self.rule.rights()?;
        let only_anonymous = self.missing.is_some_and(|missing| !missing.right);
        Some(OptionPath::of_namespace(self.namespace, if only_anonymous { for_anonymous } else { for_client }))
    }

    pub(super) fn seeing(self, seen: Seen<'a>) -> Self {
        Self { seen: Some(seen), ..self }
    }

    pub(super) fn missing(self, missing: Missing, who: Subject<'a>) -> Self {
        Self { seen: Some(Seen::User(who.user.as_str())), missing: Some(missing), ..self }
    }
}

/// The one table from a refused rule to the wire.
impl From<Refusal<'_>> for Failure {
    fn from(refusal: Refusal<'_>) -> Self {
        match refusal.rule {
            Rule::ChannelIsNamed => Self::Disconnect(Disconnect::BAD_REQUEST),
            Rule::KindIsAvailable => Self::Error(ClientError::NotAvailable),
            Rule::DeltaIsKnown => Self::Disconnect(Disconnect::BAD_REQUEST),
            Rule::NameIsShort => Self::Error(ClientError::BadRequest),
            Rule::NamespaceExists => Self::Error(ClientError::UnknownChannel),
            Rule::NamespaceOfConnectExists => Self::Disconnect(Disconnect::BAD_REQUEST),
            Rule::NameMatchesRegex => Self::Error(ClientError::BadRequest),
            Rule::NameIsAscii => Self::Error(ClientError::BadRequest),
            Rule::KindIsOfNamespace => Self::Error(ClientError::PermissionDenied),
            Rule::PrivateChannelHasToken => Self::Error(ClientError::PermissionDenied),
            Rule::TokenIsValid => match refusal.seen {
                Some(Seen::Token(TokenRefusal::Expired(_))) => Self::Error(ClientError::TokenExpired),
                _ => Self::Error(ClientError::PermissionDenied),
            },
            Rule::TokenIsOfChannel => Self::Disconnect(Disconnect::INVALID_TOKEN),
            Rule::TokenIsOfUser => Self::Disconnect(Disconnect::INVALID_TOKEN),
            Rule::TokenIsOfClient => Self::Disconnect(Disconnect::INVALID_TOKEN),
            Rule::UserIsListed => Self::Error(ClientError::PermissionDenied),
            Rule::ClientMaySubscribe => Self::Error(ClientError::PermissionDenied),
            Rule::SubscriptionLives => Self::Error(ClientError::Expired),
            Rule::FilterIsAllowed => Self::Error(ClientError::BadRequest),
            Rule::FilterIsWellFormed => Self::Error(ClientError::BadRequest),
            Rule::ClientMayPublish => Self::Error(ClientError::PermissionDenied),
            Rule::DataIsPresent => Self::Error(ClientError::BadRequest),
            Rule::DataIsJson => Self::Error(ClientError::BadRequest),
            Rule::DataIsJsonObject => Self::Error(ClientError::BadRequest),
            Rule::PresenceIsOn => Self::Error(ClientError::NotAvailable),
            Rule::ClientMayReadPresence => Self::Error(ClientError::PermissionDenied),
            Rule::HistoryIsOn => Self::Error(ClientError::NotAvailable),
            Rule::ClientMayReadHistory => Self::Error(ClientError::PermissionDenied),
        }
    }
}

impl Namespaces {
    pub(super) fn refusal<'a>(&self, channel: &'a str, rule: Rule) -> Refusal<'a> {
        let (named, _) = self.marks.namespace_and_rest(channel);
        let seen = match rule {
            Rule::NamespaceExists | Rule::NamespaceOfConnectExists => named.map(Seen::Text),
            _ => None,
        };
        Refusal { rule, channel, namespace: None, seen, missing: None }
    }
}

impl<'a> Rules<'a> {
    pub(super) fn refusal(&self, rule: Rule) -> Refusal<'a> {
        Refusal { rule, channel: self.channel, namespace: self.namespace(), seen: None, missing: None }
    }
}

/// Where an option stands in the configuration. `Display` is its path: `channel.namespaces[chat].presence`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionPath<'a> {
    /// An option outside of namespaces.
    Global(&'static str),
    /// An option of `channel.without_namespace`.
    WithoutNamespace(&'static str),
    /// An option of one namespace.
    Namespace {
        /// Name of the namespace.
        name: &'a str,
        /// Name of the option.
        option: &'static str,
    },
}

impl<'a> OptionPath<'a> {
    pub(super) fn of_namespace(name: Option<&'a str>, option: &'static str) -> Self {
        match name {
            Some(name) => Self::Namespace { name, option },
            None => Self::WithoutNamespace(option),
        }
    }
}

// === printing ===

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for OptionPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Global(option) => f.write_str(option),
            Self::WithoutNamespace(option) => write!(f, "channel.without_namespace.{option}"),
            Self::Namespace { name, option } => write!(f, "channel.namespaces[{name}].{option}"),
        }
    }
}

impl fmt::Display for Seen<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Length(length) => write!(f, "{length} bytes"),
            Self::TooLong { length, at_most } => write!(f, "{length} bytes, at most {at_most}"),
            Self::User("") => f.write_str("the anonymous user"),
            Self::User(user) => write!(f, "user {user:?}"),
            Self::Token(refusal) => refusal.fmt(f),
        }
    }
}

impl fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "refused by the rule \"{}\": channel {:?}", self.rule, self.channel)?;
        if let Some(seen) = self.seen {
            write!(f, ", {seen}")?;
        }
        if self.missing.is_some_and(|missing| missing.subscription) {
            f.write_str(", not subscribed")?;
        }
        let (option, other_ways) = (self.option(), self.rule.other_ways());
        if let Some(option) = &option {
            write!(f, "; see option {option}")?;
        }
        if let (Some(Missing { right: true, anonymous: true, .. }), Some((_, too))) = (self.missing, self.rule.rights())
        {
            write!(f, " together with {too}")?;
        }
        match (option, other_ways) {
            (Some(_), Some(ways)) => write!(f, ", or use {ways}"),
            (None, Some(ways)) => write!(f, "; use {ways}"),
            (_, None) => Ok(()),
        }
    }
}
