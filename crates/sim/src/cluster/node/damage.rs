//! The kinds of damage to bytes on a disk.

use crate::random::Random;
use ringfort_core::disk::mem::MemDisk;
use ringfort_core::disk::{Disk, SECTOR_BYTES};
use std::fmt;

pub enum Damage {
    /// A bit has flipped.
    Flipped { file: String, at: u64 },
    /// A sector that was synced was never written.
    Lost { file: String, sector: u64 },
    /// A sector was written in place of another one.
    Misdirected { file: String, from: u64, to: u64 },
    /// Segments of the log are missing: the first ones, the last ones, or all.
    SegmentsMissing(Vec<String>),
}

impl Damage {
    /// Damages a file somewhere around `at`, which is below `within`.
    pub(super) fn inflict(disk: &MemDisk, name: &str, at: u64, within: u64, random: &mut Random) -> Damage {
        let file = name.to_owned();
        let sector = at / SECTOR_BYTES as u64;
        match random.below(4) {
            0 => {
                disk.erase_sector(name, sector);
                Damage::Lost { file, sector }
            }
            1 => {
                let to = random.below(within) / SECTOR_BYTES as u64;
                disk.misdirect_sector(name, sector, to);
                Damage::Misdirected { file, from: sector, to }
            }
            _ => {
                disk.corrupt(name, at, 1 << random.below(8));
                Damage::Flipped { file, at }
            }
        }
    }

    /// Deletes segments of the log, in order in `segments`.
    pub(super) fn delete(disk: &MemDisk, mut segments: Vec<String>, random: &mut Random) -> Damage {
        let kept = random.below(segments.len() as u64) as usize;
        match random.below(3) {
            0 => {}
            1 => drop(segments.drain(..kept)),
            _ => segments.truncate(segments.len() - kept),
        }
        for name in &segments {
            disk.delete(name).expect("this disk deletes");
        }
        Damage::SegmentsMissing(segments)
    }

    pub fn name(&self) -> &'static str {
        match self {
            Damage::SegmentsMissing(_) => "segments missing",
            Damage::Flipped { .. } => "bits flipped",
            Damage::Lost { .. } => "sectors lost",
            Damage::Misdirected { .. } => "sectors misdirected",
        }
    }

    /// Whether the disk may look as if the last write had never been made, which no checksum detects.
    pub fn leaves_no_trace(&self) -> bool {
        !matches!(self, Damage::Flipped { .. } | Damage::SegmentsMissing(_))
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Flipped { file, at } => write!(f, "a bit of byte {at} of {file} has flipped"),
            Damage::SegmentsMissing(segments) => write!(f, "{} are missing", segments.join(", ")),
            Damage::Lost { file, sector } => write!(f, "sector {sector} of {file} was never written"),
            Damage::Misdirected { file, from, to } => {
                write!(f, "sector {from} of {file} was written over sector {to}")
            }
        }
    }
}
