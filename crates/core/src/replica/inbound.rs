//! Which messages a replica accepts, and what it does at a tick.

use super::membership::{Membership, decode_change};
use super::patience::Part;
use super::*;
use crate::kv::entry;
use raft::CAMPAIGN_TRANSFER;
use raft::eraftpb::{Entry, EntryType, Message, MessageType};
use std::time::Duration;

/// What every heartbeat's context ends with: the number of its round, and the leader's commit index. (Raft's own field
/// is bounded by what the follower has.)
const TRAILER_BYTES: usize = 16;

/// Longer than any election timeout.
pub(super) const NEVER_TICKS: usize = usize::MAX - 1;

/// Stands for a commit index that the leader does not know yet.
const UNKNOWN: u64 = u64::MAX;

/// Why a replica can't continue.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The leader has proof of entries that this replica acknowledged and no longer has.
    #[error(
        "the leader knows that this replica had entries up to {committed}, but its log ends at {last}: the log was \
         lost or replaced by an older one"
    )]
    LostLog { committed: u64, last: u64 },
}

/// An entry that this build can't read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry {index} of its leader can't be read ({why})")]
pub struct Unreadable {
    index: u64,
    why: String,
}

impl<T> Replica<T> {
    /// One tick of the Raft clock. `sync` is how long this node's disk took for its latest batch, or has taken so far.
    pub fn tick(&mut self, now: Moment, sync: Duration) {
        self.ticks = self.ticks + Ticks(1);
        let last = self.storage().last();
        if last != self.last_grown.0 {
            self.last_grown = (last, self.ticks);
        }
        self.mark();
        if self.snapshot_is_not_durable() {
            return;
        }
        let awaits_disk = !self.durability.has_vote() && !self.is_leader();
        if awaits_disk && !self.is_impatient() {
            return;
        }
        self.set_election_timeout(now, sync);
        self.raft.tick();
        if self.is_leader() {
            self.reads.retry(self.ticks);
            self.leave_joint_if_stuck();
        }
    }

    /// Publishes a hash for comparison. A replica has none before its first snapshot or entry, because its state
    /// belongs to no index.
    fn mark(&mut self) {
        if self.applied.index > LogIndex::BASE {
            let mut marks = std::mem::take(&mut self.marks);
            marks.tick(self.applied.index, || self.state_hash(), self.ticks);
            self.view.publish_point(marks.settled(self.ticks, self.config.timing.ticks(SETTLED_AFTER)));
            self.marks = marks;
        }
    }

    /// Cuts an append short before the first entry that this build can't read. A newer or faulty leader then can't
    /// commit it as long as it needs this replica. Once the entry was committed, this replica could neither apply nor
    /// skip it. A leader handles the shorter append like a lost message and sends the rest again, also after this node
    /// has been upgraded.
    pub fn keep_readable(&self, message: &mut Message) -> Result<(), Unreadable> {
        let unreadable = message.entries.iter().enumerate().find_map(|(at, entry)| {
            let why = self.check_entry(entry).err()?;
            Some((at, Unreadable { index: entry.index, why }))
        });
        let Some((at, unreadable)) = unreadable else { return Ok(()) };
        message.entries.truncate(at);
        Err(unreadable)
    }

    /// Whether [`apply`](Replica::apply) can read the entry.
    fn check_entry(&self, entry: &Entry) -> Result<(), String> {
        let why = |error: &dyn std::fmt::Display| error.to_string();
        match (entry.get_entry_type(), &self.machine) {
            (EntryType::EntryNormal, _) if entry.data.is_empty() => Ok(()),
            (EntryType::EntryNormal, StateMachine::Kv) => {
                entry::check(&entry.data).map(drop).map_err(|error| why(&error))
            }
            (EntryType::EntryNormal, StateMachine::System(_)) => {
                SystemCommand::decode(&entry.data).map(drop).map_err(|error| why(&error))
            }
            (EntryType::EntryConfChange | EntryType::EntryConfChangeV2, _) => {
                decode_change(&entry.context).map(drop).map_err(|error| why(&error))
            }
        }
    }

