//! Graceful stop: leadership moves to other nodes first, so that no shard has to wait for an election.
//!
//! 1. The node reports that it is stopping
//!    ([`HealthMonitor::set_stopping`](crate::health::HealthMonitor::set_stopping)), before any hand-over: otherwise
//!    the controller would give leadership back to it.
//! 2. Its workers hand over their leaderships, repeatedly, until they have none. A shard whose other voters can't take
//!    over must not delay the stop forever, so there is a time limit. A node that is alone has no node to hand over to.
//! 3. It accepts no more client requests, and answers those in progress, also within a time limit: those of its clients,
//!    and the writes that it has proposed for other nodes. When a replica has handed over, it learns from its successor
//!    which of its proposals were committed. A shard may still elect a replica here meanwhile, which hands over as well.
//! 4. It ends. Requests that arrive from other nodes from then on are refused as not applied.

use crate::time::Moment;
use std::iter::Sum;
use std::time::Duration;

/// How long a stopping node tries to hand its leaderships over.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(2);

/// How long answering the requests in progress may take.
pub const REQUEST_PATIENCE: Duration = Duration::from_millis(500);

/// How often to ask for the next step.
pub const STEP_INTERVAL: Duration = Duration::from_millis(10);

/// A stopping node.
#[derive(Clone, Copy, Debug)]
pub struct Stopping {
    is_alone: bool,
    begun: Moment,
    /// When it stopped serving clients.
    closed: Option<Moment>,
}

/// What replicas still have to do before their node may end.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Unfinished {
    /// Shards that they lead.
    pub led: usize,
    /// Replicas with proposals of which they do not know yet whether these will be applied.
    pub unsettled: usize,
}

impl Sum for Unfinished {
    fn sum<I: Iterator<Item = Unfinished>>(parts: I) -> Unfinished {
        parts.fold(Unfinished::default(), |sum, part| Unfinished {
            led: sum.led + part.led,
            unsettled: sum.unsettled + part.unsettled,
        })
    }
}

/// What to do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Hand over once more, and ask again after [`STEP_INTERVAL`].
    Wait,
    /// Accept no more client requests, then as with `Wait`.
    StopServing,
    End,
}

impl Stopping {
    /// `is_alone`: the cluster has no other node.
    pub fn new(now: Moment, is_alone: bool) -> Stopping {
        Stopping { is_alone, begun: now, closed: None }
    }

    /// The next step. `has_answered` says whether all clients of this node have been answered.
    pub fn next(&mut self, now: Moment, unfinished: Unfinished, has_answered: bool) -> Step {
        let has_handed_over = unfinished.led == 0 || self.is_alone;
        let has_answered = has_answered && (unfinished.unsettled == 0 || self.is_alone);
        match self.closed {
            None if has_handed_over || now >= self.begun + HAND_OVER_PATIENCE => {
                self.closed = Some(now);
                Step::StopServing
            }
            Some(closed) if (has_handed_over && has_answered) || now >= closed + REQUEST_PATIENCE => Step::End,
            None | Some(_) => Step::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGUN: Moment = Moment(1_000_000_000);
    const MS: Duration = Duration::from_millis(1);

    fn leads(led: usize) -> Unfinished {
        Unfinished { led, unsettled: 0 }
    }

    #[test]
    fn a_node_serves_until_it_leads_nothing_and_ends_when_all_are_answered() {
        let mut stopping = Stopping::new(BEGUN, false);
        assert_eq!(stopping.next(BEGUN, leads(3), true), Step::Wait);
        assert_eq!(stopping.next(BEGUN + 30 * MS, leads(0), false), Step::StopServing);
        assert_eq!(stopping.next(BEGUN + 40 * MS, leads(0), false), Step::Wait, "a client waits");
        assert_eq!(stopping.next(BEGUN + 50 * MS, leads(1), true), Step::Wait, "it was elected once more");
        assert_eq!(stopping.next(BEGUN + 60 * MS, leads(0), true), Step::End);
    }

    #[test]
    fn a_node_waits_for_the_outcome_of_its_proposals_but_not_for_long() {
        let mut stopping = Stopping::new(BEGUN, false);
        let unsettled = Unfinished { led: 0, unsettled: 1 };
        assert_eq!(stopping.next(BEGUN, unsettled, true), Step::StopServing);
        assert_eq!(stopping.next(BEGUN + 10 * MS, unsettled, true), Step::Wait);
        let mut patient = stopping;
        assert_eq!(stopping.next(BEGUN + 20 * MS, Unfinished::default(), true), Step::End);
        assert_eq!(patient.next(BEGUN + REQUEST_PATIENCE, unsettled, true), Step::End);
    }

    #[test]
    fn neither_a_shard_nor_a_client_holds_a_stop_up_for_long() {
        let mut stopping = Stopping::new(BEGUN, false);
        assert_eq!(stopping.next(BEGUN + (HAND_OVER_PATIENCE - MS), leads(1), true), Step::Wait);
        let closed = BEGUN + HAND_OVER_PATIENCE;
        assert_eq!(stopping.next(closed, leads(1), true), Step::StopServing);
        assert_eq!(stopping.next(closed + (REQUEST_PATIENCE - MS), leads(1), false), Step::Wait);
        assert_eq!(stopping.next(closed + REQUEST_PATIENCE, leads(1), false), Step::End);
    }

    #[test]
    fn a_node_that_is_alone_hands_nothing_over() {
        let mut stopping = Stopping::new(BEGUN, true);
        assert_eq!(stopping.next(BEGUN, leads(3), false), Step::StopServing);
        assert_eq!(stopping.next(BEGUN, leads(3), true), Step::End);
    }
}
