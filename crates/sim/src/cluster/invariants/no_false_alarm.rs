//! The divergence detector raises no alarm without a reason (`ringfort_core::divergence`): replicas agree at equal
//! index, and memory is sound, until a run damages it.

use super::Scene;
use crate::invariant::{Invariant, Violation};

pub fn check(scene: &Scene) -> Result<(), Violation> {
    match scene.running.alarms().first() {
        None => Ok(()),
        Some(alarm) => Err(Invariant::NoFalseAlarm.broken(format!("node {} says: {alarm}", scene.id))),
    }
}
