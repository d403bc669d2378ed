//! Who may do what, in the order in which the reference decides: the first rule that does not hold answers.

use std::sync::Arc;

use super::{
    Granted, Namespaces, Rule, Rules, Seen,
    refusal::{Missing, Refusal},
};
use crate::{
    auth::{Mismatch, SubscriptionClaims, TokenRefusal, UnixSeconds},
    config::{DeltaType, SubscriptionType},
    filter::Filter,
    names::{ClientId, UserId},
    session::protocol::SubscribeRequest,
};

/// Who asks about a channel.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The connection's user.
    pub user: &'a UserId,
    /// The connection.
    pub client: ClientId,
    /// Whether the connection is subscribed to the channel in question now.
    pub subscribed: bool,
}

/// What became of the token of a `subscribe`.
#[derive(Clone, Copy, Debug)]
pub enum TokenVerdict<'a> {
    /// There was none.
    Absent,
    /// It is accepted; whom and what it is for is still to be compared.
    Valid(&'a SubscriptionClaims),
    /// It is not accepted.
    Refused(&'a TokenRefusal),
}

impl<'a> From<&'a Result<SubscriptionClaims, TokenRefusal>> for TokenVerdict<'a> {
    fn from(checked: &'a Result<SubscriptionClaims, TokenRefusal>) -> Self {
        match checked {
            Ok(claims) => Self::Valid(claims),
            Err(refusal) => Self::Refused(refusal),
        }
    }
}

/// The answer to who is not refused.
#[derive(Clone, Debug, PartialEq)]
pub enum Permit<'a, T> {
    /// The rules alone allow it.
    Granted(T),
    /// RESERVED: the rules leave it to the application backend, which nothing asks yet. Until then a caller answers as
    /// for a feature that is off.
    AskBackend(Question<'a>),
}

