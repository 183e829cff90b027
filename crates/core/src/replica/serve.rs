//! Turning commands into entries, and answering queries.

use super::*;
use crate::kv::entry::{self, Batch};
use crate::time::Wall;
use raft::eraftpb::{Entry, EntryType, Message, MessageType};

impl<T> Replica<T> {
    /// Handles a request. All commands of a turn are proposed together at its end. A query gets here only if it could
    /// not be answered under a lease before.
    pub fn handle_request(&mut self, now: Moment, action: Action, responder: T, out: &mut Effects<T>) {
        match (action, &self.machine) {
            (Action::Command(command), StateMachine::Kv) => self.incoming.push((Write::Kv(command), responder)),
            (Action::System(command), StateMachine::System(_)) => {
                self.incoming.push((Write::System(command), responder))
            }
            (Action::Query(query), StateMachine::Kv) => self.read(now, query, responder, out),
            // An action for the other kind of shard: its entry could never be applied here.
            (Action::System(_), StateMachine::Kv)
            | (Action::Command(_) | Action::Query(_), StateMachine::System(_)) => {
                out.replies.push((responder, Err(Failure::NotLeader(None))));
            }
        }
    }

    fn read(&mut self, now: Moment, query: Query, responder: T, out: &mut Effects<T>) {
        if !self.is_leader() {
            out.replies.push((responder, Err(Failure::NotLeader(self.leader()))));
        } else if let Some(reply) = self.read_under_lease(now, &query) {
            out.replies.push((responder, Ok(reply)));
        } else if let Err((_, responder)) = self.reads.push((query, responder)) {
            out.replies.push((responder, Err(Failure::Overloaded)));
        }
    }

    fn read_under_lease(&self, now: Moment, query: &Query) -> Option<Reply> {
        match query.is_large() {
            true => self.view.is_leased(now).then_some(Reply::Confirmed),
            false => self.view.read_leased(|| now, query).map(Reply::Query),
        }
    }

    /// Turns the commands of this turn into entries, as few as the size limit allows.
    pub(super) fn propose(&mut self, wall: Wall, out: &mut Effects<T>) {
        if self.incoming.is_empty() {
            return;
        }
        let incoming = std::mem::take(&mut self.incoming);
        if !self.is_leader() {
            let failure = Failure::NotLeader(self.leader());
            out.replies.extend(incoming.into_iter().map(|(_, responder)| (responder, Err(failure))));
            return;
        }
        let mut batch: Option<(Batch, Vec<T>)> = None;
        for (write, responder) in incoming {
            match write {
                Write::Kv(command) => {
                    if let Some((full, responders)) = batch.take_if(|(batch, _)| !batch.fits(&command)) {
                        self.propose_entry(full.finish(), responders, out);
                    }
                    let (batch, responders) =
                        batch.get_or_insert_with(|| (Batch::new(self.next_timestamp(wall)), Vec::new()));
                    batch.push(&command);
                    responders.push(responder);
                }
                Write::System(command) => {
                    let timestamp = self.next_timestamp(wall);
                    self.propose_entry(command.encode(timestamp), vec![responder], out);
                }
            }
        }
        if let Some((batch, responders)) = batch {
            self.propose_entry(batch.finish(), responders, out);
        }
    }

    fn next_timestamp(&mut self, wall: Wall) -> HlcTimestamp {
        self.applied.timestamp = self.applied.timestamp.next(wall);
        self.applied.timestamp
    }

    fn propose_entry(&mut self, data: Bytes, responders: Vec<T>, out: &mut Effects<T>) {
        let entry = Entry { data, ..Entry::default() };
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.id.0;
        message.set_entries(vec![entry].into());
        match self.raft.step(message) {
            Ok(()) => {
                let (index, term) = (self.raft.raft.raft_log.last_index(), self.raft.raft.term);
                out.counts.proposed_entries += 1;
                out.counts.proposed_commands += responders.len() as u64;
                self.proposals.insert(index, term, responders);
            }
            Err(_) => {
                let failure = match self.raft.raft.lead_transferee {
                    Some(transferee) => Failure::NotLeader(Some(ReplicaId(transferee).node())),
                    None => Failure::Overloaded,
                };
                out.replies.extend(responders.into_iter().map(|responder| (responder, Err(failure))));
            }
        }
    }

    /// Raises the clock to the last entry of the log, so that a new leader's timestamps are above it. The leader may
    /// not have applied that entry yet.
    pub(super) fn learn_last_timestamp(&mut self) {
        for logged in self.raft.store().entries_from(self.applied.index.0 + 1) {
            if logged.get_entry_type() == EntryType::EntryNormal && !logged.data.is_empty() {
                let timestamp = match &self.machine {
                    StateMachine::Kv => entry::timestamp(&logged.data).ok(),
                    StateMachine::System(_) => SystemCommand::decode(&logged.data).map(|(timestamp, _)| timestamp).ok(),
                };
                self.applied.timestamp = self.applied.timestamp.max(timestamp.unwrap_or_default());
            }
        }
    }

    /// Starts a ReadIndex round for the reads that have arrived since the last one.
    pub(super) fn ask_for_reads(&mut self) {
        // Before the term's first commit, raft-rs drops the request silently.
        if self.reads.has_unasked() && self.is_leader() && self.raft.raft.commit_to_current_term() {
            if self.config.mutation.is(Mutation::ReuseReadContext) {
                self.reads.repeat_contexts();
            }
            let context = self.reads.ask(self.raft.raft.term, self.ticks);
            self.raft.read_index(context);
        }
    }

    /// Answers the reads whose index has been applied.
    pub(super) fn answer_reads(&mut self, out: &mut Effects<T>) {
        if self.reads.is_empty() {
            return;
        }
        let ready = self.reads.ready(self.applied.index.0);
        if !ready.is_empty() {
            let machine = self.view.machine();
            let answer = |query: Query| match query.is_large() {
                true => Reply::Confirmed,
                false => Reply::Query(query.answer(&machine)),
            };
            out.replies.extend(ready.into_iter().map(|(query, responder)| (responder, Ok(answer(query)))));
        }
    }

    /// This replica no longer leads: clients must send their reads elsewhere.
    pub(super) fn refuse_reads(&mut self, out: &mut Effects<T>) {
        let failure = Failure::NotLeader(self.leader());
        out.replies.extend(self.reads.drain().into_iter().map(|(_, responder)| (responder, Err(failure))));
    }
}
