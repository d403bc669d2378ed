//! What is delivered to the subscribers of a channel, and its shared frames: encoded once per wire variant, whoever needs it
//! first.

use std::{borrow::Cow, sync::OnceLock};

use bytes::Bytes;

use crate::{
    broker::{ClientInfo, Form, Publication, StreamPosition},
    delta,
    filter::Filter,
    names::ChannelName,
    session::protocol::{Protocol, Push},
    wire::{
        self,
        deflate::{Deflater, Params},
        websocket,
    },
};

/// Which of the frames a connection takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Variant {
    /// Encoding of the push.
    pub protocol: Protocol,
    /// Whether permessage-deflate was negotiated.
    pub deflate: bool,
}

impl Variant {
    const COUNT: usize = 4;

    fn index(self) -> usize {
        usize::from(self.protocol == Protocol::Protobuf) + 2 * usize::from(self.deflate)
    }
}

/// How a publication is shown to a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    /// As it is.
    Plain,
    /// Whole, in the form that a delta subscription asks for.
    Whole,
    /// As a difference to the one before, where there is one and it is shorter; else whole.
    Patch,
}

/// A push on its way to the subscribers of a channel of this node.
///
/// A frame is one allocation of WebSocket header and push, shared by all subscribers of its variant. Plain variants that have
/// subscribers are encoded under the channel's lock; one that gets its first subscriber afterwards, the compressed ones, and
/// differences are encoded by the first worker that needs them.
pub struct Encoded {
    channel: ChannelName,
    content: Content,
    plain: Frames,
    /// Frames of delta subscriptions, whole and patches; made only where there are such.
    delta: OnceLock<Box<[Frames; 2]>>,
}

/// One frame for each variant, made when first asked for; absent where the push cannot be encoded.
type Frames = [OnceLock<Option<Bytes>>; Variant::COUNT];

enum Content {
    Publication(Publication, Option<Bytes>),
    Join(ClientInfo),
    Leave(ClientInfo),
}

/// What a worker encodes with.
pub struct Tools {
    /// Compressor.
    pub deflater: Deflater,
    /// Messages shorter than this are not compressed, in bytes.
    pub deflate_min_size: usize,
    /// Maker of patches.
    pub encoder: delta::Encoder,
}

/// The publication as a patch to the payload before it; whole where there is none, or the patch would not be shorter.
pub(crate) fn patch(publication: &Publication, previous: Option<&Bytes>, encoder: &mut delta::Encoder) -> Publication {
    let mut patch = Vec::new();
    let made = previous.is_some_and(|previous| encoder.encode(previous, &publication.data, true, &mut patch));
    match made {
        true => Publication { data: patch.into(), form: Form::Patch, ..publication.clone() },
        false => Publication { form: Form::Whole, ..publication.clone() },
    }
}

impl Encoded {
    /// A publication, and the payload before it in its stream, if nodes were given that to make differences.
    pub fn publication(channel: ChannelName, publication: Publication, previous: Option<Bytes>) -> Self {
        Self::new(channel, Content::Publication(publication, previous))
    }

    /// Somebody joined.
    pub fn join(channel: ChannelName, info: ClientInfo) -> Self {
        Self::new(channel, Content::Join(info))
    }

    /// Somebody left.
    pub fn leave(channel: ChannelName, info: ClientInfo) -> Self {
        Self::new(channel, Content::Leave(info))
    }

    fn new(channel: ChannelName, content: Content) -> Self {
        Self { channel, content, plain: Default::default(), delta: OnceLock::new() }
    }

    /// Where it happened.
    pub fn channel(&self) -> &ChannelName {
        &self.channel
    }

    /// Place in the stream; `None` without history, and for joins and leaves.
    pub fn position(&self) -> Option<&StreamPosition> {
        match &self.content {
            Content::Publication(publication, _) => publication.position.as_ref(),
            Content::Join(_) | Content::Leave(_) => None,
        }
    }

    /// Whether it is a join or a leave, which only some subscribers are told.
    pub fn is_presence(&self) -> bool {
        match &self.content {
            Content::Publication(..) => false,
            Content::Join(_) | Content::Leave(_) => true,
        }
    }

    /// The plain frame for one protocol; `None` when the payload cannot travel in it, that is, when it is not JSON.
    pub fn plain(&self, protocol: Protocol) -> Option<&Bytes> {
        let variant = Variant { protocol, deflate: false };
        let frame = self.plain[variant.index()].get_or_init(|| {
            let push = self.push(protocol, Shape::Plain, &mut delta::Encoder::default())?;
            Some(websocket::shared_frame(protocol.kind(), &push))
        });
        frame.as_ref()
    }

    /// The frame for one variant and shape; `None` when the payload cannot travel in it.
    pub fn frame(&self, variant: Variant, shape: Shape, tools: &mut Tools) -> Option<&Bytes> {
        let slot = match shape {
            _ if self.is_presence() => &self.plain[variant.index()],
            Shape::Plain => &self.plain[variant.index()],
            Shape::Whole => &self.delta.get_or_init(Box::default)[0][variant.index()],
            Shape::Patch => &self.delta.get_or_init(Box::default)[1][variant.index()],
        };
        let frame = slot.get_or_init(|| {
            let push = self.push(variant.protocol, shape, &mut tools.encoder)?;
            if !variant.deflate || push.len() < tools.deflate_min_size {
                return Some(websocket::shared_frame(variant.protocol.kind(), &push));
            }
            let mut deflated = Vec::new();
            tools.deflater.deflate(Params::default(), &push, &mut deflated);
            Some(websocket::shared_deflated_frame(variant.protocol.kind(), &deflated))
        });
        frame.as_ref()
    }

    /// Whether a subscriber with this filter gets it. Joins and leaves have no tags.
    pub fn passes(&self, filter: Option<&Filter>) -> bool {
        match (&self.content, filter) {
            (Content::Publication(publication, _), Some(filter)) => filter.matches(&publication.tags),
            (Content::Publication(..), None) => true,
            (Content::Join(_) | Content::Leave(_), _) => true,
        }
    }

    fn push(&self, protocol: Protocol, shape: Shape, encoder: &mut delta::Encoder) -> Option<Vec<u8>> {
        let mut push = Vec::with_capacity(self.size());
        match &self.content {
            Content::Publication(publication, previous) => {
                let shown = match shape {
                    Shape::Plain => Cow::Borrowed(publication),
                    Shape::Whole => Cow::Owned(Publication { form: Form::Whole, ..publication.clone() }),
                    Shape::Patch => Cow::Owned(patch(publication, previous.as_ref(), encoder)),
                };
                wire::publication_push(protocol, &self.channel, &shown, &mut push).ok()?;
            }
            Content::Join(info) => {
                let join = Push::Join { channel: self.channel.clone(), info: info.clone() };
                wire::push(protocol, &join, &mut push).ok()?;
            }
            Content::Leave(info) => {
                let leave = Push::Leave { channel: self.channel.clone(), info: info.clone() };
                wire::push(protocol, &leave, &mut push).ok()?;
            }
        }
        Some(push)
    }

    /// Upper bound of what one subscriber of any plain variant is sent, in bytes; for the bound of the inbox.
    pub fn size(&self) -> usize {
        let payload = match &self.content {
            Content::Publication(publication, previous) => {
                publication.data.len() + previous.as_ref().map_or(0, Bytes::len)
            }
            Content::Join(info) => info.conn_info.len() + info.chan_info.len(),
            Content::Leave(info) => info.conn_info.len() + info.chan_info.len(),
        };
        payload + self.channel.as_str().len() + 128
    }
}
