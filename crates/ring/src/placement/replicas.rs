//! Chooses which nodes hold which shard, in four steps. Each step only changes what the one before left undone:
//!
//! 1. *Fill*: a shard that has too few replicas takes the first nodes on its ring walk that are not full.
//! 2. *Even out* what was just placed, until no replica of step 1 could go to a node with at least two fewer. Moving
//!    these costs nothing, since no data has been copied for them yet.
//! 3. *Settle* nodes that are still outside the band by moving replicas in place, one by one, from a node with the
//!    most.
//! 4. *Thin out* zones that a shard still crowds (`thinning.rs`). The other steps also prefer choices that crowd less.
//!
//! Steps 2 and 3 end: each move goes to a node with at least two fewer and so lowers the sum of the squared loads.

use super::Preference;
use super::band::Band;
use super::thinning::thin_out;
use super::zones::Zones;
use std::cmp::Reverse;

/// Completes `kept`, the nodes on which each shard already is, to `replicas` nodes a shard. Those kept come first. Also
/// returns, for each node, whether it is new to the placement: it holds none of the kept replicas.
///
/// `replicas` is at most `nodes`, the number of nodes.
pub(super) fn place_replicas(
    preferences: &[Preference],
    zones: Zones,
    kept: Vec<Vec<usize>>,
    replicas: usize,
    nodes: usize,
) -> (Vec<Vec<usize>>, Vec<bool>) {
    let mut load = vec![0; nodes];
    if replicas == 0 {
        return (vec![Vec::new(); kept.len()], vec![true; nodes]);
    }
    for &node in kept.iter().flatten() {
        load[node] += 1;
    }
    let band = Band::new(replicas * preferences.len(), nodes);
    let mut draft = Draft { preferences, zones, shards: kept.clone(), kept, load, band, newcomer: Vec::new() };
    draft.trim(replicas);
    draft.newcomer = draft.load.iter().map(|&load| load == 0).collect();
    draft.fill(replicas);
    draft.even_out();
    draft.settle();
    // Together with the moves of the join or leave itself, this stays within the promise on moves.
    thin_out(&mut draft, replicas + band.lowest / 5);
    (draft.shards, draft.newcomer)
}

/// A placement in the making.
///
/// Invariants: a shard's nodes are distinct; `load[node]` is how many shards are on `node`.
pub(super) struct Draft<'a> {
    pub preferences: &'a [Preference],
    pub zones: Zones,
    /// The nodes of each shard.
    pub shards: Vec<Vec<usize>>,
    /// The nodes that already have each shard's data: placing it there costs nothing.
    pub kept: Vec<Vec<usize>>,
    pub load: Vec<usize>,
    pub band: Band,
    /// For each node, whether it held nothing before any replica was placed.
    pub newcomer: Vec<bool>,
}

