//! Thins out the zones that a shard crowds ([`Zones`](super::zones)), within the band and within a budget of moves.
//!
//! A replica moves to an uncrowded zone. If that would take a node out of the band, replicas of other shards move too:
//! one to the node that gives (*refill*), one away from the node that takes (*relief*), or one that does both by moving
//! the other way (*exchange*). None of these moves depends on the thinned shard, only on the two nodes: the thinned
//! shard is on the node that gives and not on the node that takes, so it is never a candidate for them.
//!
//! If zones have very different sizes, many shards stay crowded whatever is tried. So a failed search is remembered for
//! the rest of a pass over all shards. Another pass follows if some shards could not be thinned and others were. The
//! cost of one pass is about the number of nodes times the number of all replicas.

use super::replicas::Draft;

/// A replica of `shard` goes from the node `from` to the node `to`.
#[derive(Clone, Copy)]
struct Move {
    shard: usize,
    from: usize,
    to: usize,
}

/// Moves that are made together, and how many kept replicas they move.
struct Plan {
    cost: usize,
    moves: Vec<Move>,
}

/// The result of a search, if it was made.
#[derive(Clone, Copy, Default)]
enum Found {
    #[default]
    NotSearched,
    Nothing,
    Move(Move),
}

/// Thins out crowded zones. Moves at most `budget` kept replicas. Each plan reduces crowding, so this ends.
pub(super) fn thin_out(draft: &mut Draft, mut budget: usize) {
    loop {
        let (mut moved, mut failed) = (false, false);
        let mut thinner = Thinner::new(draft);
        for shard in 0..thinner.draft.shards.len() {
            while thinner.is_crowded(shard) {
                let Some(plan) = thinner.thinning(shard).filter(|plan| plan.cost <= budget) else {
                    failed = true;
                    break;
                };
                budget -= plan.cost;
                plan.moves.into_iter().for_each(|planned| thinner.relocate(planned));
                moved = true;
            }
        }
        if !(moved && failed) {
            return;
        }
    }
}

/// One pass over all shards.
struct Thinner<'a, 'b> {
    draft: &'a mut Draft<'b>,
    /// The shards of each node, with those that are most expensive to move first.
    shards_on: Vec<Vec<usize>>,
    /// By the node that gets the replica.
    refills: Vec<Found>,
    /// By the node that gives the replica away.
    reliefs: Vec<Found>,
    /// By `from * nodes + to`, where the crowding replica moves from the node `from` to the node `to`.
    exchanges: Vec<Found>,
}

impl<'a, 'b> Thinner<'a, 'b> {
    fn new(draft: &'a mut Draft<'b>) -> Thinner<'a, 'b> {
        let nodes = draft.load.len();
        let mut shards_on = vec![Vec::new(); nodes];
        for is_kept in [true, false] {
            for (shard, on) in draft.shards.iter().enumerate() {
                for &node in on.iter().filter(|node| draft.kept[shard].contains(node) == is_kept) {
                    shards_on[node].push(shard);
                }
            }
        }
        let nothing = |count| vec![Found::NotSearched; count];
        Thinner {
            draft,
            shards_on,
            refills: nothing(nodes),
            reliefs: nothing(nodes),
            exchanges: nothing(nodes * nodes),
        }
    }

    fn is_crowded(&self, shard: usize) -> bool {
        let on = &self.draft.shards[shard];
        on.iter().any(|&node| self.draft.zones.is_crowded(on, node))
    }

    /// The cheapest plan that reduces the crowding of `shard` and keeps all nodes in the band.
    fn thinning(&mut self, shard: usize) -> Option<Plan> {
        let on = self.draft.shards[shard].clone();
        let preference = &self.draft.preferences[shard];
        let mut best: Option<((usize, bool, usize), Plan)> = None;
        for (position, &from) in on.iter().enumerate() {
            for (rank, &to) in preference.order.iter().enumerate() {
                let zones = &self.draft.zones;
                if !zones.is_crowded(&on, from) || on.contains(&to) || zones.change(&on, from, to) >= 0 {
                    continue;
                }
                let thinned = Move { shard, from, to };
                for plan in self.plans(thinned) {
                    let key = (plan.cost, position == 0, rank);
                    if best.as_ref().is_none_or(|(known, _)| key < *known) {
                        best = Some((key, plan));
                    }
                }
            }
        }
        best.map(|(_, plan)| plan)
    }

