//! Whether a node is fit to lead, and to get new replicas.
//!
//! A node whose disk hangs still answers heartbeats, because these do not wait for the disk. So a failure detector
//! considers it healthy, its followers stay, and its shards take no writes. (This kind of fault is known as gray
//! failure: Huang et al., HotOS 2017.) Therefore each node monitors its own disk ([`HealthMonitor`]) and gossips the
//! result ([`NodeHealth`]). The consequences:
//!
//! | component | what it does |
//! |---|---|
//! | a node whose disk hangs | hands its leaderships over, a few at a time, each after a quorum without this node has proved that its disks work (`replica::handover`); refuses writes before proposing them; drops entries from other leaders beyond [`MAX_UNSYNCED_BYTES`] ([`Admission`]) |
//! | a leader that hands over | chooses a voter whose node does not [abstain](NodeHealth::abstention); if there is none, one whose disk hung or was full recently |
//! | the controller | gives no replica and no leadership to a node that abstains, or that was away and has not been back for long (`control::leadership`) |
//! | the shell | ends the process when the disk has not answered for `disk-timeout` |
//!
//! [`MAX_UNSYNCED_BYTES`]: crate::limits::MAX_UNSYNCED_BYTES

mod admission;
mod monitor;

pub use admission::Admission;
pub use monitor::{DiskReport, HealthConfig, HealthMonitor};

use crate::codec::{CodecError, Reader, put_varint};
use crate::types::NodeId;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The health that each node last reported. A node that is missing has not reported, and counts as healthy.
pub type HealthView = Arc<BTreeMap<NodeId, NodeHealth>>;

/// A node's report of its own health.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NodeHealth {
    pub disk: DiskState,
    /// The longest recent latency of a log record until it was durable, in milliseconds, rounded up to a power of two
    /// so that it rarely changes; 0 below one millisecond.
    pub sync_latency_ms: u32,
    /// The node is stopping, and hands its leaderships over.
    pub is_stopping: bool,
}

/// The state of a node's disk, from good to bad.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum DiskState {
    #[default]
    Healthy,
    /// It answers, but late. Its node works as usual.
    Slow,
    /// It hung or was full, and has not been healthy for long enough since.
    Recovering,
    /// The log can't grow: there is no disk space, or the process has no file descriptor left.
    Full,
    /// It does not answer.
    Hung,
}

/// Why a node must be given no leadership and no new replicas.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Abstention {
    Stopping,
    DiskRecovering,
    DiskFull,
    DiskHung,
}

impl DiskState {
    pub const ALL: [DiskState; 5] =
        [DiskState::Healthy, DiskState::Slow, DiskState::Recovering, DiskState::Full, DiskState::Hung];
}

impl NodeHealth {
    /// Why the node abstains, if it does.
    pub fn abstention(self) -> Option<Abstention> {
        match self.disk {
            _ if self.is_stopping => Some(Abstention::Stopping),
            DiskState::Healthy | DiskState::Slow => None,
            DiskState::Recovering => Some(Abstention::DiskRecovering),
            DiskState::Full => Some(Abstention::DiskFull),
            DiskState::Hung => Some(Abstention::DiskHung),
        }
    }

    /// Whether the node can take over a leadership. A node whose disk is recovering can: the controller prefers other
    /// nodes to it, but prefers it to a node whose disk hangs now.
    pub fn can_lead(self) -> bool {
        matches!(self.abstention(), None | Some(Abstention::DiskRecovering))
    }

    pub(crate) fn encode(self, out: &mut Vec<u8>) {
        out.push(match self.disk {
            DiskState::Healthy => 0,
            DiskState::Slow => 1,
            DiskState::Recovering => 2,
            DiskState::Full => 3,
            DiskState::Hung => 4,
        });
        put_varint(out, self.sync_latency_ms.into());
        out.push(self.is_stopping.into());
    }

    /// A state that this version of the program does not know counts as hung, so that the node is given nothing.
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<NodeHealth, CodecError> {
        let disk = match reader.u8()? {
            0 => DiskState::Healthy,
            1 => DiskState::Slow,
            2 => DiskState::Recovering,
            3 => DiskState::Full,
            _ => DiskState::Hung,
        };
        let sync_latency_ms = u32::try_from(reader.varint()?).unwrap_or(u32::MAX);
        Ok(NodeHealth { disk, sync_latency_ms, is_stopping: reader.u8()? != 0 })
    }
}

/// Whether `node` can take over a leadership, as far as this node knows.
pub fn can_lead(view: &BTreeMap<NodeId, NodeHealth>, node: NodeId) -> bool {
    view.get(&node).is_none_or(|health| health.can_lead())
}

/// Why `node` abstains, if it is known to.
pub fn abstention(view: &BTreeMap<NodeId, NodeHealth>, node: NodeId) -> Option<Abstention> {
    view.get(&node).and_then(|health| health.abstention())
}

impl fmt::Display for DiskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DiskState::Healthy => "healthy",
            DiskState::Slow => "slow",
            DiskState::Recovering => "recovering",
            DiskState::Full => "full",
            DiskState::Hung => "hung",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_survives_its_encoding_and_keeps_its_bytes() {
        for disk in DiskState::ALL {
            let health = NodeHealth { disk, sync_latency_ms: 512, is_stopping: disk == DiskState::Full };
            let mut out = Vec::new();
            health.encode(&mut out);
            let mut reader = Reader::new(&out);
            assert_eq!(NodeHealth::decode(&mut reader), Ok(health));
            assert!(reader.is_empty());
        }
        let mut out = Vec::new();
        NodeHealth { disk: DiskState::Full, sync_latency_ms: 300, is_stopping: true }.encode(&mut out);
        assert_eq!(out, [3, 0xac, 2, 1]);
        let unknown = NodeHealth::decode(&mut Reader::new(&[77, 0, 0])).unwrap();
        assert_eq!(unknown.abstention(), Some(Abstention::DiskHung));
    }
}