    /// Whether the replica belongs to this shard. The topology names a new voter before the log makes it one, and the
    /// end of this replica's log may be lost.
    fn knows(&self, replica: ReplicaId) -> bool {
        let Membership { configurations, group, .. } = &self.membership;
        configurations.iter().any(|voters| voters.contains(&replica)) || group.replicas.contains(&replica)
    }

    /// Handles a message from another replica of this shard.
    pub fn step(&mut self, now: Moment, from: ReplicaId, mut message: Message) -> Result<(), Fault> {
        if message.from != from.0 || message.to != self.id.0 || !is_well_formed(&message) {
            return Ok(());
        }
        if self.promise.binds(now) && self.would_break_promise(&message) {
            return Ok(());
        }
        match message.get_msg_type() {
            MessageType::MsgHeartbeat => {
                let last = self.raft.raft.raft_log.last_index();
                if message.term >= self.raft.raft.term && message.commit > last {
                    // Only members are trusted with this: the shard loses this voter until a new one takes its place. A
                    // leader that is not known yet proves the loss again once the topology names it.
                    return match self.knows(from) {
                        true => Err(Fault::LostLog { committed: message.commit, last }),
                        false => Ok(()),
                    };
                }
                if let Some((_, committed)) = trailer(message.get_context())
                    && message.term >= self.raft.raft.term
                    && committed != UNKNOWN
                {
                    // Once `committed` is applied, this state is at least as new as the leader's was when it sent this
                    // heartbeat.
                    self.heard.get_or_insert((committed, now));
                }
                if message.term >= self.raft.raft.term && !self.config.mutation.is(Mutation::ForgetPromise) {
                    // Raft will echo this heartbeat, and the echo carries the promise.
                    self.promise.make(now, self.config.timing);
                }
            }
            MessageType::MsgHeartbeatResponse => {
                let context = message.take_context();
                let Some((round, _)) = trailer(&context) else { return Ok(()) };
                if self.is_leader() && message.term == self.raft.raft.term {
                    let from_echo = self.config.mutation.is(Mutation::LeaseFromEcho);
                    let round = if from_echo { self.lease.round_at(now) } else { round };
                    self.lease.echo(from, round);
                }
                message.set_context(context.slice(..context.len() - TRAILER_BYTES));
            }
            MessageType::MsgTimeoutNow if self.snapshot_is_not_durable() => return Ok(()),
            MessageType::MsgAppend
            | MessageType::MsgAppendResponse
            | MessageType::MsgRequestVote
            | MessageType::MsgRequestPreVote
            | MessageType::MsgRequestVoteResponse
            | MessageType::MsgRequestPreVoteResponse
            | MessageType::MsgTimeoutNow => {}
            // Snapshots arrive with their data, through `install`. Raft must never forward proposals or reads: both
            // would be executed without the sender knowing it (and raft-rs has no switch against it).
            _ => return Ok(()),
        }
        self.membership.answered.insert(from, self.ticks);
        // raft-rs returns an error for an unknown peer's answer; here it is a late message of a member that has left.
        let _ = self.raft.step(message);
        Ok(())
    }

    /// Whether the replica was heard within an election timeout. (Raft resets its own mark of that, `recent_active`,
    /// for all replicas at each quorum check, until they answer the next heartbeat.)
    pub(super) fn answers(&self, replica: ReplicaId) -> bool {
        self.membership.answered.get(&replica).is_some_and(|at| self.ticks <= *at + Ticks(ELECTION_TICKS as u64))
    }

    /// Whether a bound replica must drop this message: see [`lease`].
    fn would_break_promise(&self, message: &Message) -> bool {
        match message.get_msg_type() {
            MessageType::MsgRequestVote | MessageType::MsgRequestPreVote => message.get_context() != CAMPAIGN_TRANSFER,
            MessageType::MsgAppendResponse
            | MessageType::MsgHeartbeatResponse
            | MessageType::MsgRequestVoteResponse
            | MessageType::MsgRequestPreVoteResponse => {
                self.raft.raft.state == StateRole::Follower && message.term > self.raft.raft.term
            }
            _ => false,
        }
    }

