//! A shard's map as the threads that answer reads see it.
//!
//! The worker is the only writer; readers share the lock. A reader takes the read guard, then reads the clock and
//! checks the lease, then reads the map. That order makes the read linearizable: while the lease lasts no other leader
//! exists, so every acknowledged write has been applied here; and the map only advances.

use crate::kv::{Machine, Query, QueryReply};
use crate::time::Moment;
use crate::types::{LogIndex, NodeId, Point, ReplicaId, ShardId};
use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// One shard's replica on this node, shared between its worker and the readers.
pub struct ShardView {
    pub shard: ShardId,
    pub replica: ReplicaId,
    machine: RwLock<Machine>,
    /// Until when reads may be answered here without asking a quorum; zero if they may not.
    lease_until: AtomicU64,
    /// The latest moment at which this state is known to have held everything that was committed.
    fresh_at: AtomicU64,
    leader: AtomicU64,
    /// The node of the last known leader, while it is not heard and no other leader is known; zero for none.
    silent_leader: AtomicU64,
    /// No read may be answered here any more, whatever else is published.
    is_closed: AtomicBool,
    /// The hash that is reported to the other nodes, for comparison.
    point: Mutex<Option<(LogIndex, u64)>>,
}

impl ShardView {
    pub(crate) fn new(shard: ShardId, replica: ReplicaId, machine: Machine) -> ShardView {
        ShardView {
            shard,
            replica,
            machine: RwLock::new(machine),
            lease_until: AtomicU64::new(0),
            fresh_at: AtomicU64::new(0),
            leader: AtomicU64::new(0),
            silent_leader: AtomicU64::new(0),
            is_closed: AtomicBool::new(false),
            point: Mutex::new(None),
        }
    }

    /// Answers `query` linearizably, or returns none if this replica holds no lease: then the query goes through the
    /// worker.
    pub fn read_leased(&self, clock: impl FnOnce() -> Moment, query: &Query) -> Option<QueryReply> {
        if self.lease_until.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let machine = self.machine.read();
        let is_leased = clock().0 < self.lease_until.load(Ordering::Acquire);
        (is_leased && !self.is_closed()).then(|| query.answer(&machine))
    }

    /// Whether reads may be answered here at this moment.
    pub fn is_leased(&self, now: Moment) -> bool {
        now.0 < self.lease_until.load(Ordering::Acquire) && !self.is_closed()
    }

    /// Answers a query after the worker has [confirmed](crate::request::Reply::Confirmed) that this map holds
    /// everything that was acknowledged when the query arrived; the map only advances. `None` if the replica has ended
    /// meanwhile.
    pub fn read_confirmed(&self, query: &Query) -> Option<QueryReply> {
        let machine = self.machine.read();
        (!self.is_closed()).then(|| query.answer(&machine))
    }

    /// Answers `query` from a state that was the latest at most `bound` ago, or returns none if that is not certain.
    pub fn read_stale(&self, clock: impl FnOnce() -> Moment, bound: Duration, query: &Query) -> Option<QueryReply> {
        let machine = self.machine.read();
        let fresh_at = Moment(self.fresh_at.load(Ordering::Acquire));
        let is_fresh = fresh_at > Moment::default() && clock().saturating_since(fresh_at) <= bound;
        (is_fresh && !self.is_closed()).then(|| query.answer(&machine))
    }

    /// The node of the leader that this replica knows of.
    pub fn leader(&self) -> Option<NodeId> {
        let leader = self.leader.load(Ordering::Relaxed);
        (leader != 0).then_some(NodeId(leader))
    }

    /// The node of a leader that has not been heard for [`SILENT_TICKS`](crate::limits::SILENT_TICKS). A write that is
    /// sent there may end with an unknown outcome.
    pub fn silent_leader(&self) -> Option<NodeId> {
        let node = self.silent_leader.load(Ordering::Relaxed);
        (node != 0).then_some(NodeId(node))
    }

    /// Forgets a silent leader, if this replica knows of none now: the leader's node itself has been heard to lead. A
    /// replica that was moved away hears no leader any more, and must not keep writes from a leader that others hear.
    pub fn forget_silence(&self) {
        if self.leader().is_none() {
            self.silent_leader.store(0, Ordering::Relaxed);
        }
    }

    /// The number of keys and the bytes of the map.
    pub fn size(&self) -> (usize, usize) {
        let machine = self.machine.read();
        (machine.len(), machine.bytes())
    }

    /// The map, for the worker and for checks. Writers wait while it is held.
    pub fn machine(&self) -> RwLockReadGuard<'_, Machine> {
        self.machine.read()
    }

    /// Ends all reads here permanently: the replica has ended, or must.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    /// Whether no read is answered here any more.
    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// The hash to compare with those of other replicas, if there is one.
    pub fn point(&self) -> Option<Point> {
        let (index, hash) = (*self.point.lock())?;
        Some(Point { shard: self.shard, replica: self.replica, index, hash })
    }

    /// Flips a bit of an entry without the replica's knowledge. False if the map is empty.
    #[cfg(any(test, feature = "memory-faults"))]
    pub fn flip_a_bit(&self, nth: usize, bit: u32) -> bool {
        self.machine.write().flip_a_bit(nth, bit)
    }

    pub(crate) fn publish_point(&self, point: Option<(LogIndex, u64)>) {
        *self.point.lock() = point;
    }

    pub(crate) fn machine_mut(&self) -> RwLockWriteGuard<'_, Machine> {
        self.machine.write()
    }

    pub(crate) fn publish_lease(&self, until: Moment) {
        self.lease_until.store(until.0, Ordering::Release);
    }

    pub(crate) fn publish_fresh(&self, at: Moment) {
        self.fresh_at.fetch_max(at.0, Ordering::AcqRel);
    }

    /// Publishes the leader, and whether it is silent. A silent leader is remembered until there is another one.
    pub(crate) fn publish_leader(&self, leader: Option<NodeId>, is_silent: bool) {
        self.leader.store(leader.map_or(0, |node| node.0), Ordering::Relaxed);
        if let Some(node) = leader {
            self.silent_leader.store(if is_silent { node.0 } else { 0 }, Ordering::Relaxed);
        }
    }

    /// When this replica's lease ends, for checks.
    pub fn lease_until(&self) -> Moment {
        Moment(self.lease_until.load(Ordering::Acquire))
    }
}
