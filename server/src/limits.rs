//! The bounds that no option sets, each with its reason. Bounds with an option are in [`crate::settings`].

use std::time::Duration;

/// Messages in a worker's inbox before publishers are told "overloaded". Our judgement: about half a second of work.
pub const INBOX_MESSAGES: usize = 65_536;

/// Bytes of publications in a worker's inbox, likewise.
pub const INBOX_BYTES: usize = 64 * 1024 * 1024;

/// How long the server waits for the peer's Close frame after its own, and for the end of a connection whose `connect` was
/// refused. Client protocol: 5 seconds.
pub const CLOSE_LINGER: Duration = Duration::from_secs(5);

/// Scratch of a worker that all its connections read into.
pub const READ_SCRATCH: usize = 64 * 1024;

/// Reads of one connection before others get their turn.
pub const READS_PER_TURN: usize = 2;

/// Deliveries of one pass before reads, timers and other channels get their turn: about half a millisecond.
pub const DELIVERIES_PER_TURN: usize = 64;

/// Publications of one channel that a worker holds for subscribers that the pass has not reached yet. At the bound the
/// pass is finished before more are taken from the inbox, which then fills.
pub const RING: usize = 1_024;

/// Bytes of several frames joined into one write.
pub const JOINED_WRITE: usize = 64 * 1024;

/// How long a client may take to send its request line and headers.
pub const HEADER_READ: Duration = Duration::from_secs(10);

/// Connections closed at once while a worker drains, and the pause between such batches: a deploy is no reconnect storm.
pub const DRAIN_BATCH: usize = 256;

/// See [`DRAIN_BATCH`].
pub const DRAIN_PAUSE: Duration = Duration::from_millis(20);

/// Longest text of a channel in a command, whatever `channel.max_length` says; bounds what a session keeps.
pub const CHANNEL_BYTES: usize = 4 * 1024;

/// Longest time to live that a client is told, in seconds: a year. Client protocol.
pub const LONGEST_TTL_S: u32 = 365 * 24 * 3600;

/// Pause after a failed accept: the first, and the longest.
pub const ACCEPT_PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// How long a TLS handshake may take.
pub const TLS_HANDSHAKE: Duration = Duration::from_secs(10);

/// Read buffer of an HTTP connection before its request is known, in bytes; also the longest head of a request.
pub const HTTP_BUFFER: usize = 64 * 1024;

/// Requests under way on one HTTP/2 connection.
pub const HTTP2_STREAMS: u32 = 256;

/// Connections that the kernel holds until they are accepted. Reconnect storms need room.
pub const LISTEN_BACKLOG: i32 = 4096;
