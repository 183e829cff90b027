//! A stderr that is never read: a pipe to a hung process, or a file on a hung disk.

use crate::support::{Cluster, program};
use rustix::process::Signal;
use std::io::{PipeReader, PipeWriter, Write, pipe};

/// A pipe that is full until its reader is dropped.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = pipe().unwrap();
    let mut filler = writer.try_clone().unwrap();
    // The last write blocks, and fails once the reader is gone.
    std::thread::spawn(move || while filler.write_all(&[b'.'; 4096]).is_ok() {});
    (reader, writer)
}

#[test]
fn a_node_whose_stderr_nobody_reads_serves_and_ends_when_it_must() {
    let mut cluster = Cluster::prepare(1, &["--shards=1", "--segment-bytes=1048576", "--disk-timeout=2s"]);
    let (_reader, writer) = full_pipe();
    let start = |cluster: &mut Cluster| {
        cluster.nodes[0].start_with_stderr(program(), writer.try_clone().unwrap());
        cluster.wait_until_complete(1);
    };
    cluster.nodes[0].take_disk_faults();

    start(&mut cluster);
    assert!(cluster.nodes[0].stop(Signal::TERM).success(), "it stops in an orderly way");

    start(&mut cluster);
    cluster.nodes[0].hang_disk();
    cluster.runs(&["put", "k", "v", "--timeout=500ms"]);
    assert_eq!(cluster.nodes[0].ends(), None, "it aborts (--disk-timeout)");
    cluster.nodes[0].heal_disk();

    start(&mut cluster);
    std::fs::remove_dir_all(&cluster.nodes[0].directory).unwrap();
    assert_eq!(cluster.nodes[0].ends(), Some(2), "what it acknowledges would not survive");
}
