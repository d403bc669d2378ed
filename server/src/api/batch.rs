//! Several commands in one call.

use std::time::Instant;

use futures_util::{StreamExt, stream};
use starling_proto::api::{Command, Reply};
use tracing::info;

use super::{Api, Face, Method};
use crate::error::ApiError;

/// Commands of one parallel batch that are under way at the same time.
const BATCH_CONCURRENCY: usize = 1024;

impl Api {
    /// Carries out commands and answers one reply each, in their order. A failed command does not stop the others.
    ///
    /// One after the other, or up to 1024 at the same time with `parallel`. `None` is a `null` among the commands: 107. A
    /// command without a method that this server has: 104.
    pub async fn batch(&self, face: Face, commands: Vec<Option<Command>>, parallel: bool) -> Vec<Reply> {
        let concurrency = if parallel { BATCH_CONCURRENCY } else { 1 };
        stream::iter(commands)
            .map(|command| async {
                match command {
                    Some(command) => self.command(face, command).await,
                    None => {
                        info!(code = 107, decided_by = "commands", "a command of a batch is null");
                        failed(ApiError::BadRequest)
                    }
                }
            })
            .buffered(concurrency)
            .collect()
            .await
    }

    async fn command(&self, face: Face, command: Command) -> Reply {
        let started = Instant::now();
        let mut reply = Reply::default();
        // Of several methods in one command the first in this order counts; it is the reference server's order.
        macro_rules! first {
            ($($field:ident: $method:ident, |$request:ident| $result:expr;)*) => {
                $(if let Some($request) = command.$field {
                    match self.counted(face, Method::$method, started, $result) {
                        Ok(result) => reply.$field = Some(result),
                        Err(error) => return failed(error),
                    }
                    return reply;
                })*
            };
        }
        first! {
            publish: Publish, |request| self.publish(request).await;
            broadcast: Broadcast, |request| self.broadcast(request).await;
            subscribe: Subscribe, |request| self.subscribe(request).await;
            unsubscribe: Unsubscribe, |request| self.unsubscribe(request).await;
            disconnect: Disconnect, |request| self.disconnect(request).await;
            history: History, |request| self.history(request).await;
            history_remove: HistoryRemove, |request| self.history_remove(request).await;
            presence: Presence, |request| self.presence(request).await;
            presence_stats: PresenceStats, |request| self.presence_stats(request).await;
            info: Info, |request| self.info(request).await;
            rpc: Rpc, |request| self.rpc(request);
            refresh: Refresh, |request| self.refresh(request).await;
            channels: Channels, |request| self.channels(request).await;
        }
        info!(code = 104, decided_by = "commands", "a command of a batch has no method that this server knows");
        failed(ApiError::NotFound)
    }
}

fn failed(error: ApiError) -> Reply {
    Reply { error: Some(error.into()), ..Reply::default() }
}
