//! Finds which node's process is at the other end of a connection.
//!
//! `/proc/net/tcp` names the inode of each socket, and `/proc/PID/fd` those that a process has open. A user's own
//! processes can be inspected without root.

use rustix::process::Pid;
use std::fs;
use std::net::SocketAddrV4;

/// The node, by its number, whose process dialled: `peer` is its end of the connection, `local` the other one.
pub fn find(peer: SocketAddrV4, local: SocketAddrV4, processes: &[Option<Pid>]) -> Option<usize> {
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let wanted = format!("socket:[{}]", inode(&table, peer, local)?);
    processes.iter().position(|process| process.is_some_and(|process| has_open(process, &wanted)))
}

/// The inode of the socket with these two ends.
fn inode(table: &str, own: SocketAddrV4, other: SocketAddrV4) -> Option<&str> {
    let (own, other) = (in_hex(own), in_hex(other));
    table.lines().find_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
        [_, local, remote, _, _, _, _, _, _, inode, ..] if local == own && remote == other => Some(inode),
        _ => None,
    })
}

/// As Linux writes it: the address as a number of this machine's byte order, then the port.
fn in_hex(address: SocketAddrV4) -> String {
    format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port())
}

fn has_open(process: Pid, file: &str) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{process}/fd")) else { return false };
    files.flatten().any(|entry| fs::read_link(entry.path()).is_ok_and(|target| target.as_os_str() == file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::getpid;
    use std::net::{SocketAddr, TcpListener, TcpStream};

    fn v4(address: SocketAddr) -> SocketAddrV4 {
        match address {
            SocketAddr::V4(address) => address,
            SocketAddr::V6(address) => panic!("{address} is not of version 4"),
        }
    }

    #[test]
    fn the_process_that_dialled_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let local = v4(listener.local_addr().unwrap());
        let dialled = TcpStream::connect(local).unwrap();
        let peer = v4(dialled.local_addr().unwrap());
        let processes = [None, rustix::process::getppid(), Some(getpid())];
        assert_eq!(find(peer, local, &processes), Some(2));
        assert_eq!(find(peer, local, &processes[..2]), None);
        assert_eq!(find(SocketAddrV4::new(*peer.ip(), 1), local, &processes), None);
    }
}
