//! The invariants, by name, and how a run reports a violation.
//!
//! | invariant | claim | source |
//! |---|---|---|
//! | [`Invariant::ElectionSafety`] | at most one leader per term | Raft paper, figure 3 |
//! | [`Invariant::LogMatching`] | equal index and term: the same entry, and the same before it | Raft paper, figure 3 |
//! | [`Invariant::LeaderCompleteness`] | a leader's log has all entries committed in earlier terms | Raft paper, figure 3 |
//! | [`Invariant::StateMachineSafety`] | equal index: equal state, equal configuration | Raft paper, figure 3 |
//! | [`Invariant::LeaseExclusivity`] | at most one replica may serve reads by itself | Raft thesis, 6.4.1 |
//! | [`Invariant::SlotOwnership`] | an epoch has one topology, so a slot has one owner | ARCHITECTURE.md, Membership |
//! | [`Invariant::SafeConfigurations`] | a voter has the log; voters never become too few | Raft thesis, 4.2.1 and 4.2.3 |
//! | [`Invariant::DurableLog`] | after a restart a replica has all that it had synced, or it is not trusted | the log's header |
//! | [`Invariant::AcknowledgedWrites`] | no acknowledged write is lost | docs/guarantees.md, `Put` |
//! | [`Invariant::SessionMonotonicity`] | what a client sees of a key never goes back | Terry et al., "Session guarantees", 1994 |
//! | [`Invariant::BoundedStaleness`] | a stale read is not staler than promised | docs/guarantees.md, `Get`, stale |
//! | [`Invariant::Linearizability`] | the history could be that of a map executing one operation at a time | Herlihy and Wing, 1990 |
//! | [`Invariant::GossipConvergence`] | all nodes converge to the same eventual keyspace | docs/gossip.md |
//! | [`Invariant::LatestEventualWrite`] | the latest acknowledged eventual write wins | docs/gossip.md |
//! | [`Invariant::NoResurrection`] | a deleted key does not come back | docs/gossip.md |
//! | [`Invariant::NoFalseAlarm`] | the divergence detector is silent while replicas agree | `ringfort_core::divergence` |
//! | [`Invariant::SnapshotsHeld`] | a snapshot is not deleted while it is sent | `ringfort_core::replica::transfers` |
//! | [`Invariant::HungDiskLeadsNothing`] | a node whose disk hangs gives its leadership away | `ringfort_core::replica::handover` |
//! | [`Invariant::BoundedMemory`] | entries, messages and unsynced bytes have bounds | `ringfort_core::limits` |
//! | [`Invariant::BoundedRecovery`] | without faults the cluster recovers in bounded time | docs/verification.md |
//! | [`Invariant::Assertion`] | no assertion of the product fails | the code |
//!
//! The checks are in `cluster/invariants`, one file per invariant.

use std::fmt;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Invariant {
    ElectionSafety,
    LogMatching,
    LeaderCompleteness,
    StateMachineSafety,
    LeaseExclusivity,
    SlotOwnership,
    SafeConfigurations,
    DurableLog,
    AcknowledgedWrites,
    SessionMonotonicity,
    BoundedStaleness,
    Linearizability,
    GossipConvergence,
    LatestEventualWrite,
    NoResurrection,
    NoFalseAlarm,
    SnapshotsHeld,
    HungDiskLeadsNothing,
    BoundedMemory,
    BoundedRecovery,
    Assertion,
}

/// An invariant that was violated in a run. Displayed as its name and what was seen, on one or more lines.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    pub invariant: Invariant,
    pub what: String,
}

impl Invariant {
    pub const ALL: [Invariant; 21] = [
        Invariant::ElectionSafety,
        Invariant::LogMatching,
        Invariant::LeaderCompleteness,
        Invariant::StateMachineSafety,
        Invariant::LeaseExclusivity,
        Invariant::SlotOwnership,
        Invariant::SafeConfigurations,
        Invariant::DurableLog,
        Invariant::AcknowledgedWrites,
        Invariant::SessionMonotonicity,
        Invariant::BoundedStaleness,
        Invariant::Linearizability,
        Invariant::GossipConvergence,
        Invariant::LatestEventualWrite,
        Invariant::NoResurrection,
        Invariant::NoFalseAlarm,
        Invariant::SnapshotsHeld,
        Invariant::HungDiskLeadsNothing,
        Invariant::BoundedMemory,
        Invariant::BoundedRecovery,
        Invariant::Assertion,
    ];

    pub fn broken(self, what: impl Into<String>) -> Violation {
        Violation { invariant: self, what: what.into() }
    }

    pub fn name(self) -> &'static str {
        match self {
            Invariant::ElectionSafety => "one leader a term",
            Invariant::LogMatching => "log matching",
            Invariant::LeaderCompleteness => "leader completeness",
            Invariant::StateMachineSafety => "state machine safety",
            Invariant::LeaseExclusivity => "lease exclusivity",
            Invariant::SlotOwnership => "a slot is owned once an epoch",
            Invariant::SafeConfigurations => "safe configurations",
            Invariant::DurableLog => "durable log",
            Invariant::AcknowledgedWrites => "no acknowledged write lost",
            Invariant::SessionMonotonicity => "session monotonicity",
            Invariant::BoundedStaleness => "bounded staleness",
            Invariant::Linearizability => "linearizability",
            Invariant::GossipConvergence => "gossip convergence",
            Invariant::LatestEventualWrite => "the latest eventual write wins",
            Invariant::NoResurrection => "no resurrection",
            Invariant::NoFalseAlarm => "no false alarm",
            Invariant::SnapshotsHeld => "a snapshot that is sent is there",
            Invariant::HungDiskLeadsNothing => "a node whose disk hangs leads nothing",
            Invariant::BoundedMemory => "bounded memory",
            Invariant::BoundedRecovery => "bounded recovery",
            Invariant::Assertion => "no assertion fails",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant.name(), self.what)
    }
}

impl std::error::Error for Violation {}
