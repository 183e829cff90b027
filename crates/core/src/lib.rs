//! The whole distributed system of Ringfort, without I/O.
//!
//! Nothing in this crate opens a socket or a file, reads a clock, or draws a random number. It is driven:
//! `handle_*` methods take an input together with the time, and what is to be done about it comes back as
//! effects — messages to send, a batch to make durable, replies to give. The shell (`ringfort-node`) performs the
//! effects on threads, files and sockets; the simulator performs the same effects on virtual time. Both run this code.
//!
//! | module | the idea in it |
//! |---|---|
//! | [`types`], [`time`], [`limits`] | the words: newtypes, points in time, every bound with what happens there |
//! | [`timing`] | a cluster's election timeout, and the times that follow from it |
//! | [`codec`] | the few encodings that everything of our own in entries and on disk is made of |
//! | [`kv`] | the operations on keys, the entries that carry them, and the deterministic state that they change |
//! | [`request`] | requests to a shard, their replies, and their failures |
//! | [`disk`], [`log`], [`snapshot`] | bytes that survive a crash |
//! | [`log_writer`] | batches on their way to the log: records, a full disk, the log's budget |
//! | [`replica`] | one shard's copy on this node: raft-rs and what it needs around it |
//! | [`view`] | a shard's map as the threads that answer reads see it |
//! | [`message`], [`effects`] | what nodes say to each other, and what a turn leaves to be done |
//! | [`worker`] | the loop that runs many replicas and turns their work into few effects |
//! | [`boot`] | what a node has on its disk when it starts, and how a cluster begins |
//! | [`start`], [`founding`] | what a node's directory says about its start; whether the node creates a cluster |
//! | [`topology_store`] | when a node may act on a topology that is on its way to the disk |
//! | [`stopping`] | how a node stops in good order |
//! | [`health`] | whether a node is fit to lead, judged by its disk |
//! | [`gossip`] | what nodes tell each other without a leader |
//! | [`liveness`] | which nodes are alive, judged by their heartbeats in gossip |
//! | [`eventual`] | the last-write-wins keyspace that gossip carries; [`version`]: its version vectors |
//! | [`divergence`] | whether replicas that applied the same hold the same, and memory what was written to it |
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
