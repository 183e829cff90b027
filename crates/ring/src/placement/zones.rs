//! How a shard's replicas are spread over zones.
//!
//! A zone is *crowded* by a shard that has more replicas in it than ceil(R / zones), which is one where there are at
//! least as many zones as replicas. Balance has priority: a node takes no more than the band allows, so if zones have
//! very different sizes some shards stay crowded. With all nodes in one zone no shard is ever crowded, and this module
//! has no effect.
//!
//! Every step of the placement prefers nodes that crowd less. Shards that are still crowded afterwards are *thinned
//! out* (`thinning.rs`). For replicas that move anyway, this costs nothing. Of the replicas in place, a bounded number
//! moves; the others follow when `place` is called again.

/// Which zone each node is in, and how many replicas of a shard may be in one.
#[derive(Debug)]
pub(super) struct Zones {
    of: Vec<usize>,
    most: usize,
}

impl Zones {
    /// `of` has a number for each node, the same for nodes of one zone; `replicas` is how many a shard has.
    pub fn new(of: Vec<usize>, replicas: usize) -> Zones {
        let mut distinct = of.clone();
        distinct.sort_unstable();
        distinct.dedup();
        Zones { of, most: replicas.div_ceil(distinct.len().max(1)) }
    }

    fn count(&self, on: &[usize], zone: usize) -> usize {
        on.iter().filter(|&&node| self.of[node] == zone).count()
    }

    /// Whether one more replica of a shard that is on `on` would crowd the zone of `node`.
    pub fn is_full(&self, on: &[usize], node: usize) -> bool {
        self.count(on, self.of[node]) >= self.most
    }

    /// Whether a shard that is on `on`, which includes `node`, crowds the zone of `node`.
    pub fn is_crowded(&self, on: &[usize], node: usize) -> bool {
        self.count(on, self.of[node]) > self.most
    }

    /// How crowding changes when a shard that is on `on` moves from `from` to `to`: -1 better, 0 unchanged, 1 worse.
    pub fn change(&self, on: &[usize], from: usize, to: usize) -> i32 {
        if self.of[from] == self.of[to] {
            return 0;
        }
        i32::from(self.is_full(on, to)) - i32::from(self.is_crowded(on, from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_crowded_by_more_than_their_share() {
        let three = Zones::new(vec![7, 7, 8, 9], 3);
        assert!(three.is_crowded(&[0, 1, 2], 0) && !three.is_crowded(&[0, 1, 2], 2));
        assert!(three.is_full(&[0], 1) && !three.is_full(&[0], 2));
        assert_eq!([3, 2].map(|to| three.change(&[0, 1, 2], 1, to)), [-1, 0], "to the free zone, to another full one");
        assert_eq!(three.change(&[0, 2, 3], 3, 1), 1);
        let two = Zones::new(vec![0, 0, 1], 3);
        assert!(!two.is_crowded(&[0, 1, 2], 0), "two of three replicas have to be in one of two zones");
        let one = Zones::new(vec![0, 0, 0], 3);
        assert!(!one.is_full(&[0, 1], 2));
    }
}
