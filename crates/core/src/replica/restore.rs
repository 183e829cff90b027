//! A replica's state, built from a snapshot's header and chunks.

use super::Restored;
use crate::disk::Disk;
use crate::kv::state::{BuildError, CutMeta, CutMetaError, MachineBuilder};
use crate::limits::MAX_PEER_MESSAGE_BYTES;
use crate::snapshot::{SnapshotError, SnapshotHeader, SnapshotReader};
use crate::system::{DecodeError, SystemMachine, Topology};
use crate::time::HlcTimestamp;
use crate::types::ShardId;
use std::sync::Arc;

/// Why a snapshot's content is not a valid state. Nothing has been changed.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("the snapshot's description is damaged: {0}")]
    Meta(#[from] CutMetaError),
    #[error("the snapshot's content is damaged: {0}")]
    Build(#[from] BuildError),
    #[error("the system shard's snapshot is damaged: {0}")]
    System(#[from] DecodeError),
    #[error("the system shard's snapshot is larger than {MAX_PEER_MESSAGE_BYTES} bytes")]
    TooLarge,
}

/// Reads a whole snapshot file: its header, and the state in it.
pub fn load<D: Disk + ?Sized>(disk: &Arc<D>, name: &str) -> Result<(SnapshotHeader, Restored), LoadError> {
    let mut reader = SnapshotReader::open(disk.clone(), name)?;
    let header = reader.header().clone();
    let mut restoring = Restoring::begin(&header)?;
    while let Some(chunk) = reader.next_chunk()? {
        restoring.push_chunk(&chunk)?;
    }
    Ok((header, restoring.finish()?))
}

/// Why a snapshot file could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Read(#[from] SnapshotError),
    #[error(transparent)]
    Restore(#[from] RestoreError),
}

/// A state being built from chunks, in their order.
pub enum Restoring {
    Kv(MachineBuilder),
    System { timestamp: HlcTimestamp, bytes: Vec<u8> },
}

impl Restoring {
    pub fn begin(header: &SnapshotHeader) -> Result<Restoring, RestoreError> {
        let meta = CutMeta::decode(&header.meta)?;
        Ok(if header.shard == ShardId::SYSTEM {
            Restoring::System { timestamp: meta.timestamp, bytes: Vec::new() }
        } else {
            Restoring::Kv(MachineBuilder::new(meta))
        })
    }

    pub fn push_chunk(&mut self, chunk: &[u8]) -> Result<(), RestoreError> {
        match self {
            Restoring::Kv(builder) => builder.push_chunk(chunk)?,
            Restoring::System { bytes, .. } => {
                if bytes.len() + chunk.len() > MAX_PEER_MESSAGE_BYTES {
                    return Err(RestoreError::TooLarge);
                }
                bytes.extend_from_slice(chunk);
            }
        }
        Ok(())
    }

    pub fn finish(self) -> Result<Restored, RestoreError> {
        Ok(match self {
            Restoring::Kv(builder) => Restored::Kv(builder.finish()?),
            Restoring::System { timestamp, bytes } => {
                Restored::System(SystemMachine::new(Topology::decode(&bytes)?, timestamp))
            }
        })
    }
}
