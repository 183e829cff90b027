//! Turning Raft's outputs into effects, in order.
//!
//! A `Ready` of raft-rs is handled in this order (its module documents why):
//!
//! 1. Messages that depend on nothing new are sent at once. A sole voter leads as soon as it has voted for itself: its
//!    messages wait for that vote, because after a crash it could otherwise lead the same term again and send others;
//! 2. a snapshot replaces the state; entries and the hard state go into memory and into this turn's batch;
//! 3. messages that depend on them wait with the batch;
//! 4. committed entries are applied: Raft hands out only those that are already durable here;
//! 5. when the log reports the batch durable, Raft is told and the waiting messages are sent.
//!
//! A `Ready` with nothing to make durable never causes a sync: it is reported as persisted as soon as everything before
//! it is. A new commit index alone does not cause a record either, except after a configuration change (see
//! `membership`); it is logged with the next record.

use super::*;
use crate::limits::{MAX_RESTATED_BYTES, SILENT_TICKS};
use crate::log::item::{Change, LogItem};
use crate::log::{BatchNumber, LogBatch};
use crate::time::Now;
use raft::eraftpb::{HardState, Message, MessageType, Snapshot};

/// `Ready`s that one turn handles for one shard before it continues with the next shard.
const READIES_PER_DRAIN: usize = 16;

impl<T> Replica<T> {
    /// Ends a turn: proposes the turn's commands and handles Raft's outputs. `batch` is the worker's batch for the log.
    /// Returns whether there is more to do at once.
    pub fn flush(&mut self, now: Now, batch: &mut LogBatch, out: &mut Effects<T>) -> bool {
        if self.config.mutation.is(Mutation::ClockInsideApply) {
            self.applied.timestamp = self.applied.timestamp.next(now.wall);
        }
        self.propose(now.wall, out);
        self.ask_for_reads();
        let mut readies = 0;
        while self.raft.has_ready() && readies < READIES_PER_DRAIN {
            self.handle_ready(now.moment, batch, out);
            self.ask_for_reads();
            readies += 1;
        }
        self.drop_ignored_snapshot(out);
        if self.raft.store().take_snapshot_request() {
            self.begin_snapshot(out);
        }
        if std::mem::take(&mut self.membership.save_commit) {
            batch.items.push(self.item(Change::HardState(self.storage().hard_state().clone())));
            self.commit_saved(batch.number);
        }
        // The first state in a batch is written whatever its size. Once the batch is full, further states wait for the
        // next turn.
        let has_room = batch.restated_bytes() < MAX_RESTATED_BYTES;
        if self.snapshots.restate && has_room {
            self.snapshots.restate = false;
            batch.items.push(self.state_item());
            self.commit_saved(batch.number);
            self.snapshots.restated_in(batch.number);
        }
        self.answer_reads(out);
        self.publish(now.moment);
        self.raft.has_ready() || self.snapshots.restate
    }

    /// The log holds all batches up to `number`.
    pub fn persisted(&mut self, number: BatchNumber, out: &mut Effects<T>) {
        for pending in self.durability.persist(number) {
            self.raft.on_persist_ready(pending.ready);
            send(pending.messages, out);
        }
        self.tell_applied();
        self.delete_retired_snapshots(out);
    }

    fn handle_ready(&mut self, now: Moment, batch: &mut LogBatch, out: &mut Effects<T>) {
        let mut ready = self.raft.ready();
        self.follow_role(out);

        let stored = self.storage().hard_state();
        let votes = |hard_state: &HardState| (hard_state.term, hard_state.vote) != (stored.term, stored.vote);
        let rests_on_vote = (ready.hs().is_some_and(votes) || !self.durability.has_vote())
            && !self.config.mutation.is(Mutation::SpeakBeforeVote);
        let mut waiting = self.outgoing(now, ready.take_messages(), out);
        if !rests_on_vote {
            send(std::mem::take(&mut waiting), out);
        }

        if !ready.snapshot().is_empty() {
            let snapshot: Snapshot = ready.snapshot().clone();
            self.adopt_snapshot(&snapshot, batch.number, out);
            batch.items.push(self.state_item());
            self.commit_saved(batch.number);
        }
        if !ready.entries().is_empty() {
            self.raft.mut_store().append(ready.entries());
            batch.items.push(self.item(Change::Entries(ready.take_entries())));
        }
        if let Some(hard_state) = ready.hs() {
            let stored = self.storage().hard_state();
            if stored.term != hard_state.term || stored.vote != hard_state.vote {
                self.durability.set_vote(batch.number);
            }
            self.raft.mut_store().set_hard_state(hard_state.clone());
        }
        if ready.must_sync() {
            let mut hard_state = self.storage().hard_state().clone();
            if self.config.mutation.is(Mutation::ForgetVote) {
                hard_state.vote = raft::INVALID_ID;
            }
            batch.items.push(self.item(Change::HardState(hard_state)));
            self.commit_saved(batch.number);
        }

        waiting.extend(self.outgoing(now, ready.take_persisted_messages(), out));
        let committed = ready.take_committed_entries();
        let (number, must_sync) = (ready.number(), ready.must_sync());
        for state in ready.take_read_states() {
            self.reads.confirm(&state.request_ctx, state.index);
        }
        self.raft.advance_append_async(ready);
        self.hold_back(number, must_sync, batch.number, waiting, out);
        self.apply(committed, out);
    }

