//! Frames from a client, put together to messages.

use std::{borrow::Cow, io::Cursor, mem, str};

use tokio_tungstenite::tungstenite::protocol::frame::{
    FrameHeader,
    coding::{CloseCode, Control, Data, OpCode},
};

use super::{Event, Kind, Violation, mask::unmask};

/// What a connection allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Bytes of one message over all its fragments, before inflating.
    pub message_size_limit: usize,
    /// Whether permessage-deflate was negotiated.
    pub deflate: bool,
    /// Whether to fail where RFC 6455 says so but the reference server goes on: a text message that is not UTF-8, a
    /// Close frame with a body of one byte.
    pub strict: bool,
}

/// The longest header of a frame: two bytes, eight of length, four of mask.
const HEADER_MAX: usize = 14;
const CONTROL_MAX: u64 = 125;

/// Reads the frames of one connection.
///
/// Memory: one pointer while no frame or message is incomplete, otherwise also one box with what is there of it. A
/// payload grows with the bytes that come, not with what a header announces, to at most its announced length, and the
/// message to at most [`Rules::message_size_limit`]; it is freed or handed out on completion.
#[derive(Debug, Default)]
pub struct Reader {
    partial: Option<Box<Partial>>,
}

/// What is there of an incomplete frame and an incomplete message. Control frames may come between fragments, so both
/// kinds of payload can be there at once.
#[derive(Debug, Default)]
struct Partial {
    /// Beginning of a header whose end is yet to come.
    header: Vec<u8>,
    /// Frame whose payload is yet to come.
    frame: Option<Frame>,
    message: Option<Message>,
    /// Payload of a control frame so far.
    control: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: OpCode,
    is_final: bool,
    deflated: bool,
    mask: [u8; 4],
    length: usize,
    /// Bytes of the payload that were taken before.
    taken: usize,
}

#[derive(Debug)]
struct Message {
    kind: Kind,
    deflated: bool,
    payload: Vec<u8>,
    /// How much of the payload is known to be UTF-8. Only kept up under strict rules.
    text: usize,
}

impl Reader {
    /// A reader for a fresh connection.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing is kept aside: the connection is between two messages.
    pub fn is_idle(&self) -> bool {
        self.partial.is_none()
    }

