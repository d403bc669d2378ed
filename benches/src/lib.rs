//! Benches of the hot paths, by `cargo bench -p starling-benches`; one of them by `cargo bench -p starling-benches --bench
//! delivery`.
//!
//! | bench | what one iteration is |
//! |---|---|
//! | `wire` | a command decoded; a publication encoded to the frame that all subscribers share |
//! | `channels` | a publication on its way to the inboxes of the workers |
//! | `delivery` | publications from the channel table to all subscribers, until the last has them |
//! | `checks` | a token, a permission |
//!
//! They compare one version of this code with another on one machine. What a delivery costs with a kernel in it, and beside a
//! server that only calls write(2), is measured by `loadtest`.
