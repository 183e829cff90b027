//! The whole distributed system of Ringfort, without I/O.
//!
//! Nothing in this crate opens a socket or a file, reads a clock, or draws a random number. Its callers drive it:
//! `handle_*` methods take an input together with the time, and return what to do as effects: messages to send, a batch
//! to make durable, replies to give. The shell (`ringfort-node`) performs the effects on threads, files and sockets;
//! the simulator performs the same effects on virtual time. Both run this code.
//!
//! | module | what it holds |
//! |---|---|
//! | [`types`], [`time`], [`limits`] | the vocabulary: newtypes, points in time, and every bound with what happens there |
//! | [`timing`] | a cluster's election timeout, and the times that follow from it |
//! | [`codec`] | the basic encodings of which entries and files consist |
//! | [`kv`] | the operations on keys, the entries that carry them, and the deterministic state that they change |
//! | [`request`] | requests to a shard, their replies, and their failures |
//! | [`disk`], [`log`], [`snapshot`] | bytes that survive a crash |
//! | [`log_writer`] | writing batches to the log: records, a full disk, the log's budget |
//! | [`replica`] | one shard's copy on this node: raft-rs and what surrounds it |
//! | [`view`] | a shard's map as read by other threads |
//! | [`message`], [`effects`] | the messages between nodes, and the effects of a turn |
//! | [`worker`] | the loop that runs many replicas and combines their work into few effects |
//! | [`boot`] | what a node has on disk when it starts, and how a cluster begins |
//! | [`start`], [`founding`] | what a node's directory determines about its start; whether the node creates a cluster |
//! | [`topology_store`] | saving topologies, and when a node may act on them |
//! | [`stopping`] | graceful stop of a node |
//! | [`health`] | whether a node is fit to lead, judged by its disk |
//! | [`gossip`] | what nodes exchange without a leader |
//! | [`liveness`] | which nodes are alive, judged by their heartbeats in gossip |
//! | [`eventual`] | the last-write-wins keyspace that gossip carries; [`version`]: its version vectors |
//! | [`divergence`] | whether replicas that applied the same entries hold the same state, and whether memory is undamaged |
//! | [`system`], [`control`] | the cluster's own replicated state, and the controller that moves replicas |

pub mod boot;
pub mod codec;
pub mod control;
pub mod disk;
pub mod divergence;
pub mod effects;
pub mod eventual;
pub mod founding;
pub mod gossip;
pub mod health;
pub mod kv;
pub mod limits;
pub mod liveness;
pub mod log;
pub mod log_writer;
pub mod message;
pub mod mutation;
pub mod replica;
pub mod request;
pub mod snapshot;
pub mod start;
pub mod stopping;
pub mod system;
pub mod time;
pub mod timing;
pub mod topology_store;
pub mod types;
pub mod version;
pub mod view;
pub mod worker;
