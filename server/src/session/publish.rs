//! `publish`: a client's own publication.

use bytes::Bytes;
use tracing::warn;

use super::{Ask, Context, Output, Phase, Session, Ticket, error, protocol::Reply};
use crate::{
    broker::{BrokerError, Publication, PublishOptions, Published},
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
        let options = match context.settings.namespaces.may_publish(who, &channel, &data) {
            Ok(Permit::Granted(rules)) => PublishOptions {
                history: rules.history(),
                delta: rules.options().delta_publish,
                ..PublishOptions::default()
            },
            Ok(Permit::AskBackend(_)) => return error(id, ClientError::NotAvailable, out),
            Err(refusal) => return self.refused(id, refusal, out),
        };
        let info = self.client_info(subscription.map(|subscription| subscription.info()).unwrap_or_default());
        let publication = Publication { data, info: Some(info), time: Some(context.unix_ms), ..Publication::default() };
        self.ask(
            id,
            Ask::Publish { channel: ChannelName::from(channel), publication: Box::new(publication), options },
            out,
        );
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
