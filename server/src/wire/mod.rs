//! Bytes to commands, replies and pushes to bytes, and WebSocket frames.
