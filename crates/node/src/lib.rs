//! A Ringfort node: the threads, files and sockets around [`ringfort_core`], which makes all decisions.
//!
//! ```text
//!  clients --gRPC--> service --> execute -----------> inbox --> worker thread --> log thread --> disk
//!                       |            |  (read_leased)             |   ^  |            |
//!                       '- answers <-'- peers (forwards)          |   |  |         durable
//!  nodes ---gRPC--> grpc::peer --------------------> inbox        |   '--|------------'
//!        <--gRPC--- peers (two lanes a node) <---- messages ------'      '--> snapshot thread, control thread
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | `node`, `start`, `join`, `dial_back` | a node's life from start to stop, and how it joins or creates a cluster; `node/parts` says which thread and which server uses which of the parts below |
//! | `config`, `start_error` | what an operator can set, and why a node does not start |
//! | `lifecycle` | why the node stops, and how far it is |
//! | `worker_thread`, `workers`, `inbox`, `responder` | the loop around a core worker, its input, and where its answers go |
//! | `log_thread`, `log_queue`, `spare_segments`, [`disk`] | group commit: one record and one sync for all waiting batches |
//! | `snapshot_thread`, `snapshot_transfer`, `sends`, `throttle` | snapshot files, and their transfer between nodes |
//! | `control_thread`, `saving` | the node's controller, and what it saves |
//! | `disk_watch`, `directory_watch` | check that the disk answers and that the directory still exists |
//! | `gossip_thread` | gossip, and the eventual keyspace |
//! | `peers`, `answers`, `batches`, [`convert`] | streams to and from the other nodes |
//! | `strangers` | calls from nodes of another cluster |
//! | `service`, `error_kind` | client requests, independent of the protocol: limits, keyspaces, deadlines, counting |
//! | `routing`, `execute` | the path of a request |
//! | `files` | how file descriptors are divided among clients, peers and the node itself |
//! | [`stderr`], `seldom` | log lines: no thread waits until they are written; rate limits |
//! | `admission` | refusals before a proposal: memory or disk full |
//! | `observer`, `board`, `shared_call`, `operator_calls` | the status of the node, for many readers at little cost |
//! | `grpc` | the gRPC services, and the connections they are served on |
//! | `http`, `metrics` | monitoring |
//!
//! This crate performs effects in the order that the core documents, and never branches on protocol state: the
//! simulator tests the same protocol code that ships.

mod admission;
mod answers;
mod batches;
mod board;
mod clock;
mod config;
mod control_thread;
pub mod convert;
mod dial_back;
mod directory_watch;
pub mod disk;
mod disk_watch;
mod error_kind;
mod events;
mod execute;
mod files;
mod gossip_thread;
mod grpc;
mod http;
mod in_flight;
mod inbox;
mod join;
mod lifecycle;
mod log_queue;
mod log_thread;
mod memory_watch;
mod metrics;
mod node;
mod observer;
mod operator_calls;
mod peers;
mod random;
mod responder;
mod routing;
mod saving;
mod scrub_thread;
mod seldom;
mod sends;
mod service;
mod shared_call;
mod snapshot_thread;
mod snapshot_transfer;
mod spare_segments;
mod start;
mod start_error;
pub mod stderr;
mod strangers;
mod threads;
mod throttle;
mod waits;
mod worker_thread;
mod workers;

pub use config::{DEFAULT_SHARDS, NodeConfig};
pub use node::{Node, NodeFailure};
pub use ringfort_core::gossip::GossipConfig;
pub use ringfort_core::kv::Kind;
pub use ringfort_core::limits::{CONCURRENT_MOVES, DISK_TIMEOUT, LEAD_AFTER, REPLACE_AFTER, SCRUB_BYTES_PER_SECOND};
pub use ringfort_core::replica::ReadMode;
pub use ringfort_core::system::MemberState;
pub use ringfort_core::system::topology::{NODE_NAME_RULE, is_node_name};
pub use ringfort_core::timing::Timing;
pub use start_error::StartError;