    fn commit_saved(&mut self, batch: BatchNumber) {
        let commit = self.storage().hard_state().commit;
        self.durability.set_commit(batch, commit);
    }

    /// Sends `messages` and tells Raft that `ready` is persisted, once everything before it is durable.
    fn hold_back(
        &mut self,
        ready: u64,
        must_sync: bool,
        batch: BatchNumber,
        mut messages: Vec<RaftMessage>,
        out: &mut Effects<T>,
    ) {
        let term_is_durable = self.durability.has_vote();
        let leaves_at_once = |message: &mut RaftMessage| match message.message.get_msg_type() {
            MessageType::MsgHeartbeatResponse => term_is_durable,
            MessageType::MsgRequestPreVoteResponse => !self.config.mutation.is(Mutation::ForgetPromise),
            _ => false,
        };
        send(messages.extract_if(.., leaves_at_once).collect(), out);
        let durable_already = !must_sync && self.durability.is_settled();
        if durable_already || self.config.mutation.is(Mutation::AcknowledgeBeforeSync) {
            self.raft.on_persist_ready(ready);
            send(messages, out);
        } else {
            self.durability.hold(ready, must_sync.then_some(batch), messages);
        }
    }

    /// Handles a change of role or term.
    fn follow_role(&mut self, out: &mut Effects<T>) {
        let role = (self.raft.raft.state, self.raft.raft.term);
        let (was, is) = (self.role.0 == StateRole::Leader, role.0 == StateRole::Leader);
        if (was || is) && role != self.role {
            self.lease.reset();
            self.membership.last_report = None;
            if is {
                self.learn_last_timestamp();
            }
            if !is {
                self.refuse_reads(out);
                if self.config.mutation.is(Mutation::DisownProposals) {
                    let proposed = self.proposals.drain();
                    out.replies.extend(proposed.into_iter().map(|responder| (responder, Err(Failure::NotApplied))));
                }
            }
            if was != is {
                out.leadership.push((self.shard, Term(role.1), is));
            }
        }
        self.role = role;
    }

    /// Converts Raft's messages into ours. A snapshot becomes work for the thread that streams files.
    fn outgoing(&mut self, now: Moment, messages: Vec<Message>, out: &mut Effects<T>) -> Vec<RaftMessage> {
        let mut outgoing = Vec::with_capacity(messages.len());
        for mut message in messages {
            self.stamp_heartbeat(now, &mut message);
            let asks_for_election = message.get_msg_type() == MessageType::MsgTimeoutNow;
            if asks_for_election && !self.config.mutation.is(Mutation::KeepLeaseOnTransfer) {
                // Give up the lease only when this message is sent: a transfer to a replica that never gets the whole
                // log ends without it, and must not cost the lease.
                self.lease.give_up();
                self.view.publish_lease(Moment::default());
            }
            if matches!(message.get_msg_type(), MessageType::MsgAppendResponse | MessageType::MsgHeartbeatResponse) {
                // Raft ignores this field in answers; the leader's report uses it (see `membership`).
                message.commit = message.commit.min(self.durability.commit());
            }
            let (shard, to) = (self.shard, message.to);
            let is_snapshot = message.get_msg_type() == MessageType::MsgSnapshot;
            let message = RaftMessage { shard, from: self.id, to: ReplicaId(to), message };
            let message = if is_snapshot { self.send_snapshot(message, out) } else { Some(message) };
            outgoing.extend(message);
        }
        outgoing
    }

    /// Publishes to readers the leader, the end of the lease, and how stale this state may be.
    fn publish(&mut self, now: Moment) {
        let is_silent = !self.is_leader() && self.raft.raft.election_elapsed >= SILENT_TICKS;
        self.view.publish_leader(self.leader(), is_silent);
        let early = self.config.mutation.is(Mutation::ServeBeforeTermStart);
        if self.is_leader() && (early || self.raft.raft.apply_to_current_term()) {
            let followed_at = self.lease.followed_at(now, self.id, &self.membership.configurations);
            self.view.publish_fresh(followed_at);
            let until = match self.config.read_mode {
                ReadMode::Lease if self.config.mutation.is(Mutation::ServeAsDeposedLeader) => Moment(u64::MAX),
                ReadMode::Lease => self.lease.until(followed_at),
                ReadMode::Quorum => Moment::default(),
            };
            self.view.publish_lease(until);
            return;
        }
        self.view.publish_lease(Moment::default());
        if self.config.mutation.is(Mutation::StaleWithoutBound) {
            self.view.publish_fresh(now);
        }
        if let Some((_, at)) = self.heard.take_if(|(committed, _)| *committed <= self.applied.index.0) {
            self.view.publish_fresh(at);
        }
    }

    /// The replica's complete state, for the log.
    pub(super) fn state_item(&self) -> LogItem {
        self.item(Change::State(Box::new(self.complete_state())))
    }

    fn item(&self, change: Change) -> LogItem {
        LogItem { shard: self.shard, replica: self.id, change }
    }
}

fn send<T>(messages: Vec<RaftMessage>, out: &mut Effects<T>) {
    for message in messages {
        out.messages.entry(message.to_node()).or_default().push(message);
    }
}
