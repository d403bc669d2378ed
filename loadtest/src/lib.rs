//! A load tester for real-time messaging servers that can be believed.
//!
//! Three things make the difference. **Latency is counted from the moment a message was due**, not from when it was sent:
//! a server that stalls cannot hide behind a generator that waits for it. **The audit is exact**: every delivery to every
//! subscriber is compared with what was published, so one lost message in a million is found and named. **The generator
//! measures itself**: its own lateness and processor time are in every report, and a run in which it was the bottleneck
//! says so with an exit code of its own.
//!
//! # Rooms
//!
//! | module | what |
//! |---|---|
//! | [`cli`], [`command`] | the command line, and one file per command |
//! | [`scenario`], [`phase`] | what a run is to do, from a file, a preset or flags |
//! | [`schedule`] | what is due when, and who sends it |
//! | [`payload`] | what a message looks like and how a received one is checked |
//! | [`audit`] | lost, duplicated, reordered, altered, per subscriber, channel and stream |
//! | [`publish`] | the publishing thread and its sockets |
//! | [`fleet`], [`connect`], [`receive`] | subscribers: their description, their opening, the threads that hold them |
//! | [`target`] | protocols without sockets: client protocol, HTTP API, gRPC API |
//! | [`websocket`] | client side of WebSocket without a socket |
//! | [`mod@reference`], [`faulty`] | servers: the floor to compare with, and one that makes mistakes on request |
//! | [`process`], [`server_process`], [`latency`], [`clock`] | measuring |
//! | [`timeline`], [`view`] | a run second by second |
//! | [`metrics`], [`threshold`], [`baseline`] | the figures of a run and what is demanded of them |
//! | [`report`], [`html`], [`junit`], [`interrupt`] | what people and scripts get, also after Ctrl-C |
//!
//! # The way of one message
//!
//! [`schedule::Schedule`] says when message `k` is due and in which stream of which channel. The thread of
//! [`publish::OpenLoop`] turns to it then, stamps it with its due time ([`payload::PayloadFormat::write`]) and gives it to
//! the [`target::lane::Wire`] of its connection. Whatever the server answers ends in an [`audit::StreamLedger`]. What the
//! server delivers is read by a thread of [`receive::Pool`]: [`websocket::FrameReader`] cuts frames,
//! [`target::centrifuge::read_frame`] finds the publication, [`payload::PayloadFormat::check`] proves it unaltered,
//! [`audit::StreamAudit`] says whether it is the next one. At the end ledgers and audits are compared.

pub mod audit;
pub mod baseline;
pub mod cli;
pub mod clock;
pub mod command;
pub mod connect;
pub mod faulty;
pub mod fleet;
pub mod html;
pub mod interrupt;
pub mod junit;
pub mod latency;
pub mod metrics;
pub mod payload;
pub mod phase;
pub mod process;
pub mod publish;
pub mod receive;
pub mod reference;
pub mod report;
pub mod scenario;
pub mod schedule;
pub mod server_process;
pub mod target;
pub mod threshold;
pub mod timeline;
pub mod view;
pub mod websocket;
