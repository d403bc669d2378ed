//! Subscriptions that the server makes: from the connection token, asked for in `connect`, the user's personal channel, and
//! by the server API. Losing one's position, or its expiry, ends the connection: the client has no way to subscribe again.

use super::{
    Context, Output, Phase, ServerRefresh, ServerSubscription, Session,
    connect::Identity,
    protocol::{ConnectRequest, Push, SubscribeRequest, SubscribeResult},
    recovery::Claimed,
    subscribe::Purpose,
};
use crate::{
    auth::{ChannelClaims, Failure},
    broker::HistoryOptions,
    error::{ClientError, Disconnect},
    names::{ChannelName, UserId},
    namespace::{Granted, Rules, Subject},
};

/// A subscription that `connect` brings along.
pub(super) struct Planned {
    pub(super) channel: ChannelName,
    pub(super) granted: Granted,
    pub(super) history: Option<HistoryOptions>,
    pub(super) claimed: Option<Claimed>,
}

impl Session {
    /// The server-side subscriptions of a new connection: of its token, its user, and those it asks for and may have.
    ///
    /// Client protocol: a channel of the token in an unknown namespace is error 102; one that the client asks for, 3501; too
    /// many channels, 3505. What the client asks for and may not have is left out silently.
    pub(super) fn plan_subscriptions(
        &self,
        user: &UserId,
        claims: &std::collections::BTreeMap<String, ChannelClaims>,
        request: &ConnectRequest,
        context: &Context<'_>,
    ) -> Result<Vec<Planned>, Failure> {
        let settings = context.settings;
        let mut planned: Vec<Planned> = Vec::new();
        let who = Subject { user, client: self.client, subscribed: false };
        for (name, claims) in claims {
            let rules = settings.namespaces.rules_of(name).map_err(Failure::from)?;
            let granted = rules.granted_by_server(Some(claims), None);
            planned.push(Planned { channel: name.as_str().into(), granted, history: rules.history(), claimed: None });
        }
        if let Some(name) = settings.personal_channel(user)
            && !planned.iter().any(|planned| planned.channel.as_str() == name)
        {
            let rules = settings.namespaces.rules_of(&name).map_err(|_| Failure::Error(ClientError::UnknownChannel))?;
            let (granted, history) = (rules.granted_by_server(None, None), rules.history());
            planned.push(Planned { channel: name.into(), granted, history, claimed: None });
        }
        for (name, wanted) in &request.subs {
            if let Some(planned) = planned.iter_mut().find(|planned| planned.channel.as_str() == name) {
                planned.ask(wanted, settings.namespaces.resolve(name));
                continue;
            }
            let Some(rules) = settings.namespaces.may_ask_at_connect(who, name).map_err(Failure::from)? else {
                continue;
            };
            let granted = rules.granted_by_server(None, None);
            let mut asked = Planned { channel: name.as_str().into(), granted, history: rules.history(), claimed: None };
            asked.ask(wanted, Some(rules));
            planned.push(asked);
        }
        if planned.len() > settings.channel_limit as usize {
            return Err(Failure::Disconnect(Disconnect::CHANNEL_LIMIT));
        }
        Ok(planned)
    }

    /// The server API adds a subscription. A client that has the channel already is told again, and no more.
    pub(super) fn subscribe_by_server(
        &mut self,
        subscription: &ServerSubscription,
        context: &Context<'_>,
        out: &mut Vec<Output>,
    ) {
        let Phase::Open(_) = &self.phase else { return };
        let ServerSubscription { channel, granted, recover_since, history } = subscription;
        if self.subscription(channel.as_str()).is_some() {
            let result = SubscribeResult { data: granted.data.clone(), ..SubscribeResult::default() };
            out.push(Output::Push(Push::Subscribe { channel: channel.clone(), result: Box::new(result) }));
            return;
        }
        let claimed = recover_since
            .as_ref()
            .map(|position| Claimed { offset: position.offset, epoch: position.epoch.to_string() });
        let planned = Planned { channel: channel.clone(), granted: granted.clone(), history: *history, claimed };
        self.join(0, planned, Purpose::Server, context, out);
    }

    /// The server API changes the expiry of the connection.
    pub(super) fn refresh_by_server(&mut self, refresh: &ServerRefresh, context: &Context<'_>, out: &mut Vec<Output>) {
        let expired = refresh.expired || refresh.expire_at.is_some_and(|at| at <= context.unix_s());
        let Phase::Open(open) = &mut self.phase else { return };
        if expired {
            return self.close(Disconnect::EXPIRED, out);
        }
        let info = refresh.info.clone().unwrap_or_else(|| open.identity.info());
        let channels = open.identity.channels();
        open.identity = Identity::new(open.identity.user.clone(), info, refresh.expire_at, channels, context);
        out.push(Output::Push(Push::Refresh(context.expiry(refresh.expire_at))));
    }
}

impl Planned {
    /// What the client says of a subscription that it had before.
    fn ask(&mut self, wanted: &SubscribeRequest, rules: Option<Rules<'_>>) {
        self.granted.delta = rules.and_then(|rules| rules.negotiated_delta(&wanted.delta));
        if wanted.recover {
            self.claimed = Some(Claimed { offset: wanted.offset, epoch: wanted.epoch.clone() });
        }
    }
}
