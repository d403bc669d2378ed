//! `starling subscribe`: one line for each publication of a channel.

use std::process::ExitCode;

use clap::Args;
use starling_client::{
    Client, ClientConfig, ConnectionEvent, Error, Protocol, Recovery, SubscribeOptions, SubscriptionEvent, Tls,
};

use super::trust::TrustFlags;
use super::{ConfigFlags, complain, reachable, remark, say, with_config};
use crate::auth::{Authenticator, UnixSeconds};
use crate::config::{Config, Environment};

#[derive(Debug, Args)]
pub(super) struct SubscribeFlags {
    /// Channel to subscribe to
    channel: String,
    /// Where clients connect [default: as the configuration says, ws://127.0.0.1:8000/connection/websocket without one]
    #[arg(long)]
    url: Option<String>,
    /// Token to connect with
    #[arg(long, conflicts_with = "user")]
    token: Option<String>,
    /// Connect as this user, with a token that the configuration's HMAC key signs
    #[arg(short, long)]
    user: Option<String>,
    /// Token to subscribe with, for channels that need one
    #[arg(long, value_name = "TOKEN")]
    channel_token: Option<String>,
    /// End after so many publications
    #[arg(short = 'n', long, value_name = "N")]
    count: Option<u64>,
    /// Speak Protobuf instead of JSON
    #[arg(long)]
    protobuf: bool,
    #[command(flatten)]
    trust: TrustFlags,
    #[command(flatten)]
    config: ConfigFlags,
}

pub(super) fn run(flags: SubscribeFlags, environment: Environment) -> ExitCode {
    let sources = flags.config.clone().sources(environment);
    with_config(sources, |loaded| {
        let done = client_config(&flags, &loaded.config).and_then(|config| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| format!("no runtime: {error}"))?;
            runtime.block_on(follow(config, &flags))
        });
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(problem) => {
                complain(&problem);
                ExitCode::FAILURE
            }
        }
    })
}

fn client_config(flags: &SubscribeFlags, config: &Config) -> Result<ClientConfig, String> {
    let url = flags.url.clone().unwrap_or_else(|| websocket_url(config));
    let token = match &flags.user {
        None => flags.token.clone(),
        Some(user) => {
            let keys = Authenticator::new(&config.client).map_err(|problem| problem.to_string())?;
            let token = keys.create_connection_token(user, None, UnixSeconds::now());
            Some(token.map_err(|problem| format!("--user: {problem}"))?)
        }
    };
    let tls = match url.starts_with("wss://") {
        false => None,
        true => Some(Tls::with_roots_pem(&flags.trust.roots()?).map_err(|error| error.to_string())?),
    };
    let protocol = if flags.protobuf { Protocol::Protobuf } else { Protocol::Json };
    Ok(ClientConfig { protocol, token, tls, name: "starling subscribe".to_owned(), ..ClientConfig::new(url) })
}

/// Where a server with this configuration, on this machine, has its clients.
fn websocket_url(config: &Config) -> String {
    let http = &config.http_server;
    let scheme = if http.tls.enabled { "wss" } else { "ws" };
    format!("{scheme}://{}:{}{}", reachable(http.address.as_ref()), http.port, config.websocket.handler_prefix)
}

/// Prints until the count is reached, or until it is no use to go on.
async fn follow(config: ClientConfig, flags: &SubscribeFlags) -> Result<(), String> {
    let url = config.url.clone();
    let refused = |error: Error| error.to_string();
    let client = Client::connect(config).map_err(refused)?;
    let mut events = client.events();
    let options = SubscribeOptions { token: flags.channel_token.clone(), ..SubscribeOptions::default() };
    let mut subscription = client.subscribe(&flags.channel, options).await.map_err(refused)?;
    let mut left = flags.count.unwrap_or(u64::MAX);
    let mut connection_ended = None;
    while left > 0 {
        let event = tokio::select! {
            // Why the connection ended is told before that the subscription did.
            biased;
            event = events.next(), if connection_ended.is_none() => {
                match event {
                    Some(ConnectionEvent::Connected(connected)) => {
                        remark(&format!("connected to {url}, client {}", connected.client));
                    }
                    Some(ConnectionEvent::Retrying { error, retry_in }) => {
                        remark(&format!("{error}; again in {:.1} s", retry_in.as_secs_f32()));
                    }
                    Some(ConnectionEvent::Disconnected { code, reason }) => {
                        connection_ended = Some(format!("disconnected: {reason} (code {code})"));
                    }
                    Some(ConnectionEvent::Connecting { code, reason, retry_in }) if code != 0 => {
                        remark(&format!("{reason} ({code}); again in {:.1} s", retry_in.as_secs_f32()));
                    }
                    Some(ConnectionEvent::Connecting { .. } | ConnectionEvent::Missed { .. }) => {}
                    None => connection_ended = Some("disconnected".to_owned()),
                }
                continue;
            }
            event = subscription.next() => event,
        };
        match event {
            Some(SubscriptionEvent::Publication(publication)) => {
                say(&line(&publication.data));
                left -= 1;
            }
            Some(SubscriptionEvent::Subscribed(subscribed)) => {
                let gap = match subscribed.recovery {
                    Recovery::First => "",
                    Recovery::Complete => ", nothing missed",
                    Recovery::Incomplete => ", something may be missing",
                };
                remark(&format!("subscribed to {}{gap}", flags.channel));
            }
            Some(SubscriptionEvent::Error(error)) => remark(&format!("{}: {error}", flags.channel)),
            Some(SubscriptionEvent::Unsubscribed { code, reason }) => {
                let why = format!("unsubscribed from {}: {reason} (code {code})", flags.channel);
                return Err(connection_ended.unwrap_or(why));
            }
            Some(SubscriptionEvent::Subscribing { .. } | SubscriptionEvent::Join(_) | SubscriptionEvent::Leave(_)) => {}
            None => return Err(connection_ended.unwrap_or_else(|| "the subscription ended".to_owned())),
        }
    }
    client.disconnect().await;
    Ok(())
}

/// One line for one publication: JSON says the same without its line breaks; other data may not be text at all.
fn line(data: &[u8]) -> String {
    let text = String::from_utf8_lossy(data);
    let mut line = text.replace(['\n', '\r'], " ");
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn a_publication_is_one_line_whatever_is_in_it() {
        assert_eq!(line(b"{\"a\":\n 1}"), "{\"a\":  1}\n");
        assert_eq!(line(b"\xff"), "\u{fffd}\n");
    }
}