    /// Whether an installed snapshot waits for the disk. Raft's applied index is then still below it, and a campaign
    /// would read entries that are gone.
    fn snapshot_is_not_durable(&self) -> bool {
        self.raft.raft.raft_log.applied < self.applied.index.0 && !self.config.mutation.is(Mutation::CampaignOnSnapshot)
    }

    /// The node of `to` could not be reached: Raft probes before it sends more.
    pub fn report_unreachable(&mut self, to: ReplicaId) {
        if self.is_leader() {
            self.raft.report_unreachable(to.0);
        }
    }

    /// Appends the trailer to the context of heartbeats that are about to leave.
    pub(super) fn stamp_heartbeat(&mut self, now: Moment, message: &mut Message) {
        if message.get_msg_type() == MessageType::MsgHeartbeat {
            let mut context = message.take_context().to_vec();
            context.extend_from_slice(&self.lease.round_at(now).to_le_bytes());
            // Before it has committed in its term, a leader may not know how far earlier leaders had committed.
            let planted = self.config.mutation.is(Mutation::FreshBeforeTermStart);
            let knows = planted || self.raft.raft.commit_to_current_term();
            let committed = if knows { self.raft.raft.raft_log.committed } else { UNKNOWN };
            context.extend_from_slice(&committed.to_le_bytes());
            message.set_context(context.into());
        }
    }

    /// Planted bugs: elections as in raft-rs. With patient candidates, a broken promise hardly ever has an effect.
    fn is_impatient(&self) -> bool {
        [Mutation::CampaignImpatiently, Mutation::ForgetPromise].iter().any(|&bug| self.config.mutation.is(bug))
    }

    /// A sole voter need not wait for an election timeout.
    pub(super) fn campaign_if_alone(&mut self) {
        let alone = self.raft.raft.prs().conf().voters().ids().iter().eq([self.id.0]);
        if alone && self.raft.raft.promotable() && !self.is_leader() {
            // Refused only while configuration changes wait to be applied; the election timeout tries again.
            let _ = self.raft.campaign();
        }
    }

    /// raft-rs drew a timeout from a thread-local random source at its last reset. It reads the timeout only in a tick,
    /// so replacing it before each tick is enough.
    fn set_election_timeout(&mut self, now: Moment, sync: Duration) {
        let raft = &self.raft.raft;
        let leader = raft.leader_id;
        let voters = raft.prs().conf().voters().ids();
        let mut others: Vec<ReplicaId> = voters.iter().filter(|id| *id != leader).map(ReplicaId).collect();
        others.sort_unstable();
        let rank = election::rank(self.config.seed, self.shard, Term(raft.term), self.id, &others);
        let part = Part {
            term: raft.term,
            knows_leader: leader != raft::INVALID_ID,
            has_voted: raft.vote != raft::INVALID_ID,
            sync,
        };
        let mut ticks = self.patience.timeout_ticks(part, rank);
        if self.is_impatient() {
            ticks = election::FIRST_TICKS + rank.ticks();
        }
        let ticks = if self.promise.binds(now) { NEVER_TICKS } else { ticks };
        debug_assert!(ticks >= ELECTION_TICKS);
        self.raft.raft.set_randomized_election_timeout(ticks);
    }
}

/// A heartbeat's round and the leader's commit index.
fn trailer(context: &[u8]) -> Option<(u64, u64)> {
    let (_, trailer) = context.split_last_chunk::<TRAILER_BYTES>()?;
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte));
    Some((number(&trailer[..8]), number(&trailer[8..])))
}

/// Checks what raft-rs assumes of a message and would panic on: entries without gaps, after the index that they follow.
fn is_well_formed(message: &Message) -> bool {
    let mut index = message.index;
    message.entries.iter().all(|entry| {
        index = index.wrapping_add(1);
        entry.index == index && entry.term <= message.term
    })
}