/// What the application backend would be asked, and the name of the proxy to ask through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question<'a> {
    /// Whether a client may subscribe.
    Subscribe(&'a str),
    /// The same, answered by the first message of a stream.
    SubscribeStream(&'a str),
    /// Whether a client may publish.
    Publish(&'a str),
    /// The publication goes up the stream of the client's subscription.
    PublishToStream(&'a str),
}

impl Namespaces {
    /// The checks of a `subscribe` that need neither rights nor state: first of all, before the caller looks whether
    /// the connection has the channel already (105) or too many of them (106).
    pub fn check_request<'a>(&'a self, request: &'a SubscribeRequest) -> Result<(), Refusal<'a>> {
        let refused = |rule| Err(self.refusal(&request.channel, rule));
        if request.channel.is_empty() {
            return refused(Rule::ChannelIsNamed);
        }
        if request.kind == KIND_SHARED_POLL {
            return refused(Rule::KindIsAvailable);
        }
        if !request.delta.is_empty() && request.delta != DeltaType::Fossil.as_str() {
            return refused(Rule::DeltaIsKnown);
        }
        if request.channel.len() > self.max_length {
            let seen = Seen::TooLong { length: request.channel.len(), at_most: self.max_length };
            return Err(self.refusal(&request.channel, Rule::NameIsShort).seeing(seen));
        }
        Ok(())
    }

    /// Whether a client may subscribe, and what its subscription has. [`Self::check_request`] comes before.
    ///
    /// A valid token stands in for the private prefix, the user list and the `allow_subscribe` options; it does not
    /// help a name that is not valid.
    pub fn may_subscribe<'a>(
        &'a self,
        who: Subject<'a>,
        request: &'a SubscribeRequest,
        token: TokenVerdict<'a>,
        now: UnixSeconds,
    ) -> Result<Permit<'a, Granted>, Refusal<'a>> {
        let rules = self.rules_of(&request.channel)?;
        rules.check_name()?;
        if !rules.has_kind(request.kind) {
            return Err(rules.refusal(Rule::KindIsOfNamespace));
        }
        let mut granted = match token {
            TokenVerdict::Refused(refusal) => {
                return Err(rules.refusal(Rule::TokenIsValid).seeing(Seen::Token(refusal)));
            }
            TokenVerdict::Valid(claims) => {
                rules.check_token_owner(claims, who)?;
                rules.granted_by_server(Some(&claims.subscription), claims.expire_at)
            }
            TokenVerdict::Absent => match rules.subscribe_right(who)? {
                Permit::Granted(()) => rules.granted_by_server(None, None),
                Permit::AskBackend(question) => return Ok(Permit::AskBackend(question)),
            },
        };
        if granted.expire_at.is_some_and(|end| end <= now) {
            return Err(rules.refusal(Rule::SubscriptionLives));
        }
        granted.filter = rules.asked_filter(request)?;
        rules.grant_what_is_asked(&mut granted, who, request);
        Ok(Permit::Granted(granted))
    }

    /// Whether a client may publish this payload.
    pub fn may_publish<'a>(
        &'a self,
        who: Subject<'a>,
        channel: &'a str,
        data: &[u8],
    ) -> Result<Permit<'a, Rules<'a>>, Refusal<'a>> {
        let rules = self.rules_for_command(channel)?;
        rules.check_data(data)?;
        let options = rules.options();
        if options.publish_proxy_enabled {
            return Ok(Permit::AskBackend(Question::Publish(&options.publish_proxy_name)));
        }
        if options.subscribe_stream_proxy_enabled && options.subscribe_stream_proxy_bidirectional {
            return Ok(Permit::AskBackend(Question::PublishToStream(&options.subscribe_stream_proxy_name)));
        }
        let rights = Rights {
            client: options.allow_publish_for_client,
            subscriber: options.allow_publish_for_subscriber,
            anonymous: options.allow_publish_for_anonymous,
        };
        match rules.right(rights, who) {
            Ok(()) => Ok(Permit::Granted(rules)),
            Err(missing) => Err(rules.refusal(Rule::ClientMayPublish).missing(missing, who)),
        }
    }

    /// Whether a client may read presence, whole or counted.
    pub fn may_presence<'a>(&'a self, who: Subject<'a>, channel: &'a str) -> Result<Rules<'a>, Refusal<'a>> {
        let rules = self.rules_for_command(channel)?;
        if !rules.presence() {
            return Err(rules.refusal(Rule::PresenceIsOn));
        }
        match rules.presence_right(who) {
            Ok(()) => Ok(rules),
            Err(missing) => Err(rules.refusal(Rule::ClientMayReadPresence).missing(missing, who)),
        }
    }

    /// Whether a client may read history.
    pub fn may_history<'a>(&'a self, who: Subject<'a>, channel: &'a str) -> Result<Rules<'a>, Refusal<'a>> {
        let rules = self.rules_for_command(channel)?;
        if rules.history().is_none() {
            return Err(rules.refusal(Rule::HistoryIsOn));
        }
        match rules.history_right(who) {
            Ok(()) => Ok(rules),
            Err(missing) => Err(rules.refusal(Rule::ClientMayReadHistory).missing(missing, who)),
        }
    }

    /// Whether a channel that a client names in `subs` of `connect` becomes a server-side subscription; `None` leaves
    /// it out silently. Channels that the connection token lists are not asked about: the token decides.
    ///
    /// # Errors
    ///
    /// An unknown namespace, which ends the connection with 3501 here.
    pub fn may_ask_at_connect<'a>(
        &'a self,
        who: Subject<'a>,
        channel: &'a str,
    ) -> Result<Option<Rules<'a>>, Refusal<'a>> {
        let Some(rules) = self.resolve(channel) else {
            return Err(self.refusal(channel, Rule::NamespaceOfConnectExists));
        };
        let options = rules.options();
        let proxied = options.subscribe_proxy_enabled || options.subscribe_stream_proxy_enabled;
        let nameable = !channel.is_empty() && channel.len() <= self.max_length && rules.check_name().is_ok();
        let stream = options.subscription_type == SubscriptionType::Stream;
        if !nameable || !stream || proxied || rules.is_private() {
            return Ok(None);
        }
        Ok(rules.subscribe_right(who).is_ok().then_some(rules))
    }

    /// The rules of a channel that something else than a command names, such as the channels of a connection token.
    ///
    /// # Errors
    ///
    /// An unknown namespace: 102.
    pub fn rules_of<'a>(&'a self, channel: &'a str) -> Result<Rules<'a>, Refusal<'a>> {
        self.resolve(channel).ok_or_else(|| self.refusal(channel, Rule::NamespaceExists))
    }

    /// The checks that publish, presence and history have in common. Their channels have no limit of length but that of
    /// the message.
    fn rules_for_command<'a>(&'a self, channel: &'a str) -> Result<Rules<'a>, Refusal<'a>> {
        if channel.is_empty() {
            return Err(self.refusal(channel, Rule::ChannelIsNamed));
        }
        let rules = self.rules_of(channel)?;
        rules.check_name()?;
        Ok(rules)
    }
}

