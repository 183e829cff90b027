//! The keys and values of a shard.

pub mod state;
