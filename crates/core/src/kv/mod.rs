//! The keys and values of a shard: what can be asked, and the state that it makes.
//!
//! | module | the idea in it |
//! |---|---|
//! | [`op`] | the operations, a file each, and the table that lists them |
//! | [`entry`] | an entry of a shard's Raft log: a stamp and commands |
//! | [`state`] | the state machine, which commands change and queries read |
//!
//! **An operation is one file and one line.** The file in `op` holds its fields, their encoding, the limits that it
//! keeps, the key that it names, what it does to the state or reads of it, its reply, and what others must know about it:
//! its name, whether it may make the state larger, whether it takes long, whether it may be repeated when its outcome is
//! not known. The line is in the table in [`op`]. The compiler names what is missing of either.
//!
//! **Everything else derives from the table** and is written once over all operations: [`Command`] and [`Query`], which
//! hold any operation, [`CommandReply`] and [`QueryReply`], which hold any answer, and the encoding of all four. So
//! replicas, workers, the log, forwarding between nodes ([`crate::request`]), admission
//! ([`crate::health::admission`]), the labels of metrics and the fuzz targets know no operation by its name.
//!
//! **What stays to be written by hand** is what an operation means to those who ask: its message in the gRPC interface,
//! its method of the client, its command of the command line, and its step in the model of the checkers.

pub mod entry;
pub mod op;
pub mod state;

pub use op::*;
pub use state::{Machine, Record, ScanPage};
