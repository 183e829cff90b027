//! Linearizable reads without a lease: the ReadIndex protocol (Raft thesis, 6.4).
//!
//! The leader records its commit index, proves by a round of heartbeats that it still leads, waits until it has applied
//! that index, and answers from its map. All reads of one turn share one round.
//!
//! raft-rs identifies a round by a context of bytes, and an answer to an old context must never release a new read
//! (etcd#20418). So contexts are made here, from (boot nonce, term, sequence), and never used twice. A round that gets
//! no answer is repeated under a new context: raft-rs drops requests silently before the term's first commit, and
//! messages get lost.

use crate::time::Ticks;
use std::collections::VecDeque;

/// Ticks after which a round is repeated.
pub const RETRY_TICKS: Ticks = Ticks(4);

/// Reads of one shard that may wait; more are refused with `Overloaded`.
pub const MAX_WAITING_READS: usize = 65_536;

/// Reads in progress through ReadIndex. `R` is a read's query and responder.
pub struct Reads<R> {
    nonce: u64,
    sequence: u64,
    unasked: Vec<R>,
    asked: VecDeque<Round<R>>,
    confirmed: VecDeque<(u64, Vec<R>)>,
    count: usize,
}

struct Round<R> {
    context: Vec<u8>,
    asked_at_tick: Ticks,
    reads: Vec<R>,
}

impl<R> Reads<R> {
    /// `nonce` differs from boot to boot.
    pub fn new(nonce: u64) -> Reads<R> {
        Reads { nonce, sequence: 0, unasked: Vec::new(), asked: VecDeque::new(), confirmed: VecDeque::new(), count: 0 }
    }

    /// Adds a read, or returns it if too many wait.
    pub fn push(&mut self, read: R) -> Result<(), R> {
        if self.count == MAX_WAITING_READS {
            return Err(read);
        }
        self.count += 1;
        self.unasked.push(read);
        Ok(())
    }

    pub fn has_unasked(&self) -> bool {
        !self.unasked.is_empty()
    }

    /// Starts a round for all reads that have none, and returns the context to pass to Raft.
    pub fn ask(&mut self, term: u64, tick: Ticks) -> Vec<u8> {
        self.sequence += 1;
        let context: Vec<u8> = [self.nonce, term, self.sequence].iter().flat_map(|part| part.to_le_bytes()).collect();
        let reads = std::mem::take(&mut self.unasked);
        self.asked.push_back(Round { context: context.clone(), asked_at_tick: tick, reads });
        context
    }

    /// A planted bug: the next round gets a context that was used before.
    pub fn repeat_contexts(&mut self) {
        self.sequence = 0;
    }

    /// Returns the reads of rounds that have gone unanswered for [`RETRY_TICKS`] to those without a round.
    pub fn retry(&mut self, tick: Ticks) {
        while self.asked.front().is_some_and(|round| tick >= round.asked_at_tick + RETRY_TICKS) {
            let Some(round) = self.asked.pop_front() else { break };
            self.unasked.extend(round.reads);
        }
    }

    /// A quorum has answered the round with this context, which started when `index` was committed. Unknown contexts
    /// belong to abandoned rounds.
    pub fn confirm(&mut self, context: &[u8], index: u64) {
        if let Some(position) = self.asked.iter().position(|round| round.context == context)
            && let Some(round) = self.asked.remove(position)
        {
            self.confirmed.push_back((index, round.reads));
        }
    }

    /// The reads that may be answered from a map in which `applied` is applied.
    pub fn ready(&mut self, applied: u64) -> Vec<R> {
        let mut ready = Vec::new();
        while self.confirmed.front().is_some_and(|(index, _)| *index <= applied) {
            let Some((_, reads)) = self.confirmed.pop_front() else { break };
            ready.extend(reads);
        }
        self.count -= ready.len();
        ready
    }

    /// All reads, when this replica no longer leads.
    pub fn drain(&mut self) -> Vec<R> {
        self.count = 0;
        let asked = self.asked.drain(..).flat_map(|round| round.reads);
        let confirmed = self.confirmed.drain(..).flat_map(|(_, reads)| reads);
        self.unasked.drain(..).chain(asked).chain(confirmed).collect()
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_never_the_same() {
        let mut seen = std::collections::BTreeSet::new();
        for nonce in [1, 2] {
            let mut reads = Reads::new(nonce);
            for term in [3, 3, 4] {
                reads.push(()).unwrap();
                assert!(seen.insert(reads.ask(term, Ticks(0))));
            }
        }
    }

    #[test]
    fn reads_wait_for_their_index() {
        let mut reads = Reads::new(1);
        reads.push("a").unwrap();
        let first = reads.ask(1, Ticks(0));
        reads.push("b").unwrap();
        let second = reads.ask(1, Ticks(0));
        reads.confirm(&first, 5);
        reads.confirm(&second, 7);
        assert!(reads.ready(4).is_empty());
        assert_eq!(reads.ready(5), ["a"]);
        assert_eq!(reads.ready(9), ["b"]);
        assert!(reads.is_empty());
    }

    #[test]
    fn an_answer_to_a_given_up_round_releases_nothing() {
        let mut reads = Reads::new(1);
        reads.push("a").unwrap();
        let old = reads.ask(1, Ticks(0));
        reads.retry(RETRY_TICKS);
        assert!(reads.has_unasked());
        let new = reads.ask(1, RETRY_TICKS);
        reads.confirm(&old, 3);
        assert!(reads.ready(100).is_empty());
        reads.confirm(&new, 8);
        assert_eq!(reads.ready(8), ["a"]);
    }

    #[test]
    fn there_is_a_bound_and_the_read_comes_back() {
        let mut reads = Reads::new(1);
        for _ in 0..MAX_WAITING_READS {
            reads.push(0).unwrap();
        }
        assert_eq!(reads.push(1), Err(1));
        assert_eq!(reads.drain().len(), MAX_WAITING_READS);
        assert_eq!(reads.push(1), Ok(()));
    }
}
