//! A readable record of a run: faults, leaders, and clients' operations and answers, one per line.

use crate::history::{ClientId, Key};
use ringfort_check::{Kind, Operation};
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

    /// A node leads a shard; adds a line if that is new.
    pub(super) fn leads(&mut self, now: Moment, shard: ShardId, term: Term, node: NodeId) {
        if self.leaders.insert((shard, term, node)) {
            self.note(now, format!("node {node} leads shard {shard} in term {term}"));
        }
    }

    pub(super) fn operation_began(&mut self, now: Moment, (key, operation): (Key, &Operation)) {
        let what = match &operation.kind {
            Kind::Put { value, .. } => format!("puts {value} to"),
            Kind::Get { .. } => "gets".to_owned(),
            Kind::Delete { .. } => "deletes".to_owned(),
            Kind::Increment { by, .. } => format!("adds {by} to"),
            Kind::Append { value, .. } => format!("appends {value} to"),
        };
        self.note(now, format!("{} {what} key {key}", ClientId(operation.client)));
    }

    pub(super) fn operation_ended(&mut self, now: Moment, (key, operation): (Key, &Operation)) {
        let what = match &operation.kind {
            Kind::Put { value, .. } => format!("{value} is put to key {key}"),
            Kind::Get { found: Some(found) } => format!("key {key} is {}", found.content),
            Kind::Get { found: None } | Kind::Delete { found: Some(false) } => format!("key {key} is absent"),
            Kind::Delete { .. } => format!("key {key} is deleted"),
            Kind::Increment { by, .. } => format!("{by} is added to key {key}"),
            Kind::Append { value, .. } => format!("{value} is appended to key {key}"),
        };
        self.note(now, format!("{} is told that {what}", ClientId(operation.client)));
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
