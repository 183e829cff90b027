//! Bugs that can be planted, to prove that the simulator would find them.
//!
//! Without the cargo feature `mutations`, which no release has, [`Mutation::is`] is always false and the compiler
//! removes the planted branches.

/// Whether bugs can be planted in this build.
pub const CAN_BE_PLANTED: bool = cfg!(feature = "mutations");

/// A planted bug. [`Mutation::None`] is the product.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mutation {
    #[default]
    None,
    /// A replica treats a batch as durable the moment it is handed to the log.
    AcknowledgeBeforeSync,
    /// A replica votes right after a restart, having forgotten what it promised a leader.
    VoteAtBoot,
    /// A restarted node uses the shortest possible election timeout instead of its cluster's.
    ForgetTiming,
    /// A voter keeps its promise to a leader only until it learns of a later term. Elections work as in raft-rs:
    /// impatient, with answers to pre-votes that wait for the disk.
    ForgetPromise,
    /// A candidate and its voters give up after the usual time, however slow their disks are.
    CampaignImpatiently,
    /// The log keeps a replica's term, and not its vote in it.
    ForgetVote,
    /// A replica asks for votes, and a sole voter leads, before its own vote is durable.
    SpeakBeforeVote,
    /// A leader continues to serve reads from its map for as long as it believes that it leads.
    ServeAsDeposedLeader,
    /// A leader serves reads before it has applied an entry of its term.
    ServeBeforeTermStart,
    /// A lease counts from when a heartbeat's answer arrived, not from when the heartbeat was sent.
    LeaseFromEcho,
    /// A leader that hands its leadership over continues to serve reads.
    KeepLeaseOnTransfer,
    /// All rounds of ReadIndex in a term have the same context.
    ReuseReadContext,
    /// A follower assumes that its state is the latest, whatever it has heard.
    StaleWithoutBound,
    /// A leader reports its commit index before it has committed an entry in its term.
    FreshBeforeTermStart,
    /// A deposed leader reports its proposals as not applied.
    DisownProposals,
    /// After a snapshot the first two entries are applied in the wrong order.
    ApplyOutOfOrder,
    /// A snapshot has the configuration of the one before it.
    ForgetConfState,
    /// Records are accepted whatever their checksums.
    IgnoreChecksums,
    /// A damaged record in the last segment, and all behind it, count as never written.
    TruncateAtFirstBad,
    /// A log that lost its last segments, or all of them, is mistaken for an older or a new one.
    TakeLostLogForNew,
    /// A node that has lost replicas asks for new ones until it restarts, and not after that.
    ForgetLostReplicas,
    /// A node answers a join request with the topology that it has, even one older than the join.
    WelcomeWithOldTopology,
    /// A learner is made a voter before it has the log.
    PromoteEarly,
    /// A move drops the old replica before the new one has caught up.
    DropBeforeCaughtUp,
    /// A third of all replicas apply some commands with a flipped bit in the last field: a value, or the key of a
    /// delete.
    ApplyDifferently,
    /// A replica applies an entry with the time of its own clock instead of the entry's.
    ClockInsideApply,
    /// A replica records for the divergence detector, at an index within a turn, the hash that it has after the turn.
    HashAfterTurn,
    /// A leader that commits its own removal continues to lead.
    LeadAfterRemoval,
    /// A replica campaigns while the snapshot that it has installed is not durable.
    CampaignOnSnapshot,
    /// The controller publishes its proposals before they are committed.
    PublishBeforeCommit,
    /// A node drops a tombstone as soon as it has it itself.
    ForgetTombstones,
    /// A node does not send deletions to other nodes.
    HideDeletions,
    /// An eventual write is acknowledged before it is durable.
    AnswerEventualEarly,
    /// After a restart, a node mistakes answers to requests that its former process forwarded for answers to its own.
    ReplyAcrossLives,
    /// A node sends a write again although an attempt may have been applied.
    RepeatUnknown,
    /// The next snapshot deletes the file of the snapshot that is being sent.
    DeleteWhileSending,
    /// A node whose disk does not answer continues to lead.
    IgnoreHungDisk,
    /// A node accepts entries and writes however many bytes wait for its disk.
    TakeUnsynced,
    /// A node keeps in memory all entries that a follower lacks.
    KeepForLaggards,
}

impl Mutation {
    /// Every planted bug.
    pub const ALL: &[Mutation] = &[
        Mutation::AcknowledgeBeforeSync,
        Mutation::VoteAtBoot,
        Mutation::ForgetTiming,
        Mutation::ForgetPromise,
        Mutation::CampaignImpatiently,
        Mutation::ForgetVote,
        Mutation::SpeakBeforeVote,
        Mutation::ServeAsDeposedLeader,
        Mutation::ServeBeforeTermStart,
        Mutation::LeaseFromEcho,
        Mutation::KeepLeaseOnTransfer,
        Mutation::ReuseReadContext,
        Mutation::StaleWithoutBound,
        Mutation::FreshBeforeTermStart,
        Mutation::DisownProposals,
        Mutation::ApplyOutOfOrder,
        Mutation::ForgetConfState,
        Mutation::IgnoreChecksums,
        Mutation::TruncateAtFirstBad,
        Mutation::TakeLostLogForNew,
        Mutation::ForgetLostReplicas,
        Mutation::WelcomeWithOldTopology,
        Mutation::PromoteEarly,
        Mutation::DropBeforeCaughtUp,
        Mutation::ApplyDifferently,
        Mutation::ClockInsideApply,
        Mutation::HashAfterTurn,
        Mutation::LeadAfterRemoval,
        Mutation::CampaignOnSnapshot,
        Mutation::PublishBeforeCommit,
        Mutation::ForgetTombstones,
        Mutation::HideDeletions,
        Mutation::AnswerEventualEarly,
        Mutation::ReplyAcrossLives,
        Mutation::RepeatUnknown,
        Mutation::DeleteWhileSending,
        Mutation::IgnoreHungDisk,
        Mutation::TakeUnsynced,
        Mutation::KeepForLaggards,
    ];

    /// Whether `other` is planted.
    pub fn is(self, other: Mutation) -> bool {
        CAN_BE_PLANTED && self == other
    }
}