/// Options that give one right.
#[derive(Clone, Copy)]
struct Rights {
    /// `allow_..._for_client`
    client: bool,
    /// `allow_..._for_subscriber`
    subscriber: bool,
    /// `allow_..._for_anonymous`: anonymous users need it besides one of the others.
    anonymous: bool,
}

impl<'a> Rules<'a> {
    fn has_kind(&self, kind: i32) -> bool {
        let kind_of_namespace = match self.options().subscription_type {
            SubscriptionType::Stream => KIND_STREAM,
            SubscriptionType::Map => 1,
            SubscriptionType::MapClients => 2,
            SubscriptionType::MapUsers => 3,
            SubscriptionType::SharedPoll => KIND_SHARED_POLL,
        };
        kind == kind_of_namespace
    }

    fn check_token_owner(&self, claims: &'a SubscriptionClaims, who: Subject<'a>) -> Result<(), Refusal<'a>> {
        let (rule, seen) = match claims.mismatch(self.channel, who.user, who.client) {
            None => return Ok(()),
            Some(Mismatch::Channel(channel)) => (Rule::TokenIsOfChannel, Seen::Text(channel)),
            Some(Mismatch::User(user)) => (Rule::TokenIsOfUser, Seen::User(user.as_str())),
            Some(Mismatch::Client(client)) => (Rule::TokenIsOfClient, Seen::Text(client)),
        };
        Err(self.refusal(rule).seeing(seen))
    }

    /// Whether a client may subscribe without a token.
    fn subscribe_right(&self, who: Subject<'a>) -> Result<Permit<'a, ()>, Refusal<'a>> {
        let options = self.options();
        if self.is_private() {
            return Err(self.refusal(Rule::PrivateChannelHasToken));
        }
        if self.is_user_limited() {
            // Neither the backend nor the allow options open a channel whose name says whom it is for.
            if self.namespaces.insecure || self.lists(who.user.as_str()) {
                return Ok(Permit::Granted(()));
            }
            return Err(self.refusal(Rule::UserIsListed).seeing(Seen::User(who.user.as_str())));
        }
        if options.subscribe_proxy_enabled {
            return Ok(Permit::AskBackend(Question::Subscribe(&options.subscribe_proxy_name)));
        }
        if options.subscribe_stream_proxy_enabled {
            return Ok(Permit::AskBackend(Question::SubscribeStream(&options.subscribe_stream_proxy_name)));
        }
        let rights = Rights {
            client: options.allow_subscribe_for_client,
            subscriber: false,
            anonymous: options.allow_subscribe_for_anonymous,
        };
        match self.right(rights, who) {
            Ok(()) => Ok(Permit::Granted(())),
            Err(missing) => Err(self.refusal(Rule::ClientMaySubscribe).missing(missing, who)),
        }
    }

    fn asked_filter(&self, request: &SubscribeRequest) -> Result<Option<Arc<Filter>>, Refusal<'a>> {
        let Some(filter) = &request.tags_filter else { return Ok(None) };
        if !self.options().allow_tags_filter {
            return Err(self.refusal(Rule::FilterIsAllowed));
        }
        match Filter::compile(filter) {
            Ok(filter) => Ok(Some(Arc::new(filter))),
            Err(problem) => Err(self.refusal(Rule::FilterIsWellFormed).seeing(Seen::Text(problem.as_str()))),
        }
    }

    pub(super) fn presence_right(&self, who: Subject<'_>) -> Result<(), Missing> {
        let options = self.options();
        let rights = Rights {
            client: options.allow_presence_for_client,
            subscriber: options.allow_presence_for_subscriber,
            anonymous: options.allow_presence_for_anonymous,
        };
        self.right(rights, who)
    }

    pub(super) fn history_right(&self, who: Subject<'_>) -> Result<(), Missing> {
        let options = self.options();
        let rights = Rights {
            client: options.allow_history_for_client,
            subscriber: options.allow_history_for_subscriber,
            anonymous: options.allow_history_for_anonymous,
        };
        self.right(rights, who)
    }

    fn right(&self, rights: Rights, who: Subject<'_>) -> Result<(), Missing> {
        if self.namespaces.insecure {
            return Ok(());
        }
        let has_right = rights.client || rights.subscriber && who.subscribed;
        let missing = Missing {
            right: !has_right,
            subscription: !has_right && rights.subscriber,
            anonymous: who.user.is_anonymous() && !rights.anonymous,
        };
        if missing.right || missing.anonymous { Err(missing) } else { Ok(()) }
    }
}

/// Kinds of subscription on the wire; 1 to 3 are maps.
const KIND_STREAM: i32 = 0;
const KIND_SHARED_POLL: i32 = 4;
