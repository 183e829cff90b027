//! Commands into entries, queries into answers.

use super::*;
use crate::kv::entry::{self, Batch};
use crate::time::Wall;
use raft::eraftpb::{Entry, EntryType, Message, MessageType};

impl<T> Replica<T> {
    /// Handles a request. All commands of a drain are proposed together at its end. A query gets here only if no lease
    /// answered it on its way.
    pub fn handle_request(&mut self, now: Moment, action: Action, ticket: T, out: &mut Effects<T>) {
        match (action, &self.machine) {
            (Action::Command(command), StateMachine::Kv) => self.incoming.push((Write::Kv(command), ticket)),
            (Action::System(command), StateMachine::System(_)) => self.incoming.push((Write::System(command), ticket)),
            (Action::Query(query), StateMachine::Kv) => self.read(now, query, ticket, out),
            // An action of the other kind of shard: its entry could never be applied here.
            (Action::System(_), StateMachine::Kv)
            | (Action::Command(_) | Action::Query(_), StateMachine::System(_)) => {
                out.replies.push((ticket, Err(Failure::NotLeader(None))));
            }
        }
    }

    fn read(&mut self, now: Moment, query: Query, ticket: T, out: &mut Effects<T>) {
        if !self.is_leader() {
            out.replies.push((ticket, Err(Failure::NotLeader(self.leader()))));
        } else if let Some(reply) = self.read_under_lease(now, &query) {
            out.replies.push((ticket, Ok(reply)));
        } else if let Err((_, ticket)) = self.reads.push((query, ticket)) {
            out.replies.push((ticket, Err(Failure::Overloaded)));
        }
    }

    fn read_under_lease(&self, now: Moment, query: &Query) -> Option<Reply> {
        match query.is_large() {
            true => self.view.is_leased(now).then_some(Reply::Confirmed),
            false => self.view.read_leased(|| now, query).map(Reply::Query),
        }
    }

    /// Turns what the drain brought into entries, as few as the limit on their size allows.
    pub(super) fn propose(&mut self, wall: Wall, out: &mut Effects<T>) {
        if self.incoming.is_empty() {
            return;
        }
        let incoming = std::mem::take(&mut self.incoming);
        if !self.is_leader() {
            let failure = Failure::NotLeader(self.leader());
            out.replies.extend(incoming.into_iter().map(|(_, ticket)| (ticket, Err(failure))));
            return;
        }
        let mut batch: Option<(Batch, Vec<T>)> = None;
        for (write, ticket) in incoming {
            match write {
                Write::Kv(command) => {
                    if let Some((full, tickets)) = batch.take_if(|(batch, _)| !batch.fits(&command)) {
                        self.propose_entry(full.finish(), tickets, out);
                    }
                    let (batch, tickets) = batch.get_or_insert_with(|| (Batch::new(self.next_stamp(wall)), Vec::new()));
                    batch.push(&command);
                    tickets.push(ticket);
                }
                Write::System(command) => {
                    let stamp = self.next_stamp(wall);
                    self.propose_entry(command.encode(stamp), vec![ticket], out);
                }
            }
        }
        if let Some((batch, tickets)) = batch {
            self.propose_entry(batch.finish(), tickets, out);
        }
    }

    fn next_stamp(&mut self, wall: Wall) -> Stamp {
        self.last_stamp = self.last_stamp.next(wall);
        self.last_stamp
    }

    fn propose_entry(&mut self, data: Bytes, tickets: Vec<T>, out: &mut Effects<T>) {
        let entry = Entry { data, ..Entry::default() };
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.id.0;
        message.set_entries(vec![entry].into());
        match self.raft.step(message) {
            Ok(()) => {
                let (index, term) = (self.raft.raft.raft_log.last_index(), self.raft.raft.term);
                out.counts.proposed_entries += 1;
                out.counts.proposed_commands += tickets.len() as u64;
                self.proposals.insert(index, term, tickets);
            }
            Err(_) => {
                let failure = match self.raft.raft.lead_transferee {
                    Some(transferee) => Failure::NotLeader(Some(ReplicaId(transferee).node())),
                    None => Failure::Overloaded,
                };
                out.replies.extend(tickets.into_iter().map(|ticket| (ticket, Err(failure))));
            }
        }
    }

    /// A new leader stamps above the last entry of its log, which it may not have applied yet.
    pub(super) fn learn_last_stamp(&mut self) {
        for logged in self.raft.store().entries_from(self.applied + 1) {
            if logged.get_entry_type() == EntryType::EntryNormal && !logged.data.is_empty() {
                let stamp = match &self.machine {
                    StateMachine::Kv => entry::stamp(&logged.data).ok(),
                    StateMachine::System(_) => SystemCommand::decode(&logged.data).map(|(stamp, _)| stamp).ok(),
                };
                self.last_stamp = self.last_stamp.max(stamp.unwrap_or_default());
            }
        }
    }

    /// Starts a ReadIndex round for the reads that have come since the last one.
    pub(super) fn ask_for_reads(&mut self) {
        // Before the first commit of the term raft-rs would drop the request without a word.
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
        let ready = self.reads.ready(self.applied);
        if !ready.is_empty() {
            let machine = self.view.machine();
            let answer = |query: Query| match query.is_large() {
                true => Reply::Confirmed,
                false => Reply::Query(query.answer(&machine)),
            };
            out.replies.extend(ready.into_iter().map(|(query, ticket)| (ticket, Ok(answer(query)))));
        }
    }

    /// This replica leads no more: its reads must be asked elsewhere.
    pub(super) fn refuse_reads(&mut self, out: &mut Effects<T>) {
        let failure = Failure::NotLeader(self.leader());
        out.replies.extend(self.reads.drain().into_iter().map(|(_, ticket)| (ticket, Err(failure))));
    }
}
