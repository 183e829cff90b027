//! From a key to the nodes that hold it: slots, tokens, placement.
//!
//! | module | what it does |
//! |---|---|
//! | [`ids`] | the identifiers of nodes, zones and shards |
//! | [`slot`] | key -> slot, exactly as Redis Cluster clients compute it |
//! | [`shards`] | slot -> shard: equal runs of consecutive slots, fixed when the cluster is bootstrapped |
//! | [`token`], [`ring`] | the consistent-hash ring: the order in which a shard prefers the nodes |
//! | [`placement`] | shard -> nodes: balanced, and moving little when a node joins or leaves |
//!
//! Everything here is a pure function of its arguments, the same on every node, in every build and for all time: nodes
//! compute it independently and must agree. Hence no clock, no random source, no container with an arbitrary order, and
//! no hasher of the standard library, whose outputs may change between releases. Golden values pin the hashes.

pub mod ids;
pub mod placement;
pub mod ring;
pub mod shards;
pub mod slot;
pub mod token;

pub use ids::{NodeId, ShardId, Site, Zone};
pub use placement::{Placement, even_leaders, place, place_one};
pub use ring::Ring;
pub use shards::{InvalidShardCount, ShardCount};
pub use slot::{Slot, slot_of};
pub use token::Token;
