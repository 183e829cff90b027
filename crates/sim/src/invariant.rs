//! What must hold, by name, and how a run says that it did not.
//!
//! | invariant | what | source |
//! |---|---|---|
//! | [`Invariant::ElectionSafety`] | at most one leader a term | Raft paper, figure 3 |
//! | [`Invariant::LogMatching`] | equal index and term: the same entry, and the same before it | Raft paper, figure 3 |
//! | [`Invariant::LeaderCompleteness`] | a leader's log has what was committed in earlier terms | Raft paper, figure 3 |
//! | [`Invariant::StateMachineSafety`] | equal index: equal state, equal configuration | Raft paper, figure 3 |
//! | [`Invariant::LeaseExclusivity`] | one replica at the most may serve reads by itself | Raft thesis, 6.4.1 |
//! | [`Invariant::SlotOwnership`] | an epoch has one topology, so a slot one owner | ARCHITECTURE.md, Membership |
//! | [`Invariant::SafeConfigurations`] | a voter has the log; voters never become too few | Raft thesis, 4.2.1 and 4.2.3 |
//! | [`Invariant::DurableLog`] | what a replica had synced it has after a restart, or it is not trusted | the log's header |
//! | [`Invariant::AcknowledgedWrites`] | no acknowledged write is lost | docs/guarantees.md, `Put` |
//! | [`Invariant::SessionMonotonicity`] | what a client sees of a key never goes back | Terry et al., "Session guarantees", 1994 |
//! | [`Invariant::BoundedStaleness`] | a stale read is not staler than promised | docs/guarantees.md, `Get`, stale |
//! | [`Invariant::Linearizability`] | the history could be that of a map | Herlihy and Wing, 1990 |
//! | [`Invariant::GossipConvergence`] | all nodes come to hold the same | docs/gossip.md |
//! | [`Invariant::LatestEventualWrite`] | the latest acknowledged eventual write wins | docs/gossip.md |
//! | [`Invariant::NoResurrection`] | what was deleted does not come back | docs/gossip.md |
//! | [`Invariant::NoFalseAlarm`] | the divergence detector is silent while replicas agree | `ringfort_core::divergence` |
//! | [`Invariant::SnapshotsHeld`] | a snapshot is not deleted while it is sent | `ringfort_core::replica::transfers` |
//! | [`Invariant::HungDiskLeadsNothing`] | a node whose disk hangs gives its leadership away | `ringfort_core::replica::handover` |
//! | [`Invariant::BoundedMemory`] | entries, messages and unsynced bytes have bounds | `ringfort_core::limits` |
//! | [`Invariant::BoundedRecovery`] | without faults the cluster is whole again in bounded time | docs/verification.md |
//! | [`Invariant::Assertion`] | no assertion of the product fails | the code |
//!
//! Those that are checked at every step are in `cluster/invariants`, a file each.

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

/// An invariant that did not hold in a run. Displayed as its name and what was seen, over as many lines as it takes.
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
