//! Flags that say where options come from and what they are.

use std::path::PathBuf;

use clap::{Arg, ArgMatches, Args};

use crate::config::{self, Environment, Flag, Sources};

/// `--config` and `--set`.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct ConfigFlags {
    /// Configuration file: .json, .yaml or .toml
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set one option; may be given more than once (--set client.ping_interval=15s)
    #[arg(long, value_name = "OPTION=VALUE", value_parser = assignment)]
    set: Vec<(String, String)>,
}

/// Reads `OPTION=VALUE`.
pub(super) fn assignment(text: &str) -> Result<(String, String), String> {
    let (option, value) = text.split_once('=').ok_or("takes an option and its value, with = between them")?;
    Ok((option.into(), value.into()))
}

/// What `--set` says.
pub(super) fn assigned(set: Vec<(String, String)>) -> impl Iterator<Item = Flag> {
    set.into_iter().map(|(option, value)| {
        let written = format!("--set {option}");
        Flag { option, value, written }
    })
}

impl ConfigFlags {
    pub(super) fn sources(self, environment: Environment) -> Sources {
        Sources { file: self.config, environment, flags: assigned(self.set).collect() }
    }
}

/// [`ConfigFlags`], and a flag for each option that people set by hand.
#[derive(Clone, Debug, Default)]
pub(super) struct OptionFlags {
    config: ConfigFlags,
    options: Vec<Flag>,
}

impl OptionFlags {
    pub(super) fn sources(self, environment: Environment) -> Sources {
        let mut sources = self.config.sources(environment);
        sources.flags.extend(self.options);
        sources
    }
}

/// The options with a flag of their own and its short form: those of Centrifugo.
const OPTIONS: [(&str, Option<char>); 37] = [
    ("http_server.address", Some('a')),
    ("http_server.port", Some('p')),
    ("http_server.internal_address", None),
    ("http_server.internal_port", None),
    ("log.level", None),
    ("log.file", None),
    ("engine.type", None),
    ("broker.enabled", None),
    ("broker.type", None),
    ("presence_manager.enabled", None),
    ("presence_manager.type", None),
    ("map_broker.type", None),
    ("client.insecure", None),
    ("http_api.insecure", None),
    ("http_api.external", None),
    ("grpc_api.enabled", None),
    ("grpc_api.port", None),
    ("health.enabled", None),
    ("prometheus.enabled", None),
    ("swagger.enabled", None),
    ("debug.enabled", None),
    ("admin.enabled", None),
    ("admin.external", None),
    ("admin.insecure", None),
    ("init.enabled", None),
    ("sse.enabled", None),
    ("http_stream.enabled", None),
    ("uni_websocket.enabled", None),
    ("uni_sse.enabled", None),
    ("uni_http_stream.enabled", None),
    ("uni_grpc.enabled", None),
    ("uni_grpc.port", None),
    ("node.name", None),
    ("shutdown.timeout", None),
    ("http_server.tls.enabled", None),
    ("client.allowed_origins", None),
    ("pid_file", None),
];

impl Args for OptionFlags {
    fn augment_args(command: clap::Command) -> clap::Command {
        let flag = |(option, short): &(&'static str, Option<char>)| {
            let argument = Arg::new(*option)
                .long(*option)
                .help(help(option))
                .value_name("VALUE")
                .help_heading("Options of the configuration")
                .hide_short_help(true);
            let argument = match short {
                Some(short) => argument.short(*short),
                None => argument,
            };
            if config::about(option).is_some_and(|about| about.is_switch) {
                argument.num_args(0..=1).require_equals(true).default_missing_value("true").value_name("true|false")
            } else {
                argument.num_args(1)
            }
        };
        ConfigFlags::augment_args(command).args(OPTIONS.iter().map(flag))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for OptionFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let config = ConfigFlags::from_arg_matches(matches)?;
        let given = OPTIONS.iter().filter_map(|(option, _)| Some((*option, matches.get_one::<String>(option)?)));
        let options = given.map(|(option, value)| Flag {
            option: option.into(),
            value: value.clone(),
            written: format!("--{option}"),
        });
        Ok(Self { config, options: options.collect() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// What an option is, for a line that shows only its name: the words it takes, and what "turns it on" turns on.
fn help(option: &str) -> String {
    let Some(about) = config::about(option) else { return String::new() };
    let text = about.text.trim_end_matches('.');
    if let Some(section) = option.strip_suffix(".enabled").and_then(config::about) {
        let section = section.text.trim_end_matches('.');
        let is_word = section.chars().nth(1).is_some_and(|c| c.is_lowercase() || c == ' ');
        let first = section.chars().next().map(|c| if is_word { c.to_ascii_lowercase() } else { c });
        return first.map_or_else(String::new, |first| format!("Turn on {first}{}", &section[first.len_utf8()..]));
    }
    if about.takes.starts_with('"') { format!("{text}: {}", about.takes.replace('"', "")) } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_is_an_option() {
        for (option, _) in OPTIONS {
            assert!(config::about(option).is_some(), "{option}");
        }
    }

    #[test]
    fn flags_become_options_in_their_order() {
        let command = OptionFlags::augment_args(clap::Command::new("starling"));
        let line =
            "starling -p 9000 --health.enabled --sse.enabled=false --set a.b=c=d -c x.toml --http_server.address ::1";
        let matches = command.try_get_matches_from(line.split(' ')).unwrap();
        let flags = <OptionFlags as clap::FromArgMatches>::from_arg_matches(&matches).unwrap();
        let sources = flags.sources(Environment::default());
        let options: Vec<(&str, &str)> =
            sources.flags.iter().map(|flag| (flag.option.as_str(), flag.value.as_str())).collect();
        let expected = [
            ("a.b", "c=d"),
            ("http_server.address", "::1"),
            ("http_server.port", "9000"),
            ("health.enabled", "true"),
            ("sse.enabled", "false"),
        ];
        assert_eq!(options, expected);
        assert_eq!(sources.file, Some("x.toml".into()));
    }
}
