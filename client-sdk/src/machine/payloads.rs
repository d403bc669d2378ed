//! Whole payloads from patches: what a subscription with delta compression has to remember.

use bytes::Bytes;
use starling_proto::client::Publication;

use crate::Protocol;
use crate::delta;

/// Restores the payloads of one subscription's publications.
///
/// With delta compression a publication's data is a payload or, when it is marked, a patch on the payload before. On a
/// JSON connection either one travels as the content of a JSON string. (Client protocol: delta compression.)
#[derive(Debug)]
pub(super) struct Payloads {
    protocol: Protocol,
    max_bytes: usize,
    negotiated: bool,
    /// The payload that the next patch rests on.
    base: Option<Bytes>,
}

impl Payloads {
    pub(super) fn new(protocol: Protocol, max_bytes: usize) -> Self {
        Self { protocol, max_bytes, negotiated: false, base: None }
    }

    /// The server accepted the subscription. What was there before is a base only for a server that knows that the
    /// subscriber has it: nothing but recovery says so.
    pub(super) fn subscribed(&mut self, negotiated: bool, recovered: bool) {
        self.negotiated = negotiated;
        if !negotiated || !recovered {
            self.base = None;
        }
    }

    /// Puts the payload in place of what arrived.
    ///
    /// # Errors
    ///
    /// Why there is no payload, in words. The base is as before.
    pub(super) fn restore(&mut self, publication: &mut Publication) -> Result<(), String> {
        if !self.negotiated {
            return if publication.delta { Err("a patch without delta compression".to_owned()) } else { Ok(()) };
        }
        let data = match self.protocol {
            Protocol::Json => {
                let text: String = serde_json::from_slice(&publication.data).map_err(|_| "data is not a string")?;
                Bytes::from(text)
            }
            Protocol::Protobuf => publication.data.clone(),
        };
        publication.data = if publication.delta {
            let base = self.base.as_ref().ok_or("a patch without a payload before it")?;
            Bytes::from(delta::apply(base, &data, self.max_bytes).map_err(|error| error.to_string())?)
        } else {
            data
        };
        self.base = Some(match self.protocol {
            // A slice of the frame that brought it would keep the whole frame.
            Protocol::Protobuf if !publication.delta => Bytes::copy_from_slice(&publication.data),
            Protocol::Json | Protocol::Protobuf => publication.data.clone(),
        });
        Ok(())
    }
}
