//! Names that cross a seam: channels, users, clients, nodes. Never bare strings, so that one cannot pass for another.

use std::{borrow::Borrow, fmt, sync::Arc};

use uuid::Uuid;

macro_rules! shared_name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

shared_name! {
    /// Full name of a channel, namespace and boundary included: `chat:room`. A clone is a reference count.
    ChannelName
}

shared_name! {
    /// Who the client says it is, once accepted. Empty for anonymous users. A clone is a reference count.
    UserId
}

impl UserId {
    /// Whether this is the anonymous user, whose id is the empty text.
    pub fn is_anonymous(&self) -> bool {
        self.0.is_empty()
    }
}

/// One connection of a client program, fresh for each connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClientId(pub Uuid);

impl ClientId {
    /// A new random id.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// One server process, fresh for each start. Other nodes' ids come from the control plane and are texts of any form.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeId(pub Arc<str>);

impl NodeId {
    /// A new random id.
    pub fn random() -> Self {
        Self(Uuid::new_v4().to_string().into())
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
