//! A snapshot's file is there until its transfer has ended (`ringfort_core::replica::transfers`), whatever newer snapshots
//! are taken meanwhile.

use super::Scene;
use crate::invariant::{Invariant, Violation};

pub fn check(scene: &Scene) -> Result<(), Violation> {
    match scene.running.vanished_files().first() {
        None => Ok(()),
        Some(file) => {
            let what = format!("{file} went while node {} was sending it", scene.id);
            Err(Invariant::HeldSnapshots.broken(what))
        }
    }
}