impl Draft<'_> {
    /// Drops replicas above `replicas`: in crowded zones first, then on the nodes with the most, but never the
    /// preferred leader.
    fn trim(&mut self, replicas: usize) {
        for shard in 0..self.shards.len() {
            while self.shards[shard].len() > replicas {
                let position = (1..self.shards[shard].len())
                    .max_by_key(|&position| {
                        let (on, node) = (&self.shards[shard], self.shards[shard][position]);
                        (self.zones.is_crowded(on, node), self.load[node])
                    })
                    .expect("more than one replica");
                self.remove(shard, position);
            }
        }
    }

    fn fill(&mut self, replicas: usize) {
        for shard in 0..self.shards.len() {
            while self.shards[shard].len() < replicas {
                let on = &self.shards[shard];
                let mut absent = self.preferences[shard].order.iter().copied().filter(|node| !on.contains(node));
                let has_room = |&node: &usize| self.load[node] < self.band.full;
                let node = (absent.clone().find(|node| has_room(node) && !self.zones.is_full(on, *node)))
                    .or_else(|| absent.clone().find(has_room))
                    .or_else(|| absent.by_ref().min_by_key(|&node| self.load[node]))
                    .expect("there are at least as many nodes as replicas");
                self.add(shard, node);
            }
        }
    }

    fn even_out(&mut self) {
        while let Some((shard, position, to)) = self.free_move() {
            self.remove(shard, position);
            self.add(shard, to);
        }
    }

    /// A replica not yet in place, and a node with at least two fewer replicas to which it could go instead. Chooses
    /// the highest source load and the lowest target load for which there is one; of several, the one that crowds
    /// least, then the shard that prefers the target most.
    fn free_move(&self) -> Option<(usize, usize, usize)> {
        let mut arriving = vec![Vec::new(); self.load.len()];
        for (shard, on) in self.shards.iter().enumerate() {
            for (position, &node) in on.iter().enumerate().filter(|(_, node)| !self.kept[shard].contains(node)) {
                arriving[node].push((shard, position));
            }
        }
        let mut by_load: Vec<usize> = (0..self.load.len()).collect();
        by_load.sort_by_key(|&node| self.load[node]);
        for &from in by_load.iter().rev() {
            for &to in by_load.iter().take_while(|&&to| self.load[to] + 2 <= self.load[from]) {
                let fitting = arriving[from].iter().filter(|&&(shard, _)| !self.shards[shard].contains(&to));
                let key =
                    |shard: usize| (self.zones.change(&self.shards[shard], from, to), self.preferences[shard].rank[to]);
                if let Some(&(shard, position)) = fitting.min_by_key(|&&(shard, _)| key(shard)) {
                    return Some((shard, position, to));
                }
            }
        }
        None
    }

    fn settle(&mut self) {
        while let Some((to, count)) = self.wanting() {
            self.bring(to, count);
        }
        let (most, band) = (self.load.iter().max(), self.band);
        assert!(most <= Some(&band.highest), "a node has {most:?} replicas, which is out of {band:?}");
    }

    /// The node that should get replicas, and how many: of the nodes that lack some, the one with the fewest. If none
    /// lacks any but another node has too many, the node with the fewest gets one.
    fn wanting(&self) -> Option<(usize, usize)> {
        let nodes = 0..self.load.len();
        let least = |node: usize| self.band.least(self.newcomer[node]);
        let lacking = nodes.clone().filter(|&node| self.load[node] < least(node));
        if let Some(node) = lacking.min_by_key(|&node| self.load[node]) {
            return Some((node, least(node) - self.load[node]));
        }
        if self.load.iter().all(|&load| load <= self.band.highest) {
            return None;
        }
        nodes.min_by_key(|&node| self.load[node]).map(|node| (node, 1))
    }

    /// Moves `count` replicas to `to`, each from a node that has the most at that time. Of its replicas, it prefers the
    /// one that crowds least at `to`, then one that does not lead, then the one whose shard prefers `to` most.
    fn bring(&mut self, to: usize, count: usize) {
        let mut offers = vec![Vec::new(); self.load.len()];
        for (shard, on) in self.shards.iter().enumerate().filter(|(_, on)| !on.contains(&to)) {
            for (position, &node) in on.iter().enumerate() {
                let rank = self.preferences[shard].rank[to];
                offers[node].push(Reverse((self.zones.change(on, node, to), position == 0, rank, shard)));
            }
        }
        for offered in &mut offers {
            offered.sort_unstable();
        }
        for _ in 0..count {
            let most = self.load.iter().copied().max().expect("there are nodes");
            assert!(most >= self.load[to] + 2, "a move from {most} to {} replicas would not even out", self.load[to]);
            let fullest = (0..self.load.len()).filter(|&node| self.load[node] == most);
            let mut best = None;
            for from in fullest {
                // Another replica of the same shard may have gone to `to` since the offers were made.
                while offers[from].pop_if(|Reverse((.., shard))| self.shards[*shard].contains(&to)).is_some() {}
                best = best.max(offers[from].last().map(|&offer| (offer, from)));
            }
            let (Reverse((.., shard)), from) =
                best.expect("a node with more shards than another has one that the other has not");
            let position = self.shards[shard].iter().position(|&node| node == from).expect("offered where it is");
            self.remove(shard, position);
            self.add(shard, to);
        }
    }

    pub(super) fn add(&mut self, shard: usize, node: usize) {
        self.shards[shard].push(node);
        self.load[node] += 1;
    }

    pub(super) fn remove(&mut self, shard: usize, position: usize) {
        let node = self.shards[shard].remove(position);
        self.load[node] -= 1;
    }
}
