//! Damages files of a stopped node as a disk might: flips a bit, or truncates a file.
//!
//! Only written parts are damaged: regions that are still zeros hold no data.

use crate::random::Random;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A disk's smallest unit. In a log segment, sectors that were never written are zeros.
const SECTOR_BYTES: usize = 512;

/// Files with these names hold the data: segments of the log, and snapshots.
const LOG_PREFIX: &str = "log-";
const SNAPSHOT_PREFIX: &str = "snap-";

/// Damages one file of a node's directory. Returns what was done, or `None` if there is nothing to damage.
pub fn inflict(directory: &Path, random: &mut Random) -> io::Result<Option<String>> {
    let prefix = random.choose(&[LOG_PREFIX, LOG_PREFIX, SNAPSHOT_PREFIX]);
    let mut files = files(directory, prefix)?;
    if files.is_empty() {
        files = self::files(directory, LOG_PREFIX)?;
    }
    let order = random.shuffled(files.len());
    for path in order.into_iter().map(|number| &files[number]) {
        let bytes = fs::read(path)?;
        let written: Vec<usize> = bytes
            .chunks(SECTOR_BYTES)
            .enumerate()
            .filter(|(_, sector)| sector.iter().any(|byte| *byte != 0))
            .map(|(number, _)| number)
            .collect();
        if written.is_empty() {
            continue;
        }
        let sector = random.choose(&written) * SECTOR_BYTES;
        let at = sector + random.below(SECTOR_BYTES.min(bytes.len() - sector));
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let file = OpenOptions::new().write(true).open(path)?;
        if random.percent(30) {
            file.set_len(at as u64)?;
            return Ok(Some(format!("{name} truncated to {at} of {} bytes", bytes.len())));
        }
        let bit = random.below(8);
        file.write_all_at(&[bytes[at] ^ (1 << bit)], at as u64)?;
        return Ok(Some(format!("bit {bit} of byte {at} in {name} flipped")));
    }
    Ok(None)
}

fn files(directory: &Path, prefix: &str) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_written_place_is_damaged() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log-1.seg");
        let mut intact = vec![0; 8 * SECTOR_BYTES];
        intact[3 * SECTOR_BYTES..4 * SECTOR_BYTES].fill(7);
        let (mut flipped, mut cut) = (0, 0);
        for seed in 0..50 {
            fs::write(&path, &intact).unwrap();
            let said = inflict(directory.path(), &mut Random::seeded(seed)).unwrap().unwrap();
            let found = fs::read(&path).unwrap();
            if found.len() < intact.len() {
                assert!((3 * SECTOR_BYTES..4 * SECTOR_BYTES).contains(&found.len()), "{said}");
                cut += 1;
            } else {
                let changed: Vec<usize> = (0..intact.len()).filter(|at| found[*at] != intact[*at]).collect();
                assert!(matches!(changed[..], [at] if at / SECTOR_BYTES == 3), "{said}: {changed:?}");
                flipped += 1;
            }
        }
        assert!(flipped > 0 && cut > 0);
    }

    #[test]
    fn nothing_is_done_where_nothing_was_written() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(inflict(directory.path(), &mut Random::seeded(1)).unwrap(), None);
        fs::write(directory.path().join("log-1.seg"), [0; 4096]).unwrap();
        assert_eq!(inflict(directory.path(), &mut Random::seeded(1)).unwrap(), None);
    }
}
