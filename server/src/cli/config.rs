//! `starling config`: check, explain, init.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use base64::Engine as _;
use clap::Subcommand;

use super::{ConfigFlags, complain, say, with_config};
use crate::config::{Environment, Explained, Format, Loaded};

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Say whether the server would start with it: prints ok, or everything that is wrong (exit code 1)
    Check(ConfigFlags),
    /// Print the options in effect and where each came from; secrets are masked
    Explain {
        /// Options or sections to print with their description (client.token); without any, what differs from the
        /// defaults
        options: Vec<String>,
        /// Print every option, also those with their default
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        config: ConfigFlags,
    },
    /// Write a minimal configuration file with fresh secrets
    Init {
        /// File to write; its ending says the format
        #[arg(default_value = "config.toml")]
        file: PathBuf,
    },
}

pub(super) fn run(command: ConfigCommand, environment: Environment) -> ExitCode {
    match command {
        ConfigCommand::Check(config) => with_config(config.sources(environment), |_| {
            say("ok\n");
            ExitCode::SUCCESS
        }),
        ConfigCommand::Explain { options, all, config } => {
            with_config(config.sources(environment), |loaded| explain(&loaded, &options, all))
        }
        ConfigCommand::Init { file } => init(&file),
    }
}

fn explain(loaded: &Loaded, options: &[String], all: bool) -> ExitCode {
    let explained = loaded.explain();
    if options.is_empty() {
        let shown: Vec<&Explained> = explained.iter().filter(|one| all || one.origin.is_some()).collect();
        if shown.is_empty() {
            say("Every option has its default. To see them: starling config explain --all\n");
        }
        let width = shown.iter().map(|one| assignment(one).chars().count()).filter(|width| *width <= 64).max();
        for one in shown {
            say(&format!("{:width$}  # {}\n", assignment(one), origin(one), width = width.unwrap_or(0)));
        }
        return ExitCode::SUCCESS;
    }
    let mut code = ExitCode::SUCCESS;
    for option in options {
        let inside = |one: &&Explained| {
            let rest = one.option.strip_prefix(option.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        let mut found = explained.iter().filter(inside).peekable();
        if found.peek().is_none() {
            complain(&match crate::config::about(option) {
                Some(_) => format!("`{option}` is an empty list"),
                None => crate::config::unknown_option(option),
            });
            code = ExitCode::FAILURE;
        }
        for one in found {
            say(&described(one));
        }
    }
    code
}

fn assignment(one: &Explained) -> String {
    format!("{} = {}", one.option, if one.value == "null" { "(absent)" } else { &one.value })
}

fn origin(one: &Explained) -> &str {
    one.origin.as_deref().unwrap_or("default")
}

fn described(one: &Explained) -> String {
    let variable = one.variable.as_ref().map(|name| format!("# Variable: {name}\n")).unwrap_or_default();
    format!("# {}\n# Takes {}.\n{variable}{}  # {}\n\n", one.about, one.takes, assignment(one), origin(one))
}

// === init ===

fn init(file: &Path) -> ExitCode {
    let Some(format) = Format::of(file) else {
        complain(&format!("{}: a configuration file ends in .json, .yaml, .yml or .toml", file.display()));
        return ExitCode::FAILURE;
    };
    // Only the owner may read it, from the first byte on; what is there already stays.
    let opened = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    let written =
        opened.and_then(|mut opened| opened.write_all(minimal(format, &file.display().to_string()).as_bytes()));
    match written {
        Ok(()) => {
            say(&format!(
                "wrote {0}\n\n\
                 Run it:        starling serve --config {0}\n\
                 Make a token:  starling token create --user 42 --config {0}\n",
                file.display()
            ));
            ExitCode::SUCCESS
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            complain(&format!("{} exists already; nothing was written", file.display()));
            ExitCode::FAILURE
        }
        Err(error) => {
            complain(&format!("{} cannot be written: {error}", file.display()));
            ExitCode::FAILURE
        }
    }
}

/// A text of 64 characters that nobody can guess: 48 bytes from the system's generator.
fn secret() -> String {
    let mut bytes = [0_u8; 48];
    rand::fill(&mut bytes);
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

fn minimal(format: Format, name: &str) -> String {
    let (token, api) = (secret(), secret());
    match format {
        Format::Json => format!(
            r#"{{
  "client": {{
    "allowed_origins": [],
    "token": {{
      "hmac_secret_key": "{token}"
    }}
  }},
  "http_api": {{
    "key": "{api}"
  }}
}}
"#
        ),
        Format::Toml => format!(
            r#"# Configuration of Starling. To check it:   starling config check --config {name}
#                           Every option:  starling config explain --all

[client]
# Where browsers may connect from: the origins of your pages ("https://example.com", "https://*.example.com").
# While this is empty, every browser is refused.
allowed_origins = []

[client.token]
# Signs the tokens that clients connect with (HS256). Your backend needs it; it must never reach a browser.
hmac_secret_key = "{token}"

[http_api]
# Your backend sends it with every call, as the header X-API-Key.
key = "{api}"

# Until a channel allows it, nobody may subscribe without a token for it.
# [channel.without_namespace]
# allow_subscribe_for_client = true

# Several nodes share one Redis.
# [engine]
# type = "redis"
# redis.address = "redis://127.0.0.1:6379"
"#
        ),
        Format::Yaml => format!(
            r#"# Configuration of Starling. To check it:   starling config check --config {name}
#                           Every option:  starling config explain --all

client:
  # Where browsers may connect from: the origins of your pages ("https://example.com", "https://*.example.com").
  # While this is empty, every browser is refused.
  allowed_origins: []
  token:
    # Signs the tokens that clients connect with (HS256). Your backend needs it; it must never reach a browser.
    hmac_secret_key: "{token}"

http_api:
  # Your backend sends it with every call, as the header X-API-Key.
  key: "{api}"

# Until a channel allows it, nobody may subscribe without a token for it.
# channel:
#   without_namespace:
#     allow_subscribe_for_client: true

# Several nodes share one Redis.
# engine:
#   type: redis
#   redis:
#     address: redis://127.0.0.1:6379
"#
        ),
    }
}
