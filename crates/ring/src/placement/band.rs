//! How many replicas, or preferred leaders, a node should have and may have.

/// The bounds for `total` things on `nodes` nodes, with mean = total / nodes.
///
/// Invariant: `lowest <= share <= full <= highest`, and `full - share <= 1`. Hence a node over `highest` has at least
/// two more than the node with the fewest, and a node under `share` has at least two fewer than the node with the most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Band {
    /// floor(0.9 x mean): a node with fewer gets some from other nodes.
    pub lowest: usize,
    /// floor(mean): how many a new node gets.
    pub share: usize,
    /// ceil(mean): nothing new is placed on a node that has this many.
    pub full: usize,
    /// ceil(1.1 x mean): a node with more gives some up.
    pub highest: usize,
}

impl Band {
    /// `nodes` is at least 1.
    pub fn new(total: usize, nodes: usize) -> Band {
        Band {
            lowest: 9 * total / (10 * nodes),
            share: total / nodes,
            full: total.div_ceil(nodes),
            highest: (11 * total).div_ceil(10 * nodes),
        }
    }

    /// With fewer than this a node lacks some.
    pub fn least(&self, newcomer: bool) -> usize {
        if newcomer { self.share } else { self.lowest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_nested_and_apart() {
        for nodes in 1..=100 {
            for total in 0..=1100 {
                let Band { lowest, share, full, highest } = Band::new(total, nodes);
                assert!(lowest <= share && share <= full && full <= highest && full - share <= 1);
                assert!(total == 0 || highest > share, "{total} on {nodes}: over the band is two above the mean");
            }
        }
    }

    #[test]
    fn rounding_is_down_below_and_up_above() {
        let band = Band::new(192, 5); // 38.4 on average
        assert_eq!((band.lowest, band.share, band.full, band.highest), (34, 38, 39, 43));
        let band = Band::new(200, 20); // 10 on average: 9 and 11 exactly
        assert_eq!((band.lowest, band.share, band.full, band.highest), (9, 10, 10, 11));
    }
}
