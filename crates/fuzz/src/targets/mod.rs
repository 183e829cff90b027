//! The fuzz targets: a parser, or a few that belong together, in each file.

pub mod command_line;
pub mod control;
pub mod directory;
pub mod entry;
pub mod gossip;
pub mod log;
pub mod request;
pub mod settings;
pub mod snapshot;
pub mod system;
pub mod wire;

use bytes::Bytes;

/// What a fuzzer runs.
pub struct Target {
    /// As `cargo fuzz run` knows it.
    pub name: &'static str,
    /// Panics where something does not hold that must hold for every input.
    pub body: fn(&[u8]),
    /// An input that the body takes for a valid encoding; any bytes decide which.
    pub seed: fn(&[u8]) -> Bytes,
}

pub const TARGETS: &[Target] = &[
    Target { name: "command_line", body: command_line::body, seed: command_line::seed },
    Target { name: "control", body: control::body, seed: control::seed },
    Target { name: "directory", body: directory::body, seed: directory::seed },
    Target { name: "entry", body: entry::body, seed: entry::seed },
    Target { name: "gossip", body: gossip::body, seed: gossip::seed },
    Target { name: "log", body: log::body, seed: log::seed },
    Target { name: "request", body: request::body, seed: request::seed },
    Target { name: "settings", body: settings::body, seed: settings::seed },
    Target { name: "snapshot", body: snapshot::body, seed: snapshot::seed },
    Target { name: "system", body: system::body, seed: system::seed },
    Target { name: "wire", body: wire::body, seed: wire::seed },
];
