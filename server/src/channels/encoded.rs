//! A publication and its shared frames: encoded once per wire variant, whoever needs it first.

use std::sync::OnceLock;

use bytes::Bytes;

use crate::{
    broker::Publication,
    names::ChannelName,
    session::protocol::Protocol,
    wire::{
        self,
        deflate::{Deflater, Params},
        websocket,
    },
};

/// Which of the frames of a publication a connection takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Variant {
    /// Encoding of the push.
    pub protocol: Protocol,
    /// Whether permessage-deflate was negotiated.
    pub deflate: bool,
}

impl Variant {
    /// All variants; a variant's place here is its [`index`](Self::index).
    pub const ALL: [Self; 4] = [
        Self { protocol: Protocol::Json, deflate: false },
        Self { protocol: Protocol::Protobuf, deflate: false },
        Self { protocol: Protocol::Json, deflate: true },
        Self { protocol: Protocol::Protobuf, deflate: true },
    ];

    /// Place in [`Self::ALL`].
    pub fn index(self) -> usize {
        usize::from(self.protocol == Protocol::Protobuf) + 2 * usize::from(self.deflate)
    }
}

/// A publication on its way to the subscribers of this node.
///
/// A frame is one allocation of WebSocket header and push, shared by all subscribers of its variant. Plain variants that have
/// subscribers are encoded under the channel's lock; one that gets its first subscriber afterwards, and the compressed
/// ones, are encoded by the first worker that needs them.
pub struct Encoded {
    channel: ChannelName,
    publication: Publication,
    frames: [OnceLock<Option<Bytes>>; 4],
}

impl Encoded {
    pub(crate) fn new(channel: ChannelName, publication: Publication) -> Self {
        Self { channel, publication, frames: Default::default() }
    }

    /// Where it was published.
    pub fn channel(&self) -> &ChannelName {
        &self.channel
    }

    /// The plain frame for one protocol; `None` when the payload cannot travel in it, that is, when it is not JSON.
    pub fn plain(&self, protocol: Protocol) -> Option<&Bytes> {
        let variant = Variant { protocol, deflate: false };
        let frame = self.frames[variant.index()].get_or_init(|| {
            let push = self.push(protocol)?;
            Some(websocket::shared_frame(protocol.kind(), &push))
        });
        frame.as_ref()
    }

    /// The frame for one variant; compressed with the worker's own `deflater` where that is negotiated and the push has
    /// at least `min_size` bytes.
    pub fn frame(&self, variant: Variant, deflater: &mut Deflater, min_size: usize) -> Option<&Bytes> {
        if !variant.deflate {
            return self.plain(variant.protocol);
        }
        let frame = self.frames[variant.index()].get_or_init(|| {
            let push = self.push(variant.protocol)?;
            if push.len() < min_size {
                return self.plain(variant.protocol).cloned();
            }
            let mut deflated = Vec::new();
            deflater.deflate(Params::default(), &push, &mut deflated);
            Some(websocket::shared_deflated_frame(variant.protocol.kind(), &deflated))
        });
        frame.as_ref()
    }

    fn push(&self, protocol: Protocol) -> Option<Vec<u8>> {
        let mut push = Vec::with_capacity(self.size());
        wire::publication_push(protocol, &self.channel, &self.publication, &mut push).ok()?;
        Some(push)
    }

    /// Upper bound of what one subscriber of any variant is sent, in bytes; for the bound of the inbox.
    pub fn size(&self) -> usize {
        self.publication.data.len() + self.channel.as_str().len() + 128
    }
}
