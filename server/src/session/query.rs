//! Commands that only ask: presence, history, RPC. What a channel does not keep is answered as not available.

use super::{Context, Output, Phase, Session, error, protocol::HistoryRequest};
use crate::{
    error::{ClientError, Disconnect},
    namespace::Subject,
};

impl Session {
    /// `presence` and `presence_stats`.
    pub(super) fn presence(&mut self, id: u32, channel: &str, context: &Context<'_>, out: &mut Vec<Output>) {
        if channel.is_empty() {
            return self.close(Disconnect::BAD_REQUEST, out);
        }
        let Phase::Open(open) = &self.phase else { return };
        let user = open.identity.user.clone();
        let subscribed = self.subscription(channel).is_some_and(|subscription| subscription.is_live());
        let who = Subject { user: &user, client: self.client, subscribed };
        match context.settings.namespaces.may_presence(who, channel) {
            Ok(_) => error(id, ClientError::NotAvailable, out),
            Err(refusal) => self.refused(id, refusal, out),
        }
    }

    /// `history`.
    pub(super) fn history(&mut self, id: u32, request: &HistoryRequest, context: &Context<'_>, out: &mut Vec<Output>) {
        if request.channel.is_empty() {
            return self.close(Disconnect::BAD_REQUEST, out);
        }
        let Phase::Open(open) = &self.phase else { return };
        let user = open.identity.user.clone();
        let subscribed = self.subscription(&request.channel).is_some_and(|subscription| subscription.is_live());
        let who = Subject { user: &user, client: self.client, subscribed };
        match context.settings.namespaces.may_history(who, &request.channel) {
            Ok(_) => error(id, ClientError::NotAvailable, out),
            Err(refusal) => self.refused(id, refusal, out),
        }
    }

    /// `rpc`: without a backend to ask, no method is available.
    pub(super) fn rpc(&mut self, id: u32, out: &mut Vec<Output>) {
        error(id, ClientError::NotAvailable, out);
    }
}
