//! Whether a history could have come from registers that do one operation at a time.
//!
//! In general this is NP-complete. It is O(n log n) when every get tells which put it saw, which unique values give us
//! (Gibbons and Korach, "Testing shared memories", SIAM J. Comput. 26(4), 1997). Each key is checked alone:
//! linearizability is local (Herlihy and Wing, 1990).
//!
//! **Which operations count.**
//! - Gets without an answer constrain nothing and are dropped.
//! - A put that *failed* never happened. A get that returns its value is a violation; if there is none, the put is
//!   like one of unknown outcome that no get saw.
//! - A put of *unknown* outcome that some get saw did happen. Nothing is known to come after it, so it completes at
//!   infinity; by when it has taken effect at the latest, the gets say.
//! - One that no get saw may as well not have happened: taking it out of an explanation leaves one, because no get
//!   stands between it and the next put. At infinity it constrains nothing (its cluster comes before no other), which is
//!   the same as dropping it.
//! - Absence is the value of a put that completed before everything else.
//!
//! **Clusters.** A cluster A is one put and the gets that saw it. Let f(A) be the first completion in A and s(A) the last
//! invocation. If f(A) < s(B) for another cluster B, some operation of A completed before some operation of B began;
//! since a cluster's operations stand together in any explanation, all of A then comes before all of B: A -> B.
//!
//! **Theorem.** A history is linearizable if and only if (1) no get completed before its put began, and (2) no two
//! clusters have both A -> B and B -> A.
//!
//! *Only if* is plain. *If:* first, -> has no cycle. Take a shortest one, of at least three clusters, and in it the
//! cluster A with the least f. Let P be the cluster before A in it, and O the one before P. Then f(A) <= f(O) < s(P), hence
//! A -> P -> A, which (2) excludes. So put the clusters in an order that agrees with ->, and within each the put, then
//! the gets by invocation. It is a legal register history. It agrees with time: if a (in A) completed before b (in B)
//! began, then f(A) < s(B) and A comes first; within a cluster gets are by invocation, and by (1) none had to come
//! before the put.
//!
//! **Zones.** A cluster with f < s is a *forward* zone from f to s; otherwise all its operations overlap, and it is a
//! *backward* zone from s to f. (2) fails for two forward zones if they intersect, for a forward and a backward one if the
//! backward zone lies inside the forward one, and never for two backward zones. So: sort the forward zones, compare
//! neighbours, and find for each backward zone the one forward zone that could contain it.

mod violation;

#[cfg(test)]
mod exhaustive;

pub use violation::{Reason, Violation};

use crate::history::{Action, History, Operation, Outcome, Value};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// Checks every key of a history.
///
/// # Errors
///
/// A violation of the first key that has one.
pub fn check(history: &History) -> Result<(), Violation> {
    history.by_key().values().try_for_each(|operations| check_register(operations))
}

/// Checks the operations of one key, in any order.
///
/// # Errors
///
/// One of the violations found, with the few operations that prove it.
///
/// # Panics
///
/// If two puts write the same value: the theorem does not cover that.
pub fn check_register(operations: &[Operation]) -> Result<(), Violation> {
    let clusters = clusters(operations)?;
    let (mut forward, backward): (Vec<&Cluster>, Vec<&Cluster>) =
        clusters.iter().partition(|cluster| cluster.first_completion < cluster.last_invocation);

    forward.sort_unstable_by_key(|cluster| cluster.first_completion);
    for pair in forward.windows(2) {
        if pair[1].first_completion < pair[0].last_invocation {
            return Err(contradiction(pair[0], pair[1]));
        }
    }
    for inner in backward {
        let later = forward.partition_point(|outer| outer.first_completion < inner.last_invocation);
        // Forward zones are known to be disjoint by now, so an earlier one ends before this one starts.
        if let Some(outer) = later.checked_sub(1).map(|index| forward[index])
            && inner.first_completion < outer.last_invocation
        {
            return Err(contradiction(outer, inner));
        }
    }
    Ok(())
}

/// Before every event: when the initial value was written.
const BEGINNING: u64 = 0;
/// After every event: when a put that nobody acknowledged completes.
const INFINITY: u64 = u64::MAX;

/// A put and the gets that saw it.
struct Cluster {
    value: Option<Value>,
    /// `None` for the initial value, which nobody put.
    put: Option<Operation>,
    first_completion: u64,
    last_invocation: u64,
    first_completed: Option<Operation>,
    last_invoked: Option<Operation>,
}

impl Cluster {
    fn of_absence() -> Cluster {
        Cluster {
            value: None,
            put: None,
            first_completion: BEGINNING,
            last_invocation: BEGINNING,
            first_completed: None,
            last_invoked: None,
        }
    }

    fn of_put(value: Value, put: Operation) -> Cluster {
        Cluster {
            value: Some(value),
            put: Some(put),
            first_completion: put.completed().map_or(INFINITY, |completed| completed.order),
            last_invocation: put.invoked.order,
            first_completed: Some(put),
            last_invoked: Some(put),
        }
    }

    fn add_get(&mut self, get: Operation, completion: u64) {
        if completion < self.first_completion {
            self.first_completion = completion;
            self.first_completed = Some(get);
        }
        if get.invoked.order > self.last_invocation {
            self.last_invocation = get.invoked.order;
            self.last_invoked = Some(get);
        }
    }

    fn witnesses(&self) -> impl Iterator<Item = Operation> {
        [self.put, self.first_completed, self.last_invoked].into_iter().flatten()
    }
}

/// Groups what counts into clusters; fails at a get that no explanation can place.
fn clusters(operations: &[Operation]) -> Result<Vec<Cluster>, Violation> {
    let mut absence = Cluster::of_absence();
    let mut by_value: BTreeMap<Value, Cluster> = BTreeMap::new();
    for put in operations {
        let Action::Put(value) = put.action else { continue };
        match by_value.entry(value) {
            Entry::Vacant(vacant) => vacant.insert(Cluster::of_put(value, *put)),
            Entry::Occupied(_) => panic!("value {value} was put twice to key {}", put.key),
        };
    }
    for get in operations {
        let Outcome::Read(completed, read) = get.outcome else { continue };
        let Some(value) = read else {
            absence.add_get(*get, completed.order);
            continue;
        };
        let Some(cluster) = by_value.get_mut(&value) else {
            return Err(Violation::new(Reason::NeverPut(value), [*get]));
        };
        let put = cluster.put.expect("a cluster by value has a put");
        if put.outcome == Outcome::Failed {
            return Err(Violation::new(Reason::PutFailed(value), [put, *get]));
        }
        if completed < put.invoked {
            return Err(Violation::new(Reason::ReadBeforePut(value), [put, *get]));
        }
        cluster.add_get(*get, completed.order);
    }
    Ok(by_value.into_values().chain([absence]).collect())
}

fn contradiction(one: &Cluster, other: &Cluster) -> Violation {
    Violation::new(Reason::BothOrders(one.value, other.value), one.witnesses().chain(other.witnesses()))
}
