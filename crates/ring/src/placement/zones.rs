//! How a shard's replicas are spread over zones.
//!
//! A zone is *crowded* by a shard that has more replicas in it than ceil(R / zones), which is one where there are at least
//! as many zones as replicas. Balance goes first: a node takes no more than the band allows, so where zones are of very
//! different sizes some shards stay crowded. With all nodes in one zone nothing ever is, and nothing here has an effect.
//!
//! Every step of the placement prefers what crowds less. What is still crowded then is *thinned out*: a replica goes to
//! an uncrowded zone, or changes places with one of another shard. Of replicas that move anyway this costs nothing; of
//! those in place it takes a bounded number a time, and the rest follows when `place` is called again.

use super::replicas::Draft;

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

    /// Whether a shard that is on `on`, `node` among them, crowds the zone of `node`.
    pub fn is_crowded(&self, on: &[usize], node: usize) -> bool {
        self.count(on, self.of[node]) > self.most
    }

    /// What becomes of crowding when a shard that is on `on` moves from `from` to `to`: -1 better, 0 as before, 1 worse.
    pub fn change(&self, on: &[usize], from: usize, to: usize) -> i32 {
        if self.of[from] == self.of[to] {
            return 0;
        }
        i32::from(self.is_full(on, to)) - i32::from(self.is_crowded(on, from))
    }
}

/// A replica of `shard` goes from `from` to `to`; in exchange, where it is given, one of another shard the other way.
#[derive(Clone, Copy)]
struct Move {
    shard: usize,
    from: usize,
    to: usize,
    exchange: Option<usize>,
}

impl Draft<'_> {
    /// Thins out crowded zones. Replicas in place are moved up to `budget`; every move leaves one crowded less.
    pub(super) fn thin_out(&mut self, newcomer: &[bool], mut budget: usize) {
        for shard in 0..self.shards.len() {
            while let Some((cost, found)) = self.thinning(shard, newcomer)
                && cost <= budget
            {
                budget -= cost;
                self.relocate(found.shard, found.from, found.to);
                if let Some(other) = found.exchange {
                    self.relocate(other, found.to, found.from);
                }
            }
        }
    }

    /// The cheapest move that crowds `shard` less and leaves all nodes in the band, with how many replicas in place it
    /// moves.
    fn thinning(&self, shard: usize, newcomer: &[bool]) -> Option<(usize, Move)> {
        let on = &self.shards[shard];
        let mut best: Option<((usize, bool, usize), Move)> = None;
        for (position, &from) in on.iter().enumerate().filter(|&(_, &node)| self.zones.is_crowded(on, node)) {
            // A node that gave its last one away would count as new the next time, and be given another.
            let least = self.band.least(newcomer[from]).max(self.band.share.min(1));
            let can_give = self.load[from] > least;
            for &to in self.preferences[shard].order.iter().filter(|&&to| !on.contains(&to)) {
                if self.zones.change(on, from, to) >= 0 {
                    continue;
                }
                let mut consider = |cost: usize, exchange: Option<usize>| {
                    let key = (cost, position == 0, self.preferences[shard].rank[to]);
                    if best.as_ref().is_none_or(|(known, _)| key < *known) {
                        best = Some((key, Move { shard, from, to, exchange }));
                    }
                };
                let cost = self.cost(shard, from);
                if can_give && self.load[to] < self.band.highest {
                    consider(cost, None);
                } else {
                    let exchanged = (0..self.shards.len()).filter(|&other| self.can_exchange(other, to, from));
                    if let Some(other) = exchanged.min_by_key(|&other| (self.cost(other, to), other)) {
                        consider(cost + self.cost(other, to), Some(other));
                    }
                }
            }
        }
        best.map(|((cost, _, _), found)| (cost, found))
    }

    /// Whether another shard's replica may go from `from` to `to` without crowding more.
    fn can_exchange(&self, shard: usize, from: usize, to: usize) -> bool {
        let on = &self.shards[shard];
        on.contains(&from) && !on.contains(&to) && self.zones.change(on, from, to) <= 0
    }

    /// What it costs to take a shard's replica from a node: one where its data is in place.
    fn cost(&self, shard: usize, node: usize) -> usize {
        usize::from(self.kept[shard].contains(&node))
    }

    fn relocate(&mut self, shard: usize, from: usize, to: usize) {
        let position = self.shards[shard].iter().position(|&node| node == from).expect("moved from where it is");
        self.remove(shard, position);
        self.add(shard, to);
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
