//! A consistent-hash ring with virtual nodes.
//!
//! Karger et al. ("Consistent Hashing and Random Trees", 1997): nodes and shards are hashed to positions on one ring,
//! and a shard prefers the nodes in the order in which a clockwise walk from its own position meets them. A node that
//! joins or leaves does not change the order of the others. That is the purpose: preferences are stable without being
//! stored. Each node has [`VIRTUAL_NODES`] positions, so that its share of the ring is close to the average, and so
//! that the shards of a node that leaves are spread over all others instead of going to one neighbour.
//!
//! The ring alone balances only to about 1 / sqrt(virtual nodes), one eighth here, for the mean node, and far worse for
//! the unluckiest. More is not needed: [`place`](crate::place) takes only the preferences from here and does the
//! balancing itself.
//!
//! Building costs one sort of 64 x nodes positions; a walk that meets all n nodes takes about n ln n steps.

use crate::{NodeId, Token};

/// How many positions on the ring each node has.
pub const VIRTUAL_NODES: u32 = 64;

/// The ring of a set of nodes.
///
/// Invariant: `points` is sorted, and names every index of `nodes` exactly [`VIRTUAL_NODES`] times.
#[derive(Clone, Debug)]
pub struct Ring {
    nodes: Vec<NodeId>,
    points: Vec<(Token, usize)>,
}

impl Ring {
    /// The ring of `nodes`, which may be in any order and contain duplicates.
    pub fn new(nodes: &[NodeId]) -> Ring {
        let mut nodes = nodes.to_vec();
        nodes.sort_unstable();
        nodes.dedup();
        let mut points: Vec<(Token, usize)> = Vec::with_capacity(nodes.len() * VIRTUAL_NODES as usize);
        for (node, &id) in nodes.iter().enumerate() {
            points.extend((0..VIRTUAL_NODES).map(|index| (Token::of_virtual_node(id, index), node)));
        }
        points.sort_unstable();
        Ring { nodes, points }
    }

    /// The distinct nodes in ascending order.
    pub fn nodes(&self) -> &[NodeId] {
        &self.nodes
    }

    /// All nodes, each once, in the order in which a clockwise walk from `token` meets them. A node exactly at `token`
    /// is met first.
    pub fn candidates(&self, token: Token) -> impl Iterator<Item = NodeId> {
        self.candidate_indices(token).map(|node| self.nodes[node])
    }

    /// As [`candidates`](Self::candidates), as indices into [`nodes`](Self::nodes).
    pub(crate) fn candidate_indices(&self, token: Token) -> impl Iterator<Item = usize> {
        let start = self.points.partition_point(|&(point, _)| point < token);
        let mut met = vec![false; self.nodes.len()];
        let clockwise = self.points[start..].iter().chain(&self.points[..start]);
        clockwise
            .filter_map(move |&(_, node)| (!std::mem::replace(&mut met[node], true)).then_some(node))
            .take(self.nodes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ShardId;
    use proptest::prelude::*;

    fn ring(nodes: impl IntoIterator<Item = u64>) -> Ring {
        Ring::new(&nodes.into_iter().map(NodeId).collect::<Vec<_>>())
    }

    #[test]
    fn candidates_never_change() {
        let order: Vec<u64> = ring(1..=8).candidates(Token::of_shard(ShardId(0))).map(|node| node.0).collect();
        assert_eq!(order, [4, 5, 8, 6, 3, 2, 7, 1]);
    }

    #[test]
    fn walk_begins_at_the_token_and_wraps_around() {
        let ring = ring(1..=3);
        let first = ring.points[0];
        let last = *ring.points.last().unwrap();
        let at = |token| ring.candidate_indices(token).next().unwrap();
        assert_eq!(at(last.0), last.1, "a node at the token itself is met first");
        assert_eq!(at(Token(last.0.0 + 1)), first.1, "behind the last point the walk goes on at the first");
        assert_eq!(at(Token(0)), first.1);
    }

    #[test]
    fn no_nodes_means_no_candidates() {
        assert_eq!(ring([]).candidates(Token(0)).count(), 0);
    }

    proptest! {
        #[test]
        fn every_node_is_met_exactly_once(nodes in prop::collection::vec(0..200u64, 0..60), token: u64) {
            let ring = ring(nodes);
            let mut met: Vec<NodeId> = ring.candidates(Token(token)).collect();
            met.sort_unstable();
            prop_assert_eq!(met, ring.nodes());
        }

        #[test]
        fn a_node_that_joins_leaves_the_order_of_the_others(count in 0..40u64, joins in 100..200u64, token: u64) {
            let before: Vec<NodeId> = ring(0..count).candidates(Token(token)).collect();
            let after = ring((0..count).chain([joins]));
            let others: Vec<NodeId> = after.candidates(Token(token)).filter(|node| node.0 != joins).collect();
            prop_assert_eq!(before, others);
        }
    }
}
