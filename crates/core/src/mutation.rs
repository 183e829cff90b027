//! Bugs that can be planted, to prove that the simulator would find them.
//!
//! Without the cargo feature `mutations`, which no release has, [`Mutation::is`] is always false and the compiler
//! removes the planted branches.

/// A planted bug. [`Mutation::None`] is the product.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mutation {
    #[default]
    None,
    /// A replica treats a batch as durable the moment it is handed to the log.
    AcknowledgeBeforeSync,
    /// A replica votes right after a restart, having forgotten what it promised a leader.
    VoteAtBoot,
    /// A leader goes on serving reads from its map for as long as it believes that it leads.
    ServeAsDeposedLeader,
    /// A stalled node makes up for every tick it missed.
    CatchUpTicks,
    /// A node forgets what was deleted as soon as it has deleted it itself.
    ForgetTombstones,
    /// A learner is made a voter before it has the log.
    PromoteEarly,
    /// A move drops the old replica before the new one has caught up.
    DropBeforeCaughtUp,
    /// A third of all replicas apply some puts with another value.
    ApplyDifferently,
}

impl Mutation {
    /// Every planted bug.
    pub const ALL: [Mutation; 8] = [
        Mutation::AcknowledgeBeforeSync,
        Mutation::VoteAtBoot,
        Mutation::ServeAsDeposedLeader,
        Mutation::CatchUpTicks,
        Mutation::ForgetTombstones,
        Mutation::PromoteEarly,
        Mutation::DropBeforeCaughtUp,
        Mutation::ApplyDifferently,
    ];

    /// Whether `other` is planted.
    pub fn is(self, other: Mutation) -> bool {
        cfg!(feature = "mutations") && self == other
    }
}