    /// Plans for `thinned`: alone if both nodes stay in the band, otherwise with the moves that keep them there.
    fn plans(&mut self, thinned: Move) -> impl Iterator<Item = Plan> + use<> {
        let Move { from, to, .. } = thinned;
        let (can_give, has_room) = (self.can_give(from), self.has_room(to));
        let refill = if can_give { None } else { self.refill(from) };
        let relief = if has_room { None } else { self.relief(to) };
        let exchange = if can_give && has_room { None } else { self.exchange(from, to) };

        let is_balanced = (can_give || refill.is_some()) && (has_room || relief.is_some());
        let are_apart =
            !matches!((refill, relief), (Some(a), Some(b)) if a.shard == b.shard || a.from == to || b.to == from);
        let along = (is_balanced && are_apart).then(|| self.plan([Some(thinned), refill, relief]));
        let exchanged = exchange.map(|exchange| self.plan([Some(thinned), Some(exchange), None]));
        along.into_iter().chain(exchanged)
    }

    fn plan(&self, moves: [Option<Move>; 3]) -> Plan {
        let moves: Vec<Move> = moves.into_iter().flatten().collect();
        Plan { cost: moves.iter().filter(|planned| self.is_kept(planned.shard, planned.from)).count(), moves }
    }

    /// A move of a replica to `node` from a node that can give one.
    fn refill(&mut self, node: usize) -> Option<Move> {
        let is_possible = |this: &Self, refill: Move| this.can_give(refill.from) && this.crowds_no_more(refill);
        recall(
            self.refills[node],
            |found| is_possible(self, found),
            || {
                let givers = (0..self.shards_on.len()).filter(|&from| self.can_give(from));
                let cheapest = givers.filter_map(|from| {
                    let moves = self.shards_on[from].iter().rev().map(|&shard| Move { shard, from, to: node });
                    moves.into_iter().find(|&refill| self.crowds_no_more(refill))
                });
                cheapest.min_by_key(|refill| self.is_kept(refill.shard, refill.from))
            },
        )
        .store(&mut self.refills[node])
    }

    /// A move of a replica from `node` to a node that has room.
    fn relief(&mut self, node: usize) -> Option<Move> {
        let is_possible = |this: &Self, relief: Move| this.has_room(relief.to) && this.crowds_no_more(relief);
        recall(
            self.reliefs[node],
            |found| is_possible(self, found),
            || {
                let takers: Vec<usize> = (0..self.shards_on.len()).filter(|&to| self.has_room(to)).collect();
                let moves = self.shards_on[node].iter().rev();
                let mut moves = moves.flat_map(|&shard| takers.iter().map(move |&to| Move { shard, from: node, to }));
                moves.find(|&relief| self.crowds_no_more(relief))
            },
        )
        .store(&mut self.reliefs[node])
    }

    /// A move of a replica from `to` to `from`.
    fn exchange(&mut self, from: usize, to: usize) -> Option<Move> {
        let index = from * self.shards_on.len() + to;
        recall(
            self.exchanges[index],
            |found| self.crowds_no_more(found),
            || {
                let mut moves = self.shards_on[to].iter().rev().map(|&shard| Move { shard, from: to, to: from });
                moves.find(|&exchange| self.crowds_no_more(exchange))
            },
        )
        .store(&mut self.exchanges[index])
    }

    /// Whether `node` stays in the band with one replica less.
    fn can_give(&self, node: usize) -> bool {
        // A node that gave its last replica away would count as new in the next call, and would get another one.
        let band = self.draft.band;
        self.draft.load[node] > band.least(self.draft.newcomer[node]).max(band.share.min(1))
    }

    /// Whether `node` stays in the band with one replica more.
    fn has_room(&self, node: usize) -> bool {
        self.draft.load[node] < self.draft.band.highest
    }

    /// Whether `planned` is possible (its replica is on `from` and not on `to`) and does not increase crowding.
    fn crowds_no_more(&self, planned: Move) -> bool {
        let (on, Move { from, to, .. }) = (&self.draft.shards[planned.shard], planned);
        on.contains(&from) && !on.contains(&to) && self.draft.zones.change(on, from, to) <= 0
    }

    fn is_kept(&self, shard: usize, node: usize) -> bool {
        self.draft.kept[shard].contains(&node)
    }

    fn relocate(&mut self, Move { shard, from, to }: Move) {
        let position =
            |list: &[usize], item| list.iter().position(|&other| other == item).expect("moved from where it is");
        self.draft.remove(shard, position(&self.draft.shards[shard], from));
        self.draft.add(shard, to);
        let index = position(&self.shards_on[from], shard);
        self.shards_on[from].remove(index);
        self.shards_on[to].push(shard);
    }
}

/// Returns the earlier result if it still holds, and otherwise searches. A failed search is not repeated.
fn recall(known: Found, still_holds: impl Fn(Move) -> bool, search: impl FnOnce() -> Option<Move>) -> Found {
    match known {
        Found::Nothing => Found::Nothing,
        Found::Move(found) if still_holds(found) => known,
        _ => search().map_or(Found::Nothing, Found::Move),
    }
}

impl Found {
    fn store(self, place: &mut Found) -> Option<Move> {
        *place = self;
        match self {
            Found::Move(found) => Some(found),
            _ => None,
        }
    }
}
