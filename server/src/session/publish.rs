//! `publish`: a client's own publication.

use bytes::Bytes;
use tracing::warn;

use super::{Answer, Ask, Context, Output, Phase, Session, Ticket, error, protocol::Reply};
use crate::{
    broker::{BrokerError, ClientInfo, Publication, PublishOptions, Published},
    error::{ClientError, Disconnect},
    names::ChannelName,
    namespace::{Permit, Subject},
};

impl Session {
    pub(super) fn publish(
        &mut self,
        id: u32,
        channel: String,
        data: Bytes,
        context: &Context<'_>,
        out: &mut Vec<Output>,
    ) {
        if channel.is_empty() {
            return self.close(Disconnect::BAD_REQUEST, out);
        }
        let Phase::Open(open) = &self.phase else { return };
        let subscription = self.subscription(&channel).filter(|subscription| subscription.is_live());
        let user = open.identity.user.clone();
        let who = Subject { user: &user, client: self.client, subscribed: subscription.is_some() };
        match context.settings.namespaces.may_publish(who, &channel, &data) {
            Ok(Permit::Granted(_)) => {}
            Ok(Permit::AskBackend(_)) => return error(id, ClientError::NotAvailable, out),
            Err(refusal) => return self.refused(id, refusal, out),
        }
        let info = ClientInfo {
            user: user.as_str().to_owned(),
            client: self.client.to_string(),
            conn_info: open.identity.info(),
            chan_info: subscription.map(|subscription| subscription.info()).unwrap_or_default(),
        };
        let publication = Publication { data, info: Some(info), time: Some(context.unix_ms), ..Publication::default() };
        let rules = context.settings.namespaces.resolve(&channel);
        let options = rules.map_or_else(PublishOptions::default, |rules| PublishOptions {
            history: rules.history(),
            delta: rules.options().delta_publish,
            ..PublishOptions::default()
        });
        let publication = Box::new(publication);
        self.ask(id, Ask::Publish { channel: ChannelName::from(channel), publication, options }, out);
    }

    pub(super) fn published(ticket: Ticket, result: Result<Published, BrokerError>, out: &mut Vec<Output>) {
        match result {
            // Client protocol: the position is not told to clients.
            Ok(_) => out.push(Output::Reply(ticket.command, Reply::Publish)),
            Err(cause) => {
                warn!(%cause, "publish failed");
                let cause = match cause {
                    BrokerError::Unavailable => ClientError::Internal,
                    BrokerError::Overloaded => ClientError::TooManyRequests,
                };
                error(ticket.command, cause, out);
            }
        }
    }
}

impl Answer {
    /// Whether the answer is to a publication, which the publisher gets before the reply.
    pub fn published_to(&self) -> Option<&ChannelName> {
        match self {
            Self::Published { channel, .. } => Some(channel),
            Self::Entered(_) | Self::Joined(_) => None,
        }
    }
}
