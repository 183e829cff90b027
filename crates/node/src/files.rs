//! File descriptors: how many this process may have open, and what they are reserved for.
//!
//! Each connection and each open file needs one. If clients could take all of them, the log could not create its next
//! segment, no snapshot could be written, other nodes could not connect, and monitoring would fail. So the limit is
//! divided at the start: clients get what the node itself and the other nodes leave, and are refused first.

use crate::start_error::StartError;
use std::io;
use std::time::Duration;

/// Connections of clients at the same time; further ones are closed at once.
const MAX_CLIENTS: u64 = 10_000;

/// Connections of other nodes at the same time: two from each, and one for each snapshot.
const MAX_PEERS: u64 = 2_048;

/// Reserved for the node itself: [`MONITORS`], its log and snapshots, its own connections to other nodes and to nodes
/// that call it, its runtime.
pub const OWN_FILES: u64 = 128;

/// Connections of monitoring at the same time; the next ones wait until one has ended.
pub const MONITORS: usize = 32;

/// A node does not start with fewer descriptors: too few would be left for clients and other nodes.
const MIN_FILES: u64 = 192;

/// The pause after a connection could not be accepted, usually because descriptors have run out.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const WANTED_FILES: u64 = OWN_FILES + MAX_PEERS + MAX_CLIENTS;

const _: () = assert!(MONITORS as u64 <= OWN_FILES / 4);
const _: () = assert!(MIN_FILES >= OWN_FILES + 64);

/// How many connections each port takes at the same time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FileShares {
    pub clients: usize,
    pub peers: usize,
}

impl FileShares {
    /// Raises the limit to what a node may need, as far as the system permits, and divides it.
    pub fn secure() -> Result<FileShares, StartError> {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let limit = getrlimit(Resource::Nofile);
        let wanted = limit.maximum.map_or(WANTED_FILES, |maximum| maximum.min(WANTED_FILES));
        if limit.current.is_some_and(|current| current < wanted) {
            let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
            if let Err(error) = setrlimit(Resource::Nofile, raised) {
                tracing::warn!("could not raise the limit on open files to {wanted}: {error}");
            }
        }
        FileShares::of(getrlimit(Resource::Nofile).current.unwrap_or(WANTED_FILES))
    }

    fn of(limit: u64) -> Result<FileShares, StartError> {
        if limit < MIN_FILES {
            return Err(StartError::FewFiles { limit, needed: MIN_FILES });
        }
        let left = limit - OWN_FILES;
        let peers = (left / 4).min(MAX_PEERS);
        let clients = (left - peers).min(MAX_CLIENTS);
        Ok(FileShares { clients: clients as usize, peers: peers as usize })
    }
}

/// Whether an error says that the process, or the whole system, has no descriptor left.
pub fn are_used_up(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_what_the_node_and_its_peers_leave() {
        assert!(FileShares::of(MIN_FILES - 1).is_err());
        assert_eq!(FileShares::of(256).unwrap(), FileShares { clients: 96, peers: 32 });
        assert_eq!(FileShares::of(WANTED_FILES).unwrap(), FileShares { clients: 10_000, peers: 2_048 });
        for limit in [MIN_FILES, 256, 1024, 65_536] {
            let shares = FileShares::of(limit).unwrap();
            assert!((shares.clients + shares.peers) as u64 + OWN_FILES <= limit);
        }
    }

    #[test]
    fn a_lack_of_descriptors_is_told_from_a_lack_of_space() {
        assert!(are_used_up(&rustix::io::Errno::MFILE.into()));
        assert!(are_used_up(&rustix::io::Errno::NFILE.into()));
        assert!(!are_used_up(&rustix::io::Errno::NOSPC.into()));
        assert!(!are_used_up(&io::ErrorKind::StorageFull.into()));
    }
}
