//! Which reply belongs to which entry.
//!
//! A proposal is identified by the index and the term at which the leader appended it. When an entry of the same term
//! is applied at that index, it is the proposal, and its replies are the results. When an entry of another term is
//! applied there, the proposal was overwritten: it has not been applied and never will be, and it is safe to retry.
//! Until one of the two happens, the outcome is unknown, no matter which replica leads.

use std::collections::VecDeque;

/// Proposals in the order of their indexes, each with the responders of its commands.
pub struct Proposals<T> {
    waiting: VecDeque<Proposal<T>>,
}

struct Proposal<T> {
    index: u64,
    term: u64,
    responders: Vec<T>,
}

/// The proposals whose outcome an applied entry decides.
#[derive(Debug, PartialEq)]
pub struct Settled<T> {
    /// Responders of the commands in the applied entry, in their order; empty if it was not proposed here.
    pub applied: Vec<T>,
    /// Responders of proposals that have been overwritten.
    pub not_applied: Vec<T>,
}

impl<T> Default for Proposals<T> {
    fn default() -> Self {
        Proposals { waiting: VecDeque::new() }
    }
}

impl<T> Proposals<T> {
    /// The leader of `term` has appended an entry with these responders at `index`.
    pub fn insert(&mut self, index: u64, term: u64, responders: Vec<T>) {
        if let Some(last) = self.waiting.back() {
            assert!((last.term, last.index) < (term, index), "proposals are appended in order within a term");
        }
        self.waiting.push_back(Proposal { index, term, responders });
    }

    /// The entry of `term` has been applied at `index`.
    pub fn settle(&mut self, index: u64, term: u64) -> Settled<T> {
        let mut settled = Settled { applied: Vec::new(), not_applied: Vec::new() };
        // A later term may have proposed at lower indexes, so the queue as a whole is not sorted by index.
        while let Some(first) = self.waiting.front() {
            if first.index > index && first.term >= term {
                break;
            }
            let Some(proposal) = self.waiting.pop_front() else { break };
            if (proposal.index, proposal.term) == (index, term) {
                settled.applied = proposal.responders;
                break;
            }
            // Either another entry is at its index, or an entry of a later term has been applied at a lower index:
            // terms never decrease along the log, so the proposal can't follow it.
            settled.not_applied.extend(proposal.responders);
        }
        settled
    }

    /// All responders, when a snapshot has skipped their entries: it is unknown whether these were applied.
    pub fn drain(&mut self) -> Vec<T> {
        self.waiting.drain(..).flat_map(|proposal| proposal.responders).collect()
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proposals(list: &[(u64, u64)]) -> Proposals<(u64, u64)> {
        let mut proposals = Proposals::default();
        for &(index, term) in list {
            proposals.insert(index, term, vec![(index, term)]);
        }
        proposals
    }

    #[test]
    fn an_entry_of_the_same_term_is_the_proposal() {
        let mut waiting = proposals(&[(5, 2), (6, 2)]);
        assert_eq!(waiting.settle(4, 2), Settled { applied: vec![], not_applied: vec![] });
        assert_eq!(waiting.settle(5, 2).applied, [(5, 2)]);
        assert_eq!(waiting.settle(6, 2).applied, [(6, 2)]);
        assert!(waiting.is_empty());
    }

    #[test]
    fn an_entry_of_another_term_means_not_applied() {
        let mut waiting = proposals(&[(5, 2), (6, 2), (7, 2)]);
        assert_eq!(waiting.settle(5, 2).applied, [(5, 2)]);
        let settled = waiting.settle(6, 3);
        assert_eq!((settled.applied, settled.not_applied), (vec![], vec![(6, 2), (7, 2)]));
    }

    #[test]
    fn a_leader_again_tells_its_terms_apart() {
        // Leader in term 2 with entries to 9, deposed, leader again in term 4 with only 6 of them kept.
        let mut waiting = proposals(&[(6, 2), (7, 2), (8, 2), (9, 2), (8, 4), (9, 4)]);
        assert_eq!(waiting.settle(6, 2).applied, [(6, 2)]);
        // The no-op of term 4 is at 7.
        assert_eq!(waiting.settle(7, 4).not_applied, [(7, 2), (8, 2), (9, 2)]);
        assert_eq!(waiting.settle(8, 4).applied, [(8, 4)]);
        assert_eq!(waiting.settle(9, 4).applied, [(9, 4)]);
    }

    #[test]
    fn older_entries_settle_nothing_of_a_later_term() {
        let mut waiting = proposals(&[(8, 4)]);
        assert_eq!(waiting.settle(7, 2), Settled { applied: vec![], not_applied: vec![] });
        assert_eq!(waiting.settle(8, 4).applied, [(8, 4)]);
    }
}
