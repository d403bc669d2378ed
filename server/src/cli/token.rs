//! `starling token`: create, inspect.

use std::io::Read as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;

use super::{ConfigFlags, complain, remark, say, with_config};
use crate::auth::{Authenticator, UnixSeconds};
use crate::config::{Config, Environment, format_duration, parse_with_days};

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token that this configuration accepts, signed with its HMAC key
    Create {
        /// User that the token is for; without it, the connection is anonymous
        #[arg(short, long, default_value = "")]
        user: String,
        /// How long the token counts: 30s, 12h, 7d, or never for without end
        #[arg(short, long, default_value = "7d", value_name = "DURATION", value_parser = ttl)]
        ttl: Ttl,
        /// Channel: makes a token to subscribe to it, instead of one to connect
        #[arg(long)]
        channel: Option<String>,
        #[command(flatten)]
        config: ConfigFlags,
    },
    /// Say what a token says and why it would be refused (exit code 1)
    Inspect {
        /// The token, or - to read it from standard input
        token: String,
        #[command(flatten)]
        config: ConfigFlags,
    },
}

/// How long a token counts; `None` is without end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ttl(Option<Duration>);

pub(super) fn run(command: TokenCommand, environment: Environment) -> ExitCode {
    match command {
        TokenCommand::Create { user, ttl, channel, config } => with_config(config.sources(environment), |loaded| {
            with_keys(&loaded.config, |keys| create(keys, &user, ttl, channel.as_deref()))
        }),
        TokenCommand::Inspect { token, config } => {
            with_config(config.sources(environment), |loaded| with_keys(&loaded.config, |keys| inspect(keys, token)))
        }
    }
}

fn with_keys(config: &Config, then: impl FnOnce(&Authenticator) -> ExitCode) -> ExitCode {
    match Authenticator::new(&config.client) {
        Ok(keys) => then(&keys),
        Err(problem) => {
            complain(&problem.to_string());
            ExitCode::FAILURE
        }
    }
}

fn create(keys: &Authenticator, user: &str, Ttl(ttl): Ttl, channel: Option<&str>) -> ExitCode {
    let token = match channel {
        None => keys.create_connection_token(user, ttl, UnixSeconds::now()),
        Some(channel) => keys.create_subscription_token(user, channel, ttl, UnixSeconds::now()),
    };
    match token {
        Ok(token) => {
            let who = if user.is_empty() { "an anonymous user".into() } else { format!("user \"{user}\"") };
            let what = channel.map_or_else(|| "to connect".into(), |channel| format!("to subscribe to \"{channel}\""));
            let end = ttl.map_or_else(|| "without end".into(), |ttl| format!("for {}", format_duration(ttl)));
            remark(&format!("Token {what} as {who}, valid {end}:"));
            say(&format!("{token}\n"));
            ExitCode::SUCCESS
        }
        Err(problem) => {
            complain(&problem.to_string());
            ExitCode::FAILURE
        }
    }
}

fn inspect(keys: &Authenticator, token: String) -> ExitCode {
    let token = if token == "-" {
        let mut text = String::new();
        if let Err(error) = std::io::stdin().lock().take(MAX_TOKEN).read_to_string(&mut text) {
            complain(&format!("standard input cannot be read: {error}"));
            return ExitCode::FAILURE;
        }
        text
    } else {
        token
    };
    let inspection = keys.inspect(&token, UnixSeconds::now());
    say(&inspection.to_string());
    if inspection.is_accepted() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// More than any client could send.
const MAX_TOKEN: u64 = 1 << 20;

fn ttl(text: &str) -> Result<Ttl, String> {
    if text == "never" {
        return Ok(Ttl(None));
    }
    match parse_with_days(text) {
        Some(ttl) if ttl.as_secs() > 0 => Ok(Ttl(Some(ttl))),
        Some(_) | None => Err("takes a duration of at least a second, such as 30s, 12h or 7d, or never".into()),
    }
}
