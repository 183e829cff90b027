//! How a non-linearizable history is shown, for all commands that check histories of real processes.
//!
//! | module | |
//! |---|---|
//! | [`values`] | the values that clients write, which identify their writer |
//! | [`timeline`] | a drawing for a terminal |
//! | [`page`] | a drawing for a browser |

mod page;
mod timeline;
mod values;

use crate::text::escaped;
use bytes::Bytes;
use ringfort_check::{Time, Violation};
use serde::Serialize;

pub use page::page;
pub use values::Values;

/// Clients that take the last reads have numbers from this one on; all others have smaller numbers.
pub const FIRST_LOOKER: u32 = 1 << 16;

/// A violation, for JSON and for text.
#[derive(Serialize, Debug)]
pub struct ViolationReport {
    pub key: String,
    pub reason: String,
    /// The few operations that no order explains.
    pub operations: Vec<OperationReport>,
    #[serde(skip)]
    /// The lines of a drawing.
    pub drawing: Vec<String>,
}

#[derive(Serialize, Debug)]
pub struct OperationReport {
    pub client: String,
    pub operation: String,
    pub invoked_ms: f64,
    /// `null` if there was no answer.
    pub completed_ms: Option<f64>,
}

impl ViolationReport {
    pub fn new(key: &Bytes, violation: &Violation) -> ViolationReport {
        let in_milliseconds = |time: Time| time.0 as f64 / 1e6;
        let operations = violation.operations.iter().map(|operation| OperationReport {
            client: timeline::client(operation),
            operation: timeline::describe(operation),
            invoked_ms: in_milliseconds(operation.invoked),
            completed_ms: operation.completed().map(in_milliseconds),
        });
        ViolationReport {
            key: escaped(key),
            reason: violation.reason.to_string(),
            operations: operations.collect(),
            drawing: timeline::draw(violation),
        }
    }
}
