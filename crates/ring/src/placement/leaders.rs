//! Chooses which of a shard's nodes should lead it. No data moves; a handover costs a moment without a leader.
//!
//! Picture the nodes as a graph with an edge from X to Y for each shard that X leads and Y holds. Handing over every
//! shard along a path takes one leadership from the path's start and gives one to its end; the nodes in between keep
//! their number. Handing over a shard whose leader is already a different one than before costs nothing: it changes its
//! leader anyway. So:
//!
//! 1. *Even out* along paths that cost nothing, until none leads to a node with at least two fewer.
//! 2. *Settle*: while a node leads too many, along the path with the fewest handovers that cost something; while a node
//!    leads too few, along any path with at most one, since that only improves a state that is already allowed.
//!
//! A node that leads too many can always be relieved. Suppose that X leads more than h = ceil(1.1 x S/n), and let A be
//! the nodes reachable from X. All shards led from A are then held in A only. If every other node of A led h or more,
//! these would be more than h x |A|. But with at most c replicas on a node and R of each shard, no more than c x |A| /
//! R shards fit into A, and c <= ceil(1.1 x R x S/n) <= R x h. So some node of A leads fewer than h, at least two fewer
//! than X.
//!
//! Each round makes the leaderships more even, so this ends. A round is one search over S x R edges.

use super::band::Band;
use std::collections::VecDeque;

/// Reorders the nodes of each shard so that the number of shards that each node leads is in the band.
///
/// `led_before` has the previous leader of each shard, if it still exists. `shards` has at least one node for each
/// shard.
pub(super) fn balance_leaders(shards: &mut [Vec<usize>], led_before: &[Option<usize>], newcomer: &[bool]) {
    let mut led = vec![Vec::new(); newcomer.len()];
    for (shard, on) in shards.iter().enumerate() {
        led[on[0]].push(shard);
    }
    let band = Band::new(shards.len(), newcomer.len());
    let mut leaders = Leaders { shards, led_before, led };
    while leaders.even_out_once(Some(0)) {}
    while leaders.settle_once(&band, newcomer) {}
    let most = leaders.led.iter().map(Vec::len).max();
    assert!(most <= Some(band.highest), "a node leads {most:?} shards, which is out of {band:?}");
}

/// As [`balance_leaders`], but complete: afterwards no path, whatever its cost, leads to a node with at least two
/// fewer.
pub(super) fn even_leaders(shards: &mut [Vec<usize>], nodes: usize) {
    let mut led = vec![Vec::new(); nodes];
    for (shard, on) in shards.iter().enumerate() {
        led[on[0]].push(shard);
    }
    let led_before: Vec<Option<usize>> = shards.iter().map(|on| Some(on[0])).collect();
    let mut leaders = Leaders { shards, led_before: &led_before, led };
    while leaders.even_out_once(None) {}
}

/// Invariant: `led[node]` has exactly the shards whose first node is `node`.
struct Leaders<'a> {
    shards: &'a mut [Vec<usize>],
    led_before: &'a [Option<usize>],
    led: Vec<Vec<usize>>,
}

/// The cheapest paths from a set of sources to every node.
struct Paths {
    /// Handovers that cost something; `None` for a node that cannot be reached.
    cost: Vec<Option<usize>>,
    /// The shard that is handed over to a node last on the path to it; `None` for the sources.
    last: Vec<Option<usize>>,
}

impl Leaders<'_> {
    /// One round along a path of at most `limit` handovers that cost something.
    fn even_out_once(&mut self, limit: Option<usize>) -> bool {
        for from in self.by_leaderships().into_iter().rev() {
            let paths = self.paths(&[from], limit);
            if let Some(to) = self.cheapest_end(&paths, from) {
                self.hand_over(&paths, to);
                return true;
            }
        }
        false
    }

    fn settle_once(&mut self, band: &Band, newcomer: &[bool]) -> bool {
        let by_leaderships = self.by_leaderships();
        for &to in by_leaderships.iter().filter(|&&to| self.count(to) < band.least(newcomer[to])) {
            let sources: Vec<usize> =
                by_leaderships.iter().rev().copied().filter(|&from| self.count(from) >= self.count(to) + 2).collect();
            let paths = self.paths(&sources, Some(1));
            if paths.cost[to].is_some() {
                self.hand_over(&paths, to);
                return true;
            }
        }
        let from = *by_leaderships.last().expect("there are nodes");
        if self.count(from) <= band.highest {
            return false;
        }
        let paths = self.paths(&[from], None);
        let to = self.cheapest_end(&paths, from).expect("from a node over the band a path leads to one below it");
        self.hand_over(&paths, to);
        true
    }

    fn count(&self, node: usize) -> usize {
        self.led[node].len()
    }

    /// All nodes, those that lead the fewest first.
    fn by_leaderships(&self) -> Vec<usize> {
        let mut nodes: Vec<usize> = (0..self.led.len()).collect();
        nodes.sort_by_key(|&node| self.count(node));
        nodes
    }

    /// The node at the end of the cheapest path on which leading becomes more even.
    fn cheapest_end(&self, paths: &Paths, from: usize) -> Option<usize> {
        (0..self.led.len())
            .filter(|&to| paths.cost[to].is_some() && self.count(to) + 2 <= self.count(from))
            .min_by_key(|&to| (paths.cost[to], self.count(to)))
    }

    /// A breadth-first search with edges of cost 0, which go to the front of the queue, and 1, which go to the back.
    /// Among equals, paths from sources listed first win. Paths over `limit`, if there is one, are left out.
    fn paths(&self, sources: &[usize], limit: Option<usize>) -> Paths {
        let mut paths = Paths { cost: vec![None; self.led.len()], last: vec![None; self.led.len()] };
        let mut queue: VecDeque<(usize, usize)> = sources.iter().map(|&source| (0, source)).collect();
        for &source in sources {
            paths.cost[source] = Some(0);
        }
        while let Some((cost_so_far, from)) = queue.pop_front() {
            if paths.cost[from] != Some(cost_so_far) {
                continue; // a cheaper path was found since
            }
            for &shard in &self.led[from] {
                let costs_a_handover = self.led_before[shard] == Some(from);
                let cost = cost_so_far + usize::from(costs_a_handover);
                if limit.is_some_and(|limit| cost > limit) {
                    continue;
                }
                for &to in &self.shards[shard][1..] {
                    if paths.cost[to].is_none_or(|known| cost < known) {
                        paths.cost[to] = Some(cost);
                        paths.last[to] = Some(shard);
                        if costs_a_handover { queue.push_back((cost, to)) } else { queue.push_front((cost, to)) }
                    }
                }
            }
        }
        paths
    }

    /// Hands over every shard on the path that ends at `to`, from its end to its start.
    fn hand_over(&mut self, paths: &Paths, to: usize) {
        let mut to = to;
        while let Some(shard) = paths.last[to] {
            let on = &mut self.shards[shard];
            let from = on[0];
            let position = on.iter().position(|&node| node == to).expect("a shard is handed to a node that holds it");
            on[..=position].rotate_right(1);
            self.led[from].retain(|&led| led != shard);
            self.led[to].push(shard);
            to = from;
        }
    }
}
