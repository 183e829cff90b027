//! What happened in a run, for people: faults, who leads, what clients asked and were told, a line each.

use crate::history::{Action, Operation, Outcome};
use ringfort_core::time::Moment;
use ringfort_core::types::{NodeId, ShardId, Term};
use std::collections::BTreeSet;
use std::fmt;

/// The lines so far, in the order in which things happened.
#[derive(Default)]
pub struct Timeline {
    lines: Vec<(Moment, String)>,
    leaders: BTreeSet<(ShardId, Term, NodeId)>,
}

impl Timeline {
    pub fn note(&mut self, now: Moment, what: String) {
        self.lines.push((now, what));
    }

    /// A node leads a shard; worth a line when it is new.
    pub(super) fn leads(&mut self, now: Moment, shard: ShardId, term: Term, node: NodeId) {
        if self.leaders.insert((shard, term, node)) {
            self.note(now, format!("node {node} leads shard {shard} in term {term}"));
        }
    }

    pub(super) fn operation_began(&mut self, now: Moment, operation: &Operation) {
        let Operation { client, key, .. } = operation;
        let what = match operation.action {
            Action::Put(value) => format!("{client} puts {value} to key {key}"),
            Action::Get => format!("{client} gets key {key}"),
            Action::Delete => format!("{client} deletes key {key}"),
        };
        self.note(now, what);
    }

    pub(super) fn operation_ended(&mut self, now: Moment, operation: &Operation) {
        let Operation { client, key, .. } = operation;
        let what = match (operation.action, operation.outcome) {
            (Action::Put(value), _) => format!("{client} is told that {value} is put to key {key}"),
            (Action::Get, Outcome::Read(_, Some(value))) => format!("{client} is told that key {key} is {value}"),
            (Action::Get, _) | (Action::Delete, Outcome::Deleted(_, false)) => {
                format!("{client} is told that key {key} is absent")
            }
            (Action::Delete, _) => format!("{client} is told that key {key} is deleted"),
        };
        self.note(now, what);
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, what) in &self.lines {
            writeln!(f, "{:>12.6} s  {what}", at.0 as f64 / 1e9)?;
        }
        Ok(())
    }
}
