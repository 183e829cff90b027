//! The keys and values of a shard: the operations on them, and the state that these produce.
//!
//! | module | what it holds |
//! |---|---|
//! | [`op`] | the operations, a file each, and the table that lists them |
//! | [`entry`] | an entry of a shard's Raft log: a timestamp and commands |
//! | [`state`] | the state machine, which commands change and queries read |
//!
//! **An operation is one file and one line.** The file in `op` holds its fields, their encoding and limits, the key
//! that it names, its effect on the state or what it reads, its reply, and its properties: its name, whether it may
//! make the state larger, whether it takes long, and whether it is safe to retry when its outcome is unknown. The line
//! is in the table in [`op`]. The compiler reports what is missing in either.
//!
//! **Everything else derives from the table** and is written once over all operations: [`Command`] and [`Query`], which
//! hold any operation, [`CommandReply`] and [`QueryReply`], which hold any answer, and the encoding of all four. So
//! replicas, workers, the log, forwarding between nodes ([`crate::request`]), admission ([`crate::health::admission`]),
//! metric labels and the fuzz targets do not know the individual operations.
//!
//! **What remains to be written by hand** are the interfaces of an operation and its model: its message in the gRPC
//! interface, its method of the client, its command on the command line, and its step in the checkers' model.

pub mod entry;
pub mod op;
pub mod state;

pub use op::*;
pub use state::{Machine, Record, ScanPage};
