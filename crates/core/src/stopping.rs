//! Graceful stop: leadership moves to other nodes first, so that no shard has to wait for an election.
//!
//! 1. The node reports that it is stopping
//!    ([`HealthMonitor::set_stopping`](crate::health::HealthMonitor::set_stopping)), before any hand-over: otherwise
//!    the controller would give leadership back to it.
//! 2. Its workers hand over their leaderships, repeatedly, until they have none. A shard whose other voters can't take
//!    over must not delay the stop forever, so there is a time limit. A node that is alone has no node to hand over to.
//! 3. It accepts no more client requests, and answers those in progress, also within a time limit. A shard may still
//!    elect a replica here meanwhile, which hands over as well.
//! 4. It ends.

use crate::time::Moment;
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

    /// The next step. `led` is the number of shards that this node still leads, and `has_answered` says whether all
    /// clients have been answered.
    pub fn next(&mut self, now: Moment, led: usize, has_answered: bool) -> Step {
        let has_handed_over = led == 0 || self.is_alone;
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

    #[test]
    fn a_node_serves_until_it_leads_nothing_and_ends_when_all_are_answered() {
        let mut stopping = Stopping::new(BEGUN, false);
        assert_eq!(stopping.next(BEGUN, 3, true), Step::Wait);
        assert_eq!(stopping.next(BEGUN + 30 * MS, 0, false), Step::StopServing);
        assert_eq!(stopping.next(BEGUN + 40 * MS, 0, false), Step::Wait, "a client waits");
        assert_eq!(stopping.next(BEGUN + 50 * MS, 1, true), Step::Wait, "it was elected once more");
        assert_eq!(stopping.next(BEGUN + 60 * MS, 0, true), Step::End);
    }

    #[test]
    fn neither_a_shard_nor_a_client_holds_a_stop_up_for_long() {
        let mut stopping = Stopping::new(BEGUN, false);
        assert_eq!(stopping.next(BEGUN + (HAND_OVER_PATIENCE - MS), 1, true), Step::Wait);
        let closed = BEGUN + HAND_OVER_PATIENCE;
        assert_eq!(stopping.next(closed, 1, true), Step::StopServing);
        assert_eq!(stopping.next(closed + (REQUEST_PATIENCE - MS), 1, false), Step::Wait);
        assert_eq!(stopping.next(closed + REQUEST_PATIENCE, 1, false), Step::End);
    }

    #[test]
    fn a_node_that_is_alone_hands_nothing_over() {
        let mut stopping = Stopping::new(BEGUN, true);
        assert_eq!(stopping.next(BEGUN, 3, false), Step::StopServing);
        assert_eq!(stopping.next(BEGUN, 3, true), Step::End);
    }
}
