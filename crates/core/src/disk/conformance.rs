//! What every [`Disk`] must do, as far as it can be tested without a power failure. Run on both implementations.

use super::Disk;
use std::io::ErrorKind;

/// Panics if a disk does not conform. `empty` makes a new disk without files at each call.
pub fn run<D: Disk>(mut empty: impl FnMut() -> D) {
    reads_what_was_written(&empty());
    extends_a_file(&empty());
    preallocates_zeros(&empty());
    replaces_a_file(&empty());
    renames_over_a_file(&empty());
    deletes_a_file(&empty());
    lists_in_order(&empty());
    misses_files(&empty());
}

fn reads_what_was_written(disk: &impl Disk) {
    disk.create("a").unwrap();
    disk.create("b").unwrap();
    disk.write_at("a", 0, b"hello world").unwrap();
    disk.write_at("b", 0, b"other").unwrap();
    disk.write_at("a", 6, b"there").unwrap();
    assert_eq!(disk.read_at("a", 0, 11).unwrap(), b"hello there", "a write in the middle replaces just that");
    assert_eq!(disk.read_at("a", 6, 3).unwrap(), b"the");
    assert_eq!(disk.read_at("a", 6, 100).unwrap(), b"there", "a read ends with the file");
    assert_eq!(disk.read_at("a", 11, 1).unwrap(), b"");
    assert_eq!(disk.read_at("a", 1000, 1).unwrap(), b"", "a read behind the end is empty");
    disk.sync("a").unwrap();
    assert_eq!(disk.read_at("a", 0, 11).unwrap(), b"hello there");
}

fn extends_a_file(disk: &impl Disk) {
    disk.create("a").unwrap();
    assert_eq!(disk.size("a").unwrap(), Some(0));
    disk.write_at("a", 1000, b"end").unwrap();
    assert_eq!(disk.size("a").unwrap(), Some(1003));
    assert_eq!(disk.read_at("a", 998, 5).unwrap(), b"\0\0end", "what was never written is zero");
}

fn preallocates_zeros(disk: &impl Disk) {
    disk.preallocate("a", 3_000_001, &mut || {}).unwrap();
    assert_eq!(disk.size("a").unwrap(), Some(3_000_001));
    assert!(disk.read_at("a", 0, 3_000_001).unwrap().iter().all(|byte| *byte == 0));
    disk.write_at("a", 512, b"x").unwrap();
    assert_eq!(disk.size("a").unwrap(), Some(3_000_001));
}

fn replaces_a_file(disk: &impl Disk) {
    disk.create("a").unwrap();
    disk.write_at("a", 0, b"old").unwrap();
    disk.preallocate("a", 2, &mut || {}).unwrap();
    assert_eq!(disk.read_at("a", 0, 10).unwrap(), [0, 0]);
    disk.write_at("a", 0, b"x").unwrap();
    disk.create("a").unwrap();
    assert_eq!(disk.size("a").unwrap(), Some(0));
    disk.write_at("a", 0, b"new").unwrap();
    assert_eq!(disk.read_at("a", 0, 10).unwrap(), b"new");
}

fn renames_over_a_file(disk: &impl Disk) {
    disk.create("a").unwrap();
    disk.create("b").unwrap();
    disk.write_at("a", 0, b"from a").unwrap();
    disk.write_at("b", 0, b"from b, longer").unwrap();
    disk.rename("a", "b").unwrap();
    assert_eq!(disk.size("a").unwrap(), None);
    assert_eq!(disk.read_at("b", 0, 100).unwrap(), b"from a");
    disk.write_at("b", 5, b"b").unwrap();
    disk.sync("b").unwrap();
    assert_eq!(disk.read_at("b", 0, 100).unwrap(), b"from b");
    disk.create("a").unwrap();
    assert_eq!(disk.size("a").unwrap(), Some(0), "the old name is another file from now on");
    assert_eq!(disk.read_at("b", 0, 100).unwrap(), b"from b");
}

fn deletes_a_file(disk: &impl Disk) {
    disk.create("a").unwrap();
    disk.write_at("a", 0, b"x").unwrap();
    disk.delete("a").unwrap();
    assert_eq!(disk.size("a").unwrap(), None);
    assert_eq!(disk.read_at("a", 0, 1).unwrap_err().kind(), ErrorKind::NotFound);
    disk.delete("a").unwrap();
}

fn lists_in_order(disk: &impl Disk) {
    assert!(disk.list().unwrap().is_empty());
    for name in ["log-2.seg", "b", "log-1.seg", "a.tmp"] {
        disk.create(name).unwrap();
    }
    assert_eq!(disk.list().unwrap(), ["a.tmp", "b", "log-1.seg", "log-2.seg"]);
}

fn misses_files(disk: &impl Disk) {
    assert_eq!(disk.size("a").unwrap(), None);
    assert_eq!(disk.read_at("a", 0, 1).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(disk.write_at("a", 0, b"x").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(disk.sync("a").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(disk.rename("a", "b").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(disk.size("a").unwrap(), None, "none of these makes a file");
}
