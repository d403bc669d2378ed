//! The broker over Redis.

pub mod hashing;
pub mod keys;
pub mod payload;
#[cfg(test)]
mod vectors;
