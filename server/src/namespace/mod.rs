//! Channel rules: which options a channel has, whether its name is valid, and who may do what in it.
//!
//! Everything here is a pure function of the configuration, compiled once into [`Namespaces`], and of its arguments:
//! nothing waits, reads a clock or allocates. A question is answered by a permit or by a [`Refusal`], which knows the
//! rule that refused and the option that would have allowed it, and becomes text only when it is printed.
//!
//! | question | asked by |
//! |---|---|
//! | [`Namespaces::resolve`] | every operation on a channel, server API included; `None` is an unknown namespace |
//! | [`Namespaces::check_request`], then [`Namespaces::may_subscribe`] | `subscribe` |
//! | [`Namespaces::may_publish`] | `publish` |
//! | [`Namespaces::may_presence`] | `presence`, `presence_stats` |
//! | [`Namespaces::may_history`] | `history` |
//! | [`Namespaces::may_ask_at_connect`] | `subs` of `connect` |
//! | [`Rules::check_data`] | whoever publishes |
//! | [`Namespaces::rules_of`], then [`Rules::granted_by_server`] | server-side subscriptions |
//!
//! Namespaces do not inherit from each other nor from `channel.without_namespace`.

mod data;
mod granted;
mod name;
mod permission;
mod refusal;
#[cfg(test)]
mod tests;

use hashbrown::HashMap;
use regex::Regex;

pub use granted::Granted;
pub use permission::{Permit, Question, Subject, TokenVerdict};
pub use refusal::{OptionPath, Refusal, Rule, Seen};

use crate::{
    auth::ConfigProblem,
    config::{Channel, ChannelOptions, Client, DataFormat},
};

/// The channel section of the configuration, compiled. Replaced as a whole when the configuration is read again.
#[derive(Debug)]
pub struct Namespaces {
    without: Namespace,
    by_name: HashMap<Box<str>, Namespace>,
    marks: name::Marks,
    /// Longest channel of a subscription, in bytes.
    max_length: usize,
    /// `client.insecure`: every permission is given. What a namespace has not switched on stays off, and names must be
    /// valid all the same.
    insecure: bool,
}

/// One compiled namespace, or the rules of channels without one.
#[derive(Debug)]
struct Namespace {
    /// `None` for `channel.without_namespace`.
    name: Option<Box<str>>,
    options: ChannelOptions,
    /// `channel_regex`; without one, names must be ASCII.
    regex: Option<Regex>,
    /// Its own format of publication data, or that of all channels.
    data_format: Option<DataFormat>,
}

/// The rules of one channel: its namespace's options, applied to its name.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    namespaces: &'a Namespaces,
    namespace: &'a Namespace,
    channel: &'a str,
    /// What follows the namespace boundary; the whole channel where there is none.
    rest: &'a str,
}

/// How much history a channel keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryOptions {
    /// Publications.
    pub size: u32,
    /// Time since the last publication, after which they are dropped.
    pub ttl: std::time::Duration,
    /// Time since the last use, after which the stream itself is forgotten.
    pub meta_ttl: std::time::Duration,
}

impl Namespaces {
    /// Compiles the section.
    ///
    /// # Errors
    ///
    /// A pattern that does not compile, or two namespaces of one name.
    pub fn new(channel: &Channel, client: &Client) -> Result<Self, ConfigProblem> {
        let mut by_name = HashMap::with_capacity(channel.namespaces.len());
        for namespace in &channel.namespaces {
            let name: Box<str> = namespace.name.as_str().into();
            let compiled = Namespace::new(Some(name.clone()), &namespace.options, channel)?;
            if by_name.insert(name, compiled).is_some() {
                let problem = format!("there are two namespaces named {:?}", namespace.name);
                return Err(ConfigProblem { option: "channel.namespaces".into(), problem });
            }
        }
        Ok(Self {
            without: Namespace::new(None, &channel.without_namespace, channel)?,
            by_name,
            marks: name::Marks::new(channel),
            max_length: channel.max_length,
            insecure: client.insecure,
        })
    }

    /// The rules of a channel; `None` when it names a namespace that does not exist (code 102 everywhere).
    ///
    /// The private prefix is skipped, then what stands before the first boundary is the namespace. A channel without a
    /// boundary, or with nothing before it, has the options of `channel.without_namespace`.
    pub fn resolve<'a>(&'a self, channel: &'a str) -> Option<Rules<'a>> {
        let (name, rest) = self.marks.namespace_and_rest(channel);
        let namespace = match name {
            Some(name) => self.by_name.get(name)?,
            None => &self.without,
        };
        Some(Rules { namespaces: self, namespace, channel, rest })
    }
}

impl Namespace {
    fn new(name: Option<Box<str>>, options: &ChannelOptions, channel: &Channel) -> Result<Self, ConfigProblem> {
        let regex = match &options.channel_regex {
            Some(pattern) => Some(Regex::new(pattern).map_err(|error| ConfigProblem {
                option: OptionPath::of_namespace(name.as_deref(), "channel_regex").to_string(),
                problem: format!("{pattern:?} is not a pattern: {error}"),
            })?),
            None => None,
        };
        let data_format = options.publication_data_format.or(channel.publication_data_format);
        let mut options = options.clone();
        options.history_meta_ttl.get_or_insert(channel.history_meta_ttl);
        Ok(Self { name, options, regex, data_format })
    }
}

impl<'a> Rules<'a> {
    /// Name of the namespace; `None` for a channel without one.
    pub fn namespace(&self) -> Option<&'a str> {
        self.namespace.name.as_deref()
    }

    /// The channel that these rules are of.
    pub fn channel(&self) -> &'a str {
        self.channel
    }

    /// The options as configured. Prefer the questions of this type where there is one.
    pub fn options(&self) -> &'a ChannelOptions {
        &self.namespace.options
    }

    /// How much history the channel keeps; `None` for none (code 108 for whoever asks for it).
    pub fn history(&self) -> Option<HistoryOptions> {
        let options = self.options();
        let meta_ttl = options.history_meta_ttl.expect("set when compiled");
        Some(HistoryOptions { size: options.history_size?, ttl: options.history_ttl?, meta_ttl })
    }

    /// Format that publication data must have: the namespace's own, or that of all channels; `None` for any bytes but none.
    pub fn data_format(&self) -> Option<DataFormat> {
        self.namespace.data_format
    }

    /// Whether presence is kept; where not, code 108 for whoever asks for it.
    pub fn presence(&self) -> bool {
        self.options().presence
    }
}
