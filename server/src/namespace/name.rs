//! The parts of a channel name, and whether a name is valid.
//!
//! ```text
//! $chat:dialog#42,43
//! |____|______|_____
//! |  |    |     users that may subscribe (where allow_user_limited_channels is on), after the last user boundary
//! |  |    what channel_regex is matched against: everything after the namespace boundary, users included
//! |  namespace, up to the first namespace boundary
//! private prefix: needs a subscription token
//! ```

use super::{Rule, Rules, Seen, refusal::Refusal};
use crate::config::Channel;

/// The texts that separate the parts of a name.
#[derive(Debug)]
pub(super) struct Marks {
    private_prefix: Box<str>,
    namespace_boundary: Box<str>,
    user_boundary: Box<str>,
    user_separator: Box<str>,
}

impl Marks {
    pub(super) fn new(channel: &Channel) -> Self {
        // An empty text means the default, as for every option of the reference's configuration.
        let or = |text: &str, default: &str| if text.is_empty() { default.into() } else { text.into() };
        Self {
            private_prefix: or(&channel.private_prefix, "$"),
            namespace_boundary: or(&channel.namespace_boundary, ":"),
            user_boundary: or(&channel.user_boundary, "#"),
            user_separator: or(&channel.user_separator, ","),
        }
    }

    /// The namespace that the channel names, and what follows its boundary.
    pub(super) fn namespace_and_rest<'a>(&self, channel: &'a str) -> (Option<&'a str>, &'a str) {
        let public = channel.strip_prefix(&*self.private_prefix).unwrap_or(channel);
        match public.split_once(&*self.namespace_boundary) {
            Some(("", rest)) => (None, rest),
            Some((namespace, rest)) => (Some(namespace), rest),
            None => (None, channel),
        }
    }
}

impl<'a> Rules<'a> {
    /// Whether the channel starts with the private prefix: a client needs a subscription token to subscribe.
    pub fn is_private(&self) -> bool {
        self.channel.starts_with(&*self.namespaces.marks.private_prefix)
    }

    /// Whether only the users that the name lists may subscribe without a token.
    pub fn is_user_limited(&self) -> bool {
        self.user_list().is_some()
    }

    /// Whether the name of a user-limited channel lists this user. The anonymous user is never listed, not even by an
    /// empty entry: `room#` is nobody's channel. (The reference lets the anonymous user in there, which cannot be
    /// meant.)
    pub fn lists(&self, user: &str) -> bool {
        let Some(mut users) = self.user_list().map(|list| list.split(&*self.namespaces.marks.user_separator)) else {
            return false;
        };
        !user.is_empty() && users.any(|listed| listed == user)
    }

    fn user_list(&self) -> Option<&'a str> {
        if !self.options().allow_user_limited_channels {
            return None;
        }
        self.channel.rsplit_once(&*self.namespaces.marks.user_boundary).map(|(_, users)| users)
    }

    /// Whether clients may use this name: it matches `channel_regex`, or is ASCII where there is none. The server API
    /// may use any name.
    pub(super) fn check_name(&self) -> Result<(), Refusal<'a>> {
        match &self.namespace.regex {
            Some(regex) if regex.is_match(self.rest) => Ok(()),
            Some(_) => Err(self.refusal(Rule::NameMatchesRegex).seeing(Seen::Text(self.rest))),
            None if self.channel.is_ascii() => Ok(()),
            None => Err(self.refusal(Rule::NameIsAscii)),
        }
    }
}