    /// Bytes of memory that are held for what is incomplete, 0 when idle.
    pub fn memory(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| {
            let payload = partial.message.as_ref().map_or(0, |message| message.payload.capacity());
            size_of::<Partial>() + partial.header.capacity() + partial.control.capacity() + payload
        })
    }

    /// Takes the next complete message or control frame out of `input` and moves behind it.
    ///
    /// `None` means that all of `input` was taken and more is needed. What `input` still holds after an event was not
    /// looked at; it may be kept and given again. The payload of an event lies in the input, unmasked, if the whole
    /// frame was there.
    pub fn read<'b>(&mut self, rules: Rules, input: &mut &'b mut [u8]) -> Result<Option<Event<'b>>, Violation> {
        loop {
            let Some(frame) = self.next_frame(rules, input)? else { return Ok(None) };
            let here = input.len().min(frame.length - frame.taken);
            let (bytes, rest) = mem::take(input).split_at_mut(here);
            *input = rest;
            unmask(bytes, frame.mask, frame.taken);
            let done = frame.taken + here == frame.length;

            let event = match frame.opcode {
                OpCode::Control(control) => self.control(rules, control, frame, bytes, done)?,
                OpCode::Data(data) => self.data(rules, data, frame, bytes, done)?,
            };
            if !done {
                self.partial().frame = Some(Frame { taken: frame.taken + here, ..frame });
                return Ok(None);
            }
            self.partial.take_if(|partial| partial.is_empty());
            if event.is_some() {
                return Ok(event);
            }
        }
    }

    fn partial(&mut self) -> &mut Partial {
        self.partial.get_or_insert_default()
    }

    /// The frame that is being read, or the one whose header comes next.
    fn next_frame(&mut self, rules: Rules, input: &mut &mut [u8]) -> Result<Option<Frame>, Violation> {
        if let Some(frame) = self.partial.as_mut().and_then(|partial| partial.frame.take()) {
            return Ok(Some(frame));
        }
        let kept = self.partial.as_mut().map(|partial| mem::take(&mut partial.header)).unwrap_or_default();
        let parsed = if kept.is_empty() {
            parse(input)?
        } else {
            let mut header = [0; HEADER_MAX];
            let more = input.len().min(HEADER_MAX - kept.len());
            let length = kept.len() + more;
            header[..kept.len()].copy_from_slice(&kept);
            header[kept.len()..length].copy_from_slice(&input[..more]);
            // The kept bytes were not a header yet, so a header ends behind them.
            parse(&header[..length])?.map(|(header, payload, end)| (header, payload, end - kept.len()))
        };
        let Some((header, length, end)) = parsed else {
            if !(kept.is_empty() && input.is_empty()) {
                let partial = self.partial();
                partial.header = kept;
                partial.header.extend_from_slice(input);
                *input = &mut [];
            }
            return Ok(None);
        };
        *input = &mut mem::take(input)[end..];
        self.check(rules, &header, length).map(Some)
    }

    /// Checks a header against the rules and against what came before it.
    fn check(&self, rules: Rules, header: &FrameHeader, length: u64) -> Result<Frame, Violation> {
        let mask = header.mask.ok_or(Violation::protocol("unmasked frame"))?;
        let message = self.partial.as_ref().and_then(|partial| partial.message.as_ref());
        if header.rsv2 || header.rsv3 {
            return Err(Violation::protocol("reserved bit set"));
        }
        let limit = match header.opcode {
            OpCode::Control(_) => {
                if header.rsv1 {
                    return Err(Violation::protocol("reserved bit set"));
                }
                if !header.is_final {
                    return Err(Violation::protocol("fragmented control frame"));
                }
                if length > CONTROL_MAX {
                    return Err(Violation::protocol("control frame too long"));
                }
                usize::MAX
            }
            OpCode::Data(Data::Continue) => {
                if header.rsv1 {
                    return Err(Violation::protocol("reserved bit set"));
                }
                let message = message.ok_or(Violation::protocol("nothing to continue"))?;
                rules.message_size_limit - message.payload.len()
            }
            OpCode::Data(_) => {
                if header.rsv1 && !rules.deflate {
                    return Err(Violation::protocol("reserved bit set"));
                }
                if message.is_some() {
                    return Err(Violation::protocol("new message before the end of the last"));
                }
                rules.message_size_limit
            }
        };
        if length >> 63 != 0 {
            return Err(Violation::protocol("invalid length"));
        }
        let length = usize::try_from(length).ok().filter(|length| *length <= limit).ok_or(Violation::TOO_LARGE)?;
        let (opcode, is_final, deflated) = (header.opcode, header.is_final, header.rsv1);
        Ok(Frame { opcode, is_final, deflated, mask, length, taken: 0 })
    }

    fn control<'b>(
        &mut self,
        rules: Rules,
        control: Control,
        frame: Frame,
        bytes: &'b [u8],
        done: bool,
    ) -> Result<Option<Event<'b>>, Violation> {
        let payload = if done && frame.taken == 0 {
            Cow::Borrowed(bytes)
        } else {
            let kept = &mut self.partial().control;
            kept.extend_from_slice(bytes);
            if !done {
                return Ok(None);
            }
            Cow::Owned(mem::take(kept))
        };
        Ok(Some(match control {
            Control::Ping => Event::Ping(payload),
            Control::Close => close(rules, &payload)?,
            // Reserved opcodes did not get past the header.
            Control::Pong | Control::Reserved(_) => Event::Pong,
        }))
    }

    fn data<'b>(
        &mut self,
        rules: Rules,
        data: Data,
        frame: Frame,
        bytes: &'b [u8],
        done: bool,
    ) -> Result<Option<Event<'b>>, Violation> {
        if bytes.is_empty() && !done {
            // Only the header came: what the next piece brings may be the whole payload in one place.
            return Ok(None);
        }
        let kind = if data == Data::Text { Kind::Text } else { Kind::Binary };
        let whole = frame.is_final && done && frame.taken == 0 && data != Data::Continue;
        if whole {
            if rules.strict && kind == Kind::Text && !frame.deflated && str::from_utf8(bytes).is_err() {
                return Err(Violation::NOT_UTF8);
            }
            return Ok(Some(Event::Message { kind, deflated: frame.deflated, payload: Cow::Borrowed(bytes) }));
        }

        let fresh = || Message { kind, deflated: frame.deflated, payload: Vec::new(), text: 0 };
        let message = self.partial().message.get_or_insert_with(fresh);
        message.extend(bytes, frame.length - frame.taken);
        let ends = done && frame.is_final;
        if rules.strict {
            message.check_text(ends)?;
        }
        if !ends {
            return Ok(None);
        }
        let message = self.partial().message.take();
        Ok(message.map(|message| Event::Message {
            kind: message.kind,
            deflated: message.deflated,
            payload: Cow::Owned(message.payload),
        }))
    }
}

