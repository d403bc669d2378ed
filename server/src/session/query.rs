//! Commands that only ask: presence, history, RPC. What a channel does not keep is answered as not available.

use std::collections::BTreeMap;

use tracing::warn;

use super::{
    Ask, Context, Output, Phase, Session, Ticket, error,
    protocol::{HistoryRequest, Reply},
};
use crate::{
    broker::{BrokerError, ClientInfo, History, HistoryQuery, Limit},
    error::{ClientError, Disconnect},
    names::{ChannelName, UserId},
    namespace::Subject,
    presence::PresenceStats,
};

impl Session {
    /// Who asks about a channel: the user, and whether it is subscribed. `None` before and after the connection is open.
    fn asking(&self, channel: &str) -> Option<(UserId, bool)> {
        let Phase::Open(open) = &self.phase else { return None };
        let subscribed = self.subscription(channel).is_some_and(|subscription| subscription.is_live());
        Some((open.identity.user.clone(), subscribed))
    }

    pub(super) fn presence(&mut self, id: u32, channel: &str, context: &Context<'_>, out: &mut Vec<Output>) {
        if self.may_see_presence(id, channel, context, out) {
            self.ask(id, Ask::Presence { channel: ChannelName::from(channel) }, out);
        }
    }

    pub(super) fn presence_stats(&mut self, id: u32, channel: &str, context: &Context<'_>, out: &mut Vec<Output>) {
        if self.may_see_presence(id, channel, context, out) {
            self.ask(id, Ask::PresenceStats { channel: ChannelName::from(channel) }, out);
        }
    }

    fn may_see_presence(&mut self, id: u32, channel: &str, context: &Context<'_>, out: &mut Vec<Output>) -> bool {
        if channel.is_empty() {
            self.close(Disconnect::BAD_REQUEST, out);
            return false;
        }
        let Some((user, subscribed)) = self.asking(channel) else { return false };
        let who = Subject { user: &user, client: self.client, subscribed };
        match context.settings.namespaces.may_presence(who, channel) {
            Ok(_) => true,
            Err(refusal) => {
                self.refused(id, refusal, out);
                false
            }
        }
    }

    /// Client protocol: no limit gives the position only, a negative one as many as `client.history_max_publication_limit`
    /// allows. An epoch that is not the stream's is an unrecoverable position.
    pub(super) fn history(&mut self, id: u32, request: &HistoryRequest, context: &Context<'_>, out: &mut Vec<Output>) {
        if request.channel.is_empty() {
            return self.close(Disconnect::BAD_REQUEST, out);
        }
        let Some((user, subscribed)) = self.asking(&request.channel) else { return };
        let who = Subject { user: &user, client: self.client, subscribed };
        let options = match context.settings.namespaces.may_history(who, &request.channel) {
            Ok(rules) => rules.history(),
            Err(refusal) => return self.refused(id, refusal, out),
        };
        let Some(options) = options else { return error(id, ClientError::NotAvailable, out) };
        let since = request.since.as_ref();
        if request.reverse && since.is_some_and(|(offset, _)| *offset == 0) {
            return error(id, ClientError::BadRequest, out);
        }
        let limit = match u32::try_from(request.limit) {
            Ok(0) => Limit::PositionOnly,
            Ok(asked) => Limit::AtMost(context.settings.history_limit.map_or(asked, |most| asked.min(most))),
            Err(_) => context.settings.history_limit.map_or(Limit::All, Limit::AtMost),
        };
        let query = HistoryQuery { since: since.map(|(offset, _)| *offset), limit, reverse: request.reverse };
        let epoch = since.map(|(_, epoch)| epoch.clone()).filter(|epoch| !epoch.is_empty());
        self.ask(id, Ask::History { channel: request.channel.as_str().into(), query, options, epoch }, out);
    }

    pub(super) fn history_read(
        ticket: Ticket,
        wanted: Option<&str>,
        result: Result<History, BrokerError>,
        out: &mut Vec<Output>,
    ) {
        match result {
            Ok(History { top, .. }) if wanted.is_some_and(|wanted| *wanted != *top.epoch) => {
                error(ticket.command, ClientError::UnrecoverablePosition, out);
            }
            Ok(History { publications, top }) => {
                out.push(Output::Reply(ticket.command, Reply::History { publications, top }));
            }
            Err(cause) => failed(ticket, cause, out),
        }
    }

    pub(super) fn presence_listed(
        ticket: Ticket,
        result: Result<BTreeMap<String, ClientInfo>, BrokerError>,
        out: &mut Vec<Output>,
    ) {
        match result {
            Ok(list) => out.push(Output::Reply(ticket.command, Reply::Presence(list))),
            Err(cause) => failed(ticket, cause, out),
        }
    }

    pub(super) fn presence_counted(ticket: Ticket, result: Result<PresenceStats, BrokerError>, out: &mut Vec<Output>) {
        match result {
            Ok(PresenceStats { clients, users }) => {
                out.push(Output::Reply(ticket.command, Reply::PresenceStats { clients, users }));
            }
            Err(cause) => failed(ticket, cause, out),
        }
    }

    /// `rpc`: without a backend to ask, no method is available.
    pub(super) fn rpc(&mut self, id: u32, out: &mut Vec<Output>) {
        error(id, ClientError::NotAvailable, out);
    }
}

fn failed(ticket: Ticket, cause: BrokerError, out: &mut Vec<Output>) {
    warn!(%cause, "the broker did not answer a client's question");
    error(ticket.command, ClientError::Internal, out);
}
