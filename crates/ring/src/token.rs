//! Positions on the ring, and the hash that computes them.
//!
//! The hash is the output function of SplitMix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators",
//! 2014): a bijection of 64 bits in which every input bit flips each output bit with probability close to one half.
//! That matters because its inputs are small consecutive numbers. It need not withstand an adversary: the cluster
//! assigns node and shard numbers, and no key is ever hashed with it.
//!
//! Changing a constant here would move the data of every cluster. The tests pin the values.

use crate::{NodeId, ShardId};

/// A position on the ring of 2^64 positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

impl Token {
    /// Where the walk for a shard's nodes begins. No two shards share a token; the system shard has one too.
    pub fn of_shard(shard: ShardId) -> Token {
        Token(mix(SHARD_SALT ^ u64::from(shard.0)))
    }

    /// The position of the virtual node number `index` of `node`.
    pub fn of_virtual_node(node: NodeId, index: u32) -> Token {
        Token(mix(mix(NODE_SALT ^ node.0) ^ u64::from(index)))
    }
}

// Both shards and nodes are numbered from small numbers up: without separate salts, shard i would be at the position of
// node i.
const SHARD_SALT: u64 = u64::from_be_bytes(*b"rf-shard");
const NODE_SALT: u64 = u64::from_be_bytes(*b"rf-nodes");

/// The output of SplitMix64 for the state `x`.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mix_is_splitmix64() {
        // The first outputs of the published generator for the seeds 0 and 1234567.
        assert_eq!(mix(0), 0xE220_A839_7B1D_CDAF);
        assert_eq!(mix(1_234_567), 6_457_827_717_110_365_317);
    }

    #[test]
    fn tokens_never_change() {
        assert_eq!(Token::of_shard(ShardId(0)), Token(0x4765_9BB9_EABD_D043));
        assert_eq!(Token::of_shard(ShardId(1)), Token(0xC0E3_939F_D40D_2550));
        assert_eq!(Token::of_shard(ShardId::SYSTEM), Token(0x2A8E_C90E_3540_43EB));
        assert_eq!(Token::of_virtual_node(NodeId(1), 0), Token(0x05AA_017D_ECB3_50C3));
        assert_eq!(Token::of_virtual_node(NodeId(1), 1), Token(0x0018_E7B2_FB65_9F23));
        assert_eq!(Token::of_virtual_node(NodeId(2), 63), Token(0xEB34_7D22_9CA6_9445));
    }
}