impl Partial {
    fn is_empty(&self) -> bool {
        self.header.is_empty() && self.frame.is_none() && self.message.is_none() && self.control.is_empty()
    }
}

impl Message {
    /// Appends bytes, of which `announced` or more are to come in this frame, these included.
    fn extend(&mut self, bytes: &[u8], announced: usize) {
        let needed = self.payload.len() + bytes.len();
        if needed > self.payload.capacity() {
            // Doubling, but never beyond what the frame announces: the last step is exact.
            let end = self.payload.len() + announced;
            let capacity = needed.max(2 * self.payload.capacity()).min(end);
            self.payload.reserve_exact(capacity - self.payload.len());
        }
        self.payload.extend_from_slice(bytes);
    }

    /// Fails as soon as no continuation could make the text valid, and on an unfinished character at its end.
    fn check_text(&mut self, ends: bool) -> Result<(), Violation> {
        if self.kind == Kind::Binary || self.deflated {
            return Ok(());
        }
        match str::from_utf8(&self.payload[self.text..]) {
            Ok(_) => self.text = self.payload.len(),
            Err(error) if error.error_len().is_none() && !ends => self.text += error.valid_up_to(),
            Err(_) => return Err(Violation::NOT_UTF8),
        }
        Ok(())
    }
}

/// Header, length of the payload and end of the header, if it is whole.
fn parse(bytes: &[u8]) -> Result<Option<(FrameHeader, u64, usize)>, Violation> {
    let mut cursor = Cursor::new(bytes);
    // Nothing but a reserved opcode can be wrong with a header in memory.
    let parsed = FrameHeader::parse(&mut cursor).map_err(|_| Violation::protocol("reserved opcode"))?;
    Ok(parsed.map(|(header, length)| (header, length, cursor.position() as usize)))
}

fn close<'b>(rules: Rules, payload: &[u8]) -> Result<Event<'b>, Violation> {
    let Some((code, reason)) = payload.split_at_checked(2) else {
        return if payload.is_empty() || !rules.strict {
            Ok(Event::Close { code: None, reason: String::new() })
        } else {
            Err(Violation::protocol("close code cut short"))
        };
    };
    let code = u16::from_be_bytes([code[0], code[1]]);
    if !CloseCode::from(code).is_allowed() {
        return Err(Violation::protocol("invalid close code"));
    }
    let reason = str::from_utf8(reason).map_err(|_| Violation::NOT_UTF8)?;
    Ok(Event::Close { code: Some(code), reason: reason.to_owned() })
}
