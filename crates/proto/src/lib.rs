//! Ringfort on the wire: the messages and services of package `ringfort.v1`, and those of the system that Ringfort
//! replaces.
//!
//! The `.proto` files under `proto` are the source. This crate contains the code that `build.rs` generates from them,
//! and what a `.proto` file cannot express: the metadata beside the messages ([`metadata`]), how an error tells whether
//! a write was applied ([`outcome`]), and a bound on a map ([`gossip_request`]).
//!
//! Every `bytes` field is a [`bytes::Bytes`]: decoding takes a reference into the received buffer and copies nothing.
//! The price is that a stored key or value keeps its whole message alive; code that stores one must copy it.

pub mod address;
pub mod codec;
pub mod gossip_request;
pub mod metadata;
pub mod outcome;

/// Package `ringfort.v1`, as generated.
pub mod v1 {
    #![allow(clippy::all, reason = "generated code")]
    #![allow(rustdoc::all, reason = "comments of the .proto files are not written for rustdoc")]
    tonic::include_proto!("ringfort.v1");
}

/// Package `proto`, the interface of the system that Ringfort replaces, as generated.
pub mod original {
    #![allow(clippy::all, reason = "generated code")]
    #![allow(rustdoc::all, reason = "comments of the .proto files are not written for rustdoc")]
    tonic::include_proto!("proto");
    pub use crate::gossip_request::GossipRequest;
}

/// The compiled `.proto` files, for gRPC server reflection: an encoded `google.protobuf.FileDescriptorSet`.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("ringfort");
